//! Against a real store.

use futures::stream;
use layermesh_proto::Algorithm;
use tempfile::TempDir;

use super::*;
use crate::{
    mesh::Command,
    store::{Opened, StoreOptions},
};

async fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(dir.path().join("store"));
    options.free_bytes_min = 0;
    let Opened { store, events, .. } = Store::open(options).await.unwrap();
    // The store waits for whoever hears it.
    tokio::spawn(async move {
        let mut events = events;
        while events.recv().await.is_some() {}
    });
    (dir, store)
}

fn bytes(len: usize, seed: u8) -> Bytes {
    (0..len)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed).wrapping_add((n >> 8) as u8))
        .collect::<Vec<_>>()
        .into()
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId::of(Algorithm::Sha256, bytes)
}

/// A body of these bytes, in chunks of an odd length; it breaks off if told so.
fn body(bytes: &Bytes, breaks_off: bool) -> impl Stream<Item = Result<Bytes, String>> + Unpin + use<> {
    let mut chunks: Vec<_> = bytes.chunks(100_003).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    if breaks_off {
        chunks.push(Err("pulled out".to_owned()));
    }
    stream::iter(chunks)
}

#[tokio::test]
async fn a_blob_that_broke_off_goes_on_from_there() {
    let (_dir, store) = store().await;
    let blob = bytes(3_000_000, 1);
    let (content, size) = (id(&blob), blob.len() as u64);
    assert_eq!(needed_from(&store, &content), Some(0));
    let broken = receive(&store, content, size, 0, body(&blob.slice(..1_700_000), true), Keep::WhatCame).await;
    assert!(
        matches!(&broken, Err(ReceiveError::BrokeOff { got: 1_700_000, expected: 3_000_000, what }) if what == "pulled out")
    );
    let from = needed_from(&store, &content).unwrap();
    assert!(from > 1_000_000 && from <= 1_700_000, "{from}");
    let odd = receive(&store, content, size, from + 1, body(&blob, false), Keep::WhatCame).await;
    assert!(matches!(odd, Err(ReceiveError::NoPiece { .. })));
    receive(&store, content, size, from, body(&blob.slice(from as usize..), false), Keep::WhatCame).await.unwrap();
    assert_eq!((store.size_of(&content), needed_from(&store, &content)), (Some(size), None));
    // What is held needs nothing more.
    receive(&store, content, size, 0, body(&Bytes::new(), false), Keep::WhatCame).await.unwrap();
    let other = receive(&store, content, size + 1, 0, body(&blob, false), Keep::WhatCame).await;
    assert!(matches!(other, Err(ReceiveError::OtherSize { .. })));
}

#[tokio::test]
async fn wrong_bytes_leave_nothing_and_right_ones_stay() {
    let (_dir, store) = store().await;
    let (blob, wrong) = (bytes(1_000_000, 1), bytes(1_000_000, 2));
    let (content, size) = (id(&blob), blob.len() as u64);
    let refused = receive(&store, content, size, 0, body(&wrong, false), Keep::WhatCame).await;
    assert!(matches!(refused, Err(ReceiveError::WrongBytes { found }) if found == id(&wrong)));
    assert!(store.begun(&content).is_none(), "its room is free again");
    let long = receive(&store, content, size, 0, body(&bytes(1_000_001, 1), false), Keep::WhatCame).await;
    assert!(matches!(long, Err(ReceiveError::TooLong(1_000_000))));

    // Half came before, and right; then somebody brings other bytes.
    receive(&store, content, size, 0, body(&blob, false), Keep::WhatCame).await.unwrap();
    store.remove(&content).await.unwrap();
    receive(&store, content, size, 0, body(&blob.slice(..600_000), false), Keep::WhatCame).await.unwrap_err();
    let from = needed_from(&store, &content).unwrap();
    let suspect =
        receive(&store, content, size, from, body(&wrong.slice(from as usize..), false), Keep::WhatCame).await;
    assert!(matches!(suspect, Err(ReceiveError::Suspect)));
    let refused = compare(&store, content, size, body(&wrong, false)).await;
    assert!(matches!(refused, Err(ReceiveError::WrongBytes { .. })));
    assert_eq!(needed_from(&store, &content), Some(from), "what was right is still there");
    receive(&store, content, size, from, body(&blob.slice(from as usize..), false), Keep::WhatCame).await.unwrap();
}

#[tokio::test]
async fn older_pieces_that_are_wrong_are_found_by_comparing() {
    let (_dir, store) = store().await;
    let (blob, wrong) = (bytes(1_000_000, 1), bytes(1_000_000, 2));
    let (content, size) = (id(&blob), blob.len() as u64);
    receive(&store, content, size, 0, body(&wrong.slice(..600_000), false), Keep::WhatCame).await.unwrap_err();
    let from = needed_from(&store, &content).unwrap();
    assert!(from > 0);
    let suspect = receive(&store, content, size, from, body(&blob.slice(from as usize..), false), Keep::WhatCame).await;
    assert!(matches!(suspect, Err(ReceiveError::Suspect)));
    assert!(compare(&store, content, size, body(&blob, false)).await.unwrap() > 0);
    assert_eq!(needed_from(&store, &content), Some(0));
    receive(&store, content, size, 0, body(&blob, false), Keep::WhatCame).await.unwrap();
}

#[tokio::test]
async fn an_image_is_pinned_and_bound_once_all_of_it_is_here() {
    let (_dir, store) = store().await;
    let (mesh, mut commands) = Mesh::new();
    let (config, layer) = (Bytes::from_static(b"{}"), bytes(5000, 1));
    let descriptor =
        |bytes: &Bytes| format!(r#"{{"mediaType":"a/b","digest":"{}","size":{}}}"#, id(bytes), bytes.len());
    let manifest = Bytes::from(format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor(&config),
        descriptor(&layer)
    ));
    let root = id(&manifest);
    let request =
        |image: &str| SeedRequest { image: image.to_owned(), digest: root.to_string(), platform: None, bind: true };
    for blob in [&config, &manifest] {
        store.insert(id(blob), blob.clone()).await.unwrap();
    }
    keep(&store, "registry.test/app:1", vec![id(&layer), id(b"of an older one")]).await.unwrap();
    let lacking = finish(&store, &mesh, &request("registry.test/app:1")).await;
    assert!(matches!(lacking, Err(SeedError::Incomplete { count: 1, first }) if first == id(&layer)));
    assert!(store.is_pinned(&id(&layer)) && !store.is_pinned(&root), "kept before it comes");
    store.insert(id(&layer), layer.clone()).await.unwrap();
    let other = finish(&store, &mesh, &request(&format!("registry.test/app@{}", id(b"x")))).await;
    assert!(matches!(other, Err(SeedError::OtherDigest { .. })));

    // What a release speaks for is only kept.
    let unbound = SeedRequest { bind: false, ..request("registry.test/app:0") };
    finish(&store, &mesh, &unbound).await.unwrap();
    assert!(commands.try_recv().is_err());

    let summary = finish(&store, &mesh, &request("registry.test/app:1")).await.unwrap();
    assert_eq!((summary.blobs, summary.bytes), (3, manifest.len() as u64 + 5002));
    assert!([root, id(&config), id(&layer)].iter().all(|content| store.is_pinned(content)));
    assert!(!store.is_pinned(&id(b"of an older one")));
    let Some(Command::Bind(binding)) = commands.recv().await else { panic!("not bound") };
    assert_eq!((binding.content, binding.reference.to_string()), (root, "registry.test/app:1".to_owned()));
    assert!(binding.observed_unix_s > 1_700_000_000);
}
