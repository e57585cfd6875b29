//! Making the patches from one image to another and putting them beside it in its registry.
//!
//! Runs on an admin's machine, not in a node: it takes time, memory and the whole of both images' differing layers. Invariant:
//! nothing is pushed that was not applied once and made the very layer; a patch that saves too little is not pushed; what
//! refers to the image already stays.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId, ContentIdError, patch::Sizes};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    secrets::RegistryAuth,
};
use reqwest::header::HeaderValue;
use thiserror::Error;
use tokio_util::io::InspectWriter;

use super::{
    artifact::{self, ArtifactError, Entry, LAYER_BYTES_MIN},
    make::{MakeError, Options, Phase, make},
};
use crate::{
    contents::{self, Document, DocumentError, Platform},
    origin::Credentials,
    store::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST},
};

/// Of a layer's bytes, in percent, that its patch may have at most. 80: below that it is worth the work at each site.
const PATCH_PERCENT_MAX: u64 = 80;
/// Media types of what images are.
const ACCEPTED: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];

/// What is to be published.
#[derive(Debug, Clone)]
pub struct Publishing {
    /// The image that devices hold.
    pub old: Reference,
    /// The image that they are to get; patches are put into its repository.
    pub new: Reference,
    /// Credentials of the new image's registry, which has to let them write; and of the old one's.
    pub credentials: (Option<Credentials>, Option<Credentials>),
    /// Registries are spoken to without TLS.
    pub plain_http: bool,
    /// Where layers and patches lie meanwhile.
    pub work_dir: PathBuf,
    /// What it may take to apply the patches.
    pub sizes: Sizes,
    /// Nothing is pushed.
    pub dry_run: bool,
}

/// What happens, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A layer is fetched.
    Fetching {
        /// The layer.
        layer: ContentId,
        /// Its bytes.
        size: u64,
        /// The registry.
        from: String,
    },
    /// A patch is made to a layer.
    Making {
        /// The layer.
        layer: ContentId,
        /// Its bytes.
        size: u64,
    },
    /// The patches of a platform are pushed.
    Pushing {
        /// Their bytes.
        size: u64,
        /// The registry.
        to: String,
    },
    /// So many more bytes of what is fetched or pushed passed.
    Passed(u64),
    /// The patch that is made is so far: a phase, and how much of it is done, of 1000.
    Made(Phase, u64),
}

/// The beginning of a digest, for people.
pub(crate) fn short(content: &ContentId) -> String {
    content.to_string().chars().take(19).collect()
}

/// A layer of the new image that the old one has not, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The platform, if the image has several.
    pub platform: Option<String>,
    /// The layer.
    pub layer: ContentId,
    /// Its bytes.
    pub size: u64,
    /// Its patch.
    pub patch: Result<Entry, String>,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// Layers that differ.
    pub layers: Vec<Outcome>,
    /// Artifacts that were pushed, each with the manifest that it is for; none in a dry run.
    pub artifacts: Vec<(ContentId, ContentId)>,
}

/// Why nothing was published.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A registry refused, or was not there.
    #[error("{image}: {error}")]
    Registry {
        /// What was asked of it.
        image: String,
        /// What it said.
        error: OciDistributionError,
    },
    /// An image makes no sense.
    #[error("{image} is no image: {error}")]
    Image {
        /// Which.
        image: String,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// The two have no platform in common.
    #[error("{old} and {new} have no platform in common")]
    NoPlatform {
        /// The old image.
        old: String,
        /// The new one.
        new: String,
    },
    /// A digest that cannot be computed.
    #[error(transparent)]
    Digest(#[from] ContentIdError),
    /// The artifact could not be made.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
    /// The patch could not be made, for want of memory, room or the like.
    #[error("the patch to {layer} could not be made: {error}")]
    Make {
        /// The layer.
        layer: ContentId,
        /// What happened.
        error: Box<MakeError>,
    },
    /// The work broke off.
    #[error("the work broke off")]
    BrokeOff,
}

/// An image for one platform.
struct Variant {
    platform: Option<Platform>,
    manifest: ContentId,
    media_type: String,
    size: u64,
    layers: Vec<(ContentId, u64)>,
}

/// The registries.
struct Registries {
    client: Client,
    publishing: Publishing,
    say: Say,
}

/// Who is told what happens.
type Say = Arc<dyn Fn(Step) + Send + Sync>;

/// Makes patches and pushes them. `say` is told what happens.
///
/// # Errors
/// If a registry does not answer or refuses, an image is none, or the work fails; nothing was pushed then but blobs that nothing
/// refers to.
pub async fn publish(
    publishing: Publishing,
    say: impl Fn(Step) + Send + Sync + 'static,
) -> Result<Published, PublishError> {
    let protocol = if publishing.plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
    let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
    let registries = Registries { client, publishing, say: Arc::new(say) };
    let (old, new) = (&registries.publishing.old, &registries.publishing.new);
    let (old_variants, new_variants) = (registries.variants(old).await?, registries.variants(new).await?);
    let mut published = Published::default();
    let mut matched = false;
    for variant in &new_variants {
        let fits = |other: &&Variant| other.platform == variant.platform;
        let single = (old_variants.len() == 1 && new_variants.len() == 1).then(|| old_variants.first()).flatten();
        let Some(base) = old_variants.iter().find(fits).or(single) else { continue };
        matched = true;
        let (outcomes, entries) = registries.patches(base, variant).await?;
        published.layers.extend(outcomes);
        if !entries.is_empty() && !registries.publishing.dry_run {
            published.artifacts.push((registries.push(variant, &entries).await?, variant.manifest));
        }
    }
    if matched {
        return Ok(published);
    }
    Err(PublishError::NoPlatform { old: old.whole(), new: new.whole() })
}

/// Layers of the new image that the old one has not, each with the old layer that it most likely comes from: the one that it
/// stands in the place of, else the largest that is gone.
fn pairs(old: &[(ContentId, u64)], new: &[(ContentId, u64)]) -> Vec<((ContentId, u64), (ContentId, u64))> {
    let has = |layers: &[(ContentId, u64)], layer: &ContentId| layers.iter().any(|(other, _)| other == layer);
    let gone: Vec<_> = old.iter().enumerate().filter(|(_, (layer, _))| !has(new, layer)).collect();
    let come = new.iter().enumerate().filter(|(_, (layer, size))| *size >= LAYER_BYTES_MIN && !has(old, layer));
    let largest = gone.iter().max_by_key(|(_, (_, size))| *size).map(|(_, layer)| **layer);
    come.filter_map(|(at, layer)| {
        let same_place = gone.iter().find(|(place, _)| *place == at).map(|(_, layer)| **layer);
        Some((*layer, same_place.or(largest)?))
    })
    .collect()
}

impl Registries {
    fn error(image: &Reference) -> impl FnOnce(OciDistributionError) -> PublishError {
        let image = image.whole();
        move |error| PublishError::Registry { image, error }
    }

    fn auth(&self, image: &Reference) -> RegistryAuth {
        let (new, old) = &self.publishing.credentials;
        let credentials = if image.registry() == self.publishing.new.registry() { new } else { old };
        credentials.as_ref().map_or(RegistryAuth::Anonymous, |credentials| {
            RegistryAuth::Basic(credentials.username.clone(), credentials.password.clone())
        })
    }

    async fn manifest(&self, image: &Reference) -> Result<(Bytes, String), PublishError> {
        let pulled = self.client.pull_manifest_raw(image, &self.auth(image), &ACCEPTED).await;
        pulled.map_err(Self::error(image))
    }

    async fn variants(&self, image: &Reference) -> Result<Vec<Variant>, PublishError> {
        let (bytes, digest) = self.manifest(image).await?;
        let no_image = |error| PublishError::Image { image: image.whole(), error };
        match Document::parse(&bytes).map_err(no_image)? {
            Document::Manifest(parts) => Ok(vec![variant(None, digest.parse()?, &bytes, parts)]),
            Document::Index(entries) => {
                let mut variants = Vec::new();
                // Attestations are for no platform.
                for entry in entries.into_iter().filter(|entry| entry.platform.as_ref().is_some_and(is_known)) {
                    let (bytes, _) = self.manifest(&image.clone_with_digest(entry.content.to_string())).await?;
                    if let Document::Manifest(parts) = Document::parse(&bytes).map_err(no_image)? {
                        variants.push(variant(entry.platform, entry.content, &bytes, parts));
                    }
                }
                Ok(variants)
            }
        }
    }

    /// Makes the patches from one variant to another.
    async fn patches(
        &self,
        old: &Variant,
        new: &Variant,
    ) -> Result<(Vec<Outcome>, Vec<(Entry, PathBuf)>), PublishError> {
        let (mut outcomes, mut entries) = (Vec::new(), Vec::new());
        for ((layer, size), (base, base_size)) in pairs(&old.layers, &new.layers) {
            let outcome =
                |patch| Outcome { platform: new.platform.as_ref().map(ToString::to_string), layer, size, patch };
            let base_file = self.fetch(&self.publishing.old, &base, base_size).await?;
            let file = self.fetch(&self.publishing.new, &layer, size).await?;
            (self.say)(Step::Making { layer, size });
            let patch = self.publishing.work_dir.join(format!("patch-{}", layer.to_string().replace(':', "-")));
            let made =
                make_one((base_file, file, patch.clone()), (layer, self.publishing.sizes), self.say.clone()).await?;
            let outcome = match made {
                Err(reason) => outcome(Err(reason)),
                Ok(entry) if entry.patch_size * 100 > size * PATCH_PERCENT_MAX => {
                    outcome(Err(format!("the patch has {} % of its bytes", entry.patch_size * 100 / size.max(1))))
                }
                Ok(mut entry) => {
                    entry.base_blobs = vec![base];
                    entries.push((entry.clone(), patch));
                    outcome(Ok(entry))
                }
            };
            outcomes.push(outcome);
        }
        Ok((outcomes, entries))
    }

    /// A layer as a file.
    async fn fetch(&self, image: &Reference, layer: &ContentId, size: u64) -> Result<PathBuf, PublishError> {
        let path = self.publishing.work_dir.join(layer.to_string().replace(':', "-"));
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == size) {
            return Ok(path);
        }
        let no_file = |error| PublishError::File { path: path.clone(), error };
        let file = tokio::fs::File::create(&path).await.map_err(no_file)?;
        (self.say)(Step::Fetching { layer: *layer, size, from: image.registry().to_owned() });
        let mut file = InspectWriter::new(file, |bytes| (self.say)(Step::Passed(bytes.len() as u64)));
        // Checks the digest.
        self.client.pull_blob(image, layer.to_string().as_str(), &mut file).await.map_err(Self::error(image))?;
        tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(no_file)?;
        Ok(path)
    }

    /// Pushes patches, the artifact with them, and the index that names it. Returns the artifact.
    async fn push(&self, variant: &Variant, entries: &[(Entry, PathBuf)]) -> Result<ContentId, PublishError> {
        let new = &self.publishing.new;
        let failed = || Self::error(new);
        let size = entries.iter().map(|(entry, _)| entry.patch_size).sum();
        (self.say)(Step::Pushing { size, to: new.registry().to_owned() });
        self.client.auth(new, &self.auth(new), oci_client::RegistryOperation::Push).await.map_err(failed())?;
        for (entry, path) in entries {
            let bytes =
                tokio::fs::read(path).await.map_err(|error| PublishError::File { path: path.clone(), error })?;
            self.client.push_blob(new, bytes, &entry.patch.to_string()).await.map_err(failed())?;
            (self.say)(Step::Passed(entry.patch_size));
        }
        let id = ContentId::of(Algorithm::Sha256, artifact::EMPTY);
        self.client.push_blob(new, Bytes::from_static(artifact::EMPTY), &id.to_string()).await.map_err(failed())?;
        let all: Vec<Entry> = entries.iter().map(|(entry, _)| entry.clone()).collect();
        let subject = (variant.media_type.as_str(), &variant.manifest, variant.size);
        let manifest = artifact::manifest(&self.publishing.old.whole(), subject, &all)?;
        let artifact = ContentId::of(Algorithm::Sha256, &manifest);
        let size = manifest.len() as u64;
        let at = new.clone_with_digest(artifact.to_string());
        let manifest_type = HeaderValue::from_static(OCI_MANIFEST);
        self.client.push_manifest_raw(&at, manifest, manifest_type).await.map_err(failed())?;
        self.push_index(variant, &artifact, size).await?;
        Ok(artifact)
    }

    async fn push_index(&self, variant: &Variant, artifact: &ContentId, size: u64) -> Result<(), PublishError> {
        let new = &self.publishing.new;
        let tag = variant.manifest.to_string().replace(':', "-");
        let at = Reference::with_tag(new.registry().to_owned(), new.repository().to_owned(), tag);
        let known = match self.client.pull_manifest_raw(&at, &self.auth(&at), &[OCI_INDEX]).await {
            Ok((bytes, _)) => Some(bytes),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(Self::error(&at)(error)),
        };
        let index = artifact::indexed(known.as_deref(), artifact, size)?;
        self.client
            .push_manifest_raw(&at, index, HeaderValue::from_static(OCI_INDEX))
            .await
            .map_err(Self::error(&at))?;
        Ok(())
    }
}

fn variant(platform: Option<Platform>, manifest: ContentId, bytes: &Bytes, parts: Vec<contents::Entry>) -> Variant {
    let media_type = crate::store::media_type::media_type_of(bytes).unwrap_or(OCI_MANIFEST).to_owned();
    // The first is the configuration.
    let layers = parts.into_iter().skip(1).map(|part| (part.content, part.size)).collect();
    Variant { platform, manifest, media_type, size: bytes.len() as u64, layers }
}

/// Whether something is for a platform: attestations are for an unknown one.
fn is_known(platform: &Platform) -> bool {
    platform.os != "unknown"
}

/// Whether a registry has nothing there.
fn is_absent(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::ServerError { code, .. } => *code == 404,
        OciDistributionError::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| {
            matches!(
                error.code,
                oci_client::errors::OciErrorCode::ManifestUnknown
                    | oci_client::errors::OciErrorCode::NameUnknown
                    | oci_client::errors::OciErrorCode::NotFound
            )
        }),
        _ => false,
    }
}

/// Makes a patch, which is applied once to see that it makes the layer. `Err` inside is why there is none for this layer.
async fn make_one(
    (base, file, patch): (PathBuf, PathBuf, PathBuf),
    (layer, sizes): (ContentId, Sizes),
    say: Say,
) -> Result<Result<Entry, String>, PublishError> {
    let made = move |phase, done| say(Step::Made(phase, done));
    tokio::task::spawn_blocking(move || make_and_write(&base, &file, &patch, (layer, sizes), made))
        .await
        .map_err(|_| PublishError::BrokeOff)?
}

fn make_and_write(
    base: &Path,
    file: &Path,
    patch: &Path,
    (layer, sizes): (ContentId, Sizes),
    progress: impl FnMut(Phase, u64),
) -> Result<Result<Entry, String>, PublishError> {
    let open = |path: &Path| File::open(path).map_err(|error| PublishError::File { path: path.to_owned(), error });
    let made = match make(open(base)?, open(file)?, &Options { sizes }, progress) {
        Ok(made) => made,
        Err(error @ (MakeError::Zstd | MakeError::NoRecipe(_) | MakeError::Long { .. })) => {
            return Ok(Err(error.to_string()));
        }
        Err(error) => return Err(PublishError::Make { layer, error: Box::new(error) }),
    };
    std::fs::write(patch, &made.patch).map_err(|error| PublishError::File { path: patch.to_owned(), error })?;
    let header = made.header;
    Ok(Ok(Entry {
        patch: ContentId::of(Algorithm::Sha256, &made.patch),
        patch_size: made.patch.len() as u64,
        base: header.base,
        base_blobs: Vec::new(),
        base_len: header.base_len,
        target: layer,
        target_size: header.blob_len,
        target_len: header.tar_len,
        encoder: header.recipe.encoder.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(names: &[(&str, u64)]) -> Vec<(ContentId, u64)> {
        names.iter().map(|(name, size)| (ContentId::of(Algorithm::Sha256, name.as_bytes()), *size)).collect()
    }

    #[test]
    fn each_new_layer_is_paired_with_what_stood_in_its_place_or_with_the_largest_that_is_gone() {
        const BIG: u64 = 1 << 20;
        let old = layers(&[("base", BIG), ("app 1", BIG), ("rest", BIG * 2), ("config", 100)]);
        let new = layers(&[("base", BIG), ("app 2", BIG), ("config", 100), ("more", BIG), ("tiny", 5)]);
        let pairs = pairs(&old, &new);
        let expected = vec![(new[1], old[1]), (new[3], old[2])];
        assert_eq!(pairs, expected);
        assert!(super::pairs(&old, &old).is_empty());
    }
}
