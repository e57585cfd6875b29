//! What must hold of a fleet's records, whatever they are.

use layermesh_proto::{NodeId, wire::fleet::Credential};
use libp2p::identity::Keypair;

use super::{
    files::{parse_credential, parse_revocations, show_credential, show_revocations},
    record::{Statement, open, prove, sign, to_bytes},
};
use layermesh_proto::wire::fleet::{Enrolment, Membership, Revocation};

fn key() -> Keypair {
    Keypair::ed25519_from_bytes([7; 32]).expect("a key of 32 bytes")
}

/// Bytes that nobody signed prove nothing; and signed ones are a statement only if they are its one encoding.
///
/// # Panics
/// If that does not hold.
pub fn record(bytes: &[u8]) {
    opened::<Membership>(bytes);
    opened::<Enrolment>(bytes);
    opened::<Revocation>(bytes);
    // A credential from the wire: nobody has the keys that these bytes name.
    let peer = NodeId::from_public_key([9; 32]);
    assert!(prove(bytes, peer).is_err());
    let wrapped = Credential { membership: bytes.to_vec(), enrolment: Some(bytes.to_vec().into()) };
    assert!(to_bytes(&wrapped).is_err() || prove(&to_bytes(&wrapped).unwrap_or_default(), peer).is_err());
}

fn opened<S: Statement>(payload: &[u8]) {
    let Ok(statement) = S::decode(payload) else { return };
    let record = sign(&key(), &statement).expect("what was decoded can be signed");
    let (again, _) = open::<S>(&record).expect("what was signed is opened");
    assert_eq!(again.encode().as_deref(), Ok(payload));
    let last = record.len() - 1;
    let changed: Vec<u8> =
        record.iter().enumerate().map(|(at, byte)| if at == last { byte ^ 1 } else { *byte }).collect();
    assert!(open::<S>(&changed).is_err());
}

/// Any file is a membership or revocations, or neither, and comes back as it is written.
///
/// # Panics
/// If that does not hold.
pub fn file(bytes: &[u8]) {
    if let Some(credential) = parse_credential(bytes) {
        assert_eq!(parse_credential(show_credential(&credential).as_bytes()), Some(credential));
    }
    if let Some(records) = parse_revocations(bytes) {
        let shown = show_revocations(records.iter().map(Vec::as_slice));
        assert_eq!(parse_revocations(shown.as_bytes()), Some(records));
    }
}
