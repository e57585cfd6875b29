//! What can go wrong, one type per operation.

use std::{io, path::PathBuf};

use layermesh_proto::{ContentId, PieceHash, PieceIndex, retention::Shortage};
use thiserror::Error;

use crate::config::units::show_bytes;

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another node has it.
    #[error("the store {dir} is in use by {}: stop that node, or give this one another data directory", owner(*.pid))]
    InUse {
        /// The store.
        dir: PathBuf,
        /// The other node's process id, if it left one.
        pid: Option<u32>,
    },
    /// It was written by a later version.
    #[error("the store {dir} has format {found}, and this program knows up to {known}: update layermesh")]
    NewerFormat {
        /// The store.
        dir: PathBuf,
        /// The format found.
        found: String,
        /// The newest format known.
        known: u32,
    },
    /// The directory holds an OCI layout of a version that this program does not know.
    #[error("{0} is an OCI image layout of a version other than 1.0.0: give another data directory")]
    OtherLayout(PathBuf),
    /// A file or directory could not be read or written.
    #[error("cannot open the store, at {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The metadata could not be read, and not because they are damaged.
    #[error("cannot open the store's metadata {path}: {error}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: MetaError,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The metadata cannot be read or written.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct MetaError(Box<redb::Error>);

impl<E: Into<redb::Error>> From<E> for MetaError {
    fn from(error: E) -> Self {
        Self(Box::new(error.into()))
    }
}

impl MetaError {
    /// Whether the database does nothing more until it is opened again.
    pub(super) fn wants_reopening(&self) -> bool {
        matches!(*self.0, redb::Error::PreviousIo | redb::Error::DatabaseClosed)
    }
}

/// Why a blob cannot be begun.
#[derive(Debug, Error)]
pub enum BeginError {
    /// It is held already.
    #[error("the blob is held already")]
    Held {
        /// Its size in bytes.
        size: u64,
    },
    /// It was begun with another size, and some of its pieces are durable.
    #[error("the blob was begun with a size of {known} bytes: remove it first if that was wrong")]
    OtherSize {
        /// The size that it was begun with.
        known: u64,
    },
    /// It is larger than any blob may be.
    #[error("a blob of {0} bytes is over the limit of {max}", max = layermesh_proto::piece::BLOB_SIZE_MAX)]
    TooLarge(u64),
    /// Too many blobs are begun and not finished.
    #[error("{0} blobs are begun and not finished: remove some first")]
    TooMany(usize),
    /// There is no room for it, not even without all that may go.
    #[error("{}", shown(.0))]
    NoRoom(Shortage),
    /// What had to go could not be removed.
    #[error("cannot make room: {0}")]
    Evict(#[from] ChangeError),
    /// The disk failed.
    #[error("cannot begin the blob: {0}")]
    Io(#[from] io::Error),
}

/// Why blobs have no room together.
#[derive(Debug, Error)]
pub enum RoomError {
    /// There is too little of it.
    #[error("{}", shown(.0))]
    Short(Shortage),
    /// The disk does not say how full it is.
    #[error("cannot find out how full the disk is: {0}")]
    Io(#[from] io::Error),
}

/// What is in the way, and what to do about it.
fn shown(shortage: &Shortage) -> String {
    let Shortage { needed, lacking, quota, pinned, in_use, free } = *shortage;
    let [needed, lacking, quota, pinned, in_use, free] = [needed, lacking, quota, pinned, in_use, free].map(show_bytes);
    if shortage.of_disk() {
        return format!(
            "no room for {needed}: the disk has {free} free beyond the reserve, and {lacking} are lacking even without \
             all blobs that may go: free disk space, unpin images (`layermesh unpin`), or lower the reserve \
             ([store] free_bytes_min)"
        );
    }
    format!(
        "no room for {needed}: the quota is {quota}, of which {pinned} are pinned and {in_use} in use, so {lacking} are \
         lacking: unpin images (`layermesh unpin`), try again when other pulls have ended, or raise the quota \
         ([store] quota, quota_share)"
    )
}

/// Why a piece is not stored.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The bytes do not have the hash that was vouched for. Nothing was written.
    #[error("piece {index} has another hash than was vouched for")]
    WrongHash {
        /// The piece.
        index: PieceIndex,
        /// The hash of the bytes given.
        found: PieceHash,
    },
    /// The bytes are not as many as the piece has. Nothing was written.
    #[error("piece {index} has {expected} bytes, not {found}")]
    WrongLength {
        /// The piece.
        index: PieceIndex,
        /// Bytes of the piece (0: the blob has no such piece).
        expected: u64,
        /// Bytes given.
        found: usize,
    },
    /// The partial was discarded: it was removed, begun with another size, or found whole elsewhere. Begin again.
    #[error("the partial was discarded: begin the blob again")]
    Discarded,
    /// The disk is full. What is durable stays, and the partial can be written on when there is space again.
    #[error("the disk is full: free some space; what is durable is kept and the blob resumes from there")]
    NoSpace,
    /// The disk failed.
    #[error("cannot write: {0}")]
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        if super::disk::is_full(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

/// Why a blob does not become whole.
#[derive(Debug, Error)]
pub enum CompleteError {
    /// It was never begun, or was discarded.
    #[error("the blob was not begun")]
    NotBegun,
    /// Pieces are missing: never written, or found bad when they were read again. The rest is kept.
    #[error("{missing} of its pieces are missing")]
    Incomplete {
        /// How many.
        missing: u32,
    },
    /// The bytes are not the blob. All pieces are kept, since the digest does not tell which of them is wrong.
    #[error("the bytes are those of {found}")]
    WrongDigest {
        /// What they are.
        found: ContentId,
    },
    /// The disk is full; what is durable stays.
    #[error("the disk is full: free some space, then complete the blob again")]
    NoSpace,
    /// The disk failed; what is durable stays.
    #[error("cannot complete the blob: {0}")]
    Io(io::Error),
    /// The metadata could not be written; what is durable stays.
    #[error("cannot record the blob: {0}")]
    Meta(#[from] MetaError),
}

impl From<io::Error> for CompleteError {
    fn from(error: io::Error) -> Self {
        if super::disk::is_full(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

impl From<WriteError> for CompleteError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NoSpace => Self::NoSpace,
            WriteError::Io(error) => Self::Io(error),
            WriteError::Discarded | WriteError::WrongHash { .. } | WriteError::WrongLength { .. } => Self::NotBegun,
        }
    }
}

/// Why a blob at hand is not stored.
#[derive(Debug, Error)]
pub enum InsertError {
    /// The bytes are not the blob. Nothing was stored.
    #[error("the bytes are those of {found}")]
    WrongDigest {
        /// What they are.
        found: ContentId,
    },
    /// It could not be begun.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be completed.
    #[error(transparent)]
    Complete(#[from] CompleteError),
}

/// Why bytes cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The bytes on disk are no longer those that were stored. The blob has been withdrawn: the pieces that are still
    /// good are kept, the others are fetched when the blob is wanted again.
    #[error("the stored blob was damaged and has been withdrawn")]
    Damaged,
    /// The blob was held and is there no longer. It has been withdrawn, and is fetched when it is wanted again.
    #[error("the stored blob is gone")]
    Gone,
    /// Bytes that this reader gave are of a piece that was replaced by other bytes since, or of a partial that was
    /// discarded. What follows might not fit them, so nothing does.
    #[error("the bytes read so far turned out not to be of this blob")]
    Discarded,
    /// The blob is not held (only of reading it whole).
    #[error("the blob is not held")]
    NotHeld,
    /// The blob is larger than the reader wants (only of reading it whole).
    #[error("the blob has {size} bytes, more than the {max} allowed here")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit given.
        max: u64,
    },
    /// The disk failed.
    #[error("cannot read the blob: {0}")]
    Io(#[from] io::Error),
    /// The metadata could not be read.
    #[error("cannot read the blob's piece map: {0}")]
    Meta(#[from] MetaError),
}

/// Why a directory is not attached or detached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It has no blobs.
    #[error(
        "{0} has no directory blobs/sha256: name an OCI image layout, or containerd's content store \
         (/var/lib/containerd/io.containerd.content.v1.content)"
    )]
    NoBlobs(PathBuf),
    /// It cannot be read.
    #[error("cannot read {dir}: {error}: the node needs to be able to read it and its files")]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is the store itself.
    #[error("this is the node's own store: there is nothing to attach")]
    Own,
    /// Too many are attached.
    #[error("{max} directories are attached already: detach one first", max = super::attached::ATTACHED_MAX)]
    TooMany,
    /// The job was not run.
    #[error("cannot attach or detach: {0}")]
    Job(#[source] io::Error),
    /// It could not be recorded.
    #[error("cannot record what is attached: {0}")]
    Meta(#[from] MetaError),
}

/// Why pins were not changed. Nothing was.
#[derive(Debug, Error)]
pub enum PinError {
    /// There would be more than the store keeps.
    #[error(
        "{0} pins are more than the {max} that a store keeps: unpin images that are no longer needed",
        max = super::pins::PINS_MAX
    )]
    TooMany(usize),
    /// The job was not run.
    #[error("cannot change pins: {0}")]
    Io(#[from] io::Error),
    /// They could not be recorded.
    #[error("cannot record pins: {0}")]
    Meta(#[from] MetaError),
}

/// Why a change of what the store knows was not recorded.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The disk failed.
    #[error("cannot change the store: {0}")]
    Io(#[from] io::Error),
    /// The metadata could not be written.
    #[error("cannot change the store's metadata: {0}")]
    Meta(#[from] MetaError),
}
