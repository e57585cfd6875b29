//! What crossed the site's uplink, as far as this node fetched it or heard of it, and how much of that was more than one copy.
//!
//! For people and monitoring only: no decision is made by it. What others fetched shows in their words, as pieces of what
//! they claim turn up. Invariant: at most [`BLOBS_MAX`] blobs are told apart; the sums go on when one is forgotten.

use std::collections::BTreeMap;

use super::{
    Engine,
    event::Instant,
    overview::{CrossedView, UplinkView},
};
use crate::{ContentId, NodeId, PieceLayout};

/// Blobs that are told apart, those that moved last. 256: as many as a node can have at once.
const BLOBS_MAX: usize = 256;

/// How much of one blob crossed the uplink.
#[derive(Debug)]
struct Crossed {
    size: Option<u64>,
    bytes: u64,
    last: Instant,
}

impl Crossed {
    /// Bytes beyond one copy.
    fn surplus(&self) -> u64 {
        self.size.map_or(0, |size| self.bytes.saturating_sub(size))
    }
}

/// What crossed the uplink since the start.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    blobs: BTreeMap<ContentId, Crossed>,
    bytes: u64,
    /// Of blobs that are forgotten.
    surplus: u64,
}

impl Ledger {
    /// So many more bytes of a blob came from an origin to a device of the site.
    pub(super) fn note(&mut self, content: ContentId, size: Option<u64>, bytes: u64, now: Instant) {
        if !self.blobs.contains_key(&content) && self.blobs.len() >= BLOBS_MAX {
            let oldest = self.blobs.iter().min_by_key(|(_, crossed)| crossed.last).map(|(content, _)| *content);
            let forgotten = oldest.and_then(|content| self.blobs.remove(&content));
            self.surplus = self.surplus.saturating_add(forgotten.map_or(0, |crossed| crossed.surplus()));
        }
        let crossed = self.blobs.entry(content).or_insert(Crossed { size: None, bytes: 0, last: now });
        crossed.size = size.or(crossed.size);
        crossed.bytes = crossed.bytes.saturating_add(bytes);
        crossed.last = now;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Bytes of a blob that crossed the uplink.
    pub(super) fn of(&self, content: &ContentId) -> u64 {
        self.blobs.get(content).map_or(0, |crossed| crossed.bytes)
    }

    /// For people: the blobs that crossed it last, the latest first.
    pub(super) fn view(&self, blobs_max: usize, now: Instant, holders: impl Fn(&ContentId) -> usize) -> UplinkView {
        let mut lately: Vec<_> = self.blobs.iter().collect();
        lately.sort_by_key(|(content, crossed)| (std::cmp::Reverse(crossed.last), **content));
        lately.truncate(blobs_max);
        let view = |(content, crossed): (&ContentId, &Crossed)| CrossedView {
            content: *content,
            size: crossed.size,
            bytes: crossed.bytes,
            ago: now.since(crossed.last),
            holders: holders(content),
        };
        let surplus = self.blobs.values().fold(self.surplus, |sum, crossed| sum.saturating_add(crossed.surplus()));
        UplinkView { bytes: self.bytes, surplus, lately: lately.into_iter().map(view).collect() }
    }
}

impl Engine {
    /// Notes what came of others' claims on a blob since this was last called.
    pub(super) fn note_claimed(&mut self, content: ContentId, size: u64) {
        let pieces = self.site.take_came(&content);
        self.note_pieces(content, size, pieces);
    }

    /// A node holds a blob: what was still to come of its claim has come.
    pub(super) fn note_claim_done(&mut self, content: ContentId, node: &NodeId, size: u64) {
        let claim = self.site.claim_of(&content, node, self.now).filter(|claim| !claim.rebuilds());
        let count = PieceLayout::for_size(size).map_or(0, |layout| layout.count());
        let rest = claim.map_or(0, |claim| claim.stripe.end.min(count).saturating_sub(claim.next));
        self.note_pieces(content, size, rest);
    }

    fn note_pieces(&mut self, content: ContentId, size: u64, pieces: u32) {
        let Some(layout) = PieceLayout::for_size(size).filter(|_| pieces > 0) else { return };
        let bytes = (u64::from(pieces) * u64::from(layout.piece_len())).min(size);
        self.ledger.note(content, Some(size), bytes, self.now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Algorithm;

    fn blob(number: u16) -> ContentId {
        ContentId::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    #[test]
    fn a_second_copy_shows_as_surplus_once_the_size_is_known() {
        let (mut ledger, at) = (Ledger::default(), Instant::default());
        ledger.note(blob(1), None, 90, at);
        assert_eq!(ledger.view(9, at, |_| 3).surplus, 0);
        ledger.note(blob(1), Some(100), 30, at);
        ledger.note(blob(2), Some(100), 100, at + Duration::from_secs(1));
        let view = ledger.view(1, at + Duration::from_secs(3), |_| 3);
        assert_eq!((view.bytes, view.surplus), (220, 20));
        let ago = Duration::from_secs(2);
        let latest = CrossedView { content: blob(2), size: Some(100), bytes: 100, ago, holders: 3 };
        assert_eq!(view.lately, [latest]);
    }

    #[test]
    fn what_moved_longest_ago_is_forgotten_and_the_sums_go_on() {
        let mut ledger = Ledger::default();
        for number in 0..=u16::try_from(BLOBS_MAX).unwrap() {
            ledger.note(blob(number), Some(10), 15, Instant::default() + Duration::from_secs(number.into()));
        }
        assert_eq!((ledger.blobs.len(), ledger.of(&blob(0)), ledger.of(&blob(1))), (BLOBS_MAX, 0, 15));
        let view = ledger.view(0, Instant::default(), |_| 0);
        assert_eq!((view.bytes, view.surplus), (15 * 257, 5 * 257));
    }
}
