//! A site of real nodes: the first device pulls from the registry, all others from each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    PATIENCE, Site,
    client::{Naming, ask, http, pull_image},
    content::{self, RawImage},
    eventually,
};
use futures::future::join_all;
use layermesh::embedded::image::{ImageSpec, make_image};
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use tokio::time::timeout;

const REPOSITORY: &str = "library/app";

#[tokio::test(flavor = "multi_thread")]
async fn the_first_device_pulls_from_the_registry_and_the_others_from_each_other() {
    let site = Site::new().await;
    let spec = ImageSpec { size_bytes: 12 << 20, layers: 5, seed: 1, arm64: false };
    let image = make_image(&spec, site.dir()).unwrap();
    let digest = site.registry.add_image(REPOSITORY, "v1", &image).unwrap().to_string();
    let image_bytes = image.pull_bytes(0);

    let first = site.node("first", &[]).await;
    let (pulled, bytes) = pull_image(&first, Naming::Query, REPOSITORY, "v1").await;
    assert_eq!(bytes, image_bytes);
    assert_eq!(site.registry.bytes_sent(), image_bytes, "the registry sent one copy");
    site.registry.set_online(false).await.unwrap();

    let ways = [(Naming::Query, "v1"), (Naming::Path, "v1"), (Naming::Query, digest.as_str()), (Naming::Path, &digest)];
    let mut devices = vec![first];
    for (n, (naming, reference)) in ways.into_iter().enumerate() {
        let others: Vec<&str> = devices.iter().map(common::Node::address).collect();
        let device = site.node(&format!("device-{n}"), &others).await;
        for other in &devices {
            device.has_heard(&other.run().peer_id, pulled.len()).await;
        }
        let got = pull_image(&device, naming, REPOSITORY, reference).await;
        assert_eq!(got, (pulled.clone(), bytes), "{naming:?} {reference}");
        let status = device.status().await;
        assert_eq!((status.bytes_from_peers, status.bytes_from_origin), (bytes, 0), "{status:?}");
        assert_eq!((status.blobs, status.store_bytes), (pulled.len() as u64, bytes));
        devices.push(device);
    }
    let first = devices[0].status().await;
    assert_eq!((first.bytes_from_origin, first.bytes_from_peers), (bytes, 0));
    let sent: Vec<u64> =
        join_all(devices.iter().map(|device| device.status())).await.iter().map(|s| s.bytes_to_peers).collect();
    assert_eq!(sent.iter().sum::<u64>(), bytes * 4, "{sent:?}");
    assert_eq!(site.registry.bytes_sent(), image_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_keeps_everything_and_serves_at_once() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "kept", &[3 << 20, 700_000, 0]);
    let node = site.node("node", &[]).await;
    let pulled = pull_image(&node, Naming::Query, REPOSITORY, "v1").await;
    let (peer_id, before) = (node.run().peer_id.clone(), node.blobs().await);
    assert_eq!(pulled.1, image.size);
    node.stop().await;
    site.registry.set_online(false).await.unwrap();

    let node = site.node("node", &[]).await;
    assert_eq!(node.run().peer_id, peer_id, "the identity is kept");
    assert_eq!(node.blobs().await, before);
    // The tag too, which only the registry could say.
    assert_eq!(pull_image(&node, Naming::Path, REPOSITORY, "v1").await, pulled);
    let status = node.status().await;
    assert_eq!((status.bytes_from_origin, status.bytes_from_peers, status.bytes_to_runtimes), (0, 0, image.size));
    // What the node does not have and nobody can give is refused, so that the runtime goes on elsewhere.
    let refused = node.get(&format!("{REPOSITORY}/manifests/v2")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.shown());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_again_without_being_told() {
    let site = Site::new().await;
    let a = site.node("a", &[]).await;
    let b = site.node("b", &[a.address()]).await;
    let connected = async |one: &common::Node, other: &str| {
        one.wait_until("is connected again", async || one.peers().await.iter().any(|peer| peer.peer_id == other)).await;
    };
    let (id_a, id_b) = (a.run().peer_id.clone(), b.run().peer_id.clone());
    connected(&a, &id_b).await;
    connected(&b, &id_a).await;
    // Each address that a node listened on is another one after its restart, so the other must have remembered.
    a.stop().await;
    let a = site.node("a", &[]).await;
    connected(&a, &id_b).await;
    connected(&b, &id_a).await;
    // Being connected is not yet knowing where the other listens.
    let remembers = || std::fs::read_to_string(site.dir().join("b/peers.json")).unwrap_or_default();
    let port = a.address().split('/').skip_while(|part| *part != "tcp").nth(1).unwrap();
    let port = format!("/tcp/{port}");
    b.wait_until("remembers the other's new address", async || remembers().contains(&port)).await;
    b.stop().await;
    let b = site.node("b", &[]).await;
    assert_eq!((&a.run().peer_id, &b.run().peer_id), (&id_a, &id_b));
    connected(&b, &id_a).await;
    connected(&a, &id_b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_blob_share_one_copy() {
    let site = Site::new().await;
    let bytes = content::bytes("shared", 6 << 20);
    let blob = site.registry.put_blob(bytes.clone());
    site.registry.set_rate(Some(8 << 20));
    let node = site.node("node", &[]).await;
    let (head, tail) = ("bytes=0-99999", "bytes=6000000-");
    let url = node.url(&format!("app/blobs/{blob}"));
    let readers = [None, Some(head), None, Some(tail), None].map(|range| ask(Method::GET, &url, range));
    let answers = node.patiently("five readers", join_all(readers)).await;
    for (answer, expected) in
        answers.into_iter().zip([&bytes[..], &bytes[..100_000], &bytes, &bytes[6_000_000..], &bytes])
    {
        let answer = answer.unwrap();
        assert!(answer.cut.is_none() && answer.body == expected, "{}{}", answer.shown(), node.last_words());
    }
    assert_eq!(site.registry.bytes_sent(), bytes.len() as u64);
}

/// Runtimes give up and come back; each time, all that had come is still worth its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_and_comes_back_costs_the_origin_little() {
    /// What the registry may have sent and the node had not read when it hung up: a piece, the registry's chunk and
    /// what the sockets hold at this rate.
    const IN_FLIGHT_MAX: u64 = 1 << 20;
    const LEAVES: u64 = 4;
    let site = Site::new().await;
    let bytes = content::bytes("hesitant", 8 << 20);
    let blob = site.registry.put_blob(bytes.clone());
    site.registry.set_rate(Some(4 << 20));
    let node = site.node("node", &[]).await;
    for n in 1..=LEAVES {
        let mut response = http().get(node.url(&format!("app/blobs/{blob}"))).send().await.unwrap();
        let mut got = 0;
        while got < n * (1 << 20) + 300_000 {
            let chunk = timeout(PATIENCE, response.chunk()).await.expect("bytes come").unwrap().unwrap();
            got += chunk.len() as u64;
        }
        drop(response);
        node.wait_until("stops fetching", async || node.status().await.transfers.is_empty()).await;
    }
    node.pull_blob("app", &blob).await;
    let sent = site.registry.bytes_sent();
    let size = bytes.len() as u64;
    assert!(sent <= size + LEAVES * IN_FLIGHT_MAX, "{sent} bytes for a blob of {size}{}", node.last_words());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_reach_the_reader_while_they_come() {
    let site = Site::new().await;
    let blob = site.registry.put_blob(content::bytes("streamed", 4 << 20));
    site.registry.set_rate(Some(2 << 20));
    let node = site.node("node", &[]).await;
    let mut response = http().get(node.url(&format!("app/blobs/{blob}"))).send().await.unwrap();
    timeout(PATIENCE, response.chunk()).await.expect("bytes come").unwrap().unwrap();
    let sent = site.registry.bytes_sent();
    assert!(sent < 2 << 20, "the reader's first byte came after {sent} of the registry's");
    // The reader's death is not the node's.
    drop(response);
    node.signal(Signal::CONT);
    eventually("the registry is left alone", || site.registry.request_count() == 1).await;
    assert!(node.blobs().await.is_empty());
}

/// Devices that are all connected with each other.
async fn connected_devices(site: &Site, count: usize) -> Vec<common::Node> {
    let mut devices: Vec<common::Node> = Vec::new();
    for n in 0..count {
        let others: Vec<&str> = devices.iter().map(common::Node::address).collect();
        let device = site.node(&format!("device-{n}"), &others).await;
        devices.push(device);
    }
    for device in &devices {
        device.wait_until("knows all others", async || device.peers().await.len() == count - 1).await;
    }
    devices
}

/// All at the same moment: one copy crosses the uplink, and what the others get has passed through others.
#[tokio::test(flavor = "multi_thread")]
async fn devices_that_pull_together_share_one_copy_while_it_comes() {
    const DEVICES: usize = 5;
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "together", &[9 << 20, 1 << 20, 700_000]);
    let devices = connected_devices(&site, DEVICES).await;
    site.registry.set_rate(Some(8 << 20));
    let pulls = devices.iter().map(|device| pull_image(device, Naming::Query, REPOSITORY, "v1"));
    let pulled = join_all(pulls).await;
    assert!(pulled.iter().all(|(_, bytes)| *bytes == image.size));
    let logs: String = devices.iter().map(common::Node::last_words).collect();
    let sent = site.registry.bytes_sent();
    // Two may claim a blob before each has heard the other; one of them stops at once.
    assert!(sent <= image.size + image.size / 20, "{sent} bytes for an image of {}{logs}", image.size);
    let asked = site.registry.requests();
    let asked = asked.iter().filter(|request| request.path.ends_with("/manifests/v1")).count();
    // A keeper that is too busy to answer in time is passed over.
    assert!((1..=2).contains(&asked), "the registry was asked {asked} times what the tag stands for{logs}");
    let taken = join_all(devices.iter().map(common::Node::status)).await;
    let from_peers: u64 = taken.iter().map(|status| status.bytes_from_peers).sum();
    assert!(from_peers >= image.size * (DEVICES as u64 - 1) - image.size / 20, "{from_peers} bytes from peers{logs}");
}

/// Whoever fetches for the others is killed: another goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_costs_no_second_copy() {
    const DEVICES: usize = 4;
    let site = Site::new().await;
    let bytes = content::bytes("owned", 12 << 20);
    let blob = site.registry.put_blob(bytes.clone());
    let mut devices = connected_devices(&site, DEVICES).await;
    site.registry.set_rate(Some(4 << 20));
    let urls: Vec<_> = devices.iter().map(|device| device.url(&format!("app/blobs/{blob}"))).collect();
    let pulls: Vec<_> =
        urls.into_iter().map(|url| tokio::spawn(async move { ask(Method::GET, &url, None).await })).collect();
    eventually("two fifths have crossed the uplink", || site.registry.bytes_sent() >= bytes.len() as u64 * 2 / 5).await;
    let mut taken = Vec::new();
    for device in &devices {
        taken.push(device.status().await.bytes_from_origin);
    }
    let owner = (0..DEVICES).max_by_key(|n| taken[*n]).unwrap();
    devices[owner].kill().await;
    for (n, pull) in pulls.into_iter().enumerate().filter(|(n, _)| *n != owner) {
        let answer = timeout(PATIENCE, pull).await.expect("the pull ends").unwrap().unwrap();
        assert!(answer.cut.is_none() && answer.body == bytes, "{n}: {}{}", answer.shown(), devices[n].last_words());
    }
    let sent = site.registry.bytes_sent();
    // What was on its way to the one that was killed: sockets' buffers and a piece.
    assert!(sent <= bytes.len() as u64 + (3 << 20), "{sent} bytes for {}", bytes.len());
}

#[cfg(target_env = "gnu")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_shares_one_malloc_arena_between_its_threads() {
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let of_process = |file: &str| {
        let path = format!("/proc/{}/{file}", node.pid().as_raw_nonzero());
        let bytes = std::fs::read(path).unwrap();
        bytes.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect::<Vec<_>>()
    };
    assert!(of_process("environ").iter().any(|variable| variable.starts_with("MALLOC_ARENA_MAX=")));
    assert_eq!(of_process("cmdline")[..2], [env!("CARGO_BIN_EXE_layermesh"), "run"]);
    assert_eq!(of_process("comm"), ["layermesh\n"], "shown under its name by whatever lists processes");
}
