//! A node's disk: whole blobs and pieces, durable at once.

use std::collections::{BTreeMap, BTreeSet};

use layermesh_proto::{ContentId, PieceIndex, PieceLayout, PieceSet, wire::Binding};

/// Pieces of a blob that is not whole.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    pub(crate) size: u64,
    pub(crate) pieces: BTreeSet<PieceIndex>,
    /// Those that are not the blob's, though somebody vouched for them.
    pub(crate) bad: BTreeSet<PieceIndex>,
}

impl Partial {
    pub(crate) fn piece_set(&self) -> PieceSet {
        let mut set = PieceSet::empty(PieceLayout::for_size(self.size).map_or(0, |layout| layout.count()));
        for piece in &self.pieces {
            set.insert(*piece);
        }
        set
    }
}

/// The disk. It survives the node.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) whole: BTreeMap<ContentId, u64>,
    pub(crate) partial: BTreeMap<ContentId, Partial>,
    pub(crate) bindings: BTreeMap<String, Binding>,
    /// Pieces that were written again although they were there.
    pub(crate) refetched: u64,
}

impl Store {
    /// Opens a blob's partial; pieces of another size are dropped.
    pub(crate) fn begin(&mut self, content: ContentId, size: u64) {
        let partial = self.partial.entry(content).or_default();
        if partial.size != size {
            *partial = Partial { size, ..Partial::default() };
        }
    }

    pub(crate) fn write(&mut self, content: ContentId, piece: PieceIndex, good: bool) {
        let partial = self.partial.entry(content).or_default();
        if !partial.pieces.insert(piece) {
            self.refetched += 1;
        } else if !good {
            partial.bad.insert(piece);
        }
    }

    /// Takes a blob over if all its pieces are there and good; else drops them.
    pub(crate) fn complete(&mut self, content: ContentId, size: Option<u64>) -> Option<u64> {
        let partial = self.partial.remove(&content)?;
        if !partial.bad.is_empty() || !partial.piece_set().is_full() || size != Some(partial.size) {
            return None;
        }
        self.whole.insert(content, partial.size);
        Some(partial.size)
    }
}
