//! `run`: scenarios of files and of the library.

use clap::Args;

use super::{Output, perform, read};

/// What to run.
#[derive(Debug, Clone, Args)]
pub(super) struct RunArgs {
    /// Files, or names of the library
    #[arg(value_name = "SCENARIO", required_unless_present = "all")]
    scenarios: Vec<String>,
    /// All scenarios of the library
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let names: Vec<String> = if args.all {
        crate::scenario::library::library().iter().map(|(name, _)| (*name).to_owned()).collect()
    } else {
        args.scenarios.clone()
    };
    let files = args.output.json.is_some() || args.output.html.is_some();
    anyhow::ensure!(names.len() == 1 || !files, "--json and --html take one scenario: run them one by one");
    // All are read before any is run: a mistake in the last one is said at once.
    let scenarios = names.iter().map(|name| read(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut held = true;
    for scenario in &scenarios {
        held &= perform(scenario, &args.output)?;
    }
    Ok(held)
}
