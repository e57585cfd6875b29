//! Attached stores: directories of others with `blobs/sha256/<hex>`, such as containerd's content store or an OCI layout
//! on a stick, whose blobs are held where they are.
//!
//! Invariants: nothing is ever written there. A file is announced only after all of it had its digest, and is known again
//! by its length, inode and time; each piece is checked against the hash that it had then before it is given to anybody,
//! as of the store's own blobs. A blob that is no longer there as it was is withdrawn; it is held again only after it was
//! hashed anew. The store's own copy of a blob comes before an attached one, and a blob is lost only with the last.
//!
//! `follow` finds out what is there; the rest is here.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use layermesh_proto::{Algorithm, ContentId, PieceMap};
use redb::{ReadableTable as _, TableDefinition};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    HeldEntry, Inner, Store, StoreEvent,
    error::{AttachError, ChangeError, MetaError},
    follow, lock,
    meta::Meta,
    scan::{Found, Identity},
};

/// Attached stores at a time: a runtime's, and a few sticks.
pub const ATTACHED_MAX: usize = 8;
/// Files of one attached store that are looked at; some 200 bytes of memory each.
pub const ATTACHED_FILES_MAX: usize = 16_384;

/// Directory → whether the store's own copies may go for those there.
pub(super) const ATTACHMENTS: TableDefinition<'_, &str, bool> = TableDefinition::new("attachments");
type FileRow = (u64, u64, i64, i64, &'static [u8]);
/// (directory, binary CID) → length, inode, seconds and nanoseconds of the file that was hashed, and the hashes of its
/// pieces; none of a file that is not the blob.
pub(super) const FILES: TableDefinition<'_, (&str, &[u8]), FileRow> = TableDefinition::new("attached_files");

/// Where a whole blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the store's own directory.
    Own,
    /// In an attached one.
    Attached(Arc<Path>, Identity),
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) identity: Identity,
    /// Whether it is the blob that its name says.
    pub(super) good: bool,
}

/// An attached store.
#[derive(Debug)]
pub(super) struct Attachment {
    reuse: bool,
    lasting: bool,
    pub(super) files: HashMap<ContentId, File>,
    pub(super) pending: usize,
    pub(super) problem: Option<String>,
    stop: CancellationToken,
}

/// An attached store, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedStore {
    /// The directory.
    pub dir: PathBuf,
    /// Whether the store's own copies go for those there.
    pub reuse: bool,
    /// Whether it is attached again at the next start by itself, not by the configuration.
    pub lasting: bool,
    /// Blobs that are there and verified.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that wait to be hashed.
    pub pending: usize,
    /// Why it cannot be looked at now, for people.
    pub problem: Option<String>,
}

impl Store {
    /// Attaches a directory that has `blobs/sha256`. What is in it is held once it has been hashed, in the background.
    /// `reuse` lets the store's own copies go that are there, too, but for pinned ones; `lasting` attaches it again
    /// whenever the store is opened. One that is attached already takes these settings.
    ///
    /// # Errors
    /// If there is no such directory, it cannot be read, too many are attached, or it cannot be recorded.
    pub async fn attach(&self, dir: &Path, reuse: bool, lasting: bool) -> Result<(), AttachError> {
        let named = dir.to_owned();
        let dir = self.job(move |inner| inner.attachable(&named)).await.map_err(AttachError::Job)??;
        self.attach_found(dir, reuse, lasting, true).await
    }

    /// As [`Store::attach`] for a directory that need not be there now, such as a stick's.
    ///
    /// # Errors
    /// If too many are attached.
    pub async fn attach_when_there(&self, dir: &Path, reuse: bool) -> Result<(), AttachError> {
        self.attach_found(dir.to_owned(), reuse, false, false).await
    }

    /// Attaches what was attached to last.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub async fn attach_lasting(&self) -> Result<(), AttachError> {
        let lasting = self.job(|inner| inner.meta.attachments()).await.map_err(AttachError::Job)??;
        for (dir, reuse) in lasting {
            self.attach_found(dir, reuse, true, false).await?;
        }
        Ok(())
    }

    async fn attach_found(&self, dir: PathBuf, reuse: bool, lasting: bool, record: bool) -> Result<(), AttachError> {
        let fresh = {
            let mut attached = lock(&self.0.attached);
            let full = attached.len() >= ATTACHED_MAX;
            match attached.get_mut(&dir) {
                Some(known) => {
                    (known.reuse, known.lasting) = (reuse, known.lasting || lasting);
                    None
                }
                None if full => return Err(AttachError::TooMany),
                None => {
                    let stop = CancellationToken::new();
                    attached.insert(dir.clone(), Attachment::new(reuse, lasting, stop.clone()));
                    Some(stop)
                }
            }
        };
        if record && lasting {
            let named = dir.clone();
            let recorded = self.job(move |inner| {
                inner.can_record().map_err(AttachError::Job)?;
                Ok::<_, AttachError>(inner.meta.keep_attachment(&named, reuse)?)
            });
            recorded.await.map_err(AttachError::Job)??;
        }
        if let Some(stop) = fresh {
            tokio::spawn(follow::follow(Arc::downgrade(&self.0), dir.as_path().into(), stop));
        }
        Ok(())
    }

    /// Lets go of an attached directory: what only it has is withdrawn. Says whether it was attached.
    ///
    /// # Errors
    /// If it cannot be recorded.
    pub async fn detach(&self, dir: &Path) -> Result<bool, AttachError> {
        let canonical = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        let dir = [canonical, dir.to_owned()].into_iter().find(|dir| lock(&self.0.attached).contains_key(dir));
        let Some(dir) = dir else { return Ok(false) };
        let detached = self.job(move |inner| {
            let _turn = turn;
            let gone = lock(&inner.attached).remove(&dir);
            let Some(gone) = gone else { return Ok(false) };
            gone.stop.cancel();
            let root: Arc<Path> = dir.as_path().into();
            for (content, _) in gone.files.iter().filter(|(_, file)| file.good) {
                inner.leave(&root, content);
            }
            inner.meta.forget_attachment(&dir)?;
            Ok::<_, AttachError>(true)
        });
        detached.await.map_err(AttachError::Job)?
    }

    /// The attached stores.
    pub fn attached(&self) -> Vec<AttachedStore> {
        let attached = lock(&self.0.attached);
        let shown = |(dir, one): (&PathBuf, &Attachment)| {
            let good = one.files.values().filter(|file| file.good);
            let (blobs, bytes) = good.fold((0, 0), |(blobs, bytes), file| (blobs + 1, bytes + file.identity.len));
            AttachedStore {
                dir: dir.clone(),
                reuse: one.reuse,
                lasting: one.lasting,
                blobs,
                bytes,
                pending: one.pending,
                problem: one.problem.clone(),
            }
        };
        attached.iter().map(shown).collect()
    }

    /// Takes up what a file of an attached store turned out to be.
    pub(super) async fn take_attached(
        &self,
        dir: Arc<Path>,
        content: ContentId,
        found: Found,
    ) -> Result<(), ChangeError> {
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            inner.can_record()?;
            match found {
                Found::LeaveAlone => Ok(()),
                Found::SomethingElse(identity) => {
                    warn!(%content, ?dir, "an attached file is not the blob that its name says: left alone");
                    inner.note(&dir, content, File { identity, good: false });
                    Ok(inner.meta.keep_file(&dir, &content, identity, None)?)
                }
                Found::Blob { map, identity, .. } => {
                    inner.meta.keep_file(&dir, &content, identity, Some(&map))?;
                    inner.arrive(&dir, content, identity)
                }
            }
        })
        .await?
    }
}

impl Attachment {
    fn new(reuse: bool, lasting: bool, stop: CancellationToken) -> Self {
        Self { reuse, lasting, files: HashMap::new(), pending: 0, problem: None, stop }
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Inner {
    /// The directory as it is known from now on, if it can be attached.
    fn attachable(&self, dir: &Path) -> Result<PathBuf, AttachError> {
        let unreadable = |error| AttachError::Unreadable { dir: dir.to_owned(), error };
        let canonical = fs::canonicalize(dir).map_err(unreadable)?;
        if fs::canonicalize(&self.paths.root).is_ok_and(|own| own == canonical) {
            return Err(AttachError::Own);
        }
        match fs::read_dir(blobs_of(&canonical)) {
            Ok(_) => Ok(canonical),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(AttachError::NoBlobs(dir.to_owned())),
            Err(error) => Err(unreadable(error)),
        }
    }

    fn note(&self, dir: &Path, content: ContentId, file: File) {
        if let Some(attachment) = lock(&self.attached).get_mut(dir) {
            attachment.files.insert(content, file);
        }
    }

    /// A verified file is there. To be called with the structure's turn.
    pub(super) fn arrive(&self, dir: &Arc<Path>, content: ContentId, identity: Identity) -> Result<(), ChangeError> {
        let reuse = match lock(&self.attached).get_mut(&**dir) {
            // Detached meanwhile.
            None => return Ok(()),
            Some(attachment) => {
                attachment.files.insert(content, File { identity, good: true });
                attachment.reuse
            }
        };
        let own = lock(&self.held).get(&content).map(|entry| entry.place == Place::Own);
        match own {
            Some(true) if reuse && !lock(&self.pins).contains(&content) => {
                info!(%content, ?dir, "an attached store has it: the own copy goes");
                self.evict(&[content], true)
            }
            Some(_) => Ok(()),
            None => {
                // First held: whoever reads the partial goes on there.
                self.hold_attached(dir, content, identity);
                let superseded = self.supersede(&content);
                self.tell(StoreEvent::Held { content, size: identity.len });
                Ok(superseded?)
            }
        }
    }

    fn hold_attached(&self, dir: &Arc<Path>, content: ContentId, identity: Identity) {
        let entry = HeldEntry { place: Place::Attached(Arc::clone(dir), identity), ..self.fresh(identity.len) };
        lock(&self.held).insert(content, entry);
        self.changed.send_replace(());
    }

    /// Holds a blob where an attached store has it, if one does.
    pub(super) fn hold_elsewhere(&self, content: &ContentId) -> bool {
        let elsewhere = lock(&self.attached).iter().find_map(|(dir, attachment)| {
            let file = attachment.files.get(content).filter(|file| file.good)?;
            Some((Arc::<Path>::from(dir.as_path()), file.identity))
        });
        let Some((dir, identity)) = elsewhere else { return false };
        self.hold_attached(&dir, *content, identity);
        true
    }

    /// Files of an attached store are not there any more, or not as they were.
    pub(super) fn vanish(&self, dir: &Arc<Path>, contents: &[ContentId]) -> Result<(), MetaError> {
        for content in contents {
            let known = lock(&self.attached).get_mut(&**dir).and_then(|attachment| attachment.files.remove(content));
            if known.is_some_and(|file| file.good) {
                self.leave(dir, content);
            }
        }
        // A row that stays is of a file that is not there as it was, and so is not taken up again.
        if contents.is_empty() || self.can_record().is_err() {
            return Ok(());
        }
        self.meta.forget_files(dir, contents)
    }

    /// A blob is no longer held in this directory. To be called with the structure's turn.
    fn leave(&self, dir: &Arc<Path>, content: &ContentId) {
        let here = |entry: &HeldEntry| matches!(&entry.place, Place::Attached(place, _) if place == dir);
        {
            let mut held = lock(&self.held);
            if !held.get(content).is_some_and(here) {
                return;
            }
            held.remove(content);
        }
        self.changed.send_replace(());
        if !self.hold_elsewhere(content) {
            info!(%content, ?dir, "a blob is gone from an attached store");
            self.tell(StoreEvent::Lost { content: *content });
        }
    }

    /// A file of an attached store has other bytes than it had, and so is not the blob, until it is another file.
    pub(super) fn distrust(&self, content: &ContentId) -> Result<(), MetaError> {
        let place = lock(&self.held).get(content).map(|entry| entry.place.clone());
        let Some(Place::Attached(dir, identity)) = place else { return Ok(()) };
        let now = fs::metadata(file_of(&dir, content)).ok().map(|metadata| Identity::of(&metadata));
        if now != Some(identity) {
            return self.vanish(&dir, &[*content]);
        }
        warn!(%content, ?dir, "an attached file is damaged: withdrawn");
        self.note(&dir, *content, File { identity, good: false });
        self.leave(&dir, content);
        if self.can_record().is_err() {
            return Ok(());
        }
        self.meta.keep_file(&dir, content, identity, None)
    }

    /// The file of a whole blob.
    pub(super) fn path_of(&self, content: &ContentId, place: &Place) -> PathBuf {
        match place {
            Place::Own => self.paths.blob(content),
            Place::Attached(dir, _) => file_of(dir, content),
        }
    }

    /// The hashes of a whole blob's pieces.
    pub(super) fn map_of(&self, content: &ContentId) -> Result<Option<PieceMap>, MetaError> {
        let place = lock(&self.held).get(content).map(|entry| entry.place.clone());
        match place {
            None => Ok(None),
            Some(Place::Own) => self.meta.map(content),
            Some(Place::Attached(dir, _)) => self.meta.file_map(&dir, content),
        }
    }
}

/// Where an attached store has its blobs.
pub(super) fn blobs_of(dir: &Path) -> PathBuf {
    dir.join("blobs").join(Algorithm::Sha256.name())
}

fn file_of(dir: &Path, content: &ContentId) -> PathBuf {
    blobs_of(dir).join(content.hex())
}

impl Meta {
    fn attachments(&self) -> Result<Vec<(PathBuf, bool)>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(ATTACHMENTS)?;
            let mut attachments = Vec::new();
            for row in table.iter()? {
                let (dir, reuse) = row?;
                attachments.push((PathBuf::from(dir.value()), reuse.value()));
            }
            Ok(attachments)
        })
    }

    fn keep_attachment(&self, dir: &Path, reuse: bool) -> Result<(), MetaError> {
        self.db.write(|write| {
            write.open_table(ATTACHMENTS)?.insert(&*dir.to_string_lossy(), reuse)?;
            Ok(())
        })
    }

    fn forget_attachment(&self, dir: &Path) -> Result<(), MetaError> {
        let files: Vec<_> = self.files(dir)?.into_keys().collect();
        self.db.write(|write| {
            write.open_table(ATTACHMENTS)?.remove(&*dir.to_string_lossy())?;
            Ok(())
        })?;
        self.forget_files(dir, &files)
    }

    /// What is known of the files of an attached store.
    pub(super) fn files(&self, dir: &Path) -> Result<BTreeMap<ContentId, File>, MetaError> {
        let dir = dir.to_string_lossy();
        self.db.read(|read| {
            let table = read.open_table(FILES)?;
            let mut files = BTreeMap::new();
            for row in table.range((&*dir, &[][..])..)? {
                let (key, value) = row?;
                let (of, cid) = key.value();
                if of != dir {
                    break;
                }
                let (len, inode, mtime_s, mtime_ns, hashes) = value.value();
                if let Ok(content) = ContentId::from_bytes(cid) {
                    let good = PieceMap::from_bytes(len, hashes).is_ok();
                    files.insert(content, File { identity: Identity { len, inode, mtime_s, mtime_ns }, good });
                }
            }
            Ok(files)
        })
    }

    fn file_map(&self, dir: &Path, content: &ContentId) -> Result<Option<PieceMap>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(FILES)?;
            let row = table.get((&*dir.to_string_lossy(), content.to_bytes().as_slice()))?;
            Ok(row.and_then(|row| {
                let (len, .., hashes) = row.value();
                PieceMap::from_bytes(len, hashes).ok()
            }))
        })
    }

    fn keep_file(
        &self,
        dir: &Path,
        content: &ContentId,
        identity: Identity,
        map: Option<&PieceMap>,
    ) -> Result<(), MetaError> {
        let Identity { len, inode, mtime_s, mtime_ns } = identity;
        // No blob has hashes of this length, not even an empty one.
        let hashes = map.map_or_else(|| vec![0], PieceMap::to_bytes);
        self.db.write(|write| {
            write.open_table(FILES)?.insert(
                (&*dir.to_string_lossy(), content.to_bytes().as_slice()),
                (len, inode, mtime_s, mtime_ns, hashes.as_slice()),
            )?;
            Ok(())
        })
    }

    fn forget_files(&self, dir: &Path, contents: &[ContentId]) -> Result<(), MetaError> {
        if contents.is_empty() {
            return Ok(());
        }
        self.db.write(|write| {
            let mut table = write.open_table(FILES)?;
            for content in contents {
                table.remove((&*dir.to_string_lossy(), content.to_bytes().as_slice()))?;
            }
            Ok(())
        })
    }
}
