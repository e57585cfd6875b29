//! What the simulator says of a scenario, as the lab will play it.
//!
//! Who fetches what follows from the nodes' identities, which are new in each lab; so the scenario is simulated several
//! times, with all that its plan leaves to chance alike and the identities dealt out anew. The prediction is their range.
//!
//! Invariant: the prediction differs from `layermesh-sim run` in nothing but what is said here: that range; nodes have met
//! before the first release ([`settled`]); what the lab's kernel counts as rate includes headers ([`PAYLOAD_SHARE`]);
//! pieces that were broken off while they came count as bytes over the uplink.

use super::outcome::TLS_PAYLOAD_SHARE;
use crate::{
    fleet::{
        Settings,
        plan::{SitePlan, Step},
        site, tally,
    },
    scenario::Scenario,
};

/// Payload of what crosses an Ethernet link. 1448 of 1514 bytes: a full segment of TCP with time stamps over IPv4, in
/// its frame as the kernel counts it; and of that what is payload of TLS.
pub const PAYLOAD_SHARE: f64 = 1448.0 / 1514.0 * TLS_PAYLOAD_SHARE;
/// Times that a scenario is simulated. 15: a second of work, and a share of identities of one in ten is hardly missed.
const RUNS: usize = 15;

/// What the simulator says.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Seconds from the release until the last device had it.
    pub last_s: Range,
    /// Payload over the uplink, as copies of what was wanted.
    pub copies: Range,
    /// Devices that got all.
    pub done: u32,
    /// Devices that were told to get something.
    pub wanting: u32,
    /// Bytes of one copy.
    pub one_copy_bytes: u64,
}

/// What one figure is in all runs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Range {
    /// The lowest.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The highest.
    pub high: f64,
}

impl Range {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        Self { low: at(0), median: at(figures.len() / 2), high: at(figures.len().saturating_sub(1)) }
    }

    /// How far a figure lies outside: below if negative.
    pub(super) fn outside(&self, figure: f64) -> f64 {
        figure - figure.clamp(self.low, self.high)
    }
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

/// The same plan for devices whose identities were dealt out anew, and with other chance in the world.
fn dealt(plan: &SitePlan, run: usize) -> SitePlan {
    let count = plan.devices.len().max(1);
    let moved = |device: usize| (device + run) % count;
    let mut dealt = plan.clone();
    dealt.seed = plan.seed.wrapping_add(run as u64);
    for (device, planned) in plan.devices.iter().enumerate() {
        if let Some(place) = dealt.devices.get_mut(moved(device)) {
            place.clone_from(planned);
        }
    }
    for (_, step) in &mut dealt.steps {
        match step {
            Step::Tell { device, .. } | Step::Home { device, .. } => *device = moved(*device),
            Step::Begin { devices, .. } | Step::End { devices, .. } => {
                devices.iter_mut().for_each(|device| *device = moved(*device));
            }
            Step::Uplink { .. } => {}
        }
    }
    dealt
}

/// Runs the simulator on a [`settled`] scenario of one site. `None` if it has no site.
pub fn predict(settled: &Scenario, seed: u64) -> Option<Prediction> {
    let settings = Settings::of(settled);
    let scenario = with_headers(settled);
    let plan = SitePlan::new(&scenario, seed, 0)?;
    let (mut last_s, mut copies, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let outcome = site::run(&scenario, &dealt(&plan, run), &settings);
        let broken_off = outcome.broken_off_bytes;
        let fleet = tally::report(&scenario, seed, vec![outcome]).fleet;
        last_s.extend(fleet.last_s);
        copies.push((fleet.origin_bytes + broken_off) as f64 / fleet.one_copy_bytes.max(1) as f64);
        totals.push(fleet);
    }
    Some(Prediction {
        last_s: Range::of(last_s),
        copies: Range::of(copies),
        done: totals.iter().map(|fleet| fleet.done).min()?,
        wanting: totals.first()?.wanting,
        one_copy_bytes: totals.first()?.one_copy_bytes,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = "[[site]]\nuplink = { rate = \"8mbit\", latency = \"1ms\" }\ndevices = 3\n\
                        [[image]]\nname = \"a:1\"\nsize = \"10MB\"\n[[release]]\nimage = \"a:1\"\n";

    fn scenario(more: &str) -> Scenario {
        settled(&Scenario::parse("test", &format!("{TEXT}{more}")).unwrap())
    }

    #[test]
    fn headers_take_their_share_of_the_uplink() {
        let last_s = predict(&scenario(""), 1).unwrap().last_s;
        assert!(last_s.low <= last_s.median && last_s.median <= last_s.high);
        assert!((last_s.median - 10.0 / PAYLOAD_SHARE).abs() < 0.4, "{last_s:?}");
    }

    #[test]
    fn what_is_dealt_anew_are_identities_and_not_times() {
        let crash = "spread = \"5s\"\n[[fault]]\nkind = \"crash\"\nat = \"3s\"\nlasts = \"2s\"\nshare = 0.3\n";
        let plan = SitePlan::new(&scenario(crash), 1, 0).unwrap();
        let other = dealt(&plan, 2);
        let times = |plan: &SitePlan| plan.steps.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(times(&plan), times(&other));
        let crashed = |plan: &SitePlan| {
            let begins = plan.steps.iter().find_map(|(_, step)| match step {
                Step::Begin { devices, .. } => devices.first().copied(),
                _ => None,
            });
            let device = begins.unwrap();
            (device, plan.devices[device].name.clone())
        };
        assert_ne!(crashed(&plan).0, crashed(&other).0);
        assert_eq!(crashed(&plan).1, crashed(&other).1, "it is the same device");
    }

    #[test]
    fn within_the_range_nothing_is_outside() {
        let range = Range::of(vec![3.0, 1.0, 2.0]);
        assert_eq!(range, Range { low: 1.0, median: 2.0, high: 3.0 });
        assert_eq!([range.outside(2.5), range.outside(0.5), range.outside(3.25)], [0.0, -0.5, 0.25]);
    }
}
