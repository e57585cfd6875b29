//! `layermesh generate`: man pages and shell completions, made from the command line itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, ValueEnum as _};
use clap_complete::{Shell, generate_to};

use super::{Cli, Exit, Failure};

/// Arguments of `layermesh generate`.
#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    /// Write a man page of each command into this directory
    #[arg(long, value_name = "DIR", required_unless_present = "completions")]
    man: Option<PathBuf>,
    /// Write completions for bash, zsh, fish, elvish and PowerShell into this directory
    #[arg(long, value_name = "DIR")]
    completions: Option<PathBuf>,
}

pub(super) fn run(args: &GenerateArgs) -> Result<Exit, Failure> {
    if let Some(dir) = &args.man {
        make_dir(dir)?;
        let commands = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(commands, dir)
            .with_context(|| format!("cannot write man pages into {}", dir.display()))?;
    }
    if let Some(dir) = &args.completions {
        make_dir(dir)?;
        for shell in Shell::value_variants() {
            let path = generate_to(*shell, &mut Cli::command(), "layermesh", dir)
                .with_context(|| format!("cannot write completions into {}", dir.display()))?;
            // bash-completion looks for files that are named like the command.
            if *shell == Shell::Bash {
                std::fs::rename(&path, dir.join("layermesh")).context("cannot name the completions for bash")?;
            }
        }
    }
    Ok(Exit::Done)
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_completions() {
        let dir = tempfile::tempdir().unwrap();
        let (man, completions) = (dir.path().join("man"), dir.path().join("completions"));
        run(&GenerateArgs { man: Some(man.clone()), completions: Some(completions.clone()) }).unwrap();
        let names = |dir: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let pages = names(&man);
        for command in Cli::command().get_subcommands() {
            assert!(pages.contains(&format!("layermesh-{}.1", command.get_name())), "{}", command.get_name());
        }
        assert!(pages.contains("layermesh.1") && pages.contains("layermesh-fleet-admit.1"), "{pages:?}");
        let page = std::fs::read_to_string(man.join("layermesh-run.1")).unwrap();
        assert!(page.contains("mirror\\-addr"), "options are on the page");
        for name in ["layermesh", "_layermesh", "layermesh.fish", "layermesh.elv", "_layermesh.ps1"] {
            let text = std::fs::read_to_string(completions.join(name)).unwrap();
            assert!(text.contains("enrolment-key"), "{name}");
        }
    }
}
