//! A disk that is full, or nearly so.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use super::*;

/// A disk with room for so many more bytes.
struct Small {
    left: AtomicU64,
}

impl FileOps for Small {
    fn reserve(&self, file: &File, len: u64, keep_size: bool) -> io::Result<()> {
        // One that cannot reserve.
        if keep_size { Ok(()) } else { file.set_len(len) }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let left = self.left.load(Ordering::SeqCst);
        let written = bytes.len().min(left as usize);
        self.left.store(left - written as u64, Ordering::SeqCst);
        disk::Os.write_at(file, &bytes[..written], offset)?;
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.left.load(Ordering::SeqCst))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let len = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        disk::Os.remove_file(path)?;
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_add(len), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_keeps_what_is_durable_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let ops = Arc::new(Small { left: AtomicU64::new(u64::MAX) });
    let Opened { store, .. } = open_with(dir.path(), ops.clone()).await;
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0]).await;
    soon(partial.sync()).await.unwrap();
    // Room for the bytes of piece 1 but not for all of its record, then for half of piece 2.
    ops.left.store(u64::from(PIECE_LEN_MIN) + 20, Ordering::SeqCst);
    write(&partial, &bytes, [1]).await;
    assert!(matches!(soon(partial.sync()).await, Err(WriteError::NoSpace)));
    assert_eq!(partial.pieces().iter().collect::<Vec<_>>(), [0]);
    ops.left.store(u64::from(PIECE_LEN_MIN) / 2, Ordering::SeqCst);
    let error = soon(partial.write(2, piece(&bytes, 2), None)).await.unwrap_err();
    assert!(matches!(error, WriteError::NoSpace));
    assert!(error.to_string().contains("free some space"), "{error}");
    ops.left.store(u64::MAX, Ordering::SeqCst);
    write(&partial, &bytes, [2]).await;
    assert_eq!(soon(partial.sync()).await.unwrap(), [1, 2]);
    drop((partial, store));
    let Opened { store, inventory, .. } = open_with(dir.path(), ops.clone()).await;
    assert_eq!(inventory.partial[0].2.iter().collect::<Vec<_>>(), [0, 1, 2]);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [3, 4]).await;
    // Nothing is tried that the metadata would not survive; and all is there for when there is room.
    ops.left.store(100_000, Ordering::SeqCst);
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::NoSpace)));
    // A reader has no part in this: the blob is right, until a piece of it is dropped.
    let mut reader = store.reader(content);
    assert_eq!((soon(reader.verified()).await, store.size_of(&content)), (SIZE as u64, None));
    soon(store.drop_pieces(&content, &[0]).unwrap().sync()).await.unwrap();
    assert!(futures::poll!(std::pin::pin!(reader.verified())).is_pending());
    ops.left.store(u64::MAX, Ordering::SeqCst);
    write(&partial, &bytes, [0]).await;
    soon(store.complete(content)).await.unwrap();
    assert!(read_blob(&store, content).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_blob_that_would_not_fit_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let ops = Arc::new(Small { left: AtomicU64::new(u64::MAX) });
    let options = StoreOptions { free_bytes_min: 1000, ..options(dir.path()) };
    let Opened { store, .. } = soon(recovery::open(options, ops.clone())).await.unwrap();
    let (first, _) = blob(1, SIZE);
    let (second, _) = blob(2, SIZE);
    ops.left.store(SIZE as u64 + 999, Ordering::SeqCst);
    match soon(store.begin(first, SIZE as u64)).await {
        Err(error @ BeginError::NoRoom(shortage)) => {
            assert_eq!((shortage.needed, shortage.free, shortage.lacking), (SIZE as u64, SIZE as u64 - 1, 1));
            assert!(error.to_string().contains("[store] free_bytes_min"), "{error}");
        }
        other => panic!("begun: {other:?}"),
    }
    assert!(!partial_path(dir.path(), &first, "data").exists());
    ops.left.store(SIZE as u64 + 1000, Ordering::SeqCst);
    let begun = soon(store.begin(first, SIZE as u64)).await.unwrap();
    // The first one has not written its bytes yet, but they are spoken for.
    match soon(store.begin(second, SIZE as u64)).await {
        Err(BeginError::NoRoom(shortage)) => assert_eq!(shortage.free, 0),
        other => panic!("begun: {other:?}"),
    }
    drop(begun);
    soon(store.remove(&first)).await.unwrap();
    soon(store.begin(second, SIZE as u64)).await.unwrap();
}

/// A disk that cannot take a state file any more, as when it is full to the last inode.
struct NoState;

impl FileOps for NoState {
    fn open(&self, path: &Path) -> io::Result<File> {
        if path.ends_with("state") { Err(io::ErrorKind::StorageFull.into()) } else { disk::Os.open(path) }
    }
}

#[tokio::test]
async fn a_damaged_blob_is_lost_even_if_its_remains_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(dir.path()).await.store, content, &bytes).await;
    flip(&blob_path(dir.path(), &content), 5);
    let Opened { store, mut events, .. } = open_with(dir.path(), Arc::new(NoState)).await;
    assert!(matches!(read_blob(&store, content).await, Err(ReadError::Damaged)));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert_eq!(store.size_of(&content), None);
    drop(store);
    assert!(open(dir.path()).await.inventory.held.is_empty());
}

#[tokio::test]
async fn a_disk_that_is_full_to_the_last_byte_costs_no_blob_and_no_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let ops = Arc::new(Small { left: AtomicU64::new(u64::MAX) });
    let Opened { store, .. } = open_with(dir.path(), ops.clone()).await;
    let (first, bytes) = blob(1, SIZE);
    store_blob(&store, first, &bytes).await;
    ops.left.store(0, Ordering::SeqCst);
    let (second, bytes) = blob(2, SIZE);
    match soon(store.begin(second, SIZE as u64)).await {
        Err(error @ BeginError::Evict(_)) => assert!(error.to_string().contains("free disk space"), "{error}"),
        other => panic!("begun: {other:?}"),
    }
    assert_eq!(store.size_of(&first), Some(SIZE as u64));
    assert!(matches!(soon(store.pin("user/a".parse().unwrap(), vec![first])).await, Err(PinError::Io(_))));
    // With a little room the blob that is used least goes, and all is as ever.
    ops.left.store(SIZE as u64 - 1, Ordering::SeqCst);
    soon(store.begin(second, SIZE as u64)).await.unwrap();
    assert_eq!(store.size_of(&first), None);
    ops.left.store(u64::MAX, Ordering::SeqCst);
    soon(store.pin("user/a".parse().unwrap(), vec![second])).await.unwrap();
    store_blob(&store, second, &bytes).await;
}
