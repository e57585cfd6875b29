//! `layermesh setup`: a runtime on this device is told of the mirror, or what was done is taken back.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::{process::Command, time::timeout};

use super::{Exit, Failure, Global, output};
use crate::{
    config::{Environment, SYSTEM_CONFIG_FILE, find_mirror},
    setup::{self, Change, Disk, Facts, REGISTRIES_DEFAULT, Record, Runtime, Said, SetupError, Wish},
};

/// How long a service may take to restart.
const RESTART: Duration = Duration::from_secs(120);

/// Arguments of `layermesh setup`.
#[derive(Debug, Args)]
pub(super) struct SetupArgs {
    /// The runtime
    runtime: Runtime,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take back what setup did
    #[arg(long, conflicts_with_all = ["registries", "mirror_addr", "config", "image_store"])]
    undo: bool,
    /// Mirror this registry only; may be given several times [default: all; Podman and CRI-O: docker.io, quay.io,
    /// ghcr.io, registry.k8s.io and those with an origin in the node's configuration]
    #[arg(long = "registry", value_name = "REGISTRY")]
    registries: Vec<String>,
    /// Restart or reload the runtime afterwards, where it needs that
    #[arg(long, conflicts_with_all = ["dry_run", "root"])]
    restart: bool,
    /// Address of the node's mirror [default: what the node's configuration says, or 127.0.0.1:7117]
    #[arg(long, value_name = "ADDR:PORT")]
    mirror_addr: Option<String>,
    /// The node's configuration file [default: /etc/layermesh/layermesh.toml or ~/.config/layermesh/layermesh.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The runtime's configuration file, if not at its usual place
    #[arg(long, value_name = "FILE")]
    runtime_config: Option<PathBuf>,
    /// Set up the machine whose root directory this is, such as a golden image
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Where Docker keeps images [default: as Docker says]
    #[arg(long, value_name = "STORE")]
    image_store: Option<ImageStore>,
}

/// Where Docker keeps images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImageStore {
    /// In containerd's store
    Containerd,
    /// In a graph driver, such as overlay2
    Graph,
}

/// What was done, for scripts.
#[derive(Debug, Serialize)]
struct Report {
    runtime: Runtime,
    /// `setup` or `undo`.
    action: &'static str,
    dry_run: bool,
    way: Option<String>,
    files: Vec<FileReport>,
    /// Files that were left, since somebody changed the same lines.
    conflicts: Vec<FileReport>,
    notes: Vec<String>,
    /// The command that makes the runtime take it up, if it needs one.
    next: Option<String>,
    /// Whether it was run.
    restarted: bool,
}

#[derive(Debug, Serialize)]
struct FileReport {
    path: PathBuf,
    /// `made`, `changed` or `removed`.
    change: &'static str,
    diff: String,
}

impl FileReport {
    fn of(change: &Change) -> Self {
        let word = match (&change.before, &change.after) {
            (None, _) => "made",
            (_, None) => "removed",
            _ => "changed",
        };
        Self { path: change.path.clone(), change: word, diff: change.diff() }
    }
}

pub(super) async fn run(args: SetupArgs, global: &Global) -> Result<Exit, Failure> {
    let root = std::path::absolute(&args.root).context("cannot find out where --root is")?;
    if !root.is_dir() {
        return Err(Failure::usage(anyhow!("--root: {} is not a directory", root.display())));
    }
    let disk = Disk::new(root);
    let earlier = Record::load(args.runtime, &disk).map_err(failure)?;
    let mut report = if args.undo {
        undo(&args, &disk, earlier.as_ref()).await?
    } else {
        set_up(&args, &disk, earlier.as_ref()).await?
    };
    if let (true, Some(command)) = (args.restart, &report.next) {
        restart(command).await?;
        report.restarted = true;
    }
    if global.json {
        output::print_json_document(&report)?;
    } else {
        output::print(&shown(&report))?;
    }
    Ok(if report.conflicts.is_empty() { Exit::Done } else { Exit::Failed })
}

async fn set_up(args: &SetupArgs, disk: &Disk, earlier: Option<&Record>) -> Result<Report, Failure> {
    let wish = wish(args, disk).await?;
    let plan = setup::plan(&wish, disk, earlier).map_err(failure)?;
    if !args.dry_run {
        setup::apply(&plan, disk, earlier).map_err(failure)?;
    }
    Ok(report(args, &plan.changes, &[], plan.said))
}

async fn undo(args: &SetupArgs, disk: &Disk, earlier: Option<&Record>) -> Result<Report, Failure> {
    let Some(record) = earlier else { return Ok(report(args, &[], &[], Said::default())) };
    let undo = setup::plan_undo(disk, record).map_err(failure)?;
    if !args.dry_run {
        setup::apply_undo(&undo, disk, record).map_err(failure)?;
    }
    Ok(report(args, &undo.changes, &undo.conflicts, Said::default()))
}

fn report(args: &SetupArgs, changes: &[Change], conflicts: &[Change], said: Said) -> Report {
    Report {
        runtime: args.runtime,
        action: if args.undo { "undo" } else { "setup" },
        dry_run: args.dry_run,
        way: Some(said.way).filter(|way| !way.is_empty()),
        files: changes.iter().map(FileReport::of).collect(),
        conflicts: conflicts.iter().map(FileReport::of).collect(),
        notes: said.notes,
        next: setup::next_step(args.runtime, changes).map(str::to_owned),
        restarted: false,
    }
}

/// What the command line and the node's configuration ask for.
async fn wish(args: &SetupArgs, disk: &Disk) -> Result<Wish, Failure> {
    let of_image = || disk.locate(Path::new(SYSTEM_CONFIG_FILE)).ok().filter(|path| path.exists());
    let config = match &args.config {
        None if !disk.is_this_machine() => of_image(),
        given => given.clone(),
    };
    let environment = Environment::current();
    let found = find_mirror(args.mirror_addr.clone(), config.as_deref(), &environment);
    let (mirror, is_protected, mut origins) = found.map_err(Failure::usage)?;
    if is_protected {
        let message = "the node's mirror demands TLS or a password (`[mirror]` in its configuration). Setup is for mirrors \
                       on loopback without: put certificates and credentials into the runtime's configuration by hand, \
                       as docs/setup.md shows it, or leave `[mirror]` out";
        return Err(Failure::usage(anyhow!(message)));
    }
    let mut registries = Vec::new();
    for name in &args.registries {
        registries.push(
            crate::config::parse_registry(name).map_err(|message| Failure::usage(anyhow!("--registry: {message}")))?,
        );
    }
    if registries.is_empty() && matches!(args.runtime, Runtime::Podman | Runtime::Crio) {
        registries = REGISTRIES_DEFAULT.map(str::to_owned).to_vec();
        registries.append(&mut origins);
    }
    registries.dedup();
    let mut facts = if disk.is_this_machine() { setup::ask::ask(args.runtime).await } else { Facts::default() };
    if let Some(store) = args.image_store {
        facts.containerd_store = Some(store == ImageStore::Containerd);
    }
    Ok(Wish { runtime: args.runtime, mirror, registries, config_file: args.runtime_config.clone(), facts })
}

async fn restart(command: &str) -> Result<(), Failure> {
    let mut words = command.split(' ');
    let mut process = Command::new(words.next().unwrap_or_default());
    process.args(words).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = timeout(RESTART, process.output()).await;
    let output = output.map_err(|_| anyhow!("set up, but `{command}` did not end within {} s", RESTART.as_secs()))?;
    let output = output.with_context(|| format!("set up, but `{command}` cannot be run: run what restarts it here"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(anyhow!("set up, but `{command}` failed: {complaint}").into())
}

fn failure(error: SetupError) -> Failure {
    let wish = matches!(error, SetupError::Wish(_));
    let permission = error.is_permission();
    let error = anyhow::Error::new(error);
    if wish {
        Failure::usage(error)
    } else if permission {
        Failure::from(anyhow!("{error}\nThat takes more rights: try again with sudo."))
    } else {
        Failure::from(error)
    }
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    let runtime = report.runtime.name();
    if report.dry_run {
        text.extend(report.files.iter().map(|file| file.diff.as_str()));
    }
    let _ = match (report.action, report.files.is_empty() && report.conflicts.is_empty(), report.dry_run) {
        ("undo", true, _) => writeln!(text, "{runtime}: nothing to take back"),
        ("undo", ..) if !report.conflicts.is_empty() => writeln!(text, "{runtime}: what could be taken back"),
        ("undo", _, false) => writeln!(text, "{runtime} is as it was without setup"),
        ("undo", ..) => writeln!(text, "{runtime} would be as it was without setup; nothing was changed"),
        (_, true, _) => writeln!(text, "{runtime} is set up already"),
        (_, _, false) => writeln!(text, "{runtime} is set up"),
        (_, _, true) => writeln!(text, "{runtime} would be set up like this; nothing was changed"),
    };
    if let Some(way) = &report.way {
        let _ = writeln!(text, "  {way}");
    }
    for file in report.files.iter().filter(|_| !report.dry_run) {
        let _ = writeln!(text, "  {:<8} {}", file.change, file.path.display());
    }
    for file in &report.conflicts {
        let _ = writeln!(
            text,
            "\n{} was changed by somebody in the lines that setup wrote, and stays as it is. Take these back by hand, \
             then undo again:\n{}",
            file.path.display(),
            file.diff
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "\nNote: {note}");
    }
    if let (Some(next), false) = (&report.next, report.dry_run) {
        let _ = match report.restarted {
            true => writeln!(text, "\nDone as well: {next}"),
            false => writeln!(text, "\nNext, so that it takes effect:\n  {next}"),
        };
    }
    if report.action == "setup" && !report.dry_run && !report.files.is_empty() {
        let _ = writeln!(text, "\nTo take it back:\n  layermesh setup {runtime} --undo");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_report(dry_run: bool) -> Report {
        let change = Change { path: "/etc/a".into(), before: None, after: Some("b\n".to_owned()) };
        Report {
            runtime: Runtime::Containerd,
            action: "setup",
            dry_run,
            way: Some("by hosts.toml".to_owned()),
            files: vec![FileReport::of(&change)],
            conflicts: Vec::new(),
            notes: vec!["it is so".to_owned()],
            next: Some("systemctl restart containerd".to_owned()),
            restarted: false,
        }
    }

    #[test]
    fn what_was_done_ends_with_the_next_command_and_the_way_back() {
        let text = shown(&a_report(false));
        assert!(text.starts_with("containerd is set up\n  by hosts.toml\n  made     /etc/a\n"), "{text}");
        for words in ["Note: it is so", "\n  systemctl restart containerd\n", "\n  layermesh setup containerd --undo\n"]
        {
            assert!(text.contains(words), "{words} in {text}");
        }
    }

    #[test]
    fn a_dry_run_shows_the_diff_and_says_that_nothing_was_changed() {
        let text = shown(&a_report(true));
        assert!(text.starts_with("--- /dev/null\n+++ /etc/a\n@@ -0,0 +1 @@\n+b\n"), "{text}");
        assert!(text.contains("nothing was changed") && !text.contains("--undo") && !text.contains("Next"), "{text}");
    }

    #[test]
    fn conflicts_are_shown_with_what_setup_wrote() {
        let mut report = a_report(false);
        (report.action, report.conflicts) = ("undo", std::mem::take(&mut report.files));
        let text = shown(&report);
        assert!(text.contains("/etc/a was changed by somebody") && text.contains("+b\n"), "{text}");
        assert!(text.starts_with("containerd: what could be taken back"), "{text}");
    }
}
