//! The second generation: github.com/klauspost/compress, and from Go 1.27 on `compress/flate`, which was made of it.
//!
//! Invariant: what comes out depends on the input alone, not on how it is cut into writes.

mod blocks;
mod fast;
mod lazy;
mod level3;
mod level4;
mod levels12;
mod levels56;
pub(super) mod pgzip;

use super::{
    Level,
    symbols::{STORED_MAX, Token},
};
use blocks::Blocks;
use fast::Fast;
use lazy::Lazy;

/// Bytes of a block at the level that looks for no matches.
const HUFFMAN_BLOCK: usize = 32 << 10;
/// At the levels that look for matches block by block, a last block below this is not searched,
const SEARCHED_MIN: usize = 128;
/// and one up to this is stored.
const STORED_ALWAYS: usize = 32;

/// What differs from version to version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    /// A block that the next may go on with lists all symbols in its tables, not only up to the last that it uses; and
    /// the block's end is not counted before new codes are made. So up to klauspost/compress 1.18.0.
    pub(super) whole_tables: bool,
    /// The literals' costs at level 9 are taken from the whole rest of the window, in 16 bits, not from the first
    /// 32768 bytes of it. So up to klauspost/compress 1.18.0.
    pub(super) whole_sample: bool,
    /// A literal that the sample does not have counts as one bit at level 9, not as none. So in Go.
    pub(super) literal_bit_min: u8,
    /// Codes come from Huffman's tree, where that is not too deep, and not from package-merge; and short last blocks are
    /// searched. So from klauspost/compress 1.20.4 on.
    pub(super) by_tree: bool,
}

impl Variant {
    /// klauspost/compress 1.15.11 to 1.18.0.
    pub(super) const FILLED: Self = Self { whole_tables: true, whole_sample: true, literal_bit_min: 0, by_tree: false };
    /// klauspost/compress 1.18.2 to 1.20.3.
    pub(super) const TRIMMED: Self =
        Self { whole_tables: false, whole_sample: false, literal_bit_min: 0, by_tree: false };
    /// klauspost/compress from 1.20.4 on.
    pub(super) const BY_TREE: Self = Self { by_tree: true, ..Self::TRIMMED };
    /// Go 1.27.
    pub(super) const GO: Self = Self { whole_tables: false, whole_sample: false, literal_bit_min: 1, by_tree: false };
}

/// A compressor of one level.
#[derive(Debug)]
pub(super) struct Go2 {
    blocks: Blocks,
    way: Way,
    variant: Variant,
}

#[derive(Debug)]
enum Way {
    /// No matches: blocks of literals, or stored ones.
    Plain {
        buffer: Vec<u8>,
        block: usize,
        coded: bool,
    },
    /// Blocks of 65535 bytes, each searched as a whole.
    Blockwise {
        fast: Fast,
        buffer: Vec<u8>,
        tokens: Vec<Token>,
    },
    Lazy(Box<Lazy>),
}

impl Go2 {
    pub(super) fn new(level: Level, variant: Variant) -> Self {
        let plain = |block, coded| Way::Plain { buffer: Vec::with_capacity(block), block, coded };
        let (way, penalty_shift) = match level {
            Level::Huffman => (plain(HUFFMAN_BLOCK, true), 10),
            Level::Number(0) => (plain(STORED_MAX, false), 0),
            Level::Number(number @ 1..=6) => {
                let (buffer, tokens) = (Vec::with_capacity(STORED_MAX), Vec::with_capacity(STORED_MAX));
                (Way::Blockwise { fast: Fast::new(number), buffer, tokens }, 7)
            }
            Level::Number(number) => (Way::Lazy(Box::new(Lazy::new(number, variant))), 8),
        };
        Self { blocks: Blocks::new(variant, penalty_shift), way, variant }
    }

    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        if let Way::Lazy(lazy) = &mut self.way {
            lazy.write(input, &mut self.blocks);
            return self.blocks.sink.drain_into(out);
        }
        while !input.is_empty() {
            let (buffer, block) = match &mut self.way {
                Way::Plain { buffer, block, .. } => (buffer, *block),
                Way::Blockwise { buffer, .. } => (buffer, STORED_MAX),
                Way::Lazy(_) => return,
            };
            // A block that is full waits until it is clear that more comes: the last is written otherwise.
            if buffer.len() == block {
                self.block(false);
                continue;
            }
            let taken = input.len().min(block - buffer.len());
            buffer.extend_from_slice(&input[..taken]);
            input = &input[taken..];
        }
        self.blocks.sink.drain_into(out);
    }

    /// Writes what waits.
    fn block(&mut self, sync: bool) {
        let Self { blocks, way, variant } = self;
        match way {
            Way::Plain { buffer, .. } if buffer.is_empty() => {}
            Way::Plain { buffer, coded, .. } => {
                if *coded {
                    blocks.literals(buffer, sync);
                } else {
                    blocks.stored(buffer);
                }
                buffer.clear();
            }
            Way::Blockwise { fast, buffer, tokens } => {
                let len = buffer.len();
                let (searched_min, stored_max) =
                    if variant.by_tree { (fast::BLOCK_MIN, 0) } else { (SEARCHED_MIN, STORED_ALWAYS) };
                if len >= searched_min {
                    fast.search(buffer, tokens);
                    if tokens.is_empty() && len >= SEARCHED_MIN {
                        blocks.stored(buffer);
                    } else if tokens.is_empty() || tokens.len() > len - (len >> 4) {
                        // Matches took away less than a sixteenth.
                        blocks.literals(buffer, sync);
                    } else {
                        blocks.matches(tokens, Some(buffer), sync);
                    }
                    tokens.clear();
                } else if len > stored_max && !variant.by_tree {
                    blocks.literals(buffer, true);
                } else if len > 0 {
                    blocks.stored(buffer);
                }
                buffer.clear();
            }
            Way::Lazy(lazy) => lazy.flush(blocks),
        }
    }

    /// Writes all that waits, up to a byte's border.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        self.block(true);
        self.blocks.stored(&[]);
        self.blocks.sink.drain_into(out);
    }

    /// Begins a new stream after a flush, which may refer to `dictionary`.
    pub(super) fn restart(&mut self, dictionary: &[u8]) {
        match &mut self.way {
            Way::Plain { .. } => {}
            Way::Blockwise { fast, tokens, .. } => {
                fast.reset();
                fast.search(dictionary, tokens);
                tokens.clear();
            }
            Way::Lazy(lazy) => lazy.restart(dictionary),
        }
    }

    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.block(true);
        self.end(out);
    }

    /// Ends the stream, in which nothing waits.
    pub(super) fn end(mut self, out: &mut Vec<u8>) {
        self.blocks.end();
        self.blocks.sink.drain_into(out);
    }
}
