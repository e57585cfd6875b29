//! Registries that are away: what the site knows serves at once, and the registry is asked again as soon as it is back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{
    Node, Site,
    client::{Answer, Naming, ask, pull_image},
    content::{self, RawImage},
    eventually,
};
use reqwest::{Method, StatusCode};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};

const REPOSITORY: &str = "library/app";
/// Far below the ten seconds in which a connection is given up, and far above what the site takes.
const SOON: Duration = Duration::from_secs(6);

/// Something in a registry's place that never says a word.
enum Hole {
    /// Connections come about.
    Mute(#[allow(dead_code)] TcpListener),
    /// No connection comes about, and nobody says so: packets are dropped, since the queue of connections is full.
    Black(#[allow(dead_code)] TcpListener, #[allow(dead_code)] Vec<TcpStream>),
}

impl Hole {
    fn listen(address: SocketAddr, backlog: u32) -> TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket.listen(backlog).unwrap()
    }

    fn mute(address: SocketAddr) -> Self {
        Self::Mute(Self::listen(address, 64))
    }

    async fn black(address: SocketAddr) -> Self {
        let listener = Self::listen(address, 1);
        let mut queued = Vec::new();
        // How many fit is the system's business.
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
            assert!(queued.len() < 64, "the queue of connections has no end");
        }
        Self::Black(listener, queued)
    }
}

async fn head(node: &Node, tag: &str) -> (Answer, Duration) {
    let url = node.url(&format!("{REPOSITORY}/manifests/{tag}"));
    let begun = Instant::now();
    let answer = node.within(SOON, "a tag", ask(Method::HEAD, &url, None)).await.unwrap();
    (answer, begun.elapsed())
}

fn provenance(answer: &Answer) -> &str {
    answer.headers.get("layermesh-provenance").map_or("", |value| value.to_str().unwrap())
}

/// A tag that was pulled, then its registry's place taken by something that never answers.
async fn served_without_waiting(hole: impl AsyncFn(SocketAddr) -> Hole, name: &str) {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "offline", &[300_000]);
    let node = site.node_with("node", &[], &["--tag-fresh", "0s"]).await;
    pull_image(&node, Naming::Query, REPOSITORY, "v1").await;
    let address = site.registry.local_addr();
    site.registry.set_online(false).await.unwrap();
    let hole = hole(address).await;

    let (answer, first) = head(&node, "v1").await;
    assert_eq!(answer.status, StatusCode::OK, "{}{}", answer.shown(), node.last_words());
    assert_eq!(answer.headers["docker-content-digest"], image.manifest.to_string());
    assert!(provenance(&answer).starts_with("remembered; because=origin-away; age="), "{}", provenance(&answer));
    let mut times = Vec::new();
    let begun = Instant::now();
    for _ in 0..20 {
        let (answer, time) = head(&node, "v1").await;
        assert!(provenance(&answer).contains("because=origin-away"), "{}", provenance(&answer));
        times.push(time);
    }
    assert!(begun.elapsed() < SOON, "it waits for the registry each time: {times:?}{}", node.last_words());
    times.sort_unstable();
    println!("{name}: first {first:?}, then {:?} in the middle, {:?} at the most", times[10], times[19]);
    assert!(
        node.log().contains("the origin is away: answering a tag from what the site knows"),
        "{}",
        node.last_words()
    );
    // A blob that nobody has is refused soon, so that the runtime goes elsewhere.
    let blob = site.registry.put_blob(content::bytes("not pulled", 1000));
    let refused = node.within(SOON * 3, "a blob", node.get(&format!("{REPOSITORY}/blobs/{blob}"))).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.shown());

    drop(hole);
    eventually("the port is free again", || std::net::TcpListener::bind(address).is_ok()).await;
    site.registry.set_online(true).await.unwrap();
    node.wait_until("asks the registry again", async || provenance(&head(&node, "v1").await.0).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_accepts_connections_and_never_answers() {
    served_without_waiting(async |address| Hole::mute(address), "mute").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_whose_packets_are_dropped() {
    served_without_waiting(Hole::black, "black").await;
}

/// Whoever learnt a tag from another device passes it on when that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_tag_outlives_the_device_that_asked_for_it() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "handed on", &[300_000]);
    let first = site.node("first", &[]).await;
    let (pulled, _) = pull_image(&first, Naming::Query, REPOSITORY, "v1").await;
    site.registry.set_online(false).await.unwrap();
    let second = site.node("second", &[first.address()]).await;
    second.has_heard(&first.run().peer_id, pulled.len()).await;
    pull_image(&second, Naming::Query, REPOSITORY, "v1").await;
    second.has_stored(&pulled).await;
    let origin = first.run().peer_id.clone();
    first.stop().await;
    second.stop().await;
    let second = site.node("second", &[]).await;
    let third = site.node("third", &[second.address()]).await;
    third.has_heard(&second.run().peer_id, pulled.len()).await;
    let (answer, _) = head(&third, "v1").await;
    assert_eq!(answer.headers["docker-content-digest"], image.manifest.to_string(), "{}", third.last_words());
    let peer = format!("peer={origin}");
    assert!(provenance(&answer).contains(&peer), "{} does not name {origin}", provenance(&answer));
    pull_image(&third, Naming::Query, REPOSITORY, "v1").await;
}
