//! What is said of keeping blobs: pins, collections, verification, attached stores.

use serde::{Deserialize, Serialize};

/// What to pin: the body of `POST /v1/pin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRequest {
    /// Images, as people write them, or digests.
    pub images: Vec<String>,
    /// `os/arch[/variant]` or `all`; the node's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// An image that is pinned: an element of the answer to `POST /v1/pin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedImage {
    /// The image, normalised, or the digest that was given.
    pub image: String,
    /// The manifest, index or blob that it stands for.
    pub digest: String,
    /// Who pins it: what `pinned_by` of its blobs names.
    pub owner: String,
    /// Its blobs that are pinned.
    pub blobs: usize,
    /// Their bytes, as far as their sizes are known.
    pub bytes: u64,
    /// Those that are not held. They are pinned when they come.
    pub missing: Vec<String>,
    /// Manifests that are not held, so that it is not known what they name. That is not pinned.
    pub unread: Vec<String>,
}

/// What to unpin: the body of `POST /v1/unpin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpinRequest {
    /// Images as they were pinned or seeded, or digests.
    #[serde(default)]
    pub images: Vec<String>,
    /// Owners of pins.
    #[serde(default)]
    pub owners: Vec<String>,
}

/// An owner of pins: an element of `GET /v1/pins`, and of the answer to `POST /v1/unpin`, which tells what there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsOfOwner {
    /// The owner.
    pub owner: String,
    /// What it pins.
    pub digests: Vec<String>,
}

/// What to verify: the body of `POST /v1/verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Most bytes a second that are read; 32 MiB if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u64>,
}

/// A line of the answer to `POST /v1/verify`. The last is [`VerifyEvent::Done`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum VerifyEvent {
    /// It begins.
    Started {
        /// Blobs that will be read.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// So much has been read.
    Progress {
        /// Blobs.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// A blob is not as it was. It is not given to anybody any more, and is being repaired.
    Damaged {
        /// The blob.
        digest: String,
    },
    /// A damaged blob is whole again.
    Repaired {
        /// The blob.
        digest: String,
    },
    /// A blob cannot be read, or not be repaired.
    Failed {
        /// The blob.
        digest: String,
        /// Why, for people.
        message: String,
    },
    /// All has been read.
    Done(VerifySummary),
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct VerifySummary {
    /// Blobs that were to be read.
    pub total: usize,
    /// Their bytes.
    pub total_bytes: u64,
    /// Blobs that were read.
    pub verified: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were damaged.
    pub damaged: usize,
    /// Those of them that are whole again.
    pub repaired: usize,
    /// Blobs that could not be read.
    pub unread: usize,
    /// Seconds that it took.
    pub elapsed_s: f64,
}

/// What to attach: the body of `POST /v1/attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// A directory with `blobs/sha256`, absolute.
    pub path: String,
    /// Whether the node's own copies go for those there, but for pinned ones.
    #[serde(default)]
    pub reuse: bool,
}

/// What to detach: the body of `POST /v1/detach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachRequest {
    /// The directory as it was attached.
    pub path: String,
}

/// An attached store: an element of `GET /v1/attached` and of the answers to `POST /v1/attach` and `/v1/detach`, which
/// tell of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The directory.
    pub path: String,
    /// Whether the node's own copies go for those there.
    pub reuse: bool,
    /// Whether it was attached by a command, and so stays attached without the configuration.
    pub lasting: bool,
    /// Blobs that are there and verified.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that wait to be hashed.
    pub pending: usize,
    /// Why it cannot be looked at now; absent if it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What to collect: the body of `POST /v1/gc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// Bytes that blobs may take together; the quota if absent or larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Only say what would go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a collection did: the answer to `POST /v1/gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What went, or would.
    pub removed: Vec<GcItem>,
    /// Bytes of blobs that are there, after it.
    pub store_bytes: u64,
    /// Bytes of those that are pinned.
    pub pinned_bytes: u64,
    /// Bytes that blobs may take together.
    pub quota: u64,
}

/// Something that a collection removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcItem {
    /// Its digest.
    pub digest: String,
    /// Its size; of a blob that was begun, all of it.
    pub bytes: u64,
    /// `blob`; `begun`, a blob that never became whole; or `damaged`, a file that was not what its name said.
    pub kind: String,
}
