//! The store's metadata, in redb: which blobs are whole, their piece maps, and what tags stand for; [`super::pins`],
//! [`super::uses`] and [`super::attached`] keep their tables in the same file.
//!
//! Invariant: a row in `blobs` says that the blob's bytes were durable and had the right digest when the row was
//! committed. Losing this file loses no blob: the store hashes what it finds and makes the rows anew.

use std::{fs, io, path::Path};

use layermesh_proto::{ContentId, NodeId, PieceMap, Repository, TagRef, wire::Binding};
use redb::{Database, DatabaseError, ReadableTable, StorageError, TableDefinition};
use tracing::warn;

use super::{
    attached::{ATTACHMENTS, FILES},
    database::Reopening,
    error::{MetaError, OpenError},
    pins::PINS,
    uses::USES,
};

/// Memory for redb's page cache, in bytes: a few piece maps and the upper tree levels. The whole node has 20 MiB.
const CACHE_BYTES_MAX: usize = 1 << 20;
/// Bindings that are kept; beyond it the one observed longest ago goes. Some 100 bytes each.
pub(super) const BINDINGS_MAX: usize = 4096;
/// A binding that was observed again, unchanged, is written again only after this many seconds: runtimes ask for
/// the same tag on every start of a container, and flash wears.
pub(super) const BINDING_REFRESH_S_MIN: u64 = 600;

/// Binary CID → (size, hashes of the pieces one after the other).
pub(super) const BLOBS: TableDefinition<'_, &[u8], (u64, &[u8])> = TableDefinition::new("blobs");
/// Registry, repository and tag.
pub(super) type TagKey<'a> = (&'a str, &'a str, &'a str);

/// Tag → (binary CID, seconds since the Unix epoch, public key of the node that asked the origin or nothing if it was this
/// one).
pub(super) const TAGS: TableDefinition<'_, TagKey<'_>, (&[u8], u64, &[u8])> = TableDefinition::new("tags");
/// The same as it was written before nodes kept each other's words.
const BINDINGS: TableDefinition<'_, TagKey<'_>, (&[u8], u64)> = TableDefinition::new("bindings");

/// The metadata file.
pub(super) struct Meta {
    pub(super) db: Reopening,
}

impl Meta {
    /// Opens the file, or makes a new one if there is none or if it is damaged. Says whether it is new.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), OpenError> {
        let fresh = !fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
        match Self::open_file(path) {
            Ok(meta) => Ok((meta, fresh)),
            Err(DatabaseError::Storage(error)) if is_damage(&error) => {
                let aside = path.with_extension("redb.damaged");
                warn!(?path, %error, ?aside, "the metadata are damaged: moved aside, blobs will be hashed again");
                fs::rename(path, &aside).map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
                let meta = Self::open_file(path).map_err(|error| meta_error(path, error))?;
                Ok((meta, true))
            }
            Err(error) => Err(meta_error(path, error)),
        }
    }

    fn open_file(path: &Path) -> Result<Self, DatabaseError> {
        // The integrity check makes a damaged file an error at open instead of a surprise later. It reads the whole
        // file, which has some 8 KiB a blob.
        let path = path.to_owned();
        let opener =
            move || Database::builder().set_cache_size(CACHE_BYTES_MAX).set_check_integrity_on_open(true).create(&path);
        Ok(Self { db: Reopening::open(Box::new(opener))? })
    }

    /// Makes sure that the tables are there, so that reading never has to ask.
    pub(super) fn prepare(&self) -> Result<(), MetaError> {
        let known = self.db.read(|read| {
            let known = read.open_table(BLOBS).is_ok() && read.open_table(TAGS).is_ok();
            let known = known && read.open_table(PINS).is_ok() && read.open_table(USES).is_ok();
            Ok(known && read.open_table(ATTACHMENTS).is_ok() && read.open_table(FILES).is_ok())
        })?;
        if known {
            return Ok(());
        }
        self.db.write(|write| {
            write.open_table(BLOBS)?;
            {
                let mut tags = write.open_table(TAGS)?;
                for row in write.open_table(BINDINGS)?.iter()? {
                    let (key, value) = row?;
                    let (cid, observed_unix_s) = value.value();
                    tags.insert(key.value(), (cid, observed_unix_s, [].as_slice()))?;
                }
            }
            write.delete_table(BINDINGS)?;
            write.open_table(PINS)?;
            write.open_table(USES)?;
            write.open_table(ATTACHMENTS)?;
            write.open_table(FILES)?;
            Ok(())
        })
    }

    /// All blobs and their sizes.
    pub(super) fn blobs(&self) -> Result<Vec<(ContentId, u64)>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(BLOBS)?;
            let mut blobs = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                // A key that is no content id was not written by this program; the file it might name is then unknown.
                if let Ok(content) = ContentId::from_bytes(key.value()) {
                    blobs.push((content, value.value().0));
                }
            }
            Ok(blobs)
        })
    }

    /// The piece map of a blob; `None` if there is no such row, or none that makes sense.
    pub(super) fn map(&self, content: &ContentId) -> Result<Option<PieceMap>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(BLOBS)?;
            let row = table.get(content.to_bytes().as_slice())?;
            Ok(row.and_then(|row| {
                let (size, hashes) = row.value();
                PieceMap::from_bytes(size, hashes).ok()
            }))
        })
    }

    /// Records a whole blob, durably.
    pub(super) fn insert(&self, content: &ContentId, map: &PieceMap) -> Result<(), MetaError> {
        let (key, size, hashes) = (content.to_bytes(), map.layout().blob_size(), map.to_bytes());
        self.db.write(|write| {
            write.open_table(BLOBS)?.insert(key.as_slice(), (size, hashes.as_slice()))?;
            Ok(())
        })
    }

    /// Forgets a blob, durably.
    pub(super) fn remove(&self, content: &ContentId) -> Result<(), MetaError> {
        self.remove_all(std::slice::from_ref(content))
    }

    /// Forgets blobs, durably and all at once.
    pub(super) fn remove_all(&self, contents: &[ContentId]) -> Result<(), MetaError> {
        self.db.write(|write| {
            let (mut blobs, mut uses) = (write.open_table(BLOBS)?, write.open_table(USES)?);
            for content in contents {
                let key = content.to_bytes();
                blobs.remove(key.as_slice())?;
                uses.remove(key.as_slice())?;
            }
            Ok(())
        })
    }

    /// All bindings.
    pub(super) fn bindings(&self) -> Result<Vec<Binding>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(TAGS)?;
            let mut bindings = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                let (registry, name, tag) = key.value();
                let (cid, observed_unix_s, by) = value.value();
                let by = by.try_into().ok().map(NodeId::from_public_key);
                let reference = Repository::new(registry, name).and_then(|repository| TagRef::new(repository, tag));
                if let (Ok(reference), Ok(content)) = (reference, ContentId::from_bytes(cid)) {
                    bindings.push(Binding { reference, content, observed_unix_s, age_ms: None, by });
                }
            }
            Ok(bindings)
        })
    }

    /// Records what a tag stands for, durably, unless that would say next to nothing new. Says whether the tag now
    /// stands for something else than before. The last call counts, not the latest time: clocks are set back, too.
    pub(super) fn bind(&self, binding: &Binding) -> Result<bool, MetaError> {
        let repository = binding.reference.repository();
        let key = (repository.registry(), repository.name(), binding.reference.tag());
        let cid = binding.content.to_bytes();
        let before = self.db.read(|read| {
            let row = read.open_table(TAGS)?.get(key)?;
            Ok(row.map(|row| (row.value().0 == cid, row.value().1)))
        })?;
        let now = binding.observed_unix_s;
        if before.is_some_and(|(same, known)| same && now.abs_diff(known) < BINDING_REFRESH_S_MIN) {
            return Ok(false);
        }
        self.db.write(|write| {
            let by = binding.by.as_ref().map_or([].as_slice(), |by| by.public_key().as_slice());
            write.open_table(TAGS)?.insert(key, (cid.as_slice(), now, by))?;
            Ok(())
        })?;
        self.drop_surplus_bindings()?;
        Ok(!matches!(before, Some((true, _))))
    }

    fn drop_surplus_bindings(&self) -> Result<(), MetaError> {
        let mut bindings = self.bindings()?;
        let surplus = bindings.len().saturating_sub(BINDINGS_MAX);
        if surplus == 0 {
            return Ok(());
        }
        bindings.sort_by_key(|binding| binding.observed_unix_s);
        self.db.write(|write| {
            let mut table = write.open_table(TAGS)?;
            for binding in &bindings[..surplus] {
                let repository = binding.reference.repository();
                table.remove((repository.registry(), repository.name(), binding.reference.tag()))?;
            }
            Ok(())
        })
    }
}

fn is_damage(error: &StorageError) -> bool {
    match error {
        StorageError::Corrupted(_) => true,
        StorageError::Io(error) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn meta_error(path: &Path, error: DatabaseError) -> OpenError {
    OpenError::Meta { path: path.to_owned(), error: error.into() }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;

    #[test]
    fn what_was_kept_before_words_had_an_author_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let (meta, _) = Meta::open(&dir.path().join("meta.redb")).unwrap();
        let content = ContentId::of(Algorithm::Sha256, b"a");
        let written = meta.db.write(|write| {
            write.open_table(BLOBS)?;
            let key = ("registry.example", "app", "v1");
            write.open_table(BINDINGS)?.insert(key, (content.to_bytes().as_slice(), 7))?;
            Ok(())
        });
        written.unwrap();
        meta.prepare().unwrap();
        let reference = TagRef::new(Repository::new("registry.example", "app").unwrap(), "v1").unwrap();
        let mut binding = Binding { reference, content, observed_unix_s: 7, age_ms: None, by: None };
        assert_eq!(meta.bindings().unwrap(), [binding.clone()]);
        (binding.by, binding.observed_unix_s) = (Some(NodeId::from_public_key([9; 32])), 7 + BINDING_REFRESH_S_MIN);
        meta.bind(&binding).unwrap();
        meta.prepare().unwrap();
        assert_eq!(meta.bindings().unwrap(), [binding]);
    }
}
