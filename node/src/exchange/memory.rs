//! Blobs in memory, with faults on demand: a [`BlobSource`] for tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId, PieceMap};

use super::{BlobRead, BlobSource};

/// What goes wrong when a blob is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The byte at this offset is another.
    WrongByte(u64),
    /// Nothing comes from this offset on.
    StallAt(u64),
    /// Reading fails at this offset.
    FailAt(u64),
}

#[derive(Debug, Clone)]
struct Blob {
    bytes: Bytes,
    fault: Option<Fault>,
    claimed_size: Option<u64>,
}

/// Blobs in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct MemorySource(Arc<Mutex<BTreeMap<ContentId, Blob>>>);

impl MemorySource {
    /// Adds a blob.
    pub(super) fn insert(&self, bytes: Vec<u8>) -> ContentId {
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        let blob = Blob { bytes: bytes.into(), fault: None, claimed_size: None };
        self.0.lock().unwrap().insert(content, blob);
        content
    }

    /// Reads of this blob go wrong from now on.
    pub(super) fn fault(&self, content: ContentId, fault: Fault) {
        self.0.lock().unwrap().get_mut(&content).unwrap().fault = Some(fault);
    }

    /// The blob is said to have another size from now on; its map stays what it is.
    pub(super) fn claim_size(&self, content: ContentId, size: u64) {
        self.0.lock().unwrap().get_mut(&content).unwrap().claimed_size = Some(size);
    }

    fn get(&self, content: &ContentId) -> Option<Blob> {
        self.0.lock().unwrap().get(content).cloned()
    }
}

impl BlobSource for MemorySource {
    type Reader = MemoryReader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        self.get(content).map(|blob| blob.claimed_size.unwrap_or(blob.bytes.len() as u64))
    }

    async fn piece_map(&self, content: &ContentId) -> Option<PieceMap> {
        PieceMap::of(&self.get(content)?.bytes)
    }

    fn reader(&self, content: ContentId) -> MemoryReader {
        MemoryReader(self.get(&content))
    }
}

/// Reads one blob.
#[derive(Debug)]
pub(super) struct MemoryReader(Option<Blob>);

impl BlobRead for MemoryReader {
    async fn size(&mut self) -> u64 {
        match &self.0 {
            Some(blob) => blob.claimed_size.unwrap_or(blob.bytes.len() as u64),
            None => std::future::pending().await,
        }
    }

    async fn read(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        let blob = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap();
        let mut end = start.saturating_add(max).min(blob.bytes.len());
        match blob.fault {
            Some(Fault::StallAt(at)) if at <= offset => std::future::pending().await,
            Some(Fault::FailAt(at)) if at <= offset => return Err(io::Error::other("injected")),
            Some(Fault::StallAt(at) | Fault::FailAt(at)) => end = end.min(usize::try_from(at).unwrap()),
            Some(Fault::WrongByte(at)) if (offset..end as u64).contains(&at) => {
                let mut bytes = blob.bytes[start..end].to_vec();
                bytes[usize::try_from(at - offset).unwrap()] ^= 1;
                return Ok(bytes.into());
            }
            Some(Fault::WrongByte(_)) | None => {}
        }
        Ok(blob.bytes.slice(start..end))
    }
}
