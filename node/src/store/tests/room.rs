//! A store that is full: what goes, what stays, and what is said.

use super::*;

/// Room for three blobs of [`SIZE`] and a bit.
const QUOTA: u64 = 3 * SIZE as u64 + 1000;

async fn open_with_quota(dir: &Path, bytes: u64) -> Opened {
    let quota = Quota { bytes: Some(bytes), share_percent: 100 };
    soon(Store::open(StoreOptions { quota, ..options(dir) })).await.unwrap()
}

fn owner() -> PinOwner {
    "user/test".parse().unwrap()
}

/// Stores blobs 1 to 3, oldest first.
async fn full(store: &Store) -> [ContentId; 3] {
    for seed in 1..=3 {
        let (content, bytes) = blob(seed, SIZE);
        store_blob(store, content, &bytes).await;
        used_later_than_now(store).await;
    }
    [1, 2, 3].map(|seed| blob(seed, SIZE).0)
}

/// Waits until the clock by which uses are told apart has gone on.
async fn used_later_than_now(store: &Store) {
    let before = store.0.clock.now_ms();
    soon(async {
        while store.0.clock.now_ms() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn held(store: &Store, contents: &[ContentId]) -> Vec<bool> {
    contents.iter().map(|content| store.size_of(content).is_some()).collect()
}

fn bytes_on_disk(dir: &Path) -> u64 {
    let files = |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap());
    let blobs = files(dir.join("blobs/sha256")).map(|entry| entry.metadata().unwrap().len());
    let partials = files(dir.join("partial")).map(|entry| std::fs::metadata(entry.path().join("data")).unwrap().len());
    blobs.chain(partials).sum()
}

#[tokio::test]
async fn the_least_recently_used_blob_is_withdrawn_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut events, .. } = open_with_quota(dir.path(), QUOTA).await;
    let contents = full(&store).await;
    read_blob(&store, contents[0]).await.unwrap();
    let (new, bytes) = blob(4, SIZE);
    store_blob(&store, new, &bytes).await;
    assert_eq!(held(&store, &contents), [true, false, true]);
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: contents[1] });
    assert!(!blob_path(dir.path(), &contents[1]).exists());
    assert!(bytes_on_disk(dir.path()) <= QUOTA);
    // It stays so, and the uses are known after a restart: the third is the oldest now.
    store.close().await;
    drop((store, events));
    let Opened { store, inventory, .. } = open_with_quota(dir.path(), QUOTA).await;
    assert_eq!(inventory.held.len(), 3);
    let (newer, bytes) = blob(5, SIZE);
    store_blob(&store, newer, &bytes).await;
    assert_eq!(held(&store, &[contents[0], contents[2], new, newer]), [true, false, true, true]);
}

#[tokio::test]
async fn what_is_pinned_read_or_fetched_stays() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open_with_quota(dir.path(), QUOTA).await;
    let contents = full(&store).await;
    soon(store.pin(owner(), vec![contents[0]])).await.unwrap();
    let reader = store.reader(contents[1]);
    let wanted = store.hold(contents[2]);
    let (new, bytes) = blob(4, SIZE);
    match soon(store.insert(new, bytes.clone())).await {
        Err(error @ InsertError::Begin(BeginError::NoRoom(shortage))) => {
            assert_eq!((shortage.pinned, shortage.in_use), (SIZE as u64, 2 * SIZE as u64));
            assert!(error.to_string().contains("layermesh unpin"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(held(&store, &contents), [true; 3], "a refusal costs nothing");
    drop(reader);
    store_blob(&store, new, &bytes).await;
    assert_eq!(held(&store, &contents), [true, false, true]);
    drop(wanted);
    soon(store.unpin(owner())).await.unwrap();
    // A blob on its way is one of those that stay.
    let (fifth, _) = blob(5, SIZE);
    let begun = soon(store.begin(fifth, SIZE as u64)).await.unwrap();
    let (sixth, bytes) = blob(6, SIZE);
    store_blob(&store, sixth, &bytes).await;
    assert!(store.begun(&fifth).is_some());
    assert!(bytes_on_disk(dir.path()) <= QUOTA);
    drop(begun);
}

#[tokio::test]
async fn a_begun_blob_that_nobody_has_to_do_with_goes_in_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut events, .. } = open_with_quota(dir.path(), QUOTA).await;
    let (first, bytes) = blob(1, SIZE);
    let partial = soon(store.begin(first, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0]).await;
    soon(partial.sync()).await.unwrap();
    drop(partial);
    for seed in 2..=4 {
        let (content, bytes) = blob(seed, SIZE);
        store_blob(&store, content, &bytes).await;
    }
    assert!(store.begun(&first).is_none());
    let StoreEvent::PartlyHeld { content, pieces, .. } = next(&mut events).await else { panic!("it is gone") };
    assert!(content == first && pieces.is_empty());
    assert_eq!(store.totals().blobs, 3);
}

#[tokio::test]
async fn room_that_was_promised_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open_with_quota(dir.path(), QUOTA).await;
    let contents = full(&store).await;
    let part = |seed| (blob(seed, SIZE).0, SIZE as u64);
    let held_part = (contents[0], SIZE as u64);
    assert!(matches!(soon(store.reserve((4..8).map(part).collect())).await, Err(RoomError::Short(_))));
    let promise = soon(store.reserve(vec![held_part, part(4), part(5)])).await.unwrap();
    assert_eq!(held(&store, &contents), [true; 3], "nothing goes before it has to");
    // Neither the same room nor the part that is held can be had by another.
    assert!(matches!(soon(store.fits(vec![part(6)])).await, Err(RoomError::Short(_))));
    assert!(matches!(soon(store.begin(part(6).0, SIZE as u64)).await, Err(BeginError::NoRoom(_))));
    for seed in [4, 5] {
        let (content, bytes) = blob(seed, SIZE);
        store_blob(&store, content, &bytes).await;
    }
    assert_eq!(held(&store, &[contents[0], part(4).0, part(5).0]), [true; 3]);
    drop(promise);
    let (content, bytes) = blob(6, SIZE);
    store_blob(&store, content, &bytes).await;
}

#[tokio::test]
async fn a_quota_that_was_lowered_holds_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let contents = {
        let Opened { store, .. } = open_with_quota(dir.path(), QUOTA).await;
        let contents = full(&store).await;
        soon(store.pin(owner(), vec![contents[0]])).await.unwrap();
        store.close().await;
        contents
    };
    let Opened { store, inventory, .. } = open_with_quota(dir.path(), 2 * SIZE as u64).await;
    assert_eq!(inventory.held.len(), 2);
    assert_eq!(held(&store, &contents), [true, false, true]);
    assert!(bytes_on_disk(dir.path()) <= 2 * SIZE as u64);
    assert_eq!((store.totals().pinned_bytes, store.totals().quota), (SIZE as u64, 2 * SIZE as u64));
}

#[tokio::test]
async fn a_collection_says_what_goes_and_then_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open_with_quota(dir.path(), QUOTA).await;
    let contents = full(&store).await;
    soon(store.pin(owner(), vec![contents[0]])).await.unwrap();
    assert_eq!(soon(store.collect(None, true, false)).await.unwrap(), []);
    let aside = Paths { root: dir.path().to_owned() }.damaged(&contents[0]);
    std::fs::create_dir(aside.parent().unwrap()).unwrap();
    std::fs::write(&aside, "not it").unwrap();
    let collected = |content, bytes, kind| Collected { content, bytes, kind };
    let mut expected = vec![
        collected(contents[1], SIZE as u64, CollectedKind::Whole),
        collected(contents[2], SIZE as u64, CollectedKind::Whole),
        collected(contents[0], 6, CollectedKind::Damaged),
    ];
    let sort = |list: &mut Vec<Collected>| list.sort_by_key(|one| (one.bytes, one.content));
    sort(&mut expected);
    for dry_run in [true, false] {
        let mut found = soon(store.collect(Some(0), true, dry_run)).await.unwrap();
        sort(&mut found);
        assert_eq!(found, expected);
        assert_eq!(held(&store, &contents), [true, dry_run, dry_run]);
        assert_eq!(aside.exists(), dry_run);
    }
}

#[tokio::test]
async fn a_blob_that_is_gone_is_told_once_to_whoever_saw_it() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open(dir.path()).await;
    let (content, bytes) = blob(1, SIZE);
    store_blob(&store, content, &bytes).await;
    let mut reader = store.reader(content);
    assert_eq!(soon(reader.size()).await, SIZE as u64);
    // By hand, which asks nobody.
    assert!(soon(store.remove(&content)).await.unwrap());
    assert!(matches!(soon(reader.read(0, 10)).await, Err(ReadError::Gone)));
    let waiting = tokio::spawn(async move { reader.read(0, 10).await });
    store_blob(&store, content, &bytes).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap(), bytes.slice(..10));
}

#[tokio::test]
async fn a_verification_finds_what_nobody_has_read() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, mut events, .. } = open(dir.path()).await;
    let contents = full(&store).await;
    super::flip(&blob_path(dir.path(), &contents[1]), SIZE - 1);
    std::fs::remove_file(blob_path(dir.path(), &contents[2])).unwrap();
    let mut sound = Vec::new();
    for content in contents {
        sound.push(soon(store.verify(content, u64::MAX)).await.unwrap());
    }
    assert_eq!((sound, held(&store, &contents)), (vec![true, false, false], vec![true, false, false]));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: contents[1] });
    // The good pieces are worth keeping.
    assert!(matches!(next(&mut events).await, StoreEvent::PartlyHeld { pieces, .. } if pieces.count() == 4));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content: contents[2] });
    assert!(soon(store.verify(contents[1], 1)).await.unwrap(), "it is not held, so there is nothing wrong with it");
}
