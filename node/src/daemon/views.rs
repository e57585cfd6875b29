//! The store and the origins as each front of the node sees them.
//!
//! The fronts (mirror, bulk exchange, admin API) name what they need in traits of their own, so that each is
//! tested without the others; here, and only here, the real things are put behind those traits.

use std::{io, path::PathBuf};

use axum::http::HeaderValue;
use bytes::Bytes;
use layermesh_proto::{ContentId, PieceMap, Repository, engine::event::SourceError, wire::Binding};

use crate::{
    admin::{StoreBlob, StoreTotals, StoreView},
    exchange,
    mesh::Mesh,
    mirror::{self, Discovery, MirrorStore, route::Page},
    origin::Origins,
    store::{AttachedStore, BlobReader, Collected, Hold, PinOwner, ReadError, Store},
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

    async fn fits(&self, parts: Vec<(ContentId, u64)>) -> Result<(), String> {
        Self::fits(self, parts).await.map_err(|error| error.to_string())
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
        ReadError::Damaged | ReadError::Gone => mirror::ReadError::Damaged,
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
    type Hold = Hold;

    fn totals(&self) -> StoreTotals {
        let totals = Self::totals(self);
        StoreTotals {
            blobs: totals.blobs as u64,
            bytes: totals.bytes,
            partial_bytes: totals.partial_bytes,
            attached_blobs: totals.attached_blobs as u64,
            attached_bytes: totals.attached_bytes,
            pinned_bytes: totals.pinned_bytes,
            quota: totals.quota,
            disk_free: totals.disk_free,
            disk_free_min: totals.disk_free_min,
            disk_size: totals.disk_size,
        }
    }

    fn list(&self) -> Vec<StoreBlob> {
        let blob = |held: crate::store::HeldBlob| StoreBlob { content: held.content, size: held.size, own: held.own };
        Self::list(self).into_iter().map(blob).collect()
    }

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        Self::size_of(self, content)
    }

    async fn read_whole(&self, content: &ContentId, bytes_max: u64) -> Result<Bytes, String> {
        Self::read_whole(self, content, bytes_max).await.map_err(|error| error.to_string())
    }

    fn hold(&self, content: ContentId) -> Hold {
        Self::hold(self, content)
    }

    async fn reserve(&self, parts: Vec<(ContentId, u64)>) -> Result<Hold, String> {
        Self::reserve(self, parts).await.map_err(|error| error.to_string())
    }

    fn pins(&self) -> Vec<(PinOwner, Vec<ContentId>)> {
        Self::pins(self)
    }

    async fn replace_pins(&self, owner: PinOwner, contents: Vec<ContentId>) -> Result<(), String> {
        Self::replace_pins(self, owner, contents).await.map_err(|error| error.to_string())
    }

    async fn unpin(&self, owner: PinOwner) -> Result<usize, String> {
        Self::unpin(self, owner).await.map_err(|error| error.to_string())
    }

    async fn verify(&self, content: ContentId, bytes_per_s: u64) -> Result<bool, String> {
        Self::verify(self, content, bytes_per_s).await.map_err(|error| error.to_string())
    }

    async fn bindings(&self) -> Vec<Binding> {
        Self::bindings(self).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read what tags stand for");
            Vec::new()
        })
    }

    async fn attach(&self, dir: PathBuf, reuse: bool) -> Result<(), String> {
        Self::attach(self, &dir, reuse, true).await.map_err(|error| error.to_string())
    }

    async fn detach(&self, dir: PathBuf) -> Result<bool, String> {
        Self::detach(self, &dir).await.map_err(|error| error.to_string())
    }

    fn attached(&self) -> Vec<AttachedStore> {
        Self::attached(self)
    }

    async fn collect(&self, target: Option<u64>, dry_run: bool) -> Result<Vec<Collected>, String> {
        Self::collect(self, target, true, dry_run).await.map_err(|error| error.to_string())
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
