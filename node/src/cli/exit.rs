//! Exit statuses, all in one place.

use std::{fmt, process::ExitCode};

use crate::admin::client::ClientError;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: the command line or the configuration has a mistake.
    Usage = 2,
    /// 3: no node answers.
    Unreachable = 3,
    /// 4: `check`: the site holds the whole image, this device does not.
    OnSite = 4,
    /// 5: `check`: the site does not hold the whole image, or does not know what its name stands for.
    Incomplete = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program fails, and with which status.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) error: anyhow::Error,
}

impl Failure {
    pub(super) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::Unreachable { .. } | ClientError::Slow(_) => Exit::Unreachable,
            ClientError::Refused(_) | ClientError::Suspect(_) | ClientError::Changed(_) | ClientError::Broken(_) => {
                Exit::Failed
            }
        };
        Self { exit, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)?;
        match self.error.downcast_ref::<ClientError>() {
            Some(ClientError::Unreachable { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                f.write_str("\nThe node belongs to another user: try again as that user, or with sudo.")
            }
            Some(ClientError::Unreachable { .. }) => {
                f.write_str("\nStart a node with `layermesh run`, or name the data directory of one with --data-dir.")
            }
            _ => Ok(()),
        }
    }
}
