//! Makes a new layer from an old one and a patch: reads both once, in order, and writes the new blob once, in order.
//!
//! Nothing is kept beside what the patch's header says, no temporary file either. [`Patched`] is a reader of the new
//! *tar*, so that a patch can be applied to what another one gives; only the last tar is compressed.
//!
//! Invariant: a new tar is read to its end only if it is the one that the patch names. What was read before may be
//! wrong; who keeps it, checks the blob's digest, or drops it when an error follows.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use layermesh_proto::{
    ContentId, Verifier,
    gzip::Encoder,
    patch::{DecodeError, Decoder, HEAD_LEN, HEADER_MAX, Header, HeaderError, Need},
};
use thiserror::Error;

use super::{GZIP, ZSTD};
use crate::config::units::show_bytes;

/// Bytes read, made and written at a time.
const BUFFER_LEN: usize = 64 << 10;
/// What applying takes beside what the header asks for: an encoder, an inflater, buffers, tables.
const OVERHEAD: u64 = 3 << 20;

/// Bytes that one byte of a deflate stream can stand for at most: matches of 258 bytes in two bits each (RFC 1951).
const INFLATED_MAX: u64 = 1032;

/// How much a patch may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, of all patches of a chain together.
    pub memory: u64,
    /// Bytes of the new tar: it is never kept, but takes time to make.
    pub tar_len: u64,
}

impl Limits {
    /// 32 MiB of memory, which the default sizes of a patch stay below; 32 GiB of tar, more than layers have.
    pub const DEFAULT: Self = Self { memory: 32 << 20, tar_len: 32 << 30 };
    /// 12 MiB of memory, for devices that have little, and 32 GiB of tar.
    pub const TINY: Self = Self { memory: 12 << 20, ..Self::DEFAULT };

    /// The same for a layer of which it is known how many bytes it has compressed: its tar can be so much longer and no more.
    pub fn for_layer(self, size: u64) -> Self {
        Self { tar_len: self.tar_len.min(size.saturating_mul(INFLATED_MAX)), ..self }
    }

    /// Bytes of memory that the patches of these headers take, applied one after the other.
    pub fn needed<'a>(headers: impl IntoIterator<Item = &'a Header>) -> u64 {
        headers.into_iter().fold(OVERHEAD, |needed, header| needed + header.sizes.memory())
    }

    /// Whether the patches of these headers may be applied one after the other.
    ///
    /// # Errors
    /// With what is asked for beyond the limits.
    pub fn allow<'a>(&self, headers: impl IntoIterator<Item = &'a Header> + Clone) -> Result<(), ApplyError> {
        let needed = Self::needed(headers.clone());
        if let Some(long) = headers.into_iter().find(|header| header.tar_len > self.tar_len) {
            return Err(ApplyError::TarLen { asked: long.tar_len, allowed: self.tar_len });
        }
        if needed > self.memory { Err(ApplyError::Memory { needed, allowed: self.memory }) } else { Ok(()) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a patch is not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The patch could not be read.
    #[error("the patch cannot be read: {0}")]
    Patch(#[source] io::Error),
    /// The old layer could not be read, or inflated.
    #[error("the old layer cannot be read: {0}")]
    Base(#[source] io::Error),
    /// The new layer could not be written.
    #[error("the new layer cannot be written: {0}")]
    Out(#[source] io::Error),
    /// It is no patch, or not one for this version.
    #[error("this is no patch to apply: {0}")]
    Header(#[from] HeaderError),
    /// It asks for more memory than is allowed.
    #[error(
        "applying the patch takes {} of memory and {} are allowed; allow more, or have it made for tiny devices",
        show_bytes(*needed),
        show_bytes(*allowed)
    )]
    Memory {
        /// Bytes.
        needed: u64,
        /// Bytes.
        allowed: u64,
    },
    /// It makes a tar that is longer than what is allowed.
    #[error("the patch makes a tar of {}, and {} are allowed", show_bytes(*asked), show_bytes(*allowed))]
    TarLen {
        /// Bytes.
        asked: u64,
        /// Bytes.
        allowed: u64,
    },
    /// A patch of a chain is not for what the one before makes.
    #[error("the patches do not follow one another: one makes the tar {made}, and the next is for {wanted}")]
    Chain {
        /// What is made.
        made: ContentId,
        /// What is wanted.
        wanted: Box<ContentId>,
    },
    /// The old layer is compressed by zstd.
    #[error("the old layer is compressed by zstd, and only those by gzip, and tars, are read; decompress it first")]
    Zstd,
    /// The old layer is not the one that the patch is for.
    #[error("the old layer is not the one that the patch is for, which has the tar {wanted}: {difference}")]
    WrongBase {
        /// The diffID of the one that it is for.
        wanted: Box<ContentId>,
        /// How that shows.
        difference: Difference,
    },
    /// The old layer is the right one, and the patch does not lead to what it names.
    #[error("the patch is damaged, or was not made as patches are: {0}; get it again")]
    Damaged(#[from] DecodeError),
    /// All was followed and the tar is another.
    #[error("the patch is damaged, or was not made as patches are: it makes the tar {made}; get it again")]
    WrongTar {
        /// What came out.
        made: ContentId,
    },
    /// The tar is right and its compressed bytes are not as many as they should be.
    #[error("the patch names a wrong recipe: compressed, its tar has {made} bytes and not {wanted}; make it again")]
    WrongBlob {
        /// Bytes that came out, or so far.
        made: u64,
        /// Bytes that the patch says.
        wanted: u64,
    },
}

/// How a layer shows to be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Difference {
    /// By its first bytes.
    #[error("it begins with other bytes")]
    Head,
    /// By its length.
    #[error("its tar ends after {0} bytes")]
    Short(u64),
    /// By its digest.
    #[error("its tar is {0}")]
    Digest(ContentId),
}

impl ApplyError {
    /// What an error of a [`Patched`] is.
    fn of(error: io::Error, otherwise: impl FnOnce(io::Error) -> Self) -> Self {
        match error.downcast::<Self>() {
            Ok(inner) => inner,
            Err(error) => otherwise(error),
        }
    }
}

/// The header of a patch. Reads as little as that takes.
///
/// # Errors
/// If it cannot be read, or is no header of this version.
pub fn read_header(patch: impl Read) -> Result<Header, ApplyError> {
    Ok(PatchReader::open(patch)?.header)
}

/// Makes the blob that `patch` leads to from the old layer `base`, a tar or gzip of one, and writes it to `out` in order.
///
/// Blocks. What was written is right if it has the digest that the header names; this says nothing of it but its length.
///
/// # Errors
/// If something cannot be read or written, if the patch asks for more than the limits, or if patch and old layer are not
/// what the patch says. What was written until then is worth nothing.
pub fn apply(base: impl Read, patch: impl Read, out: impl Write, limits: &Limits) -> Result<Header, ApplyError> {
    apply_chain(base, [patch], out, limits)
}

/// The same by several patches, each for what the one before makes. With none there is nothing to make, and an error.
///
/// # Errors
/// As [`apply`], and if the patches do not follow one another.
pub fn apply_chain<'a, P: Read + 'a>(
    base: impl Read + 'a,
    patches: impl IntoIterator<Item = P>,
    out: impl Write,
    limits: &Limits,
) -> Result<Header, ApplyError> {
    let opened = patches.into_iter().map(PatchReader::open).collect::<Result<Vec<_>, _>>()?;
    limits.allow(opened.iter().map(|patch| &patch.header))?;
    for pair in opened.windows(2) {
        let (made, wanted) = (pair[0].header.tar, pair[1].header.base);
        if made != wanted {
            return Err(ApplyError::Chain { made, wanted: Box::new(wanted) });
        }
    }
    let Some(header) = opened.last().map(|last| last.header.clone()) else {
        return Err(ApplyError::Patch(io::ErrorKind::UnexpectedEof.into()));
    };
    let mut tar: Box<dyn Read + 'a> = Box::new(base);
    for patch in opened {
        tar = Box::new(Patched::new(tar, patch)?);
    }
    compress(tar, &header, out)?;
    Ok(header)
}

fn compress(mut tar: impl Read, header: &Header, mut out: impl Write) -> Result<(), ApplyError> {
    let (mut encoder, mut buffer, mut blob) = (header.recipe.encoder(), vec![0; BUFFER_LEN], Vec::new());
    let mut made = 0;
    let mut put = |blob: &mut Vec<u8>| {
        made += blob.len() as u64;
        if made > header.blob_len {
            return Err(ApplyError::WrongBlob { made, wanted: header.blob_len });
        }
        out.write_all(blob).map_err(ApplyError::Out)?;
        blob.clear();
        Ok(made)
    };
    loop {
        match tar.read(&mut buffer).map_err(|error| ApplyError::of(error, ApplyError::Base))? {
            0 => break,
            len => encoder.write(&buffer[..len], &mut blob),
        }
        put(&mut blob)?;
    }
    Encoder::finish(encoder, &mut blob);
    match put(&mut blob)? {
        made if made < header.blob_len => Err(ApplyError::WrongBlob { made, wanted: header.blob_len }),
        _ => out.flush().map_err(ApplyError::Out),
    }
}

/// A patch whose header was read.
#[derive(Debug)]
pub struct PatchReader<P> {
    /// Its header.
    pub header: Header,
    patch: P,
    /// What was read behind the header.
    rest: Vec<u8>,
    /// How much of that was used.
    used: usize,
}

impl<P: Read> PatchReader<P> {
    /// Reads the header.
    ///
    /// # Errors
    /// If it cannot be read, or is no header of this version.
    pub fn open(mut patch: P) -> Result<Self, ApplyError> {
        let mut rest = Vec::new();
        loop {
            let read = read_some(&mut patch, &mut rest, 4096).map_err(ApplyError::Patch)?;
            match Header::read(&rest)? {
                Some((header, used)) => return Ok(Self { header, patch, rest, used }),
                None if read == 0 || rest.len() > HEADER_MAX => return Err(DecodeError::Short.into()),
                None => {}
            }
        }
    }

    /// Hands more of the patch to the decoder.
    fn feed(&mut self, decoder: &mut Decoder) -> io::Result<()> {
        if self.used == self.rest.len() {
            self.rest.clear();
            self.used = 0;
            if read_some(&mut self.patch, &mut self.rest, BUFFER_LEN)? == 0 {
                decoder.end_patch();
            }
        }
        self.used += decoder.push_patch(&self.rest[self.used..]);
        Ok(())
    }
}

/// Reads once, `most` bytes at most, to the end of `buffer`.
fn read_some(source: &mut impl Read, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let begin = buffer.len();
    buffer.resize(begin + most, 0);
    let read = loop {
        match source.read(&mut buffer[begin..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read,
        }
    };
    buffer.truncate(begin + *read.as_ref().unwrap_or(&0));
    read
}

/// An old layer's tar, checked as it passes by.
struct Base<B: Read> {
    tar: Box<Source<B>>,
    wanted: ContentId,
    verifier: Verifier,
    buffer: Vec<u8>,
    used: usize,
    passed: u64,
}

enum Source<B: Read> {
    Gzip(MultiGzDecoder<Begun<B>>),
    Tar(Begun<B>),
}

/// A reader of which some bytes were looked at.
type Begun<B> = io::Chain<io::Cursor<Vec<u8>>, B>;

impl<B: Read> Base<B> {
    fn open(mut base: B, header: &Header) -> Result<Self, ApplyError> {
        let mut begin = Vec::new();
        while begin.len() < ZSTD.len() {
            let wanted = ZSTD.len() - begin.len();
            if read_some(&mut base, &mut begin, wanted).map_err(|error| ApplyError::of(error, ApplyError::Base))? == 0 {
                break;
            }
        }
        let (gzip, zstd) = (begin.starts_with(&GZIP), begin == ZSTD);
        if zstd {
            return Err(ApplyError::Zstd);
        }
        let begun = io::Cursor::new(begin).chain(base);
        let tar = Box::new(if gzip { Source::Gzip(MultiGzDecoder::new(begun)) } else { Source::Tar(begun) });
        let (wanted, verifier) = (header.base, Verifier::new(header.base));
        let mut base = Self { tar, wanted, verifier, buffer: Vec::new(), used: 0, passed: 0 };
        let head = HEAD_LEN.min(header.base_len);
        while (base.buffer.len() as u64) < head {
            if base.fill()? == 0 {
                return Err(base.wrong(Difference::Short(base.passed)));
            }
        }
        if crc32fast::hash(&base.buffer[..head as usize]) != header.base_head {
            return Err(base.wrong(Difference::Head));
        }
        Ok(base)
    }

    fn wrong(&self, difference: Difference) -> ApplyError {
        ApplyError::WrongBase { wanted: Box::new(self.wanted), difference }
    }

    /// Reads more of the tar.
    fn fill(&mut self) -> Result<usize, ApplyError> {
        let begin = self.buffer.len();
        let read = match &mut *self.tar {
            Source::Gzip(tar) => read_some(tar, &mut self.buffer, BUFFER_LEN),
            Source::Tar(tar) => read_some(tar, &mut self.buffer, BUFFER_LEN),
        };
        let read = read.map_err(|error| ApplyError::of(error, ApplyError::Base))?;
        self.verifier.update(&self.buffer[begin..]);
        self.passed += read as u64;
        Ok(read)
    }

    /// Hands more of the tar to the decoder.
    fn feed(&mut self, decoder: &mut Decoder) -> Result<(), ApplyError> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
            if self.fill()? == 0 {
                return Err(self.wrong(Difference::Short(self.passed)));
            }
        }
        self.used += decoder.push_old(&self.buffer[self.used..]);
        Ok(())
    }

    /// What went wrong, where the patch led astray: reads the old layer to its end to tell whether it is the right one.
    fn blame(mut self, otherwise: ApplyError) -> ApplyError {
        loop {
            self.buffer.clear();
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        let wanted = Box::new(self.wanted);
        match self.verifier.finish() {
            Ok(()) => otherwise,
            Err(mismatch) => ApplyError::WrongBase { wanted, difference: Difference::Digest(mismatch.found) },
        }
    }
}

/// The new tar of a patch, made as it is read. Its errors are [`ApplyError`]s within [`io::Error`]s.
pub struct Patched<B: Read, P> {
    /// Until the end, or an error.
    base: Option<Base<B>>,
    patch: PatchReader<P>,
    decoder: Decoder,
    verifier: Option<Verifier>,
    made: Vec<u8>,
    used: usize,
}

impl<B: Read, P: Read> Patched<B, P> {
    /// Begins to read the old layer. The limits were looked at: this allocates what the header asks for.
    ///
    /// # Errors
    /// If the old layer begins as another than the one that the patch is for, or cannot be read.
    pub fn new(base: B, patch: PatchReader<P>) -> Result<Self, ApplyError> {
        let base = Some(Base::open(base, &patch.header)?);
        let (decoder, verifier) = (Decoder::new(&patch.header), Some(Verifier::new(patch.header.tar)));
        Ok(Self { base, patch, decoder, verifier, made: Vec::with_capacity(BUFFER_LEN), used: 0 })
    }

    /// Makes more of the tar; nothing at its end.
    fn make(&mut self) -> Result<(), ApplyError> {
        let Some(base) = &mut self.base else { return Ok(()) };
        loop {
            match self.decoder.step(&mut self.made, BUFFER_LEN) {
                Ok(Need::Patch) => self.patch.feed(&mut self.decoder).map_err(ApplyError::Patch)?,
                Ok(Need::Old) => base.feed(&mut self.decoder)?,
                Ok(Need::Room) => break,
                Ok(Need::Nothing) => return self.end(),
                Err(error) => {
                    self.made.clear();
                    return Err(self.blame(error.into()));
                }
            }
        }
        self.verifier.iter_mut().for_each(|verifier| verifier.update(&self.made));
        Ok(())
    }

    fn end(&mut self) -> Result<(), ApplyError> {
        let Some(mut verifier) = self.verifier.take() else { return Ok(()) };
        verifier.update(&self.made);
        match verifier.finish() {
            Ok(()) => {
                self.base = None;
                Ok(())
            }
            Err(mismatch) => Err(self.blame(ApplyError::WrongTar { made: mismatch.found })),
        }
    }

    fn blame(&mut self, error: ApplyError) -> ApplyError {
        match self.base.take() {
            Some(base) => base.blame(error),
            None => error,
        }
    }
}

impl<B: Read, P: Read> Read for Patched<B, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.made.len() {
            self.made.clear();
            self.used = 0;
            self.make().map_err(io::Error::other)?;
        }
        let len = buffer.len().min(self.made.len() - self.used);
        buffer[..len].copy_from_slice(&self.made[self.used..self.used + len]);
        self.used += len;
        Ok(len)
    }
}
