//! A node's disk: whole blobs and pieces, durable at once.

use std::collections::BTreeMap;

use layermesh_proto::{ContentId, PieceHash, PieceIndex, PieceLayout, PieceSet, wire::Binding};

/// The hash of a piece of a blob, whose bytes nobody has: the blob's own, or other bytes in its place. It only has to be
/// another one for each blob, piece and goodness, so it is mixed instead of computed.
pub(crate) fn hash_of(content: &ContentId, piece: PieceIndex, good: bool) -> PieceHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&content.digest()[..32]);
    let mixed = (u64::from(piece) << 1 | u64::from(good)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for (byte, mask) in hash.iter_mut().zip(mixed.to_be_bytes()) {
        *byte ^= mask;
    }
    PieceHash(hash)
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

    /// Whether all pieces are there and the blob's own.
    pub(crate) fn is_whole(&self, content: &ContentId) -> bool {
        let good = |(piece, hash): (&PieceIndex, &PieceHash)| *hash == hash_of(content, *piece, true);
        self.piece_set().is_full() && self.pieces.iter().all(good)
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
    /// It takes any blob for whole: for tests of the checks.
    pub(crate) careless: bool,
}

impl Store {
    /// Whether there is a partial of a blob that has that size.
    pub(crate) fn has_begun(&self, content: &ContentId, size: u64) -> bool {
        self.partial.get(content).is_some_and(|partial| partial.size == size)
    }

    /// Opens a blob's partial; pieces of another size are dropped.
    pub(crate) fn begin(&mut self, content: ContentId, size: u64) {
        let partial = self.partial.entry(content).or_default();
        if partial.size != size {
            *partial = Partial { size, ..Partial::default() };
        }
    }

    /// Writes a piece, and says whether it was absent.
    pub(crate) fn write(&mut self, content: ContentId, piece: PieceIndex, hash: PieceHash) -> bool {
        let partial = self.partial.entry(content).or_default();
        let before = partial.pieces.len();
        partial.pieces.entry(piece).or_insert(hash);
        let new = partial.pieces.len() > before;
        self.refetched += u64::from(!new);
        new
    }

    /// Removes pieces of a blob that is not whole.
    pub(crate) fn drop(&mut self, content: &ContentId, pieces: &[PieceIndex]) {
        if let Some(partial) = self.partial.get_mut(content) {
            pieces.iter().for_each(|piece| {
                partial.pieces.remove(piece);
            });
        }
    }

    /// Loses the last piece of a blob that was whole: for tests of the checks.
    pub(crate) fn lose_a_part(&mut self, content: &ContentId) {
        let Some(size) = self.whole.remove(content) else { return };
        let count = PieceLayout::for_size(size).map_or(0, |layout| layout.count());
        let pieces = (0..count.saturating_sub(1)).map(|piece| (piece, hash_of(content, piece, true))).collect();
        self.partial.insert(*content, Partial { size, pieces });
    }

    /// The pieces of a blob, and their hashes.
    pub(crate) fn recall(&self, content: &ContentId) -> Vec<(PieceIndex, PieceHash)> {
        if let Some(size) = self.whole.get(content) {
            let count = PieceLayout::for_size(*size).map_or(0, |layout| layout.count());
            return (0..count).map(|piece| (piece, hash_of(content, piece, true))).collect();
        }
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

    /// Takes a blob over if all its pieces are there and good. Returns what became whole.
    pub(crate) fn complete(&mut self, content: ContentId, size: Option<u64>) -> Option<Partial> {
        let partial = self.partial.get(&content)?;
        let whole = size == Some(partial.size) && partial.is_whole(&content);
        if !whole && !self.careless {
            return None;
        }
        let partial = self.partial.remove(&content)?;
        self.whole.insert(content, partial.size);
        Some(partial)
    }
}
