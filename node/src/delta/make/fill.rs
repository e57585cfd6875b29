//! What lies along no old entry: matches with what came before, other old bytes, and literals.

use std::ops::Range;

use layermesh_proto::patch::Op;

use super::{
    index::{Index, common, common_end},
    window::Window,
};

/// Bytes by which places in the new tar are found, and places looked at.
const NEAR_SEED: usize = 5;
const NEAR_PLACES: usize = 32;
/// The same in the old tar.
const OLD_SEED: usize = 12;
const OLD_PLACES: usize = 16;
/// One of so many places is taken, of the old tar and of what lies along it: four times as much time to take all.
const STEP: usize = 4;
/// So much may lie between two places that are filled and be taken all the same.
const GAP: usize = 256;
/// A match has at least so many bytes.
const MATCH_MIN: usize = 2;
/// What a literal costs, about, in eighths of a bit.
const LITERAL_COST: i64 = 40;
/// A match that is this long is taken without a look at the next place.
const GOOD: usize = 64;

/// Finds bytes in what was before.
#[derive(Debug)]
pub(super) struct Filler {
    near: Index,
    old: Index,
    history: usize,
    distance: usize,
}

/// A way to go on, and how much it saves against literals, in eighths of a bit.
#[derive(Debug, Clone, Copy)]
struct Found {
    op: Op,
    len: usize,
    /// How many of them are before the place.
    back: usize,
    saved: i64,
}

fn bits(value: usize) -> i64 {
    8 * i64::from(usize::BITS - value.leading_zeros())
}

impl Filler {
    pub(super) fn new(window_log: u32, history_log: u32) -> Self {
        Self {
            near: Index::new(NEAR_SEED, history_log),
            old: Index::new(OLD_SEED, window_log),
            history: 1 << history_log,
            distance: 0,
        }
    }

    /// Appends ops that make `new[part]`.
    pub(super) fn fill(&mut self, window: &mut Window<'_>, new: &[u8], part: Range<usize>, ops: &mut Vec<Op>) {
        let mut at = part.start;
        let mut literal = at;
        let mut found = None;
        while at < part.end {
            let here = found.take().or_else(|| self.best(window, new, literal, at..part.end));
            let Some(here) = here else {
                at += 1;
                continue;
            };
            if here.len < GOOD && at + 1 < part.end {
                let next = self.best(window, new, literal, at + 1..part.end);
                if next.is_some_and(|next| next.saved > here.saved + 8) {
                    found = next;
                    at += 1;
                    continue;
                }
            }
            at -= here.back;
            if at > literal {
                ops.push(Op::Literal { len: (at - literal) as u64 });
            }
            ops.push(here.op);
            match here.op {
                Op::Match { distance, .. } => self.distance = distance as usize,
                Op::Aligned { old_at, len } => window.used(old_at as usize, len as usize),
                Op::Literal { .. } => {}
            }
            at += here.len;
            literal = at;
        }
        if at > literal {
            ops.push(Op::Literal { len: (at - literal) as u64 });
        }
    }

    /// The best way to go on at the beginning of `part`. Bytes from `literal` on are not made yet.
    fn best(&mut self, window: &Window<'_>, new: &[u8], literal: usize, part: Range<usize>) -> Option<Found> {
        let at = part.start;
        let step = if at - self.near.end > GAP { STEP } else { 1 };
        self.near.extend(new, at, step);
        self.old.extend(window.old, window.sight(), STEP);
        let ahead = &new[part];
        let mut best = Best(None);
        if self.distance > 0 && self.distance <= at {
            let len = common(&new[at - self.distance..], ahead);
            if len >= MATCH_MIN {
                best.offer(Op::Match { distance: self.distance as u64, len: len as u64 }, 0, 56 + bits(len));
            }
        }
        for place in self.near.places(ahead, NEAR_PLACES) {
            let distance = at - place;
            if distance > self.history {
                break;
            }
            let len = common(&new[place..], ahead);
            if len >= NEAR_SEED {
                let back = common_end(&new[..place], &new[literal..at]);
                let op = Op::Match { distance: distance as u64, len: (len + back) as u64 };
                best.offer(op, back, 64 + bits(distance) + bits(len));
            }
        }
        for place in self.old.places(ahead, OLD_PLACES) {
            if !window.holds(place) {
                continue;
            }
            let len = common(&window.old[place..], ahead);
            if len >= OLD_SEED {
                let mut back = common_end(&window.old[..place], &new[literal..at]);
                if !window.holds(place - back) {
                    back = 0;
                }
                let op = Op::Aligned { old_at: (place - back) as u64, len: (len + back) as u64 };
                best.offer(op, back, 110 + bits(place.abs_diff(window.last())));
            }
        }
        best.0
    }
}

struct Best(Option<Found>);

impl Best {
    fn offer(&mut self, op: Op, back: usize, cost: i64) {
        let (Op::Match { len, .. } | Op::Aligned { len, .. } | Op::Literal { len }) = op;
        let saved = len as i64 * LITERAL_COST - cost;
        if saved > 0 && self.0.is_none_or(|best| saved > best.saved) {
            self.0 = Some(Found { op, len: len as usize, back, saved });
        }
    }
}
