//! Who holds what, as far as peers have said.
//!
//! Invariant: only connected peers count as holders, since only they can be asked for bytes. What a peer that
//! left had said is kept for a while so that it need not say it again, but nothing is chosen from it until the
//! peer confirms that its inventory is still of the same epoch. On a site so large that nodes connect to a part
//! of the others, holders are those among the connected; learning of others through them is not done here.

use std::collections::BTreeMap;

use super::config::Limits;
use crate::{ContentId, NodeId, piece::BLOB_SIZE_MAX, wire::InventoryPosition};

/// How what a peer says of its position compares to what was learnt from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing to learn.
    UpToDate,
    /// There is more to learn.
    Behind,
}

/// Where nothing was learnt yet. No node's epoch is 0.
const NOTHING: InventoryPosition = InventoryPosition { epoch: 0, seq: 0 };

#[derive(Debug)]
struct Known {
    /// The position that was reached.
    applied: InventoryPosition,
    blobs: BTreeMap<ContentId, u64>,
    /// Whether the peer is connected and stands by this.
    live: bool,
    /// When it left, by the directory's count of departures.
    left: Option<u64>,
}

impl Known {
    fn nothing() -> Self {
        Self { applied: NOTHING, blobs: BTreeMap::new(), live: false, left: None }
    }
}

/// What peers hold.
#[derive(Debug, Default)]
pub(super) struct Directory {
    known: BTreeMap<NodeId, Known>,
    /// Live holders, in the order in which they were learnt of.
    holders: BTreeMap<ContentId, Vec<NodeId>>,
    blobs: usize,
    departures: u64,
}

impl Directory {
    /// A peer is here; what was known of it waits for [`Directory::confirm`].
    pub(super) fn connected(&mut self, peer: NodeId) {
        self.known.entry(peer).or_insert_with(Known::nothing).left = None;
    }

    /// A peer left: it holds nothing that could be asked for.
    pub(super) fn disconnected(&mut self, peer: NodeId, limits: &Limits) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        self.departures += 1;
        known.left = Some(self.departures);
        known.live = false;
        for content in known.blobs.keys() {
            remove_holder(&mut self.holders, content, peer);
        }
        let gone = || self.known.iter().filter_map(|(peer, known)| known.left.map(|left| (left, *peer)));
        if gone().count() > limits.peers_remembered
            && let Some((_, oldest)) = gone().min()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, peer: &NodeId) {
        if let Some(known) = self.known.remove(peer) {
            self.blobs -= known.blobs.len();
        }
    }

    /// The position up to which a peer's inventory is known.
    pub(super) fn applied(&self, peer: &NodeId) -> InventoryPosition {
        self.known.get(peer).map_or(NOTHING, |known| known.applied)
    }

    /// How a peer's position compares to what is known.
    pub(super) fn standing(&self, peer: &NodeId, position: InventoryPosition) -> Standing {
        let applied = self.applied(peer);
        if applied.epoch == position.epoch && applied.seq >= position.seq {
            Standing::UpToDate
        } else {
            Standing::Behind
        }
    }

    /// A connected peer is still in this epoch: what was known of it counts again. Returns the blobs that it
    /// thereby holds.
    pub(super) fn confirm(&mut self, peer: NodeId, epoch: u64) -> Vec<ContentId> {
        let Some(known) = self.known.get_mut(&peer) else { return Vec::new() };
        if known.live || known.left.is_some() || known.applied.epoch != epoch {
            return Vec::new();
        }
        known.live = true;
        for content in known.blobs.keys() {
            self.holders.entry(*content).or_default().push(peer);
        }
        known.blobs.keys().copied().collect()
    }

    /// Forgets what a connected peer holds; it tells everything from the start.
    pub(super) fn restart(&mut self, peer: NodeId) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        self.blobs -= known.blobs.len();
        for content in std::mem::take(&mut known.blobs).into_keys() {
            remove_holder(&mut self.holders, &content, peer);
        }
        known.live = true;
    }

    /// A connected peer holds a blob. `false` if a limit forbids to remember it.
    pub(super) fn hold(&mut self, peer: NodeId, content: ContentId, size: u64, limits: &Limits) -> bool {
        let Some(known) = self.known.get_mut(&peer) else { return false };
        let new = !known.blobs.contains_key(&content);
        if size > BLOB_SIZE_MAX {
            return false;
        }
        if new && (known.blobs.len() >= limits.blobs_per_peer || self.blobs >= limits.blobs_of_peers) {
            return false;
        }
        known.blobs.insert(content, size);
        if new {
            self.blobs += 1;
            if known.live {
                self.holders.entry(content).or_default().push(peer);
            }
        }
        true
    }

    /// A peer does not hold a blob, by its own word or because it could not give it.
    pub(super) fn lose(&mut self, peer: NodeId, content: &ContentId) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        if known.blobs.remove(content).is_some() {
            self.blobs -= 1;
            remove_holder(&mut self.holders, content, peer);
        }
    }

    /// A position of a peer was reached.
    pub(super) fn reached(&mut self, peer: NodeId, position: InventoryPosition) {
        if let Some(known) = self.known.get_mut(&peer) {
            known.applied = position;
        }
    }

    /// Connected holders of a blob with the size that they gave, in the order in which they were learnt of.
    pub(super) fn holders(&self, content: &ContentId) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        let content = *content;
        self.holders
            .get(&content)
            .into_iter()
            .flatten()
            .filter_map(move |peer| Some((*peer, *self.known.get(peer)?.blobs.get(&content)?)))
    }

    /// Every blob that connected peers hold, with its size as the first of them gave it and how many they are.
    pub(super) fn all_held(&self) -> impl Iterator<Item = (ContentId, u64, usize)> + '_ {
        self.holders.iter().filter_map(|(content, peers)| {
            let size = self.known.get(peers.first()?)?.blobs.get(content)?;
            Some((*content, *size, peers.len()))
        })
    }

    /// Bytes of the blobs that a peer is known to hold.
    pub(super) fn bytes_of(&self, peer: &NodeId) -> u64 {
        let live = self.known.get(peer).filter(|known| known.live);
        live.map_or(0, |known| known.blobs.values().fold(0, |sum, size| sum.saturating_add(*size)))
    }

    /// Number of blobs that a peer is known to hold.
    pub(super) fn blobs_of(&self, peer: &NodeId) -> usize {
        self.known.get(peer).filter(|known| known.live).map_or(0, |known| known.blobs.len())
    }
}

fn remove_holder(holders: &mut BTreeMap<ContentId, Vec<NodeId>>, content: &ContentId, peer: NodeId) {
    if let Some(peers) = holders.get_mut(content) {
        peers.retain(|holder| *holder != peer);
        if peers.is_empty() {
            holders.remove(content);
        }
    }
}
