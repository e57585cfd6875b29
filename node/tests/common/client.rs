//! Clients of a mirror: they ask as runtimes do and check as runtimes do.

use std::{collections::BTreeSet, sync::OnceLock};

use bytes::Bytes;
use futures::future::join_all;
use layermesh_proto::{Algorithm, ContentId};
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, HeaderMap, RANGE},
};

use super::{Node, REGISTRY};

/// A client without proxies and without any deadline of its own.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    // No connection is kept: tests have a runtime each, and a connection does not outlive its runtime.
    CLIENT.get_or_init(|| reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap())
}

/// What came of a request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As much of the body as came.
    pub body: Bytes,
    /// Why the body broke off, if it did.
    pub cut: Option<String>,
}

impl Answer {
    /// Whether this is the whole of `content`.
    pub fn is(&self, content: &ContentId) -> bool {
        self.status == StatusCode::OK && self.cut.is_none() && is(&self.body, content)
    }

    /// Whether the client was told that it did not get it: an error to fall through on, or a body that breaks off.
    pub fn is_clear_failure(&self) -> bool {
        matches!(self.status, StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE) || self.cut.is_some()
    }

    pub fn shown(&self) -> String {
        let text = if self.status.is_success() { String::new() } else { String::from_utf8_lossy(&self.body).into() };
        format!("{} with {} bytes, cut: {:?} {text}", self.status, self.body.len(), self.cut)
    }
}

pub fn is(bytes: &[u8], content: &ContentId) -> bool {
    ContentId::of(content.algorithm(), bytes) == *content
}

/// Sends a request and takes all of the answer.
pub async fn ask(method: Method, url: &str, range: Option<&str>) -> Result<Answer, reqwest::Error> {
    let mut request = http().request(method, url);
    if let Some(range) = range {
        request = request.header(RANGE, range);
    }
    let mut response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let cut = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break None,
            Err(error) => break Some(format!("{error:?}")),
        }
    };
    Ok(Answer { status, headers, body: body.into(), cut })
}

impl Node {
    /// What this node's mirror answers to a GET.
    pub async fn get(&self, path: &str) -> Answer {
        let url = self.url(path);
        let asked = self.patiently(path, ask(Method::GET, &url, None)).await;
        asked.unwrap_or_else(|error| panic!("{}: GET {url}: {error:?}{}", self.name, self.last_words()))
    }

    /// Pulls a blob, which must come whole and right.
    pub async fn pull_blob(&self, repository: &str, content: &ContentId) -> Bytes {
        let answer = self.get(&format!("{repository}/blobs/{content}")).await;
        assert!(answer.is(content), "{}: {content}: {}{}", self.name, answer.shown(), self.last_words());
        self.has_stored([content]).await;
        answer.body
    }
}

/// How a client names the registry.
#[derive(Debug, Clone, Copy)]
pub enum Naming {
    /// In the query, as containerd does.
    Query,
    /// As the first part of the path, as Podman's mirror configuration does.
    Path,
}

impl Naming {
    fn url(self, node: &Node, rest: &str) -> String {
        let mirror = node.run().mirror;
        match self {
            Self::Query => format!("http://{mirror}/v2/{rest}?ns={REGISTRY}"),
            Self::Path => format!("http://{mirror}/v2/{REGISTRY}/{rest}"),
        }
    }
}

/// Pulls an image as a runtime does: HEAD and GET of what it is asked for, one platform's manifest by digest, then
/// config and layers at once. Everything is checked. Returns what was pulled and its bytes.
pub async fn pull_image(node: &Node, naming: Naming, repository: &str, reference: &str) -> (BTreeSet<ContentId>, u64) {
    node.patiently(&format!("pull of {repository}:{reference}"), pull(node, naming, repository, reference)).await
}

async fn pull(node: &Node, naming: Naming, repository: &str, reference: &str) -> (BTreeSet<ContentId>, u64) {
    let mut pulled = BTreeSet::new();
    let top = manifest(node, naming, repository, reference).await;
    pulled.insert(ContentId::of(Algorithm::Sha256, &top));
    let mut bytes = top.len() as u64;
    let mut document: serde_json::Value = serde_json::from_slice(&top).unwrap();
    if let Some(children) = document["manifests"].as_array() {
        let child = children[0]["digest"].as_str().unwrap().to_owned();
        let child = manifest(node, naming, repository, &child).await;
        pulled.insert(ContentId::of(Algorithm::Sha256, &child));
        bytes += child.len() as u64;
        document = serde_json::from_slice(&child).unwrap();
    }
    let layers = document["layers"].as_array().unwrap().iter().chain([&document["config"]]);
    let parts = layers.map(|part| blob(node, naming, repository, part));
    for (content, size) in join_all(parts).await {
        bytes += size;
        pulled.insert(content);
    }
    node.has_stored(&pulled).await;
    (pulled, bytes)
}

async fn manifest(node: &Node, naming: Naming, repository: &str, reference: &str) -> Bytes {
    let url = naming.url(node, &format!("{repository}/manifests/{reference}"));
    let head = ask(Method::HEAD, &url, None).await.unwrap();
    let get = ask(Method::GET, &url, None).await.unwrap();
    assert_eq!(head.status, StatusCode::OK, "{url}{}", node.last_words());
    assert!(get.cut.is_none() && get.status == StatusCode::OK, "{url}: {}{}", get.shown(), node.last_words());
    let content = ContentId::of(Algorithm::Sha256, &get.body);
    for headers in [&head.headers, &get.headers] {
        assert_eq!(headers["docker-content-digest"], content.to_string(), "{url}");
        assert_eq!(headers[CONTENT_LENGTH], get.body.len().to_string(), "{url}");
    }
    if let Ok(asked) = reference.parse::<ContentId>() {
        assert_eq!(asked, content, "{url}");
    }
    get.body
}

async fn blob(node: &Node, naming: Naming, repository: &str, descriptor: &serde_json::Value) -> (ContentId, u64) {
    let content: ContentId = descriptor["digest"].as_str().unwrap().parse().unwrap();
    let url = naming.url(node, &format!("{repository}/blobs/{content}"));
    let answer = ask(Method::GET, &url, None).await.unwrap();
    assert!(answer.is(&content), "{url}: {}{}", answer.shown(), node.last_words());
    assert_eq!(answer.headers[CONTENT_LENGTH], answer.body.len().to_string(), "{url}");
    assert_eq!(descriptor["size"], answer.body.len(), "{url}");
    (content, answer.body.len() as u64)
}
