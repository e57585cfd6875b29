//! How many connections of others come from one address: before their handshake, and after it.
//!
//! Invariant: whoever dials from one address has a share of the places that handshakes and peers have at this node, and no more;
//! what comes from the device's own address is not counted.

use std::{
    collections::HashMap,
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, ListenFailure, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};
use thiserror::Error;

use super::address;
use crate::crowd::Source;

/// Handshakes of one address under way, of those that a node has room for: a peer dials once or twice at a time.
pub(super) const PENDING_PER_ADDRESS_MAX: usize = 8;
/// Connections that came from one address: nodes of several containers may be behind it.
pub(super) const ESTABLISHED_PER_ADDRESS_MAX: usize = 16;

/// Why a connection is closed.
#[derive(Debug, Error)]
#[error("too many connections from one address")]
struct TooMany;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Established,
}

/// Counts connections by the address that they come from. Holds as many entries as there are connections of others, which the
/// limits on all of them bound.
#[derive(Debug, Default)]
pub(super) struct Share(HashMap<ConnectionId, (Source, Stage)>);

impl Share {
    fn count(&self, source: Source, stage: Stage) -> usize {
        self.0.values().filter(|known| **known == (source, stage)).count()
    }

    fn begin(&mut self, connection: ConnectionId, source: Source) -> Result<(), TooMany> {
        if self.count(source, Stage::Handshake) >= PENDING_PER_ADDRESS_MAX {
            return Err(TooMany);
        }
        self.0.insert(connection, (source, Stage::Handshake));
        Ok(())
    }

    fn establish(&mut self, connection: ConnectionId, source: Source) -> Result<(), TooMany> {
        if self.count(source, Stage::Established) >= ESTABLISHED_PER_ADDRESS_MAX {
            return Err(TooMany);
        }
        self.0.insert(connection, (source, Stage::Established));
        Ok(())
    }
}

/// `None` for the device itself, and for what is not TCP.
fn source(local: &Multiaddr, remote: &Multiaddr) -> Option<Source> {
    let ip = |address: &Multiaddr| address::socket_address(address).map(|(socket, _)| socket.ip());
    Source::of(ip(remote)?, ip(local)?)
}

impl NetworkBehaviour for Share {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        source(local, remote).map_or(Ok(()), |source| self.begin(connection, source).map_err(ConnectionDenied::new))
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if let Some(source) = source(local, remote) {
            self.establish(connection, source).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.0.remove(&connection_id);
            }
            _ => {}
        }
    }

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

    fn of(last: u8) -> Source {
        Source::of([10, 0, 0, last].into(), [10, 0, 0, 254].into()).unwrap()
    }

    #[test]
    fn an_address_has_its_share_of_handshakes_and_of_connections() {
        let mut share = Share::default();
        let ids: Vec<_> = (0..10 * PENDING_PER_ADDRESS_MAX).map(ConnectionId::new_unchecked).collect();
        let begun = ids.iter().filter(|id| share.begin(**id, of(1)).is_ok()).count();
        assert_eq!(begun, PENDING_PER_ADDRESS_MAX);
        assert!(share.begin(ConnectionId::new_unchecked(9_000), of(2)).is_ok(), "others have theirs");
        // Whoever is through makes room for the next.
        assert!(share.establish(ids[0], of(1)).is_ok());
        assert!(share.begin(ConnectionId::new_unchecked(9_001), of(1)).is_ok());

        let mut share = Share::default();
        let ids = (0..10 * ESTABLISHED_PER_ADDRESS_MAX).map(ConnectionId::new_unchecked);
        assert_eq!(ids.filter(|id| share.establish(*id, of(1)).is_ok()).count(), ESTABLISHED_PER_ADDRESS_MAX);
        assert_eq!(share.0.len(), ESTABLISHED_PER_ADDRESS_MAX);
    }

    #[test]
    fn the_device_itself_is_not_counted() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let (local, own) = (address("/ip4/127.0.0.1/tcp/7118"), address("/ip4/127.0.0.1/tcp/5"));
        assert_eq!(source(&local, &own), None);
        assert!(source(&local, &address("/ip4/127.0.0.9/tcp/5")).is_some());
    }
}
