//! Announcements: what a node says to everybody, over gossipsub. Small, rare, and never needed for correctness:
//! whatever gossip loses, the control stream's inventory diff brings later.

use serde::{Deserialize, Serialize};

use super::{
    codec::Message,
    control::{Change, InventoryPosition, Summary},
    limits::{LimitError, check_changes},
    scan::Bounds,
};

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
}

impl Message for Announcement {
    const BOUNDS: Bounds = Bounds { bytes_max: ANNOUNCEMENT_BYTES_MAX, entries_max: CHANGES_PER_ANNOUNCEMENT_MAX };

    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Changed { since, changes } => check_changes(changes, CHANGES_PER_ANNOUNCEMENT_MAX, since.seq),
            Self::Summary(summary) => summary.check(),
        }
    }
}
