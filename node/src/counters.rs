//! What went where: byte counts of this run of the node, kept by whoever moves the bytes.
//!
//! Payload bytes only, without HTTP, TLS or TCP overhead.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use layermesh_proto::{
    ContentId, NodeId,
    engine::{Urgency, event::WantError},
};
use prometheus_client::metrics::histogram::Histogram;

/// Peers whose bytes are counted apart. 1024: twice as many as can be connected. Of further ones only the sums are known.
const PEERS_COUNTED_MAX: usize = 1024;

/// Byte counters of one node, shared by reference.
#[derive(Debug, Default)]
pub struct Counters {
    /// Blob and manifest bytes received from origins.
    pub from_origin: Counter,
    /// Blob and manifest bytes received from peers.
    pub from_peers: Counter,
    /// Blob and manifest bytes sent to peers.
    pub to_peers: Counter,
    /// Blob and manifest bytes sent to runtimes through the mirror.
    pub to_runtimes: Counter,
    /// Bytes received that had to be thrown away: wrong, or already there.
    pub discarded: Counter,
    /// Bytes received from origins of blobs that somebody watches.
    pub watched: Watched,
    /// Bytes from and to each peer.
    pub by_peer: ByPeer,
    /// How waits for blobs ended.
    pub waits: Waits,
}

/// Seconds that a wait for a blob is counted up to: from a manifest on the LAN to a large layer over a weak uplink.
const WAIT_BUCKETS_S: [f64; 14] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1200.0, 3600.0];

/// How waits for blobs ended that this device did not hold when they were asked for.
#[derive(Debug)]
pub struct Waits {
    /// Seconds until they were held, while somebody waited.
    pub runtime: Histogram,
    /// The same in the background.
    pub background: Histogram,
    failed: [Counter; WaitFailure::ALL.len()],
}

impl Default for Waits {
    fn default() -> Self {
        let histogram = || Histogram::new(WAIT_BUCKETS_S);
        Self { runtime: histogram(), background: histogram(), failed: Default::default() }
    }
}

impl Waits {
    /// A wait ended after so long.
    pub fn ended(&self, urgency: Urgency, after: Duration, result: &Result<(), WantError>) {
        match (result, urgency) {
            (Ok(()), Urgency::Runtime) => self.runtime.observe(after.as_secs_f64()),
            (Ok(()), Urgency::Background) => self.background.observe(after.as_secs_f64()),
            (Err(error), _) => self.failed[WaitFailure::of(error) as usize].add(1),
        }
    }

    /// How many failed, by why.
    pub fn failed(&self) -> impl Iterator<Item = (WaitFailure, u64)> + '_ {
        WaitFailure::ALL.into_iter().zip(self.failed.iter().map(Counter::get))
    }
}

/// Why a blob could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFailure {
    /// Nobody has it, nor its registry.
    NotFound,
    /// Its registry refused.
    Unauthorized,
    /// Its registry cannot give it now.
    Unavailable,
    /// It was too large for whoever wanted it.
    TooLarge,
    /// This device could not store it.
    Store,
    /// Too many transfers were open.
    Busy,
}

impl WaitFailure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::NotFound, Self::Unauthorized, Self::Unavailable, Self::TooLarge, Self::Store, Self::Busy];

    const fn of(error: &WantError) -> Self {
        match error {
            WantError::NotFound | WantError::NotSigned => Self::NotFound,
            WantError::Unauthorized(_) => Self::Unauthorized,
            WantError::Unavailable(_) => Self::Unavailable,
            WantError::TooLarge(_) => Self::TooLarge,
            WantError::Store(_) => Self::Store,
            WantError::Busy => Self::Busy,
        }
    }

    /// In one word, for labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too_large",
            Self::Store => "store",
            Self::Busy => "busy",
        }
    }
}

impl Counters {
    /// Bytes came from a peer.
    pub fn came_from(&self, peer: NodeId, bytes: u64) {
        self.from_peers.add(bytes);
        self.by_peer.add(peer, Exchanged { received: bytes, sent: 0 });
    }

    /// Bytes went to a peer.
    pub fn went_to(&self, peer: NodeId, bytes: u64) {
        self.to_peers.add(bytes);
        self.by_peer.add(peer, Exchanged { received: 0, sent: bytes });
    }
}

/// Bytes from and to one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// Bytes that came from it.
    pub received: u64,
    /// Bytes that went to it.
    pub sent: u64,
}

/// Bytes from and to each peer, of the first so many.
#[derive(Debug, Default)]
pub struct ByPeer(Mutex<HashMap<NodeId, Exchanged>>);

impl ByPeer {
    fn add(&self, peer: NodeId, more: Exchanged) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_COUNTED_MAX && !peers.contains_key(&peer) {
            return;
        }
        let sum = peers.entry(peer).or_default();
        sum.received = sum.received.saturating_add(more.received);
        sum.sent = sum.sent.saturating_add(more.sent);
    }

    /// All of them.
    pub fn all(&self) -> HashMap<NodeId, Exchanged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes of certain blobs. As many as whoever watches them names, and those are bounded where they come from.
#[derive(Debug, Default)]
pub struct Watched(Mutex<HashMap<ContentId, u64>>);

impl Watched {
    /// Watches these blobs and no others; counts of those that were watched before go on.
    pub fn watch(&self, contents: impl IntoIterator<Item = ContentId>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = contents.into_iter().map(|content| (content, counts.get(&content).copied().unwrap_or(0))).collect();
    }

    /// Adds to a blob's count, if it is watched.
    pub fn add(&self, content: &ContentId, amount: u64) {
        if let Some(count) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(content) {
            *count += amount;
        }
    }

    /// A blob's count so far.
    pub fn get(&self, content: &ContentId) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(content).copied().unwrap_or(0)
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_why_and_only_what_came_has_a_time() {
        let waits = Waits::default();
        waits.ended(Urgency::Runtime, Duration::from_secs(1), &Ok(()));
        waits.ended(Urgency::Background, Duration::from_secs(1), &Err(WantError::Busy));
        waits.ended(Urgency::Runtime, Duration::from_secs(1), &Err(WantError::Store("full".to_owned())));
        let failed: Vec<_> = waits.failed().filter(|(_, count)| *count > 0).collect();
        assert_eq!(failed, [(WaitFailure::Store, 1), (WaitFailure::Busy, 1)]);
        assert!(WaitFailure::ALL.iter().enumerate().all(|(at, failure)| *failure as usize == at));
    }

    #[test]
    fn bytes_of_peers_count_apart_and_together_and_those_of_too_many_together_only() {
        let counters = Counters::default();
        let peer = |number: usize| NodeId::from_public_key(std::array::from_fn(|at| (number >> (8 * at.min(4))) as u8));
        for number in 0..=PEERS_COUNTED_MAX {
            counters.came_from(peer(number), 3);
        }
        counters.went_to(peer(1), 2);
        let all = counters.by_peer.all();
        assert_eq!((all.len(), all.get(&peer(PEERS_COUNTED_MAX))), (PEERS_COUNTED_MAX, None));
        assert_eq!(all[&peer(1)], Exchanged { received: 3, sent: 2 });
        assert_eq!((counters.from_peers.get(), counters.to_peers.get()), (3 * 1025, 2));
    }
}
