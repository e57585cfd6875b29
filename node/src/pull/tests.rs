use tokio::time::timeout;

use super::*;
use crate::{admin::testing::World, contents::DocumentError};

const IMAGE: &str = "docker.io/library/app:1";

fn pull(image: &str, platform: &str) -> Pull {
    let (image, platform) = (image.to_owned(), Some(platform.to_owned()));
    Pull::parse(&PullRequest { image, platform, background: false }).unwrap()
}

async fn run_in(world: World, pull: Pull, held: &[&str]) -> (Result<PullSummary, PullError>, Vec<PullEvent>) {
    let node = world.node();
    for text in held {
        node.store.put((*text).to_owned());
    }
    let (events, mut queue) = mpsc::channel(1000);
    let result = run(&node.mesh, &node.store, &node.counters, pull, &events).await;
    queue.close();
    let mut all = Vec::new();
    while let Some(event) = queue.recv().await {
        all.push(event);
    }
    (result, all)
}

#[tokio::test]
async fn one_platform_or_all_of_them() {
    for (platform, blobs) in [("linux/amd64", 5), ("all", 8)] {
        let mut world = World::new();
        let image = world.image(IMAGE);
        let (result, events) = run_in(world, pull("app:1", platform), &[]).await;
        let summary = result.unwrap();
        assert_eq!((summary.blobs, summary.digest), (blobs, image.index.to_string()), "{platform}");
        let landed = events.iter().filter(|event| matches!(event, PullEvent::Landed { .. })).count();
        assert_eq!(landed, blobs, "{platform}");
    }
}

#[tokio::test]
async fn what_is_held_is_neither_wanted_nor_counted_as_received() {
    let mut world = World::new();
    world.image(IMAGE);
    let (result, events) = run_in(world, pull(IMAGE, "linux/amd64"), &["shared layer"]).await;
    let summary = result.unwrap();
    assert_eq!(summary.bytes_held, "shared layer".len() as u64);
    assert_eq!(summary.bytes_from_peers, summary.bytes - summary.bytes_held);
    let held = events.iter().filter(|event| matches!(event, PullEvent::Blob { held: true, .. })).count();
    assert_eq!(held, 1);
}

#[tokio::test]
async fn a_digest_needs_no_tag_and_a_plain_manifest_no_platform() {
    let mut world = World::new();
    let image = world.image(IMAGE);
    world.tags.clear();
    let reference = format!("app@{}", image.arm64);
    let (result, _) = run_in(world, pull(&reference, "linux/s390x"), &[]).await;
    assert_eq!(result.unwrap().blobs, 4);
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let mut world = World::new();
    world.image(IMAGE);
    let (result, _) = run_in(world, pull(IMAGE, "linux/s390x"), &[]).await;
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "the image has nothing for linux/s390x; it has linux/amd64, linux/arm64");

    let (result, _) = run_in(
        World::new(),
        pull("app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "all"),
        &[],
    )
    .await;
    assert!(matches!(result, Err(PullError::Part { kind: ObjectKind::Manifest, error: WantError::NotFound, .. })));

    let mut world = World::new();
    let nonsense = world.elsewhere.put("{}");
    world.tags.insert(IMAGE.to_owned(), nonsense);
    let (result, _) = run_in(world, pull(IMAGE, "all"), &[]).await;
    let error = ContentsError::Manifest { content: nonsense, error: DocumentError::Neither };
    assert_eq!(result.unwrap_err().to_string(), error.to_string());
}

#[tokio::test]
async fn transfers_under_way_are_reported() {
    let mut world = World::new();
    let image = world.image(IMAGE);
    world.stuck = true;
    let node = world.node();
    // The manifests are here, the blobs never come.
    let mut other = World::new();
    other.image(IMAGE);
    for content in [image.index, image.amd64] {
        node.store.put(other.elsewhere.get(&content).unwrap());
    }
    let (events, mut queue) = mpsc::channel(1000);
    let work = run(&node.mesh, &node.store, &node.counters, pull(IMAGE, "linux/amd64"), &events);
    let progress = async {
        loop {
            if let Some(PullEvent::Progress { blobs }) = queue.recv().await {
                return blobs;
            }
        }
    };
    let blobs = tokio::select! {
        result = work => panic!("{result:?}"),
        blobs = timeout(Duration::from_secs(30), progress) => blobs.unwrap(),
    };
    assert_eq!((blobs[0].bytes, blobs[0].sources.as_slice()), (40, &["origin".to_owned()][..]));
}

#[tokio::test]
async fn a_pull_in_the_background_says_what_it_waits_for() {
    let mut world = World::new();
    world.image(IMAGE);
    let node = world.node();
    let (events, mut queue) = mpsc::channel(1000);
    let pull = Pull { urgency: Urgency::Background, ..pull(IMAGE, "linux/amd64") };
    let work = run(&node.mesh, &node.store, &node.counters, pull, &events);
    let progress = async {
        loop {
            if let Some(PullEvent::Progress { blobs }) = queue.recv().await {
                return blobs;
            }
        }
    };
    let blobs = tokio::select! {
        result = work => panic!("{result:?}"),
        blobs = timeout(Duration::from_secs(30), progress) => blobs.unwrap(),
    };
    assert_eq!(blobs[0].waits_for.as_deref(), Some("a window for background work, in 3 h 05 min"));
}
