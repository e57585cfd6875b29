//! A site where some blobs are only in another program's store: the others get them, whatever happens to the files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{
    Site,
    client::{Naming, ask, pull_image},
    content::{self, RawImage},
};
use futures::future::join_all;
use layermesh::{
    admin::{
        client::AdminClient,
        types::{AttachRequest, DetachRequest},
    },
    embedded::image::{ImageSpec, make_image},
};
use layermesh_proto::{Algorithm, ContentId};
use reqwest::{Method, StatusCode};

/// A directory as containerd's content store has it.
struct Theirs(PathBuf);

impl Theirs {
    fn new(site: &Site) -> Self {
        let dir = site.dir().join("content");
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::create_dir_all(dir.join("ingest")).unwrap();
        Self(dir)
    }

    fn path(&self, content: &ContentId) -> PathBuf {
        self.0.join("blobs/sha256").join(content.hex())
    }

    fn put(&self, bytes: &[u8]) -> ContentId {
        let content = ContentId::of(Algorithm::Sha256, bytes);
        let ingest = self.0.join("ingest/1");
        fs::write(&ingest, bytes).unwrap();
        fs::rename(ingest, self.path(&content)).unwrap();
        content
    }

    fn flag(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

async fn attach(node: &common::Node, dir: &Path, blobs: usize) {
    let admin = AdminClient::new(&node.run().admin);
    let request = AttachRequest { path: dir.to_string_lossy().into_owned(), reuse: false };
    admin.attach(&request).await.unwrap();
    node.wait_until("has hashed what is attached", async || {
        admin.attached().await.unwrap().iter().all(|one| one.blobs == blobs && one.pending == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_only_a_runtimes_store_has_reaches_the_site() {
    let site = Site::new().await;
    let spec = ImageSpec { size_bytes: 6 << 20, layers: 5, seed: 1, arm64: false };
    let image = make_image(&spec, site.dir()).unwrap();
    let digest = site.registry.add_image("app", "v1", &image).unwrap().to_string();
    let first = site.node("first", &[]).await;
    let (pulled, bytes) = pull_image(&first, Naming::Query, "app", "v1").await;
    // What a runtime would have made of that pull.
    let theirs = Theirs::new(&site);
    for content in &pulled {
        let own = first.data_dir.join("store/blobs/sha256").join(content.hex());
        theirs.put(&fs::read(own).unwrap());
    }
    first.stop().await;
    site.registry.set_online(false).await.unwrap();

    // Another device with that runtime, and nothing of its own.
    let holder = site.node("holder", &[]).await;
    attach(&holder, &theirs.0, pulled.len()).await;
    let device = site.node("device", &[holder.address()]).await;
    device.has_heard(&holder.run().peer_id, pulled.len()).await;
    assert_eq!(pull_image(&device, Naming::Query, "app", &digest).await, (pulled.clone(), bytes));
    let status = holder.status().await;
    assert_eq!((status.blobs, status.store_bytes, status.attached_bytes), (0, 0, bytes), "there is no second copy");
    assert_eq!(status.bytes_to_peers, bytes);
    // The runtime on that device has it from its node, too, and the node still knows all of it after a restart.
    holder.stop().await;
    let holder = site.node("holder", &[]).await;
    holder.wait_until("knows it all again", async || holder.status().await.attached_bytes == bytes).await;
    let answer = holder.get(&format!("app/manifests/{digest}")).await;
    assert!(answer.is(&digest.parse().unwrap()), "{}", answer.shown());
    let admin = AdminClient::new(&holder.run().admin);
    let left = admin.detach(&DetachRequest { path: theirs.flag() }).await.unwrap();
    assert!(left.is_empty() && holder.blobs().await.is_empty());
    let refused = admin.detach(&DetachRequest { path: theirs.flag() }).await.unwrap_err().to_string();
    assert!(refused.contains("is not attached"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_or_change_while_peers_read_them_fail_no_pull() {
    const BLOBS: usize = 6;
    let site = Site::new().await;
    let theirs = Theirs::new(&site);
    let all: Vec<_> = (0..BLOBS).map(|n| content::bytes(&format!("theirs {n}"), 3 << 20)).collect();
    let contents: Vec<_> = all.iter().map(|bytes| site.registry.put_blob(bytes.clone())).collect();
    for bytes in &all {
        theirs.put(bytes);
    }
    let holder = site.node_with("holder", &[], &["--lan-rate", "60mbit"]).await;
    attach(&holder, &theirs.0, BLOBS).await;
    let mut devices = Vec::new();
    for name in ["one", "two"] {
        let device = site.node(name, &[holder.address()]).await;
        device.has_heard(&holder.run().peer_id, BLOBS).await;
        devices.push(device);
    }
    let urls = devices.iter().flat_map(|device| contents.iter().map(|blob| device.url(&format!("app/blobs/{blob}"))));
    let pulls: Vec<_> =
        urls.map(|url| tokio::spawn(async move { ask(Method::GET, &url, None).await.unwrap() })).collect();
    holder.wait_until("gives what is attached", async || holder.status().await.bytes_to_peers > 2 << 20).await;
    for (n, blob) in contents.iter().enumerate() {
        let path = theirs.path(blob);
        match n % 3 {
            0 => fs::remove_file(path).unwrap(),
            // In place, which no well-behaved program does.
            1 => fs::write(path, b"something else").unwrap(),
            _ => {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], 1 << 20).unwrap();
            }
        }
    }
    for (pull, n) in join_all(pulls).await.into_iter().zip(0..) {
        let answer = pull.unwrap();
        assert!(answer.is(&contents[n % BLOBS]), "{}{}", answer.shown(), devices[n / BLOBS].last_words());
    }
    holder.wait_until("has withdrawn them", async || holder.blobs().await.is_empty()).await;
    // What is not held any more is not said to be.
    let late = site.node("late", &[holder.address()]).await;
    late.wait_until("knows the holder", async || late.peers().await.len() == 1).await;
    let answer = late.get(&format!("app/blobs/{}", contents[0])).await;
    assert!(answer.is(&contents[0]), "{}", answer.shown());
    drop(devices);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_store_may_come_later_and_its_wrong_files_are_nobodys() {
    let site = Site::new().await;
    let stick = site.dir().join("stick");
    let config = format!("[[store.attached]]\npath = {:?}\n", stick.to_string_lossy());
    fs::write(site.dir().join("layermesh.toml"), config).unwrap();
    let node = site.node("node", &[]).await;
    let admin = AdminClient::new(&node.run().admin);
    assert!(admin.attached().await.unwrap()[0].path.ends_with("stick"));
    let image = RawImage::put(&site.registry, "app", "v1", "stick", &[100_000]);
    fs::create_dir_all(stick.join("blobs/sha256")).unwrap();
    let bytes = content::bytes("stick/0", 100_000);
    let layer = ContentId::of(Algorithm::Sha256, &bytes);
    assert_eq!(image.blobs[1].0, layer);
    fs::write(stick.join("blobs/sha256").join(layer.hex()), &bytes).unwrap();
    let wrong = image.manifest;
    fs::write(stick.join("blobs/sha256").join(wrong.hex()), "not it").unwrap();
    node.wait_until("holds what is on the stick", async || node.status().await.attached_blobs == 1).await;
    assert!(node.get(&format!("app/blobs/{layer}")).await.is(&layer));
    assert_eq!(site.registry.bytes_sent(), 0);
    site.registry.set_online(false).await.unwrap();
    assert_ne!(node.get(&format!("app/manifests/{wrong}")).await.status, StatusCode::OK);
}
