//! Over a real unix socket, with a fake store and driver.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::{
    admin::{
        client::{AdminClient, ClientError},
        testing::World,
    },
    status::{Site, site_routes},
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
        let server = AdminServer::bind(&dir.path().join("admin.sock"), None).await.unwrap();
        let shutdown = CancellationToken::new();
        let client = AdminClient::new(&dir.path().join("admin.sock"));
        let node = world.node();
        let site = site_routes(Site::new(node.clone()));
        let server = tokio::spawn(server.run(node, site, shutdown.clone()));
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
    let site = client.site().await.unwrap();
    assert_eq!((site.node.peer_id, site.node.pid), (status.peer_id, status.pid));
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
    assert!(matches!(AdminServer::bind(&path, None).await, Err(BindError::Live(_))));
    running.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead node's socket");
    let server = AdminServer::bind(&path, None).await.unwrap();
    drop(server);

    let other = dir.path().join("file");
    std::fs::write(&other, "precious").unwrap();
    assert!(matches!(AdminServer::bind(&other, None).await, Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&other).unwrap(), b"precious");
}

#[tokio::test]
async fn a_group_may_use_the_socket_if_the_nodes_user_may_give_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let mine = nix::unistd::getgid();
    let server = AdminServer::bind(&path, Some(mine)).await.unwrap();
    let found = std::fs::metadata(&path).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, mine.as_raw()));
    drop(server);
    if !nix::unistd::geteuid().is_root() {
        let result = AdminServer::bind(&path, Some(0.into())).await;
        assert!(matches!(result, Err(BindError::Group { group: 0, .. })), "{result:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let client = AdminClient::new(&dir.path().join("admin.sock"));
    assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test]
async fn an_image_is_pinned_as_far_as_it_is_known_and_unpinned_by_its_name() {
    let mut world = World::new();
    let image = world.image("docker.io/library/app:1");
    let (running, client) = Running::start(world).await;
    let request = |image: &str| PinRequest { images: vec![image.to_owned()], platform: Some("linux/arm64".to_owned()) };
    // Nothing of it is held: what it needs is not known.
    let pinned = client.pin(&request("app:1")).await.unwrap();
    assert_eq!((pinned[0].blobs, pinned[0].unread.len(), pinned[0].missing.len()), (1, 1, 1));
    events(&client, self::request("app:1", Some("linux/arm64"))).await;
    let pinned = client.pin(&request("app:1")).await.unwrap();
    assert_eq!((pinned[0].blobs, pinned[0].unread.len(), pinned[0].missing.len()), (5, 0, 0));
    assert_eq!(pinned[0].digest, image.index.to_string());
    let owner = "user/docker.io/library/app:1";
    assert!(client.blobs().await.unwrap().iter().all(|blob| blob.pinned_by == [owner]));
    // A digest, too: of a manifest with what it names, and of any other blob by itself.
    let layer = client.blobs().await.unwrap().iter().find(|blob| blob.size == 12).unwrap().digest.clone();
    let digests = PinRequest { images: vec![image.arm64.to_string(), layer.clone()], platform: None };
    let pinned = client.pin(&digests).await.unwrap();
    assert_eq!(pinned.iter().map(|image| image.blobs).collect::<Vec<_>>(), [4, 1]);
    assert!(client.gc(&GcRequest { to: Some(0), dry_run: false }).await.unwrap().removed.is_empty());

    let unpin = |image: &str| UnpinRequest { images: vec![image.to_owned()], owners: Vec::new() };
    assert_eq!(client.unpin(&unpin("docker.io/app:1")).await.unwrap()[0].digests.len(), 5);
    let refused = client.unpin(&unpin("app:1")).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(message) if message.contains("is not pinned")), "{refused}");
    let by_owner = UnpinRequest { images: Vec::new(), owners: vec![format!("user/{}", image.arm64)] };
    client.unpin(&by_owner).await.unwrap();
    assert_eq!(client.pins().await.unwrap().len(), 1);
    let report = client.gc(&GcRequest { to: Some(0), dry_run: true }).await.unwrap();
    assert_eq!((report.removed.len(), client.blobs().await.unwrap().len()), (4, 5));
    for nonsense in ["", "No Such"] {
        assert!(matches!(client.pin(&request(nonsense)).await, Err(ClientError::Refused(_))), "{nonsense}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_verification_tells_what_is_damaged_and_repairs_it_from_elsewhere() {
    let world = World::new();
    let (good, lost) = (world.elsewhere.put("good"), world.elsewhere.put("lost elsewhere, too"));
    let dir = tempfile::tempdir().unwrap();
    let server = AdminServer::bind(&dir.path().join("admin.sock"), None).await.unwrap();
    world.elsewhere.remove(&lost);
    let view = world.node();
    for text in ["fine", "good", "lost elsewhere, too"] {
        view.store.put(text);
    }
    view.store.damaged.lock().unwrap().extend([good, lost]);
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(server.run(view, Router::new(), shutdown.clone()));
    let client = AdminClient::new(&dir.path().join("admin.sock"));
    let mut stream = client.verify(&VerifyRequest::default()).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = timeout(DEADLINE, stream.next()).await.unwrap().unwrap() {
        events.push(event);
    }
    let Some(VerifyEvent::Done(summary)) = events.last() else { panic!("{events:?}") };
    assert_eq!((summary.verified, summary.damaged, summary.repaired), (3, 2, 1));
    assert!(events.contains(&VerifyEvent::Repaired { digest: good.to_string() }));
    assert!(
        events.iter().any(|event| matches!(event, VerifyEvent::Failed { digest, .. } if *digest == lost.to_string()))
    );
    assert_eq!(client.blobs().await.unwrap().len(), 2);
    shutdown.cancel();
    timeout(DEADLINE, served).await.unwrap().unwrap();
}
