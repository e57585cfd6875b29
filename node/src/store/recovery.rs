//! Opening: take the directory, bring rows, files and partials into agreement, look into what nobody vouches for.
//!
//! The rules follow from the order in which things are written (see the store's documentation):
//!
//! | row | file in `blobs/` | partial | so |
//! |---|---|---|---|
//! | yes | right size | any | whole; the partial is swept up |
//! | yes | wrong size | any | damaged: becomes a partial of its good pieces |
//! | yes | no | `data` of the right size | the rename is still to be done |
//! | yes | no | otherwise | gone: the row goes |
//! | no | yes | `state` without `data` | the rename back is still to be done |
//! | no | yes | otherwise | hashed in the background |
//! | no | no | `state` and `data` | a partial |
//! | no | no | otherwise | swept up |
//!
//! No blob is read from end to end before the store is open, but for those of a wrong size.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64},
    },
};

use layermesh_proto::{Algorithm, ContentId};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{info, warn};

use super::{
    EVENT_QUEUE_LEN, HeldEntry, Inner, Inventory, JOBS_MAX, Opened, SCANS_MAX, Store, StoreOptions,
    damage::{demote, remains_of},
    disk::{self, FileOps},
    error::{MetaError, OpenError},
    growing::{Growing, remove_partial},
    index::bindings_of,
    journal::{self, JOURNAL_BYTES_MAX, Journal},
    kept::KeptPieces,
    lock,
    meta::Meta,
    paths::{Paths, content_of_flat_name, data_of, state_of},
    uses::UseClock,
};

/// The newest format of the directory that this program writes and reads.
const FORMAT: u32 = 1;
const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Opens a store that changes files through `ops`.
pub(super) async fn open(options: StoreOptions, ops: Arc<dyn FileOps>) -> Result<Opened, OpenError> {
    let path = options.dir.clone();
    let opening = tokio::task::spawn_blocking(move || open_blocking(options, ops));
    let (opened, unknown) = opening.await.map_err(|error| OpenError::Io { path, error: io::Error::other(error) })??;
    if !unknown.is_empty() {
        let adoption = tokio::spawn(super::adopt::adopt_all(Arc::downgrade(&opened.store.0), unknown));
        *lock(&opened.store.0.adoption) = Some(adoption);
    }
    Ok(opened)
}

fn open_blocking(options: StoreOptions, ops: Arc<dyn FileOps>) -> Result<(Opened, Vec<ContentId>), OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { path, error }
    };
    let root = options.dir;
    ops.create_dir(&root).map_err(at(&root))?;
    let paths = Paths { root: root.clone() };
    let lock_file = take(&*ops, &paths)?;
    check_format(&*ops, &paths)?;
    lay_out(&*ops, &paths)?;
    let meta_path = paths.file("meta.redb");
    // Made here so that it has the right mode.
    ops.open(&meta_path).map_err(at(&meta_path))?;
    let (meta, meta_is_new) = Meta::open(&meta_path)?;
    let in_meta = |error: MetaError| OpenError::Meta { path: meta_path.clone(), error };
    meta.prepare().map_err(in_meta)?;

    let mut recovery = Recovery { ops: &*ops, paths: &paths, meta: &meta, held: HashMap::new(), partials: Vec::new() };
    recovery.rows()?;
    let files = recovery.files().map_err(at(&root))?;
    let unknown = recovery.partials(files).map_err(at(&root))?;
    let (held, partials) = (recovery.held, recovery.partials);

    let (events, receiver) = mpsc::channel(EVENT_QUEUE_LEN);
    let uses = meta.uses().map_err(in_meta)?;
    let found = |(&content, &size): (&ContentId, &u64)| {
        (content, HeldEntry::found(size, uses.get(&content).copied(), &paths.blob(&content)))
    };
    let held: HashMap<_, _> = held.iter().map(found).collect();
    let inner = Inner {
        free_bytes_min: options.free_bytes_min,
        quota: options.quota,
        quota_now: AtomicU64::new(u64::MAX),
        clock: UseClock::new(held.values().map(|entry| entry.used_ms).max().unwrap_or(0)),
        held: Mutex::new(held),
        holds: Mutex::default(),
        attached: Mutex::default(),
        partials: Mutex::new(partials.into_iter().map(|growing| (growing.content, Arc::new(growing))).collect()),
        kept: KeptPieces::new(options.kept_bytes_max),
        pins: Mutex::new(meta.pins().map_err(in_meta)?),
        changed: watch::Sender::new(()),
        structure: Arc::default(),
        jobs: Arc::new(Semaphore::new(JOBS_MAX)),
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
        events,
        closing: AtomicBool::new(false),
        adoption: Mutex::default(),
        _lock: lock_file,
        paths,
        ops,
        meta,
    };
    if let Err(error) = inner.collect_at_start() {
        warn!(%error, "cannot remove what has no room");
    }
    inner.recover_index(meta_is_new).map_err(at(&root))?;
    let inventory = Inventory {
        held: lock(&inner.held).iter().map(|(&content, entry)| (content, entry.size)).collect(),
        partial: lock(&inner.partials)
            .values()
            .map(|growing| (growing.content, growing.layout.blob_size(), growing.durable()))
            .collect(),
        bindings: inner.meta.bindings().map_err(in_meta)?,
    };
    Ok((Opened { store: Store(Arc::new(inner)), inventory, events: receiver }, unknown))
}

/// Takes the directory for this process.
fn take(ops: &dyn FileOps, paths: &Paths) -> Result<File, OpenError> {
    let path = paths.file("lock");
    let failed = |error| OpenError::Io { path: path.clone(), error };
    let mut file = ops.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The owner may not have written it yet, or it may be another program.
            let _ = (&mut file).take(16).read_to_string(&mut pid);
            return Err(OpenError::InUse { dir: paths.root.clone(), pid: pid.trim().parse().ok() });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    let pid = format!("{}\n", std::process::id());
    ops.set_len(&file, 0).and_then(|()| ops.write_at(&file, pid.as_bytes(), 0)).map_err(failed)?;
    Ok(file)
}

fn check_format(ops: &dyn FileOps, paths: &Paths) -> Result<(), OpenError> {
    let path = paths.file("version");
    let failed = |error| OpenError::Io { path: path.clone(), error };
    match fs::read_to_string(&path) {
        Ok(found) if found.trim().parse() == Ok(FORMAT) => Ok(()),
        Ok(found) => Err(OpenError::NewerFormat {
            dir: paths.root.clone(),
            found: found.trim().chars().take(20).collect(),
            known: FORMAT,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::replace(ops, &path, format!("{FORMAT}\n").as_bytes()).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes what an OCI image layout needs and is not there.
fn lay_out(ops: &dyn FileOps, paths: &Paths) -> Result<(), OpenError> {
    for dir in [paths.blobs(Algorithm::Sha256), paths.blobs(Algorithm::Sha512), paths.partials()] {
        ops.create_dir(&dir).map_err(|error| OpenError::Io { path: dir.clone(), error })?;
    }
    let path = paths.file("oci-layout");
    let failed = |error| OpenError::Io { path: path.clone(), error };
    match fs::read(&path) {
        Ok(bytes) => {
            let layout: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
            let version = layout.as_ref().and_then(|layout| layout.get("imageLayoutVersion")?.as_str());
            match version {
                Some("1.0.0") => return Ok(()),
                Some(_) => return Err(OpenError::OtherLayout(paths.root.clone())),
                None => {}
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    disk::replace(ops, &path, OCI_LAYOUT.as_bytes()).map_err(failed)?;
    // The names of the directories just made.
    for dir in [paths.root.clone(), paths.root.join("blobs")] {
        ops.sync_dir(&dir).map_err(|error| OpenError::Io { path: dir.clone(), error })?;
    }
    Ok(())
}

struct Recovery<'a> {
    ops: &'a dyn FileOps,
    paths: &'a Paths,
    meta: &'a Meta,
    held: HashMap<ContentId, u64>,
    partials: Vec<Growing>,
}

impl Recovery<'_> {
    /// Brings each row into agreement with its file.
    fn rows(&mut self) -> Result<(), OpenError> {
        let path = self.paths.file("meta.redb");
        let in_meta = |error: MetaError| OpenError::Meta { path: path.clone(), error };
        for (content, size) in self.meta.blobs().map_err(in_meta)? {
            let blob = self.paths.blob(&content);
            let failed = |error| OpenError::Io { path: blob.clone(), error };
            match file_len(&blob).map_err(failed)? {
                Some(len) if len == size => {
                    self.held.insert(content, size);
                }
                Some(_) => self.wrong_size(&content)?,
                None => {
                    let data = data_of(&self.paths.partial(&content));
                    if file_len(&data).map_err(failed)? == Some(size) {
                        info!(%content, "finishing the move of a blob that became whole");
                        self.ops.rename(&data, &blob).map_err(failed)?;
                        self.ops.sync_dir(&self.paths.blobs(content.algorithm())).map_err(failed)?;
                        self.held.insert(content, size);
                    } else {
                        warn!(%content, "a stored blob is gone");
                        self.meta.remove(&content).map_err(in_meta)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn wrong_size(&mut self, content: &ContentId) -> Result<(), OpenError> {
        let path = self.paths.file("meta.redb");
        let blob = self.paths.blob(content);
        let failed = |error| OpenError::Io { path: blob.clone(), error };
        let forget = || self.meta.remove(content).map_err(io::Error::other);
        warn!(%content, "a stored blob has the wrong size: its good pieces are kept");
        let map = self.meta.map(content).map_err(|error| OpenError::Meta { path, error })?;
        let Some(map) = map else {
            // Nothing vouches for it: it is hashed in the background like any unknown file.
            return forget().map_err(failed);
        };
        let remains = remains_of(self.paths, content, map).map_err(failed)?;
        let growing = demote(self.ops, self.paths, content, &remains, forget).map_err(failed)?;
        self.partials.extend(growing);
        Ok(())
    }

    /// The files in `blobs/` that have no row. What is no regular file, or has no digest for a name, is not ours.
    fn files(&self) -> io::Result<Vec<ContentId>> {
        let mut unknown = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for entry in fs::read_dir(self.paths.blobs(algorithm))? {
                let entry = entry?;
                let name = entry.file_name();
                let content = name.to_str().and_then(|hex| format!("{}:{hex}", algorithm.name()).parse().ok());
                match content {
                    Some(content) if entry.file_type()?.is_file() => {
                        if !self.held.contains_key(&content) {
                            unknown.push(content);
                        }
                    }
                    _ => warn!(?name, "left alone: not a blob"),
                }
            }
        }
        Ok(unknown)
    }

    /// Takes up the partials. Returns the files without a row that are left to be hashed.
    fn partials(&mut self, mut unknown: Vec<ContentId>) -> io::Result<Vec<ContentId>> {
        for entry in fs::read_dir(self.paths.partials())? {
            let dir = entry?.path();
            let content = dir.file_name().and_then(|name| content_of_flat_name(name.to_str()?));
            let Some(content) = content else {
                warn!(?dir, "left alone: not a partial");
                continue;
            };
            if self.partials.iter().any(|growing| growing.content == content) {
                continue;
            }
            let journal = if self.held.contains_key(&content) { None } else { read_journal(&dir, &content)? };
            let data = data_of(&dir);
            if journal.is_some() && file_len(&data)?.is_none() && unknown.contains(&content) {
                info!(%content, "finishing the withdrawal of a damaged blob");
                self.ops.rename(&self.paths.blob(&content), &data)?;
                self.ops.sync_dir(&dir)?;
                unknown.retain(|other| *other != content);
            }
            match journal {
                Some(journal) if file_len(&data)?.is_some() => {
                    self.partials.push(take_up(self.ops, dir, data, &journal)?);
                }
                _ => remove_partial(self.ops, &dir)?,
            }
        }
        Ok(unknown)
    }
}

/// A partial as its journal describes it, less the pieces that its data file is too short for.
fn take_up(ops: &dyn FileOps, dir: PathBuf, data: PathBuf, journal: &Journal) -> io::Result<Growing> {
    let layout = journal.layout;
    let file = ops.open(&data)?;
    let len = file.metadata()?.len();
    let (mut durable, hashes) = journal.pieces();
    for index in 0..layout.count() {
        if layout.bytes_of(index).end > len {
            durable.remove(index);
        }
    }
    if len != layout.blob_size() {
        ops.set_len(&file, layout.blob_size())?;
    }
    Ok(Growing::new(journal.content, layout, dir, file, durable, hashes, Some(journal.next_slot)))
}

fn read_journal(dir: &Path, content: &ContentId) -> io::Result<Option<Journal>> {
    let file = match File::open(state_of(dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(JOURNAL_BYTES_MAX).read_to_end(&mut bytes)?;
    match journal::parse(&bytes) {
        Ok(journal) if journal.content == *content => Ok(Some(journal)),
        Ok(_) => Ok(None),
        Err(error) => {
            warn!(%content, %error, "a partial's state cannot be read: it starts again");
            Ok(None)
        }
    }
}

/// A regular file's length; `None` if there is none.
fn file_len(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file().then(|| metadata.size())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Inner {
    /// Takes bindings from the index if the metadata had to be made anew, then brings the index up to date.
    fn recover_index(&self, meta_is_new: bool) -> io::Result<()> {
        let path = self.paths.file(super::index::INDEX_FILE);
        let index = self.read_index()?;
        match &index {
            Some(index) if meta_is_new => {
                for binding in bindings_of(index) {
                    self.meta.bind(&binding).map_err(io::Error::other)?;
                }
            }
            None if path.exists() => {
                let aside = path.with_extension("json.damaged");
                warn!(?path, ?aside, "not JSON: moved aside and made anew");
                self.ops.rename(&path, &aside)?;
            }
            _ => {}
        }
        self.refresh_index()
    }
}
