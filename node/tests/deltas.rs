//! Layers that are made of older ones: real nodes, a registry with two images and the patches between them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{
    REGISTRY, Site,
    client::{Naming, pull_image},
    content::bytes,
};
use layermesh::{
    admin::client::AdminClient,
    delta::{
        artifact::{self, Entry},
        make::{Options, make},
    },
    embedded::{Registry, image::MANIFEST_MEDIA_TYPE},
    release::{
        Release, ReleasedImage, ReleasedPlatform,
        keys::KeyRing,
        publisher::{InitOptions, Lifetimes, Publisher},
    },
};
use layermesh_proto::{
    Algorithm, ContentId, Repository,
    gzip::{Header, encode},
};
use serde_json::json;

const REPOSITORY: &str = "shop/till";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Bytes of a layer's tar.
const TAR_LEN: usize = 3 << 20;
/// Otherwise it would be faster to fetch layers from a registry on the same machine than to make them.
const METERED: [&str; 1] = ["--uplink-metered"];

/// A tar, or so: noise with a word of each version in some places.
fn tar(version: &str) -> Vec<u8> {
    let mut tar = bytes("tar", TAR_LEN).to_vec();
    for at in [1000, 700_000, 2_900_000] {
        tar[at..at + version.len()].copy_from_slice(version.as_bytes());
    }
    tar
}

/// A tar as docker compresses it.
fn layer(tar: &[u8]) -> Bytes {
    encode("go-gzip/1:6".parse().unwrap(), &Header { os: 255, ..Header::default() }, tar).into()
}

/// An image with one layer and a configuration that names its tar. Returns manifest, its length, and layer.
fn put_image(registry: &Registry, tag: &str, tar: &[u8]) -> (ContentId, u64, ContentId) {
    let diff_id = ContentId::of(Algorithm::Sha256, tar).to_string();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}});
    let put = |media_type: &str, bytes: Bytes| {
        let size = bytes.len();
        json!({"mediaType": media_type, "digest": registry.put_blob(bytes).to_string(), "size": size})
    };
    let blob = layer(tar);
    let id = ContentId::of(Algorithm::Sha256, &blob);
    let manifest = Bytes::from(
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE,
            "config": put("application/vnd.oci.image.config.v1+json", config.to_string().into()),
            "layers": [put("application/vnd.oci.image.layer.v1.tar+gzip", blob)],
        })
        .to_string(),
    );
    let len = manifest.len() as u64;
    (registry.put_manifest(REPOSITORY, Some(tag), manifest, MANIFEST_MEDIA_TYPE), len, id)
}

/// Makes a patch and puts it into the registry. `named`: it names the old blob.
fn make_patch(registry: &Registry, old: &[u8], new: &[u8], named: bool) -> Entry {
    let (old_blob, new_blob) = (layer(old), layer(new));
    let made = make(&old_blob[..], &new_blob[..], &Options::default(), |_, _| ()).unwrap();
    let patch = registry.put_blob(made.patch.clone().into());
    let base_blobs = named.then(|| ContentId::of(Algorithm::Sha256, &old_blob)).into_iter().collect();
    Entry {
        patch,
        patch_size: made.patch.len() as u64,
        base: made.header.base,
        base_blobs,
        base_len: made.header.base_len,
        target: ContentId::of(Algorithm::Sha256, &new_blob),
        target_size: new_blob.len() as u64,
        target_len: new.len() as u64,
        encoder: made.header.recipe.encoder.to_string(),
    }
}

/// Puts a patch and its artifact beside an image, as `delta publish` does.
fn put_patch(registry: &Registry, old: &[u8], new: &[u8], image: (ContentId, u64), named: bool) -> ContentId {
    let entry = make_patch(registry, old, new, named);
    put_artifact(registry, image, &entry);
    entry.patch
}

/// An artifact that nothing lists. Returns it, and its length.
fn put_unlisted(registry: &Registry, (subject, len): (ContentId, u64), entry: &Entry) -> (ContentId, u64) {
    let manifest =
        artifact::manifest("till:1", (MANIFEST_MEDIA_TYPE, &subject, len), std::slice::from_ref(entry)).unwrap();
    let size = manifest.len() as u64;
    (registry.put_manifest(REPOSITORY, None, manifest.into(), MANIFEST_MEDIA_TYPE), size)
}

fn put_artifact(registry: &Registry, (subject, len): (ContentId, u64), entry: &Entry) {
    let (artifact, size) = put_unlisted(registry, (subject, len), entry);
    let index = artifact::indexed(None, &artifact, size).unwrap();
    let repository = Repository::new(REGISTRY, REPOSITORY).unwrap();
    let tag = artifact::tag_of(&repository, &subject).unwrap();
    registry.put_manifest(REPOSITORY, Some(tag.tag()), index.into(), INDEX_TYPE);
}

fn sent(site: &Site, blob: &ContentId) -> u64 {
    site.registry.bytes_sent_under(&format!("/v2/{REPOSITORY}/blobs/{blob}"))
}

/// Devices that hold the old image pull the new one: its layer crosses no uplink, and the patch does once.
async fn the_patch_alone_crosses(named: bool) {
    let site = Site::new().await;
    let (old, new) = (tar("version one"), tar("version two"));
    put_image(&site.registry, "1", &old);
    let (manifest, len, layer) = put_image(&site.registry, "2", &new);
    let patch = put_patch(&site.registry, &old, &new, (manifest, len), named);
    let a = site.node_with("a", &[], &METERED).await;
    let b = site.node_with("b", &[a.address()], &METERED).await;
    for node in [&a, &b] {
        pull_image(node, Naming::Query, REPOSITORY, "1").await;
    }
    let (pulled, _) =
        tokio::join!(pull_image(&a, Naming::Query, REPOSITORY, "2"), pull_image(&b, Naming::Path, REPOSITORY, "2"),);
    assert!(pulled.0.contains(&layer));
    assert_eq!(sent(&site, &layer), 0, "{}{}", a.last_words(), b.last_words());
    let crossed = sent(&site, &patch);
    assert!((1..10_000).contains(&crossed), "{crossed}");
    let asked = site.registry.requests();
    let asked = asked.iter().filter(|request| request.path.contains("manifests/sha256-")).count();
    assert!((1..=2).contains(&asked), "{asked}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_made_of_an_older_one_and_its_patch_crosses_once() {
    the_patch_alone_crosses(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_a_made_layer_from_the_site() {
    let site = Site::new().await;
    let (old, new) = (tar("version one"), tar("version two"));
    put_image(&site.registry, "1", &old);
    let (manifest, len, layer) = put_image(&site.registry, "2", &new);
    put_patch(&site.registry, &old, &new, (manifest, len), true);
    let a = site.node_with("a", &[], &METERED).await;
    // The client has read the last piece, and wants nothing any more, before the layer is checked and in its place.
    pull_image(&a, Naming::Query, REPOSITORY, "1").await;
    pull_image(&a, Naming::Query, REPOSITORY, "2").await;
    assert_eq!(sent(&site, &layer), 0, "{}", a.last_words());
    site.registry.set_online(false).await.unwrap();
    let late = site.node_with("late", &[a.address()], &METERED).await;
    late.wait_until("knows what the other has", async || late.peers().await.iter().any(|peer| peer.blobs > 0)).await;
    let pulled = pull_image(&late, Naming::Query, REPOSITORY, "2").await;
    assert!(pulled.0.contains(&layer), "{}", late.last_words());
    a.stop().await;
    late.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_layer_is_found_by_its_tar_too() {
    the_patch_alone_crosses(false).await;
}

/// A device is given a patch that makes something else, and gets the layer whole. Says how often a client had to ask.
async fn got_past_a_wrong_patch(forge: impl FnOnce(Vec<u8>, ContentId) -> Vec<u8>) -> usize {
    let site = Site::new().await;
    let (old, new, other) = (tar("version one"), tar("version two"), tar("version six"));
    put_image(&site.registry, "1", &old);
    let (manifest, len, id) = put_image(&site.registry, "2", &new);
    let made = make(&layer(&old)[..], &layer(&other)[..], &Options::default(), |_, _| ()).unwrap();
    let bytes = forge(made.patch, id);
    let patch_size = bytes.len() as u64;
    let patch = site.registry.put_blob(bytes.into());
    let entry = Entry {
        patch,
        patch_size,
        base: made.header.base,
        base_blobs: Vec::new(),
        base_len: made.header.base_len,
        target: id,
        target_size: layer(&new).len() as u64,
        target_len: new.len() as u64,
        encoder: made.header.recipe.encoder.to_string(),
    };
    put_artifact(&site.registry, (manifest, len), &entry);
    let node = site.node_with("a", &[], &METERED).await;
    pull_image(&node, Naming::Query, REPOSITORY, "1").await;
    node.get(&format!("{REPOSITORY}/manifests/2")).await;
    let mut asked = 0;
    loop {
        asked += 1;
        let answer = node.get(&format!("{REPOSITORY}/blobs/{id}")).await;
        if answer.is(&id) {
            break;
        }
        assert!(answer.cut.is_some() && asked < 3, "{}{}", answer.shown(), node.last_words());
    }
    assert_eq!(sent(&site, &patch), patch_size);
    assert_eq!(sent(&site, &id), layer(&new).len() as u64, "{}", node.last_words());
    node.stop().await;
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_says_that_it_makes_something_else_is_left_alone() {
    assert_eq!(got_past_a_wrong_patch(|patch, _| patch).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_lies_cuts_a_client_off_once_and_the_layer_comes_whole() {
    let asked = got_past_a_wrong_patch(|patch, blob| {
        let (header, len) = layermesh_proto::patch::Header::read(&patch).unwrap().unwrap();
        let mut forged = Vec::new();
        layermesh_proto::patch::Header { blob, ..header }.put(&mut forged);
        forged.extend_from_slice(&patch[len..]);
        forged
    });
    assert!(asked.await <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_leaves_patches_alone() {
    let site = Site::new().await;
    let (old, new) = (tar("version one"), tar("version two"));
    put_image(&site.registry, "1", &old);
    let (manifest, len, layer) = put_image(&site.registry, "2", &new);
    let patch = put_patch(&site.registry, &old, &new, (manifest, len), true);
    let node = site.node_with("a", &[], &[METERED[0], "--deltas", "off"]).await;
    pull_image(&node, Naming::Query, REPOSITORY, "1").await;
    pull_image(&node, Naming::Query, REPOSITORY, "2").await;
    assert_eq!(sent(&site, &patch), 0);
    assert!(sent(&site, &layer) > 0);
    let asked = site.registry.requests();
    assert!(asked.iter().all(|request| !request.path.contains("sha256-")), "it does not ask for them either");
    node.stop().await;
}

/// A release of one image that names an artifact with patches to it, and the device's way to trust it.
async fn signed_release(site: &Site, (manifest, len): (ContentId, u64), patches: ContentId) -> (Publisher, String) {
    let dir = site.dir().join("releases");
    let publisher = Publisher::init(&dir, InitOptions::default(), now()).await.unwrap();
    let platform =
        ReleasedPlatform { platform: None, digest: manifest.to_string(), bytes: 1, patches: vec![patches.to_string()] };
    let image = ReleasedImage {
        name: format!("{REGISTRY}/{REPOSITORY}"),
        tag: Some("2".to_owned()),
        digest: manifest.to_string(),
        media_type: MANIFEST_MEDIA_TYPE.to_owned(),
        size: len,
        platforms: vec![platform],
    };
    let release = Release {
        channel: "stable".parse().unwrap(),
        version: "2".parse().unwrap(),
        number: publisher.next_number(),
        published_unix_s: now(),
        images: vec![image],
    };
    let keys = KeyRing::read(&[dir.join("keys")]).unwrap();
    let publisher = publisher.publish(release, &keys, Lifetimes::default(), now()).await.unwrap();
    (publisher, dir.join("root.json").to_string_lossy().into_owned())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_that_a_release_names_are_taken_ahead_of_time_though_no_registry_lists_them() {
    let site = Site::new().await;
    let (old, new) = (tar("version one"), tar("version two"));
    put_image(&site.registry, "1", &old);
    let (manifest, len, layer) = put_image(&site.registry, "2", &new);
    let entry = make_patch(&site.registry, &old, &new, true);
    let (artifact, _) = put_unlisted(&site.registry, (manifest, len), &entry);
    let (publisher, root) = signed_release(&site, (manifest, len), artifact).await;
    let flags = ["--releases-root", &root, "--channel", "stable", "--uplink-window", "mon-sun"];
    let flags = [&METERED[..], &flags[..]].concat();
    let a = site.node_with("a", &[], &flags).await;
    let b = site.node_with("b", &[a.address()], &flags).await;
    for node in [&a, &b] {
        pull_image(node, Naming::Query, REPOSITORY, "1").await;
    }
    AdminClient::new(&a.run().admin).hand_releases(publisher.set()).await.unwrap();
    for node in [&a, &b] {
        node.wait_until("holds the release", async || {
            let known = AdminClient::new(&node.run().admin).releases().await.unwrap().node;
            known.releases.iter().any(|release| release.version == "2" && release.complete)
        })
        .await;
    }
    assert_eq!(sent(&site, &layer), 0, "{}{}", a.last_words(), b.last_words());
    let crossed = sent(&site, &entry.patch);
    assert!((1..10_000).contains(&crossed), "{crossed}");
    let asked = site.registry.requests();
    assert!(asked.iter().all(|request| !request.path.contains("manifests/sha256-")), "nobody has to be asked");
    // They install it with the registry gone.
    site.registry.set_online(false).await.unwrap();
    for node in [&a, &b] {
        assert!(pull_image(node, Naming::Path, REPOSITORY, "2").await.0.contains(&layer));
    }
    a.stop().await;
    b.stop().await;
}
