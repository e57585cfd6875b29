//! The directory as other programs, and other versions of this one, see it.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use super::*;

const MANIFEST: &[u8] =
    br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#;

fn index(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn a_tag_is_in_the_index_while_its_manifest_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open(dir.path()).await;
    assert_eq!(index(dir.path()), json!({"schemaVersion": 2, "manifests": []}));
    let content = ContentId::of(Algorithm::Sha256, MANIFEST);
    soon(store.remember(binding("v1", content, 1))).await.unwrap();
    assert_eq!(index(dir.path())["manifests"], json!([]));
    store_blob(&store, content, &Bytes::from_static(MANIFEST)).await;
    let entry = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": content.to_string(),
        "size": MANIFEST.len(),
        "annotations": {"org.opencontainers.image.ref.name": "registry.example:5000/team/app:v1"},
    });
    assert_eq!(index(dir.path())["manifests"], json!([entry]));
    soon(store.remove(&content)).await.unwrap();
    assert_eq!(index(dir.path())["manifests"], json!([]));
    let layout: Value = serde_json::from_slice(&fs::read(dir.path().join("oci-layout")).unwrap()).unwrap();
    assert_eq!(layout, json!({"imageLayoutVersion": "1.0.0"}));
}

#[tokio::test]
async fn the_index_is_written_only_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { store, .. } = open(dir.path()).await;
    let content = ContentId::of(Algorithm::Sha256, MANIFEST);
    store_blob(&store, content, &Bytes::from_static(MANIFEST)).await;
    soon(store.remember(binding("v1", content, 1))).await.unwrap();
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.path().join("index.json")).unwrap());
    let before = inode();
    soon(store.remember(binding("v1", content, 1_000_000))).await.unwrap();
    store_blob(&store, blob(1, SIZE).0, &blob(1, SIZE).1).await;
    assert_eq!(inode(), before);
    drop(store);
    let opened = open(dir.path()).await;
    assert_eq!(opened.inventory.bindings, [binding("v1", content, 1_000_000)]);
    assert_eq!(inode(), before);
}

#[tokio::test]
async fn a_half_written_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let content = ContentId::of(Algorithm::Sha256, MANIFEST);
    {
        let Opened { store, .. } = open(dir.path()).await;
        store_blob(&store, content, &Bytes::from_static(MANIFEST)).await;
        soon(store.remember(binding("v1", content, 1))).await.unwrap();
    }
    let whole = fs::read(dir.path().join("index.json")).unwrap();
    for len in [0, whole.len() / 2] {
        fs::write(dir.path().join("index.json"), &whole[..len]).unwrap();
        drop(open(dir.path()).await);
        assert_eq!(fs::read(dir.path().join("index.json")).unwrap(), whole);
    }
}

#[tokio::test]
async fn a_store_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path()).await;
    match soon(Store::open(options(dir.path()))).await {
        Err(error @ OpenError::InUse { .. }) => {
            assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        }
        other => panic!("opened twice: {other:?}"),
    }
    drop(opened);
    open(dir.path()).await;
}

#[tokio::test]
async fn a_store_of_a_later_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).await);
    fs::write(dir.path().join("version"), "2\n").unwrap();
    let error = soon(Store::open(options(dir.path()))).await.unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { .. }));
    assert!(error.to_string().contains("update layermesh"), "{error}");
}

#[tokio::test]
async fn an_oci_layout_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(soon(Store::open(options(dir.path()))).await, Err(OpenError::OtherLayout(_))));
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let Opened { store, .. } = open(&root).await;
    store_blob(&store, ContentId::of(Algorithm::Sha256, MANIFEST), &Bytes::from_static(MANIFEST)).await;
    let partial = soon(store.begin(blob(1, SIZE).0, SIZE as u64)).await.unwrap();
    write(&partial, &blob(1, SIZE).1, [0]).await;
    soon(partial.sync()).await.unwrap();
    let mut seen = 0;
    let mut left = vec![root];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        seen += 1;
        if metadata.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 10);
}
