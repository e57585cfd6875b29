//! Damage of every kind: in the store, on its disk, at a peer, at the registry.
//!
//! What is shown each time: the reader gets right bytes, or is told that it does not get them; it never gets wrong
//! bytes as if they were right, and never waits for ever.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

#[path = "damage/alone.rs"]
mod alone;
#[path = "damage/disk_full.rs"]
mod disk_full;
#[path = "damage/origins.rs"]
mod origins;
#[path = "damage/peers.rs"]
mod peers;
#[path = "damage/stored.rs"]
mod stored;

/// A blob of 32 pieces.
const SIZE: usize = 4 << 20;
/// Length of each of them, in bytes.
const PIECE: u64 = 128 << 10;
