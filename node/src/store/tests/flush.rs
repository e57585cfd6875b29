//! Pieces that become durable without anybody waiting. The clock is paused: time passes only while nothing else happens.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

use super::*;

/// A disk that cannot sync now and then.
#[derive(Default)]
struct Failing(AtomicBool);

impl FileOps for Failing {
    fn sync(&self, file: &File) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(io::Error::other("no")) } else { disk::Os.sync(file) }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_becomes_durable_in_time_and_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open(dir.path()).await;
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let mut flushed = partial.flushed();
    let start = Instant::now();
    for index in 0..3 {
        write(&partial, &bytes, [index]).await;
        partial.sync_soon(piece(&bytes, index).len() as u64);
    }
    assert_eq!(partial.undurable_bytes(), 3 * u64::from(PIECE_LEN_MIN));
    soon(flushed.changed()).await.unwrap();
    assert!(flushed.borrow_and_update().is_none());
    assert!((SYNC_INTERVAL..2 * SYNC_INTERVAL).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!((partial.pieces().count(), partial.undurable_bytes()), (3, 0));
    // That was one task, and it has ended; the next piece has its own.
    write(&partial, &bytes, [4]).await;
    partial.sync_soon(1000);
    soon(flushed.changed()).await.unwrap();
    assert_eq!(partial.pieces().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn much_at_once_is_made_durable_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open(dir.path()).await;
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let mut flushed = partial.flushed();
    write(&partial, &bytes, [0]).await;
    let start = Instant::now();
    partial.sync_soon(SYNC_BYTES - 1);
    partial.sync_soon(1);
    soon(flushed.changed()).await.unwrap();
    assert!(start.elapsed() < SYNC_INTERVAL);
    assert_eq!(partial.pieces().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_is_told_and_the_next_one_makes_up_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let ops = Arc::<Failing>::default();
    let Opened { store, .. } = open_with(dir.path(), ops.clone()).await;
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let mut flushed = partial.flushed();
    write(&partial, &bytes, [0]).await;
    ops.0.store(true, Ordering::SeqCst);
    partial.sync_soon(1);
    soon(flushed.changed()).await.unwrap();
    assert!(matches!(flushed.borrow_and_update().as_deref(), Some(WriteError::Io(_))));
    assert!(!partial.flushed().has_changed().unwrap(), "who comes later is not told of what was");
    ops.0.store(false, Ordering::SeqCst);
    partial.sync_soon(0);
    soon(flushed.changed()).await.unwrap();
    assert!(flushed.borrow_and_update().is_none());
    assert_eq!(partial.pieces().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_is_due_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    {
        let Opened { store, .. } = open(dir.path()).await;
        let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
        write(&partial, &bytes, [0]).await;
        partial.sync_soon(1);
        soon(store.close()).await;
        assert_eq!(partial.pieces().count(), 1, "closing is what makes it durable");
    }
    // The directory is free, although the time for the sync has not come.
    let Opened { store, .. } = open(dir.path()).await;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let mut flushed = partial.flushed();
    write(&partial, &bytes, 1..5).await;
    partial.sync_soon(1);
    // A blob that is whole by then, or gone, is none of its business.
    soon(store.complete(content)).await.unwrap();
    soon(flushed.changed()).await.unwrap();
    assert!(flushed.borrow_and_update().is_none());
    assert!(read_blob(&store, content).await.unwrap() == bytes);
}
