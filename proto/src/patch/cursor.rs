//! Where both sides are, and what they remember of where they were.
//!
//! Invariant: the writer and the reader move it by the same calls, so it is the same on both.

use super::model::Place;

/// So many unchanged bytes in a row are told one by one; then comes how many more there are.
pub(super) const RUN_AFTER: u32 = 32;
/// Old bytes that are looked at before and after the aligned place.
pub(super) const AROUND: u64 = 8;
/// How much of the window is left for reading ahead, in bytes. An alignment leads back by no more than the rest.
pub(super) const SLACK: u64 = 64 << 10;
/// Bytes of the new tar from one check to the next.
pub(super) const CHECK_EVERY: u64 = 8 << 20;
/// Matches have at least so many bytes, and copies of old bytes any number.
pub(super) const MATCH_MIN: u64 = 2;

/// A place in both tars.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) place: Place,
    /// The aligned place in the old tar.
    pub(super) old_at: u64,
    /// How far the old tar was looked at so far.
    pub(super) reach: u64,
    /// Unchanged bytes in a row.
    pub(super) same: u32,
    /// Earlier alignments, old place less new place, the last first.
    alignments: [i64; 4],
    /// Earlier distances.
    distances: [u64; 4],
}

impl Cursor {
    /// Leaves the aligned stretch.
    pub(super) fn leave(&mut self) {
        let alignment = self.old_at.wrapping_sub(self.place.new_at) as i64;
        to_front(&mut self.alignments, alignment);
        self.same = 0;
    }

    /// The place that an earlier alignment has now; `None` if it is before the beginning.
    pub(super) fn realigned(&self, recent: usize) -> Option<u64> {
        self.place.new_at.checked_add_signed(self.alignments[recent & 3])
    }

    /// Whether the window still holds what is needed there.
    pub(super) const fn holds(&self, old_at: u64, window: u64) -> bool {
        old_at + window >= self.reach + SLACK
    }

    /// Goes to an old place; [`Cursor::look`] has to follow.
    pub(super) fn go(&mut self, old_at: u64) {
        self.old_at = old_at;
        self.reach = self.reach.max(old_at + AROUND);
        self.same = 0;
        self.place.changed = 0xaaaa_aaaa;
    }

    /// Looks at the old bytes around the aligned place.
    pub(super) fn look(&mut self, old: impl Fn(u64) -> u8) {
        self.place.behind = (1..=AROUND)
            .fold(0, |all, back| all | u64::from(self.old_at.checked_sub(back).map_or(0, &old)) << (8 * (back - 1)));
        self.place.ahead = (0..AROUND).fold(0, |all, on| all | u64::from(old(self.old_at + on)) << (8 * on));
    }

    /// Passes an aligned byte. `next` is the old byte that comes in sight.
    pub(super) fn pass_aligned(&mut self, byte: u8, next: u8) {
        let place = &mut self.place;
        let change = byte.wrapping_sub(place.ahead as u8);
        place.changed = place.changed << 1 | u32::from(change != 0);
        if change != 0 {
            place.changes = place.changes << 8 | u64::from(change);
        }
        self.same = if change == 0 { self.same + 1 } else { 0 };
        place.behind = place.behind << 8 | place.ahead & 0xff;
        place.ahead = place.ahead >> 8 | u64::from(next) << 56;
        self.old_at += 1;
        self.reach = self.reach.max(self.old_at + AROUND);
        self.pass(byte);
    }

    /// Passes many unchanged bytes; [`Cursor::look`] has to follow.
    pub(super) fn pass_run(&mut self, bytes: &[u8]) {
        self.old_at += bytes.len() as u64;
        self.reach = self.reach.max(self.old_at + AROUND);
        self.pass_all(bytes);
    }

    /// Ends a run.
    pub(super) const fn end_run(&mut self) {
        self.same = 0;
        self.place.changed = 0;
    }

    /// Passes a new byte.
    pub(super) const fn pass(&mut self, byte: u8) {
        self.place.tail = self.place.tail << 8 | byte as u64;
        self.place.new_at += 1;
    }

    /// Passes new bytes.
    pub(super) fn pass_all(&mut self, bytes: &[u8]) {
        for byte in &bytes[bytes.len().saturating_sub(8)..] {
            self.place.tail = self.place.tail << 8 | u64::from(*byte);
        }
        self.place.new_at += bytes.len() as u64;
    }

    /// The last distance.
    pub(super) const fn distance(&self) -> u64 {
        self.distances[0]
    }

    /// Takes an earlier distance.
    pub(super) const fn distance_again(&self, recent: usize) -> u64 {
        self.distances[recent & 3]
    }

    /// Which of the earlier distances this is.
    pub(super) fn recent_distance(&self, distance: u64) -> Option<usize> {
        self.distances.iter().position(|known| *known == distance)
    }

    /// Which of the earlier alignments leads there.
    pub(super) fn recent_alignment(&self, old_at: u64) -> Option<usize> {
        (0..4).find(|recent| self.realigned(*recent) == Some(old_at))
    }

    /// Takes note of a match.
    pub(super) fn matched(&mut self, distance: u64) {
        to_front(&mut self.distances, distance);
    }

    /// Bytes until the next check, at least one.
    pub(super) const fn until_check(&self) -> u64 {
        CHECK_EVERY - self.place.new_at % CHECK_EVERY
    }

    /// Whether a check stands here.
    pub(super) const fn is_check(&self) -> bool {
        self.place.new_at.is_multiple_of(CHECK_EVERY)
    }
}

fn to_front<T: PartialEq + Copy>(recent: &mut [T; 4], value: T) {
    let at = recent.iter().position(|known| *known == value).unwrap_or(3);
    recent[at] = value;
    recent[..=at].rotate_right(1);
}
