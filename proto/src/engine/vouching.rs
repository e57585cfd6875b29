//! Hashes of pieces: saying those of what came from the origin, and hearing the others'.
//!
//! Invariants: a node vouches only for what it took from an origin itself, or holds whole; of the rest it says, when asked, what it was told. Whoever
//! says two hashes of one piece, or another one than the origin's bytes have, is named and believed no more for a while.

use super::{
    Engine,
    event::{Action, CallId, FetchId},
    fetching::mixed,
    peers::Question,
    timers::Timer,
    transfer::{Fetch, Kind, Supplier, Transfer},
    vouches::Vouch,
};
use crate::{
    ContentId, NodeId, PieceHash, PieceHashes, PieceIndex,
    wire::{
        ControlResponse, HASHES_PER_ANNOUNCEMENT_MAX, HASHES_PER_PAGE_MAX, Part, VOUCHES_PER_PAGE_MAX, VouchedRun,
        Vouches,
    },
};

/// Hashes of pieces, in runs of consecutive ones that are equal in kind.
fn runs(
    pieces: impl Iterator<Item = (PieceIndex, bool, PieceHash)>,
    len_max: usize,
) -> Vec<(PieceIndex, bool, Vec<PieceHash>)> {
    let mut runs: Vec<(PieceIndex, bool, Vec<PieceHash>)> = Vec::new();
    for (piece, own, hash) in pieces {
        match runs.last_mut() {
            Some((first, same, hashes))
                if *same == own && *first as usize + hashes.len() == piece as usize && hashes.len() < len_max =>
            {
                hashes.push(hash);
            }
            _ => runs.push((piece, own, vec![hash])),
        }
    }
    runs
}

impl Engine {
    /// Pieces came in with these hashes: compares them with what was said, and says those of the origin's to the others.
    pub(super) fn learn_hashes(
        &mut self,
        content: ContentId,
        fetch: FetchId,
        new: Vec<(PieceIndex, Option<PieceHash>)>,
    ) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let from_origin = transfer.fetches.get(&fetch).is_some_and(|fetch| fetch.kind == Kind::Origin);
        let (mut liars, mut innocent) = (Vec::new(), Vec::new());
        for (piece, hash) in new {
            let Some(hash) = hash else { continue };
            if from_origin {
                match transfer.audit.remove(&piece) {
                    Some((Supplier::Peer(node), said)) => transfer.comparing.note(node, said == hash),
                    Some((Supplier::Hearsay(node), said)) if said == hash => transfer.comparing.note(node, true),
                    Some((Supplier::Hearsay(_), _)) => transfer.comparing.passed_on(),
                    Some((Supplier::Origin, _)) | None => {}
                }
                if !transfer.comparing.came(piece, hash) {
                    transfer.unsaid.insert(piece, hash);
                }
                match transfer.disputes.remove(&piece) {
                    // It may have been lied to by those who are doubted, and have passed that on.
                    Some((relay, said)) if said == hash && transfer.doubted.is_empty() => liars.push(relay),
                    Some((relay, _)) => innocent.push(relay),
                    None => {}
                }
                for vouch in transfer.vouches.sure(piece).filter(|vouch| !transfer.exposed.contains(&vouch.by)) {
                    transfer.comparing.note(vouch.by, vouch.hash == hash);
                }
            }
        }
        liars.sort_unstable();
        liars.dedup();
        innocent.into_iter().for_each(|relay| self.acquit(relay, content));
        for liar in liars {
            self.expose(liar, content);
        }
        if from_origin {
            self.weigh(content);
            self.vouch(content);
        }
    }

    /// The whole blob is verified: whoever vouched for other bytes lied.
    pub(super) fn judge(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let known = |piece: &PieceIndex| Some(transfer.pieces.as_ref()?.known.get(piece)?.1);
        let audited = transfer.audit.iter().filter_map(|(piece, (supplier, said))| match supplier {
            Supplier::Peer(node) if known(piece).is_some_and(|hash| hash != *said) => Some(*node),
            _ => None,
        });
        let vouched = transfer.pieces.iter().flat_map(|pieces| &pieces.known).flat_map(|(piece, (_, hash))| {
            transfer.vouches.refuted(*piece, *hash).into_iter().filter(|vouch| vouch.sure).map(|vouch| vouch.by)
        });
        let certain = transfer.doubted.is_empty();
        let disputed = transfer.disputes.iter();
        let disputed = disputed.filter_map(|(piece, (relay, said))| Some((*relay, certain && known(piece)? == *said)));
        let (relays, acquitted): (Vec<_>, Vec<_>) = disputed.partition(|(_, lied)| *lied);
        let relays = relays.into_iter().map(|(relay, _)| relay);
        let liars: std::collections::BTreeSet<_> = audited.chain(vouched).chain(relays).collect();
        for (relay, _) in acquitted {
            self.acquit(relay, content);
        }
        for liar in liars {
            self.expose(liar, content);
        }
    }

    /// A peer sent other bytes than somebody vouched for: it is not asked for a while, and who lied shows once the piece is
    /// known for certain.
    pub(super) fn dispute(&mut self, content: ContentId, relay: NodeId, run: &std::ops::Range<PieceIndex>) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some(pieces) = &transfer.pieces else { return };
        let piece = run.clone().find(|piece| !pieces.durable.contains(*piece));
        let said = piece.and_then(|piece| self.vouched(transfer, piece));
        if let (Some(piece), Some(said), Some(transfer)) = (piece, said, self.transfers.open.get_mut(&content)) {
            transfer.disputes.insert(piece, (relay, said.hash));
        }
        self.suspect(relay);
    }

    /// A relay sent other bytes than somebody vouched for, and was right.
    fn acquit(&mut self, relay: NodeId, content: ContentId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.failures.remove(&super::event::Source::Peer(relay));
        }
        self.peers.absolve(&relay);
    }

    /// A node said a hash that is not the piece's.
    pub(super) fn expose(&mut self, liar: NodeId, content: ContentId) {
        let mut known = false;
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.vouches.forget(&liar);
            transfer.doubted.insert(liar);
            transfer.audited.remove(&liar);
            known = !transfer.exposed.insert(liar);
        }
        self.absolve(content);
        if !known {
            self.penalise(liar, content);
        }
    }

    /// Says the hashes that the others have not been told, now or soon.
    pub(super) fn vouch(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let due = transfer.vouched_at + self.config.vouch_interval;
        if transfer.vouched_at == super::event::Instant::default() || due <= self.now {
            self.vouch_now(content);
        } else if !self.timers.is_set(Timer::Vouch(content)) {
            self.timers.set(Timer::Vouch(content), self.now, due.since(self.now));
        }
    }

    pub(super) fn vouch_now(&mut self, content: ContentId) {
        self.timers.stop(Timer::Vouch(content));
        // Nobody else wants it: whoever joins is told then.
        if !self.site.is_shared(&content, &self.node, self.now) {
            return;
        }
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let Some(size) = transfer.size().filter(|_| !transfer.unsaid.is_empty()) else { return };
        transfer.vouched_at = self.now;
        let unsaid = std::mem::take(&mut transfer.unsaid).into_iter().map(|(piece, hash)| (piece, true, hash));
        for (first, _, hashes) in runs(unsaid, HASHES_PER_ANNOUNCEMENT_MAX) {
            self.say(Part::Vouched { content, size, first, hashes: PieceHashes(hashes) });
        }
    }

    /// A peer says the hashes of pieces that it took from the origin.
    pub(super) fn on_vouched(
        &mut self,
        from: NodeId,
        content: ContentId,
        size: u64,
        first: PieceIndex,
        hashes: &PieceHashes,
    ) {
        let count = u32::try_from(hashes.0.len()).unwrap_or(u32::MAX);
        let run = first..first.saturating_add(count);
        let brought = self.site.vouched(content, from, (size, run.clone()), self.now, self.room());
        self.note_claimed(content, size);
        self.pardon_if_not_dry(content, from);
        if let Some(rate) = brought.and_then(|brought| brought.rate).filter(|_| self.trusts(&from)) {
            self.others_rate = Some(mixed(self.others_rate, rate));
        }
        let holds = self.directory.holders(&content).any(|(peer, _)| peer == from);
        if first == 0 && holds && self.trusts(&from) && self.inventory.held(&content) == Some(size) {
            // Another holder says them; those who come later will be told again.
            self.note_offer(content);
        }
        let said = (first..).zip(hashes.0.iter().copied());
        let lies = self.hear_hashes(from, content, size, true, said.collect());
        if lies || brought.is_none_or(|brought| brought.claims) || self.brings(&content, run) {
            self.look_again(content);
        }
    }

    /// Returns whether some of them are lies, or others than this node has.
    fn hear_hashes(
        &mut self,
        from: NodeId,
        content: ContentId,
        size: u64,
        sure: bool,
        said: Vec<(PieceIndex, PieceHash)>,
    ) -> bool {
        self.adopt_size(content);
        let trusted = self.trusts_node(&content, &from);
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return false };
        // Pieces of a blob of another size are others.
        if !trusted || transfer.size() != Some(size) {
            return false;
        }
        let (mut lies, mut differs) = (false, false);
        for (piece, hash) in &said {
            lies |= !transfer.vouches.add(*piece, Vouch { by: from, hash: *hash, sure });
            let known = transfer.pieces.as_ref().and_then(|pieces| pieces.known.get(piece)).filter(|_| sure);
            let Some((supplier, known)) = known else { continue };
            differs |= known != hash;
            match supplier {
                Supplier::Origin => transfer.comparing.note(from, known == hash),
                Supplier::Peer(_) | Supplier::Hearsay(_) if known == hash => {}
                Supplier::Peer(_) | Supplier::Hearsay(_) => transfer.comparing.contradicted(from, *piece, *hash),
            }
        }
        if lies {
            self.expose_voucher(from, content);
        }
        if differs {
            self.weigh(content);
        }
        self.expect_hashes(content, &said);
        lies || differs
    }

    fn trusts_node(&self, content: &ContentId, node: &NodeId) -> bool {
        self.transfers.open.get(content).is_some_and(|transfer| self.trusts_for(transfer, node))
    }

    /// Running fetches get the hashes that they wait for.
    fn expect_hashes(&mut self, content: ContentId, said: &[(PieceIndex, PieceHash)]) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let agreed = |piece: &PieceIndex| Some((*piece, self.vouched(transfer, *piece)?.hash));
        let wanted = |fetch: &Fetch| {
            let pieces = said.iter().map(|(piece, _)| piece).filter(|piece| fetch.run.contains(*piece));
            pieces.filter_map(agreed).collect::<Vec<_>>()
        };
        let growing = transfer.fetches.iter().filter(|(_, fetch)| fetch.kind.is_growing());
        let found: Vec<_> =
            growing.map(|(id, fetch)| (*id, wanted(fetch))).filter(|(_, new)| !new.is_empty()).collect();
        for (fetch, pieces) in found {
            self.act(Action::Expect { fetch, pieces });
            self.watch(fetch);
        }
    }

    /// Asks a peer for hashes of pieces that it has.
    pub(super) fn ask_hashes(&mut self, peer: NodeId, content: ContentId, first: PieceIndex) {
        self.ask(peer, Question::Hashes(content, first));
    }

    /// A peer asks for the hashes of what this node has of a blob.
    pub(super) fn answer_hashes(&mut self, call: CallId, content: &ContentId, first: PieceIndex) {
        let nothing = Vouches { size: 0, runs: Vec::new() };
        let pieces = self.transfers.open.get(content).and_then(|transfer| transfer.pieces.as_ref());
        let vouches = pieces.map_or(nothing, |pieces| {
            let known = pieces.known.range(first..).take(HASHES_PER_PAGE_MAX);
            let known = known.map(|(piece, (supplier, hash))| (*piece, *supplier == Supplier::Origin, *hash));
            let mut runs = runs(known, HASHES_PER_PAGE_MAX);
            runs.truncate(VOUCHES_PER_PAGE_MAX);
            let run = |(first, own, hashes)| VouchedRun { first, own, hashes: PieceHashes(hashes) };
            Vouches { size: pieces.layout.blob_size(), runs: runs.into_iter().map(run).collect() }
        });
        self.act(Action::Respond { call, response: ControlResponse::Vouches(vouches) });
    }

    /// A peer said the hashes that it was asked for.
    pub(super) fn on_hashes(&mut self, peer: NodeId, content: ContentId, first: PieceIndex, vouches: Vouches) {
        for run in vouches.runs {
            let said = (run.first..).zip(run.hashes.0).collect();
            self.hear_hashes(peer, content, vouches.size, run.own, said);
        }
        // What was said of a blob of another size was not taken in.
        if self.transfers.open.get(&content).is_some_and(|transfer| transfer.vouches.is_known(first)) {
            self.look_again(content);
        } else {
            self.without_hashes(peer, content);
        }
    }

    /// A peer can be asked for hashes again: whoever waited for that goes on.
    pub(super) fn ask_next_hashes(&mut self, peer: NodeId, answered: ContentId) {
        let open = self.transfers.open.iter().filter(|(content, transfer)| **content != answered && transfer.waits);
        let concerned = |content: &ContentId| self.site.sets(content).any(|(node, ..)| node == peer);
        let waiting: Vec<_> = open.map(|(content, _)| *content).filter(concerned).collect();
        for content in waiting {
            self.advance(content, None);
        }
    }

    /// A peer does not say the hashes of what it has: it is of no use in this round.
    pub(super) fn without_hashes(&mut self, peer: NodeId, content: ContentId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            let error = super::event::SourceError::Failed("it does not say the hashes of what it has".to_owned());
            transfer.fail(super::event::Source::Peer(peer), error);
        }
        self.look_again(content);
    }

    /// The store says the hashes of pieces that were there before.
    pub(super) fn on_recalled(&mut self, content: ContentId, pieces: Vec<(PieceIndex, PieceHash)>) {
        let node = self.node;
        if let Some(size) = self.inventory.held(&content) {
            return self.say_offer(content, size, &pieces);
        }
        let Some(known) = self.transfers.open.get_mut(&content).and_then(|transfer| transfer.pieces.as_mut()) else {
            return;
        };
        for (piece, hash) in pieces {
            if known.durable.contains(piece) {
                known.known.entry(piece).or_insert((Supplier::Hearsay(node), hash));
            }
        }
    }
}

impl Transfer {
    /// Who supplied pieces of it, this node's own store apart.
    pub(super) fn suppliers(&self) -> std::collections::BTreeSet<Supplier> {
        let known = self.pieces.iter().flat_map(|pieces| pieces.known.values());
        known.map(|(supplier, _)| *supplier).collect()
    }

    /// Whether one supplied some piece.
    pub(super) fn supplied(&self, supplier: &Supplier) -> bool {
        self.pieces.iter().flat_map(|pieces| pieces.known.values()).any(|(by, _)| by == supplier)
    }

    /// The pieces that one supplied.
    pub(super) fn supplied_by(&self, supplier: &Supplier) -> Vec<PieceIndex> {
        let known = self.pieces.iter().flat_map(|pieces| &pieces.known);
        known.filter(|(_, (by, _))| by == supplier).map(|(piece, _)| *piece).collect()
    }
}
