//! The serving half: accepts connections of nodes, whose requests are answered by `answer`.
//!
//! Invariant: nobody is answered whom the fleet does not let in, and a connection ends when its peer is out. A peer that has
//! proved who it is has a bounded number of connections, each with a deadline on
//! everything that it may leave undone. Before that, a connection is one of the total for the handshake's time.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use layermesh_proto::NodeId;
use libp2p::identity::Keypair;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, warn};

use super::{
    BlobSource, GROWING_STALL_MAX, TlsSetupError,
    answer::{Answers, busy_and_close},
    slots, tls,
    uploads::{self, Uploads},
};
use crate::{
    counters::Counters,
    crowd::{Crowd, Place, Places, Source},
    fleet::{Door, Fleet, Refusal},
    pace::Pace,
};

/// Connections in all, unless told otherwise. A busy one holds about half a MiB (a chunk, TLS and socket buffers).
pub(super) const CONNECTIONS_MAX: usize = 100;
/// Handshakes under way; whoever is at one is nobody yet, so they have no part in the connections of peers.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// Of one address: a client dials two or three at once.
const HANDSHAKES_PER_ADDRESS_MAX: usize = 8;
/// Where all handshakes are taken, one on which nothing came for so long makes room.
const HANDSHAKE_IDLE_MIN: Duration = Duration::from_secs(2);
/// Connections of one address: three nodes' worth of what a client opens, should several be behind it.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 24;
/// Where all connections are taken, one on which nothing moved for so long makes room. A client may keep it idle, or have its
/// answer wait for what is growing; it dials again.
const CONNECTION_IDLE_MIN: Duration = Duration::from_secs(5);
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
/// Buffer for a request's head; a legitimate one has under 300 bytes. hyper's smallest.
pub(super) const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Headers of a request; a legitimate one has two.
pub(super) const HEADERS_MAX: usize = 16;
/// A connection over its peer's limit is closed when it was told so, or has asked nothing for so long.
const BUSY_IDLE_MAX: Duration = Duration::from_secs(2);
/// Wait for an upload slot, before an answer. Twice what the last of eighty peers waits for its first; a client gives up
/// after 10 s, and another source may be free.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(3);

/// How long a peer, or the source, may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
    pub(super) write_stall: Duration,
    pub(super) source_stall: Duration,
    pub(super) growing_stall: Duration,
    pub(super) upload_wait: Duration,
}

/// A node's own; tests have shorter ones.
pub(super) const DEADLINES: Deadlines = Deadlines {
    handshake: HANDSHAKE_TIME_MAX,
    idle: IDLE_MAX,
    write_stall: WRITE_STALL_MAX,
    source_stall: SOURCE_STALL_MAX,
    growing_stall: GROWING_STALL_MAX,
    upload_wait: UPLOAD_WAIT_MAX,
};

/// How much a server does at once.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections in all, each of which may hold half a MiB.
    pub connections: usize,
    /// Bodies that send at once.
    pub uploads: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections: CONNECTIONS_MAX, uploads: uploads::LIMITS.slots }
    }
}

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

/// Serves blobs to peers.
pub struct BulkServer<S> {
    listener: TcpListener,
    local_addr: SocketAddr,
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    tls: TlsAcceptor,
    fleet: Fleet,
    answers: Answers<S>,
    handshakes: Crowd,
    connections: Crowd,
    peers: Mutex<BTreeMap<NodeId, usize>>,
}

impl<S: BlobSource> BulkServer<S> {
    /// Listens on `addr`; port 0 takes a free one. `counters.to_peers` counts the blobs' bytes that are sent.
    ///
    /// # Errors
    /// If the address cannot be listened on, or no certificate can be made for the key pair.
    pub async fn bind(
        addr: SocketAddr,
        own: (&Keypair, &Fleet),
        source: S,
        counters: Arc<Counters>,
        limits: ServerLimits,
    ) -> Result<Self, BindError> {
        let slots = slots::Limits { slots: limits.uploads, ..uploads::LIMITS };
        Self::bind_with(addr, own, source, counters, DEADLINES, (limits.connections, slots)).await
    }

    pub(super) async fn bind_with(
        addr: SocketAddr,
        (keypair, fleet): (&Keypair, &Fleet),
        source: S,
        counters: Arc<Counters>,
        deadlines: Deadlines,
        (connections_max, limits): (usize, slots::Limits),
    ) -> Result<Self, BindError> {
        let tls = TlsAcceptor::from(tls::server_config(keypair, fleet)?);
        let listen = |error| BindError::Listen { addr, error };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let (lan, uploads) = (Arc::new(Pace::new(None)), Arc::new(Uploads::new(limits)));
        let answers = Answers { source, counters, deadlines, lan, uploads };
        let handshakes = Crowd::new(Places {
            all: HANDSHAKES_MAX,
            per_address: HANDSHAKES_PER_ADDRESS_MAX,
            idle_min: HANDSHAKE_IDLE_MIN,
        });
        let connections = Crowd::new(Places {
            all: connections_max,
            per_address: CONNECTIONS_PER_ADDRESS_MAX,
            idle_min: CONNECTION_IDLE_MIN,
        });
        let shared = Shared { tls, fleet: fleet.clone(), answers, handshakes, connections, peers: Mutex::default() };
        Ok(Self { listener, local_addr, shared: Arc::new(shared) })
    }

    /// Gives all peers together no more than this many bytes a second from now on.
    pub fn limit_rate(&self, bytes_per_s: Option<u64>) {
        self.shared.answers.lan.set(bytes_per_s);
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

    /// The upload slots, also once the server runs.
    #[cfg(test)]
    pub(super) fn uploads(&self) -> Arc<Uploads> {
        Arc::clone(&self.shared.answers.uploads)
    }

    /// Serves until `shutdown`; then lets transfers end for a few seconds and cuts the others off.
    pub async fn run(self, shutdown: CancellationToken) {
        let uploads = Arc::clone(&self.shared.answers.uploads);
        let _take_back = AbortOnDropHandle::new(tokio::spawn(async move { uploads.take_back_overdue().await }));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    // At the limit a connection is closed at once, so that the client can ask somebody else.
                    Ok((stream, from)) => {
                        let source = Source::of_connection(Ok(from), stream.local_addr());
                        match self.shared.handshakes.enter(source) {
                            Some(place) => {
                                let shared = Arc::clone(&self.shared);
                                connections.spawn(shared.connection(stream, (from, source), place, shutdown.clone()));
                            }
                            None => debug!(%from, "too many handshakes of bulk connections"),
                        }
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
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        (from, source): (SocketAddr, Option<Source>),
        handshake: Place,
        shutdown: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%from, %error, "cannot set TCP_NODELAY");
        }
        let deadlines = self.answers.deadlines;
        let stream = handshake.watch(stream, deadlines.handshake);
        let accepting = timeout(deadlines.handshake, self.tls.accept(stream));
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            () = handshake.taken_away() => return debug!(%from, "a bulk handshake makes room for another"),
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                // Whom the fleet does not let in has been counted by the verifier.
                if !tls::is_refusal(&error) {
                    self.fleet.note_refused(None, Refusal::Broken, Door::Bulk);
                }
                return debug!(%from, %error, "bulk handshake failed");
            }
            Err(_) => {
                self.fleet.note_refused(None, Refusal::Slow, Door::Bulk);
                return debug!(%from, "bulk handshake took too long");
            }
        };
        let session = stream.get_ref().1;
        // A client that names no protocol at all passes the handshake.
        let Some(peer) =
            tls::node_of(session.peer_certificates()).filter(|_| session.alpn_protocol() == Some(tls::ALPN))
        else {
            self.fleet.note_refused(None, Refusal::Broken, Door::Bulk);
            return debug!(%from, "not a bulk client");
        };
        drop(handshake);
        // At the limit a connection is closed at once, so that the client can ask somebody else.
        let Some(place) = self.connections.enter(source) else {
            return debug!(%peer, %from, "too many bulk connections");
        };
        let slot = PeerSlot::take(Arc::clone(&self), peer);
        let service = service_fn(|request| {
            let (shared, busy) = (Arc::clone(&self), slot.is_none());
            async move {
                Ok::<_, Infallible>(if busy { busy_and_close() } else { shared.answers.answer(peer, &request).await })
            }
        });
        let idle_max = if slot.is_some() { deadlines.idle } else { BUSY_IDLE_MAX };
        let io = TokioIo::new(place.watch(stream, deadlines.write_stall));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle_max)
            .max_headers(HEADERS_MAX)
            .max_buf_size(REQUEST_BYTES_MAX)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            refusal = self.fleet.until_out(peer) => {
                return self.fleet.note_refused(Some(peer), refusal, Door::Bulk);
            }
            () = place.taken_away() => {
                return debug!(%peer, %from, "a bulk connection that does nothing makes room for another");
            }
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // At the end nobody is turned out any more; transfers have seconds.
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%peer, %from, %error, "bulk connection broke off");
        }
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
