//! A device that has room for a third of its site's releases: never over its quota, never without what it must keep,
//! and every pull right.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use common::{
    Site,
    client::{Naming, ask, pull_image},
    content::{Dice, RawImage},
};
use layermesh::admin::{
    client::AdminClient,
    types::{PinRequest, PullEvent, PullRequest, UnpinRequest},
};
use reqwest::{Method, StatusCode};

const QUOTA: u64 = 20 << 20;
const RELEASES: usize = 12;
/// Bytes of a release: together three times the quota.
const RELEASE: usize = 5 << 20;

/// Looks all the time at how much blobs take on disk.
struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn over(store: &Path) -> Self {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (store, seen, end) = (store.to_owned(), Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // A look takes a while, in which one blob may go and another come: three do not all see both.
                let bytes = (0..3).map(|_| bytes_in(&store)).min().unwrap_or(0);
                seen.fetch_max(bytes, Ordering::Relaxed);
            }
        });
        Self { most, stop, thread: Some(thread) }
    }

    fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bytes of all blobs, whole and begun, each once. What goes away meanwhile takes nothing.
fn bytes_in(store: &Path) -> u64 {
    let entries = |dir: &str| std::fs::read_dir(store.join(dir)).into_iter().flatten().flatten();
    let mut sizes = BTreeMap::new();
    for entry in entries("partial") {
        if let Ok(metadata) = std::fs::metadata(entry.path().join("data")) {
            sizes.insert(entry.file_name().to_string_lossy().replace("sha256-", ""), metadata.len());
        }
    }
    for entry in entries("blobs/sha256") {
        if let Ok(metadata) = entry.metadata() {
            sizes.insert(entry.file_name().to_string_lossy().into_owned(), metadata.len());
        }
    }
    sizes.values().sum()
}

fn name(release: usize) -> String {
    format!("v{release}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_a_small_disk_pulls_every_release_of_its_site() {
    let site = Site::new().await;
    // A layer that all share, and two of their own.
    let lens = [1 << 20, RELEASE - (1 << 20) - 70_000, 70_000];
    let images: Vec<_> =
        (0..RELEASES).map(|n| RawImage::put(&site.registry, "app", &name(n), &format!("release {n}"), &lens)).collect();
    let large = site.node("large", &[]).await;
    for release in 0..RELEASES {
        pull_image(&large, Naming::Query, "app", &name(release)).await;
    }
    let quota = QUOTA.to_string();
    let flags = ["--quota", quota.as_str()];
    let small = site.node_with("small", &[large.address()], &flags).await;
    small.has_heard(&large.run().peer_id, RELEASES * 5).await;
    let watch = Watch::over(&small.data_dir.join("store"));
    let admin = AdminClient::new(&small.run().admin);

    // The current release stays, whatever comes.
    pull_image(&small, Naming::Query, "app", &name(0)).await;
    let pin = PinRequest { images: vec![format!("{}/app:v0", common::REGISTRY)], platform: None };
    assert_eq!(admin.pin(&pin).await.unwrap()[0].blobs, 5);
    let mut dice = Dice::new(7);
    for release in (1..RELEASES).chain((0..6).map(|_| dice.below(RELEASES as u64) as usize)) {
        let (pulled, bytes) = pull_image(&small, Naming::Query, "app", &name(release)).await;
        assert!(pulled.contains(&images[release].manifest) && bytes == images[release].size);
        assert!(watch.most() <= QUOTA, "{} bytes on disk", watch.most());
    }
    // Two at the same time: what one fetches does not cost the other what it fetches.
    let (a, b) =
        tokio::join!(pull_image(&small, Naming::Query, "app", "v3"), pull_image(&small, Naming::Path, "app", "v4"));
    assert_eq!((a.1, b.1), (images[3].size, images[4].size));
    small.has_stored(images[0].blobs.iter().map(|(content, _)| content)).await;
    assert_eq!(site.registry.bytes_sent(), images.iter().map(|image| image.size).sum::<u64>(), "one copy");

    // An image that has no room is refused before any of its layers comes.
    let huge = RawImage::put(&site.registry, "app", "huge", "huge", &[9 << 20, 9 << 20]);
    let answer = ask(Method::GET, &small.url("app/manifests/huge"), None).await.unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(answer.status == StatusCode::SERVICE_UNAVAILABLE && text.contains("the quota is 20.0 MiB"), "{text}");
    let request = PullRequest { image: format!("{}/app:huge", common::REGISTRY), platform: None, background: false };
    let mut events = admin.pull(&request).await.unwrap();
    let message = loop {
        match events.next().await.unwrap() {
            Some(PullEvent::Error { message }) => break message,
            Some(PullEvent::Done(_)) | None => panic!("it has no room"),
            Some(_) => {}
        }
    };
    assert!(message.starts_with("the image cannot be held: no room for 18.0 MiB"), "{message}");
    assert!(small.blobs().await.iter().all(|blob| blob.digest != huge.blobs[1].0.to_string()));
    // Once the pin is gone it has.
    let unpin = UnpinRequest { images: pin.images, owners: Vec::new() };
    admin.unpin(&unpin).await.unwrap();
    pull_image(&small, Naming::Query, "app", "huge").await;
    assert!(watch.most() <= QUOTA, "{} bytes on disk", watch.most());
    drop(watch);

    // What is used, and how much may be, is known after a restart, and a lower quota holds at once.
    small.stop().await;
    let small = site.node_with("small", &[large.address()], &["--quota", "10MiB"]).await;
    let status = small.status().await;
    assert!(status.store_bytes <= 10 << 20 && status.quota == 10 << 20, "{status:?}");
    pull_image(&small, Naming::Query, "app", &name(5)).await;
}
