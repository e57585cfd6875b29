//! Whether a set of metadata may be believed.
//!
//! `tough` checks it against what was trusted before, in a scratch directory that lives for one look. What is kept is
//! [`Trusted`], and only when a look succeeded, so that what devices write is one small file a published release, and a
//! set that breaks off in the middle changes nothing. One part of it counts even if the rest does not: a newer root that
//! is signed as it must be, or a withdrawn key would stay good for whoever has it.
//!
//! Expiry is checked here and not by `tough`, which would believe any clock and refuse to work once the clock went back.

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tough::{
    ExpirationEnforcement, Limits, Repository, RepositoryLoader,
    schema::{Role, RoleType, Root, Signed, Targets},
};
use url::Url;

use super::{
    MetadataSet, Refusal, RefusalKind, Release, RepositoryId,
    clock::Clock,
    content::RELEASES_MAX,
    set::{ROOT_BYTES_MAX, ROOTS_MAX, SMALL_BYTES_MAX, TARGETS_BYTES_MAX},
};

/// Field of the root that says which repository it is of.
pub(super) const REPOSITORY_FIELD: &str = "x-layermesh-repository";
/// Field of the timestamp that says when it was signed, in seconds since the Unix epoch.
pub(super) const SIGNED_FIELD: &str = "x-layermesh-signed";
/// Never asked: files come out of the set.
const BASE: &str = "http://releases.invalid/";

/// What is believed from one set to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The newest root.
    pub root: String,
    /// The timestamp of the newest set that was accepted, if any was.
    pub timestamp: Option<String>,
    /// Its snapshot.
    pub snapshot: Option<String>,
}

impl Trusted {
    /// Trust in a root and nothing else.
    pub fn root(root: &[u8]) -> Self {
        Self { root: String::from_utf8_lossy(root).into_owned(), timestamp: None, snapshot: None }
    }

    /// Which repository the root is of, and the root's version.
    ///
    /// # Errors
    /// If it is not the root of a repository of releases.
    pub fn repository(&self) -> Result<(RepositoryId, u64), Refusal> {
        let root: Signed<Root> = parse(self.root.as_bytes(), "the trusted root")?;
        Ok((repository_of(&root.signed)?, root.signed.version.get()))
    }
}

/// A set that may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which repository.
    pub repository: RepositoryId,
    /// Version of the root.
    pub root_version: u64,
    /// Version of the timestamp, which grows with whatever is signed.
    pub version: u64,
    /// When it was signed, in seconds since the Unix epoch.
    pub signed_unix_s: u64,
    /// Which role expires first, and when, in seconds since the Unix epoch.
    pub expires: (RoleType, u64),
    /// By which clock that was checked.
    pub clock: Clock,
    /// The releases, in the order in which they were published.
    pub releases: Vec<Release>,
    /// What to believe from now on.
    pub trusted: Trusted,
}

/// What came of a look at a set.
#[derive(Debug)]
pub struct Outcome {
    /// Whether it may be believed.
    pub result: Result<Verified, Refusal>,
    /// What to believe from now on, if that is other than before; after a refusal that can only be a newer root.
    pub trusted: Option<Trusted>,
}

/// Looks at a set, given what was believed before and what the device's clock shows. Files are written into a directory
/// in `scratch` that is gone in the end.
pub async fn verify(set: &MetadataSet, before: &Trusted, now_unix_s: u64, scratch: &Path) -> Outcome {
    let dir = match prepare(before, scratch) {
        Ok(dir) => dir,
        Err(error) => {
            let message = format!("cannot be checked: no room for it in {}: {error}", scratch.display());
            return Outcome { result: Err(Refusal::new(RefusalKind::Malformed, message)), trusted: None };
        }
    };
    let result = match load(set, before, dir.path().to_owned()).await {
        Ok(repository) => accept(set, before, &repository, now_unix_s),
        Err(refusal) => Err(refusal),
    };
    let trusted = match &result {
        Ok(verified) => Some(verified.trusted.clone()),
        Err(_) => newer_root(before, &dir.path().join("root.json")),
    };
    Outcome { result, trusted: trusted.filter(|trusted| trusted != before) }
}

fn prepare(before: &Trusted, scratch: &Path) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("check-").tempdir_in(scratch)?;
    for (name, text) in [("timestamp.json", &before.timestamp), ("snapshot.json", &before.snapshot)] {
        if let Some(text) = text {
            std::fs::write(dir.path().join(name), text)?;
        }
    }
    Ok(dir)
}

async fn load(set: &MetadataSet, before: &Trusted, datastore: PathBuf) -> Result<Repository, Refusal> {
    let base = Url::parse(BASE).map_err(|error| Refusal::new(RefusalKind::Malformed, error.to_string()))?;
    // The newest root that was trusted, not the configured one: from a change of keys between the two, `tough` would
    // conclude each time that they changed just now, and forget what versions it saw.
    let loader = RepositoryLoader::new(&before.root, base.clone(), base)
        .transport(set.transport())
        .datastore(datastore)
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .limits(Limits {
            max_root_size: ROOT_BYTES_MAX as u64,
            max_targets_size: TARGETS_BYTES_MAX as u64,
            max_timestamp_size: SMALL_BYTES_MAX as u64,
            max_snapshot_size: SMALL_BYTES_MAX as u64,
            max_root_updates: ROOTS_MAX as u64 + 1,
        });
    Box::pin(loader.load()).await.map_err(|error| Refusal::of(&error))
}

fn accept(set: &MetadataSet, before: &Trusted, loaded: &Repository, now_unix_s: u64) -> Result<Verified, Refusal> {
    let (root, timestamp) = (&loaded.root().signed, &loaded.timestamp().signed);
    let (snapshot, targets) = (&loaded.snapshot().signed, &loaded.targets().signed);
    let repository = repository_of(root)?;
    if repository != before.repository()?.0 {
        let message = format!("another repository: {repository}");
        return Err(Refusal::new(RefusalKind::OtherRepository, message));
    }
    let signed_unix_s = timestamp._extra.get(SIGNED_FIELD).and_then(Value::as_u64).unwrap_or_default();
    let clock = Clock::credible(now_unix_s, signed_unix_s);
    let expires = [expiry(root), expiry(timestamp), expiry(snapshot), expiry(targets)];
    let expires = expires.into_iter().min_by_key(|(_, at)| *at).unwrap_or((RoleType::Root, 0));
    if clock.is_past(expires.1) {
        let message = format!("expired: {} was to be used until {}", expires.0, show_time(expires.1));
        return Err(Refusal::new(RefusalKind::Expired, message));
    }
    if targets.targets.len() > RELEASES_MAX {
        let message = format!("too large: it has {} releases, more than {RELEASES_MAX}", targets.targets.len());
        return Err(Refusal::new(RefusalKind::TooLarge, message));
    }
    let releases = releases_of(targets)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Verified {
        repository,
        root_version: root.version.get(),
        version: timestamp.version.get(),
        signed_unix_s,
        expires,
        clock,
        releases,
        trusted: Trusted {
            // What was checked, which is not what the set has under the name of a root that was trusted already.
            root: serde_json::to_string(loaded.root()).unwrap_or_else(|_| before.root.clone()),
            timestamp: Some(text(set.timestamp())),
            snapshot: Some(text(set.snapshot())),
        },
    })
}

/// The releases of a list, in the order in which they were published.
fn releases_of(targets: &Targets) -> Result<Vec<Release>, Refusal> {
    let releases = targets.targets.iter().map(|(name, target)| Release::of_target(name, target));
    let mut releases = releases.collect::<Result<Vec<_>, _>>()?;
    releases.sort_by_cached_key(|release| (release.number, release.name()));
    Ok(releases)
}

/// The releases that a set says there are, in the order in which they were published. Nothing of it is verified: that is
/// for whoever trusts something.
///
/// # Errors
/// If its list cannot be read.
pub fn claimed(set: &MetadataSet) -> Result<Vec<Release>, Refusal> {
    let targets: Signed<Targets> = parse(set.targets(), "the list of releases")?;
    releases_of(&targets.signed)
}

fn expiry<R: Role>(role: &R) -> (RoleType, u64) {
    (R::TYPE, u64::try_from(role.expires().as_second()).unwrap_or_default())
}

/// The root that `tough` came to trust, if it is newer than the one before.
fn newer_root(before: &Trusted, path: &Path) -> Option<Trusted> {
    let (repository, version) = before.repository().ok()?;
    let root = std::fs::read(path).ok()?;
    let found = Trusted { root: String::from_utf8(root).ok()?, ..before.clone() };
    let (of, newer) = found.repository().ok()?;
    (of == repository && newer > version).then_some(found)
}

fn repository_of(root: &Root) -> Result<RepositoryId, Refusal> {
    let field = root._extra.get(REPOSITORY_FIELD).and_then(Value::as_str).unwrap_or_default();
    RepositoryId::try_from(field.to_owned()).map_err(|_| {
        let message = "not metadata of releases: its root was not made by `layermesh release init`";
        Refusal::new(RefusalKind::Malformed, message)
    })
}

/// A metadata file, not verified.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(RefusalKind::Malformed, format!("{what} is not metadata: {error}")))
}

/// The version after this one.
pub(super) fn next_version(version: NonZeroU64) -> NonZeroU64 {
    version.saturating_add(1)
}

/// A moment as people read it.
pub fn show_time(unix_s: u64) -> String {
    let second = i64::try_from(unix_s).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(second).map_or_else(|_| "the end of time".to_owned(), |time| time.to_string())
}
