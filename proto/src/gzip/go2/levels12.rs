//! Levels 1 and 2: one table of five-byte hashes, and every second position looked up.
//!
//! Level 2 has a larger table, and enters some of what its matches cover.
//!
//! Invariant: what is before `done` is in tokens.

use super::{
    super::symbols::{Token, WINDOW},
    fast::{BLOCK_MIN, History, MARGIN, Match, hash5, literals, lower},
};

/// Bits of a hash at level 1,
const HASH_BITS: u32 = 15;
/// and at level 2.
const HASH_BITS_WIDE: u32 = 17;
/// A miss after 2^this bytes without a match makes the step one byte longer.
const STEP_SHIFT: usize = 5;

/// The table.
#[derive(Debug)]
pub(super) struct Levels12 {
    table: Box<[i32]>,
    hash_bits: u32,
    /// Level 2.
    wide: bool,
}

impl Levels12 {
    pub(super) fn new(wide: bool) -> Self {
        let hash_bits = if wide { HASH_BITS_WIDE } else { HASH_BITS };
        Self { table: vec![0; 1 << hash_bits].into_boxed_slice(), hash_bits, wide }
    }

    pub(super) fn rebase(&mut self, less: i32) {
        lower(&mut self.table, less);
    }

    pub(super) fn search(&mut self, history: &History, start: usize, tokens: &mut Vec<Token>) {
        let len = history.bytes.len();
        if len - start < BLOCK_MIN {
            return;
        }
        let limit = len - MARGIN;
        let (mut done, mut at) = (start, start);
        let mut word = history.word(at);
        'block: while let Some((found, from, looked_at)) = self.seek(history, at, word, done, limit) {
            at = found;
            let mut from = from;
            // As long as one match follows another directly.
            loop {
                let length = history.whole_length(at, from);
                let taken = Match { at, from, length }.take(history, done, tokens);
                done = taken.at + taken.length;
                at = done.max(looked_at + 1);
                if at >= limit {
                    if at + taken.length + 8 < len {
                        self.enter(history.word(at), history.entry(at));
                    }
                    break 'block;
                }
                let before = history.word(at - 2);
                if self.wide {
                    self.enter_matched(history, at - taken.length + 2, at);
                    self.enter(before, history.entry(at - 2));
                    self.enter(before >> 8, history.entry(at - 1));
                } else {
                    self.enter(before, history.entry(at - 2));
                }
                let here = before >> 16;
                let candidate = self.enter(here, history.entry(at));
                match history.same_within(candidate, at, here, WINDOW) {
                    Some(next) => from = next,
                    None => {
                        word = here >> 8;
                        at += 1;
                        break;
                    }
                }
            }
        }
        if !tokens.is_empty() {
            literals(&history.bytes[done..], tokens);
        }
    }

    /// The next match from `at` on: where, from where, and up to where was looked.
    #[inline]
    fn seek(
        &mut self,
        history: &History,
        mut at: usize,
        mut word: u64,
        done: usize,
        limit: usize,
    ) -> Option<(usize, usize, usize)> {
        loop {
            let mut next = at + 2 + ((at - done) >> STEP_SHIFT);
            if next > limit {
                return None;
            }
            let now = history.word(next);
            let candidate = self.enter(word, history.entry(at));
            if let Some(from) = history.same(candidate, at, word) {
                self.enter(now, history.entry(next));
                return Some((at, from, next));
            }
            (word, at) = (now, next);
            next += 1;
            let candidate = self.enter(now, history.entry(at));
            if let Some(from) = history.same(candidate, at, word) {
                if !self.wide {
                    // By the hash of the position before it.
                    self.enter(now, history.entry(next));
                }
                return Some((at, from, next));
            }
            (word, at) = (now >> 8, next);
        }
    }

    /// Enters three in seven of the positions from `from` on.
    #[inline]
    fn enter_matched(&mut self, history: &History, from: usize, to: usize) {
        for position in (from..to - 5).step_by(7) {
            let word = history.word(position);
            self.enter(word, history.entry(position));
            self.enter(word >> 16, history.entry(position + 2));
            self.enter(word >> 32, history.entry(position + 4));
        }
    }

    /// Returns what was there.
    #[inline]
    fn enter(&mut self, word: u64, entry: i32) -> i32 {
        std::mem::replace(&mut self.table[hash5(word, self.hash_bits)], entry)
    }
}
