//! Pinning images: what `layermesh pin` and `layermesh unpin` ask for.
//!
//! An image is pinned by `user/IMAGE`, for as much of it as the manifests that are held name; whoever pins it again pins
//! what it stands for then, instead. `user/DIGEST` pins a digest so, an image's or any blob's. Nothing is fetched.

use std::{fmt, str::FromStr};

use layermesh_proto::ContentId;
use thiserror::Error;

use crate::{
    admin::{
        StoreView,
        types::{PinRequest, PinnedImage, PinsOfOwner, UnpinRequest},
    },
    contents::{self, Contents, ContentsError, MANIFEST_BYTES_MAX, NotOffered, PlatformChoice, PlatformError},
    image::{ImageError, ImageReference},
    mesh::Mesh,
    pull::{UnknownImage, resolve},
    store::{PinOwner, pins::OwnerError},
};

/// Images named by one request.
const IMAGES_MAX: usize = 64;

/// Something that can be pinned, as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Image(ImageReference),
    Content(ContentId),
}

impl FromStr for Target {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        match text.parse() {
            Ok(content) => Ok(Self::Content(content)),
            Err(_) => Ok(Self::Image(ImageReference::named(text)?)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => image.fmt(f),
            Self::Content(content) => content.fmt(f),
        }
    }
}

/// Why something is not pinned or unpinned. What was named before it is.
#[derive(Debug, Error)]
pub enum PinningError {
    /// Nothing, or too much, was named.
    #[error("name 1 to {IMAGES_MAX} images")]
    Count,
    /// An image's name.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The platform's name.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An owner's name.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The tag stands for nothing.
    #[error(transparent)]
    Unknown(#[from] UnknownImage),
    /// It makes no sense.
    #[error("`{image}`: {error}")]
    Contents {
        /// The image.
        image: String,
        /// Why.
        error: Box<ContentsError>,
    },
    /// The image is not for this platform.
    #[error("`{image}` {lacking}")]
    NoPlatform {
        /// The image.
        image: String,
        /// What it is not for.
        lacking: NotOffered,
    },
    /// Nobody pinned it.
    #[error("`{0}` is not pinned: `layermesh blobs` shows what is, and by whom")]
    NotPinned(String),
    /// The store refuses.
    #[error("{0}")]
    Store(String),
}

impl PinningError {
    /// Whether the request makes no sense, whatever the node has.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Count | Self::Image(_) | Self::Platform(_) | Self::Owner(_))
    }
}

/// Pins each image of a request.
///
/// # Errors
/// If one of them cannot be; those before it are.
pub async fn pin<S: StoreView>(mesh: &Mesh, store: &S, request: &PinRequest) -> Result<Vec<PinnedImage>, PinningError> {
    let choice: PlatformChoice = request.platform.as_deref().map(str::parse).transpose()?.unwrap_or_default();
    let targets = targets(&request.images)?;
    let mut pinned = Vec::new();
    for target in targets {
        let (root, contents) = contents_of(mesh, store, &target, &choice).await?;
        let owner: PinOwner = format!("user/{target}").parse()?;
        let parts: Vec<_> = match &contents {
            Some(contents) => contents.parts.iter().map(|part| (part.content, part.size)).collect(),
            None => vec![(root, None)],
        };
        store
            .replace_pins(owner.clone(), parts.iter().map(|(content, _)| *content).collect())
            .await
            .map_err(PinningError::Store)?;
        let unread = contents.map(|contents| contents.unread).unwrap_or_default();
        pinned.push(described(store, &target, root, &owner, &parts, &unread));
    }
    Ok(pinned)
}

/// Unpins each image and owner of a request. Returns what they had pinned.
///
/// # Errors
/// If one of them has pinned nothing; those before it are unpinned.
pub async fn unpin<S: StoreView>(store: &S, request: &UnpinRequest) -> Result<Vec<PinsOfOwner>, PinningError> {
    let mut named = Vec::new();
    if request.owners.is_empty() || !request.images.is_empty() {
        for target in targets(&request.images)? {
            // However it came to be pinned for this device's people.
            let owners = [format!("user/{target}").parse()?, format!("seed/{target}").parse()?];
            named.push((target.to_string(), owners.to_vec()));
        }
    }
    for owner in &request.owners {
        named.push((owner.clone(), vec![owner.parse()?]));
    }
    let mut unpinned = Vec::new();
    for (name, owners) in named {
        let pins = store.pins();
        let before = unpinned.len();
        for (owner, contents) in pins.into_iter().filter(|(owner, _)| owners.contains(owner)) {
            store.unpin(owner.clone()).await.map_err(PinningError::Store)?;
            unpinned.push(shown(owner, contents));
        }
        if unpinned.len() == before {
            return Err(PinningError::NotPinned(name));
        }
    }
    Ok(unpinned)
}

/// All pins.
pub fn list<S: StoreView>(store: &S) -> Vec<PinsOfOwner> {
    store.pins().into_iter().map(|(owner, contents)| shown(owner, contents)).collect()
}

fn targets(images: &[String]) -> Result<Vec<Target>, PinningError> {
    if !(1..=IMAGES_MAX).contains(&images.len()) {
        return Err(PinningError::Count);
    }
    Ok(images.iter().map(|image| image.parse()).collect::<Result<_, _>>()?)
}

/// What a target stands for, and what that needs; `None` of a blob that is no manifest.
async fn contents_of<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    target: &Target,
    choice: &PlatformChoice,
) -> Result<(ContentId, Option<Contents>), PinningError> {
    let image = target.to_string();
    let root = match target {
        Target::Content(content) => *content,
        Target::Image(reference) => resolve(mesh, reference).await?.0,
    };
    let read =
        contents::read(root, choice.clone(), async |content| store.read_whole(&content, MANIFEST_BYTES_MAX).await.ok());
    let of_blob = |contents: &Contents| contents.unread.contains(&root) && store.size_of(&root).is_some();
    match read.await {
        // Too large for a manifest.
        Ok(contents) if matches!(target, Target::Content(_)) && of_blob(&contents) => Ok((root, None)),
        Ok(contents) => {
            contents.matched().map_err(|lacking| PinningError::NoPlatform { image, lacking })?;
            Ok((root, Some(contents)))
        }
        Err(ContentsError::Manifest { content, .. }) if matches!(target, Target::Content(_)) && content == root => {
            Ok((root, None))
        }
        Err(error) => Err(PinningError::Contents { image, error: Box::new(error) }),
    }
}

fn described<S: StoreView>(
    store: &S,
    target: &Target,
    root: ContentId,
    owner: &PinOwner,
    parts: &[(ContentId, Option<u64>)],
    unread: &[ContentId],
) -> PinnedImage {
    let size = |&(content, size): &(ContentId, Option<u64>)| store.size_of(&content).or(size).unwrap_or(0);
    let missing = parts.iter().filter(|(content, _)| store.size_of(content).is_none());
    PinnedImage {
        image: target.to_string(),
        digest: root.to_string(),
        owner: owner.to_string(),
        blobs: parts.len(),
        bytes: parts.iter().map(size).fold(0, u64::saturating_add),
        missing: missing.map(|(content, _)| content.to_string()).collect(),
        unread: unread.iter().map(ToString::to_string).collect(),
    }
}

fn shown(owner: PinOwner, contents: Vec<ContentId>) -> PinsOfOwner {
    PinsOfOwner { owner: owner.to_string(), digests: contents.iter().map(ToString::to_string).collect() }
}
