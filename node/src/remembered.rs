//! Peers remembered across restarts, for networks where multicast does not find them again.
//!
//! A hint and nothing more: a lost or damaged file costs a rediscovery, so it is written without fsync, by a task
//! of its own, and never more often than once in `SAVE_INTERVAL`.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use layermesh_proto::NodeId;
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Most addresses kept; the ones learned last stay. Enough to find a large site again through some of its nodes.
const ADDRESSES_MAX: usize = 64;
/// Addresses kept for one peer: a device has a few interfaces at most.
const ADDRESSES_PER_PEER_MAX: usize = 4;
/// Shortest time between two writes of the file, so that a busy site does not wear out the flash.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(with = "text")]
    peer: NodeId,
    address: Multiaddr,
}

/// Addresses of peers, newest last.
#[derive(Debug)]
pub struct Remembered {
    known: VecDeque<Known>,
    changes: watch::Sender<Vec<Known>>,
}

/// Writes the file whenever the addresses change.
pub struct Saver {
    path: PathBuf,
    changes: watch::Receiver<Vec<Known>>,
}

impl Remembered {
    /// Reads the file at `path`; what is unreadable counts as nothing remembered.
    pub fn load(path: PathBuf) -> (Self, Saver) {
        let known: VecDeque<Known> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the file of remembered peers is damaged; starting without");
                VecDeque::new()
            }),
            Err(_) => VecDeque::new(),
        };
        let (sender, changes) = watch::channel(Vec::new());
        let mut remembered = Self { known: VecDeque::new(), changes: sender };
        for Known { peer, address } in known {
            remembered.insert(peer, address);
        }
        (remembered, Saver { path, changes })
    }

    /// The addresses to try at start, newest first.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.known.iter().rev().map(|known| known.address.clone()).collect()
    }

    /// Keeps an address that can be dialled.
    pub fn learn(&mut self, peer: NodeId, address: Multiaddr) {
        if self.insert(peer, address) {
            self.changes.send_replace(self.known.iter().cloned().collect());
        }
    }

    fn insert(&mut self, peer: NodeId, address: Multiaddr) -> bool {
        let known = Known { peer, address };
        if self.known.contains(&known) {
            return false;
        }
        if self.known.iter().filter(|other| other.peer == peer).count() >= ADDRESSES_PER_PEER_MAX
            && let Some(oldest) = self.known.iter().position(|other| other.peer == peer)
        {
            self.known.remove(oldest);
        }
        if self.known.len() >= ADDRESSES_MAX {
            self.known.pop_front();
        }
        self.known.push_back(known);
        true
    }
}

impl Saver {
    /// Saves changes until [`Remembered`] is dropped or `shutdown` comes, then once more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut going_on = true;
        while going_on {
            going_on = tokio::select! {
                changed = self.changes.changed() => changed.is_ok(),
                () = shutdown.cancelled() => false,
            };
            let unsaved = going_on || self.changes.has_changed().unwrap_or(false);
            if unsaved {
                let known = self.changes.borrow_and_update().clone();
                let path = self.path.clone();
                let saved = tokio::task::spawn_blocking(move || save(&path, &known)).await;
                if let Ok(Err(error)) = saved {
                    tracing::warn!(path = %self.path.display(), %error, "could not remember the peers");
                }
            }
            if going_on {
                let _ = shutdown.run_until_cancelled(tokio::time::sleep(SAVE_INTERVAL)).await;
            }
        }
    }
}

/// Whatever is in the file, a bounded number of addresses comes of it, and they are read as they were written.
///
/// # Panics
/// If that does not hold.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let Ok(known) = serde_json::from_slice::<Vec<Known>>(bytes) else { return };
    let text = serde_json::to_vec(&known).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Vec<Known>>(&text).ok().as_ref(), Some(&known));
    let mut remembered = Remembered { known: VecDeque::new(), changes: watch::channel(Vec::new()).0 };
    for Known { peer, address } in known {
        remembered.insert(peer, address);
    }
    assert!(remembered.addresses().len() <= ADDRESSES_MAX);
}

fn save(path: &Path, known: &[Known]) -> io::Result<()> {
    let bytes = serde_json::to_vec(known)?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(temporary, path)
}

mod text {
    use layermesh_proto::NodeId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(peer: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(peer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_learned_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        let (mut remembered, saver) = Remembered::load(path.clone());
        let peer = NodeId::from_public_key([1; 32]);
        remembered.learn(peer, address(1));
        remembered.learn(peer, address(2));
        remembered.learn(peer, address(1));
        drop(remembered);
        saver.run(CancellationToken::new()).await;
        let (again, _saver) = Remembered::load(path);
        assert_eq!(again.addresses(), vec![address(2), address(1)]);
    }

    #[test]
    fn a_damaged_file_is_an_empty_one_and_the_number_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        std::fs::write(&path, b"[{\"peer\":").unwrap();
        let (mut remembered, _saver) = Remembered::load(path);
        assert!(remembered.addresses().is_empty());
        for at in 0..200 {
            remembered.learn(NodeId::from_public_key([at; 32]), address(u16::from(at) + 1));
            remembered.learn(NodeId::from_public_key([7; 32]), address(u16::from(at) + 1000));
        }
        assert_eq!(remembered.addresses().len(), ADDRESSES_MAX);
        let of_one = remembered.known.iter().filter(|known| known.peer == NodeId::from_public_key([7; 32])).count();
        assert!(of_one <= ADDRESSES_PER_PEER_MAX);
    }
}
