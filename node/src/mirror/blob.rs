//! One blob as one unbroken run of bytes, out of the store and the mesh.
//!
//! Invariants:
//! - no byte leaves that the store has not verified;
//! - the last byte of a blob that is not held yet leaves only after the whole blob turned out to be what its digest
//!   says, so that a wrong blob never ends cleanly;
//! - nothing waits longer than the stall limit: an [`Interruption`] is the only other way out;
//! - a [`Supply`] holds at most one chunk, and dropping it drops its want.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use layermesh_proto::{
    ContentId, ObjectKind, Repository,
    engine::{Urgency, event::WantError},
};
use thiserror::Error;
use tokio::time::timeout;

use super::source::{BlobRead, MirrorStore, ReadError};
use crate::mesh::{Mesh, Want};

/// Most bytes read at once. With what the HTTP connection buffers, this bounds the memory of a response; larger
/// chunks gain nothing measurable on loopback.
pub(super) const CHUNK_LEN_MAX: usize = 256 << 10;
/// How far a reader moves before the mesh is told where it stands, in bytes. Finer would load the driver's queue;
/// coarser would let pieces that nobody waits for come first.
const READER_STEP: u64 = 1 << 20;
/// How often a blob may turn out damaged while it is being served before the disk is given up on.
const DAMAGES_MAX: u32 = 3;

/// Why a blob's bytes stopped coming.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Interruption {
    /// It cannot be had.
    #[error(transparent)]
    Want(#[from] WantError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Whoever said how large it is was wrong, and that has gone out as its length.
    #[error("it has not the size that was first said")]
    WrongSize,
    /// No byte came for this long.
    #[error("no byte came for {0:?}")]
    Stalled(Duration),
}

/// What it takes to get a blob.
#[derive(Debug, Clone)]
pub(super) struct Ask<S> {
    /// The store.
    pub(super) store: S,
    /// The mesh.
    pub(super) mesh: Mesh,
    /// The blob.
    pub(super) content: ContentId,
    /// Where an origin has it.
    pub(super) repository: Repository,
    /// Longest wait for a byte.
    pub(super) stall: Duration,
}

/// A blob being read.
#[derive(Debug)]
pub(super) struct Supply<S: MirrorStore> {
    ask: Ask<S>,
    reader: S::Reader,
    /// Set unless the blob was held from the start.
    want: Option<Want>,
    /// Whether the want is still under way: the blob's last byte is withheld.
    growing: bool,
    size: u64,
    /// Next byte to give and the one after the last.
    offset: u64,
    end: u64,
    /// Where the mesh is told next where the reader stands.
    report_at: u64,
    damages: u32,
}

impl<S: MirrorStore> Supply<S> {
    /// Opens a blob, and waits until its size is known.
    ///
    /// # Errors
    /// If it cannot be had, or nobody could say its size in time.
    pub(super) async fn open(ask: Ask<S>) -> Result<Self, Interruption> {
        // The reader first: what is held once there is one is not removed for want of room.
        let mut reader = ask.store.reader(ask.content);
        let held = ask.store.size_of(&ask.content);
        let stall = ask.stall;
        let mut growing = held.is_none();
        let (want, size) = match held {
            Some(size) => (None, size),
            None => {
                let opened = async {
                    let mut want = ask
                        .mesh
                        .want(ask.content, ObjectKind::Blob, Some(ask.repository.clone()), Urgency::Runtime)
                        .await;
                    let size = while_wanted(&mut want, &mut growing, reader.size()).await?;
                    Ok::<_, WantError>((Some(want), size))
                };
                timeout(stall, opened).await.map_err(|_| Interruption::Stalled(stall))??
            }
        };
        Ok(Self { ask, reader, want, growing, size, offset: 0, end: size, report_at: 0, damages: 0 })
    }

    /// The blob's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The blob.
    pub(super) fn content(&self) -> ContentId {
        self.ask.content
    }

    /// The next byte to come.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Gives only these bytes, `end` excluded. Before the first [`Supply::next`].
    pub(super) fn limit(&mut self, start: u64, end: u64) {
        self.end = end.min(self.size);
        self.offset = start.min(self.end);
        self.report_at = self.offset;
    }

    /// The next bytes, at most [`CHUNK_LEN_MAX`], or `None` after the last.
    ///
    /// # Errors
    /// If they cannot be had or do not come in time. Nothing follows.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Interruption> {
        let stall = self.ask.stall;
        timeout(stall, self.advance()).await.unwrap_or(Err(Interruption::Stalled(stall)))
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Interruption> {
        loop {
            // A range that ends before the blob does has no say in the whole: its verified pieces are all there is.
            if self.growing && self.withheld() == 0 && self.end == self.size {
                self.wait_for_the_end().await?;
            }
            if self.offset >= self.end {
                return Ok(None);
            }
            let available = if self.growing { self.withheld() } else { self.end - self.offset };
            let max = usize::try_from(available).unwrap_or(usize::MAX).min(CHUNK_LEN_MAX);
            self.report();
            let read = self.reader.read(self.offset, max);
            let read = match &mut self.want {
                Some(want) if self.growing => while_wanted(want, &mut self.growing, read).await?,
                _ => read.await,
            };
            match read {
                Ok(bytes) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(ReadError::Damaged) if self.damages < DAMAGES_MAX => self.want_again().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Bytes that may be given before the want has ended well.
    fn withheld(&self) -> u64 {
        self.end.min(self.size.saturating_sub(1)).saturating_sub(self.offset)
    }

    /// Waits for the verdict on the whole blob. A client has its last byte before the node's own copy is durable: ten
    /// devices of a site sync at the same moment, and their clients would all wait for it.
    async fn wait_for_the_end(&mut self) -> Result<(), Interruption> {
        let size = match &mut self.want {
            Some(want) => tokio::select! {
                biased;
                size = self.reader.verified() => Some(size),
                ended = want.ended() => {
                    ended?;
                    // One that has gone again by now has no size to compare, and its last byte does not come.
                    self.ask.store.size_of(&self.ask.content)
                }
            },
            None => None,
        };
        self.growing = false;
        // What was said of the size before the blob was verified may have been wrong.
        if size.is_some_and(|size| size != self.size) { Err(Interruption::WrongSize) } else { Ok(()) }
    }

    async fn want_again(&mut self) {
        self.damages += 1;
        let Ask { mesh, content, repository, .. } = &self.ask;
        tracing::warn!(%content, offset = self.offset, "a stored blob is damaged: fetching it again");
        self.want = Some(mesh.want(*content, ObjectKind::Blob, Some(repository.clone()), Urgency::Runtime).await);
        self.growing = true;
        self.report_at = self.offset;
    }

    fn report(&mut self) {
        if self.offset < self.report_at {
            return;
        }
        if let Some(want) = &self.want {
            want.reader_at(self.offset);
        }
        self.report_at = self.offset + READER_STEP;
    }
}

/// Runs `work`, which waits for bytes, until it is done or the want cannot be fulfilled.
async fn while_wanted<T>(want: &mut Want, growing: &mut bool, work: impl Future<Output = T>) -> Result<T, WantError> {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        ended = want.ended() => ended?,
    }
    *growing = false;
    Ok(work.await)
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;
    use crate::mirror::fake::{FakeDriver, FakeStore, PATIENCE};

    const DIGITS: &[u8] = b"0123456789";

    /// All bytes of a blob of ten are there, and nothing is known of them together.
    fn grown() -> (FakeDriver, FakeStore, Ask<FakeStore>) {
        let (driver, mesh) = FakeDriver::spawn();
        let store = FakeStore::new();
        let content = ContentId::of(Algorithm::Sha256, DIGITS);
        store.begin(content, DIGITS);
        store.grow(content, 0..10);
        let repository = Repository::new("a.io", "b").unwrap();
        (driver, store.clone(), Ask { store, mesh, content, repository, stall: PATIENCE })
    }

    #[tokio::test]
    async fn a_part_ends_without_the_verdict_and_the_whole_does_not() {
        let (driver, _, ask) = grown();
        let content = ask.content;
        let mut part = Supply::open(ask.clone()).await.unwrap();
        part.limit(2, 9);
        assert_eq!(part.next().await, Ok(Some(Bytes::from_static(b"2345678"))));
        assert_eq!(part.next().await, Ok(None));
        let mut whole = Supply::open(ask).await.unwrap();
        assert_eq!(whole.next().await, Ok(Some(Bytes::from_static(b"012345678"))));
        driver.end(content, Err(WantError::NotFound)).await;
        assert_eq!(whole.next().await, Err(Interruption::Want(WantError::NotFound)));
    }

    #[tokio::test]
    async fn a_whole_ends_when_it_is_known_to_be_right_though_it_is_not_durable() {
        let (_driver, store, ask) = grown();
        let content = ask.content;
        let mut whole = Supply::open(ask).await.unwrap();
        assert_eq!(whole.next().await, Ok(Some(Bytes::from_static(b"012345678"))));
        store.verify(content);
        assert_eq!(whole.next().await, Ok(Some(Bytes::from_static(b"9"))));
        assert_eq!(whole.next().await, Ok(None));
    }
}
