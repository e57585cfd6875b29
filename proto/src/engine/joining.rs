//! Taking part: how this node and its peers agree on who asks the origin for a blob that nobody holds.
//!
//! Each says that it wants the blob; after a moment in which the others' words arrive, the first in the common order
//! (`site.rs`) claims it and fetches it, and the others take it from upstream while it lands. Invariants: a claim is
//! said before the origin is asked; it is repeated only while bytes come; whoever hears that another goes before it
//! stops. A node that nobody answers asks the origin itself in the end: the words save bytes, they never cost a blob.

use std::time::Duration;

use super::{
    Engine,
    event::{Action, Instant, Source},
    select,
    timers::Timer,
    transfer::Transfer,
};
use crate::{
    ContentId, NodeId,
    wire::{Announcement, Part},
};

/// Where a transfer's next bytes come from.
pub(super) enum Choice {
    /// Ask this source; the flag says that it is a peer that has not all of it yet.
    From(Source, bool),
    /// Wait until then, or until somebody says something.
    Wait(Instant),
    /// Nobody is left.
    Nobody,
}

impl Engine {
    /// The next source of a transfer.
    pub(super) fn choose(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        let Some(transfer) = self.transfers.open.get(&content) else { return Choice::Nobody };
        let agrees = |size| transfer.size().is_none_or(|known| known == size);
        let holders = self
            .directory
            .holders(&content)
            .filter(|(peer, size)| agrees(*size) && self.trusts(peer))
            .map(|(peer, _)| Source::Peer(peer));
        let holder =
            select::source(preferred, holders, std::iter::empty(), |source| transfer.failures.contains_key(source));
        match holder {
            Some(source) => Choice::From(source, false),
            None => self.choose_without_holder(content, preferred),
        }
    }

    fn choose_without_holder(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        self.join(content);
        match self.owner_of(&content) {
            Some(owner) if owner == self.node => self.as_owner(content, preferred),
            Some(owner) => self.upstream(content, owner),
            None => self.elect(content, preferred),
        }
    }

    /// Who owns a blob, as far as this node has heard.
    pub(super) fn owner_of(&self, content: &ContentId) -> Option<NodeId> {
        self.site.owner(content, self.now, |node| self.trusts(node))
    }

    /// Whether a node may be asked for bytes and taken at its word.
    pub(super) fn trusts(&self, node: &NodeId) -> bool {
        !self.peers.is_penalised(node, self.now)
    }

    fn upstream(&mut self, content: ContentId, owner: NodeId) -> Choice {
        let line =
            self.site.upstream(&content, (owner, self.node), self.now, self.config.fan_out, |node| self.trusts(node));
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return Choice::Nobody };
        transfer.election = None;
        let usable =
            |peer: &NodeId| self.peers.is_connected(peer) && !transfer.failures.contains_key(&Source::Peer(*peer));
        match line.into_iter().find(usable) {
            Some(peer) => Choice::From(Source::Peer(peer), true),
            None => Choice::Nobody,
        }
    }

    fn as_owner(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        if let Some(choice) = self.claim_origin(content, preferred) {
            return choice;
        }
        self.site.released(&content, &self.node);
        if self.site.candidates(&content, self.now, |node| *node != self.node).is_empty() {
            return Choice::Nobody;
        }
        self.elect(content, preferred)
    }

    /// The origin; a claim on the blob is said first. Without an origin that could be asked there is no claim.
    fn claim_origin(&mut self, content: ContentId, preferred: Option<&Source>) -> Option<Choice> {
        let source = self.origin_source(content, preferred)?;
        self.claim(content);
        Some(Choice::From(source, false))
    }

    fn origin_source(&self, content: ContentId, preferred: Option<&Source>) -> Option<Source> {
        let transfer = self.transfers.open.get(&content)?;
        let origins = transfer.origins.iter().map(|(repository, kind)| {
            let down = self.origins.is_down(repository.registry(), self.now);
            (Source::Origin(repository.clone(), *kind), down)
        });
        select::source(preferred, std::iter::empty(), origins, |source| transfer.failures.contains_key(source))
    }

    /// Nobody owns the blob: the candidates have their turns one after the other, so that it gets an owner also where
    /// words are lost or the first of them is not there any more.
    fn elect(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        let begun = match self.transfers.open.get(&content).and_then(|transfer| transfer.election) {
            Some(begun) => begun,
            None => {
                // How many pieces it has decides who goes on.
                if self.transfers.open.get(&content).is_some_and(|transfer| transfer.told_at != Some(self.now)) {
                    self.tell(content);
                }
                let begun = self.settled_at();
                if let Some(transfer) = self.transfers.open.get_mut(&content) {
                    transfer.election = Some(begun);
                }
                begun
            }
        };
        if self.now < begun {
            return Choice::Wait(begun);
        }
        let candidates = self.site.candidates(&content, self.now, |node| self.trusts(node));
        let place = candidates.iter().position(|node| *node == self.node).unwrap_or(candidates.len());
        let turns = u32::try_from(place).unwrap_or(u32::MAX);
        let turn = begun + self.config.claim_grace.saturating_mul(turns);
        if self.now < turn {
            return Choice::Wait(turn);
        }
        self.claim_origin(content, preferred).unwrap_or(Choice::Nobody)
    }

    /// When the others' wants will have been heard.
    fn settled_at(&mut self) -> Instant {
        let among_peers = if self.peers.len() > 0 { self.random.around(self.config.settle) } else { Duration::ZERO };
        let started = self.started.unwrap_or(self.now);
        // Also with peers: words to those just met may not reach them yet.
        (self.now + among_peers).max(started + self.config.settle_after_start)
    }

    /// Enters this node into the blob's list, and says so if it did not yet.
    fn join(&mut self, content: ContentId) {
        if self.transfers.open.get(&content).is_some_and(|transfer| transfer.told_at.is_none()) {
            self.tell(content);
        }
    }

    /// Says that this node takes part.
    fn tell(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let pieces = transfer.pieces.as_ref().map_or(0, |pieces| pieces.durable.count());
        let origin = transfer.origins.iter().any(|(repository, kind)| {
            let source = Source::Origin(repository.clone(), *kind);
            !transfer.failures.contains_key(&source) && !self.origins.is_down(repository.registry(), self.now)
        });
        let until = self.now + self.config.want_expiry;
        if self.site.wanted(content, self.node, (origin, pieces), until, self.config.limits.parts).is_none() {
            self.site.expire(self.now);
            self.limit_reached("parts");
        }
        self.say(Part::Wanted { content, origin, pieces });
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.told_at = Some(self.now);
        }
        let wait = self.random.around(self.config.want_interval).min(self.config.claim_lease);
        self.timers.set(Timer::Tell(content), self.now, wait);
    }

    fn claim(&mut self, content: ContentId) {
        let lease = self.config.claim_lease;
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.election = None;
        transfer.claimed_at = Some(self.now);
        self.site.claimed(content, self.node, self.now + lease, self.config.limits.parts);
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        self.say(Part::Claimed { content, lease_ms });
        self.timers.set(Timer::Tell(content), self.now, lease / 3);
    }

    fn say(&mut self, part: Part) {
        if self.peers.len() > 0 {
            self.act(Action::Announce(Announcement::Taking(part)));
        }
    }

    /// The time to repeat what was said has come.
    pub(super) fn tell_again(&mut self, content: ContentId) {
        let owner = self.owner_of(&content);
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let claimed_at = transfer.claimed_at.unwrap_or_default();
        let Some(fetch) = transfer.fetch() else { return self.tell(content) };
        let (began, growing) = (fetch.began, fetch.growing);
        if transfer.asks_origin() {
            // A registry that is far away takes a while over its first byte, and would over another node's.
            let patience = self.config.fetch_stall_origin / 2;
            let comes = transfer.last_progress > claimed_at;
            let may_come = transfer.last_progress <= began && self.now.since(began) < patience;
            if comes || may_come {
                return self.claim(content);
            }
        } else if growing && owner.is_none() && self.now.since(transfer.last_progress) >= self.config.claim_lease {
            // Whoever it all came from has given up, so upstream waits as well.
            self.cancel_fetch(content);
            self.tell(content);
            return self.advance(content, None);
        }
        self.tell(content);
    }

    /// This node takes no part any more, and has not got the blob.
    pub(super) fn leave(&mut self, content: ContentId, transfer: &Transfer) {
        self.timers.stop(Timer::Tell(content));
        self.site.left(&content, &self.node);
        if transfer.told_at.is_some() {
            self.say(Part::Left { content });
        }
    }

    /// A peer says what part it takes.
    pub(super) fn on_part(&mut self, from: NodeId, part: Part) {
        let parts_max = self.config.limits.parts;
        let (content, known) = match part {
            Part::Wanted { content, origin, pieces } => {
                let until = self.now + self.config.want_expiry;
                let new = self.site.wanted(content, from, (origin, pieces), until, parts_max);
                if new == Some(true) {
                    self.tell_newcomer(content);
                }
                (content, new.is_some())
            }
            Part::Claimed { content, lease_ms } => {
                let lease = Duration::from_millis(u64::from(lease_ms)).min(self.config.want_expiry);
                (content, self.site.claimed(content, from, self.now + lease, parts_max))
            }
            Part::Left { content } => {
                self.site.left(&content, &from);
                (content, true)
            }
        };
        if !known {
            self.site.expire(self.now);
            self.limit_reached("parts");
        }
        self.yield_to_owner(content);
        self.reconsider(content);
    }

    /// Somebody joins: an owner says so at once, before the newcomer's turn to become one.
    fn tell_newcomer(&mut self, content: ContentId) {
        let owner = self.owner_of(&content) == Some(self.node);
        if owner && self.transfers.open.get(&content).is_some_and(Transfer::asks_origin) {
            self.claim(content);
        }
    }

    /// Stops asking the origin for what another one brings.
    fn yield_to_owner(&mut self, content: ContentId) {
        let fetches = self.transfers.open.get(&content).is_some_and(Transfer::asks_origin);
        let other = self.owner_of(&content).is_some_and(|owner| owner != self.node);
        if fetches && other {
            self.cancel_fetch(content);
            self.site.released(&content, &self.node);
        }
    }

    /// A transfer that waits for others looks again.
    fn reconsider(&mut self, content: ContentId) {
        if self.transfers.open.get(&content).is_some_and(|transfer| transfer.fetch().is_none()) {
            self.advance(content, None);
        }
    }

    /// A peer is gone: whatever waited for it looks again.
    pub(super) fn part_with(&mut self, peer: &NodeId) {
        self.site.gone(peer);
        let waiting = self.transfers.open.iter().filter(|(_, transfer)| transfer.election.is_some());
        for content in waiting.map(|(content, _)| *content).collect::<Vec<_>>() {
            self.reconsider(content);
        }
    }

    /// A peer came: it hears soon what this node takes part in, once gossip reaches it.
    pub(super) fn tell_soon(&mut self) {
        let soon = self.config.claim_grace;
        let open: Vec<_> = self.transfers.open.keys().copied().collect();
        for content in open {
            if self.timers.at(Timer::Tell(content)).is_some_and(|due| due > self.now + soon) {
                self.timers.set(Timer::Tell(content), self.now, soon);
            }
        }
    }
}
