//! The store and the origins as each front of the node sees them.
//!
//! The fronts (mirror, bulk exchange, admin API) name what they need in traits of their own, so that each is
//! tested without the others; here, and only here, the real things are put behind those traits.

use std::io;

use axum::http::HeaderValue;
use bytes::Bytes;
use layermesh_proto::{ContentId, PieceMap, Repository, engine::event::SourceError};

use crate::{
    admin::{StoreBlob, StoreTotals, StoreView},
    exchange,
    mesh::Mesh,
    mirror::{self, Discovery, MirrorStore, route::Page},
    origin::Origins,
    store::{BlobReader, ReadError, Store},
};

impl MirrorStore for Store {
    type Reader = BlobReader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        Self::size_of(self, content)
    }

    fn reader(&self, content: ContentId) -> BlobReader {
        Self::reader(self, content)
    }

    async fn read_whole(&self, content: &ContentId, max: u64) -> Result<Bytes, mirror::ReadError> {
        Self::read_whole(self, content, max).await.map_err(of_mirror)
    }
}

impl mirror::BlobRead for BlobReader {
    async fn size(&mut self) -> u64 {
        Self::size(self).await
    }

    async fn verified(&mut self) -> u64 {
        Self::verified(self).await
    }

    async fn read(&mut self, offset: u64, max: usize) -> Result<Bytes, mirror::ReadError> {
        Self::read(self, offset, max).await.map_err(of_mirror)
    }
}

fn of_mirror(error: ReadError) -> mirror::ReadError {
    match error {
        ReadError::Damaged => mirror::ReadError::Damaged,
        ReadError::Discarded => mirror::ReadError::Discarded,
        ReadError::NotHeld => mirror::ReadError::NotHeld,
        ReadError::TooLarge { .. } => mirror::ReadError::TooLarge,
        other => mirror::ReadError::Io(other.to_string()),
    }
}

impl exchange::BlobSource for Store {
    type Reader = BlobReader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        Self::size_of(self, content)
    }

    async fn piece_map(&self, content: &ContentId) -> Option<PieceMap> {
        Self::piece_map(self, content).await
    }

    fn reader(&self, content: ContentId) -> BlobReader {
        Self::reader(self, content)
    }
}

impl exchange::BlobRead for BlobReader {
    async fn size(&mut self) -> u64 {
        Self::size(self).await
    }

    async fn read(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        Self::read(self, offset, max).await.map_err(io::Error::other)
    }
}

impl StoreView for Store {
    fn totals(&self) -> StoreTotals {
        let totals = Self::totals(self);
        StoreTotals { blobs: totals.blobs as u64, bytes: totals.bytes, partial_bytes: totals.partial_bytes }
    }

    fn list(&self) -> Vec<StoreBlob> {
        let blob = |held: crate::store::HeldBlob| StoreBlob { content: held.content, size: held.size };
        Self::list(self).into_iter().map(blob).collect()
    }

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        Self::size_of(self, content)
    }

    async fn read_whole(&self, content: &ContentId, bytes_max: u64) -> Result<Bytes, String> {
        Self::read_whole(self, content, bytes_max).await.map_err(|error| error.to_string())
    }
}

/// Content discovery: the origin's lists, and the tags that the site knows.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    pub(super) origins: Origins,
    pub(super) mesh: Mesh,
}

impl Discovery for Lists {
    async fn tags(&self, repository: &Repository, page: &Page) -> Result<mirror::Passed, SourceError> {
        self.origins.tags(repository, page.n, page.last.as_deref()).await.map(passed)
    }

    async fn known_tags(&self, repository: &Repository) -> Vec<String> {
        self.mesh.known_tags(repository.clone()).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        content: &ContentId,
        artifact_type: Option<&str>,
    ) -> Result<mirror::Passed, SourceError> {
        self.origins.referrers(repository, content, artifact_type).await.map(passed)
    }
}

fn passed(listing: crate::origin::Passed) -> mirror::Passed {
    let text = |header: Option<HeaderValue>| header.and_then(|value| value.to_str().ok().map(str::to_owned));
    mirror::Passed {
        body: listing.body,
        content_type: text(listing.content_type).unwrap_or_else(|| "application/json".to_owned()),
        link: text(listing.link),
        filters_applied: text(listing.filters_applied),
    }
}
