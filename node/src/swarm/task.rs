//! The task that owns the swarm: one `select!`, whose handlers never wait.
//!
//! Before it takes up anything, what the driver has yet to be told is in the driver's queue; that is the only
//! place where it waits for somebody else.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    time::Duration,
};

use futures::StreamExt as _;
use layermesh_proto::{
    NodeId,
    engine::event::{CallId, RequestId},
    wire::{
        Announcement, ControlRequest, ControlResponse,
        neighbourhood::{self, Neighbourhood},
    },
};
use libp2p::{
    Multiaddr, PeerId, Swarm, gossipsub, identify, mdns,
    multiaddr::Protocol,
    ping,
    request_response::{self, OutboundRequestId, ResponseChannel},
    swarm::{ConnectionId, DialError, ListenError, SwarmEvent as Libp2pEvent, dial_opts::DialOpts},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Command, STATIC_PEERS_MAX, SwarmError, SwarmEvent, SwarmOptions, address,
    address::Family,
    admission::is_of_admission,
    behaviour::{self, Behaviour, BehaviourEvent, Multicast, Names},
    dialer::{Dial, Dialer, Key, Outcome, To},
    node_id, peer_id,
    peers::Peers,
    rate::{Heard, Rates},
    telling::Telling,
};
use crate::fleet::{Door, Fleet, Refusal};

/// Requests of this node that may be under way; several to each peer that it can be connected to.
const REQUESTS_MAX: usize = 1024;
/// Questions of peers that the driver may have under way: as many streams as the connections may carry at once.
const CALLS_MAX: usize = 1024;
/// A resolver that knows the name answers faster, and another try follows.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(10);
/// Addresses that a name's lookup is taken to give.
const LOOKUP_ADDRESSES_MAX: usize = 8;

type Lookup = (usize, Option<PeerId>, io::Result<Vec<SocketAddr>>);

/// The swarm and what belongs to it.
pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    names: Names,
    events: mpsc::Sender<SwarmEvent>,
    commands: mpsc::Receiver<Command>,
    refused: mpsc::Receiver<RequestId>,
    pub(super) peers: Peers,
    rates: Rates,
    pub(super) dialer: Dialer,
    pub(super) fleet: Fleet,
    /// Tells when who is let in may have changed.
    changes: watch::Receiver<u64>,
    pub(super) telling: Telling,
    /// What this node showed of itself last.
    pub(super) shown: Vec<u8>,
    /// Dials under way, at most as many as the dialer starts.
    dials: HashMap<ConnectionId, Key>,
    /// Name lookups under way, at most one a static peer.
    lookups: JoinSet<Lookup>,
    requests: HashMap<OutboundRequestId, RequestId>,
    calls: BTreeMap<CallId, ResponseChannel<ControlResponse>>,
    next_call: u64,
}

impl Task {
    pub(super) fn new(
        options: SwarmOptions,
        events: mpsc::Sender<SwarmEvent>,
        commands: mpsc::Receiver<Command>,
        refused: mpsc::Receiver<RequestId>,
    ) -> Result<Self, SwarmError> {
        let own = options.keypair.public().to_peer_id();
        node_id(&own).ok_or(SwarmError::Identity)?;
        let names = Names::new(&options.fleet)?;
        if options.static_peers.len() > STATIC_PEERS_MAX {
            return Err(SwarmError::TooManyPeers(options.static_peers.len()));
        }
        let fixed = options
            .static_peers
            .into_iter()
            .map(|address| address::static_peer(&address).ok_or(SwarmError::Address(address)))
            .collect::<Result<Vec<_>, _>>()?;
        let multicast = match (options.mdns, options.listen.is_ipv6()) {
            (false, _) => Multicast::Off,
            (true, false) => Multicast::V4,
            (true, true) => Multicast::V6,
        };
        let mut swarm = behaviour::swarm(&options.keypair, &names, multicast, &options.admission, behaviour::STREAMS)?;
        swarm.listen_on(address::multiaddr(options.listen)).map_err(|error| SwarmError::Listen {
            addr: options.listen,
            error: match error {
                libp2p::TransportError::Other(error) => error,
                other => io::Error::other(other.to_string()),
            },
        })?;
        let now = Instant::now();
        let mut dialer = Dialer::new(own, fixed, jitter, now);
        for address in options.remembered {
            match address::socket_address(&address) {
                Some((socket, Some(peer))) => dialer.found(peer, socket, false, now),
                _ => debug!(%address, "not an address that was remembered"),
            }
        }
        let fleet = options.admission;
        Ok(Self {
            swarm,
            names,
            events,
            commands,
            refused,
            peers: Peers::default(),
            rates: Rates::default(),
            dialer,
            changes: fleet.changes(),
            telling: Telling::new(fleet.clone()),
            shown: fleet.credential(),
            fleet,
            dials: HashMap::new(),
            lookups: JoinSet::new(),
            requests: HashMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
        })
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.serve() => {}
        }
        // Dropping the swarm closes its connections.
    }

    /// Runs until the driver is gone.
    async fn serve(&mut self) {
        loop {
            while let Some(event) = self.peers.events.pop_front() {
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
            self.start_dials();
            let deadlines = [self.dialer.next_due(), self.peers.next_deadline(), self.telling.next_deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(request) = self.refused.recv() => self.tell(SwarmEvent::RequestFailed { request }),
                event = self.swarm.select_next_some() => self.on_swarm_event(event),
                Ok(()) = self.changes.changed() => self.on_fleet_changed(),
                Some(Ok(lookup)) = self.lookups.join_next() => self.on_lookup(lookup),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.on_deadline(),
            }
        }
    }

    fn tell(&mut self, event: SwarmEvent) {
        self.peers.events.push_back(event);
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.dialer.surplus(now) {
            debug!(%peer, "is not needed any more");
            // An error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        while let Some((peer, request)) = self.telling.retry(now) {
            self.ask_of_fleet(&peer, request);
        }
        while let Some(peer) = self.peers.overdue(now) {
            self.turn_away(peer, "it has not shown that it is of the fleet");
            self.peers.expire_proof(&peer, now);
        }
    }

    // ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Announce(announcement) => self.announce(&announcement),
            Command::Connect { peer } => self.dialer.needed(peer_id(peer), Instant::now()),
            Command::Request { request, peer, body } => self.request(request, peer, body),
            Command::Respond { call, response } => {
                let Some(channel) = self.calls.remove(&call) else { return };
                if self.swarm.behaviour_mut().control.send_response(channel, response).is_err() {
                    debug!(%call, "answered too late");
                }
            }
        }
    }

    fn announce(&mut self, announcement: &Announcement) {
        let bytes = match neighbourhood::encode(self.neighbourhood(), announcement) {
            Ok(bytes) => bytes,
            Err(error) => return warn!(%error, "an announcement cannot be encoded"),
        };
        match self.swarm.behaviour_mut().gossip.publish(self.names.topic.clone(), bytes) {
            Ok(_) => {}
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => debug!("nobody to announce to"),
            Err(error) => warn!(%error, "an announcement could not be sent"),
        }
    }

    /// This node and all that it is connected to.
    fn neighbourhood(&self) -> Neighbourhood {
        Neighbourhood::of(self.peers.proven().chain(node_id(self.swarm.local_peer_id())))
    }

    fn request(&mut self, request: RequestId, peer: NodeId, body: ControlRequest) {
        let peer = peer_id(peer);
        // An unconnected peer would be dialled, past the dialer.
        if !self.peers.is_proven(&peer) || self.requests.len() >= REQUESTS_MAX {
            return self.tell(SwarmEvent::RequestFailed { request });
        }
        let id = self.swarm.behaviour_mut().control.send_request(&peer, body);
        self.requests.insert(id, request);
    }

    // ── Dials ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn start_dials(&mut self) {
        while let Some(Dial { key, peer, to }) = self.dialer.due(Instant::now()) {
            match (to, key) {
                (To::Addresses(addresses), key) => self.dial(key, peer, &addresses),
                (To::Name { host, port, family }, Key::Static(number)) => {
                    self.lookups.spawn(async move { (number, peer, lookup(host, port, family).await) });
                }
                (To::Name { .. }, Key::Peer(_)) => self.dialer.ended(key, Outcome::Failed, Instant::now()),
            }
        }
    }

    fn dial(&mut self, key: Key, peer: Option<PeerId>, addresses: &[SocketAddr]) {
        let options = match (peer, addresses) {
            (_, []) => return self.dialer.ended(key, Outcome::Failed, Instant::now()),
            (Some(peer), addresses) => {
                let addresses = addresses.iter().copied().map(address::multiaddr).collect();
                DialOpts::peer_id(peer).addresses(addresses).allocate_new_port().build()
            }
            (None, [first, ..]) => {
                DialOpts::unknown_peer_id().address(address::multiaddr(*first)).allocate_new_port().build()
            }
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, key);
            }
            Err(error) => self.dial_failed(key, &error),
        }
    }

    fn dial_failed(&mut self, key: Key, error: &DialError) {
        debug!(?key, %error, "dial failed");
        let outcome = match error {
            DialError::LocalPeerId { .. } => Outcome::Myself,
            DialError::WrongPeerId { address, .. } => {
                address::socket_address(address).map_or(Outcome::Failed, |(socket, _)| Outcome::Another(socket))
            }
            _ => Outcome::Failed,
        };
        self.dialer.ended(key, outcome, Instant::now());
    }

    fn on_lookup(&mut self, (number, peer, result): Lookup) {
        let key = Key::Static(number);
        match result {
            Ok(addresses) => self.dial(key, peer, &addresses),
            Err(error) => {
                debug!(number, %error, "a static peer's name cannot be resolved");
                self.dialer.ended(key, Outcome::Failed, Instant::now());
            }
        }
    }

    // ── The swarm's events ────────────────────────────────────────────────────────────────────────────────────────

    fn on_swarm_event(&mut self, event: Libp2pEvent<BehaviourEvent>) {
        match event {
            Libp2pEvent::Behaviour(BehaviourEvent::Gossip(event)) => self.on_gossip(event),
            Libp2pEvent::Behaviour(BehaviourEvent::Control(event)) => self.on_control(event),
            Libp2pEvent::Behaviour(BehaviourEvent::Telling(event)) => self.on_telling(event),
            Libp2pEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            Libp2pEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            Libp2pEvent::Behaviour(BehaviourEvent::Mdns(event)) => self.on_mdns(event),
            Libp2pEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                let now = Instant::now();
                if let Some(key) = self.dials.remove(&connection_id) {
                    self.dialer.ended(key, Outcome::Connected(peer_id), now);
                }
                let Some((remote, _)) = address::socket_address(endpoint.get_remote_address()) else { return };
                self.dialer.connected(peer_id);
                self.peers.opened(peer_id, connection_id, remote.ip(), now);
                if num_established.get() == 1
                    && let Some(request) = self.telling.connected(peer_id)
                {
                    self.ask_of_fleet(&peer_id, request);
                }
                if endpoint.is_dialer() {
                    self.reachable_at(peer_id, remote);
                }
            }
            Libp2pEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                debug!(peer = %peer_id, ?cause, "connection closed");
                if self.peers.closed(peer_id, connection_id) {
                    self.telling.disconnected(&peer_id);
                    self.rates.disconnected(&peer_id);
                    self.dialer.disconnected(peer_id, Instant::now());
                }
            }
            Libp2pEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(key) = self.dials.remove(&connection_id) {
                    self.dial_failed(key, &error);
                }
            }
            Libp2pEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(from = %send_back_addr, %error, "a connection attempt failed");
                // What came as far as admission has been counted there, and what the gate refused by the gate.
                if matches!(error, ListenError::Transport(_)) && !is_of_admission(&error) {
                    self.fleet.note_refused(None, Refusal::Broken, Door::Swarm);
                }
            }
            Libp2pEvent::NewListenAddr { address, .. } => {
                let own = Protocol::P2p(*self.swarm.local_peer_id());
                self.tell(SwarmEvent::Listening(address.with(own)));
            }
            Libp2pEvent::ListenerClosed { addresses, reason, .. } => warn!(?addresses, ?reason, "no longer listening"),
            Libp2pEvent::ListenerError { error, .. } => warn!(%error, "listening failed"),
            _ => {}
        }
    }

    /// The peer can be dialled at this address.
    fn reachable_at(&mut self, peer: PeerId, address: SocketAddr) {
        self.dialer.found(peer, address, false, Instant::now());
        self.peers.reachable_at(peer, address);
    }

    pub(super) fn turn_away(&mut self, peer: PeerId, why: &'static str) {
        info!(%peer, why, "peer turned away");
        self.dialer.stranger(&peer, Instant::now());
        // An error says that it is gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else { return };
        // What comes after its connection is gone has nobody to answer for it.
        let connected = self.peers.is_connected(&propagation_source);
        let heard = if connected { self.rates.hears(propagation_source, Instant::now()) } else { Heard::No };
        if heard != Heard::Yes {
            // Neither looked at nor passed on.
            let verdict = gossipsub::MessageAcceptance::Ignore;
            let gossip = &mut self.swarm.behaviour_mut().gossip;
            gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
            if heard == Heard::Never {
                self.swarm.behaviour_mut().gate.shut_out(propagation_source, Instant::now());
                self.turn_away(propagation_source, "it says far more than any node has to say");
            }
            return;
        }
        self.peers.prove(propagation_source);
        // Strict validation has checked the author's signature.
        let author = message.source.as_ref().and_then(node_id);
        let decoded = neighbourhood::decode(&message.data);
        let revoked = author.is_some_and(|author| self.fleet.is_revoked(&author));
        let verdict = match (&author, &decoded) {
            // Whoever passed it on may not have heard yet.
            _ if revoked => gossipsub::MessageAcceptance::Ignore,
            (Some(_), Ok((reached, _)))
                if self.neighbourhood().passes_on(*reached) && self.rates.passes_on(Instant::now()) =>
            {
                gossipsub::MessageAcceptance::Accept
            }
            // gossipsub's word for "good, but not to be passed on".
            (Some(_), Ok(_)) => gossipsub::MessageAcceptance::Ignore,
            _ => gossipsub::MessageAcceptance::Reject,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
        match (author, decoded) {
            _ if revoked => debug!(?author, via = %propagation_source, "a word of a device that was revoked"),
            (Some(from), Ok((_, announcement))) => {
                let sequence = message.sequence_number.unwrap_or_default();
                self.tell(SwarmEvent::Announced { from, sequence, announcement });
            }
            (author, Err(error)) => debug!(?author, via = %propagation_source, %error, "malformed announcement"),
            (None, Ok(_)) => debug!(via = %propagation_source, "an announcement without a node as its author"),
        }
    }

    fn on_control(&mut self, event: request_response::Event<ControlRequest, ControlResponse>) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                request_response::Message::Request { request, channel, .. } => self.on_call(peer, request, channel),
                request_response::Message::Response { request_id, response } => {
                    if let Some(request) = self.requests.remove(&request_id) {
                        self.tell(SwarmEvent::Responded { request, response });
                    }
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "a control request failed");
                if let Some(request) = self.requests.remove(&request_id) {
                    self.tell(SwarmEvent::RequestFailed { request });
                }
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                debug!(%peer, %error, "a peer's control request failed");
                self.calls.retain(|_, channel| channel.is_open());
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_call(&mut self, peer: PeerId, request: ControlRequest, channel: ResponseChannel<ControlResponse>) {
        // Whoever knows the protocol's name is of the fleet, even before it was identified.
        let Some(from) = node_id(&peer).filter(|_| self.peers.prove(peer)) else { return };
        if self.calls.len() >= CALLS_MAX {
            // Dropping the channel tells the peer.
            return debug!(%peer, "too many control requests");
        }
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, channel);
        self.tell(SwarmEvent::Requested { call, from, request });
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id, info, .. } = event else { return };
        if !info.protocols.contains(&self.names.control) {
            debug!(peer = %peer_id, agent = %info.agent_version, protocol = %info.protocol_version, "a stranger");
            return self.turn_away(peer_id, "it is of another fleet or version, or other software");
        }
        self.peers.prove(peer_id);
        // What it says of its other interfaces may be out of reach; the one that it is connected by is not.
        for (address, _) in info.listen_addrs.iter().filter_map(address::socket_address) {
            if address::is_dialable(&address) && self.peers.is_at(&peer_id, address.ip()) {
                self.reachable_at(peer_id, address);
            }
        }
    }

    fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(_) | Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                debug!(peer = %event.peer, %error, "a connection is dead");
                self.swarm.close_connection(event.connection);
            }
        }
    }

    fn on_mdns(&mut self, event: mdns::Event) {
        match event {
            mdns::Event::Discovered(found) => {
                for (peer, address) in found {
                    if let Some(address) = dialable(&address) {
                        self.dialer.found(peer, address, true, Instant::now());
                    }
                }
            }
            mdns::Event::Expired(gone) => {
                for (peer, _) in gone {
                    self.dialer.out_of_sight(&peer);
                }
            }
        }
    }
}

fn dialable(address: &Multiaddr) -> Option<SocketAddr> {
    address::socket_address(address).map(|(socket, _)| socket).filter(address::is_dialable)
}

fn jitter(max: Duration) -> Duration {
    max.mul_f64(rand::random::<f64>())
}

async fn lookup(host: String, port: u16, family: Family) -> io::Result<Vec<SocketAddr>> {
    let found = timeout(LOOKUP_TIME_MAX, tokio::net::lookup_host((host, port))).await??;
    Ok(found.filter(|address| family.has(address)).take(LOOKUP_ADDRESSES_MAX).collect())
}
