//! The async face of a growing blob.

use std::sync::Arc;

use bytes::Bytes;
use layermesh_proto::{PieceHash, PieceIndex, PieceLayout, PieceSet};
use tokio::sync::OwnedMutexGuard;

use super::{Store, error::WriteError, growing::Growing};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Whether the piece was not there before.
    pub new: bool,
    /// The hash of the piece that is there now: of the bytes given if they are new, otherwise of those that were there.
    pub hash: PieceHash,
}

/// A blob that is not whole yet; clones are the same blob.
#[derive(Clone)]
pub struct Partial {
    pub(super) store: Store,
    pub(super) growing: Arc<Growing>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("content", &self.growing.content).finish_non_exhaustive()
    }
}

impl Partial {
    pub(super) fn new(store: Store, growing: Arc<Growing>) -> Self {
        Self { store, growing }
    }

    /// How the blob is cut.
    pub fn layout(&self) -> PieceLayout {
        self.growing.layout
    }

    /// The durable pieces.
    pub fn pieces(&self) -> PieceSet {
        self.growing.durable()
    }

    /// The first piece from `from` on that is not written yet; the number of pieces if there is none.
    pub fn first_missing(&self, from: PieceIndex) -> PieceIndex {
        let count = self.growing.layout.count();
        (from..count).find(|&index| !self.growing.is_readable(index)).unwrap_or(count)
    }

    /// The hash of a piece that is written.
    pub fn hash_of(&self, index: PieceIndex) -> Option<PieceHash> {
        self.growing.hash_of(index)
    }

    /// Waits until a piece is written, by whomever. Never ends if the partial is discarded before.
    pub async fn written(&self, index: PieceIndex) {
        let mut changed = self.growing.changed.subscribe();
        while !self.growing.is_readable(index) {
            if changed.changed().await.is_err() {
                // The sender lives as long as `self`.
                return std::future::pending().await;
            }
        }
    }

    /// Stores a piece. Its length and, if `expected` is given, its hash are checked before anything is readable; then
    /// it is readable at once, and durable at the next [`Partial::sync`]. Without `expected` (bytes from an origin
    /// over its own connection) the hash is computed and recorded. A piece that is already there stays as it is, and the
    /// bytes given are not looked at.
    ///
    /// # Errors
    /// If the bytes are not the piece, the partial was discarded, or the disk is full or fails.
    pub async fn write(
        &self,
        index: PieceIndex,
        bytes: Bytes,
        expected: Option<PieceHash>,
    ) -> Result<Written, WriteError> {
        let mut prefix = Arc::clone(&self.growing.writer).lock_owned().await;
        let growing = Arc::clone(&self.growing);
        let job = self.store.job(move |inner| inner.write(&growing, &mut prefix, index, &bytes, expected));
        job.await?
    }

    /// Makes every piece written so far durable: first the bytes, then the records; and that dropped ones are gone.
    /// Returns those that became durable.
    ///
    /// # Errors
    /// If the partial was discarded, or the disk is full or fails; all pieces stay readable.
    pub async fn sync(&self) -> Result<Vec<PieceIndex>, WriteError> {
        let turn = Arc::clone(&self.growing.syncer).lock_owned().await;
        self.sync_in_turn(turn).await
    }

    pub(super) async fn sync_in_turn(&self, turn: OwnedMutexGuard<()>) -> Result<Vec<PieceIndex>, WriteError> {
        let growing = Arc::clone(&self.growing);
        let job = self.store.job(move |inner| {
            let _turn = turn;
            growing.sync(&*inner.ops)
        });
        job.await?
    }
}
