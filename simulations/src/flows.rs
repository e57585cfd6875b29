//! Fetches in the world: pieces that come from a peer or the origin, one after the other.
//!
//! Invariant: a piece takes as long as its share of the sender's and the receiver's rate says when it sets out.

use std::time::Duration;

use layermesh_proto::{
    ContentId, PieceIndex, PieceLayout,
    engine::event::{Event, FetchId, Source, SourceError},
};

use crate::{
    checks::Violation,
    network::{OriginMode, time_of},
    node::{Fault, Flow},
    queue::Happening,
    world::{NodeIndex, World},
};

/// How often a flow looks whether what it waits for has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How a connection ends whose other side is gone.
pub(crate) fn broken() -> SourceError {
    SourceError::Unreachable("connection reset".to_owned())
}

impl World {
    /// A fetch reaches its source.
    pub(crate) fn open(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let content = flow.content;
        let opened = match &flow.source {
            Source::Origin(..) => match self.origin.mode {
                OriginMode::Up | OriginMode::Corrupt => {
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
        let size = match opened {
            Ok(size) => size,
            Err(error) => return self.end_flow(node, fetch, Err(error)),
        };
        let Some(layout) = PieceLayout::for_size(size) else { return Ok(()) };
        if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
            flow.layout = Some(layout);
            flow.end = flow.end.min(layout.count());
        }
        self.nodes[node].store.begin(content, size);
        self.handle(node, Event::FetchStarted { fetch, size })?;
        self.send_next(node, fetch)
    }

    /// Whether a peer has a piece by now.
    fn has_landed(&self, source: &Source, content: &ContentId, piece: PieceIndex) -> bool {
        let Source::Peer(peer) = source else { return true };
        let Some(store) = self.by_id.get(peer).map(|peer| &self.nodes[*peer].store) else { return false };
        let landed = store.partial.get(content).is_some_and(|partial| partial.pieces.contains(&piece));
        landed || store.whole.contains_key(content)
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
        if flow.growing && !self.has_landed(&source, &flow.content, flow.next) {
            self.plan(LOOK_INTERVAL, node, Happening::More { fetch });
            return Ok(());
        }
        let same = |flow: &&Flow| match (&flow.source, &source) {
            (Source::Origin(..), Source::Origin(..)) => true,
            (one, other) => one == other,
        };
        let outgoing = self.nodes.iter().flat_map(|node| node.flows.values()).filter(same).count();
        let rate = match &source {
            Source::Origin(..) => self.options.uplink_bytes_per_s,
            Source::Peer(_) => self.options.lan_bytes_per_s,
        };
        let sending = time_of(bytes, rate, outgoing);
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
        let good = match &flow.source {
            Source::Origin(..) => {
                match self.origin.mode {
                    OriginMode::Up | OriginMode::Corrupt => {}
                    OriginMode::Silent => return Ok(()),
                    OriginMode::Refusing => {
                        return self.end_flow(node, fetch, Err(broken()));
                    }
                }
                self.origin.bytes += bytes;
                self.nodes[node].bytes_from_origin += bytes;
                self.origin.mode != OriginMode::Corrupt
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
                self.nodes[peer].fault != Some(Fault::WrongMap)
            }
        };
        self.handle(node, Event::FetchProgress { fetch, bytes })?;
        self.nodes[node].store.write(content, piece, good);
        if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
            flow.next += 1;
            flow.sent += 1;
        }
        self.handle(node, Event::FetchStored { fetch, pieces: vec![piece] })?;
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
