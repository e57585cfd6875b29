//! Makes patches. This runs where images are published, and may take memory and time.
//!
//! Both tars are held, with indexes of the parts that are compared: about 2 bytes of memory for each byte of the tars
//! together, and up to 9 for each byte of the largest file that changed.
//!
//! Invariant: a patch is given only after it was applied and made the very blob.

mod align;
mod entries;
mod fill;
mod index;
mod plan;
mod window;

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use layermesh_proto::{
    Algorithm, ContentId, Verifier,
    patch::{HEAD_LEN, Header, Op, Sizes, WrongOp, encode},
};
use thiserror::Error;

use super::{
    GZIP, ZSTD,
    apply::{ApplyError, Limits, apply},
    recipe::{Identified, NoRecipe, identify},
};
use crate::config::units::show_bytes;

/// The longest tar that patches are made of, in bytes. Places are held in 32 bits; where addresses have no more than that
/// either, two tars with their indexes have to find room beside each other.
pub const TAR_MAX: u64 = if usize::BITS > 32 { u32::MAX as u64 - 1 } else { 512 << 20 };

/// How a patch is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What it may take to apply.
    pub sizes: Sizes,
}

/// A patch.
#[derive(Debug)]
pub struct Made {
    /// Its header.
    pub header: Header,
    /// All of its bytes.
    pub patch: Vec<u8>,
    /// Bytes of the new tar that lie along old ones.
    pub aligned: u64,
    /// Bytes that came before in the new tar.
    pub matched: u64,
    /// Bytes that are as they are.
    pub literal: u64,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The layers are read, and the new one's recipe is found.
    Read,
    /// The tars are compared.
    Compare,
    /// The patch is written.
    Write,
    /// It is applied, to see that it is right.
    Check,
}

/// Why no patch is made.
#[derive(Debug, Error)]
pub enum MakeError {
    /// The old layer could not be read, or inflated.
    #[error("the old layer cannot be read: {0}")]
    Old(#[source] io::Error),
    /// The new layer could not be read.
    #[error("the new layer cannot be read: {0}")]
    New(#[source] io::Error),
    /// The old layer is compressed by zstd.
    #[error("the old layer is compressed by zstd, and only those by gzip, and tars, are read; decompress it first")]
    Zstd,
    /// The new layer's bytes cannot be made again.
    #[error("the new layer has no recipe, and without one its bytes cannot be made again: {0}")]
    NoRecipe(#[from] NoRecipe),
    /// A tar is too long.
    #[error("{which} has a tar of more than {}: such layers go without deltas", show_bytes(TAR_MAX))]
    Long {
        /// Which of the two.
        which: &'static str,
    },
    /// The sizes are not those of a patch.
    #[error("no patch has such sizes: {0:?}")]
    Sizes(Sizes),
    /// The maker made a mistake.
    #[error("the patch came out wrong, which is a mistake of this program: {0}")]
    Wrong(#[from] Wrong),
}

/// A mistake of the maker.
#[derive(Debug, Error)]
pub enum Wrong {
    /// In what it planned.
    #[error(transparent)]
    Op(#[from] WrongOp),
    /// In what came out.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// In what came out of that.
    #[error("it makes another blob")]
    Blob,
}

/// Makes a patch that leads from the old layer, a tar or gzip of one, to the new layer, a blob as the registry has it.
/// `progress` is told the phase, and how much of the whole is done in it, of 1000.
///
/// Blocks, for seconds to minutes.
///
/// # Errors
/// If a layer cannot be read, or the new one's bytes cannot be made again from its tar.
pub fn make(
    old: impl Read,
    mut new: impl Read,
    options: &Options,
    mut progress: impl FnMut(Phase, u64),
) -> Result<Made, MakeError> {
    if !options.sizes.are_allowed() {
        return Err(MakeError::Sizes(options.sizes));
    }
    progress(Phase::Read, 0);
    let old = inflated(old)?;
    let mut blob = Vec::new();
    new.read_to_end(&mut blob).map_err(MakeError::New)?;
    let len = blob.len().max(1) as u64;
    let Identified { recipe, blob: named, tar } = identify(&blob[..], |read| progress(Phase::Read, read * 1000 / len))?;
    if tar.len > TAR_MAX {
        return Err(MakeError::Long { which: "the new layer" });
    }
    let mut new = Vec::with_capacity(tar.len as usize);
    MultiGzDecoder::new(&blob[..]).read_to_end(&mut new).map_err(MakeError::New)?;
    drop(blob);
    let head = old.len().min(HEAD_LEN as usize);
    let header = Header {
        sizes: options.sizes,
        base: ContentId::of(Algorithm::Sha256, &old),
        base_len: old.len() as u64,
        base_head: crc32fast::hash(&old[..head]),
        tar: tar.id,
        tar_len: tar.len,
        blob: named.id,
        blob_len: named.len,
        recipe,
    };
    let len = new.len().max(1) as u64;
    let ops = plan::plan(&old, &new, options.sizes, |planned| progress(Phase::Compare, planned * 1000 / len));
    progress(Phase::Write, 0);
    let patch = encode(&header, &old, &new, &ops).map_err(Wrong::from)?;
    drop(new);
    progress(Phase::Check, 0);
    check(&header, &old, &patch)?;
    Ok(Made::of(header, patch, &ops))
}

fn inflated(mut source: impl Read) -> Result<Vec<u8>, MakeError> {
    let mut bytes = Vec::new();
    source.by_ref().take(ZSTD.len() as u64).read_to_end(&mut bytes).map_err(MakeError::Old)?;
    if bytes == ZSTD {
        return Err(MakeError::Zstd);
    }
    let (gzip, begun) = (bytes.starts_with(&GZIP), io::Cursor::new(bytes).chain(source));
    let mut tar = Vec::new();
    let read = if gzip {
        MultiGzDecoder::new(begun).take(TAR_MAX + 1).read_to_end(&mut tar)
    } else {
        begun.take(TAR_MAX + 1).read_to_end(&mut tar)
    };
    match read.map_err(MakeError::Old)? as u64 {
        len if len > TAR_MAX => Err(MakeError::Long { which: "the old layer" }),
        _ => Ok(tar),
    }
}

/// Applies the patch and looks at what comes out.
fn check(header: &Header, old: &[u8], patch: &[u8]) -> Result<(), Wrong> {
    let mut sink = Sink(Verifier::new(header.blob));
    apply(old, patch, &mut sink, &Limits { memory: u64::MAX, tar_len: u64::MAX })?;
    sink.0.finish().map_err(|_| Wrong::Blob)
}

struct Sink(Verifier);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Made {
    fn of(header: Header, patch: Vec<u8>, ops: &[Op]) -> Self {
        let mut made = Self { header, patch, aligned: 0, matched: 0, literal: 0 };
        for op in ops {
            match *op {
                Op::Aligned { len, .. } => made.aligned += len,
                Op::Match { len, .. } => made.matched += len,
                Op::Literal { len } => made.literal += len,
            }
        }
        made
    }
}
