//! Pulling an image into this node's store: what `layermesh pull` asks for.
//!
//! A tag is resolved, manifests are wanted and read, a platform is chosen, then config and layers are wanted, a few
//! at once. Where bytes come from is the mesh's business; this only says what is needed. Invariant: success means
//! that every blob of the image that was asked for is held whole.
//!
//! Deliberately absent: retries and deadlines. A want ends by itself, in one way or the other.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use layermesh_proto::{
    ContentId, ObjectKind, Repository,
    engine::{
        Urgency,
        event::{Provenance, WantError},
    },
};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

mod manifest;
mod platform;

pub use manifest::{Document, DocumentError, Entry, MANIFEST_BYTES_MAX};
pub use platform::{Platform, PlatformChoice, PlatformError};

use crate::{
    admin::{
        StoreView,
        types::{PullEvent, PullRequest, PullSummary, TransferStatus},
    },
    counters::Counters,
    image::{ImageError, ImageReference, Version},
    mesh::{self, Mesh},
};

/// Blobs wanted at once: enough to keep a link busy through small ones, few enough that each gets on.
const BLOBS_AT_ONCE: usize = 4;
/// Manifests and indexes looked at in one pull: an index of every platform and its attestations has dozens.
const MANIFESTS_MAX: usize = 256;
/// Config and layers of one pull. Images have at most 127 layers on common file systems; times a few platforms.
const BLOBS_MAX: usize = 4096;
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

/// Why a request makes no sense.
#[derive(Debug, Error)]
pub enum PullRequestError {
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
    pub fn parse(request: &PullRequest) -> Result<Self, PullRequestError> {
        let platform = match &request.platform {
            Some(platform) => platform.parse()?,
            None => PlatformChoice::default(),
        };
        let urgency = if request.background { Urgency::Background } else { Urgency::Runtime };
        Ok(Self { image: request.image.parse()?, platform, urgency })
    }
}

/// Why an image could not be pulled.
#[derive(Debug, Error)]
pub enum PullError {
    /// The tag stands for nothing.
    #[error("there is no image `{image}`: {error}")]
    Unknown {
        /// The image.
        image: String,
        /// Who said so.
        error: WantError,
    },
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
    /// A manifest makes no sense.
    #[error("manifest {content} is not one: {error}")]
    Manifest {
        /// The manifest.
        content: ContentId,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// The image is not for this platform.
    #[error("the image has nothing for {wanted}; it has {}", offered.join(", "))]
    NoPlatform {
        /// The platform asked for.
        wanted: String,
        /// Those that the image is for.
        offered: Vec<String>,
    },
    /// It has more parts than any image.
    #[error("the image has more than {0} parts")]
    TooLarge(usize),
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
    };
    let root = puller.resolve(&pull.image).await?;
    let leaves = puller.manifests(root, &pull.platform).await?;
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

struct Puller<'a, S> {
    mesh: &'a Mesh,
    store: &'a S,
    events: &'a mpsc::Sender<PullEvent>,
    repository: &'a Repository,
    urgency: Urgency,
    /// Size in bytes of every part of the image found so far.
    parts: BTreeMap<ContentId, u64>,
    bytes_held: u64,
}

impl<S: StoreView> Puller<'_, S> {
    async fn say(&self, event: PullEvent) {
        let _ = self.events.send(event).await;
    }

    async fn resolve(&self, image: &ImageReference) -> Result<ContentId, PullError> {
        let (content, said_by) = match image.version() {
            Version::Digest(content) => (*content, "you".to_owned()),
            Version::Tag(reference) => {
                let resolution = self.mesh.resolve(reference.clone()).await;
                let resolution = resolution.map_err(|error| PullError::Unknown { image: image.to_string(), error })?;
                (resolution.content, said_by(resolution.provenance))
            }
        };
        self.say(PullEvent::Resolved { image: image.to_string(), digest: content.to_string(), said_by }).await;
        Ok(content)
    }

    /// Counts a part; says whether it is new.
    async fn found(&mut self, content: ContentId, size: u64) -> bool {
        if self.parts.insert(content, size).is_some() {
            return false;
        }
        let held = self.store.size_of(&content).is_some();
        if held {
            self.bytes_held += size;
        }
        self.say(PullEvent::Blob { digest: content.to_string(), size, held }).await;
        true
    }

    async fn fetch(&self, content: ContentId, kind: ObjectKind) -> Result<(), PullError> {
        if self.store.size_of(&content).is_none() {
            let mut want = self.mesh.want(content, kind, Some(self.repository.clone()), self.urgency).await;
            want.ended().await.map_err(|error| PullError::Part { kind, content, error })?;
        }
        self.say(PullEvent::Landed { digest: content.to_string() }).await;
        Ok(())
    }

    /// Fetches and reads manifests from `root` down, and returns the config and layers that they name.
    async fn manifests(&mut self, root: ContentId, choice: &PlatformChoice) -> Result<Vec<ContentId>, PullError> {
        let mut queue = VecDeque::from([root]);
        let (mut looked_at, mut leaves) = (0, Vec::new());
        while let Some(content) = queue.pop_front() {
            looked_at += 1;
            if looked_at > MANIFESTS_MAX {
                return Err(PullError::TooLarge(MANIFESTS_MAX));
            }
            let held = self.store.size_of(&content);
            tokio::select! {
                result = self.fetch(content, ObjectKind::Manifest) => result?,
                // Nobody minds a manifest's progress, but why there is none.
                never = self.report(|transfer| transfer.content == content && transfer.waits_for.is_some()) => {
                    match never {}
                }
            }
            let bytes = self.store.read_whole(&content, MANIFEST_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| PullError::Read { content, error })?;
            if self.parts.insert(content, bytes.len() as u64).is_none() {
                self.bytes_held += held.unwrap_or(0);
            }
            match Document::parse(&bytes).map_err(|error| PullError::Manifest { content, error })? {
                Document::Index(entries) => {
                    let chosen = choice.choose(&entries);
                    if chosen.is_empty() {
                        let offered = entries.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string()));
                        return Err(PullError::NoPlatform { wanted: choice.to_string(), offered: offered.collect() });
                    }
                    queue.extend(chosen.iter().map(|entry| entry.content));
                }
                Document::Manifest(blobs) => {
                    for blob in blobs {
                        if self.parts.len() >= BLOBS_MAX {
                            return Err(PullError::TooLarge(BLOBS_MAX));
                        }
                        if self.found(blob.content, blob.size).await {
                            leaves.push(blob.content);
                        }
                    }
                }
            }
        }
        Ok(leaves)
    }

    async fn blobs(&self, leaves: Vec<ContentId>) -> Result<(), PullError> {
        let fetches = stream::iter(leaves)
            .map(|content| self.fetch(content, ObjectKind::Blob))
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

fn said_by(provenance: Provenance) -> String {
    match provenance {
        Provenance::Origin => "the origin".to_owned(),
        Provenance::Remembered { .. } => "this node's memory, the origin is away".to_owned(),
        Provenance::Peer { peer, .. } => format!("peer …{}, the origin is away", peer.short()),
        Provenance::Signed => "a signed release, the origin is away".to_owned(),
    }
}

#[cfg(test)]
mod tests;
