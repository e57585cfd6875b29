//! A set of metadata: the files of a TUF repository at one moment, and the form in which they travel.
//!
//! A set travels as an OCI artifact: a manifest whose layers are the files, so that files and manifest are blobs, stored,
//! announced, fetched and pinned as those of images are. Between two sets only what changed is fetched. Invariant: a
//! value of [`MetadataSet`] has exactly one timestamp, snapshot and targets file, the roots from the first on, and no
//! file beyond its limit.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId};
use serde::{Deserialize, Serialize};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream, async_trait};
use url::Url;

use super::{Refusal, RefusalKind};
use crate::store::media_type::OCI_MANIFEST;

/// Most roots, and so rotations of keys: one a month for five years.
pub const ROOTS_MAX: usize = 60;
/// Largest root: four roles of a few dozen keys, with signatures of old and new ones.
pub const ROOT_BYTES_MAX: usize = 64 << 10;
/// Largest timestamp or snapshot: each names one file, and has a few signatures.
pub const SMALL_BYTES_MAX: usize = 16 << 10;
/// Largest targets file: what [`super::content::RELEASES_MAX`] releases of a dozen images take.
pub const TARGETS_BYTES_MAX: usize = 4 << 20;
/// Largest manifest of a set: some 300 bytes a file.
pub const MANIFEST_BYTES_MAX: usize = 32 << 10;

/// What kind of artifact a set is.
pub const SET_TYPE: &str = "application/vnd.layermesh.releases.v1+json";
const FILE_TYPE: &str = "application/vnd.tuf.metadata+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
const NAME_KEY: &str = "tuf.io/filename";

/// What a file of a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Root(u64),
    Timestamp,
    Snapshot,
    Targets,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        if name == "timestamp.json" {
            return Some(Self::Timestamp);
        }
        let (version, role) = name.split_once('.')?;
        // One name a number, or two files could have one.
        let number = version.parse::<u64>().ok().filter(|number| *number > 0 && number.to_string() == version)?;
        match role {
            "root.json" => Some(Self::Root(number)),
            "snapshot.json" => Some(Self::Snapshot),
            "targets.json" => Some(Self::Targets),
            _ => None,
        }
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Root(_) => ROOT_BYTES_MAX,
            Self::Timestamp | Self::Snapshot => SMALL_BYTES_MAX,
            Self::Targets => TARGETS_BYTES_MAX,
        }
    }
}

/// The files of a repository at one moment, not verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct MetadataSet {
    files: BTreeMap<String, Bytes>,
}

/// A file that the manifest of a set names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its bytes.
    pub content: ContentId,
    /// Their number, as the manifest says.
    pub size: u64,
}

/// A set as blobs: the manifest, and all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// The manifest's digest: the set's name.
    pub content: ContentId,
    /// The manifest and the files, each once.
    pub blobs: BTreeMap<ContentId, Bytes>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, bytes: &[u8]) -> Self {
        let digest = ContentId::of(Algorithm::Sha256, bytes).to_string();
        Self { media_type: media_type.to_owned(), digest, size: bytes.len() as u64, annotations: BTreeMap::new() }
    }
}

impl MetadataSet {
    /// A set of these files.
    ///
    /// # Errors
    /// If a file is missing, too many or too large, or is none of a set.
    pub fn new(files: BTreeMap<String, Bytes>) -> Result<Self, Refusal> {
        check_files(files.iter().map(|(name, bytes)| (name.as_str(), bytes.len() as u64)))?;
        Ok(Self { files })
    }

    /// A file by its name.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// The only file whose name ends so.
    fn only(&self, suffix: &str) -> &[u8] {
        self.files.iter().find(|(name, _)| name.ends_with(suffix)).map_or(&[], |(_, bytes)| bytes)
    }

    /// The timestamp.
    pub fn timestamp(&self) -> &[u8] {
        self.only("timestamp.json")
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &[u8] {
        self.only(".snapshot.json")
    }

    /// The targets.
    pub fn targets(&self) -> &[u8] {
        self.only(".targets.json")
    }

    /// The roots, from the first on.
    pub fn roots(&self) -> Vec<&Bytes> {
        (1..).map_while(|version| self.files.get(&format!("{version}.root.json"))).collect()
    }

    /// The same set without its newest root.
    pub(super) fn without_newest_root(&self) -> Result<Self, Refusal> {
        let mut files = self.files.clone();
        files.remove(&format!("{}.root.json", self.roots().len()));
        Self::new(files)
    }

    /// The set as blobs.
    pub fn to_artifact(&self) -> Artifact {
        let layers = self.files.iter().map(|(name, bytes)| {
            let annotations = BTreeMap::from([(NAME_KEY.to_owned(), name.clone())]);
            Descriptor { annotations, ..Descriptor::of(FILE_TYPE, bytes) }
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            artifact_type: SET_TYPE.to_owned(),
            config: Descriptor::of(EMPTY_TYPE, EMPTY),
            layers: layers.collect(),
        };
        // Strings and numbers always have a JSON form.
        let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap_or_default());
        let content = ContentId::of(Algorithm::Sha256, &manifest);
        let all = self.files.values().cloned().chain([manifest, Bytes::from_static(EMPTY)]);
        let blobs = all.map(|bytes| (ContentId::of(Algorithm::Sha256, &bytes), bytes)).collect();
        Artifact { content, blobs }
    }

    /// The files that the manifest of a set names, which would make a set if they are as it says.
    ///
    /// # Errors
    /// If it is not such a manifest, or what it names could not be a set.
    pub fn list(manifest: &[u8]) -> Result<Vec<ListedFile>, Refusal> {
        let malformed = |what: String| Refusal::new(RefusalKind::Malformed, format!("not a set of metadata: {what}"));
        if manifest.len() > MANIFEST_BYTES_MAX {
            return Err(too_large("its manifest"));
        }
        let parsed: Manifest = serde_json::from_slice(manifest).map_err(|error| malformed(error.to_string()))?;
        if parsed.artifact_type != SET_TYPE {
            return Err(malformed("another type of artifact".to_owned()));
        }
        if parsed.layers.len() > ROOTS_MAX + 3 {
            return Err(too_large("the number of its files"));
        }
        let mut files = BTreeMap::new();
        for layer in parsed.layers {
            let content = layer.digest.parse().map_err(|error| malformed(format!("{error}")))?;
            let name = layer.annotations.get(NAME_KEY).cloned().unwrap_or_default();
            let file = ListedFile { name: name.clone(), content, size: layer.size };
            if files.insert(name, file).is_some() {
                return Err(malformed("a file is there twice".to_owned()));
            }
        }
        check_files(files.values().map(|file| (file.name.as_str(), file.size)))?;
        Ok(files.into_values().collect())
    }

    pub(super) fn transport(&self) -> SetTransport {
        let files = self.files.iter().map(|(name, bytes)| (name.clone(), bytes.clone()));
        SetTransport(Arc::new(files.collect()))
    }
}

fn too_large(what: &str) -> Refusal {
    Refusal::new(RefusalKind::TooLarge, format!("too large: {what}"))
}

fn check_files<'a>(files: impl Iterator<Item = (&'a str, u64)>) -> Result<(), Refusal> {
    let malformed = |what: String| Refusal::new(RefusalKind::Malformed, format!("not a set of metadata: {what}"));
    let mut kinds = Vec::new();
    for (name, size) in files {
        let shown = || name.escape_debug().take(64).collect::<String>();
        let kind = Kind::of(name).ok_or_else(|| malformed(format!("`{}` is no file of one", shown())))?;
        if size > kind.bytes_max() as u64 {
            return Err(too_large(&shown()));
        }
        kinds.push(kind);
        if kinds.len() > ROOTS_MAX + 3 {
            return Err(too_large("the number of its files"));
        }
    }
    kinds.sort_unstable();
    let roots = kinds.len().saturating_sub(3);
    let expected = (1..=roots as u64).map(Kind::Root).chain([Kind::Timestamp, Kind::Snapshot, Kind::Targets]);
    if roots == 0 || !kinds.iter().copied().eq(expected) {
        return Err(malformed("it needs the roots from 1 on, and one timestamp, snapshot and targets".to_owned()));
    }
    Ok(())
}

impl TryFrom<BTreeMap<String, String>> for MetadataSet {
    type Error = Refusal;

    fn try_from(files: BTreeMap<String, String>) -> Result<Self, Refusal> {
        Self::new(files.into_iter().map(|(name, text)| (name, Bytes::from(text))).collect())
    }
}

impl From<MetadataSet> for BTreeMap<String, String> {
    fn from(set: MetadataSet) -> Self {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        set.files.into_iter().map(|(name, bytes)| (name, text(bytes))).collect()
    }
}

/// Gives `tough` the files of a set, and nothing else.
#[derive(Debug, Clone)]
pub(super) struct SetTransport(Arc<HashMap<String, Bytes>>);

#[async_trait]
impl Transport for SetTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().rsplit('/').next().unwrap_or_default();
        match self.0.get(name) {
            Some(bytes) => Ok(Box::pin(futures::stream::iter([Ok(bytes.clone())]))),
            None => Err(TransportError::new(TransportErrorKind::FileNotFound, url)),
        }
    }
}
