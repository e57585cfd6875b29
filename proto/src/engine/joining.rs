//! Taking part: what this node says of its part in a blob, and what it does of the others' words.
//!
//! Each says that it wants the blob and what it has of it. After a moment in which the others' words arrive, the first in the
//! common order (`site.rs`) claims the first stripe that nobody has, and fetches it; the next in order claims the
//! next, up to a window of a few stripes. The others take them from upstream while they land. Invariants: a claim is said before
//! the origin is asked; it is repeated only while bytes come; whoever hears that another goes before it stops. A node that
//! nobody answers asks the origin itself in the end: the words save bytes, they never cost a blob.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Engine,
    electing::{TURN_WHOLE, is_rebuild},
    event::{Action, FetchId, Instant, Source, SourceError},
    planning::Upstream,
    select,
    site::{Heard, Room, Site, Word},
    timers::Timer,
    transfer::{Fetch, Kind, PieceState, Transfer},
};
use crate::{
    ContentId, NodeId, PieceIndex,
    piece::PIECE_LEN_MAX,
    wire::{Announcement, Claim, Having, Part, Stripe},
};

impl Engine {
    pub(super) fn room(&self) -> Room {
        let limits = &self.config.limits;
        Room { parts: limits.parts, parties: limits.parties, having_bytes: limits.having_bytes }
    }

    /// When the others' wants will have been heard, of a blob of which somebody fetches something already or not.
    pub(super) fn settled_at(&mut self, fetched: bool) -> Instant {
        let started = self.started.unwrap_or(self.now);
        if self.peers.len() == 0 {
            return self.now.max(started + self.config.settle_after_start);
        }
        let settle = if fetched { self.config.settle_while_fetched } else { self.config.settle };
        let among_peers = self.now + self.random.around(settle);
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

    /// For how long a blob has been wanted.
    pub(super) fn age(&self, content: &ContentId) -> Duration {
        self.transfers.open.get(content).map_or(Duration::ZERO, |transfer| self.now.since(transfer.began))
    }

    /// Between two repetitions of a want: with many wants for one blob, so long that all together are few, and longer where a
    /// blob takes long.
    fn want_interval(&self, content: &ContentId) -> Duration {
        let share = self.age(content) / self.config.want_share.max(1);
        let alone = share.min(self.config.want_interval_max).max(self.config.want_interval);
        self.spaced(content, self.config.want_spacing).max(alone)
    }

    /// After which a want that is not repeated is forgotten.
    fn want_expiry(&self, content: &ContentId) -> Duration {
        self.want_interval(content).saturating_mul(4).max(self.config.want_expiry)
    }

    /// So long that all who take part in a blob can say one word each with this time between two.
    fn spaced(&self, content: &ContentId, spacing: Duration) -> Duration {
        spacing.saturating_mul(u32::try_from(self.site.parties_of(content)).unwrap_or(u32::MAX))
    }

    /// For how long a claim is believed without a piece: the slowest uplink may be shared by all who fetch, and an origin that
    /// gives whole blobs only begins with what everybody has.
    pub(super) fn patience(&self, content: &ContentId) -> Duration {
        let transfer = self.transfers.open.get(content);
        let pieces = transfer.and_then(|transfer| transfer.pieces.as_ref());
        let had = pieces.filter(|_| transfer.is_some_and(|transfer| transfer.unranged));
        let had = had.map_or(0, |had| u64::from(had.durable.prefix()) * u64::from(had.layout.piece_len()));
        let rate = self.uplink_rate.or(self.others_rate).unwrap_or(self.config.uplink_rate_min);
        let piece_len = pieces.map_or(PIECE_LEN_MAX, |pieces| pieces.layout.piece_len());
        let owners = self.site.fetching_few(self.now, self.config.patience_owners_max).max(1);
        let piece_time = select::time_for(u64::from(piece_len), self.config.uplink_rate_min);
        let shared =
            (piece_time + select::time_for(had, rate)).saturating_mul(u32::try_from(owners).unwrap_or(u32::MAX));
        self.config.claim_patience + shared
    }

    /// For how long a claim on this stripe is believed without a piece.
    pub(super) fn patience_with(&self, content: &ContentId, stripe: Stripe) -> Duration {
        if is_rebuild(&stripe) { self.config.rebuild_time_max } else { self.patience(content) }
    }

    /// Enters this node's claim into the blob's list.
    pub(super) fn claim(&mut self, content: ContentId, stripe: Stripe) {
        let until = self.now + self.config.claim_lease;
        self.enter(content, Some((stripe, until)));
    }

    /// How large the blob is is known now: this node fetches its first stripe, or all of it if there are no stripes.
    pub(super) fn refine_claim(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some((_, fetch)) = transfer.origin_fetch() else { return };
        let claim = self.site.claim_of(&content, &self.node, self.now);
        let (turn, tree) = claim.map_or((0, 0), |claim| (claim.stripe.turn, claim.stripe.tree));
        let turn = if transfer.unranged { turn.max(TURN_WHOLE) } else { turn };
        let stripe = Stripe { first: fetch.run.start, end: fetch.run.end, turn, tree };
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

    /// Enters into the blob's list what this node fetches of it. Returns whether it could ask an origin.
    fn enter(&mut self, content: ContentId, claim: Option<(Stripe, Instant)>) -> bool {
        let Some(transfer) = self.transfers.open.get(&content) else { return false };
        let origin = self.reaches_origin_for(&content);
        let word = Word {
            sequence: 0,
            overtaken_within: Duration::ZERO,
            origin,
            size: transfer.size(),
            // What this node has it knows itself.
            having: None,
            claim,
            patience: claim.map_or(Duration::ZERO, |(stripe, _)| self.patience_with(&content, stripe)),
            until: self.now + self.want_expiry(&content),
        };
        // There are as many as transfers at most, and without its own claim a node could not fetch.
        let room = Room { parts: usize::MAX, parties: usize::MAX, ..self.room() };
        self.site.wanted(content, self.node, word, self.now, room);
        origin
    }

    /// For how long this node's word that it fetches something is good: half of what a piece takes it, within bounds.
    fn lease(&self, content: &ContentId) -> Duration {
        let pieces = self.transfers.open.get(content).and_then(|transfer| transfer.pieces.as_ref());
        let time = pieces
            .zip(self.uplink_rate)
            .map_or(Duration::ZERO, |(pieces, rate)| select::time_for(u64::from(pieces.layout.piece_len()), rate) / 2);
        time.min(self.config.claim_lease_max).max(self.config.claim_lease)
    }

    /// Says what part this node takes, and before that the hashes of what it has.
    pub(super) fn tell(&mut self, content: ContentId) {
        self.vouch_now(content);
        let claim = self.site.claim_of(&content, &self.node, self.now);
        let lease = self.lease(&content);
        let until = self.now + lease;
        let origin = self.enter(content, claim.map(|claim| (claim.stripe, until)));
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.told_at = Some(self.now);
        let having = transfer
            .pieces
            .as_ref()
            .filter(|pieces| pieces.layout.count() > 0)
            .map(|pieces| Having { size: pieces.layout.blob_size(), pieces: pieces.durable.clone() });
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let claim = claim.map(|claim| Claim { stripe: claim.stripe, lease_ms });
        self.say(Part::Wanted { content, origin, having, claim });
        let wait = match claim {
            Some(_) => lease / 3,
            None if self.budget.withholds(&content) => self.random.around(self.config.withheld_interval),
            None => self.random.around(self.want_interval(&content)),
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
    pub(super) fn on_part(&mut self, from: NodeId, sequence: u64, part: Part) {
        let content = match part {
            Part::Wanted { content, origin, having, claim } => {
                if !self.on_wanted((from, sequence), content, origin, having, claim) {
                    return;
                }
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

    /// Returns whether it may matter to what this node does next.
    fn on_wanted(
        &mut self,
        (from, sequence): (NodeId, u64),
        content: ContentId,
        origin: bool,
        having: Option<Having>,
        claim: Option<Claim>,
    ) -> bool {
        let until = self.now + self.want_expiry(&content);
        let whole = claim.is_some_and(|claim| claim.stripe.turn >= TURN_WHOLE && !is_rebuild(&claim.stripe));
        let claim = claim.map(|claim| {
            let lease = Duration::from_millis(u64::from(claim.lease_ms)).min(self.config.want_expiry);
            (claim.stripe, self.now + lease)
        });
        let (size, having) = (having.as_ref().map(|having| having.size), having.map(|having| having.pieces));
        let patience = claim.map_or(Duration::ZERO, |(stripe, _)| self.patience_with(&content, stripe));
        let has = having.clone();
        let before = self.site.claim_of(&content, &from, self.now);
        let word = Word {
            sequence,
            overtaken_within: self.config.overtaken_within,
            origin,
            size,
            having,
            claim,
            patience,
            until,
        };
        let heard = self.site.wanted(content, from, word, self.now, self.room());
        if let Some(size) = size {
            self.note_claimed(content, size);
        }
        self.pardon_if_not_dry(content, from);
        self.gave_up_rebuild(content, before, &from);
        match &heard {
            None => {
                self.site.expire(self.now);
                self.limit_reached("parts");
            }
            Some(heard) if heard.new => {
                self.answer_newcomer(content);
                self.offer_hashes(content, &from);
            }
            Some(_) => {}
        }
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return false };
        if whole {
            transfer.unranged = true;
        }
        let gained = |heard: &Heard| has.is_some_and(|has| self.brings(&content, has.beyond(heard.had.as_ref())));
        heard.is_none_or(|heard| heard.claims || gained(&heard))
    }

    /// Whether it matters that somebody has these pieces: this node neither has them nor waits for them where it is known what
    /// they must be. A claim that runs out, a word that was lost and whoever brings nothing are looked after in a while.
    pub(super) fn brings(&self, content: &ContentId, mut pieces: impl Iterator<Item = PieceIndex>) -> bool {
        let Some(transfer) = self.transfers.open.get(content) else { return false };
        let awaited = |piece: PieceIndex| match transfer.piece_state(piece) {
            PieceState::Durable => true,
            PieceState::InFlight => self.vouched(transfer, piece).is_some() && !self.would_yield(transfer, piece),
            PieceState::Missing => false,
        };
        transfer.pieces.is_none() || !pieces.all(awaited)
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
        self.stop_asking_origin(content);
        self.leave_dry_streams(content);
        self.make_way(content);
        self.advance(content, None);
    }

    /// Looks again at what waits for somebody.
    pub(super) fn look_where_waiting(&mut self) {
        let waiting = self.transfers.open.iter().filter(|(_, transfer)| transfer.waits);
        let waiting: Vec<_> = waiting.map(|(content, _)| *content).collect();
        waiting.into_iter().for_each(|content| self.look_again(content));
    }

    /// Leaves streams of pieces that nobody brings, or somebody else along another tree, and such as were to bring more than
    /// their owner fetches: it had not said yet where its stripe ends, or it gave up a part.
    fn leave_dry_streams(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        if !transfer.fetches.values().any(|fetch| matches!(fetch.kind, Kind::Stripe(..) | Kind::Section)) {
            return;
        }
        // Also stripes that came to their ends: a stream along the tree of what its owner gave up would bring it from those who
        // wait for it along the tree of whoever brought it instead.
        let mut claims = self.claims(&content);
        let brought: Vec<_> = self.brought(&content, transfer, &claims).collect();
        claims.extend(brought);
        let held = self.holders_of_most(&content, transfer);
        let is_with_holders = |fetch: &Fetch| {
            let open = |node: &NodeId| fetch.peer() != Some(*node) && self.can_ask(transfer, node);
            self.brings_nothing(fetch) && held.iter().any(open)
        };
        let dry = transfer.fetches.iter().filter(|(_, fetch)| {
            let (Kind::Stripe(owner, first), Some(next)) = (fetch.kind, transfer.next_of(fetch)) else {
                return fetch.kind == Kind::Section && is_with_holders(fetch);
            };
            let told = || self.vouched(transfer, next).is_some();
            // It is somewhere; should nothing come, upstream may be waiting for this node.
            let stale = || self.is_elsewhere(&content, next, fetch);
            if is_with_holders(fetch) {
                return true;
            }
            match Site::owner_at(&content, &claims, next) {
                Some((node, claim)) if (node, claim.stripe.first) != (owner, first) => true,
                // A hash that was said and not heard does not come again.
                Some((_, claim)) => claim.stripe.end < fetch.run.end || next < claim.next && (!told() || stale()),
                None => !told() || stale(),
            }
        });
        // Whoever waits for what others have is not asked for it again before it has it: two might wait for each other for ever.
        let waits = |fetch: &Fetch| {
            let (peer, next) = (fetch.peer()?, transfer.next_of(fetch)?);
            let lacks = !self.site.has(&content, &peer, next) && self.is_elsewhere(&content, next, fetch);
            lacks.then_some((peer, next))
        };
        let dry: Vec<_> = dry.map(|(id, fetch)| (*id, waits(fetch))).collect();
        for (fetch, waits) in dry {
            self.cancel_one(fetch);
            if let Some(((peer, piece), transfer)) = waits.zip(self.transfers.open.get_mut(&content)) {
                transfer.fail(Source::Peer(peer), SourceError::Failed("it waits for it, too".to_owned()));
                transfer.dry.insert(peer, piece);
            }
        }
    }

    /// Lets the last of the streams go that bring nothing, if something earlier could be had in its place. All nodes then go by the
    /// order of pieces: else two could each wait for what the other has no fetch left for.
    fn make_way(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let streams = |kind| matches!(kind, Kind::Stripe(..) | Kind::Section);
        let waits = |fetch: &Fetch| streams(fetch.kind) && self.brings_nothing(fetch);
        let waiting = transfer.fetches.iter().filter(|(_, fetch)| waits(fetch));
        let Some((last, fetch)) = waiting.max_by_key(|(_, fetch)| fetch.run.start) else { return };
        let Some(taken) = transfer.taken() else { return };
        let earlier = match fetch.kind {
            Kind::Section => taken.next_missing(0),
            _ if transfer.fetches.len() < self.config.fetches_per_transfer => None,
            _ => match self.ask_upstream(&content, &self.claims(&content), &taken) {
                Some(Upstream::Ready(step)) => Some(step.run.start),
                _ => None,
            },
        };
        if earlier.is_some_and(|piece| piece < fetch.run.start) {
            self.cancel_one(*last);
        }
    }

    /// Whether a stream's next piece has not landed at its owner either, whose claim still counts: the uplink takes so long.
    pub(super) fn waits_for_owner(&self, fetch: FetchId) -> bool {
        let Some((content, transfer)) = self.transfers.of_fetch(fetch) else { return false };
        let Some(fetch) = transfer.fetches.get(&fetch) else { return false };
        let Kind::Stripe(owner, first) = fetch.kind else { return false };
        let next = transfer.next_of(fetch);
        let claim = self.site.claim_of(&content, &owner, self.now).filter(|claim| claim.stripe.first == first);
        let Some((next, claim)) = next.zip(claim) else { return false };
        next >= claim.next && !transfer.vouches.is_known(next) && self.trusts_for(transfer, &owner)
    }

    /// Whether a fetch has brought nothing for so long that it makes way for others.
    fn brings_nothing(&self, fetch: &Fetch) -> bool {
        self.now.since(fetch.moved) >= self.config.make_way
    }

    /// Who holds a blob, if a stream of it brings nothing although more have all of it by now than want it still: nobody need wait
    /// for anybody any more. Some take it along the trees of those who fetched it and others along those of holders, and may wait
    /// for each other.
    fn holders_of_most(&self, content: &ContentId, transfer: &Transfer) -> BTreeSet<NodeId> {
        // Who has it is dear to find out on a large site.
        if !transfer.fetches.values().any(|fetch| self.brings_nothing(fetch)) {
            return BTreeSet::new();
        }
        // What others hold is known of those connected only; they are as good a sample as any.
        let held: BTreeSet<_> = self.directory.holders(content).map(|(peer, _)| peer).collect();
        let lacks = |node: &&NodeId| self.peers.is_connected(node) && !held.contains(*node);
        let lacking = self.site.wanting(content, self.now).filter(lacks).count();
        if lacking < held.len() { held } else { BTreeSet::new() }
    }

    /// Whether a stream brings nothing for too long and others are known to have its next piece. A source that has it too
    /// gets more time: it may only be busy.
    fn is_elsewhere(&self, content: &ContentId, piece: PieceIndex, fetch: &Fetch) -> bool {
        let Some(transfer) = self.transfers.open.get(content) else { return false };
        if self.now.since(fetch.moved) < self.config.stream_patience {
            // Who has it is dear to find out on a large site.
            return false;
        }
        let holders = self.directory.holders(content).map(|(peer, _)| peer);
        let having = self.site.havers(content, piece).chain(holders).filter(|node| self.can_ask(transfer, node));
        let (source, others): (Vec<_>, Vec<_>) = having.partition(|node| fetch.peer() == Some(*node));
        let patience = self.config.stream_patience * if source.is_empty() { 1 } else { 4 };
        others.iter().any(|node| *node != self.node) && self.now.since(fetch.moved) >= patience
    }

    /// A peer that had not the whole blob did not go on. It may not have begun yet, so nothing is final; an owner that
    /// brings nothing is not waited for by anybody for a while, nor is whoever does not have what it says. Of one that sent other
    /// bytes than somebody vouched for, one of the two lies.
    pub(super) fn upstream_failed(&mut self, content: ContentId, running: &Fetch, error: SourceError) {
        let Some(peer) = running.peer() else { return };
        // Whoever gets all of it anew from its beginning brings nothing for long, and all others would take its claim for none.
        let transfer = self.transfers.open.get(&content);
        let anew = transfer.is_some_and(|transfer| transfer.unranged);
        let next = transfer.and_then(|transfer| transfer.next_of(running));
        let has = next.is_some_and(|piece| self.site.has(&content, &peer, piece));
        match error {
            SourceError::WrongBytes => self.dispute(content, peer, &running.run),
            SourceError::Unreachable(_) if !anew && matches!(running.kind, Kind::Stripe(owner, _) if owner == peer) => {
                self.suspect(peer);
            }
            SourceError::NotFound if has => self.suspect(peer),
            _ => {}
        }
        // It may have waited for it in vain itself.
        let dry = next.filter(|_| matches!(error, SourceError::Unreachable(_)) && !has);
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let error = match error {
            SourceError::NotFound => SourceError::Failed("it has not begun the blob".to_owned()),
            other => other,
        };
        transfer.fail(running.source.clone(), error);
        match dry {
            Some(piece) => transfer.dry.insert(peer, piece),
            None => transfer.dry.remove(&peer),
        };
    }

    /// A peer says what it has: if its stream ended for want of a piece that it has now, it may be asked again.
    pub(super) fn pardon_if_not_dry(&mut self, content: ContentId, peer: NodeId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let Some(piece) = transfer.dry.get(&peer) else { return };
        if self.site.has(&content, &peer, *piece) {
            transfer.dry.remove(&peer);
            transfer.pardon(peer);
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
            if transfer.has_pieces() {
                self.tell_within(content, self.config.answer_newcomers);
            }
            self.look_again(content);
        }
    }

    /// A peer came: it hears soon what this node takes part in, once gossip reaches it.
    pub(super) fn tell_soon(&mut self) {
        let soon = self.config.settle_after_connect;
        let open: Vec<_> = self.transfers.open.keys().copied().collect();
        for content in open {
            self.tell_within(content, soon);
        }
    }

    /// This node says its part after `soon`, or later if many others have the same reason to; who fetches from the origin does
    /// not wait for them.
    fn tell_within(&mut self, content: ContentId, soon: Duration) {
        let mut wait = soon;
        if self.site.claim_of(&content, &self.node, self.now).is_none() {
            wait += self.random.below(self.spaced(&content, self.config.reply_spacing));
        }
        if self.timers.at(Timer::Tell(content)).is_some_and(|due| due > self.now + wait) {
            self.timers.set(Timer::Tell(content), self.now, wait);
        }
    }
}
