//! What drivers do: everything that an engine says, done in the world.

use std::time::Duration;

use layermesh_proto::{
    NodeId,
    engine::event::{Action, Event, RequestId},
    wire::{Announcement, ControlRequest},
};
use rand_chacha::rand_core::Rng;

use crate::{
    node::Flow,
    queue::Happening,
    world::{NodeIndex, World},
};

impl World {
    /// Does what an engine says.
    pub(crate) fn perform(&mut self, node: NodeIndex, action: Action) {
        match action {
            Action::Announce(announcement) => self.gossip(node, &announcement),
            Action::Request { request, peer, body } => self.ask(node, request, peer, body),
            Action::Respond { call, response } => {
                if let Some((target, request)) = self.nodes[node].calls.remove(&call) {
                    let after = self.lan_time();
                    self.queue.plan(self.now + after, target, Happening::Answer { request, response });
                }
            }
            Action::Fetch { fetch, content, source, size, pieces, growing, expected } => {
                let (first, end) = (pieces.start, pieces.end);
                let expected = expected.into_iter().collect();
                let (unsized_, layout) = (size.is_none(), None);
                let (next, sent, unreported_bytes, reported_at) = (first, 0, 0, self.now);
                let flow = Flow {
                    content,
                    source,
                    growing,
                    layout,
                    expected,
                    unsized_,
                    first,
                    next,
                    end,
                    sent,
                    unreported_bytes,
                    reported_at,
                };
                self.begin_flow(node, fetch, flow);
            }
            Action::Expect { fetch, pieces } => {
                if let Some(flow) = self.nodes[node].flows.get_mut(&fetch) {
                    flow.expected.extend(pieces);
                }
            }
            Action::Drop { content, pieces } => self.nodes[node].store.drop(&content, &pieces),
            Action::Recall { content } => {
                let pieces = self.nodes[node].store.recall(&content);
                self.plan(Duration::from_millis(1), node, Happening::Event(Event::Recalled { content, pieces }));
            }
            Action::CancelFetch { fetch } => {
                self.nodes[node].flows.remove(&fetch);
            }
            Action::Complete { content } => {
                self.plan(Duration::from_millis(1), node, Happening::Checked { content });
            }
            Action::AskOrigin { lookup, reference } => {
                self.plan(self.options.uplink_latency * 2, node, Happening::AtOrigin { lookup, reference });
            }
            Action::Remember(binding) => {
                self.nodes[node].store.bindings.insert(binding.reference.to_string(), binding);
            }
            Action::WantEnded { want, result } => {
                if let Some((_, ended)) = self.nodes[node].wants.get_mut(&want) {
                    *ended = Some(result);
                }
            }
            Action::Resolved { resolve, result } => {
                self.nodes[node].resolves.insert(resolve, Some(result));
            }
            Action::Promised { promise, missing } => {
                self.nodes[node].promises.insert(promise, missing);
            }
            // The uplink is one for the whole site here, so its rate is the site's already.
            Action::PaceUplink { .. } => {}
            Action::Note(note) => self.notes.push((node, note)),
        }
    }

    fn ask(&mut self, node: NodeIndex, request: RequestId, peer: NodeId, body: ControlRequest) {
        let from = self.nodes[node].id;
        let after = self.lan_time();
        match self.by_id.get(&peer).copied().filter(|peer| self.nodes[*peer].is_up()) {
            Some(peer) => self.plan(after, peer, Happening::Question { from, request, body }),
            None => self.plan(after, node, Happening::Event(Event::RequestFailed { request })),
        }
    }

    fn gossip(&mut self, node: NodeIndex, announcement: &Announcement) {
        let from = self.nodes[node].id;
        let sequence = self.nodes[node].id();
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let lost = self.random.next_u32() % 1000 < self.options.gossip_loss_per_mille;
            let after = self.lan_time();
            if !lost && self.nodes[other].is_up() {
                let announcement = announcement.clone();
                self.plan(after, other, Happening::Event(Event::Announced { from, sequence, announcement }));
            }
        }
    }
}
