//! `layermesh config`: what holds for a node, what is wrong with a file, and a file to begin with.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Failure, Global, output, run::RunArgs};
use crate::config::{Environment, commented_file, effective, load};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Show every setting as it holds for a node that is started now, and where it was written
    ///
    /// Takes the flags of `layermesh run`, and shows what they would change.
    Show(Box<RunArgs>),
    /// Say whether a configuration file can be used, and all that is wrong with it
    Check(CheckArgs),
    /// Print a configuration file in which every setting stands, commented out
    Default,
}

/// Arguments of `layermesh config check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file [default: the one that `layermesh run` would read]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Show(args) => show(*args, global),
        ConfigCommand::Check(args) => check(&args, global),
        ConfigCommand::Default => {
            output::print(&commented_file())?;
            Ok(Exit::Done)
        }
    }
}

fn show(args: RunArgs, global: &Global) -> Result<Exit, Failure> {
    let (file, layer) = args.into_parts(global.data_dir.clone());
    let all = effective(layer, file.as_deref(), &Environment::current()).map_err(Failure::usage)?;
    if global.json {
        output::print_json_document(&all)?;
        return Ok(Exit::Done);
    }
    let rows = all.into_iter().map(|one| vec![one.name, one.value, one.source]).collect();
    output::print(&output::table(&["SETTING", "VALUE", "FROM"], &[], rows))?;
    Ok(Exit::Done)
}

fn check(args: &CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let environment = Environment::current();
    let Some(file) = environment.config_file(args.file.as_deref()) else {
        let message = "there is no configuration file, so the defaults hold; `layermesh config default` prints one";
        output::note(message);
        return Ok(Exit::Done);
    };
    // By itself: what this shell's variables say is no mistake of the file.
    let alone = Environment { variables: environment.home_only(), ..environment };
    load(crate::config::Layer::default(), Some(&file), &alone).map_err(Failure::usage)?;
    if global.json {
        output::print_json(&serde_json::json!({ "file": file, "good": true }))?;
    } else {
        output::print(&format!("{} is good\n", file.display()))?;
    }
    Ok(Exit::Done)
}
