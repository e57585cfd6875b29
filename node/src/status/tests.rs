//! Over a real TCP socket, with a fake store and driver.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::admin::{testing::World, types::NodeStatus};

const DEADLINE: Duration = Duration::from_secs(30);

async fn get(paths: &[&str]) -> Vec<String> {
    let node = World::new().node();
    node.counters.from_peers.add(1234);
    node.store.put("a blob");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(run(listener, node, shutdown.clone()));
    let mut answers = Vec::new();
    for path in paths {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
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
async fn metrics_are_open_metrics_with_conventional_names() {
    let answer = get(&["/metrics"]).await.remove(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    let samples: BTreeMap<&str, &str> =
        body.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap()).collect();
    for (name, value) in [
        ("layermesh_received_bytes_total{source=\"peer\"}", "1234"),
        ("layermesh_received_bytes_total{source=\"origin\"}", "0"),
        ("layermesh_sent_bytes_total{target=\"runtime\"}", "0"),
        ("layermesh_discarded_bytes_total", "0"),
        ("layermesh_peers", "1"),
        ("layermesh_blobs", "1"),
        ("layermesh_store_bytes", "6"),
        ("layermesh_transfers", "0"),
        ("layermesh_origin_reachable{registry=\"docker.io\"}", "1"),
        ("layermesh_origin_reachable{registry=\"gone.test\"}", "0"),
        (concat!("layermesh_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), "1"),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}\n{body}");
    }
    let resident: u64 = samples["process_resident_memory_bytes"].parse().unwrap();
    assert!(resident > 1 << 20, "{resident}");
}

#[tokio::test]
async fn health_status_and_the_index_answer_and_nothing_else_does() {
    let answers = get(&["/healthz", "/v1/status", "/", "/v1/pull"]).await;
    assert!(answers[0].starts_with("HTTP/1.1 200") && answers[0].ends_with("ok\n"));
    let (_, body) = answers[1].split_once("\r\n\r\n").unwrap();
    let status: NodeStatus = serde_json::from_str(body).unwrap();
    assert_eq!((status.bytes_from_peers, status.blobs), (1234, 1));
    assert!(answers[2].contains("/metrics"));
    assert!(answers[3].starts_with("HTTP/1.1 404"));
}
