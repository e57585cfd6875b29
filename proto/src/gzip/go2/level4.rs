//! Level 4: a table of four-byte hashes and one of seven-byte hashes.
//!
//! Invariant: what is before `done` is in tokens.

use super::{
    super::symbols::Token,
    fast::{BLOCK_MIN, History, MARGIN, Match, hash4, hash7, literals, lower},
};

/// Bits of a hash.
const HASH_BITS: u32 = 15;
/// A miss after 2^this bytes without a match makes the step one byte longer.
const STEP_SHIFT: usize = 6;

/// The tables.
#[derive(Debug)]
pub(super) struct Level4 {
    short: Box<[i32]>,
    long: Box<[i32]>,
}

impl Level4 {
    pub(super) fn new() -> Self {
        Self { short: vec![0; 1 << HASH_BITS].into_boxed_slice(), long: vec![0; 1 << HASH_BITS].into_boxed_slice() }
    }

    pub(super) fn rebase(&mut self, less: i32) {
        lower(&mut self.short, less);
        lower(&mut self.long, less);
    }

    pub(super) fn search(&mut self, history: &History, start: usize, tokens: &mut Vec<Token>) {
        let len = history.bytes.len();
        if len - start < BLOCK_MIN {
            return;
        }
        let limit = len - MARGIN;
        let (mut done, mut at, mut word) = (start, start, history.word(start));
        while let Some((found, from, next)) = self.seek(history, at, word, done, limit) {
            let length = history.whole_length(found, from);
            let taken = Match { at: found, from, length }.take(history, done, tokens);
            done = taken.at + taken.length;
            at = done.max(next + 1);
            if at >= limit {
                if at + 8 < len {
                    let word = history.word(at);
                    self.enter_short(word, history.entry(at));
                    self.enter_long(word, history.entry(at));
                }
                break;
            }
            for position in (next..at - 1).step_by(3) {
                let word = history.word(position);
                self.enter_long(word, history.entry(position));
                self.enter_long(word >> 8, history.entry(position + 1));
                self.enter_short(word >> 8, history.entry(position + 1));
            }
            let before = history.word(at - 1);
            self.enter_short(before, history.entry(at - 1));
            self.enter_long(before, history.entry(at - 1));
            word = before >> 8;
        }
        if !tokens.is_empty() {
            literals(&history.bytes[done..], tokens);
        }
    }

    /// The next match from `at` on: where, from where, and where the next lookup would have been.
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
            let next = at + 1 + ((at - done) >> STEP_SHIFT);
            if next > limit {
                return None;
            }
            let next_word = history.word(next);
            let short = self.enter_short(word, history.entry(at));
            let long = self.enter_long(word, history.entry(at));
            if let Some(from) = history.same(long, at, word) {
                return Some((at, from, next));
            }
            if let Some(from) = history.same(short, at, word) {
                // The long hash may have a longer one at the next position. Its length is not what is compared: the
                // tools take its distance for its position there.
                let long = self.long[hash7(next_word, HASH_BITS)];
                return match history.same(long, next, next_word) {
                    Some(later) if history.whole_length(next, next - later) > history.whole_length(at, from) => {
                        Some((next, later, next))
                    }
                    _ => Some((at, from, next)),
                };
            }
            (at, word) = (next, next_word);
        }
    }

    /// Returns what was there.
    #[inline]
    fn enter_short(&mut self, word: u64, entry: i32) -> i32 {
        std::mem::replace(&mut self.short[hash4(word, HASH_BITS)], entry)
    }

    /// Returns what was there.
    #[inline]
    fn enter_long(&mut self, word: u64, entry: i32) -> i32 {
        std::mem::replace(&mut self.long[hash7(word, HASH_BITS)], entry)
    }
}
