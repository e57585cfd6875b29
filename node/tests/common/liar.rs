//! A peer that speaks the protocol and does not keep to it: it says that it holds blobs, and serves something else.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use layermesh::{
    counters::Counters,
    exchange::{BlobRead, BlobSource, BulkServer, ServerLimits},
    fleet::Fleet,
    swarm::{self, SwarmEvent, SwarmHandle, SwarmOptions},
};
use layermesh_proto::{
    ContentId, PieceMap,
    wire::{
        Change, ControlRequest, ControlResponse, Entry, Hello, InventoryPage, InventoryPosition, Summary, TagWord,
        Vouches,
    },
};
use libp2p::identity::Keypair;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// A blob as a liar has it.
#[derive(Debug, Clone)]
pub struct Lie {
    /// What it claims the blob to be.
    pub content: ContentId,
    /// The bytes that it serves.
    pub bytes: Bytes,
    /// The bytes that its piece map is made of.
    pub vouched: Bytes,
    /// Where it stops sending and keeps the connection.
    pub stall_at: Option<u64>,
    /// Where it closes the connection.
    pub cut_at: Option<u64>,
}

impl Lie {
    /// The truth about a blob.
    pub fn truth(content: ContentId, bytes: Bytes) -> Self {
        Self { content, vouched: bytes.clone(), bytes, stall_at: None, cut_at: None }
    }

    /// Bytes that are wrong at this offset, with a piece map to match.
    pub fn consistent(content: ContentId, bytes: &Bytes, wrong_at: usize) -> Self {
        Self::truth(content, wrong(bytes, wrong_at))
    }

    /// Bytes that are wrong at this offset, under the right piece map.
    pub fn clumsy(content: ContentId, bytes: Bytes, wrong_at: usize) -> Self {
        Self { bytes: wrong(&bytes, wrong_at), ..Self::truth(content, bytes) }
    }
}

fn wrong(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// A lying peer, until it is dropped.
pub struct Liar {
    pub address: String,
    pub peer: String,
    served: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

impl Liar {
    pub async fn start(fleet: &str, lies: Vec<Lie>) -> Self {
        let keypair = Keypair::generate_ed25519();
        let shutdown = CancellationToken::new();
        let served = Arc::new(AtomicU64::new(0));
        let changes = (1..)
            .zip(&lies)
            .map(|(seq, lie)| {
                let entry = Entry::Held { content: lie.content, size: lie.bytes.len() as u64 };
                Change { seq, entry }
            })
            .collect();
        let source = Source {
            lies: Arc::new(lies.into_iter().map(|lie| (lie.content, lie)).collect()),
            served: Arc::clone(&served),
        };
        let loopback = ([127, 0, 0, 1], 0).into();
        let bulk = BulkServer::bind(
            loopback,
            (&keypair, &Fleet::open()),
            source,
            Arc::<Counters>::default(),
            ServerLimits::default(),
        )
        .await
        .unwrap();
        let bulk_port = bulk.local_addr().port();
        tokio::spawn(bulk.run(shutdown.clone()));
        let options = SwarmOptions {
            keypair: keypair.clone(),
            listen: loopback,
            fleet: fleet.to_owned(),
            admission: Fleet::open(),
            mdns: false,
            static_peers: Vec::new(),
            remembered: Vec::new(),
        };
        let (handle, mut events, _ended) = swarm::spawn(options, shutdown.clone()).unwrap();
        let address = timeout(PATIENCE, listening(&mut events)).await.unwrap();
        tokio::spawn(converse(handle, events, bulk_port, changes));
        Self { address, peer: keypair.public().to_peer_id().to_string(), served, shutdown }
    }

    /// Bytes of blobs that were taken from it.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn listening(events: &mut mpsc::Receiver<SwarmEvent>) -> String {
    loop {
        if let SwarmEvent::Listening(address) = events.recv().await.unwrap() {
            return address.to_string();
        }
    }
}

/// Answers what it is asked: who it is, and what it claims to hold.
async fn converse(handle: SwarmHandle, mut events: mpsc::Receiver<SwarmEvent>, bulk_port: u16, changes: Vec<Change>) {
    let position = InventoryPosition { epoch: 1, seq: changes.len() as u64 };
    let summary = Summary { position, origin_reachable: None, platform: "linux/amd64".to_owned() };
    while let Some(event) = events.recv().await {
        let SwarmEvent::Requested { call, request, .. } = event else { continue };
        let answer = match request {
            ControlRequest::Hello(_) => {
                ControlResponse::Hello(Hello { bulk_port, version: "0".to_owned(), summary: summary.clone() })
            }
            ControlRequest::Inventory { .. } => ControlResponse::Inventory(InventoryPage {
                from_start: true,
                changes: changes.clone(),
                position,
                more: false,
            }),
            ControlRequest::Vouches { .. } => ControlResponse::Vouches(Vouches { size: 0, runs: Vec::new() }),
            ControlRequest::Claim { .. } => ControlResponse::Claim { free: true },
            ControlRequest::Tag { .. } => ControlResponse::Tag(TagWord::Ask),
            ControlRequest::TagSaid { .. } => ControlResponse::Noted,
        };
        handle.respond(call, answer);
    }
}

#[derive(Debug, Clone)]
struct Source {
    lies: Arc<BTreeMap<ContentId, Lie>>,
    served: Arc<AtomicU64>,
}

impl BlobSource for Source {
    type Reader = Reader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        Some(self.lies.get(content)?.bytes.len() as u64)
    }

    async fn piece_map(&self, content: &ContentId) -> Option<PieceMap> {
        PieceMap::of(&self.lies.get(content)?.vouched)
    }

    fn reader(&self, content: ContentId) -> Reader {
        Reader { lie: self.lies.get(&content).cloned(), served: Arc::clone(&self.served) }
    }
}

struct Reader {
    lie: Option<Lie>,
    served: Arc<AtomicU64>,
}

impl BlobRead for Reader {
    async fn size(&mut self) -> u64 {
        match &self.lie {
            Some(lie) => lie.bytes.len() as u64,
            None => std::future::pending().await,
        }
    }

    async fn read(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        let lie = self.lie.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if lie.stall_at.is_some_and(|at| at <= offset) {
            return std::future::pending().await;
        }
        if lie.cut_at.is_some_and(|at| at <= offset) {
            return Err(io::Error::other("told to"));
        }
        let start = usize::try_from(offset).unwrap();
        let stop = lie.stall_at.into_iter().chain(lie.cut_at).min().unwrap_or(u64::MAX);
        let end = start.saturating_add(max).min(lie.bytes.len()).min(usize::try_from(stop).unwrap_or(usize::MAX));
        self.served.fetch_add((end - start) as u64, Ordering::Relaxed);
        Ok(lie.bytes.slice(start..end))
    }
}
