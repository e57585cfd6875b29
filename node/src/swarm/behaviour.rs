//! The protocols of a node and their settings.
//!
//! Idle traffic is a budget that must not grow with the fleet's age: heartbeats and pings are rare, nothing is
//! pushed, and what a quiet connection says each minute is one ping each way.

use std::time::Duration;

use layermesh_proto::wire::{ANNOUNCEMENT_BYTES_MAX, PROTOCOL_VERSION, neighbourhood::NEIGHBOURHOOD_BYTES};
use libp2p::{
    StreamProtocol, Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    gossipsub::{self, IdentTopic},
    identify,
    identity::Keypair,
    mdns, ping,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};
use tracing::warn;

use super::{
    FLEET_LEN_MAX, SwarmError, admission::Admission, control::ControlCodec, gate::Gate, share::Share,
    telling::TellingCodec,
};
use crate::fleet::Fleet;

/// Established connections. Above the degree that a node aims for, so that those who look for it find room.
pub(super) const CONNECTIONS_PER_NODE_MAX: u32 = 64;
/// Connections to one peer: two that crossed, and as many after one of the two restarted without a word.
const CONNECTIONS_PER_PEER_MAX: u32 = 4;
/// Handshakes of others under way. A fleet that powers up together comes in a burst; each costs a millisecond.
const PENDING_INCOMING_MAX: u32 = 32;
/// Handshakes of our own under way. The dialer keeps to fewer.
const PENDING_OUTGOING_MAX: u32 = 16;
/// Streams that a peer may be opening at once on a connection; six protocols have one each.
const NEGOTIATING_STREAMS_MAX: usize = 16;
/// Streams of a connection: those, plus control requests under way.
const STREAMS_PER_CONNECTION_MAX: usize = 64;
/// Control requests of one peer under way on a connection.
const CONTROL_STREAMS_MAX: usize = 16;
/// Requests about revocations of one peer under way on a connection: a page, and some news.
const TELLING_STREAMS_MAX: usize = 4;
/// For such a request; it is answered from memory.
const TELLING_TIME_MAX: Duration = Duration::from_secs(5);
/// From sending a control request to having its answer. A page of inventory is 256 KiB at most.
const CONTROL_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections are for keeping: a quiet one costs less than making it anew.
const IDLE_CONNECTION_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Finds dead connections that say nothing of it. The engine's own deadlines are shorter.
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Answers come in milliseconds on a LAN and in seconds over a bad radio.
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// Identity and addresses are told when a connection begins; a change of either ends it.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// gossipsub's housekeeping. Messages are flooded at once and do not wait for it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Relaying mesh: delivery is by flooding, so the mesh covers those whom the author is not connected to.
const MESH_PEERS: (usize, usize, usize) = (3, 4, 8);
/// Messages offered in gossip go to so many peers outside the mesh.
const GOSSIP_LAZY: usize = 3;
/// A message is known as a duplicate for so long: several times what the caches of others offer (25 s).
const DUPLICATE_TIME: Duration = Duration::from_secs(120);
/// Gossip that may wait for a slow peer.
const GOSSIP_QUEUE_LEN: usize = 256;
/// Author, sequence number, topic, signature and framing around an announcement: under 200 bytes and a topic.
const GOSSIP_ENVELOPE_BYTES_MAX: usize = 256 + FLEET_LEN_MAX;
/// Bytes of a message id: enough that nobody finds two messages with one id, short where ids are gossiped.
const MESSAGE_ID_BYTES: usize = 16;
/// One query makes every node of the LAN answer by multicast, so it is rare; a node that comes up asks by itself.
const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(120);
/// Three queries may be lost before a node counts as out of sight.
const MDNS_TTL: Duration = Duration::from_secs(390);

/// How many streams a connection may carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    /// Of all protocols.
    pub(super) all: usize,
    /// Of control requests, either way.
    pub(super) control: usize,
    /// Of requests about revocations, either way.
    pub(super) telling: usize,
}

/// What a node keeps to, and grants.
pub(super) const STREAMS: Streams =
    Streams { all: STREAMS_PER_CONNECTION_MAX, control: CONTROL_STREAMS_MAX, telling: TELLING_STREAMS_MAX };

/// Names of the fleet's protocols.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) control: StreamProtocol,
    telling: StreamProtocol,
    pub(super) topic: IdentTopic,
    /// What identify calls the protocol version.
    pub(super) family: String,
    gossip: String,
}

impl Names {
    pub(super) fn new(fleet: &str) -> Result<Self, SwarmError> {
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let refused = || SwarmError::Fleet(fleet.chars().take(80).collect());
        if fleet.is_empty() || fleet.len() > FLEET_LEN_MAX || !fleet.bytes().all(in_alphabet) {
            return Err(refused());
        }
        let family = format!("layermesh/{PROTOCOL_VERSION}/{fleet}");
        Ok(Self {
            control: StreamProtocol::try_from_owned(format!("/{family}/control")).map_err(|_| refused())?,
            telling: StreamProtocol::try_from_owned(format!("/{family}/revocations")).map_err(|_| refused())?,
            topic: IdentTopic::new(family.clone()),
            gossip: format!("/{family}/gossip"),
            family,
        })
    }
}

/// The protocols, the gate first: what it refuses, none of the others sees.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) gate: Gate,
    share: Share,
    limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) control: request_response::Behaviour<ControlCodec>,
    pub(super) telling: request_response::Behaviour<TellingCodec>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// How to look for nodes by multicast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Multicast {
    Off,
    V4,
    V6,
}

/// A swarm that neither listens nor dials yet.
pub(super) fn swarm(
    keypair: &Keypair,
    names: &Names,
    mdns: Multicast,
    fleet: &Fleet,
    streams: Streams,
) -> Result<Swarm<Behaviour>, SwarmError> {
    let setup = |error: &dyn std::fmt::Display| SwarmError::Setup(error.to_string());
    let behaviour = behaviour(keypair, names, mdns, fleet, streams)?;
    let admission = |keypair: &Keypair| Admission::new(keypair, fleet.clone());
    let multiplexing = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(streams.all);
        config
    };
    let builder = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), admission, multiplexing)
        .map_err(|error| setup(&error))?
        .with_behaviour(|_| behaviour)
        .map_err(|error| setup(&error))?;
    Ok(builder
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_CONNECTION_TIME_MAX)
                .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS_MAX)
        })
        .build())
}

fn behaviour(
    keypair: &Keypair,
    names: &Names,
    mdns: Multicast,
    fleet: &Fleet,
    streams: Streams,
) -> Result<Behaviour, SwarmError> {
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(PENDING_INCOMING_MAX))
        .with_max_pending_outgoing(Some(PENDING_OUTGOING_MAX))
        .with_max_established(Some(CONNECTIONS_PER_NODE_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX));
    let identify = identify::Config::new(names.family.clone(), keypair.public())
        .with_agent_version(concat!("layermesh/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_interval(IDENTIFY_INTERVAL)
        .with_push_listen_addr_updates(false)
        .with_cache_size(0);
    let control = request_response::Config::default()
        .with_request_timeout(CONTROL_TIME_MAX)
        .with_max_concurrent_streams(streams.control);
    let telling = request_response::Config::default()
        .with_request_timeout(TELLING_TIME_MAX)
        .with_max_concurrent_streams(streams.telling);
    Ok(Behaviour {
        gate: Gate::new(fleet.clone()),
        share: Share::default(),
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIME_MAX)),
        gossip: gossip(keypair, names)?,
        control: request_response::Behaviour::new([(names.control.clone(), ProtocolSupport::Full)], control),
        telling: request_response::Behaviour::new([(names.telling.clone(), ProtocolSupport::Full)], telling),
        mdns: Toggle::from(multicast(keypair, mdns)),
    })
}

fn gossip(keypair: &Keypair, names: &Names) -> Result<gossipsub::Behaviour, SwarmError> {
    let (mesh_low, mesh, mesh_high) = MESH_PEERS;
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id(names.gossip.clone(), gossipsub::Version::V1_1)
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(NEIGHBOURHOOD_BYTES + ANNOUNCEMENT_BYTES_MAX + GOSSIP_ENVELOPE_BYTES_MAX)
        .message_id_fn(message_id)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(HEARTBEAT)
        .flood_publish(true)
        .mesh_n_low(mesh_low)
        .mesh_n(mesh)
        .mesh_n_high(mesh_high)
        .mesh_outbound_min(1)
        .gossip_lazy(GOSSIP_LAZY)
        .duplicate_cache_time(DUPLICATE_TIME)
        .connection_handler_queue_len(GOSSIP_QUEUE_LEN)
        .build()
        .map_err(|error| SwarmError::Setup(error.to_string()))?;
    let signed = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = gossipsub::Behaviour::new(signed, config).map_err(|error| SwarmError::Setup(error.to_owned()))?;
    gossip.subscribe(&names.topic).map_err(|error| SwarmError::Setup(error.to_string()))?;
    Ok(gossip)
}

/// Author and sequence number, both of which the signature covers, in few bytes.
fn message_id(message: &gossipsub::Message) -> gossipsub::MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&message.source.map(|author| author.to_bytes()).unwrap_or_default());
    hasher.update(&message.sequence_number.unwrap_or_default().to_be_bytes());
    gossipsub::MessageId::new(&hasher.finalize().as_bytes()[..MESSAGE_ID_BYTES])
}

/// Discovery by multicast. It needs a netlink socket, which some sandboxes refuse, for good; the node then goes on
/// without. Interfaces that come later are found by it.
fn multicast(keypair: &Keypair, mdns: Multicast) -> Option<mdns::tokio::Behaviour> {
    if mdns == Multicast::Off {
        return None;
    }
    let config =
        mdns::Config { ttl: MDNS_TTL, query_interval: MDNS_QUERY_INTERVAL, enable_ipv6: mdns == Multicast::V6 };
    mdns::tokio::Behaviour::new(config, keypair.public().to_peer_id())
        .inspect_err(|error| warn!(%error, "no multicast here: other nodes are found by static peers alone"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_version_and_fleet() {
        let names = Names::new("plant-7").unwrap();
        assert_eq!(names.control.as_ref(), format!("/layermesh/{PROTOCOL_VERSION}/plant-7/control"));
        assert_eq!(names.topic.to_string(), format!("layermesh/{PROTOCOL_VERSION}/plant-7"));
        for refused in ["", "a/b", "a b", "ä", &"a".repeat(FLEET_LEN_MAX + 1)] {
            assert!(matches!(Names::new(refused), Err(SwarmError::Fleet(_))), "{refused}");
        }
    }

    #[test]
    fn the_longest_envelope_fits() {
        // Field tags and lengths of the gossipsub RPC around its parts (pubsub spec, `Message`), generously.
        let topic = Names::new(&"a".repeat(FLEET_LEN_MAX)).unwrap().topic.to_string().len();
        let (author, sequence_number, signature, framing) = (38, 8, 64, 8 * 4);
        assert!(author + sequence_number + signature + framing + topic <= GOSSIP_ENVELOPE_BYTES_MAX);
    }
}
