//! Hands a plan to `scripts/lab-run` and reads what it measured.
//!
//! Invariant: whatever was built goes when that script ends, and it ends when this program does.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use thiserror::Error;

use super::{outcome::Measured, plan::Plan};

/// Exit status of the script for what cannot be done on this machine; its own words say why.
const CANNOT: i32 = 2;

/// Why nothing was measured.
#[derive(Debug, Error)]
pub enum LabError {
    /// Namespaces are made and links shaped by root alone.
    #[error("the lab needs root, for network namespaces: run it with sudo, or in a privileged container")]
    NotRoot,
    /// It is part of the repository.
    #[error("there is no {0}: run it in the repository's directory, or say where its scripts are with --scripts")]
    NoScript(PathBuf),
    /// The script said why.
    #[error("this machine cannot run the lab: what it lacks is said above")]
    Cannot,
    /// The script did not end well.
    #[error("the lab ended without a result ({0}): what went wrong is said above")]
    NoResult(String),
    /// A file, or the script's start.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// What the script wrote is not what is expected.
    #[error("what the lab measured cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the lab is run with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Directory of the repository's scripts.
    pub scripts: PathBuf,
    /// Keep logs after success too.
    pub keep: bool,
}

/// Carries a plan out.
///
/// # Errors
/// If nothing could be measured.
pub fn measure(plan: &Plan, tools: &Tools) -> Result<Measured, LabError> {
    if !rustix::process::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    let script = tools.scripts.join("lab-run");
    if !script.is_file() {
        return Err(LabError::NoScript(script));
    }
    let directory = std::env::temp_dir().join(format!("lm-lab-plan-{}", std::process::id()));
    std::fs::create_dir_all(&directory).map_err(io_error("cannot write the plan"))?;
    let measured = carry_out(plan, tools, &script, &directory);
    // What is left of two small files does no harm.
    let _ = std::fs::remove_dir_all(&directory);
    measured
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> LabError {
    let what = what.to_owned();
    |source| LabError::Io { what, source }
}

fn carry_out(plan: &Plan, tools: &Tools, script: &Path, directory: &Path) -> Result<Measured, LabError> {
    let (planned, found) = (directory.join("plan.json"), directory.join("measured.json"));
    std::fs::write(&planned, serde_json::to_vec(plan)?).map_err(io_error("cannot write the plan"))?;
    let own = std::env::current_exe().map_err(io_error("cannot find this program"))?;
    // The script is told when this program dies, so that it tidies up.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(script).arg(&planned).arg(&found).arg("--simulator").arg(own);
    if tools.keep {
        command.arg("--keep");
    }
    let status = command.stdin(Stdio::null()).stdout(io::stderr()).status();
    let status = status.map_err(io_error("cannot start setpriv (of util-linux)"))?;
    match status.code() {
        Some(0) => {}
        Some(CANNOT) => return Err(LabError::Cannot),
        _ => return Err(LabError::NoResult(status.to_string())),
    }
    let measured = std::fs::read(&found).map_err(io_error("cannot read what was measured"))?;
    Ok(serde_json::from_slice(&measured)?)
}
