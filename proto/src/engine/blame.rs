//! All pieces of a blob together are not the blob: who is to blame, and which pieces are fetched again.
//!
//! A piece is wrong because the origin sent wrong bytes, because whoever vouched for it lied, or because this device's
//! disk had it before. Invariants: each step drops pieces of one kind only and is taken once, so it ends; a node is named only
//! when it is certain that it lied: it alone supplied everything, or the origin's bytes differ from what it vouched for.

use super::{
    Engine,
    event::{Action, Note, Source, SourceError},
    transfer::{Phase, Supplier, Transfer},
};
use crate::{ContentId, PieceIndex};

impl Engine {
    /// The store says that all pieces together do not have the digest.
    pub(super) fn not_the_blob(&mut self, content: ContentId) {
        let node = self.node;
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.phase = Phase::Fetching;
        transfer.audit.clear();
        transfer.rejections += 1;
        if transfer.rejections > self.config.rejections_max {
            let verdict = transfer.verdict();
            self.drop_all(content);
            return self.end_transfer(content, Err(verdict));
        }
        if transfer.wants.is_empty() {
            self.drop_all(content);
            self.close_transfer(content);
            return;
        }
        if self.dispel_doubt(content) || self.drop_what_liars_supplied(content) {
            return self.look_again(content);
        }
        self.weigh(content);
        if !self.transfers.open.get(&content).is_some_and(Transfer::is_full) {
            return self.look_again(content);
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let kept: Vec<_> = transfer.pieces.iter().flat_map(|pieces| pieces.inherited()).collect();
        let suppliers = transfer.suppliers();
        let mine = Supplier::Hearsay(node);
        if !kept.is_empty() || suppliers.contains(&mine) {
            // Nobody can be blamed for what was there before, so it goes first.
            let recalled = transfer.supplied_by(&mine);
            self.drop_pieces(content, kept.into_iter().chain(recalled).collect());
        } else if suppliers.len() == 1 || !self.begin_samples(content) {
            self.blame_one(content);
        }
        self.look_again(content);
    }

    /// Names whoever alone supplied everything, or drops all that one of several did, to be compared.
    pub(super) fn blame_one(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let suppliers = transfer.suppliers();
        let of_origin = suppliers.contains(&Supplier::Origin);
        let of_peers: Vec<_> = suppliers.into_iter().filter(|supplier| *supplier != Supplier::Origin).collect();
        match of_peers.as_slice() {
            [] => self.origin_is_wrong(content),
            [only] if !of_origin => self.blame(content, *only),
            [first, ..] => self.audit(content, *first),
        }
    }

    /// Drops what those supplied who were found to lie while all was being checked. `false` if there is nothing of them.
    fn drop_what_liars_supplied(&mut self, content: ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get(&content) else { return false };
        let liars: Vec<_> = transfer.exposed.iter().copied().collect();
        let theirs = |transfer: &Transfer| liars.iter().any(|liar| transfer.supplied(&Supplier::Peer(*liar)));
        let any = theirs(transfer);
        if any {
            liars.iter().for_each(|liar| self.drop_what_supplied(*liar));
        }
        any
    }

    /// All of it came from the origin.
    fn origin_is_wrong(&mut self, content: ContentId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            // Measured by bytes that are not the blob's, or that this device has spoilt.
            let exposed = std::mem::take(&mut transfer.exposed);
            transfer.audited.extend(exposed);
        }
        self.absolve(content);
        self.rule_out_origins(content);
        self.drop_all(content);
    }

    /// No origin is asked for this blob any more.
    pub(super) fn rule_out_origins(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let origins: Vec<_> = transfer.origins.iter().map(|(name, kind)| Source::Origin(name.clone(), *kind)).collect();
        origins.into_iter().for_each(|origin| self.rule_out(content, origin));
    }

    /// Everything has this one's word.
    fn blame(&mut self, content: ContentId, supplier: Supplier) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let pieces = transfer.supplied_by(&supplier);
        match supplier {
            Supplier::Peer(peer) => {
                self.rule_out(content, Source::Peer(peer));
                self.expose(peer, content);
                // By the blob's digest, which nothing refutes.
                if let Some(transfer) = self.transfers.open.get_mut(&content) {
                    transfer.exposed.remove(&peer);
                }
            }
            Supplier::Hearsay(peer) => self.doubt(content, peer),
            Supplier::Origin => {}
        }
        self.absolve(content);
        self.drop_pieces(content, pieces);
    }

    /// Of several suppliers one is wrong: the pieces of one are had from elsewhere, and compared.
    fn audit(&mut self, content: ContentId, supplier: Supplier) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let pieces = transfer.supplied_by(&supplier);
        if let Some(known) = &transfer.pieces {
            let said = pieces.iter().filter_map(|piece| Some((*piece, *known.known.get(piece)?)));
            transfer.audit = said.collect();
            for (piece, (_, hash)) in &transfer.audit {
                // Others may pass on what is in question without knowing.
                transfer.vouches.question(*piece, *hash);
            }
        }
        if let Supplier::Peer(peer) | Supplier::Hearsay(peer) = supplier {
            self.rule_out(content, Source::Peer(peer));
            self.doubt(content, peer);
            if let Some(transfer) = self.transfers.open.get_mut(&content) {
                transfer.audited.insert(peer);
            }
        }
        self.drop_pieces(content, pieces);
    }

    /// A source is not asked for this blob any more.
    fn rule_out(&mut self, content: ContentId, source: Source) {
        let error = SourceError::WrongBytes;
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.failures.insert(source.clone(), error.clone());
        }
        self.act(Action::Note(Note::SourceFailed { content, source, error }));
    }

    /// Whoever was doubted before somebody was found to be wrong gets another chance.
    pub(super) fn absolve(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        for peer in std::mem::take(&mut transfer.audited) {
            transfer.doubted.remove(&peer);
            transfer.failures.remove(&Source::Peer(peer));
            self.peers.absolve(&peer);
        }
    }

    /// A node may have lied about this blob, or passed a lie on.
    fn doubt(&mut self, content: ContentId, peer: crate::NodeId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.doubted.insert(peer);
            transfer.vouches.forget(&peer);
        }
        self.suspect(peer);
    }

    /// Drops all pieces, and what is believed of their size.
    fn drop_all(&mut self, content: ContentId) {
        let pieces = self.transfers.open.get_mut(&content).and_then(|transfer| transfer.pieces.take());
        let pieces = pieces.map(|pieces| pieces.durable.iter().collect()).unwrap_or_default();
        self.act(Action::Drop { content, pieces });
    }

    /// Drops pieces, and fetches that would say at their end that they are there.
    pub(super) fn drop_pieces(&mut self, content: ContentId, pieces: Vec<PieceIndex>) {
        let running = self.transfers.open.get(&content).into_iter().flat_map(|transfer| &transfer.fetches);
        let bring = running.filter(|(_, fetch)| pieces.iter().any(|piece| fetch.run.contains(piece)));
        for fetch in bring.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.cancel_one(fetch);
        }
        if let Some(known) = self.transfers.open.get_mut(&content).and_then(|transfer| transfer.pieces.as_mut()) {
            known.drop(&pieces);
        }
        self.act(Action::Drop { content, pieces });
    }
}
