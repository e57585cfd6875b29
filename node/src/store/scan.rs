//! Whole files hashed from end to end, in the background: those that nothing vouches for, and those that somebody wants
//! to be sure of.
//!
//! Invariants: one such file is read at a time, piece by piece, at a bounded rate if one is given; one that was written
//! to meanwhile is left alone.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use layermesh_proto::{ContentId, PieceHash, PieceLayout, PieceMap, Verifier};
use tokio::time::Instant;

use super::{Store, disk::is_damage};

/// Pieces read in one job, so that others get their turns.
const PIECES_PER_JOB: usize = 8;

/// By what a file is known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) len: u64,
    pub(super) inode: u64,
    pub(super) mtime_s: i64,
    pub(super) mtime_ns: i64,
}

impl Identity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { len: metadata.len(), inode: metadata.ino(), mtime_s: metadata.mtime(), mtime_ns: metadata.mtime_nsec() }
    }
}

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// The blob that its name says.
    Blob { map: PieceMap, identity: Identity, file: File },
    /// Something else, or something that cannot be read.
    SomethingElse(Identity),
    /// Gone, too large, written to while it was read, or the store is being closed.
    LeaveAlone,
}

struct Scan {
    content: ContentId,
    path: PathBuf,
    file: File,
    identity: Identity,
    layout: PieceLayout,
    verifier: Verifier,
    hashes: Vec<PieceHash>,
    buffer: Vec<u8>,
}

impl Scan {
    fn open(path: PathBuf, content: ContentId) -> io::Result<Option<Self>> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let Some(layout) = PieceLayout::for_size(metadata.len()).filter(|_| metadata.is_file()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            content,
            path,
            file,
            identity: Identity::of(&metadata),
            layout,
            verifier: Verifier::new(content),
            hashes: Vec::with_capacity(layout.count() as usize),
            buffer: Vec::new(),
        }))
    }

    /// Reads some pieces; says how many bytes they were, 0 at the end.
    fn advance(&mut self) -> io::Result<u64> {
        let first = self.hashes.len() as u32;
        let last = self.layout.count().min(first + PIECES_PER_JOB as u32);
        let mut bytes = 0;
        for index in first..last {
            let range = self.layout.bytes_of(index);
            self.buffer.resize((range.end - range.start) as usize, 0);
            self.file.read_exact(&mut self.buffer)?;
            self.verifier.update(&self.buffer);
            self.hashes.push(PieceHash::of(&self.buffer));
            bytes += self.buffer.len() as u64;
        }
        Ok(bytes)
    }

    fn finish(self) -> io::Result<Found> {
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => Identity::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::LeaveAlone),
            Err(error) => return Err(error),
        };
        if now != self.identity {
            return Ok(Found::LeaveAlone);
        }
        Ok(match (self.verifier.finish(), PieceMap::new(self.layout, self.hashes)) {
            (Ok(()), Some(map)) => Found::Blob { map, identity: self.identity, file: self.file },
            _ => Found::SomethingElse(self.identity),
        })
    }
}

impl Store {
    /// Hashes a file from end to end when it is its turn, at most `bytes_per_s` of it a second.
    pub(super) async fn hash_file(
        &self,
        path: PathBuf,
        content: ContentId,
        bytes_per_s: Option<u64>,
    ) -> io::Result<Found> {
        let _turn = Arc::clone(&self.0.scans).acquire_owned().await.map_err(io::Error::other)?;
        let Some(mut scan) = self.job(move |_| Scan::open(path, content)).await?? else {
            return Ok(Found::LeaveAlone);
        };
        let identity = scan.identity;
        let mut due = Instant::now();
        loop {
            if self.0.closing.load(Ordering::Relaxed) {
                return Ok(Found::LeaveAlone);
            }
            let read;
            (scan, read) = self
                .job(move |_| {
                    let read = scan.advance();
                    (scan, read)
                })
                .await?;
            match read {
                Ok(0) => break,
                Ok(bytes) => {
                    if let Some(rate) = bytes_per_s {
                        due += Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
                        tokio::time::sleep_until(due).await;
                    }
                }
                // Cut off while it was read, or unreadable: whichever, it is not the blob.
                Err(error) if is_damage(&error) => return Ok(Found::SomethingElse(identity)),
                Err(error) => {
                    tracing::debug!(content = %scan.content, %error, "cannot read a file to its end");
                    return Err(error);
                }
            }
        }
        self.job(move |_| scan.finish()).await?
    }
}
