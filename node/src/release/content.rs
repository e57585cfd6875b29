//! What a release says: its images, as custom metadata of a TUF target, and as an OCI index.
//!
//! The target's file is an OCI index over the release's images. So a release has a digest, and a tool that knows nothing
//! of releases can follow it down to the last layer. Invariant: the index is made of what the metadata says and of
//! nothing else, so whoever has verified the metadata can make it, byte for byte; that it has the target's hash is
//! checked.

use std::collections::HashMap;

use layermesh_proto::{Algorithm, ContentId, Repository, TagRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tough::{
    TargetName,
    schema::{Hashes, Target},
};

use super::{Channel, Refusal, RefusalKind, ReleaseVersion};
use crate::{contents::Platform, store::media_type::OCI_INDEX};

/// Images of one release: more than any device runs.
pub const IMAGES_MAX: usize = 256;
/// Platforms of one image: official images have about a dozen, each with an attestation.
pub const PLATFORMS_MAX: usize = 64;
/// Artifacts with patches to one platform of an image: what leads from so many older releases. As many as a node looks at
/// (`delta/artifact.rs`).
pub const PATCHES_MAX: usize = crate::delta::artifact::ARTIFACTS_MAX;
/// Releases of one repository. At a kilobyte each, its metadata stays under [`super::set::TARGETS_BYTES_MAX`].
pub const RELEASES_MAX: usize = 1024;
/// Bytes of one image: larger numbers are mistakes, and sums of smaller ones do not overflow.
const IMAGE_BYTES_MAX: u64 = 1 << 50;
/// Form of the custom metadata; another number is another form.
const FORMAT: u32 = 1;
/// Key of our metadata among a target's.
const CUSTOM_KEY: &str = "layermesh";
/// What kind of index a release is.
pub const RELEASE_TYPE: &str = "application/vnd.layermesh.release.v1+json";

/// A release, as it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The channel.
    pub channel: Channel,
    /// The version.
    pub version: ReleaseVersion,
    /// Releases of a repository are numbered as they are published; of one channel the highest is the newest.
    pub number: u64,
    /// When it was published, in seconds since the Unix epoch.
    pub published_unix_s: u64,
    /// Its images.
    pub images: Vec<ReleasedImage>,
}

/// An image of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedImage {
    /// Registry and name, such as `docker.io/library/debian`.
    pub name: String,
    /// The tag that devices know it by; none if it was released by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest or index.
    pub digest: String,
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Size of the manifest or index in bytes.
    pub size: u64,
    /// What it has, each for a platform; one without a name if it is for one platform only and does not say which.
    pub platforms: Vec<ReleasedPlatform>,
}

/// What an image is for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedPlatform {
    /// The platform, such as `linux/arm64/v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Its manifest.
    pub digest: String,
    /// Bytes of all that it needs: manifest, config and layers.
    pub bytes: u64,
    /// Manifests of artifacts with patches to its layers, in the image's repository. They are no part of what has to be
    /// there: whoever knows nothing of patches fetches the layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Custom {
    format: u32,
    #[serde(flatten)]
    release: Release,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'static str,
    manifests: Vec<IndexEntry>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexEntry {
    media_type: String,
    digest: String,
    size: u64,
    annotations: RefName,
}

#[derive(Serialize)]
struct RefName {
    #[serde(rename = "org.opencontainers.image.ref.name")]
    name: String,
}

impl Release {
    /// `CHANNEL/VERSION`, which is also the target's name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.channel, self.version)
    }

    /// The release as an OCI index.
    pub fn index(&self) -> Vec<u8> {
        let manifests = self.images.iter().map(|image| IndexEntry {
            media_type: image.media_type.clone(),
            digest: image.digest.clone(),
            size: image.size,
            annotations: RefName { name: image.to_string() },
        });
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX,
            artifact_type: RELEASE_TYPE,
            manifests: manifests.collect(),
        };
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_vec(&index).unwrap_or_default()
    }

    /// The release as a TUF target.
    ///
    /// # Errors
    /// If its name makes no target, which its parts' types exclude.
    pub fn to_target(&self) -> Result<(TargetName, Target), Box<tough::error::Error>> {
        let index = self.index();
        let digest = ContentId::of(Algorithm::Sha256, &index);
        let custom = Custom { format: FORMAT, release: self.clone() };
        let custom = serde_json::to_value(custom).unwrap_or(Value::Null);
        let target = Target {
            length: index.len() as u64,
            hashes: Hashes { sha256: digest.digest().to_vec().into(), _extra: HashMap::new() },
            custom: HashMap::from([(CUSTOM_KEY.to_owned(), custom)]),
            _extra: HashMap::new(),
        };
        Ok((TargetName::new(self.name()).map_err(Box::new)?, target))
    }

    /// The release that a signed target stands for.
    pub(super) fn of_target(name: &TargetName, target: &Target) -> Result<Self, Refusal> {
        let wrong = |what: &str| Refusal::new(RefusalKind::Malformed, format!("release `{}`: {what}", name.resolved()));
        let custom = target.custom.get(CUSTOM_KEY).ok_or_else(|| wrong("it says nothing about images"))?;
        let custom = Custom::deserialize(custom).map_err(|error| wrong(&error.to_string()))?;
        if custom.format != FORMAT {
            return Err(wrong("it is in a newer form than this version of layermesh knows; update layermesh"));
        }
        let release = custom.release;
        release.check().map_err(|what| wrong(&what))?;
        if release.name() != name.raw() {
            return Err(wrong("its name is not its channel and version"));
        }
        let digest = ContentId::of(Algorithm::Sha256, &release.index());
        if target.hashes.sha256.as_ref() as &[u8] != digest.digest() {
            return Err(wrong("its index has another digest than the one that is signed"));
        }
        Ok(release)
    }

    /// Checks what its types do not.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.images.is_empty() || self.images.len() > IMAGES_MAX {
            return Err(format!("it has {} images; a release has 1 to {IMAGES_MAX}", self.images.len()));
        }
        self.images.iter().try_for_each(ReleasedImage::check)?;
        for (at, image) in self.images.iter().enumerate() {
            let clash = |other: &ReleasedImage| other.tag.is_some() && other.to_string() == image.to_string();
            if self.images[..at].iter().any(clash) {
                return Err(format!("it has {image} twice"));
            }
        }
        Ok(())
    }

    /// Bytes of all its images for all platforms; what several share counts as often.
    pub fn bytes(&self) -> u64 {
        let platforms = self.images.iter().flat_map(|image| &image.platforms);
        platforms.fold(0, |sum, platform| sum.saturating_add(platform.bytes))
    }

    /// The image of this release that one of a later release takes the place of: of the same name and tag, or else the only
    /// one of that name. None if it is the same.
    pub fn predecessor(&self, image: &ReleasedImage) -> Option<&ReleasedImage> {
        let mut named = self.images.iter().filter(|other| other.name == image.name);
        let found = match (named.clone().find(|other| other.tag == image.tag), named.next(), named.next()) {
            (Some(same), ..) => same,
            (None, Some(only), None) => only,
            _ => return None,
        };
        (found.digest != image.digest).then_some(found)
    }

    /// Says that artifacts have patches, each to the platform that has this manifest.
    pub fn add_patches(&mut self, artifacts: &[(ContentId, ContentId)]) {
        for platform in self.images.iter_mut().flat_map(|image| &mut image.platforms) {
            let of_it = artifacts.iter().filter(|(_, manifest)| platform.digest.parse().as_ref() == Ok(manifest));
            for patches in of_it.map(|(artifact, _)| artifact.to_string()) {
                if !platform.patches.contains(&patches) {
                    platform.patches.push(patches);
                }
            }
        }
    }

    /// Artifacts with patches to the layers of this manifest.
    pub fn patches_to(&self, manifest: &ContentId) -> Vec<ContentId> {
        let platforms = self.images.iter().flat_map(|image| &image.platforms);
        let of_it = platforms.filter(|platform| platform.digest.parse().as_ref() == Ok(manifest));
        let mut patches: Vec<ContentId> =
            of_it.flat_map(|platform| &platform.patches).filter_map(|patches| patches.parse().ok()).collect();
        patches.dedup();
        patches.truncate(PATCHES_MAX);
        patches
    }

    /// The platforms that any of its images is for, in order, each once.
    pub fn platforms(&self) -> Vec<&str> {
        let all = self.images.iter().flat_map(|image| &image.platforms);
        let mut platforms: Vec<&str> = all.filter_map(|platform| platform.platform.as_deref()).collect();
        platforms.sort_unstable();
        platforms.dedup();
        platforms
    }
}

impl ReleasedImage {
    fn check(&self) -> Result<(), String> {
        self.reference()?;
        self.content()?;
        if self.platforms.is_empty() || self.platforms.len() > PLATFORMS_MAX {
            return Err(format!(
                "{self} is for {} platforms; an image is for 1 to {PLATFORMS_MAX}",
                self.platforms.len()
            ));
        }
        let plain = |text: &str| text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain(&self.media_type) {
            return Err(format!("{self} has no media type"));
        }
        for platform in &self.platforms {
            if let Some(name) = &platform.platform {
                name.parse::<Platform>().map_err(|error| error.to_string())?;
            }
            platform.digest.parse::<ContentId>().map_err(|error| error.to_string())?;
            if platform.patches.len() > PATCHES_MAX {
                return Err(format!("{self} has more than {PATCHES_MAX} artifacts with patches for one platform"));
            }
            for patches in &platform.patches {
                patches.parse::<ContentId>().map_err(|error| error.to_string())?;
            }
            if platform.bytes > IMAGE_BYTES_MAX {
                return Err(format!("{self} has {} bytes for one platform", platform.bytes));
            }
        }
        Ok(())
    }

    /// The manifest or index.
    ///
    /// # Errors
    /// If it is no digest; images of a verified release are checked.
    pub fn content(&self) -> Result<ContentId, String> {
        self.digest.parse().map_err(|error: layermesh_proto::ContentIdError| error.to_string())
    }

    /// The repository, and the tag if it has one.
    ///
    /// # Errors
    /// As [`Self::content`].
    pub fn reference(&self) -> Result<(Repository, Option<TagRef>), String> {
        let wrong = || format!("`{}` is not a registry and a repository", self.name);
        let (registry, name) = self.name.split_once('/').ok_or_else(wrong)?;
        let repository = Repository::new(registry, name).map_err(|error| error.to_string())?;
        let tag = self.tag.as_ref().map(|tag| TagRef::new(repository.clone(), tag)).transpose();
        Ok((repository, tag.map_err(|error| error.to_string())?))
    }
}

impl std::fmt::Display for ReleasedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.name),
            None => write!(f, "{}@{}", self.name, self.digest),
        }
    }
}
