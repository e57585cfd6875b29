//! What any store must do, however it is opened.

use super::*;

/// Runs every check of a store that `open` opens; called again, it opens the same one again.
async fn conforms<F, Fut>(open: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Opened>,
{
    let opened = open().await;
    assert!(opened.inventory.held.is_empty() && opened.inventory.partial.is_empty());
    holds_what_was_inserted(&opened.store).await;
    refuses_wrong_bytes(&opened.store).await;
    grows_under_readers(&opened.store).await;
    keeps_the_pieces_of_wrong_blobs(&opened.store).await;
    readers_of_dropped_pieces_get_no_mix(&opened.store).await;
    inserts_over_wrong_pieces(&opened.store).await;
    removes(&opened.store).await;
    pins(&opened.store).await;
    let left = leaves_a_partial(&opened.store).await;
    let list = sorted(&opened.store);
    opened.store.close().await;
    drop(opened);
    is_the_same_again(open().await, left, list).await;
}

fn sorted(store: &Store) -> Vec<(ContentId, u64)> {
    let mut list: Vec<_> = store.list().into_iter().map(|held| (held.content, held.size)).collect();
    list.sort();
    list
}

async fn holds_what_was_inserted(store: &Store) {
    for (seed, len) in [(1, 0), (2, 1), (3, PIECE_LEN_MIN as usize), (4, SIZE)] {
        let (content, bytes) = blob(seed, len);
        assert_eq!(store.size_of(&content), None);
        store_blob(store, content, &bytes).await;
        assert_eq!(store.size_of(&content), Some(len as u64));
        assert_eq!(read_blob(store, content).await.unwrap(), bytes);
        assert_eq!(soon(store.read_whole(&content, len as u64)).await.unwrap(), bytes);
        assert_eq!(soon(store.piece_map(&content)).await, PieceMap::of(&bytes));
        assert_eq!(soon(store.reader(content).size()).await, len as u64);
        // Again is fine.
        store_blob(store, content, &bytes).await;
        assert_eq!(soon(store.complete(content)).await.unwrap(), len as u64);
        assert!(matches!(soon(store.begin(content, len as u64)).await, Err(BeginError::Held { .. })));
    }
    let (content, bytes) = blob(4, SIZE);
    assert!(matches!(soon(store.read_whole(&content, 10)).await, Err(ReadError::TooLarge { .. })));
    assert!(matches!(soon(store.insert(content, bytes.slice(1..))).await, Err(InsertError::WrongDigest { .. })));
    let sha512 = ContentId::of(Algorithm::Sha512, &bytes);
    store_blob(store, sha512, &bytes).await;
    assert_eq!(read_blob(store, sha512).await.unwrap(), bytes);
    assert_eq!(store.totals().blobs, 5);
}

async fn refuses_wrong_bytes(store: &Store) {
    let (content, bytes) = blob(10, SIZE);
    assert!(matches!(soon(store.begin(content, u64::MAX)).await, Err(BeginError::TooLarge(_))));
    assert!(matches!(soon(store.read_whole(&content, 9)).await, Err(ReadError::NotHeld)));
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::NotBegun)));
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let first = piece(&bytes, 0);
    let write = |index, bytes: Bytes, expected| partial.write(index, bytes, expected);
    let other = Some(PieceHash::of(b"other"));
    assert!(matches!(soon(write(0, first.clone(), other)).await, Err(WriteError::WrongHash { index: 0, .. })));
    assert!(matches!(soon(write(0, first.slice(1..), None)).await, Err(WriteError::WrongLength { .. })));
    assert!(matches!(soon(write(4, first.clone(), None)).await, Err(WriteError::WrongLength { .. })));
    assert!(matches!(soon(write(5, Bytes::new(), None)).await, Err(WriteError::WrongLength { expected: 0, .. })));
    assert_eq!(soon(partial.sync()).await.unwrap(), Vec::<PieceIndex>::new());
    let hash = PieceHash::of(&first);
    assert_eq!(soon(write(0, first.clone(), Some(hash))).await.unwrap(), Written { new: true, hash });
    // What is there stays, and its hash is told.
    let again = soon(write(0, Bytes::from(vec![1; first.len()]), other)).await.unwrap();
    assert_eq!(again, Written { new: false, hash });
    assert_eq!(store.recall(&content), [(0, hash)]);
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::Incomplete { missing: 4 })));
    assert_eq!(soon(partial.sync()).await.unwrap(), [0]);
    assert!(
        matches!(soon(store.begin(content, 5)).await, Err(BeginError::OtherSize { known }) if known == SIZE as u64)
    );
    assert!(soon(store.remove(&content)).await.unwrap());
    assert!(matches!(soon(partial.sync()).await, Err(WriteError::Discarded)));
    // With nothing written, another size is a new beginning.
    soon(store.begin(content, 5)).await.unwrap();
    assert_eq!(soon(store.begin(content, 6)).await.unwrap().layout().blob_size(), 6);
    assert!(soon(store.remove(&content)).await.unwrap());
}

async fn grows_under_readers(store: &Store) {
    let (content, bytes) = blob(20, SIZE);
    let mut readers = Vec::new();
    for offset in [0, 100_000, 3 * u64::from(PIECE_LEN_MIN)] {
        let mut reader = store.reader(content);
        let expected = bytes.slice(offset as usize..);
        readers.push(tokio::spawn(async move {
            assert_eq!(reader.size().await, SIZE as u64);
            assert!(read_from(&mut reader, offset).await.unwrap() == expected);
        }));
    }
    tokio::task::yield_now().await;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    // Out of order, so that the digest has to catch up.
    for index in [3, 1, 4] {
        write(&partial, &bytes, [index]).await;
        assert_eq!(soon(partial.sync()).await.unwrap(), [index]);
    }
    assert_eq!(partial.pieces().iter().collect::<Vec<_>>(), [1, 3, 4]);
    assert_eq!(store.totals().partial_bytes, 2 * u64::from(PIECE_LEN_MIN) + 1000);
    let mut waits = store.reader(content);
    assert_eq!(soon(waits.read(u64::from(PIECE_LEN_MIN), 7)).await.unwrap(), piece(&bytes, 1).slice(..7));
    // Readable before it is durable, and never two at a time.
    let twin = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&twin, &bytes, [0]).await;
    assert_eq!(soon(waits.read(5, 7)).await.unwrap(), bytes.slice(5..12));
    write(&partial, &bytes, [2]).await;
    assert_eq!(soon(store.complete(content)).await.unwrap(), SIZE as u64);
    for reader in readers {
        soon(reader).await.unwrap();
    }
    assert!(read_from(&mut waits, 0).await.unwrap() == bytes);
    assert_eq!(soon(waits.read(SIZE as u64 + 9, 7)).await.unwrap(), Bytes::new());
}

async fn keeps_the_pieces_of_wrong_blobs(store: &Store) {
    let (content, bytes) = blob(30, SIZE);
    let (_, wrong) = blob(31, SIZE);
    assert_eq!(store.recall(&content), []);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &wrong, [1]).await;
    write(&partial, &bytes, [0, 2, 3, 4]).await;
    let hash = |bytes: &Bytes, index| (index, PieceHash::of(&piece(bytes, index)));
    for _ in 0..2 {
        assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::WrongDigest { .. })));
        assert_eq!(store.size_of(&content), None);
        let kept = [hash(&bytes, 0), hash(&wrong, 1), hash(&bytes, 2), hash(&bytes, 3), hash(&bytes, 4)];
        assert_eq!(store.recall(&content), kept);
    }
    soon(partial.sync()).await.unwrap();
    assert!(store.drop_pieces(&content, &[1, 77]).is_some());
    assert!(store.drop_pieces(&content, &[1]).is_none(), "it is gone");
    assert_eq!((partial.pieces().count(), partial.hash_of(1), partial.first_missing(0)), (4, None, 1));
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::Incomplete { missing: 1 })));
    let mut reader = store.reader(content);
    let waiting = tokio::spawn(async move { reader.read(u64::from(PIECE_LEN_MIN), 10).await.unwrap() });
    write(&partial, &bytes, [1]).await;
    assert_eq!(soon(waiting).await.unwrap(), piece(&bytes, 1).slice(..10));
    soon(store.complete(content)).await.unwrap();
    assert!(read_blob(store, content).await.unwrap() == bytes);
    assert_eq!((store.recall(&content), store.drop_pieces(&content, &[0]).is_some()), (vec![], false));
}

async fn readers_of_dropped_pieces_get_no_mix(store: &Store) {
    let (content, bytes) = blob(32, SIZE);
    let (_, wrong) = blob(33, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let (mut misled, mut right) = (store.reader(content), store.reader(content));
    let (mut untouched, mut late) = (store.reader(content), store.reader(content));
    write(&partial, &wrong, [0]).await;
    write(&partial, &bytes, 1..5).await;
    // It is verified against what was recorded, and that is all that can be known yet.
    assert_eq!(soon(misled.read(0, 10)).await.unwrap(), wrong.slice(..10));
    let second = u64::from(PIECE_LEN_MIN);
    assert_eq!(soon(right.read(second, 10)).await.unwrap(), piece(&bytes, 1).slice(..10));
    assert_eq!(soon(untouched.size()).await, SIZE as u64);

    // Not even what was read already goes on while a piece of which bytes were given is gone.
    store.drop_pieces(&content, &[0, 1]).unwrap();
    for reader in [&mut misled, &mut right] {
        let next = reader.read(10, 10);
        assert!(futures::poll!(std::pin::pin!(next)).is_pending());
    }
    write(&partial, &bytes, [0, 1]).await;
    for _ in 0..2 {
        assert!(matches!(soon(misled.read(10, 10)).await, Err(ReadError::Discarded)));
    }
    // The same piece again is no other, and who comes later knows of no other.
    assert!(read_from(&mut right, second).await.unwrap() == bytes.slice(second as usize..));
    assert_eq!(soon(late.read(0, 10)).await.unwrap(), bytes.slice(..10));
    soon(store.complete(content)).await.unwrap();
    assert!(matches!(soon(misled.read(10, 10)).await, Err(ReadError::Discarded)));
    for mut reader in [untouched, late, right] {
        assert!(read_from(&mut reader, 0).await.unwrap() == bytes);
    }
}

async fn inserts_over_wrong_pieces(store: &Store) {
    let (content, bytes) = blob(34, SIZE);
    let (_, wrong) = blob(35, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &wrong, 0..5).await;
    let (mut misled, mut untouched) = (store.reader(content), store.reader(content));
    soon(misled.read(0, 10)).await.unwrap();
    let waiting = tokio::spawn(async move {
        untouched.size().await;
        untouched
    });
    store_blob(store, content, &bytes).await;
    assert!(read_from(&mut soon(waiting).await.unwrap(), 0).await.unwrap() == bytes);
    assert!(matches!(soon(misled.read(10, 10)).await, Err(ReadError::Discarded)));
    // So is a reader of a partial that is removed.
    let (content, bytes) = blob(36, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0]).await;
    let mut reader = store.reader(content);
    soon(reader.read(0, 10)).await.unwrap();
    assert!(soon(store.remove(&content)).await.unwrap());
    assert!(matches!(soon(partial.write(1, piece(&bytes, 1), None)).await, Err(WriteError::Discarded)));
    assert!(matches!(soon(reader.read(10, 10)).await, Err(ReadError::Discarded)));
}

async fn removes(store: &Store) {
    let (content, bytes) = blob(40, SIZE);
    assert!(!soon(store.remove(&content)).await.unwrap());
    store_blob(store, content, &bytes).await;
    let mut reader = store.reader(content);
    soon(reader.read(0, 1)).await.unwrap();
    assert!(soon(store.remove(&content)).await.unwrap());
    assert_eq!(store.size_of(&content), None);
    assert!(soon(store.piece_map(&content)).await.is_none());
    assert!(read_from(&mut reader, 0).await.unwrap() == bytes, "what is open stays readable");
}

/// Leaves blobs 60 and 61 pinned by one owner and 61 by another; none of them is held.
async fn pins(store: &Store) {
    let owner = |text: &str| text.parse::<PinOwner>().unwrap();
    let content = |n| blob(n, 10).0;
    soon(store.pin(owner("seed"), vec![content(60)])).await.unwrap();
    soon(store.pin(owner("seed"), vec![content(61), content(61)])).await.unwrap();
    soon(store.replace_pins(owner("release/a/1"), vec![content(62)])).await.unwrap();
    soon(store.replace_pins(owner("release/a/1"), vec![content(61)])).await.unwrap();
    soon(store.pin(owner("user"), vec![content(60), content(63)])).await.unwrap();
    assert_eq!(soon(store.unpin(owner("user"))).await.unwrap(), 2);
    assert_eq!(soon(store.unpin(owner("user"))).await.unwrap(), 0);
    assert_eq!([60, 61, 62, 63].map(|n| store.is_pinned(&content(n))), [true, true, false, false]);
    let many = (0..=pins::PINS_MAX as u32).map(|n| ContentId::of(Algorithm::Sha256, &n.to_le_bytes())).collect();
    assert!(matches!(soon(store.pin(owner("user"), many)).await, Err(PinError::TooMany(_))));
    has_pins(store);
}

fn has_pins(store: &Store) {
    let mut seeded = vec![blob(60, 10).0, blob(61, 10).0];
    seeded.sort();
    let release = ("release/a/1".parse().unwrap(), vec![blob(61, 10).0]);
    assert_eq!(store.pins(), [release, ("seed".parse().unwrap(), seeded)]);
}

/// Leaves a partial with pieces 0, 1 and 3, and a binding of which the last word counts.
async fn leaves_a_partial(store: &Store) -> (ContentId, Bytes) {
    let (content, bytes) = blob(50, SIZE);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0, 1]).await;
    soon(partial.sync()).await.unwrap();
    write(&partial, &bytes, [3]).await;
    soon(store.remember(binding("v1", blob(51, 9).0, 2000))).await.unwrap();
    soon(store.remember(binding("v1", content, 1000))).await.unwrap();
    (content, bytes)
}

async fn is_the_same_again(opened: Opened, left: (ContentId, Bytes), list: Vec<(ContentId, u64)>) {
    let (content, bytes) = left;
    let Opened { store, mut inventory, .. } = opened;
    inventory.held.sort();
    assert_eq!(inventory.held, list);
    assert_eq!(sorted(&store), list);
    has_pins(&store);
    assert_eq!(inventory.bindings, [binding("v1", content, 1000)]);
    let [(partial, size, pieces)] = &inventory.partial[..] else { panic!("one partial was left") };
    assert_eq!((*partial, *size, pieces.iter().collect::<Vec<_>>()), (content, SIZE as u64, vec![0, 1, 3]));
    let mut reader = store.reader(content);
    assert_eq!(soon(reader.read(10, 10)).await.unwrap(), bytes.slice(10..20));
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [2, 4]).await;
    soon(store.complete(content)).await.unwrap();
    assert!(read_from(&mut reader, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn the_disk_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(|| open(dir.path())).await;
}

#[tokio::test]
async fn a_store_with_a_quota_beside_an_attached_one_conforms() {
    let (dir, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(theirs.path().join("blobs/sha256")).unwrap();
    let options = StoreOptions { quota: Quota { bytes: Some(64 << 20), share_percent: 100 }, ..options(dir.path()) };
    conforms(async || {
        let opened = soon(Store::open(options.clone())).await.unwrap();
        soon(opened.store.attach(theirs.path(), true, true)).await.unwrap();
        opened
    })
    .await;
}
