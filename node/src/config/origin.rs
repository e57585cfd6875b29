//! An origin as configured.

use std::{fmt, path::PathBuf};

use url::Url;

/// How to reach a registry, where its name is not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// The registry as clients name it, such as `docker.io` or `registry.local:5000`.
    pub registry: String,
    /// Where it is; `https://<registry>` if absent.
    pub endpoint: Option<Url>,
    /// Certificate authority of its TLS certificate, in PEM, besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Whether `http://` is allowed.
    pub plain_http: bool,
    /// User name and password; docker's configuration is asked if absent.
    pub credentials: Option<Credentials>,
}

/// A user name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

// By hand, so that no log line can ever show a password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}
