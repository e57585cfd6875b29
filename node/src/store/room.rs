//! Room for what comes: the quota, what is held on to, and the removal of what is not.
//!
//! What goes is chosen by [`layermesh_proto::retention`]; here is what it is told, and what is done about its choice.
//! Invariants: the sizes of all whole blobs, of all that were begun (whole sizes, from the start) and of those promised
//! room are together within the quota, unless it was lowered below what may not go; a blob that somebody holds on to or
//! has pinned is not removed; a blob is withdrawn, and the driver told, before its row and its file go.

use std::{
    collections::HashMap,
    fmt, fs, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use layermesh_proto::{
    Algorithm, ContentId, PieceSet,
    retention::{self, Keep, Room, Shortage, Stored},
    wire::Binding,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Inner, Place, Store, StoreEvent, begin,
    error::{BeginError, ChangeError, ReadError, RoomError},
    lock,
    scan::Found,
    uses::{SAVE_GRAIN_MS, file_ms},
};

/// How often the store looks for what was abandoned, whether the disk is short of its reserve, and writes down uses.
pub const TEND_INTERVAL: Duration = Duration::from_secs(3600);
/// Share of the disk for blobs unless told otherwise, in percent: an image that a runtime has unpacked takes more than
/// its layers, and has to find room on the same disk as a rule.
pub const QUOTA_SHARE_PERCENT_DEFAULT: u8 = 50;
/// Bytes that must be free before the metadata are written: a commit is some 32 KiB, and one that failed for want of space
/// would keep all others from being written until the next start.
const RECORD_BYTES: u64 = 256 << 10;
/// Plans made for one blob: each may meet a blob that somebody has begun to read since.
const PLANS_MAX: usize = 16;

/// How much a store may hold: the smaller of both counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes; `None` for no such limit.
    pub bytes: Option<u64>,
    /// Share of the file system's size, in percent.
    pub share_percent: u8,
}

impl Quota {
    /// All of the disk, but for the reserve.
    pub const UNLIMITED: Self = Self { bytes: None, share_percent: 100 };
}

impl Default for Quota {
    fn default() -> Self {
        Self { bytes: None, share_percent: QUOTA_SHARE_PERCENT_DEFAULT }
    }
}

/// Blobs that somebody holds on to. As many as there are wants, readers and images being pulled, which have limits.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<ContentId, Held>);

#[derive(Debug, Default)]
struct Held {
    holders: usize,
    /// How many of them were promised room, and how much.
    promises: usize,
    bytes: u64,
}

impl Holds {
    fn contains(&self, content: &ContentId) -> bool {
        self.0.contains_key(content)
    }

    fn add(&mut self, content: ContentId, promised: Option<u64>) {
        let held = self.0.entry(content).or_default();
        held.holders += 1;
        if let Some(bytes) = promised {
            held.promises += 1;
            held.bytes = held.bytes.max(bytes);
        }
    }

    fn remove(&mut self, content: &ContentId, promised: bool) {
        let Some(held) = self.0.get_mut(content) else { return };
        held.holders -= 1;
        if promised {
            held.promises -= 1;
            if held.promises == 0 {
                held.bytes = 0;
            }
        }
        if held.holders == 0 {
            self.0.remove(content);
        }
    }

    fn promises(&self) -> impl Iterator<Item = (&ContentId, u64)> {
        self.0.iter().map(|(content, held)| (content, held.bytes))
    }
}

/// Keeps blobs, held or to come, from being removed for want of room while it lives.
pub struct Hold {
    store: Store,
    contents: Vec<ContentId>,
    promised: bool,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("contents", &self.contents).finish_non_exhaustive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = lock(&self.store.0.holds);
        for content in &self.contents {
            holds.remove(content, self.promised);
        }
    }
}

/// Something that a collection removed, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The blob, or what a file took itself for.
    pub content: ContentId,
    /// Its size in bytes; of a blob that was begun, all of it.
    pub bytes: u64,
    /// What it was.
    pub kind: CollectedKind,
}

/// What a collection removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CollectedKind {
    /// A whole blob, for want of room.
    Whole,
    /// A blob that was begun: abandoned, or for want of room.
    Begun,
    /// A file that was moved aside because it was not what its name said.
    Damaged,
}

impl Store {
    /// Holds on to a blob, held or not: a use of it.
    pub fn hold(&self, content: ContentId) -> Hold {
        lock(&self.0.holds).add(content, None);
        self.0.touch(&content);
        Hold { store: self.clone(), contents: vec![content], promised: false }
    }

    /// Reads a whole blob from end to end, at most `bytes_per_s` of it a second, and says whether it is as it was, or has
    /// gone meanwhile. If not, it has been withdrawn as by a reader on return.
    ///
    /// # Errors
    /// If the disk fails in a way that says nothing of the blob.
    pub async fn verify(&self, content: ContentId, bytes_per_s: u64) -> Result<bool, ReadError> {
        // Not a use of it.
        lock(&self.0.holds).add(content, None);
        let _hold = Hold { store: self.clone(), contents: vec![content], promised: false };
        let place = lock(&self.0.held).get(&content).map(|entry| entry.place.clone());
        let Some(place) = place else { return Ok(true) };
        let path = self.0.path_of(&content, &place);
        if let Found::Blob { .. } = self.hash_file(path, content, Some(bytes_per_s)).await? {
            return Ok(true);
        }
        if self.0.closing.load(Ordering::Relaxed) {
            return Err(io::Error::other("the node is shutting down").into());
        }
        self.withdraw(content).await?;
        Ok(self.size_of(&content).is_some())
    }

    /// What tags stand for.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub async fn bindings(&self) -> Result<Vec<Binding>, ChangeError> {
        Ok(self.job(|inner| inner.meta.bindings()).await??)
    }

    /// Whether all of these blobs with their sizes in bytes, of which some may be held, can be held at the same time.
    /// Nothing is removed for it.
    ///
    /// # Errors
    /// If they cannot, with figures; or the disk does not say how full it is.
    pub async fn fits(&self, parts: Vec<(ContentId, u64)>) -> Result<(), RoomError> {
        self.job(move |inner| inner.fits(&parts)).await?
    }

    /// The same, and sees to it that it stays so while the answer lives: the blobs are held on to, and those that are to
    /// come are promised room.
    ///
    /// # Errors
    /// As [`Store::fits`].
    pub async fn reserve(&self, parts: Vec<(ContentId, u64)>) -> Result<Hold, RoomError> {
        // Two that ask at the same time must not be promised the same room.
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        let store = self.clone();
        self.job(move |inner| {
            let _turn = turn;
            inner.fits(&parts)?;
            let mut holds = lock(&inner.holds);
            for &(content, bytes) in &parts {
                holds.add(content, Some(bytes));
            }
            drop(holds);
            let contents: Vec<_> = parts.into_iter().map(|(content, _)| content).collect();
            contents.iter().for_each(|content| inner.touch(content));
            Ok(Hold { store, contents, promised: true })
        })
        .await?
    }

    /// Removes what was abandoned, and the least recently used blobs until those that are left take at most `target`
    /// bytes and the quota, and leave the disk its reserve; `aside` removes damaged files that were moved aside, too.
    /// `dry_run` only says what would go.
    ///
    /// # Errors
    /// If the disk fails, or the change cannot be recorded.
    pub async fn collect(
        &self,
        target: Option<u64>,
        aside: bool,
        dry_run: bool,
    ) -> Result<Vec<Collected>, ChangeError> {
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            let mut collected = inner.collect(target.unwrap_or(u64::MAX), dry_run)?;
            if aside {
                collected.extend(inner.collect_aside(dry_run)?);
            }
            Ok(collected)
        })
        .await?
    }

    /// Keeps the store in order until `shutdown`: collects now and then, and writes down uses.
    pub async fn tend(self, shutdown: CancellationToken) {
        loop {
            match self.collect(None, false, false).await {
                Ok(gone) if !gone.is_empty() => info!(blobs = gone.len(), "removed blobs for want of room"),
                Ok(_) => {}
                Err(error) => warn!(%error, "cannot remove what has no room"),
            }
            let saved = self.job(|inner| inner.save_uses(SAVE_GRAIN_MS)).await;
            if let Ok(Err(error)) = saved {
                warn!(%error, "cannot write down when blobs were used");
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(TEND_INTERVAL)).await.is_none() {
                return;
            }
        }
    }
}

impl Inner {
    fn fits(&self, parts: &[(ContentId, u64)]) -> Result<(), RoomError> {
        // What an attached store has takes no room here.
        let parts: Vec<_> =
            parts.iter().filter(|(content, _)| self.has_own(content) || !self.has(content)).copied().collect();
        // What a part was promised before is the room that it is given now.
        let of_these = |content: &ContentId| parts.iter().any(|(part, _)| part == content);
        let room = self.room(of_these)?;
        retention::fits(room, self.stored(), &parts).map_err(RoomError::Short)?;
        Ok(())
    }

    /// The room that there is; what was promised to blobs of which `except` is true is left out.
    fn room(&self, except: impl Fn(&ContentId) -> bool) -> io::Result<Room> {
        let quota =
            retention::quota(self.quota.bytes, self.quota.share_percent, self.ops.total_bytes(&self.paths.root)?);
        self.quota_now.store(quota, Ordering::Relaxed);
        let free = self.free_bytes(None)?;
        let promises: Vec<_> = lock(&self.holds)
            .promises()
            .filter(|(content, _)| !except(content))
            .map(|(&c, bytes)| (c, bytes))
            .collect();
        let to_come = promises.into_iter().filter(|(content, _)| !self.has(content));
        let promised = to_come.fold(0_u64, |sum, (_, bytes)| sum.saturating_add(bytes));
        Ok(Room { quota, free, promised })
    }

    fn has_own(&self, content: &ContentId) -> bool {
        let whole = lock(&self.held).get(content).is_some_and(|entry| entry.place == Place::Own);
        whole || lock(&self.partials).contains_key(content)
    }

    fn has(&self, content: &ContentId) -> bool {
        lock(&self.held).contains_key(content) || lock(&self.partials).contains_key(content)
    }

    /// All that the store itself has, and what of it must stay.
    fn stored(&self) -> Vec<Stored> {
        let whole = |(&content, entry): (&ContentId, &super::HeldEntry)| Stored {
            content,
            bytes: entry.size,
            used_ms: entry.used_ms,
            whole: true,
            keep: None,
        };
        let own = |(_, entry): &(&ContentId, &super::HeldEntry)| entry.place == Place::Own;
        let mut stored: Vec<_> = lock(&self.held).iter().filter(own).map(whole).collect();
        stored.extend(lock(&self.partials).iter().map(|(&content, growing)| {
            // One reference is the store's own; others write to it, read it, or see to its durability.
            let keep = (Arc::strong_count(growing) > 1).then_some(Keep::InUse);
            let used_ms = growing.data.metadata().map_or(0, |metadata| file_ms(&metadata));
            Stored { content, bytes: growing.layout.blob_size(), used_ms, whole: false, keep }
        }));
        let (pins, holds) = (lock(&self.pins), lock(&self.holds));
        for blob in &mut stored {
            if pins.contains(&blob.content) {
                blob.keep = Some(Keep::Pinned);
            } else if holds.contains(&blob.content) {
                blob.keep = Some(Keep::InUse);
            }
        }
        stored
    }

    /// Makes room for `needed` more bytes of a blob, in the quota and on the disk.
    pub(super) fn fit(&self, content: &ContentId, needed: u64) -> Result<(), BeginError> {
        self.fit_into(needed, |inner| inner.room(|other| other == content))
    }

    /// Makes `needed` bytes free on the disk, whatever the quota says, for a blob that has its place in it.
    pub(super) fn fit_disk(&self, data: &fs::File, needed: u64) -> Result<(), BeginError> {
        self.fit_into(needed, |inner| Ok(Room { quota: u64::MAX, free: inner.free_bytes(Some(data))?, promised: 0 }))
    }

    fn fit_into(&self, needed: u64, room: impl Fn(&Self) -> io::Result<Room>) -> Result<(), BeginError> {
        for _ in 0..PLANS_MAX {
            let gone = retention::make_room(room(self)?, self.stored(), needed)?;
            if gone.is_empty() {
                return Ok(());
            }
            info!(blobs = gone.len(), needed, "removing blobs so that another has room");
            self.evict(&gone, true)?;
        }
        Err(io::Error::other("others use at once whatever could make room").into())
    }

    /// Gives up the blob that was begun longest ago, if there is one that nobody has to do with.
    pub(super) fn evict_oldest_partial(&self) -> Result<bool, ChangeError> {
        let loose = self.stored().into_iter().filter(|blob| !blob.whole && blob.keep.is_none());
        match loose.min_by_key(|blob| blob.used_ms) {
            Some(oldest) => self.evict(&[oldest.content], true).map(|()| true),
            None => Ok(false),
        }
    }

    /// Bytes that are free on the disk beyond the reserve and what was promised to blobs that were begun, but for that
    /// in `own`.
    pub(super) fn free_bytes(&self, own: Option<&fs::File>) -> io::Result<u64> {
        let free = self.ops.free_bytes(&self.paths.root)?;
        let unwritten = begin::unwritten(lock(&self.partials).values(), own);
        Ok(free.saturating_sub(self.free_bytes_min).saturating_sub(unwritten))
    }

    /// What goes in any case. At start, before there is anybody to tell, the driver is not told.
    pub(super) fn collect_at_start(&self) -> Result<(), ChangeError> {
        let gone = self.collectable(u64::MAX)?;
        self.evict(&gone.into_iter().map(|blob| blob.content).collect::<Vec<_>>(), false)
    }

    fn collectable(&self, target: u64) -> io::Result<Vec<Stored>> {
        let stored = self.stored();
        let gone = retention::collect(self.room(|_| false)?, stored.clone(), target, self.clock.now_ms());
        Ok(stored.into_iter().filter(|blob| gone.contains(&blob.content)).collect())
    }

    fn collect(&self, target: u64, dry_run: bool) -> Result<Vec<Collected>, ChangeError> {
        let gone = self.collectable(target)?;
        if !dry_run {
            self.evict(&gone.iter().map(|blob| blob.content).collect::<Vec<_>>(), true)?;
        }
        // Whoever was held on to at the last moment is still there.
        let kept = |blob: &Stored| !dry_run && self.has_own(&blob.content);
        let kind = |whole| if whole { CollectedKind::Whole } else { CollectedKind::Begun };
        let collected = gone.into_iter().filter(|blob| !kept(blob));
        Ok(collected
            .map(|blob| Collected { content: blob.content, bytes: blob.bytes, kind: kind(blob.whole) })
            .collect())
    }

    fn collect_aside(&self, dry_run: bool) -> io::Result<Vec<Collected>> {
        let mut collected = Vec::new();
        let entries = match fs::read_dir(self.paths.all_damaged()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(collected),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(content) = name.to_str().and_then(super::paths::content_of_flat_name) else { continue };
            let bytes = entry.metadata()?.len();
            if !dry_run {
                self.ops.remove_file(&entry.path())?;
            }
            collected.push(Collected { content, bytes, kind: CollectedKind::Damaged });
        }
        Ok(collected)
    }

    /// Whether the metadata can be written without the risk that the disk is too full for it.
    ///
    /// # Errors
    /// If not.
    pub(super) fn can_record(&self) -> io::Result<()> {
        if self.ops.free_bytes(&self.paths.root)? < RECORD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the disk is full to its last bytes: free disk space",
            ));
        }
        Ok(())
    }

    /// Takes blobs out of the store, but for those that somebody holds on to by now.
    pub(super) fn evict(&self, contents: &[ContentId], tell: bool) -> Result<(), ChangeError> {
        let mut whole = Vec::new();
        let recordable = self.can_record();
        for content in contents {
            if let Some(growing) = self.growing(content) {
                self.discard(&growing)?;
                let pieces = PieceSet::empty(growing.layout.count());
                let event = StoreEvent::PartlyHeld { content: *content, size: growing.layout.blob_size(), pieces };
                self.tell_if(tell, event);
                continue;
            }
            let mut held = lock(&self.held);
            // Whoever holds on to it from now on does not find it any more.
            if recordable.is_ok()
                && !lock(&self.holds).contains(content)
                && held.get(content).is_some_and(|entry| entry.place == Place::Own)
                && let Some(entry) = held.remove(content)
            {
                whole.push((*content, entry));
            }
        }
        if whole.is_empty() {
            return match recordable {
                Err(error) if contents.iter().any(|content| self.has_own(content)) => Err(error.into()),
                _ => Ok(()),
            };
        }
        self.changed.send_replace(());
        for (content, _) in &whole {
            if !self.hold_elsewhere(content) {
                self.tell_if(tell, StoreEvent::Lost { content: *content });
            }
        }
        let gone: Vec<_> = whole.iter().map(|(content, _)| *content).collect();
        if let Err(error) = self.meta.remove_all(&gone) {
            for (content, entry) in whole {
                let size = entry.size;
                lock(&self.held).insert(content, entry);
                self.tell_if(tell, StoreEvent::Held { content, size });
            }
            return Err(error.into());
        }
        self.remove_files(&gone)
    }

    fn remove_files(&self, gone: &[ContentId]) -> Result<(), ChangeError> {
        for content in gone {
            self.ops.remove_file(&self.paths.blob(content))?;
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            if gone.iter().any(|content| content.algorithm() == algorithm) {
                self.ops.sync_dir(&self.paths.blobs(algorithm))?;
            }
        }
        self.refresh_index()?;
        Ok(())
    }

    fn tell_if(&self, tell: bool, event: StoreEvent) {
        if tell {
            self.tell(event);
        }
    }
}

impl From<Shortage> for BeginError {
    fn from(shortage: Shortage) -> Self {
        Self::NoRoom(shortage)
    }
}
