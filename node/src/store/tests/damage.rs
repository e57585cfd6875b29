//! Bits that flip, files that are cut, lost or added.

use std::fs;

use super::*;

#[tokio::test]
async fn a_flipped_bit_is_never_read_and_only_its_piece_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    let Opened { store, mut events, .. } = open(dir.path()).await;
    store_blob(&store, content, &bytes).await;
    let mut reader = store.reader(content);
    let mut other = store.reader(content);
    soon(reader.read(0, 1)).await.unwrap();
    soon(other.read(0, 1)).await.unwrap();
    flip(&blob_path(dir.path(), &content), 2 * PIECE_LEN_MIN as usize + 5);

    assert!(matches!(read_from(&mut reader, 0).await, Err(ReadError::Damaged)));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    let StoreEvent::PartlyHeld { pieces, .. } = next(&mut events).await else { panic!("expected the rest") };
    assert_eq!(pieces.iter().collect::<Vec<_>>(), [0, 1, 3, 4]);
    assert_eq!(store.size_of(&content), None);
    assert!(matches!(read_from(&mut other, 0).await, Err(ReadError::Damaged)));

    let waiting = tokio::spawn(async move { read_from(&mut reader, 0).await });
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [2]).await;
    soon(store.complete(content)).await.unwrap();
    assert!(soon(waiting).await.unwrap().unwrap() == bytes);
    assert!(read_from(&mut other, 0).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_manifest_is_checked_against_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, 500);
    let Opened { store, mut events, .. } = open(dir.path()).await;
    store_blob(&store, content, &bytes).await;
    flip(&blob_path(dir.path(), &content), 499);
    assert!(matches!(soon(store.read_whole(&content, 500)).await, Err(ReadError::Damaged)));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert!(matches!(soon(store.read_whole(&content, 500)).await, Err(ReadError::NotHeld)));
    store_blob(&store, content, &bytes).await;
    assert_eq!(soon(store.read_whole(&content, 500)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_blob_that_vanishes_under_a_reader_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    let Opened { store, mut events, .. } = open(dir.path()).await;
    store_blob(&store, content, &bytes).await;
    fs::remove_file(blob_path(dir.path(), &content)).unwrap();
    assert!(matches!(read_blob(&store, content).await, Err(ReadError::Damaged)));
    assert_eq!(next(&mut events).await, StoreEvent::Lost { content });
    assert_eq!(store.size_of(&content), None);
}

async fn pieces_after(change: impl FnOnce(&Path)) -> Option<Vec<PieceIndex>> {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(dir.path()).await.store, content, &bytes).await;
    change(&blob_path(dir.path(), &content));
    let Opened { store, inventory, .. } = open(dir.path()).await;
    assert!(inventory.held.is_empty());
    let pieces = inventory.partial.first().map(|(_, _, pieces)| pieces.iter().collect());
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    let missing: Vec<_> = (0..5).filter(|&index| !partial.pieces().contains(index)).collect();
    write(&partial, &bytes, missing).await;
    soon(store.complete(content)).await.unwrap();
    assert!(read_blob(&store, content).await.unwrap() == bytes);
    pieces
}

#[tokio::test]
async fn a_file_that_was_cut_grown_or_lost_is_found_at_start() {
    let open = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap();
    let cut = pieces_after(|path| open(path).set_len(2 * u64::from(PIECE_LEN_MIN) + 1).unwrap()).await;
    assert_eq!(cut.unwrap(), [0, 1]);
    let grown = pieces_after(|path| open(path).set_len(SIZE as u64 + 1).unwrap()).await;
    assert_eq!(grown.unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(pieces_after(|path| open(path).set_len(0).unwrap()).await, None);
    assert_eq!(pieces_after(|path| fs::remove_file(path).unwrap()).await, None);
}

/// A partial with pieces 0 to 3 durable, changed while closed; returns it opened again.
async fn partial_after(change: impl FnOnce(&Path, &ContentId)) -> (tempfile::TempDir, Opened, ContentId, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    {
        let opened = open(dir.path()).await;
        let partial = soon(opened.store.begin(content, SIZE as u64)).await.unwrap();
        write(&partial, &bytes, 0..4).await;
        soon(partial.sync()).await.unwrap();
    }
    change(dir.path(), &content);
    let opened = open(dir.path()).await;
    (dir, opened, content, bytes)
}

#[tokio::test]
async fn a_damaged_piece_of_a_partial_is_dropped_for_good() {
    let at = 2 * PIECE_LEN_MIN as usize + 7;
    let (dir, opened, content, bytes) =
        partial_after(|dir, content| flip(&partial_path(dir, content, "data"), at)).await;
    let Opened { store, mut events, .. } = opened;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [4]).await;
    let StoreEvent::PartlyHeld { pieces, .. } = next(&mut events).await else { panic!("expected the rest") };
    assert!(!pieces.contains(2));
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::Incomplete { missing: 1 })));
    soon(partial.sync()).await.unwrap();
    drop((partial, store, events));

    let Opened { store, inventory, .. } = open(dir.path()).await;
    assert_eq!(inventory.partial[0].2.iter().collect::<Vec<_>>(), [0, 1, 3, 4]);
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [2]).await;
    soon(store.complete(content)).await.unwrap();
    assert!(read_blob(&store, content).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_reader_of_a_partial_waits_for_the_piece_that_it_found_damaged() {
    let (_dir, opened, content, bytes) =
        partial_after(|dir, content| flip(&partial_path(dir, content, "data"), 3)).await;
    let Opened { store, mut events, .. } = opened;
    let mut reader = store.reader(content);
    let waiting = tokio::spawn(async move { reader.read(0, 10).await });
    assert!(matches!(next(&mut events).await, StoreEvent::PartlyHeld { pieces, .. } if !pieces.contains(0)));
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0]).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap(), bytes.slice(..10));
}

#[tokio::test]
async fn a_piece_replaced_after_it_was_hashed_is_hashed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    let Opened { store, .. } = open(dir.path()).await;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, 0..4).await;
    // The digest has run over piece 1. It goes bad, a reader sees it, and a liar fills the gap.
    flip(&partial_path(dir.path(), &content, "data"), PIECE_LEN_MIN as usize);
    let mut reader = store.reader(content);
    let mut read = tokio::spawn(async move { reader.read(u64::from(PIECE_LEN_MIN), 10).await });
    let lie = Bytes::from(vec![7; PIECE_LEN_MIN as usize]);
    soon(async {
        while !partial.write(1, lie.clone(), None).await.unwrap().new {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(&mut read).await.unwrap().unwrap();
    write(&partial, &bytes, [4]).await;
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::WrongDigest { .. })));
}

#[tokio::test]
async fn flipped_bits_and_cuts_in_a_state_file_lose_no_more_than_they_hit() {
    let pieces = |opened: &Opened| opened.inventory.partial.first().map(|(_, _, p)| p.iter().collect::<Vec<_>>());
    let record = |slot: u64| journal::slot_offset(slot) as usize;
    let change = |change: fn(&mut Vec<u8>)| {
        move |dir: &Path, content: &ContentId| {
            let path = partial_path(dir, content, "state");
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
    };
    let at = record(1) + 20;
    let (dir, opened, content, bytes) =
        partial_after(|dir, content| flip(&partial_path(dir, content, "state"), at)).await;
    assert_eq!(pieces(&opened).unwrap(), [0, 2, 3]);
    // What is appended now has to be found again.
    let partial = soon(opened.store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [1, 4]).await;
    soon(partial.sync()).await.unwrap();
    drop((partial, opened));
    assert_eq!(pieces(&open(dir.path()).await).unwrap(), [0, 1, 2, 3, 4]);

    let (dir, opened, content, bytes) =
        partial_after(change(|bytes| bytes.truncate(journal::slot_offset(2) as usize + 30))).await;
    assert_eq!(pieces(&opened).unwrap(), [0, 1]);
    let partial = soon(opened.store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [4]).await;
    soon(partial.sync()).await.unwrap();
    drop((partial, opened));
    assert_eq!(pieces(&open(dir.path()).await).unwrap(), [0, 1, 4]);

    for broken in [|bytes: &mut Vec<u8>| bytes.truncate(60), |bytes: &mut Vec<u8>| bytes[14] ^= 1] {
        let (_dir, opened, content, bytes) = partial_after(change(broken)).await;
        assert_eq!(pieces(&opened), None);
        store_blob(&opened.store, content, &bytes).await;
    }
    let short = |dir: &Path, content: &ContentId| {
        let data = fs::OpenOptions::new().write(true).open(partial_path(dir, content, "data")).unwrap();
        data.set_len(3 * u64::from(PIECE_LEN_MIN)).unwrap();
    };
    assert_eq!(pieces(&partial_after(short).await.1).unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn lost_metadata_are_made_anew_from_the_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = Bytes::from_static(br#"{"schemaVersion":2,"config":{},"layers":[]}"#);
    let tagged = ContentId::of(Algorithm::Sha256, &manifest);
    let (content, bytes) = blob(1, SIZE);
    {
        let Opened { store, .. } = open(dir.path()).await;
        store_blob(&store, content, &bytes).await;
        store_blob(&store, tagged, &manifest).await;
        soon(store.remember(binding("v1", tagged, 5))).await.unwrap();
    }
    fs::remove_file(dir.path().join("meta.redb")).unwrap();
    let Opened { store, inventory, mut events } = open(dir.path()).await;
    assert!(inventory.held.is_empty());
    assert_eq!(inventory.bindings, [binding("v1", tagged, 0)]);
    assert!(matches!(next(&mut events).await, StoreEvent::Held { .. }));
    assert!(matches!(next(&mut events).await, StoreEvent::Held { .. }));
    assert!(read_blob(&store, content).await.unwrap() == bytes);
    assert!(fs::read_to_string(dir.path().join("index.json")).unwrap().contains(&tagged.to_string()));
}

#[tokio::test]
async fn a_flipped_bit_in_the_metadata_loses_no_blob() {
    let made = tempfile::tempdir().unwrap();
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(made.path()).await.store, content, &bytes).await;
    let meta = fs::read(made.path().join("meta.redb")).unwrap();
    // Places that hold something, and the first of each kind of page.
    let used: Vec<_> = (0..meta.len()).filter(|&at| meta[at] != 0).collect();
    for at in used.iter().step_by(used.len() / 60 + 1) {
        let dir = tempfile::tempdir().unwrap();
        super::crash::copy(made.path(), dir.path());
        flip(&dir.path().join("meta.redb"), *at);
        let Opened { store, mut events, .. } = open(dir.path()).await;
        if store.size_of(&content).is_none() {
            assert_eq!(next(&mut events).await, StoreEvent::Held { content, size: SIZE as u64 }, "byte {at}");
        }
        assert!(read_blob(&store, content).await.unwrap() == bytes, "byte {at}");
    }
}

#[tokio::test]
async fn files_that_others_left_are_taken_in_or_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    let (good, bytes) = blob(1, SIZE);
    let (bad, _) = blob(2, SIZE);
    fs::write(blob_path(dir.path(), &good), &bytes).unwrap();
    fs::write(blob_path(dir.path(), &bad), &bytes).unwrap();
    fs::write(dir.path().join("blobs/sha256/README"), "not a blob").unwrap();
    let Opened { store, inventory, mut events } = open(dir.path()).await;
    assert!(inventory.held.is_empty());
    assert_eq!(next(&mut events).await, StoreEvent::Held { content: good, size: SIZE as u64 });
    assert!(read_blob(&store, good).await.unwrap() == bytes);
    let aside = Paths { root: dir.path().to_owned() }.damaged(&bad);
    soon(async {
        while !aside.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(store.size_of(&bad), None);
    assert!(!blob_path(dir.path(), &bad).exists());
}
