//! A node's disk: whole blobs and pieces, durable at once.

use std::collections::BTreeMap;

use layermesh_proto::{ContentId, PieceHash, PieceIndex, PieceLayout, PieceSet, wire::Binding};

/// The hash of a piece of a blob, whose bytes nobody has: the blob's own, or other bytes in its place.
pub(crate) fn hash_of(content: &ContentId, piece: PieceIndex, good: bool) -> PieceHash {
    let mut bytes = content.to_bytes();
    bytes.extend(piece.to_be_bytes());
    bytes.push(u8::from(good));
    PieceHash::of(&bytes)
}

/// Pieces of a blob that is not whole.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    pub(crate) size: u64,
    pub(crate) pieces: BTreeMap<PieceIndex, PieceHash>,
}

impl Partial {
    pub(crate) fn piece_set(&self) -> PieceSet {
        let mut set = PieceSet::empty(PieceLayout::for_size(self.size).map_or(0, |layout| layout.count()));
        for piece in self.pieces.keys() {
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

    pub(crate) fn write(&mut self, content: ContentId, piece: PieceIndex, hash: PieceHash) {
        let partial = self.partial.entry(content).or_default();
        let before = partial.pieces.len();
        partial.pieces.entry(piece).or_insert(hash);
        self.refetched += u64::from(partial.pieces.len() == before);
    }

    /// Removes pieces of a blob that is not whole.
    pub(crate) fn drop(&mut self, content: &ContentId, pieces: &[PieceIndex]) {
        if let Some(partial) = self.partial.get_mut(content) {
            pieces.iter().for_each(|piece| {
                partial.pieces.remove(piece);
            });
        }
    }

    /// The pieces of a blob that is not whole, and their hashes.
    pub(crate) fn recall(&self, content: &ContentId) -> Vec<(PieceIndex, PieceHash)> {
        let pieces = self.partial.get(content).into_iter().flat_map(|partial| &partial.pieces);
        pieces.map(|(piece, hash)| (*piece, *hash)).collect()
    }

    /// The hash of a piece, if it is there.
    pub(crate) fn hash(&self, content: &ContentId, piece: PieceIndex) -> Option<PieceHash> {
        if self.whole.contains_key(content) {
            return Some(hash_of(content, piece, true));
        }
        self.partial.get(content)?.pieces.get(&piece).copied()
    }

    /// Takes a blob over if all its pieces are there and good.
    pub(crate) fn complete(&mut self, content: ContentId, size: Option<u64>) -> Option<u64> {
        let partial = self.partial.get(&content)?;
        let good = partial.pieces.iter().all(|(piece, hash)| *hash == hash_of(&content, *piece, true));
        let size = Some(partial.size).filter(|own| good && partial.piece_set().is_full() && size == Some(*own))?;
        self.partial.remove(&content);
        self.whole.insert(content, size);
        Some(size)
    }
}
