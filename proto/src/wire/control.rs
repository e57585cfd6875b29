//! The control stream: questions and answers between two connected nodes.
//!
//! An inventory is a log of changes compacted to the newest one per subject. Asking for everything and asking
//! for what is new are then the same question with another starting point.

use serde::{Deserialize, Serialize};

use super::{
    announcement::Stripe,
    codec::Message,
    limits::{LimitError, check_changes, check_hashes, check_label},
    release::Following,
    scan::Bounds,
};
use crate::{ContentId, NodeId, PieceHashes, PieceIndex, TagRef};

/// Largest control request, in bytes.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4 << 10;
/// Largest control response, in bytes.
pub const CONTROL_RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Most changes in one page of inventory. With the longest names a page stays under the response limit.
pub const CHANGES_PER_PAGE_MAX: usize = 256;
/// Most runs of pieces in one answer about hashes.
pub const VOUCHES_PER_PAGE_MAX: usize = 256;
/// Most hashes in one answer: a blob of 4 GiB at once, in half of the response limit.
pub const HASHES_PER_PAGE_MAX: usize = 4096;
/// Longest text that a node says of itself for people to read, in bytes of printable ASCII.
pub const LABEL_BYTES_MAX: usize = 64;
/// Most fields of one struct of a request, which has no lists.
const FIELDS_MAX: usize = 8;

/// A place in a node's inventory log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPosition {
    /// Drawn at random at each start of the node: positions of different epochs cannot be compared.
    #[serde(rename = "e")]
    pub epoch: u64,
    /// Number of changes in this epoch so far.
    #[serde(rename = "s")]
    pub seq: u64,
}

/// One change of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Number of this change in the node's log, from 1. Numbers of compacted changes are skipped.
    #[serde(rename = "s")]
    pub seq: u64,
    /// What is so now.
    #[serde(rename = "e")]
    pub entry: Entry,
}

/// One fact of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// I hold this blob, whole and verified.
    #[serde(rename = "h")]
    Held {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// Its size in bytes.
        #[serde(rename = "s")]
        size: u64,
    },
    /// I no longer hold it.
    #[serde(rename = "g")]
    Gone {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
    },
    /// I know what a tag stands for.
    #[serde(rename = "b")]
    Bound(Binding),
    /// I follow signed releases.
    #[serde(rename = "f")]
    Following(Following),
}

/// What a tag stood for when somebody asked its origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The tag.
    #[serde(rename = "r")]
    pub reference: TagRef,
    /// The manifest or index that it stood for.
    #[serde(rename = "c")]
    pub content: ContentId,
    /// When the origin said so, in seconds since the Unix epoch by the asking node's clock; 0 if that was not set.
    #[serde(rename = "t")]
    pub observed_unix_s: u64,
    /// How long ago that was when this was said, in milliseconds, if everybody that it passed through has run since.
    #[serde(rename = "a")]
    pub age_ms: Option<u64>,
    /// Who asked the origin, if it was not the one who says so.
    #[serde(rename = "b")]
    pub by: Option<NodeId>,
}

/// A word on a tag, between a node that wants to know and the tag's keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagWord {
    /// The origin said this a moment ago.
    #[serde(rename = "b")]
    Bound(Binding),
    /// Ask the origin yourself; from who may: what it said to me it need not say to others.
    #[serde(rename = "a")]
    Ask,
    /// Somebody asks the origin. Ask me again.
    #[serde(rename = "w")]
    Wait,
    /// The origin did not answer.
    #[serde(rename = "o")]
    Away,
}

/// How a node is, in a few bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Where its inventory stands.
    #[serde(rename = "p")]
    pub position: InventoryPosition,
    /// Whether any origin answered it recently; `None` if it has not asked.
    #[serde(rename = "o")]
    pub origin_reachable: Option<bool>,
    /// OCI platform, such as `linux/arm64/v8`; at most [`LABEL_BYTES_MAX`].
    #[serde(rename = "a")]
    pub platform: String,
}

/// First thing said on a connection, both ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// TCP port of the bulk exchange, at the address that the connection came from.
    #[serde(rename = "b")]
    pub bulk_port: u16,
    /// Program version, for people; at most [`LABEL_BYTES_MAX`].
    #[serde(rename = "v")]
    pub version: String,
    /// How the node is.
    #[serde(rename = "s")]
    pub summary: Summary,
}

/// A question to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Here I am; and you?
    #[serde(rename = "h")]
    Hello(Hello),
    /// What changed in your inventory after this sequence number of this epoch? Another epoch: everything.
    #[serde(rename = "i")]
    Inventory {
        /// The last position that the asking node has applied.
        #[serde(rename = "s")]
        since: InventoryPosition,
    },
    /// Which hashes have the pieces from this one on that you have of a blob which you have not all of?
    #[serde(rename = "v")]
    Vouches {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// The first piece.
        #[serde(rename = "f")]
        first: PieceIndex,
    },
    /// I would fetch this from the origin. Does anybody else? You are the blob's keeper as far as I know.
    #[serde(rename = "c")]
    Claim {
        /// The blob.
        #[serde(rename = "c")]
        content: ContentId,
        /// What would be claimed.
        #[serde(rename = "s")]
        stripe: Stripe,
    },
    /// What does this tag stand for? You are its keeper as far as I know.
    #[serde(rename = "t")]
    Tag {
        /// The tag.
        #[serde(rename = "r")]
        reference: TagRef,
    },
    /// I asked the origin, as you said that I may.
    #[serde(rename = "o")]
    TagSaid {
        /// The tag.
        #[serde(rename = "r")]
        reference: TagRef,
        /// What it said.
        #[serde(rename = "w")]
        word: TagWord,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlResponse {
    /// To [`ControlRequest::Hello`].
    #[serde(rename = "h")]
    Hello(Hello),
    /// To [`ControlRequest::Inventory`].
    #[serde(rename = "i")]
    Inventory(InventoryPage),
    /// To [`ControlRequest::Vouches`].
    #[serde(rename = "v")]
    Vouches(Vouches),
    /// To [`ControlRequest::Claim`].
    #[serde(rename = "c")]
    Claim {
        /// Nobody else has or fetches what the stripe begins with, as far as I know.
        #[serde(rename = "f")]
        free: bool,
    },
    /// To [`ControlRequest::Tag`].
    #[serde(rename = "t")]
    Tag(TagWord),
    /// To [`ControlRequest::TagSaid`].
    #[serde(rename = "n")]
    Noted,
}

/// Hashes of pieces of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouches {
    /// The blob's size in bytes; 0 if the node has nothing of it.
    #[serde(rename = "s")]
    pub size: u64,
    /// Runs of pieces, at most [`VOUCHES_PER_PAGE_MAX`] with [`HASHES_PER_PAGE_MAX`] hashes in all.
    #[serde(rename = "r")]
    pub runs: Vec<VouchedRun>,
}

/// Hashes of consecutive pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VouchedRun {
    /// The first piece.
    #[serde(rename = "f")]
    pub first: PieceIndex,
    /// The hashes.
    #[serde(rename = "h")]
    pub hashes: PieceHashes,
    /// The node took the pieces from the origin itself. Of others it says what it was told.
    #[serde(rename = "o")]
    pub own: bool,
}

/// A page of an inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPage {
    /// Whether the changes start from nothing: what was known of this node before must be forgotten.
    #[serde(rename = "f")]
    pub from_start: bool,
    /// The changes, by ascending number.
    #[serde(rename = "c")]
    pub changes: Vec<Change>,
    /// The position reached with this page.
    #[serde(rename = "p")]
    pub position: InventoryPosition,
    /// Whether there are more.
    #[serde(rename = "m")]
    pub more: bool,
}

impl Summary {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        check_label("platform", &self.platform)
    }
}

impl Hello {
    fn check(&self) -> Result<(), LimitError> {
        check_label("version", &self.version)?;
        self.summary.check()
    }
}

impl InventoryPage {
    fn check(&self) -> Result<(), LimitError> {
        check_changes(&self.changes, CHANGES_PER_PAGE_MAX, 0)?;
        let position = self.position.seq;
        match self.changes.last() {
            Some(&Change { seq, .. }) if seq > position => Err(LimitError::BeyondPosition { seq, position }),
            None if self.more => Err(LimitError::EmptyPage),
            Some(_) | None => Ok(()),
        }
    }
}

impl Vouches {
    fn check(&self) -> Result<(), LimitError> {
        let mut left = HASHES_PER_PAGE_MAX;
        for run in &self.runs {
            check_hashes(self.size, run.first, &run.hashes, left)?;
            left -= run.hashes.0.len();
        }
        Ok(())
    }
}

impl Message for ControlRequest {
    const BOUNDS: Bounds = Bounds { bytes_max: CONTROL_REQUEST_BYTES_MAX, entries_max: FIELDS_MAX };

    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Inventory { .. }
            | Self::Vouches { .. }
            | Self::Claim { .. }
            | Self::Tag { .. }
            | Self::TagSaid { .. } => Ok(()),
        }
    }
}

impl Message for ControlResponse {
    const BOUNDS: Bounds = Bounds { bytes_max: CONTROL_RESPONSE_BYTES_MAX, entries_max: CHANGES_PER_PAGE_MAX };

    fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Hello(hello) => hello.check(),
            Self::Inventory(page) => page.check(),
            Self::Vouches(vouches) => vouches.check(),
            Self::Claim { .. } | Self::Tag(_) | Self::Noted => Ok(()),
        }
    }
}
