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
