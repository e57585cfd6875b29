//! Stores of others: what appears in them, what vanishes, and what is said of it.

use std::{fs, path::PathBuf};

use super::*;

/// A store, and a directory of another.
struct Two {
    dir: tempfile::TempDir,
    theirs: PathBuf,
}

impl Two {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let theirs = fs::canonicalize(dir.path()).unwrap().join("theirs");
        fs::create_dir_all(theirs.join("blobs/sha256")).unwrap();
        Self { dir, theirs }
    }

    fn own(&self) -> PathBuf {
        self.dir.path().join("own")
    }

    async fn open(&self) -> Opened {
        open(&self.own()).await
    }

    fn file(&self, content: &ContentId) -> PathBuf {
        self.theirs.join("blobs/sha256").join(content.hex())
    }

    /// Moves a blob in, as a runtime does.
    fn put(&self, seed: u8) -> (ContentId, Bytes) {
        let (content, bytes) = blob(seed, SIZE);
        let ingest = self.theirs.join("ingest");
        fs::write(&ingest, &bytes).unwrap();
        fs::rename(ingest, self.file(&content)).unwrap();
        (content, bytes)
    }

    /// A store to which the other is attached, with one blob that is held and nothing left to be hashed.
    async fn open_attached(&self) -> (ContentId, Opened) {
        let (content, _) = self.put(1);
        let mut opened = self.open().await;
        let store = &opened.store;
        soon(store.attach(&self.theirs, false, false)).await.unwrap();
        assert_eq!(next(&mut opened.events).await, held(content));
        until("nothing is being hashed", || store.attached()[0].pending == 0).await;
        (content, opened)
    }
}

const fn held(content: ContentId) -> StoreEvent {
    StoreEvent::Held { content, size: SIZE as u64 }
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waits = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn what_is_there_or_appears_is_hashed_and_held_and_what_vanishes_is_withdrawn() {
    let two = Two::new();
    let (first, bytes) = two.put(1);
    fs::write(two.theirs.join("blobs/sha256/README"), "not a blob").unwrap();
    let Opened { store, mut events, .. } = two.open().await;
    soon(store.attach(&two.theirs, false, false)).await.unwrap();
    assert_eq!(next(&mut events).await, held(first));
    assert_eq!(store.size_of(&first), Some(SIZE as u64));
    assert!(read_blob(&store, first).await.unwrap() == bytes);
    assert_eq!(soon(store.read_whole(&first, SIZE as u64)).await.unwrap(), bytes);
    assert_eq!(soon(store.piece_map(&first)).await, PieceMap::of(&bytes));
    assert!(matches!(soon(store.begin(first, SIZE as u64)).await, Err(BeginError::Held { .. })));
    let (second, _) = two.put(2);
    assert_eq!(next(&mut events).await, held(second));
    let totals = store.totals();
    assert_eq!((totals.blobs, totals.attached_blobs, totals.attached_bytes), (0, 2, 2 * SIZE as u64));
    assert!(!soon(store.remove(&first)).await.unwrap(), "it is not ours");

    // One that somebody reads stays readable for whoever has it open.
    let mut reader = store.reader(first);
    soon(reader.read(0, 10)).await.unwrap();
    let mut late = store.reader(first);
    fs::remove_file(two.file(&first)).unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: first });
    assert_eq!(store.size_of(&first), None);
    assert!(read_from(&mut reader, 0).await.unwrap() == bytes);
    assert!(matches!(soon(late.read(0, 10)).await, Err(ReadError::Gone)));
    // The whole of it goes, as a stick does, and comes back.
    let elsewhere = two.theirs.with_extension("elsewhere");
    fs::rename(&two.theirs, &elsewhere).unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: second });
    until("a problem is told", || store.attached()[0].problem.is_some()).await;
}

#[tokio::test]
async fn files_are_known_again_and_hashed_only_when_they_have_changed() {
    let two = Two::new();
    let (good, bytes) = two.put(1);
    let (wrong, _) = blob(2, SIZE);
    fs::write(two.file(&wrong), &bytes).unwrap();
    {
        let Opened { store, mut events, .. } = two.open().await;
        soon(store.attach(&two.theirs, false, true)).await.unwrap();
        assert_eq!(next(&mut events).await, held(good));
        until("both are known", || {
            let attached = &store.attached()[0];
            attached.pending == 0 && lock(&store.0.attached)[&two.theirs].files.len() == 2
        })
        .await;
        assert_eq!((store.size_of(&wrong), store.attached()[0].blobs), (None, 1));
        store.close().await;
    }
    // Damage that leaves no trace, so that only hashing could find it: a restart does not hash.
    let mtime = fs::metadata(two.file(&good)).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(two.file(&good)).unwrap();
    let mut flipped = bytes.to_vec();
    flipped[SIZE - 1] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(&file, &flipped, 0).unwrap();
    file.set_modified(mtime).unwrap();
    let Opened { store, mut events, .. } = two.open().await;
    soon(store.attach_lasting()).await.unwrap();
    assert_eq!(next(&mut events).await, held(good));
    // Reading does: what is right is given, what is not is withdrawn, and nobody's file was touched.
    let mut reader = store.reader(good);
    assert_eq!(soon(reader.read(0, 10)).await.unwrap(), bytes.slice(..10));
    assert!(matches!(read_from(&mut reader, 0).await, Err(ReadError::Damaged)));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: good });
    assert_eq!((store.size_of(&good), fs::read(two.file(&good)).unwrap() == flipped), (None, true));
    // Once it is another file it is looked at again, as is the one that was wrong.
    two.put(1);
    assert_eq!(next(&mut events).await, held(good));
    two.put(2);
    assert_eq!(next(&mut events).await, held(wrong));
    // Let go, it is as if it had never been there.
    assert!(soon(store.detach(&two.theirs)).await.unwrap());
    let mut lost = [next(&mut events).await, next(&mut events).await];
    lost.sort_by_key(|event| format!("{event:?}"));
    let mut expected = [good, wrong].map(|content| StoreEvent::Lost { content });
    expected.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(lost, expected);
    assert!(!soon(store.detach(&two.theirs)).await.unwrap() && store.list().is_empty());
    store.close().await;
    drop((store, events, reader));
    let Opened { store, .. } = two.open().await;
    soon(store.attach_lasting()).await.unwrap();
    assert!(store.attached().is_empty());
}

#[tokio::test]
async fn an_own_copy_comes_first_and_goes_where_that_is_wanted() {
    let two = Two::new();
    let Opened { store, mut events, .. } = two.open().await;
    let (content, bytes) = blob(1, SIZE);
    let (pinned, pinned_bytes) = blob(2, SIZE);
    store_blob(&store, content, &bytes).await;
    store_blob(&store, pinned, &pinned_bytes).await;
    soon(store.pin("user/a".parse().unwrap(), vec![pinned])).await.unwrap();
    two.put(1);
    two.put(2);
    soon(store.attach(&two.theirs, false, false)).await.unwrap();
    until("both are known", || store.attached()[0].blobs == 2).await;
    assert!(store.list().iter().all(|blob| blob.own));
    // Without its own copy the store still has the blob, and nobody is told anything.
    assert!(soon(store.remove(&content)).await.unwrap());
    assert!(!blob_path(&two.own(), &content).exists());
    assert!(read_blob(&store, content).await.unwrap() == bytes);
    assert!(events.try_recv().is_err());
    soon(store.detach(&two.theirs)).await.unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert_eq!(store.size_of(&pinned), Some(SIZE as u64));
    // With `reuse` it goes by itself, but for what is pinned.
    store_blob(&store, content, &bytes).await;
    soon(store.attach(&two.theirs, true, false)).await.unwrap();
    until("the own copy is gone", || !blob_path(&two.own(), &content).exists()).await;
    until("the other is known", || store.attached()[0].blobs == 2).await;
    assert!(blob_path(&two.own(), &pinned).exists());
    assert!(read_blob(&store, content).await.unwrap() == bytes && events.try_recv().is_err());
}

#[tokio::test]
async fn a_blob_on_its_way_that_turns_up_elsewhere_is_whole() {
    let two = Two::new();
    let Opened { store, mut events, .. } = two.open().await;
    soon(store.attach(&two.theirs, false, false)).await.unwrap();
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0]).await;
    two.put(1);
    assert_eq!(next(&mut events).await, held(content));
    assert!(matches!(soon(partial.write(1, piece(&bytes, 1), None)).await, Err(WriteError::Discarded)));
    assert!(read_blob(&store, content).await.unwrap() == bytes);
    assert_eq!(soon(store.complete(content)).await.unwrap(), SIZE as u64);
}

#[tokio::test]
async fn a_reader_of_a_blob_on_its_way_goes_on_where_it_turns_up_elsewhere() {
    let two = Two::new();
    let Opened { store, mut events, .. } = two.open().await;
    soon(store.attach(&two.theirs, false, false)).await.unwrap();
    let (content, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0, 1]).await;
    let mut reader = store.reader(content);
    let first = soon(reader.read(0, 1000)).await.unwrap();
    // Another that was given what is not of the blob must not go on with what is.
    let (wrong, wrong_bytes) = blob(2, SIZE);
    let lied = soon(store.begin(wrong, SIZE as u64)).await.unwrap();
    write(&lied, &bytes, [0]).await;
    let mut misled = store.reader(wrong);
    soon(misled.read(0, 1000)).await.unwrap();
    two.put(1);
    two.put(2);
    for _ in 0..2 {
        next(&mut events).await;
    }
    let mut got = first.to_vec();
    while got.len() < SIZE {
        got.extend(soon(reader.read(got.len() as u64, usize::MAX)).await.unwrap());
    }
    assert!(got == bytes);
    assert!(matches!(soon(misled.read(1000, 1000)).await, Err(ReadError::Discarded)));
    assert!(read_blob(&store, wrong).await.unwrap() == wrong_bytes);
}

#[tokio::test]
async fn what_vanishes_while_a_large_file_is_hashed_is_withdrawn_meanwhile() {
    let two = Two::new();
    let (content, Opened { store, mut events, .. }) = two.open_attached().await;
    // At the rate at which files are hashed this one takes longer than any deadline here.
    let (large, _) = blob(2, SIZE);
    fs::File::create(two.file(&large)).unwrap().set_len(8 << 30).unwrap();
    until("the large one is being hashed", || store.attached()[0].pending == 1).await;
    fs::remove_file(two.file(&content)).unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert_eq!(store.attached()[0].pending, 1);
    assert_eq!(store.list(), []);
}

#[tokio::test]
async fn what_vanishes_just_before_a_file_is_hashed_is_withdrawn() {
    let two = Two::new();
    let (content, Opened { store, mut events, .. }) = two.open_attached().await;
    // At the rate at which files are hashed this one takes less time than further changes are waited for.
    let (small, _) = blob(2, SIZE);
    fs::File::create(two.file(&small)).unwrap().set_len(4 << 20).unwrap();
    until("the small one is being hashed, or was on a busy machine", || {
        store.attached()[0].pending == 1 || lock(&store.0.attached)[&two.theirs].files.contains_key(&small)
    })
    .await;
    fs::remove_file(two.file(&content)).unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
}

#[tokio::test]
async fn what_is_attached_takes_no_room() {
    let two = Two::new();
    let quota = Quota { bytes: Some(1000), share_percent: 100 };
    let Opened { store, mut events, .. } =
        soon(Store::open(StoreOptions { quota, ..options(&two.own()) })).await.unwrap();
    let (content, _) = two.put(1);
    let parts = vec![(content, SIZE as u64), (blob(2, SIZE).0, 900)];
    assert!(soon(store.fits(parts.clone())).await.is_err());
    soon(store.attach(&two.theirs, false, false)).await.unwrap();
    assert_eq!(next(&mut events).await, held(content));
    soon(store.fits(parts.clone())).await.unwrap();
    drop(soon(store.reserve(parts)).await.unwrap());
    fs::remove_file(two.file(&content)).unwrap();
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert!(soon(store.fits(vec![(content, SIZE as u64)])).await.is_err());
}

#[tokio::test]
async fn what_cannot_be_attached_is_said() {
    let two = Two::new();
    let Opened { store, .. } = two.open().await;
    for (dir, message) in [
        (two.theirs.join("nowhere"), "cannot read"),
        (two.dir.path().to_owned(), "has no directory blobs/sha256"),
        (two.own(), "own store"),
    ] {
        let error = soon(store.attach(&dir, false, true)).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    for n in 0..crate::store::attached::ATTACHED_MAX {
        soon(store.attach_when_there(&two.dir.path().join(n.to_string()), false)).await.unwrap();
    }
    assert!(matches!(soon(store.attach(&two.theirs, false, true)).await, Err(AttachError::TooMany)));
    until("a problem is told", || store.attached().iter().all(|one| one.problem.is_some())).await;
}
