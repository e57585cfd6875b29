//! Connections, seen as peers: a peer is connected from when it has proved to be of the fleet until its last
//! connection is gone.
//!
//! Pure bookkeeping; what happens is told through a queue of [`SwarmEvent`]s.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use layermesh_proto::NodeId;
use libp2p::{PeerId, swarm::ConnectionId};
use tokio::time::Instant;

use super::{SwarmEvent, address, node_id};

/// A peer has this long to show that it speaks the fleet's protocols; then it is disconnected.
pub(super) const PROOF_TIME_MAX: Duration = Duration::from_secs(15);
/// Addresses of a peer that are told: one an interface is plenty.
const ADDRESSES_PER_PEER_MAX: usize = 8;

#[derive(Debug)]
struct Peer {
    node: NodeId,
    /// Oldest first, at least one.
    connections: Vec<(ConnectionId, IpAddr)>,
    proven: bool,
    since: Instant,
    addresses: Vec<SocketAddr>,
}

impl Peer {
    /// The newest connection's other end.
    fn ip(&self) -> Option<IpAddr> {
        self.connections.last().map(|&(_, ip)| ip)
    }
}

/// Peers that have a connection. As many at most as the connection limits let in.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    /// What the driver has yet to be told. The task empties it before it lets anything else happen.
    pub(super) events: VecDeque<SwarmEvent>,
}

impl Peers {
    /// A connection is established.
    pub(super) fn opened(&mut self, peer: PeerId, connection: ConnectionId, ip: IpAddr, now: Instant) {
        // The gate lets nobody else in.
        let Some(node) = node_id(&peer) else { return };
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            node,
            connections: Vec::new(),
            proven: false,
            since: now,
            addresses: Vec::new(),
        });
        let before = entry.ip();
        entry.connections.push((connection, ip));
        if entry.proven && before != Some(ip) {
            self.events.push_back(SwarmEvent::PeerMoved { peer: node, address: ip });
        }
    }

    /// A connection is gone. Returns whether it was the peer's last.
    pub(super) fn closed(&mut self, peer: PeerId, connection: ConnectionId) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else { return false };
        let before = entry.ip();
        entry.connections.retain(|&(id, _)| id != connection);
        let (node, proven) = (entry.node, entry.proven);
        match entry.ip() {
            Some(ip) => {
                if proven && before != Some(ip) {
                    self.events.push_back(SwarmEvent::PeerMoved { peer: node, address: ip });
                }
                false
            }
            None => {
                self.peers.remove(&peer);
                if proven {
                    self.events.push_back(SwarmEvent::PeerDisconnected { peer: node });
                }
                true
            }
        }
    }

    /// The peer has spoken one of the fleet's protocols. Returns whether it is connected.
    pub(super) fn prove(&mut self, peer: PeerId) -> bool {
        let Some(entry) = self.peers.get_mut(&peer) else { return false };
        if let Some(address) = entry.ip()
            && !entry.proven
        {
            entry.proven = true;
            self.events.push_back(SwarmEvent::PeerConnected { peer: entry.node, address });
            for &address in &entry.addresses {
                self.events.push_back(learned(entry.node, address, peer));
            }
        }
        true
    }

    /// Whether the peer has a connection.
    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Whether the peer is connected and of the fleet.
    pub(super) fn is_proven(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.proven)
    }

    /// All peers that are connected and of the fleet.
    pub(super) fn proven(&self) -> impl Iterator<Item = NodeId> {
        self.peers.values().filter(|peer| peer.proven).map(|peer| peer.node)
    }

    /// All peers that have a connection.
    pub(super) fn all(&self) -> impl Iterator<Item = (PeerId, NodeId)> {
        self.peers.iter().map(|(&peer, entry)| (peer, entry.node))
    }

    /// Whether the peer has a connection with this address at its other end.
    pub(super) fn is_at(&self, peer: &PeerId, ip: IpAddr) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.connections.iter().any(|&(_, at)| at == ip))
    }

    /// The peer can be dialled here. Told once, and not before it has proved to be of the fleet.
    pub(super) fn reachable_at(&mut self, peer: PeerId, address: SocketAddr) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.addresses.contains(&address) || entry.addresses.len() >= ADDRESSES_PER_PEER_MAX {
            return;
        }
        entry.addresses.push(address);
        if entry.proven {
            self.events.push_back(learned(entry.node, address, peer));
        }
    }

    /// A peer whose time for proving is over.
    pub(super) fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.unproven().find(|(_, peer)| peer.since + PROOF_TIME_MAX <= now).map(|(&peer, _)| peer)
    }

    /// The peer has been dealt with: it is not overdue again while its connections close.
    pub(super) fn expire_proof(&mut self, peer: &PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.since = now;
        }
    }

    /// When the next such time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.unproven().map(|(_, peer)| peer.since + PROOF_TIME_MAX).min()
    }

    fn unproven(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter().filter(|(_, peer)| !peer.proven)
    }
}

fn learned(node: NodeId, address: SocketAddr, peer: PeerId) -> SwarmEvent {
    SwarmEvent::AddressLearned { peer: node, address: address::multiaddr_of(address, peer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn ids() -> (PeerId, NodeId, ConnectionId, ConnectionId) {
        let node = NodeId::from_public_key([7; 32]);
        (super::super::peer_id(node), node, ConnectionId::new_unchecked(1), ConnectionId::new_unchecked(2))
    }

    #[tokio::test]
    async fn one_peer_whatever_its_connections() {
        let (peer, node, first, second) = ids();
        let mut peers = Peers::default();
        peers.opened(peer, first, A, Instant::now());
        assert!(peers.events.is_empty(), "not before it has proved itself");
        assert!(peers.prove(peer) && peers.prove(peer));
        peers.opened(peer, second, B, Instant::now());
        assert!(peers.is_at(&peer, A) && peers.is_at(&peer, B));
        assert!(!peers.closed(peer, second));
        assert!(peers.closed(peer, first));
        let expected = [
            SwarmEvent::PeerConnected { peer: node, address: A },
            SwarmEvent::PeerMoved { peer: node, address: B },
            SwarmEvent::PeerMoved { peer: node, address: A },
            SwarmEvent::PeerDisconnected { peer: node },
        ];
        assert_eq!(peers.events, expected);
        assert!(!peers.prove(peer), "gone is gone");
    }

    #[tokio::test]
    async fn addresses_are_told_once_and_of_proven_peers_only() {
        let (peer, node, first, _) = ids();
        let address: SocketAddr = "10.0.0.1:7118".parse().unwrap();
        let mut peers = Peers::default();
        peers.opened(peer, first, A, Instant::now());
        peers.reachable_at(peer, address);
        assert!(peers.events.is_empty());
        peers.prove(peer);
        peers.reachable_at(peer, address);
        assert_eq!(peers.events.len(), 2);
        assert_eq!(peers.events[1], learned(node, address, peer));
    }

    #[tokio::test]
    async fn proof_has_a_deadline() {
        let (peer, _, first, _) = ids();
        let now = Instant::now();
        let mut peers = Peers::default();
        peers.opened(peer, first, A, now);
        assert_eq!(peers.next_deadline(), Some(now + PROOF_TIME_MAX));
        assert_eq!(peers.overdue(now), None);
        assert_eq!(peers.overdue(now + PROOF_TIME_MAX), Some(peer));
        peers.prove(peer);
        assert_eq!((peers.overdue(now + PROOF_TIME_MAX), peers.next_deadline()), (None, None));
    }
}
