//! Jean-loup Gailly's algorithm, as zlib and GNU gzip have it.
//!
//! Both look for matches in the same way, and make the same codes. They differ in where blocks end, and in what they
//! do within the last bytes of the input.
//!
//! Invariant: what comes out depends on the input alone, not on how it is cut into writes.

mod block;
mod chains;
pub(super) mod pigz;
pub(super) mod tree;

use super::Level;
use chains::Chains;

/// Whose choices, where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// zlib.
    Zlib,
    /// GNU gzip.
    Gnu,
}

impl Tool {
    /// Tokens of a block at most.
    const fn block_tokens(self) -> usize {
        match self {
            Self::Zlib => (1 << 14) - 1,
            Self::Gnu => (1 << 15) - 1,
        }
    }
}

/// The compressor of one level.
#[derive(Debug)]
pub(super) struct Zlib(Chains);

impl Zlib {
    pub(super) fn new(level: Level, tool: Tool) -> Self {
        Self(Chains::new(level.number(), tool))
    }

    pub(super) fn write(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.0.write(input, out);
    }

    pub(super) fn finish(self, out: &mut Vec<u8>) {
        self.0.finish(out);
    }
}
