//! What a store keeps when it is full: which blobs go so that another has room, and when none may. Pure.
//!
//! Invariants: a plan frees as many bytes as were asked for, or there is none; it names the least recently used blobs
//! first, whole or begun, and never one that is [kept](Keep). A blob that is refused for want of room costs no other.

use std::fmt;

use crate::ContentId;

/// Milliseconds after which a blob that was begun and that nobody wants is given up: a week. Devices are off over
/// weekends and works holidays, and what has landed once over a weak uplink is worth its place until then.
pub const ABANDONED_AFTER_MS: u64 = 7 * 24 * 3600 * 1000;

/// Why a blob stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Somebody pinned it.
    Pinned,
    /// Somebody fetches, reads or is promised it.
    InUse,
}

/// A blob of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The blob.
    pub content: ContentId,
    /// Bytes that it takes, or of one that was begun will take.
    pub bytes: u64,
    /// When it was last used, in milliseconds on a clock that is never set back.
    pub used_ms: u64,
    /// Whether it is whole.
    pub whole: bool,
    /// Why it stays, if it must.
    pub keep: Option<Keep>,
}

/// The room that a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that its blobs may take together.
    pub quota: u64,
    /// Bytes that are free on its disk beyond those left to others.
    pub free: u64,
    /// Bytes promised to blobs that were not begun yet.
    pub promised: u64,
}

impl Room {
    /// Bytes that must go before `needed` more fit, with these blobs.
    fn excess(&self, used: u64, needed: u64) -> u64 {
        let wanted = needed.saturating_add(self.promised);
        let over_quota = used.saturating_add(wanted).saturating_sub(self.quota);
        over_quota.max(wanted.saturating_sub(self.free))
    }
}

/// The quota in bytes: the smaller of an amount and of a share of the disk, in percent.
pub fn quota(bytes: Option<u64>, share_percent: u8, disk_bytes: u64) -> u64 {
    // Divided first, so that no disk is too large; what is lost is less than a hundred bytes a percent.
    let share = disk_bytes / 100 * u64::from(share_percent);
    bytes.map_or(share, |bytes| bytes.min(share))
}

/// There is no room, not even without all that may go. In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// What is needed beyond what is there already.
    pub needed: u64,
    /// What is lacking.
    pub lacking: u64,
    /// The quota.
    pub quota: u64,
    /// What is pinned.
    pub pinned: u64,
    /// What somebody fetches, reads or is promised, and is not pinned.
    pub in_use: u64,
    /// What is free on the disk.
    pub free: u64,
}

impl Shortage {
    /// Whether the disk is too full, where the quota alone would allow it.
    pub fn of_disk(&self) -> bool {
        self.needed.saturating_add(self.pinned).saturating_add(self.in_use) <= self.quota
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, lacking, quota, pinned, in_use, free } = self;
        write!(
            f,
            "{needed} bytes are needed, {lacking} more than there can be: quota {quota}, pinned {pinned}, in use \
             {in_use}, free on the disk {free}"
        )
    }
}

impl std::error::Error for Shortage {}

/// The blobs that go so that `needed` bytes more have room.
///
/// # Errors
/// If that is not possible; then none shall go.
pub fn make_room(room: Room, stored: Vec<Stored>, needed: u64) -> Result<Vec<ContentId>, Shortage> {
    let used = sum(&stored, |_| true);
    let excess = room.excess(used, needed);
    let loose = sum(&stored, |blob| blob.keep.is_none());
    if excess > loose {
        return Err(Shortage {
            needed,
            lacking: excess - loose,
            quota: room.quota,
            pinned: sum(&stored, |blob| blob.keep == Some(Keep::Pinned)),
            in_use: sum(&stored, |blob| blob.keep == Some(Keep::InUse)).saturating_add(room.promised),
            free: room.free,
        });
    }
    Ok(oldest(stored, excess))
}

/// Whether all of these, of which some may be there, can be there together. Returns the bytes that are missing.
///
/// # Errors
/// If they cannot.
pub fn fits(room: Room, mut stored: Vec<Stored>, parts: &[(ContentId, u64)]) -> Result<u64, Shortage> {
    let mut parts = parts.to_vec();
    parts.sort_unstable();
    parts.dedup_by_key(|(content, _)| *content);
    for blob in &mut stored {
        if let Ok(at) = parts.binary_search_by_key(&blob.content, |(content, _)| *content) {
            blob.keep = blob.keep.or(Some(Keep::InUse));
            // It takes what it takes, whatever is said of its size.
            parts[at].1 = 0;
        }
    }
    let missing = parts.iter().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if missing == 0 {
        // Also where more is there than the quota now allows.
        return Ok(0);
    }
    make_room(room, stored, missing).map(|_| missing)
}

/// The blobs that go in any case: those that were abandoned, then as many as make the rest fit into `target` bytes and
/// leave the disk its free bytes, as far as there are any that may go.
pub fn collect(room: Room, stored: Vec<Stored>, target: u64, now_ms: u64) -> Vec<ContentId> {
    let old =
        |blob: &Stored| !blob.whole && blob.keep.is_none() && now_ms.saturating_sub(blob.used_ms) > ABANDONED_AFTER_MS;
    let (abandoned, rest): (Vec<_>, Vec<_>) = stored.into_iter().partition(old);
    let room =
        Room { quota: room.quota.min(target), free: room.free.saturating_add(sum(&abandoned, |_| true)), ..room };
    let excess = room.excess(sum(&rest, |_| true), 0);
    abandoned.into_iter().map(|blob| blob.content).chain(oldest(rest, excess)).collect()
}

/// The least recently used of those that may go, until they are `excess` bytes.
fn oldest(mut stored: Vec<Stored>, excess: u64) -> Vec<ContentId> {
    stored.retain(|blob| blob.keep.is_none());
    stored.sort_unstable_by_key(|blob| (blob.used_ms, blob.content));
    let mut freed = 0_u64;
    let enough = stored.iter().take_while(|blob| {
        let more = freed < excess;
        freed = freed.saturating_add(blob.bytes);
        more
    });
    // An empty blob in the way frees nothing, and is no reason to lose it.
    enough.filter(|blob| blob.bytes > 0).map(|blob| blob.content).collect()
}

fn sum(stored: &[Stored], of: impl Fn(&Stored) -> bool) -> u64 {
    stored.iter().filter(|blob| of(blob)).fold(0, |sum, blob| sum.saturating_add(blob.bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Algorithm;

    fn content(n: u8) -> ContentId {
        ContentId::of(Algorithm::Sha256, &[n])
    }

    fn blob(n: u8, bytes: u64, used_ms: u64) -> Stored {
        Stored { content: content(n), bytes, used_ms, whole: true, keep: None }
    }

    const ROOMY: Room = Room { quota: 100, free: u64::MAX, promised: 0 };

    #[test]
    fn the_least_recently_used_go_and_no_more_than_needed() {
        let stored = vec![blob(1, 40, 30), blob(2, 30, 10), blob(3, 0, 5), blob(4, 30, 20)];
        assert_eq!(make_room(ROOMY, stored.clone(), 0), Ok(vec![]));
        assert_eq!(make_room(ROOMY, stored.clone(), 30), Ok(vec![content(2)]));
        assert_eq!(make_room(ROOMY, stored.clone(), 31), Ok(vec![content(2), content(4)]));
        assert_eq!(make_room(Room { promised: 31, ..ROOMY }, stored, 0), Ok(vec![content(2), content(4)]));
    }

    #[test]
    fn what_is_kept_stays_and_a_refusal_says_what_is_in_the_way() {
        let mut stored = vec![blob(1, 40, 1), blob(2, 30, 2), blob(3, 30, 3)];
        stored[0].keep = Some(Keep::Pinned);
        stored[1].keep = Some(Keep::InUse);
        assert_eq!(make_room(ROOMY, stored.clone(), 30), Ok(vec![content(3)]));
        let shortage = make_room(ROOMY, stored, 50).unwrap_err();
        let expected = Shortage { needed: 50, lacking: 20, quota: 100, pinned: 40, in_use: 30, free: u64::MAX };
        assert_eq!(shortage, expected);
        assert!(!shortage.of_disk());
    }

    #[test]
    fn a_full_disk_counts_as_a_full_quota_does() {
        let stored = vec![blob(1, 10, 1), blob(2, 10, 2)];
        let room = Room { free: 5, ..ROOMY };
        assert_eq!(make_room(room, stored.clone(), 5), Ok(vec![]));
        assert_eq!(make_room(room, stored.clone(), 6), Ok(vec![content(1)]));
        let shortage = make_room(room, stored, 26).unwrap_err();
        assert!(shortage.of_disk() && shortage.lacking == 1, "{shortage}");
    }

    #[test]
    fn an_image_fits_if_its_parts_do_together() {
        let stored = vec![blob(1, 60, 1), blob(2, 30, 2)];
        assert_eq!(fits(ROOMY, stored.clone(), &[(content(3), 70), (content(3), 70)]), Ok(70));
        assert_eq!(fits(ROOMY, stored.clone(), &[(content(3), 70), (content(2), 1)]), Ok(70));
        // The one that would have to go is of the image.
        let shortage = fits(ROOMY, stored, &[(content(3), 70), (content(1), 60)]).unwrap_err();
        assert_eq!((shortage.needed, shortage.lacking, shortage.in_use), (70, 30, 60));
    }

    #[test]
    fn a_collection_takes_what_was_abandoned_and_what_is_over() {
        let now = 2 * ABANDONED_AFTER_MS;
        let begun = |n, used_ms, keep| Stored { whole: false, keep, ..blob(n, 10, used_ms) };
        let stored = vec![
            begun(1, ABANDONED_AFTER_MS - 1, None),
            begun(2, ABANDONED_AFTER_MS, None),
            begun(3, 0, Some(Keep::Pinned)),
            blob(4, 70, 1),
        ];
        assert_eq!(collect(ROOMY, stored.clone(), u64::MAX, now), [content(1)]);
        assert_eq!(collect(ROOMY, stored.clone(), 89, now), [content(1), content(4)]);
        assert_eq!(collect(ROOMY, stored.clone(), 0, now), [content(1), content(4), content(2)]);
        // What goes anyway frees the disk as well.
        assert_eq!(collect(Room { free: 0, promised: 11, ..ROOMY }, stored, 100, now), [content(1), content(4)]);
    }

    #[test]
    fn the_quota_is_the_smaller_of_the_two() {
        assert_eq!(quota(None, 50, 1000), 500);
        assert_eq!(quota(Some(400), 50, 1000), 400);
        assert_eq!(quota(Some(600), 50, 1000), 500);
        assert_eq!(quota(None, 100, u64::MAX), u64::MAX / 100 * 100);
    }

    fn stored() -> impl Strategy<Value = Vec<Stored>> {
        let one = (
            0..200_u64,
            0..50_u64,
            any::<bool>(),
            prop::option::of(prop_oneof![Just(Keep::Pinned), Just(Keep::InUse)]),
        );
        prop::collection::vec(one, 0..20).prop_map(|all| {
            let numbered = all.into_iter().zip(0..);
            numbered
                .map(|((bytes, used_ms, whole, keep), n)| Stored { content: content(n), bytes, used_ms, whole, keep })
                .collect()
        })
    }

    fn room() -> impl Strategy<Value = Room> {
        (0..2000_u64, 0..2000_u64, 0..200_u64).prop_map(|(quota, free, promised)| Room { quota, free, promised })
    }

    fn left<'a>(stored: &'a [Stored], gone: &'a [ContentId]) -> impl Iterator<Item = &'a Stored> {
        stored.iter().filter(|blob| !gone.contains(&blob.content))
    }

    proptest! {
        #[test]
        fn a_plan_makes_room_and_spares_what_is_kept(stored in stored(), room in room(), needed in 0..500_u64) {
            let loose = sum(&stored, |blob| blob.keep.is_none());
            let kept = sum(&stored, |blob| blob.keep.is_some());
            match make_room(room, stored.clone(), needed) {
                Ok(gone) => {
                    prop_assert!(left(&stored, &gone).filter(|blob| blob.keep.is_some()).map(|b| b.bytes).sum::<u64>() == kept);
                    let used: u64 = left(&stored, &gone).map(|blob| blob.bytes).sum();
                    let freed = kept + loose - used;
                    let wanted = needed + room.promised;
                    // Nothing goes for nothing, and what goes is enough.
                    prop_assert!(gone.is_empty() || freed > 0);
                    if freed > 0 || used + wanted > room.quota {
                        prop_assert!(used + wanted <= room.quota || freed == 0);
                    }
                    prop_assert!(used + wanted <= room.quota && wanted <= room.free + freed);
                    // Whoever stays was used no earlier than whoever goes.
                    let newest = stored.iter().filter(|blob| gone.contains(&blob.content)).map(|blob| blob.used_ms).max();
                    let loose_left = left(&stored, &gone).filter(|blob| blob.keep.is_none() && blob.bytes > 0);
                    let oldest_left = loose_left.map(|blob| blob.used_ms).min();
                    prop_assert!(newest.is_none() || oldest_left.is_none() || newest <= oldest_left);
                    // Without the last of them it would not be enough.
                    if let Some(last) = gone.last() {
                        let last = stored.iter().find(|blob| blob.content == *last).unwrap().bytes;
                        prop_assert!(used + last + wanted > room.quota || wanted > room.free + freed - last);
                    }
                }
                Err(shortage) => {
                    let wanted = needed + room.promised;
                    prop_assert!(kept + wanted > room.quota || wanted > room.free + loose);
                    prop_assert!(shortage.lacking > 0 && shortage.needed == needed);
                }
            }
        }

        #[test]
        fn what_fits_has_room_part_by_part(stored in stored(), room in room(), sizes in prop::collection::vec(1..200_u64, 0..6)) {
            // Parts 10 and on: some of them may be there.
            let parts: Vec<_> = sizes.into_iter().zip(10..).map(|(bytes, n)| (content(n), bytes)).collect();
            if fits(room, stored.clone(), &parts).is_ok() {
                let mut now = stored;
                let mut free = room.free;
                for (content, bytes) in &parts {
                    for blob in &mut now {
                        if parts.iter().any(|(part, _)| part == &blob.content) {
                            blob.keep = blob.keep.or(Some(Keep::InUse));
                        }
                    }
                    if now.iter().any(|blob| blob.content == *content) {
                        continue;
                    }
                    let gone = make_room(Room { free, ..room }, now.clone(), *bytes);
                    prop_assert!(gone.is_ok(), "{:?}", gone);
                    let gone = gone.unwrap();
                    free += now.iter().filter(|blob| gone.contains(&blob.content)).map(|blob| blob.bytes).sum::<u64>();
                    free -= bytes;
                    now.retain(|blob| !gone.contains(&blob.content));
                    now.push(Stored { content: *content, bytes: *bytes, used_ms: 0, whole: false, keep: Some(Keep::InUse) });
                    prop_assert!(now.iter().map(|blob| blob.bytes).sum::<u64>() + room.promised <= room.quota);
                }
            }
        }

        #[test]
        fn a_collection_spares_what_is_kept(stored in stored(), room in room(), target in 0..2000_u64) {
            let gone = collect(room, stored.clone(), target, ABANDONED_AFTER_MS + 25);
            prop_assert!(stored.iter().filter(|blob| blob.keep.is_some()).all(|blob| !gone.contains(&blob.content)));
            let used: u64 = left(&stored, &gone).map(|blob| blob.bytes).sum();
            let kept = sum(&stored, |blob| blob.keep.is_some());
            prop_assert!(used <= target.min(room.quota).saturating_sub(room.promised) || used == kept);
            prop_assert!(left(&stored, &gone).all(|blob| blob.whole || blob.keep.is_some() || blob.used_ms >= 25));
        }
    }
}
