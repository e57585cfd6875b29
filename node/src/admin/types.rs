//! What the admin API says, as JSON. Also the output of the CLI's `--json`.
//!
//! Fields are only ever added. Digests are OCI digests, sizes are bytes, and the `bytes_*` counts are payload bytes
//! since the node's start.

mod keeping;
mod site;

use serde::{Deserialize, Serialize};

use crate::{
    fleet::AdmissionStatus,
    release::{ReleasedImage, status::ReleasesStatus},
};
pub use keeping::{
    AttachRequest, Attached, DetachRequest, GcItem, GcReport, GcRequest, PinRequest, PinnedImage, PinsOfOwner,
    UnpinRequest, VerifyEvent, VerifyRequest, VerifySummary,
};
pub use site::{
    Severity, SiteCrossed, SiteDevice, SiteImage, SiteLayer, SiteProblem, SiteStatus, SiteTransfer, SiteUplink,
};

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
    /// Blobs that only attached stores have.
    #[serde(default)]
    pub attached_blobs: u64,
    /// Bytes of those.
    #[serde(default)]
    pub attached_bytes: u64,
    /// Bytes of blobs held whole that are pinned.
    #[serde(default)]
    pub pinned_bytes: u64,
    /// Bytes that blobs may take together, whole ones and those that are on their way.
    #[serde(default)]
    pub quota: u64,
    /// Bytes that are free on the disk.
    #[serde(default)]
    pub disk_free: u64,
    /// Bytes of the disk that blobs leave free.
    #[serde(default)]
    pub disk_free_min: u64,
    /// Size of the disk.
    #[serde(default)]
    pub disk_size: u64,
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
    /// Bytes that crossed the site's uplink, as far as this node fetched them or heard of them.
    #[serde(default)]
    pub uplink_bytes: u64,
    /// Those of them that were more than one copy of a blob.
    #[serde(default)]
    pub uplink_surplus_bytes: u64,
    /// Connected peers that may have sent wrong bytes, and are not asked for any.
    #[serde(default)]
    pub penalised: usize,
    /// Origins asked so far.
    pub origins: Vec<OriginStatus>,
    /// Transfers under way.
    pub transfers: Vec<TransferStatus>,
    /// How signed releases stand; absent if none are followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<ReleasesStatus>,
    /// Who is let in; absent of versions that let everybody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<AdmissionStatus>,
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
    /// Seconds since something of it came.
    #[serde(default)]
    pub quiet_s: u64,
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
    /// Who pins it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pinned_by: Vec<String>,
    /// Whether only an attached store has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub attached: bool,
}

/// What is known of a tag on this site: an element of `GET /v1/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The tag, with its registry and repository.
    pub tag: String,
    /// What it would be said to stand for if its origin were away.
    pub digest: String,
    /// Who said so: `origin`, to this node; `peer`, to which the origin said it; or `release`, a signed one.
    pub said_by: String,
    /// The peer's libp2p peer id, if one said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The release, if one said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// When the origin said so, in seconds since the Unix epoch by the clock of whoever asked it, if that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_unix_s: Option<u64>,
    /// How many seconds ago the origin said so, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Whether that is so young that nobody on the site asks the origin.
    pub fresh: bool,
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

/// What to look for: the body of `POST /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// The image, as people write it.
    pub image: String,
    /// `os/arch[/variant]`, several with commas, or `all`; the node's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Who holds all of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// This device.
    Device,
    /// The devices of this site together.
    Site,
    /// Nobody, as far as is known.
    No,
}

/// A part of an image's blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Share {
    /// One more blob.
    pub fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Who holds what of an image: the answer to `POST /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// The image, normalised.
    pub image: String,
    /// The platforms that were looked at.
    pub platform: String,
    /// The manifest or index that it stands for; absent if nobody on the site knows.
    pub digest: Option<String>,
    /// Who said so, for people.
    pub said_by: Option<String>,
    /// Who holds all of it.
    pub complete: Completeness,
    /// What it needs, as far as its manifests could be read.
    pub total: Share,
    /// What this device holds of that.
    pub device: Share,
    /// What this device and its peers hold together.
    pub site: Share,
    /// Peers that hold any of it.
    pub peers: Vec<DeviceShare>,
    /// Its blobs: what names others comes before them.
    pub parts: Vec<CheckedPart>,
    /// Manifests that neither this device nor a peer could give. What they name is not in `parts`.
    pub unread: Vec<String>,
}

/// What a peer holds of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShare {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// What it holds.
    #[serde(flatten)]
    pub held: Share,
}

/// A blob of an image, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedPart {
    /// The blob.
    pub digest: String,
    /// `index`, `manifest`, `config`, `layer` or `other`.
    pub role: String,
    /// Its size, if known.
    pub size: Option<u64>,
    /// Its media type, if known.
    pub media_type: Option<String>,
    /// The platforms that need it, as the index names them.
    pub platforms: Vec<String>,
    /// Whether this device holds it.
    pub here: bool,
    /// Peers that hold it.
    pub peers: Vec<String>,
}

/// Blobs that somebody would bring: the body of `POST /v1/seed/plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedPlanRequest {
    /// The name of the image that they belong to: what comes of it is kept from now on, also should the rest not come soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The blobs.
    pub blobs: Vec<SeedBlob>,
}

/// A blob that somebody would bring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedBlob {
    /// The blob.
    pub digest: String,
    /// Its size.
    pub size: u64,
}

/// What the node lacks of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedPlan {
    /// The blobs, in the order of the question.
    pub blobs: Vec<SeedNeed>,
}

/// What the node lacks of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedNeed {
    /// The blob.
    pub digest: String,
    /// The byte from which on it is needed; absent if the node holds it.
    pub from: Option<u64>,
}

/// An image whose blobs were brought: the body of `POST /v1/seed/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedRequest {
    /// The name under which it shall be known.
    pub image: String,
    /// Its manifest or index.
    pub digest: String,
    /// `os/arch[/variant]`, several with commas, or `all`; what was brought if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Whether its tag stands for it from now on, as if the registry had said so.
    pub bind: bool,
}

/// An image that was brought: the answer to `POST /v1/seed/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedSummary {
    /// Its name, normalised.
    pub image: String,
    /// Its manifest or index.
    pub digest: String,
    /// Its blobs, manifests included.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, for people.
    pub error: String,
}

/// An image that is to be released: the body of `POST /v1/releases/inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectRequest {
    /// The image, as people write it.
    pub image: String,
}

/// What an image is: the answer to `POST /v1/releases/inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectedImage {
    /// The image as a release names it.
    pub image: ReleasedImage,
    /// Who said what its tag stands for, for people.
    pub said_by: String,
    /// Its blobs for all platforms, manifests included.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that neither this site nor the registry has, and why, for people. At most sixteen are named.
    pub missing: Vec<String>,
}

/// Metadata of releases that the node took up: the answer to `POST /v1/releases/metadata`, whose body are the files by
/// name. `POST /v1/releases/check` answers the same and takes nothing up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedReleases {
    /// The repository.
    pub repository: String,
    /// Version of the metadata.
    pub version: u64,
    /// Releases in it.
    pub releases: usize,
}
