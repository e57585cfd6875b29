//! The metadata's database, which outlives failures of the disk.
//!
//! redb does nothing more once the disk has failed it, be it only that it was full for a moment: it wants to be closed and
//! opened again. Invariant: whoever reads or writes here after a failure has the database opened again first, so that a disk
//! which has room again is all that is needed.

use std::{
    io,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::MetaError;

/// Least time between two attempts: each reads the whole file.
const PAUSE: Duration = Duration::from_secs(1);

/// How the database is opened.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A database that can be opened again.
pub(super) struct Reopening {
    opener: Opener,
    now: RwLock<Now>,
}

struct Now {
    /// None after an attempt that failed.
    db: Option<Database>,
    /// Counts the attempts.
    attempts: u64,
    tried: Option<Instant>,
}

impl Reopening {
    /// Opens it for the first time.
    pub(super) fn open(opener: Opener) -> Result<Self, DatabaseError> {
        let db = opener()?;
        Ok(Self { opener, now: RwLock::new(Now { db: Some(db), attempts: 0, tried: None }) })
    }

    /// Reads.
    pub(super) fn read<T>(&self, get: impl Fn(&ReadTransaction) -> Result<T, MetaError>) -> Result<T, MetaError> {
        self.work(|db| get(&db.begin_read()?))
    }

    /// Writes, durably and all or nothing.
    pub(super) fn write<T>(&self, put: impl Fn(&WriteTransaction) -> Result<T, MetaError>) -> Result<T, MetaError> {
        self.work(|db| {
            let write = db.begin_write()?;
            let done = put(&write)?;
            write.commit()?;
            Ok(done)
        })
    }

    fn work<T>(&self, work: impl Fn(&Database) -> Result<T, MetaError>) -> Result<T, MetaError> {
        let attempts = {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            match now.db.as_ref().map(&work) {
                Some(Err(error)) if error.wants_reopening() => {}
                Some(done) => return done,
                None => {}
            }
            now.attempts
        };
        self.reopen(attempts);
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        match now.db.as_ref() {
            Some(db) => work(db),
            None => Err(MetaError::from(redb::Error::Io(io::Error::other(
                "the disk has failed, and the metadata cannot be opened again yet",
            )))),
        }
    }

    /// Opens it again, unless somebody else has since there were so many `attempts`, or it is too early.
    fn reopen(&self, attempts: u64) {
        // Waits until nobody is at work on it, since it has to be closed first.
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if now.attempts != attempts || now.tried.is_some_and(|tried| tried.elapsed() < PAUSE) {
            return;
        }
        now.attempts += 1;
        now.tried = Some(Instant::now());
        now.db = None;
        match (self.opener)() {
            Ok(db) => {
                info!("the disk had failed: the metadata are open again");
                now.db = Some(db);
            }
            Err(error) => warn!(%error, "the disk has failed, and the metadata cannot be opened again yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        path::{Path, PathBuf},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

    use redb::{StorageBackend, TableDefinition, backends::FileBackend};

    use super::*;

    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("table");

    /// A file on a disk that can be full.
    #[derive(Debug)]
    struct Full {
        file: FileBackend,
        full: Arc<AtomicBool>,
    }

    impl Full {
        fn has_room(&self) -> io::Result<()> {
            if self.full.load(SeqCst) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
        }
    }

    impl StorageBackend for Full {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.has_room()?;
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.has_room()?;
            self.file.write(offset, data)
        }

        fn close(&self) -> io::Result<()> {
            self.file.close()
        }
    }

    fn reopening(path: &Path, full: &Arc<AtomicBool>) -> Reopening {
        let (path, full): (PathBuf, _) = (path.to_owned(), Arc::clone(full));
        Reopening::open(Box::new(move || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            let file = FileBackend::new(file)?;
            Database::builder().create_with_backend(Full { file, full: Arc::clone(&full) })
        }))
        .unwrap()
    }

    fn put(db: &Reopening, key: u64) -> Result<(), MetaError> {
        db.write(|write| {
            write.open_table(TABLE)?.insert(key, [7; 5000].as_slice())?;
            Ok(())
        })
    }

    fn has(db: &Reopening, key: u64) -> bool {
        db.read(|read| Ok(read.open_table(TABLE)?.get(key)?.is_some())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_while_the_disk_was_full_goes_on_once_it_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let db = reopening(&dir.path().join("db"), &full);
        put(&db, 0).unwrap();
        full.store(true, SeqCst);
        // The first failure is told as it is; whatever comes then has it opened again, which fails as well.
        for key in 1..4 {
            assert!(put(&db, key).is_err(), "{key}");
            tokio::time::advance(PAUSE).await;
        }
        full.store(false, SeqCst);
        put(&db, 9).unwrap();
        assert!(has(&db, 0) && has(&db, 9) && !has(&db, 1));
        // Also for readers alone.
        full.store(true, SeqCst);
        assert!((0..4).any(|key| put(&db, 20 + key).is_err()));
        tokio::time::advance(PAUSE).await;
        full.store(false, SeqCst);
        assert!(has(&db, 9));
    }
}
