//! What a transfer asks for next, and whom.
//!
//! In this order: whoever holds the whole blob, several of them side by side; a patch, if this device can make the blob of one that
//! it holds, or whoever does that (`rebuilding.rs`); what others fetch from the origin, while it
//! lands at whoever is upstream; what others have of it, the rarest first; and what nobody on the site has or fetches, from the
//! origin, if it is this node's turn. Invariants: nothing here changes a fetch that runs, but for the slow one of two sources
//! once nothing is left to be asked for; a piece is asked for only where it is neither durable nor in flight.

use std::ops::Range;

use super::{
    Engine,
    electing::TURN_WHOLE,
    event::{Instant, Source},
    rebuilding::Rebuild,
    select,
    site::{Claim, Site},
    transfer::{Kind, Transfer},
    trees::Shape,
    vouches::Vouch,
};
use crate::{ContentId, NodeId, PieceIndex, PieceSet, bytes, piece::PieceLayout, wire::Stripe};

/// What a transfer does next.
pub(super) enum Choice {
    /// Start a fetch.
    Start(Step),
    /// Make the blob of another one.
    Rebuild(Rebuild),
    /// Wait until then, or until somebody says something.
    Wait(Instant),
    /// Wait until the uplink's budget allows to ask an origin, or until somebody says something.
    Withheld,
    /// Enough is asked for now.
    Enough,
    /// Nobody is left who could be asked.
    Nobody,
}

/// A fetch to start.
pub(super) struct Step {
    pub(super) source: Source,
    pub(super) kind: Kind,
    pub(super) size: Option<u64>,
    pub(super) run: Range<PieceIndex>,
}

/// What is to be done about what others fetch from the origin.
pub(super) enum Upstream {
    /// Ask this peer for it.
    Ready(Step),
    /// Nobody upstream is connected; this node is the nearest.
    Apart(NodeId),
}

impl Engine {
    /// The next step of a transfer.
    pub(super) fn choose(&mut self, content: ContentId, preferred: Option<&Source>) -> Choice {
        let Some(transfer) = self.transfers.open.get(&content) else { return Choice::Nobody };
        if transfer.fetches.len() >= self.config.fetches_per_transfer {
            return Choice::Enough;
        }
        if let Some(choice) = self.ask_compared(content) {
            return choice;
        }
        if let Some(choice) = self.ask_crowd(content) {
            return choice;
        }
        if let Some(choice) = self.ask_holder(content, preferred) {
            if let (Choice::Start(Step { size: Some(size), .. }), Some(transfer)) =
                (&choice, self.transfers.open.get_mut(&content).filter(|transfer| transfer.fixed_size().is_none()))
            {
                // Others that hold it can be asked for the rest at once.
                transfer.take_size(&content, *size);
            }
            return choice;
        }
        self.join(content);
        self.adopt_size(content);
        let claims = self.claims(&content);
        if let Some(choice) = self.ask_rebuild(content, &claims) {
            return choice;
        }
        let taken = self.transfers.open.get(&content).and_then(Transfer::taken);
        if let Some(taken) = taken.filter(|taken| !taken.is_full()) {
            match self.ask_upstream(&content, &claims, &taken) {
                Some(Upstream::Ready(step)) => return Choice::Start(step),
                Some(Upstream::Apart(node)) => self.reach_for(node),
                None => {}
            }
            if let Some(step) = self.ask_haver(content, &claims, taken) {
                return Choice::Start(step);
            }
        }
        match self.ask_origin(content, preferred) {
            Choice::Nobody if self.peers.answers_hashes(&content) => {
                Choice::Wait(self.now + self.config.request_timeout)
            }
            Choice::Nobody if self.reaches_for(&content) => Choice::Wait(self.now + self.config.reach_patience),
            choice => choice,
        }
    }

    /// Whether a node may be asked for bytes and taken at its word.
    pub(super) fn trusts(&self, node: &NodeId) -> bool {
        !self.peers.is_penalised(node, self.now)
    }

    /// The same, for one blob.
    pub(super) fn trusts_for(&self, transfer: &Transfer, node: &NodeId) -> bool {
        self.trusts(node) && !transfer.doubted.contains(node)
    }

    pub(super) fn can_ask(&self, transfer: &Transfer, peer: &NodeId) -> bool {
        self.is_good(transfer, peer) && self.peers.is_connected(peer)
    }

    /// Whether a node may be asked for bytes of a blob if need be after connecting.
    pub(super) fn may_reach(&self, transfer: &Transfer, node: &NodeId) -> bool {
        self.is_good(transfer, node) && self.is_in_reach(node)
    }

    /// Whether a node may be asked for bytes of a blob, whether or not it is connected.
    pub(super) fn is_good(&self, transfer: &Transfer, peer: &NodeId) -> bool {
        self.trusts_for(transfer, peer) && !transfer.failures.contains_key(&Source::Peer(*peer))
    }

    /// The hash of a piece on which those agree who are believed.
    pub(super) fn vouched(&self, transfer: &Transfer, piece: PieceIndex) -> Option<Vouch> {
        transfer.vouches.of(piece, |node| self.trusts_for(transfer, node))
    }

    /// Whether hashes of a piece were said and those who are believed do not agree on one.
    pub(super) fn is_contested(&self, transfer: &Transfer, piece: PieceIndex) -> bool {
        transfer.vouches.is_known(piece) && self.vouched(transfer, piece).is_none()
    }

    /// Whether a piece can be had from somebody who has not all of the blob, if need be after connecting. One whose hash is
    /// contested cannot: only the origin can tell.
    pub(super) fn is_had(&self, content: &ContentId, transfer: &Transfer, piece: PieceIndex) -> bool {
        let has = |node: NodeId| node != self.node && self.may_reach(transfer, &node);
        self.site.havers(content, piece).any(has) && !self.is_contested(transfer, piece)
    }

    /// A run of pieces from a peer that has all of them. `None` if there is no such peer.
    fn ask_holder(&self, content: ContentId, preferred: Option<&Source>) -> Option<Choice> {
        let transfer = self.transfers.open.get(&content)?;
        let fits = |(peer, size): &(NodeId, u64)| {
            transfer.fixed_size().is_none_or(|known| known == *size) && self.can_ask(transfer, peer)
        };
        let holders: Vec<_> = self.directory.holders(&content).filter(fits).collect();
        let size = transfer.fixed_size().or(holders.first().map(|(_, size)| *size))?;
        let layout = PieceLayout::for_size(size)?;
        let busy = |peer: &NodeId| {
            transfer.fetches.values().any(|fetch| fetch.kind == Kind::Holder && fetch.peer() == Some(*peer))
        };
        let idle = holders.iter().map(|(peer, _)| *peer).filter(|peer| !busy(peer));
        let (load, rate) = (|peer: &NodeId| self.transfers.load(peer), |peer: &NodeId| self.rate_of(peer));
        let best = match preferred {
            Some(Source::Peer(peer)) if holders.iter().any(|(holder, _)| holder == peer) && !busy(peer) => Some(*peer),
            _ => idle.min_by_key(|peer| (load(peer), std::cmp::Reverse(rate(peer)))),
        };
        let Some(peer) = best else {
            return (!holders.is_empty()).then_some(Choice::Enough);
        };
        let known = transfer.taken().filter(|_| transfer.size() == Some(size));
        let taken = known.unwrap_or_else(|| PieceSet::empty(layout.count()));
        let limits = (self.config.chunk_bytes_min, self.config.chunk_bytes_max);
        // What is left is shared, too.
        let left = (layout.count() - taken.count()).div_ceil(u32::try_from(holders.len()).unwrap_or(u32::MAX));
        let least = select::pieces_for(0, self.config.chunk_time, limits, layout.piece_len());
        let chunk = select::pieces_for(rate(&peer), self.config.chunk_time, limits, layout.piece_len());
        // Also if there is one holder only: others who want it may come, and then it spreads.
        let chunk = chunk.min(left.max(least));
        let source = Source::Peer(peer);
        let step = |run| Choice::Start(Step { source, kind: Kind::Holder, size: Some(size), run });
        match select::run(&taken, transfer.first_reader(), chunk) {
            Some(run) => Some(step(run)),
            // A blob without pieces is asked for all the same: somebody has to say that it is there.
            None if layout.count() == 0 && transfer.fetches.is_empty() => Some(step(0..1)),
            None => Some(Choice::Enough),
        }
    }

    /// Bytes a second that a peer may be expected to bring.
    pub(super) fn rate_of(&self, peer: &NodeId) -> u64 {
        self.peers.rate(peer).unwrap_or(self.config.peer_rate_assumed)
    }

    /// Takes over how large the blob is from those who bring it, if this node has nothing of it yet.
    pub(super) fn adopt_size(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        if transfer.pieces.is_some() || !transfer.fetches.is_empty() {
            return;
        }
        let size = self.site.size(&content, self.now, |node| *node != self.node && self.trusts_for(transfer, node));
        if let (Some(size), Some(transfer)) = (size, self.transfers.open.get_mut(&content)) {
            transfer.take_size(&content, size);
        }
    }

    /// The claims on a blob, and whose a piece is.
    pub(super) fn claims(&self, content: &ContentId) -> Vec<(NodeId, Claim)> {
        let Some(transfer) = self.transfers.open.get(content) else { return Vec::new() };
        self.site.claims(content, self.now, |node| self.trusts_for(transfer, node))
    }

    /// Stripes that came to their ends and spread, but for those that are claimed again.
    pub(super) fn brought(
        &self,
        content: &ContentId,
        transfer: &Transfer,
        claims: &[(NodeId, Claim)],
    ) -> impl Iterator<Item = (NodeId, Claim)> {
        let overlap = |one: &Stripe, other: &Stripe| one.first < other.end && other.first < one.end;
        let again = move |brought: &Claim| claims.iter().any(|(_, claim)| overlap(&claim.stripe, &brought.stripe));
        let brought = self.site.spreading(content).copied();
        brought.filter(move |(node, brought)| self.trusts_for(transfer, node) && !again(brought))
    }

    /// Pieces that another node fetches from the origin, from whoever is upstream.
    pub(super) fn ask_upstream(
        &self,
        content: &ContentId,
        claims: &[(NodeId, Claim)],
        taken: &PieceSet,
    ) -> Option<Upstream> {
        let transfer = self.transfers.open.get(content)?;
        let size = transfer.size()?;
        let trusted = |node: &NodeId| self.trusts_for(transfer, node);
        // Also what its owner has fetched meanwhile: whoever asked the owner for it straight away would not be the only one.
        let open = |(_, brought): &(NodeId, Claim)| {
            taken.next_missing(brought.stripe.first).is_some_and(|piece| piece < brought.stripe.end)
        };
        let claims = &[claims, &self.brought(content, transfer, claims).filter(open).collect::<Vec<_>>()].concat();
        let mut others: Vec<_> = claims.iter().filter(|(node, _)| *node != self.node).collect();
        let reader = transfer.first_reader().unwrap_or(0);
        others.sort_by_key(|(_, claim)| (claim.stripe.end <= reader, claim.stripe.first));
        let mut apart = None;
        let step = others.into_iter().find_map(|(owner, claim)| {
            let stripe = claim.stripe;
            if self.site.size_said(content, owner).is_some_and(|said| said != size) {
                return None;
            }
            let theirs = |piece: &PieceIndex| {
                // The hash of what landed there before this node came is not said again: it has to be asked for.
                let told = || *piece >= claim.next || self.vouched(transfer, *piece).is_some();
                !taken.contains(*piece)
                    && told()
                    && Site::owner_at(content, claims, *piece)
                        .is_some_and(|(node, claim)| node == *owner && claim.stripe.first == stripe.first)
            };
            let run = select::first_run(stripe.first..stripe.end.min(taken.pieces()), theirs)?;
            let of = (*owner, stripe, self.node);
            let fan_out = if stripe.turn < TURN_WHOLE { self.config.trees } else { self.config.fan_out_whole };
            let line = self.site.upstream(
                content,
                of,
                self.now,
                Shape { root: fan_out, fan_out, trees: self.config.trees },
                trusted,
            );
            // Who sends this node much already sends others much, too.
            let askable = line.iter().filter(|peer| self.can_ask(transfer, peer)).take(self.config.parents);
            let Some(peer) = askable.min_by_key(|peer| self.transfers.load(peer)) else {
                apart = apart.or_else(|| line.into_iter().find(|node| self.may_reach(transfer, node)));
                return None;
            };
            let kind = Kind::Stripe(*owner, stripe.first);
            Some(Step { source: Source::Peer(*peer), kind, size: Some(size), run })
        });
        step.map(Upstream::Ready).or(apart.map(Upstream::Apart))
    }

    /// Pieces that somebody has who has not all of them. Their hashes must be known; else they are asked for.
    fn ask_haver(&mut self, content: ContentId, claims: &[(NodeId, Claim)], taken: PieceSet) -> Option<Step> {
        let transfer = self.transfers.open.get(&content)?;
        let size = transfer.size()?;
        let mut shut = taken;
        for (_, claim) in claims {
            shut.insert_run(claim.next.max(claim.stripe.first)..claim.stripe.end);
        }
        if !self.site.may_have_beyond(&content, &shut) {
            return None;
        }
        let usable = |(node, set, said): &(NodeId, &PieceSet, Option<u64>)| {
            let fits = *said == Some(size) && set.pieces() == shut.pieces();
            // Most have no more than this node, and who may be asked is dear to find out.
            fits && *node != self.node && set.goes_beyond(&shut) && self.may_reach(transfer, node)
        };
        let havers: Vec<_> = self.site.sets(&content).filter(usable).map(|(node, set, _)| (node, set)).collect();
        let (here, away): (Vec<_>, Vec<_>) = havers.into_iter().partition(|(node, _)| self.peers.is_connected(node));
        let from = transfer.first_reader().unwrap_or(0);
        let rarest = |sets: &[(NodeId, &PieceSet)]| {
            let sets: Vec<_> = sets.iter().map(|(_, set)| *set).collect();
            let find = |from| select::rarest(&shut, from, self.config.rarity_window, &sets);
            find(from).or_else(|| find(shut.prefix()))
        };
        let Some(first) = rarest(&here) else {
            // What only others have is worth a connection.
            let wanted = rarest(&away)?;
            let having = away.into_iter().filter(|(_, set)| set.contains(wanted)).map(|(node, _)| node);
            let nearest = having.min_by_key(|node| self.apart(node))?;
            self.reach_for(nearest);
            return None;
        };
        let here: Vec<_> = here.into_iter().filter(|(_, set)| set.contains(first)).collect();
        if self.is_contested(transfer, first) {
            // Only the origin can tell.
            return None;
        }
        if self.vouched(transfer, first).is_none() {
            let asked = here.into_iter().map(|(node, _)| node).find(|node| self.peers.may_ask_hashes(node));
            if let Some(peer) = asked {
                self.ask_hashes(peer, content, first);
            }
            // The answer comes soon; what nobody has need not wait for it.
            return None;
        }
        // Each node asks another one first, so that those who have it share the work.
        let (peer, set) = here.into_iter().min_by_key(|(peer, _)| (self.transfers.load(peer), self.apart(peer)))?;
        let more = |piece: &PieceIndex| {
            set.contains(*piece) && !shut.contains(*piece) && self.vouched(transfer, *piece).is_some()
        };
        let end = (first + 1..shut.pieces()).take_while(more).last().unwrap_or(first) + 1;
        Some(Step { source: Source::Peer(peer), kind: Kind::Haver, size: Some(size), run: first..end })
    }

    /// A number for a peer that is another one at every node.
    fn apart(&self, peer: &NodeId) -> u64 {
        bytes::head(peer.public_key()) ^ bytes::head(self.node.public_key())
    }

    /// The first piece that nobody on the site has or fetches, as far as this node has heard: from where a reader waits on,
    /// else from the start.
    pub(super) fn front(&self, content: &ContentId, claims: &[(NodeId, Claim)]) -> Option<PieceIndex> {
        let transfer = self.transfers.open.get(content)?;
        let taken = transfer.taken()?;
        let fetched = |piece: &PieceIndex| Site::owner_at(content, claims, *piece).is_some();
        let reader = transfer.first_reader().unwrap_or(0);
        let free = |piece: &PieceIndex| !fetched(piece) && !self.is_had(content, transfer, *piece);
        let missing = |from| std::iter::successors(taken.next_missing(from), |piece| taken.next_missing(piece + 1));
        missing(reader).find(free).or_else(|| missing(0).take_while(|piece| *piece < reader).find(free))
    }

    /// Once nothing is left to be asked for: an idle holder gets the rest of a run whose source is much slower.
    pub(super) fn hedge(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let holders = self.directory.holders(&content).map(|(peer, _)| peer);
        let busy = |peer: &NodeId| transfer.fetches.values().any(|fetch| fetch.peer() == Some(*peer));
        let idle = holders.filter(|peer| self.can_ask(transfer, peer) && !busy(peer));
        let Some(rate) = idle.map(|peer| self.rate_of(&peer)).max() else { return };
        let Some(pieces) = transfer.pieces.as_ref() else { return };
        let slow = transfer.fetches.iter().find(|(_, fetch)| {
            let left = fetch.run.clone().filter(|piece| !pieces.durable.contains(*piece)).count() as u64;
            let left = left * u64::from(pieces.layout.piece_len());
            let progress = select::Progress { done: fetch.bytes, left, since: fetch.began };
            let bar = (self.config.hedge_factor, self.config.hedge_gain);
            let old = self.now.since(fetch.began) >= self.config.hedge_gain;
            fetch.kind == Kind::Holder && old && select::is_slow(progress, rate, self.now, bar)
        });
        if let Some((id, source)) = slow.map(|(id, fetch)| (*id, fetch.source.clone())) {
            self.replace_slow(content, id, source);
        }
    }
}
