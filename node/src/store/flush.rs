//! When what was written becomes durable: soon, and without anybody who waits for it.
//!
//! Invariant: a piece whose writer called [`Partial::sync_soon`] becomes durable, or a failure is told to those who
//! listen, within [`SYNC_INTERVAL`] and the time of two syncs; sooner if [`SYNC_BYTES`] came. Of each partial, at most
//! one sync runs and one waits. A store that is closed syncs by itself, and a partial that nobody has any more is not
//! kept for this.

use std::{
    sync::{Arc, Mutex, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{Inner, Partial, Store, error::WriteError, growing::Growing, lock};

/// Bytes after which a sync begins at once. Fewer syncs wear flash less; more bytes at stake cost more after a power
/// cut. 8 MiB is 32 s of a 2 Mbit/s uplink.
pub const SYNC_BYTES: u64 = 8 << 20;

/// Longest time that a piece waits for its sync to begin, unless another one runs. What a device brings in that time is
/// what a power cut costs it; a shorter one would sync a slow blob piece by piece.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes that may be at stake: those of a sync that runs, and twice as much that comes meanwhile. Whoever writes more
/// should wait, and its source with it, since more would only fill the page cache of a slow disk.
pub const UNDURABLE_BYTES_MAX: u64 = 3 * SYNC_BYTES;

/// How the last sync in the background went: why it failed, if it did.
pub type Flushed = Option<Arc<WriteError>>;

/// What a partial knows of its next sync.
pub(super) struct Flush {
    due: Mutex<Due>,
    hurry: Notify,
    flushed: watch::Sender<Flushed>,
}

#[derive(Default)]
struct Due {
    /// Whether a task waits to sync.
    scheduled: bool,
    /// Bytes that no sync has begun for.
    bytes: u64,
}

impl Default for Flush {
    fn default() -> Self {
        Self { due: Mutex::default(), hurry: Notify::new(), flushed: watch::Sender::new(None) }
    }
}

impl Partial {
    /// Sees to it that what was written becomes durable soon; `bytes` of it are new. To be called within a runtime.
    pub fn sync_soon(&self, bytes: u64) {
        let flush = &self.growing.flush;
        let mut due = lock(&flush.due);
        due.bytes += bytes;
        if due.bytes >= SYNC_BYTES {
            flush.hurry.notify_one();
        }
        if !std::mem::replace(&mut due.scheduled, true) {
            tokio::spawn(run(Arc::clone(flush), Arc::downgrade(&self.store.0), Arc::downgrade(&self.growing)));
        }
    }

    /// Bytes that a power cut would cost now, rounded up to whole pieces.
    pub fn undurable_bytes(&self) -> u64 {
        self.growing.undurable_bytes()
    }

    /// How syncs in the background go from now on.
    pub fn flushed(&self) -> watch::Receiver<Flushed> {
        self.growing.flush.flushed.subscribe()
    }
}

async fn run(flush: Arc<Flush>, store: Weak<Inner>, growing: Weak<Growing>) {
    tokio::select! {
        () = tokio::time::sleep(SYNC_INTERVAL) => {}
        () = flush.hurry.notified() => {}
    }
    let (Some(inner), Some(growing)) = (store.upgrade(), growing.upgrade()) else { return };
    if inner.closing.load(Ordering::Relaxed) {
        return;
    }
    let partial = Partial::new(Store(inner), growing);
    let turn = Arc::clone(&partial.growing.syncer).lock_owned().await;
    // What is written from here on may miss this sync, and is scheduled anew.
    *lock(&flush.due) = Due::default();
    let failure = match partial.sync_in_turn(turn).await {
        Ok(_) | Err(WriteError::Discarded) => None,
        Err(error) => {
            tracing::warn!(content = %partial.growing.content, %error, "cannot make pieces durable");
            Some(Arc::new(error))
        }
    };
    flush.flushed.send_replace(failure);
}
