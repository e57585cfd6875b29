//! What the admin API says, as JSON. Also the output of the CLI's `--json`.
//!
//! Fields are only ever added. Digests are OCI digests, sizes are bytes, and the `bytes_*` counts are payload bytes
//! since the node's start.

use serde::{Deserialize, Serialize};

/// The node and its mesh now: `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the node started.
    pub uptime_s: f64,
    /// The fleet that the node belongs to.
    pub fleet: String,
    /// Platform whose images are pulled unless another is asked for.
    pub platform: String,
    /// Multiaddresses at which peers can reach the node.
    pub addresses: Vec<String>,
    /// Addresses that the node listens on.
    pub listen: ListenStatus,
    /// Connected peers.
    pub peers: usize,
    /// Blobs held whole.
    pub blobs: u64,
    /// Bytes of blobs held whole.
    pub store_bytes: u64,
    /// Bytes of blobs held in part.
    pub partial_bytes: u64,
    /// Bytes received from origins.
    pub bytes_from_origin: u64,
    /// Bytes received from peers.
    pub bytes_from_peers: u64,
    /// Bytes sent to peers.
    pub bytes_to_peers: u64,
    /// Bytes sent to container runtimes.
    pub bytes_to_runtimes: u64,
    /// Bytes received that were thrown away: wrong, or already there.
    pub bytes_discarded: u64,
    /// Origins asked so far.
    pub origins: Vec<OriginStatus>,
    /// Transfers under way.
    pub transfers: Vec<TransferStatus>,
}

/// Addresses that a node listens on, with the ports that were really bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenStatus {
    /// The mirror, for container runtimes.
    pub mirror: String,
    /// The control plane.
    pub peers: String,
    /// The bulk exchange.
    pub bulk: String,
    /// Health, metrics and status.
    pub status: String,
}

/// An origin that the node has asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginStatus {
    /// The registry as clients name it.
    pub registry: String,
    /// Whether it answered last time.
    pub reachable: bool,
}

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// The blob.
    pub digest: String,
    /// Its size, once known.
    pub size: Option<u64>,
    /// Bytes that are durable.
    pub bytes: u64,
    /// Where bytes come from now.
    pub sources: Vec<String>,
    /// What it waits for before it asks an origin, for people; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// A connected peer: an element of `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Address that it is connected from.
    pub address: String,
    /// Where it serves bytes, once it said so.
    pub bulk: Option<String>,
    /// Its program version, once it said so.
    pub version: Option<String>,
    /// Its platform, once it said so.
    pub platform: Option<String>,
    /// Blobs that it says it holds.
    pub blobs: usize,
}

/// A blob in the store: an element of `GET /v1/blobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub size: u64,
}

/// What to pull: the body of `POST /v1/pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The image, as people write it.
    pub image: String,
    /// `os/arch[/variant]`, several with commas, or `all`; the node's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Nobody waits for it: the uplink is asked only when its windows and its meter allow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
}

/// A line of the answer to `POST /v1/pull`. The last is [`PullEvent::Done`] or [`PullEvent::Error`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PullEvent {
    /// It is known what the image stands for.
    Resolved {
        /// The image, normalised.
        image: String,
        /// The manifest or index.
        digest: String,
        /// Who said so, for people.
        said_by: String,
    },
    /// A blob belongs to the image.
    Blob {
        /// The blob.
        digest: String,
        /// Its size.
        size: u64,
        /// Whether this node held it already.
        held: bool,
    },
    /// How far the blobs under way are.
    Progress {
        /// Those with news.
        blobs: Vec<TransferStatus>,
    },
    /// A blob is held now.
    Landed {
        /// The blob.
        digest: String,
    },
    /// The node holds the whole image.
    Done(PullSummary),
    /// The pull failed.
    Error {
        /// What happened, for people.
        message: String,
    },
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullSummary {
    /// The image, normalised.
    pub image: String,
    /// The manifest or index that it stands for.
    pub digest: String,
    /// Its blobs, manifests included.
    pub blobs: usize,
    /// Bytes of its blobs.
    pub bytes: u64,
    /// Bytes that the node held before.
    pub bytes_held: u64,
    /// Bytes that the node received from origins meanwhile.
    pub bytes_from_origin: u64,
    /// Bytes that the node received from peers meanwhile.
    pub bytes_from_peers: u64,
    /// Seconds that it took.
    pub elapsed_s: f64,
}

/// Body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, for people.
    pub error: String,
}
