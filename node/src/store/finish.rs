//! How a growing blob ends: whole, or discarded; how some of its pieces are dropped; and how blobs are removed. The order of the steps is argued in the
//! store's own documentation.

use std::sync::Arc;

use bytes::Bytes;
use layermesh_proto::{ContentId, PieceHash, PieceIndex, PieceMap};
use tokio::sync::OwnedMutexGuard;

use super::{
    Inner, Place, Store, StoreEvent,
    error::{ChangeError, CompleteError, WriteError},
    growing::{CATCH_UP_PIECES, CaughtUp, Growing, PieceRead, Prefix},
    lock,
    partial::{Partial, Written},
    state::Phase,
};

impl Store {
    /// Makes a blob whole whose pieces are all written: hashes what is left to hash, and if the digest is right moves
    /// the blob to the whole ones, durably. Returns its size. A blob that is whole already is fine.
    ///
    /// # Errors
    /// If pieces are missing (which, [`StoreEvent::PartlyHeld`] has said by then), the bytes are not the blob, or the
    /// disk fails. All pieces are kept: of those that are not the blob, somebody may find out which are wrong, and
    /// [`Store::drop_pieces`]; the digest is computed anew.
    pub async fn complete(&self, content: ContentId) -> Result<u64, CompleteError> {
        if let Some(size) = self.size_of(&content) {
            return Ok(size);
        }
        let growing = self.0.growing(&content).ok_or(CompleteError::NotBegun)?;
        let mut prefix = Arc::clone(&growing.writer).lock_owned().await;
        // In jobs of a few pieces, so that others get their turns while a long blob is hashed.
        loop {
            let missing = growing.missing();
            if missing > 0 {
                // Whoever took it for complete has missed something.
                self.job(move |inner| inner.tell_pieces(&growing)).await?;
                return Err(CompleteError::Incomplete { missing });
            }
            let caught_up;
            (prefix, caught_up) = self.catch_up(&growing, prefix).await?;
            if caught_up == CaughtUp::Whole {
                break;
            }
        }
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            inner.complete(&growing, &mut prefix)
        })
        .await?
    }

    async fn catch_up(
        &self,
        growing: &Arc<Growing>,
        mut prefix: OwnedMutexGuard<Prefix>,
    ) -> Result<(OwnedMutexGuard<Prefix>, CaughtUp), CompleteError> {
        let growing = Arc::clone(growing);
        let job = self.job(move |inner| {
            let caught_up = growing.catch_up(&*inner.ops, &mut prefix, CATCH_UP_PIECES)?;
            if caught_up == CaughtUp::Dropped {
                inner.warn_of_damage(&growing);
            }
            Ok((prefix, caught_up))
        });
        job.await?
    }

    /// Drops pieces of a blob that is not whole, as wrong: on return they are neither readable nor durable, and readers
    /// wait until they are written anew. Returns the partial if there were any: its next [`Partial::sync`] records it,
    /// and until then a restart brings back those that were durable. Does not block.
    pub fn drop_pieces(&self, content: &ContentId, pieces: &[PieceIndex]) -> Option<Partial> {
        let growing = self.0.growing(content)?;
        growing.forget(pieces).then(|| Partial::new(self.clone(), growing))
    }

    /// The readable pieces of a blob that is not whole, and their hashes; empty if it was not begun.
    pub fn recall(&self, content: &ContentId) -> Vec<(PieceIndex, PieceHash)> {
        self.0.growing(content).map_or_else(Vec::new, |growing| growing.recall())
    }

    /// Removes a blob, whole or not, from the store itself. Says whether there was one. Readers of a whole blob keep what
    /// they have open.
    ///
    /// # Errors
    /// If the disk fails or the change cannot be recorded.
    pub async fn remove(&self, content: &ContentId) -> Result<bool, ChangeError> {
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        let content = *content;
        self.job(move |inner| {
            let _turn = turn;
            inner.remove(&content)
        })
        .await?
    }
}

/// More than redb writes for a row, in bytes: the map twice over (pages are copied, never changed) and what it takes to
/// find it, which was measured at 32 KiB.
fn commit_bytes(map: &PieceMap) -> u64 {
    2 * 32 * u64::from(map.layout().count()) + (256 << 10)
}

impl Inner {
    pub(super) fn write(
        &self,
        growing: &Growing,
        prefix: &mut Prefix,
        index: PieceIndex,
        bytes: &Bytes,
        expected: Option<PieceHash>,
    ) -> Result<Written, WriteError> {
        let wrote = growing.write(&*self.ops, prefix, index, bytes, expected)?;
        if wrote.dropped {
            self.warn_of_damage(growing);
        }
        Ok(Written { new: wrote.new, hash: wrote.hash })
    }

    pub(super) fn read_piece(&self, growing: &Growing, index: PieceIndex) -> std::io::Result<PieceRead> {
        let read = growing.read_piece(&*self.ops, index)?;
        if matches!(read, PieceRead::Bad) && growing.phase() == Phase::Growing {
            self.warn_of_damage(growing);
        }
        Ok(read)
    }

    /// A piece of a growing blob was found bad.
    fn warn_of_damage(&self, growing: &Growing) {
        tracing::warn!(content = %growing.content, "a stored piece was damaged and is fetched again");
        self.tell_pieces(growing);
    }

    /// Says which pieces of a growing blob are there, durable or not: as those who wrote them were told.
    fn tell_pieces(&self, growing: &Growing) {
        let (content, size) = (growing.content, growing.layout.blob_size());
        self.tell(StoreEvent::PartlyHeld { content, size, pieces: growing.readable() });
    }

    fn complete(&self, growing: &Growing, prefix: &mut Prefix) -> Result<u64, CompleteError> {
        let content = growing.content;
        let size = growing.layout.blob_size();
        match growing.phase() {
            Phase::Whole => return Ok(size),
            Phase::Discarded => return Err(CompleteError::NotBegun),
            Phase::Growing => {}
        }
        // A reader may have found a bad piece since the digest ran over it.
        let Some(map) = growing.map() else {
            return Err(CompleteError::Incomplete { missing: growing.missing() });
        };
        if let Err(mismatch) = growing.verdict(prefix) {
            return Err(CompleteError::WrongDigest { found: mismatch.found });
        }
        // Whoever streams it needs to know that it is right, not that it would survive a power cut.
        if !growing.set_verified() {
            return Err(CompleteError::Incomplete { missing: growing.missing() });
        }
        growing.sync_bytes(&*self.ops)?;
        // After a write that failed, the metadata could not be written again before the next start.
        if self.ops.free_bytes(&self.paths.root)? < commit_bytes(&map) {
            return Err(CompleteError::NoSpace);
        }
        self.meta.insert(&content, &map)?;
        if let Err(error) = self.move_in(growing) {
            // Without the row it is an ordinary partial again; with it, the next start would finish the move.
            self.meta.remove(&content)?;
            return Err(error.into());
        }
        lock(&self.held).insert(content, self.fresh(size));
        lock(&self.partials).remove(&content);
        growing.set_phase(Phase::Whole);
        self.changed.send_replace(());
        self.tidy_after_move(growing);
        Ok(size)
    }

    fn move_in(&self, growing: &Growing) -> std::io::Result<()> {
        let to = self.paths.blob(&growing.content);
        self.ops.rename(&super::paths::data_of(&growing.dir), &to)
    }

    /// What a restart would do as well, and so may fail.
    fn tidy_after_move(&self, growing: &Growing) {
        let content = growing.content;
        let tidy = || {
            self.ops.sync_dir(&self.paths.blobs(content.algorithm()))?;
            growing.remove_files(&*self.ops)?;
            self.index_if_bound(&content, growing.layout.blob_size())
        };
        if let Err(error) = tidy() {
            tracing::warn!(%content, %error, "cannot tidy up after a blob that became whole");
        }
    }

    /// Gives a growing blob up. Whoever reads it waits for the next one of its content.
    pub(super) fn discard(&self, growing: &Growing) -> std::io::Result<()> {
        growing.set_phase(Phase::Discarded);
        lock(&self.partials).remove(&growing.content);
        self.changed.send_replace(());
        growing.remove_files(&*self.ops)?;
        self.ops.sync_dir(&self.paths.partials())
    }

    fn remove(&self, content: &ContentId) -> Result<bool, ChangeError> {
        if let Some(growing) = self.growing(content) {
            self.discard(&growing)?;
            return Ok(true);
        }
        let own = lock(&self.held).get(content).filter(|entry| entry.place == Place::Own).map(|entry| entry.size);
        let Some(size) = own else { return Ok(false) };
        self.meta.remove(content)?;
        lock(&self.held).remove(content);
        self.hold_elsewhere(content);
        self.ops.remove_file(&self.paths.blob(content))?;
        self.ops.sync_dir(&self.paths.blobs(content.algorithm()))?;
        self.index_if_bound(content, size).map_err(ChangeError::Io)?;
        Ok(true)
    }
}
