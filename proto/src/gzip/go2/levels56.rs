//! Levels 5 and 6: a table of four-byte hashes, and one of seven-byte hashes with the last two positions of each.
//!
//! Level 6 enters more positions, tries what the match before copied from, and looks longer for a better end.
//!
//! Invariant: what is before `done` is in tokens, and every entry is before the position that is looked up next.

use super::{
    super::symbols::{MATCH_MAX, Token, WINDOW, common_prefix},
    fast::{BLOCK_MIN, History, MARGIN, Match, hash4, hash7, literals, lower},
};

/// Bits of a hash.
const HASH_BITS: u32 = 15;
/// A better match may begin so much later than the one that is there.
const SKIPPED: usize = 2;
/// At level 5 a match of this length is not tried to be bettered.
const LONG_ENOUGH: usize = 30;

/// The tables.
#[derive(Debug)]
pub(super) struct Levels56 {
    short: Box<[i32]>,
    /// The newest first.
    long: Box<[[i32; 2]]>,
    /// Level 6.
    thorough: bool,
    /// A miss after 2^this bytes without a match makes the step one byte longer.
    step_shift: usize,
}

/// What a search found.
struct Found {
    at: usize,
    from: usize,
    /// Zero if it was not measured; at most [`MATCH_MAX`].
    length: usize,
    /// Up to here positions are in the tables.
    looked_at: usize,
}

impl Levels56 {
    pub(super) fn new(thorough: bool) -> Self {
        Self {
            short: vec![0; 1 << HASH_BITS].into_boxed_slice(),
            long: vec![[0; 2]; 1 << HASH_BITS].into_boxed_slice(),
            thorough,
            step_shift: if thorough { 7 } else { 6 },
        }
    }

    pub(super) fn rebase(&mut self, less: i32) {
        lower(&mut self.short, less);
        lower(self.long.as_flattened_mut(), less);
    }

    pub(super) fn search(&mut self, history: &History, start: usize, tokens: &mut Vec<Token>) {
        let len = history.bytes.len();
        if len - start < BLOCK_MIN {
            return;
        }
        let limit = len - MARGIN;
        let (mut done, mut at, mut repeated, mut word) = (start, start, 1, history.word(start));
        while let Some(found) = self.seek(history, (at, word), done, limit, repeated) {
            let looked_at = found.looked_at;
            let taken = self.better(history, found, limit).take(history, done, tokens);
            repeated = taken.at - taken.from;
            done = taken.at + taken.length;
            at = done.max(looked_at + 1);
            if at >= limit {
                if self.thorough {
                    for position in (looked_at + 1..len.saturating_sub(8)).step_by(2) {
                        let word = history.word(position);
                        self.enter_short(word, history.entry(position));
                        self.enter_long(word, history.entry(position));
                    }
                }
                break;
            }
            word = if self.thorough {
                self.enter_densely(history, looked_at + 1, at);
                history.word(at)
            } else {
                self.enter_sparsely(history, at - taken.length + 1, at);
                let before = history.word(at - 1);
                self.enter_short(before, history.entry(at - 1));
                self.enter_long(before, history.entry(at - 1));
                before >> 8
            };
        }
        if !tokens.is_empty() {
            literals(&history.bytes[done..], tokens);
        }
    }

    /// The next match from `at` on, whose bytes `word` begins with.
    #[inline]
    fn seek(
        &mut self,
        history: &History,
        (mut at, mut word): (usize, u64),
        done: usize,
        limit: usize,
        repeated: usize,
    ) -> Option<Found> {
        loop {
            let next = at + 1 + ((at - done) >> self.step_shift);
            if next > limit {
                return None;
            }
            let short = self.enter_short(word, history.entry(at));
            let [newer, older] = self.enter_long(word, history.entry(at));
            let next_word = history.word(next);
            // The older one counts only if the newer one is within reach.
            let within = history.distance(newer, at) < WINDOW;
            let newer = history.same(newer, at, word);
            let older = if within { history.same(older, at, word) } else { None };
            if let Some(from) = newer.or(older) {
                self.enter_short(next_word, history.entry(next));
                self.enter_long(next_word, history.entry(next));
                let mut found = Found { at, from, length: 0, looked_at: next };
                if let (Some(newer), Some(older)) = (newer, older) {
                    let lengths = (history.length(at, newer), history.length(at, older));
                    (found.from, found.length) =
                        if lengths.1 > lengths.0 { (older, lengths.1) } else { (newer, lengths.0) };
                }
                return Some(found);
            }
            if let Some(from) = history.same(short, at, word) {
                let length = history.length(at, from);
                self.enter_short(next_word, history.entry(next));
                let long = self.enter_long(next_word, history.entry(next));
                let found = Found { at, from, length, looked_at: next };
                return Some(self.instead(history, found, (word, next_word), long, repeated));
            }
            (at, word) = (next, next_word);
        }
    }

    /// What is better than a match that only the short hash found: one a little later.
    #[inline]
    fn instead(
        &self,
        history: &History,
        mut found: Found,
        (word, next_word): (u64, u64),
        [newer, older]: [i32; 2],
        repeated: usize,
    ) -> Found {
        let next = found.looked_at;
        if self.thorough {
            // As far back as the match before, one byte on.
            let (at, from) = (found.at + 1, found.at + 1 - repeated);
            if history.half(from) == (word >> 8) as u32 {
                let length = history.length(at, from);
                if length > found.length {
                    return Found { at, from, length, looked_at: next };
                }
            }
        }
        let within = history.distance(newer, next) < WINDOW;
        for entry in [newer, older] {
            let candidate = if within { history.same(entry, next, next_word) } else { None };
            let Some(from) = candidate else { continue };
            let length = history.length(next, from);
            if length > found.length {
                found = Found { at: next, from, length, looked_at: next };
                if !self.thorough {
                    break;
                }
            }
        }
        found
    }

    /// The match in its whole length, or a longer one that ends where its end's hash leads to.
    #[inline]
    fn better(&self, history: &History, found: Found, limit: usize) -> Match {
        let Found { at, from, mut length, .. } = found;
        if length == 0 {
            length = history.whole_length(at, from);
        } else if length == MATCH_MAX {
            length += common_prefix(&history.bytes[at + length..], &history.bytes[from + length..]);
        }
        let mut best = Match { at, from, length };
        let end = at + length;
        if end >= limit || !self.thorough && length >= LONG_ENOUGH {
            return best;
        }
        let entries = self.long[hash7(history.word(end), HASH_BITS)];
        let later = at + SKIPPED;
        for entry in entries {
            // In the older one's turn the match may already be longer: it is that length which is counted back by.
            let from = i64::from(entry - history.base) - best.length as i64 + SKIPPED as i64;
            let distance = later as i64 - from;
            if distance > 0 && distance < WINDOW as i64 && from >= 0 {
                let from = from as usize;
                let length = common_prefix(&history.bytes[later..], &history.bytes[from..]);
                if length > best.length {
                    best = Match { at: later, from, length };
                }
            }
            if !self.thorough || distance >= WINDOW as i64 {
                break;
            }
        }
        best
    }

    /// Enters what lies between `from` and the position before `to`: each second, and in the long table each.
    #[inline]
    fn enter_densely(&mut self, history: &History, from: usize, to: usize) {
        for position in (from..to - 1).step_by(2) {
            let word = history.word(position);
            self.enter_long(word, history.entry(position));
            self.enter_long(word >> 8, history.entry(position + 1));
            self.enter_short(word, history.entry(position));
        }
    }

    /// Enters a third of it.
    #[inline]
    fn enter_sparsely(&mut self, history: &History, from: usize, to: usize) {
        if from >= to - 1 {
            return;
        }
        let word = history.word(from);
        self.enter_short(word, history.entry(from));
        self.enter_long(word, history.entry(from));
        self.enter_long(word >> 8, history.entry(from + 1));
        self.enter_short(word >> 16, history.entry(from + 2));
        for position in (from + 4..to - 1).step_by(3) {
            let word = history.word(position);
            self.enter_long(word, history.entry(position));
            self.enter_short(word >> 8, history.entry(position + 1));
        }
    }

    /// Returns what was there.
    #[inline]
    fn enter_short(&mut self, word: u64, entry: i32) -> i32 {
        std::mem::replace(&mut self.short[hash4(word, HASH_BITS)], entry)
    }

    /// Returns what was there.
    #[inline]
    fn enter_long(&mut self, word: u64, entry: i32) -> [i32; 2] {
        let entries = &mut self.long[hash7(word, HASH_BITS)];
        std::mem::replace(entries, [entry, entries[0]])
    }
}
