//! `layermesh doctor`: what is wrong, why, and what to do.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, Global, node, output, progress::Progress};
use crate::{
    config::{Environment, Layer, Setting, find_data_dir, load},
    doctor::{self, Finding, Outcome, gather::Sources},
};

/// Arguments of `layermesh doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The node's configuration file [default: /etc/layermesh/layermesh.toml or ~/.config/layermesh/layermesh.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not have runtimes pull the tiny image that shows whether they use the node
    #[arg(long)]
    no_pull: bool,
    /// Show what is not in order only
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    outcome: Outcome,
    findings: Vec<Finding>,
}

pub(super) async fn run(args: DoctorArgs, global: &Global) -> Result<Exit, Failure> {
    let environment = Environment::current();
    let mut flags = Layer::default();
    if let Some(dir) = &global.data_dir {
        flags.flag(Setting::DataDir, dir.to_string_lossy());
    }
    let config = load(flags, args.config.as_deref(), &environment);
    let config = config.map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>());
    let data_dir = match &config {
        Ok(config) => config.data_dir.clone(),
        Err(_) => find_data_dir(global.data_dir.clone(), &environment).unwrap_or_default(),
    };
    let in_data_dir = Global { data_dir: global.data_dir.clone().or_else(|| Some(data_dir.clone())), ..global.clone() };
    let by_config = if args.config.is_some() { &in_data_dir } else { global };
    let sources = Sources {
        config,
        config_file: environment.config_file(args.config.as_deref()),
        data_dir,
        client: node::client(by_config)?,
        pull: !args.no_pull,
    };
    let progress = Progress::new(global.json);
    let row = progress.step("looking at the node, its site and its runtimes, which takes up to a minute");
    let facts = Box::pin(doctor::gather::gather(&sources)).await;
    drop((row, progress));
    let findings = doctor::diagnose(&facts);
    let outcome = doctor::worst(&findings);
    if global.json {
        output::print_json_document(&Report { outcome, findings })?;
    } else {
        output::print(&shown(&findings, args.quiet))?;
    }
    Ok(if outcome == Outcome::Fail { Exit::Failed } else { Exit::Done })
}

fn shown(findings: &[Finding], quiet: bool) -> String {
    let mut text = String::new();
    for finding in findings.iter().filter(|finding| !quiet || finding.outcome != Outcome::Pass) {
        let word = match finding.outcome {
            Outcome::Pass => "ok  ",
            Outcome::Warn => "WARN",
            Outcome::Fail => "FAIL",
        };
        let _ = writeln!(text, "{word}  {:<15} {}", finding.check.name(), finding.what);
        for (name, words) in [("why", &finding.cause), ("next", &finding.next), ("more", &finding.docs)] {
            if let Some(words) = words {
                let _ = writeln!(text, "{:22}{name}: {words}", "");
            }
        }
    }
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let (failed, warned) = (count(Outcome::Fail), count(Outcome::Warn));
    let _ = match (failed, warned) {
        (0, 0) => writeln!(text, "\nAll is in order."),
        (0, _) => writeln!(text, "\nIt works; {warned} to look at."),
        _ => writeln!(text, "\n{failed} failed, {warned} to look at."),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn what_is_wrong_comes_with_cause_and_next_command() {
        let finding = |outcome, cause: Option<&str>| Finding {
            check: Check::Disk,
            outcome,
            what: "it is so".to_owned(),
            cause: cause.map(str::to_owned),
            next: cause.map(|_| "do this".to_owned()),
            docs: None,
        };
        let findings = [finding(Outcome::Pass, None), finding(Outcome::Fail, Some("of that"))];
        let text = shown(&findings, false);
        let expected =
            "ok    disk            it is so\nFAIL  disk            it is so\n                      why: of that\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("next: do this\n\n1 failed, 0 to look at.\n"), "{text}");
        assert!(shown(&findings, true).starts_with("FAIL"));
    }
}
