//! Writing a bundle: an OCI image layout in a tar file, which other tools read as `oci-archive:`.
//!
//! Invariants: the same images give the same bytes (entries are ordered, times and owners are zero); the file appears
//! under its name only when all of it is durable.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write as _},
    path::{Path, PathBuf},
};

use layermesh_proto::ContentId;
use serde::Serialize;
use tar::{Builder, EntryType, Header};
use thiserror::Error;

use super::layout::{CONTAINERD_NAME, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, REF_NAME, blob_name};
use crate::store::media_type::OCI_INDEX;

/// Bytes that a file adds to a bundle at most: its header, another for a long name, and what fills its last block.
const MEMBER_BYTES_MAX: u64 = 4 * 512;
/// Bytes written at a time.
const WRITE_LEN: usize = 1 << 20;

/// Why a bundle cannot be written.
#[derive(Debug, Error)]
pub enum WriteBundleError {
    /// Something has its name.
    #[error("{0} exists already: name another file, or replace it with --force")]
    Exists(PathBuf),
    /// The disk has no room for it.
    #[error("{dir} has {free} bytes free and the bundle needs {needed}: free some space, or name a file elsewhere")]
    NoSpace {
        /// The directory.
        dir: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The file system refuses.
    #[error("cannot write {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// A blob does not have the size that its manifest gives.
    #[error("{content} has another size than the image says")]
    Size {
        /// The blob.
        content: ContentId,
    },
}

/// An image of a bundle, as its index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEntry {
    /// Its manifest or index, or another document.
    pub root: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is, if it is no image.
    pub artifact_type: Option<String>,
    /// The name under which it is known, if it has one.
    pub name: Option<String>,
    /// What else is said of it.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Bytes of a bundle with blobs of these sizes, a little rounded up.
pub fn bundle_bytes(blobs: impl Iterator<Item = u64>) -> u64 {
    // The documents at its start and the two blocks at its end are below this.
    blobs.fold(1 << 20, |sum, size| sum.saturating_add(size).saturating_add(MEMBER_BYTES_MAX))
}

/// A bundle that is being written. Dropped before [`BundleWriter::finish`], it leaves nothing behind.
pub struct BundleWriter {
    to: PathBuf,
    partial: PathBuf,
    tar: Option<Builder<BufWriter<File>>>,
    kept: bool,
}

impl BundleWriter {
    /// Begins a bundle that will need so many bytes. Blocks, as all of this does.
    ///
    /// # Errors
    /// If it exists and is not to be replaced, there is no room for it, or it cannot be written.
    pub fn begin(to: &Path, replace: bool, needed: u64) -> Result<Self, WriteBundleError> {
        if !replace && fs::symlink_metadata(to).is_ok() {
            return Err(WriteBundleError::Exists(to.to_owned()));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = to.with_file_name(name);
        let failed = |error| WriteBundleError::Io { path: partial.clone(), error };
        let dir = match to.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let stat = rustix::fs::statvfs(dir).map_err(|error| failed(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < needed {
            return Err(WriteBundleError::NoSpace { dir: dir.to_owned(), needed, free });
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial).map_err(failed)?;
        let tar = Builder::new(BufWriter::with_capacity(WRITE_LEN, file));
        Ok(Self { to: to.to_owned(), partial, tar: Some(tar), kept: false })
    }

    fn failed(&self, error: io::Error) -> WriteBundleError {
        WriteBundleError::Io { path: self.partial.clone(), error }
    }

    /// Writes what the bundle is and which images it has.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn index(&mut self, images: &[BundleEntry]) -> Result<(), WriteBundleError> {
        let entry = |image: &BundleEntry| {
            let mut annotations = image.annotations.clone();
            if let Some(name) = &image.name {
                annotations.insert(REF_NAME.to_owned(), name.clone());
                annotations.insert(CONTAINERD_NAME.to_owned(), name.clone());
            }
            let (media_type, digest) = (image.media_type.clone(), image.root.to_string());
            Entry { media_type, digest, size: image.size, artifact_type: image.artifact_type.clone(), annotations }
        };
        let manifests = images.iter().map(entry).collect();
        let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests };
        let index = serde_json::to_vec(&index).map_err(|error| self.failed(error.into()))?;
        let layout = format!(r#"{{"imageLayoutVersion":"{LAYOUT_VERSION}"}}"#);
        self.file(LAYOUT_FILE, layout.len() as u64, layout.as_bytes())?;
        self.file(INDEX_FILE, index.len() as u64, index.as_slice())
    }

    /// Writes a blob. Its bytes are taken as they are.
    ///
    /// # Errors
    /// If it cannot be written or read, or has another size.
    pub fn blob(&mut self, content: &ContentId, size: u64, bytes: impl Read) -> Result<(), WriteBundleError> {
        let mut counted = Counted { inner: bytes.take(size), read: 0 };
        self.file(&blob_name(content), size, &mut counted)?;
        if counted.read == size { Ok(()) } else { Err(WriteBundleError::Size { content: *content }) }
    }

    fn file(&mut self, name: &str, size: u64, bytes: impl Read) -> Result<(), WriteBundleError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        let Some(tar) = &mut self.tar else { return Ok(()) };
        let written = tar.append_data(&mut header, name, bytes);
        written.map_err(|error| self.failed(error))
    }

    /// Makes the bundle durable and gives it its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> Result<(), WriteBundleError> {
        let Some(tar) = self.tar.take() else { return Ok(()) };
        let write = || -> io::Result<()> {
            let mut buffered = tar.into_inner()?;
            buffered.flush()?;
            buffered.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.to)?;
            let dir = self.to.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| self.failed(error))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        if !self.kept {
            // Half a bundle is of no use, and takes the room that the next try needs.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}
