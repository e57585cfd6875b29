//! The engine's notes as log lines: each says what happened and, where somebody can do something, what.

use layermesh_proto::engine::event::{Note, Source, SourceError};

pub(super) fn log(note: &Note) {
    match note {
        Note::SourceFailed { content, error: SourceError::Store(why), .. } => {
            tracing::warn!(%content, %why, "this device cannot store what came");
        }
        Note::SourceFailed { content, source: from, error } => {
            tracing::info!(%content, from = source(from), %error, "a source failed; trying the next");
        }
        Note::Stalled { content, source: from } => {
            tracing::warn!(%content, from = source(from), "no progress; trying another source");
        }
        Note::RebuildFailed { content, patch, error } => {
            tracing::info!(%content, %patch, %error, "the layer is fetched, since it could not be made of one that is held");
        }
        Note::RebuildStalled { content } => {
            tracing::warn!(%content, "making the layer of one that is held got on no further; it is fetched");
        }
        Note::PeerPenalised { peer, content } => {
            tracing::warn!(%peer, %content, "this peer vouched for wrong bytes; not asking it for a while");
        }
        Note::OriginReachability { registry, reachable: true } => tracing::info!(registry, "the origin answers"),
        Note::OriginReachability { registry, reachable: false } => {
            tracing::warn!(registry, "the origin does not answer; serving what the site holds");
        }
        Note::ProtocolViolation { peer, what } => {
            tracing::warn!(%peer, what, "a peer broke the protocol; ignored what it sent");
        }
        Note::ReleasesRefused { peer } => {
            tracing::warn!(%peer, "this peer offers releases that are not believed; not listening to it for a while");
        }
        Note::LimitReached { limit } => tracing::warn!(limit, "a limit was reached"),
    }
}

/// A source, for people.
pub(super) fn source(source: &Source) -> String {
    match source {
        Source::Peer(peer) => format!("peer {peer}"),
        Source::Origin(repository, _) => format!("origin {}", repository.registry()),
    }
}

/// How far a layer is that is made of another one, as a source.
pub(super) fn rebuilding((done, work): (u64, u64)) -> String {
    match done {
        0 => "a patch, which is on its way".to_owned(),
        _ => format!("a patch and a layer held here, {} %", u128::from(done) * 100 / u128::from(work.max(1))),
    }
}
