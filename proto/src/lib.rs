//! The Layermesh protocol: what nodes say to each other ([`wire`]) and what they decide ([`engine`]).
//!
//! Invariant: this crate is deterministic. It never does IO, reads a clock, starts a thread, awaits or draws
//! randomness of its own; time and the random seed come in from the driver. The same events in the same order
//! therefore give the same actions, on a device, in the simulator and in a test.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bytes;
pub mod content;
pub mod engine;
pub mod gzip;
pub mod name;
pub mod node_id;
pub mod patch;
pub mod piece;
pub mod retention;
pub mod wire;

pub use content::{Algorithm, ContentId, ContentIdError, DigestMismatch, Verifier};
pub use name::{NameError, ObjectKind, Repository, TagRef};
pub use node_id::{NodeId, NodeIdError};
pub use piece::{FIRST_BYTES, PieceHash, PieceHashes, PieceIndex, PieceLayout, PieceMap, PieceSet};
