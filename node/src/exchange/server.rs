//! The serving half: accepts connections of nodes and answers ranges of verified blobs.
//!
//! Invariant: a peer that has proved who it is has a bounded number of connections, each with a deadline on
//! everything that it may leave undone. Before that, a connection is one of the total for the handshake's time.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use layermesh_proto::{ContentId, NodeId};
use libp2p::identity::Keypair;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    BLOB_SIZE, BLOBS_PATH, BlobRead, BlobSource, GROWING_PATH, GROWING_STALL_MAX, PIECES_PATH, TlsSetupError,
    range::{Requested, requested},
    tls,
    write_guard::WriteGuard,
};
use crate::{counters::Counters, pace::Pace};

/// Connections in all. A busy one holds about half a MiB (a chunk, TLS and socket buffers).
pub(super) const CONNECTIONS_MAX: usize = 100;
/// Connections of one peer: twice what a client opens, since closed ones linger for a moment.
pub(super) const CONNECTIONS_PER_PEER_MAX: usize = 16;
/// A handshake is two round trips and a millisecond or ten of arithmetic; a small CPU under load gets time.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// From the end of one request to the end of the next one's head. Clients drop idle connections earlier.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A reader that takes nothing for so long is gone; TCP's own patience is a quarter of an hour.
const WRITE_STALL_MAX: Duration = Duration::from_secs(20);
/// Wait for the source's next bytes: a damaged piece may have to be fetched again, which is given a moment.
const SOURCE_STALL_MAX: Duration = Duration::from_secs(20);
/// Transfers under way may end by themselves for so long when the node stops.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(3);
/// Pause after a failed accept: usually out of file descriptors, which others must give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes asked of the source at a time. Larger ones only cost memory: TLS cuts into 16 KiB records anyway.
const CHUNK_BYTES: usize = 128 << 10;
/// Buffer for a request's head; a legitimate one has under 300 bytes. hyper's smallest.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Headers of a request; a legitimate one has two.
const HEADERS_MAX: usize = 16;
/// A connection over its peer's limit is closed when it was told so, or has asked nothing for so long.
const BUSY_IDLE_MAX: Duration = Duration::from_secs(2);
/// What a peer that is over its connections is asked to wait.
const BUSY_RETRY_AFTER_S: u64 = 1;

/// How long a peer, or the source, may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
    pub(super) write_stall: Duration,
    pub(super) source_stall: Duration,
    pub(super) growing_stall: Duration,
}

/// A node's own; tests have shorter ones.
pub(super) const DEADLINES: Deadlines = Deadlines {
    handshake: HANDSHAKE_TIME_MAX,
    idle: IDLE_MAX,
    write_stall: WRITE_STALL_MAX,
    source_stall: SOURCE_STALL_MAX,
    growing_stall: GROWING_STALL_MAX,
};

/// Why the server cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
}

type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// Serves blobs to peers.
pub struct BulkServer<S> {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    tls: TlsAcceptor,
    source: S,
    counters: Arc<Counters>,
    deadlines: Deadlines,
    lan: Arc<Pace>,
    peers: Mutex<BTreeMap<NodeId, usize>>,
}

impl<S: BlobSource> BulkServer<S> {
    /// Listens on `addr`; port 0 takes a free one. `counters.to_peers` counts the blobs' bytes that are sent.
    ///
    /// # Errors
    /// If the address cannot be listened on, or no certificate can be made for `keypair`.
    pub async fn bind(
        addr: SocketAddr,
        keypair: &Keypair,
        source: S,
        counters: Arc<Counters>,
    ) -> Result<Self, BindError> {
        Self::bind_with(addr, keypair, source, counters, DEADLINES).await
    }

    pub(super) async fn bind_with(
        addr: SocketAddr,
        keypair: &Keypair,
        source: S,
        counters: Arc<Counters>,
        deadlines: Deadlines,
    ) -> Result<Self, BindError> {
        let tls = TlsAcceptor::from(tls::server_config(keypair)?);
        let listen = |error| BindError::Listen { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let shared =
            Shared { tls, source, counters, deadlines, lan: Arc::new(Pace::new(None)), peers: Mutex::default() };
        Ok(Self { listener, local_addr, shared: Arc::new(shared) })
    }

    /// Gives all peers together no more than this many bytes a second from now on.
    pub fn limit_rate(&self, bytes_per_s: Option<u64>) {
        self.shared.lan.set(bytes_per_s);
    }

    /// The address listened on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Counts the peers that have a connection, also once the server runs.
    #[cfg(test)]
    pub(super) fn count_peers(&self) -> impl Fn() -> usize + Send + use<S> {
        let shared = Arc::clone(&self.shared);
        move || shared.peers.lock().unwrap().len()
    }

    /// Serves until `shutdown`; then lets transfers end for a few seconds and cuts the others off.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    // At the limit a connection is closed at once, so that the client can ask somebody else.
                    Ok((_, from)) if connections.len() >= CONNECTIONS_MAX => debug!(%from, "too many bulk connections"),
                    Ok((stream, from)) => {
                        connections.spawn(Arc::clone(&self.shared).connection(stream, from, shutdown.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "cannot accept bulk connections");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        let drained = timeout(SHUTDOWN_TIME_MAX, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            connections.shutdown().await;
        }
    }
}

impl<S: BlobSource> Shared<S> {
    async fn connection(self: Arc<Self>, stream: TcpStream, from: SocketAddr, shutdown: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%from, %error, "cannot set TCP_NODELAY");
        }
        let stream = match timeout(self.deadlines.handshake, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(%from, %error, "bulk handshake failed"),
            Err(_) => return debug!(%from, "bulk handshake took too long"),
        };
        let session = stream.get_ref().1;
        // A client that names no protocol at all passes the handshake.
        let Some(peer) =
            tls::node_of(session.peer_certificates()).filter(|_| session.alpn_protocol() == Some(tls::ALPN))
        else {
            return debug!(%from, "not a bulk client");
        };
        let slot = PeerSlot::take(Arc::clone(&self), peer);
        let service = service_fn(|request| {
            let (shared, busy) = (Arc::clone(&self), slot.is_none());
            async move { Ok::<_, Infallible>(if busy { busy_answer() } else { shared.answer(&request).await }) }
        });
        let idle_max = if slot.is_some() { self.deadlines.idle } else { BUSY_IDLE_MAX };
        let io = TokioIo::new(WriteGuard::new(stream, self.deadlines.write_stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle_max)
            .max_headers(HEADERS_MAX)
            .max_buf_size(REQUEST_BYTES_MAX)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %from, %error, "bulk connection broke off");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<AnswerBody> {
        let path = request.uri().path();
        let cid = |prefix| path.strip_prefix(prefix).map(ContentId::from_cid_text);
        if let (&Method::GET, Some(Ok(content))) = (request.method(), cid(GROWING_PATH)) {
            return self.growing(content, request).await;
        }
        match (request.method(), cid(PIECES_PATH), cid(BLOBS_PATH).or_else(|| cid(GROWING_PATH))) {
            (&Method::GET, Some(Ok(content)), _) => self.piece_map(&content).await,
            (&Method::GET | &Method::HEAD, _, Some(Ok(content))) if cid(BLOBS_PATH).is_some() => {
                self.blob(content, request)
            }
            (_, Some(Ok(_)), _) | (_, _, Some(Ok(_))) => plain(StatusCode::METHOD_NOT_ALLOWED),
            (_, Some(Err(_)), _) | (_, _, Some(Err(_))) => plain(StatusCode::BAD_REQUEST),
            _ => plain(StatusCode::NOT_FOUND),
        }
    }

    async fn piece_map(&self, content: &ContentId) -> Response<AnswerBody> {
        let Some(map) = self.source.piece_map(content).await else { return plain(StatusCode::NOT_FOUND) };
        let body = Full::new(Bytes::from(map.to_bytes())).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        response.headers_mut().insert(BLOB_SIZE, HeaderValue::from(map.layout().blob_size()));
        response
    }

    fn blob(&self, content: ContentId, request: &Request<Incoming>) -> Response<AnswerBody> {
        match self.source.size_of(&content) {
            Some(size) => self.range(content, size, request, self.deadlines.source_stall),
            None => plain(StatusCode::NOT_FOUND),
        }
    }

    /// A blob that may still be landing. Whoever asks has heard that it is about to, so it is given time to begin.
    async fn growing(&self, content: ContentId, request: &Request<Incoming>) -> Response<AnswerBody> {
        match timeout(self.deadlines.source_stall, self.source.reader(content).size()).await {
            Ok(size) => self.range(content, size, request, self.deadlines.growing_stall),
            Err(_) => plain(StatusCode::NOT_FOUND),
        }
    }

    fn range(
        &self,
        content: ContentId,
        size: u64,
        request: &Request<Incoming>,
        stall_max: Duration,
    ) -> Response<AnswerBody> {
        let asked = request.headers().get(header::RANGE).map(HeaderValue::as_bytes);
        let (status, bytes) = match requested(asked, size) {
            Requested::Whole => (StatusCode::OK, 0..size),
            Requested::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
            Requested::Unsatisfiable => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
                insert(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
                return response;
            }
        };
        let len = bytes.end - bytes.start;
        let mut response = plain(status);
        if status == StatusCode::PARTIAL_CONTENT {
            let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
            insert(&mut response, header::CONTENT_RANGE, range);
        }
        insert(&mut response, header::CONTENT_LENGTH, len.to_string());
        if request.method() == Method::GET && len > 0 {
            let reader = self.source.reader(content);
            let body = BlobBody::new(reader, bytes.start, len, stall_max, self);
            *response.body_mut() = body.boxed_unsync();
        }
        response
    }
}

fn plain(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn busy_answer() -> Response<AnswerBody> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    insert(&mut response, header::RETRY_AFTER, BUSY_RETRY_AFTER_S.to_string());
    insert(&mut response, header::CONNECTION, "close".to_owned());
    response
}

fn insert(response: &mut Response<AnswerBody>, name: header::HeaderName, value: String) {
    // Numbers and fixed words: always a valid header value.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// One of a peer's connections, counted while it lives.
struct PeerSlot<S> {
    shared: Arc<Shared<S>>,
    peer: NodeId,
}

impl<S> PeerSlot<S> {
    fn take(shared: Arc<Shared<S>>, peer: NodeId) -> Option<Self> {
        {
            let mut peers = shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = peers.entry(peer).or_default();
            if *taken >= CONNECTIONS_PER_PEER_MAX {
                return None;
            }
            *taken += 1;
        }
        Some(Self { shared, peer })
    }
}

impl<S> Drop for PeerSlot<S> {
    fn drop(&mut self) {
        let mut peers = self.shared.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = peers.get_mut(&self.peer) {
            *taken -= 1;
            if *taken == 0 {
                peers.remove(&self.peer);
            }
        }
    }
}

/// A run of a blob's bytes as a body of known length. An error, also of a source that ends early, makes hyper
/// close the connection without ending the body.
struct BlobBody {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    remaining: u64,
    counters: Arc<Counters>,
}

impl BlobBody {
    fn new<R: BlobRead, S>(reader: R, start: u64, len: u64, stall_max: Duration, shared: &Shared<S>) -> Self {
        let end = start + len;
        let (lan, counters) = (Arc::clone(&shared.lan), Arc::clone(&shared.counters));
        let start = (reader, start, lan);
        let bytes = futures::stream::try_unfold(start, move |(mut reader, offset, lan)| async move {
            if offset >= end {
                return Ok(None);
            }
            let chunk_max = CHUNK_BYTES.min(usize::try_from(lan.chunk_bytes()).unwrap_or(CHUNK_BYTES));
            let max = usize::try_from(end - offset).map_or(chunk_max, |left| left.min(chunk_max));
            let chunk = timeout(stall_max, reader.read(offset, max)).await??;
            lan.pass(chunk.len() as u64).await;
            let next = offset + chunk.len() as u64;
            Ok(Some((chunk, (reader, next, lan))))
        });
        Self { bytes: bytes.boxed(), remaining: len, counters }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.bytes.poll_next_unpin(cx)) {
            Some(Ok(chunk)) if !chunk.is_empty() && chunk.len() as u64 <= self.remaining => {
                self.remaining -= chunk.len() as u64;
                self.counters.to_peers.add(chunk.len() as u64);
                Ok(Frame::data(chunk))
            }
            Some(Ok(_)) | None => Err(io::Error::other("the source gave another number of bytes than asked for")),
            Some(Err(error)) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
