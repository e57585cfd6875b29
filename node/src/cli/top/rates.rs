//! How fast things move: figures of the last answers, and what became of them a second.
//!
//! Pure. The node's own clock counts, so that an answer that is late, or the same as before, makes nothing look faster.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::admin::types::SiteStatus;

/// Rates are over so many seconds: single answers jump.
const SPAN_S: f64 = 5.0;
/// Answers kept. More than answers a second apart need for the span.
const ANSWERS_MAX: usize = 16;

/// What counts of an answer.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Seconds that the node ran.
    at: f64,
    /// Bytes over the site's uplink.
    pub(super) uplink: u64,
    /// Bytes that this device received.
    pub(super) received: u64,
    /// Bytes that this device sent to others.
    pub(super) sent: u64,
    /// Bytes from and to each device.
    pub(super) devices: HashMap<String, (u64, u64)>,
    /// Bytes that this device has of each of its transfers.
    pub(super) own: HashMap<String, u64>,
    /// Bytes that the other devices have of each blob under way.
    pub(super) others: HashMap<String, u64>,
}

impl Figures {
    fn of(site: &SiteStatus) -> Self {
        let node = &site.node;
        let exchanged = site.devices.iter();
        Self {
            at: node.uptime_s,
            uplink: site.uplink.bytes,
            received: node.bytes_from_peers.saturating_add(node.bytes_from_origin),
            sent: node.bytes_to_peers,
            devices: exchanged
                .map(|device| (device.peer_id.clone(), (device.received_bytes, device.sent_bytes)))
                .collect(),
            own: node.transfers.iter().map(|transfer| (transfer.digest.clone(), transfer.bytes)).collect(),
            others: site.under_way.iter().map(|blob| (blob.digest.clone(), had_by_others(blob))).collect(),
        }
    }
}

/// Bytes that the devices have that hold a blob or want it.
pub(super) fn had_by_others(blob: &crate::admin::types::SiteTransfer) -> u64 {
    (blob.holders as u64).saturating_mul(blob.size.unwrap_or(0)).saturating_add(blob.had_bytes)
}

/// The last answers.
#[derive(Debug)]
pub(super) struct History {
    /// The latest last.
    figures: VecDeque<Figures>,
    /// After so many seconds without an answer what was before says nothing of now.
    gap_max_s: f64,
}

impl History {
    /// Of answers that come about so often.
    pub(super) fn new(interval: Duration) -> Self {
        Self { figures: VecDeque::new(), gap_max_s: 3.0 * SPAN_S.max(interval.as_secs_f64()) }
    }

    /// Takes an answer in. The same one again says nothing; a node that was started again counts from nothing.
    pub(super) fn take(&mut self, site: &SiteStatus) {
        let now = Figures::of(site);
        if let Some(last) = self.figures.back() {
            if now.at == last.at {
                return;
            }
            if now.at < last.at || now.at - last.at > self.gap_max_s {
                self.figures.clear();
            }
        }
        let at = now.at;
        self.figures.push_back(now);
        let spare = |figures: &VecDeque<Figures>| figures.get(1).is_some_and(|second| second.at <= at - SPAN_S);
        while self.figures.len() > ANSWERS_MAX || (self.figures.len() > 2 && spare(&self.figures)) {
            self.figures.pop_front();
        }
    }

    /// What was known belongs to another node.
    pub(super) fn forget(&mut self) {
        self.figures.clear();
    }

    /// How much a figure grew a second lately. What was there in one answer alone has no rate yet.
    pub(super) fn per_second(&self, of: impl Fn(&Figures) -> Option<u64>) -> u64 {
        let mut known = self.figures.iter().filter_map(|figures| Some((figures.at, of(figures)?)));
        let Some((first_at, first)) = known.next() else { return 0 };
        let Some((last_at, last)) = known.next_back() else { return 0 };
        let seconds = last_at - first_at;
        if seconds > 0.0 { (last.saturating_sub(first) as f64 / seconds) as u64 } else { 0 }
    }
}
