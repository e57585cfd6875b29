//! Hands a plan to `scripts/lab-run` and reads what it measured.
//!
//! Invariant: whatever was built goes when that script ends, and it ends when this program does.

use std::{
    io::{self, Write as _},
    path::PathBuf,
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

impl Tools {
    fn script(&self) -> PathBuf {
        self.scripts.join("lab-run")
    }

    /// Whether there is what it takes, as far as that is known before anything is built.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check(&self) -> Result<(), LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let script = self.script();
        if script.is_file() { Ok(()) } else { Err(LabError::NoScript(script)) }
    }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> LabError {
    let what = what.to_owned();
    |source| LabError::Io { what, source }
}

/// Carries a plan out.
///
/// # Errors
/// If nothing could be measured.
pub fn measure(plan: &Plan, tools: &Tools) -> Result<Measured, LabError> {
    tools.check()?;
    let planned = serde_json::to_vec(plan)?;
    let own = std::env::current_exe().map_err(io_error("cannot find this program"))?;
    // The script is told when this program dies, so that it tidies up.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(tools.script()).arg("--simulator").arg(own);
    if tools.keep {
        command.arg("--keep");
    }
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut started = started.map_err(io_error("cannot start setpriv (of util-linux)"))?;
    if let Some(mut stdin) = started.stdin.take() {
        // A script that reads nothing says why itself.
        let _ = stdin.write_all(&planned);
    }
    let ended = started.wait_with_output().map_err(io_error("cannot read what was measured"))?;
    match ended.status.code() {
        Some(0) => Ok(serde_json::from_slice(&ended.stdout)?),
        Some(CANNOT) => Err(LabError::Cannot),
        _ => Err(LabError::NoResult(ended.status.to_string())),
    }
}
