//! `sweep`: scenarios out of seeds.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{bar, print, say, width};
use crate::{
    fleet::Settings,
    sweep::{FAILURES_MAX, generate, sweep},
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
    /// Where the small scenarios of failing seeds are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    keep: PathBuf,
}

pub(super) fn run(args: &SweepArgs) -> anyhow::Result<bool> {
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
