//! A fleet of real nodes, made and changed by the commands that people use.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{path::Path, process::Stdio};

use common::{
    NO_FLEET, Node, PATIENCE, Site,
    client::{Naming, pull_image},
    content::RawImage,
};
use layermesh::{
    admin::client::AdminClient,
    fleet::{AdmissionMode, AdmissionStatus, routes::FleetStatus},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const REPOSITORY: &str = "library/app";

/// Runs a command of the program; returns its exit status and what it printed.
async fn layermesh(words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
    command.args(words).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LAYERMESH_")) {
        command.env_remove(name);
    }
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    (output.status.code().unwrap(), text.into_owned())
}

/// As [`layermesh`], where it must work, with what it printed as JSON.
async fn json(words: &[&str]) -> Value {
    let (status, text) = layermesh(&[words, &["--json"]].concat()).await;
    assert_eq!(status, 0, "{words:?}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn fleet_of(node: &Node) -> FleetStatus {
    AdminClient::new(&node.run().admin).fleet().await.unwrap()
}

/// As the device's own people see it: at its status address nobody is told why others do not let it in.
async fn admission(node: &Node) -> AdmissionStatus {
    AdminClient::new(&node.run().admin).status().await.unwrap().admission.unwrap()
}

/// What a client that knows nothing of admission gets from an address.
async fn curl(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    // A reset is as good as an end.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

/// Where a node's control plane is, as a socket address.
fn control_address(node: &Node) -> String {
    let port = node.address().split('/').nth(4).unwrap();
    format!("127.0.0.1:{port}")
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_strangers_get_nothing_and_the_revoked_are_out() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "members", &[2 << 20, 70_000]);
    let dir = site.dir().join("authority");
    let made = json(&["fleet", "init", "--dir", shown(&dir)]).await;
    let authority = made["authority"].as_str().unwrap();
    assert_eq!(layermesh(&["fleet", "init", "--dir", shown(&dir)]).await.0, 2, "never overwritten");
    let key = site.dir().join("enrolment.pem");
    let enrolment =
        json(&["fleet", "enrolment-key", "--expires", "30d", "--out", shown(&key), "--dir", shown(&dir)]).await;
    let of_fleet = ["--fleet-authority", authority];

    // The first device admits itself; the second is admitted by hand, while it runs.
    let flags = [&of_fleet[..], &["--fleet-enrolment-key", shown(&key)]].concat();
    let first = site.node_with("first", &[], &flags).await;
    let status = admission(&first).await;
    assert_eq!((status.mode, status.problem), (AdmissionMode::Fleet, None));
    assert_eq!(status.membership.unwrap().enrolled_by.as_deref(), enrolment["subject"].as_str());
    let pulled = pull_image(&first, Naming::Query, REPOSITORY, "v1").await;
    assert_eq!(pulled.1, image.size);
    let second = site.node_with("second", &[first.address()], &of_fleet).await;
    let problem = admission(&second).await.problem.unwrap();
    assert!(problem.contains(&format!("fleet admit {}", second.run().peer_id)), "{problem}");
    let membership = site.dir().join("second.pem");
    let (id, out) = (second.run().peer_id.clone(), shown(&membership));
    json(&["fleet", "admit", &id, "--expires", "2d", "--out", out, "--dir", shown(&dir)]).await;
    json(&["fleet", "join", out, "--data-dir", shown(&second.data_dir)]).await;
    second.has_heard(&first.run().peer_id, pulled.0.len()).await;
    site.registry.set_online(false).await.unwrap();
    assert_eq!(pull_image(&second, Naming::Query, REPOSITORY, "v1").await, pulled);
    assert_eq!(second.status().await.bytes_from_peers, image.size);

    // Nobody else gets anything: another fleet's member, a node that is open, and no node at all.
    let other = site.dir().join("other");
    let other_id = json(&["fleet", "init", "--dir", shown(&other)]).await["authority"].as_str().unwrap().to_owned();
    let other_key = site.dir().join("other-enrolment.pem");
    json(&["fleet", "enrolment-key", "--expires", "1d", "--out", shown(&other_key), "--dir", shown(&other)]).await;
    let flags = ["--fleet-authority", &other_id, "--fleet-enrolment-key", shown(&other_key)];
    let stranger = site.node_with("stranger", &[first.address()], &flags).await;
    let open = site.node("open", &[first.address()]).await;
    let refused = async |reason: &str| admission(&first).await.refused[reason];
    first
        .wait_until("refuses both", async || refused("another-fleet").await > 0 && refused("no-membership").await > 0)
        .await;
    let broken = refused("broken").await;
    for address in [control_address(&first), first.run().bulk.unwrap().to_string()] {
        let got = curl(&address).await;
        assert!(got.len() <= 64 && !got.contains("HTTP"), "{address}: {got}");
    }
    first.wait_until("counts both", async || refused("broken").await == broken + 2).await;
    for node in [&stranger, &open] {
        let status = node.status().await;
        assert_eq!((status.peers, status.bytes_from_peers, status.blobs), (0, 0, 0));
        let got = node.get(&format!("{REPOSITORY}/manifests/v1")).await;
        assert!(!got.status.is_success(), "{}", got.shown());
    }
    assert_eq!(first.status().await.bytes_to_peers, image.size, "what the second took");

    // Revoked at one device, the other hears of it; it stays out over restarts of both.
    let revoke = ["fleet", "revoke", &id, "--dir", shown(&dir), "--data-dir", shown(&first.data_dir)];
    assert_eq!(json(&revoke).await["new"], 1);
    first.wait_until("lets the second go", async || first.status().await.peers == 0).await;
    assert_eq!(fleet_of(&first).await.revoked[0].subject, id);
    first.stop().await;
    second.stop().await;
    let first = site.node_with("first", &[], &of_fleet).await;
    let second = site.node_with("second", &[first.address()], &of_fleet).await;
    first.wait_until("refuses the second", async || admission(&first).await.refused["revoked"] > 0).await;
    assert_eq!((first.status().await.peers, second.status().await.peers), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fleet_a_node_serves_its_own_device_only() {
    let site = Site::new().await;
    let image = RawImage::put(&site.registry, REPOSITORY, "v1", "alone", &[70_000]);
    let other = site.node("other", &[]).await;
    let alone = site.node_with("alone", &[other.address()], &[NO_FLEET]).await;
    assert_eq!((alone.run().peers.len(), alone.run().bulk), (0, None), "nothing listens for peers");
    assert_eq!(pull_image(&alone, Naming::Query, REPOSITORY, "v1").await.1, image.size);
    let status = admission(&alone).await;
    assert_eq!(status.mode, AdmissionMode::Alone);
    assert!(status.problem.unwrap().contains("serves its own device only"));
    assert!(alone.log().contains("nobody is let in"), "{}", alone.log());
    assert_eq!((alone.status().await.peers, other.status().await.peers), (0, 0));
    let (_, text) = layermesh(&["status", "--data-dir", shown(&alone.data_dir)]).await;
    assert!(text.contains("NO FLEET"), "{text}");
    alone.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_what_is_wrong_with_what_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let place = shown(dir.path());
    let (status, text) = layermesh(&["fleet", "admit", "12D3KooWnonsense", "--dir", place]).await;
    assert!(status == 2 && text.contains("is not the peer id of a node"), "{status} {text}");
    let peer = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq";
    let (status, text) = layermesh(&["fleet", "admit", peer, "--dir", place]).await;
    assert!(status == 2 && text.contains("layermesh fleet init"), "{status} {text}");
    json(&["fleet", "init", "--dir", place]).await;
    let (status, text) = layermesh(&["fleet", "admit", peer, "--expires", "2020-01-01", "--dir", place]).await;
    assert!(status == 2 && text.contains("over already"), "{status} {text}");
    let (status, text) = layermesh(&["fleet", "admit", peer, "--dir", place]).await;
    assert!(status == 0 && text.starts_with("-----BEGIN LAYERMESH MEMBERSHIP-----"), "{status} {text}");
    let nowhere = dir.path().join("no-node");
    let (status, text) = layermesh(&["fleet", "revoke", peer, "--dir", place, "--data-dir", shown(&nowhere)]).await;
    assert!(status == 3 && text.contains("nothing was revoked"), "{status} {text}");
}
