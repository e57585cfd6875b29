//! Runs a scenario: each site a world of its own, on as many threads as there are processors.
//!
//! Sites share nothing but the registry, whose own rate is taken to be no limit, so they run apart. Invariant: the report
//! does not depend on how many threads there were or which site ended first.

mod curve;
pub(crate) mod plan;
mod pulls;
mod setting;
pub(crate) mod site;
pub(crate) mod tally;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use layermesh_proto::engine::Config;

use self::{plan::SitePlan, site::Outcome};
use crate::{report::Report, sabotage::Sabotage, scenario::Scenario};

/// How a run is done, beside what the scenario says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of all that is random.
    pub seed: u64,
    /// Sites that run at the same time.
    pub threads: usize,
    /// Of every node's engine.
    pub config: Config,
    /// What is wrong, so that it is seen that the checks find it.
    pub sabotage: Option<Sabotage>,
}

impl Settings {
    /// The scenario's own seed and the engine's defaults, on all processors.
    pub fn of(scenario: &Scenario) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { seed: scenario.seed, threads, config: Config::default(), sabotage: None }
    }
}

/// Runs a scenario to its end. `progress` is told after each site how many of all are done.
pub fn run(scenario: &Scenario, settings: &Settings, progress: impl Fn(usize, usize) + Sync) -> Report {
    let sites: usize = scenario.sites.iter().map(|site| site.count as usize).sum();
    let outcomes: Vec<Mutex<Option<Outcome>>> = (0..sites).map(|_| Mutex::new(None)).collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(place) = outcomes.get(number) else { return };
            let Some(plan) = SitePlan::new(scenario, settings.seed, number) else { return };
            let outcome = site::run(scenario, &plan, settings);
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, sites);
        }
    };
    on_threads(settings.threads.min(sites), work);
    let outcomes = outcomes.into_iter().filter_map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner));
    tally::report(scenario, settings.seed, outcomes.collect())
}

/// Does the same on so many threads, this one included, until all have ended.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Copy + Send) {
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
}
