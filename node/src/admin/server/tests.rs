//! Over a real unix socket, with a fake store and driver.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::admin::{
    client::{AdminClient, ClientError},
    testing::World,
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Running {
    dir: TempDir,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(world: World) -> (Self, AdminClient) {
        let dir = tempfile::tempdir().unwrap();
        let server = AdminServer::bind(&dir.path().join("admin.sock")).await.unwrap();
        let shutdown = CancellationToken::new();
        let client = AdminClient::new(&dir.path().join("admin.sock"));
        let server = tokio::spawn(server.run(world.node(), Router::new(), shutdown.clone()));
        (Self { dir, shutdown, server }, client)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.server).await.unwrap().unwrap();
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 0, "the socket is removed");
    }
}

fn request(image: &str, platform: Option<&str>) -> PullRequest {
    PullRequest { image: image.to_owned(), platform: platform.map(str::to_owned), background: false }
}

async fn events(client: &AdminClient, request: PullRequest) -> Vec<PullEvent> {
    let mut stream = client.pull(&request).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = timeout(DEADLINE, stream.next()).await.unwrap().unwrap() {
        events.push(event);
    }
    events
}

#[tokio::test]
async fn status_peers_and_blobs_are_told() {
    let (running, client) = Running::start(World::new()).await;
    let status = client.status().await.unwrap();
    assert_eq!((status.peers, status.blobs, status.pid), (1, 0, std::process::id()));
    assert_eq!(status.addresses, ["/ip4/10.0.0.1/tcp/2"]);
    assert_eq!(status.origins.iter().map(|origin| origin.reachable).collect::<Vec<_>>(), [true, false]);
    let peers = client.peers().await.unwrap();
    assert_eq!((peers[0].address.as_str(), peers[0].blobs), ("10.0.0.2", 3));
    assert!(client.blobs().await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_pull_streams_its_events_and_fills_the_store() {
    let mut world = World::new();
    let image = world.image("docker.io/library/app:1");
    let (running, client) = Running::start(world).await;
    let events = events(&client, request("app:1", Some("linux/arm64"))).await;
    assert!(matches!(&events[0], PullEvent::Resolved { digest, .. } if *digest == image.index.to_string()));
    let Some(PullEvent::Done(summary)) = events.last() else { panic!("{events:?}") };
    assert_eq!((summary.blobs, summary.image.as_str()), (5, "docker.io/library/app:1"));
    assert_eq!(summary.bytes_from_peers, summary.bytes);
    let blobs = client.blobs().await.unwrap();
    assert_eq!(blobs.len(), 5);
    assert!(blobs.iter().any(|blob| blob.digest == image.arm64.to_string()));
    assert!(!blobs.iter().any(|blob| blob.digest == image.amd64.to_string()));
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_image_ends_in_an_error_event_and_nonsense_is_refused() {
    let (running, client) = Running::start(World::new()).await;
    let events = events(&client, request("nobody/has:it", None)).await;
    let [PullEvent::Error { message }] = events.as_slice() else { panic!("{events:?}") };
    assert!(message.starts_with("there is no image `docker.io/nobody/has:it`"), "{message}");
    let refused = client.pull(&request("No Such:Image", None)).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(message) if message.contains("not a")), "{refused}");
    let refused = client.pull(&request("debian", Some("nonsense"))).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(message) if message.contains("not a platform")), "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_stuck_pull() {
    let mut world = World::new();
    world.image("docker.io/library/app:1");
    world.stuck = true;
    let (running, client) = Running::start(world).await;
    let mut stream = client.pull(&request("app:1", None)).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Some(PullEvent::Resolved { .. })));
    running.stop().await;
}

#[tokio::test]
async fn the_socket_is_private_a_dead_ones_is_replaced_and_a_live_ones_is_not() {
    let (running, _) = Running::start(World::new()).await;
    let path = running.dir.path().join("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(AdminServer::bind(&path).await, Err(BindError::Live(_))));
    running.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead node's socket");
    let server = AdminServer::bind(&path).await.unwrap();
    drop(server);

    let other = dir.path().join("file");
    std::fs::write(&other, "precious").unwrap();
    assert!(matches!(AdminServer::bind(&other).await, Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
}

#[tokio::test]
async fn nobody_there_is_said_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let client = AdminClient::new(&dir.path().join("admin.sock"));
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
}
