//! Records: statements of a fleet's authority in libp2p's signed envelopes (RFC 0002).
//!
//! Invariant: what [`open`] returns was signed by the key that it names, in the one encoding that there is of it; any
//! other bytes are refused. Whether that key may say so is for [`super::roster`] to judge, but for the chain from an
//! authority over an enrolment key to a membership, which is checked here. Nothing here knows the time or does IO.

use layermesh_proto::{
    NodeId,
    wire::{
        DecodeError, EncodeError,
        codec::{
            decode_credential, decode_enrolment, decode_membership, decode_revocation, encode_credential,
            encode_enrolment, encode_membership, encode_revocation,
        },
        fleet::{Credential, Enrolment, Membership, RECORD_BYTES_MAX, Revocation},
    },
};
use libp2p::{core::SignedEnvelope, identity::Keypair};
use thiserror::Error;

use super::Refusal;
use crate::identity;

/// Keeps these signatures apart from all others that the same key makes.
const DOMAIN: &str = "layermesh-fleet";

/// A statement that can be in a record.
pub trait Statement: Sized {
    /// What the envelope says that it holds.
    const TYPE: &'static [u8];

    /// Its bytes.
    ///
    /// # Errors
    /// If it is outside its limits.
    fn encode(&self) -> Result<Vec<u8>, EncodeError>;

    /// A statement from its bytes.
    ///
    /// # Errors
    /// If they are not the one encoding of a statement of the kind.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

impl Statement for Membership {
    const TYPE: &'static [u8] = b"/layermesh/fleet/membership/1";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode_membership(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_membership(bytes)
    }
}

impl Statement for Enrolment {
    const TYPE: &'static [u8] = b"/layermesh/fleet/enrolment/1";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode_enrolment(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_enrolment(bytes)
    }
}

impl Statement for Revocation {
    const TYPE: &'static [u8] = b"/layermesh/fleet/revocation/1";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode_revocation(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_revocation(bytes)
    }
}

/// Why no record could be made.
#[derive(Debug, Error)]
pub enum SignError {
    /// The statement has no encoding.
    #[error(transparent)]
    Statement(#[from] EncodeError),
    /// The key cannot sign.
    #[error("the key cannot sign: {0}")]
    Key(String),
}

/// Why bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// More bytes than any record has.
    #[error("{0} bytes, a record has {RECORD_BYTES_MAX} at most")]
    TooLong(usize),
    /// Not an envelope, or one that is encoded in another way than it would be here.
    #[error("not a signed envelope")]
    Envelope,
    /// An envelope for something else, or with another signature than its key's.
    #[error("not signed, or signed as something else")]
    Signature,
    /// The key is not an Ed25519 key.
    #[error("signed by a key that is not an Ed25519 key")]
    Key,
    /// The statement makes no sense.
    #[error(transparent)]
    Statement(#[from] DecodeError),
}

/// Signs a statement.
///
/// # Errors
/// If it has no encoding or the key cannot sign.
pub fn sign<S: Statement>(key: &Keypair, statement: &S) -> Result<Vec<u8>, SignError> {
    let envelope = SignedEnvelope::new(key, DOMAIN.to_owned(), S::TYPE.to_vec(), statement.encode()?);
    Ok(envelope.map_err(|error| SignError::Key(error.to_string()))?.into_protobuf_encoding())
}

/// A record's statement, and who signed it.
///
/// # Errors
/// If the bytes are not the one encoding of a signed statement of the kind.
pub fn open<S: Statement>(bytes: &[u8]) -> Result<(S, NodeId), OpenError> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(OpenError::TooLong(bytes.len()));
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| OpenError::Envelope)?;
    // Protobuf has many encodings of one value, and lets unknown fields pass.
    if envelope.clone().into_protobuf_encoding() != bytes {
        return Err(OpenError::Envelope);
    }
    let opened = envelope.payload_and_signing_key(DOMAIN.to_owned(), S::TYPE);
    let (payload, key) = opened.map_err(|_| OpenError::Signature)?;
    let signer = key.clone().try_into_ed25519().map_err(|_| OpenError::Key)?;
    Ok((S::decode(payload)?, NodeId::from_public_key(signer.to_bytes())))
}

/// What a node shows of itself, signed by an authority.
///
/// # Errors
/// If the key cannot sign, or is not an Ed25519 key.
pub fn admit(
    authority: &Keypair,
    peer: NodeId,
    issued_unix_s: u64,
    expires_unix_s: Option<u64>,
) -> Result<Credential, SignError> {
    let membership = Membership { authority: public(authority)?, peer, issued_unix_s, expires_unix_s };
    Ok(Credential { membership: sign(authority, &membership)?, enrolment: None })
}

/// What a node shows of itself, signed by an enrolment key; it holds for as long as the key does.
///
/// # Errors
/// If `enrolment` is not a record of one, or of another key.
pub fn enrol(key: &Keypair, enrolment: &[u8], peer: NodeId, issued_unix_s: u64) -> Result<Credential, SignError> {
    let (of_key, _) = open::<Enrolment>(enrolment).map_err(|error| SignError::Key(error.to_string()))?;
    if of_key.key != public(key)? {
        return Err(SignError::Key("the enrolment is of another key".to_owned()));
    }
    let expires_unix_s = Some(of_key.expires_unix_s);
    let membership = Membership { authority: of_key.authority, peer, issued_unix_s, expires_unix_s };
    Ok(Credential { membership: sign(key, &membership)?, enrolment: Some(enrolment.to_vec().into()) })
}

/// A key's public half.
///
/// # Errors
/// If it is not an Ed25519 key.
pub fn public(key: &Keypair) -> Result<NodeId, SignError> {
    identity::node_id(key).ok_or_else(|| SignError::Key("it is not an Ed25519 key".to_owned()))
}

/// What a credential proves, as long as its authority is trusted, it has not expired and nothing of it is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proved {
    /// Who vouches for it in the end.
    pub authority: NodeId,
    /// Whose it is.
    pub peer: NodeId,
    /// When the membership was signed, as its signer says.
    pub issued_unix_s: u64,
    /// Until when it holds.
    pub expires_unix_s: Option<u64>,
    /// The enrolment key that signed it, if the authority itself did not.
    pub enrolled_by: Option<NodeId>,
    /// The newest time that the authority itself signed in it. An enrolment key's time stamps do not count: it lies on
    /// many devices, and one of the year 2100 would make the whole fleet expire.
    pub stamp_unix_s: u64,
}

/// Checks a credential's signatures from its authority down.
///
/// # Errors
/// If it proves nothing, or something of another peer.
pub fn prove(credential: &[u8], peer: NodeId) -> Result<Proved, Refusal> {
    let credential = decode_credential(credential).map_err(|_| Refusal::Malformed)?;
    let (membership, signer) = open::<Membership>(&credential.membership).map_err(refusal)?;
    if membership.peer != peer {
        return Err(Refusal::AnotherPeer);
    }
    let Membership { authority, issued_unix_s, expires_unix_s, .. } = membership;
    let proved = |enrolled_by, stamp_unix_s| Proved {
        authority,
        peer,
        issued_unix_s,
        expires_unix_s,
        enrolled_by,
        stamp_unix_s,
    };
    let Some(record) = credential.enrolment else {
        return if signer == authority { Ok(proved(None, issued_unix_s)) } else { Err(Refusal::Forged) };
    };
    let (enrolment, enroller) = open::<Enrolment>(&record).map_err(refusal)?;
    if enroller != enrolment.authority || enrolment.authority != authority || enrolment.key != signer {
        return Err(Refusal::Forged);
    }
    // A key that has expired could be used with any clock otherwise.
    if expires_unix_s.is_none_or(|expires| expires > enrolment.expires_unix_s) {
        return Err(Refusal::Forged);
    }
    Ok(proved(Some(signer), enrolment.issued_unix_s))
}

/// The bytes of a credential.
///
/// # Errors
/// If a record in it is too long.
pub fn to_bytes(credential: &Credential) -> Result<Vec<u8>, EncodeError> {
    encode_credential(credential)
}

fn refusal(error: OpenError) -> Refusal {
    match error {
        OpenError::Signature | OpenError::Key => Refusal::Forged,
        OpenError::TooLong(_) | OpenError::Envelope | OpenError::Statement(_) => Refusal::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    fn id(seed: u8) -> NodeId {
        public(&key(seed)).unwrap()
    }

    fn enrolment(authority: u8, of: u8, expires_unix_s: u64) -> Vec<u8> {
        let statement = Enrolment { authority: id(authority), key: id(of), issued_unix_s: 100, expires_unix_s };
        sign(&key(authority), &statement).unwrap()
    }

    #[test]
    fn an_authority_and_its_enrolment_key_prove_the_same_and_no_one_else_does() {
        let admitted = admit(&key(1), id(9), 1000, Some(2000)).unwrap();
        let proved = prove(&to_bytes(&admitted).unwrap(), id(9)).unwrap();
        assert_eq!((proved.authority, proved.peer, proved.expires_unix_s), (id(1), id(9), Some(2000)));
        assert_eq!((proved.enrolled_by, proved.stamp_unix_s), (None, 1000));
        assert_eq!(prove(&to_bytes(&admitted).unwrap(), id(8)), Err(Refusal::AnotherPeer));

        let enrolled = enrol(&key(2), &enrolment(1, 2, 5000), id(9), 9999).unwrap();
        let proved = prove(&to_bytes(&enrolled).unwrap(), id(9)).unwrap();
        assert_eq!((proved.authority, proved.expires_unix_s), (id(1), Some(5000)));
        assert_eq!((proved.enrolled_by, proved.stamp_unix_s), (Some(id(2)), 100), "the key's clock does not count");
        assert!(enrol(&key(3), &enrolment(1, 2, 5000), id(9), 0).is_err(), "another key's enrolment");
    }

    #[test]
    fn every_broken_chain_is_forged() {
        let of = |authority, expires_unix_s| Membership {
            authority: id(authority),
            peer: id(9),
            issued_unix_s: 0,
            expires_unix_s,
        };
        let shown = |membership: Vec<u8>, enrolment: Option<Vec<u8>>| {
            let credential = Credential { membership, enrolment: enrolment.map(Into::into) };
            prove(&to_bytes(&credential).unwrap(), id(9))
        };
        let signed = |by, membership: &Membership| sign(&key(by), membership).unwrap();
        // By somebody else; by an enrolment key without its enrolment; with that of another key or another authority.
        assert_eq!(shown(signed(3, &of(1, None)), None), Err(Refusal::Forged));
        assert_eq!(shown(signed(2, &of(1, Some(10))), None), Err(Refusal::Forged));
        assert_eq!(shown(signed(2, &of(1, Some(10))), Some(enrolment(1, 3, 10))), Err(Refusal::Forged));
        assert_eq!(shown(signed(2, &of(1, Some(10))), Some(enrolment(4, 2, 10))), Err(Refusal::Forged));
        let by_itself =
            sign(&key(2), &Enrolment { authority: id(1), key: id(2), issued_unix_s: 0, expires_unix_s: 10 });
        assert_eq!(shown(signed(2, &of(1, Some(10))), Some(by_itself.unwrap())), Err(Refusal::Forged));
        // Beyond the key's own end, or for ever.
        assert_eq!(shown(signed(2, &of(1, Some(11))), Some(enrolment(1, 2, 10))), Err(Refusal::Forged));
        assert_eq!(shown(signed(2, &of(1, None)), Some(enrolment(1, 2, 10))), Err(Refusal::Forged));
        assert!(shown(signed(2, &of(1, Some(10))), Some(enrolment(1, 2, 10))).is_ok());
        // A record of another kind in its place.
        assert_eq!(shown(enrolment(1, 2, 10), None), Err(Refusal::Forged));
    }

    #[test]
    fn the_longest_records_fit() {
        let (most, whom) = (u64::MAX, id(9));
        let longest = Membership { authority: id(1), peer: whom, issued_unix_s: most, expires_unix_s: Some(most) };
        assert!(sign(&key(1), &longest).unwrap().len() <= RECORD_BYTES_MAX);
        let enrolled = enrol(&key(2), &enrolment(1, 2, most), whom, most).unwrap();
        assert!(to_bytes(&enrolled).is_ok());
    }

    proptest! {
        #[test]
        fn records_survive(peer in any::<[u8; 32]>(), issued in any::<u64>(), expires in proptest::option::of(any::<u64>())) {
            let statement = Membership {
                authority: id(1),
                peer: NodeId::from_public_key(peer),
                issued_unix_s: issued,
                expires_unix_s: expires,
            };
            let bytes = sign(&key(1), &statement).unwrap();
            prop_assert_eq!(open::<Membership>(&bytes), Ok((statement, id(1))));
            prop_assert_eq!(open::<Revocation>(&bytes), Err(OpenError::Signature));
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(open::<Membership>(&bytes).is_err());
            prop_assert!(open::<Revocation>(&bytes).is_err());
            prop_assert!(prove(&bytes, id(9)).is_err());
        }

        #[test]
        fn a_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u32, enrolled in any::<bool>()) {
            let credential = if enrolled {
                enrol(&key(2), &enrolment(1, 2, 5000), id(9), 1).unwrap()
            } else {
                admit(&key(1), id(9), 1000, Some(2000)).unwrap()
            };
            let mut bytes = to_bytes(&credential).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(prove(&bytes, id(9)).is_err());
        }
    }

    /// Every bit of a record, and every prefix.
    #[test]
    fn any_changed_byte_is_refused() {
        let statement = Revocation { authority: id(1), subject: id(9), when_unix_s: 77 };
        let bytes = sign(&key(1), &statement).unwrap();
        for at in 0..bytes.len() {
            assert!(open::<Revocation>(&bytes[..at]).is_err());
            for xor in (0..8).map(|bit| 1 << bit).chain([u8::MAX]) {
                let mut changed = bytes.clone();
                changed[at] ^= xor;
                assert!(open::<Revocation>(&changed).is_err(), "{at} {xor}");
            }
        }
    }
}
