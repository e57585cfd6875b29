//! Which source, and which pieces of it.
//!
//! Invariant: pure functions of what they are given.

use std::{ops::Range, time::Duration};

use super::event::{Instant, Source};
use crate::{PieceIndex, PieceSet, Repository};

/// The origin to ask: `preferred` if it still can serve, else the first of `origins` (those that are up before those that are
/// down) that `excluded` does not rule out.
pub(super) fn of_origins(
    preferred: Option<&Source>,
    origins: impl Iterator<Item = (Source, bool)>,
    excluded: impl Fn(&Source) -> bool,
) -> Option<Source> {
    let (up, down): (Vec<_>, Vec<_>) = origins.filter(|(source, _)| !excluded(source)).partition(|(_, down)| !down);
    let candidates: Vec<_> = up.into_iter().chain(down).map(|(source, _)| source).collect();
    match preferred {
        Some(preferred) if candidates.contains(preferred) => Some(preferred.clone()),
        _ => candidates.into_iter().next(),
    }
}

/// The pieces to fetch next, at most `len_max`: from the first that is not `taken` and that the reader nearest to the start
/// needs, else from the first at all, up to the next that is taken. `None` if none is left.
pub(super) fn run(taken: &PieceSet, first_reader: Option<PieceIndex>, len_max: u32) -> Option<Range<PieceIndex>> {
    first_reader.and_then(|piece| taken.missing_run(piece, len_max)).or_else(|| taken.missing_run(0, len_max))
}

/// The first run of consecutive pieces among `pieces` that all fit.
pub(super) fn first_run(
    mut pieces: Range<PieceIndex>,
    fits: impl Fn(&PieceIndex) -> bool,
) -> Option<Range<PieceIndex>> {
    let first = pieces.find(&fits)?;
    let end = pieces.take_while(&fits).last().unwrap_or(first) + 1;
    Some(first..end)
}

/// How many pieces a run has that takes `time` at `rate` bytes a second, within bounds in bytes; at least one.
pub(super) fn pieces_for(rate: u64, time: Duration, (min, max): (u64, u64), piece_len: u32) -> u32 {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let bytes = (rate.saturating_mul(ms) / 1000).clamp(min.min(max), max);
    u32::try_from(bytes / u64::from(piece_len.max(1))).unwrap_or(u32::MAX).max(1)
}

/// How long `bytes` take at `rate` bytes a second.
pub(super) fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000).checked_div(rate).unwrap_or(u64::MAX))
}

/// What a stripe's owner did so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Bytes that it brought, and those that may be on their way.
    pub(super) done: u64,
    /// Bytes that it owes.
    pub(super) left: u64,
    /// Since when.
    pub(super) since: Instant,
}

/// Whether somebody who brings `rate` bytes a second would be `factor` times sooner done with the rest, and by `gain`.
pub(super) fn is_slow(progress: Progress, rate: u64, now: Instant, (factor, gain): (u64, Duration)) -> bool {
    let ms = u64::try_from(now.since(progress.since).as_millis()).unwrap_or(u64::MAX);
    let own = progress.done.saturating_mul(1000).checked_div(ms).unwrap_or(0);
    let factor = u32::try_from(factor).unwrap_or(u32::MAX);
    time_for(progress.left, own) > time_for(progress.left, rate).saturating_mul(factor).saturating_add(gain)
}

/// The piece that fewest have, of those within `window` pieces from `from` on that are not taken; of equals the first.
/// `sets` are what peers have. `None` if nobody has any of them.
pub(super) fn rarest(taken: &PieceSet, from: PieceIndex, window: u32, sets: &[&PieceSet]) -> Option<PieceIndex> {
    let (mut left, mut at, mut best) = (window, from, None);
    while left > 0
        && let Some(first) = taken.next_missing(at)
    {
        let word = first as usize / 64;
        at = first / 64 * 64 + 64;
        let mut missing = !taken.word(word) & (u64::MAX << (first % 64));
        if at > taken.pieces() {
            missing &= u64::MAX >> (at - taken.pieces());
        }
        while missing.count_ones() > left {
            missing &= !(1 << (63 - missing.leading_zeros()));
        }
        left -= missing.count_ones();
        let rarest = rarest_of_word(missing, sets.iter().map(|set| set.word(word)));
        let found = rarest.map(|(havers, bit)| (havers, first / 64 * 64 + bit));
        best = best.into_iter().chain(found).min();
    }
    best.map(|(_, piece)| piece)
}

/// Of the bits of `missing` the one that fewest of `sets` have, and how many do; of equals the lowest, and none that
/// nobody has. Counts all bits at once: digit by digit, in one word for each digit.
fn rarest_of_word(missing: u64, sets: impl Iterator<Item = u64>) -> Option<(u32, u32)> {
    let mut digits = [0_u64; u32::BITS as usize];
    let mut had = 0;
    for set in sets {
        let mut carry = set & missing;
        had |= carry;
        for digit in &mut digits {
            if carry == 0 {
                break;
            }
            (*digit, carry) = (*digit ^ carry, *digit & carry);
        }
    }
    let (mut fewest, mut count) = (had, 0);
    for (at, digit) in digits.iter().enumerate().rev() {
        let without = fewest & !digit;
        if without != 0 {
            fewest = without;
        } else if fewest != 0 {
            count |= 1 << at;
        }
    }
    (had != 0).then(|| (count, fewest.trailing_zeros()))
}

/// The registry of a source that is an origin.
pub(super) fn origin_of(source: &Source) -> Option<&Repository> {
    match source {
        Source::Origin(repository, _) => Some(repository),
        Source::Peer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectKind;

    fn origin(name: &str) -> Source {
        Source::Origin(Repository::new(name, "a").unwrap(), ObjectKind::Blob)
    }

    #[test]
    fn origins_that_are_up_come_first_unless_another_is_preferred() {
        let origins = || [(origin("down"), true), (origin("up"), false)].into_iter();
        let next = |tried: &[Source], preferred: Option<&Source>| {
            of_origins(preferred, origins(), |source| tried.contains(source))
        };
        assert_eq!(next(&[], None), Some(origin("up")));
        assert_eq!(next(&[], Some(&origin("down"))), Some(origin("down")));
        assert_eq!(next(&[origin("down")], Some(&origin("down"))), Some(origin("up")));
        assert_eq!(next(&[origin("up")], None), Some(origin("down")));
        assert_eq!(next(&[origin("up"), origin("down")], None), None);
    }

    #[test]
    fn runs_start_at_the_reader_and_stop_at_what_is_there() {
        let mut durable = PieceSet::empty(8);
        for piece in [0, 3, 6] {
            durable.insert(piece);
        }
        assert_eq!(run(&durable, None, 9), Some(1..3));
        assert_eq!(run(&durable, None, 1), Some(1..2));
        assert_eq!(run(&durable, Some(3), 9), Some(4..6));
        assert_eq!(run(&durable, Some(5), 9), Some(5..6));
        assert_eq!(run(&durable, Some(7), 9), Some(7..8));
        durable.insert(7);
        assert_eq!(run(&durable, Some(7), 9), Some(1..3));
        assert_eq!(run(&PieceSet::full(3), None, 9), None);
    }

    #[test]
    fn the_first_run_ends_before_what_does_not_fit() {
        let among = |pieces| first_run(pieces, |piece| ![0, 3].contains(piece));
        assert_eq!((among(0..9), among(0..2), among(0..1)), (Some(1..3), Some(1..2), None));
    }

    #[test]
    fn runs_follow_the_rate_within_bounds() {
        let of = |rate| pieces_for(rate, Duration::from_secs(2), (4 << 20, 16 << 20), 1 << 20);
        assert_eq!([0, 1 << 20, 3 << 20, u64::MAX].map(of), [4, 4, 6, 16]);
        assert_eq!(pieces_for(1, Duration::from_secs(1), (0, 9), 1 << 20), 1, "never none");
    }

    #[test]
    fn whoever_takes_many_times_as_long_as_another_would_is_slow() {
        let at = |s| Instant::default() + Duration::from_secs(s);
        let slow = |done, rate| {
            is_slow(Progress { done, left: 1000, since: at(0) }, rate, at(10), (4, Duration::from_secs(1)))
        };
        assert!(slow(0, 100), "nothing in ten seconds");
        assert!(!slow(1000, 300), "ten seconds to go, three for the other");
        assert!(slow(1000, 1000));
        assert!(!slow(1000, 0));
    }

    #[test]
    fn the_rarest_piece_is_the_one_that_counting_one_by_one_finds() {
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            (state >> 33) as u32
        };
        for round in 0..300 {
            let pieces = 1 + random() % 200;
            let mut some = |share: u32| {
                let mut set = PieceSet::empty(pieces);
                (0..pieces).filter(|_| random() % 10 < share).for_each(|piece| {
                    set.insert(piece);
                });
                set
            };
            let taken = some(round % 10);
            let sets: Vec<_> = (0..round % 23).map(|share| some(share % 4)).collect();
            let sets: Vec<_> = sets.iter().collect();
            let (from, window) = (round % 70, 1 + round % 150);
            let missing = (from..pieces).filter(|piece| !taken.contains(*piece)).take(window as usize);
            let count = |piece| (sets.iter().filter(|set| set.contains(piece)).count(), piece);
            let counted = missing.map(count).filter(|(havers, _)| *havers > 0).min().map(|(_, piece)| piece);
            assert_eq!(rarest(&taken, from, window, &sets), counted, "round {round}");
        }
    }

    #[test]
    fn the_rarest_piece_in_the_window_comes_first() {
        let set = |pieces: &[u32]| {
            let mut set = PieceSet::empty(8);
            pieces.iter().for_each(|piece| {
                set.insert(*piece);
            });
            set
        };
        let (one, other, taken) = (set(&[1, 2, 3, 6]), set(&[1, 3, 7]), set(&[0]));
        assert_eq!(rarest(&taken, 0, 8, &[&one, &other]), Some(2));
        assert_eq!(rarest(&taken, 3, 8, &[&one, &other]), Some(6));
        assert_eq!(rarest(&taken, 3, 2, &[&one, &other]), Some(3));
        assert_eq!(rarest(&taken, 4, 2, &[&one, &other]), None, "nobody has the next two");
    }
}
