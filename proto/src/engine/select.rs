//! Which source, and which pieces of it.
//!
//! Invariant: pure functions of what they are given. The policy is deliberately simple: one source at a time,
//! peers before origins, and among peers whoever was first heard to hold the blob.

use std::ops::Range;

use super::event::Source;
use crate::{PieceIndex, PieceSet, Repository};

/// The next source of a transfer: `preferred` if it still can serve, else the first of `peers` and then of
/// `origins` (those that are up before those that are down) that `excluded` does not rule out.
pub(super) fn source(
    preferred: Option<&Source>,
    peers: impl Iterator<Item = Source>,
    origins: impl Iterator<Item = (Source, bool)>,
    excluded: impl Fn(&Source) -> bool,
) -> Option<Source> {
    let (up, down): (Vec<_>, Vec<_>) = origins.partition(|(_, down)| !down);
    let candidates: Vec<Source> =
        peers.chain(up.into_iter().chain(down).map(|(source, _)| source)).filter(|source| !excluded(source)).collect();
    match preferred {
        Some(preferred) if candidates.contains(preferred) => Some(preferred.clone()),
        _ => candidates.into_iter().next(),
    }
}

/// The pieces to fetch next: from the first missing one that the reader nearest to the start needs, else from
/// the first missing one at all, up to the next that is there. `None` if none is missing.
pub(super) fn run(durable: &PieceSet, first_reader: Option<PieceIndex>) -> Option<Range<PieceIndex>> {
    first_reader.and_then(|piece| durable.missing_run(piece, u32::MAX)).or_else(|| durable.missing_run(0, u32::MAX))
}

/// The registry of a source that is an origin.
pub(super) fn origin_of(source: &Source) -> Option<&Repository> {
    match source {
        Source::Origin(repository, _) => Some(repository),
        Source::Peer(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, ObjectKind};

    fn peer(byte: u8) -> Source {
        Source::Peer(NodeId::from_public_key([byte; 32]))
    }

    fn origin(name: &str) -> Source {
        Source::Origin(Repository::new(name, "a").unwrap(), ObjectKind::Blob)
    }

    #[test]
    fn peers_come_first_then_origins_that_are_up() {
        let peers = || [peer(2), peer(1)].into_iter();
        let origins = || [(origin("down"), true), (origin("up"), false)].into_iter();
        let next = |tried: &[Source], preferred: Option<&Source>| {
            source(preferred, peers(), origins(), |source| tried.contains(source))
        };
        assert_eq!(next(&[], None), Some(peer(2)));
        assert_eq!(next(&[], Some(&origin("up"))), Some(origin("up")));
        assert_eq!(next(&[peer(2)], Some(&peer(2))), Some(peer(1)));
        assert_eq!(next(&[peer(2), peer(1)], None), Some(origin("up")));
        assert_eq!(next(&[peer(2), peer(1), origin("up")], None), Some(origin("down")));
        assert_eq!(next(&[peer(2), peer(1), origin("up"), origin("down")], None), None);
    }

    #[test]
    fn runs_start_at_the_reader_and_stop_at_what_is_there() {
        let mut durable = PieceSet::empty(8);
        for piece in [0, 3, 6] {
            durable.insert(piece);
        }
        assert_eq!(run(&durable, None), Some(1..3));
        assert_eq!(run(&durable, Some(3)), Some(4..6));
        assert_eq!(run(&durable, Some(5)), Some(5..6));
        assert_eq!(run(&durable, Some(7)), Some(7..8));
        durable.insert(7);
        assert_eq!(run(&durable, Some(7)), Some(1..3));
        assert_eq!(run(&PieceSet::full(3), None), None);
    }
}
