//! Credentials: where they come from, and that they are never shown.
//!
//! An origin's own credentials come first, then docker's `config.json` with its credential helpers, as `docker
//! login` leaves them (Podman's `auth.json` has the same form). The file is read anew whenever a registry asks
//! for credentials, and its [`Stamp`] tells when what came from it is out of date; nothing watches it.
//!
//! Deliberately absent: storing credentials, and OAuth2 identity tokens: their exchange is a POST that a redirect would
//! carry to another host.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::classify::shown;

/// Largest `config.json` that is read, in bytes. Real ones have a few KiB; this one is held in memory to parse.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// How long a credential helper may take. Helpers that ask a cloud service for a token take a second or two; one
/// that waits for a desktop's keyring to be unlocked never ends on a device without a person.
const HELPER_DEADLINE: Duration = Duration::from_secs(10);
/// Look-ups at once. A helper that hangs keeps its thread, so this is also how many threads hung helpers can take.
const LOOKUPS_MAX: usize = 4;
/// The key under which docker keeps the credentials of docker.io.
const DOCKER_IO_KEY: &str = "https://index.docker.io/v1/";

/// A user name and a password (or an access token used as one).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why there are no credentials although there may be some.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Docker's configuration cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Docker's configuration makes no sense.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The helper takes too long.
    #[error("the credential helper did not answer within {} s", HELPER_DEADLINE.as_secs())]
    Slow,
    /// The helper failed.
    #[error("the credential helper failed: {0}")]
    Helper(String),
    /// What is stored is of a kind that is not supported.
    #[error("an identity token is stored for it, which is not supported: log in with a user name and an access token")]
    IdentityToken,
}

/// Tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    len: u64,
    inode: u64,
}

/// Docker's `config.json`, if there is one.
#[derive(Debug, Clone)]
pub(super) struct DockerConfig {
    path: Option<PathBuf>,
    lookups: Arc<Semaphore>,
}

impl DockerConfig {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// The file's state now; `None` if there is no file.
    pub(super) async fn stamp(&self) -> Option<Stamp> {
        let metadata = tokio::fs::metadata(self.path.as_ref()?).await.ok()?;
        Some(Stamp { modified: metadata.modified().ok()?, len: metadata.len(), inode: metadata.ino() })
    }

    /// The credentials for `registry`, `None` if there are none.
    pub(super) async fn lookup(&self, registry: &str) -> Result<Option<Credentials>, LookupError> {
        let Some(path) = self.path.clone() else { return Ok(None) };
        let key = match registry {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_IO_KEY.to_owned(),
            other => other.to_owned(),
        };
        let lookups = Arc::clone(&self.lookups);
        let found = tokio::time::timeout(HELPER_DEADLINE, async move {
            // The permit goes to the thread: if the helper hangs, so does the permit.
            let permit = lookups.acquire_owned().await;
            let lookup = move || {
                let _permit = permit;
                read(&path, &key)
            };
            tokio::task::spawn_blocking(lookup).await
        });
        match found.await {
            Ok(Ok(result)) => result,
            Ok(Err(stopped)) => Err(LookupError::Helper(shown(&stopped.to_string()))),
            Err(_) => Err(LookupError::Slow),
        }
    }
}

fn read(path: &Path, key: &str) -> Result<Option<Credentials>, LookupError> {
    let unreadable = |reason: String| LookupError::Unreadable { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut text = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(unreadable(format!("larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let malformed = |reason: &str| LookupError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
    match docker_credential::get_credential_from_reader(text.as_slice(), key) {
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(Credentials { username, password })),
        Ok(DockerCredential::IdentityToken(_)) => Err(LookupError::IdentityToken),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // The helper protocol's only way to say "none" is this sentence on stdout and a failing exit status.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            Err(LookupError::Helper(format!("{helper}: {}", shown(&stderr))))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err(LookupError::Helper("it could not be run or took no question; is it on the PATH?".to_owned()))
        }
        Err(CredentialRetrievalError::MalformedHelperResponse) => {
            Err(LookupError::Helper("its answer is not the JSON it should be".to_owned()))
        }
        Err(CredentialRetrievalError::CredentialDecodingError) => {
            Err(malformed("`auth` is not base64 of user:password"))
        }
        Err(CredentialRetrievalError::CredentialMismatchError) => {
            Err(malformed("`auth` contradicts `username` and `password`"))
        }
        Err(CredentialRetrievalError::ConfigNotFound | CredentialRetrievalError::ConfigReadError) => {
            Err(malformed("not a docker configuration"))
        }
    }
}

/// The credentials that docker's configuration has for a registry, for commands that speak to it themselves.
///
/// # Errors
/// If the configuration or its credential helper cannot be used.
pub async fn stored_credentials(registry: &str) -> Result<Option<Credentials>, LookupError> {
    DockerConfig::new(docker_config_path()).lookup(registry).await
}

/// Where docker keeps its configuration for this user: `$DOCKER_CONFIG/config.json`, else
/// `~/.docker/config.json`; `None` if neither variable is set.
pub fn docker_config_path() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))?;
    Some(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lookup_in(config: &str, registry: &str) -> Result<Option<Credentials>, LookupError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        DockerConfig::new(Some(path)).lookup(registry).await
    }

    fn ann() -> Credentials {
        Credentials { username: "ann".to_owned(), password: "secret".to_owned() }
    }

    #[tokio::test]
    async fn what_docker_login_leaves_is_found() {
        // YW5uOnNlY3JldA== is ann:secret.
        let config = r#"{"auths":{"registry.test:5000":{"auth":"YW5uOnNlY3JldA=="},
                                  "https://index.docker.io/v1/":{"auth":"YW5uOnNlY3JldA=="}}}"#;
        assert_eq!(lookup_in(config, "registry.test:5000").await, Ok(Some(ann())));
        assert_eq!(lookup_in(config, "docker.io").await, Ok(Some(ann())));
        assert_eq!(lookup_in(config, "other.test").await, Ok(None));
    }

    #[tokio::test]
    async fn no_file_means_no_credentials_and_a_broken_one_is_named() {
        let missing = DockerConfig::new(Some("/nonexistent/config.json".into()));
        assert_eq!(missing.lookup("registry.test").await, Ok(None));
        assert_eq!(DockerConfig::new(None).lookup("registry.test").await, Ok(None));
        let broken = lookup_in("{", "registry.test").await.unwrap_err();
        assert!(broken.to_string().contains("config.json"), "{broken}");
        let garbled = lookup_in(r#"{"auths":{"a.test":{"auth":"%%"}}}"#, "a.test").await.unwrap_err();
        assert!(garbled.to_string().contains("base64"), "{garbled}");
        let token = lookup_in(r#"{"auths":{"a.test":{"identitytoken":"x"}}}"#, "a.test").await;
        assert_eq!(token, Err(LookupError::IdentityToken));
        let helper = lookup_in(r#"{"credHelpers":{"a.test":"layermesh-test-absent"}}"#, "a.test").await;
        assert!(matches!(helper, Err(LookupError::Helper(_))), "{helper:?}");
    }

    #[tokio::test]
    async fn the_stamp_changes_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let config = DockerConfig::new(Some(path.clone()));
        assert_eq!(config.stamp().await, None);
        std::fs::write(&path, "{}").unwrap();
        let first = config.stamp().await;
        assert!(first.is_some());
        assert_eq!(config.stamp().await, first);
        // docker writes a new file and renames it over the old one.
        std::fs::write(dir.path().join("new"), "{}").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        assert_ne!(config.stamp().await, first);
    }

    /// The test below runs this one in a process of its own, where the `PATH` leads to its helpers.
    #[tokio::test]
    #[ignore = "needs the helpers that `credential_helpers_are_asked` makes"]
    async fn in_a_process_with_helpers() {
        let config = r#"{"credHelpers":{"a.test":"good","b.test":"empty","c.test":"ill","d.test":"mute"},
                         "credsStore":"good"}"#;
        assert_eq!(lookup_in(config, "a.test").await, Ok(Some(ann())));
        assert_eq!(lookup_in(config, "docker.io").await, Ok(Some(ann())));
        assert_eq!(lookup_in(config, "b.test").await, Ok(None));
        let ill = lookup_in(config, "c.test").await.unwrap_err();
        assert_eq!(ill, LookupError::Helper("docker-credential-ill: the keyring is locked".to_owned()));
        // A helper that hangs: the clock passes the deadline while it does.
        tokio::time::pause();
        let (slow, ()) = tokio::join!(lookup_in(config, "d.test"), async {
            tokio::task::yield_now().await;
            tokio::time::advance(HELPER_DEADLINE * 2).await;
        });
        assert_eq!(slow, Err(LookupError::Slow));
    }

    #[test]
    fn credential_helpers_are_asked() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        for (name, script) in [
            ("good", r#"echo '{"Username":"ann","Secret":"secret"}'"#),
            ("empty", "echo 'credentials not found in native keychain'; exit 1"),
            ("ill", "echo 'the keyring is locked' >&2; exit 1"),
            ("mute", "exec sleep 1"),
        ] {
            let path = dir.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\nread registry\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default());
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "origin::credentials::tests::in_a_process_with_helpers"])
            .env("PATH", path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", ann()).contains("secret"));
    }
}
