//! What tags stood for, as the origin told this node or a peer.
//!
//! Invariant: the newest observation wins, as far as can be told. How long ago an observation was is known exactly where
//! everybody that passed it on has run since: each says with it how old it is by its own monotonic clock, and no wall clock
//! has a say. What was read back from a disk has only the time that the wall clock of whoever asked the origin showed. The two
//! are compared by this node's wall clock, if it is set; if not, what has an age goes before what has none. An observation
//! that lies further ahead of this node's clock than [`super::config::Config::clock_error_max`] comes from a wrong clock,
//! ours or the other's, and ranks behind all others; it is still used when it is all there is.
//! A signed release goes before every observation: it is what the fleet's operator wants, whatever anybody heard.
//!
//! A binding that a peer told is taken over once it answered somebody on this device, so that the site knows it also when that
//! peer is gone; it stays the word of the peer that asked the origin.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    config::Limits,
    event::{Basis, Instant, Provenance, Resolution, SignedBinding},
};
use crate::{ContentId, NodeId, Repository, TagRef, wire::Binding};

/// An age and when it was that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Aged {
    age: Duration,
    at: Instant,
}

/// What an origin said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) content: ContentId,
    /// The wall clock of whoever asked; 0 if it was not set.
    observed_unix_s: u64,
    aged: Option<Aged>,
    /// Who asked; this node if nobody else.
    pub(super) by: Option<NodeId>,
}

impl Fact {
    fn told(binding: &Binding, by: Option<NodeId>, now: Instant) -> Self {
        let aged = binding.age_ms.map(|age| Aged { age: Duration::from_millis(age), at: now });
        Self { content: binding.content, observed_unix_s: binding.observed_unix_s, aged, by }
    }

    fn age(&self, now: Instant) -> Option<Duration> {
        self.aged.map(|aged| aged.age.saturating_add(now.since(aged.at)))
    }

    /// As it is said and kept.
    pub(super) fn binding(&self, reference: &TagRef, now: Instant) -> Binding {
        let age = self.age(now).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Binding {
            reference: reference.clone(),
            content: self.content,
            observed_unix_s: self.observed_unix_s,
            age_ms: age,
            by: self.by,
        }
    }

    fn provenance(&self) -> Provenance {
        let observed_unix_s = self.observed_unix_s;
        match self.by {
            None => Provenance::Remembered { observed_unix_s },
            Some(peer) => Provenance::Peer { peer, observed_unix_s },
        }
    }
}

/// What is known of a tag, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingView {
    /// The tag.
    pub reference: TagRef,
    /// What the tag would be said to stand for if the origin were away.
    pub resolution: Resolution,
    /// The release that says so, if one does.
    pub release: Option<String>,
    /// Whether this is asked of no origin for now: somebody did a moment ago.
    pub fresh: bool,
}

/// Bindings of this node and of peers, also of those that left.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    mine: BTreeMap<TagRef, Fact>,
    peers: BTreeMap<TagRef, BTreeMap<NodeId, Fact>>,
    peers_count: usize,
    signed: BTreeMap<TagRef, SignedBinding>,
    /// This node's wall clock, in seconds since the Unix epoch, and when it was read.
    clock: Option<(u64, Instant)>,
}

impl Bindings {
    /// The wall clock shows this; 0 if it is not set.
    pub(super) fn tell_time(&mut self, unix_s: u64, now: Instant) {
        if unix_s > 0 {
            self.clock = Some((unix_s, now));
        }
    }

    /// The wall clock.
    fn clock(&self, now: Instant) -> Option<u64> {
        self.clock.map(|(unix_s, at)| unix_s.saturating_add(now.since(at).as_secs()))
    }

    /// An origin told this node just now. `false` if the limit forbids to keep it.
    pub(super) fn observe(&mut self, binding: &Binding, now: Instant, limits: &Limits) -> bool {
        self.tell_time(binding.observed_unix_s, now);
        let aged = Some(Aged { age: Duration::ZERO, at: now });
        let fact = Fact { content: binding.content, observed_unix_s: binding.observed_unix_s, aged, by: None };
        self.put(&binding.reference, fact, limits)
    }

    /// This node's store remembers, or somebody at it says so now. `false` if the limit forbids to keep it.
    pub(super) fn restore(&mut self, binding: &Binding, now: Instant, limits: &Limits) -> bool {
        if binding.by.is_none() && self.clock.is_none_or(|(clock, _)| clock < binding.observed_unix_s) {
            // It is later than that, at least.
            self.tell_time(binding.observed_unix_s, now);
        }
        let known = binding.age_ms.is_none() && self.mine.contains_key(&binding.reference);
        known || self.put(&binding.reference, Fact::told(binding, binding.by, now), limits)
    }

    fn put(&mut self, reference: &TagRef, fact: Fact, limits: &Limits) -> bool {
        if !self.mine.contains_key(reference) && self.mine.len() >= limits.bindings {
            return false;
        }
        self.mine.insert(reference.clone(), fact);
        true
    }

    /// Takes over the word of a peer that answered a question of this device. Returns it, unless this node knew as much;
    /// `Err` if the limit forbids to keep it.
    pub(super) fn adopt(
        &mut self,
        reference: &TagRef,
        now: Instant,
        clock_error_max: Duration,
        limits: &Limits,
    ) -> Result<Option<Fact>, ()> {
        let Some(newest) = self.newest_fact(reference, now, clock_error_max) else { return Ok(None) };
        let known = self.mine.get(reference);
        if newest.by.is_none() || known == Some(&newest) {
            return Ok(None);
        }
        let news = known.is_none_or(|known| known.content != newest.content);
        if self.put(reference, newest, limits) { Ok(news.then_some(newest)) } else { Err(()) }
    }

    /// A peer told this node. `false` if the limit forbids to keep it.
    pub(super) fn learn(&mut self, peer: NodeId, binding: Binding, now: Instant, limits: &Limits) -> bool {
        let tag = self.peers.get(&binding.reference);
        let known = tag.and_then(|peers| peers.get(&peer));
        if known.is_none() && self.peers_count >= limits.bindings_of_peers {
            return false;
        }
        self.peers_count += usize::from(known.is_none());
        let fact = Fact::told(&binding, Some(binding.by.unwrap_or(peer)), now);
        let tag = self.peers.entry(binding.reference).or_default();
        tag.insert(peer, fact);
        if tag.len() > limits.bindings_per_tag {
            let rank = |fact: &Fact| (Reverse(fact.age(now).unwrap_or(Duration::MAX)), fact.observed_unix_s);
            if let Some(oldest) = tag.iter().min_by_key(|(_, fact)| rank(fact)).map(|(peer, _)| *peer) {
                tag.remove(&oldest);
                self.peers_count -= 1;
            }
        }
        true
    }

    /// Whether a node that is not connected may tell this one, too: there may be many, and peers go first.
    pub(super) fn has_room_for_strangers(&self, limits: &Limits) -> bool {
        self.peers_count < limits.bindings_of_peers / 2
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
        self.mine.contains_key(reference) || self.peers.contains_key(reference) || self.signed.contains_key(reference)
    }

    fn references(&self) -> BTreeSet<&TagRef> {
        self.mine.keys().chain(self.peers.keys()).chain(self.signed.keys()).collect()
    }

    /// The tags of a repository that somebody knows, in order.
    pub(super) fn tags_of(&self, repository: &Repository) -> Vec<String> {
        let known = self.references().into_iter().filter(|reference| reference.repository() == repository);
        known.map(|reference| reference.tag().to_owned()).collect()
    }

    /// What is known of every tag, in order.
    pub(super) fn views(
        &self,
        now: Instant,
        clock_error_max: Duration,
        fresh_for: impl Fn(&TagRef) -> Duration,
    ) -> Vec<BindingView> {
        let view = |reference: &TagRef| {
            Some(BindingView {
                reference: reference.clone(),
                resolution: self.newest(reference, now, clock_error_max)?,
                release: self.signed.get(reference).map(|signed| signed.release.clone()),
                fresh: self.fresh(reference, now, fresh_for(reference)).is_some(),
            })
        };
        self.references().into_iter().filter_map(view).collect()
    }

    /// What this node says of a tag to others.
    pub(super) fn mine(&self, reference: &TagRef) -> Option<Fact> {
        self.mine.get(reference).copied()
    }

    fn facts<'a>(&'a self, reference: &TagRef) -> impl Iterator<Item = &'a Fact> {
        self.mine.get(reference).into_iter().chain(self.peers.get(reference).into_iter().flat_map(BTreeMap::values))
    }

    /// What somebody was told of a tag within this time, the latest of it.
    pub(super) fn fresh(&self, reference: &TagRef, now: Instant, within: Duration) -> Option<Fact> {
        let aged = self.facts(reference).filter_map(|fact| Some((fact.age(now)?, fact)));
        let (_, latest) = aged.filter(|(age, _)| *age < within).min_by_key(|(age, _)| *age)?;
        Some(*latest)
    }

    /// What a signed release says of a tag.
    pub(super) fn signed(&self, reference: &TagRef) -> Option<Resolution> {
        let content = self.signed.get(reference)?.content;
        Some(Resolution { content, provenance: Provenance::Signed, basis: Basis::Policy, age: None })
    }

    /// A fact as an answer.
    pub(super) fn resolution(&self, fact: &Fact, now: Instant, basis: Basis) -> Resolution {
        // By the wall clocks, if nothing better is known.
        let by_clock = || {
            let observed = Some(fact.observed_unix_s).filter(|observed| *observed > 0)?;
            Some(Duration::from_secs(self.clock(now)?.checked_sub(observed)?))
        };
        let age = fact.age(now).or_else(by_clock);
        Resolution { content: fact.content, provenance: fact.provenance(), basis, age }
    }

    /// The best answer without the origin: a signed release's, else the newest credible binding.
    pub(super) fn newest(&self, reference: &TagRef, now: Instant, clock_error_max: Duration) -> Option<Resolution> {
        if let Some(signed) = self.signed(reference) {
            return Some(Resolution { basis: Basis::Away, ..signed });
        }
        let newest = self.newest_fact(reference, now, clock_error_max)?;
        Some(self.resolution(&newest, now, Basis::Away))
    }

    /// The newest credible binding of a tag; this node's own before a peer's of the same time.
    fn newest_fact(&self, reference: &TagRef, now: Instant, clock_error_max: Duration) -> Option<Fact> {
        let clock = self.clock(now);
        let latest = clock.map_or(u64::MAX, |clock| clock.saturating_add(clock_error_max.as_secs()));
        let rank = |fact: &&Fact| {
            let age = fact.age(now);
            let observed = match (clock, age) {
                (Some(clock), Some(age)) => clock.saturating_sub(age.as_secs()),
                _ => fact.observed_unix_s,
            };
            // Without a clock of its own, a node cannot compare ages with times.
            let aged = age.filter(|_| clock.is_none());
            (observed <= latest, aged.map(Reverse), observed, age.map(Reverse), fact.by.is_none())
        };
        self.facts(reference).max_by_key(rank).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;

    fn binding(blob: u8, observed_unix_s: u64) -> Binding {
        let reference = TagRef::new(Repository::new("registry.example", "app").unwrap(), "v1").unwrap();
        let content = ContentId::of(Algorithm::Sha256, &[blob]);
        Binding { reference, content, observed_unix_s, age_ms: None, by: None }
    }

    fn aged(blob: u8, observed_unix_s: u64, age_s: u64) -> Binding {
        Binding { age_ms: Some(age_s * 1000), ..binding(blob, observed_unix_s) }
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    const CLOCK_ERROR_MAX: Duration = Duration::from_secs(100);

    fn newest(bindings: &Bindings, now_s: u64) -> Option<ContentId> {
        bindings.newest(&binding(0, 0).reference, at(now_s), CLOCK_ERROR_MAX).map(|found| found.content)
    }

    fn content(blob: u8) -> Option<ContentId> {
        Some(binding(blob, 0).content)
    }

    #[test]
    fn the_newest_observation_wins_unless_its_clock_is_wrong() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        assert_eq!(newest(&bindings, 0), None);
        bindings.learn(node(1), binding(1, 5000), at(0), &limits);
        assert_eq!(newest(&bindings, 0), content(1), "all there is");
        bindings.observe(&binding(2, 1000), at(0), &limits);
        assert_eq!(newest(&bindings, 0), content(2), "5000 cannot be now");
        bindings.learn(node(2), binding(3, 1100), at(0), &limits);
        assert_eq!(newest(&bindings, 0), content(3), "newer, and within the error");
        assert_eq!(newest(&bindings, 4000), content(1), "time has passed, it could be");
    }

    #[test]
    fn where_an_age_is_known_the_other_s_clock_does_not_count() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        bindings.observe(&binding(1, 10_000), at(0), &limits);
        // Asked a minute later than this node, by a device that believes itself in the year before.
        bindings.learn(node(1), aged(2, 500, 40), at(100), &limits);
        assert_eq!(newest(&bindings, 100), content(2));
        // Asked before this node did, by a device whose clock is ahead.
        bindings.learn(node(2), aged(3, 10_090, 300), at(100), &limits);
        assert_eq!(newest(&bindings, 100), content(2));
        let found = bindings.newest(&binding(0, 0).reference, at(160), CLOCK_ERROR_MAX).unwrap();
        assert_eq!(found.age, Some(Duration::from_secs(100)), "it grows older");
    }

    #[test]
    fn without_a_clock_what_has_an_age_goes_first() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        bindings.learn(node(1), binding(1, 5000), at(0), &limits);
        bindings.learn(node(2), aged(2, 0, 3000), at(0), &limits);
        bindings.learn(node(3), aged(3, 0, 4000), at(0), &limits);
        assert_eq!(newest(&bindings, 0), content(2));
        bindings.tell_time(7000, at(0));
        assert_eq!(newest(&bindings, 0), content(1), "4000 was an hour ago, 5000 half of that");
    }

    #[test]
    fn only_what_is_known_to_be_young_is_fresh() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        let reference = binding(0, 0).reference;
        let minute = Duration::from_secs(60);
        let fresh = |bindings: &Bindings, now| bindings.fresh(&reference, at(now), minute).map(|fact| fact.content);
        bindings.restore(&binding(1, 1000), at(0), &limits);
        bindings.tell_time(1001, at(0));
        assert_eq!(fresh(&bindings, 0), None, "its clock may have been wrong");
        bindings.learn(node(1), aged(2, 0, 30), at(0), &limits);
        assert_eq!((fresh(&bindings, 29), fresh(&bindings, 30)), (content(2), None));
        bindings.observe(&binding(3, 1010), at(10), &limits);
        assert_eq!((fresh(&bindings, 29), fresh(&bindings, 69), fresh(&bindings, 70)), (content(3), content(3), None));
    }

    #[test]
    fn what_the_origin_says_now_replaces_everything_and_what_the_store_says_nothing() {
        let limits = Limits::default();
        let mut bindings = Bindings::default();
        bindings.observe(&binding(2, 1000), at(0), &limits);
        assert!(bindings.restore(&binding(1, 900), at(0), &limits));
        assert_eq!(newest(&bindings, 0), content(2));
        let brought = aged(3, 0, 0);
        assert!(bindings.restore(&brought, at(0), &limits));
        assert_eq!(newest(&bindings, 0), content(3), "somebody brought it along");
        // The clock was set back.
        bindings.observe(&binding(1, 900), at(1), &limits);
        assert_eq!(newest(&bindings, 1), content(1));
    }

    #[test]
    fn a_peer_s_word_that_was_used_is_kept_as_the_peer_s() {
        let limits = Limits { bindings: 1, ..Limits::default() };
        let mut bindings = Bindings::default();
        let adopt = |bindings: &mut Bindings| {
            let adopted = bindings.adopt(&binding(0, 0).reference, at(9), CLOCK_ERROR_MAX, &limits);
            adopted.map(|fact| fact.map(|fact| fact.binding(&binding(0, 0).reference, at(9))))
        };
        assert_eq!(adopt(&mut bindings), Ok(None));
        let relayed = Binding { by: Some(node(7)), ..aged(1, 1000, 5) };
        bindings.learn(node(1), relayed, at(0), &limits);
        assert_eq!(adopt(&mut bindings), Ok(Some(Binding { by: Some(node(7)), ..aged(1, 1000, 14) })));
        assert_eq!(adopt(&mut bindings), Ok(None), "this node knows as much");
        bindings.learn(node(2), aged(1, 1100, 3), at(9), &limits);
        assert_eq!(adopt(&mut bindings), Ok(None), "it stands for the same");
    }

    #[test]
    fn what_is_signed_goes_before_what_was_observed_until_it_is_signed_no_more() {
        let limits = Limits { bindings_signed: 1, ..Limits::default() };
        let mut bindings = Bindings::default();
        bindings.observe(&binding(1, 1000), at(0), &limits);
        let signed = |blob| SignedBinding {
            reference: binding(0, 0).reference,
            content: binding(blob, 0).content,
            release: "stable 1".to_owned(),
        };
        assert!(bindings.sign(vec![signed(2)], &limits));
        assert_eq!(newest(&bindings, 0), content(2));
        assert!(!bindings.sign(vec![signed(3), signed(4)], &limits));
        assert_eq!(newest(&bindings, 0), content(3), "the first counts");
        let views = bindings.views(at(0), CLOCK_ERROR_MAX, |_| Duration::from_secs(60));
        let [view] = views.as_slice() else { panic!("{views:?}") };
        assert_eq!((view.release.as_deref(), view.fresh), (Some("stable 1"), true));
        assert!(bindings.sign(Vec::new(), &limits));
        assert_eq!(newest(&bindings, 0), content(1));
    }

    #[test]
    fn limits_hold() {
        let limits = Limits { bindings_per_tag: 2, bindings_of_peers: 3, bindings: 0, ..Limits::default() };
        let mut bindings = Bindings::default();
        for byte in 1..=5 {
            bindings.learn(node(byte), binding(byte, u64::from(byte)), at(0), &limits);
        }
        assert_eq!(bindings.peers_count, 2);
        assert_eq!(newest(&bindings, 0), content(5));
        assert!(!bindings.observe(&binding(6, 6), at(0), &limits));
        assert_eq!(bindings.adopt(&binding(0, 0).reference, at(0), CLOCK_ERROR_MAX, &limits), Err(()));
    }
}
