//! What an image consists of: everything that a device needs to run it, from a manifest or an index down.
//!
//! [`Walk`] is the decision without the reading: it says which manifest it wants next, is given its bytes or told that
//! nobody has them, and in the end lists the blobs, each once, with size, media type, role and platforms. [`read`] does
//! that over whatever can read a manifest. Invariant: a walk is bounded in manifests, parts and depth, whatever the
//! manifests say, and a manifest that is not there hides only what it alone names.
//!
//! Deliberately absent: what refers to the image from outside (the referrers API). An index's attestations are parts of
//! the image if all platforms are chosen, since they are for none.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
};

use bytes::Bytes;
use layermesh_proto::{ContentId, ObjectKind};
use thiserror::Error;

mod manifest;
mod platform;

pub use manifest::{Document, DocumentError, Entry, MANIFEST_BYTES_MAX};
pub use platform::{Platform, PlatformChoice, PlatformError};

use crate::store::media_type::{
    DOCKER_LIST, DOCKER_MANIFEST, DOCKER_V1, DOCKER_V1_SIGNED, OCI_INDEX, OCI_MANIFEST, media_type_of,
};

/// Manifests and indexes of one image: an index of every platform and its attestations has dozens.
pub const MANIFESTS_MAX: usize = 256;
/// Parts of one image. Images have at most 127 layers on common file systems; times a few platforms.
pub const PARTS_MAX: usize = 4096;
/// Indexes within indexes: builders make none, mirrors at most one.
pub const DEPTH_MAX: usize = 4;

/// What a part is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Names manifests.
    Index,
    /// Names a config and layers. Also a manifest or index that was not read, where nothing says which it is.
    Manifest,
    /// How the image is run.
    Config,
    /// A part of its file system.
    Layer,
    /// Something that an index names and that is no manifest.
    Other,
}

impl Role {
    /// Which endpoint of an origin has such a part.
    pub const fn kind(self) -> ObjectKind {
        match self {
            Self::Index | Self::Manifest | Self::Other => ObjectKind::Manifest,
            Self::Config | Self::Layer => ObjectKind::Blob,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Index => "index",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Other => "other",
        })
    }
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes; unknown only of a root that was not read.
    pub size: Option<u64>,
    /// Its media type; unknown as its size is.
    pub media_type: Option<String>,
    /// What it is for.
    pub role: Role,
    /// The platforms that need it, as the index names them; none if no index does.
    pub platforms: Vec<Platform>,
}

impl Part {
    /// Whether it names other parts.
    pub const fn is_document(&self) -> bool {
        matches!(self.role, Role::Index | Role::Manifest)
    }
}

/// What an image consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The manifest or index that the image's name stands for.
    pub root: ContentId,
    /// Its parts, each once; what names others comes before them, so the root is the first.
    pub parts: Vec<Part>,
    /// Manifests that nobody could read. What they name is not in `parts`.
    pub unread: Vec<ContentId>,
    /// Platforms that the index offers, if the root is one.
    pub offered: Vec<Platform>,
    /// Platforms that were chosen and that the image has nothing for.
    pub unmatched: Vec<Platform>,
}

impl Contents {
    /// Whether the image has something for each platform that was chosen.
    ///
    /// # Errors
    /// If it has not.
    pub fn matched(&self) -> Result<(), NotOffered> {
        if self.unmatched.is_empty() {
            return Ok(());
        }
        let offered = self.offered.iter().map(ToString::to_string).collect();
        Err(NotOffered { wanted: PlatformChoice::These(self.unmatched.clone()).to_string(), offered })
    }

    /// Bytes of all parts whose size is known.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().filter_map(|part| part.size).fold(0, u64::saturating_add)
    }
}

/// An image is not for a platform that was chosen.
#[derive(Debug, Error)]
#[error("has nothing for {wanted}; it has {}", offered.join(", "))]
pub struct NotOffered {
    /// The platforms that it has nothing for.
    pub wanted: String,
    /// Those that it is for.
    pub offered: Vec<String>,
}

/// Why an image makes no sense.
#[derive(Debug, Error)]
pub enum ContentsError {
    /// A manifest is none.
    #[error("manifest {content} is not one: {error}")]
    Manifest {
        /// The manifest.
        content: ContentId,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// It has more manifests than any image.
    #[error("the image has more than {MANIFESTS_MAX} manifests")]
    TooManyManifests,
    /// It has more parts than any image.
    #[error("the image has more than {PARTS_MAX} parts")]
    TooManyParts,
    /// Its indexes name indexes that name indexes.
    #[error("the image's indexes are nested more than {DEPTH_MAX} deep")]
    TooDeep,
}

/// A manifest that is to be read.
#[derive(Debug)]
struct Step {
    part: usize,
    depth: usize,
}

/// A walk over an image's manifests, without the reading.
#[derive(Debug)]
pub struct Walk {
    choice: PlatformChoice,
    steps: VecDeque<Step>,
    contents: Contents,
    by_content: BTreeMap<ContentId, usize>,
    /// Of each part, the parts that it names.
    named: Vec<Vec<usize>>,
    manifests: usize,
}

impl Walk {
    /// A walk from a manifest or an index on.
    pub fn new(root: ContentId, choice: PlatformChoice) -> Self {
        let part = Part { content: root, size: None, media_type: None, role: Role::Manifest, platforms: Vec::new() };
        Self {
            choice,
            steps: VecDeque::from([Step { part: 0, depth: 0 }]),
            contents: Contents {
                root,
                parts: vec![part],
                unread: Vec::new(),
                offered: Vec::new(),
                unmatched: Vec::new(),
            },
            by_content: BTreeMap::from([(root, 0)]),
            named: vec![Vec::new()],
            manifests: 1,
        }
    }

    /// The manifest that is to be read next; `None` once all are.
    pub fn next(&self) -> Option<ContentId> {
        self.steps.front().map(|step| self.contents.parts[step.part].content)
    }

    /// What was found so far.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The bytes of the manifest that was to be read next.
    ///
    /// # Errors
    /// If they are no manifest, or the image is larger than any can be. The walk ends then.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), ContentsError> {
        let Some(step) = self.steps.pop_front() else { return Ok(()) };
        let part = &mut self.contents.parts[step.part];
        let content = part.content;
        let document = Document::parse(bytes).map_err(|error| ContentsError::Manifest { content, error })?;
        part.size = Some(bytes.len() as u64);
        part.role = if matches!(document, Document::Index(_)) { Role::Index } else { Role::Manifest };
        if part.media_type.is_none() {
            part.media_type = media_type_of(bytes).map(str::to_owned);
        }
        match document {
            Document::Index(entries) => self.take_index(&step, &entries),
            Document::Manifest(entries) => {
                for (at, entry) in entries.into_iter().enumerate() {
                    let role = if at == 0 { Role::Config } else { Role::Layer };
                    self.take(step.part, &entry, role)?;
                }
                Ok(())
            }
        }
    }

    /// The manifest that was to be read next is not to be had.
    pub fn missing(&mut self) {
        if let Some(step) = self.steps.pop_front() {
            self.contents.unread.push(self.contents.parts[step.part].content);
        }
    }

    /// What was found.
    pub fn finish(self) -> Contents {
        self.contents
    }

    fn take_index(&mut self, step: &Step, entries: &[Entry]) -> Result<(), ContentsError> {
        let (chosen, unmatched) = self.choice.choose(entries);
        // Of an index within an index, its own platforms are chosen already.
        if step.depth == 0 {
            self.contents.offered = entries.iter().filter_map(|entry| entry.platform.clone()).collect();
            self.contents.unmatched = unmatched;
        }
        for entry in chosen {
            let known = self.contents.parts.len();
            let role = match (&self.choice, role_of(&entry.media_type)) {
                // What is for a platform is an image, whatever its type is said to be.
                (PlatformChoice::These(_), Role::Other) => Role::Manifest,
                (_, role) => role,
            };
            let part = self.take(step.part, entry, role)?;
            if part < known || role == Role::Other {
                continue;
            }
            self.manifests += 1;
            if self.manifests > MANIFESTS_MAX {
                return Err(ContentsError::TooManyManifests);
            }
            if step.depth + 1 > DEPTH_MAX {
                return Err(ContentsError::TooDeep);
            }
            self.steps.push_back(Step { part, depth: step.depth + 1 });
        }
        Ok(())
    }

    /// Notes that one part names another.
    fn take(&mut self, parent: usize, entry: &Entry, role: Role) -> Result<usize, ContentsError> {
        let part = match self.by_content.get(&entry.content) {
            Some(&part) => part,
            None if self.contents.parts.len() >= PARTS_MAX => return Err(ContentsError::TooManyParts),
            None => {
                self.contents.parts.push(Part {
                    content: entry.content,
                    size: Some(entry.size),
                    media_type: Some(entry.media_type.clone()),
                    role,
                    platforms: Vec::new(),
                });
                self.named.push(Vec::new());
                self.by_content.insert(entry.content, self.contents.parts.len() - 1);
                self.contents.parts.len() - 1
            }
        };
        if !self.named[parent].contains(&part) {
            self.named[parent].push(part);
        }
        let platforms = match &entry.platform {
            Some(platform) => vec![platform.clone()],
            None => self.contents.parts[parent].platforms.clone(),
        };
        for platform in platforms {
            self.needed_by(part, &platform);
        }
        Ok(part)
    }

    /// A platform needs a part, and thereby what it names. No part names itself, since names are digests.
    fn needed_by(&mut self, part: usize, platform: &Platform) {
        let platforms = &mut self.contents.parts[part].platforms;
        if platforms.contains(platform) {
            return;
        }
        platforms.push(platform.clone());
        for child in self.named[part].clone() {
            self.needed_by(child, platform);
        }
    }
}

/// What an entry of an index is, by its media type.
fn role_of(media_type: &str) -> Role {
    match media_type {
        OCI_INDEX | DOCKER_LIST => Role::Index,
        OCI_MANIFEST | DOCKER_MANIFEST | DOCKER_V1 | DOCKER_V1_SIGNED => Role::Manifest,
        _ => Role::Other,
    }
}

/// Walks an image's manifests, as far as `manifest` can read them: whole, verified, and of at most
/// [`MANIFEST_BYTES_MAX`] bytes.
///
/// # Errors
/// If a manifest is none, or the image is larger than any can be.
pub async fn read<F: Future<Output = Option<Bytes>>>(
    root: ContentId,
    choice: PlatformChoice,
    mut manifest: impl FnMut(ContentId) -> F,
) -> Result<Contents, ContentsError> {
    let mut walk = Walk::new(root, choice);
    while let Some(next) = walk.next() {
        match manifest(next).await {
            Some(bytes) => walk.read(&bytes)?,
            None => walk.missing(),
        }
    }
    Ok(walk.finish())
}

#[cfg(test)]
mod tests;
