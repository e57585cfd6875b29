//! What a fleet's authority says of who belongs to it, and how nodes pass that on.
//!
//! The three statements are payloads: whoever signs them puts each into an envelope of its own, a *record*, and a
//! payload by itself proves nothing. Records travel as bytes, so that what is passed on is what was signed.

use serde::{Deserialize, Serialize};

use super::limits::LimitError;
use crate::NodeId;

/// Longest encoded statement, in bytes: the longest there is has under 100.
pub const STATEMENT_BYTES_MAX: usize = 256;
/// Longest record, in bytes: a statement, and 150 for the key, the type, the signature and their framing.
pub const RECORD_BYTES_MAX: usize = 512;
/// Longest credential, in bytes: two records and their framing.
pub const CREDENTIAL_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX + 16;
/// Revocations in one message: a fleet has fewer as a rule, and a page of the longest has 50 KiB.
pub const REVOCATIONS_PER_MESSAGE_MAX: usize = 100;
/// Longest message about revocations, in bytes.
pub const FLEET_MESSAGE_BYTES_MAX: usize = REVOCATIONS_PER_MESSAGE_MAX * (RECORD_BYTES_MAX + 4) + 128;

/// A device belongs to a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The fleet's authority.
    #[serde(rename = "a")]
    pub authority: NodeId,
    /// The device.
    #[serde(rename = "p")]
    pub peer: NodeId,
    /// When this was signed, in seconds since the Unix epoch, by the clock of whoever signed it.
    #[serde(rename = "i")]
    pub issued_unix_s: u64,
    /// Until when it holds, in seconds since the Unix epoch; without it, until it is revoked.
    #[serde(rename = "e")]
    pub expires_unix_s: Option<u64>,
}

/// A key may admit devices to a fleet for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The fleet's authority.
    #[serde(rename = "a")]
    pub authority: NodeId,
    /// The key's public half.
    #[serde(rename = "k")]
    pub key: NodeId,
    /// When this was signed, in seconds since the Unix epoch.
    #[serde(rename = "i")]
    pub issued_unix_s: u64,
    /// Until when it holds, and with it every membership that the key signed.
    #[serde(rename = "e")]
    pub expires_unix_s: u64,
}

/// A device, or an enrolment key with all devices that it admitted, does not belong to a fleet any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The fleet's authority.
    #[serde(rename = "a")]
    pub authority: NodeId,
    /// The device, or the enrolment key's public half.
    #[serde(rename = "s")]
    pub subject: NodeId,
    /// When this was signed, in seconds since the Unix epoch.
    #[serde(rename = "w")]
    pub when_unix_s: u64,
}

/// What a node shows of itself: the record of its membership, and that of the enrolment key which signed it, if one did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Record of a [`Membership`].
    #[serde(rename = "m", with = "serde_bytes")]
    pub membership: Vec<u8>,
    /// Record of an [`Enrolment`].
    #[serde(rename = "e")]
    pub enrolment: Option<serde_bytes::ByteBuf>,
}

/// What a node says to a connected one about revocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FleetRequest {
    /// Which revocations do you know? Answered with some, or with none if they are the same.
    #[serde(rename = "s")]
    Sync {
        /// BLAKE3 hash over the revocations that the asker knows.
        #[serde(rename = "h", with = "serde_bytes")]
        known: [u8; 32],
        /// Where to go on: the last one of the page before, as subject and authority.
        #[serde(rename = "f")]
        after: Option<(NodeId, NodeId)>,
    },
    /// These have just come up; at most [`REVOCATIONS_PER_MESSAGE_MAX`]. Answered with none.
    #[serde(rename = "n")]
    News {
        /// Records of [`Revocation`]s.
        #[serde(rename = "r")]
        records: Vec<serde_bytes::ByteBuf>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetResponse {
    /// Records of [`Revocation`]s, in order of subject and authority; at most [`REVOCATIONS_PER_MESSAGE_MAX`].
    #[serde(rename = "r")]
    pub records: Vec<serde_bytes::ByteBuf>,
    /// Whether there are more after the last of these.
    #[serde(rename = "m")]
    pub more: bool,
}

fn check_record(record: &[u8]) -> Result<(), LimitError> {
    let found = record.len();
    if found > RECORD_BYTES_MAX {
        return Err(LimitError::TooMany { field: "bytes of a record", found, max: RECORD_BYTES_MAX });
    }
    Ok(())
}

fn check_records(records: &[serde_bytes::ByteBuf]) -> Result<(), LimitError> {
    let (found, max) = (records.len(), REVOCATIONS_PER_MESSAGE_MAX);
    if found > max {
        return Err(LimitError::TooMany { field: "revocations", found, max });
    }
    records.iter().try_for_each(|record| check_record(record))
}

impl Credential {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        check_record(&self.membership)?;
        self.enrolment.as_ref().map_or(Ok(()), |record| check_record(record))
    }
}

impl FleetRequest {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        match self {
            Self::Sync { .. } => Ok(()),
            Self::News { records } => check_records(records),
        }
    }
}

impl FleetResponse {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        check_records(&self.records)
    }
}
