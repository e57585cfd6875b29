//! Where patches are: an OCI artifact beside the image that they lead to.
//!
//! It is an image manifest (image-spec 1.1, "Guidelines for Artifact Usage") whose `subject` is the image's manifest and
//! whose layers are patches, each with annotations that say from what to what it leads. A registry that knows referrers lists
//! it there; besides, it is in the index under the tag `sha256-<hex>` of the subject (distribution spec 1.1, "Unavailable
//! Referrers API"), where nodes look, since every registry has tags and a site asks for one once.
//!
//! Invariant: what is read is bounded, and believed no further than to fetch a patch: the patch says itself what it is of, and
//! whatever comes out must have the layer's digest.

use std::collections::{BTreeMap, HashMap};

use layermesh_proto::{Algorithm, ContentId, ContentIdError, NameError, Repository, TagRef};
use oci_spec::image::{
    Descriptor, DescriptorBuilder, Digest, ImageIndex, ImageIndexBuilder, ImageManifest, ImageManifestBuilder,
    MediaType, SCHEMA_VERSION,
};
use thiserror::Error;

use crate::store::media_type::OCI_MANIFEST;

/// The artifact's type.
pub const ARTIFACT_TYPE: &str = "application/vnd.layermesh.patches.v1+json";
/// Media type of a patch.
pub const PATCH_TYPE: &str = "application/vnd.layermesh.patch.v1";
/// Layers below this size, in bytes, get no patch and are fetched: a patch and the question for it would be as much. 64 KiB.
pub const LAYER_BYTES_MIN: u64 = 64 << 10;
/// Patches of one artifact. 1024: an image of 127 layers with patches from eight versions.
pub const PATCHES_MAX: usize = 1024;
/// Artifacts of one image that are looked at, the last ones. 4: each publishing replaces what it has patches from.
pub const ARTIFACTS_MAX: usize = 4;
/// Old blobs named by one patch. 8: a tar that several tools have compressed.
const BLOBS_MAX: usize = 8;

/// The old layer's tar, its diffID.
const BASE: &str = "org.layermesh.patch.base";
/// Old layers, as blobs, that have this tar; separated by commas.
const BASE_BLOBS: &str = "org.layermesh.patch.base.blobs";
/// Bytes of the old layer's tar.
const BASE_LEN: &str = "org.layermesh.patch.base.length";
/// The new layer, as the registry has it.
const TARGET: &str = "org.layermesh.patch.target";
/// Bytes of the new layer's tar.
const TARGET_LEN: &str = "org.layermesh.patch.target.length";
/// Bytes of the new layer.
const TARGET_SIZE: &str = "org.layermesh.patch.target.size";
/// How the new layer is compressed.
const ENCODER: &str = "org.layermesh.patch.encoder";
/// The image that the patches lead from, for people.
const FROM: &str = "org.layermesh.patches.from";

/// A patch, and what it leads from and to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The patch.
    pub patch: ContentId,
    /// Its bytes.
    pub patch_size: u64,
    /// The old layer's tar: its diffID.
    pub base: ContentId,
    /// Blobs that are known to have this tar.
    pub base_blobs: Vec<ContentId>,
    /// Bytes of the old tar.
    pub base_len: u64,
    /// The new layer, as the registry has it.
    pub target: ContentId,
    /// Its bytes.
    pub target_size: u64,
    /// Bytes of the new layer's tar.
    pub target_len: u64,
    /// How the new layer is compressed.
    pub encoder: String,
}

/// Why an artifact is of no use.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// Not what its media type says.
    #[error("it is no {0}: {1}")]
    Shape(&'static str, String),
    /// Too many of something.
    #[error("it has more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
    /// An annotation of a patch is missing, or says nothing that makes sense.
    #[error("a patch of it lacks the annotation `{0}`, or it makes no sense")]
    Annotation(&'static str),
    /// A digest that cannot be computed.
    #[error(transparent)]
    Digest(#[from] ContentIdError),
    /// A name that no tag can have.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Entry {
    fn descriptor(&self) -> Result<Descriptor, ArtifactError> {
        let blobs: Vec<_> = self.base_blobs.iter().take(BLOBS_MAX).map(ToString::to_string).collect();
        let annotations = HashMap::from([
            (BASE.to_owned(), self.base.to_string()),
            (BASE_BLOBS.to_owned(), blobs.join(",")),
            (BASE_LEN.to_owned(), self.base_len.to_string()),
            (TARGET.to_owned(), self.target.to_string()),
            (TARGET_LEN.to_owned(), self.target_len.to_string()),
            (TARGET_SIZE.to_owned(), self.target_size.to_string()),
            (ENCODER.to_owned(), self.encoder.clone()),
        ]);
        let mut descriptor = described(PATCH_TYPE, &self.patch, self.patch_size)?;
        descriptor.set_annotations(Some(annotations));
        Ok(descriptor)
    }

    fn of(descriptor: &Descriptor) -> Result<Self, ArtifactError> {
        let text = |key| {
            let annotations = descriptor.annotations().as_ref();
            annotations.and_then(|all| all.get(key)).ok_or(ArtifactError::Annotation(key))
        };
        let id = |key| text(key)?.parse::<ContentId>().map_err(|_| ArtifactError::Annotation(key));
        let number = |key| text(key)?.parse::<u64>().map_err(|_| ArtifactError::Annotation(key));
        let blobs = text(BASE_BLOBS)?.split(',').filter(|blob| !blob.is_empty()).take(BLOBS_MAX);
        Ok(Self {
            patch: descriptor.digest().to_string().parse()?,
            patch_size: descriptor.size(),
            base: id(BASE)?,
            base_blobs: blobs
                .map(|blob| blob.parse().map_err(|_| ArtifactError::Annotation(BASE_BLOBS)))
                .collect::<Result<_, _>>()?,
            base_len: number(BASE_LEN)?,
            target: id(TARGET)?,
            target_size: number(TARGET_SIZE)?,
            target_len: number(TARGET_LEN)?,
            encoder: text(ENCODER)?.clone(),
        })
    }
}

fn described(media_type: &str, content: &ContentId, size: u64) -> Result<Descriptor, ArtifactError> {
    let shape = |error: String| ArtifactError::Shape("descriptor", error);
    let digest: Digest =
        content.to_string().parse().map_err(|error: oci_spec::OciSpecError| shape(error.to_string()))?;
    let builder = DescriptorBuilder::default().media_type(MediaType::from(media_type)).digest(digest).size(size);
    builder.build().map_err(|error| shape(error.to_string()))
}

/// What stands in place of a configuration (image-spec 1.1, "Guidance for an Empty Descriptor").
pub const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

fn empty() -> Result<Descriptor, ArtifactError> {
    described(EMPTY_TYPE, &ContentId::of(Algorithm::Sha256, EMPTY), EMPTY.len() as u64)
}

/// The artifact's manifest, with the patches from an image (by its name, for people) to another (its manifest's media type,
/// digest and size).
///
/// # Errors
/// If it would have too many patches.
pub fn manifest(
    from: &str,
    (media_type, subject, size): (&str, &ContentId, u64),
    entries: &[Entry],
) -> Result<Vec<u8>, ArtifactError> {
    if entries.len() > PATCHES_MAX {
        return Err(ArtifactError::TooMany { what: "patches", max: PATCHES_MAX });
    }
    let shape = |error: String| ArtifactError::Shape("manifest", error);
    let layers = entries.iter().map(Entry::descriptor).collect::<Result<Vec<_>, _>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .artifact_type(MediaType::from(ARTIFACT_TYPE))
        .config(empty()?)
        .layers(layers)
        .subject(described(media_type, subject, size)?)
        .annotations(HashMap::from([(FROM.to_owned(), from.to_owned())]))
        .build()
        .map_err(|error| shape(error.to_string()))?;
    // Sorted, so that the same patches have the same digest.
    let sorted = serde_json::to_value(&manifest).map_err(|error| shape(error.to_string()))?;
    serde_json::to_vec(&sorted).map_err(|error| shape(error.to_string()))
}

/// The patches of an artifact. One whose annotations make no sense is an error: it is not what its type says.
///
/// # Errors
/// If the bytes are no such artifact, or it has too many patches.
pub fn entries(manifest: &[u8]) -> Result<Vec<Entry>, ArtifactError> {
    let shape = |error: String| ArtifactError::Shape("manifest", error);
    let manifest: ImageManifest = serde_json::from_slice(manifest).map_err(|error| shape(error.to_string()))?;
    if manifest.artifact_type().as_ref().map(ToString::to_string).as_deref() != Some(ARTIFACT_TYPE) {
        return Err(shape(format!("its artifact type is not `{ARTIFACT_TYPE}`")));
    }
    if manifest.layers().len() > PATCHES_MAX {
        return Err(ArtifactError::TooMany { what: "patches", max: PATCHES_MAX });
    }
    manifest.layers().iter().filter(|layer| layer.media_type().to_string() == PATCH_TYPE).map(Entry::of).collect()
}

/// The tag under which what refers to a manifest is found.
///
/// # Errors
/// If the repository cannot have it.
pub fn tag_of(repository: &Repository, subject: &ContentId) -> Result<TagRef, ArtifactError> {
    let algorithm = match subject.algorithm() {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    };
    Ok(TagRef::new(repository.clone(), &format!("{algorithm}-{}", hex::encode(subject.digest())))?)
}

/// The artifacts with patches in an index of what refers to a manifest, the last first.
///
/// # Errors
/// If the bytes are no index.
pub fn artifacts(index: &[u8]) -> Result<Vec<ContentId>, ArtifactError> {
    let index: ImageIndex =
        serde_json::from_slice(index).map_err(|error| ArtifactError::Shape("index", error.to_string()))?;
    let ours = index.manifests().iter().rev().filter(|descriptor| is_ours(descriptor)).take(ARTIFACTS_MAX);
    ours.map(|descriptor| Ok(descriptor.digest().to_string().parse()?)).collect()
}

fn is_ours(descriptor: &Descriptor) -> bool {
    descriptor.artifact_type().as_ref().map(ToString::to_string).as_deref() == Some(ARTIFACT_TYPE)
}

/// The index of what refers to a manifest, with another artifact in it: at its end, and in place of those with patches beyond
/// [`ARTIFACTS_MAX`] and of itself. What others put there stays.
///
/// # Errors
/// If the bytes are no index.
pub fn indexed(index: Option<&[u8]>, artifact: &ContentId, size: u64) -> Result<Vec<u8>, ArtifactError> {
    let shape = |error: String| ArtifactError::Shape("index", error);
    let mut known: Vec<Descriptor> = match index {
        Some(bytes) => {
            let index: ImageIndex = serde_json::from_slice(bytes).map_err(|error| shape(error.to_string()))?;
            index.manifests().clone()
        }
        None => Vec::new(),
    };
    known.retain(|descriptor| descriptor.digest().to_string() != artifact.to_string());
    let beyond = (known.iter().filter(|descriptor| is_ours(descriptor)).count() + 1).saturating_sub(ARTIFACTS_MAX);
    let mut left = beyond;
    known.retain(|descriptor| {
        let goes = is_ours(descriptor) && left > 0;
        left -= usize::from(goes);
        !goes
    });
    let mut descriptor = described(OCI_MANIFEST, artifact, size)?;
    descriptor.set_artifact_type(Some(MediaType::from(ARTIFACT_TYPE)));
    known.push(descriptor);
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(known)
        .build()
        .map_err(|error| shape(error.to_string()))?;
    serde_json::to_vec(&index).map_err(|error| shape(error.to_string()))
}

/// Of several patches to one layer the one with the fewest bytes, among those whose old layer `held` finds: which blob that is.
pub fn best(entries: &[Entry], held: impl Fn(&Entry) -> Option<ContentId>) -> BTreeMap<ContentId, (Entry, ContentId)> {
    let mut best: BTreeMap<ContentId, (Entry, ContentId)> = BTreeMap::new();
    for entry in entries {
        let Some(base) = held(entry) else { continue };
        let fewer = best.get(&entry.target).is_none_or(|(other, _)| entry.patch_size < other.patch_size);
        if fewer {
            best.insert(entry.target, (entry.clone(), base));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ContentId {
        ContentId::of(Algorithm::Sha256, text.as_bytes())
    }

    fn entry(base: &str, target: &str, patch_size: u64) -> Entry {
        Entry {
            patch: id(&format!("{base} {target}")),
            patch_size,
            base: id(&format!("tar {base}")),
            base_blobs: vec![id(base), id(&format!("{base} otherwise"))],
            base_len: 100,
            target: id(target),
            target_size: 40,
            target_len: 110,
            encoder: "go-gzip/1:6".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_same_patches_have_the_same_bytes() {
        let all = [entry("a", "b", 3), entry("c", "b", 2)];
        let subject = (MediaType::ImageManifest.to_string(), id("image"), 500);
        let write = || manifest("shop:1", (&subject.0, &subject.1, subject.2), &all).unwrap();
        assert_eq!(entries(&write()).unwrap(), all);
        assert_eq!(write(), write());
        let text = String::from_utf8(write()).unwrap();
        assert!(text.contains(r#""subject":{"#) && text.contains("application/vnd.oci.empty.v1+json"), "{text}");
    }

    #[test]
    fn anything_else_is_refused() {
        let image = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .config(empty().unwrap())
            .layers(Vec::new())
            .build()
            .unwrap();
        let image = serde_json::to_vec(&image).unwrap();
        assert!(matches!(entries(&image), Err(ArtifactError::Shape(..))));
        assert!(matches!(entries(b"{}"), Err(ArtifactError::Shape(..))));
        let subject = ("application/vnd.oci.image.manifest.v1+json", &id("image"), 500);
        let good = String::from_utf8(manifest("shop:1", subject, &[entry("a", "b", 3)]).unwrap()).unwrap();
        let lacking = good.replace(TARGET_LEN, "another");
        assert!(matches!(entries(lacking.as_bytes()), Err(ArtifactError::Annotation(TARGET_LEN))));
        let senseless = good.replace(r#""110""#, r#""many""#);
        assert!(matches!(entries(senseless.as_bytes()), Err(ArtifactError::Annotation(TARGET_LEN))));
        let many = vec![entry("a", "b", 3); PATCHES_MAX + 1];
        assert!(matches!(manifest("shop:1", subject, &many), Err(ArtifactError::TooMany { .. })));
    }

    #[test]
    fn an_index_keeps_what_others_put_there_and_the_last_artifacts() {
        let signature = described("application/vnd.oci.image.manifest.v1+json", &id("signature"), 7).unwrap();
        let index =
            ImageIndexBuilder::default().schema_version(SCHEMA_VERSION).manifests(vec![signature]).build().unwrap();
        let mut bytes = serde_json::to_vec(&index).unwrap();
        for number in 0..6 {
            bytes = indexed(Some(&bytes), &id(&format!("artifact {number}")), 9).unwrap();
        }
        bytes = indexed(Some(&bytes), &id("artifact 4"), 9).unwrap();
        let found = artifacts(&bytes).unwrap();
        assert_eq!(found, [4, 5, 3, 2].map(|number| id(&format!("artifact {number}"))));
        let index: ImageIndex = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(index.manifests().len(), 5);
        assert_eq!(artifacts(&indexed(None, &id("first"), 9).unwrap()).unwrap(), [id("first")]);
        assert!(artifacts(b"[]").is_err());
    }

    #[test]
    fn the_smallest_patch_from_what_is_held_counts() {
        let all = [entry("a", "x", 3), entry("b", "x", 2), entry("c", "x", 1), entry("a", "y", 9)];
        let held =
            |entry: &Entry| [id("a"), id("b otherwise")].into_iter().find(|blob| entry.base_blobs.contains(blob));
        let best = best(&all, held);
        assert_eq!(best.len(), 2);
        assert_eq!(best[&id("x")], (all[1].clone(), id("b otherwise")));
        assert_eq!(best[&id("y")].1, id("a"));
    }

    #[test]
    fn the_tag_is_the_one_of_the_specification() {
        let repository = Repository::new("registry.example", "shop").unwrap();
        let tag = tag_of(&repository, &id("image")).unwrap();
        assert_eq!(tag.tag(), id("image").to_string().replace(':', "-"));
    }
}
