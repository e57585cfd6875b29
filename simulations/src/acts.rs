//! What drivers do: everything that an engine says, done in the world.

use std::{sync::Arc, time::Duration};

use layermesh_proto::{
    NodeId, PieceHash, PieceIndex,
    engine::event::{Action, CallId, Event, FetchId, RequestId},
    wire::{
        Announcement, ControlRequest, ControlResponse,
        codec::{encode_control_request, encode_control_response},
        neighbourhood::{self, Neighbourhood},
    },
};
use rand_chacha::rand_core::Rng;

use crate::{
    checks,
    node::Flow,
    queue::{Gossip, Happening},
    sabotage::Sabotage,
    world::{NodeIndex, World},
};

/// From what was asked of the store to its answer, when it has not to read much.
const STORE_TIME: Duration = Duration::from_millis(1);

impl World {
    /// Does what an engine says.
    pub(crate) fn perform(&mut self, node: NodeIndex, action: Action) -> Result<(), String> {
        match action {
            Action::Announce(announcement) => self.gossip(node, announcement)?,
            Action::Request { request, peer, body } => self.ask(node, request, peer, body)?,
            Action::Respond { call, response } => self.respond(node, call, response)?,
            Action::Fetch { fetch, content, source, size, pieces, growing, expected } => {
                self.touched.push((content, pieces.clone()));
                let flow = Flow {
                    content,
                    source,
                    peer: None,
                    growing,
                    layout: None,
                    expected: expected.into_iter().collect(),
                    unsized_: size.is_none(),
                    first: pieces.start,
                    next: pieces.start,
                    landed: pieces.start,
                    end: pieces.end,
                    sent: 0,
                    carried: 0,
                    unstored: 0,
                    passage: None,
                    waits: false,
                    counted: 0,
                    unreported_bytes: 0,
                    reported_at: self.now,
                };
                self.begin_flow(node, fetch, flow);
            }
            Action::Expect { fetch, pieces } => self.expect(node, fetch, pieces),
            Action::Drop { content, pieces } => {
                self.touched.extend(pieces.iter().map(|piece| (content, *piece..piece + 1)));
                self.nodes[node].store.drop(&content, &pieces);
            }
            Action::Recall { content } => {
                let pieces = self.nodes[node].store.recall(&content);
                self.plan(STORE_TIME, node, Happening::Event(Box::new(Event::Recalled { content, pieces })));
            }
            Action::CancelFetch { fetch } => {
                self.remove_flow(node, fetch);
            }
            Action::Rebuild { content, urgency, .. } => self.begin_making(node, content, urgency),
            Action::CancelRebuild { content } => self.stop_making(node, content),
            Action::Complete { .. } if self.is_sabotaged(Sabotage::DeafStore) => {}
            Action::Complete { content } => self.plan(STORE_TIME, node, Happening::Checked { content }),
            Action::AskOrigin { lookup, reference } => {
                self.nodes[node].lookups += 1;
                self.plan(
                    self.options.uplink_latency * 2,
                    node,
                    Happening::AtOrigin { lookup, reference: Box::new(reference) },
                );
            }
            Action::Remember(binding) => {
                self.nodes[node].store.bindings.insert(binding.reference.to_string(), binding);
            }
            Action::WantEnded { want: id, result } => {
                if let Some(want) = self.nodes[node].wants.get_mut(&id) {
                    want.ended = Some((self.now, result));
                    self.open_wants -= 1;
                    if !self.nodes[node].making.values().any(|making| making.want == id) {
                        self.ended.push_back((node, id));
                    }
                }
            }
            Action::Resolved { resolve, result } => {
                self.nodes[node].resolves.insert(resolve, Some(result));
            }
            Action::Promised { promise, missing } => {
                self.nodes[node].promises.insert(promise, missing);
            }
            Action::Connect { peer } => {
                if let Some(other) = self.index_of(&peer).filter(|other| self.nodes[*other].is_up()) {
                    self.reach(node, other);
                }
            }
            // Nobody follows releases here.
            Action::Examine { .. } => {}
            Action::PaceUplink { bytes_per_s } => self.nodes[node].pace = Some(bytes_per_s),
            Action::Note(note) => self.notes.push((node, note)),
        }
        Ok(())
    }

    fn expect(&mut self, node: NodeIndex, fetch: FetchId, pieces: Vec<(PieceIndex, PieceHash)>) {
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return };
        let awaited = flow.waits && pieces.iter().any(|(piece, _)| *piece == flow.next);
        flow.expected.extend(pieces);
        if awaited {
            self.plan(Duration::ZERO, node, Happening::More { fetch });
        }
    }

    fn ask(&mut self, node: NodeIndex, request: RequestId, peer: NodeId, body: ControlRequest) -> Result<(), String> {
        let bytes = checks::encoded(encode_control_request(&body))?;
        self.nodes[node].traffic.sent += bytes;
        let from = self.nodes[node].id;
        let after = self.lan_time();
        match self.index_of(&peer) {
            Some(peer) if self.nodes[peer].is_up() => {
                if self.mesh.hears(node, peer) {
                    self.plan(after, peer, Happening::Question { from, request, body: Box::new(body), bytes });
                }
            }
            _ => self.plan(after, node, Happening::Event(Box::new(Event::RequestFailed { request }))),
        }
        Ok(())
    }

    fn respond(&mut self, node: NodeIndex, call: CallId, response: ControlResponse) -> Result<(), String> {
        let Some((target, request)) = self.nodes[node].calls.remove(&call) else { return Ok(()) };
        let bytes = checks::encoded(encode_control_response(&response))?;
        self.nodes[node].traffic.sent += bytes;
        let after = self.lan_time();
        if self.mesh.hears(node, target.node) {
            let response = Box::new(response);
            self.queue.plan(self.now + after, target, Happening::Answer { from: node, request, response, bytes });
        }
        Ok(())
    }

    /// Everybody hears it who is connected, maybe through others, which takes another way.
    fn gossip(&mut self, node: NodeIndex, announcement: Announcement) -> Result<(), String> {
        let bytes = checks::encoded(neighbourhood::encode(Neighbourhood::default(), &announcement))?;
        let from = self.nodes[node].id;
        let sequence = self.nodes[node].id();
        self.nodes[node].traffic.sent += bytes * self.mesh.degree(node) as u64;
        let mut listeners = Vec::with_capacity(self.nodes.len());
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if !self.nodes[other].is_up() || !self.mesh.is_heard(node, other) {
                continue;
            }
            let lost = self.options.lan().loses(&mut || self.random.next_u32());
            let mut after = self.lan_time();
            if !self.mesh.are_connected(node, other) {
                after += self.lan_time();
            }
            if !lost {
                listeners.push((self.now + after, self.target(other)));
            }
        }
        // The first to hear it is taken from the end.
        listeners.sort_unstable_by(|one, other| other.cmp(one));
        let announcement = Arc::new(announcement);
        self.plan_gossip(Box::new(Gossip { from, sequence, announcement, bytes, listeners }));
        Ok(())
    }

    /// Plans the next arrival of a gossip message.
    pub(crate) fn plan_gossip(&mut self, gossip: Box<Gossip>) {
        if let Some((at, target)) = gossip.listeners.last().copied() {
            self.queue.plan(at, target, Happening::Gossip(gossip));
        }
    }
}
