//! Ways to make layers: patches of images that this device is about to pull, from layers that it holds.
//!
//! Before the layers of an image are wanted, the artifacts with patches to it are looked at (`artifact.rs`): those that a
//! signed release names, or else those in the index of what refers to its manifest. They come through the mesh like any
//! tag and manifest, so that a site asks its registry once. For each layer that is missing and has a patch from
//! a layer that is held, the engine hears that it can be rebuilt; whether it is, is the engine's decision. Invariant: all
//! of this is a hint. Where it fails, or takes longer than three seconds, layers are fetched as ever.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use layermesh_proto::{
    ContentId, ObjectKind, Repository,
    engine::{Rebuild, Urgency},
};
use serde::Deserialize;

use super::artifact::{self, Entry, LAYER_BYTES_MIN};
use crate::{
    contents::{self, Document, MANIFEST_BYTES_MAX},
    mesh::{Mesh, Prepare},
    store::Store,
};

/// How long it is looked for patches before the layers are wanted. 3 s: a registry far away answers three questions in
/// that time, and somebody who waits for a layer hardly sees it.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Ways that are remembered, the last ones. 1024: as many as the engine knows.
const WAYS_MAX: usize = 1024;
/// Manifests that were looked at lately and are not looked at again, the last ones. 256: a few dozen images.
const LOOKED_MAX: usize = 256;
/// Held blobs up to this size, in bytes, may be manifests. 256 KiB: a hundred layers with annotations are a tenth of that.
const SMALL_BYTES_MAX: u64 = 256 << 10;
/// So many of them are looked at for layers with a tar. 2048: five hundred images.
const SMALL_MAX: usize = 2048;

/// How a layer is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where the patch is.
    pub repository: Repository,
    /// The patch, and what it is of.
    pub entry: Entry,
    /// The old layer, a blob that was held.
    pub base: ContentId,
}

/// Ways that are known. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ways {
    mesh: Mesh,
    store: Store,
    enabled: bool,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    ways: BTreeMap<ContentId, Way>,
    order: VecDeque<ContentId>,
    /// Manifests, and whether it was known which artifacts to look at.
    looked: VecDeque<(ContentId, bool)>,
}

impl Known {
    fn add(&mut self, target: ContentId, way: Way) {
        if self.ways.insert(target, way).is_none() {
            self.order.push_back(target);
        }
        while self.order.len() > WAYS_MAX {
            if let Some(old) = self.order.pop_front() {
                self.ways.remove(&old);
            }
        }
    }

    /// Whether a manifest was not looked at lately.
    fn look(&mut self, manifest: ContentId, named: bool) -> bool {
        if self.looked.contains(&(manifest, named)) {
            return false;
        }
        self.looked.push_back((manifest, named));
        if self.looked.len() > LOOKED_MAX {
            self.looked.pop_front();
        }
        true
    }
}

/// A configuration, as far as its layers go (image-spec, "Image Configuration").
#[derive(Debug, Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// What an image's manifest names: its configuration, then its layers; `None` if it is no image's.
fn image_parts(bytes: &[u8]) -> Option<Vec<contents::Entry>> {
    match Document::parse(bytes) {
        Ok(Document::Manifest(parts)) => Some(parts),
        Ok(Document::Index(_)) | Err(_) => None,
    }
}

impl Ways {
    /// Ways over a store. If they are not `enabled`, none is ever found.
    pub fn new(mesh: Mesh, store: Store, enabled: bool) -> Self {
        Self { mesh, store, enabled, known: Arc::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing is half-done in it at any time.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a layer is made with a patch, if that is known.
    pub fn of(&self, target: &ContentId, patch: &ContentId) -> Option<Way> {
        self.known().ways.get(target).filter(|way| way.entry.patch == *patch).cloned()
    }

    /// An image is about to be pulled: looks for patches, for a while, and then lets go whoever waits for that.
    pub async fn prepare(&self, prepare: Prepare) {
        self.look(&prepare).await;
        // Who does not wait any more does not mind.
        let _ = prepare.done.send(());
    }

    async fn look(&self, prepare: &Prepare) {
        let Prepare { repository, manifest, bytes, patches, .. } = prepare;
        let Some(missing) = self.missing(bytes).filter(|_| self.enabled) else { return };
        if missing.is_empty() || !self.known().look(*manifest, !patches.is_empty()) {
            return;
        }
        let nobody = self.mesh.holders(missing.keys().copied().collect()).await;
        let missing: BTreeMap<_, _> =
            missing.into_iter().zip(nobody).filter(|(_, holders)| holders.is_empty()).map(|(layer, _)| layer).collect();
        if missing.is_empty() || self.store.list().iter().all(|held| held.size < LAYER_BYTES_MIN) {
            return;
        }
        let found = tokio::time::timeout(LOOK_MAX, self.find(prepare, &missing)).await;
        match found {
            Ok(Ok(0)) => tracing::debug!(%repository, %manifest, "no patches to layers that are missing"),
            Ok(Ok(count)) => tracing::info!(%repository, %manifest, count, "layers can be made of those that are held"),
            Ok(Err(error)) => tracing::debug!(%repository, %manifest, error, "no patches"),
            Err(_) => {
                tracing::debug!(%repository, %manifest, "it was not said in time whether there are patches");
            }
        }
    }

    /// The layers that a manifest names and that are worth a patch, with their sizes; `None` if it is no image's.
    fn missing(&self, bytes: &[u8]) -> Option<BTreeMap<ContentId, u64>> {
        let layers = image_parts(bytes)?.into_iter().skip(1);
        let missing =
            layers.filter(|layer| layer.size >= LAYER_BYTES_MIN && self.store.size_of(&layer.content).is_none());
        Some(missing.map(|layer| (layer.content, layer.size)).collect())
    }

    async fn find(&self, prepare: &Prepare, missing: &BTreeMap<ContentId, u64>) -> Result<usize, String> {
        let (repository, urgency) = (&prepare.repository, prepare.urgency);
        let artifacts = match prepare.patches.as_slice() {
            [] => self.listed(prepare).await?,
            named => named.to_vec(),
        };
        let mut entries = Vec::new();
        for artifact in artifacts {
            let bytes = self.document(repository, artifact, urgency).await?;
            match artifact::entries(&bytes) {
                // What the image says of a layer counts, not what is said of it here.
                Ok(all) => entries
                    .extend(all.into_iter().filter(|entry| missing.get(&entry.target) == Some(&entry.target_size))),
                Err(error) => tracing::warn!(%repository, %artifact, %error, "an artifact with patches is none"),
            }
        }
        let bases = self.bases(&entries).await;
        let best = artifact::best(&entries, |entry| bases.get(&entry.base).copied());
        let count = best.len();
        for (target, (entry, base)) in best {
            let rebuild = Rebuild {
                patch: entry.patch,
                patch_bytes: entry.patch_size,
                size: entry.target_size,
                work: entry.base_len.saturating_add(entry.target_len),
            };
            self.known().add(target, Way { repository: repository.clone(), entry, base });
            self.mesh.rebuildable(target, rebuild).await;
        }
        Ok(count)
    }

    /// The artifacts that refer to a manifest where its registry lists them.
    async fn listed(&self, prepare: &Prepare) -> Result<Vec<ContentId>, String> {
        let tag = artifact::tag_of(&prepare.repository, &prepare.manifest).map_err(|error| error.to_string())?;
        let index = self.mesh.resolve(tag).await.map_err(|error| error.to_string())?.content;
        let index = self.document(&prepare.repository, index, prepare.urgency).await?;
        artifact::artifacts(&index).map_err(|error| error.to_string())
    }

    async fn document(&self, repository: &Repository, content: ContentId, urgency: Urgency) -> Result<Bytes, String> {
        if self.store.size_of(&content).is_none() {
            let (kind, from) = (ObjectKind::Manifest, Some(repository.clone()));
            let mut want = self.mesh.want_within(content, kind, from, urgency, Some(MANIFEST_BYTES_MAX)).await;
            want.ended().await.map_err(|error| error.to_string())?;
        }
        self.store.read_whole(&content, MANIFEST_BYTES_MAX).await.map_err(|error| error.to_string())
    }

    /// Of tars that patches lead from, a layer that is held and has it: one that the patch names, or one of an image that
    /// is held whose configuration says so.
    async fn bases(&self, entries: &[Entry]) -> BTreeMap<ContentId, ContentId> {
        let mut bases = BTreeMap::new();
        let mut unknown = false;
        for entry in entries {
            let named = entry.base_blobs.iter().find(|blob| self.store.size_of(blob).is_some());
            match named {
                Some(blob) => drop(bases.insert(entry.base, *blob)),
                None => unknown |= !bases.contains_key(&entry.base),
            }
        }
        if unknown {
            for (tar, layer) in self.tars().await {
                bases.entry(tar).or_insert(layer);
            }
        }
        bases
    }

    /// The tars of layers that are held, by the configurations that are.
    async fn tars(&self) -> Vec<(ContentId, ContentId)> {
        let small = self.store.list().into_iter().filter(|held| held.size <= SMALL_BYTES_MAX).take(SMALL_MAX);
        let mut tars = Vec::new();
        for held in small {
            let Some(parts) = self.small(&held.content).await.and_then(|bytes| image_parts(&bytes)) else { continue };
            let Some((config, layers)) = parts.split_first() else { continue };
            let config =
                self.small(&config.content).await.and_then(|bytes| serde_json::from_slice::<Config>(&bytes).ok());
            // Of an image with layers that registries do not carry it is not known which tar is whose.
            let Some(config) = config.filter(|config| config.rootfs.diff_ids.len() == layers.len()) else { continue };
            for (layer, tar) in layers.iter().zip(config.rootfs.diff_ids) {
                if let Ok(tar) = tar.parse()
                    && self.store.size_of(&layer.content).is_some()
                {
                    tars.push((tar, layer.content));
                }
            }
        }
        tars
    }

    async fn small(&self, content: &ContentId) -> Option<Bytes> {
        self.store.read_whole(content, SMALL_BYTES_MAX).await.ok()
    }
}
