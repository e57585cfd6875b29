//! Piece maps that peers have lately vouched for, so that the runs of one transfer ask for the map once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use layermesh_proto::{ContentId, NodeId, PieceMap};
use tokio::time::Instant;

/// Maps kept. A map has at most 512 KiB and commonly 8 KiB, so this bounds the cache to 8 MiB.
const MAPS_MAX: usize = 16;
/// How long a map is believed without asking again: longer than a transfer pauses between two runs, short enough
/// that a peer which has repaired its blob is soon asked again.
const MAP_AGE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Vouched {
    peer: NodeId,
    content: ContentId,
    since: Instant,
    map: Arc<PieceMap>,
}

/// The most recent maps, oldest first.
#[derive(Debug, Default)]
pub(super) struct Maps(VecDeque<Vouched>);

impl Maps {
    /// The map that `peer` vouched for, if it did lately.
    pub(super) fn get(&mut self, peer: NodeId, content: &ContentId) -> Option<Arc<PieceMap>> {
        self.0.retain(|vouched| vouched.since.elapsed() < MAP_AGE_MAX);
        self.0
            .iter()
            .find(|vouched| vouched.peer == peer && vouched.content == *content)
            .map(|vouched| Arc::clone(&vouched.map))
    }

    /// Remembers a map.
    pub(super) fn put(&mut self, peer: NodeId, content: ContentId, map: Arc<PieceMap>) {
        self.forget(peer, &content);
        if self.0.len() >= MAPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Vouched { peer, content, since: Instant::now(), map });
    }

    /// Forgets a map that has turned out not to fit.
    pub(super) fn forget(&mut self, peer: NodeId, content: &ContentId) {
        self.0.retain(|vouched| vouched.peer != peer || vouched.content != *content);
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;

    fn content(n: usize) -> ContentId {
        ContentId::of(Algorithm::Sha256, &n.to_le_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn maps_are_the_peers_own_bounded_and_short_lived() {
        let (ours, other) = (NodeId::from_public_key([1; 32]), NodeId::from_public_key([2; 32]));
        let map = Arc::new(PieceMap::of(b"x").unwrap());
        let mut maps = Maps::default();
        for n in 0..=MAPS_MAX {
            maps.put(ours, content(n), Arc::clone(&map));
        }
        assert!(maps.get(ours, &content(0)).is_none(), "the oldest went");
        assert!(maps.get(ours, &content(1)).is_some());
        assert!(maps.get(other, &content(1)).is_none(), "nobody vouches for another");
        maps.forget(ours, &content(1));
        assert!(maps.get(ours, &content(1)).is_none());
        tokio::time::advance(MAP_AGE_MAX).await;
        assert!(maps.get(ours, &content(2)).is_none());
    }
}
