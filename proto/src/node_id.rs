//! Node ids: who says it.
//!
//! A node's identity is an Ed25519 key; its id is the public key, shown as the libp2p peer id that the rest of
//! the field knows (base58 of the identity multihash of the protobuf-encoded key). Keeping the 32 bytes rather
//! than the text makes ids small, ordered and free to copy.

use std::{cmp::Ordering, fmt, str::FromStr};

use cid::multibase::Base;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::bytes;

/// Identity multihash of 36 bytes holding a protobuf of an Ed25519 key (libp2p peer-ids spec).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Why something is not a node id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not the peer id of an Ed25519 key: expected text that starts with 12D3KooW")]
pub struct NodeIdError;

/// A node's Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId([u8; 32]);

/// By their bytes.
impl Ord for NodeId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        bytes::compare(&self.0, &other.0)
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NodeId {
    /// The node id of a public key.
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes of the libp2p peer id.
    pub fn to_peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// A node id from the bytes of a libp2p peer id.
    ///
    /// # Errors
    /// If the peer id is not that of an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, NodeIdError> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).ok_or(NodeIdError)?;
        key.try_into().map(Self).map_err(|_| NodeIdError)
    }

    /// The last six characters of the text form, enough to tell devices of a site apart in a table.
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 6..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base::Base58Btc.encode(self.to_peer_id_bytes()))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 64 {
            return Err(NodeIdError);
        }
        let bytes = Base::Base58Btc.decode(text).map_err(|_| NodeIdError)?;
        Self::from_peer_id_bytes(&bytes)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = NodeId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the 32 bytes of an Ed25519 public key")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<NodeId, E> {
                bytes.try_into().map(NodeId).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_form_is_the_libp2p_peer_id() {
        // From the libp2p peer-ids spec's form: all Ed25519 ids start with 12D3KooW.
        let id = NodeId::from_public_key([7; 32]);
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>(), Ok(id));
        assert_eq!(id.short().len(), 6);
    }

    #[test]
    fn the_key_of_the_peer_ids_spec_has_its_known_id() {
        let key = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
        let id = NodeId::from_public_key(hex::decode(key).unwrap().try_into().unwrap());
        assert_eq!(id.to_string(), "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq");
        assert_eq!(id.short(), "o7R3pq");
    }

    proptest! {
        #[test]
        fn both_forms_come_back(key in any::<[u8; 32]>()) {
            let id = NodeId::from_public_key(key);
            prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
            let bytes = id.to_peer_id_bytes();
            prop_assert_eq!(NodeId::from_peer_id_bytes(&bytes), Ok(id));
            prop_assert_eq!(NodeId::from_peer_id_bytes(&bytes[..37]), Err(NodeIdError));
            prop_assert_eq!(NodeId::from_peer_id_bytes(&[&bytes[..], &[0]].concat()), Err(NodeIdError));
        }

        #[test]
        fn arbitrary_text_is_one_id_or_none(text in "\\PC{0,70}|[1-9A-Za-z]{50,54}") {
            if let Ok(id) = text.parse::<NodeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn other_key_types_are_refused() {
        assert_eq!("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<NodeId>(), Err(NodeIdError));
        assert_eq!(NodeId::from_peer_id_bytes(&[0; 38]), Err(NodeIdError));
        assert_eq!("".parse::<NodeId>(), Err(NodeIdError));
    }
}
