//! Follows what appears in an attached store and what vanishes from it.
//!
//! The directory is read as a whole, and compared with what is known; that something changed is all that inotify is asked
//! for, so nothing depends on its events being complete or in order. Where it says nothing (no inotify, a network file
//! system, a stick that is not there), the directory is read now and then. Files that are not known are hashed one after
//! the other at a bounded rate; meanwhile the directory is read again whenever it changed, so that what vanishes is
//! withdrawn at once, however large a file is being hashed.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::Path,
    pin::pin,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use layermesh_proto::ContentId;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Inner, Store,
    attached::{ATTACHED_FILES_MAX, File, blobs_of},
    error::ChangeError,
    lock,
    scan::Identity,
};

/// Bytes a second that are read to hash files: a fifth of what a cheap eMMC reads, and a layer of 100 MiB in 3 s.
const HASH_BYTES_PER_S: u64 = 32 << 20;
/// How long further changes are waited for: a runtime moves an image's layers in one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// How often a directory is read of which inotify tells: should it ever not.
const LOOK_WATCHED: Duration = Duration::from_secs(600);
/// How often one is read of which nothing tells, because it is not there or cannot be watched.
const LOOK_UNWATCHED: Duration = Duration::from_secs(10);

/// What is to be heard of the directories above the one with the blobs: that they are others now.
const SELF_EVENTS: WatchFlags = WatchFlags::DELETE_SELF.union(WatchFlags::MOVE_SELF).union(WatchFlags::ONLYDIR);
/// What is to be heard of the blobs.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(SELF_EVENTS);

/// Follows a directory until `stop`, or until the store is closed.
pub(super) async fn follow(store: Weak<Inner>, dir: Arc<Path>, stop: CancellationToken) {
    let mut follower = match store.upgrade() {
        Some(inner) => Follower { watch: Watch::new(), known: recorded(Store(inner), &dir).await, dir },
        None => return,
    };
    loop {
        let Some(inner) = store.upgrade().filter(|inner| !inner.closing.load(Ordering::Relaxed)) else { return };
        let watched = match follower.look(Store(inner)).await {
            Ok(watched) => watched,
            Err(error) => {
                warn!(dir = ?follower.dir, %error, "cannot look through an attached store");
                false
            }
        };
        let look_again = tokio::time::sleep(if watched { LOOK_WATCHED } else { LOOK_UNWATCHED });
        tokio::select! {
            () = stop.cancelled() => return,
            () = look_again => {}
            () = follower.watch.changed() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// What was known of the files when the store was open last.
async fn recorded(store: Store, dir: &Arc<Path>) -> Vec<(ContentId, File)> {
    let named = Arc::clone(dir);
    match store.job(move |inner| inner.meta.files(&named)).await {
        Ok(Ok(files)) => files.into_iter().collect(),
        Ok(Err(error)) => {
            warn!(?dir, %error, "does not know what an attached store had: all of it is hashed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

struct Follower {
    watch: Watch,
    /// From the last time that the store was open, until the first look.
    known: Vec<(ContentId, File)>,
    dir: Arc<Path>,
}

impl Follower {
    /// Looks through the directory until it is known. Says whether it is heard of when that changes.
    async fn look(&mut self, store: Store) -> Result<bool, ChangeError> {
        loop {
            let watched = self.watch.on(&self.dir);
            let known = std::mem::take(&mut self.known);
            let Some(unknown) = self.look_through(&store, known).await? else { return Ok(false) };
            if !self.hash(&store, unknown).await? {
                return Ok(watched);
            }
        }
    }

    async fn look_through(
        &self,
        store: &Store,
        known: Vec<(ContentId, File)>,
    ) -> Result<Option<Vec<ContentId>>, ChangeError> {
        let dir = Arc::clone(&self.dir);
        let turn = Arc::clone(&store.0.structure).lock_owned().await;
        let job = store.job(move |inner| {
            let _turn = turn;
            inner.look_through(&dir, known)
        });
        job.await?
    }

    /// Hashes files, until all are known or something changes. Says whether it did.
    async fn hash(&mut self, store: &Store, unknown: Vec<ContentId>) -> Result<bool, ChangeError> {
        let mut left = unknown.len();
        for content in unknown {
            let is_attached = match lock(&store.0.attached).get_mut(&*self.dir) {
                Some(attachment) => {
                    attachment.pending = left;
                    true
                }
                None => false,
            };
            if !is_attached || store.0.closing.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let changed = self.hash_one(store, content).await?;
            left -= 1;
            if changed || self.watch.take_change() {
                return Ok(true);
            }
        }
        if let Some(attachment) = lock(&store.0.attached).get_mut(&*self.dir) {
            attachment.pending = 0;
        }
        Ok(false)
    }

    /// Hashes a file and takes it up. What vanishes meanwhile is withdrawn. Says whether anything changed.
    async fn hash_one(&self, store: &Store, content: ContentId) -> Result<bool, ChangeError> {
        let path = blobs_of(&self.dir).join(content.hex());
        let mut hashing = pin!(store.hash_file(path, content, Some(HASH_BYTES_PER_S)));
        let mut anything = false;
        let found = loop {
            tokio::select! {
                found = &mut hashing => break found,
                // It is told once: whatever ends first from here on, somebody has to look.
                () = self.watch.changed() => anything = true,
            }
            tokio::select! {
                found = &mut hashing => break found,
                () = tokio::time::sleep(SETTLE) => {}
            }
            self.look_through(store, Vec::new()).await?;
        };
        match found {
            Ok(found) => store.take_attached(Arc::clone(&self.dir), content, found).await?,
            Err(error) => debug!(%content, %error, "cannot read an attached file"),
        }
        Ok(anything)
    }
}

impl Inner {
    /// Reads a directory, withdraws what is not there as it was, and takes up what is there as it was `before`. Returns
    /// what has to be hashed; `None` if the directory cannot be read, and then nothing of it is held.
    fn look_through(
        &self,
        dir: &Arc<Path>,
        before: Vec<(ContentId, File)>,
    ) -> Result<Option<Vec<ContentId>>, ChangeError> {
        let there = files_in(&blobs_of(dir));
        let problem = there.as_ref().err().map(ToString::to_string);
        let known: Vec<_> = match lock(&self.attached).get_mut(&**dir) {
            Some(attachment) => {
                attachment.problem = problem;
                attachment.files.iter().map(|(&content, &file)| (content, file)).collect()
            }
            None => return Ok(None),
        };
        let found = match &there {
            Ok(files) => files.as_slice(),
            Err(_) => &[],
        };
        let now = |content: &ContentId| {
            let at = found.binary_search_by_key(content, |(content, _)| *content).ok()?;
            Some(found[at].1)
        };
        let gone: Vec<_> = known
            .iter()
            .filter(|(content, file)| now(content) != Some(file.identity))
            .map(|(content, _)| *content)
            .collect();
        self.vanish(dir, &gone)?;
        if there.is_err() {
            return Ok(None);
        }
        for (content, file) in before {
            match now(&content) {
                Some(identity) if identity == file.identity && file.good => self.arrive(dir, content, identity)?,
                Some(identity) if identity == file.identity => {
                    if let Some(attachment) = lock(&self.attached).get_mut(&**dir) {
                        attachment.files.insert(content, file);
                    }
                }
                _ => {}
            }
        }
        let attached = lock(&self.attached);
        let Some(attachment) = attached.get(&**dir) else { return Ok(None) };
        let unknown =
            found.iter().map(|(content, _)| *content).filter(|content| !attachment.files.contains_key(content));
        Ok(Some(unknown.collect()))
    }
}

/// The files of a directory that have the names of blobs, in order of their content ids.
fn files_in(dir: &Path) -> io::Result<Vec<(ContentId, Identity)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(content) = name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok()) else { continue };
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => files.push((content, Identity::of(&metadata))),
            Ok(_) => {}
            // Gone since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if files.len() >= ATTACHED_FILES_MAX {
            warn!(?dir, max = ATTACHED_FILES_MAX, "an attached store has more files than are looked at");
            break;
        }
    }
    files.sort_unstable_by_key(|(content, _)| *content);
    Ok(files)
}

/// Tells that something happened in a directory, not what.
struct Watch(Option<AsyncFd<OwnedFd>>);

impl Watch {
    fn new() -> Self {
        let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned, and never taken out or closed"
        )]
        let watch = made.and_then(AsyncFd::new);
        match watch {
            Ok(watch) => Self(Some(watch)),
            Err(error) => {
                warn!(%error, "attached stores are looked through now and then, since there is no inotify");
                Self(None)
            }
        }
    }

    /// Watches an attached store, again if it is another one by that name now. Says whether that works.
    fn on(&self, dir: &Path) -> bool {
        let Some(watch) = &self.0 else { return false };
        let blobs = blobs_of(dir);
        let above =
            blobs.ancestors().skip(1).take_while(|above| above.starts_with(dir)).map(|above| (above, SELF_EVENTS));
        for (dir, events) in std::iter::once((&*blobs, EVENTS)).chain(above) {
            if let Err(error) = inotify::add_watch(watch.get_ref(), dir, events) {
                debug!(?dir, %error, "cannot watch an attached store");
                return false;
            }
        }
        true
    }

    /// Waits until something happens.
    async fn changed(&self) {
        let Some(watch) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = watch.readable().await else { return std::future::pending().await };
            if self.take_change() {
                return;
            }
            ready.clear_ready();
        }
    }

    /// Whether something has happened.
    fn take_change(&self) -> bool {
        let Some(watch) = &self.0 else { return false };
        let mut buffer = [0; 4096];
        let mut happened = false;
        while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|bytes| bytes > 0) {
            happened = true;
        }
        happened
    }
}
