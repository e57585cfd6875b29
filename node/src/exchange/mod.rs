//! Bulk exchange: the bytes of blobs between two nodes, as HTTP/1.1 over TLS 1.3 on a port of its own.
//!
//! A peer is a ranged source of blobs like an origin is; what differs is trust. Both ends prove their node id in
//! the handshake (`tls`), so a client reads only from the node it meant to ask and a server knows whom it
//! answers. The bytes do not pass through a stream muxer: that, not the encryption, is what costs.
//!
//! | request | answer |
//! |---|---|
//! | `GET /pieces/<cid>` | 200, the blob's size in `Layermesh-Blob-Size`, the body its piece map (32 bytes a piece); 404 unless held whole |
//! | `GET`, `HEAD /blobs/<cid>`, with or without a single `Range` | 200, 206, 416; 404 unless held whole |
//! | `GET /growing/<cid>`, with or without a single `Range` | as `/blobs/`, also of a blob that is still landing here: the answer waits until its size is known, the body for each piece; 404 if it is not begun in time |
//!
//! Bodies of blobs take an upload slot while they have bytes to send (`slots`, `uploads`). 503 with `Retry-After`: no slot
//! came free in time, or too many wait already, or the peer has too many connections.
//!
//! Invariants: a server writes only bytes that its [`BlobSource`] has checked, and resets the connection rather
//! than end a body short; a client yields exactly the bytes asked for or an error. Deliberately absent: which
//! blob to ask of whom, checking pieces against their map, and counting what was received; the fetch does that.

mod answer;
mod body;
mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod maps;
#[cfg(test)]
mod memory;
mod pool;
mod range;
mod route;
mod server;
mod slots;
mod source;
#[cfg(test)]
mod tests;
mod tls;
mod uploads;

pub use client::{BulkBody, BulkClient};
pub use server::{BindError, BulkServer, ServerLimits};
pub use source::{BlobRead, BlobSource};
pub use tls::{TlsSetupError, gather_entropy};

/// Header in which a piece map's answer carries the blob's size in bytes.
const BLOB_SIZE: &str = "layermesh-blob-size";
/// Path under which piece maps are.
const PIECES_PATH: &str = "/pieces/";
/// Path under which blobs are that may still be landing.
const GROWING_PATH: &str = "/growing/";
/// Longest wait for the next piece of a blob that is landing. A piece has 1 MiB at most: 60 s is an uplink of 140 kbit/s.
const GROWING_STALL_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// Path under which blobs are.
const BLOBS_PATH: &str = "/blobs/";
