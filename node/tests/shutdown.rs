//! A node that is told to stop: it stops soon, says so to whoever waits, and loses nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{
    PATIENCE, Site,
    client::{ask, http},
    content,
    disk::Disk,
};
use reqwest::{Client, Method};
use rustix::process::Signal;
use tokio::time::timeout;

/// Container engines kill after 10 s and systemd after 90; the mirror lets responses run for 5 of them.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// What the registry sent and the node could not keep: a piece under way and what the sockets hold, which at the rate
/// of the test takes a node more than half a second of standing still.
const IN_FLIGHT_MAX: u64 = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_during_a_pull_keeps_what_came_and_cuts_the_client() {
    let site = Site::new().await;
    let bytes = content::bytes("interrupted", 32 << 20);
    let size = bytes.len() as u64;
    let blob = site.registry.put_blob(bytes);
    site.registry.set_rate(Some(3 << 20));
    let mut node = site.node("node", &[]).await;
    let url = node.url(&format!("app/blobs/{blob}"));
    let pull = tokio::spawn(async move { ask(Method::GET, &url, None).await.unwrap() });
    node.wait_until("takes a few pieces", async || site.registry.bytes_sent() > 2 * IN_FLIGHT_MAX).await;

    node.signal(Signal::TERM);
    let status = node.ended(STOP_TIME_MAX).await;
    assert!(status.success(), "{status}{}", node.last_words());
    let sent = site.registry.bytes_sent();
    let answer = timeout(PATIENCE, pull).await.expect("the client is not left waiting").unwrap();
    assert!(answer.cut.is_some(), "{}", answer.shown());
    assert!(!answer.body.is_empty());

    // Whatever came in whole pieces is durable.
    let durable = Disk::of(&node.data_dir).durable_bytes(&blob, size);
    assert!(sent - durable <= IN_FLIGHT_MAX, "{durable} of {sent} bytes are durable");

    site.registry.set_rate(None);
    let node = site.node("node", &[]).await;
    assert_eq!(node.status().await.partial_bytes, durable);
    node.pull_blob("app", &blob).await;
    assert_eq!(site.registry.bytes_sent() - sent, size - durable, "nothing durable came again");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let site = Site::new().await;
    let blob = site.registry.put_blob(content::bytes("small", 1000));
    let mut node = site.node("node", &[]).await;
    let peer = site.node("peer", &[node.address()]).await;
    let keeping = Client::builder().no_proxy().build().unwrap();
    for url in [node.url(&format!("app/blobs/{blob}")), format!("http://{}/healthz", node.run().status)] {
        let response = timeout(PATIENCE, keeping.get(url).send()).await.unwrap().unwrap();
        assert!(response.error_for_status().unwrap().bytes().await.is_ok());
    }
    peer.has_heard(&node.run().peer_id, 1).await;
    peer.pull_blob("app", &blob).await;
    node.signal(Signal::TERM);
    // Far below the time that a response under way would get.
    let status = node.ended(Duration::from_secs(4)).await;
    assert!(status.success(), "{status}{}", node.last_words());
    drop(keeping);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_ends_with_whoever_holds_its_standard_input() {
    let site = Site::new().await;
    let mut node = site.node("node", &[]).await;
    let status = format!("http://{}/healthz", node.run().status);
    assert!(http().get(&status).send().await.unwrap().status().is_success());
    node.close_stdin();
    let ended = node.ended(STOP_TIME_MAX).await;
    assert!(ended.success(), "{ended}{}", node.last_words());
    assert!(http().get(&status).send().await.is_err());
    assert!(!node.data_dir.join("run.json").exists(), "nobody is told of a node that is gone");
}
