//! `sweep`: scenarios out of seeds.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, builder::PossibleValuesParser};

use super::{bar, print, say, width};
use crate::{
    fleet::Settings,
    sabotage::Sabotage,
    sweep::{FAILURES_MAX, find, generate, sweep},
};

/// Which seeds.
#[derive(Debug, Clone, Args)]
pub(super) struct SweepArgs {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Replay one seed: run its scenario, whole, and show what came of it
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Break one rule on purpose, and say which seed shows it to the check that is for it
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Sabotage::ALL.map(|(name, _)| name)))]
    sabotage: Option<String>,
    /// Where the small scenarios of failing seeds are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    keep: PathBuf,
}

pub(super) fn run(args: &SweepArgs) -> anyhow::Result<bool> {
    if let Some(name) = args.sabotage.as_deref() {
        let sabotage = Sabotage::named(name).with_context(|| format!("there is no sabotage {name}"))?;
        return Ok(look_for(sabotage, name, args));
    }
    if let Some(seed) = args.seed {
        let scenario = generate::scenario(seed);
        print(&scenario.to_toml());
        let report = crate::fleet::run(&scenario, &Settings::of(&scenario), |_, _| ());
        print(&report.to_text(width()));
        return Ok(report.broken.is_empty());
    }
    let until = args.from.saturating_add(args.seeds);
    say(&format!("seeds {} to {}", args.from, until.saturating_sub(1)));
    let settings = Settings::of(&generate::scenario(args.from));
    let bar = bar("seeds", args.seeds);
    let failures = sweep(args.from, until, &settings, |done| bar.set_position(done));
    bar.finish_and_clear();
    for failure in &failures {
        let made = std::fs::create_dir_all(&args.keep);
        made.with_context(|| format!("cannot make {}", args.keep.display()))?;
        let path = args.keep.join(format!("seed-{}.toml", failure.seed));
        std::fs::write(&path, failure.smallest.to_toml())
            .with_context(|| format!("cannot write {}", path.display()))?;
        print(&failure.report.to_text(width()));
        print(&format!(
            "seed {} failed: `layermesh-sim sweep --seed {}` replays it, {} is the smallest that fails alike\n",
            failure.seed,
            failure.seed,
            path.display()
        ));
    }
    if failures.is_empty() {
        print(&format!("{} seeds, every rule held\n", args.seeds));
    } else if failures.len() >= FAILURES_MAX {
        print(&format!("ended after {FAILURES_MAX} failures\n"));
    }
    Ok(failures.is_empty())
}

/// Whether the sweep finds what is wrong on purpose.
fn look_for(sabotage: Sabotage, name: &str, args: &SweepArgs) -> bool {
    let from = args.seed.unwrap_or(args.from);
    let until = from.saturating_add(if args.seed.is_some() { 1 } else { args.seeds });
    let settings = Settings::of(&generate::scenario(from));
    match find(sabotage, from, until, &settings) {
        Some((seed, report)) => {
            print(&report.to_text(width()));
            print(&format!("{name} is found with seed {seed}, the {}th that was tried\n", seed - from + 1));
            true
        }
        None => {
            print(&format!("{name} is not found with seeds {from} to {}\n", until.saturating_sub(1)));
            false
        }
    }
}
