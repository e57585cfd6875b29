//! Finds how a layer was compressed, so that its very bytes can be made again from its tar.
//!
//! Invariant: a recipe is given only for a stream that was read to its end, whose content has the checksum and length
//! that it says, and whose every byte the encoder makes again.

use std::io::{self, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};
use layermesh_proto::{
    Algorithm, ContentId,
    gzip::{EncoderId, HEADER_MAX, Header, HeaderError, Identifier, NoEncoder, Recipe, TRAILER_LEN},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{GZIP, ZSTD};

/// Bytes read, and inflated, at a time.
const BUFFER_LEN: usize = 64 << 10;
/// What stands in a tar at [`TAR_MAGIC_AT`].
const TAR: &[u8] = b"ustar";
const TAR_MAGIC_AT: usize = 257;

/// A layer whose compression is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// How it is made again.
    pub recipe: Recipe,
    /// The compressed blob.
    pub blob: Content,
    /// What it is compressed from. Its content id is the layer's diffID.
    pub tar: Content,
}

/// Bytes, by their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The digest, by SHA-256.
    pub id: ContentId,
    /// How many there are.
    pub len: u64,
}

/// Why there is no recipe.
#[derive(Debug, Error)]
pub enum NoRecipe {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Compressed by zstd.
    #[error(
        "it is compressed by zstd, whose output changes from version to version; layers pushed as gzip have recipes"
    )]
    Zstd,
    /// Not compressed.
    #[error("it is a tar that is not compressed")]
    Tar,
    /// Not gzip.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It ends too early.
    #[error("it ends in the middle of its gzip stream: get it again")]
    Short,
    /// No deflate stream.
    #[error("its gzip stream is damaged after {0} bytes: get it again")]
    Damaged(u64),
    /// Its content is not what its end says.
    #[error("its gzip stream is damaged: the checksum or the length of its content is another; get it again")]
    Checksum,
    /// More streams follow the first, as eStargz and some uses of pigz have it.
    #[error("it has more than one gzip stream in a row, as eStargz layers have; such layers have no recipe yet")]
    Streams,
    /// Something else follows.
    #[error("something that is not gzip follows its gzip stream")]
    Trailing,
    /// Made by a compressor that is not known here.
    #[error(transparent)]
    Encoder(#[from] NoEncoder),
}

/// Reads a layer to its end and tells how it was compressed. `progress` is told how many bytes were read so far.
///
/// Blocks: it reads, and compresses the content again, with one encoder or with several that make the same.
pub fn identify(source: impl Read, mut progress: impl FnMut(u64)) -> Result<Identified, NoRecipe> {
    let mut source = Source::new(source);
    let header = header(&mut source)?;
    let mut inflater = Inflating::new();
    while !inflater.ended {
        if source.rest().is_empty() && !source.fill()? {
            return Err(NoRecipe::Short);
        }
        let taken = inflater.step(source.rest()).ok_or(NoRecipe::Damaged(source.passed))?;
        source.pass(taken);
        progress(source.passed);
        if inflater.identifier.is_hopeless() {
            break;
        }
    }
    // Without an encoder the end is of no interest; this says how far the nearest came.
    if inflater.identifier.is_hopeless() {
        return Err(inflater.identifier.finish().map_or_else(NoRecipe::from, |_| NoRecipe::Short));
    }
    if source.trailer()? != inflater.trailer() {
        return Err(NoRecipe::Checksum);
    }
    source.must_end()?;
    let encoder = inflater.identifier.finish()?;
    let tar = Content::of(inflater.hasher, inflater.inflater.total_out());
    Ok(Identified { recipe: Recipe { encoder, header }, blob: Content::of(source.hasher, source.passed), tar })
}

fn header<R: Read>(source: &mut Source<R>) -> Result<Header, NoRecipe> {
    loop {
        match Header::read(source.rest()) {
            Ok(Some((header, len))) => {
                source.pass(len);
                return Ok(header);
            }
            Ok(None) if source.rest().len() > HEADER_MAX => return Err(HeaderError::Long.into()),
            Ok(None) if source.fill()? => {}
            Ok(None) => return Err(NoRecipe::Short),
            Err(HeaderError::NotGzip) if source.rest().starts_with(&ZSTD) => return Err(NoRecipe::Zstd),
            Err(HeaderError::NotGzip)
                if source.rest().get(TAR_MAGIC_AT..).is_some_and(|rest| rest.starts_with(TAR)) =>
            {
                return Err(NoRecipe::Tar);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is read, with what of it was not used yet.
struct Source<R> {
    reader: R,
    buffer: Vec<u8>,
    used: usize,
    passed: u64,
    hasher: Sha256,
}

impl<R: Read> Source<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::with_capacity(BUFFER_LEN), used: 0, passed: 0, hasher: Sha256::new() }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let read = self.reader.by_ref().take(BUFFER_LEN as u64).read_to_end(&mut self.buffer)?;
        Ok(read > 0)
    }

    fn pass(&mut self, len: usize) {
        self.hasher.update(&self.buffer[self.used..self.used + len]);
        self.used += len;
        self.passed += len as u64;
    }

    fn trailer(&mut self) -> Result<[u8; TRAILER_LEN], NoRecipe> {
        loop {
            if let Some(trailer) = self.rest().first_chunk().copied() {
                self.pass(TRAILER_LEN);
                return Ok(trailer);
            }
            if !self.fill()? {
                return Err(NoRecipe::Short);
            }
        }
    }

    fn must_end(&mut self) -> Result<(), NoRecipe> {
        while self.rest().len() < GZIP.len() && self.fill()? {}
        match self.rest() {
            [] => Ok(()),
            rest if rest.starts_with(&GZIP) => Err(NoRecipe::Streams),
            _ => Err(NoRecipe::Trailing),
        }
    }
}

/// The deflate stream on its way through the inflater, to the encoders.
struct Inflating {
    inflater: Decompress,
    out: Vec<u8>,
    ended: bool,
    checksum: Crc,
    hasher: Sha256,
    identifier: Identifier,
}

impl Inflating {
    fn new() -> Self {
        Self {
            inflater: Decompress::new(false),
            out: vec![0; BUFFER_LEN],
            ended: false,
            checksum: Crc::new(),
            hasher: Sha256::new(),
            identifier: Identifier::new(EncoderId::all()),
        }
    }

    /// Inflates some of `read` and tells how many bytes that took; `None` if it is no deflate stream.
    fn step(&mut self, read: &[u8]) -> Option<usize> {
        let before = (self.inflater.total_in(), self.inflater.total_out());
        let status = self.inflater.decompress(read, &mut self.out, FlushDecompress::None).ok()?;
        let taken = (self.inflater.total_in() - before.0) as usize;
        let made = &self.out[..(self.inflater.total_out() - before.1) as usize];
        self.ended = status == Status::StreamEnd;
        if taken == 0 && made.is_empty() && !self.ended {
            return None;
        }
        self.checksum.update(made);
        self.hasher.update(made);
        self.identifier.push(&read[..taken], made);
        Some(taken)
    }

    /// What the trailer has to be.
    fn trailer(&self) -> [u8; TRAILER_LEN] {
        let len = self.inflater.total_out() as u32;
        (u64::from(self.checksum.sum()) | u64::from(len) << 32).to_le_bytes()
    }
}

impl Content {
    fn of(hasher: Sha256, len: u64) -> Self {
        // A digest of this algorithm always has its length.
        let id = ContentId::from_digest(Algorithm::Sha256, &hasher.finalize());
        Self { id: id.unwrap_or_else(|| ContentId::of(Algorithm::Sha256, b"")), len }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use layermesh_proto::gzip::encode;

    use super::*;

    /// A tar's worth of bytes that compress.
    fn tar() -> Vec<u8> {
        (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 28) as u8 ^ (n / 700) as u8).collect()
    }

    fn layer() -> (Recipe, Vec<u8>) {
        let encoder = "go-gzip/1:6".parse().unwrap();
        let header = Header { mtime: 99, os: 255, ..Header::default() };
        let stream = encode(encoder, &header, &tar());
        (Recipe { encoder, header }, stream)
    }

    fn reason(bytes: &[u8]) -> String {
        identify(bytes, |_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_layer_is_made_again_by_its_recipe() {
        let (recipe, layer) = layer();
        let mut read = 0;
        let found = identify(&layer[..], |passed| read = passed).unwrap();
        assert_eq!(found.recipe, recipe);
        assert_eq!(found.blob, Content { id: ContentId::of(Algorithm::Sha256, &layer), len: layer.len() as u64 });
        assert_eq!(found.tar, Content { id: ContentId::of(Algorithm::Sha256, &tar()), len: tar().len() as u64 });
        assert!(read > layer.len() as u64 - 20);
        let (mut encoder, mut again) = (found.recipe.encoder(), Vec::new());
        encoder.write(&tar(), &mut again);
        encoder.finish(&mut again);
        assert!(again == layer);
    }

    #[test]
    fn what_cannot_be_made_again_is_told_apart() {
        let (_, layer) = layer();
        assert!(reason(&[&ZSTD[..], &[0; 90]].concat()).contains("zstd"));
        let mut tar = [0; 512];
        tar[TAR_MAGIC_AT..][..TAR.len()].copy_from_slice(TAR);
        assert!(reason(&tar).contains("not compressed"));
        assert!(reason(b"").contains("ends in the middle"));
        assert!(reason(b"hello").contains("does not begin as gzip does"));
        for cut in [5, 11, layer.len() / 2, layer.len() - 9, layer.len() - 1] {
            assert!(reason(&layer[..cut]).contains("ends in the middle"), "cut at {cut}");
        }
        let mut damaged = layer.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(reason(&damaged).contains("the length of its content"));
        damaged[last] ^= 1;
        // The first block's kind becomes one that does not exist.
        damaged[10] |= 6;
        assert!(reason(&damaged).contains("damaged after 10 bytes"));
        assert!(reason(&[&layer[..], &layer[..]].concat()).contains("more than one"));
        assert!(reason(&[&layer[..], &[0; 512]].concat()).contains("something that is not gzip"));
        let mut foreign = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        foreign.write_all(&self::tar()).unwrap();
        assert!(reason(&foreign.finish().unwrap()).contains("no encoder known here"));
    }

    #[test]
    fn reading_in_small_pieces_changes_nothing() {
        struct Dribble<'a>(&'a [u8]);
        impl Read for Dribble<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let len = buffer.len().min(7);
                self.0.read(&mut buffer[..len])
            }
        }
        let (recipe, layer) = layer();
        assert_eq!(identify(Dribble(&layer), |_| ()).unwrap().recipe, recipe);
    }
}
