//! `lab`: a scenario with real nodes, and the simulator's word on it; `wire`: a link of it.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{print, read, say};
use crate::{
    lab::{self, Plan, Tools, Verdict, wire},
    scenario::Scenario,
};

/// What to run, and with what.
#[derive(Debug, Clone, Args)]
pub(super) struct LabArgs {
    /// A file, or a name of the library
    #[arg(value_name = "SCENARIO")]
    scenario: String,
    /// Seed of all that is random [default: the scenario's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Times that it is run; all have to agree
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    times: u16,
    /// Directory of the repository's scripts
    #[arg(long, value_name = "DIR", default_value = "scripts")]
    scripts: PathBuf,
    /// Print the prediction and the plan (JSON), and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep the logs after success too
    #[arg(long)]
    keep: bool,
}

/// How a link is.
#[derive(Debug, Clone, Args)]
pub(super) struct WireArgs {
    #[arg(long)]
    latency_us: u64,
    #[arg(long)]
    jitter_us: u64,
    #[arg(long)]
    loss_per_mille: u32,
    #[arg(long)]
    seed: u64,
}

pub(super) fn run(args: &LabArgs) -> anyhow::Result<bool> {
    let scenario: Scenario = lab::settled(&read(&args.scenario)?);
    let seed = args.seed.unwrap_or(scenario.seed);
    let plan = Plan::new(&scenario, seed)?;
    let tools = Tools { scripts: args.scripts.clone(), keep: args.keep };
    if !args.dry_run {
        tools.check()?;
    }
    let predicted = lab::predict(&scenario, seed).context("a scenario without a site")?;
    let (last, copies) = (predicted.last_s, predicted.copies);
    say(&format!(
        "{}: the simulator has the last done after {:.1} s ({:.1} to {:.1}), {:.3} copies ({:.3} to {:.3})",
        scenario.name, last.median, last.low, last.high, copies.median, copies.low, copies.high
    ));
    if args.dry_run {
        print(&format!("{}\n", serde_json::to_string_pretty(&plan)?));
        return Ok(true);
    }
    let released_s: Vec<f64> = scenario.releases.iter().map(|release| release.at.as_secs_f64()).collect();
    let mut agree = true;
    for _ in 0..args.times {
        let verdict = Verdict::new(&predicted, &lab::measure(&plan, &tools)?, &released_s);
        print(&verdict.to_text(&scenario.name));
        agree &= verdict.agrees();
    }
    Ok(agree)
}

pub(super) fn wire(args: &WireArgs) -> anyhow::Result<bool> {
    wire::run(&wire::Settings {
        latency: Duration::from_micros(args.latency_us),
        jitter: Duration::from_micros(args.jitter_us),
        loss_per_mille: args.loss_per_mille,
        seed: args.seed,
    })?;
    Ok(true)
}
