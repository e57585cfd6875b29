//! What went where: byte counts of this run of the node, kept by whoever moves the bytes.
//!
//! Payload bytes only, without HTTP, TLS or TCP overhead.

use std::sync::atomic::{AtomicU64, Ordering};

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
