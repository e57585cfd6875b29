//! What this device has: whole blobs, blobs on their way, and what tags stand for, on one disk.
//!
//! On disk it is an OCI image layout (image-spec 1.1, image-layout.md) that other tools read as it is, with the
//! store's own files beside it; `paths` draws the map. One process has it at a time.
//!
//! # What is promised
//! 1. A blob that is listed as whole had the right digest when its bytes were made durable.
//! 2. No byte is returned to a reader that was not checked against its piece's hash just before.
//! 3. What was reported durable is not lost by a crash or a power cut, at any instant.
//!
//! # Order of things on disk
//! **A piece**: its bytes are written into `data`; `fdatasync(data)`; then its record (with a checksum) is appended to
//! `state`; `fdatasync(state)`. So a record never speaks of bytes that may be lost. Before the first record counts,
//! the names of both files are made durable (`fsync` of the two directories).
//!
//! **A blob becomes whole**: the digest is right; `fdatasync(data)`; **commit of the row (size, piece map) to redb**;
//! rename of `data` into `blobs/`; `fsync` of that directory; removal of `state`. The commit is the one point
//! where it becomes whole. Cut before it: a partial with all its durable pieces. Cut after it: at the next start a
//! row without a file, but with a partial of the right size, means that the rename is still to be done. The other
//! order (rename, then commit) would leave a file that nobody vouches for, to be read and hashed from end to end.
//!
//! If the digest is wrong, the pieces stay as they are, and whoever learns which of them are wrong has them dropped.
//!
//! **A piece is dropped**: at once for all who read and write; then a record that says so is appended to `state` and made
//! durable, unless one of its successor is by then. Cut before that: the piece is there again, with the hash that it had,
//! to be found wrong once more; or it is not what its record says, since its successor was being written, and is dropped
//! by whoever reads it.
//!
//! **A whole blob is found damaged**: a `state` with records of the pieces that are still good is written and made
//! durable; the row is removed from redb; the file is renamed to be the partial's `data`. Cut before the removal: the
//! row counts, the lone `state` is swept up. Cut after it: a `state` without `data`, and a file in `blobs/` without a row,
//! mean that the rename is still to be done.
//!
//! **A blob is removed**: first its row, then its file.
//!
//! So a row and a `data` file of one blob are never there together but between commit and rename, and start-up
//! (`recovery`) needs no log of its own.
//!
//! **An attached blob** (see [`attached`]) has a row of its own, with its file's identity, and no file of ours. Where a blob
//! has both, the own one counts; its row and file go as any blob's, and the attached one is what is held then.
//!
//! # Wear
//! A blob's bytes are written once. Beyond them go 48 bytes a piece to the journal, and some 32 KiB to redb for each
//! blob that becomes whole (its smallest commit, and the piece map). A blob of 256 MiB in batches of 8 pieces was
//! measured at 1.0007 times its size in all. Per batch: 2 `fdatasync`; per blob: 2 `fsync` at its first batch, 1 at its
//! end, and redb's commit.
//!
//! # What is deliberately absent
//! Any choice of what to fetch or evict, and any talk with others: what goes when there is no room is chosen by
//! [`layermesh_proto::retention`], and done in [`room`]. Blobs found in `blobs/` without a row (copied
//! there by another tool, or all of them if `meta.redb` was lost) are hashed in the background and announced by
//! [`StoreEvent::Held`]; until then they are not listed. One that is not what its name says is moved to `damaged/`.

mod adopt;
pub mod attached;
mod begin;
mod damage;
mod database;
mod disk;
pub mod error;
mod finish;
mod flush;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod growing;
mod index;
mod journal;
mod kept;
pub mod media_type;
mod meta;
mod partial;
mod paths;
pub mod pins;
mod reader;
mod recovery;
pub mod room;
mod scan;
mod state;
#[cfg(test)]
mod tests;
mod uses;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use layermesh_proto::{ContentId, PieceHash, PieceLayout, PieceMap, PieceSet, piece::BLOB_SIZE_MAX, wire::Binding};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
};

pub use self::{
    attached::AttachedStore,
    error::{
        AttachError, BeginError, ChangeError, CompleteError, InsertError, MetaError, OpenError, PinError, ReadError,
        RoomError, WriteError,
    },
    flush::{Flushed, SYNC_BYTES, SYNC_INTERVAL, UNDURABLE_BYTES_MAX},
    kept::KEPT_BYTES_MAX,
    partial::{Partial, Written},
    pins::PinOwner,
    reader::BlobReader,
    room::{Collected, CollectedKind, Hold, Quota},
};
use self::{
    attached::{Attachment, Place},
    disk::FileOps,
    growing::Growing,
    kept::KeptPieces,
    meta::Meta,
    paths::Paths,
    pins::Pins,
    reader::Whole,
    room::Holds,
    uses::UseClock,
};

/// Blocking jobs at a time. Each has at most two pieces in memory, and more of them do not make a disk faster.
const JOBS_MAX: usize = 4;
/// Scans of whole files at a time (adoption, damage): they are in nobody's way if they take turns.
const SCANS_MAX: usize = 1;
/// Events that wait for the driver; a scan that finds more waits too.
pub const EVENT_QUEUE_LEN: usize = 256;
/// Blobs that can be begun and not whole at a time. Each has an open file and 33 bytes a piece in memory.
pub const PARTIALS_MAX: usize = 256;
/// Space that is left to the rest of the device unless told otherwise, in bytes.
pub const FREE_BYTES_MIN_DEFAULT: u64 = 64 << 20;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The directory; made if it is absent.
    pub dir: PathBuf,
    /// A blob is not begun if it would leave less than this free on the file system, in bytes.
    pub free_bytes_min: u64,
    /// How much it may hold.
    pub quota: Quota,
    /// Bytes of pieces that all readers keep together between two reads.
    pub kept_bytes_max: usize,
}

impl StoreOptions {
    /// A store in `dir` with the default reserve and buffers, and the disk for its quota.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir, free_bytes_min: FREE_BYTES_MIN_DEFAULT, quota: Quota::UNLIMITED, kept_bytes_max: KEPT_BYTES_MAX }
    }
}

/// An open store, and what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was in it.
    pub inventory: Inventory,
    /// What it finds out by itself.
    pub events: mpsc::Receiver<StoreEvent>,
}

/// What a store had when it was opened.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Whole blobs and their sizes.
    pub held: Vec<(ContentId, u64)>,
    /// Blobs that are not whole: size and durable pieces. Those are checked when they are read, not at start.
    pub partial: Vec<(ContentId, u64, PieceSet)>,
    /// What tags stand for.
    pub bindings: Vec<Binding>,
}

/// Something that the store found out by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// A whole blob is no longer whole, or gone.
    Lost {
        /// The blob.
        content: ContentId,
    },
    /// Of a blob that is not whole, exactly these pieces are there.
    PartlyHeld {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
        /// The pieces.
        pieces: PieceSet,
    },
    /// A blob was found on disk and verified.
    Held {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
    },
}

/// A whole blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBlob {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is in the store itself, not in an attached one.
    pub own: bool,
}

/// What a store holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Whole blobs in the store itself.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whole blobs that only attached stores have.
    pub attached_blobs: usize,
    /// Their bytes.
    pub attached_bytes: u64,
    /// Blobs that are not whole.
    pub partials: usize,
    /// Bytes of their durable pieces.
    pub partial_bytes: u64,
    /// Bytes of blobs that are pinned.
    pub pinned_bytes: u64,
    /// Bytes that all blobs may take, whole and begun.
    pub quota: u64,
    /// Bytes that are free on the disk; 0 if it does not say.
    pub disk_free: u64,
    /// Bytes of it that blobs leave free.
    pub disk_free_min: u64,
    /// Size of the disk; 0 if it does not say.
    pub disk_size: u64,
}

/// A handle on the store; clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct HeldEntry {
    size: u64,
    place: Place,
    /// What its readers share, while there are any.
    open: Weak<Whole>,
    /// When it was used last, and what the disk knows of that; see [`uses`].
    used_ms: u64,
    saved_ms: u64,
}

struct Inner {
    paths: Paths,
    free_bytes_min: u64,
    quota: Quota,
    /// What the quota came to when it was looked at last, in bytes.
    quota_now: AtomicU64,
    clock: UseClock,
    ops: Arc<dyn FileOps>,
    meta: Meta,
    held: Mutex<HashMap<ContentId, HeldEntry>>,
    partials: Mutex<HashMap<ContentId, Arc<Growing>>>,
    kept: KeptPieces,
    pins: Mutex<Pins>,
    /// By directory. Locked alone.
    attached: Mutex<BTreeMap<PathBuf, Attachment>>,
    /// Locked alone, or while `held` is.
    holds: Mutex<Holds>,
    /// Says that a blob was begun or became whole.
    changed: watch::Sender<()>,
    /// Held by whoever moves a blob between absent, partial and whole.
    structure: Arc<tokio::sync::Mutex<()>>,
    jobs: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    events: mpsc::Sender<StoreEvent>,
    /// Set once by [`Store::close`]: the background job ends at the next piece.
    closing: AtomicBool,
    /// The background job that looks into unknown files, until it is waited for.
    adoption: Mutex<Option<JoinHandle<()>>>,
    /// The lock on the directory lives as long as this.
    _lock: File,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.0.paths.root).finish_non_exhaustive()
    }
}

/// Locks; a panic elsewhere leaves these maps as good as they were, since no update of them is in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the store, making it if there is none, and puts right what a crash left.
    ///
    /// # Errors
    /// If another process has it, a later version wrote it, or the disk fails.
    pub async fn open(options: StoreOptions) -> Result<Opened, OpenError> {
        recovery::open(options, Arc::new(disk::Os)).await
    }

    /// The size in bytes of a whole blob.
    pub fn size_of(&self, content: &ContentId) -> Option<u64> {
        lock(&self.0.held).get(content).map(|entry| entry.size)
    }

    /// All whole blobs, in no order.
    pub fn list(&self) -> Vec<HeldBlob> {
        let shown = |(&content, entry): (&ContentId, &HeldEntry)| HeldBlob {
            content,
            size: entry.size,
            own: entry.place == Place::Own,
        };
        lock(&self.0.held).iter().map(shown).collect()
    }

    /// What is held, in numbers.
    pub fn totals(&self) -> Totals {
        let (ops, root) = (&self.0.ops, &self.0.paths.root);
        let mut totals = Totals {
            quota: self.0.quota_now.load(Ordering::Relaxed),
            disk_free: ops.free_bytes(root).unwrap_or(0),
            disk_free_min: self.0.free_bytes_min,
            disk_size: ops.total_bytes(root).unwrap_or(0),
            ..Totals::default()
        };
        let held: Vec<_> = self.list();
        let pins = lock(&self.0.pins);
        for blob in held {
            if !blob.own {
                totals.attached_blobs += 1;
                totals.attached_bytes += blob.size;
                continue;
            }
            totals.blobs += 1;
            totals.bytes += blob.size;
            totals.pinned_bytes += if pins.contains(&blob.content) { blob.size } else { 0 };
        }
        drop(pins);
        for growing in lock(&self.0.partials).values() {
            totals.partials += 1;
            totals.partial_bytes += growing.durable_bytes();
        }
        totals
    }

    /// A reader of a blob that is whole, growing, or not begun yet.
    pub fn reader(&self, content: ContentId) -> BlobReader {
        BlobReader::new(self.clone(), content)
    }

    /// A whole blob, read in one piece and checked against its digest; for manifests.
    ///
    /// # Errors
    /// If it is not held, is longer than `max` bytes, or is damaged (it is then withdrawn, as by a reader).
    pub async fn read_whole(&self, content: &ContentId, max: u64) -> Result<Bytes, ReadError> {
        let size = self.size_of(content).ok_or(ReadError::NotHeld)?;
        let _hold = self.hold(*content);
        if size > max {
            return Err(ReadError::TooLarge { size, max });
        }
        let content = *content;
        let read = self.job(move |inner| inner.read_all(&content, size)).await??;
        match read {
            Some(bytes) => Ok(bytes),
            None => {
                self.withdraw(content).await?;
                Err(ReadError::Damaged)
            }
        }
    }

    /// The hashes of a whole blob's pieces.
    pub async fn piece_map(&self, content: &ContentId) -> Option<PieceMap> {
        self.size_of(content)?;
        let content = *content;
        self.job(move |inner| inner.map_of(&content)).await.ok()?.ok()?
    }

    /// Begins a blob, or takes up one that was begun: all callers get the same object.
    ///
    /// # Errors
    /// If it is held, was begun with another size, or there is no room for it.
    pub async fn begin(&self, content: ContentId, size: u64) -> Result<Partial, BeginError> {
        let layout = PieceLayout::for_size(size).filter(|_| size <= BLOB_SIZE_MAX).ok_or(BeginError::TooLarge(size))?;
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        let growing = self
            .job(move |inner| {
                let _turn = turn;
                inner.begin(content, layout)
            })
            .await??;
        Ok(Partial::new(self.clone(), growing))
    }

    /// What was begun of a blob that is not whole.
    pub fn begun(&self, content: &ContentId) -> Option<Partial> {
        self.0.growing(content).map(|growing| Partial::new(self.clone(), growing))
    }

    /// Stores a blob that is at hand: verified and durable on return. One that is held already is left as it is.
    ///
    /// # Errors
    /// If the bytes are not the blob, or cannot be stored.
    pub async fn insert(&self, content: ContentId, bytes: Bytes) -> Result<(), InsertError> {
        let found = ContentId::of(content.algorithm(), &bytes);
        if found != content {
            return Err(InsertError::WrongDigest { found });
        }
        // A second try, since a partial that was there may have ended, or got or lost a piece, meanwhile.
        match self.insert_once(content, &bytes).await {
            Err(
                InsertError::Write(WriteError::Discarded)
                | InsertError::Complete(
                    CompleteError::WrongDigest { .. } | CompleteError::NotBegun | CompleteError::Incomplete { .. },
                ),
            ) => self.insert_once(content, &bytes).await,
            other => other,
        }
    }

    /// A piece that is there already, and is another than this blob has, is replaced.
    async fn insert_once(&self, content: ContentId, bytes: &Bytes) -> Result<(), InsertError> {
        let partial = match self.begin(content, bytes.len() as u64).await {
            Ok(partial) => partial,
            Err(BeginError::Held { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let layout = partial.layout();
        for index in 0..layout.count() {
            let range = layout.bytes_of(index);
            let piece = bytes.slice(range.start as usize..range.end as usize);
            let written = partial.write(index, piece.clone(), None).await?;
            if !written.new && written.hash != PieceHash::of(&piece) {
                self.drop_pieces(&content, &[index]);
                partial.write(index, piece, None).await?;
            }
        }
        self.complete(content).await?;
        Ok(())
    }

    /// Keeps what a tag stands for. Once its manifest is held, `index.json` names it.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub async fn remember(&self, binding: Binding) -> Result<(), ChangeError> {
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            if inner.meta.bind(&binding)? {
                inner.refresh_index()?;
            }
            Ok(())
        })
        .await?
    }

    /// Ends the background job and makes durable whatever was written. The directory is free for another opening once
    /// the last handle (a [`Store`], [`Partial`] or [`BlobReader`]) is dropped.
    pub async fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
        lock(&self.0.attached).values().for_each(Attachment::stop);
        let adoption = lock(&self.0.adoption).take();
        if let Some(adoption) = adoption {
            // A job that panicked has nothing left to wait for.
            let _ = adoption.await;
        }
        let growing: Vec<_> = lock(&self.0.partials).values().cloned().collect();
        for one in growing {
            let content = one.content;
            match Partial::new(self.clone(), one).sync().await {
                Ok(_) | Err(WriteError::Discarded) => {}
                Err(error) => tracing::warn!(%content, %error, "cannot make the last pieces durable"),
            }
        }
        if let Ok(Err(error)) = self.job(|inner| inner.save_uses(0)).await {
            tracing::warn!(%error, "cannot write down when blobs were used");
        }
    }

    /// Runs a job on a blocking thread when it is its turn. It runs to its end even if the caller goes away.
    async fn job<T, F>(&self, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> T + Send + 'static,
    {
        run(&self.0.jobs, Arc::clone(&self.0), job).await
    }

    /// As [`Store::job`], for jobs that read whole files.
    async fn scan<T, F>(&self, job: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> T + Send + 'static,
    {
        run(&self.0.scans, Arc::clone(&self.0), job).await
    }
}

async fn run<T, F>(turns: &Arc<Semaphore>, inner: Arc<Inner>, job: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Arc<Inner>) -> T + Send + 'static,
{
    let turn = Arc::clone(turns).acquire_owned().await.map_err(io::Error::other)?;
    let task = tokio::task::spawn_blocking(move || {
        let result = job(&inner);
        drop(turn);
        result
    });
    task.await.map_err(io::Error::other)
}

impl Inner {
    /// Says something to the driver; on a blocking thread only.
    fn tell(&self, event: StoreEvent) {
        // A driver that is gone needs no news.
        let _ = self.events.blocking_send(event);
    }
}
