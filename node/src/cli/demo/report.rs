//! What the demo showed, and whether it is what was promised.

use std::time::Duration;

use serde::Serialize;

use super::{Order, puller::Pulled, uplink::Uplink};
use crate::{
    admin::types::NodeStatus,
    config::units::{show_bytes, show_duration},
};

/// What one copy of the image over the uplink is at most, in copies: it, and what asking for it costs.
const ORIGIN_COPIES_MAX: f64 = 1.02;

/// What happened.
#[derive(Debug)]
pub(super) struct Report {
    devices: usize,
    order: Order,
    uplink: Uplink,
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
    /// `together` or `one-by-one`.
    order: Order,
    /// Rate of the uplink in bytes a second; null if unlimited.
    uplink_bytes_per_s: Option<u64>,
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
    /// Seconds of the whole pull: `last_s` once more, by the name that stands beside the two of the uplink alone.
    seconds: f64,
    /// Seconds that the uplink alone needs for one copy of the image; null if it is unlimited.
    one_copy_s: Option<f64>,
    /// `last_s` / `one_copy_s`.
    last_over_one_copy: Option<f64>,
    /// Bytes over the uplink if every device pulled from the registry: `devices` x `image_bytes`.
    without_mesh_bytes: u64,
    /// Seconds that the uplink alone needs for these; null if it is unlimited.
    without_mesh_s: Option<f64>,
    /// Whether every device got the image with every digest right.
    verified: bool,
}

impl Report {
    pub(super) const fn new(devices: usize, order: Order, uplink: Uplink) -> Self {
        Self {
            devices,
            order,
            uplink,
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

    /// A device has the image; told in the order in which they have it.
    pub(super) fn finished(&mut self, pulled: Pulled, after: Duration) {
        if self.verified == 0 {
            (self.image_bytes, self.layers, self.first) = (pulled.bytes, pulled.layers, after);
        }
        if pulled.bytes == self.image_bytes {
            self.verified += 1;
        }
        self.last = self.last.max(after);
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

    fn crossed_once(&self) -> bool {
        self.origin_copies() <= ORIGIN_COPIES_MAX
    }

    /// Whether everything is as promised. How often the image crosses the uplink when all begin at the same moment is
    /// shown, not promised: that is for those to judge who read it.
    pub(super) fn holds(&self) -> bool {
        self.all_verified() && (self.order == Order::Together || self.crossed_once())
    }

    /// Bytes over the uplink if every device pulled from the registry.
    const fn without_mesh_bytes(&self) -> u64 {
        self.image_bytes.saturating_mul(self.devices as u64)
    }

    /// How many times as long as the uplink needs for one copy it took until all had the image.
    fn last_over_one_copy(&self) -> Option<f64> {
        let one_copy = self.uplink.time_for(self.image_bytes).filter(|time| !time.is_zero())?;
        Some(self.last.as_secs_f64() / one_copy.as_secs_f64())
    }

    pub(super) fn json(&self) -> Json {
        Json {
            devices: self.devices,
            order: self.order,
            uplink_bytes_per_s: self.uplink.bytes_per_s,
            image_bytes: self.image_bytes,
            origin_bytes: self.origin_bytes,
            origin_copies: self.origin_copies(),
            peer_bytes: self.peer_bytes,
            first_s: self.first.as_secs_f64(),
            last_s: self.last.as_secs_f64(),
            seconds: self.last.as_secs_f64(),
            one_copy_s: self.uplink.time_for(self.image_bytes).as_ref().map(Duration::as_secs_f64),
            last_over_one_copy: self.last_over_one_copy(),
            without_mesh_bytes: self.without_mesh_bytes(),
            without_mesh_s: self.uplink.time_for(self.without_mesh_bytes()).as_ref().map(Duration::as_secs_f64),
            verified: self.all_verified(),
        }
    }

    fn verdict(&self) -> String {
        if !self.all_verified() {
            return format!("Only {} of {} devices got the right image.", self.verified, self.devices);
        }
        let all = format!("All {} devices have the image", self.devices);
        if self.crossed_once() {
            format!("{all}, and it crossed the uplink once.")
        } else {
            format!("{all}, but it crossed the uplink {:.2} times.", self.origin_copies())
        }
    }

    /// For somebody who never heard of any of it.
    pub(super) fn shown(&self) -> String {
        let uplink_alone = |bytes: u64| self.uplink.time_for(bytes).map(show_duration);
        let one_copy =
            uplink_alone(self.image_bytes).map_or_else(String::new, |time| format!("; one copy needs {time}"));
        let (mut first, mut last) = (show_duration(self.first), show_duration(self.last));
        if let Some(times) = self.last_over_one_copy() {
            last.push_str(&format!(", {times:.2} times what the uplink needs for one copy"));
        }
        if self.order == Order::OneByOne {
            first.push_str(", from the registry");
            last.push_str("; all but the first with the registry switched off");
        }
        let mut without = format!("{} copies, {}", self.devices, show_bytes(self.without_mesh_bytes()));
        if let Some(time) = uplink_alone(self.without_mesh_bytes()) {
            without.push_str(&format!(", for which the uplink alone needs {time}"));
        }
        let rows = [
            ("image", format!("{}: {} in {} layers", self.image, show_bytes(self.image_bytes), self.layers)),
            ("uplink", format!("{}{one_copy}", self.uplink.shown())),
            ("over the uplink", format!("{:.2} copies, {}", self.origin_copies(), show_bytes(self.origin_bytes))),
            ("between devices", format!("{} from peer to peer", show_bytes(self.peer_bytes))),
            ("first device", format!("after {first}")),
            ("last device", format!("after {last}")),
            ("without the mesh", without),
            ("checked", format!("every byte against its digest, on {} of {} devices", self.verified, self.devices)),
        ];
        let mut text = format!("\n{}\n\n", self.verdict());
        for (name, value) in rows {
            text.push_str(&format!("  {name:<18}{value}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One copy of its image of 1 MiB takes 2 s.
    const UPLINK: Uplink = Uplink { bytes_per_s: Some(1 << 19) };

    fn report(order: Order, finished: u64, origin_bytes: u64) -> Report {
        let mut report = Report::new(3, order, UPLINK);
        for second in 0..finished {
            report.finished(Pulled { bytes: 1 << 20, objects: 7, layers: 4 }, Duration::from_secs(2 + second));
        }
        report.origin_bytes = origin_bytes;
        report
    }

    #[test]
    fn it_holds_only_if_all_of_it_is_true() {
        for order in [Order::Together, Order::OneByOne] {
            assert!(report(order, 3, 1 << 20).holds());
            assert!(report(order, 3, (1 << 20) * 102 / 100).holds());
            assert!(!report(order, 2, 1 << 20).holds());
            assert!(!Report::new(2, order, UPLINK).holds());
            let more = report(order, 3, (1 << 20) * 103 / 100);
            assert_eq!(more.holds(), order == Order::Together);
            assert!(more.json().verified);
        }
    }

    #[test]
    fn a_device_with_another_image_does_not_count() {
        let mut report = report(Order::Together, 2, 1 << 20);
        report.finished(Pulled { bytes: 1, objects: 7, layers: 4 }, Duration::from_secs(9));
        assert!(!report.json().verified && !report.holds());
    }

    #[test]
    fn the_last_line_has_what_scripts_read() {
        let json = serde_json::to_value(report(Order::Together, 3, 3 << 19).json()).unwrap();
        let expected = serde_json::json!({
            "devices": 3, "order": "together", "uplink_bytes_per_s": 1 << 19, "image_bytes": 1 << 20,
            "origin_bytes": 3 << 19, "origin_copies": 1.5, "peer_bytes": 0, "first_s": 2.0, "last_s": 4.0,
            "seconds": 4.0, "one_copy_s": 2.0, "last_over_one_copy": 2.0, "without_mesh_bytes": 3 << 20,
            "without_mesh_s": 6.0, "verified": true,
        });
        assert_eq!(json, expected);
        let nothing = Report::new(3, Order::OneByOne, Uplink { bytes_per_s: None }).json();
        let nothing = serde_json::to_value(nothing).unwrap();
        assert_eq!((&nothing["order"], &nothing["verified"]), (&"one-by-one".into(), &false.into()));
        for name in ["uplink_bytes_per_s", "one_copy_s", "last_over_one_copy", "without_mesh_s"] {
            assert!(nothing[name].is_null(), "{name}");
        }
    }

    #[test]
    fn the_summary_begins_with_the_verdict_and_says_what_was_saved() {
        let text = report(Order::Together, 3, 1 << 20).shown();
        assert!(text.starts_with("\nAll 3 devices have the image, and it crossed the uplink once.\n"), "{text}");
        for line in [
            "  over the uplink   1.00 copies, 1.00 MiB\n",
            "  last device       after 4.00 s, 2.00 times what the uplink needs for one copy\n",
            "  without the mesh  3 copies, 3.00 MiB, for which the uplink alone needs 6.00 s\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(report(Order::Together, 3, 3 << 20).shown().contains("but it crossed the uplink 3.00 times"));
        assert!(report(Order::Together, 2, 1 << 20).shown().contains("Only 2 of 3 devices"));
        assert!(report(Order::OneByOne, 3, 1 << 20).shown().contains("with the registry switched off"));
    }

    #[test]
    fn without_a_rate_no_times_are_compared() {
        let mut report = report(Order::Together, 3, 1 << 20);
        report.uplink = Uplink { bytes_per_s: None };
        let text = report.shown();
        assert!(text.contains("uplink            unlimited\n") && !text.contains("needs"), "{text}");
    }
}
