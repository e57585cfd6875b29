//! Origins: the node as one careful client of the registries its site pulls from.
//!
//! Every question gets one answer or one [`SourceError`]; nothing is tried again here, since the engine decides
//! about retries for the whole site. There are two exceptions: a 401, which is how a registry says that a token has run
//! out: the request is repeated once with a new one; and a registry with several endpoints, which are asked one after the
//! other (`turns.rs`, in the order of `ranking.rs`), also for the rest of a body that broke off (`resuming.rs`).
//!
//! All of it goes over a reqwest client of our own, the exchange of credentials for tokens too (`token.rs`). The registry
//! client that the rest of the program pushes with hides `Retry-After`, the media type, whether a range was honoured and
//! where a redirect led, reads bodies of any length, and looks names up where it likes; all of these decide what the
//! engine does next, or whether to go there at all. Ours never decodes content, keeps few idle connections and follows
//! redirects only as the origin's configuration allows.
//!
//! System proxies (`HTTPS_PROXY`, `NO_PROXY`) are honoured.
//!
//! Invariants: no body is read without a limit; a body that was announced with a length either has it or ends in an
//! error; credentials go to the registry they are for, over TLS unless that origin is configured for plain HTTP, and
//! not along with redirects. Deliberately absent: retries, verification of blobs (their pieces are hashed where they
//! are stored), pushing, and any knowledge of peers.

mod auth;
mod classify;
mod credentials;
mod endpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod internal;
mod names;
pub mod probe;
mod ranking;
mod resuming;
mod token;
mod transfer;
mod turns;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use layermesh_proto::{ContentId, NodeId, ObjectKind, Repository, TagRef, engine::event::SourceError};
use reqwest::{Method, Response, StatusCode, header::HeaderValue};
use thiserror::Error;
use url::Url;

pub use self::credentials::{Credentials, docker_config_path, stored_credentials};
use self::{
    auth::Authenticator,
    credentials::DockerConfig,
    endpoint::{Endpoint, HttpClient},
    ranking::Use,
    resuming::{Part, resuming},
    transfer::Request,
    turns::{Registry, Turns},
};
use crate::counters::Counters;

/// The header that names the nodes a request came through, by peer id and separated by commas. A mirror that finds
/// itself in it refuses, so that two nodes configured as each other's origin do not ask in circles.
pub const LAYERMESH_VIA: &str = "layermesh-via";

/// Largest manifest or index, in bytes: what registries and runtimes take (distribution spec, "Pushing Manifests").
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Largest page of tags or referrers, in bytes. Registries page at 100 to 1000 entries, a few hundred KiB.
const LISTING_BYTES_MAX: u64 = 4 << 20;

/// A registry to pull from, and how. Several with the same name are endpoints of one registry, the most trusted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginConfig {
    /// The registry as clients name it, such as `docker.io` or `registry.example:5000`.
    pub registry: String,
    /// Where its API is, scheme, host and port; `https://<registry>` if `None`.
    pub endpoint: Option<Url>,
    /// PEM file of certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether plain HTTP is allowed to it, and to where it redirects.
    pub plain_http: bool,
    /// Its credentials; looked up in docker's configuration if `None`.
    pub credentials: Option<Credentials>,
}

/// Why origins cannot be set up.
#[derive(Debug, Error)]
pub enum OriginSetupError {
    /// Two configurations for one registry at one endpoint.
    #[error("origin `{registry}` is configured twice at {endpoint}: leave one out, or give it another `endpoint`")]
    Twice {
        /// The registry.
        registry: String,
        /// The endpoint.
        endpoint: Url,
    },
    /// The endpoint is not one.
    #[error("origin `{registry}`: endpoint `{endpoint}`: {reason}")]
    Endpoint {
        /// The registry.
        registry: String,
        /// The endpoint, without credentials.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// A plain HTTP endpoint without the setting that allows it.
    #[error(
        "origin `{registry}`: endpoint `{endpoint}` is plain HTTP; if that is meant, set `plain_http = true` for it"
    )]
    PlainHttp {
        /// The registry.
        registry: String,
        /// The endpoint.
        endpoint: Url,
    },
    /// The CA file is of no use.
    #[error("CA file {path}: {reason}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What a tag stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The manifest or index.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// The bytes of a blob or a manifest, from some byte to its end.
pub struct OriginBody {
    /// Size of the whole object in bytes, if the origin said.
    pub total: Option<u64>,
    /// Where the bytes start: as asked, or 0 if the origin does not do ranges.
    pub start: u64,
    /// Whether these are the bytes that were asked for. If not, it is the whole object.
    pub ranged: bool,
    /// The bytes. If `total` is known, all of them from `start` to the end asked for, or an error; to the object's end
    /// if the origin does not do ranges.
    pub stream: BoxStream<'static, Result<Bytes, SourceError>>,
}

/// A listing, as the origin gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its `Content-Type`.
    pub content_type: Option<HeaderValue>,
    /// Its `Link`: where the next page is, on the origin.
    pub link: Option<HeaderValue>,
    /// Its `OCI-Filters-Applied`.
    pub filters_applied: Option<HeaderValue>,
    /// The listing.
    pub body: Bytes,
}

/// A registry's endpoint, ready to be asked.
#[derive(Debug, Clone)]
struct Origin {
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    /// Under which name docker's configuration has its credentials.
    login: String,
}

/// All registries: those configured, and any other by its name over HTTPS, outside the device and its LAN. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Origins {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    configured: HashMap<String, Arc<Registry>>,
    /// The client of registries that are not configured.
    plain: HttpClient,
    authenticator: Authenticator,
    via: HeaderValue,
    counters: Arc<Counters>,
}

impl Origins {
    /// Sets up origins. `docker_config` is docker's `config.json` (see [`docker_config_path`]), which need not exist;
    /// `node` is this node, named to origins that are mirrors themselves.
    ///
    /// # Errors
    /// If a configuration is contradictory or its CA file cannot be used.
    pub fn new(
        origins: Vec<OriginConfig>,
        docker_config: Option<PathBuf>,
        node: NodeId,
        counters: Arc<Counters>,
    ) -> Result<Self, OriginSetupError> {
        Self::with(origins, HttpClient::default(), docker_config, node, counters)
    }

    /// Any registry by its name over HTTPS, wherever it is: for somebody who names one and may.
    ///
    /// # Errors
    /// As [`Origins::new`].
    pub fn anywhere(
        docker_config: Option<PathBuf>,
        node: NodeId,
        counters: Arc<Counters>,
    ) -> Result<Self, OriginSetupError> {
        Self::with(Vec::new(), HttpClient::anywhere(), docker_config, node, counters)
    }

    fn with(
        origins: Vec<OriginConfig>,
        plain: HttpClient,
        docker_config: Option<PathBuf>,
        node: NodeId,
        counters: Arc<Counters>,
    ) -> Result<Self, OriginSetupError> {
        let anywhere = plain.beside(Arc::default(), false);
        #[allow(clippy::expect_used)]
        let via = HeaderValue::try_from(node.to_string()).expect("a peer id is letters and digits");
        let mut registries: HashMap<String, Vec<Origin>> = HashMap::new();
        for config in origins {
            let endpoint = Endpoint::configured(&config, &anywhere)?;
            let known = registries.entry(config.registry.clone()).or_default();
            if known.iter().any(|other| other.endpoint.base == endpoint.base) {
                return Err(OriginSetupError::Twice { registry: config.registry, endpoint: endpoint.base });
            }
            known.push(Origin { endpoint, credentials: config.credentials, login: config.registry });
        }
        // One endpoint of several gets the credentials of its own host, never those of another.
        for origin in registries.values_mut().filter(|origins| origins.len() > 1).flatten() {
            origin.login = origin.endpoint.authority().to_owned();
        }
        let configured = registries.into_iter().map(|(name, origins)| (name, Registry::new(origins))).collect();
        let authenticator = Authenticator::new(DockerConfig::new(docker_config));
        Ok(Self { shared: Arc::new(Shared { configured, plain, authenticator, via, counters }) })
    }

    /// Asks what a tag stands for.
    ///
    /// # Errors
    /// If the origin does not answer, refuses, or its answer makes no sense.
    pub async fn resolve(&self, reference: &TagRef) -> Result<Descriptor, SourceError> {
        let mut turns = self.shared.registry(reference.repository())?.turns(Use::Words);
        while let Some(origin) = turns.next() {
            if let Some(descriptor) = turns.take(self.resolve_at(&origin, reference)).await {
                return Ok(descriptor);
            }
        }
        Err(turns.error())
    }

    async fn resolve_at(&self, origin: &Origin, reference: &TagRef) -> Result<Descriptor, SourceError> {
        let repository = reference.repository();
        let path = format!("/v2/{}/manifests/{}", repository.name(), reference.tag());
        let request = Request::manifest(Method::HEAD, path.clone());
        let response = self.shared.send(origin, repository, &request).await?;
        if response.status() == StatusCode::OK {
            if let Some(descriptor) = transfer::descriptor_of_headers(response.headers())? {
                return Ok(descriptor);
            }
        } else if response.status() != StatusCode::METHOD_NOT_ALLOWED {
            return Err(self.shared.refusal(origin, repository, response).await);
        }
        // Some registries leave out the digest, the length or HEAD itself; the manifest's own bytes say it all.
        let response = self.shared.send(origin, repository, &Request::manifest(Method::GET, path)).await?;
        if response.status() != StatusCode::OK {
            return Err(self.shared.refusal(origin, repository, response).await);
        }
        transfer::refuse_encoded(response.headers())?;
        let headers = response.headers().clone();
        let bytes = classify::body(response, MANIFEST_BYTES_MAX).await?;
        self.shared.counters.from_origin.add(bytes.len() as u64);
        transfer::descriptor_of_bytes(&headers, &bytes)
    }

    /// Begins to fetch an object from byte `start` on. What comes is not verified.
    ///
    /// # Errors
    /// If the origin does not answer, refuses, or its answer makes no sense; the stream ends with one if the body
    /// breaks off.
    pub async fn open(
        &self,
        repository: &Repository,
        kind: ObjectKind,
        content: &ContentId,
        start: u64,
    ) -> Result<OriginBody, SourceError> {
        self.open_part(repository, kind, content, start, None).await
    }

    /// As [`Origins::open`], up to byte `end` (excluded) if given: a stream that is dropped earlier than it ends costs
    /// the uplink what the sockets on the way hold.
    ///
    /// # Errors
    /// As [`Origins::open`].
    pub async fn open_part(
        &self,
        repository: &Repository,
        kind: ObjectKind,
        content: &ContentId,
        start: u64,
        end: Option<u64>,
    ) -> Result<OriginBody, SourceError> {
        let request = Request::object(repository, kind, content, start, end);
        let mut turns = self.shared.registry(repository)?.turns(Use::Bytes);
        while let Some(origin) = turns.next() {
            if let Some(body) = turns.take(self.body_at(&origin, repository, kind, &request)).await {
                return Ok(self.lasting((repository, kind, content, end), turns, body));
            }
        }
        Err(turns.error())
    }

    /// As [`Origins::open_part`], for whoever does not know how large the object is. A part without that is of no use,
    /// and of an empty object there is none (RFC 9110 section 14.1.2): then the origin is asked for all of it.
    ///
    /// # Errors
    /// As [`Origins::open`].
    pub async fn open_first(
        &self,
        repository: &Repository,
        kind: ObjectKind,
        content: &ContentId,
        start: u64,
        end: u64,
    ) -> Result<OriginBody, SourceError> {
        let request = Request::object(repository, kind, content, start, Some(end));
        let mut turns = self.shared.registry(repository)?.turns(Use::Bytes);
        while let Some(origin) = turns.next() {
            let first = self.first_at(&origin, repository, (kind, content), &request);
            if let Some((body, end)) = turns.take(first).await {
                return Ok(self.lasting((repository, kind, content, end), turns, body));
            }
        }
        Err(turns.error())
    }

    /// The first part of an object, or all of it, and where that ends if it is a part.
    async fn first_at(
        &self,
        origin: &Origin,
        repository: &Repository,
        (kind, content): (ObjectKind, &ContentId),
        request: &Request,
    ) -> Result<(OriginBody, Option<u64>), SourceError> {
        let response = self.shared.send(origin, repository, request).await?;
        match response.status() {
            StatusCode::RANGE_NOT_SATISFIABLE if transfer::says_empty(response.headers()) => {
                let stream = stream::empty().boxed();
                return Ok((OriginBody { total: Some(0), start: 0, ranged: true, stream }, None));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {}
            StatusCode::PARTIAL_CONTENT => {
                let body = self.body(origin, repository, kind, request, response).await?;
                if body.total.is_some() {
                    return Ok((body, request.end));
                }
            }
            _ => return Ok((self.body(origin, repository, kind, request, response).await?, None)),
        }
        let whole = Request::object(repository, kind, content, 0, None);
        let whole = self.body_at(origin, repository, kind, &whole).await?;
        Ok((OriginBody { ranged: false, ..whole }, None))
    }

    /// Lets a body go on at the endpoints that are left, if there are several.
    fn lasting(
        &self,
        (repository, kind, content, end): (&Repository, ObjectKind, &ContentId, Option<u64>),
        turns: Turns,
        body: OriginBody,
    ) -> OriginBody {
        if turns.registry.origins.len() < 2 {
            return body;
        }
        let end = end.filter(|_| body.ranged);
        let part = Part { repository: repository.clone(), kind, content: *content, end };
        resuming(self.clone(), part, turns, body)
    }

    async fn body_at(
        &self,
        origin: &Origin,
        repository: &Repository,
        kind: ObjectKind,
        request: &Request,
    ) -> Result<OriginBody, SourceError> {
        let response = self.shared.send(origin, repository, request).await?;
        self.body(origin, repository, kind, request, response).await
    }

    async fn body(
        &self,
        origin: &Origin,
        repository: &Repository,
        kind: ObjectKind,
        request: &Request,
        response: Response,
    ) -> Result<OriginBody, SourceError> {
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
                transfer::into_body(response, kind, request, Arc::clone(&self.shared.counters))
            }
            _ => Err(self.shared.refusal(origin, repository, response).await),
        }
    }

    /// Lists a repository's tags, at most `n` after `last` if given (distribution spec, "Listing Tags").
    ///
    /// # Errors
    /// If the origin does not answer, refuses, or answers more than a page.
    pub async fn tags(
        &self,
        repository: &Repository,
        n: Option<u32>,
        last: Option<&str>,
    ) -> Result<Passed, SourceError> {
        let mut request = Request::listing(format!("/v2/{}/tags/list", repository.name()));
        request.query.extend(n.map(|n| ("n", n.to_string())));
        request.query.extend(last.map(|last| ("last", last.to_owned())));
        self.listing(repository, &request).await
    }

    /// Lists what refers to a manifest, of one artifact type if given (distribution spec, "Listing Referrers").
    ///
    /// # Errors
    /// If the origin does not answer, refuses (`NotFound` if it lacks this part of the API), or answers more than
    /// a page.
    pub async fn referrers(
        &self,
        repository: &Repository,
        content: &ContentId,
        artifact_type: Option<&str>,
    ) -> Result<Passed, SourceError> {
        let mut request = Request::listing(format!("/v2/{}/referrers/{content}", repository.name()));
        request.query.extend(artifact_type.map(|kind| ("artifactType", kind.to_owned())));
        self.listing(repository, &request).await
    }

    async fn listing(&self, repository: &Repository, request: &Request) -> Result<Passed, SourceError> {
        let mut turns = self.shared.registry(repository)?.turns(Use::Words);
        while let Some(origin) = turns.next() {
            if let Some(passed) = turns.take(self.listing_at(&origin, repository, request)).await {
                return Ok(passed);
            }
        }
        Err(turns.error())
    }

    async fn listing_at(
        &self,
        origin: &Origin,
        repository: &Repository,
        request: &Request,
    ) -> Result<Passed, SourceError> {
        let response = self.shared.send(origin, repository, request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.shared.refusal(origin, repository, response).await);
        }
        transfer::refuse_encoded(response.headers())?;
        let header = |name: &str| response.headers().get(name).cloned();
        let (content_type, link, filters_applied) =
            (header("content-type"), header("link"), header("oci-filters-applied"));
        let body = classify::body(response, LISTING_BYTES_MAX).await?;
        Ok(Passed { content_type, link, filters_applied, body })
    }
}
