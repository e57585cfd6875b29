use layermesh_proto::Algorithm;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::mirror::{route::TARGET_LEN_MAX, server::HEAD_LEN_MAX};

async fn dial(rig: &Rig) -> TcpStream {
    TcpStream::connect(&rig.address).await.unwrap()
}

#[tokio::test]
async fn writers_are_told_that_it_is_read_only() {
    let rig = Rig::new().await;
    for (method, path) in [
        (Method::POST, "/v2/a.io/b/blobs/uploads/"),
        (Method::PATCH, "/v2/a.io/b/blobs/uploads/1"),
        (Method::PUT, "/v2/a.io/b/manifests/v1"),
        (Method::DELETE, "/v2/a.io/b/manifests/v1"),
    ] {
        let response = rig.request(method, path).body("bytes").send().await.unwrap();
        assert_eq!(header(&response, "allow"), Some("GET, HEAD"));
        assert_eq!(refused(response).await, (405, "UNSUPPORTED".to_owned()));
    }
    for (path, expected) in [
        ("/", "UNSUPPORTED"),
        ("/v2/_catalog", "UNSUPPORTED"),
        ("/v2/A/manifests/v1", "NAME_INVALID"),
        ("/v2/a/manifests/sha256:00", "DIGEST_INVALID"),
    ] {
        assert_eq!(refused(rig.get(path).await).await, (404, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_request_of_a_node_is_refused() {
    let rig = Rig::new().await;
    let image = rig.image();
    let path = format!("/v2/a.io/b/manifests/{}", image.manifest);
    for sender in ["another".to_owned(), node().to_string()] {
        let answer = rig.request(Method::GET, &path).header("Layermesh-Via", sender).send().await.unwrap();
        assert_eq!(refused(answer).await, (404, "NAME_UNKNOWN".to_owned()));
    }
    assert_eq!(rig.request(Method::GET, &path).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_their_place_is_given_back() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let rig = Rig::with(limits, FakeLists::new(Err(SourceError::NotFound), &[])).await;
    let mut first = dial(&rig).await;
    let request = b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n";
    first.write_all(request).await.unwrap();
    let mut buffer = [0; 12];
    within(first.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 200");
    let mut second = dial(&rig).await;
    assert!(matches!(within(second.read(&mut buffer)).await, Ok(0) | Err(_)), "it should be closed");
    drop(first);
    let freed = async {
        loop {
            let mut third = dial(&rig).await;
            if third.write_all(request).await.is_ok() && third.read_exact(&mut buffer).await.is_ok() {
                break;
            }
        }
    };
    within(freed).await;
}

#[tokio::test]
async fn a_head_that_does_not_come_or_is_too_large_ends_the_connection() {
    let limits = Limits { head: Duration::from_millis(100), ..Limits::default() };
    let rig = Rig::with(limits, FakeLists::new(Err(SourceError::NotFound), &[])).await;
    for start in ["", "GET /v2/ HTTP/1.1\r\nhost", "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = dial(&rig).await;
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        let answered = String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200");
        assert_eq!(answered, start.ends_with("\r\n\r\n"));
    }
}

#[tokio::test]
async fn ten_times_the_head_or_the_target_is_refused() {
    let rig = Rig::new().await;
    let large = "x".repeat(10 * HEAD_LEN_MAX);
    let response = rig.request(Method::GET, "/v2/").header("x", &large).send().await;
    assert!(response.is_err() || response.is_ok_and(|response| response.status() == 431));
    let target = "x".repeat(10 * TARGET_LEN_MAX);
    for path in [format!("/v2/{target}/manifests/v1"), format!("/v2/a/b/manifests/v1?ns={target}")] {
        let status = rig.request(Method::GET, &path).send().await.unwrap().status();
        assert!(status.is_client_error(), "{status}");
    }
    assert_eq!(rig.get("/v2/").await.status(), 200);
}

#[tokio::test]
async fn a_shutdown_lets_what_can_finish_finish_and_cuts_the_rest() {
    let limits = Limits { drain: Duration::from_millis(500), ..Limits::default() };
    let rig = Rig::with(limits, FakeLists::new(Err(SourceError::NotFound), &[])).await;
    let (good, bad) = (noise(300_000), noise(300_001));
    let [good_id, bad_id] = [&good, &bad].map(|bytes| ContentId::of(Algorithm::Sha256, bytes));
    for (content, bytes) in [(good_id, &good), (bad_id, &bad)] {
        rig.store.begin(content, bytes.clone());
        rig.store.grow(content, 0..100_000);
    }
    let finishing = rig.get(&format!("/v2/a.io/b/blobs/{good_id}")).await;
    let stuck = rig.get(&format!("/v2/a.io/b/blobs/{bad_id}")).await;
    let idle = dial(&rig).await;
    rig.shutdown.cancel();
    rig.store.complete(good_id);
    rig.driver.end(good_id, Ok(())).await;
    assert_eq!(within(finishing.bytes()).await.unwrap(), good);
    assert!(is_reset(&within(stuck.bytes()).await.unwrap_err()));
    within(rig.served).await.unwrap();
    assert!(TcpStream::connect(&rig.address).await.is_err(), "it still listens");
    drop(idle);
}
