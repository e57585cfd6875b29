//! What went where: byte counts of this run of the node, kept by whoever moves the bytes.
//!
//! Payload bytes only, without HTTP, TLS or TCP overhead.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use layermesh_proto::ContentId;

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
