//! Taking part: how this node and its peers agree on who asks the origin for what nobody on the site has.
//!
//! Each says that it wants the blob and what it has of it. After a moment in which the others' words arrive, the first in the
//! common order (`site.rs`) claims the first stripe that nobody has, and fetches it; the next in order claims the
//! next, up to a window of a few stripes. The others take them from upstream while they land. Invariants: a claim is said before
//! the origin is asked; it is repeated only while bytes come; whoever hears that another goes before it stops. A node that
//! nobody answers asks the origin itself in the end: the words save bytes, they never cost a blob.

use std::time::Duration;

use super::{
    Engine,
    event::{Action, FetchId, Instant, Source},
    planning::{Choice, Step},
    select,
    site::{Room, Site, Word},
    timers::Timer,
    transfer::{Election, Kind, Transfer},
};
use crate::{
    ContentId, FIRST_BYTES, NodeId, PieceIndex,
    piece::PIECE_LEN_MAX,
    wire::{Announcement, Claim, Having, Part, Stripe},
};

/// Turns of a claim on all of a blob whose origin gives whole blobs only: it goes before any claim on a part.
const TURN_WHOLE: u8 = 128;

impl Engine {
    pub(super) fn room(&self) -> Room {
        Room { parts: self.config.limits.parts, having_bytes: self.config.limits.having_bytes }
    }

    /// What nobody on the site has: from the origin, if it is this node's turn.
    pub(super) fn ask_origin(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        let Some(transfer) = self.transfers.open.get(&content) else { return Choice::Nobody };
        if transfer.origin_fetch().is_some() {
            return Choice::Enough;
        }
        if let Some(claim) = self.site.claim_of(&content, &self.node, self.now) {
            if let Some(withheld) = self.withhold(content, preferred) {
                return withheld;
            }
            if let Some(step) = self.claimed_step(&content, claim.stripe, preferred) {
                return Choice::Start(step);
            }
            self.site.released(&content, &self.node);
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return Choice::Nobody };
        let others = self.claims(&content);
        let lease = self.now + self.config.claim_lease;
        let first = match transfer.size() {
            // An empty blob is asked for like one whose size is not known.
            Some(size) if size > 0 => self.front(&content),
            _ if !transfer.fetches.is_empty() => return Choice::Enough,
            _ if !others.is_empty() => return Choice::Wait(lease),
            _ => Some(0),
        };
        match first {
            Some(_) if others.len() >= self.window(transfer) => Choice::Wait(lease),
            Some(first) => self.elect(content, first, preferred),
            None if self.take_over(content) => match self.site.claim_of(&content, &self.node, self.now) {
                Some(claim) => {
                    self.claimed_step(&content, claim.stripe, preferred).map_or(Choice::Enough, Choice::Start)
                }
                None => Choice::Enough,
            },
            None if !self.transfers.open.get(&content).is_some_and(|transfer| transfer.fetches.is_empty()) => {
                Choice::Enough
            }
            None => Choice::Nobody,
        }
    }

    fn window(&self, transfer: &Transfer) -> usize {
        if transfer.unranged { 1 } else { self.config.window }
    }

    /// The next run of what this node claimed.
    fn claimed_step(&self, content: &ContentId, stripe: Stripe, preferred: Option<&Source>) -> Option<Step> {
        let transfer = self.transfers.open.get(content)?;
        let source = self.origin_source(*content, preferred)?;
        let Some(taken) = transfer.taken().filter(|taken| taken.pieces() > 0) else {
            let size = transfer.size();
            let run = if size.is_some() { 0..1 } else { 0..PieceIndex::MAX };
            return Some(Step { source, kind: Kind::Origin, size, run });
        };
        let claims = self.claims(content);
        let mine = |piece: &PieceIndex| {
            !taken.contains(*piece)
                && Site::owner_at(content, &claims, *piece).is_some_and(|(owner, _)| owner == self.node)
        };
        let mut pieces = stripe.first..stripe.end.min(taken.pieces());
        let first = pieces.find(mine)?;
        let end = pieces.take_while(mine).last().unwrap_or(first) + 1;
        Some(Step { source, kind: Kind::Origin, size: transfer.size(), run: first..end })
    }

    pub(super) fn origin_source(&self, content: ContentId, preferred: Option<&Source>) -> Option<Source> {
        let transfer = self.transfers.open.get(&content)?;
        let origins = transfer.origins.iter().map(|(repository, kind)| {
            let down = self.origins.is_down(repository.registry(), self.now);
            (Source::Origin(repository.clone(), *kind), down)
        });
        select::source(preferred, std::iter::empty(), origins, |source| transfer.failures.contains_key(source))
    }

    /// Nobody fetches what begins at `first`: the candidates have their turns one after the other, so that it gets an owner
    /// also where words are lost or the first of them is not there any more.
    fn elect(&mut self, content: ContentId, first: PieceIndex, preferred: Option<&Source>) -> Choice {
        if let Some(withheld) = self.withhold(content, preferred) {
            return withheld;
        }
        let before = self.transfers.open.get(&content).and_then(|transfer| transfer.election);
        let begins = match before {
            Some(election) if election.first == first => election.begins,
            // Who takes part is known; this is only the next stripe.
            Some(election) => election.begins.max(self.now),
            None => {
                if self.transfers.open.get(&content).is_some_and(|transfer| transfer.told_at != Some(self.now)) {
                    self.tell(content);
                }
                self.settled_at()
            }
        };
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.election = Some(Election { first, begins });
        }
        if self.now < begins {
            return Choice::Wait(begins);
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return Choice::Nobody };
        let candidates = self.site.candidates(&content, first, self.now, |node| self.trusts_for(transfer, node));
        let place = candidates.iter().position(|node| *node == self.node).unwrap_or(candidates.len());
        let turn = begins + self.config.claim_grace.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
        if self.now < turn {
            return Choice::Wait(turn);
        }
        let stripe = self.stripe_at(&content, first);
        self.claim(content, stripe);
        match self.claimed_step(&content, stripe, preferred) {
            Some(step) => {
                self.tell(content);
                Choice::Start(step)
            }
            None => {
                self.site.released(&content, &self.node);
                let fetches = self.transfers.open.get(&content).is_some_and(|transfer| !transfer.fetches.is_empty());
                if fetches { Choice::Enough } else { Choice::Nobody }
            }
        }
    }

    /// The stripe that this node would fetch from `first` on.
    fn stripe_at(&self, content: &ContentId, first: PieceIndex) -> Stripe {
        let whole = Stripe { first: 0, end: PieceIndex::MAX, turn: TURN_WHOLE };
        let Some(transfer) = self.transfers.open.get(content) else { return whole };
        let (Some(pieces), Some(taken)) = (&transfer.pieces, transfer.taken()) else {
            return Stripe { turn: 0, ..whole };
        };
        let count = pieces.layout.count();
        if transfer.unranged {
            return Stripe { end: count, ..whole };
        }
        let max = self.config.stripe_bytes_max;
        let limits = if self.site.is_shared(content, &self.node, self.now) { (0, max) } else { (max, max) };
        let rate = self.uplink_rate.unwrap_or(FIRST_BYTES * 1000 / millis(self.config.stripe_time));
        let len = select::pieces_for(rate, self.config.stripe_time, limits, pieces.layout.piece_len());
        let claims = self.claims(content);
        let had = |piece: PieceIndex| {
            let havers =
                self.site.havers(content, piece).any(|node| node != self.node && self.can_ask(transfer, &node));
            havers && transfer.vouches.of(piece, |node| self.trusts_for(transfer, node)).is_some()
        };
        let free = |piece: &PieceIndex| {
            !taken.contains(*piece) && Site::owner_at(content, &claims, *piece).is_none() && !had(*piece)
        };
        let end = (first..first.saturating_add(len).min(count)).take_while(free).last().unwrap_or(first) + 1;
        Stripe { first, end, turn: 0 }
    }

    /// Takes the rest of a stripe over from an owner that is much slower than this node was. Nothing else is left.
    fn take_over(&mut self, content: ContentId) -> bool {
        let (Some(transfer), Some(rate)) = (self.transfers.open.get(&content), self.uplink_rate) else { return false };
        let may_ask = self.origin_source(content, None).is_some() && self.may_ask_origin(&content);
        if transfer.unranged || !may_ask {
            return false;
        }
        let Some(piece_len) = transfer.pieces.as_ref().map(|pieces| u64::from(pieces.layout.piece_len())) else {
            return false;
        };
        let bar = (self.config.takeover_factor, self.config.claim_lease);
        let claims = self.claims(&content);
        // Whom somebody else relieved already may not have heard it yet.
        let relieved = |node: &NodeId, claim: &super::site::Claim| {
            Site::owner_at(&content, &claims, claim.next).is_none_or(|(owner, _)| owner != *node)
        };
        let slow = claims.iter().find(|(node, claim)| {
            let left = u64::from(claim.stripe.end - claim.next) * piece_len;
            let done = u64::from(claim.next - claim.stripe.first) * piece_len;
            let progress = select::Progress { done, left, since: claim.since };
            let old = self.now.since(claim.since) >= self.config.claim_lease;
            *node != self.node && old && !relieved(node, claim) && select::is_slow(progress, rate, self.now, bar)
        });
        let Some((_, claim)) = slow.copied() else { return false };
        let Some(turn) = claim.stripe.turn.checked_add(1) else { return false };
        let stripe = Stripe { first: claim.next, turn, ..claim.stripe };
        // What lands there too slowly is not waited for.
        let waiting = transfer.fetches.iter().filter(|(_, fetch)| {
            matches!(fetch.kind, Kind::Stripe(..)) && fetch.run.start < stripe.end && stripe.first < fetch.run.end
        });
        for fetch in waiting.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cancel_one(fetch);
        }
        self.claim(content, stripe);
        self.tell(content);
        true
    }

    /// When the others' wants will have been heard.
    fn settled_at(&mut self) -> Instant {
        let started = self.started.unwrap_or(self.now);
        if self.peers.len() == 0 {
            return self.now.max(started + self.config.settle_after_start);
        }
        let among_peers = self.now + self.random.around(self.config.settle);
        // Words to those just met may not reach them yet.
        let met = self.met.map_or(Instant::default(), |met| met + self.config.settle_after_connect);
        among_peers.max(met)
    }

    /// Enters this node into the blob's list, and says so if it did not yet.
    pub(super) fn join(&mut self, content: ContentId) {
        if self.transfers.open.get(&content).is_some_and(|transfer| transfer.told_at.is_none()) {
            self.tell(content);
        }
    }

    /// Whether this node could ask an origin for the blob.
    fn reaches_origin_for(&self, content: &ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get(content).filter(|_| self.may_ask_origin(content)) else {
            return false;
        };
        transfer.origins.iter().any(|(repository, kind)| {
            let source = Source::Origin(repository.clone(), *kind);
            !transfer.failures.contains_key(&source) && !self.origins.is_down(repository.registry(), self.now)
        })
    }

    /// For how long a claim is believed without a piece.
    fn patience(&self, content: &ContentId) -> Duration {
        let pieces = self.transfers.open.get(content).and_then(|transfer| transfer.pieces.as_ref());
        let piece_len = pieces.map_or(PIECE_LEN_MAX, |pieces| pieces.layout.piece_len());
        self.config.claim_patience + select::time_for(u64::from(piece_len), self.config.uplink_rate_min)
    }

    /// Enters this node's claim into the blob's list.
    fn claim(&mut self, content: ContentId, stripe: Stripe) {
        let until = self.now + self.config.claim_lease;
        self.enter(content, Some((stripe, until)));
    }

    /// How large the blob is is known now: this node fetches its first stripe, or all of it if there are no stripes.
    pub(super) fn refine_claim(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some((_, fetch)) = transfer.origin_fetch() else { return };
        let turn = if transfer.unranged { TURN_WHOLE } else { 0 };
        let stripe = Stripe { first: fetch.run.start, end: fetch.run.end, turn };
        self.claim(content, stripe);
        if self.peers.len() > 0 {
            self.tell(content);
        }
    }

    /// A node whose fetch from the origin failed and that has nothing to claim now says so.
    pub(super) fn tell_if_idle(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        if transfer.told_at.is_some_and(|told| told != self.now) && transfer.origin_fetch().is_none() {
            self.tell(content);
        }
    }

    /// Enters into the blob's list what this node has of it and fetches of it.
    fn enter(&mut self, content: ContentId, claim: Option<(Stripe, Instant)>) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let word = Word {
            origin: self.reaches_origin_for(&content),
            size: transfer.size(),
            // What this node has it knows itself.
            having: None,
            claim,
            patience: self.patience(&content),
            until: self.now + self.config.want_expiry,
        };
        // There are as many as transfers at most, and without its own claim a node could not fetch.
        let room = Room { parts: usize::MAX, ..self.room() };
        self.site.wanted(content, self.node, word, self.now, room);
    }

    /// Says what part this node takes, and before that the hashes of what it has.
    pub(super) fn tell(&mut self, content: ContentId) {
        self.vouch_now(content);
        let claim = self.site.claim_of(&content, &self.node, self.now);
        let until = self.now + self.config.claim_lease;
        self.enter(content, claim.map(|claim| (claim.stripe, until)));
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.told_at = Some(self.now);
        let having = transfer
            .pieces
            .as_ref()
            .filter(|pieces| pieces.layout.count() > 0)
            .map(|pieces| Having { size: pieces.layout.blob_size(), pieces: pieces.durable.clone() });
        let lease = self.config.claim_lease;
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let claim = claim.map(|claim| Claim { stripe: claim.stripe, lease_ms });
        let origin = self.reaches_origin_for(&content);
        self.say(Part::Wanted { content, origin, having, claim });
        let wait = match claim {
            Some(_) => lease / 3,
            None if self.budget.withholds(&content) => self.random.around(self.config.withheld_interval),
            None => self.random.around(self.config.want_interval).min(lease),
        };
        self.timers.set(Timer::Tell(content), self.now, wait);
    }

    pub(super) fn say(&mut self, part: Part) {
        if self.peers.len() > 0 {
            self.act(Action::Announce(Announcement::Taking(part)));
        }
    }

    /// The time to repeat what was said has come.
    pub(super) fn tell_again(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if let Some((_, fetch)) = transfer.origin_fetch() {
            // A registry that is far away takes a while over its first byte, and would over another node's.
            let told = transfer.told_at.unwrap_or_default();
            // A newcomer may have made it due early, when nothing can have come since.
            let comes = transfer.origin_progress > told
                || self.now.since(transfer.origin_progress) < self.config.claim_lease / 3;
            let may_come = fetch.bytes == 0 && self.now.since(fetch.began) < self.config.fetch_stall_origin / 2;
            if !comes && !may_come {
                self.site.released(&content, &self.node);
            }
        }
        self.tell(content);
        self.look_again(content);
    }

    /// This node takes no part any more, and has not got the blob.
    pub(super) fn leave(&mut self, content: ContentId, transfer: &Transfer) {
        self.timers.stop(Timer::Tell(content));
        self.timers.stop(Timer::Vouch(content));
        self.site.left(&content, &self.node);
        if transfer.told_at.is_some() {
            self.say(Part::Left { content });
        }
    }

    /// A peer says what part it takes.
    pub(super) fn on_part(&mut self, from: NodeId, part: Part) {
        let content = match part {
            Part::Wanted { content, origin, having, claim } => {
                self.on_wanted(from, content, origin, having, claim);
                content
            }
            Part::Vouched { content, size, first, hashes } => {
                return self.on_vouched(from, content, size, first, &hashes);
            }
            Part::Left { content } => {
                self.site.left(&content, &from);
                content
            }
        };
        self.look_again(content);
    }

    fn on_wanted(
        &mut self,
        from: NodeId,
        content: ContentId,
        origin: bool,
        having: Option<Having>,
        claim: Option<Claim>,
    ) {
        let until = self.now + self.config.want_expiry;
        let whole = claim.is_some_and(|claim| claim.stripe.turn >= TURN_WHOLE);
        let claim = claim.map(|claim| {
            let lease = Duration::from_millis(u64::from(claim.lease_ms)).min(self.config.want_expiry);
            (claim.stripe, self.now + lease)
        });
        let size = having.as_ref().map(|having| having.size);
        let patience = self.patience(&content);
        let word = Word { origin, size, having: having.map(|having| having.pieces), claim, patience, until };
        match self.site.wanted(content, from, word, self.now, self.room()) {
            None => {
                self.site.expire(self.now);
                self.limit_reached("parts");
            }
            Some(true) => self.answer_newcomer(content),
            Some(false) => {}
        }
        if let Some(transfer) = self.transfers.open.get_mut(&content).filter(|_| whole) {
            transfer.unranged = true;
        }
    }

    /// Somebody joins: those who fetch or fetched from the origin say so soon, before the newcomer asks it itself.
    fn answer_newcomer(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let supplied = |pieces: &super::transfer::Pieces| {
            pieces.known.values().any(|(supplier, _)| *supplier == super::transfer::Supplier::Origin)
        };
        let concerned = transfer.origin_fetch().is_some() || transfer.pieces.as_ref().is_some_and(supplied);
        let soon = self.config.answer_newcomers;
        if concerned && self.timers.at(Timer::Tell(content)).is_some_and(|due| due > self.now + soon) {
            self.timers.set(Timer::Tell(content), self.now, soon);
        }
        if concerned {
            self.vouch(content);
        }
    }

    /// Something that others do has changed: stops what is not this node's to fetch any more or comes from nowhere, and looks
    /// for the next step.
    pub(super) fn look_again(&mut self, content: ContentId) {
        if !self.transfers.open.contains_key(&content) {
            return;
        }
        for idler in self.site.idlers(&content, self.now) {
            if idler != self.node {
                self.suspect(idler);
            }
        }
        self.yield_to_owners(content);
        self.leave_dry_streams(content);
        self.advance(content, None);
    }

    /// Stops asking the origin for what another one brings.
    fn yield_to_owners(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let (Some((id, fetch)), Some(pieces)) = (transfer.origin_fetch(), &transfer.pieces) else {
            return self.yield_unsized(content);
        };
        let claims = self.claims(&content);
        let missing = fetch.run.clone().filter(|piece| !pieces.durable.contains(*piece));
        let others =
            |piece: &PieceIndex| Site::owner_at(&content, &claims, *piece).is_some_and(|(owner, _)| owner != self.node);
        let (mut missing, end) = (missing.peekable(), fetch.run.end);
        if missing.peek().is_some_and(others) {
            self.cancel_one(id);
            self.site.released(&content, &self.node);
        } else if let Some(theirs) = missing.find(others).filter(|piece| *piece < end) {
            self.site.shorten(&content, &self.node, theirs);
            if let Some(fetch) = self.transfers.open.get_mut(&content).and_then(|open| open.fetches.get_mut(&id)) {
                fetch.run.end = theirs;
                fetch.shortened = true;
            }
        }
    }

    /// The same while this node does not know how large the blob is: the first in order goes on.
    fn yield_unsized(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some((id, _)) = transfer.origin_fetch() else { return };
        let first = Site::owner_at(&content, &self.claims(&content), 0);
        if first.is_some_and(|(owner, _)| owner != self.node) {
            self.cancel_one(id);
            self.site.released(&content, &self.node);
        }
    }

    /// Leaves streams of pieces that nobody brings, or somebody else along another tree.
    fn leave_dry_streams(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some(pieces) = &transfer.pieces else { return };
        let claims = self.claims(&content);
        let dry = transfer.fetches.iter().filter(|(_, fetch)| {
            let Kind::Stripe(owner, first) = fetch.kind else { return false };
            let Some(next) = fetch.run.clone().find(|piece| !pieces.durable.contains(*piece)) else { return false };
            let told = transfer.vouches.of(next, |node| self.trusts_for(transfer, node)).is_some();
            match Site::owner_at(&content, &claims, next) {
                // A hash that was said and not heard does not come again.
                Some((node, claim)) => (node, claim.stripe.first) != (owner, first) || (next < claim.next && !told),
                None => !told,
            }
        });
        for fetch in dry.map(|(id, _)| *id).collect::<Vec<FetchId>>() {
            self.cancel_one(fetch);
        }
    }

    /// A peer is gone: whatever waited for it looks again, and everybody says what they have, since it may have been the
    /// only one to be known to have it.
    pub(super) fn part_with(&mut self, peer: &NodeId) {
        for content in self.site.gone(peer) {
            let Some(transfer) = self.transfers.open.get_mut(&content) else { continue };
            if transfer.origin_fetch().is_none() {
                transfer.election = None;
            }
            if transfer.has_pieces() && transfer.told_at != Some(self.now) {
                self.tell(content);
            }
            self.look_again(content);
        }
    }

    /// A peer came: it hears soon what this node takes part in, once gossip reaches it.
    pub(super) fn tell_soon(&mut self) {
        let soon = self.config.settle_after_connect;
        let open: Vec<_> = self.transfers.open.keys().copied().collect();
        for content in open {
            if self.timers.at(Timer::Tell(content)).is_some_and(|due| due > self.now + soon) {
                self.timers.set(Timer::Tell(content), self.now, soon);
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
