//! More than anybody has to say or to dial.

use std::net::SocketAddr;

use layermesh_proto::{Algorithm, ContentId, wire::Part};
use libp2p::request_response;
use tokio::{io::AsyncReadExt as _, net::TcpSocket, task::JoinSet};

use super::*;
use crate::swarm::{address, share::PENDING_PER_ADDRESS_MAX};

/// Ten thousand words are signed and checked, on a machine that is busy with something else.
const FLOOD_PATIENCE: Duration = Duration::from_secs(240);

/// Connections that say nothing, all of one address that is not the node's.
async fn silent(at: SocketAddr, count: usize) -> JoinSet<()> {
    let mut closed = JoinSet::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 9], 0).into()).unwrap();
        let mut stream = socket.connect(at).await.unwrap();
        closed.spawn(async move {
            let _ = stream.read(&mut [0; 64]).await;
        });
    }
    closed
}

#[tokio::test]
async fn ten_times_the_handshakes_of_an_address_keep_nobody_out() {
    let mut node = Node::start("fleet", &[]).await;
    let (at, _) = address::socket_address(&node.address).unwrap();
    // Much sooner than handshakes time out.
    let mut closed = silent(at, 10 * PENDING_PER_ADDRESS_MAX).await;
    for _ in 0..9 * PENDING_PER_ADDRESS_MAX {
        patiently("connections beyond the share are closed", closed.join_next()).await;
    }
    let other = Node::start("fleet", &[&node.address]).await;
    node.connected_to(other.id).await;
}

#[tokio::test]
async fn who_says_far_too_much_is_not_heard_on_and_has_to_leave() {
    let mut node = Node::start("fleet", &[]).await;
    let mut loud = Node::start("fleet", &[&node.address]).await;
    let mut other = Node::start("fleet", &[&node.address]).await;
    loud.connected_to(node.id).await;
    other.connected_to(node.id).await;
    // Words are passed on to the other one, which has to take them to go on.
    let mut told = std::mem::replace(&mut other.events, mpsc::channel(1).1);
    let listening = tokio::spawn(async move { while told.recv().await.is_some() {} });
    let (id, words) = (loud.id, loud.handle.clone());
    let shouting = tokio::spawn(async move {
        for n in 0_u64.. {
            let content = ContentId::of(Algorithm::Sha256, &n.to_le_bytes());
            words.announce(Announcement::Taking(Part::Left { content }));
            // What does not fit into its own queues is not said: it waits now and then until they have room.
            if n % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let drained = tokio::spawn(async move { while loud.events.recv().await.is_some() {} });
    let mut heard = 0;
    let leaving = async {
        loop {
            match node.events.recv().await.expect("the swarm goes on") {
                SwarmEvent::Announced { from, .. } if from == id => heard += 1,
                SwarmEvent::PeerDisconnected { peer } if peer == id => return,
                _ => {}
            }
        }
    };
    timeout(FLOOD_PATIENCE, leaving).await.expect("it has to leave");
    shouting.abort();
    drained.abort();
    assert!(heard > 1000, "{heard}");
    patiently("the other one is heard as ever", async {
        loop {
            other.handle.announce(Announcement::Summary(summary(5)));
            let event = timeout(Duration::from_millis(200), node.events.recv()).await;
            if matches!(event, Ok(Some(SwarmEvent::Announced { from, .. })) if from == other.id) {
                return;
            }
        }
    })
    .await;
    listening.abort();
}

/// Puts questions to a node, far more than it grants, and nothing else.
struct Asking {
    rogue: Rogue,
    peer: PeerId,
}

impl Asking {
    async fn connected(node: &mut Node, streams: Streams) -> Self {
        let mut rogue = Rogue::with_streams("fleet", &node.address, streams);
        let (peer, id) = (node.keypair.public().to_peer_id(), node_id(&rogue.id()).unwrap());
        // Whoever has not said who it is yet is asked nothing and not heard.
        let mut known = Box::pin(node.connected_to(id));
        loop {
            tokio::select! {
                () = &mut known => break,
                _ = rogue.swarm.select_next_some() => {}
            }
        }
        drop(known);
        Self { rogue, peer }
    }

    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            let since = InventoryPosition { epoch: 0, seq: 0 };
            self.rogue.swarm.behaviour_mut().control.send_request(&self.peer, ControlRequest::Inventory { since });
        }
    }

    /// How many of its questions the node has heard and not answered.
    fn heard_by(&self, node: &mut Node) -> usize {
        let (mut heard, rogue) = (0, node_id(&self.rogue.id()).unwrap());
        while let Ok(event) = node.events.try_recv() {
            heard += usize::from(matches!(event, SwarmEvent::Requested { from, .. } if from == rogue));
        }
        heard
    }

    /// Waits until so many questions have come to nothing, or the connection has; says whether it is still there.
    async fn refused(&mut self, count: usize) -> bool {
        let mut refused = 0;
        patiently("refusals", async {
            while refused < count {
                match self.rogue.swarm.select_next_some().await {
                    Libp2pEvent::Behaviour(BehaviourEvent::Control(request_response::Event::OutboundFailure {
                        ..
                    })) => {
                        refused += 1;
                    }
                    Libp2pEvent::ConnectionClosed { .. } => return false,
                    _ => {}
                }
            }
            true
        })
        .await
    }
}

/// Asks as an honest peer, and is answered.
async fn is_answered(node: &mut Node) {
    let mut other = Node::start("fleet", &[&node.address]).await;
    other.connected_to(node.id).await;
    let since = InventoryPosition { epoch: 0, seq: 0 };
    other.handle.request(RequestId(1), node.id, ControlRequest::Inventory { since });
    let call = node.wait("a question", |event| match event {
        SwarmEvent::Requested { call, from, .. } if from == other.id => Some(call),
        _ => None,
    });
    let call = call.await;
    let page = InventoryPage { from_start: true, changes: vec![], position: since, more: false };
    node.handle.respond(call, ControlResponse::Inventory(page));
    other.wait("an answer", |event| matches!(event, SwarmEvent::Responded { .. }).then_some(())).await;
}

#[tokio::test]
async fn of_ten_times_the_requests_only_the_limit_comes_through_and_nobody_is_kept_out() {
    let mut node = Node::start("fleet", &[]).await;
    let limit = behaviour::STREAMS.control;
    // As many at once as leave room for the streams of the other protocols.
    let greedy = Streams { control: behaviour::STREAMS.all - 2 * limit, ..behaviour::STREAMS };
    let mut asking = Asking::connected(&mut node, greedy).await;
    asking.ask(limit);
    for _ in 0..9 {
        asking.ask(limit);
        assert!(asking.refused(limit).await);
    }
    assert_eq!(asking.heard_by(&mut node), limit);
    is_answered(&mut node).await;
}

#[tokio::test]
async fn ten_times_the_streams_are_refused_and_keep_nobody_out() {
    let mut node = Node::start("fleet", &[]).await;
    let (many, limit) = (10 * behaviour::STREAMS.all, behaviour::STREAMS.control);
    let mut asking = Asking::connected(&mut node, Streams { all: 2 * many, control: many, ..behaviour::STREAMS }).await;
    asking.ask(many);
    // Whether that costs it the connection depends on how fast they come.
    asking.refused(many - limit).await;
    assert!(asking.heard_by(&mut node) <= limit);
    is_answered(&mut node).await;
}
