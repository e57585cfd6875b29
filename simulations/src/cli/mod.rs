//! The command line: one file a subcommand.
//!
//! [`main`] is the whole program. Summaries go to standard output, progress and errors to standard error. Exit status 0
//! says that every check held, 1 that one was broken, 2 that what was asked for cannot be done.

mod compare;
mod image;
mod lab;
mod library;
mod plan;
mod run;
mod sweep;
mod table;

use std::{
    io::{IsTerminal as _, Write as _, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{fleet::Settings, report::Report, scenario::Scenario};

/// Columns of a summary that does not go to a terminal.
const WIDTH: u16 = 100;

/// Simulates fleets of Layermesh nodes in virtual time, with the engine that runs on devices.
#[derive(Debug, Parser)]
#[command(name = "layermesh-sim", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios and check that every rule holds
    Run(run::RunArgs),
    /// Ask what a rollout takes, without writing a scenario
    Plan(Box<plan::PlanArgs>),
    /// Run scenarios that are generated from seeds, and make small what fails
    Sweep(sweep::SweepArgs),
    /// Measure sites of many sizes, and print a table
    Table(table::TableArgs),
    /// Compare two reports
    Compare(compare::CompareArgs),
    /// Run a scenario with real nodes in network namespaces, beside the simulator (needs root)
    Lab(lab::LabArgs),
    /// Pass frames between two interfaces as the simulator's links would
    #[command(hide = true)]
    Wire(lab::WireArgs),
    /// List the scenarios of the library
    List,
    /// Print a scenario of the library, to be changed and run
    Show {
        /// Its name
        name: String,
    },
}

/// What all runs take.
#[derive(Debug, Clone, Args)]
struct Output {
    /// Seed of all that is random [default: the scenario's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Sites that run at the same time [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Write the report as JSON ("-": to standard output, instead of the summary)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one HTML page that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Table(args) => table::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Lab(args) => lab::run(&args),
        Command::Wire(args) => lab::wire(&args),
        Command::List => library::list(),
        Command::Show { name } => library::show(&name),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nothing is left to be done if that fails.
            let _ = writeln!(stderr(), "layermesh-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Prints to standard output. A reader that has gone ends the program's interest, not with an error.
fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}

/// Columns of the terminal; where there is none, those that most have.
fn width() -> u16 {
    terminal_size::terminal_size_of(stdout()).map_or(WIDTH, |(columns, _)| columns.0)
}

/// Says something to whoever watches.
fn say(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// A bar on a terminal, nothing elsewhere.
fn bar(what: &str, of: u64) -> ProgressBar {
    let bar = ProgressBar::new(of).with_message(what.to_owned());
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads a scenario: a file, or one of the library.
fn read(name: &str) -> anyhow::Result<Scenario> {
    let path = Path::new(name);
    if let Some(text) = crate::scenario::library::find(name) {
        return Ok(Scenario::parse(name, text)?);
    }
    if !path.exists() {
        return Err(library::unknown(name).context("no such file"));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let stem = path.file_stem().map_or(name.to_owned(), |stem| stem.to_string_lossy().into_owned());
    Scenario::parse(&stem, &text).map_err(|errors| anyhow::anyhow!("{name}:\n{errors}"))
}

/// Runs a scenario, shows or writes what came of it, and says whether every rule held.
fn perform(scenario: &Scenario, output: &Output) -> anyhow::Result<bool> {
    let mut settings = Settings::of(scenario);
    settings.seed = output.seed.unwrap_or(settings.seed);
    settings.threads = output.threads.map_or(settings.threads, usize::from);
    let sites: u64 = scenario.sites.iter().map(|site| u64::from(site.count)).sum();
    let bar = bar(&scenario.name, sites);
    let report = crate::fleet::run(scenario, &settings, |done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    let to_stdout = output.json.as_deref() == Some(Path::new("-"));
    if !to_stdout {
        print(&report.to_text(width()));
    }
    write(&report, output)?;
    Ok(report.broken.is_empty())
}

fn write(report: &Report, output: &Output) -> anyhow::Result<()> {
    if let Some(path) = &output.json {
        let json = report.to_json()?;
        if path == Path::new("-") {
            print(&json);
        } else {
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Some(path) = &output.html {
        std::fs::write(path, report.to_html()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
