//! Who is connected with whom, and who hears whom.
//!
//! Nodes find each other by mDNS within the networks that they look at, keep to a number of connections as real ones do, and
//! lose each other in a partition. Gossip is passed on, so it reaches all that are connected through others.
//!
//! Invariants: nobody is connected with a node that is down, nor across a partition; connections are mutual.

use std::time::Duration;

use layermesh_proto::engine::event::{Event, Instant, Source};
use rand_chacha::rand_core::Rng;

use crate::{
    queue::{Happening, Target},
    world::{NodeIndex, World},
};

/// What a node's network is.
#[derive(Debug, Default)]
struct Reach {
    /// Whom it is connected with, a bit each.
    peers: Vec<u64>,
    degree: usize,
    /// Nodes on other sides do not hear it. 0 for all that no partition befalls.
    side: u32,
    /// It cannot reach the origin.
    cut: bool,
    /// Those of one number hear each other's gossip.
    island: u32,
}

impl Reach {
    fn has(&self, other: NodeIndex) -> bool {
        self.peers.get(other / 64).is_some_and(|word| word & (1 << (other % 64)) != 0)
    }

    fn add(&mut self, other: NodeIndex) {
        let word = other / 64;
        if self.peers.len() <= word {
            self.peers.resize(word + 1, 0);
        }
        self.peers[word] |= 1 << (other % 64);
        self.degree += 1;
    }

    fn remove(&mut self, other: NodeIndex) {
        if self.has(other) {
            self.peers[other / 64] &= !(1 << (other % 64));
            self.degree -= 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.peers
            .iter()
            .enumerate()
            .flat_map(|(at, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| at * 64 + bit))
    }
}

/// All nodes' networks.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    nodes: Vec<Reach>,
    sides: u32,
    /// When the last partition began.
    parted: Instant,
    /// Connections were lost since the islands were found.
    stale: bool,
}

impl Mesh {
    pub(crate) fn add_node(&mut self) {
        let island = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(Reach { island, ..Reach::default() });
    }

    pub(crate) fn are_connected(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.nodes[one].has(other)
    }

    /// Whether no partition is between them.
    pub(crate) fn hears(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.nodes[one].side == self.nodes[other].side
    }

    pub(crate) fn reaches_origin(&self, node: NodeIndex) -> bool {
        !self.nodes[node].cut
    }

    pub(crate) fn degree(&self, node: NodeIndex) -> usize {
        self.nodes[node].degree
    }

    fn connect(&mut self, one: NodeIndex, other: NodeIndex) {
        self.nodes[one].add(other);
        self.nodes[other].add(one);
        let (kept, joined) = (self.nodes[one].island, self.nodes[other].island);
        if kept != joined && !self.stale {
            self.nodes.iter_mut().filter(|node| node.island == joined).for_each(|node| node.island = kept);
        }
    }

    fn part(&mut self, one: NodeIndex, other: NodeIndex) {
        self.nodes[one].remove(other);
        self.nodes[other].remove(one);
        self.stale = true;
    }

    /// Whether a node's gossip reaches another one, maybe through others.
    pub(crate) fn is_heard(&mut self, from: NodeIndex, by: NodeIndex) -> bool {
        if std::mem::take(&mut self.stale) {
            self.find_islands();
        }
        self.nodes[from].island == self.nodes[by].island
    }

    fn find_islands(&mut self) {
        let mut found = vec![false; self.nodes.len()];
        for first in 0..self.nodes.len() {
            if found[first] {
                continue;
            }
            let (island, mut open) = (u32::try_from(first).unwrap_or(u32::MAX), vec![first]);
            found[first] = true;
            while let Some(node) = open.pop() {
                self.nodes[node].island = island;
                for peer in self.nodes[node].iter().collect::<Vec<_>>() {
                    if !std::mem::replace(&mut found[peer], true) {
                        open.push(peer);
                    }
                }
            }
        }
    }
}

impl World {
    /// Connects two nodes that are up and were not connected, whatever networks they are in.
    pub fn connect(&mut self, one: NodeIndex, other: NodeIndex) {
        if self.mesh.are_connected(one, other) || !self.mesh.hears(one, other) {
            return;
        }
        self.mesh.connect(one, other);
        for (node, peer) in [(one, other), (other, one)] {
            let (after, peer) = (self.lan_time(), self.nodes[peer].id);
            self.plan(after, node, Happening::Event(Box::new(Event::PeerConnected { peer })));
        }
    }

    /// Nodes with which a node is connected.
    pub fn degree(&self, node: NodeIndex) -> usize {
        self.mesh.degree(node)
    }

    /// A node that is up now finds the others, and they it, in a while.
    pub(crate) fn discover(&mut self, node: NodeIndex) {
        let ups = (0..self.nodes.len()).filter(|other| *other != node && self.nodes[*other].is_up());
        let mut others: Vec<_> = ups.filter(|other| self.finds(node, *other)).collect();
        if !self.options.discovery.is_zero() {
            for other in others {
                let after = self.up_to(self.options.discovery);
                let other = self.target(other);
                self.plan(after, node, Happening::Meet { other });
            }
            return;
        }
        if others.len() > self.options.degree_aim {
            self.shuffle(&mut others);
        }
        others.into_iter().for_each(|other| self.meet(node, other));
    }

    fn shuffle(&mut self, nodes: &mut [NodeIndex]) {
        for at in (1..nodes.len()).rev() {
            let other = self.random.next_u32() as usize % (at + 1);
            nodes.swap(at, other);
        }
    }

    /// A duration below `max`, at random.
    pub(crate) fn up_to(&mut self, max: Duration) -> Duration {
        max * (self.random.next_u32() >> 16) / (1 << 16)
    }

    fn finds(&self, one: NodeIndex, other: NodeIndex) -> bool {
        let (one, other) = (&self.nodes[one].options, &self.nodes[other].options);
        let sees = |finds: &[u32], group: u32| finds.is_empty() || finds.contains(&group);
        sees(&one.finds, other.group) || sees(&other.finds, one.group)
    }

    /// Two nodes find each other: they connect if one of them looks for more.
    pub(crate) fn meet(&mut self, one: NodeIndex, other: NodeIndex) {
        let degrees = [self.mesh.degree(one), self.mesh.degree(other)];
        let room = degrees.iter().all(|degree| *degree < self.options.degree_max);
        if room && degrees.iter().any(|degree| *degree < self.options.degree_aim) {
            self.connect(one, other);
        }
    }

    /// A node that needs another one's bytes connects to it, if it has found it and both have room.
    pub(crate) fn reach(&mut self, one: NodeIndex, other: NodeIndex) {
        let room = [one, other].iter().all(|node| self.mesh.degree(*node) < self.options.degree_max);
        if room && self.finds(one, other) {
            self.connect(one, other);
        }
    }

    /// All connections of a node end, and its peers notice after a while.
    pub(crate) fn part_with_all(&mut self, node: NodeIndex, noticed: Duration) {
        for other in self.mesh.nodes[node].iter().collect::<Vec<_>>() {
            self.mesh.part(node, other);
            self.plan(noticed, other, Happening::Parted { other: node });
        }
    }

    /// A connection counts as gone.
    pub(crate) fn parted(&mut self, node: NodeIndex, other: NodeIndex) -> Result<(), crate::Violation> {
        if self.mesh.are_connected(node, other) {
            return Ok(());
        }
        let peer = self.nodes[other].id;
        let source = Source::Peer(peer);
        let flows = self.nodes[node].flows.iter().filter(|(_, flow)| flow.source == source);
        let broken: Vec<_> = flows.map(|(fetch, _)| *fetch).collect();
        self.handle(node, Event::PeerDisconnected { peer })?;
        for fetch in broken {
            self.plan(Duration::ZERO, node, Happening::Broken { fetch });
        }
        Ok(())
    }

    /// From now on these nodes hear and are heard only among themselves, and reach the origin or not. Connections with the
    /// others count as gone after `noticed`; what runs over them falls silent at once.
    pub fn partition(&mut self, nodes: &[NodeIndex], origin: bool, noticed: Duration) {
        self.mesh.sides += 1;
        self.mesh.parted = self.now;
        let side = self.mesh.sides;
        for node in nodes {
            self.mesh.nodes[*node].side = side;
            self.mesh.nodes[*node].cut = !origin;
        }
        for node in nodes {
            let across = |other: &NodeIndex| self.mesh.nodes[*other].side != side;
            for other in self.mesh.nodes[*node].iter().filter(across).collect::<Vec<_>>() {
                self.mesh.part(*node, other);
                for (one, other) in [(*node, other), (other, *node)] {
                    self.plan(noticed, one, Happening::Parted { other });
                }
            }
        }
    }

    /// Nodes hear and are heard by all again, and find each other in a while.
    pub fn heal(&mut self, nodes: &[NodeIndex]) {
        for node in nodes {
            self.mesh.nodes[*node].side = 0;
            self.mesh.nodes[*node].cut = false;
        }
        for node in nodes {
            if self.nodes[*node].is_up() {
                self.discover(*node);
            }
        }
        self.resume(self.mesh.parted);
    }

    /// A node in its present life.
    pub(crate) fn target(&self, node: NodeIndex) -> Target {
        Target { node, life: self.nodes[node].life }
    }
}
