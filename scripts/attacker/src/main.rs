//! Somebody on the LAN who does not behave, for tests of a node's limits: `scripts/flood` runs it against nodes in namespaces.
//!
//! ```text
//! layermesh-attacker connections COUNT SECONDS ADDRESS...         opens so many connections, as many at once as it can, and says nothing on them
//! layermesh-attacker gossip COUNT SECONDS MULTIADDRESS            says so many words as a node of the site
//! layermesh-attacker readers COUNT SECONDS PEER ADDRESS DIGEST PIECES   asks for a blob over so many connections, and reads nothing of it
//! ```
//!
//! It only ever talks to addresses that it is given, for at most so many seconds, and then says in a line of JSON what it did.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::print_stdout, reason = "its result is the line that it prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{net::SocketAddr, time::Duration};

use layermesh::{
    exchange::BulkClient,
    fleet::Fleet,
    swarm::{self, SwarmEvent, SwarmOptions},
};
use layermesh_proto::{
    Algorithm, ContentId, NodeId,
    wire::{Announcement, Part},
};
use libp2p::identity::Keypair;
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Connections that are opened at once, and the pause after them: a thousand a second.
const OPENED_AT_ONCE: usize = 20;
const OPENING_PAUSE: Duration = Duration::from_millis(20);
/// Words said at once, and the pause after them: 20,000 a second.
const BATCH: usize = 200;
const BATCH_PAUSE: Duration = Duration::from_millis(10);
/// Connections of one identity: what a bulk server grants.
const READERS_PER_PEER: usize = 16;

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, count, seconds, rest @ ..] = words.as_slice() else {
        panic!("usage: layermesh-attacker WHAT COUNT SECONDS ...")
    };
    let (count, until) = (count.parse().unwrap(), Instant::now() + Duration::from_secs(seconds.parse().unwrap()));
    match (what.as_str(), rest) {
        ("connections", addresses) if !addresses.is_empty() => {
            let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            connections(count, until, &addresses).await;
        }
        ("gossip", [address]) => gossip(count, until, address).await,
        ("readers", [peer, address, digest, pieces]) => {
            let target = (peer.parse().unwrap(), address.parse().unwrap());
            readers(count, until, target, digest.parse().unwrap(), pieces.parse().unwrap()).await;
        }
        _ => panic!("usage: layermesh-attacker connections|gossip|readers COUNT SECONDS ..."),
    }
}

/// Each connection is held until the other end closes it; then the next is opened, up to `count` in all.
async fn connections(count: usize, until: Instant, addresses: &[SocketAddr]) {
    let (mut opened, mut refused, mut held, mut most) = (0, 0, JoinSet::new(), 0);
    for n in 0..count {
        let address = addresses[n % addresses.len()];
        held.spawn(async move {
            let Ok(Ok(mut stream)) = timeout_at(until, TcpStream::connect(address)).await else { return false };
            let _ = timeout_at(until, stream.read(&mut [0; 64])).await;
            true
        });
        most = most.max(held.len());
        while let Some(ended) = held.try_join_next() {
            if ended.unwrap() { opened += 1 } else { refused += 1 }
        }
        if n % OPENED_AT_ONCE == 0 {
            sleep(OPENING_PAUSE).await;
        }
        if Instant::now() >= until {
            break;
        }
    }
    while let Some(ended) = held.join_next().await {
        if ended.unwrap() { opened += 1 } else { refused += 1 }
    }
    println!(r#"{{"opened":{opened},"refused":{refused},"most":{most}}}"#);
}

/// Says so many words, as somebody else each time that it is disconnected.
async fn gossip(count: usize, until: Instant, address: &str) {
    let (mut said, mut lost) = (0, 0);
    while said < count && Instant::now() < until {
        said += gossip_as_one(said, count, until, address).await;
        lost += 1;
    }
    println!(r#"{{"said":{said},"identities":{lost}}}"#);
}

/// The same with one identity, until it is disconnected; returns how many it said.
async fn gossip_as_one(from: usize, count: usize, until: Instant, address: &str) -> usize {
    let options = SwarmOptions {
        keypair: Keypair::generate_ed25519(),
        listen: "0.0.0.0:0".parse().unwrap(),
        fleet: "default".to_owned(),
        admission: Fleet::open(),
        mdns: false,
        static_peers: vec![address.parse().unwrap()],
        remembered: Vec::new(),
    };
    let (handle, mut events, _task) = swarm::spawn(options, CancellationToken::new()).unwrap();
    let (mut said, mut connected) = (0, false);
    while Instant::now() < until && from + said < count {
        if connected {
            for n in from + said..from + said + BATCH {
                let content = ContentId::of(Algorithm::Sha256, &n.to_le_bytes());
                handle.announce(Announcement::Taking(Part::Left { content }));
            }
            said += BATCH;
        }
        let pause = Instant::now() + BATCH_PAUSE;
        while let Ok(Some(event)) = timeout_at(pause, events.recv()).await {
            match event {
                SwarmEvent::PeerConnected { .. } => connected = true,
                SwarmEvent::PeerDisconnected { .. } => return said,
                _ => {}
            }
        }
    }
    said
}

async fn readers(count: usize, until: Instant, (peer, address): (NodeId, SocketAddr), content: ContentId, pieces: u32) {
    let (mut opening, mut held, mut refused) = (JoinSet::new(), Vec::new(), 0);
    for n in 0..count {
        // An identity of its own for each few, as many devices would be.
        if n % READERS_PER_PEER == 0 {
            while let Some(opened) = opening.join_next().await {
                match opened.unwrap() {
                    Some(body) => held.push(body),
                    None => refused += 1,
                }
            }
        }
        let client = BulkClient::new(&Keypair::generate_ed25519(), &Fleet::open()).unwrap();
        opening.spawn(async move {
            let opened = timeout_at(until, client.open(peer, address, content, None, 0..pieces)).await;
            Some((opened.ok()?.ok()?, client))
        });
        if Instant::now() >= until {
            break;
        }
    }
    while let Some(opened) = opening.join_next().await {
        if let Some(body) = opened.unwrap() { held.push(body) } else { refused += 1 }
    }
    let most = held.len();
    tokio::time::sleep_until(until).await;
    println!(r#"{{"reading":{most},"refused":{refused}}}"#);
}
