//! Along which trees the bytes of a blob spread over the site.
//!
//! What one node has, all others get by passing it on. Several stripes land at the same time, and each spreads along a tree
//! with other inner nodes, so that nobody sends more than it takes. Invariants: a node's place depends on the stripe, on
//! the node and on who else takes part, on nothing else; everybody takes bytes from somebody nearer to the root, so no cycle
//! can form.

use std::cmp::Reverse;

use super::{
    event::Instant,
    site::{Party, Site, weight},
};
use crate::{ContentId, NodeId, PieceIndex, wire::Stripe};

/// How what begins at a node spreads to the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Nodes that take it from where it begins.
    pub(super) root: u8,
    /// Nodes that take it from each of the others.
    pub(super) fan_out: u8,
    /// Trees with different inner nodes.
    pub(super) trees: u8,
}

/// Of several nodes the first in the order for what begins at a piece.
pub(super) fn heaviest(content: &ContentId, first: PieceIndex, nodes: &[NodeId]) -> Option<NodeId> {
    nodes.iter().copied().max_by_key(|node| weight(content, first, node))
}

/// The trees in which a node passes on what it gets.
pub(super) fn tree_of(node: &NodeId, trees: u8) -> u8 {
    let [.., of_node] = *node.public_key();
    of_node % trees.max(1)
}

impl Site {
    /// The tree for a new claim of a node: its own unless a stripe is under way along it, else the first along which none is.
    pub(super) fn tree_for(&self, node: &NodeId, now: Instant, trees: u8) -> u8 {
        let own = tree_of(node, trees);
        let claims = self.all_claims(now);
        let used = |tree: &u8| claims.iter().any(|(owner, claim)| owner != node && claim.stripe.tree == *tree);
        std::iter::once(own).chain(0..trees).find(|tree| !used(tree)).unwrap_or(own)
    }

    /// Whom `me` can take a stripe from while it lands, the best first: its parent in a tree whose root is the stripe's owner
    /// and whose inner nodes are, as far as there are enough, those of this tree; then whoever else is nearer to the root,
    /// those next to the parent first: so the work stays spread where nodes are connected with some of the others only.
    pub(super) fn upstream(
        &self,
        content: &ContentId,
        (owner, stripe, me): (NodeId, Stripe, NodeId),
        now: Instant,
        shape: Shape,
        trusted: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let place = |node: &NodeId, party: &Party| {
            (tree_of(node, shape.trees) != stripe.tree, Reverse(party.weight(stripe.first)), *node)
        };
        let Some(mine) = self.party(content, &me).filter(|_| me != owner).map(|party| place(&me, party)) else {
            return vec![owner];
        };
        let fits = |(node, party): &(&NodeId, &Party)| **node != owner && party.wanted_until > now && trusted(node);
        let others = self.parties(content).map(|(node, party)| (place(node, party), (node, party)));
        let before = others.filter(|(place, other)| *place < mine && fits(other));
        let mut line: Vec<_> = before.map(|(place, _)| place).collect();
        line.sort_unstable();
        let at = line.len();
        let line: Vec<_> = std::iter::once(owner).chain(line.into_iter().map(|(.., node)| node)).collect();
        // `me` is number `at + 1` of the whole line, so this is at most its last.
        let parent = match at.checked_sub(usize::from(shape.root.max(1))) {
            Some(past) => past / usize::from(shape.fan_out.max(1)) + 1,
            None => 0,
        };
        let near = |off: usize| {
            let other = (off > 0).then(|| parent.checked_add(off)).flatten();
            parent.checked_sub(off).into_iter().chain(other)
        };
        (0..line.len()).flat_map(near).filter_map(|place| line.get(place).copied()).collect()
    }
}
