//! The site as this node sees it, for people: its devices, what is under way, who holds what, and what crossed the uplink.
//!
//! Views only; no decision is made by them. Invariant: every list is sorted and bounded by [`Bounds`], and says how much was
//! left out. What is told of devices that this node is not connected with is what they say to all by gossip.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::Engine;
use crate::{ContentId, NodeId, PieceLayout};

/// How long the lists may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Devices.
    pub devices: usize,
    /// Blobs that are being had.
    pub under_way: usize,
    /// Nodes named that fetch one blob from its origin.
    pub fetching: usize,
    /// Blobs that are held.
    pub held: usize,
    /// Blobs that crossed the uplink.
    pub crossed: usize,
}

/// Another device of the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceView {
    /// The node.
    pub node: NodeId,
    /// Whether it is connected with this one.
    pub connected: bool,
    /// Blobs that it says it holds.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that it wants, by its word.
    pub wants: usize,
    /// Bytes of these, as far as is known.
    pub wanted_bytes: u64,
    /// Bytes of these that it has.
    pub had_bytes: u64,
    /// Blobs that it fetches from an origin.
    pub fetches: usize,
    /// Whether it is not asked for bytes because it may have sent wrong ones.
    pub penalised: bool,
}

/// A blob that somebody of the site is about to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderWayView {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes, once known.
    pub size: Option<u64>,
    /// Devices that hold it whole, this one included, as far as they are connected.
    pub holders: usize,
    /// Other devices that want it.
    pub wanting: usize,
    /// Bytes that they have of it, all together.
    pub had_bytes: u64,
    /// Nodes that fetch of it from its origin, this one included.
    pub fetching: Vec<NodeId>,
    /// Bytes of it that crossed the uplink.
    pub crossed: u64,
}

/// A blob that devices of the site hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Devices that hold it, this one included, as far as they are connected.
    pub holders: usize,
    /// Whether this one does.
    pub here: bool,
}

/// How much of a blob crossed the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossedView {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes, once known.
    pub size: Option<u64>,
    /// Bytes that crossed.
    pub bytes: u64,
    /// How long ago the last of them was heard of.
    pub ago: Duration,
    /// Devices that hold it whole, this one included, as far as they are connected.
    pub holders: usize,
}

/// What crossed the site's uplink, as far as this node fetched it or heard of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UplinkView {
    /// Bytes since this node's start.
    pub bytes: u64,
    /// Those of them that were more than one copy of a blob.
    pub surplus: u64,
    /// The blobs that crossed last, the latest first.
    pub lately: Vec<CrossedView>,
}

/// The site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Other devices: connected ones first, then by id.
    pub devices: Vec<DeviceView>,
    /// How many there are.
    pub devices_total: usize,
    /// What is being had, the largest first.
    pub under_way: Vec<UnderWayView>,
    /// How many blobs that are.
    pub under_way_total: usize,
    /// What is held, the largest first.
    pub held: Vec<HeldView>,
    /// How many blobs that are.
    pub held_total: usize,
    /// Of these, how many one device alone holds.
    pub held_once: usize,
    /// What crossed the uplink.
    pub uplink: UplinkView,
}

/// Sorts, cuts, and says how many there were.
fn bounded<T, K: Ord>(mut all: Vec<T>, max: usize, key: impl Fn(&T) -> K) -> (Vec<T>, usize) {
    let total = all.len();
    // Only what is shown is sorted: there may be a hundred thousand.
    if total > max && max > 0 {
        all.select_nth_unstable_by_key(max - 1, &key);
    }
    all.truncate(max);
    all.sort_by_key(key);
    (all, total)
}

impl Engine {
    /// The site as this node sees it.
    pub fn overview(&self, bounds: Bounds) -> Overview {
        let (devices, devices_total) =
            bounded(self.devices(), bounds.devices, |device| (!device.connected, device.node));
        let (under_way, under_way_total) =
            bounded(self.under_way(bounds.fetching), bounds.under_way, |blob| (Reverse(blob.size), blob.content));
        let held = self.held_on_site();
        let held_once = held.iter().filter(|blob| blob.holders == 1).count();
        let (held, held_total) = bounded(held, bounds.held, |blob| (Reverse(blob.size), blob.content));
        let uplink = self.ledger.view(bounds.crossed, self.now, |content| self.holders_of(content));
        Overview { devices, devices_total, under_way, under_way_total, held, held_total, held_once, uplink }
    }

    /// What crossed the uplink, without the blobs.
    pub fn uplink(&self) -> UplinkView {
        self.ledger.view(0, self.now, |_| 0)
    }

    fn devices(&self) -> Vec<DeviceView> {
        let device = |node: NodeId| DeviceView {
            node,
            connected: self.peers.is_connected(&node),
            blobs: self.directory.blobs_of(&node),
            bytes: self.directory.bytes_of(&node),
            wants: 0,
            wanted_bytes: 0,
            had_bytes: 0,
            fetches: 0,
            penalised: self.peers.is_penalised(&node, self.now),
        };
        let mut devices: BTreeMap<NodeId, DeviceView> =
            self.peers.iter().map(|(peer, _)| (*peer, device(*peer))).collect();
        for content in self.site.blobs() {
            let size = self.blob_size(content);
            for (node, party) in self.site.parties(content).filter(|(node, _)| **node != self.node) {
                let view = devices.entry(*node).or_insert_with(|| device(*node));
                view.fetches += usize::from(self.site.claim_of(content, node, self.now).is_some());
                if party.wanted_until > self.now {
                    view.wants += 1;
                    view.wanted_bytes = view.wanted_bytes.saturating_add(size.or(party.size).unwrap_or(0));
                    view.had_bytes = view.had_bytes.saturating_add(party.had_bytes());
                }
            }
        }
        devices.into_values().collect()
    }

    fn under_way(&self, fetching_max: usize) -> Vec<UnderWayView> {
        let own = self.transfers.open.keys().filter(|content| self.site.parties_of(content) == 0);
        let view = |content: &ContentId| {
            let others = || self.site.parties(content).filter(|(node, _)| **node != self.node);
            let wanting = || others().filter(|(_, party)| party.wanted_until > self.now);
            let mut fetching: Vec<_> =
                self.site.claims(content, self.now, |_| true).into_iter().map(|(node, _)| node).collect();
            fetching.sort_unstable();
            fetching.truncate(fetching_max);
            UnderWayView {
                content: *content,
                size: self.blob_size(content),
                holders: self.holders_of(content),
                wanting: wanting().count(),
                had_bytes: wanting().fold(0, |sum, (_, party)| sum.saturating_add(party.had_bytes())),
                fetching,
                crossed: self.ledger.of(content),
            }
        };
        let under_way = self.site.blobs().chain(own).map(view);
        // Words of nodes that have what they wanted are remembered for a while.
        let goes_on = |blob: &UnderWayView| {
            blob.wanting > 0 || !blob.fetching.is_empty() || self.transfers.open.contains_key(&blob.content)
        };
        under_way.filter(goes_on).collect()
    }

    fn held_on_site(&self) -> Vec<HeldView> {
        let of_peers = self.directory.all_held().map(|(content, size, holders)| {
            let here = self.inventory.held(&content).is_some();
            HeldView { content, size, holders: holders + usize::from(here), here }
        });
        let here_alone =
            self.inventory.all_held().filter(|(content, _)| self.directory.holders(content).next().is_none());
        let here_alone = here_alone.map(|(content, size)| HeldView { content, size, holders: 1, here: true });
        of_peers.chain(here_alone).collect()
    }

    fn holders_of(&self, content: &ContentId) -> usize {
        self.directory.holders(content).count() + usize::from(self.inventory.held(content).is_some())
    }

    /// A blob's size, by whoever knows best.
    fn blob_size(&self, content: &ContentId) -> Option<u64> {
        let own = || self.transfers.open.get(content)?.size();
        let held = || self.directory.holders(content).next().map(|(_, size)| size);
        let said = || self.site.parties(content).find_map(|(_, party)| party.size);
        self.inventory.held(content).or_else(own).or_else(held).or_else(said)
    }
}

impl super::site::Party {
    /// Bytes that the node has of the blob, as far as it said so.
    fn had_bytes(&self) -> u64 {
        let Some((size, having)) = self.size.zip(self.having.as_ref()) else { return 0 };
        let piece_len = PieceLayout::for_size(size).map_or(0, |layout| u64::from(layout.piece_len()));
        (u64::from(having.count()) * piece_len).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_are_shown_in_order_and_all_are_counted() {
        let (shown, total) = bounded(vec![5, 1, 4, 2, 3], 3, |number| Reverse(*number));
        assert_eq!((shown, total), (vec![5, 4, 3], 5));
        assert_eq!(bounded(vec![2, 1], 3, |number| *number), (vec![1, 2], 2));
        assert_eq!(bounded(vec![2, 1], 0, |number| *number), (vec![], 2));
    }
}
