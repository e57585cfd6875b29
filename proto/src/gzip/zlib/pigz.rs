//! pigz: parts that zlib can compress side by side, joined to one stream.
//!
//! Each part is compressed for itself, with the last window of the one before as its dictionary, and padded to whole
//! bytes by empty blocks. Here they come one after the other, and are written as they grow.

use super::{super::Level, Tool, chains::Chains};

/// Bytes of a part, as long as nobody sets something else.
const PART: usize = 128 << 10;

/// The compressor.
#[derive(Debug)]
pub(in super::super) struct Pigz {
    chains: Chains,
    /// Bytes of the part so far.
    len: usize,
}

impl Pigz {
    pub(in super::super) fn new(level: Level) -> Self {
        Self { chains: Chains::new(level.number(), Tool::Zlib), len: 0 }
    }

    pub(in super::super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            // A part ends only when there is more: the last one ends the stream.
            if self.len == PART {
                self.chains.part(out);
                self.len = 0;
            }
            let (part, rest) = input.split_at(input.len().min(PART - self.len));
            self.chains.write(part, out);
            self.len += part.len();
            input = rest;
        }
    }

    pub(in super::super) fn finish(self, out: &mut Vec<u8>) {
        self.chains.finish(out);
    }
}
