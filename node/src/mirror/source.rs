//! What the mirror needs of the rest of the node, beside the [mesh](crate::mesh): blobs to read, and lists that only
//! an origin can give.
//!
//! Futures of these traits may be dropped at any point and asked again: the mirror races them against the end of a
//! want and against its own deadlines.

use std::future::Future;

use bytes::Bytes;
use layermesh_proto::{ContentId, Repository, engine::event::SourceError};
use thiserror::Error;

use super::route::Page;

/// Why bytes cannot be read from the store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The bytes on disk are not those that were verified. The store has withdrawn the blob; once somebody wants it
    /// again, the same read waits for the fresh piece.
    #[error("the stored bytes are damaged")]
    Damaged,
    /// Bytes that this reader gave came from pieces that, once they were all there, turned out not to be the blob. What
    /// follows would not fit them.
    #[error("the bytes so far turned out not to be of this blob")]
    Discarded,
    /// The blob is not held whole (only [`MirrorStore::read_whole`] says so).
    #[error("not held")]
    NotHeld,
    /// The blob is larger than asked for (only [`MirrorStore::read_whole`] says so).
    #[error("larger than allowed")]
    TooLarge,
    /// The disk failed.
    #[error("cannot read: {0}")]
    Io(String),
}

/// The node's store, as far as the mirror reads it.
pub trait MirrorStore: Clone + Send + Sync + 'static {
    /// Reads one blob.
    type Reader: BlobRead;

    /// Size in bytes of a blob that is held: whole and verified.
    fn size_of(&self, content: &ContentId) -> Option<u64>;

    /// A reader of a blob that is held, is growing, or has not begun yet.
    fn reader(&self, content: ContentId) -> Self::Reader;

    /// All bytes of a held blob of at most `max` bytes, verified against the digest.
    ///
    /// # Errors
    /// If it is not held, larger, damaged, or the disk failed.
    fn read_whole(&self, content: &ContentId, max: u64) -> impl Future<Output = Result<Bytes, ReadError>> + Send;

    /// Whether blobs of these sizes in bytes, of which some may be held, can be held together; if not, why, for people.
    ///
    /// # Errors
    /// If they cannot.
    fn fits(&self, parts: Vec<(ContentId, u64)>) -> impl Future<Output = Result<(), String>> + Send;
}

/// Reads one blob while it grows.
pub trait BlobRead: Send + 'static {
    /// The blob's size in bytes, once it is known. Waits for ever if it never is.
    fn size(&mut self) -> impl Future<Output = u64> + Send;

    /// The blob's size in bytes, once all of it together has been found to be what its digest says; it need not be
    /// durable yet. Waits for ever if it never is.
    fn verified(&mut self) -> impl Future<Output = u64> + Send;

    /// Verified bytes from `offset` on: at least one, at most `max` (which is not 0). Waits for ever if they never
    /// come.
    ///
    /// # Errors
    /// If the disk holds something else now, or failed, or if what this reader gave was not of the blob.
    fn read(&mut self, offset: u64, max: usize) -> impl Future<Output = Result<Bytes, ReadError>> + Send;
}

/// A list that an origin gave, to be passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// The document.
    pub body: Bytes,
    /// Its media type.
    pub content_type: String,
    /// The origin's `Link` header, as it came.
    pub link: Option<String>,
    /// The origin's `OCI-Filters-Applied` header, as it came.
    pub filters_applied: Option<String>,
}

/// Content discovery: questions that have no content address and so no answer in the mesh.
pub trait Discovery: Clone + Send + Sync + 'static {
    /// The origin's list of a repository's tags.
    ///
    /// # Errors
    /// If the origin has none or gives none.
    fn tags(&self, repository: &Repository, page: &Page) -> impl Future<Output = Result<Passed, SourceError>> + Send;

    /// Tags of this repository that the node knows bindings of, in any order.
    fn known_tags(&self, repository: &Repository) -> impl Future<Output = Vec<String>> + Send;

    /// The origin's list of what refers to a content. With a link in it, it is not the whole list, and the mirror does
    /// not pass it on.
    ///
    /// # Errors
    /// If the origin has none or gives none.
    fn referrers(
        &self,
        repository: &Repository,
        content: &ContentId,
        artifact_type: Option<&str>,
    ) -> impl Future<Output = Result<Passed, SourceError>> + Send;
}
