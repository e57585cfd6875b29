//! The control stream: questions and answers between two connected nodes.
//!
//! An inventory is a log of changes compacted to the newest one per subject. Asking for everything and asking
//! for what is new are then the same question with another starting point.

use serde::{Deserialize, Serialize};

use crate::{ContentId, TagRef};

/// Largest control request, in bytes.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4 << 10;
/// Largest control response, in bytes.
pub const CONTROL_RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Most changes in one page of inventory. With the longest names a page stays under the response limit.
pub const CHANGES_PER_PAGE_MAX: usize = 256;

/// A place in a node's inventory log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPosition {
    /// Drawn at random at each start of the node: positions of different epochs cannot be compared.
    pub epoch: u64,
    /// Number of changes in this epoch so far.
    pub seq: u64,
}

/// One change of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Number of this change in the node's log, from 1. Numbers of compacted changes are skipped.
    pub seq: u64,
    /// What is so now.
    pub entry: Entry,
}

/// One fact of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// I hold this blob, whole and verified.
    Held {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
    },
    /// I no longer hold it.
    Gone {
        /// The blob.
        content: ContentId,
    },
    /// I know what a tag stands for.
    Bound(Binding),
}

/// What a tag stood for when somebody asked its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The tag.
    pub reference: TagRef,
    /// The manifest or index that it stood for.
    pub content: ContentId,
    /// When the origin said so, in seconds since the Unix epoch by the asking node's clock.
    pub observed_unix_s: u64,
}

/// How a node is, in a few bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Where its inventory stands.
    pub position: InventoryPosition,
    /// Whether any origin answered it recently; `None` if it has not asked.
    pub origin_reachable: Option<bool>,
    /// OCI platform, such as `linux/arm64/v8`; at most 64 bytes.
    pub platform: String,
}

/// First thing said on a connection, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// TCP port of the bulk exchange, at the address that the connection came from.
    pub bulk_port: u16,
    /// Program version, for people; at most 64 bytes.
    pub version: String,
    /// How the node is.
    pub summary: Summary,
}

/// A question to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Here I am; and you?
    Hello(Hello),
    /// What changed in your inventory after this sequence number of this epoch? Another epoch: everything.
    Inventory {
        /// The last position that the asking node has applied.
        since: InventoryPosition,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlResponse {
    /// To [`ControlRequest::Hello`].
    Hello(Hello),
    /// To [`ControlRequest::Inventory`].
    Inventory(InventoryPage),
}

/// A page of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPage {
    /// Whether the changes start from nothing: what was known of this node before must be forgotten.
    pub from_start: bool,
    /// The changes, by ascending number.
    pub changes: Vec<Change>,
    /// The position reached with this page.
    pub position: InventoryPosition,
    /// Whether there are more.
    pub more: bool,
}
