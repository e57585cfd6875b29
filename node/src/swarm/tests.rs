//! Nodes on loopback.

use std::{future::Future, time::Duration};

use futures::StreamExt as _;
use layermesh_proto::{
    NodeId,
    engine::event::RequestId,
    wire::{
        Announcement, ControlRequest, ControlResponse, Hello, InventoryPage, InventoryPosition, Summary,
        neighbourhood::{self, Neighbourhood},
    },
};
use libp2p::{
    Multiaddr, PeerId, Swarm, gossipsub,
    identity::Keypair,
    swarm::{SwarmEvent as Libp2pEvent, dial_opts::DialOpts},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::{self, Behaviour, BehaviourEvent, Multicast, Names, Streams},
    *,
};

mod admission;
mod floods;

/// Nothing here takes a tenth of it, unless it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

struct Node {
    keypair: Keypair,
    id: NodeId,
    address: Multiaddr,
    handle: SwarmHandle,
    events: mpsc::Receiver<SwarmEvent>,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
}

impl Node {
    async fn start(fleet: &str, static_peers: &[&Multiaddr]) -> Self {
        Self::start_with(Keypair::generate_ed25519(), fleet, 0, static_peers, &[]).await
    }

    async fn start_with(
        keypair: Keypair,
        fleet: &str,
        port: u16,
        static_peers: &[&Multiaddr],
        remembered: &[Multiaddr],
    ) -> Self {
        Self::start_in(keypair, (fleet, Fleet::open()), port, static_peers, remembered).await
    }

    async fn start_in(
        keypair: Keypair,
        (fleet, admission): (&str, Fleet),
        port: u16,
        static_peers: &[&Multiaddr],
        remembered: &[Multiaddr],
    ) -> Self {
        let options = SwarmOptions {
            keypair: keypair.clone(),
            listen: ([127, 0, 0, 1], port).into(),
            fleet: fleet.to_owned(),
            admission,
            mdns: false,
            static_peers: static_peers.iter().map(|&address| address.clone()).collect(),
            remembered: remembered.to_vec(),
        };
        let shutdown = CancellationToken::new();
        let (handle, mut events, ended) = spawn(options, shutdown.clone()).unwrap();
        let id = node_id(&keypair.public().to_peer_id()).unwrap();
        let address = patiently("an address", async {
            loop {
                if let Some(SwarmEvent::Listening(address)) = events.recv().await {
                    return address;
                }
            }
        })
        .await;
        Self { keypair, id, address, handle, events, shutdown, ended }
    }

    /// Waits for an event that `pick` takes, passing over others.
    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(SwarmEvent) -> Option<T>) -> T {
        patiently(what, async {
            loop {
                if let Some(picked) = pick(self.events.recv().await.expect("the swarm goes on")) {
                    return picked;
                }
            }
        })
        .await
    }

    async fn connected_to(&mut self, other: NodeId) {
        self.wait("a connection", |event| {
            matches!(event, SwarmEvent::PeerConnected { peer, address } if peer == other && address.is_loopback())
                .then_some(())
        })
        .await;
    }

    async fn disconnected_from(&mut self, other: NodeId) {
        self.wait("a disconnection", |event| (event == SwarmEvent::PeerDisconnected { peer: other }).then_some(()))
            .await;
    }

    fn port(&self) -> u16 {
        address::socket_address(&self.address).unwrap().0.port()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        patiently("the end", self.ended).await.unwrap();
    }
}

fn summary(seq: u64) -> Summary {
    Summary {
        position: InventoryPosition { epoch: 1, seq },
        origin_reachable: Some(true),
        platform: "linux/arm64".to_owned(),
    }
}

/// Announces until the other node hears it: peers tell each other their subscriptions only after connecting.
async fn announce_until_heard(from: &SwarmHandle, by: &mut Node) -> (NodeId, Announcement) {
    let announcement = Announcement::Summary(summary(5));
    patiently("an announcement", async {
        loop {
            from.announce(announcement.clone());
            let heard = timeout(Duration::from_millis(200), by.events.recv()).await;
            if let Ok(Some(SwarmEvent::Announced { from, announcement, .. })) = heard {
                return (from, announcement);
            }
        }
    })
    .await
}

#[tokio::test]
async fn two_nodes_gossip_and_ask_each_other() {
    let mut a = Node::start("f", &[]).await;
    let mut b = Node::start("f", &[&a.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;

    let heard = announce_until_heard(&b.handle, &mut a).await;
    assert_eq!(heard, (b.id, Announcement::Summary(summary(5))));

    let hello = Hello { bulk_port: 7119, version: "1.2.3".to_owned(), summary: summary(1) };
    a.handle.request(RequestId(1), b.id, ControlRequest::Hello(hello.clone()));
    let (call, from, request) = b
        .wait("a question", |event| match event {
            SwarmEvent::Requested { call, from, request } => Some((call, from, request)),
            _ => None,
        })
        .await;
    assert_eq!((from, request), (a.id, ControlRequest::Hello(hello)));
    let page = InventoryPage {
        from_start: true,
        changes: vec![],
        position: InventoryPosition { epoch: 1, seq: 0 },
        more: false,
    };
    b.handle.respond(call, ControlResponse::Inventory(page.clone()));
    let answer = a
        .wait("an answer", |event| match event {
            SwarmEvent::Responded { request: RequestId(1), response } => Some(response),
            _ => None,
        })
        .await;
    assert_eq!(answer, ControlResponse::Inventory(page));

    let nobody = NodeId::from_public_key([9; 32]);
    let since = InventoryPosition { epoch: 0, seq: 0 };
    a.handle.request(RequestId(2), nobody, ControlRequest::Inventory { since });
    a.wait("a failure", |event| (event == SwarmEvent::RequestFailed { request: RequestId(2) }).then_some(())).await;
}

#[tokio::test]
async fn announcements_reach_nodes_that_are_not_connected_to_their_author() {
    let mut middle = Node::start("f", &[]).await;
    let b = Node::start("f", &[&middle.address]).await;
    let mut c = Node::start("f", &[&middle.address]).await;
    middle.connected_to(b.id).await;
    c.connected_to(middle.id).await;
    let (author, _) = announce_until_heard(&b.handle, &mut c).await;
    assert_eq!(author, b.id);
}

#[tokio::test]
async fn a_slow_driver_loses_no_event() {
    let mut a = Node::start("f", &[]).await;
    let (nobody, since) = (NodeId::from_public_key([9; 32]), InventoryPosition { epoch: 0, seq: 0 });
    let count = EVENT_QUEUE_LEN as u64 + 100;
    for id in 0..count {
        a.handle.request(RequestId(id), nobody, ControlRequest::Inventory { since });
    }
    let b = Node::start("f", &[&a.address]).await;
    for id in 0..count {
        let next = patiently("a failure", a.events.recv()).await.unwrap();
        assert_eq!(next, SwarmEvent::RequestFailed { request: RequestId(id) });
    }
    a.connected_to(b.id).await;
}

#[tokio::test]
async fn a_request_that_is_not_answered_fails_when_the_peer_goes() {
    let mut a = Node::start("f", &[]).await;
    let mut b = Node::start("f", &[&a.address]).await;
    a.connected_to(b.id).await;
    let since = InventoryPosition { epoch: 0, seq: 0 };
    a.handle.request(RequestId(7), b.id, ControlRequest::Inventory { since });
    b.wait("a question", |event| matches!(event, SwarmEvent::Requested { .. }).then_some(())).await;
    b.stop().await;
    a.wait("a failure", |event| (event == SwarmEvent::RequestFailed { request: RequestId(7) }).then_some(())).await;
}

#[tokio::test]
async fn a_node_that_restarts_is_connected_again_from_either_side() {
    let mut a = Node::start("f", &[]).await;
    let mut b = Node::start("f", &[&a.address]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;

    // B dialled A by its configuration; A learned where B listens and dials it when it is back without one.
    let (keypair, port, id) = (b.keypair.clone(), b.port(), b.id);
    a.wait("where B listens", |event| matches!(event, SwarmEvent::AddressLearned { .. }).then_some(())).await;
    b.stop().await;
    a.disconnected_from(id).await;
    let mut b = Node::start_with(keypair, "f", port, &[], &[]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;

    let (keypair, port, id) = (a.keypair.clone(), a.port(), a.id);
    a.stop().await;
    b.disconnected_from(id).await;
    let mut a = Node::start_with(keypair, "f", port, &[], &[]).await;
    b.connected_to(a.id).await;
    a.connected_to(b.id).await;
}

#[tokio::test]
async fn remembered_peers_are_found_without_configuration() {
    let mut a = Node::start("f", &[]).await;
    let mut b = Node::start("f", &[&a.address]).await;
    let learned = b
        .wait("A's address", |event| match event {
            SwarmEvent::AddressLearned { peer, address } if peer == a.id => Some(address),
            _ => None,
        })
        .await;
    assert_eq!(learned, a.address);
    let (keypair, id) = (b.keypair.clone(), b.id);
    a.connected_to(id).await;
    b.stop().await;
    a.disconnected_from(id).await;
    let junk: Multiaddr = "/ip4/127.0.0.1/udp/1".parse().unwrap();
    let mut b = Node::start_with(keypair, "f", 0, &[], &[junk, learned]).await;
    b.connected_to(a.id).await;
}

#[tokio::test]
async fn a_static_peer_can_be_a_name() {
    let mut a = Node::start("f", &[]).await;
    let named: Multiaddr = format!("/dns4/localhost/tcp/{}", a.port()).parse().unwrap();
    let mut b = Node::start("f", &[&named]).await;
    a.connected_to(b.id).await;
    b.connected_to(a.id).await;
}

/// A swarm without the task around it, to do what a node would not.
struct Rogue {
    swarm: Swarm<Behaviour>,
    names: Names,
}

impl Rogue {
    fn dialling(fleet: &str, address: &Multiaddr) -> Self {
        Self::with_streams(fleet, address, behaviour::STREAMS)
    }

    fn with_streams(fleet: &str, address: &Multiaddr, streams: Streams) -> Self {
        let (names, keypair) = (Names::new(fleet).unwrap(), Keypair::generate_ed25519());
        let mut swarm = behaviour::swarm(&keypair, &names, Multicast::Off, &Fleet::open(), streams).unwrap();
        swarm.dial(DialOpts::unknown_peer_id().address(address.clone()).build()).unwrap();
        Self { swarm, names }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn publish(&mut self, data: Vec<u8>) -> bool {
        self.swarm.behaviour_mut().gossip.publish(self.names.topic.clone(), data).is_ok()
    }
}

#[tokio::test]
async fn nodes_of_another_fleet_are_turned_away() {
    let mut a = Node::start("ours", &[]).await;
    let mut rogue = Rogue::dialling("theirs", &a.address);
    patiently("being turned away", async {
        while !matches!(rogue.swarm.select_next_some().await, Libp2pEvent::ConnectionClosed { .. }) {}
    })
    .await;
    let b = Node::start("ours", &[&a.address]).await;
    let first = a.wait("a connection", |event| match event {
        SwarmEvent::PeerConnected { peer, .. } => Some(peer),
        _ => None,
    });
    assert_eq!(first.await, b.id, "the stranger never counted as connected");
}

/// Lets the author say these words over and over, in this order, until the witness hears one; returns that one. Both are
/// connected to the same node alone: what it relays at all comes in the order in which it was said.
async fn first_relayed(author: &mut Rogue, witness: &mut Rogue, words: &[Vec<u8>]) -> gossipsub::Message {
    patiently("a word", async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = author.swarm.select_next_some() => {}
                event = witness.swarm.select_next_some() => {
                    if let Libp2pEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. })) = event {
                        return message;
                    }
                }
                _ = tick.tick() => for word in words {
                    author.publish(word.clone());
                },
            }
        }
    })
    .await
}

/// The next announcement that a node hears.
async fn next_announced(node: &mut Node) -> (NodeId, Announcement) {
    node.wait("an announcement", |event| match event {
        SwarmEvent::Announced { from, announcement, .. } => Some((from, announcement)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn malformed_announcements_are_not_taken_and_not_relayed() {
    let mut a = Node::start("f", &[]).await;
    let mut liar = Rogue::dialling("f", &a.address);
    let mut witness = Rogue::dialling("f", &a.address);
    let word = Announcement::Summary(summary(3));
    let good = neighbourhood::encode(Neighbourhood::default(), &word).unwrap();
    let heard = first_relayed(&mut liar, &mut witness, &[vec![0xff; 100], good.clone()]).await;
    assert_eq!((heard.source, heard.data), (Some(liar.id()), good));
    assert_eq!(next_announced(&mut a).await, (node_id(&liar.id()).unwrap(), word));
}

#[tokio::test]
async fn words_of_whoever_reaches_the_same_peers_are_taken_and_not_relayed() {
    let mut a = Node::start("f", &[]).await;
    let mut author = Rogue::dialling("f", &a.address);
    let mut witness = Rogue::dialling("f", &a.address);
    let connected = async {
        for _ in 0..2 {
            a.wait("both", |event| matches!(event, SwarmEvent::PeerConnected { .. }).then_some(())).await;
        }
    };
    tokio::select! {
        () = connected => {}
        () = async { loop { author.swarm.select_next_some().await; } } => {}
        () = async { loop { witness.swarm.select_next_some().await; } } => {}
    }
    let all = [author.id(), witness.id()].iter().filter_map(node_id).chain([a.id]).collect::<Vec<_>>();
    let same = Announcement::Summary(summary(3));
    let other = Announcement::Summary(summary(4));
    let words = [
        neighbourhood::encode(Neighbourhood::of(all), &same).unwrap(),
        neighbourhood::encode(Neighbourhood::of([a.id, node_id(&author.id()).unwrap()]), &other).unwrap(),
    ];
    let heard = first_relayed(&mut author, &mut witness, &words).await;
    assert_eq!((heard.source, &heard.data), (Some(author.id()), &words[1]));
    let from = node_id(&author.id()).unwrap();
    assert_eq!(next_announced(&mut a).await, (from, same));
    assert_eq!(next_announced(&mut a).await, (from, other));
}

#[tokio::test]
async fn options_outside_their_limits_are_refused() {
    let options = |fleet: &str, static_peers: Vec<Multiaddr>| SwarmOptions {
        keypair: Keypair::generate_ed25519(),
        listen: ([127, 0, 0, 1], 0).into(),
        fleet: fleet.to_owned(),
        admission: Fleet::open(),
        mdns: false,
        static_peers,
        remembered: vec![],
    };
    let refused = |options| spawn(options, CancellationToken::new()).unwrap_err();
    let peer: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    assert!(matches!(refused(options("no/slash", vec![])), SwarmError::Fleet(_)));
    let quic: Multiaddr = "/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap();
    assert!(matches!(refused(options("f", vec![quic])), SwarmError::Address(_)));
    assert!(matches!(refused(options("f", vec![peer; STATIC_PEERS_MAX + 1])), SwarmError::TooManyPeers(_)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    assert!(matches!(refused(SwarmOptions { listen, ..options("f", vec![]) }), SwarmError::Listen { .. }));
}

#[tokio::test]
async fn requests_that_find_the_queue_full_fail_and_the_others_are_dropped() {
    let (commands, mut command_queue) = mpsc::channel(1);
    let (refused, mut refused_queue) = mpsc::channel(1);
    let handle = SwarmHandle { commands, refused, dropped: Arc::default() };
    let (peer, since) = (NodeId::from_public_key([1; 32]), InventoryPosition { epoch: 0, seq: 0 });
    for id in 1..=3 {
        handle.request(RequestId(id), peer, ControlRequest::Inventory { since });
    }
    handle.announce(Announcement::Summary(summary(1)));
    assert!(matches!(command_queue.try_recv(), Ok(Command::Request { request: RequestId(1), .. })));
    assert_eq!(refused_queue.try_recv(), Ok(RequestId(2)));
    assert_eq!(handle.dropped.load(Ordering::Relaxed), 2);
}
