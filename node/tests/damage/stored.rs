//! Damage in the store.

use std::{fs, path::Path};

use bytes::Bytes;
use futures::future::join_all;
use layermesh_proto::{Algorithm, ContentId};

use crate::{
    PIECE, SIZE,
    common::{
        Node, Site,
        client::{Naming, ask, pull_image},
        content::{self, RawImage},
        disk::{self, Disk},
    },
};

/// Puts blobs into the registry and lets a node pull them.
pub(crate) async fn pulled(site: &Site, node: &Node, seeds: &[&str]) -> Vec<(ContentId, Bytes)> {
    let mut blobs = Vec::new();
    for seed in seeds {
        let bytes = content::bytes(seed, SIZE);
        let blob = site.registry.put_blob(bytes.clone());
        node.pull_blob("app", &blob).await;
        blobs.push((blob, bytes));
    }
    blobs
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_blob_with_a_flipped_bit_one_piece_is_fetched_again() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let disk = Disk::of(&node.data_dir);
    let blobs = pulled(&site, &node, &["first byte", "middle", "last byte"]).await;
    for ((blob, _), at) in blobs.iter().zip([0, SIZE as u64 / 2 + 77, SIZE as u64 - 1]) {
        disk::flip_bit(&disk.blob(blob), at);
        let before = site.registry.bytes_sent();
        node.pull_blob("app", blob).await;
        assert_eq!(site.registry.bytes_sent() - before, PIECE, "bit of byte {at}{}", node.last_words());
    }
    // From now on it is whole again.
    site.registry.set_online(false).await.unwrap();
    for (blob, _) in &blobs {
        node.pull_blob("app", blob).await;
    }
    assert_eq!(disk.wrong_blobs(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_mends_what_is_damaged_when_the_registry_is_gone() {
    let site = Site::new().await;
    let other = site.node("other", &[]).await;
    let node = site.node("node", &[other.address()]).await;
    let blobs = pulled(&site, &other, &["mended"]).await;
    let (blob, _) = &blobs[0];
    node.has_heard(&other.run().peer_id, 1).await;
    node.pull_blob("app", blob).await;
    site.registry.set_online(false).await.unwrap();
    let before = node.status().await.bytes_from_peers;
    let file = Disk::of(&node.data_dir).blob(blob);
    disk::flip_bit(&file, 3 * PIECE);
    disk::flip_bit(&file, 20 * PIECE);
    node.pull_blob("app", blob).await;
    assert_eq!(node.status().await.bytes_from_peers - before, 2 * PIECE, "{}", node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_damaged_blob_sends_its_peers_nothing_wrong() {
    let site = Site::new().await;
    let holder = site.node("holder", &[]).await;
    let blobs = pulled(&site, &holder, &["lent"]).await;
    let (blob, _) = &blobs[0];
    let good = 10 * PIECE;
    disk::flip_bit(&Disk::of(&holder.data_dir).blob(blob), good + 5);
    let before = site.registry.bytes_sent();
    let reader = site.node("reader", &[holder.address()]).await;
    reader.has_heard(&holder.run().peer_id, 1).await;
    reader.pull_blob("app", blob).await;
    // What the reader had not read when the holder broke off is lost.
    let rest = site.registry.bytes_sent() - before;
    assert!((SIZE as u64 - good..SIZE as u64).contains(&rest), "{rest} bytes{}", reader.last_words());
    // The holder noticed, and now gets its piece back from whom it had helped.
    site.registry.set_online(false).await.unwrap();
    holder.has_heard(&reader.run().peer_id, 1).await;
    holder.pull_blob("app", blob).await;
    assert_eq!(holder.status().await.bytes_from_peers, PIECE, "{}", holder.last_words());
}

/// What happens to a blob's file, and how much of the blob has to come again at most.
type Accident = (&'static str, fn(&Path), u64);

const ACCIDENTS: [Accident; 4] = [
    ("cut in half", |file| disk::truncate(file, SIZE as u64 / 2 + 10), SIZE as u64 / 2),
    ("emptied", |file| disk::truncate(file, 0), SIZE as u64),
    ("removed", |file| fs::remove_file(file).unwrap(), SIZE as u64),
    ("lengthened", |file| disk::overwrite(file, SIZE as u64, b"tail"), 0),
];

async fn mend(site: &Site, node: &Node, what: &str, blob: &ContentId, again_max: u64) {
    let before = site.registry.bytes_sent();
    let answer = node.get(&format!("app/blobs/{blob}")).await;
    assert!(answer.is(blob), "{what}: {}{}", answer.shown(), node.last_words());
    node.has_stored([blob]).await;
    let again = site.registry.bytes_sent() - before;
    assert!(again <= again_max, "{what}: {again} bytes came again, at most {again_max} were lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_cut_short_or_removed_under_a_running_node_are_fetched_again() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let blobs = pulled(&site, &node, &ACCIDENTS.map(|(what, ..)| what)).await;
    for ((what, accident, again_max), (blob, _)) in ACCIDENTS.into_iter().zip(&blobs) {
        accident(&Disk::of(&node.data_dir).blob(blob));
        mend(&site, &node, what, blob, again_max).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_cut_short_or_removed_while_the_node_was_away_are_fetched_again() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let blobs = pulled(&site, &node, &ACCIDENTS.map(|(what, ..)| what)).await;
    let disk = Disk::of(&node.data_dir);
    node.stop().await;
    for ((_, accident, _), (blob, _)) in ACCIDENTS.into_iter().zip(&blobs) {
        accident(&disk.blob(blob));
    }
    let node = site.node("node", &[]).await;
    assert!(node.blobs().await.is_empty(), "none of them is whole");
    for ((what, _, again_max), (blob, _)) in ACCIDENTS.into_iter().zip(&blobs) {
        mend(&site, &node, what, blob, again_max).await;
    }
    assert_eq!(disk.wrong_blobs(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_manifest_is_fetched_again_and_not_answered() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, "app", "v1", "manifest", &[50_000]);
    let other = site.node("other", &[]).await;
    let node = site.node("node", &[other.address()]).await;
    for node in [&node, &other] {
        pull_image(node, Naming::Query, "app", "v1").await;
    }
    node.has_heard(&other.run().peer_id, 3).await;
    let file = Disk::of(&node.data_dir).blob(&image.manifest);
    disk::flip_bit(&file, 20);
    pull_image(&node, Naming::Query, "app", "v1").await;
    site.registry.set_online(false).await.unwrap();
    disk::flip_bit(&file, 30);
    pull_image(&node, Naming::Query, "app", "v1").await;
    assert_eq!(ContentId::of(Algorithm::Sha256, &fs::read(&file).unwrap()), image.manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_partial_with_garbage_in_it_the_good_pieces_count() {
    let site = Site::new().await;
    let mut node = site.node("node", &[]).await;
    let cases = ["untouched", "records", "a piece", "bytes not yet durable", "header"];
    let blobs = cases.map(|seed| site.registry.put_blob(content::bytes(seed, SIZE)));
    site.registry.set_rate(Some(3 << 20));
    let urls = blobs.map(|blob| node.url(&format!("app/blobs/{blob}")));
    let pulls = tokio::spawn(async move {
        join_all(urls.iter().map(|url| ask(reqwest::Method::GET, url, None))).await;
    });
    let disk = Disk::of(&node.data_dir);
    node.wait_until("has a piece of each", async || {
        blobs.iter().all(|blob| disk.durable_bytes(blob, SIZE as u64) >= 2 * PIECE)
    })
    .await;
    node.kill().await;
    pulls.await.unwrap();
    site.registry.set_rate(None);

    let durable = blobs.map(|blob| disk.durable_bytes(&blob, SIZE as u64));
    let garbage = content::bytes("garbage", 1000);
    let state = |n: usize| disk.partial_state(&blobs[n]);
    disk::overwrite(&state(1), disk::len(&state(1)), &garbage);
    disk::overwrite(&disk.partial_data(&blobs[2]), PIECE + 7, &garbage);
    disk::overwrite(&disk.partial_data(&blobs[3]), SIZE as u64 - 2000, &garbage);
    disk::overwrite(&state(4), 10, &garbage[..50]);
    let lost = [0, 0, PIECE, 0, durable[4]];

    let node = site.node("node", &[]).await;
    for ((case, blob), (durable, lost)) in cases.iter().zip(&blobs).zip(durable.into_iter().zip(lost)) {
        mend(&site, &node, case, blob, SIZE as u64 - durable + lost).await;
    }
    assert_eq!(node.blobs().await.len(), cases.len());
    assert_eq!(disk.wrong_blobs(), Vec::<std::path::PathBuf>::new());
}
