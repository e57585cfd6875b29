//! Fetches in the world: pieces that come from a peer or the origin, one after the other.
//!
//! Invariants: only a piece on its way takes a share of links (`links.rs`); a fetch whose source has not got what comes next,
//! or whose hash is not known, waits and is woken when that changes, so that waiting costs nothing.

use std::time::Duration;

use layermesh_proto::{
    ContentId, FIRST_BYTES, PieceHash, PieceIndex, PieceLayout,
    engine::event::{Event, FetchId, Instant, Source, SourceError},
};

use crate::{
    checks::{self, Violation},
    connections::slow_start,
    disk::UNSTORED_MAX,
    links::Route,
    network::OriginMode,
    node::{Fault, Flow, Taker},
    queue::{Happening, Target},
    sabotage::Sabotage,
    store::hash_of,
    world::{NodeIndex, World},
};

/// Between two reports of how many bytes came, as nodes make them; pieces that are there are told at once.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Before TCP sends again what was lost. 400 ms: what Linux adds at least (200 ms) to the round trip over a full uplink.
const RETRANSMIT_FIRST: Duration = Duration::from_millis(400);
/// Longest such wait: Linux's (RFC 6298 asks for at least 60 s).
const RETRANSMIT_LAST: Duration = Duration::from_secs(120);

/// How a connection ends whose other side is gone.
pub(crate) fn broken() -> SourceError {
    SourceError::Unreachable("connection reset".to_owned())
}

/// How a connection ends that the other side never took up.
pub(crate) fn refused() -> SourceError {
    SourceError::Unreachable("connection refused".to_owned())
}

/// How long after the end of a silence a connection goes on. TCP sends what was lost again after [`RETRANSMIT_FIRST`], then
/// after twice that, and so on; the first time that nothing is in the way counts.
fn retransmitted_after(silence: Duration) -> Duration {
    let (mut at, mut wait) = (RETRANSMIT_FIRST, RETRANSMIT_FIRST);
    while at < silence {
        wait = (wait * 2).min(RETRANSMIT_LAST);
        at += wait;
    }
    at - silence
}

/// What becomes of what is on its way.
enum Way {
    Open,
    Silent,
    Broken,
}

impl World {
    /// A fetch sets out for its source.
    pub(crate) fn begin_flow(&mut self, node: NodeIndex, fetch: FetchId, mut flow: Flow) {
        if self.is_sabotaged(Sabotage::LosesFetches) && Sabotage::LosesFetches.loses(fetch.0) {
            return;
        }
        self.nodes[node].fruitless.begin(self.now);
        let latency = match &flow.source {
            Source::Peer(peer) => {
                flow.peer = self.index_of(peer).map(|peer| self.target(peer));
                self.options.lan_latency * 2
            }
            Source::Origin(..) => {
                let round_trip = self.options.uplink_latency * 2;
                let (trips, carried) = self.nodes[node].connections.take(self.now, round_trip);
                flow.carried = carried;
                round_trip * trips
            }
        };
        self.nodes[node].flows.insert(fetch, flow);
        self.plan(latency, node, Happening::Open { fetch });
    }

    /// The peer that a flow comes from, if it can still send: it is in the same life, and no partition is between.
    fn sender(&self, node: NodeIndex, flow: &Flow) -> Option<NodeIndex> {
        let Target { node: peer, life } = flow.peer?;
        let there = self.nodes[peer].is_up() && self.nodes[peer].life == life && self.mesh.hears(node, peer);
        there.then_some(peer)
    }

    /// A fetch reaches its source.
    pub(crate) fn open(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let content = flow.content;
        let opened = match &flow.source {
            Source::Origin(..) if !self.mesh.reaches_origin(node) => Err(refused()),
            Source::Origin(..) => match self.origin.mode {
                OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => {
                    let size = self.origin.blobs.get(&content).copied();
                    self.request_origin(node).and_then(|()| size.ok_or(SourceError::NotFound))
                }
                OriginMode::Refusing => Err(refused()),
                OriginMode::Silent => return Ok(()),
            },
            Source::Peer(_) => {
                // Its power is gone and nobody has noticed yet.
                let Some(at) = self.sender(node, flow) else { return Ok(()) };
                if !flow.growing && self.is_sabotaged(Sabotage::ServesParts) {
                    self.nodes[at].store.lose_a_part(&content);
                }
                let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
                let peer = &self.nodes[at];
                let served = flow.growing || self.is_sabotaged(Sabotage::ServesParts);
                let begun = peer.store.partial.get(&content).map(|partial| partial.size).filter(|_| served);
                let held = peer.store.whole.get(&content).copied().or(begun);
                if flow.growing && held.is_none() && peer.fault != Some(Fault::HasNothing) {
                    self.wait_for(node, fetch, Some(at));
                    return Ok(());
                }
                held.filter(|_| peer.fault != Some(Fault::HasNothing)).ok_or(SourceError::NotFound)
            }
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
            flow.landed = 0;
        } else if flow.unsized_ && matches!(flow.source, Source::Origin(..)) {
            let first = FIRST_BYTES / u64::from(layout.piece_len());
            flow.end = flow.end.min(u32::try_from(first).unwrap_or(u32::MAX));
        }
        self.touched.push((content, flow.first..flow.end));
        let owner = &mut self.nodes[node];
        if !owner.store.has_begun(&content, size) && !owner.disk.take_room(size) {
            return self.end_flow(node, fetch, Err(SourceError::Store("no space left on device".to_owned())));
        }
        owner.store.begin(content, size);
        self.wake_takers(node, content, None);
        self.handle(node, Event::FetchStarted { fetch, size, ranged })?;
        self.send_next(node, fetch)
    }

    /// A fetch waits, for a peer to have more if one is named.
    fn wait_for(&mut self, node: NodeIndex, fetch: FetchId, peer: Option<NodeIndex>) {
        let who = self.target(node);
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return };
        flow.waits = true;
        let (content, piece) = (flow.content, flow.layout.map(|_| flow.next));
        if let Some(peer) = peer {
            self.nodes[peer].takers.push(Taker { content, piece, who, fetch });
        }
    }

    /// A node has begun a blob, or has one more piece of it: fetches that wait for that go on.
    pub(crate) fn wake_takers(&mut self, node: NodeIndex, content: ContentId, piece: Option<PieceIndex>) {
        let mut woken = Vec::new();
        self.nodes[node].takers.retain(|taker| {
            let wakes = taker.content == content && (taker.piece.is_none() || taker.piece == piece);
            if wakes {
                woken.push((taker.who, taker.fetch));
            }
            !wakes
        });
        for (who, fetch) in woken {
            self.queue.plan(self.now + self.options.lan_latency, who, Happening::More { fetch });
        }
    }

    /// What a fetch waits for may be there.
    pub(crate) fn more(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        if !std::mem::take(&mut flow.waits) {
            return Ok(());
        }
        if flow.layout.is_none() { self.open(node, fetch) } else { self.send_next(node, fetch) }
    }

    /// The hash that a piece has at the source of a flow, if it is there by now.
    fn offered(&self, node: NodeIndex, flow: &Flow) -> Option<PieceHash> {
        let piece = flow.next;
        let Some(Target { node: peer, .. }) = flow.peer else {
            let good = self.origin.mode != OriginMode::Corrupt && self.nodes[node].fault != Some(Fault::Forges);
            return Some(hash_of(&flow.content, piece, good));
        };
        let peer = &self.nodes[peer];
        let hash = peer.store.hash(&flow.content, piece)?;
        let wrong = matches!(peer.fault, Some(Fault::WrongMap | Fault::WrongPieces));
        Some(if wrong { hash_of(&flow.content, piece, false) } else { hash })
    }

    /// The way of a flow's pieces, and the most that its source gives.
    fn route(&self, node: NodeIndex, flow: &Flow) -> (Route, u64) {
        let own = self.nodes[node].ports;
        match flow.peer {
            Some(_) if self.options.shared_radio => (Route::twice(self.radio), u64::MAX),
            Some(peer) => (Route::over(self.nodes[peer.node].ports.out, own.into), u64::MAX),
            None => {
                let last = if self.options.shared_radio { self.radio } else { own.into };
                let rate_max = self.options.origin_bytes_per_s_each.min(self.pace(node));
                (Route::over(own.uplink.unwrap_or(self.uplink), last), rate_max)
            }
        }
    }

    /// What each fetch of a node from origins may take of its share of the site's rate, in bytes a second.
    fn pace(&self, node: NodeIndex) -> u64 {
        let node = &self.nodes[node];
        let Some(pace) = node.pace.filter(|_| !self.is_sabotaged(Sabotage::NoRate)) else { return u64::MAX };
        let sharing = node.flows.values().filter(|flow| flow.peer.is_none()).count();
        pace / sharing.max(1) as u64
    }

    /// Plans the arrival of a flow's next piece, or ends the flow.
    pub(crate) fn send_next(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        if flow.passage.is_some() {
            return Ok(());
        }
        if flow.next >= flow.end {
            return if flow.unstored > 0 { Ok(()) } else { self.end_flow(node, fetch, Ok(())) };
        }
        let Some(layout) = flow.layout else { return Ok(()) };
        // The disk says when it is ready for more.
        if flow.unstored > UNSTORED_MAX {
            return Ok(());
        }
        if flow.growing {
            // What has not landed there, or has no hash here to check it with, is waited for.
            let landed = self.offered(node, flow).is_some();
            if !landed || !flow.expected.contains_key(&flow.next) {
                let peer = flow.peer.map(|peer| peer.node).filter(|_| !landed);
                self.wait_for(node, fetch, peer);
                return Ok(());
            }
        }
        let bytes = layout.bytes_of(flow.next);
        let bytes = bytes.end - bytes.start;
        let (route, rate_max) = self.route(node, flow);
        let begins = slow_start(flow.carried, bytes, self.options.uplink_latency * 2);
        let rate_max = if flow.peer.is_none() { rate_max.min(begins) } else { rate_max };
        let (after, passage) = self.links.set_out(route, bytes, rate_max, self.now);
        if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
            flow.carried += bytes;
            flow.passage = Some((passage, self.now, bytes));
        }
        self.plan(after, node, Happening::Piece { fetch });
        if after > PROGRESS_INTERVAL {
            self.plan(PROGRESS_INTERVAL, node, Happening::Progress { fetch, since: self.now });
        }
        Ok(())
    }

    /// Part of a piece has come.
    pub(crate) fn progress(&mut self, node: NodeIndex, fetch: FetchId, since: Instant) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let Some((passage, ..)) = flow.passage.filter(|(_, out, _)| *out == since) else { return Ok(()) };
        match self.way(node, flow) {
            Way::Open => {}
            Way::Silent => return Ok(()),
            Way::Broken => return self.end_flow(node, fetch, Err(broken())),
        }
        self.plan(PROGRESS_INTERVAL, node, Happening::Progress { fetch, since });
        let passed = passage.passed(self.now.since(since));
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        let new = passed.saturating_sub(flow.counted);
        flow.counted += new;
        self.report_progress(node, fetch, new)
    }

    /// Whether what a flow's source sends gets here.
    fn way(&self, node: NodeIndex, flow: &Flow) -> Way {
        if flow.peer.is_some() {
            return if self.sender(node, flow).is_some() { Way::Open } else { Way::Silent };
        }
        match self.origin.mode {
            // What is on its way is lost; TCP tells nobody for long.
            _ if !self.mesh.reaches_origin(node) => Way::Silent,
            OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => Way::Open,
            OriginMode::Silent => Way::Silent,
            OriginMode::Refusing => Way::Broken,
        }
    }

    /// A partition is over. Connections that it silenced and that nobody gave up go on, when what was lost is sent again.
    pub(crate) fn resume(&mut self, parted: Instant) {
        let after = retransmitted_after(self.now.since(parted));
        let flows = |node: NodeIndex| self.nodes[node].flows.iter().map(move |(fetch, flow)| (node, *fetch, flow));
        let silenced = |node: NodeIndex, flow: &Flow| {
            let awaits_a_piece = flow.passage.is_none() && !flow.waits && flow.unstored == 0 && flow.next < flow.end;
            awaits_a_piece && matches!(self.way(node, flow), Way::Open)
        };
        let all = (0..self.nodes.len()).flat_map(flows);
        let silenced = all.filter(|(node, _, flow)| silenced(*node, flow));
        let silenced: Vec<_> = silenced.map(|(node, fetch, _)| (node, fetch)).collect();
        for (node, fetch) in silenced {
            if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
                flow.waits = true;
                self.plan(after, node, Happening::More { fetch });
            }
        }
    }

    /// A piece has come.
    pub(crate) fn piece(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        let now = self.now;
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        let Some((passage, set_out, bytes)) = flow.passage.take() else { return Ok(()) };
        self.links.arrive(passage, now);
        let (content, piece, sent) = (flow.content, flow.next, flow.sent);
        let new = bytes.saturating_sub(std::mem::take(&mut flow.counted));
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        match self.way(node, flow) {
            Way::Open => {}
            // It stays on its way (`resume`), or nobody ever hears of it again.
            Way::Silent => return Ok(()),
            Way::Broken => {
                let passed = bytes.min(passage.passed(self.origin.since.since(set_out)));
                self.nodes[node].bytes_wasted += passed;
                self.origin.bytes_broken_off += passed;
                return self.end_flow(node, fetch, Err(broken()));
            }
        }
        if flow.peer.is_none() {
            self.origin.bytes += bytes;
            self.nodes[node].bytes_from_origin += bytes;
            if let Some(rate) = self.rules.uplink.site_bytes_per_s {
                let taken = self.meter.take(bytes, now, self.nodes.len(), rate);
                taken.map_err(|what| self.violation(node, what))?;
            }
        } else {
            let Some(peer) = self.sender(node, flow) else { return Ok(()) };
            checks::served(&self.nodes[peer], flow).map_err(|what| self.violation(peer, what))?;
            let fault = self.nodes[peer].fault;
            if matches!(fault, Some(Fault::StallsAfter(pieces)) if sent >= pieces) {
                return Ok(());
            }
            // What is thrown away has come.
            self.nodes[node].bytes_from_peers += bytes;
            if fault == Some(Fault::WrongPieces) {
                return self.throw_away(node, fetch, bytes);
            }
        }
        let Some(flow) = self.nodes[node].flows.get(&fetch) else { return Ok(()) };
        let (growing, first, expected) = (flow.growing, flow.first, flow.expected.get(&piece).copied());
        let Some(hash) = self.offered(node, flow) else { return self.end_flow(node, fetch, Err(broken())) };
        if growing && expected != Some(hash) {
            return self.throw_away(node, fetch, bytes);
        }
        self.report_progress(node, fetch, new)?;
        let owner = &mut self.nodes[node];
        let Some(flow) = owner.flows.get_mut(&fetch) else {
            // The engine stopped it when it heard of the bytes.
            owner.bytes_wasted += bytes;
            return Ok(());
        };
        flow.next += 1;
        flow.sent += 1;
        if piece >= first {
            self.touched.push((content, piece..piece + 1));
            self.land(node, fetch, (piece, hash, bytes))?;
        } else {
            flow.landed = flow.next;
            owner.bytes_wasted += bytes;
        }
        self.send_next(node, fetch)
    }

    fn report_progress(&mut self, node: NodeIndex, fetch: FetchId, bytes: u64) -> Result<(), Violation> {
        let now = self.now;
        if bytes > 0 {
            self.nodes[node].fruitless.reset();
        }
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        flow.unreported_bytes += bytes;
        if now.since(flow.reported_at) < PROGRESS_INTERVAL {
            return Ok(());
        }
        flow.reported_at = now;
        let bytes = std::mem::take(&mut flow.unreported_bytes);
        self.handle(node, Event::FetchProgress { fetch, bytes })
    }

    /// What came is not what was vouched for.
    fn throw_away(&mut self, node: NodeIndex, fetch: FetchId, bytes: u64) -> Result<(), Violation> {
        self.nodes[node].bytes_wasted += bytes;
        self.end_flow(node, fetch, Err(SourceError::WrongBytes))
    }

    /// Takes a flow out. What is on its way is lost.
    pub(crate) fn remove_flow(&mut self, node: NodeIndex, fetch: FetchId) -> Option<Flow> {
        let now = self.now;
        let owner = &mut self.nodes[node];
        let flow = owner.flows.remove(&fetch)?;
        if let Some((passage, since, bytes)) = flow.passage {
            // Nothing passed any more once the uplink was cut.
            let is_cut = flow.peer.is_none() && self.origin.mode == OriginMode::Refusing;
            let until = if is_cut { self.origin.since } else { now };
            let passed = bytes.min(passage.passed(until.since(since)));
            self.links.arrive(passage, now);
            owner.bytes_wasted += passed;
            if flow.peer.is_none() {
                self.origin.bytes_broken_off += passed;
            }
        }
        if let Some(layout) = flow.layout.filter(|_| flow.unstored > 0) {
            let unstored = layout.bytes_of_run(&(flow.landed..flow.next));
            owner.bytes_wasted += unstored.end - unstored.start;
        }
        self.touched.push((flow.content, flow.landed.max(flow.first)..flow.end));
        Some(flow)
    }

    pub(crate) fn end_flow(
        &mut self,
        node: NodeIndex,
        fetch: FetchId,
        result: Result<(), SourceError>,
    ) -> Result<(), Violation> {
        let ended = self.remove_flow(node, fetch);
        if let Some(flow) = ended.filter(|flow| flow.peer.is_none() && result.is_ok()) {
            self.nodes[node].connections.give_back(self.now, flow.carried);
        }
        self.handle(node, Event::FetchEnded { fetch, result })
    }
}
