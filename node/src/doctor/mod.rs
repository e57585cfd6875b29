//! What is wrong with this device's node, its site and its runtimes, why, and what to do about it.
//!
//! `gather` finds facts out, with a deadline for each; the checks judge them and are pure. Invariant: whatever is not
//! in order is named together with its cause and the next command, and a check says only what the facts show: what
//! could not be found out is no fault.

use std::fmt;

use serde::Serialize;

mod checks;
pub mod facts;
pub mod firewall;
pub mod gather;
pub mod settings;
#[cfg(test)]
mod tests;

pub use facts::Facts;

/// Where people read more.
pub const DOCS: &str = "docs/troubleshooting.md";

/// What is looked at. Each has a section of its name in `docs/troubleshooting.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The configuration can be read.
    Configuration,
    /// The node answers.
    Node,
    /// Runtimes find the mirror where they look.
    Mirror,
    /// Nobody else has the node's ports.
    Ports,
    /// The data directory belongs to the node.
    DataDirectory,
    /// There is room.
    Disk,
    /// There is a network, and it multicasts.
    Interfaces,
    /// No firewall stands between devices.
    Firewall,
    /// The clock is right.
    Clock,
    /// The device belongs to its fleet.
    Fleet,
    /// Others are found and let in.
    Peers,
    /// Registries answer and accept the credentials.
    Origins,
    /// A runtime is set up.
    Runtime,
    /// A runtime pulls through the node.
    RuntimePull,
    /// All devices run the same version.
    Versions,
}

impl Check {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Node => "node",
            Self::Mirror => "mirror",
            Self::Ports => "ports",
            Self::DataDirectory => "data-directory",
            Self::Disk => "disk",
            Self::Interfaces => "interfaces",
            Self::Firewall => "firewall",
            Self::Clock => "clock",
            Self::Fleet => "fleet",
            Self::Peers => "peers",
            Self::Origins => "origins",
            Self::Runtime => "runtime",
            Self::RuntimePull => "runtime-pull",
            Self::Versions => "versions",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is in order, or cannot be known.
    Pass,
    /// It works, and less well than it could.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// How it ended.
    pub outcome: Outcome,
    /// What is so, for people.
    pub what: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do: a command where one helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where to read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs: Option<String>,
}

impl Finding {
    fn pass(check: Check, what: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Pass, what: what.into(), cause: None, next: None, docs: None }
    }

    fn bad(
        outcome: Outcome,
        check: Check,
        what: impl Into<String>,
        cause: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            check,
            outcome,
            what: what.into(),
            cause: Some(cause.into()),
            next: Some(next.into()),
            docs: Some(format!("{DOCS}#{check}")),
        }
    }

    fn warn(check: Check, what: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::bad(Outcome::Warn, check, what, cause, next)
    }

    fn fail(check: Check, what: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::bad(Outcome::Fail, check, what, cause, next)
    }
}

/// Judges the facts: at least one finding a check that applies.
pub fn diagnose(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::device::judge(facts, &mut findings);
    checks::site::judge(facts, &mut findings);
    checks::origins::judge(facts, &mut findings);
    checks::runtimes::judge(facts, &mut findings);
    findings
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Outcome {
    findings.iter().map(|finding| finding.outcome).max().unwrap_or(Outcome::Pass)
}
