//! Announcements: what a node says to everybody, over gossipsub. Small, rare, and never needed for correctness:
//! whatever gossip loses, the control stream's inventory diff brings later.

use serde::{Deserialize, Serialize};

use super::control::{Change, InventoryPosition, Summary};

/// Largest announcement, in bytes. Below gossipsub's own limit and small enough for a narrow link.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 16 << 10;
/// Most changes that one announcement carries. A node with more to say lets its peers ask for them.
pub const CHANGES_PER_ANNOUNCEMENT_MAX: usize = 64;

/// One gossip message. Its author is the gossipsub message's signer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announcement {
    /// My inventory went from one position to another by these changes.
    Changed {
        /// Position before the first change. A listener that is not there has missed something, and asks.
        since: InventoryPosition,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Where I stand; sent with jitter at long intervals, so that losses are noticed.
    Summary(Summary),
}
