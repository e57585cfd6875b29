//! Encoders that write gzip streams as container tools write them, byte for byte.
//!
//! A layer's digest is that of its *compressed* bytes. Whoever makes a layer again from its tar, after a delta, has to
//! compress it exactly as the tool did that made it first. Deflate leaves all choices to the compressor: where matches
//! are looked for, which are taken, where blocks end, what codes they have. Each [`EncoderId`] stands for one set of
//! these choices for good:
//!
//! | id | what | which versions |
//! |---|---|---|
//! | `go-gzip/1:LEVEL` | Go's `compress/gzip`, first generation: docker, BuildKit, crane, ko | Go up to 1.26 |
//! | `go-gzip/2:LEVEL` | the second | Go from 1.27 on |
//! | `pgzip/1:LEVEL` | github.com/klauspost/pgzip: buildah, podman, skopeo | klauspost/compress 1.15.11 to 1.18.0; levels 7 to 9: from 1.15.15 |
//! | `pgzip/2:LEVEL` | the same | 1.18.2 to 1.20.3 |
//! | `pgzip/3:LEVEL` | the same | from 1.20.4 on |
//! | `zlib/1:LEVEL` | zlib: Python, bsdtar, and many others | 1.2.3 to 1.3.1 |
//! | `gnu-gzip/1:LEVEL` | GNU gzip | 1.12 and 1.13 |
//! | `pigz/1:LEVEL` | pigz with two threads or more | 2.6, with zlib from 1.2.6 on |
//!
//! An encoder holds 0.3 to 1.2 MB, whatever it compresses: a window or some blocks of history, hash tables, and the tokens
//! of one block.
//!
//! The encoders are written anew to the published algorithms and checked against the tools themselves
//! (`scripts/golden-gzip`). Default levels are named by the number that they stand for.
//!
//! Invariant: what an encoder writes depends on its id, the header and the input alone, not on how the input is cut,
//! on the machine or on this crate's version; a change of a single byte is a new id.

mod bits;
mod go1;
mod go2;
mod header;
mod huffman;
mod identify;
mod symbols;
mod tables;
mod tally;
#[cfg(test)]
mod tests;
mod zlib;

use std::{fmt, str::FromStr};

use thiserror::Error;

use go2::{Variant, pgzip::Pgzip};
pub use header::{HEADER_MAX, Header, HeaderError};
pub use identify::{Identifier, NoEncoder};
use zlib::{Tool, Zlib, pigz::Pigz};

/// Bytes of the checksum and the length at the end of a gzip stream.
pub const TRAILER_LEN: usize = 8;

/// A tool's compressor, all levels of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Go1,
    Go2,
    Pgzip1,
    Pgzip2,
    Pgzip3,
    Zlib1,
    GnuGzip1,
    Pigz1,
}

impl Family {
    const ALL: [Self; 8] =
        [Self::Go1, Self::Go2, Self::Pgzip1, Self::Pgzip2, Self::Pgzip3, Self::Zlib1, Self::GnuGzip1, Self::Pigz1];

    const fn name(self) -> &'static str {
        match self {
            Self::Go1 => "go-gzip/1",
            Self::Go2 => "go-gzip/2",
            Self::Pgzip1 => "pgzip/1",
            Self::Pgzip2 => "pgzip/2",
            Self::Pgzip3 => "pgzip/3",
            Self::Zlib1 => "zlib/1",
            Self::GnuGzip1 => "gnu-gzip/1",
            Self::Pigz1 => "pigz/1",
        }
    }

    const fn tool(self) -> &'static str {
        match self {
            Self::Go1 => "Go up to 1.26",
            Self::Go2 => "Go from 1.27 on",
            Self::Pgzip1 => "pgzip with klauspost/compress 1.15.11 to 1.18.0",
            Self::Pgzip2 => "pgzip with klauspost/compress 1.18.2 to 1.20.3",
            Self::Pgzip3 => "pgzip with klauspost/compress from 1.20.4 on",
            Self::Zlib1 => "zlib",
            Self::GnuGzip1 => "GNU gzip",
            Self::Pigz1 => "pigz",
        }
    }

    /// Whether there is an encoder of this level.
    const fn has(self, level: Level) -> bool {
        match self {
            Self::Go1 | Self::Go2 | Self::Pgzip1 | Self::Pgzip2 | Self::Pgzip3 => true,
            // What zlib stores at level 0 depends on the room that its caller gives it.
            Self::Zlib1 | Self::GnuGzip1 | Self::Pigz1 => level.number() > 0,
        }
    }
}

/// How much effort a compressor makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// No matches, only a code for literals.
    Huffman,
    /// 0 to 9.
    Number(u8),
}

impl Level {
    /// Its number; zero without matches.
    const fn number(self) -> u8 {
        match self {
            Self::Huffman => 0,
            Self::Number(number) => number,
        }
    }
}

/// An encoder, by a name that stays: `go-gzip/1:6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EncoderId {
    family: Family,
    level: Level,
}

/// A name that no encoder of this version has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this version has no encoder {0:?}; a newer one may have it")]
pub struct UnknownEncoder(String);

impl EncoderId {
    /// The most common.
    const FIRST: Self = Self { family: Family::Go1, level: Level::Number(6) };

    /// All encoders, the most common first.
    pub fn all() -> impl Iterator<Item = Self> {
        // Defaults, then the extremes, then the others.
        let levels = [6, 9, 1, 5, 7, 8, 4, 3, 2, 0].map(Level::Number).into_iter().chain([Level::Huffman]);
        levels.flat_map(|level| Family::ALL.map(|family| Self { family, level })).filter(|id| id.family.has(id.level))
    }
}

impl fmt::Display for EncoderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Huffman => write!(f, "{}:huffman", self.family.name()),
            Level::Number(number) => write!(f, "{}:{number}", self.family.name()),
        }
    }
}

impl FromStr for EncoderId {
    type Err = UnknownEncoder;

    fn from_str(text: &str) -> Result<Self, UnknownEncoder> {
        Self::all().find(|id| id.to_string() == text).ok_or_else(|| UnknownEncoder(text.to_owned()))
    }
}

impl EncoderId {
    /// What it is, for people: `Go up to 1.26, level 6`.
    pub fn description(self) -> String {
        let tool = self.family.tool();
        match self.level {
            Level::Huffman => format!("{tool}, Huffman codes only"),
            Level::Number(number) => format!("{tool}, level {number}"),
        }
    }
}

/// How a stream is made again from its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Who compressed it.
    pub encoder: EncoderId,
    /// What it began with.
    pub header: Header,
}

impl Recipe {
    /// An encoder at the beginning of the stream.
    pub fn encoder(&self) -> Encoder {
        Encoder::new(self.encoder, &self.header)
    }
}

/// Compresses to a bare deflate stream.
#[derive(Debug)]
pub struct Deflater(Inner);

#[derive(Debug)]
enum Inner {
    Go1(go1::Go1),
    Go2(go2::Go2),
    Pgzip(Pgzip),
    Zlib(Zlib),
    Pigz(Pigz),
}

impl Deflater {
    /// A compressor at the beginning of a stream.
    pub fn new(id: EncoderId) -> Self {
        Self(match id.family {
            Family::Go1 => Inner::Go1(go1::Go1::new(id.level)),
            Family::Go2 => Inner::Go2(go2::Go2::new(id.level, Variant::GO)),
            Family::Pgzip1 => Inner::Pgzip(Pgzip::new(id.level, Variant::FILLED)),
            Family::Pgzip2 => Inner::Pgzip(Pgzip::new(id.level, Variant::TRIMMED)),
            Family::Pgzip3 => Inner::Pgzip(Pgzip::new(id.level, Variant::BY_TREE)),
            Family::Zlib1 => Inner::Zlib(Zlib::new(id.level, Tool::Zlib)),
            Family::GnuGzip1 => Inner::Zlib(Zlib::new(id.level, Tool::Gnu)),
            Family::Pigz1 => Inner::Pigz(Pigz::new(id.level)),
        })
    }

    /// Takes input, and appends to `out` what is ready.
    pub fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            Inner::Go1(go1) => go1.write(input, out),
            Inner::Go2(go2) => go2.write(input, out),
            Inner::Pgzip(pgzip) => pgzip.write(input, out),
            Inner::Zlib(zlib) => zlib.write(input, out),
            Inner::Pigz(pigz) => pigz.write(input, out),
        }
    }

    /// Ends the stream and appends the rest of it to `out`.
    pub fn finish(self, out: &mut Vec<u8>) {
        match self.0 {
            Inner::Go1(go1) => go1.finish(out),
            Inner::Go2(go2) => go2.finish(out),
            Inner::Pgzip(pgzip) => pgzip.finish(out),
            Inner::Zlib(zlib) => zlib.finish(out),
            Inner::Pigz(pigz) => pigz.finish(out),
        }
    }
}

/// Compresses to a gzip stream.
#[derive(Debug)]
pub struct Encoder {
    /// The header, until the first call.
    header: Vec<u8>,
    deflater: Deflater,
    checksum: crc32fast::Hasher,
    /// Modulo 2³², as the format has it.
    len: u32,
}

impl Encoder {
    /// An encoder at the beginning of a stream.
    pub fn new(id: EncoderId, header: &Header) -> Self {
        let mut bytes = Vec::new();
        header.put(&mut bytes);
        Self { header: bytes, deflater: Deflater::new(id), checksum: crc32fast::Hasher::new(), len: 0 }
    }

    /// Takes input, and appends to `out` what is ready.
    pub fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.checksum.update(input);
        self.len = self.len.wrapping_add(input.len() as u32);
        self.deflater.write(input, out);
    }

    /// Ends the stream and appends the rest of it to `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        out.append(&mut self.header);
        self.deflater.finish(out);
        out.extend_from_slice(&self.checksum.finalize().to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }
}

/// The whole stream of `data` at once.
pub fn encode(id: EncoderId, header: &Header, data: &[u8]) -> Vec<u8> {
    let (mut encoder, mut out) = (Encoder::new(id, header), Vec::new());
    encoder.write(data, &mut out);
    encoder.finish(&mut out);
    out
}
