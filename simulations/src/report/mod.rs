//! What a run tells people and programs.
//!
//! Invariant: a report has no time of this machine in it and lists everything in a fixed order, so that one scenario and
//! seed give the same bytes each time.
//!
//! [`Report::to_json`] is for programs, [`Report::to_text`] for the terminal, and [`Report::to_html`] for whoever wants to
//! see how it went; a [`Comparison`] lays two reports side by side.

mod compare;
mod html;
mod json;
mod summary;
mod text;
pub(crate) mod units;

#[cfg(test)]
mod sample;

pub use compare::Comparison;
pub use json::{FORMAT, JsonError};
use serde::{Deserialize, Serialize};

/// How a run went. Times are seconds of virtual time from the start, sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Of its words.
    pub about: String,
    /// Seed of the run.
    pub seed: u64,
    /// Virtual time at the end.
    pub ended_s: f64,
    /// Events that engines handled.
    pub events: u64,
    /// Rules that were broken, the first first. Empty if all held.
    pub broken: Vec<Broken>,
    /// All sites together.
    pub fleet: Totals,
    /// Devices that had all they were told to get, against time: at each such second, so many.
    pub completion: Vec<(f64, u32)>,
    /// What was rolled out, in order of time.
    pub releases: Vec<ReleaseMark>,
    /// What went wrong, in order of time: as planned by the scenario.
    pub faults: Vec<FaultSpan>,
    /// Each site, in the scenario's order.
    pub sites: Vec<SiteReport>,
    /// The devices that took longest, the slowest first, at most [`SLOWEST_MAX`].
    pub slowest: Vec<SlowDevice>,
}

/// Devices that a report names.
pub const SLOWEST_MAX: usize = 20;
/// Points of one curve of one site. 120: what a plot of that width can show.
pub const POINTS_MAX: usize = 120;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Which: `safety`, `liveness`, `copies`, `last`.
    pub rule: String,
    /// Where.
    pub site: String,
    /// What, and when, as people read it.
    pub what: String,
    /// The last things that happened there, the oldest first.
    pub recent: Vec<String>,
}

/// Numbers of a site or of all of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Devices.
    pub devices: u32,
    /// Devices that were told to get something.
    pub wanting: u32,
    /// Of those, the ones that got all of it.
    pub done: u32,
    /// Bytes of one copy of all that was wanted at a site; of the fleet, their sum.
    pub one_copy_bytes: u64,
    /// Payload bytes over the uplinks.
    pub origin_bytes: u64,
    /// Payload bytes from other devices.
    pub peer_bytes: u64,
    /// Of both, those that were thrown away: wrong, or there already.
    pub wasted_bytes: u64,
    /// Bytes of gossip and of questions and answers that devices sent, and received.
    pub control_sent_bytes: u64,
    /// The same, received.
    pub control_received_bytes: u64,
    /// `origin_bytes` by `one_copy_bytes`; 0 if nothing was wanted.
    pub copies: f64,
    /// Seconds from the release to the first, the median and the last device that was done; `None` if none was.
    pub first_s: Option<f64>,
    /// The median.
    pub median_s: Option<f64>,
    /// The last.
    pub last_s: Option<f64>,
    /// What the uplink alone needs for one copy, in seconds: the longest of all sites for the fleet.
    pub uplink_only_s: f64,
}

/// How one site fared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// Kind and number, such as `shop-17`.
    pub name: String,
    /// Its kind, such as `shop`: reports put sites of one kind together.
    pub kind: String,
    /// Its numbers.
    pub totals: Totals,
    /// Payload bytes over its uplinks against time, cumulative: at most [`POINTS_MAX`] points.
    pub uplink: Vec<(f64, u64)>,
    /// Devices done against time: at most [`POINTS_MAX`] points.
    pub completion: Vec<(f64, u32)>,
}

/// A release, when devices were told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseMark {
    /// What and to whom, as people read it.
    pub what: String,
    /// When the first device could be told.
    pub at_s: f64,
    /// Within how many seconds all were.
    pub spread_s: f64,
}

/// A fault, when it was there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// What and where, as people read it.
    pub what: String,
    /// From when on.
    pub from_s: f64,
    /// Until when; the end if `None`.
    pub to_s: Option<f64>,
}

/// A device that took long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlowDevice {
    /// Site and device, such as `shop-17/till-3`.
    pub name: String,
    /// Seconds from its release until it had all; `None` if it never had.
    pub took_s: Option<f64>,
    /// From the registry.
    pub origin_bytes: u64,
    /// From peers.
    pub peer_bytes: u64,
    /// Why, as far as the world knows: it was down so long, joined late, had a slow disk; if nothing befell it,
    /// what its uplink needs for all that is wanted at its site; empty if nothing is known.
    pub why: String,
}
