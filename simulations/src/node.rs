//! A simulated device: an engine, a disk, and fetches that run.

use std::collections::{BTreeMap, VecDeque};

use layermesh_proto::{
    ContentId, NodeId, PieceHash, PieceIndex, PieceLayout,
    engine::{
        Engine,
        event::{CallId, FetchId, Instant, PromiseId, RequestId, Resolution, ResolveId, Source, WantError, WantId},
    },
};

use crate::{queue::Target, store::Store};

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

/// Pieces that come in from one source.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) content: ContentId,
    pub(crate) source: Source,
    /// The source is a peer that may not have all of it yet.
    pub(crate) growing: bool,
    pub(crate) layout: Option<PieceLayout>,
    /// Hashes that its pieces must have, if the source is one that has not all of it.
    pub(crate) expected: BTreeMap<PieceIndex, PieceHash>,
    /// The origin is asked for its first bytes, to learn how large the blob is.
    pub(crate) unsized_: bool,
    /// Its first piece that is asked for: what comes before it is thrown away.
    pub(crate) first: PieceIndex,
    pub(crate) next: PieceIndex,
    pub(crate) end: PieceIndex,
    pub(crate) sent: u32,
    /// Bytes that came since the last report.
    pub(crate) unreported_bytes: u64,
    pub(crate) reported_at: Instant,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) engine: Option<Engine>,
    pub(crate) life: u32,
    pub(crate) store: Store,
    pub(crate) fault: Option<Fault>,
    pub(crate) flows: BTreeMap<FetchId, Flow>,
    /// Questions of peers that the engine has not answered yet.
    pub(crate) calls: BTreeMap<CallId, (Target, RequestId)>,
    pub(crate) wants: BTreeMap<WantId, (ContentId, Option<Result<(), WantError>>)>,
    pub(crate) resolves: BTreeMap<ResolveId, Option<Result<Resolution, WantError>>>,
    pub(crate) promises: BTreeMap<PromiseId, Vec<ContentId>>,
    /// Rate of its own uplink if it is another than the others', in bytes a second.
    pub(crate) uplink_bytes_per_s: Option<u64>,
    pub(crate) bytes_from_origin: u64,
    pub(crate) bytes_from_peers: u64,
    pub(crate) next_id: u64,
    /// The last things that happened to it, for a report.
    pub(crate) recent: VecDeque<String>,
}

/// Lines of a node's recent history that a report shows.
const RECENT_MAX: usize = 40;

impl Node {
    pub(crate) fn new(id: NodeId) -> Self {
        Self {
            id,
            engine: None,
            life: 0,
            store: Store::default(),
            fault: None,
            flows: BTreeMap::new(),
            calls: BTreeMap::new(),
            wants: BTreeMap::new(),
            resolves: BTreeMap::new(),
            promises: BTreeMap::new(),
            uplink_bytes_per_s: None,
            bytes_from_origin: 0,
            bytes_from_peers: 0,
            next_id: 0,
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

    pub(crate) fn remember(&mut self, line: String) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}
