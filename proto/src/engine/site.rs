//! Who takes part in bringing a blob to the site, and who fetches it from the origin.
//!
//! A blob that nobody holds is fetched by one node, its *owner*, and flows on to the others along a tree while it
//! lands there. There is no leader and no vote: every node sorts those that take part by the same weight (rendezvous
//! hashing), so all come to the same answer from the same words. Where words were lost or are not the same
//! everywhere, two may own a blob for a moment; as soon as each hears the other, the same order says who goes on.
//!
//! Invariants: a claim counts only until its lease ends; a node's place depends on the blob, on the node and on who
//! else takes part, on nothing else, so no cycle can form: everybody takes bytes from somebody nearer to the front.

use std::collections::BTreeMap;

use super::event::Instant;
use crate::{ContentId, NodeId};

/// A node's part in one blob.
#[derive(Debug, Clone, Copy)]
struct Party {
    /// It could ask the origin.
    origin: bool,
    /// Pieces that it has.
    pieces: u32,
    /// Its want is believed until then.
    wanted_until: Instant,
    /// Its claim is believed until then.
    claimed_until: Instant,
}

/// Everybody's part in every blob, this node's included.
#[derive(Debug, Default)]
pub(super) struct Site {
    blobs: BTreeMap<ContentId, BTreeMap<NodeId, Party>>,
}

/// A node's weight for a blob; the highest comes first.
fn weight(content: &ContentId, node: &NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content.digest());
    hasher.update(node.public_key());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Site {
    fn party(&mut self, content: ContentId, node: NodeId, parts_max: usize) -> Option<&mut Party> {
        if !self.blobs.contains_key(&content) && self.blobs.len() >= parts_max {
            return None;
        }
        let never = Instant::default();
        let absent = Party { origin: false, pieces: 0, wanted_until: never, claimed_until: never };
        Some(self.blobs.entry(content).or_default().entry(node).or_insert(absent))
    }

    /// A node takes part. Returns whether that is news; `None` if a limit forbids to remember it.
    pub(super) fn wanted(
        &mut self,
        content: ContentId,
        node: NodeId,
        (origin, pieces): (bool, u32),
        until: Instant,
        parts_max: usize,
    ) -> Option<bool> {
        let party = self.party(content, node, parts_max)?;
        let new = party.wanted_until == Instant::default();
        *party = Party { origin, pieces, wanted_until: until, ..*party };
        Some(new)
    }

    /// A node fetches the blob from the origin. `false` if a limit forbids to remember it.
    pub(super) fn claimed(&mut self, content: ContentId, node: NodeId, until: Instant, parts_max: usize) -> bool {
        let Some(party) = self.party(content, node, parts_max) else { return false };
        party.claimed_until = until;
        party.wanted_until = party.wanted_until.max(until);
        true
    }

    /// A node's claim is over, its want is not.
    pub(super) fn released(&mut self, content: &ContentId, node: &NodeId) {
        if let Some(party) = self.blobs.get_mut(content).and_then(|parties| parties.get_mut(node)) {
            party.claimed_until = Instant::default();
        }
    }

    /// Whether some other node that takes part in anything could ask an origin.
    pub(super) fn reaches_origin(&self, me: &NodeId, now: Instant) -> bool {
        let parties = self.blobs.values().flatten();
        parties.into_iter().any(|(node, party)| node != me && party.origin && party.wanted_until > now)
    }

    /// A node takes no part any more.
    pub(super) fn left(&mut self, content: &ContentId, node: &NodeId) {
        if let Some(parties) = self.blobs.get_mut(content) {
            parties.remove(node);
            if parties.is_empty() {
                self.blobs.remove(content);
            }
        }
    }

    /// A node is gone.
    pub(super) fn gone(&mut self, node: &NodeId) {
        self.blobs.retain(|_, parties| {
            parties.remove(node);
            !parties.is_empty()
        });
    }

    /// Forgets words that are too old.
    pub(super) fn expire(&mut self, now: Instant) {
        self.blobs.retain(|_, parties| {
            parties.retain(|_, party| party.wanted_until > now);
            !parties.is_empty()
        });
    }

    /// Those of a blob's parties that `fits`, the first in order first.
    fn sorted(&self, content: &ContentId, fits: impl Fn(&NodeId, &Party) -> bool) -> Vec<NodeId> {
        let parties = self.blobs.get(content).into_iter().flatten();
        let mut sorted: Vec<_> = parties.filter(|(node, party)| fits(node, party)).collect();
        sorted.sort_by_cached_key(|(node, _)| std::cmp::Reverse(weight(content, node)));
        sorted.into_iter().map(|(node, _)| *node).collect()
    }

    /// Who fetches the blob from the origin: of several the first in order. `trusted` rules nodes out.
    pub(super) fn owner(&self, content: &ContentId, now: Instant, trusted: impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        self.sorted(content, |node, party| party.claimed_until > now && trusted(node)).into_iter().next()
    }

    /// Who is to fetch the blob from the origin, in order: whoever has most of it, then by weight.
    pub(super) fn candidates(
        &self,
        content: &ContentId,
        now: Instant,
        trusted: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let mut sorted = self.sorted(content, |node, party| party.origin && party.wanted_until > now && trusted(node));
        let pieces = |node: &NodeId| self.blobs.get(content)?.get(node).map(|party| party.pieces);
        sorted.sort_by_key(|node| std::cmp::Reverse(pieces(node)));
        sorted
    }

    /// Whom `me` can take the growing blob from, the best first: its parent in a tree of `fan_out` children a node whose
    /// root is the owner, then whoever else is nearer to the root.
    pub(super) fn upstream(
        &self,
        content: &ContentId,
        (owner, me): (NodeId, NodeId),
        now: Instant,
        fan_out: usize,
        trusted: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let below = self.sorted(content, |node, party| {
            *node != owner && (*node == me || (party.wanted_until > now && trusted(node)))
        });
        let Some(at) = below.iter().position(|node| *node == me) else { return vec![owner] };
        let line: Vec<_> = std::iter::once(owner).chain(below.into_iter().take(at)).collect();
        // `me` is number `at + 1` of the whole line, so this is at most its last.
        let parent = at / fan_out.max(1);
        let others = line.iter().enumerate().filter(|(place, _)| *place != parent).map(|(_, node)| *node);
        line.get(parent).copied().into_iter().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Algorithm;

    const MAX: usize = 2;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    fn blob(n: u8) -> ContentId {
        ContentId::of(Algorithm::Sha256, &[n])
    }

    fn at(s: u64) -> Instant {
        Instant::default() + Duration::from_secs(s)
    }

    fn site(nodes: u8) -> Site {
        let mut site = Site::default();
        for n in 0..nodes {
            assert_eq!(site.wanted(blob(0), node(n), (true, 0), at(9), MAX), Some(true));
        }
        site
    }

    #[test]
    fn the_same_words_in_any_order_give_the_same_owner_and_blobs_spread_over_nodes() {
        let site = site(5);
        let first = site.candidates(&blob(0), at(1), |_| true);
        let mut reversed = Site::default();
        for n in (0..5).rev() {
            reversed.wanted(blob(0), node(n), (true, 0), at(9), MAX);
        }
        assert_eq!(reversed.candidates(&blob(0), at(1), |_| true), first);
        let mut owners = std::collections::BTreeSet::new();
        for n in 0..40 {
            let mut site = Site::default();
            for peer in 0..5 {
                site.wanted(blob(n), node(peer), (true, 0), at(9), MAX);
            }
            owners.extend(site.candidates(&blob(n), at(1), |_| true).first().copied());
        }
        assert_eq!(owners.len(), 5);
    }

    #[test]
    fn whoever_has_most_goes_on_and_who_cannot_reach_the_origin_never() {
        let mut site = site(5);
        let order = site.candidates(&blob(0), at(1), |_| true);
        site.wanted(blob(0), order[3], (true, 7), at(9), MAX);
        site.wanted(blob(0), order[0], (false, 9), at(9), MAX);
        let now = site.candidates(&blob(0), at(1), |node| *node != order[1]);
        assert_eq!(now, [order[3], order[2], order[4]]);
        assert!(site.candidates(&blob(0), at(9), |_| true).is_empty(), "old wants count for nothing");
    }

    #[test]
    fn of_two_claims_the_first_in_order_counts_and_none_for_longer_than_its_lease() {
        let mut site = site(3);
        let order = site.candidates(&blob(0), at(1), |_| true);
        assert!(site.claimed(blob(0), order[2], at(4), MAX));
        assert_eq!(site.owner(&blob(0), at(1), |_| true), Some(order[2]));
        assert!(site.claimed(blob(0), order[1], at(3), MAX));
        assert_eq!(site.owner(&blob(0), at(1), |_| true), Some(order[1]));
        assert_eq!(site.owner(&blob(0), at(1), |node| *node != order[1]), Some(order[2]));
        assert_eq!(site.owner(&blob(0), at(3), |_| true), Some(order[2]));
        site.released(&blob(0), &order[2]);
        assert_eq!(site.owner(&blob(0), at(1), |_| true), Some(order[1]));
        site.gone(&order[1]);
        assert_eq!(site.owner(&blob(0), at(1), |_| true), None);
    }

    #[test]
    fn everybody_takes_from_somebody_nearer_to_the_owner() {
        let site = site(8);
        let order = site.candidates(&blob(0), at(1), |_| true);
        let owner = order[4];
        let mut children = BTreeMap::<NodeId, usize>::new();
        let mut line = vec![owner];
        line.extend(order.iter().filter(|node| **node != owner));
        for (place, me) in line.iter().enumerate().skip(1) {
            let upstream = site.upstream(&blob(0), (owner, *me), at(1), 2, |_| true);
            assert_eq!(upstream.len(), place, "whoever is nearer, and nobody else");
            let parent = line.iter().position(|node| *node == upstream[0]).unwrap();
            assert!(parent < place);
            *children.entry(upstream[0]).or_default() += 1;
        }
        assert!(children.values().all(|children| *children <= 2));
    }

    #[test]
    fn blobs_are_bounded_and_old_words_make_room() {
        let mut site = site(1);
        assert_eq!(site.wanted(blob(0), node(0), (true, 1), at(5), MAX), Some(false));
        assert!(site.claimed(blob(1), node(0), at(9), MAX));
        assert_eq!(site.wanted(blob(2), node(0), (true, 0), at(9), MAX), None);
        assert!(!site.claimed(blob(2), node(0), at(9), MAX));
        site.expire(at(5));
        assert_eq!(site.wanted(blob(2), node(0), (true, 0), at(9), MAX), Some(true));
        site.left(&blob(1), &node(0));
        assert_eq!(site.owner(&blob(1), at(1), |_| true), None);
    }
}
