//! Rates, latencies and the origin.

use std::{collections::BTreeMap, time::Duration};

use layermesh_proto::{ContentId, TagRef};

/// How the simulated site is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rate of each node's LAN port, each way, in bytes a second.
    pub lan_bytes_per_s: u64,
    /// Rate of the site's uplink, in bytes a second.
    pub uplink_bytes_per_s: u64,
    /// Each node has an uplink of its own instead of all sharing one.
    pub uplink_of_its_own: bool,
    /// Most that the origin gives over one connection, in bytes a second.
    pub origin_bytes_per_s_each: u64,
    /// One way between two nodes; each message takes up to twice as long.
    pub lan_latency: Duration,
    /// One way to the origin.
    pub uplink_latency: Duration,
    /// Of 1000 gossip messages, how many each listener misses.
    pub gossip_loss_per_mille: u32,
    /// After a node lost power, when its peers notice.
    pub power_loss_noticed: Duration,
    /// Wall clock at the start, in seconds since the Unix epoch.
    pub start_unix_s: u64,
}

impl Default for Options {
    /// A site on gigabit Ethernet behind 50 Mbit/s.
    fn default() -> Self {
        Self {
            lan_bytes_per_s: 125_000_000,
            uplink_bytes_per_s: 6_250_000,
            uplink_of_its_own: false,
            origin_bytes_per_s_each: u64::MAX,
            lan_latency: Duration::from_micros(500),
            uplink_latency: Duration::from_millis(20),
            gossip_loss_per_mille: 0,
            power_loss_noticed: Duration::from_secs(40),
            start_unix_s: 1_700_000_000,
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
    pub(crate) blobs: BTreeMap<ContentId, u64>,
    pub(crate) tags: BTreeMap<TagRef, ContentId>,
    /// Payload bytes that crossed the uplink.
    pub(crate) bytes: u64,
}

/// How long `bytes` take at `rate` shared by `flows`.
pub(crate) fn time_of(bytes: u64, rate: u64, flows: usize) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 * flows.max(1) as u128 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
