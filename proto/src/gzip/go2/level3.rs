//! Level 3: one table of five-byte hashes with the last two positions of each.
//!
//! Invariant: what is before `done` is in tokens.

use super::{
    super::symbols::{Token, WINDOW},
    fast::{BLOCK_MIN, FOUND_MIN, History, MARGIN, Match, hash5, literals, lower},
};

/// Bits of a hash.
const HASH_BITS: u32 = 16;
/// A miss after 2^this bytes without a match makes the step one byte longer.
const STEP_SHIFT: usize = 7;
/// How far back a match may begin, where it is the newest position of its hash.
const REACH: usize = WINDOW - FOUND_MIN;

/// The table, the newest position first.
#[derive(Debug)]
pub(super) struct Level3(Box<[[i32; 2]]>);

impl Level3 {
    pub(super) fn new() -> Self {
        Self(vec![[0; 2]; 1 << HASH_BITS].into_boxed_slice())
    }

    pub(super) fn rebase(&mut self, less: i32) {
        lower(self.0.as_flattened_mut(), less);
    }

    pub(super) fn search(&mut self, history: &History, start: usize, tokens: &mut Vec<Token>) {
        let len = history.bytes.len();
        if len - start < BLOCK_MIN {
            return;
        }
        let limit = len - MARGIN;
        let (mut done, mut at, mut word) = (start, start, history.word(start));
        'block: while let Some((found, from, next)) = self.seek(history, at, word, done, limit) {
            at = found;
            let mut from = from;
            // As long as one match follows another directly.
            loop {
                let length = history.whole_length(at, from);
                let taken = Match { at, from, length }.take(history, done, tokens);
                done = taken.at + taken.length;
                at = done.max(next + 1);
                if at >= limit {
                    // Where the match was copied from ends, not where it ends.
                    let end = taken.from + taken.length;
                    if end + 8 < len {
                        self.enter(history.word(end), history.entry(end));
                    }
                    break 'block;
                }
                for position in (at - taken.length + 2..at - 5).step_by(6) {
                    self.enter(history.word(position), history.entry(position));
                }
                let before = history.word(at - 2);
                self.enter(before, history.entry(at - 2));
                self.enter(before >> 8, history.entry(at - 1));
                let here = before >> 16;
                let [newer, older] = self.enter(here, history.entry(at));
                let within = history.distance(newer, at) < REACH;
                let older = || history.same_within(older, at, here, REACH - 1).filter(|_| within);
                match history.same_within(newer, at, here, REACH - 1).or_else(older) {
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
            let now = history.word(next);
            let [newer, older] = self.enter(word, history.entry(at));
            if history.distance(newer, at) <= REACH {
                let from = match history.same_within(newer, at, word, REACH) {
                    Some(newer) => match history.same_within(older, at, word, REACH) {
                        Some(older) if history.whole_length(at, older) > history.whole_length(at, newer) => Some(older),
                        _ => Some(newer),
                    },
                    None => history.same_within(older, at, word, REACH - 1),
                };
                if let Some(from) = from {
                    return Some((at, from, next));
                }
            }
            (at, word) = (next, now);
        }
    }

    /// Returns what was there.
    #[inline]
    fn enter(&mut self, word: u64, entry: i32) -> [i32; 2] {
        let entries = &mut self.0[hash5(word, HASH_BITS)];
        std::mem::replace(entries, [entry, entries[0]])
    }
}
