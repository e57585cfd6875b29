//! Levels 1 to 6: hash tables over a history of some blocks, one block searched at a time.
//!
//! Invariant: a position in a table is that in the history plus [`History::base`], and no position within reach of a
//! block is before the history's first byte.

use super::{
    super::symbols::{MATCH_MAX, STORED_MAX, Token, WINDOW, common_prefix},
    level3::Level3,
    level4::Level4,
    levels12::Levels12,
    levels56::Levels56,
};

/// Bytes of history. When a block has no room, all but a window of it goes.
const HISTORY_MAX: usize = 5 * STORED_MAX;
/// Positions are kept below twice this. In tests they come to it.
const BASE_MAX: i32 = if cfg!(test) { 1 << 18 } else { 1 << 30 };
/// The base that the first byte has: out of reach for an empty entry.
const FIRST_BASE: i32 = STORED_MAX as i32;
/// The longest match that one token takes when a longer one is split, if little would be left for the next.
const SPLIT: usize = MATCH_MAX - 3;
/// The shortest match that is found.
pub(super) const FOUND_MIN: usize = 4;
/// No match is looked for in the last bytes of a block.
pub(super) const MARGIN: usize = 11;
/// Shorter blocks are not searched.
pub(super) const BLOCK_MIN: usize = MARGIN + 2;

/// What matches may refer to, with the block that is searched at its end.
#[derive(Debug)]
pub(super) struct History {
    pub(super) bytes: Vec<u8>,
    pub(super) base: i32,
}

/// A compressor's search.
#[derive(Debug)]
pub(super) struct Fast {
    history: History,
    tables: Tables,
}

#[derive(Debug)]
enum Tables {
    Levels12(Levels12),
    Level3(Level3),
    Level4(Level4),
    Levels56(Levels56),
}

impl Fast {
    pub(super) fn new(level: u8) -> Self {
        let history = History { bytes: Vec::with_capacity(HISTORY_MAX), base: FIRST_BASE };
        let tables = match level {
            ..=2 => Tables::Levels12(Levels12::new(level == 2)),
            3 => Tables::Level3(Level3::new()),
            4 => Tables::Level4(Level4::new()),
            5.. => Tables::Levels56(Levels56::new(level != 5)),
        };
        Self { history, tables }
    }

    /// Appends to `tokens` what the block is; nothing if it has no match.
    pub(super) fn search(&mut self, block: &[u8], tokens: &mut Vec<Token>) {
        if self.history.base >= BASE_MAX {
            let less = self.history.base - FIRST_BASE;
            match &mut self.tables {
                Tables::Levels12(tables) => tables.rebase(less),
                Tables::Level3(tables) => tables.rebase(less),
                Tables::Level4(tables) => tables.rebase(less),
                Tables::Levels56(tables) => tables.rebase(less),
            }
            self.history.base = FIRST_BASE;
        }
        let start = self.history.append(block);
        match &mut self.tables {
            Tables::Levels12(tables) => tables.search(&self.history, start, tokens),
            Tables::Level3(tables) => tables.search(&self.history, start, tokens),
            Tables::Level4(tables) => tables.search(&self.history, start, tokens),
            Tables::Levels56(tables) => tables.search(&self.history, start, tokens),
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self) {
        self.history.base += (WINDOW + self.history.bytes.len()) as i32;
        self.history.bytes.clear();
    }
}

impl History {
    /// Appends a block and returns where it starts.
    fn append(&mut self, block: &[u8]) -> usize {
        if self.bytes.len() + block.len() > HISTORY_MAX {
            let gone = self.bytes.len() - WINDOW;
            self.bytes.drain(..gone);
            self.base += gone as i32;
        }
        self.bytes.extend_from_slice(block);
        self.bytes.len() - block.len()
    }

    /// A table's entry for a position.
    #[inline]
    pub(super) const fn entry(&self, at: usize) -> i32 {
        self.base + at as i32
    }

    /// Eight bytes, of which only the last of the history may be missing.
    #[inline]
    pub(super) fn word(&self, at: usize) -> u64 {
        self.bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn half(&self, at: usize) -> u32 {
        self.bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// How far an entry is before a position; far, if it is after it.
    #[inline]
    pub(super) const fn distance(&self, entry: i32, at: usize) -> usize {
        (self.entry(at) - entry) as usize
    }

    /// The position of an entry, if it is less than a window before `at` and has the same four bytes as `here`.
    #[inline]
    pub(super) fn same(&self, entry: i32, at: usize, here: u64) -> Option<usize> {
        self.same_within(entry, at, here, WINDOW - 1)
    }

    /// The position of an entry, if it is at most `reach` before `at` and has the same four bytes as `here`.
    #[inline]
    pub(super) fn same_within(&self, entry: i32, at: usize, here: u64, reach: usize) -> Option<usize> {
        let distance = self.distance(entry, at);
        let from = at.checked_sub(distance)?;
        (distance <= reach && self.half(from) == here as u32).then_some(from)
    }

    /// How long the match is whose first four bytes are the same.
    #[inline]
    pub(super) fn whole_length(&self, at: usize, from: usize) -> usize {
        FOUND_MIN + common_prefix(&self.bytes[at + FOUND_MIN..], &self.bytes[from + FOUND_MIN..])
    }

    /// The same, at most what one token takes.
    #[inline]
    pub(super) fn length(&self, at: usize, from: usize) -> usize {
        let end = self.bytes.len().min(at + MATCH_MAX);
        FOUND_MIN + common_prefix(&self.bytes[at + FOUND_MIN..end], &self.bytes[from + FOUND_MIN..])
    }
}

/// A match of `length` bytes at `at` that copies from `from`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    pub(super) at: usize,
    pub(super) from: usize,
    pub(super) length: usize,
}

impl Match {
    /// Extends it to the left, not beyond `done`, and appends it and the literals before it to `tokens`.
    #[inline]
    pub(super) fn take(mut self, history: &History, done: usize, tokens: &mut Vec<Token>) -> Self {
        while self.from > 0 && self.at > done && history.bytes[self.from - 1] == history.bytes[self.at - 1] {
            self.at -= 1;
            self.from -= 1;
            self.length += 1;
        }
        literals(&history.bytes[done..self.at], tokens);
        let (mut left, distance) = (self.length, self.at - self.from);
        while left > 0 {
            // What is left over must not be shorter than a match can be.
            let length = match left {
                0..=MATCH_MAX => left,
                259..=261 => SPLIT,
                _ => MATCH_MAX,
            };
            tokens.push(Token::copy(length, distance));
            left -= length;
        }
        self
    }
}

pub(super) fn literals(bytes: &[u8], tokens: &mut Vec<Token>) {
    tokens.extend(bytes.iter().map(|byte| Token::literal(*byte)));
}

/// A hash of the first four bytes, in so many bits.
#[inline]
pub(super) const fn hash4(word: u64, bits: u32) -> usize {
    ((word as u32).wrapping_mul(2_654_435_761) >> (32 - bits)) as usize
}

/// Of the first five.
#[inline]
pub(super) const fn hash5(word: u64, bits: u32) -> usize {
    ((word << 24).wrapping_mul(889_523_592_379) >> (64 - bits)) as usize
}

/// Of the first seven.
#[inline]
pub(super) const fn hash7(word: u64, bits: u32) -> usize {
    ((word << 8).wrapping_mul(58_295_818_150_454_627) >> (64 - bits)) as usize
}

/// Lowers entries by `less`. Those that become nothing were out of reach.
pub(super) fn lower(entries: &mut [i32], less: i32) {
    for entry in entries {
        *entry = entry.saturating_sub(less).max(0);
    }
}
