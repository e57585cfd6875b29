//! Connections that bytes need: on a large site, whoever has a piece may not be among the peers.
//!
//! Invariant: a node is asked for at most once in [`Config::reach_retry`](super::Config::reach_retry), and counts as out of
//! reach for the rest of that time if it is not connected by the end of its patience; so nobody waits for what cannot be had.

use std::collections::BTreeMap;

use super::{
    Engine,
    event::{Action, Instant},
    transfer::Transfer,
};
use crate::{ContentId, NodeId};

/// Nodes that the driver was asked to connect to, and when.
#[derive(Debug, Default)]
pub(super) struct Reaching {
    asked: BTreeMap<NodeId, Instant>,
}

impl Engine {
    /// Asks for a connection with a node that has what this one needs.
    pub(super) fn reach_for(&mut self, peer: NodeId) {
        let (now, retry) = (self.now, self.config.reach_retry);
        self.reaching.asked.retain(|_, asked| now.since(*asked) < retry);
        if self.reaching.asked.contains_key(&peer) || self.reaching.asked.len() >= self.config.limits.reaching {
            return;
        }
        self.reaching.asked.insert(peer, now);
        self.act(Action::Connect { peer });
    }

    /// Whether a node is connected, or may be in a moment.
    pub(super) fn is_in_reach(&self, peer: &NodeId) -> bool {
        let waited = |asked: &Instant| self.now.since(*asked);
        let in_vain = |waited| waited >= self.config.reach_patience && waited < self.config.reach_retry;
        self.peers.is_connected(peer) || !self.reaching.asked.get(peer).map(waited).is_some_and(in_vain)
    }

    /// Whether a connection with somebody who has a part of a blob was asked for and may still come.
    pub(super) fn reaches_for(&self, content: &ContentId, transfer: &Transfer) -> bool {
        let hoped = |node: &NodeId| {
            let asked = self.reaching.asked.get(node);
            asked.is_some_and(|asked| self.now.since(*asked) < self.config.reach_patience)
        };
        self.site.sets(content).any(|(node, ..)| hoped(&node) && self.is_good(transfer, &node))
    }
}
