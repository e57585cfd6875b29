//! The few file operations that change the store, in one place.
//!
//! Invariant: everything that the store changes on disk goes through [`FileOps`] (redb, which guards its own file,
//! excepted), so a test can stop, observe or fail each step. The default methods are the operating system's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::{fs::FallocateFlags, io::Errno};

/// Directories are for the node's user alone: images may be private.
const DIR_MODE: u32 = 0o700;
/// So are files.
const FILE_MODE: u32 = 0o600;

/// Operations that change files.
pub(super) trait FileOps: Send + Sync + 'static {
    /// Creates a directory and those above it; one that is there is left as it is.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
    }

    /// Opens a file for reading and writing, creating it if it is absent; keeps what is in it.
    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)
    }

    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Sets a file's length.
    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// Reserves room for `len` bytes, so that a full disk shows now and not mid-way. Where the file system cannot
    /// reserve, the caller's look at the free space has to do.
    fn reserve(&self, file: &File, len: u64, keep_size: bool) -> io::Result<()> {
        let flags = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        match rustix::fs::fallocate(file, flags, 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if keep_size => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => file.set_len(len),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a file's bytes, and its length, durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file; an absent one is no error.
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_file(path))
    }

    /// Removes an empty directory; an absent one is no error.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        absent_is_fine(fs::remove_dir(path))
    }

    /// Bytes that an unprivileged process can still write to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Size in bytes of the file system of `path`.
    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
    }
}

/// The operating system's.
#[derive(Debug)]
pub(super) struct Os;

impl FileOps for Os {}

/// Replaces a file as a whole: after a power cut it is the old or the new one.
pub(super) fn replace(ops: &dyn FileOps, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = ops.open(&temporary)?;
    ops.set_len(&file, 0)?;
    ops.write_at(&file, bytes, 0)?;
    ops.sync(&file)?;
    ops.rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => ops.sync_dir(parent),
        None => Ok(()),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether an error says that the disk, or the user's part of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a read failed because of what is on the disk, not because of how it was asked.
pub(super) fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
