//! What the types of a message cannot say of its values: the limits that both ends keep to.
//!
//! Invariant: a message is encoded only within these limits and decoded only within them, so that what one node
//! sends no other node refuses, and nothing past the codec needs to think about an absurd value.

use thiserror::Error;

use super::control::{Change, Entry, LABEL_BYTES_MAX};
use crate::{
    PieceHashes, PieceIndex, PieceLayout, PieceSet,
    piece::{BLOB_SIZE_MAX, PIECES_MAX},
};

/// Which limit a message breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitError {
    /// More changes than one message carries.
    #[error("{found} changes, one message carries {max} at most")]
    TooManyChanges {
        /// Changes given.
        found: usize,
        /// Most changes allowed.
        max: usize,
    },
    /// A change that is not newer than the one before it, or than the position that the message starts from.
    #[error("change {seq} follows after {after}: changes are numbered upwards")]
    NotAscending {
        /// Number of the change.
        seq: u64,
        /// The number that it should be above.
        after: u64,
    },
    /// A change that is newer than the position that the page reaches.
    #[error("change {seq} is beyond {position}, the position that its page reaches")]
    BeyondPosition {
        /// Number of the change.
        seq: u64,
        /// Number that the page reaches.
        position: u64,
    },
    /// A page that promises more without a change of its own: asking again would never end.
    #[error("a page without changes promises more")]
    EmptyPage,
    /// A blob above [`BLOB_SIZE_MAX`].
    #[error("a blob of {0} bytes is over the limit of {BLOB_SIZE_MAX}")]
    BlobTooLarge(u64),
    /// A set over more pieces than a blob can have.
    #[error("a set over {0} pieces, a blob has {PIECES_MAX} at most")]
    TooManyPieces(u32),
    /// A set over another number of pieces than a blob of its size has.
    #[error("a set over {found} pieces, a blob of {size} bytes has another number")]
    OtherPieces {
        /// The blob's size in bytes.
        size: u64,
        /// Pieces that the set is over.
        found: u32,
    },
    /// No hash, more of them than one message carries, or of pieces that the blob does not have.
    #[error("{found} hashes from piece {first} on: there are 1 to {max} of pieces that the blob has")]
    Hashes {
        /// The first piece.
        first: PieceIndex,
        /// Hashes given.
        found: usize,
        /// Most hashes allowed.
        max: usize,
    },
    /// A list above its limit.
    #[error("{found} {field}, the limit is {max}")]
    TooMany {
        /// What it lists.
        field: &'static str,
        /// How many.
        found: usize,
        /// Most allowed.
        max: usize,
    },
    /// A label above [`LABEL_BYTES_MAX`].
    #[error("the {field} has {found} bytes, the limit is {LABEL_BYTES_MAX}")]
    LabelTooLong {
        /// Which label.
        field: &'static str,
        /// Its length in bytes.
        found: usize,
    },
    /// A label with something else than printable ASCII.
    #[error("the {field} has characters that are not printable ASCII")]
    LabelNotPrintable {
        /// Which label.
        field: &'static str,
    },
}

/// Checks a list of changes that starts after the change numbered `after`.
pub(super) fn check_changes(changes: &[Change], max: usize, mut after: u64) -> Result<(), LimitError> {
    if changes.len() > max {
        return Err(LimitError::TooManyChanges { found: changes.len(), max });
    }
    for &Change { seq, ref entry } in changes {
        if seq <= after {
            return Err(LimitError::NotAscending { seq, after });
        }
        after = seq;
        match *entry {
            Entry::Held { size, .. } if size > BLOB_SIZE_MAX => return Err(LimitError::BlobTooLarge(size)),
            Entry::Following(ref following) => following.check()?,
            Entry::Held { .. } | Entry::Gone { .. } | Entry::Bound(_) => {}
        }
    }
    Ok(())
}

/// Checks that a set is over the pieces of a blob of this size.
pub(super) fn check_set(size: u64, set: &PieceSet) -> Result<(), LimitError> {
    let layout = PieceLayout::for_size(size).ok_or(LimitError::BlobTooLarge(size))?;
    if layout.count() == set.pieces() { Ok(()) } else { Err(LimitError::OtherPieces { size, found: set.pieces() }) }
}

/// Checks that there are at most `max` hashes, of pieces that a blob of this size has.
pub(super) fn check_hashes(size: u64, first: PieceIndex, hashes: &PieceHashes, max: usize) -> Result<(), LimitError> {
    let layout = PieceLayout::for_size(size).ok_or(LimitError::BlobTooLarge(size))?;
    let (found, left) = (hashes.0.len(), layout.count().saturating_sub(first) as usize);
    if found == 0 || found > max || found > left {
        return Err(LimitError::Hashes { first, found, max });
    }
    Ok(())
}

/// Checks a text that is shown to people: short, and nothing in it that could steer a terminal or forge a log line.
pub(super) fn check_label(field: &'static str, text: &str) -> Result<(), LimitError> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(LimitError::LabelTooLong { field, found: text.len() });
    }
    if !text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(LimitError::LabelNotPrintable { field });
    }
    Ok(())
}
