//! Over a real TCP socket, with a fake store and driver.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use layermesh_proto::engine::overview::{DeviceView, HeldView, Overview, UnderWayView, UplinkView};

use super::*;
use crate::admin::{testing::World, types::SiteStatus};

const DEADLINE: Duration = Duration::from_secs(30);

async fn get(paths: &[&str]) -> Vec<String> {
    get_as("127.0.0.1:7120", paths).await
}

async fn get_as(host: &str, paths: &[&str]) -> Vec<String> {
    get_of(World::new(), host, paths).await
}

async fn get_of(world: World, host: &str, paths: &[&str]) -> Vec<String> {
    ask(world, host, paths, "").await
}

async fn ask(world: World, host: &str, paths: &[&str], headers: &str) -> Vec<String> {
    let node = world.node();
    node.counters.from_peers.add(1234);
    node.store.put("a blob");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let site = Site::new(node.clone());
    let server = tokio::spawn(run(listener, node, site, shutdown.clone()));
    let mut answers = Vec::new();
    for path in paths {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answers.push(answer);
    }
    shutdown.cancel();
    timeout(DEADLINE, server).await.unwrap().unwrap();
    answers
}

#[tokio::test]
async fn metrics_are_open_metrics_for_who_asks_and_the_older_text_for_others() {
    let answer = ask(World::new(), "x", &["/metrics"], "Accept: application/openmetrics-text; version=1.0.0\r\n")
        .await
        .remove(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples = samples(body);
    for (name, value) in [
        ("layermesh_received_bytes_total{source=\"peer\"}", "1234"),
        ("layermesh_received_bytes_total{source=\"origin\"}", "0"),
        ("layermesh_sent_bytes_total{target=\"runtime\"}", "0"),
        ("layermesh_discarded_bytes_total", "0"),
        ("layermesh_peers", "1"),
        ("layermesh_blobs", "1"),
        ("layermesh_store_bytes", "6"),
        ("layermesh_store_quota_bytes", "1073741824"),
        ("layermesh_transfers", "0"),
        ("layermesh_failures_total{reason=\"store\"}", "0"),
        ("layermesh_completion_seconds_bucket{le=\"+Inf\"}", "0"),
        ("layermesh_peers_refused_total{reason=\"revoked\"}", "0"),
        ("layermesh_origin_reachable{registry=\"docker.io\"}", "1"),
        ("layermesh_origin_reachable{registry=\"gone.test\"}", "0"),
        (concat!("layermesh_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), "1"),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}\n{body}");
    }
    let resident: u64 = samples["process_resident_memory_bytes"].parse().unwrap();
    assert!(resident > 1 << 20, "{resident}");
    let answer = get(&["/metrics"]).await.remove(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE layermesh_received_bytes_total counter\n") && !body.contains("# EOF"), "{body}");
}

fn samples(body: &str) -> BTreeMap<&str, &str> {
    body.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap()).collect()
}

/// Rows of the manual's table for these metrics in the older format.
fn rows(classic: &str) -> String {
    let mut rows = "\n| metric | type | what it is |\n|---|---|---|\n".to_owned();
    let help = |name: &str| classic.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
    for line in classic.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) else { continue };
        let sample = classic.lines().find(|line| !line.starts_with('#') && line.starts_with(name));
        let labels = sample.and_then(|line| line.split_once('{')?.1.split_once('}')).map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
        let labels: Vec<_> = labels.filter(|label| *label != "le").collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let help = help(name).unwrap_or_default().trim_end_matches('.');
        rows.push_str(&format!("| `{name}{labels}` | {kind} | {help} |\n"));
    }
    rows + "\n"
}

#[tokio::test]
async fn the_manual_lists_the_metrics_that_there_are() {
    let mut status = World::new().node().status().await;
    let release = crate::release::status::ReleaseProgress {
        channel: "stable".to_owned(),
        version: "1".to_owned(),
        complete: false,
        total: 5,
        held: 4,
        bytes_per_s: 0,
        from_origin: 0,
        waits_for: String::new(),
    };
    status.releases = Some(crate::release::status::ReleasesStatus {
        expires: Some("2027-01-01T00:00:00Z".to_owned()),
        releases: vec![release],
        ..Default::default()
    });
    status.admission.as_mut().unwrap().membership = Some(crate::fleet::MembershipStatus {
        authority: "A".to_owned(),
        issued: "2026-01-01T00:00:00Z".to_owned(),
        expires: Some("2027-01-01T00:00:00Z".to_owned()),
        enrolled_by: None,
    });
    let answer = metrics::answer(&HeaderMap::new(), &status, &crate::counters::Waits::default());
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let body = std::str::from_utf8(&body).unwrap();
    assert_eq!(samples(body)["layermesh_release_metadata_expiry_timestamp_seconds"], "1798761600");
    let manual = include_str!("../../../docs/monitoring.md");
    let (_, rest) = manual.split_once("<!-- metrics: compared with the code by a test -->\n").unwrap();
    let (told, _) = rest.split_once("<!-- end of metrics -->").unwrap();
    let there = rows(body);
    assert_eq!(told, there, "docs/monitoring.md has to say:\n{there}");
}

#[tokio::test]
async fn health_and_status_answer_and_nothing_that_changes_the_node_does() {
    let answers = get(&["/healthz", "/v1/status", "/v1/pull"]).await;
    assert!(answers[0].starts_with("HTTP/1.1 200") && answers[0].ends_with("ok\n"));
    let (_, body) = answers[1].split_once("\r\n\r\n").unwrap();
    let status: NodeStatus = serde_json::from_str(body).unwrap();
    assert_eq!((status.bytes_from_peers, status.blobs), (1234, 1));
    assert!(answers[2].starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn why_a_device_is_not_let_in_is_said_without_its_files() {
    let mut status = World::new().node().status().await;
    assert_eq!(public(status.clone()), status);
    status.admission.as_mut().unwrap().problem = Some("cannot read /etc/layermesh/device.pem".to_owned());
    let told = serde_json::to_string(&public(status)).unwrap();
    assert!(told.contains("layermesh fleet show") && !told.contains("device.pem"), "{told}");
}

#[tokio::test]
async fn the_page_is_served_with_a_policy_that_lets_nothing_else_run() {
    let paths: Vec<_> = page::FILES.iter().map(|file| file.path).collect();
    for (file, answer) in page::FILES.iter().zip(get(&paths).await) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, file.text);
        let head = head.to_ascii_lowercase();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(header), "{header}: {head}");
        }
        assert!(head.contains(&format!("content-type: {}", file.media_type)), "{head}");
        assert!(!head.contains("access-control-allow"), "{head}");
    }
}

#[test]
fn the_page_is_small_needs_nothing_from_outside_and_writes_text_only() {
    let weight: usize = page::FILES.iter().map(|file| file.text.len()).sum();
    assert!(weight <= page::BYTES_MAX, "{weight}");
    for file in &page::FILES {
        // Namespaces are names; nothing is asked for there.
        let text = file.text.replace("http://www.w3.org/2000/svg", "");
        for wrong in [
            "http:",
            "https:",
            "url(",
            "@import",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!text.contains(wrong), "{} has {wrong}", file.path);
        }
    }
    let html = page::FILES[0].text;
    for wrong in ["<style", " style=", " onclick=", "<script>"] {
        assert!(!html.contains(wrong), "{wrong}");
    }
    for file in &page::FILES[1..] {
        assert!(html.contains(file.path), "{} is not asked for", file.path);
    }
}

#[tokio::test]
async fn the_site_is_told_as_the_page_needs_it() {
    let mut world = World::new();
    let peer = world.status.peers[0].peer;
    let content = world.elsewhere.put("a layer");
    world.overview = testing_overview(peer, content);
    let answer = get_of(world, "localhost:7120", &["/v1/site"]).await.remove(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    let site: SiteStatus = serde_json::from_str(body).unwrap();
    assert_eq!((site.node.blobs, site.devices_total, site.layers_total), (1, 1, 1));
    let device = &site.devices[0];
    assert_eq!((device.peer_id.as_str(), device.address.as_deref()), (peer.to_string().as_str(), Some("10.0.0.2")));
    assert_eq!((device.fetches, device.wanted_bytes, device.had_bytes), (1, 100, 40));
    let blob = &site.under_way[0];
    assert_eq!((blob.digest.as_str(), blob.size, blob.uplink_bytes), (content.to_string().as_str(), Some(100), 30));
    assert_eq!(blob.fetching, [peer.to_string()]);
    assert_eq!((site.uplink.bytes, site.uplink.surplus_bytes), (130, 5));
    assert!(
        site.problems.iter().any(|problem| problem.what == "The registry gone.test does not answer."),
        "{:?}",
        site.problems
    );
}

fn testing_overview(node: layermesh_proto::NodeId, content: layermesh_proto::ContentId) -> Overview {
    Overview {
        devices: vec![DeviceView {
            node,
            connected: true,
            blobs: 3,
            bytes: 300,
            wants: 1,
            wanted_bytes: 100,
            had_bytes: 40,
            fetches: 1,
            penalised: false,
        }],
        devices_total: 1,
        under_way: vec![UnderWayView {
            content,
            size: Some(100),
            holders: 0,
            wanting: 1,
            had_bytes: 40,
            fetching: vec![node],
            crossed: 30,
        }],
        under_way_total: 1,
        held: vec![HeldView { content, size: 7, holders: 2, here: false }],
        held_total: 1,
        held_once: 0,
        uplink: UplinkView { bytes: 130, surplus: 5, lately: Vec::new() },
    }
}

#[tokio::test]
async fn over_loopback_names_that_others_may_give_away_are_turned_away_but_by_monitoring() {
    let paths = ["/", "/v1/site", "/v1/status", "/page.js", "/metrics", "/healthz"];
    for host in ["evil.example", "evil.example:7120", "localhost.evil.example", "[::1", "127.0.0.1.evil.example:7120"] {
        let answers = get_as(host, &paths).await;
        let (guarded, open) = answers.split_at(4);
        for answer in guarded {
            assert!(answer.starts_with("HTTP/1.1 421"), "{host}: {answer}");
        }
        assert!(open.iter().all(|answer| answer.starts_with("HTTP/1.1 200")), "{host}");
    }
    for host in ["localhost", "LocalHost:9999", "127.0.0.1", "10.0.0.7:7120", "[::1]:7120", "[::1]", ""] {
        let answers = get_as(host, &["/"]).await;
        assert!(answers[0].starts_with("HTTP/1.1 200"), "{host}: {}", answers[0]);
    }
}
