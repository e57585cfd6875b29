//! What will happen at one site: everything that a scenario leaves to chance, decided before the site runs.
//!
//! Invariant: pure. The same scenario, seed and number of the site give the same plan, whatever other sites do, so sites
//! run in any order and on any thread.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use crate::scenario::{Daily, Devices, Fault, FaultKind, Release, Scenario, Scope, Site};

/// Minutes of a day.
const DAY_MINUTES: u64 = 24 * 60;

/// One site of a kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SitePlan {
    /// Of its kind in the scenario.
    pub(crate) kind: usize,
    /// Kind and number.
    pub(crate) name: String,
    /// Of the world.
    pub(crate) seed: u64,
    pub(crate) devices: Vec<DevicePlan>,
    /// In order of time, and of planning.
    pub(crate) steps: Vec<(Duration, Step)>,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DevicePlan {
    /// Of its group in the kind of site.
    pub(crate) group: usize,
    /// Group and number.
    pub(crate) name: String,
    /// By how many seconds its wall clock is ahead.
    pub(crate) skew_s: i64,
}

/// What happens at a site at some time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// A device is told to get the image of a release.
    Tell { device: usize, release: usize },
    /// A fault begins at these devices; none for one that befalls the site.
    Begin { fault: usize, devices: Vec<usize> },
    /// It is over.
    End { fault: usize, devices: Vec<usize> },
    /// The uplink comes or goes, as it does every day.
    Uplink { up: bool },
    /// A device comes home or leaves, as it does every day.
    Home { device: usize, home: bool },
}

impl SitePlan {
    /// The plan of the `number`th site (from 0) of the whole scenario; `None` if there are fewer.
    pub(crate) fn new(scenario: &Scenario, seed: u64, number: usize) -> Option<Self> {
        let (kind, within) = kind_of(scenario, number)?;
        let site = &scenario.sites[kind];
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let name = if site.count == 1 { site.name.clone() } else { format!("{}-{}", site.name, within + 1) };
        let mut plan =
            Self { kind, name, seed: random.next_u64(), devices: devices(site, &mut random), steps: Vec::new() };
        plan.daily(scenario, site);
        for (index, release) in scenario.releases.iter().enumerate() {
            plan.release(site, index, release, &mut random);
        }
        for (index, fault) in scenario.faults.iter().enumerate() {
            plan.fault(site, index, fault, &mut random);
        }
        // Stable: what was planned first comes first.
        plan.steps.sort_by_key(|(at, _)| *at);
        Some(plan)
    }

    fn daily(&mut self, scenario: &Scenario, site: &Site) {
        for (at, up) in changes(&site.uplink.up, scenario.start_minute, scenario.limit) {
            self.steps.push((at, Step::Uplink { up }));
        }
        for (device, plan) in self.devices.iter().enumerate() {
            let home = &site.devices[plan.group].home;
            for (at, home) in changes(home, scenario.start_minute, scenario.limit) {
                self.steps.push((at, Step::Home { device, home }));
            }
        }
    }

    fn release(&mut self, site: &Site, index: usize, release: &Release, random: &mut ChaCha8Rng) {
        for device in self.chosen(site, &release.scope, random) {
            let at = release.at + up_to(release.spread, random);
            self.steps.push((at, Step::Tell { device, release: index }));
        }
    }

    fn fault(&mut self, site: &Site, index: usize, fault: &Fault, random: &mut ChaCha8Rng) {
        let devices = self.chosen(site, &fault.scope, random);
        if devices.is_empty() {
            return;
        }
        let groups: Vec<Vec<usize>> = match fault.kind {
            FaultKind::UplinkCut | FaultKind::UplinkSilent | FaultKind::Unranged => vec![Vec::new()],
            FaultKind::Partition => vec![devices],
            _ => devices.into_iter().map(|device| vec![device]).collect(),
        };
        for devices in groups {
            let at = fault.at + up_to(fault.spread, random);
            self.steps.push((at, Step::Begin { fault: index, devices: devices.clone() }));
            if let Some(lasts) = fault.lasts {
                self.steps.push((at + lasts, Step::End { fault: index, devices }));
            }
        }
    }

    /// The devices of a scope at this site, in order.
    fn chosen(&self, site: &Site, scope: &Scope, random: &mut ChaCha8Rng) -> Vec<usize> {
        // Drawn whether it matters or not, so that another scope does not change what comes after.
        let here = chance(scope.site_share, random);
        if !here || !names(&scope.sites, &site.name) {
            return Vec::new();
        }
        let fits = |device: &usize| names(&scope.devices, &site.devices[self.devices[*device].group].name);
        let mut among: Vec<usize> = (0..self.devices.len()).filter(fits).collect();
        if among.is_empty() {
            return among;
        }
        let count = ((among.len() as f64 * scope.share).round() as usize).clamp(1, among.len());
        // The first of a shuffle.
        for place in 0..count {
            let other = place + random.next_u64() as usize % (among.len() - place);
            among.swap(place, other);
        }
        among.truncate(count);
        among.sort_unstable();
        among
    }
}

/// The kind of a site and its number within the kind.
fn kind_of(scenario: &Scenario, number: usize) -> Option<(usize, usize)> {
    let mut within = number;
    for (kind, site) in scenario.sites.iter().enumerate() {
        let count = site.count as usize;
        if within < count {
            return Some((kind, within));
        }
        within -= count;
    }
    None
}

fn devices(site: &Site, random: &mut ChaCha8Rng) -> Vec<DevicePlan> {
    let group = |(index, group): (usize, &Devices)| {
        let skew_max = i64::try_from(group.clock_skew.as_secs()).unwrap_or(i64::MAX / 4);
        let one = |number: u32| {
            let name = if group.count == 1 { group.name.clone() } else { format!("{}-{}", group.name, number + 1) };
            (index, name, skew_max)
        };
        (0..group.count).map(one).collect::<Vec<_>>()
    };
    let all = site.devices.iter().enumerate().flat_map(group);
    all.map(|(group, name, skew_max)| {
        let span = u64::try_from(skew_max).unwrap_or(0).saturating_mul(2).saturating_add(1);
        let skew_s = i64::try_from(random.next_u64() % span).unwrap_or(0) - skew_max;
        DevicePlan { group, name, skew_s }
    })
    .collect()
}

fn names(allowed: &[String], name: &str) -> bool {
    allowed.is_empty() || allowed.iter().any(|allowed| allowed == name)
}

fn chance(share: f64, random: &mut ChaCha8Rng) -> bool {
    let drawn = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    drawn < share
}

fn up_to(time: Duration, random: &mut ChaCha8Rng) -> Duration {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.next_u64() % nanos.saturating_add(1).max(1))
}

/// When something that is there at these times of every day comes (`true`) and goes, from the start until `limit`. The
/// first is at the start and says how it begins; none if it is always there.
pub(crate) fn changes(times: &[Daily], start_minute: u16, limit: Duration) -> Vec<(Duration, bool)> {
    if times.is_empty() {
        return Vec::new();
    }
    let minutes = limit.as_secs().div_ceil(60).min(400 * DAY_MINUTES);
    let is_in = |minute: u64| {
        let of_day = (u64::from(start_minute) + minute) % DAY_MINUTES;
        times.iter().any(|daily| {
            let (from, to) = (u64::from(daily.from), u64::from(daily.to));
            if from <= to { (from..to).contains(&of_day) } else { of_day >= from || of_day < to }
        })
    };
    let mut found = vec![(Duration::ZERO, is_in(0))];
    for minute in 1..=minutes {
        let now = is_in(minute);
        if found.last().is_some_and(|(_, before)| *before != now) {
            found.push((Duration::from_secs(minute * 60), now));
        }
    }
    found
}

/// How long `bytes` take over an uplink from `at` on, if it is used to the full whenever it is there.
pub(crate) fn uplink_only(
    bytes: u64,
    bytes_per_s: u64,
    times: &[Daily],
    start_minute: u16,
    at: Duration,
    limit: Duration,
) -> Duration {
    let needed = Duration::from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64);
    let changes = changes(times, start_minute, limit.max(at) + Duration::from_secs(60 * DAY_MINUTES));
    if changes.is_empty() {
        return needed;
    }
    let mut left = needed;
    for (index, (from, up)) in changes.iter().enumerate() {
        let until = changes.get(index + 1).map_or(Duration::MAX, |(next, _)| *next);
        let from = (*from).max(at);
        if !up || until <= from {
            continue;
        }
        if until - from >= left {
            return from + left - at;
        }
        left -= until - from;
    }
    limit.saturating_sub(at) + left
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minute: u64, there: bool) -> (Duration, bool) {
        (Duration::from_secs(minute * 60), there)
    }

    #[test]
    fn times_of_the_day_come_and_go_also_over_midnight() {
        let night = [Daily { from: 23 * 60, to: 60 }];
        let start = 22 * 60;
        let day = DAY_MINUTES;
        assert_eq!(
            changes(&night, start, 2 * 1440 * MINUTE),
            [at(0, false), at(60, true), at(180, false), at(60 + day, true), at(180 + day, false)]
        );
        assert_eq!(changes(&night, 0, 30 * MINUTE), [at(0, true)]);
        assert_eq!(changes(&[], 0, MINUTE), []);
    }

    #[test]
    fn an_uplink_that_is_away_counts_only_while_it_is_there() {
        let hour = [Daily { from: 60, to: 120 }];
        let limit = 10 * 1440 * MINUTE;
        let of = |bytes| uplink_only(bytes, 1000, &hour, 0, Duration::ZERO, limit).as_secs();
        assert_eq!(of(60_000), 3600 + 60);
        assert_eq!(of(3_600_000), 7200);
        assert_eq!(of(3_660_000), 86_400 + 3600 + 60, "the rest on the next day");
        assert_eq!(uplink_only(5000, 1000, &[], 0, MINUTE, limit).as_secs(), 5);
    }
}
