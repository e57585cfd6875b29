//! Whom an announcement has reached already, said in eight bytes before it.
//!
//! An author sends its word to everybody that it is connected to. A listener that reaches nobody else need not pass it on:
//! on a site where all are connected with all, each word then comes once instead of once from each of several relays,
//! which is most of what gossip costs there.
//!
//! Invariant: this saves messages and nothing else. The bytes are under the author's signature; whoever lies in them keeps
//! its own words from being passed on, and no one else's. Two different neighbourhoods that come out equal (one pair in
//! 2^64) cost one relay's words until either changes, and what gossip loses, inventory diffs bring.

use super::{
    announcement::Announcement,
    codec::{DecodeError, EncodeError, decode_announcement, encode_announcement},
};
use crate::{NodeId, bytes};

/// Bytes before an announcement.
pub const NEIGHBOURHOOD_BYTES: usize = 8;

/// A node together with all that it is connected to: the exclusive or of the first eight bytes of their public keys, which
/// are as good as random, in whatever order they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Neighbourhood(u64);

impl Neighbourhood {
    /// Of these nodes, each given once.
    pub fn of(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self(nodes.into_iter().fold(0, |all, node| all ^ bytes::head(node.public_key())))
    }

    /// Whether a node that has this neighbourhood may reach somebody whom an author with the other one does not.
    pub fn passes_on(self, author: Self) -> bool {
        self != author
    }
}

/// The bytes of a gossip message: the author's neighbourhood, big-endian, and its announcement.
///
/// # Errors
/// If the announcement is outside its limits.
pub fn encode(author: Neighbourhood, announcement: &Announcement) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = author.0.to_be_bytes().to_vec();
    bytes.append(&mut encode_announcement(announcement)?);
    Ok(bytes)
}

/// What [`encode`] made bytes of.
///
/// # Errors
/// If they are shorter than a neighbourhood, or the rest is not the one encoding of an announcement within its limits.
pub fn decode(bytes: &[u8]) -> Result<(Neighbourhood, Announcement), DecodeError> {
    let (author, rest) = bytes.split_first_chunk::<NEIGHBOURHOOD_BYTES>().ok_or(DecodeError::NoNeighbourhood)?;
    Ok((Neighbourhood(u64::from_be_bytes(*author)), decode_announcement(rest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::strategies;

    fn node(id: u8) -> NodeId {
        NodeId::from_public_key([id; 32])
    }

    #[test]
    fn the_same_nodes_in_any_order_are_one_neighbourhood() {
        let all = Neighbourhood::of([node(1), node(2), node(4)]);
        assert_eq!(Neighbourhood::of([node(4), node(1), node(2)]), all);
        assert!(!all.passes_on(all));
        for other in [vec![], vec![node(1), node(2)], vec![node(1), node(2), node(4), node(8)]] {
            assert!(Neighbourhood::of(other).passes_on(all));
        }
    }

    #[test]
    fn bytes_that_are_too_few_are_refused() {
        assert_eq!(decode(&[0; NEIGHBOURHOOD_BYTES - 1]), Err(DecodeError::NoNeighbourhood));
        assert!(matches!(decode(&[0; NEIGHBOURHOOD_BYTES]), Err(DecodeError::Scan(_))));
    }

    proptest! {
        #[test]
        fn messages_survive(ids in prop::collection::btree_set(any::<u8>(), 0..9), word in strategies::announcement()) {
            let author = Neighbourhood::of(ids.into_iter().map(node));
            let bytes = encode(author, &word).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(decode(&bytes), Ok((author, word)));
        }

        #[test]
        fn any_bytes_are_refused_or_taken(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((author, word)) = decode(&bytes) {
                let again = encode(author, &word);
                prop_assert_eq!(again.as_deref(), Ok(&bytes[..]));
            }
        }
    }
}
