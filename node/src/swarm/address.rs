//! Multiaddresses as far as the swarm uses them: TCP at an IP address or a name.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// A peer that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StaticPeer {
    pub(super) target: Target,
    /// Who it must be, if that is given.
    pub(super) peer: Option<PeerId>,
}

/// Where a configured peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Address(SocketAddr),
    Name { host: String, port: u16, family: Family },
}

/// Which of a name's addresses are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    pub(super) fn has(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// Reads a configured peer; `None` if it is of another kind.
pub(super) fn static_peer(address: &Multiaddr) -> Option<StaticPeer> {
    let mut parts = address.iter();
    let (host, port) = (parts.next()?, parts.next()?);
    let Protocol::Tcp(port) = port else { return None };
    let name = |host: std::borrow::Cow<'_, str>, family| Target::Name { host: host.into_owned(), port, family };
    let target = match host {
        Protocol::Ip4(ip) => Target::Address((ip, port).into()),
        Protocol::Ip6(ip) => Target::Address((ip, port).into()),
        Protocol::Dns(host) => name(host, Family::Any),
        Protocol::Dns4(host) => name(host, Family::V4),
        Protocol::Dns6(host) => name(host, Family::V6),
        _ => return None,
    };
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) => return None,
    };
    parts.next().is_none().then_some(StaticPeer { target, peer })
}

/// The socket address of `/ip4|ip6/…/tcp/…` and the peer behind it, if named; `None` for other kinds.
pub(super) fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, Option<PeerId>)> {
    match static_peer(address)? {
        StaticPeer { target: Target::Address(socket), peer } => Some((socket, peer)),
        StaticPeer { target: Target::Name { .. }, .. } => None,
    }
}

/// Whether another node could dial this address: it has a port, and says all it needs to be reached.
pub(super) fn is_dialable(address: &SocketAddr) -> bool {
    let scoped = match address.ip() {
        // A link-local address needs a scope, which a multiaddress does not carry.
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    };
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() && !scoped
}

/// A socket address as a multiaddress.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// A socket address and who is there, as a multiaddress.
pub(super) fn multiaddr_of(address: SocketAddr, peer: PeerId) -> Multiaddr {
    multiaddr(address).with(Protocol::P2p(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_each_kind() {
        let peer = PeerId::random();
        let parse = |text: &str| static_peer(&text.parse().unwrap());
        let ip = parse("/ip4/10.0.0.1/tcp/7118").unwrap();
        assert_eq!(ip, StaticPeer { target: Target::Address("10.0.0.1:7118".parse().unwrap()), peer: None });
        let named = parse(&format!("/dns4/gateway.local/tcp/7118/p2p/{peer}")).unwrap();
        assert_eq!(named.peer, Some(peer));
        assert!(matches!(named.target, Target::Name { port: 7118, family: Family::V4, .. }));
        for other in ["/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/7118", "/ip4/10.0.0.1/tcp/1/ws", "/unix/a", "/tcp/1"] {
            assert_eq!(parse(other), None, "{other}");
        }
        let relayed = format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit");
        assert_eq!(parse(&relayed), None);
    }

    #[test]
    fn an_address_survives_the_way_there_and_back() {
        let peer = PeerId::random();
        for text in ["10.0.0.1:7118", "[2001:db8::1]:7118"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_address(&multiaddr_of(address, peer)), Some((address, Some(peer))));
        }
        for text in ["0.0.0.0:1", "10.0.0.1:0", "[fe80::1]:1", "224.0.0.251:1"] {
            assert!(!is_dialable(&text.parse().unwrap()), "{text}");
        }
    }
}
