//! Many scenarios out of seeds, and what fails made small.
//!
//! Invariant: a seed's scenario and its run do not depend on which other seeds are tried.

pub mod generate;
mod shrink;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

pub use shrink::shrink;

use crate::{
    fleet::{Settings, on_threads, run},
    report::Report,
    sabotage::Sabotage,
    scenario::Scenario,
};

/// Failures after which a sweep ends: more of them rarely say more.
pub const FAILURES_MAX: usize = 5;

/// A seed whose scenario broke a rule.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The smallest scenario found that breaks the same rule.
    pub smallest: Scenario,
    /// Its run.
    pub report: Report,
}

/// Runs the scenarios of seeds `from..until`, on this many threads. `progress` is told how many are done. Returns what
/// failed, in order of seeds.
pub fn sweep(from: u64, until: u64, settings: &Settings, progress: impl Fn(u64) + Sync) -> Vec<Failure> {
    let (next, done) = (AtomicU64::new(from), AtomicU64::new(0));
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= until || failed.lock().unwrap_or_else(PoisonError::into_inner).len() >= FAILURES_MAX {
                return;
            }
            if !attempt(&generate::scenario(seed), settings).broken.is_empty() {
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    on_threads(settings.threads, work);
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort_unstable();
    failed.into_iter().map(|seed| failure(seed, settings)).collect()
}

/// The first of the seeds `from..until` whose scenario shows a sabotage to the check that is for it, with its run.
pub fn find(sabotage: Sabotage, from: u64, until: u64, settings: &Settings) -> Option<(u64, Report)> {
    let settings = Settings { sabotage: Some(sabotage), ..settings.clone() };
    (from..until).find_map(|seed| {
        let report = attempt(&generate::scenario(seed), &settings);
        sabotage.is_found(&report).then_some((seed, report))
    })
}

/// Makes the scenario of a failing seed small.
fn failure(seed: u64, settings: &Settings) -> Failure {
    let scenario = generate::scenario(seed);
    let rule = |report: &Report| report.broken.first().map(|broken| broken.rule.clone());
    let first = rule(&attempt(&scenario, settings));
    let smallest = shrink(scenario, |candidate| first.is_some() && rule(&attempt(candidate, settings)) == first);
    let report = attempt(&smallest, settings);
    Failure { seed, smallest, report }
}

/// One run on this thread, with the scenario's own seed.
fn attempt(scenario: &Scenario, settings: &Settings) -> Report {
    run(scenario, &Settings { seed: scenario.seed, threads: 1, ..settings.clone() }, |_, _| ())
}
