//! What the demo showed, and whether it is what was promised.

use std::time::Duration;

use serde::Serialize;

use super::puller::Pulled;
use crate::{
    admin::types::NodeStatus,
    config::units::{show_bytes, show_duration},
};

/// Copies of the image over the uplink at most: one, and what asking for it costs.
const ORIGIN_COPIES_MAX: f64 = 1.02;

/// What happened.
#[derive(Debug)]
pub(super) struct Report {
    devices: usize,
    /// What was shared, for people.
    pub(super) image: String,
    image_bytes: u64,
    layers: usize,
    /// Devices that pulled the image, all digests right.
    verified: usize,
    /// Bytes that the registry sent.
    pub(super) origin_bytes: u64,
    peer_bytes: u64,
    first: Duration,
    last: Duration,
}

/// The report as the last line of `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct Json {
    /// Number of devices.
    devices: usize,
    /// Bytes of the image that each device pulls.
    image_bytes: u64,
    /// Bytes of blobs and manifests that the registry sent.
    origin_bytes: u64,
    /// `origin_bytes` / `image_bytes`.
    origin_copies: f64,
    /// Bytes that devices got from each other.
    peer_bytes: u64,
    /// Seconds from the first pull's begin until the first device had the image.
    first_s: f64,
    /// Seconds from the first pull's begin until the last device had the image.
    last_s: f64,
    /// Whether every device got the image with every digest right.
    verified: bool,
}

impl Report {
    pub(super) const fn new(devices: usize) -> Self {
        Self {
            devices,
            image: String::new(),
            image_bytes: 0,
            layers: 0,
            verified: 0,
            origin_bytes: 0,
            peer_bytes: 0,
            first: Duration::ZERO,
            last: Duration::ZERO,
        }
    }

    /// The first device has the image.
    pub(super) fn first(&mut self, pulled: Pulled, after: Duration) {
        (self.image_bytes, self.layers, self.first) = (pulled.bytes, pulled.layers, after);
        self.another(pulled, after);
    }

    /// A device has the image.
    pub(super) fn another(&mut self, pulled: Pulled, after: Duration) {
        if pulled.bytes == self.image_bytes {
            self.verified += 1;
        }
        self.last = after;
    }

    /// Adds what a device's node says of its bytes.
    pub(super) fn count(&mut self, status: &NodeStatus) {
        self.peer_bytes += status.bytes_from_peers;
    }

    fn origin_copies(&self) -> f64 {
        if self.image_bytes == 0 { 0.0 } else { self.origin_bytes as f64 / self.image_bytes as f64 }
    }

    fn all_verified(&self) -> bool {
        self.verified == self.devices
    }

    /// Whether everything is as promised.
    pub(super) fn holds(&self) -> bool {
        self.all_verified() && self.origin_copies() <= ORIGIN_COPIES_MAX
    }

    pub(super) fn json(&self) -> Json {
        Json {
            devices: self.devices,
            image_bytes: self.image_bytes,
            origin_bytes: self.origin_bytes,
            origin_copies: self.origin_copies(),
            peer_bytes: self.peer_bytes,
            first_s: self.first.as_secs_f64(),
            last_s: self.last.as_secs_f64(),
            verified: self.all_verified(),
        }
    }

    /// For somebody who never heard of any of it.
    pub(super) fn shown(&self) -> String {
        let others = self.devices - 1;
        let without = self.image_bytes.saturating_mul(self.devices as u64);
        let verdict = if self.holds() {
            format!("All {} devices have the image, and it crossed the uplink once.", self.devices)
        } else if self.all_verified() {
            format!(
                "All {} devices have the image, but it crossed the uplink {:.2} times.",
                self.devices,
                self.origin_copies()
            )
        } else {
            format!("Only {} of {} devices got the right image.", self.verified, self.devices)
        };
        let rows = [
            ("image", format!("{}: {} in {} layers", self.image, show_bytes(self.image_bytes), self.layers)),
            (
                "over the uplink",
                format!(
                    "{}, {:.2} copies; without the mesh {} copies, {}",
                    show_bytes(self.origin_bytes),
                    self.origin_copies(),
                    self.devices,
                    show_bytes(without),
                ),
            ),
            ("between devices", format!("{} from peer to peer", show_bytes(self.peer_bytes))),
            ("first device", format!("after {}, from the registry", show_duration(self.first))),
            (
                "last device",
                format!(
                    "after {}; {others} of {} devices pulled with the registry switched off",
                    show_duration(self.last),
                    self.devices
                ),
            ),
            ("checked", format!("every byte against its digest, on {} of {} devices", self.verified, self.devices)),
        ];
        let mut text = format!("\n{verdict}\n\n");
        for (name, value) in rows {
            text.push_str(&format!("  {name:<17}{value}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(others: usize, origin_bytes: u64) -> Report {
        let mut report = Report::new(3);
        let pulled = Pulled { bytes: 1 << 20, objects: 7, layers: 4 };
        report.first(pulled, Duration::from_secs(1));
        for second in 0..others {
            report.another(pulled, Duration::from_secs(2 + second as u64));
        }
        report.origin_bytes = origin_bytes;
        report
    }

    #[test]
    fn it_holds_only_if_all_of_it_is_true() {
        assert!(report(2, 1 << 20).holds());
        assert!(report(2, (1 << 20) * 102 / 100).holds());
        assert!(!report(2, (1 << 20) * 103 / 100).holds());
        assert!(!report(1, 1 << 20).holds());
        assert!(!Report::new(2).holds());
    }

    #[test]
    fn the_last_line_has_what_scripts_read() {
        let json = serde_json::to_value(report(2, 1 << 20).json()).unwrap();
        let expected = serde_json::json!({
            "devices": 3, "image_bytes": 1 << 20, "origin_bytes": 1 << 20, "origin_copies": 1.0, "peer_bytes": 0,
            "first_s": 1.0, "last_s": 3.0, "verified": true,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_summary_begins_with_the_verdict() {
        let text = report(2, 1 << 20).shown();
        assert!(text.starts_with("\nAll 3 devices have the image, and it crossed the uplink once.\n"), "{text}");
        assert!(text.contains("1.00 MiB, 1.00 copies; without the mesh 3 copies, 3.00 MiB"), "{text}");
        assert!(report(1, 1 << 20).shown().contains("Only 2 of 3 devices"));
    }
}
