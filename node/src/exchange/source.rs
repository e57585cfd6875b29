//! What the bulk server needs of a store.

use std::{future::Future, io};

use bytes::Bytes;
use layermesh_proto::{ContentId, PieceMap};

/// Blobs that can be served. Cloning is cheap and gives the same blobs.
pub trait BlobSource: Clone + Send + Sync + 'static {
    /// Reads one blob.
    type Reader: BlobRead;

    /// Size in bytes of a blob that is held whole and verified; `None` of any other.
    fn size_of(&self, content: &ContentId) -> Option<u64>;

    /// The piece map of a blob that is held whole and verified.
    fn piece_map(&self, content: &ContentId) -> impl Future<Output = Option<PieceMap>> + Send;

    /// A reader of a blob.
    fn reader(&self, content: ContentId) -> Self::Reader;
}

/// Reads a blob in checked parts.
pub trait BlobRead: Send + 'static {
    /// The blob's size in bytes. Waits until the blob is held or begun.
    fn size(&mut self) -> impl Future<Output = u64> + Send;

    /// Between 1 and `max` bytes from `offset`, which lies within the blob; waits for what has not landed yet. Every byte
    /// belongs to a piece that has been checked against its hash since it was last read from the disk.
    ///
    /// # Errors
    /// If the bytes cannot be had or are damaged. The answer under way is then cut off.
    fn read(&mut self, offset: u64, max: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
}
