//! Stopping to ask the origin for what comes from elsewhere.
//!
//! Either another node's claim goes before this one's, or peers turn out to have the pieces: a device that has just started, or
//! come home, asks the origin before it has heard what its neighbours have, and its fetch may be of a whole layer. Invariants:
//! a piece of which bytes have come from the origin is let in, unless another one fetches it, too; a blob that has yielded to
//! peers does so again only once a peer brought a piece of it, so that those who do not have what they say keep no node from the
//! origin: what they say in vain costs one request at most, and the pieces go on from where they were.

use super::{
    Engine,
    event::FetchId,
    site::Site,
    transfer::{Pieces, Transfer},
};
use crate::{ContentId, NodeId, PieceIndex};

/// What is to become of a fetch from the origin.
enum Yield {
    /// It ends before this piece.
    Before(PieceIndex),
    /// It is not needed.
    All,
}

impl Engine {
    /// Stops asking the origin for what another one fetches or peers have.
    pub(super) fn stop_asking_origin(&mut self, content: ContentId) {
        self.yield_to_owners(content);
        self.yield_to_peers(content);
    }

    /// Stops asking the origin for what another one brings.
    fn yield_to_owners(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let (Some((id, fetch)), Some(pieces)) = (transfer.origin_fetch(), &transfer.pieces) else {
            return self.yield_unsized(content);
        };
        if transfer.comparing.piece.is_some_and(|piece| fetch.run.contains(&piece)) {
            return;
        }
        let claims = self.claims(&content);
        let missing = fetch.run.clone().filter(|piece| !pieces.durable.contains(*piece));
        let others =
            |piece: &PieceIndex| Site::owner_at(&content, &claims, *piece).is_some_and(|(owner, _)| owner != self.node);
        let (mut missing, end) = (missing.peekable(), fetch.run.end);
        if missing.peek().is_some_and(others) {
            self.cancel_one(id);
        } else if let Some(theirs) = missing.find(others).filter(|piece| *piece < end) {
            self.end_before(content, id, theirs);
        }
    }

    /// The same while this node does not know how large the blob is: the first in order goes on.
    fn yield_unsized(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some((id, _)) = transfer.origin_fetch() else { return };
        let first = Site::owner_at(&content, &self.claims(&content), 0);
        if first.is_some_and(|(owner, _)| owner != self.node) {
            self.cancel_one(id);
        }
    }

    /// Stops asking the origin for what connected peers have.
    fn yield_to_peers(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content).filter(|transfer| !transfer.yielded) else { return };
        let Some((id, _)) = transfer.origin_fetch() else { return };
        let Some(yields) = self.what_peers_have(&content, transfer) else { return };
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.yielded = true;
        }
        match yields {
            Yield::Before(piece) => self.end_before(content, id, piece),
            Yield::All => self.cancel_one(id),
        }
        // Whoever waits for the rest of the stripe learns that it comes along other ways.
        self.tell(content);
    }

    /// What of a fetch from the origin peers make needless.
    fn what_peers_have(&self, content: &ContentId, transfer: &Transfer) -> Option<Yield> {
        let (_, fetch) = transfer.origin_fetch()?;
        let Some(pieces) = &transfer.pieces else {
            // As long as its size is not known, nothing of it can have come.
            return self
                .directory
                .holders(content)
                .any(|(peer, _)| self.can_ask(transfer, &peer))
                .then_some(Yield::All);
        };
        let on_its_way = transfer.next_of(fetch)?;
        let here =
            |piece: &PieceIndex| !pieces.durable.contains(*piece) && self.is_here(content, transfer, pieces, *piece);
        // What comes after it would have to be sent anew from the blob's beginning.
        let gap = || (on_its_way..fetch.run.end).any(|piece| !pieces.durable.contains(piece) && !here(&piece));
        if transfer.unranged && gap() {
            return None;
        }
        // Of a stripe that was taken over from who was slow, the next piece comes from there now and then all the same.
        let relieves = self.site.claim_of(content, &self.node, self.now).is_some_and(|claim| claim.stripe.turn > 0);
        if fetch.bytes == 0 && !relieves && here(&on_its_way) {
            return Some(Yield::All);
        }
        (on_its_way + 1..fetch.run.end).find(here).map(Yield::Before)
    }

    /// Whether a connected peer has a piece by its word, and may be taken at it. Of one whose hash is contested or that is
    /// being compared, only the origin's bytes tell something.
    fn is_here(&self, content: &ContentId, transfer: &Transfer, pieces: &Pieces, piece: PieceIndex) -> bool {
        let size = pieces.layout.blob_size();
        let holds = |(peer, said): (NodeId, u64)| said == size && self.can_ask(transfer, &peer);
        let has = |node: NodeId| self.can_ask(transfer, &node) && self.site.size_said(content, &node) == Some(size);
        (self.directory.holders(content).any(holds) || self.site.havers(content, piece).any(has))
            && !self.is_contested(transfer, piece)
            && !transfer.audit.contains_key(&piece)
    }

    /// This node's fetch from the origin ends before a piece: the rest is another's.
    fn end_before(&mut self, content: ContentId, fetch: FetchId, piece: PieceIndex) {
        self.site.shorten(&content, &self.node, piece);
        if let Some(fetch) = self.transfers.open.get_mut(&content).and_then(|open| open.fetches.get_mut(&fetch)) {
            fetch.run.end = piece;
            fetch.shortened = true;
        }
    }

    /// Whether a piece is asked of the origin and would be left to a peer that has it.
    pub(super) fn would_yield(&self, transfer: &Transfer, piece: PieceIndex) -> bool {
        !transfer.yielded && transfer.origin_fetch().is_some_and(|(_, fetch)| fetch.run.contains(&piece))
    }
}
