//! What the registry holds and counts, and its handle.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::Method;
use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId};

use super::{
    access::{Access, Gate},
    faults::{FaultRule, Faults},
    image::{self, Image},
    server::Server,
};
use crate::pace::Pace;

/// Requests remembered; the oldest go first. Enough for a demo of fifty devices pulling a hundred blobs.
const REQUESTS_MAX: usize = 8192;
/// Paths whose bytes are counted one by one; further ones are counted in the total only.
const PATHS_MAX: usize = 4096;

/// A request that the registry got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its method.
    pub method: Method,
    /// Its path, with its query.
    pub path: String,
    /// Its `Range`.
    pub range: Option<String>,
    /// Whether it had an `Authorization`.
    pub authorization: bool,
    /// Its loop guard, see [`LAYERMESH_VIA`](crate::origin::LAYERMESH_VIA).
    pub via: Option<String>,
}

/// Where a blob's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Memory(Bytes),
    File(PathBuf),
}

/// A blob or a manifest.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) content: ContentId,
    pub(super) source: Source,
    pub(super) size: u64,
    pub(super) media_type: String,
}

#[derive(Debug, Default)]
struct Contents {
    blobs: HashMap<ContentId, Object>,
    manifests: HashMap<(String, ContentId), Object>,
    tags: BTreeMap<String, BTreeMap<String, ContentId>>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: VecDeque<RequestRecord>,
    requests_total: u64,
    bytes_total: u64,
    bytes_by_path: HashMap<String, u64>,
}

/// Shared by the handle and the connections.
#[derive(Debug)]
pub(super) struct State {
    contents: Mutex<Contents>,
    counts: Mutex<Counts>,
    base_url: Mutex<String>,
    pub(super) faults: Faults,
    pub(super) gate: Gate,
    pub(super) pace: Arc<Pace>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn blob(&self, content: &ContentId) -> Option<Object> {
        lock(&self.contents).blobs.get(content).cloned()
    }

    pub(super) fn manifest(&self, repository: &str, content: ContentId) -> Option<Object> {
        lock(&self.contents).manifests.get(&(repository.to_owned(), content)).cloned()
    }

    pub(super) fn tag(&self, repository: &str, tag: &str) -> Option<ContentId> {
        lock(&self.contents).tags.get(repository)?.get(tag).copied()
    }

    /// A repository's tags in order, `None` if there is no such repository.
    pub(super) fn tags(&self, repository: &str) -> Option<Vec<String>> {
        Some(lock(&self.contents).tags.get(repository)?.keys().cloned().collect())
    }

    pub(super) fn base_url(&self) -> String {
        lock(&self.base_url).clone()
    }

    pub(super) fn record(&self, request: RequestRecord) {
        let mut counts = lock(&self.counts);
        if counts.requests.len() >= REQUESTS_MAX {
            counts.requests.pop_front();
        }
        counts.requests.push_back(request);
        counts.requests_total += 1;
    }

    pub(super) fn count(&self, path: &str, bytes: u64) {
        let mut counts = lock(&self.counts);
        counts.bytes_total += bytes;
        if let Some(sum) = counts.bytes_by_path.get_mut(path) {
            *sum += bytes;
        } else if counts.bytes_by_path.len() < PATHS_MAX {
            counts.bytes_by_path.insert(path.to_owned(), bytes);
        }
    }
}

/// A running registry. Cheap to clone; it stops when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Registry {
    state: Arc<State>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    server: Arc<tokio::sync::Mutex<Option<Server>>>,
}

impl Registry {
    /// Starts an empty registry that speaks plain HTTP; port 0 is any free port.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        Self::start_inner(address, None).await
    }

    /// Starts an empty registry that speaks TLS with this configuration.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start_tls(address: SocketAddr, tls: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        Self::start_inner(address, Some(tls)).await
    }

    async fn start_inner(address: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        let state = Arc::new(State {
            contents: Mutex::default(),
            counts: Mutex::default(),
            base_url: Mutex::default(),
            faults: Faults::default(),
            gate: Gate::default(),
            pace: Arc::new(Pace::new(None)),
        });
        let (server, address) = Server::bind(address, tls.clone(), Arc::clone(&state)).await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        *lock(&state.base_url) = format!("{scheme}://{address}");
        Ok(Self { state, address, tls, server: Arc::new(tokio::sync::Mutex::new(Some(server))) })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its scheme, host and port.
    pub fn base_url(&self) -> String {
        self.state.base_url()
    }

    /// Adds a blob.
    pub fn put_blob(&self, bytes: Bytes) -> ContentId {
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        let size = bytes.len() as u64;
        self.insert_blob(content, Source::Memory(bytes), size);
        content
    }

    /// Adds a blob that stays in its file, which must hold the bytes of `content` for as long as it is served.
    ///
    /// # Errors
    /// If the file's size cannot be read.
    pub fn put_blob_file(&self, content: ContentId, path: PathBuf) -> io::Result<()> {
        let size = std::fs::metadata(&path)?.len();
        self.insert_blob(content, Source::File(path), size);
        Ok(())
    }

    fn insert_blob(&self, content: ContentId, source: Source, size: u64) {
        let media_type = "application/octet-stream".to_owned();
        lock(&self.state.contents).blobs.insert(content, Object { content, source, size, media_type });
    }

    /// Adds a manifest or an index to a repository, and lets a tag stand for it.
    pub fn put_manifest(&self, repository: &str, tag: Option<&str>, bytes: Bytes, media_type: &str) -> ContentId {
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        let size = bytes.len() as u64;
        let object = Object { content, source: Source::Memory(bytes), size, media_type: media_type.to_owned() };
        let mut contents = lock(&self.state.contents);
        contents.manifests.insert((repository.to_owned(), content), object);
        let tags = contents.tags.entry(repository.to_owned()).or_default();
        if let Some(tag) = tag {
            tags.insert(tag.to_owned(), content);
        }
        content
    }

    /// Adds an image; its layers stay in their files. Returns what the tag stands for.
    ///
    /// # Errors
    /// If a layer's file cannot be read.
    pub fn add_image(&self, repository: &str, tag: &str, image: &Image) -> io::Result<ContentId> {
        for platform in &image.platforms {
            for layer in &platform.layers {
                self.put_blob_file(layer.content, layer.path.clone())?;
            }
            self.put_blob(platform.config.clone());
            self.put_manifest(repository, None, platform.manifest.clone(), image::MANIFEST_MEDIA_TYPE);
        }
        Ok(self.put_manifest(repository, Some(tag), image.index.clone(), image::INDEX_MEDIA_TYPE))
    }

    /// Switches it off or on. Off, its port refuses connections and those there were are closed; on, it listens on
    /// the same port again.
    ///
    /// # Errors
    /// If something else took the port in the meantime.
    pub async fn set_online(&self, online: bool) -> io::Result<()> {
        let mut server = self.server.lock().await;
        if !online {
            if let Some(server) = server.take() {
                server.stop().await;
            }
        } else if server.is_none() {
            let (bound, _) = Server::bind(self.address, self.tls.clone(), Arc::clone(&self.state)).await?;
            *server = Some(bound);
        }
        Ok(())
    }

    /// Limits the bytes of bodies in a second, over all connections together, as one uplink would; `None` lifts the
    /// limit.
    pub fn set_rate(&self, bytes_per_s: Option<u64>) {
        self.state.pace.set(bytes_per_s);
    }

    /// Says who may read, and withdraws all tokens.
    pub fn set_access(&self, access: Access) {
        self.state.gate.set(access);
    }

    /// Withdraws all tokens, as if they had run out.
    pub fn revoke_tokens(&self) {
        self.state.gate.revoke_tokens();
    }

    /// Lets something go wrong.
    pub fn inject(&self, rule: FaultRule) {
        self.state.faults.add(rule);
    }

    /// Lets nothing go wrong any more.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Bytes of blobs and manifests sent so far.
    pub fn bytes_sent(&self) -> u64 {
        lock(&self.state.counts).bytes_total
    }

    /// Bytes of blobs and manifests sent so far under paths that start so.
    pub fn bytes_sent_under(&self, path_prefix: &str) -> u64 {
        let counts = lock(&self.state.counts);
        counts.bytes_by_path.iter().filter(|(path, _)| path.starts_with(path_prefix)).map(|(_, sum)| sum).sum()
    }

    /// The latest requests, in order (as many as are remembered).
    pub fn requests(&self) -> Vec<RequestRecord> {
        lock(&self.state.counts).requests.iter().cloned().collect()
    }

    /// Requests so far.
    pub fn request_count(&self) -> u64 {
        lock(&self.state.counts).requests_total
    }
}
