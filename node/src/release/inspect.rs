//! What an image is that is to be released: its digest, its platforms, and whether all of it exists.
//!
//! Manifests are fetched, since they are what is signed and small; layers are only asked for. Invariant: an image counts
//! as whole only if each of its parts is held here, or by a peer, or its registry begins to send it.

use futures::{StreamExt as _, stream};
use layermesh_proto::{ContentId, Repository, engine::Urgency};
use thiserror::Error;

use super::{ReleasedImage, ReleasedPlatform, content::PLATFORMS_MAX};
use crate::{
    admin::{StoreView, types::InspectedImage},
    contents::{Contents, ContentsError, MANIFEST_BYTES_MAX, Part, Platform, PlatformChoice, Role, Walk},
    image::{ImageReference, Version},
    mesh::Mesh,
    origin::Origins,
    pull::{UnknownImage, resolve},
    store::media_type::OCI_MANIFEST,
};

/// Parts that a registry is asked for at once.
const ASKED_AT_ONCE: usize = 4;
/// Missing parts that are named: more say nothing new.
const MISSING_MAX: usize = 16;

/// Why an image cannot be released.
#[derive(Debug, Error)]
pub enum InspectError {
    /// Nobody knows what the tag stands for.
    #[error(transparent)]
    Unknown(#[from] UnknownImage),
    /// A manifest cannot be had.
    #[error("manifest {content} of `{image}` cannot be had: {error}")]
    Manifest {
        /// The image.
        image: String,
        /// The manifest.
        content: ContentId,
        /// Why.
        error: String,
    },
    /// It makes no sense.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// It is for more platforms than a release can say.
    #[error("`{0}` is for more than {PLATFORMS_MAX} platforms")]
    Platforms(String),
}

/// Looks at an image.
///
/// # Errors
/// If it is not known what it is.
pub async fn inspect<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    origins: &Origins,
    image: &ImageReference,
) -> Result<InspectedImage, InspectError> {
    // The registry itself, since what it said a minute ago is not what is to be signed now.
    let asked = match image.version() {
        Version::Tag(reference) => origins.resolve(reference).await.ok(),
        Version::Digest(_) => None,
    };
    let (root, said) = match asked {
        Some(found) => (found.content, "the origin".to_owned()),
        None => resolve(mesh, image).await?,
    };
    let contents = read(mesh, store, image, root).await?;
    let missing = missing(mesh, store, origins, image.repository(), &contents.parts).await;
    let released = released(image, &contents).ok_or_else(|| InspectError::Platforms(image.to_string()))?;
    Ok(InspectedImage { image: released, said_by: said, blobs: contents.parts.len(), bytes: contents.bytes(), missing })
}

async fn read<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    image: &ImageReference,
    root: ContentId,
) -> Result<Contents, InspectError> {
    let mut walk = Walk::new(root, PlatformChoice::All);
    while let Some(content) = walk.next() {
        let failed = |error: String| InspectError::Manifest { image: image.to_string(), content, error };
        if store.size_of(&content).is_none() {
            let repository = Some(image.repository().clone());
            let mut want = mesh.want(content, Role::Manifest.kind(), repository, Urgency::Runtime).await;
            want.ended().await.map_err(|error| failed(error.to_string()))?;
        }
        let bytes = store.read_whole(&content, MANIFEST_BYTES_MAX).await.map_err(failed)?;
        walk.read(&bytes)?;
    }
    Ok(walk.finish())
}

/// The parts that nobody has.
async fn missing<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    origins: &Origins,
    repository: &Repository,
    parts: &[Part],
) -> Vec<String> {
    let away: Vec<&Part> = parts.iter().filter(|part| store.size_of(&part.content).is_none()).collect();
    let holders = mesh.holders(away.iter().map(|part| part.content).collect()).await;
    let unheld = away.into_iter().zip(holders).filter(|(_, holders)| holders.is_empty());
    let unheld: Vec<Part> = unheld.map(|(part, _)| part.clone()).collect();
    let asked = stream::iter(unheld).map(async move |part: Part| {
        // The first byte is asked for, since some registries answer HEAD for what they cannot send.
        let end = part.size.filter(|size| *size > 0).map(|_| 1);
        let opened = origins.open_part(repository, part.role.kind(), &part.content, 0, end).await;
        opened.err().map(|error| format!("{} {}: {error}", part.role, part.content))
    });
    asked.buffer_unordered(ASKED_AT_ONCE).filter_map(async |missing| missing).take(MISSING_MAX).collect().await
}

/// The image as a release names it.
fn released(image: &ImageReference, contents: &Contents) -> Option<ReleasedImage> {
    let root = contents.parts.first()?;
    let real = |platform: &&Platform| platform.os != "unknown";
    let mut platforms: Vec<ReleasedPlatform> = Vec::new();
    for platform in contents.offered.iter().filter(real) {
        let name = Some(platform.to_string());
        let of = || contents.parts.iter().filter(|part| part.platforms.contains(platform));
        let manifest = of().find(|part| part.is_document());
        if let Some(manifest) = manifest.filter(|_| platforms.iter().all(|known| known.platform != name)) {
            let bytes = of().filter_map(|part| part.size).fold(0, u64::saturating_add);
            platforms.push(ReleasedPlatform {
                platform: name,
                digest: manifest.content.to_string(),
                bytes,
                patches: Vec::new(),
            });
        }
    }
    if platforms.is_empty() {
        let digest = root.content.to_string();
        platforms.push(ReleasedPlatform { platform: None, digest, bytes: contents.bytes(), patches: Vec::new() });
    }
    let tag = match image.version() {
        Version::Tag(reference) => Some(reference.tag().to_owned()),
        Version::Digest(_) => None,
    };
    (platforms.len() <= PLATFORMS_MAX).then(|| ReleasedImage {
        name: image.repository().to_string(),
        tag,
        digest: root.content.to_string(),
        media_type: root.media_type.clone().unwrap_or_else(|| OCI_MANIFEST.to_owned()),
        size: root.size.unwrap_or_default(),
        platforms,
    })
}
