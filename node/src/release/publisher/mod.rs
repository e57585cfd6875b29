//! The admin's side: a repository of releases in a directory, and what can be done to it.
//!
//! ```text
//! DIR/root.json                     newest root: what devices are given
//! DIR/metadata/N.root.json          all roots
//! DIR/metadata/N.targets.json       what is released, signed
//! DIR/metadata/N.snapshot.json      names the targets
//! DIR/metadata/timestamp.json       names the snapshot
//! DIR/targets/CHANNEL/HASH.VERSION  each release as an OCI index
//! DIR/keys/ROLE/*.pem               keys, as far as they are not kept elsewhere
//! ```
//!
//! It is a TUF repository with consistent snapshots as any other tool reads them. Invariants: one change at a time, under
//! a lock; each change is whole once `timestamp.json` is renamed into place, and until then the state before is; nothing
//! is signed on top of what does not verify.

mod files;
mod init;
mod rotate;
mod sign;

use std::{
    io,
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use thiserror::Error;
use tough::schema::{RoleType, Root, Signed, Snapshot, Targets, Timestamp};

pub use init::{InitOptions, RoleOptions};
pub use rotate::{RotateOptions, Rotated};

use super::{
    Channel, MetadataSet, Refusal, Release, ReleaseVersion, RepositoryId,
    content::RELEASES_MAX,
    keys::{KeyError, KeyRing},
    set::ROOTS_MAX,
    verify::{Trusted, Verified, parse, verify},
};
use files::Files;

/// The four roles, in the order in which they are shown.
pub const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// How long metadata may be used after it was signed, in days.
///
/// A role's lifetime is how long a thief of its keys, or whoever holds back news, can go on; and how long devices go on
/// without hearing from the admin. Sites may be offline for months, so these are longer than on the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of the root. Three years: renewing it needs the keys that are kept offline.
    pub root: u32,
    /// Of the targets. A year.
    pub targets: u32,
    /// Of snapshot and timestamp: how old what a device takes for new may be. Half a year.
    pub timestamp: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { root: 3 * 365, targets: 365, timestamp: 180 }
    }
}

impl Lifetimes {
    fn of(self, role: RoleType) -> u32 {
        match role {
            RoleType::Root => self.root,
            RoleType::Targets | RoleType::DelegatedTargets => self.targets,
            RoleType::Snapshot | RoleType::Timestamp => self.timestamp,
        }
    }
}

/// Why a repository could not be made, read or changed.
#[derive(Debug, Error)]
pub enum PublisherError {
    /// There is none.
    #[error("{0} is not a repository of releases; make one with `layermesh release init {0}`")]
    NotARepository(PathBuf),
    /// There is one already.
    #[error("{0} is a repository of releases already")]
    Exists(PathBuf),
    /// Another command is at work on it.
    #[error("another `layermesh release` is at work on {0}; wait until it is done")]
    Busy(PathBuf),
    /// The file system refuses.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// What is there does not verify.
    #[error("the repository {dir} is damaged: {refusal}; restore it from a backup")]
    Damaged {
        /// The repository.
        dir: PathBuf,
        /// What is wrong.
        refusal: Refusal,
    },
    /// Keys cannot be read or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Not enough keys of a role are at hand.
    #[error(
        "signing as `{role}` takes {needed} of its keys, and {found} are in {}; name the directory of the others with --keys",
        shown(.looked_in)
    )]
    KeysMissing {
        /// The role.
        role: RoleType,
        /// How many it takes.
        needed: u64,
        /// How many are at hand.
        found: usize,
        /// Where was looked.
        looked_in: Vec<PathBuf>,
    },
    /// A role with fewer keys than signatures, or none.
    #[error(
        "`{role}` would have {keys} keys and need {threshold} of them; it needs at least one, and no more than it has"
    )]
    Threshold {
        /// The role.
        role: RoleType,
        /// Its keys.
        keys: u32,
        /// How many of them must sign.
        threshold: u32,
    },
    /// A release of that name is there.
    #[error("{0} is released already; releases are not changed, so give the new one another version")]
    Released(String),
    /// No release of that name is there.
    #[error("there is no release {0}; `layermesh release list` shows those that are")]
    NoRelease(String),
    /// The release makes no sense.
    #[error("the release cannot be made: {0}")]
    Release(String),
    /// No more fit.
    #[error(
        "the repository has {0}, and no more fit; withdraw releases that no device uses, or begin a new repository"
    )]
    Full(String),
    /// This machine does not know the time.
    #[error(
        "this machine's clock shows {0}, which is over: set it first, since metadata says until when it may be used"
    )]
    NoClock(String),
    /// A lifetime of no days, or of more than a century.
    #[error("{0} days are no lifetime: write 1 to 36500")]
    Lifetime(u32),
    /// The library refuses.
    #[error("cannot sign: {0}")]
    Sign(#[from] Box<tough::error::Error>),
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if paths.is_empty() { "no directory".to_owned() } else { paths.join(", ") }
}

impl From<tough::error::Error> for PublisherError {
    fn from(error: tough::error::Error) -> Self {
        Self::Sign(Box::new(error))
    }
}

/// A repository of releases, verified and locked.
#[derive(Debug)]
pub struct Publisher {
    files: Files,
    set: MetadataSet,
    verified: Verified,
    root: Signed<Root>,
    targets: Signed<Targets>,
    snapshot: Signed<Snapshot>,
    timestamp: Signed<Timestamp>,
}

impl Publisher {
    /// Opens the repository in a directory.
    ///
    /// # Errors
    /// If there is none, another command is at work on it, or it does not verify.
    pub async fn open(dir: &Path) -> Result<Self, PublisherError> {
        let files = Files::open(dir)?;
        let set = files.read()?;
        match check(&set).await {
            Ok(verified) => Self::new(files, set, verified),
            Err(refusal) => {
                let damaged = |refusal| PublisherError::Damaged { dir: dir.to_owned(), refusal };
                // A change of keys writes its root before the rest; one that broke off in between never was.
                let before = set.without_newest_root().map_err(|_| damaged(refusal.clone()))?;
                let verified = check(&before).await.map_err(|_| damaged(refusal))?;
                files.set_root_aside(set.roots().len())?;
                Self::new(files, before, verified)
            }
        }
    }

    fn new(files: Files, set: MetadataSet, verified: Verified) -> Result<Self, PublisherError> {
        let damaged = |refusal| PublisherError::Damaged { dir: files.dir().to_owned(), refusal };
        let root = set.roots().last().map(|root| root.to_vec()).unwrap_or_default();
        let root = parse(&root, "the root").map_err(damaged)?;
        let targets = parse(set.targets(), "the targets").map_err(damaged)?;
        let snapshot = parse(set.snapshot(), "the snapshot").map_err(damaged)?;
        let timestamp = parse(set.timestamp(), "the timestamp").map_err(damaged)?;
        Ok(Self { files, set, verified, root, targets, snapshot, timestamp })
    }

    /// Which repository.
    pub fn repository(&self) -> &RepositoryId {
        &self.verified.repository
    }

    /// What it says, verified.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Its metadata, as it travels.
    pub fn set(&self) -> &MetadataSet {
        &self.set
    }

    /// Until when each role may be used, in seconds since the Unix epoch, and how many keys it has and needs.
    pub fn roles(&self) -> Vec<(RoleType, u64, usize, u64)> {
        let expires = |role| match role {
            RoleType::Root => self.root.signed.expires,
            RoleType::Snapshot => self.snapshot.signed.expires,
            RoleType::Timestamp => self.timestamp.signed.expires,
            RoleType::Targets | RoleType::DelegatedTargets => self.targets.signed.expires,
        };
        let row = |role| {
            let keys = self.root.signed.roles.get(&role);
            let (count, threshold) = keys.map_or((0, 0), |keys| (keys.keyids.len(), keys.threshold.get()));
            (role, u64::try_from(expires(role).as_second()).unwrap_or_default(), count, threshold)
        };
        ROLES.into_iter().map(row).collect()
    }

    /// A release by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn release(&self, channel: &Channel, version: &ReleaseVersion) -> Result<&Release, PublisherError> {
        let found =
            self.verified.releases.iter().find(|release| release.channel == *channel && release.version == *version);
        found.ok_or_else(|| PublisherError::NoRelease(format!("{channel}/{version}")))
    }

    /// The number of the next release.
    pub fn next_number(&self) -> u64 {
        // Versions of the targets grow with each release, so the number of a withdrawn one is not given again.
        let newest = self.verified.releases.iter().map(|release| release.number).max().unwrap_or_default();
        newest.max(self.targets.signed.version.get()) + 1
    }

    /// Signs one more release.
    ///
    /// # Errors
    /// If there is one of that name, it makes no sense, or keys are missing.
    pub async fn publish(
        self,
        release: Release,
        keys: &KeyRing,
        lifetimes: Lifetimes,
        now_unix_s: u64,
    ) -> Result<Self, PublisherError> {
        release.check().map_err(PublisherError::Release)?;
        if self.verified.releases.iter().any(|known| known.name() == release.name()) {
            return Err(PublisherError::Released(release.name()));
        }
        if self.verified.releases.len() >= RELEASES_MAX {
            return Err(PublisherError::Full(format!("{RELEASES_MAX} releases")));
        }
        self.files.write_release(&release)?;
        let mut releases = self.verified.releases.clone();
        releases.push(release);
        self.sign_releases(&releases, keys, lifetimes, now_unix_s).await
    }

    /// Signs that a release is none any more.
    ///
    /// # Errors
    /// If there is none of that name, or keys are missing.
    pub async fn withdraw(
        self,
        channel: &Channel,
        version: &ReleaseVersion,
        keys: &KeyRing,
        lifetimes: Lifetimes,
        now_unix_s: u64,
    ) -> Result<Self, PublisherError> {
        let name = self.release(channel, version)?.name();
        let releases: Vec<_> =
            self.verified.releases.iter().filter(|release| release.name() != name).cloned().collect();
        self.sign_releases(&releases, keys, lifetimes, now_unix_s).await
    }

    /// Signs the same once more, to be used for longer.
    ///
    /// # Errors
    /// If keys are missing.
    pub async fn renew(self, keys: &KeyRing, lifetimes: Lifetimes, now_unix_s: u64) -> Result<Self, PublisherError> {
        let releases = self.verified.releases.clone();
        self.sign_releases(&releases, keys, lifetimes, now_unix_s).await
    }

    async fn sign_releases(
        self,
        releases: &[Release],
        keys: &KeyRing,
        lifetimes: Lifetimes,
        now_unix_s: u64,
    ) -> Result<Self, PublisherError> {
        let after = sign::After {
            root: &self.root,
            targets: self.targets.signed.version,
            snapshot: self.snapshot.signed.version,
            timestamp: self.timestamp.signed.version,
        };
        let signed = sign::sign(after, releases, keys, lifetimes, now_unix_s).await?;
        self.files.write(&signed, None)?;
        self.reopened().await
    }

    /// What was written, read back and verified.
    async fn reopened(self) -> Result<Self, PublisherError> {
        let set = self.files.read()?;
        let dir = self.files.dir().to_owned();
        let verified = check(&set).await.map_err(|refusal| PublisherError::Damaged { dir, refusal })?;
        Self::new(self.files, set, verified)
    }

    /// Roots beyond this would not travel.
    fn room_for_a_root(&self) -> Result<(), PublisherError> {
        if self.set.roots().len() >= ROOTS_MAX {
            return Err(PublisherError::Full(format!("{ROOTS_MAX} roots")));
        }
        Ok(())
    }
}

/// Verifies a repository from its first root on. What is expired can be renewed, so no clock is asked.
async fn check(set: &MetadataSet) -> Result<Verified, Refusal> {
    let first = set.roots().first().map(|root| root.to_vec()).unwrap_or_default();
    verify(set, &Trusted::root(&first), 0, &std::env::temp_dir()).await.result
}

fn one() -> NonZeroU64 {
    NonZeroU64::MIN
}
