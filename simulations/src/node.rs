//! A simulated device: an engine, a disk, and fetches that run.

use std::collections::{BTreeMap, VecDeque};

use layermesh_proto::{
    ContentId, NodeId, PieceHash, PieceIndex, PieceLayout,
    engine::{
        Engine, Urgency,
        event::{CallId, FetchId, Instant, PromiseId, RequestId, Resolution, ResolveId, Source, WantError, WantId},
    },
};

use crate::{
    connections::Connections,
    disk::Disk,
    limits::Fruitless,
    links::{LinkId, Passage},
    queue::Target,
    rebuild::{Making, Way},
    store::Store,
};

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It sends pieces that are not what it vouched for.
    WrongPieces,
    /// It vouches for pieces that are not the blob's.
    WrongMap,
    /// It stops sending after this many pieces of each fetch.
    StallsAfter(u32),
    /// It announces blobs that it then does not have.
    HasNothing,
    /// Of what it takes from the origin it keeps other bytes, and vouches for them.
    Forges,
}

/// What a node is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOptions {
    /// OCI platform such as `linux/arm64` that it tells its peers; that of the world's configuration if `None`.
    pub platform: Option<String>,
    /// The network that it is in. Two nodes are connected if one finds the other's network.
    pub group: u32,
    /// The networks whose nodes it finds; all if empty.
    pub finds: Vec<u32>,
    /// Rate at which its disk takes bytes, in bytes a second; at once if `None`.
    pub disk_bytes_per_s: Option<u64>,
    /// Bytes that its disk has room for; no end to it if `None`.
    pub disk_free_bytes: Option<u64>,
    /// Seconds that its wall clock is ahead.
    pub skew_s: i64,
    /// Rate of an uplink of its own, in bytes a second; as the site's options say if `None`.
    pub uplink_bytes_per_s: Option<u64>,
    /// It is there, and not started.
    pub down: bool,
}

/// Pieces that come in from one source.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) content: ContentId,
    pub(crate) source: Source,
    /// The source, if it is a peer, in the life in which it was asked.
    pub(crate) peer: Option<Target>,
    /// The source is a peer that may not have all of it yet.
    pub(crate) growing: bool,
    pub(crate) layout: Option<PieceLayout>,
    /// Hashes that its pieces must have, if the source is one that has not all of it.
    pub(crate) expected: BTreeMap<PieceIndex, PieceHash>,
    /// The origin is asked for its first bytes, to learn how large the blob is.
    pub(crate) unsized_: bool,
    /// Its first piece that is asked for: what comes before it is thrown away.
    pub(crate) first: PieceIndex,
    /// The piece that comes next, or is on its way.
    pub(crate) next: PieceIndex,
    /// The piece after the last one that is stored or thrown away.
    pub(crate) landed: PieceIndex,
    pub(crate) end: PieceIndex,
    pub(crate) sent: u32,
    /// Bytes that its connection to the origin carried since TCP began.
    pub(crate) carried: u64,
    /// Pieces that came and wait for the disk.
    pub(crate) unstored: u32,
    /// The piece on its way, when it set out, and its bytes.
    pub(crate) passage: Option<(Passage, Instant, u64)>,
    /// It waits for what its source has not yet, or for a hash.
    pub(crate) waits: bool,
    /// Bytes of the piece on its way that were reported.
    pub(crate) counted: u64,
    /// Bytes that came since the last report.
    pub(crate) unreported_bytes: u64,
    pub(crate) reported_at: Instant,
}

/// A want, and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) content: ContentId,
    pub(crate) urgency: Urgency,
    pub(crate) ended: Option<(Instant, Result<(), WantError>)>,
}

/// Bytes of gossip and of questions and answers, as they are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sent: a gossip message once to each listener that is connected.
    pub sent: u64,
    /// Received: a gossip message once.
    pub received: u64,
}

/// A fetch of another node that waits for something of this one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taker {
    pub(crate) content: ContentId,
    /// The piece; if none, that this node begins.
    pub(crate) piece: Option<PieceIndex>,
    pub(crate) who: Target,
    pub(crate) fetch: FetchId,
}

/// The links of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) out: LinkId,
    pub(crate) into: LinkId,
    /// Its own uplink, if it has one.
    pub(crate) uplink: Option<LinkId>,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) options: NodeOptions,
    pub(crate) engine: Option<Engine>,
    pub(crate) life: u32,
    /// When its engine wants a tick.
    pub(crate) due: Option<Instant>,
    pub(crate) store: Store,
    pub(crate) disk: Disk,
    pub(crate) ports: Ports,
    pub(crate) fault: Option<Fault>,
    pub(crate) flows: BTreeMap<FetchId, Flow>,
    pub(crate) connections: Connections,
    pub(crate) takers: Vec<Taker>,
    /// Questions of peers that the engine has not answered yet.
    pub(crate) calls: BTreeMap<CallId, (Target, RequestId)>,
    pub(crate) wants: BTreeMap<WantId, Want>,
    /// How blobs can be made of others.
    pub(crate) ways: BTreeMap<ContentId, Way>,
    /// Blobs that are being made.
    pub(crate) making: BTreeMap<ContentId, Making>,
    pub(crate) resolves: BTreeMap<ResolveId, Option<Result<Resolution, WantError>>>,
    pub(crate) promises: BTreeMap<PromiseId, Vec<ContentId>>,
    /// Fetches that were begun since one brought something, within this minute of virtual time.
    pub(crate) fruitless: Fruitless,
    /// Questions to origins that are under way.
    pub(crate) lookups: usize,
    /// Bytes a second that it may take from origins, if its engine said.
    pub(crate) pace: Option<u64>,
    /// What its wall clock was set to, and when: another minute of the week than the world's.
    pub(crate) clock_set: Option<(Instant, u16)>,
    pub(crate) bytes_from_origin: u64,
    pub(crate) bytes_from_peers: u64,
    pub(crate) bytes_wasted: u64,
    pub(crate) traffic: Traffic,
    pub(crate) next_id: u64,
    /// Events until all its pieces are checked again.
    pub(crate) until_check: u32,
    /// The last things that happened to it, for a report.
    pub(crate) recent: VecDeque<String>,
}

/// Lines of a node's recent history that a report shows.
const RECENT_MAX: usize = 40;

impl Node {
    pub(crate) fn new(id: NodeId, options: NodeOptions, ports: Ports) -> Self {
        let disk = Disk::new(options.disk_bytes_per_s, options.disk_free_bytes);
        Self {
            id,
            options,
            engine: None,
            life: 0,
            due: None,
            store: Store::default(),
            disk,
            ports,
            fault: None,
            flows: BTreeMap::new(),
            connections: Connections::default(),
            takers: Vec::new(),
            calls: BTreeMap::new(),
            wants: BTreeMap::new(),
            ways: BTreeMap::new(),
            making: BTreeMap::new(),
            resolves: BTreeMap::new(),
            promises: BTreeMap::new(),
            fruitless: Fruitless::default(),
            lookups: 0,
            pace: None,
            clock_set: None,
            bytes_from_origin: 0,
            bytes_from_peers: 0,
            bytes_wasted: 0,
            traffic: Traffic::default(),
            next_id: 0,
            until_check: 0,
            recent: VecDeque::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.engine.is_some()
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Its wall clock, `passed` seconds after the start of the world.
    pub(crate) fn wall_clock(&self, start_s: u64, passed_s: u64) -> u64 {
        (start_s + passed_s).saturating_add_signed(self.options.skew_s)
    }

    pub(crate) fn remember(&mut self, line: String) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}
