//! Which stretches of a new entry lie along which stretches of its old one, with bytes that differ here and there.
//!
//! The way is that of bsdiff (Colin Percival, "Naive differences of executable code", 2003): go on with an alignment
//! until another one explains the bytes ahead better by some bytes, then extend both towards each other.

use std::ops::Range;

use super::index::{Index, common};

/// Bytes by which places are found.
const SEED: usize = 8;
/// Places looked at.
const PLACES: usize = 48;
/// How many more bytes another alignment has to explain.
const BETTER: usize = 8;

/// New bytes along old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) new_at: usize,
    pub(super) old_at: usize,
    pub(super) len: usize,
}

/// The stretches of `new[news]` along `old[olds]`, in order. Places lead at most `back` bytes back.
pub(super) fn align(old: &[u8], olds: Range<usize>, new: &[u8], news: Range<usize>, back: usize) -> Vec<Stretch> {
    let base = &old[olds.clone()];
    let mut index = Index::of(SEED, base.len());
    let mut aligning = Aligning { old: base, new: &new[news.clone()], back, reach: 0, found: Vec::new() };
    // Long ones are indexed as the scan goes on: what is far ahead would drive what is between out of the window.
    let ahead = back / 4;
    let mut last = Stretch { new_at: 0, old_at: 0, len: 0 };
    let (mut scan, mut len, mut place) = (0, 0, 0);
    while scan < aligning.new.len() {
        scan += len;
        let (mut scored, mut score) = (scan, 0);
        loop {
            if scan >= aligning.new.len() {
                scan = aligning.new.len();
                break;
            }
            let expected = last.old_at + (scan - last.new_at);
            aligning.reach = aligning.reach.max(expected.min(base.len()));
            index.extend(base, (expected.max(aligning.reach) + ahead).min(base.len()), 1);
            (place, len) = aligning.longest(&index, scan, expected);
            while scored < scan + len {
                score += usize::from(aligning.same(scored, &last));
                scored += 1;
            }
            if (len == score && len != 0) || len > score + BETTER {
                break;
            }
            score -= usize::from(score > 0 && aligning.same(scan, &last));
            scan += 1;
            len = 0;
        }
        if len != score || scan == aligning.new.len() {
            last = aligning.switch(last, scan, place);
        }
    }
    let (new_at, old_at) = (news.start, olds.start);
    aligning
        .found
        .iter()
        .map(|found| Stretch { new_at: found.new_at + new_at, old_at: found.old_at + old_at, ..*found })
        .collect()
}

struct Aligning<'a> {
    old: &'a [u8],
    new: &'a [u8],
    back: usize,
    reach: usize,
    found: Vec<Stretch>,
}

impl Aligning<'_> {
    /// Whether the byte is the same by this alignment.
    fn same(&self, at: usize, last: &Stretch) -> bool {
        self.old.get(last.old_at + (at - last.new_at)) == self.new.get(at)
    }

    /// The place with the most bytes that are the same from `scan` on.
    fn longest(&self, index: &Index, scan: usize, expected: usize) -> (usize, usize) {
        let ahead = &self.new[scan..];
        let mut best = (expected, self.old.get(expected..).map_or(0, |old| common(old, ahead)));
        // What goes on for so long is not bettered.
        if best.1 >= 64 {
            return best;
        }
        for place in index.places(ahead, PLACES) {
            if place + self.back < self.reach {
                continue;
            }
            let len = common(&self.old[place..], ahead);
            if len > best.1 {
                best = (place, len);
            }
            if len > 512 {
                break;
            }
        }
        best
    }

    /// Ends the last stretch and begins one at `scan`, along `place`.
    fn switch(&mut self, last: Stretch, scan: usize, place: usize) -> Stretch {
        let most = (scan - last.new_at).min(self.old.len().saturating_sub(last.old_at));
        let mut forward = best_extension((0..most).map(|i| self.old[last.old_at + i] == self.new[last.new_at + i]));
        let mut backward = 0;
        if scan < self.new.len() {
            let most = (scan - last.new_at).min(place);
            backward = best_extension((1..=most).map(|i| self.old[place - i] == self.new[scan - i]));
        }
        let room = scan - last.new_at;
        if forward + backward > room {
            // Where both claim bytes, the border lies where the most are right.
            let overlap = forward + backward - room;
            let (mut best, mut right, mut cut) = (0_i64, 0_i64, 0);
            for i in 0..overlap {
                let at = last.new_at + forward - overlap + i;
                right += i64::from(self.new[at] == self.old[last.old_at + (at - last.new_at)]);
                right -= i64::from(self.new[at] == self.old[place - (scan - at)]);
                if right > best {
                    (best, cut) = (right, i + 1);
                }
            }
            forward = forward - overlap + cut;
            backward -= cut;
        }
        if forward > 0 {
            self.found.push(Stretch { len: forward, ..last });
        }
        self.reach = self.reach.max(last.old_at + forward);
        Stretch { new_at: scan - backward, old_at: place - backward, len: 0 }
    }
}

/// How far to go on so that the most of it is right: more than half.
fn best_extension(right: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut len) = (0_i64, 0, 0);
    for (i, right) in right.enumerate() {
        score += if right { 1 } else { -1 };
        if score > best {
            (best, len) = (score, i + 1);
        }
    }
    len
}
