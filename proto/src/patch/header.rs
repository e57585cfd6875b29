//! What a patch begins with: between which contents it leads, and what it takes to apply it.
//!
//! Invariant: [`Header::read`] gives a header only if all of it is within what the format allows, its checksum is right,
//! and [`Header::put`] writes the same bytes.

use thiserror::Error;

use crate::{
    content::{Algorithm, ContentId},
    gzip::{self, EncoderId, Recipe, UnknownEncoder},
};

/// What a patch begins with.
pub const MAGIC: [u8; 8] = *b"\x89LMpatch";
/// The format's version.
const VERSION: u8 = 1;
/// Bytes before the digests.
const FIXED_LEN: usize = MAGIC.len() + 4 + 3 * 8;
/// The longest name of an encoder, in bytes.
const NAME_MAX: usize = 255;
/// The most bytes of a header.
pub const HEADER_MAX: usize = FIXED_LEN + 3 * (1 + 64) + 4 + 1 + NAME_MAX + 4 + gzip::HEADER_MAX + 4;
/// The longest tar or blob, in bytes: 1 TiB. Numbers of the format have at most 48 bits.
pub const LEN_MAX: u64 = 1 << 40;
/// So many first bytes of the old tar are checked before anything is made of it.
pub const HEAD_LEN: u64 = 64 << 10;

/// Binary logarithms that a window, a history and a model may have.
const WINDOW_LOGS: std::ops::RangeInclusive<u8> = 17..=30;
const HISTORY_LOGS: std::ops::RangeInclusive<u8> = 16..=27;
const MODEL_LOGS: std::ops::RangeInclusive<u8> = 14..=24;

/// How much memory a patch needs, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Binary logarithm of the bytes of the old tar that are held: 17 to 30.
    pub window_log: u8,
    /// The same of the new tar: 16 to 27.
    pub history_log: u8,
    /// The same of the contexts of bytes that are known, four bytes each: 14 to 24.
    pub model_log: u8,
}

impl Sizes {
    /// What a device with some memory to spare applies: 16 MiB of the old tar, 4 MiB of the new one; 25 MiB in all.
    pub const DEFAULT: Self = Self { window_log: 24, history_log: 22, model_log: 20 };
    /// What a tiny device applies: 4 MiB of the old tar, 1 MiB of the new one; 6.3 MiB in all.
    pub const TINY: Self = Self { window_log: 22, history_log: 20, model_log: 18 };

    /// Bytes that a decoder holds, beside some tables of at most 512 KiB.
    pub const fn memory(self) -> u64 {
        (1 << self.window_log) + (1 << self.history_log) + (5 << self.model_log)
    }

    /// Whether the format has such sizes.
    pub fn are_allowed(self) -> bool {
        WINDOW_LOGS.contains(&self.window_log)
            && HISTORY_LOGS.contains(&self.history_log)
            && MODEL_LOGS.contains(&self.model_log)
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A patch's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Memory to apply it.
    pub sizes: Sizes,
    /// The old layer's tar: its diffID.
    pub base: ContentId,
    /// Its bytes.
    pub base_len: u64,
    /// CRC-32 of its first [`HEAD_LEN`] bytes, or of all if there are less.
    pub base_head: u32,
    /// The new layer's tar: its diffID.
    pub tar: ContentId,
    /// Its bytes.
    pub tar_len: u64,
    /// The new layer's blob, as the registry has it.
    pub blob: ContentId,
    /// Its bytes.
    pub blob_len: u64,
    /// How it is compressed.
    pub recipe: Recipe,
}

/// Why bytes are no header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Something else than a patch.
    #[error("it does not begin as a patch does")]
    NotAPatch,
    /// A later format.
    #[error("it is a patch of format {0}, and this version knows format 1; a newer one may apply it")]
    Version(u8),
    /// A layer that is compressed in a way not known here.
    #[error(transparent)]
    Encoder(#[from] UnknownEncoder),
    /// Sizes or lengths beyond what the format has.
    #[error("its header asks for {0} beyond what the format allows")]
    Beyond(&'static str),
    /// Another checksum, or a part that cannot be.
    #[error("its header is damaged: get it again")]
    Damaged,
}

impl Header {
    /// The header that `bytes` begin with, and its length; `None` if more bytes are needed to tell.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(HeaderError::NotAPatch);
        }
        match bytes.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(version) => return Err(HeaderError::Version(*version)),
            None => return Ok(None),
        }
        let mut parts = Parts { rest: &bytes[MAGIC.len() + 1..] };
        match parts.header(bytes) {
            Ok(header) => Ok(Some((header, bytes.len() - parts.rest.len()))),
            Err(Stop::Short) if bytes.len() >= HEADER_MAX => Err(HeaderError::Damaged),
            Err(Stop::Short) => Ok(None),
            Err(Stop::Wrong(error)) => Err(error),
        }
    }

    /// Writes the header to the end of `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        let begun = out.len();
        out.extend_from_slice(&MAGIC);
        let Sizes { window_log, history_log, model_log } = self.sizes;
        out.extend_from_slice(&[VERSION, window_log, history_log, model_log]);
        for len in [self.base_len, self.tar_len, self.blob_len] {
            out.extend_from_slice(&len.to_le_bytes());
        }
        for id in [&self.base, &self.tar, &self.blob] {
            out.push(match id.algorithm() {
                Algorithm::Sha256 => 1,
                Algorithm::Sha512 => 2,
            });
            out.extend_from_slice(id.digest());
        }
        out.extend_from_slice(&self.base_head.to_le_bytes());
        let name = self.recipe.encoder.to_string();
        out.push(name.len().min(NAME_MAX) as u8);
        out.extend_from_slice(&name.as_bytes()[..name.len().min(NAME_MAX)]);
        let mut gzip = Vec::new();
        self.recipe.header.put(&mut gzip);
        out.extend_from_slice(&(gzip.len() as u32).to_le_bytes());
        out.extend_from_slice(&gzip);
        let checksum = crc32fast::hash(&out[begun..]);
        out.extend_from_slice(&checksum.to_le_bytes());
    }
}

/// Why a header is not read on.
enum Stop {
    Short,
    Wrong(HeaderError),
}

impl<E: Into<HeaderError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    /// What follows the version.
    fn header(&mut self, all: &[u8]) -> Result<Header, Stop> {
        let [window_log, history_log, model_log] = self.array()?;
        let sizes = Sizes { window_log, history_log, model_log };
        if !sizes.are_allowed() {
            return Err(HeaderError::Beyond("memory").into());
        }
        let mut lens = [0; 3];
        for len in &mut lens {
            *len = u64::from_le_bytes(self.array()?);
            if *len > LEN_MAX {
                return Err(HeaderError::Beyond("a length").into());
            }
        }
        let [base_len, tar_len, blob_len] = lens;
        let (base, tar, blob) = (self.id()?, self.id()?, self.id()?);
        let base_head = u32::from_le_bytes(self.array()?);
        let [name_len] = self.array()?;
        let name = self.take(name_len.into())?;
        let gzip_len = u32::from_le_bytes(self.array()?) as usize;
        if gzip_len > gzip::HEADER_MAX {
            return Err(HeaderError::Beyond("a gzip header").into());
        }
        let gzip = self.take(gzip_len)?;
        let before = all.len() - self.rest.len();
        if u32::from_le_bytes(self.array()?) != crc32fast::hash(&all[..before]) {
            return Err(HeaderError::Damaged.into());
        }
        let encoder: EncoderId = std::str::from_utf8(name).map_err(|_| HeaderError::Damaged)?.parse()?;
        match gzip::Header::read(gzip) {
            Ok(Some((header, len))) if len == gzip.len() => {
                let recipe = Recipe { encoder, header };
                Ok(Header { sizes, base, base_len, base_head, tar, tar_len, blob, blob_len, recipe })
            }
            _ => Err(HeaderError::Damaged.into()),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let (part, rest) = self.rest.split_at_checked(len).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (part, rest) = self.rest.split_first_chunk().ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(*part)
    }

    fn id(&mut self) -> Result<ContentId, Stop> {
        let [algorithm] = self.array()?;
        let algorithm = match algorithm {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return Err(HeaderError::Damaged.into()),
        };
        let digest = self.take(algorithm.digest_len())?;
        ContentId::from_digest(algorithm, digest).ok_or(Stop::Wrong(HeaderError::Damaged))
    }
}
