//! The control plane on libp2p: finds nodes of the fleet, keeps connections to them, carries gossip and control
//! requests.
//!
//! One task owns the swarm (`task`); everybody else talks to it over bounded queues. A [`SwarmHandle`]'s methods
//! never wait. When the driver is slow to take events, the swarm is not polled until it has: peers then feel
//! backpressure, and no event is lost.
//!
//! A peer counts as connected once it has shown that it speaks this fleet's protocols in this version; others are
//! disconnected and left alone for a while. Deliberately absent: what to say, whom to ask, whom to trust with what.
//! Who is let in at all is decided by [`crate::fleet`], which is asked by the handshake (`admission`) before anything
//! else is said, and by `gate`; what it has revoked is passed on here (`telling`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use layermesh_proto::{
    NodeId,
    engine::event::{CallId, RequestId},
    wire::{Announcement, ControlRequest, ControlResponse},
};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::fleet::Fleet;

mod address;
mod admission;
mod behaviour;
mod control;
mod dialer;
mod gate;
mod members;
mod peers;
mod rate;
mod share;
mod task;
mod telling;
#[cfg(test)]
mod tests;

/// Events that may wait for the driver, which never awaits: room for a burst such as a fleet's start.
pub const EVENT_QUEUE_LEN: usize = 256;
/// Commands that may wait for the swarm. The engine's burst after one event (an inventory request to each peer)
/// fits several times.
const COMMAND_QUEUE_LEN: usize = 512;
/// Refused requests whose failure may wait to be reported. At 8 bytes each, more than an engine has under way.
const REFUSED_QUEUE_LEN: usize = 4096;
/// Static peers in a configuration. Each costs a dial now and then for ever.
pub const STATIC_PEERS_MAX: usize = 64;
/// Longest fleet name in bytes: it is part of every protocol name.
pub const FLEET_LEN_MAX: usize = 64;

/// How the swarm is to be.
#[derive(Debug, Clone)]
pub struct SwarmOptions {
    /// The node's identity; an Ed25519 key.
    pub keypair: Keypair,
    /// Address to listen on. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Name of the fleet: 1 to [`FLEET_LEN_MAX`] letters, digits, `.`, `_` and `-`.
    pub fleet: String,
    /// Who is let in.
    pub admission: Fleet,
    /// Whether to look for nodes by multicast, in the address family that is listened on.
    pub mdns: bool,
    /// Peers to stay connected to: `/ip4|ip6|dns|dns4|dns6/…/tcp/…`, with or without `/p2p/…`. At most
    /// [`STATIC_PEERS_MAX`].
    pub static_peers: Vec<Multiaddr>,
    /// Peers of the last run, as [`SwarmEvent::AddressLearned`] gave them. Those that make no sense are left out.
    pub remembered: Vec<Multiaddr>,
}

/// Why the swarm cannot start.
#[derive(Debug, Error)]
pub enum SwarmError {
    /// The identity is no Ed25519 key.
    #[error("a node's identity must be an Ed25519 key")]
    Identity,
    /// The fleet's name is outside its alphabet or length.
    #[error("`{0}` is not a fleet name: expected 1 to {FLEET_LEN_MAX} letters, digits, `.`, `_` and `-`")]
    Fleet(String),
    /// A static peer's address is of a kind that cannot be dialled.
    #[error(
        "`{0}` is not a peer address: expected /ip4, /ip6, /dns, /dns4 or /dns6, then /tcp/PORT and optionally /p2p/PEER_ID"
    )]
    Address(Multiaddr),
    /// Too many static peers.
    #[error("{0} static peers are over the limit of {STATIC_PEERS_MAX}")]
    TooManyPeers(usize),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {error}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// libp2p refuses its configuration.
    #[error("cannot set up the swarm: {0}")]
    Setup(String),
}

/// Something that the swarm tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwarmEvent {
    /// The swarm listens here; the address ends in this node's own `/p2p/…`, ready to be given to another node.
    /// Once an interface when listening on all.
    Listening(Multiaddr),
    /// A node of the fleet is connected (its first connection).
    PeerConnected {
        /// The peer.
        peer: NodeId,
        /// The other end's IP address.
        address: IpAddr,
    },
    /// A connected peer's newest connection now has another IP address at its other end.
    PeerMoved {
        /// The peer.
        peer: NodeId,
        /// The other end's IP address.
        address: IpAddr,
    },
    /// A connected peer's last connection is gone.
    PeerDisconnected {
        /// The peer.
        peer: NodeId,
    },
    /// A gossip message, signed by its author. The author need not be connected.
    Announced {
        /// The author.
        from: NodeId,
        /// The author's later messages have higher numbers, also after it started again, as long as its clock goes forward.
        sequence: u64,
        /// The message.
        announcement: Announcement,
    },
    /// A connected peer asks. To be answered with [`SwarmHandle::respond`] within ten seconds.
    Requested {
        /// The question's id.
        call: CallId,
        /// Who asks.
        from: NodeId,
        /// The question.
        request: ControlRequest,
    },
    /// A peer answered [`SwarmHandle::request`].
    Responded {
        /// The id given with the request.
        request: RequestId,
        /// The answer.
        response: ControlResponse,
    },
    /// A request got no answer: no connection, no time left, an answer that makes no sense, or too many requests.
    RequestFailed {
        /// The id given with the request.
        request: RequestId,
    },
    /// A connected peer can be dialled at this address, which ends in its `/p2p/…`. To be remembered.
    AddressLearned {
        /// The peer.
        peer: NodeId,
        /// The address.
        address: Multiaddr,
    },
}

#[derive(Debug)]
enum Command {
    Announce(Announcement),
    Connect { peer: NodeId },
    Request { request: RequestId, peer: NodeId, body: ControlRequest },
    Respond { call: CallId, response: ControlResponse },
}

/// Handle on the swarm's queue. Cheap to clone; no method waits.
#[derive(Debug, Clone)]
pub struct SwarmHandle {
    commands: mpsc::Sender<Command>,
    refused: mpsc::Sender<RequestId>,
    dropped: Arc<AtomicU64>,
}

impl SwarmHandle {
    /// Gossips an announcement. With a full queue it is dropped and logged: the next summary tells peers that they
    /// missed something.
    pub fn announce(&self, announcement: Announcement) {
        if self.commands.try_send(Command::Announce(announcement)).is_err() {
            self.note_dropped("announcement");
        }
    }

    /// Connects to a node beyond the number of peers that is aimed for, if it is known where it is. With a full queue
    /// nothing happens: whoever needs it asks again.
    pub fn connect(&self, peer: NodeId) {
        if self.commands.try_send(Command::Connect { peer }).is_err() {
            self.note_dropped("connection");
        }
    }

    /// Asks a connected peer. Ends in [`SwarmEvent::Responded`] or [`SwarmEvent::RequestFailed`] with the same id;
    /// in the latter at once if the peer is not connected or the queue is full.
    pub fn request(&self, request: RequestId, peer: NodeId, body: ControlRequest) {
        if self.commands.try_send(Command::Request { request, peer, body }).is_err()
            && self.refused.try_send(request).is_err()
        {
            self.note_dropped("request");
        }
    }

    /// Answers [`SwarmEvent::Requested`]. An id that is no longer waiting is ignored. With a full queue the answer
    /// is dropped and logged, and the peer's request fails by its time limit.
    pub fn respond(&self, call: CallId, response: ControlResponse) {
        if self.commands.try_send(Command::Respond { call, response }).is_err() {
            self.note_dropped("answer");
        }
    }

    /// A handle on no swarm, which drops everything: of a node that talks to nobody.
    pub fn of_nothing() -> Self {
        Self { commands: mpsc::channel(1).0, refused: mpsc::channel(1).0, dropped: Arc::default() }
    }

    fn note_dropped(&self, what: &'static str) {
        // After the swarm has ended everything is dropped, as it should be.
        if !self.commands.is_closed() {
            let total = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            warn!(what, total, "the swarm's queue is full");
        }
    }
}

/// Starts the swarm on the current tokio runtime. It ends with `shutdown`, or when the receiver or the
/// last handle is dropped.
///
/// # Errors
/// If an option is outside its limits or the address cannot be listened on. Failing multicast is logged only.
pub fn spawn(
    options: SwarmOptions,
    shutdown: CancellationToken,
) -> Result<(SwarmHandle, mpsc::Receiver<SwarmEvent>, JoinHandle<()>), SwarmError> {
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE_LEN);
    let (refused, refused_queue) = mpsc::channel(REFUSED_QUEUE_LEN);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE_LEN);
    let task = task::Task::new(options, events, command_queue, refused_queue)?;
    let ended = tokio::spawn(task.run(shutdown));
    Ok((SwarmHandle { commands, refused, dropped: Arc::default() }, event_queue, ended))
}

/// The node id of a libp2p peer id; `None` unless it is that of an Ed25519 key.
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

/// The libp2p peer id of a node.
pub fn peer_id(node: NodeId) -> PeerId {
    #[allow(clippy::expect_used)]
    PeerId::from_bytes(&node.to_peer_id_bytes()).expect("an identity multihash of 36 bytes is a peer id")
}
