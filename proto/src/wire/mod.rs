//! What nodes say to each other, one file per conversation.
//!
//! Invariant: every message has a size limit that is checked before it is decoded, and a value that decodes is
//! within the limits of its parts. Nothing here decides anything.

pub mod announcement;
pub mod codec;
pub mod control;
pub mod fleet;
mod limits;
pub mod neighbourhood;
pub mod release;
mod scan;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod tests;

/// Version of the wire protocol. Nodes of another version are not talked to; it is part of every protocol name.
pub const PROTOCOL_VERSION: u32 = 8;

pub use announcement::{
    ANNOUNCEMENT_BYTES_MAX, Announcement, Claim, HASHES_PER_ANNOUNCEMENT_MAX, Having, Part, Stripe,
};
pub use codec::{DecodeError, EncodeError};
pub use control::{
    Binding, Change, ControlRequest, ControlResponse, Entry, HASHES_PER_PAGE_MAX, Hello, InventoryPage,
    InventoryPosition, Summary, TagWord, VOUCHES_PER_PAGE_MAX, VouchedRun, Vouches,
};
pub use limits::LimitError;
pub use release::{FOLLOWED_CHANNELS_MAX, FOLLOWED_PLATFORMS_MAX, Following, PROGRESS_MAX, Progress, Rollout};
pub use scan::ScanError;
