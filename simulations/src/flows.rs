//! Fetches in the world: pieces that come from a peer or the origin, one after the other.
//!
//! Invariant: a piece takes as long as its share of the sender's and the receiver's rate says when it sets out.

use std::time::Duration;

use layermesh_proto::{
    FIRST_BYTES, PieceHash, PieceLayout,
    engine::event::{Event, FetchId, Source, SourceError},
};

use crate::{
    checks::Violation,
    network::{OriginMode, time_of},
    node::{Fault, Flow},
    queue::Happening,
    store::hash_of,
    world::{NodeIndex, World},
};

/// How often a flow looks whether what it waits for has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Between two reports of how many bytes came, as nodes make them; pieces that are there are told at once.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// How a connection ends whose other side is gone.
pub(crate) fn broken() -> SourceError {
    SourceError::Unreachable("connection reset".to_owned())
}

impl World {
    /// A fetch sets out for its source.
    pub(crate) fn begin_flow(&mut self, node: NodeIndex, fetch: FetchId, flow: Flow) {
        let latency = match flow.source {
            Source::Peer(_) => self.options.lan_latency * 2,
            Source::Origin(..) => self.options.uplink_latency * 2,
        };
        self.nodes[node].flows.insert(fetch, flow);
        self.plan(latency, node, Happening::Open { fetch });
    }

    /// A fetch reaches its source.
    pub(crate) fn open(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let content = flow.content;
        let opened = match &flow.source {
            Source::Origin(..) => match self.origin.mode {
                OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => {
                    self.origin.blobs.get(&content).copied().ok_or(SourceError::NotFound)
                }
                OriginMode::Refusing => Err(SourceError::Unreachable("connection refused".to_owned())),
                OriginMode::Silent => return Ok(()),
            },
            Source::Peer(peer) => match self.by_id.get(peer).map(|peer| &self.nodes[*peer]) {
                Some(peer) if peer.is_up() => {
                    let begun = peer.store.partial.get(&content).map(|partial| partial.size).filter(|_| flow.growing);
                    let held = peer.store.whole.get(&content).copied().or(begun);
                    if flow.growing && held.is_none() && peer.fault != Some(Fault::HasNothing) {
                        self.plan(LOOK_INTERVAL, node, Happening::Open { fetch });
                        return Ok(());
                    }
                    held.filter(|_| peer.fault != Some(Fault::HasNothing)).ok_or(SourceError::NotFound)
                }
                // Its power is gone and nobody has noticed yet.
                _ => return Ok(()),
            },
        };
        match opened {
            Ok(size) => self.start_flow(node, fetch, size),
            Err(error) => self.end_flow(node, fetch, Err(error)),
        }
    }

    fn start_flow(&mut self, node: NodeIndex, fetch: FetchId, size: u64) -> Result<(), Violation> {
        let Some(layout) = PieceLayout::for_size(size) else { return Ok(()) };
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        let content = flow.content;
        let ranged = matches!(flow.source, Source::Peer(_)) || self.origin.mode != OriginMode::Unranged;
        flow.layout = Some(layout);
        flow.end = flow.end.min(layout.count());
        if !ranged {
            flow.next = 0;
        } else if flow.unsized_ && matches!(flow.source, Source::Origin(..)) {
            let first = FIRST_BYTES / u64::from(layout.piece_len());
            flow.end = flow.end.min(u32::try_from(first).unwrap_or(u32::MAX));
        }
        self.nodes[node].store.begin(content, size);
        self.handle(node, Event::FetchStarted { fetch, size, ranged })?;
        self.send_next(node, fetch)
    }

    /// The hash that a piece has at the source of a flow, if it is there by now.
    fn offered(&self, node: NodeIndex, flow: &Flow) -> Option<PieceHash> {
        let piece = flow.next;
        let Source::Peer(peer) = &flow.source else {
            let good = self.origin.mode != OriginMode::Corrupt && self.nodes[node].fault != Some(Fault::Forges);
            return Some(hash_of(&flow.content, piece, good));
        };
        let peer = self.by_id.get(peer).map(|peer| &self.nodes[*peer])?;
        let hash = peer.store.hash(&flow.content, piece)?;
        let wrong = matches!(peer.fault, Some(Fault::WrongMap | Fault::WrongPieces));
        Some(if wrong { hash_of(&flow.content, piece, false) } else { hash })
    }

    /// Plans the arrival of a flow's next piece, or ends the flow.
    pub(crate) fn send_next(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        if flow.next >= flow.end {
            return self.end_flow(node, fetch, Ok(()));
        }
        let Some(layout) = flow.layout else { return Ok(()) };
        let bytes = layout.bytes_of(flow.next);
        let bytes = bytes.end - bytes.start;
        let source = flow.source.clone();
        // What has not landed there, or has no hash here to check it with, is waited for.
        let waits = self.offered(node, flow).is_none() || !flow.expected.contains_key(&flow.next);
        if flow.growing && waits {
            self.plan(LOOK_INTERVAL, node, Happening::More { fetch });
            return Ok(());
        }
        let same = |flow: &&Flow| match (&flow.source, &source) {
            (Source::Origin(..), Source::Origin(..)) => true,
            (one, other) => one == other,
        };
        let own = self.options.uplink_of_its_own && matches!(source, Source::Origin(..));
        let sharing = self.nodes.iter().enumerate().filter(|(other, _)| !own || *other == node);
        let outgoing = sharing.flat_map(|(_, node)| node.flows.values()).filter(same).count();
        let rate = match &source {
            Source::Origin(..) => self.nodes[node].uplink_bytes_per_s.unwrap_or(self.options.uplink_bytes_per_s),
            Source::Peer(_) => self.options.lan_bytes_per_s,
        };
        let each = match &source {
            Source::Origin(..) => self.options.origin_bytes_per_s_each,
            Source::Peer(_) => u64::MAX,
        };
        let sending = time_of(bytes, rate, outgoing).max(time_of(bytes, each, 1));
        let receiving = time_of(bytes, self.options.lan_bytes_per_s, self.nodes[node].flows.len());
        self.plan(sending.max(receiving), node, Happening::Piece { fetch });
        Ok(())
    }

    /// A piece has come.
    pub(crate) fn piece(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let Some(layout) = flow.layout else { return Ok(()) };
        let (content, piece, sent) = (flow.content, flow.next, flow.sent);
        let range = layout.bytes_of(piece);
        let bytes = range.end - range.start;
        match &flow.source {
            Source::Origin(..) => {
                match self.origin.mode {
                    OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => {}
                    OriginMode::Silent => return Ok(()),
                    OriginMode::Refusing => {
                        return self.end_flow(node, fetch, Err(broken()));
                    }
                }
                self.origin.bytes += bytes;
                self.nodes[node].bytes_from_origin += bytes;
            }
            Source::Peer(peer) => {
                let Some(peer) = self.by_id.get(peer).copied().filter(|peer| self.nodes[*peer].is_up()) else {
                    return Ok(());
                };
                match self.nodes[peer].fault {
                    Some(Fault::WrongPieces) => return self.end_flow(node, fetch, Err(SourceError::WrongBytes)),
                    Some(Fault::StallsAfter(pieces)) if sent >= pieces => return Ok(()),
                    _ => {}
                }
                self.nodes[node].bytes_from_peers += bytes;
            }
        }
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let (growing, first, expected) = (flow.growing, flow.first, flow.expected.get(&piece).copied());
        let Some(hash) = self.offered(node, flow) else { return self.end_flow(node, fetch, Err(broken())) };
        if growing && expected != Some(hash) {
            return self.end_flow(node, fetch, Err(SourceError::WrongBytes));
        }
        let now = self.now();
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        flow.unreported_bytes += bytes;
        if now.since(flow.reported_at) >= PROGRESS_INTERVAL {
            flow.reported_at = now;
            let bytes = std::mem::take(&mut flow.unreported_bytes);
            self.handle(node, Event::FetchProgress { fetch, bytes })?;
        }
        if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
            flow.next += 1;
            flow.sent += 1;
        }
        if piece >= first {
            self.nodes[node].store.write(content, piece, hash);
            self.handle(node, Event::FetchStored { fetch, pieces: vec![(piece, hash)] })?;
        }
        self.send_next(node, fetch)
    }

    pub(crate) fn end_flow(
        &mut self,
        node: NodeIndex,
        fetch: FetchId,
        result: Result<(), SourceError>,
    ) -> Result<(), Violation> {
        self.nodes[node].flows.remove(&fetch);
        self.handle(node, Event::FetchEnded { fetch, result })
    }
}
