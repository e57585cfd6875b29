//! The async face of a growing blob.

use std::sync::Arc;

use bytes::Bytes;
use layermesh_proto::{PieceHash, PieceIndex, PieceLayout, PieceSet};

use super::{Store, error::WriteError, growing::Growing};

/// A blob that is not whole yet; clones are the same blob.
#[derive(Clone)]
pub struct Partial {
    store: Store,
    growing: Arc<Growing>,
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

    /// Stores a piece. Its length and, if `expected` is given, its hash are checked before anything is readable; then
    /// it is readable at once, and durable at the next [`Partial::sync`]. Without `expected` (bytes from an origin
    /// over its own connection) the hash is computed and recorded. `Ok(false)`: the piece was already there.
    ///
    /// # Errors
    /// If the bytes are not the piece, the partial was discarded, or the disk is full or fails.
    pub async fn write(
        &self,
        index: PieceIndex,
        bytes: Bytes,
        expected: Option<PieceHash>,
    ) -> Result<bool, WriteError> {
        let mut prefix = Arc::clone(&self.growing.writer).lock_owned().await;
        let growing = Arc::clone(&self.growing);
        let job = self.store.job(move |inner| inner.write(&growing, &mut prefix, index, &bytes, expected));
        job.await?
    }

    /// Makes every piece written so far durable: first the bytes, then the records. Returns those that became so;
    /// nothing may be announced before.
    ///
    /// # Errors
    /// If the partial was discarded, or the disk is full or fails; all pieces stay readable.
    pub async fn sync(&self) -> Result<Vec<PieceIndex>, WriteError> {
        let turn = Arc::clone(&self.growing.syncer).lock_owned().await;
        let growing = Arc::clone(&self.growing);
        let job = self.store.job(move |inner| {
            let _turn = turn;
            growing.sync(&*inner.ops)
        });
        job.await?
    }
}
