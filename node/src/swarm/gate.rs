//! Who is let in, asked once more when a connection comes about: between the handshake (`admission`) and that moment the
//! peer may have been revoked. No protocol is spoken on a connection before.

use std::{
    collections::HashMap,
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use layermesh_proto::NodeId;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};
use thiserror::Error;
use tokio::time::Instant;

use super::node_id;
use crate::fleet::{Door, Fleet, Refusal};

/// How long a peer stays outside that made itself a nuisance: long enough that coming back costs it more than it costs us.
const SHUT_OUT: Duration = Duration::from_secs(60);
/// Peers that are shut out at once; the one whose time is over first makes room. More than there are connections.
const SHUT_OUT_MAX: usize = 256;

/// Why a peer is not let in.
#[derive(Debug, Error)]
enum Denied {
    #[error("the peer's key is not an Ed25519 key")]
    NotANode,
    #[error("it is shut out for a minute, since it said too much")]
    ShutOut,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Closes connections of peers that are not admitted, before they are established for anybody else.
#[derive(Debug)]
pub(super) struct Gate {
    fleet: Fleet,
    shut_out: HashMap<PeerId, Instant>,
}

impl Gate {
    pub(super) fn new(fleet: Fleet) -> Self {
        Self { fleet, shut_out: HashMap::new() }
    }

    /// Lets a peer in no more for a while.
    pub(super) fn shut_out(&mut self, peer: PeerId, now: Instant) {
        self.shut_out.retain(|_, since| now.duration_since(*since) < SHUT_OUT);
        if self.shut_out.len() >= SHUT_OUT_MAX
            && let Some(oldest) = self.shut_out.iter().min_by_key(|(_, since)| **since).map(|(peer, _)| *peer)
        {
            self.shut_out.remove(&oldest);
        }
        self.shut_out.insert(peer, now);
    }

    fn admit(&self, peer: &PeerId) -> Result<NodeId, ConnectionDenied> {
        let node = node_id(peer).ok_or_else(|| ConnectionDenied::new(Denied::NotANode))?;
        if self.shut_out.get(peer).is_some_and(|since| since.elapsed() < SHUT_OUT) {
            return Err(ConnectionDenied::new(Denied::ShutOut));
        }
        self.fleet.admits(&node).map_err(|refusal| {
            self.fleet.note_refused(Some(node), refusal, Door::Swarm);
            ConnectionDenied::new(Denied::from(refusal))
        })?;
        Ok(node)
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&peer).map(|_| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit(&peer).map(|_| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_keys_are_let_in() {
        let node = NodeId::from_public_key([3; 32]);
        let gate = Gate::new(Fleet::open());
        assert_eq!(gate.admit(&super::super::peer_id(node)).unwrap(), node);
        // An identity multihash of something that is no key.
        assert!(gate.admit(&PeerId::random()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_shut_out_may_come_again_and_the_number_is_bounded() {
        let mut gate = Gate::new(Fleet::open());
        let peer = super::super::peer_id(NodeId::from_public_key([3; 32]));
        gate.shut_out(peer, Instant::now());
        assert!(gate.admit(&peer).is_err());
        tokio::time::advance(SHUT_OUT).await;
        assert!(gate.admit(&peer).is_ok());
        for _ in 0..10 * SHUT_OUT_MAX {
            gate.shut_out(PeerId::random(), Instant::now());
        }
        assert_eq!(gate.shut_out.len(), SHUT_OUT_MAX);
    }
}
