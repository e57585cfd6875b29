//! What tags stood for, as the origin told this node or a peer.
//!
//! Invariant: the newest observation wins, but only among clocks that can be right. The engine has no wall clock;
//! it knows the time of the last own observation and how long ago that was. A peer's observation that lies
//! further ahead of it than [`super::config::Config::clock_error_max`] comes from a wrong clock, ours or the
//! peer's, and ranks behind all others; it is still used when it is all there is. Without an own observation
//! there is nothing to compare with, and all are believed.
//!
//! A signed release goes before every observation: it is what the fleet's operator wants, whatever anybody heard.
//!
//! Deliberately absent: taking over a peer's binding as one's own. A node vouches only for what an origin told it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    config::Limits,
    event::{Instant, Provenance, Resolution, SignedBinding},
};
use crate::{ContentId, NodeId, Repository, TagRef, wire::Binding};

/// Bindings of this node and of peers, also of those that left.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    own: BTreeMap<TagRef, (ContentId, u64)>,
    peers: BTreeMap<TagRef, BTreeMap<NodeId, (ContentId, u64)>>,
    peers_count: usize,
    signed: BTreeMap<TagRef, SignedBinding>,
    /// The newest own observation, in seconds since the Unix epoch.
    clock_unix_s: Option<u64>,
    clock_read: Instant,
}

impl Bindings {
    /// An origin told this node. `false` if the limit forbids to keep it.
    pub(super) fn observe(&mut self, binding: &Binding, now: Instant, limits: &Limits) -> bool {
        if self.clock_unix_s.is_none_or(|clock| clock <= binding.observed_unix_s) {
            self.clock_unix_s = Some(binding.observed_unix_s);
            self.clock_read = now;
        }
        let known = self.own.get(&binding.reference);
        if known.is_none() && self.own.len() >= limits.bindings {
            return false;
        }
        if known.is_none_or(|(_, observed)| *observed <= binding.observed_unix_s) {
            self.own.insert(binding.reference.clone(), (binding.content, binding.observed_unix_s));
        }
        true
    }

    /// A peer told this node. `false` if the limit forbids to keep it.
    pub(super) fn learn(&mut self, peer: NodeId, binding: Binding, limits: &Limits) -> bool {
        let tag = self.peers.get(&binding.reference);
        let known = tag.and_then(|peers| peers.get(&peer));
        if known.is_none() && self.peers_count >= limits.bindings_of_peers {
            return false;
        }
        self.peers_count += usize::from(known.is_none());
        let tag = self.peers.entry(binding.reference).or_default();
        tag.insert(peer, (binding.content, binding.observed_unix_s));
        if tag.len() > limits.bindings_per_tag
            && let Some(oldest) = tag.iter().min_by_key(|(_, (_, observed))| *observed).map(|(peer, _)| *peer)
        {
            tag.remove(&oldest);
            self.peers_count -= 1;
        }
        true
    }

    /// Signed releases say what these tags stand for, and no others. `false` if the limit forbids to keep them all.
    pub(super) fn sign(&mut self, signed: Vec<SignedBinding>, limits: &Limits) -> bool {
        self.signed.clear();
        for binding in signed {
            if self.signed.len() >= limits.bindings_signed {
                return false;
            }
            self.signed.entry(binding.reference.clone()).or_insert(binding);
        }
        true
    }

    /// Whether somebody knows what a tag stood for.
    pub(super) fn knows(&self, reference: &TagRef) -> bool {
        self.own.contains_key(reference) || self.peers.contains_key(reference) || self.signed.contains_key(reference)
    }

    /// The tags of a repository that somebody knows, in order.
    pub(super) fn tags_of(&self, repository: &Repository) -> Vec<String> {
        let known = self.own.keys().chain(self.peers.keys()).chain(self.signed.keys());
        let tags: BTreeSet<&str> =
            known.filter(|reference| reference.repository() == repository).map(TagRef::tag).collect();
        tags.into_iter().map(str::to_owned).collect()
    }

    /// The newest credible binding of a tag; this node's own before a peer's of the same second.
    pub(super) fn newest(&self, reference: &TagRef, now: Instant, clock_error_max: Duration) -> Option<Resolution> {
        if let Some(signed) = self.signed.get(reference) {
            return Some(Resolution { content: signed.content, provenance: Provenance::Signed });
        }
        let latest = self.clock_unix_s.map_or(u64::MAX, |clock| {
            let passed = now.since(self.clock_read).as_secs();
            clock.saturating_add(passed).saturating_add(clock_error_max.as_secs())
        });
        let own = self.own.get(reference).map(|(content, observed)| {
            let provenance = Provenance::Remembered { observed_unix_s: *observed };
            (*observed, Resolution { content: *content, provenance })
        });
        let peers = self.peers.get(reference).into_iter().flatten().map(|(peer, (content, observed))| {
            let provenance = Provenance::Peer { peer: *peer, observed_unix_s: *observed };
            (*observed, Resolution { content: *content, provenance })
        });
        let rank = |(observed, resolution): &(u64, Resolution)| {
            let own = matches!(resolution.provenance, Provenance::Remembered { .. });
            (*observed <= latest, *observed, own)
        };
        own.into_iter().chain(peers).max_by_key(rank).map(|(_, resolution)| resolution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    fn binding(blob: u8, observed_unix_s: u64) -> Binding {
        let reference = TagRef::new(Repository::new("registry.example", "app").unwrap(), "v1").unwrap();
        Binding { reference, content: ContentId::of(Algorithm::Sha256, &[blob]), observed_unix_s }
    }

    fn newest(bindings: &Bindings, passed_s: u64) -> Option<ContentId> {
        let now = Instant::default() + Duration::from_secs(passed_s);
        bindings.newest(&binding(0, 0).reference, now, Duration::from_secs(100)).map(|found| found.content)
    }

    #[test]
    fn the_newest_observation_wins_unless_its_clock_is_wrong() {
        let (peer, other) = (NodeId::from_public_key([1; 32]), NodeId::from_public_key([2; 32]));
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        assert_eq!(newest(&bindings, 0), None);
        bindings.learn(peer, binding(1, 5000), &limits);
        assert_eq!(newest(&bindings, 0), Some(binding(1, 0).content), "all there is");
        bindings.observe(&binding(2, 1000), Instant::default(), &limits);
        assert_eq!(newest(&bindings, 0), Some(binding(2, 0).content), "5000 cannot be now");
        bindings.learn(other, binding(3, 1100), &limits);
        assert_eq!(newest(&bindings, 0), Some(binding(3, 0).content), "newer, and within the error");
        assert_eq!(newest(&bindings, 4000), Some(binding(1, 0).content), "time has passed, it could be");
    }

    #[test]
    fn what_is_signed_goes_before_what_was_observed_until_it_is_signed_no_more() {
        let limits = Limits { bindings_signed: 1, ..Limits::default() };
        let mut bindings = Bindings::default();
        bindings.observe(&binding(1, 1000), Instant::default(), &limits);
        let signed = |blob| SignedBinding {
            reference: binding(0, 0).reference,
            content: binding(blob, 0).content,
            release: "stable 1".to_owned(),
        };
        assert!(bindings.sign(vec![signed(2)], &limits));
        assert_eq!(newest(&bindings, 0), Some(binding(2, 0).content));
        assert!(!bindings.sign(vec![signed(3), signed(4)], &limits));
        assert_eq!(newest(&bindings, 0), Some(binding(3, 0).content), "the first counts");
        assert!(bindings.sign(Vec::new(), &limits));
        assert_eq!(newest(&bindings, 0), Some(binding(1, 0).content));
    }

    #[test]
    fn an_older_observation_replaces_nothing() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        bindings.observe(&binding(2, 1000), Instant::default(), &limits);
        bindings.observe(&binding(1, 900), Instant::default(), &limits);
        assert_eq!(newest(&bindings, 0), Some(binding(2, 0).content));
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { bindings_per_tag: 2, bindings_of_peers: 3, bindings: 0, ..Limits::default() };
        let mut bindings = Bindings::default();
        for byte in 1..=5 {
            bindings.learn(NodeId::from_public_key([byte; 32]), binding(byte, u64::from(byte)), &limits);
        }
        assert_eq!(bindings.peers_count, 2);
        assert_eq!(newest(&bindings, 0), Some(binding(5, 0).content));
        assert!(!bindings.observe(&binding(6, 6), Instant::default(), &limits));
    }
}
