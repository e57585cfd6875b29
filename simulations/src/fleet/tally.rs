//! What the sites showed, as a report, and the scenario's bounds held against it.
//!
//! Invariant: pure; sites in their order.

use std::time::Duration;

use super::{plan::Step, pulls::Pull, site::Outcome};
use crate::{
    report::{Broken, FaultSpan, POINTS_MAX, ReleaseMark, Report, SLOWEST_MAX, SiteReport, SlowDevice, Totals, units},
    scenario::{FaultKind, Release, Scenario, Scope},
};

/// Up to so many times what the uplink alone needs, nothing else is named as a device's reason: what words and the last piece take.
const AS_FAST_AS_UPLINK: f64 = 1.1;
/// Devices that a broken liveness rule names.
const NAMED_MAX: usize = 5;

/// The report of a run.
pub(crate) fn report(scenario: &Scenario, seed: u64, outcomes: Vec<Outcome>) -> Report {
    let sites: Vec<SiteReport> = outcomes.iter().map(|outcome| site(scenario, outcome)).collect();
    let broken = outcomes.iter().zip(&sites).flat_map(|(outcome, site)| broken(scenario, outcome, site)).collect();
    let ended = outcomes.iter().map(|outcome| outcome.ended).max().unwrap_or_default();
    Report {
        scenario: scenario.name.clone(),
        about: scenario.about.clone(),
        seed,
        ended_s: ended.as_secs_f64(),
        events: outcomes.iter().map(|outcome| outcome.events).sum(),
        broken,
        fleet: fleet(scenario, &outcomes, &sites),
        completion: completion(outcomes.iter()),
        releases: releases(scenario),
        faults: faults(scenario, &outcomes),
        slowest: slowest(scenario, &outcomes),
        sites,
    }
}

/// Seconds from a device's releases until it had them, the longest counts; `None` if it never had one.
fn took(scenario: &Scenario, outcome: &Outcome, device: usize) -> Option<f64> {
    let took = |pull: &Pull| Some((pull.done? - scenario.releases[pull.release].at).as_secs_f64());
    let times: Option<Vec<f64>> = outcome.pulls[device].iter().map(took).collect();
    times?.into_iter().reduce(f64::max)
}

fn wanting(outcome: &Outcome) -> impl Iterator<Item = usize> + '_ {
    (0..outcome.pulls.len()).filter(|device| !outcome.pulls[*device].is_empty())
}

fn spread(mut times: Vec<f64>) -> (Option<f64>, Option<f64>, Option<f64>) {
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len().saturating_sub(1) / 2).copied();
    (times.first().copied(), median, times.last().copied())
}

fn sum<const N: usize>(counts: &[[u64; N]], column: usize) -> u64 {
    counts.iter().map(|counts| counts[column]).sum()
}

fn ratio(one: u64, other: u64) -> f64 {
    if other == 0 { 0.0 } else { one as f64 / other as f64 }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn site(scenario: &Scenario, outcome: &Outcome) -> SiteReport {
    let times: Vec<f64> = wanting(outcome).filter_map(|device| took(scenario, outcome, device)).collect();
    let origin_bytes = sum(&outcome.bytes, 0);
    let done = count(times.len());
    let (first_s, median_s, last_s) = spread(times);
    let totals = Totals {
        devices: count(outcome.pulls.len()),
        wanting: count(wanting(outcome).count()),
        done,
        one_copy_bytes: outcome.one_copy_bytes,
        origin_bytes,
        peer_bytes: sum(&outcome.bytes, 1),
        wasted_bytes: sum(&outcome.bytes, 2),
        control_sent_bytes: sum(&outcome.control, 0),
        control_received_bytes: sum(&outcome.control, 1),
        copies: ratio(origin_bytes, outcome.one_copy_bytes),
        first_s,
        median_s,
        last_s,
        uplink_only_s: outcome.uplink_only.as_secs_f64(),
    };
    SiteReport {
        name: outcome.plan.name.clone(),
        kind: scenario.sites[outcome.plan.kind].name.clone(),
        totals,
        uplink: outcome.uplink.points(outcome.ended, origin_bytes),
        completion: completion([outcome].into_iter()),
    }
}

fn fleet(scenario: &Scenario, outcomes: &[Outcome], sites: &[SiteReport]) -> Totals {
    let mut fleet = Totals::sum(sites.iter().map(|site| &site.totals));
    fleet.copies = ratio(fleet.origin_bytes, fleet.one_copy_bytes);
    let times = outcomes
        .iter()
        .flat_map(|outcome| wanting(outcome).filter_map(|device| took(scenario, outcome, device)).collect::<Vec<_>>());
    (fleet.first_s, fleet.median_s, fleet.last_s) = spread(times.collect());
    fleet
}

/// Devices that had all they were told to get, against time.
fn completion<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Vec<(f64, u32)> {
    let finish = |pulls: &Vec<Pull>| {
        let done: Option<Vec<Duration>> = pulls.iter().map(|pull| pull.done).collect();
        done?.into_iter().max()
    };
    let mut finishes: Vec<Duration> = outcomes.flat_map(|outcome| outcome.pulls.iter().filter_map(finish)).collect();
    finishes.sort_unstable();
    let mut points = vec![(0.0, 0)];
    points.extend(finishes.iter().enumerate().map(|(index, at)| (at.as_secs_f64(), count(index + 1))));
    points.dedup_by(|later, earlier| {
        let same = later.0.to_bits() == earlier.0.to_bits();
        if same {
            earlier.1 = later.1;
        }
        same
    });
    let step = points.len().div_ceil(POINTS_MAX - 1).max(1);
    let last = points.last().copied();
    let mut kept: Vec<(f64, u32)> = points.into_iter().step_by(step).collect();
    kept.extend(last.filter(|last| kept.last() != Some(last)));
    kept
}

fn broken(scenario: &Scenario, outcome: &Outcome, site: &SiteReport) -> Vec<Broken> {
    let rule = |rule: &str, what: String, recent: Vec<String>| Broken {
        rule: rule.to_owned(),
        site: site.name.clone(),
        what,
        recent,
    };
    let mut found = Vec::new();
    if let Some(violation) = &outcome.violation {
        let at = Duration::from_nanos(violation.at.as_nanos()).as_secs_f64();
        let name = outcome.plan.devices.get(violation.node).map_or("?", |device| &device.name);
        found.push(rule("safety", format!("at {at:.3} s, {name}: {}", violation.what), violation.recent.clone()));
        return found;
    }
    if !outcome.unfinished.is_empty() {
        let named = outcome.unfinished.iter().take(NAMED_MAX).map(|device| outcome.plan.devices[*device].name.as_str());
        let names = named.collect::<Vec<_>>().join(", ");
        let more = outcome.unfinished.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let limit = scenario.limit.as_secs();
        found.push(rule("liveness", format!("not done after {limit} s: {names}{more}"), Vec::new()));
    }
    let totals = &site.totals;
    if let Some(max) = scenario.bounds.copies_max.filter(|max| totals.copies > *max) {
        found.push(rule("copies", format!("{:.3} copies, at most {max} were expected", totals.copies), Vec::new()));
    }
    if let (Some(max), Some(last)) = (scenario.bounds.last_max, totals.last_by_uplink())
        && last > max
    {
        let what = format!("the last device took {last:.3} times what the uplink needs, at most {max} was expected");
        found.push(rule("last", what, Vec::new()));
    }
    found
}

/// What was rolled out, in order of time.
fn releases(scenario: &Scenario) -> Vec<ReleaseMark> {
    let whom = |scope: &Scope| {
        let names: Vec<&str> = scope.sites.iter().chain(&scope.devices).map(String::as_str).collect();
        let share = scope.site_share * scope.share;
        let share = if share < 1.0 { format!("{:.0} % of ", share * 100.0) } else { String::new() };
        format!("{share}{}", if names.is_empty() { "all".to_owned() } else { names.join(", ") })
    };
    let mark = |release: &Release| ReleaseMark {
        what: format!("{} to {}", release.image, whom(&release.scope)),
        at_s: release.at.as_secs_f64(),
        spread_s: release.spread.as_secs_f64(),
    };
    let mut marks: Vec<ReleaseMark> = scenario.releases.iter().map(mark).collect();
    marks.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    marks
}

/// Each fault once, from its first beginning to its last end, wherever it was.
fn faults(scenario: &Scenario, outcomes: &[Outcome]) -> Vec<FaultSpan> {
    let mut spans = Vec::new();
    for (index, fault) in scenario.faults.iter().enumerate() {
        let steps = || outcomes.iter().flat_map(|outcome| &outcome.plan.steps);
        let begins = steps().filter_map(|(at, step)| match step {
            Step::Begin { fault, devices } if *fault == index => Some((*at, devices.len())),
            _ => None,
        });
        let begins: Vec<_> = begins.collect();
        let Some(from) = begins.iter().map(|(at, _)| *at).min() else { continue };
        let to = steps().filter_map(|(at, step)| match step {
            Step::End { fault, .. } if *fault == index => Some(*at),
            _ => None,
        });
        let devices: usize = begins.iter().map(|(_, devices)| devices).sum();
        let befallen = if devices == 0 { format!("{} sites", begins.len()) } else { format!("{devices} devices") };
        spans.push(FaultSpan {
            what: format!("{}: {befallen}", fault.kind.name()),
            from_s: from.as_secs_f64(),
            to_s: to.max().map(|to| to.as_secs_f64()),
        });
    }
    spans.sort_by(|one, other| one.from_s.total_cmp(&other.from_s));
    spans
}

fn slowest(scenario: &Scenario, outcomes: &[Outcome]) -> Vec<SlowDevice> {
    let all = outcomes.iter().enumerate().flat_map(|(number, outcome)| {
        wanting(outcome).map(move |device| (took(scenario, outcome, device), number, device)).collect::<Vec<_>>()
    });
    let mut all: Vec<_> = all.collect();
    // Who never had it took longest; then in the sites' order.
    all.sort_by(|one, other| {
        let key = |took: Option<f64>| took.unwrap_or(f64::INFINITY);
        key(other.0).total_cmp(&key(one.0)).then((one.1, one.2).cmp(&(other.1, other.2)))
    });
    let named = all.into_iter().take(SLOWEST_MAX).map(|(took_s, number, device)| {
        let outcome = &outcomes[number];
        let [origin_bytes, peer_bytes, _] = outcome.bytes[device];
        SlowDevice {
            name: format!("{}/{}", outcome.plan.name, outcome.plan.devices[device].name),
            took_s,
            origin_bytes,
            peer_bytes,
            why: why(scenario, outcome, device).unwrap_or_else(|| beside_uplink(took_s, outcome.uplink_only)),
        }
    });
    named.collect()
}

/// Of a device that nothing befell: how much of its time the uplink accounts for.
fn beside_uplink(took_s: Option<f64>, uplink_only: Duration) -> String {
    let alone = uplink_only.as_secs_f64();
    let Some(took) = took_s.filter(|_| alone > 0.0) else { return String::new() };
    let uplink = format!("the uplink alone needs {}", units::duration(alone));
    if took <= alone * AS_FAST_AS_UPLINK { uplink } else { format!("{uplink}, the LAN and the mesh the rest") }
}

/// What befell a device that took long, as far as is known.
fn why(scenario: &Scenario, outcome: &Outcome, device: usize) -> Option<String> {
    let mut reasons = Vec::new();
    let away = outcome.away[device];
    if away > Duration::ZERO {
        reasons.push(format!("away or down for {}", units::duration(away.as_secs_f64())));
    }
    let told = outcome.pulls[device].iter().map(|pull| pull.told - scenario.releases[pull.release].at).max();
    if let Some(late) = told.filter(|late| *late > Duration::ZERO) {
        reasons.push(format!("told {} after the release", units::duration(late.as_secs_f64())));
    }
    let mut kinds: Vec<FaultKind> = Vec::new();
    for (_, step) in &outcome.plan.steps {
        if let Step::Begin { fault, devices } = step
            && (devices.is_empty() || devices.contains(&device))
        {
            let kind = scenario.faults[*fault].kind;
            // Those are away, which is said already.
            if !matches!(kind, FaultKind::Crash | FaultKind::Reboot) && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    reasons.extend(kinds.into_iter().map(|kind| format!("{} befell it", kind.name())));
    let group = &scenario.sites[outcome.plan.kind].devices[outcome.plan.devices[device].group];
    if let Some(rate) = group.disk_bytes_per_s {
        reasons.push(format!("its disk takes {:.1} MB/s", rate as f64 / 1e6));
    }
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_nothing_befell_is_held_against_its_uplink() {
        let minute = Duration::from_secs(60);
        assert_eq!(beside_uplink(Some(63.0), minute), "the uplink alone needs 1 min 00 s");
        assert_eq!(
            beside_uplink(Some(70.0), minute),
            "the uplink alone needs 1 min 00 s, the LAN and the mesh the rest"
        );
        assert_eq!((beside_uplink(None, minute), beside_uplink(Some(1.0), Duration::ZERO)), Default::default());
    }
}
