//! A container runtime's part of a pull: HTTP to a mirror, every digest checked.
//!
//! As strict as the strictest runtime: a wrong byte, a short body or a refusal ends the pull, nothing is tried again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use layermesh_proto::{ContentId, Verifier};
use reqwest::{Response, header::ACCEPT};

use crate::contents::{Document, Entry, MANIFEST_BYTES_MAX, PlatformChoice};

/// Blobs at once, as docker has it.
const BLOBS_AT_ONCE: usize = 3;
/// A mirror that sends nothing for this long, besides what a slow uplink needs, is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Indexes within indexes at most.
const DEPTH_MAX: usize = 4;
/// What runtimes accept as manifests.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*";

/// How far a pull is; shared with whoever shows it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes received so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the image, as far as known.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// What was pulled, all of it verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pulled {
    /// Bytes of the image's parts.
    pub(super) bytes: u64,
    /// Parts: manifests, config and layers.
    pub(super) objects: usize,
    /// Layers.
    pub(super) layers: usize,
}

/// Pulls through one mirror.
#[derive(Debug)]
pub(super) struct Puller {
    client: reqwest::Client,
    base_url: String,
    /// The registry meant, as containerd says it; `None` for a registry that is asked directly.
    namespace: Option<String>,
    progress: Arc<Progress>,
}

impl Puller {
    /// A puller that bears with a mirror's silence for `over_uplink` longer: mirrors hand on pieces that are there
    /// and verified, and over a slow uplink a piece takes its time.
    pub(super) fn new(
        base_url: String,
        namespace: Option<&str>,
        progress: Arc<Progress>,
        over_uplink: Duration,
    ) -> anyhow::Result<Self> {
        let silence_max = SILENCE_MAX.saturating_add(over_uplink);
        let client = reqwest::Client::builder().no_proxy().read_timeout(silence_max).build()?;
        Ok(Self { client, base_url, namespace: namespace.map(str::to_owned), progress })
    }

    /// Pulls what a tag stands for, which must be `root`.
    pub(super) async fn pull(&self, repository: &str, tag: &str, root: ContentId) -> anyhow::Result<Pulled> {
        let (mut path, mut content) = (format!("/v2/{repository}/manifests/{tag}"), root);
        let mut documents_bytes = 0;
        for depth in 1..=DEPTH_MAX {
            let bytes = self.manifest(&path, &content).await?;
            documents_bytes += bytes.len() as u64;
            match Document::parse(&bytes).with_context(|| format!("manifest {content}"))? {
                Document::Index(entries) => content = choose(&entries)?,
                Document::Manifest(mut blobs) => {
                    let layers = blobs.len().saturating_sub(1);
                    // An image may name a layer twice; runtimes fetch it once.
                    blobs.sort_by_key(|blob| blob.content);
                    blobs.dedup_by_key(|blob| blob.content);
                    let blobs_bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
                    self.progress.total.store(documents_bytes + blobs_bytes, Ordering::Relaxed);
                    let objects = depth + blobs.len();
                    stream::iter(blobs)
                        .map(|blob| self.blob(repository, blob))
                        .buffer_unordered(BLOBS_AT_ONCE)
                        .try_collect::<()>()
                        .await?;
                    return Ok(Pulled { bytes: documents_bytes + blobs_bytes, objects, layers });
                }
            }
            path = format!("/v2/{repository}/manifests/{content}");
        }
        bail!("more than {DEPTH_MAX} indexes within each other")
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        let query = self.namespace.as_ref().map_or_else(String::new, |namespace| format!("?ns={namespace}"));
        let request = self.client.get(format!("{}{path}{query}", self.base_url)).header(ACCEPT, MANIFEST_TYPES);
        let response = request.send().await.with_context(|| format!("GET {path}"))?;
        if response.status() != reqwest::StatusCode::OK {
            bail!("GET {path}: the mirror answered {}", response.status());
        }
        Ok(response)
    }

    async fn manifest(&self, path: &str, content: &ContentId) -> anyhow::Result<Bytes> {
        let mut response = self.get(path).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.with_context(|| format!("GET {path}: the body broke off"))? {
            bytes.extend_from_slice(&chunk);
            self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if bytes.len() as u64 > MANIFEST_BYTES_MAX {
                bail!("GET {path}: too large for a manifest");
            }
        }
        let mut verifier = Verifier::new(*content);
        verifier.update(&bytes);
        verifier.finish().with_context(|| format!("GET {path}: expected {content}"))?;
        Ok(bytes.freeze())
    }

    async fn blob(&self, repository: &str, blob: Entry) -> anyhow::Result<()> {
        let path = format!("/v2/{repository}/blobs/{}", blob.content);
        let mut response = self.get(&path).await?;
        let (mut verifier, mut size) = (Verifier::new(blob.content), 0);
        while let Some(chunk) = response.chunk().await.with_context(|| format!("GET {path}: the body broke off"))? {
            verifier.update(&chunk);
            size += chunk.len() as u64;
            self.progress.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if size > blob.size {
                break;
            }
        }
        if size != blob.size {
            bail!("GET {path}: {size} bytes where {} were expected", blob.size);
        }
        verifier.finish().with_context(|| format!("GET {path}: wrong bytes"))
    }
}

/// The manifest of an index for this device's platform, else the first: the demo runs nothing.
pub(super) fn choose(entries: &[Entry]) -> anyhow::Result<ContentId> {
    let (suited, _) = PlatformChoice::default().choose(entries);
    let entry = suited.first().copied().or_else(|| entries.first()).context("the index is empty")?;
    Ok(entry.content)
}
