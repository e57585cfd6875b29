//! Announcements: what a node says to everybody, over gossipsub. Small, rare, and never needed for correctness:
//! whatever gossip loses, the control stream's inventory diff brings later.

use serde::{Deserialize, Serialize};

use super::{
    codec::Message,
    control::{Change, InventoryPosition, Summary},
    limits::{LimitError, check_changes},
    scan::Bounds,
};
use crate::{ContentId, piece::PIECES_MAX};

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
}

/// A node's part in bringing a blob to its site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// I take part in fetching this blob. Repeated now and then while it lasts.
    #[serde(rename = "w")]
    Wanted {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// Whether I could ask its origin for it.
        #[serde(rename = "o")]
        origin: bool,
        /// Pieces of it that I have; whoever has most loses least by going on.
        #[serde(rename = "p")]
        pieces: u32,
    },
    /// I fetch all that I miss of this blob from its origin. Repeated while bytes come; who says nothing for as long
    /// as the lease has given up.
    #[serde(rename = "f")]
    Claimed {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// How long this word is good for, in milliseconds.
        #[serde(rename = "l")]
        lease_ms: u32,
    },
    /// I neither want nor fetch this blob any more.
    #[serde(rename = "l")]
    Left {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
    },
}

impl Message for Announcement {
    const BOUNDS: Bounds = Bounds { bytes_max: ANNOUNCEMENT_BYTES_MAX, entries_max: CHANGES_PER_ANNOUNCEMENT_MAX };

    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Changed { since, changes } => check_changes(changes, CHANGES_PER_ANNOUNCEMENT_MAX, since.seq),
            Self::Summary(summary) => summary.check(),
            Self::Taking(Part::Wanted { pieces, .. }) if *pieces > PIECES_MAX => {
                Err(LimitError::TooManyPieces(*pieces))
            }
            Self::Taking(_) => Ok(()),
        }
    }
}
