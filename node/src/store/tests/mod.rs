//! Tests of the store as a whole, against a real directory.

mod attached;
mod bench;
mod conformance;
mod crash;
mod damage;
mod flush;
mod layout;
mod room;
mod space;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use layermesh_proto::{
    Algorithm, ContentId, PieceHash, PieceIndex, PieceLayout, Repository, TagRef, piece::PIECE_LEN_MIN, wire::Binding,
};
use tokio::sync::mpsc;

use super::{disk::FileOps, *};

/// No single wait of a test takes longer; a hang fails instead.
const DEADLINE: Duration = Duration::from_secs(60);

/// A blob of five pieces, the last one short.
const SIZE: usize = 4 * PIECE_LEN_MIN as usize + 1000;

fn blob(seed: u8, len: usize) -> (ContentId, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    (ContentId::of(Algorithm::Sha256, &bytes), bytes.into())
}

fn piece(bytes: &Bytes, index: PieceIndex) -> Bytes {
    let range = PieceLayout::for_size(bytes.len() as u64).unwrap().bytes_of(index);
    bytes.slice(range.start as usize..range.end as usize)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("this took too long")
}

fn options(dir: &Path) -> StoreOptions {
    StoreOptions { free_bytes_min: 0, ..StoreOptions::new(dir.to_owned()) }
}

async fn open(dir: &Path) -> Opened {
    soon(Store::open(options(dir))).await.unwrap()
}

async fn open_with(dir: &Path, ops: Arc<dyn FileOps>) -> Opened {
    soon(recovery::open(options(dir), ops)).await.unwrap()
}

async fn write(partial: &Partial, bytes: &Bytes, indices: impl IntoIterator<Item = PieceIndex>) {
    for index in indices {
        assert!(soon(partial.write(index, piece(bytes, index), None)).await.unwrap().new);
    }
}

/// Stores a blob that is not held, in any order of pieces.
async fn store_blob(store: &Store, content: ContentId, bytes: &Bytes) {
    soon(store.insert(content, bytes.clone())).await.unwrap();
}

async fn read_from(reader: &mut BlobReader, offset: u64) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    loop {
        let bytes = soon(reader.read(offset + all.len() as u64, 50_000)).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

async fn read_blob(store: &Store, content: ContentId) -> Result<Vec<u8>, ReadError> {
    read_from(&mut store.reader(content), 0).await
}

async fn next(events: &mut mpsc::Receiver<StoreEvent>) -> StoreEvent {
    soon(events.recv()).await.unwrap()
}

fn binding(tag: &str, content: ContentId, observed_unix_s: u64) -> Binding {
    let repository = Repository::new("registry.example:5000", "team/app").unwrap();
    Binding { reference: TagRef::new(repository, tag).unwrap(), content, observed_unix_s, age_ms: None, by: None }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn blob_path(dir: &Path, content: &ContentId) -> std::path::PathBuf {
    Paths { root: dir.to_owned() }.blob(content)
}

fn partial_path(dir: &Path, content: &ContentId, file: &str) -> std::path::PathBuf {
    Paths { root: dir.to_owned() }.partial(content).join(file)
}
