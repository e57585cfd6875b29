//! Announcements: what a node says to everybody, over gossipsub. Small, rare, and never needed for correctness:
//! whatever gossip loses, the control stream's inventory diff brings later.

use serde::{Deserialize, Serialize};

use super::{
    codec::Message,
    control::{Change, InventoryPosition, Summary},
    limits::{LimitError, check_changes, check_hashes, check_set},
    release::Rollout,
    scan::Bounds,
};
use crate::{ContentId, PieceHashes, PieceIndex, PieceSet};

/// Largest announcement, in bytes. Below gossipsub's own limit and small enough for a narrow link.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 16 << 10;
/// Most changes that one announcement carries. A node with more to say lets its peers ask for them. So many of the
/// longest changes stay under the byte limit: whoever keeps to this number need not count bytes.
pub const CHANGES_PER_ANNOUNCEMENT_MAX: usize = 20;

/// One gossip message. Its author is the gossipsub message's signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announcement {
    /// My inventory went from one position to another by these changes.
    #[serde(rename = "c")]
    Changed {
        /// Position before the first change. A listener that is not there has missed something, and asks.
        #[serde(rename = "s")]
        since: InventoryPosition,
        /// The changes, in order.
        #[serde(rename = "c")]
        changes: Vec<Change>,
    },
    /// Where I stand; sent with jitter at long intervals, so that losses are noticed.
    #[serde(rename = "s")]
    Summary(Summary),
    /// What I do about a blob that nobody holds whole.
    #[serde(rename = "t")]
    Taking(Part),
    /// How far I am with the releases that I follow.
    #[serde(rename = "r")]
    Rollout(Rollout),
}

/// Most hashes that one message of [`Part::Vouched`] carries: 8 KiB of them.
pub const HASHES_PER_ANNOUNCEMENT_MAX: usize = 256;

/// The pieces of a blob that a node has while it has not all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Having {
    /// The blob's size in bytes.
    #[serde(rename = "s")]
    pub size: u64,
    /// The pieces.
    #[serde(rename = "p")]
    pub pieces: PieceSet,
}

/// A node fetches a stripe from the origin. Repeated while bytes come; who says nothing for as long as the lease has given
/// up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which pieces.
    #[serde(rename = "p")]
    pub stripe: Stripe,
    /// How long this word is good for, in milliseconds.
    #[serde(rename = "l")]
    pub lease_ms: u32,
}

/// A run of a blob's pieces that one node fetches from the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stripe {
    /// Its first piece.
    #[serde(rename = "f")]
    pub first: PieceIndex,
    /// The piece after its last one; may lie beyond the blob while its size is not known.
    #[serde(rename = "e")]
    pub end: PieceIndex,
    /// How often these pieces changed hands: of two claims on a piece the one with more turns counts.
    #[serde(rename = "t")]
    pub turn: u8,
    /// The tree along which they spread: the nodes that pass them on are others than in the trees of other numbers, so that
    /// none has to pass on several stripes that land at the same time.
    #[serde(rename = "g")]
    pub tree: u8,
}

/// A node's part in bringing a blob to its site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// I take part in fetching this blob. Repeated now and then, and at once when something of it changes that others go
    /// by; each word replaces the one before.
    #[serde(rename = "w")]
    Wanted {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// Whether I could ask its origin for it.
        #[serde(rename = "o")]
        origin: bool,
        /// What I have of it, once its size is known.
        #[serde(rename = "h")]
        having: Option<Having>,
        /// What I fetch of it from its origin.
        #[serde(rename = "f")]
        claim: Option<Claim>,
    },
    /// I took these pieces from the origin, or hold the blob whole; whoever gets them from anybody can check them against these hashes.
    #[serde(rename = "v")]
    Vouched {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// The blob's size in bytes.
        #[serde(rename = "s")]
        size: u64,
        /// The first of the pieces, which follow each other.
        #[serde(rename = "f")]
        first: PieceIndex,
        /// Their hashes; at most [`HASHES_PER_ANNOUNCEMENT_MAX`].
        #[serde(rename = "h")]
        hashes: PieceHashes,
    },
    /// I neither want nor fetch this blob any more.
    #[serde(rename = "l")]
    Left {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
    },
}

impl Part {
    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Wanted { having: Some(having), .. } => check_set(having.size, &having.pieces),
            Self::Vouched { size, first, hashes, .. } => {
                check_hashes(*size, *first, hashes, HASHES_PER_ANNOUNCEMENT_MAX)
            }
            Self::Wanted { .. } | Self::Left { .. } => Ok(()),
        }
    }
}

impl Message for Announcement {
    const BOUNDS: Bounds = Bounds { bytes_max: ANNOUNCEMENT_BYTES_MAX, entries_max: CHANGES_PER_ANNOUNCEMENT_MAX };

    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Changed { since, changes } => check_changes(changes, CHANGES_PER_ANNOUNCEMENT_MAX, since.seq),
            Self::Summary(summary) => summary.check(),
            Self::Taking(part) => part.check(),
            Self::Rollout(rollout) => rollout.check(),
        }
    }
}
