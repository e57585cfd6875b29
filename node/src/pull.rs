//! Pulling an image into this node's store: what `layermesh pull` asks for.
//!
//! A tag is resolved, manifests are wanted and read, a platform is chosen, then config and layers are wanted, a few
//! at once. Where bytes come from is the mesh's business; this only says what is needed. Invariant: success means
//! that every blob of the image that was asked for is held whole.
//!
//! Deliberately absent: retries and deadlines. A want ends by itself, in one way or the other.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use layermesh_proto::{
    ContentId, ObjectKind, Repository,
    engine::{
        Urgency,
        event::{Basis, Provenance, Resolution, WantError},
    },
};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    admin::{
        StoreView,
        types::{PullEvent, PullRequest, PullSummary, TransferStatus},
    },
    config::units::show_duration,
    contents::{ContentsError, MANIFEST_BYTES_MAX, NotOffered, Part, PlatformChoice, PlatformError, Walk},
    counters::Counters,
    image::{ImageError, ImageReference, Version},
    mesh::{self, Mesh},
};

/// Blobs wanted at once: enough to keep a link busy through small ones, few enough that each gets on.
const BLOBS_AT_ONCE: usize = 4;
/// How often progress is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How long is left out after a report in which everything waits for the uplink's budget: that may take a night, and to
/// look four times a second would cost a small device more than the pull.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);

/// Something to pull, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The image.
    pub image: ImageReference,
    /// For which platforms.
    pub platform: PlatformChoice,
    /// Whether somebody waits for it.
    pub urgency: Urgency,
}

/// Why a request that names an image makes no sense.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The image's name.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The platform's name.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

impl Pull {
    /// Validates a request.
    ///
    /// # Errors
    /// If the image or the platform is not a name of one.
    pub fn parse(request: &PullRequest) -> Result<Self, RequestError> {
        let (image, platform) = named(&request.image, request.platform.as_deref())?;
        let urgency = if request.background { Urgency::Background } else { Urgency::Runtime };
        Ok(Self { image, platform, urgency })
    }
}

/// The image that a request names, and the platforms: this device's unless it names others.
pub(crate) fn named(image: &str, platform: Option<&str>) -> Result<(ImageReference, PlatformChoice), RequestError> {
    let platform = platform.map(str::parse).transpose()?.unwrap_or_default();
    Ok((image.parse()?, platform))
}

/// Nobody knows what an image's tag stands for.
#[derive(Debug, Error)]
#[error("there is no image `{image}`: {error}")]
pub struct UnknownImage {
    /// The image.
    pub image: String,
    /// Who said so.
    pub error: WantError,
}

/// What an image's name stands for, and who said so.
///
/// # Errors
/// If nobody knows.
pub(crate) async fn resolve(mesh: &Mesh, image: &ImageReference) -> Result<(ContentId, String), UnknownImage> {
    match image.version() {
        Version::Digest(content) => Ok((*content, "you".to_owned())),
        Version::Tag(reference) => {
            let resolution = mesh.resolve(reference.clone()).await;
            let resolution = resolution.map_err(|error| UnknownImage { image: image.to_string(), error })?;
            Ok((resolution.content, said_by(&resolution)))
        }
    }
}

/// Why an image could not be pulled.
#[derive(Debug, Error)]
pub enum PullError {
    /// The tag stands for nothing.
    #[error(transparent)]
    Unknown(#[from] UnknownImage),
    /// A part of it cannot be had.
    #[error("{kind} {content} cannot be had: {error}")]
    Part {
        /// Manifest or blob.
        kind: ObjectKind,
        /// The blob.
        content: ContentId,
        /// Why.
        error: WantError,
    },
    /// A manifest cannot be read back.
    #[error("manifest {content} cannot be read from the store: {error}")]
    Read {
        /// The manifest.
        content: ContentId,
        /// What the store says.
        error: String,
    },
    /// It cannot be held as a whole. Nothing of it but its manifests was fetched.
    #[error("the image cannot be held: {0}")]
    NoRoom(String),
    /// The image makes no sense.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The image is not for this platform.
    #[error("the image {0}")]
    NoPlatform(#[from] NotOffered),
}

/// Pulls an image into the store, reporting to `events` as it goes. Reports are dropped once nobody reads them.
///
/// # Errors
/// If any part of the image cannot be had.
pub async fn run<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    counters: &Counters,
    pull: Pull,
    events: &mpsc::Sender<PullEvent>,
) -> Result<PullSummary, PullError> {
    let started = Instant::now();
    let before = (counters.from_origin.get(), counters.from_peers.get());
    let mut puller = Puller {
        mesh,
        store,
        events,
        repository: pull.image.repository(),
        urgency: pull.urgency,
        parts: BTreeMap::new(),
        bytes_held: 0,
        holds: Vec::new(),
    };
    let root = puller.resolve(&pull.image).await?;
    let leaves = puller.manifests(root, &pull.platform).await?;
    let parts = puller.parts.iter().map(|(&content, &size)| (content, size)).collect();
    puller.holds.push(store.reserve(parts).await.map_err(PullError::NoRoom)?);
    puller.blobs(leaves).await?;
    Ok(PullSummary {
        image: pull.image.to_string(),
        digest: root.to_string(),
        blobs: puller.parts.len(),
        bytes: puller.parts.values().sum(),
        bytes_held: puller.bytes_held,
        bytes_from_origin: counters.from_origin.get().saturating_sub(before.0),
        bytes_from_peers: counters.from_peers.get().saturating_sub(before.1),
        elapsed_s: started.elapsed().as_secs_f64(),
    })
}

struct Puller<'a, S: StoreView> {
    mesh: &'a Mesh,
    store: &'a S,
    events: &'a mpsc::Sender<PullEvent>,
    repository: &'a Repository,
    urgency: Urgency,
    /// Size in bytes of every part of the image found so far.
    parts: BTreeMap<ContentId, u64>,
    bytes_held: u64,
    /// What has come is not removed to make room for the rest.
    holds: Vec<S::Hold>,
}

impl<S: StoreView> Puller<'_, S> {
    async fn say(&self, event: PullEvent) {
        let _ = self.events.send(event).await;
    }

    async fn resolve(&self, image: &ImageReference) -> Result<ContentId, PullError> {
        let (content, said_by) = resolve(self.mesh, image).await?;
        self.say(PullEvent::Resolved { image: image.to_string(), digest: content.to_string(), said_by }).await;
        Ok(content)
    }

    /// Counts a part that was found.
    async fn found(&mut self, part: &Part) {
        let size = part.size.unwrap_or_default();
        self.parts.insert(part.content, size);
        let held = self.store.size_of(&part.content).is_some();
        if held {
            self.bytes_held += size;
        }
        self.say(PullEvent::Blob { digest: part.content.to_string(), size, held }).await;
    }

    async fn fetch(&self, content: ContentId, kind: ObjectKind) -> Result<(), PullError> {
        if self.store.size_of(&content).is_none() {
            let mut want = self.mesh.want(content, kind, Some(self.repository.clone()), self.urgency).await;
            want.ended().await.map_err(|error| PullError::Part { kind, content, error })?;
        }
        self.say(PullEvent::Landed { digest: content.to_string() }).await;
        Ok(())
    }

    /// Fetches and reads manifests from `root` down, and returns what else the image needs.
    async fn manifests(
        &mut self,
        root: ContentId,
        choice: &PlatformChoice,
    ) -> Result<Vec<(ContentId, ObjectKind)>, PullError> {
        let mut walk = Walk::new(root, choice.clone());
        while let Some(content) = walk.next() {
            self.holds.push(self.store.hold(content));
            let held = self.store.size_of(&content);
            let bytes = self.manifest(content).await?;
            self.mesh.prepare(self.repository.clone(), (content, bytes.clone()), Vec::new(), self.urgency).await;
            let known = walk.contents().parts.len();
            walk.read(&bytes)?;
            if self.parts.insert(content, bytes.len() as u64).is_none() {
                self.bytes_held += held.unwrap_or(0);
            }
            let found = walk.contents();
            found.matched()?;
            for part in found.parts[known..].iter().filter(|part| !part.is_document()) {
                self.found(part).await;
            }
        }
        let leaves = walk.finish().parts.into_iter().filter(|part| !part.is_document());
        Ok(leaves.map(|part| (part.content, part.role.kind())).collect())
    }

    async fn manifest(&self, content: ContentId) -> Result<Bytes, PullError> {
        tokio::select! {
            result = self.fetch(content, ObjectKind::Manifest) => result?,
            // Nobody minds a manifest's progress, but why there is none.
            never = self.report(|transfer| transfer.content == content && transfer.waits_for.is_some()) => {
                match never {}
            }
        }
        let bytes = self.store.read_whole(&content, MANIFEST_BYTES_MAX).await;
        bytes.map_err(|error| PullError::Read { content, error })
    }

    async fn blobs(&self, leaves: Vec<(ContentId, ObjectKind)>) -> Result<(), PullError> {
        let fetches = stream::iter(leaves)
            .map(|(content, kind)| self.fetch(content, kind))
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<()>();
        tokio::select! {
            result = fetches => result,
            never = self.report(|transfer| self.parts.contains_key(&transfer.content)) => match never {},
        }
    }

    /// Reports how far transfers are, those of the image that are `told`, for ever.
    async fn report(&self, told: impl Fn(&mesh::TransferStatus) -> bool) -> std::convert::Infallible {
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let transfers = self.mesh.status().await.transfers.into_iter();
            let blobs: Vec<_> = transfers.filter(&told).map(TransferStatus::from).collect();
            if blobs.is_empty() {
                continue;
            }
            let waiting = blobs.iter().all(|blob| blob.waits_for.is_some());
            self.say(PullEvent::Progress { blobs }).await;
            if waiting {
                tokio::time::sleep(WAITING_INTERVAL).await;
            }
        }
    }
}

/// Who said what a tag stands for, for people.
fn said_by(resolution: &Resolution) -> String {
    let who = match resolution.provenance {
        Provenance::Origin => "the origin".to_owned(),
        other => known_by(other),
    };
    let age = resolution.age.map(|age| format!(", {} old", show_duration(age))).unwrap_or_default();
    match resolution.basis {
        Basis::Asked => who,
        Basis::Fresh | Basis::Policy => format!("{who}{age}"),
        Basis::Away => format!("{who}{age}, the origin is away"),
    }
}

/// From whom something is known that no origin was asked for now, for people.
pub(crate) fn known_by(provenance: Provenance) -> String {
    match provenance {
        Provenance::Origin | Provenance::Remembered { .. } => "this node's memory".to_owned(),
        Provenance::Peer { peer, .. } => format!("peer …{}", peer.short()),
        Provenance::Signed => "a signed release".to_owned(),
    }
}

#[cfg(test)]
mod tests;
