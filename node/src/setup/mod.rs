//! Container runtimes on this device are told of the mirror, and it is taken back as it was.
//!
//! Three steps: the runtime's module plans files from files (text in, text out; comments and layout stay), the plan is
//! compared with what is there, and `write` makes it real, after `record` has kept what was there before. Invariants:
//! setting up is always planned from what there would be without it, so that doing it twice changes nothing and another
//! address replaces the first; undoing gives the bytes that were there, and where somebody changed a file meanwhile,
//! only the lines of setup go. A file that is not understood is not touched: the error says which lines to add by hand.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Serialize;

pub mod ask;
pub mod containerd;
pub mod containers;
pub mod docker;
pub mod hosts;
pub mod k3s;
mod record;
#[cfg(test)]
mod tests;
mod text;
pub mod tree;
mod write;

pub use record::{RECORD_DIR, Record};
pub use tree::{Change, Disk, Staged, Tree};

/// Registries whose images most devices run, for runtimes that need each by its name.
pub const REGISTRIES_DEFAULT: [&str; 4] = ["docker.io", "quay.io", "ghcr.io", "registry.k8s.io"];

/// A container runtime that can be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// containerd, alone or below Kubernetes; nerdctl
    Containerd,
    /// Docker Engine
    Docker,
    /// Podman, Buildah and skopeo
    Podman,
    /// CRI-O
    Crio,
    /// k3s; with --runtime-config also RKE2
    K3s,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Containerd, Self::Docker, Self::Podman, Self::Crio, Self::K3s];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Crio => "crio",
            Self::K3s => "k3s",
        }
    }

    /// The file of its configuration that people know.
    pub fn config_file(self) -> &'static Path {
        Path::new(match self {
            Self::Containerd => "/etc/containerd/config.toml",
            Self::Docker => "/etc/docker/daemon.json",
            Self::Podman | Self::Crio => "/etc/containers/registries.conf",
            Self::K3s => "/etc/rancher/k3s/registries.yaml",
        })
    }
}

/// Version of a runtime, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Version {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl Version {
    /// The first version in a text such as `containerd github.com/containerd/containerd v1.6.20 ...`.
    pub fn find(text: &str) -> Option<Self> {
        let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '~' | '+' | '-'));
        words.into_iter().find_map(|word| {
            let mut numbers = word.trim_start_matches('v').split('.');
            let version = Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? };
            // Two numbers alone may be anything; a version of these programs has three.
            numbers.next().map(|_| version)
        })
    }
}

/// The command that makes a runtime take up changes of these files; `None` where it reads them at each pull.
pub fn next_step(runtime: Runtime, changes: &[Change]) -> Option<&'static str> {
    let read_at_pulls = |change: &Change| change.path.file_name().is_some_and(|name| name == hosts::HOSTS_FILE);
    if changes.iter().all(read_at_pulls) {
        return None;
    }
    if changes.iter().any(|change| change.path.starts_with("/etc/rancher/rke2")) {
        return Some("systemctl restart rke2-server");
    }
    // dockerd takes up other mirrors at a reload; that there are none any more it does not notice.
    let names_mirrors = |text: &String| text.contains(docker::MIRRORS);
    if runtime == Runtime::Docker && !changes.iter().filter_map(|change| change.after.as_ref()).any(names_mirrors) {
        return Some("systemctl restart docker");
    }
    restart(runtime)
}

/// The command that makes a runtime read its configuration; `None` if it does so by itself.
pub fn restart(runtime: Runtime) -> Option<&'static str> {
    match runtime {
        Runtime::Containerd => Some("systemctl restart containerd"),
        Runtime::Docker => Some("systemctl reload docker"),
        Runtime::Crio => Some("systemctl reload crio"),
        Runtime::K3s => Some("systemctl restart k3s"),
        Runtime::Podman => None,
    }
}

/// What is known of the runtime besides its files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its version.
    pub version: Option<Version>,
    /// Of Docker: whether images are in containerd's store, which can mirror all registries.
    pub containerd_store: Option<bool>,
}

/// What is to be set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The runtime.
    pub runtime: Runtime,
    /// Address of the mirror.
    pub mirror: SocketAddr,
    /// Registries to be mirrored; empty for all, or for those of [`REGISTRIES_DEFAULT`] where the runtime needs names.
    pub registries: Vec<String>,
    /// The runtime's configuration file, if not at its usual place.
    pub config_file: Option<PathBuf>,
    /// What is known of the runtime.
    pub facts: Facts,
}

impl Wish {
    /// The mirror as runtimes name it, without a scheme. A mirror on all addresses is reached by loopback.
    pub fn authority(&self) -> String {
        let ip = match self.mirror.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.mirror.port()).to_string()
    }

    /// The mirror's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority())
    }

    /// The configuration file.
    pub fn config_file(&self) -> &Path {
        self.config_file.as_deref().unwrap_or(self.runtime.config_file())
    }

    /// Says in a file of our own where it is from.
    fn header(&self) -> String {
        format!("# Made by `layermesh setup {0}`; `layermesh setup {0} --undo` takes it away.\n", self.runtime.name())
    }
}

/// What planning found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// How the runtime will reach the mirror, for people.
    pub way: String,
    /// What people should know.
    pub notes: Vec<String>,
}

impl Said {
    fn new(way: impl Into<String>) -> Self {
        Self { way: way.into(), ..Self::default() }
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// Why a runtime cannot be set up. Nothing was changed unless the error says so.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file or directory refuses.
    #[error("{} cannot be {doing}: {reason}", path.display())]
    Io {
        /// `read`, `written`, `made` or `removed`.
        doing: &'static str,
        /// The file, as the runtime sees it.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A file is not what the runtime would understand.
    #[error(
        "{}:{line}: {message}\nNothing was changed. Correct the file first: the runtime does not understand it either.",
        path.display()
    )]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// Line of the mistake, from 1 on.
        line: usize,
        /// The mistake.
        message: String,
    },
    /// A file is understood, but not changed by a program without risk.
    #[error("{}: {why}\nNothing was changed. By hand:\n\n{lines}", path.display())]
    ByHand {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
        /// What to write there.
        lines: String,
    },
    /// The record of what was done cannot be understood.
    #[error("{} is not a record of `layermesh setup`: {reason}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: serde_json::Error,
    },
    /// The wish makes no sense for the runtime.
    #[error("{0}")]
    Wish(String),
}

impl SetupError {
    /// Whether another user could do it.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Io { reason, .. }
            if matches!(reason.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    }
}

/// What setup does, or would do.
#[derive(Debug)]
pub struct Plan {
    /// Files that change.
    pub changes: Vec<Change>,
    /// What planning found out.
    pub said: Said,
    /// What undoing will need.
    record: Record,
}

/// Plans how the runtime gets the mirror, from what there would be without an earlier setup.
///
/// # Errors
/// If files cannot be read or understood, or cannot be changed without risk.
pub fn plan(wish: &Wish, disk: &dyn Tree, earlier: Option<&Record>) -> Result<Plan, SetupError> {
    let mut staged = Staged::new(disk);
    let taken = earlier.map(|record| record.stage_undo(disk, &mut staged)).transpose()?.unwrap_or_default();
    let said = match wish.runtime {
        Runtime::Containerd => containerd::plan(wish, &mut staged),
        Runtime::Docker => docker::plan(wish, &mut staged),
        Runtime::Podman | Runtime::Crio => containers::plan(wish, &mut staged),
        Runtime::K3s => k3s::plan(wish, &mut staged),
    }?;
    let record = Record::after(earlier, wish.runtime, disk, &staged, &taken)?;
    Ok(Plan { changes: staged.changes()?, said, record })
}

/// Makes a plan real.
///
/// # Errors
/// If something cannot be written. What was written before stays, and undoing takes it back.
pub fn apply(plan: &Plan, disk: &Disk, earlier: Option<&Record>) -> Result<(), SetupError> {
    write::apply(plan, disk, earlier)
}

/// What undoing does, or would do.
#[derive(Debug)]
pub struct Undo {
    /// Files that change.
    pub changes: Vec<Change>,
    /// Files that somebody changed in the same lines, each with what setup once changed there.
    pub conflicts: Vec<Change>,
}

/// Plans to take back what an earlier setup did.
///
/// # Errors
/// If files cannot be read.
pub fn plan_undo(disk: &dyn Tree, record: &Record) -> Result<Undo, SetupError> {
    let mut staged = Staged::new(disk);
    let taken = record.stage_undo(disk, &mut staged)?;
    Ok(Undo { changes: staged.changes()?, conflicts: record.conflicts(&taken) })
}

/// Takes back what an earlier setup did.
///
/// # Errors
/// If something cannot be written; the record stays then.
pub fn apply_undo(undo: &Undo, disk: &Disk, record: &Record) -> Result<(), SetupError> {
    write::undo(undo, disk, record)
}
