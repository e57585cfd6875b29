//! How many lines strangers may make in the log: a few a minute each, and not many together.
//!
//! A stranger has as many ids as it likes, so the sum is what bounds the log; the bound for each leaves room for others.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use layermesh_proto::NodeId;
use tokio::time::Instant;

/// Over what time lines are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Lines about one peer in it: one says it, more say that it goes on.
const LINES_PER_PEER_MAX: u32 = 3;
/// Lines in it in all; also how many peers are told apart.
const LINES_MAX: u32 = 30;

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    peers: BTreeMap<Option<NodeId>, u32>,
}

/// Lines of this minute.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Option<Window>>);

impl Lines {
    /// Whether another line about this peer is one that the log has room for. Counts it.
    pub(super) fn may_log(&self, peer: Option<NodeId>) -> bool {
        let now = Instant::now();
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = guard.get_or_insert_with(|| Window { since: now, lines: 0, peers: BTreeMap::new() });
        if now.duration_since(window.since) >= WINDOW {
            *window = Window { since: now, lines: 0, peers: BTreeMap::new() };
        }
        if window.lines >= LINES_MAX {
            return false;
        }
        let of_peer = window.peers.entry(peer).or_default();
        if *of_peer >= LINES_PER_PEER_MAX {
            return false;
        }
        *of_peer += 1;
        window.lines += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_bounded_for_each_peer_and_in_all() {
        let lines = Lines::default();
        let count = |peer: Option<u8>| {
            let peer = peer.map(|seed| NodeId::from_public_key([seed; 32]));
            (0..100).filter(|_| lines.may_log(peer)).count()
        };
        assert_eq!(count(Some(1)), LINES_PER_PEER_MAX as usize);
        let others: usize = (2..200).map(|seed| count(Some(seed))).sum();
        assert_eq!(others, (LINES_MAX - LINES_PER_PEER_MAX) as usize);
        tokio::time::advance(WINDOW).await;
        assert_eq!(count(Some(1)), LINES_PER_PEER_MAX as usize);
    }
}
