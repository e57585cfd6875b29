//! CBOR, in one place.
//!
//! Invariant: this is the only file that names `serde_cbor`. That crate no longer has a maintainer
//! (RUSTSEC-2021-0127), so it only ever sees input that the scanner has looked over: bounded in bytes, nesting and
//! declared lengths, and free of every kind of item that messages do not use.
//!
//! **Form.** Structs and variants are CBOR maps with text keys of one letter, given beside each field. A held blob
//! takes about 60 bytes, of which 38 are its content id; spelled-out keys would make it 77, and announcements cross
//! narrow links. The packed format of `serde_cbor` (numbers of fields for keys) would save 5 more, but it numbers some
//! variants and names others, and it lets a field that moves in the source change the meaning of bytes without a word.
//!
//! **One value, one encoding.** Decoding encodes the value again and refuses the bytes unless they are the same. So a
//! longer form of a number or length, keys out of order or repeated, a struct written as an array, and fields or
//! variants that this version does not know are all refused.
//!
//! **Compatibility** is by [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION), not by ignoring: every change of a message is
//! a new version with protocol names of its own, and a node that should talk to older ones offers both names. A field
//! that one node acts on and another silently drops is how a fleet in the middle of an update comes to disagree.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::{
    announcement::Announcement,
    control::{ControlRequest, ControlResponse},
    fleet::{
        CREDENTIAL_BYTES_MAX, Credential, Enrolment, FLEET_MESSAGE_BYTES_MAX, FleetRequest, FleetResponse, Membership,
        REVOCATIONS_PER_MESSAGE_MAX, Revocation, STATEMENT_BYTES_MAX,
    },
    limits::LimitError,
    scan::{Bounds, ScanError, scan},
};
use crate::{PieceSet, piece::PIECES_MAX};

/// Largest encoded piece set, in bytes: a bit a piece, and the heads of an array, a number and a byte string.
const PIECE_SET_BYTES_MAX: usize = PIECES_MAX.div_ceil(8) as usize + 16;
/// Longest excerpt of a decoder's complaint, in characters: it can quote what a peer sent.
const COMPLAINT_CHARS_MAX: usize = 200;

/// A value with a wire form, and the limits of both.
pub(super) trait Message: Serialize + DeserializeOwned {
    /// Most bytes and entries of an encoded message.
    const BOUNDS: Bounds;

    /// Checks the limits that the types do not express.
    fn check(&self) -> Result<(), LimitError>;
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Not CBOR of a message's size and shape; nothing was decoded.
    #[error("not a message: {0}")]
    Scan(#[from] ScanError),
    /// CBOR, but not of this message. The text is escaped and shortened, since it can quote the sender.
    #[error("not this kind of message: {0}")]
    Mismatch(String),
    /// A message with a value outside its limits.
    #[error("outside the protocol's limits: {0}")]
    Limit(#[from] LimitError),
    /// Fewer bytes than stand before every announcement in gossip.
    #[error("too short for gossip: no neighbourhood before the announcement")]
    NoNeighbourhood,
    /// A message that this version would have written otherwise.
    #[error("not the one encoding of its value, or from another version of the protocol")]
    NotCanonical,
}

/// Why a message cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A value outside its limits, which every receiver would refuse.
    #[error("outside the protocol's limits: {0}")]
    Limit(#[from] LimitError),
    /// More bytes than a message of the kind may have.
    #[error("{found} bytes, the limit is {max}")]
    TooLong {
        /// Bytes of the message.
        found: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// A value that has no CBOR form.
    #[error("no CBOR form: {0}")]
    Unrepresentable(String),
}

/// The bytes of an announcement.
///
/// # Errors
/// If it is outside the limits of [`Announcement`].
pub fn encode_announcement(announcement: &Announcement) -> Result<Vec<u8>, EncodeError> {
    encode(announcement)
}

/// An announcement from its bytes.
///
/// # Errors
/// If they are not the one encoding of an announcement within its limits.
pub fn decode_announcement(bytes: &[u8]) -> Result<Announcement, DecodeError> {
    decode(bytes)
}

/// The bytes of a control request.
///
/// # Errors
/// If it is outside the limits of [`ControlRequest`].
pub fn encode_control_request(request: &ControlRequest) -> Result<Vec<u8>, EncodeError> {
    encode(request)
}

/// A control request from its bytes.
///
/// # Errors
/// If they are not the one encoding of a request within its limits.
pub fn decode_control_request(bytes: &[u8]) -> Result<ControlRequest, DecodeError> {
    decode(bytes)
}

/// The bytes of a control response.
///
/// # Errors
/// If it is outside the limits of [`ControlResponse`].
pub fn encode_control_response(response: &ControlResponse) -> Result<Vec<u8>, EncodeError> {
    encode(response)
}

/// A control response from its bytes.
///
/// # Errors
/// If they are not the one encoding of a response within its limits.
pub fn decode_control_response(bytes: &[u8]) -> Result<ControlResponse, DecodeError> {
    decode(bytes)
}

/// The bytes of a membership.
///
/// # Errors
/// If it is outside the limits of [`Membership`].
pub fn encode_membership(membership: &Membership) -> Result<Vec<u8>, EncodeError> {
    encode(membership)
}

/// A membership from its bytes.
///
/// # Errors
/// If they are not the one encoding of a membership within its limits.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, DecodeError> {
    decode(bytes)
}

/// The bytes of an enrolment.
///
/// # Errors
/// If it is outside the limits of [`Enrolment`].
pub fn encode_enrolment(enrolment: &Enrolment) -> Result<Vec<u8>, EncodeError> {
    encode(enrolment)
}

/// An enrolment from its bytes.
///
/// # Errors
/// If they are not the one encoding of an enrolment within its limits.
pub fn decode_enrolment(bytes: &[u8]) -> Result<Enrolment, DecodeError> {
    decode(bytes)
}

/// The bytes of a revocation.
///
/// # Errors
/// If it is outside the limits of [`Revocation`].
pub fn encode_revocation(revocation: &Revocation) -> Result<Vec<u8>, EncodeError> {
    encode(revocation)
}

/// A revocation from its bytes.
///
/// # Errors
/// If they are not the one encoding of a revocation within its limits.
pub fn decode_revocation(bytes: &[u8]) -> Result<Revocation, DecodeError> {
    decode(bytes)
}

/// The bytes of a credential.
///
/// # Errors
/// If it is outside the limits of [`Credential`].
pub fn encode_credential(credential: &Credential) -> Result<Vec<u8>, EncodeError> {
    encode(credential)
}

/// A credential from its bytes.
///
/// # Errors
/// If they are not the one encoding of a credential within its limits.
pub fn decode_credential(bytes: &[u8]) -> Result<Credential, DecodeError> {
    decode(bytes)
}

/// The bytes of a request about revocations.
///
/// # Errors
/// If it is outside the limits of [`FleetRequest`].
pub fn encode_fleet_request(request: &FleetRequest) -> Result<Vec<u8>, EncodeError> {
    encode(request)
}

/// A request about revocations from its bytes.
///
/// # Errors
/// If they are not the one encoding of a request about revocations within its limits.
pub fn decode_fleet_request(bytes: &[u8]) -> Result<FleetRequest, DecodeError> {
    decode(bytes)
}

/// The bytes of an answer about revocations.
///
/// # Errors
/// If it is outside the limits of [`FleetResponse`].
pub fn encode_fleet_response(response: &FleetResponse) -> Result<Vec<u8>, EncodeError> {
    encode(response)
}

/// An answer about revocations from its bytes.
///
/// # Errors
/// If they are not the one encoding of an answer about revocations within its limits.
pub fn decode_fleet_response(bytes: &[u8]) -> Result<FleetResponse, DecodeError> {
    decode(bytes)
}

/// The bytes of a piece set, for the record of a partial blob.
///
/// # Errors
/// If it has more pieces than a blob can have.
pub fn encode_piece_set(pieces: &PieceSet) -> Result<Vec<u8>, EncodeError> {
    encode(pieces)
}

/// A piece set from its bytes.
///
/// # Errors
/// If they are not the one encoding of a piece set.
pub fn decode_piece_set(bytes: &[u8]) -> Result<PieceSet, DecodeError> {
    decode(bytes)
}

/// A statement has four fields at most.
const STATEMENT_BOUNDS: Bounds = Bounds { bytes_max: STATEMENT_BYTES_MAX, entries_max: 4 };

impl Message for Membership {
    const BOUNDS: Bounds = STATEMENT_BOUNDS;

    fn check(&self) -> Result<(), LimitError> {
        Ok(())
    }
}

impl Message for Enrolment {
    const BOUNDS: Bounds = STATEMENT_BOUNDS;

    fn check(&self) -> Result<(), LimitError> {
        Ok(())
    }
}

impl Message for Revocation {
    const BOUNDS: Bounds = STATEMENT_BOUNDS;

    fn check(&self) -> Result<(), LimitError> {
        Ok(())
    }
}

impl Message for Credential {
    const BOUNDS: Bounds = Bounds { bytes_max: CREDENTIAL_BYTES_MAX, entries_max: 2 };

    fn check(&self) -> Result<(), LimitError> {
        Self::check(self)
    }
}

impl Message for FleetRequest {
    const BOUNDS: Bounds = Bounds { bytes_max: FLEET_MESSAGE_BYTES_MAX, entries_max: REVOCATIONS_PER_MESSAGE_MAX };

    fn check(&self) -> Result<(), LimitError> {
        Self::check(self)
    }
}

impl Message for FleetResponse {
    const BOUNDS: Bounds = Bounds { bytes_max: FLEET_MESSAGE_BYTES_MAX, entries_max: REVOCATIONS_PER_MESSAGE_MAX };

    fn check(&self) -> Result<(), LimitError> {
        Self::check(self)
    }
}

impl Message for PieceSet {
    const BOUNDS: Bounds = Bounds { bytes_max: PIECE_SET_BYTES_MAX, entries_max: 2 };

    fn check(&self) -> Result<(), LimitError> {
        if self.pieces() > PIECES_MAX { Err(LimitError::TooManyPieces(self.pieces())) } else { Ok(()) }
    }
}

fn encode<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    message.check()?;
    let bytes = encode_unchecked(message)?;
    let max = M::BOUNDS.bytes_max;
    if bytes.len() > max { Err(EncodeError::TooLong { found: bytes.len(), max }) } else { Ok(bytes) }
}

/// The bytes of a value, whether or not it is within its limits.
pub(super) fn encode_unchecked(value: &impl Serialize) -> Result<Vec<u8>, EncodeError> {
    serde_cbor::to_vec(value).map_err(|error| EncodeError::Unrepresentable(complaint(&error.to_string())))
}

fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    scan(bytes, M::BOUNDS)?;
    let mut decoder = serde_cbor::Deserializer::from_slice(bytes).disable_packed_format().disable_legacy_enums();
    let message = M::deserialize(&mut decoder).map_err(|error| DecodeError::Mismatch(complaint(&error.to_string())))?;
    message.check()?;
    if encode(&message).is_ok_and(|again| again == bytes) { Ok(message) } else { Err(DecodeError::NotCanonical) }
}

fn complaint(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).take(COMPLAINT_CHARS_MAX).collect()
}
