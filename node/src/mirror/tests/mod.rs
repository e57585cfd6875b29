//! The mirror over real loopback connections, as runtimes talk to it.

mod access;
mod blobs;
mod connections;
mod discovery;
mod manifests;

use std::{error::Error as _, sync::Arc, time::Duration};

use bytes::Bytes;
use layermesh_proto::{
    ContentId, NodeId, Repository, TagRef,
    engine::event::{Basis, Provenance, Resolution, SourceError},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Access, Limits, MirrorState,
    fake::{FakeDriver, FakeLists, FakeStore, PATIENCE},
    serve,
};
use crate::counters::Counters;

/// A mirror on loopback and everything around it.
struct Rig {
    store: FakeStore,
    driver: FakeDriver,
    counters: Arc<Counters>,
    address: String,
    client: reqwest::Client,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Limits::default(), FakeLists::new(Err(SourceError::Unreachable("off".to_owned())), &[])).await
    }

    async fn with(limits: Limits, discovery: FakeLists) -> Self {
        Self::demanding(Access::default(), limits, discovery).await
    }

    async fn demanding(access: Access, limits: Limits, discovery: FakeLists) -> Self {
        let (driver, mesh) = FakeDriver::spawn();
        let (store, counters) = (FakeStore::new(), Arc::new(Counters::default()));
        let (of_store, counted) = (store.clone(), counters.clone());
        let state = MirrorState { node: node(), mesh, store: of_store, discovery, counters: counted, access, limits };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, state, shutdown.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { store, driver, counters, address, client, shutdown, served }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).timeout(2 * PATIENCE)
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    fn tag(&self, reference: &TagRef, content: ContentId, provenance: Provenance) {
        let resolution = Resolution { content, provenance, basis: Basis::Asked, age: None };
        self.driver.script(|script| script.tags.insert(reference.clone(), Ok(resolution)));
    }

    /// An image of one platform: index, manifest, config and two layers, all held.
    fn image(&self) -> Image {
        let config = self.store.hold(r#"{"os":"linux"}"#);
        let layers = [self.store.hold(vec![1; 300_000]), self.store.hold(vec![2; 700_000])];
        let blob = |content: &ContentId| json!({"mediaType": "x/y", "digest": content.to_string(), "size": 1});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(&config),
            "layers": [blob(&layers[0]), blob(&layers[1])]});
        let manifest = self.store.hold(manifest.to_string());
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [blob(&manifest)]});
        let index = self.store.hold(index.to_string());
        Image { index, manifest, config, layers }
    }
}

struct Image {
    index: ContentId,
    manifest: ContentId,
    config: ContentId,
    layers: [ContentId; 2],
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn node() -> NodeId {
    NodeId::from_public_key([7; 32])
}

fn tag_of(registry: &str, name: &str, tag: &str) -> TagRef {
    TagRef::new(Repository::new(registry, name).unwrap(), tag).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// The code of a refusal, whose document must be of the spec's shape.
async fn refused(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(header(&response, "www-authenticate"), None);
    let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(!document["errors"][0]["message"].as_str().unwrap().is_empty());
    (status, document["errors"][0]["code"].as_str().unwrap().to_owned())
}

/// Whether the connection was reset, not closed in order or timed out.
fn is_reset(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionReset) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Bytes that differ from place to place.
fn noise(len: usize) -> Bytes {
    (0..len).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn short(stall: Duration) -> Limits {
    Limits { stall, ..Limits::default() }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("took too long")
}
