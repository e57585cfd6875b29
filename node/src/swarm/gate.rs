//! Who is let in: asked once a connection, after the handshake has proved the peer's key and before any protocol
//! is spoken on it.

use std::{
    convert::Infallible,
    task::{Context, Poll},
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

use super::node_id;

/// Why a peer is not let in.
#[derive(Debug, Error)]
#[error("the peer's key is not an Ed25519 key")]
struct NotANode;

/// Closes connections of peers that are not admitted, before they are established for anybody else.
#[derive(Debug)]
pub(super) struct Gate;

impl Gate {
    /// The decision. Every peer with a node's kind of key is admitted: the fleet's name, which is part of each
    /// protocol's, keeps fleets apart but is no secret.
    fn admit(peer: &PeerId) -> Result<NodeId, ConnectionDenied> {
        node_id(peer).ok_or_else(|| ConnectionDenied::new(NotANode))
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
        Self::admit(&peer).map(|_| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Self::admit(&peer).map(|_| dummy::ConnectionHandler)
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
        assert_eq!(Gate::admit(&super::super::peer_id(node)).unwrap(), node);
        // An identity multihash of something that is no key.
        assert!(Gate::admit(&PeerId::random()).is_err());
    }
}
