//! Images in files and directories: what `layermesh seed` and `layermesh bundle import` read.
//!
//! A source is an OCI image layout (image-spec 1.1, image-layout.md), in a directory or a tar file, or what `docker save`
//! writes. Nothing is unpacked: blobs are ranges of files. Invariants: no name that a source contains becomes a path
//! outside of it; what is kept in memory is bounded whatever the source says; documents are checked against their digests
//! when they are read, and whoever takes the other blobs checks those.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use layermesh_proto::ContentId;
use thiserror::Error;

mod docker;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod layout;
mod tarball;
#[cfg(test)]
mod tests;
mod write;

pub use write::{BundleEntry, BundleWriter, WriteBundleError, bundle_bytes};

use self::tarball::{Extent, Tarball};
use crate::{
    contents::MANIFEST_BYTES_MAX,
    image::{ImageReference, ImageSource, LocalImage},
};

/// Images in one file or directory.
pub const IMAGES_MAX: usize = 1024;
/// Largest `index.json` or `manifest.json`, in bytes: some 4 KiB for each image.
const LIST_BYTES_MAX: u64 = IMAGES_MAX as u64 * 4096;

/// Why an image cannot be read from a file or directory.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The file system refuses.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// A tar file makes no sense.
    #[error("{path} {error}")]
    Tar {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: tarball::TarError,
    },
    /// Not an image layout.
    #[error("{0} is not an OCI image layout: it has no file `oci-layout`{1}")]
    NotALayout(PathBuf, &'static str),
    /// An image layout that this program does not know.
    #[error("{path} is an OCI image layout of version `{version}`; only 1.0.0 is known")]
    OtherLayout {
        /// The file or directory.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// Not what `docker save` writes.
    #[error("{0} is not a docker archive: it has no file `manifest.json`")]
    NotADockerArchive(PathBuf),
    /// A file in it makes no sense.
    #[error("{name} in {path} makes no sense: {what}")]
    Document {
        /// The file or directory.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file that should be in it is not.
    #[error("{path} lacks {name}: it is not complete; copy or save it again")]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// The file in it.
        name: String,
    },
    /// A document does not have its digest.
    #[error("{content} in {path} is damaged: its bytes are those of {found}; copy or save it again")]
    WrongBytes {
        /// The file or directory.
        path: PathBuf,
        /// The blob.
        content: Box<ContentId>,
        /// What the bytes are.
        found: Box<ContentId>,
    },
    /// It has no images.
    #[error("{0} has no images in it")]
    Empty(PathBuf),
    /// The image that was named is not in it.
    #[error("{path} has no image `{name}`; it has {}", list(has))]
    NoSuchImage {
        /// The file or directory.
        path: PathBuf,
        /// The image.
        name: String,
        /// Those that it has.
        has: Vec<String>,
    },
    /// It has several images, and none was named.
    #[error("{path} has several images: name one with {path}:NAME, of {}", list(has))]
    Ambiguous {
        /// The file or directory.
        path: PathBuf,
        /// Those that it has.
        has: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX { format!("{shown} and {} more", names.len() - SHOWN_MAX) } else { shown }
}

/// The files of a source.
#[derive(Debug)]
enum Files {
    Directory(PathBuf),
    Tar(Tarball),
}

impl Files {
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Tar(tar) => tar.path(),
        }
    }

    /// Where a file's bytes are; `None` if there is no such file.
    fn find(&self, name: &str) -> Result<Option<(PathBuf, Extent)>, ArchiveError> {
        match self {
            Self::Tar(tar) => Ok(tar.find(name).map(|extent| (tar.path().to_owned(), extent))),
            Self::Directory(dir) => {
                let path = dir.join(name);
                match std::fs::metadata(&path) {
                    // Anything else (a pipe, a device) might never end.
                    Ok(found) if found.is_file() => Ok(Some((path, Extent { offset: 0, size: found.len() }))),
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(ArchiveError::Io { path, error }),
                }
            }
        }
    }

    /// A small file; `None` if there is no such file.
    fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, ArchiveError> {
        let Some((path, extent)) = self.find(name)? else { return Ok(None) };
        if extent.size > bytes_max {
            return Err(self.nonsense(name, format!("it has {} bytes, more than {bytes_max}", extent.size)));
        }
        let bytes = read_extent(&path, extent).map_err(|error| ArchiveError::Io { path, error })?;
        Ok(Some(bytes.into()))
    }

    fn nonsense(&self, name: &str, what: impl ToString) -> ArchiveError {
        ArchiveError::Document { path: self.path().to_owned(), name: name.to_owned(), what: what.to_string() }
    }

    fn missing(&self, name: &str) -> ArchiveError {
        ArchiveError::Missing { path: self.path().to_owned(), name: name.to_owned() }
    }
}

fn read_extent(path: &Path, extent: Extent) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = Vec::with_capacity(extent.size as usize);
    file.take(extent.size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a blob's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file, from `offset` on.
    File {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// At hand.
    Bytes(Bytes),
}

impl Place {
    /// Bytes there.
    pub fn size(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// An image of a source.
#[derive(Debug, Clone)]
pub struct SourceImage {
    /// Its manifest or index.
    pub root: ContentId,
    /// What the source calls it, as it is written there.
    pub names: Vec<String>,
    /// What kind of artifact it is, if it is no image.
    pub artifact_type: Option<String>,
    /// Whether its manifest was made here, since the source has none that a registry would know.
    pub converted: bool,
    /// What the source says about it.
    pub annotations: BTreeMap<String, String>,
    files: Arc<Files>,
    /// Blobs that are not where a layout has them.
    places: BTreeMap<ContentId, Place>,
}

impl SourceImage {
    /// The name under which a registry has it, if the source says so: a tag alone is not one.
    pub fn reference(&self) -> Option<ImageReference> {
        self.references().into_iter().next()
    }

    /// All names under which registries have it, each once.
    pub fn references(&self) -> Vec<ImageReference> {
        let mut references = Vec::new();
        for name in self.names.iter().filter(|name| name.contains([':', '/'])) {
            if let Ok(reference) = name.parse()
                && !references.contains(&reference)
            {
                references.push(reference);
            }
        }
        references
    }

    /// Where one of its blobs is; `None` if it is not in the source.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn locate(&self, content: &ContentId) -> Result<Option<Place>, ArchiveError> {
        if let Some(place) = self.places.get(content) {
            return Ok(Some(place.clone()));
        }
        let found = self.files.find(&layout::blob_name(content))?;
        Ok(found.map(|(path, Extent { offset, size })| Place::File { path, offset, size }))
    }

    /// One of its manifests, checked; `None` if it is not in the source.
    ///
    /// # Errors
    /// If it is damaged, or larger than a manifest may be.
    pub fn manifest(&self, content: &ContentId) -> Result<Option<Bytes>, ArchiveError> {
        self.document(content, MANIFEST_BYTES_MAX)
    }

    /// A small blob, checked; `None` if it is not in the source.
    ///
    /// # Errors
    /// If it is damaged, or larger than `bytes_max`.
    pub fn document(&self, content: &ContentId, bytes_max: u64) -> Result<Option<Bytes>, ArchiveError> {
        let bytes = match self.places.get(content) {
            Some(Place::Bytes(bytes)) => Some(bytes.clone()),
            _ => self.files.read(&layout::blob_name(content), bytes_max)?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let found = ContentId::of(content.algorithm(), &bytes);
        if found != *content {
            let (content, found) = (Box::new(*content), Box::new(found));
            return Err(ArchiveError::WrongBytes { path: self.files.path().to_owned(), content, found });
        }
        Ok(Some(bytes))
    }

    /// The error that a blob is not in the source.
    pub fn lacks(&self, content: &ContentId) -> ArchiveError {
        self.files.missing(&content.to_string())
    }

    fn shown(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.root.to_string())
    }

    fn is_called(&self, name: &str) -> bool {
        let same = |own: &String| {
            let normal = |text: &str| text.parse::<ImageReference>().ok();
            own == name || normal(own).is_some_and(|own| Some(own) == normal(name))
        };
        self.root.to_string() == name || self.names.iter().any(same)
    }
}

/// The image that a source means. Blocks; `None` if it is at a registry.
///
/// # Errors
/// If the source cannot be read, has no such image, or has several and names none.
pub fn open(source: &ImageSource) -> Option<Result<SourceImage, ArchiveError>> {
    Some(match source {
        ImageSource::Registry(_) => return None,
        ImageSource::Oci(local) => layout_in_directory(&local.path).and_then(|images| pick(images, local)),
        ImageSource::OciArchive(local) => images_of_archive(&local.path).and_then(|images| pick(images, local)),
        ImageSource::DockerArchive(local) => images_of_docker(&local.path).and_then(|images| pick(images, local)),
    })
}

/// All images of an OCI image layout in a tar file. Blocks.
///
/// # Errors
/// If it cannot be read or makes no sense.
pub fn images_of_archive(path: &Path) -> Result<Vec<SourceImage>, ArchiveError> {
    layout::images(Arc::new(Files::Tar(Tarball::open(path)?)))
}

fn layout_in_directory(path: &Path) -> Result<Vec<SourceImage>, ArchiveError> {
    let failed = |error| ArchiveError::Io { path: path.to_owned(), error };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Err(failed(io::Error::new(io::ErrorKind::NotADirectory, "it is a file: write oci-archive: instead")));
    }
    layout::images(Arc::new(Files::Directory(path.to_owned())))
}

fn images_of_docker(path: &Path) -> Result<Vec<SourceImage>, ArchiveError> {
    let files = Arc::new(Files::Tar(Tarball::open(path)?));
    // Later versions of docker write a layout with the registry's own manifests as well.
    if layout::is_layout(&files)? { layout::images(files) } else { docker::images(files) }
}

fn pick(mut images: Vec<SourceImage>, local: &LocalImage) -> Result<SourceImage, ArchiveError> {
    // What else is in a bundle is not for those who look for an image.
    images.retain(|image| image.artifact_type.is_none());
    let path = || local.path.clone();
    let has = |images: &[SourceImage]| images.iter().map(SourceImage::shown).collect();
    match &local.name {
        Some(name) => match images.iter().find(|image| image.is_called(name)) {
            Some(image) => Ok(image.clone()),
            None => Err(ArchiveError::NoSuchImage { path: path(), name: name.clone(), has: has(&images) }),
        },
        None => match images.len() {
            0 => Err(ArchiveError::Empty(path())),
            // Several names of one image are no choice.
            _ if images.iter().any(|image| image.root != images[0].root) => {
                Err(ArchiveError::Ambiguous { path: path(), has: has(&images) })
            }
            _ => images.into_iter().next().ok_or_else(|| ArchiveError::Empty(path())),
        },
    }
}
