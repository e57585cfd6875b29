//! What `scripts/lab-run` measured, and what the figures are that are compared.
//!
//! Invariant: figures mean what the simulator's report means by them (`fleet/tally.rs`).

use serde::{Deserialize, Serialize};

/// Header of each segment as the kernel counts it, in bytes: Ethernet 14, IPv4 20, TCP with time stamps 32.
const HEADER_BYTES: u64 = 66;

/// Payload of TLS: 16384 bytes of a full record's 16406.
pub(super) const TLS_PAYLOAD_SHARE: f64 = 16384.0 / 16406.0;

/// What was measured. Times are seconds on the plan's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Each pull of a device that was told of it.
    pub pulls: Vec<PullOutcome>,
    /// Bytes that came over the uplink, headers included.
    pub uplink_bytes: u64,
    /// Segments that they were in: each is counted with one header, however long it is.
    pub uplink_segments: u64,
    /// Payload that nodes say they took from the registry: those that still run.
    pub origin_bytes: u64,
    /// Load of the machine over the last minute, at the start and at the end.
    pub load: [f64; 2],
    /// Between the moment that a step was planned for and that at which it was done, in seconds: the most.
    pub late_s: f64,
    /// Share of the processors' time in which they had work, this program's or another's.
    pub busy: f64,
    /// What went wrong that no scenario asked for.
    pub failures: Vec<String>,
}

/// How one pull went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullOutcome {
    /// Number of the device.
    pub device: usize,
    /// Number of the release.
    pub release: usize,
    /// When it was told.
    pub told_s: f64,
    /// When it had all; none if it never had.
    pub done_s: Option<f64>,
}

impl Measured {
    /// Seconds that each device took from its releases until it had them, if it had all: the longest of each counts.
    /// `released_s` says when each release was.
    fn took<'a>(&'a self, released_s: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
        let devices = self.pulls.iter().map(|pull| pull.device).max().map_or(0, |last| last + 1);
        (0..devices).filter_map(move |device| {
            let pulls = self.pulls.iter().filter(|pull| pull.device == device);
            let took = pulls.map(|pull| Some(pull.done_s? - released_s.get(pull.release)?));
            took.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
        })
    }

    /// The last device's.
    pub fn last_s(&self, released_s: &[f64]) -> Option<f64> {
        self.took(released_s).reduce(f64::max)
    }

    /// Devices that got all.
    pub fn done(&self, released_s: &[f64]) -> u32 {
        u32::try_from(self.took(released_s).count()).unwrap_or(u32::MAX)
    }

    /// Payload over the uplink, as copies of what was wanted. What answers say besides (HTTP's headers, the handshakes of
    /// TLS) counts as payload.
    pub fn copies(&self, one_copy_bytes: u64) -> f64 {
        let records = self.uplink_bytes.saturating_sub(self.uplink_segments * HEADER_BYTES);
        records as f64 * TLS_PAYLOAD_SHARE / one_copy_bytes.max(1) as f64
    }
}

#[cfg(test)]
pub(super) fn sample(done_s: &[Option<f64>]) -> Measured {
    let pulls = done_s.iter().enumerate();
    let pulls = pulls.map(|(device, done_s)| PullOutcome { device, release: 0, told_s: 2.0, done_s: *done_s });
    Measured {
        pulls: pulls.collect(),
        uplink_bytes: 10_000_000 + 66 * 500,
        uplink_segments: 500,
        origin_bytes: 10_000_000,
        load: [0.1, 1.0],
        late_s: 0.0,
        busy: 0.5,
        failures: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_device_counts_from_the_release_and_only_whole_ones_count() {
        let mut measured = sample(&[Some(12.0), Some(14.5), None]);
        assert_eq!(measured.last_s(&[2.0]), Some(12.5));
        assert_eq!(measured.done(&[2.0]), 2);
        measured.pulls.push(PullOutcome { device: 1, release: 1, told_s: 3.0, done_s: None });
        assert_eq!(measured.last_s(&[2.0, 3.0]), Some(10.0), "device 1 lacks its second release");
    }

    #[test]
    fn copies_are_without_headers() {
        let headers_off = sample(&[]).copies(10_000_000) / TLS_PAYLOAD_SHARE;
        assert!((headers_off - 1.0).abs() < 1e-9);
    }
}
