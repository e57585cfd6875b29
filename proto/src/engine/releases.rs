//! Signed releases: whose metadata is looked at, who keeps which copies, and who is how far.
//!
//! What is believed is the driver's business, which has the keys; here it is decided which offer it looks at next, so that
//! one liar costs a look every ten minutes and nothing else. Invariants: only metadata that the driver has verified is
//! said to be had; one offer is looked at at a time; who has offered something that was refused is not listened to for
//! [`Config::release_refusal`](super::Config::release_refusal).
//!
//! **Copies.** A device keeps what its own platforms need. Of what fewer than [`Config::release_replicas`](super::Config::release_replicas) devices of the
//! site keep for that reason, others keep copies: those that come first in an order by rendezvous hashing, which all
//! compute alike from what followers say of themselves. No word is needed, and one more device moves few copies.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine, Note,
    config::Limits,
    event::{Action, Instant},
    site::weight,
    timers::Timer,
};
use crate::{
    ContentId, NodeId,
    wire::{Announcement, Following, Rollout},
};

/// What came of looking at metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Examined {
    /// It is believed; [`super::Event::Following`] says so, too.
    Accepted,
    /// It is not believed.
    Refused,
    /// It could not be had.
    Unavailable,
}

/// What is known of releases.
#[derive(Debug, Default)]
pub(super) struct Releases {
    own: Option<Following>,
    /// What peers said, also those that left: they need not say it again when they come back.
    others: BTreeMap<NodeId, Following>,
    set_aside: BTreeMap<NodeId, Instant>,
    examining: Option<ContentId>,
    rollout: Option<Rollout>,
    /// Whether the own rollout is other than what was told.
    untold: bool,
    told_at: Option<Instant>,
    heard: BTreeMap<NodeId, (Instant, Rollout)>,
}

impl Releases {
    /// A peer follows. `false` if a limit forbids to remember it.
    pub(super) fn learn(
        &mut self,
        peer: NodeId,
        following: Following,
        limits: &Limits,
        connected: impl Fn(&NodeId) -> bool,
    ) -> bool {
        if !self.others.contains_key(&peer) && self.others.len() >= limits.peers + limits.peers_remembered {
            let Some(left) = self.others.keys().find(|other| !connected(other)).copied() else { return false };
            self.others.remove(&left);
        }
        self.others.insert(peer, following);
        true
    }

    /// A peer tells everything from the start.
    pub(super) fn forget(&mut self, peer: &NodeId) {
        self.others.remove(peer);
    }
}

impl Engine {
    pub(super) fn on_following(&mut self, following: Following) {
        if self.releases.own.as_ref() == Some(&following) {
            return;
        }
        self.releases.own = Some(following.clone());
        if !self.inventory.follow(following) {
            self.limit_reached("inventory");
        }
        self.schedule_announcement();
        self.look_for_releases();
    }

    /// Begins to look at the newest metadata that somebody offers, if it is newer than what is believed.
    pub(super) fn look_for_releases(&mut self) {
        let Some(own) = &self.releases.own else { return };
        if self.releases.examining.is_some() {
            return;
        }
        let now = self.now;
        self.releases.set_aside.retain(|_, until| *until > now);
        let newer = self.followers(own).filter_map(|(peer, offer)| {
            let content = offer.content.filter(|_| offer.version > own.version)?;
            (!self.releases.set_aside.contains_key(&peer)).then_some((offer.version, peer, content))
        });
        if let Some((version, peer, content)) = newer.max() {
            self.releases.examining = Some(content);
            self.timers.set(Timer::Examine, self.now, self.config.release_examine_timeout);
            self.act(Action::Examine { from: peer, version, content });
        } else if let Some(next) = self.releases.set_aside.values().min().copied() {
            self.timers.set(Timer::Examine, self.now, next.since(self.now));
        }
    }

    /// Connected peers that follow the same repository, and what they say.
    fn followers<'a>(&'a self, own: &'a Following) -> impl Iterator<Item = (NodeId, &'a Following)> {
        let same = |(_, other): &(&NodeId, &Following)| other.repository == own.repository;
        let connected = |(peer, _): &(&NodeId, &Following)| self.peers.is_connected(peer);
        self.releases.others.iter().filter(same).filter(connected).map(|(peer, other)| (*peer, other))
    }

    pub(super) fn on_examined(&mut self, content: ContentId, examined: Examined) {
        if self.releases.examining != Some(content) {
            return;
        }
        self.releases.examining = None;
        self.timers.stop(Timer::Examine);
        let wait = match examined {
            Examined::Accepted => None,
            Examined::Refused => Some(self.config.release_refusal),
            Examined::Unavailable => Some(self.config.release_retry),
        };
        if let Some(wait) = wait {
            let offering = self.releases.others.iter().filter(|(_, other)| other.content == Some(content));
            let until = self.now + wait;
            let offering: Vec<_> = offering.map(|(peer, _)| (*peer, until)).collect();
            if examined == Examined::Refused {
                for (peer, _) in &offering {
                    self.act(Action::Note(Note::ReleasesRefused { peer: *peer }));
                }
            }
            self.releases.set_aside.extend(offering);
        }
        self.look_for_releases();
    }

    /// A look took too long, or whoever was set aside is listened to again.
    pub(super) fn on_examine_timer(&mut self) {
        match self.releases.examining {
            Some(content) => self.on_examined(content, Examined::Unavailable),
            None => self.look_for_releases(),
        }
    }

    /// Platforms that followers of a channel keep releases for, this node among them, each once.
    pub fn follower_platforms(&self, channel: &str) -> Vec<String> {
        let Some(own) = &self.releases.own else { return Vec::new() };
        let all = self.followers(own).map(|(_, other)| other).chain([own]);
        let of_channel = all.filter(|follower| follower.channels.iter().any(|followed| followed == channel));
        let platforms: BTreeSet<&String> = of_channel.flat_map(|follower| &follower.platforms).collect();
        platforms.into_iter().cloned().collect()
    }

    /// Whether this node is to keep a blob of a channel's release, which followers of `platforms` need.
    pub fn keeps(&self, channel: &str, content: &ContentId, platforms: &[String]) -> bool {
        let Some(own) = &self.releases.own else { return false };
        let of_channel = |follower: &Following| follower.channels.iter().any(|followed| followed == channel);
        let needs = |follower: &Following| follower.platforms.iter().any(|platform| platforms.contains(platform));
        if !of_channel(own) || needs(own) {
            return of_channel(own);
        }
        let others: Vec<_> = self.followers(own).filter(|(_, other)| of_channel(other)).collect();
        let needing = others.iter().filter(|(_, other)| needs(other)).count();
        let copies = self.config.release_replicas.saturating_sub(needing);
        let order = |node: &NodeId| (weight(content, 0, node), *node);
        let before = others.iter().filter(|(peer, other)| !needs(other) && order(peer) > order(&self.node));
        before.count() < copies
    }

    pub(super) fn on_rollout(&mut self, rollout: Rollout) {
        if self.releases.rollout.as_ref() == Some(&rollout) {
            return;
        }
        self.releases.rollout = Some(rollout);
        self.releases.untold = true;
        self.tell_rollout();
    }

    /// Says how far this node is, if there is news and it is time, or it has not for long.
    pub(super) fn tell_rollout(&mut self) {
        let Some(rollout) = &self.releases.rollout else { return };
        let now = self.now;
        self.releases.heard.retain(|_, (at, _)| now.since(*at) < self.config.rollout_expiry);
        // All together speak as often, however many they are.
        let speakers = u32::try_from(self.releases.heard.len()).unwrap_or(u32::MAX).saturating_add(1);
        let soon = self.config.rollout_interval.max(self.config.rollout_word.saturating_mul(speakers));
        let wait = if self.releases.untold { soon } else { self.config.rollout_repeat.max(soon) };
        let passed = self.releases.told_at.map(|at| now.since(at));
        if passed.is_some_and(|passed| passed < wait) {
            let left = wait.saturating_sub(passed.unwrap_or_default());
            return self.timers.set(Timer::Rollout, now, left);
        }
        if self.peers.len() > 0 {
            let rollout = rollout.clone();
            self.releases.untold = false;
            self.act(Action::Announce(Announcement::Rollout(rollout)));
        }
        self.releases.told_at = Some(now);
        let again = self.random.around(self.config.rollout_repeat.max(soon));
        self.timers.set(Timer::Rollout, now, again);
    }

    pub(super) fn on_rollout_heard(&mut self, from: NodeId, rollout: Rollout) {
        let known = self.releases.heard.contains_key(&from);
        if from != self.node && (known || self.releases.heard.len() < self.config.limits.rollouts) {
            self.releases.heard.insert(from, (self.now, rollout));
        }
    }

    /// How far the nodes of this site are, this one first.
    pub fn rollouts(&self) -> Vec<(NodeId, Rollout)> {
        let own = self.releases.rollout.iter().map(|rollout| (self.node, rollout.clone()));
        let recent = |(_, (at, _)): &(&NodeId, &(Instant, Rollout))| self.now.since(*at) < self.config.rollout_expiry;
        let others = self.releases.heard.iter().filter(recent).map(|(peer, (_, rollout))| (*peer, rollout.clone()));
        own.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Algorithm, engine::Config};

    fn node(number: u8) -> NodeId {
        NodeId::from_public_key([number; 32])
    }

    fn blob(number: u8) -> ContentId {
        ContentId::of(Algorithm::Sha256, &[number])
    }

    fn follower(platforms: &[&str], channel: &str) -> Following {
        Following {
            repository: "fleet".to_owned(),
            version: 1,
            content: None,
            channels: vec![channel.to_owned()],
            platforms: platforms.iter().map(ToString::to_string).collect(),
        }
    }

    /// Engines that are all connected and know what the others follow.
    fn site(followers: &[Following]) -> Vec<Engine> {
        let engine = |me: usize| {
            let mut engine = Engine::new(Config::default(), node(me as u8), 1);
            engine.releases.own = Some(followers[me].clone());
            for (other, following) in followers.iter().enumerate().filter(|(other, _)| *other != me) {
                engine.peers.connect(node(other as u8));
                engine.releases.others.insert(node(other as u8), following.clone());
            }
            engine
        };
        (0..followers.len()).map(engine).collect()
    }

    fn keepers(engines: &[Engine], content: &ContentId, platforms: &[String]) -> usize {
        engines.iter().filter(|engine| engine.keeps("stable", content, platforms)).count()
    }

    #[test]
    fn what_no_device_needs_is_kept_twice_and_spread_evenly() {
        let engines = site(&vec![follower(&["linux/amd64"], "stable"); 5]);
        let arm = ["linux/arm64".to_owned()];
        let kept = |engine: &Engine| (0..200).filter(|n| engine.keeps("stable", &blob(*n), &arm)).count();
        let counts: Vec<usize> = engines.iter().map(kept).collect();
        assert_eq!(counts.iter().sum::<usize>(), 400);
        assert!(counts.iter().all(|count| (50..110).contains(count)), "{counts:?}");
        assert!((0..200).all(|n| keepers(&engines, &blob(n), &["linux/amd64".to_owned()]) == 5), "all need it");
    }

    #[test]
    fn who_needs_a_blob_counts_as_a_copy() {
        let [amd, arm] = [follower(&["linux/amd64"], "stable"), follower(&["linux/arm64"], "stable")];
        let platforms = ["linux/arm64".to_owned()];
        let one = site(&[amd.clone(), amd.clone(), arm.clone()]);
        assert!((0..50).all(|n| keepers(&one, &blob(n), &platforms) == 2));
        let two = site(&[amd.clone(), arm.clone(), arm.clone()]);
        assert!(!two[0].keeps("stable", &blob(1), &platforms));
        let both = follower(&["linux/amd64", "linux/arm64"], "stable");
        assert!(site(&[both, amd.clone()])[0].keeps("stable", &blob(1), &platforms));
        let alone = site(&[amd]);
        assert!(alone[0].keeps("stable", &blob(1), &platforms), "the only one keeps all");
    }

    #[test]
    fn only_those_who_follow_the_channel_keep_its_releases() {
        let engines = site(&[follower(&["linux/amd64"], "stable"), follower(&["linux/amd64"], "beta")]);
        let platforms = ["linux/amd64".to_owned()];
        assert_eq!(keepers(&engines, &blob(1), &platforms), 1);
        assert_eq!(engines[0].follower_platforms("stable"), platforms);
        assert_eq!(engines[1].follower_platforms("none"), Vec::<String>::new());
    }

    proptest! {
        /// Whoever comes to a site takes copies over, and nobody else's change hands.
        #[test]
        fn one_device_more_moves_only_what_it_takes(count in 3usize..12, blobs in prop::collection::vec(any::<u8>(), 1..40)) {
            let arm = ["linux/arm64".to_owned()];
            let before = site(&vec![follower(&["linux/amd64"], "stable"); count]);
            let after = site(&vec![follower(&["linux/amd64"], "stable"); count + 1]);
            for content in blobs.into_iter().map(blob) {
                prop_assert_eq!(keepers(&after, &content, &arm), 2);
                let new = usize::from(after[count].keeps("stable", &content, &arm));
                let lost = (0..count).filter(|at| {
                    before[*at].keeps("stable", &content, &arm) && !after[*at].keeps("stable", &content, &arm)
                });
                prop_assert_eq!(lost.count(), new);
            }
        }
    }
}
