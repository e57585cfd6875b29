//! Server and client over loopback.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use futures::StreamExt as _;
use layermesh_proto::{ContentId, NodeId, PieceIndex, engine::event::SourceError, piece::PIECE_LEN_MIN};
use libp2p::identity::Keypair;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    memory::{Fault, MemorySource},
    server::{self, CONNECTIONS_PER_PEER_MAX, Deadlines, HANDSHAKES_MAX},
    slots::Limits,
    tls::{self, ClientTls},
    uploads::Uploads,
    *,
};
use crate::{counters::Counters, fleet::Fleet};

/// Nothing here takes a tenth of it, unless it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const PIECE: u64 = PIECE_LEN_MIN as u64;

mod admission;
mod uploads_of_a_server;

struct Server {
    peer: NodeId,
    addr: SocketAddr,
    source: MemorySource,
    counters: Arc<Counters>,
    peers: Box<dyn Fn() -> usize + Send>,
    uploads: Arc<Uploads>,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
}

fn node_of(keypair: &Keypair) -> NodeId {
    NodeId::from_peer_id_bytes(&keypair.public().to_peer_id().to_bytes()).unwrap()
}

async fn server() -> Server {
    server_with(server::DEADLINES).await
}

async fn server_with(deadlines: Deadlines) -> Server {
    server_of(deadlines, uploads::LIMITS).await
}

async fn server_of(deadlines: Deadlines, limits: Limits) -> Server {
    server_in(Keypair::generate_ed25519(), &Fleet::open(), deadlines, limits).await
}

async fn server_in(keypair: Keypair, fleet: &Fleet, deadlines: Deadlines, limits: Limits) -> Server {
    let (source, counters, shutdown) = (MemorySource::default(), Arc::<Counters>::default(), CancellationToken::new());
    let loopback = ([127, 0, 0, 1], 0).into();
    let server = BulkServer::bind_with(
        loopback,
        (&keypair, fleet),
        source.clone(),
        Arc::clone(&counters),
        deadlines,
        (server::CONNECTIONS_MAX, limits),
    )
    .await
    .unwrap();
    let (addr, peers, uploads) = (server.local_addr(), Box::new(server.count_peers()), server.uploads());
    let ended = tokio::spawn(server.run(shutdown.clone()));
    Server { peer: node_of(&keypair), addr, source, counters, peers, uploads, shutdown, ended }
}

fn client() -> BulkClient {
    BulkClient::new(&Keypair::generate_ed25519(), &Fleet::open()).unwrap()
}

fn blob(len: u64) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

impl Server {
    async fn open(
        &self,
        client: &BulkClient,
        content: ContentId,
        pieces: Range<PieceIndex>,
    ) -> Result<BulkBody, SourceError> {
        timeout(PATIENCE, client.open(self.peer, self.addr, content, None, pieces)).await.unwrap()
    }

    async fn fetch(&self, client: &BulkClient, content: ContentId, pieces: Range<PieceIndex>) -> Vec<u8> {
        collect(self.open(client, content, pieces).await.unwrap()).await.unwrap()
    }

    /// A connection without the client around it.
    async fn connect(&self, tls: &ClientTls) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.addr).await?;
        TlsConnector::from(tls.expecting(self.peer)).connect(self.addr.ip().into(), stream).await
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect(&ClientTls::new(&Keypair::generate_ed25519()).unwrap()).await.unwrap();
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).to_lowercase()
    }
}

async fn collect(mut body: BulkBody) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = timeout(PATIENCE, body.stream.next()).await.unwrap() {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

#[tokio::test]
async fn whole_blobs_runs_and_the_short_last_piece() {
    let server = server().await;
    let bytes = blob(PIECE * 3 + 5);
    let content = server.source.insert(bytes.clone());
    let client = client();
    let body = server.open(&client, content, 0..u32::MAX).await.unwrap();
    assert_eq!((body.pieces.clone(), body.layout.blob_size()), (0..4, bytes.len() as u64));
    assert_eq!(body.map.as_ref().unwrap().hash(3), Some(layermesh_proto::PieceHash::of(&bytes[PIECE as usize * 3..])));
    assert_eq!(collect(body).await.unwrap(), bytes);
    assert_eq!(server.fetch(&client, content, 1..3).await, bytes[PIECE as usize..PIECE as usize * 3]);
    assert_eq!(server.fetch(&client, content, 3..4).await, bytes[PIECE as usize * 3..]);
    assert_eq!(server.fetch(&client, content, 4..9).await, b"");
    assert_eq!(server.counters.to_peers.get(), bytes.len() as u64 + PIECE * 2 + 5, "bytes of blobs, not of maps");
    assert_eq!((client.pool().idle(), client.pool().open()), (1, 1), "one connection served it all");
}

#[tokio::test]
async fn blobs_that_may_still_grow_come_without_a_map() {
    let server = server_with(Deadlines { source_stall: SHORT, ..server::DEADLINES }).await;
    let bytes = blob(PIECE * 3 + 5);
    let content = server.source.insert(bytes.clone());
    let client = client();
    let open = async |content, size, pieces| {
        timeout(PATIENCE, client.open_growing(server.peer, server.addr, content, size, pieces)).await.unwrap()
    };
    let body = open(content, None, 0..u32::MAX).await.unwrap();
    assert_eq!((body.pieces.clone(), body.layout.blob_size(), body.map.is_none()), (0..4, bytes.len() as u64, true));
    assert_eq!(collect(body).await.unwrap(), bytes);
    let size = Some(bytes.len() as u64);
    let rest = open(content, size, 2..9).await.unwrap();
    assert_eq!(collect(rest).await.unwrap(), bytes[PIECE as usize * 2..]);
    let middle = open(content, size, 1..2).await.unwrap();
    assert_eq!(collect(middle).await.unwrap(), bytes[PIECE as usize..PIECE as usize * 2]);
    assert!(matches!(open(content, Some(7), 0..1).await, Err(SourceError::Failed(_))), "of another size");
    let empty = server.source.insert(vec![]);
    assert_eq!(collect(open(empty, None, 0..u32::MAX).await.unwrap()).await.unwrap(), b"");
    let unknown = ContentId::of(layermesh_proto::Algorithm::Sha256, b"nobody has begun this");
    assert_eq!(open(unknown, None, 0..u32::MAX).await.unwrap_err(), SourceError::NotFound);
}

#[tokio::test]
async fn a_growing_blob_without_news_for_too_long_is_cut_off() {
    let server = server_with(Deadlines { growing_stall: SHORT, ..server::DEADLINES }).await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let body = client().open_growing(server.peer, server.addr, content, None, 0..u32::MAX).await.unwrap();
    let broken = collect(body).await;
    assert!(matches!(broken, Err(SourceError::Unreachable(_))), "{broken:?}");
}

#[tokio::test]
async fn empty_blobs_are_blobs() {
    let server = server().await;
    let content = server.source.insert(vec![]);
    assert_eq!(server.fetch(&client(), content, 0..u32::MAX).await, b"");
}

#[tokio::test]
async fn what_is_not_held_is_not_found_and_a_known_size_must_agree() {
    let server = server().await;
    let (client, missing) = (client(), ContentId::of(layermesh_proto::Algorithm::Sha256, b"missing"));
    assert_eq!(server.open(&client, missing, 0..1).await.unwrap_err(), SourceError::NotFound);
    assert_eq!(client.pool().idle(), 1, "the connection is as good as before");
    let content = server.source.insert(blob(10));
    let opened = client.open(server.peer, server.addr, content, Some(11), 0..1).await;
    assert!(matches!(opened, Err(SourceError::Failed(_))), "{opened:?}");
    let opened = client.open(server.peer, server.addr, content, Some(10), 0..1).await.unwrap();
    assert_eq!(collect(opened).await.unwrap(), blob(10));
}

#[tokio::test]
async fn answers_of_the_server() {
    let server = server().await;
    let content = server.source.insert(b"0123456789".to_vec());
    let cid = content.to_cid();
    let head = server.ask(&format!("HEAD /blobs/{cid} HTTP/1.1")).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"));
    let part = server.ask(&format!("GET /blobs/{cid} HTTP/1.1\r\nRange: bytes=-3")).await;
    assert!(part.starts_with("http/1.1 206") && part.contains("content-range: bytes 7-9/10\r\n"), "{part}");
    assert!(part.ends_with("\r\n\r\n789"), "{part}");
    let beyond = server.ask(&format!("GET /blobs/{cid} HTTP/1.1\r\nRange: bytes=10-")).await;
    assert!(beyond.starts_with("http/1.1 416") && beyond.contains("content-range: bytes */10\r\n"), "{beyond}");
    let map = server.ask(&format!("GET /pieces/{cid} HTTP/1.1")).await;
    assert!(map.starts_with("http/1.1 200") && map.contains("layermesh-blob-size: 10\r\n"), "{map}");
    for (request, status) in [
        (format!("POST /blobs/{cid}"), "405"),
        (format!("HEAD /pieces/{cid}"), "405"),
        ("GET /blobs/junk".to_owned(), "400"),
        ("GET /blobs/../secret".to_owned(), "400"),
        ("GET /".to_owned(), "404"),
    ] {
        let answer = server.ask(&format!("{request} HTTP/1.1")).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn ten_times_the_head_is_refused_unread() {
    let server = server().await;
    let content = server.source.insert(blob(9));
    let long = format!("X: {}\r\n", "x".repeat(10 * server::REQUEST_BYTES_MAX));
    let many: String = (0..10 * server::HEADERS_MAX).map(|n| format!("X-{n}: x\r\n")).collect();
    let target = "x".repeat(10 * server::REQUEST_BYTES_MAX);
    let path = content.to_cid();
    for (target, headers) in [(format!("blobs/{path}"), long), (format!("blobs/{path}"), many), (target, String::new())]
    {
        let mut stream = server.connect(&ClientTls::new(&Keypair::generate_ed25519()).unwrap()).await.unwrap();
        let head = format!("GET /{target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // It hangs up while there is more to come: what it said may be lost with that.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it hangs up");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["", "431", "414", "400"].contains(&status), "{answer}");
    }
    assert_eq!(server.counters.to_peers.get(), 0);
    assert_eq!(server.fetch(&client(), content, 0..1).await, blob(9));
}

#[tokio::test]
async fn many_runs_side_by_side_and_the_limit_of_a_client() {
    let server = server().await;
    let bytes = blob(PIECE * 64);
    let content = server.source.insert(bytes.clone());
    let client = client();
    let bodies: Vec<_> = futures::future::join_all(
        (0..pool::CONNECTIONS_PER_PEER_MAX as u32).map(|run| server.open(&client, content, run * 8..run * 8 + 8)),
    )
    .await
    .into_iter()
    .map(Result::unwrap)
    .collect();
    let busy = server.open(&client, content, 0..1).await;
    assert_eq!(busy.unwrap_err(), SourceError::RateLimited { retry_after: None });
    let runs = futures::future::join_all(bodies.into_iter().map(collect)).await;
    let all: Vec<u8> = runs.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(all, bytes);
    assert_eq!(server.fetch(&client, content, 5..6).await, bytes[PIECE as usize * 5..PIECE as usize * 6]);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_and_its_connection_is_not_used_again() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::FailAt(PIECE * 3));
    let client = client();
    let broken = collect(server.open(&client, content, 0..8).await.unwrap()).await;
    assert!(matches!(broken, Err(SourceError::Unreachable(_))), "{broken:?}");
    assert_eq!(client.pool().idle(), 0);
    assert_eq!(server.fetch(&client, content, 0..3).await, blob(PIECE * 3));
}

#[tokio::test]
async fn wrong_bytes_come_with_the_map_that_shows_it() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 2));
    server.source.fault(content, Fault::WrongByte(PIECE + 9));
    let body = server.open(&client(), content, 0..2).await.unwrap();
    let map = body.map.clone().unwrap();
    let bytes = collect(body).await.unwrap();
    let hash = |piece: usize| layermesh_proto::PieceHash::of(&bytes[piece * PIECE as usize..][..PIECE as usize]);
    assert_eq!((map.hash(0) == Some(hash(0)), map.hash(1) == Some(hash(1))), (true, false));
}

#[tokio::test]
async fn a_blob_whose_map_and_size_do_not_fit_fails() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 2));
    server.source.claim_size(content, PIECE * 2 - 1);
    let opened = server.open(&client(), content, 1..2).await;
    assert!(matches!(opened, Err(SourceError::Failed(_))), "{opened:?}");
}

#[tokio::test]
async fn a_cancelled_transfer_frees_its_connection() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let client = client();
    let mut body = server.open(&client, content, 0..8).await.unwrap();
    timeout(PATIENCE, body.stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(client.pool().open(), 1);
    drop(body);
    timeout(PATIENCE, async {
        while client.pool().open() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

/// Long enough for a step that goes well, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_peer_that_stalls_is_given_up() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let stalled = collect(server.open(&client().with_stall_max(SHORT), content, 0..8).await.unwrap()).await;
    assert_eq!(stalled.unwrap_err(), SourceError::Unreachable("stalled".to_owned()));
}

#[tokio::test]
async fn a_source_that_stalls_breaks_the_answer_off() {
    let server = server_with(Deadlines { source_stall: SHORT, ..server::DEADLINES }).await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let broken = collect(server.open(&client(), content, 0..8).await.unwrap()).await;
    assert!(matches!(broken, Err(SourceError::Unreachable(_))), "{broken:?}");
}

#[tokio::test]
async fn a_reader_that_stops_loses_its_connection() {
    let server = server_with(Deadlines { write_stall: SHORT, ..server::DEADLINES }).await;
    // More than the sockets' buffers hold.
    let content = server.source.insert(vec![7; 64 << 20]);
    let client = client();
    let mut body = server.open(&client, content, 0..u32::MAX).await.unwrap();
    timeout(PATIENCE, body.stream.next()).await.unwrap().unwrap().unwrap();
    timeout(PATIENCE, async {
        while (server.peers)() > 0 {
            tokio::time::sleep(SHORT / 10).await;
        }
    })
    .await
    .unwrap();
    assert!(matches!(collect(body).await, Err(SourceError::Unreachable(_))));
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let server = server_with(Deadlines { idle: SHORT, ..server::DEADLINES }).await;
    let mut stream = server.connect(&ClientTls::new(&Keypair::generate_ed25519()).unwrap()).await.unwrap();
    let ended = timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let server = server_with(Deadlines { handshake: SHORT, ..server::DEADLINES }).await;
    let mut half_open = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(timeout(PATIENCE, half_open.read(&mut [0])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn another_nodes_certificate_is_refused() {
    let server = server().await;
    let content = server.source.insert(blob(1));
    let other = node_of(&Keypair::generate_ed25519());
    let opened = client().open(other, server.addr, content, None, 0..1).await;
    assert_eq!(opened.unwrap_err(), SourceError::Failed("another node is at the peer's address".to_owned()));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let port_of_nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let keypair = Keypair::generate_ed25519();
    let content = ContentId::of(layermesh_proto::Algorithm::Sha256, b"");
    let opened = client().open(node_of(&keypair), port_of_nobody, content, None, 0..1).await;
    assert!(matches!(opened, Err(SourceError::Unreachable(_))), "{opened:?}");
}

#[tokio::test]
async fn clients_without_a_certificate_or_with_tls_1_2_or_none_get_nothing() {
    let server = server().await;
    server.source.insert(blob(1));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anybody = |versions: &[&'static rustls::SupportedProtocolVersion]| {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(tls::any_node())
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    };
    let address = server.addr.ip().into();
    let tls12 = anybody(&[&rustls::version::TLS12]).connect(address, TcpStream::connect(server.addr).await.unwrap());
    assert!(timeout(PATIENCE, tls12).await.unwrap().is_err());

    // In TLS 1.3 the client is done before the server has seen that a certificate is missing.
    let address = server.addr.ip().into();
    let tls13 = anybody(&[&rustls::version::TLS13]).connect(address, TcpStream::connect(server.addr).await.unwrap());
    let mut stream = timeout(PATIENCE, tls13).await.unwrap().unwrap();
    assert!(timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.unwrap().is_err());

    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The server may reset the connection for the bytes that it did not read.
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn a_peer_over_its_connections_is_told_to_wait_and_others_are_served() {
    let server = server().await;
    let content = server.source.insert(blob(9));
    let crowd = Keypair::generate_ed25519();
    let tls = ClientTls::new(&crowd).unwrap();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_PEER_MAX {
        let mut stream = server.connect(&tls).await.unwrap();
        stream.write_all(b"HEAD /blobs/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        timeout(PATIENCE, stream.read(&mut [0; 12])).await.unwrap().unwrap();
        held.push(stream);
    }
    let crowded = BulkClient::new(&crowd, &Fleet::open()).unwrap();
    let busy = server.open(&crowded, content, 0..1).await.unwrap_err();
    assert_eq!(busy, SourceError::RateLimited { retry_after: Some(Duration::from_secs(1)) });
    assert_eq!(server.fetch(&client(), content, 0..1).await, blob(9));
}

#[tokio::test]
async fn ten_times_the_handshakes_are_closed_but_for_the_limit_and_keep_nobody_out() {
    let server = server_with(Deadlines { handshake: PATIENCE * 2, ..server::DEADLINES }).await;
    let mut closed = JoinSet::new();
    for _ in 0..10 * HANDSHAKES_MAX {
        let mut silent = TcpStream::connect(server.addr).await.unwrap();
        closed.spawn(async move { silent.read(&mut [0]).await });
    }
    for _ in 0..9 * HANDSHAKES_MAX {
        assert!(!matches!(timeout(PATIENCE, closed.join_next()).await.unwrap().unwrap().unwrap(), Ok(1..)));
    }
    // Those that are left say nothing, and so make room.
    timeout(PATIENCE, async {
        loop {
            let tls = ClientTls::new(&Keypair::generate_ed25519()).unwrap();
            if server.connect(&tls).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_server_that_stops_ends_transfers_with_an_error() {
    let server = server().await;
    let content = server.source.insert(blob(PIECE * 8));
    server.source.fault(content, Fault::StallAt(PIECE * 2));
    let body = server.open(&client(), content, 0..8).await.unwrap();
    server.shutdown.cancel();
    let broken = collect(body).await;
    assert!(matches!(broken, Err(SourceError::Unreachable(_))), "{broken:?}");
    timeout(PATIENCE, server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_replaced() {
    let first = server().await;
    let (client, bytes) = (client(), blob(PIECE));
    let content = first.source.insert(bytes.clone());
    assert_eq!(first.fetch(&client, content, 0..1).await, bytes);
    assert_eq!(client.pool().idle(), 1);
    first.shutdown.cancel();
    timeout(PATIENCE, first.ended).await.unwrap().unwrap();
    let opened = client.open(first.peer, first.addr, content, None, 0..1).await;
    assert!(matches!(opened, Err(SourceError::Unreachable(_))), "{opened:?}");
    assert_eq!(client.pool().idle(), 0);
}

/// A peer that answers questions for piece maps and for blobs with these bytes.
async fn scripted(map: String, blob: String) -> (NodeId, SocketAddr) {
    let keypair = Keypair::generate_ed25519();
    let acceptor = TlsAcceptor::from(tls::server_config(&keypair, &Fleet::open()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = [0; 1024];
            while !matches!(stream.read(&mut request).await, Ok(0) | Err(_)) {
                let answer = if request.starts_with(b"GET /pieces/") { &map } else { &blob };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    (node_of(&keypair), addr)
}

#[tokio::test]
async fn answers_that_make_no_sense_fail() {
    let content = ContentId::of(layermesh_proto::Algorithm::Sha256, b"x");
    let map = "0".repeat(32);
    for answer in [
        "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 206 Partial\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n{map}"),
        format!("HTTP/1.1 200 OK\r\nlayermesh-blob-size: 999999999\r\ncontent-length: 32\r\n\r\n{map}"),
        format!("HTTP/1.1 200 OK\r\nlayermesh-blob-size: -1\r\ncontent-length: 32\r\n\r\n{map}"),
        format!("HTTP/1.1 200 OK\r\nlayermesh-blob-size: {}\r\ncontent-length: 32\r\n\r\n{map}", u64::MAX),
        format!(
            "HTTP/1.1 200 OK\r\nlayermesh-blob-size: 5\r\ntransfer-encoding: chunked\r\n\r\n20\r\n{map}\r\n0\r\n\r\n"
        ),
        // A piece map that fits, and then the same as the blob: 32 bytes where 5 were asked for.
        format!("HTTP/1.1 200 OK\r\nlayermesh-blob-size: 5\r\ncontent-length: 32\r\n\r\n{map}"),
        "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
    ] {
        let (peer, addr) = scripted(answer.clone(), answer.clone()).await;
        let opened = timeout(PATIENCE, client().open(peer, addr, content, None, 0..1)).await.unwrap();
        assert!(matches!(opened, Err(SourceError::Failed(_))), "{answer}: {opened:?}");
    }
}

#[tokio::test]
async fn another_range_than_asked_for_fails() {
    let content = ContentId::of(layermesh_proto::Algorithm::Sha256, b"x");
    let map = format!("HTTP/1.1 200 OK\r\nlayermesh-blob-size: {}\r\ncontent-length: 64\r\n\r\n", PIECE + 5)
        + &"0".repeat(64);
    let ranges =
        [format!("bytes 0-4/{}", PIECE + 5), format!("bytes {PIECE}-{}/{}", PIECE + 4, PIECE + 6), String::new()];
    for range in ranges {
        let blob = format!("HTTP/1.1 206 Partial\r\ncontent-range: {range}\r\ncontent-length: 5\r\n\r\nabcde");
        let (peer, addr) = scripted(map.clone(), blob).await;
        let opened = timeout(PATIENCE, client().open(peer, addr, content, None, 1..2)).await.unwrap();
        assert!(matches!(opened, Err(SourceError::Failed(_))), "{range}: {opened:?}");
    }
    let range = format!("bytes {PIECE}-{}/{}", PIECE + 4, PIECE + 5);
    let blob = format!("HTTP/1.1 206 Partial\r\ncontent-range: {range}\r\ncontent-length: 5\r\n\r\nabcde");
    let (peer, addr) = scripted(map, blob).await;
    let body = client().open(peer, addr, content, None, 1..2).await.unwrap();
    assert_eq!(collect(body).await.unwrap(), b"abcde");
}

#[tokio::test]
async fn busy_peers_say_how_long() {
    let content = ContentId::of(layermesh_proto::Algorithm::Sha256, b"x");
    let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let (peer, addr) = scripted(busy.to_owned(), busy.to_owned()).await;
    let opened = client().open(peer, addr, content, None, 0..1).await;
    assert_eq!(opened.unwrap_err(), SourceError::RateLimited { retry_after: Some(Duration::from_secs(7)) });
}
