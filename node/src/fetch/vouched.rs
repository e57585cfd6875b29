//! What others vouch for while a fetch runs: the hashes of the pieces of a blob that its source has not whole either.

use std::{collections::HashMap, ops::Range, sync::Arc};

use layermesh_proto::{PieceHash, PieceIndex, piece::PIECES_MAX};
use tokio::sync::watch;

/// Hashes that the pieces of one fetch must have, as far as they are known; clones are the same. Invariant: none of a
/// piece outside the fetch's run, so there are at most as many as that has pieces.
#[derive(Debug, Clone)]
pub struct Vouched {
    run: Range<PieceIndex>,
    hashes: Arc<watch::Sender<HashMap<PieceIndex, PieceHash>>>,
}

impl Vouched {
    /// Without a hash yet, for a fetch of these pieces.
    pub fn new(run: Range<PieceIndex>) -> Self {
        let end = run.end.min(PIECES_MAX);
        Self { run: run.start..end, hashes: Arc::new(watch::Sender::new(HashMap::new())) }
    }

    /// Adds hashes; for a piece that has one, the new one counts.
    pub fn add(&self, pieces: Vec<(PieceIndex, PieceHash)>) {
        let pieces = pieces.into_iter().filter(|(index, _)| self.run.contains(index));
        self.hashes.send_modify(|hashes| hashes.extend(pieces));
    }

    /// The hash of a piece, if one is known.
    pub(crate) fn get(&self, index: PieceIndex) -> Option<PieceHash> {
        self.hashes.borrow().get(&index).copied()
    }

    /// Waits until the hash of a piece is known.
    pub(super) async fn known(&self, index: PieceIndex) {
        // The sender lives as long as `self`, so there is no other end than the one waited for.
        let _ = self.hashes.subscribe().wait_for(|hashes| hashes.contains_key(&index)).await;
    }

    /// Lets go of the hash of a piece that has come.
    pub(super) fn forget(&self, index: PieceIndex) {
        self.hashes.send_if_modified(|hashes| {
            hashes.remove(&index);
            // Nobody waits for a hash to go.
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_of_the_run_are_kept_and_the_last_one_counts() {
        let vouched = Vouched::new(3..5);
        let hash = |n| PieceHash([n; 32]);
        vouched.add((0..10).map(|n| (n, hash(1))).collect());
        assert_eq!(vouched.hashes.borrow().len(), 2);
        vouched.add(vec![(4, hash(2))]);
        assert_eq!((vouched.get(2), vouched.get(3), vouched.get(4)), (None, Some(hash(1)), Some(hash(2))));
        vouched.forget(3);
        assert_eq!(vouched.get(3), None);
        assert_eq!(Vouched::new(0..u32::MAX).run, 0..PIECES_MAX);
    }
}
