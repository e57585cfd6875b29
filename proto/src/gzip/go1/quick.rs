//! Level 1: one hash table over blocks of 65535 bytes, of which each sees the one before. After Snappy's compressor.
//!
//! Invariant: an entry of the table tells the four bytes that it was made from, so that a stale one is harmless.

use super::{
    super::symbols::{MATCH_MAX, STORED_MAX, Token, WINDOW, common_prefix},
    blocks::Blocks,
};

/// Bits of a hash.
const HASH_BITS: u32 = 14;
/// The multiplier of the hash.
const HASH_FACTOR: u32 = 0x1e35_a7bd;
/// The shortest match: what an entry of the table tells.
const USED_MIN: usize = 4;
/// No match is looked for in the last bytes of a block.
const MARGIN: usize = 15;
/// A last block below this is not searched for matches.
const SEARCHED_MIN: usize = 128;
/// A last block up to this is stored.
const STORED_ALWAYS: usize = 16;
/// Misses until the search takes steps of one byte more.
const MISSES_PER_STEP: usize = 32;
/// Positions in the table are kept below this. In tests they come to it.
const POSITION_REBASE: u32 = if cfg!(test) { 1 << 17 } else { 1 << 31 };

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    bytes: u32,
    position: u32,
}

/// The compressor of level 1.
#[derive(Debug)]
pub(super) struct Quick {
    blocks: Blocks,
    /// The block before, and then this one.
    buffer: Vec<u8>,
    /// How long the block before is.
    history: usize,
    /// The position of this block's first byte. The first is beyond reach of an empty entry.
    base: u32,
    table: Box<[Entry]>,
    tokens: Vec<Token>,
}

impl Quick {
    pub(super) fn new() -> Self {
        Self {
            blocks: Blocks::new(),
            buffer: Vec::with_capacity(2 * STORED_MAX),
            history: 0,
            base: STORED_MAX as u32,
            table: vec![Entry::default(); 1 << HASH_BITS].into_boxed_slice(),
            tokens: Vec::with_capacity(STORED_MAX),
        }
    }

    pub(super) fn write(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            if self.buffer.len() - self.history == STORED_MAX {
                self.block();
            }
            let taken = input.len().min(STORED_MAX - (self.buffer.len() - self.history));
            self.buffer.extend_from_slice(&input[..taken]);
            input = &input[taken..];
        }
        self.blocks.sink.drain_into(out);
    }

    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        let last = &self.buffer[self.history..];
        let len = last.len();
        if len >= SEARCHED_MIN {
            self.block();
        } else if len > STORED_ALWAYS {
            self.blocks.literals(last);
        } else if len > 0 {
            self.blocks.stored(last);
        }
        self.blocks.end();
        self.blocks.sink.drain_into(out);
    }

    /// Writes the block and makes it the one before.
    fn block(&mut self) {
        self.search();
        let block = &self.buffer[self.history..];
        let len = block.len();
        if self.tokens.len() > len - (len >> 4) {
            // Matches took away less than a sixteenth.
            self.blocks.literals(block);
        } else {
            self.blocks.dynamic(&self.tokens, block);
        }
        self.tokens.clear();
        self.base += len as u32;
        self.buffer.drain(..self.history);
        self.history = len;
        if self.base >= POSITION_REBASE {
            let less = self.base - (WINDOW as u32 + 1);
            for entry in &mut self.table {
                entry.position = entry.position.saturating_sub(less);
            }
            self.base -= less;
        }
    }

    /// Turns the block, of at least [`SEARCHED_MIN`] bytes, into tokens.
    fn search(&mut self) {
        let len = self.buffer.len() - self.history;
        let limit = len - MARGIN;
        // What is before it is in tokens, and where the next lookup is.
        let (mut done, mut at) = (0, 0);
        'block: loop {
            let mut misses = MISSES_PER_STEP;
            let mut distance = loop {
                let step = misses / MISSES_PER_STEP;
                misses += step;
                if at + step > limit {
                    break 'block;
                }
                if let Some(distance) = self.look_up(at) {
                    break distance;
                }
                at += step;
            };
            self.literals(done, at);
            // As long as one match follows another directly.
            loop {
                let length = self.match_length(at, distance);
                self.tokens.push(Token::copy(length, distance));
                at += length;
                done = at;
                if at >= limit {
                    break 'block;
                }
                self.enter(at - 1);
                match self.look_up(at) {
                    Some(next) => distance = next,
                    None => break,
                }
            }
            at += 1;
        }
        self.literals(done, len);
    }

    fn literals(&mut self, from: usize, to: usize) {
        let bytes = &self.buffer[self.history + from..self.history + to];
        self.tokens.extend(bytes.iter().map(|byte| Token::literal(*byte)));
    }

    /// Enters a position of the block; returns what was there in the table.
    #[inline]
    fn enter(&mut self, at: usize) -> (Entry, Entry) {
        let place = self.history + at;
        let bytes = self.buffer[place..].first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let hash = bytes.wrapping_mul(HASH_FACTOR) >> (u32::BITS - HASH_BITS);
        let new = Entry { bytes, position: self.base + at as u32 };
        (std::mem::replace(&mut self.table[hash as usize], new), new)
    }

    /// Enters a position, and tells how far back the same four bytes were, if the table knows.
    #[inline]
    fn look_up(&mut self, at: usize) -> Option<usize> {
        let (old, new) = self.enter(at);
        let distance = (new.position - old.position) as usize;
        (old.bytes == new.bytes && distance <= WINDOW).then_some(distance)
    }

    /// How long the match is of which the first four bytes are known to be the same.
    #[inline]
    fn match_length(&self, at: usize, distance: usize) -> usize {
        let place = self.history + at + USED_MIN;
        let Some(from) = place.checked_sub(distance) else { return USED_MIN };
        let end = self.buffer.len().min(place + MATCH_MAX - USED_MIN);
        USED_MIN + common_prefix(&self.buffer[place..end], &self.buffer[from..])
    }
}
