//! What nobody on the site has: whose turn it is to ask the origin for it, and for how much.
//!
//! The candidates for the first piece that nobody has or fetches have their turns one after the other, in the common order
//! (`site.rs`). Invariants: a claim is said before the origin is asked; a transfer asks an origin for one run at a time, and
//! only for pieces that it owns.

use std::{cmp::Reverse, time::Duration};

use super::{
    Engine,
    clearing::Clearance,
    event::{Instant, Source},
    planning::{Choice, Step},
    select,
    site::{Claim, Party, Site},
    transfer::{Election, Kind, Transfer},
    trees::tree_of,
};
use crate::{ContentId, FIRST_BYTES, NodeId, PieceIndex, wire::Stripe};

/// Turns of a claim on all of a blob whose origin gives whole blobs only: it goes before any claim on a part.
pub(super) const TURN_WHOLE: u8 = 128;
/// Turns of a claim on a blob that its owner makes of another one: it goes before any claim to fetch, and nothing of the blob is
/// there before all of it is.
pub(super) const TURN_REBUILD: u8 = 192;

/// Whether whoever claims this makes the blob of another one.
pub(super) const fn is_rebuild(stripe: &Stripe) -> bool {
    stripe.turn >= TURN_REBUILD
}

impl Engine {
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
            Some(size) if size > 0 => self.front(&content, &others),
            _ if !transfer.fetches.is_empty() => return Choice::Enough,
            _ if !others.is_empty() => {
                self.begin_election(content, 0);
                return Choice::Wait(lease);
            }
            _ => Some(0),
        };
        match first {
            Some(_) if others.len() >= self.window(&content, transfer) => Choice::Wait(lease),
            Some(first) => self.elect(content, first, preferred),
            None if self.take_over(content) => match self.site.claim_of(&content, &self.node, self.now) {
                Some(claim) => {
                    self.claimed_step(&content, claim.stripe, preferred).map_or(Choice::Enough, Choice::Start)
                }
                None => Choice::Enough,
            },
            // Others bring the rest, maybe to where this node cannot get it: once their claims are over it is seen.
            None if !others.is_empty() && !self.transfers.is_fetching(&content) => Choice::Wait(lease),
            None => self.enough_or_nobody(&content),
        }
    }

    /// There is nobody to be asked but those who are.
    fn enough_or_nobody(&self, content: &ContentId) -> Choice {
        if self.transfers.is_fetching(content) { Choice::Enough } else { Choice::Nobody }
    }

    /// Stripes of a blob that may be under way: its share of what the site may have under way, and one at least.
    fn window(&self, content: &ContentId, transfer: &Transfer) -> usize {
        if transfer.unranged {
            return 1;
        }
        self.config.window.div_ceil(1 + self.site.fetched_beside(content, self.now))
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
        let run = select::first_run(stripe.first..stripe.end.min(taken.pieces()), mine)?;
        Some(Step { source, kind: Kind::Origin, size: transfer.size(), run })
    }

    pub(super) fn origin_source(&self, content: ContentId, preferred: Option<&Source>) -> Option<Source> {
        let transfer = self.transfers.open.get(&content)?;
        let origins = transfer.origins.iter().map(|(repository, kind)| {
            let down = self.origins.is_down(repository.registry(), self.now);
            (Source::Origin(repository.clone(), *kind), down)
        });
        select::of_origins(preferred, origins, |source| transfer.failures.contains_key(source))
    }

    /// Nobody fetches what begins at `first`: the candidates have their turns one after the other, so that it gets an owner
    /// also where words are lost or the first of them is not there any more.
    fn elect(&mut self, content: ContentId, first: PieceIndex, preferred: Option<&Source>) -> Choice {
        if let Some(withheld) = self.withhold(content, preferred) {
            return withheld;
        }
        if let Some(until) = self.before_turn(content, first) {
            return Choice::Wait(until);
        }
        let stripe = self.stripe_at(&content, first);
        if let Some(until) = self.cleared_at(content, stripe) {
            return Choice::Wait(until);
        }
        self.claim(content, stripe);
        match self.claimed_step(&content, stripe, preferred) {
            Some(step) => {
                self.tell(content);
                Choice::Start(step)
            }
            None => {
                self.site.released(&content, &self.node);
                self.enough_or_nobody(&content)
            }
        }
    }

    /// Until when this node's turn to claim what begins at a piece has not come; `None`: it has.
    pub(super) fn before_turn(&mut self, content: ContentId, first: PieceIndex) -> Option<Instant> {
        let begins = self.begin_election(content, first);
        if self.now < begins {
            return Some(begins);
        }
        let place = self.place_of(&content, first);
        let turn = begins + self.config.claim_grace.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
        // All others are told to wait for whoever was told to go on.
        let election = self.transfers.open.get(&content).and_then(|transfer| transfer.election);
        let cleared = election.is_some_and(|election| election.clearance == Clearance::Free);
        (self.now < turn && !cleared).then_some(turn)
    }

    /// How many candidates for what begins at a piece have their turns before this node: first those who have least to pass on,
    /// no stripe of their own under way, nor one whose tree they are inner nodes of.
    fn place_of(&self, content: &ContentId, first: PieceIndex) -> usize {
        let Some(transfer) = self.transfers.open.get(content) else { return 0 };
        let (trees, claims) = (self.config.trees, self.site.all_claims(self.now));
        let passed = |tree: u8| claims.iter().filter(|(_, claim)| claim.stripe.tree == tree).count();
        let passed: Vec<_> = (0..trees.max(1)).map(passed).collect();
        let own = |node: &NodeId| claims.iter().filter(|(owner, _)| owner == node).count();
        let rank = |own: usize, node: &NodeId, party: &Party| {
            let passed = passed.get(usize::from(tree_of(node, trees))).copied();
            (own, passed, Reverse(party.weight(first)), *node)
        };
        let trusted = |(node, _): &(&NodeId, &Party)| self.trusts_for(transfer, node);
        let me = self.site.candidate(content, &self.node, self.now).filter(|_| self.trusts_for(transfer, &self.node));
        let Some(mine) = me.map(|party| rank(own(&self.node), &self.node, party)) else {
            return self.site.candidates(content, self.now, |_, _| true).filter(trusted).count();
        };
        // Whoever comes later even without a stripe of its own need not be looked at any further.
        let before = self.site.candidates(content, self.now, |node, party| rank(0, node, party) < mine);
        before.filter(trusted).filter(|(node, party)| rank(own(node), node, party) < mine).count()
    }

    /// From when on the candidates for what begins at `first` have their turns: once this node has heard who takes part, which
    /// takes a while for the first election of a transfer only.
    fn begin_election(&mut self, content: ContentId, first: PieceIndex) -> Instant {
        let begins = match self.transfers.open.get(&content).and_then(|transfer| transfer.election) {
            Some(election) if election.first == first => return election.begins,
            Some(election) => election.begins.max(self.now),
            None => {
                if self.transfers.open.get(&content).is_some_and(|transfer| transfer.told_at != Some(self.now)) {
                    self.tell(content);
                }
                let fetched = !self.claims(&content).is_empty();
                self.settled_at(fetched)
            }
        };
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.election = Some(Election { first, begins, clearance: Clearance::Unasked });
        }
        begins
    }

    /// The stripe that this node would fetch from `first` on.
    fn stripe_at(&self, content: &ContentId, first: PieceIndex) -> Stripe {
        let claims = self.claims(content);
        let tree = self.site.tree_for(&self.node, self.now, self.config.trees);
        let whole = Stripe { first: 0, end: PieceIndex::MAX, turn: TURN_WHOLE, tree };
        let Some(transfer) = self.transfers.open.get(content) else { return whole };
        let (Some(pieces), Some(taken)) = (&transfer.pieces, transfer.taken()) else {
            return self.over_distrusted(content, transfer, Stripe { turn: 0, ..whole });
        };
        let count = pieces.layout.count();
        if transfer.unranged {
            return self.over_distrusted(content, transfer, Stripe { end: count, ..whole });
        }
        let max = self.config.stripe_bytes_max;
        let limits = if self.site.is_shared(content, &self.node, self.now) { (0, max) } else { (max, max) };
        let rate =
            self.uplink_rate.or(self.others_rate).unwrap_or(FIRST_BYTES * 1000 / millis(self.config.stripe_time));
        let time = self.config.stripe_time.saturating_mul(self.stretch);
        let of = |time, limits| select::pieces_for(rate, time, limits, pieces.layout.piece_len());
        // Towards the end they are shorter, so that no owner is left alone with the last; not where requests would count.
        let left = (count - first.min(count)) / (2 * u32::try_from(self.config.window).unwrap_or(u32::MAX).max(1));
        let short = of(time / self.config.stripe_shortened.max(1), (FIRST_BYTES.max(limits.0), max));
        let len = of(time, limits).min(left.max(short));
        let free = |piece: &PieceIndex| {
            let fetched = Site::owner_at(content, &claims, *piece).is_some();
            !taken.contains(*piece) && !fetched && !self.is_had(content, transfer, *piece)
        };
        let end = (first..first.saturating_add(len).min(count)).take_while(free).last().unwrap_or(first) + 1;
        self.over_distrusted(content, transfer, Stripe { first, end, turn: 0, tree })
    }

    /// The same with so many turns that it goes before the claims of those who are not believed. Others may believe them still:
    /// they would wait for them, and whoever made such a claim would go on, beside this node.
    pub(super) fn over_distrusted(&self, content: &ContentId, transfer: &Transfer, stripe: Stripe) -> Stripe {
        let claims = self.site.claims(content, self.now, |node| !self.trusts_for(transfer, node));
        let over = claims.iter().map(|(_, claim)| claim.stripe);
        let over = over.filter(|theirs| theirs.first < stripe.end && stripe.first < theirs.end);
        // A claim on a part is none on the whole, however often it changed hands, and one to fetch is none to rebuild.
        let max = match stripe.turn {
            ..TURN_WHOLE => TURN_WHOLE - 1,
            TURN_WHOLE..TURN_REBUILD => TURN_REBUILD - 1,
            TURN_REBUILD.. => u8::MAX,
        };
        let turn = over.map(|theirs| theirs.turn.saturating_add(1).min(max)).max();
        Stripe { turn: turn.unwrap_or(0).max(stripe.turn), ..stripe }
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
        let relieved = |node: &NodeId, claim: &Claim| {
            Site::owner_at(&content, &claims, claim.next).is_none_or(|(owner, _)| owner != *node)
        };
        let slow = claims.iter().find(|(node, claim)| {
            let left = u64::from(claim.stripe.end - claim.next) * piece_len;
            // A piece that is on its way shows only once it is there: on a slow uplink it may take longer than a lease.
            let done = u64::from(claim.next - claim.stripe.first + 1) * piece_len;
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
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
