//! What the simulator says of a scenario, as the lab will play it.
//!
//! Invariant: the prediction differs from `layermesh-sim run` in nothing but what is said here: nodes have met before the
//! first release ([`settled`]), and what the lab's kernel counts as rate includes headers ([`PAYLOAD_SHARE`]).

use crate::{
    fleet::{self, Settings},
    scenario::Scenario,
};

/// Payload of what crosses an Ethernet link. 1448 of 1514 bytes: a full segment of TCP with time stamps over IPv4, in
/// its frame as the kernel counts it; and of that 16384 of 16406: a full TLS record.
pub const PAYLOAD_SHARE: f64 = 1448.0 / 1514.0 * (16384.0 / 16406.0);

/// What the simulator says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Seconds from the release until the last device had it.
    pub last_s: Option<f64>,
    /// Payload over the uplink, as copies of what was wanted.
    pub copies: f64,
    /// Devices that got all.
    pub done: u32,
    /// Devices that were told to get something.
    pub wanting: u32,
    /// Bytes of one copy.
    pub one_copy_bytes: u64,
}

/// The scenario with all that happens delayed by the time that nodes need to find each other: the lab begins when they
/// have.
pub fn settled(scenario: &Scenario) -> Scenario {
    let mut settled = scenario.clone();
    let lead = scenario.sites.iter().map(|site| site.lan.discovery).max().unwrap_or_default();
    settled.releases.iter_mut().for_each(|release| release.at += lead);
    settled.faults.iter_mut().for_each(|fault| fault.at += lead);
    settled.limit += lead;
    settled
}

/// The scenario with links that carry headers.
fn with_headers(scenario: &Scenario) -> Scenario {
    let mut slower = scenario.clone();
    let payload = |rate: u64| (rate as f64 * PAYLOAD_SHARE) as u64;
    for site in &mut slower.sites {
        site.uplink.bytes_per_s = payload(site.uplink.bytes_per_s);
        site.lan.bytes_per_s = payload(site.lan.bytes_per_s);
    }
    slower
}

/// Runs the simulator on a [`settled`] scenario.
pub fn predict(settled: &Scenario, seed: u64) -> Prediction {
    let settings = Settings { seed, ..Settings::of(settled) };
    let fleet = fleet::run(&with_headers(settled), &settings, |_, _| {}).fleet;
    Prediction {
        last_s: fleet.last_s,
        copies: fleet.copies,
        done: fleet.done,
        wanting: fleet.wanting,
        one_copy_bytes: fleet.one_copy_bytes,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn headers_take_their_share_of_the_uplink() {
        let text = "[[site]]\nuplink = { rate = \"8mbit\", latency = \"1ms\" }\ndevices = 2\n\
                    [[image]]\nname = \"a:1\"\nsize = \"10MB\"\n[[release]]\nimage = \"a:1\"\n";
        let scenario = settled(&Scenario::parse("test", text).unwrap());
        let last_s = predict(&scenario, 1).last_s.unwrap();
        assert!((last_s - 10.0 / PAYLOAD_SHARE).abs() < 0.4, "{last_s}");
    }
}
