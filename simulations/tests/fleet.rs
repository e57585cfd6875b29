//! Runs of whole scenarios: the same again, and rules that can be broken.

#![allow(clippy::unwrap_used)]

use layermesh_sim::{
    fleet::{Settings, run},
    report::Report,
    scenario::{Scenario, library},
    sweep::{generate, shrink},
};

fn scenario(name: &str) -> Scenario {
    Scenario::parse(name, library::find(name).unwrap()).unwrap()
}

fn report(scenario: &Scenario, seed: u64, threads: usize) -> Report {
    run(scenario, &Settings { seed, threads, ..Settings::of(scenario) }, |_, _| ())
}

#[test]
fn a_scenario_and_a_seed_give_one_report_on_any_number_of_threads() {
    let scenario = scenario("two-releases");
    let json = |seed, threads| report(&scenario, seed, threads).to_json().unwrap();
    let once = json(1, 1);
    assert_eq!(once, json(1, 1));
    assert_eq!(once, json(1, 4));
    assert_ne!(once, json(2, 1));
}

#[test]
fn a_site_takes_one_copy_and_everybody_has_it() {
    let scenario = scenario("canary-then-fleet");
    let report = report(&scenario, 1, 2);
    assert_eq!(report.broken, []);
    assert_eq!((report.fleet.done, report.fleet.devices), (60, 60));
    assert!((0.999..1.01).contains(&report.fleet.copies), "{}", report.fleet.copies);
}

#[test]
fn what_is_not_done_in_time_or_takes_too_much_is_said() {
    let mut hasty = scenario("uplink-cut");
    hasty.limit = std::time::Duration::from_secs(60);
    let rules = |scenario: &Scenario| -> Vec<String> {
        report(scenario, 1, 2).broken.into_iter().map(|broken| broken.rule).collect()
    };
    assert!(rules(&hasty).contains(&"liveness".to_owned()));
    let mut strict = scenario("canary-then-fleet");
    strict.bounds.copies_max = Some(0.5);
    strict.bounds.last_max = Some(0.5);
    let rules = rules(&strict);
    assert!(rules.contains(&"copies".to_owned()) && rules.contains(&"last".to_owned()), "{rules:?}");
}

#[test]
fn what_fails_is_made_small() {
    let mut strict = generate::scenario(0);
    // No device has its last byte when it comes over the uplink.
    strict.bounds.last_max = Some(1.0);
    let fails = |scenario: &Scenario| report(scenario, scenario.seed, 1).broken.iter().any(|b| b.rule == "last");
    let small = shrink(strict.clone(), fails);
    assert!(fails(&small));
    assert_eq!((small.sites.len(), small.releases.len(), small.faults.len()), (1, 1, 0));
}

#[test]
fn a_registry_without_ranges_has_none_from_the_start() {
    let mut ranged = scenario("shop-dsl");
    ranged.sites[0].count = 1;
    let mut unranged = ranged.clone();
    unranged.sites[0].uplink.ranged = false;
    assert_ne!(report(&ranged, 1, 1).events, report(&unranged, 1, 1).events);
}
