//! Who is let in, asked once more when a connection comes about: between the handshake (`admission`) and that moment the
//! peer may have been revoked. No protocol is spoken on a connection before.

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
use crate::fleet::{Door, Fleet, Refusal};

/// Why a peer is not let in.
#[derive(Debug, Error)]
enum Denied {
    #[error("the peer's key is not an Ed25519 key")]
    NotANode,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Closes connections of peers that are not admitted, before they are established for anybody else.
#[derive(Debug)]
pub(super) struct Gate(pub(super) Fleet);

impl Gate {
    fn admit(&self, peer: &PeerId) -> Result<NodeId, ConnectionDenied> {
        let node = node_id(peer).ok_or_else(|| ConnectionDenied::new(Denied::NotANode))?;
        self.0.admits(&node).map_err(|refusal| {
            self.0.note_refused(Some(node), refusal, Door::Swarm);
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
        let gate = Gate(Fleet::open());
        assert_eq!(gate.admit(&super::super::peer_id(node)).unwrap(), node);
        // An identity multihash of something that is no key.
        assert!(gate.admit(&PeerId::random()).is_err());
    }
}
