//! What the simulated site is like, and the origin.

use std::{collections::BTreeMap, time::Duration};

use layermesh_proto::{ContentId, TagRef, engine::event::Instant};

use crate::links::Way;

use crate::{quota::Quota, sabotage::Sabotage};

/// Nodes of a world up to which it explains itself and has a small limit on events, unless told otherwise. 50: tests and
/// single sites; what goes wrong in larger ones is told apart by running the seed again.
pub(crate) const SMALL_NODES_MAX: usize = 50;
/// Most events of a run of a small world. 5 million: a run of a test that takes more does not end by itself.
const EVENTS_SMALL_MAX: u64 = 50_000_000;
/// Most events of a run of any other. 2 billion: an hour of a processor.
const EVENTS_MAX: u64 = 2_000_000_000;

/// How the simulated site is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rate of each node's LAN port, each way, in bytes a second; of the radio, if all share one.
    pub lan_bytes_per_s: u64,
    /// All nodes share one radio, half duplex: what goes from one to another takes it twice.
    pub shared_radio: bool,
    /// Rate of the site's uplink, in bytes a second.
    pub uplink_bytes_per_s: u64,
    /// Each node has an uplink of its own instead of all sharing one.
    pub uplink_of_its_own: bool,
    /// Most that the origin gives over one connection, in bytes a second.
    pub origin_bytes_per_s_each: u64,
    /// Requests that the origin answers each address in a minute; no limit if `None`.
    pub origin_requests_per_min: Option<u32>,
    /// One way between two nodes.
    pub lan_latency: Duration,
    /// Up to so much is added to each message's way, at random.
    pub lan_jitter: Duration,
    /// One way to the origin.
    pub uplink_latency: Duration,
    /// Of 1000 gossip messages, how many each listener misses.
    pub gossip_loss_per_mille: u32,
    /// Up to so much passes before a node that came and another find each other, at random; at once if zero.
    pub discovery: Duration,
    /// Connections that a node looks for. 48, as nodes do.
    pub degree_aim: usize,
    /// Connections that a node has at most, those that others looked for included. 64, as nodes do.
    pub degree_max: usize,
    /// After a node lost power, when its peers notice.
    pub power_loss_noticed: Duration,
    /// Wall clock at the start, in seconds since the Unix epoch.
    pub start_unix_s: u64,
    /// Wall clock at the start as a minute of the week, told to nodes that have windows; `None` if nobody knows it.
    pub start_minute: Option<u16>,
    /// What is wrong, so that it is seen that the checks find it.
    pub sabotage: Option<Sabotage>,
    /// Keeps the last lines of what happened to each node for a [`Violation`](crate::Violation), which takes several
    /// times as long; `None` for those of at most 50 nodes.
    pub explain: Option<bool>,
    /// Most events of a run, after which it counts as endless; `None` for five million in worlds of at most 50 nodes and two
    /// billion in others.
    pub events_max: Option<u64>,
}

impl Options {
    /// The way of a message between two nodes.
    pub(crate) fn lan(&self) -> Way {
        Way { latency: self.lan_latency, jitter: self.lan_jitter, loss_per_mille: self.gossip_loss_per_mille }
    }

    pub(crate) fn explains(&self, nodes: usize) -> bool {
        self.explain.unwrap_or(nodes <= SMALL_NODES_MAX)
    }

    pub(crate) fn events_max(&self, nodes: usize) -> u64 {
        let by_size = if nodes <= SMALL_NODES_MAX { EVENTS_SMALL_MAX } else { EVENTS_MAX };
        self.events_max.unwrap_or(by_size)
    }
}

impl Default for Options {
    /// A site on gigabit Ethernet behind 50 Mbit/s.
    fn default() -> Self {
        Self {
            lan_bytes_per_s: 125_000_000,
            shared_radio: false,
            uplink_bytes_per_s: 6_250_000,
            uplink_of_its_own: false,
            origin_bytes_per_s_each: u64::MAX,
            origin_requests_per_min: None,
            lan_latency: Duration::from_micros(500),
            lan_jitter: Duration::from_micros(500),
            uplink_latency: Duration::from_millis(20),
            gossip_loss_per_mille: 0,
            discovery: Duration::ZERO,
            degree_aim: 48,
            degree_max: 64,
            power_loss_noticed: Duration::from_secs(40),
            start_unix_s: 1_700_000_000,
            start_minute: None,
            sabotage: None,
            explain: None,
            events_max: None,
        }
    }
}

/// How the origin behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginMode {
    /// It answers.
    Up,
    /// Connections to it are refused.
    Refusing,
    /// Connections to it are accepted and nothing comes.
    Silent,
    /// It answers whatever range is asked for with the whole blob.
    Unranged,
    /// It answers, and every blob that it gives is not the one asked for.
    Corrupt,
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) mode: OriginMode,
    /// Questions what a tag stands for that it answered.
    pub(crate) tags_asked: u64,
    /// Since when it behaves so.
    pub(crate) since: Instant,
    pub(crate) blobs: BTreeMap<ContentId, u64>,
    pub(crate) tags: BTreeMap<TagRef, ContentId>,
    /// Payload bytes of pieces that crossed the uplink.
    pub(crate) bytes: u64,
    /// Of pieces whose fetch was broken off, the part that had crossed it.
    pub(crate) bytes_broken_off: u64,
    /// Requests that it answers.
    pub(crate) quota: Quota,
}
