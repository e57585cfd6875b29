//! The repository's files. Invariant: each is written whole or not at all, and `timestamp.json` last.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId};
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;
use tough::schema::Root;

use super::{PublisherError, sign::SignedFiles};
use crate::release::{MetadataSet, Release};
use tough::editor::signed::SignedRole;

/// A repository's directory, locked.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    _lock: File,
}

impl Files {
    /// Locks the repository that is there.
    pub(super) fn open(dir: &Path) -> Result<Self, PublisherError> {
        if !dir.join("metadata").is_dir() {
            return Err(PublisherError::NotARepository(dir.to_owned()));
        }
        Self::lock(dir)
    }

    /// Makes the directory of a new one.
    pub(super) fn create(dir: &Path) -> Result<Self, PublisherError> {
        if dir.join("metadata/timestamp.json").exists() {
            return Err(PublisherError::Exists(dir.to_owned()));
        }
        let metadata = dir.join("metadata");
        fs::create_dir_all(&metadata).map_err(|error| failed("make", &metadata, error))?;
        Self::lock(dir)
    }

    fn lock(dir: &Path) -> Result<Self, PublisherError> {
        let path = dir.join("metadata");
        let lock = File::open(&path).map_err(|error| failed("open", &path, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(PublisherError::Busy(dir.to_owned())),
            Err(error) => Err(failed("lock", &path, error.into())),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn metadata(&self, name: &str) -> PathBuf {
        self.dir.join("metadata").join(name)
    }

    /// The current set. Older snapshots and targets may lie beside it.
    pub(super) fn read(&self) -> Result<MetadataSet, PublisherError> {
        let damaged = |refusal| PublisherError::Damaged { dir: self.dir.clone(), refusal };
        let mut files = BTreeMap::new();
        let mut take = |name: String| {
            let path = self.metadata(&name);
            let bytes = match fs::read(&path) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed("read", &path, error)),
            };
            files.insert(name, bytes.clone());
            Ok(Some(bytes))
        };
        let mut version = 1;
        while take(format!("{version}.root.json"))?.is_some() {
            version += 1;
        }
        let timestamp = take("timestamp.json".to_owned())?.unwrap_or_default();
        if let Some(snapshot) = named(&timestamp, "snapshot.json").map(|n| take(format!("{n}.snapshot.json"))) {
            let snapshot = snapshot?.unwrap_or_default();
            if let Some(targets) = named(&snapshot, "targets.json") {
                take(format!("{targets}.targets.json"))?;
            }
        }
        MetadataSet::new(files).map_err(damaged)
    }

    /// Writes a new state, with its root if that is new.
    pub(super) fn write(&self, signed: &SignedFiles, root: Option<&SignedRole<Root>>) -> Result<(), PublisherError> {
        self.put(&self.metadata(&signed.targets.0), &signed.targets.1)?;
        self.put(&self.metadata(&signed.snapshot.0), &signed.snapshot.1)?;
        if let Some(root) = root {
            let version = root.signed().signed.version;
            self.put(&self.metadata(&format!("{version}.root.json")), root.buffer())?;
        }
        self.put(&self.metadata("timestamp.json"), &signed.timestamp)?;
        if let Some(root) = root {
            self.put(&self.dir.join("root.json"), root.buffer())?;
        }
        Ok(())
    }

    /// Writes the target of a release.
    pub(super) fn write_release(&self, release: &Release) -> Result<(), PublisherError> {
        let index = release.index();
        let dir = self.dir.join("targets").join(release.channel.as_str());
        fs::create_dir_all(&dir).map_err(|error| failed("make", &dir, error))?;
        let hash = ContentId::of(Algorithm::Sha256, &index).hex();
        self.put(&dir.join(format!("{hash}.{}", release.version)), &index)
    }

    /// Takes a root out that nothing was signed with.
    pub(super) fn set_root_aside(&self, version: usize) -> Result<(), PublisherError> {
        let path = self.metadata(&format!("{version}.root.json"));
        fs::rename(&path, path.with_extension("json.interrupted")).map_err(|error| failed("rename", &path, error))
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), PublisherError> {
        let dir = path.parent().unwrap_or(&self.dir);
        let write = || {
            let mut file = NamedTempFile::new_in(dir)?;
            file.write_all(bytes)?;
            // Temporary files are private, and these are for everybody.
            rustix::fs::fchmod(file.as_file(), rustix::fs::Mode::from_raw_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error: io::Error| failed("write", path, error))
    }
}

/// The version that a file of metadata names for another, not verified.
fn named(bytes: &[u8], file: &str) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    value.get("signed")?.get("meta")?.get(file)?.get("version")?.as_u64()
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PublisherError {
    PublisherError::Io { what, path: path.to_owned(), source }
}
