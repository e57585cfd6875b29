//! github.com/klauspost/pgzip: blocks that can be compressed side by side, joined to one stream.
//!
//! Each block is compressed for itself, with the last bytes of the one before as its dictionary, and flushed. Here they
//! come one after the other, and are written as they grow.
//!
//! Invariant: the block that grows has less than [`BLOCK`] bytes.

use super::super::Level;
use super::{Go2, Variant};

/// Bytes of a block, as long as nobody sets something else.
const BLOCK: usize = 1 << 20;
/// How much of a block the next one may refer to.
const DICTIONARY: usize = 16 << 10;

/// The compressor.
#[derive(Debug)]
pub(in super::super) struct Pgzip {
    inner: Go2,
    /// Bytes of the block so far.
    len: usize,
    /// The last of them.
    tail: Vec<u8>,
}

impl Pgzip {
    pub(in super::super) fn new(level: Level, variant: Variant) -> Self {
        Self { inner: Go2::new(level, variant), len: 0, tail: Vec::with_capacity(2 * DICTIONARY) }
    }

    pub(in super::super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            let (part, rest) = input.split_at(input.len().min(BLOCK - self.len));
            self.inner.write(part, out);
            self.len += part.len();
            self.keep(part);
            input = rest;
            if self.len == BLOCK {
                self.inner.flush(out);
                let excess = self.tail.len().saturating_sub(DICTIONARY);
                self.inner.restart(&self.tail[excess..]);
                self.tail.clear();
                self.len = 0;
            }
        }
    }

    pub(in super::super) fn finish(mut self, out: &mut Vec<u8>) {
        // The last block may be empty, and is flushed as well.
        self.inner.flush(out);
        self.inner.end(out);
    }

    /// Keeps at least the last bytes of the block, and at most twice that.
    fn keep(&mut self, part: &[u8]) {
        let part = &part[part.len().saturating_sub(DICTIONARY)..];
        if self.tail.len() + part.len() > 2 * DICTIONARY {
            self.tail.drain(..self.tail.len() - DICTIONARY);
        }
        self.tail.extend_from_slice(part);
    }
}
