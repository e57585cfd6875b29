//! Connections that bytes need: on a large site, whoever has a piece may not be among the peers.
//!
//! Invariant: a node is asked for at most once in [`Config::reach_retry`](super::Config::reach_retry), and counts as out of
//! reach for the rest of that time if it is not connected by the end of its patience; few are waited for in that time, one after the
//! other, so nobody waits for long for what cannot be had.

use std::collections::BTreeMap;

use super::{
    Engine,
    event::{Action, Instant},
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

    /// Whether a node is connected, or may be in a moment. After a few that could not be reached no other is hoped for, for a
    /// while: there may be many behind the same wall.
    pub(super) fn is_in_reach(&self, peer: &NodeId) -> bool {
        if self.peers.is_connected(peer) {
            return true;
        }
        let fresh = |asked: &Instant| self.now.since(*asked) < self.config.reach_retry;
        match self.reaching.asked.get(peer).filter(|asked| fresh(asked)) {
            Some(asked) => self.is_hoped(asked),
            None => {
                let asked = self.reaching.asked.iter().filter(|(_, asked)| fresh(asked));
                let in_vain =
                    asked.filter(|(node, asked)| !self.is_hoped(asked) && !self.peers.is_connected(node)).count();
                in_vain < self.config.reach_tries && self.reaching.asked.len() < self.config.limits.reaching
            }
        }
    }

    /// Whether a connection that was asked for then may still come about.
    fn is_hoped(&self, asked: &Instant) -> bool {
        self.now.since(*asked) < self.config.reach_patience
    }

    /// Whether a connection with somebody who has a part of a blob was asked for and may still come.
    pub(super) fn reaches_for(&self, content: &ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get(content) else { return false };
        let hoped = |node: &NodeId| self.reaching.asked.get(node).is_some_and(|asked| self.is_hoped(asked));
        self.site.sets(content).any(|(node, ..)| hoped(&node) && self.is_good(transfer, &node))
    }
}
