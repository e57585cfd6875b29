//! Open connections to peers, kept for the next request.
//!
//! Invariant: a connection is counted from before it is dialled until its task has ended, so the limits hold over
//! dialling, busy and idle ones together. A connection is given back only when its answer was read to the end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use layermesh_proto::NodeId;
use tokio::time::{Instant, sleep};

/// Connections in all, so many peers are asked at once and no more.
pub(super) const CONNECTIONS_MAX: usize = 32;
/// Connections to one peer: the layers of an image come side by side, one a connection.
pub(super) const CONNECTIONS_PER_PEER_MAX: usize = 8;
/// Connections to one peer that are kept without work.
const IDLE_PER_PEER_MAX: usize = 2;
/// How long a connection is kept without work; less than the server's patience, so that it seldom closes first.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(30);
/// How often idle connections are looked over.
const REAP_INTERVAL: Duration = Duration::from_secs(10);

/// A peer at an address.
pub(super) type Key = (NodeId, SocketAddr);
/// Sends requests on one connection.
pub(super) type Sender = SendRequest<Empty<Bytes>>;

#[derive(Debug)]
struct Idle {
    key: Key,
    sender: Sender,
    since: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first. At most [`CONNECTIONS_MAX`].
    idle: Vec<Idle>,
    open: BTreeMap<NodeId, usize>,
    reaping: bool,
}

/// The connections of one client.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<State>);

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection to this peer, the one used last first. It may have been closed by the other end.
    pub(super) fn take(&self, key: Key) -> Option<Sender> {
        let mut state = self.state();
        let at = state.idle.iter().rposition(|idle| idle.key == key)?;
        Some(state.idle.remove(at).sender)
    }

    /// Drops the idle connections to this peer: one has turned out to be dead.
    pub(super) fn forget(&self, key: Key) {
        self.state().idle.retain(|idle| idle.key != key);
    }

    /// Leave to open a connection, or `None` at the limits. Makes room by closing an idle one where that helps.
    pub(super) fn permit(self: &Arc<Self>, peer: NodeId) -> Option<Permit> {
        let mut state = self.state();
        let in_all: usize = state.open.values().sum();
        if in_all >= CONNECTIONS_MAX && !state.idle.is_empty() {
            // Its permit comes back when its task has ended; until then the limit is exceeded by this one.
            state.idle.remove(0);
        } else if in_all >= CONNECTIONS_MAX {
            return None;
        }
        let open = state.open.entry(peer).or_default();
        if *open >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *open += 1;
        Some(Permit { pool: Arc::clone(self), peer })
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(super) fn give_back(self: &Arc<Self>, key: Key, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut state = self.state();
        if state.idle.iter().filter(|idle| idle.key.0 == key.0).count() >= IDLE_PER_PEER_MAX {
            return;
        }
        state.idle.push(Idle { key, sender, since: Instant::now() });
        if !state.reaping {
            state.reaping = true;
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Closes what was idle for too long; says whether anything is left to look after.
    fn expire(&self) -> bool {
        let mut state = self.state();
        state.idle.retain(|idle| idle.since.elapsed() < IDLE_MAX && !idle.sender.is_closed());
        state.reaping = !state.idle.is_empty();
        state.reaping
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.state().idle.len()
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.state().open.values().sum()
    }
}

async fn reap(pool: Weak<Pool>) {
    loop {
        sleep(REAP_INTERVAL).await;
        if !pool.upgrade().is_some_and(|pool| pool.expire()) {
            return;
        }
    }
}

/// Leave to have one connection open, given up when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    pool: Arc<Pool>,
    peer: NodeId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        if let Some(open) = state.open.get_mut(&self.peer) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_bounded_in_all_and_per_peer() {
        let pool = Arc::new(Pool::default());
        let peer = |n| NodeId::from_public_key([n; 32]);
        let first: Vec<_> = (0..CONNECTIONS_PER_PEER_MAX).map(|_| pool.permit(peer(0)).unwrap()).collect();
        assert!(pool.permit(peer(0)).is_none());
        let others: Vec<_> = (0..CONNECTIONS_MAX - CONNECTIONS_PER_PEER_MAX)
            .map(|n| pool.permit(peer(1 + u8::try_from(n).unwrap())).unwrap())
            .collect();
        assert!(pool.permit(peer(200)).is_none());
        drop(first);
        assert!(pool.permit(peer(200)).is_some());
        drop(others);
        assert_eq!(pool.open(), 0);
    }
}
