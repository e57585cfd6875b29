//! More than anybody has to say or to dial.

use std::net::SocketAddr;

use layermesh_proto::{Algorithm, ContentId, wire::Part};
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
