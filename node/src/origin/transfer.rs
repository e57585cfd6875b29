//! Requests and what is believed of their answers.
//!
//! An answer's headers are claims: each is checked against the request and against the others before its body is
//! passed on, and the body against them as it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use layermesh_proto::{Algorithm, ContentId, ObjectKind, Repository, engine::event::SourceError, piece::BLOB_SIZE_MAX};
use reqwest::{
    Method, Response, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        HeaderMap, HeaderName, RANGE,
    },
};
use serde::Deserialize;

use super::{
    Descriptor, LAYERMESH_VIA, MANIFEST_BYTES_MAX, Origin, OriginBody, Shared,
    classify::{self, request_error, shown},
    endpoint::Endpoint,
    turns::Registry,
};
use crate::counters::Counters;

/// Everything that a tag can stand for; a registry converts or refuses what is not listed.
const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.artifact.manifest.v1+json, \
    */*;q=0.1";
/// The digest of the answered manifest (distribution spec, "Pulling manifests").
const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// Longest media type: RFC 6838 allows 127 characters on each side of the slash.
const MEDIA_TYPE_LEN_MAX: usize = 255;

/// A request to a registry's API.
#[derive(Debug)]
pub(super) struct Request {
    method: Method,
    path: String,
    pub(super) query: Vec<(&'static str, String)>,
    accept: &'static str,
    start: u64,
    /// Excluded; to the object's end if `None`.
    pub(super) end: Option<u64>,
}

impl Request {
    pub(super) fn manifest(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), accept: ACCEPT_MANIFESTS, start: 0, end: None }
    }

    pub(super) fn object(
        repository: &Repository,
        kind: ObjectKind,
        content: &ContentId,
        start: u64,
        end: Option<u64>,
    ) -> Self {
        let (part, accept) = match kind {
            ObjectKind::Manifest => ("manifests", ACCEPT_MANIFESTS),
            ObjectKind::Blob => ("blobs", "*/*"),
        };
        let path = format!("/v2/{}/{part}/{content}", repository.name());
        Self { method: Method::GET, path, query: Vec::new(), accept, start, end }
    }

    pub(super) fn listing(path: String) -> Self {
        Self { method: Method::GET, path, query: Vec::new(), accept: "*/*", start: 0, end: None }
    }

    /// The `Range` to ask for (RFC 9110 section 14.2), `None` for all of it.
    fn range(&self) -> Option<String> {
        match self.end {
            Some(end) => Some(format!("bytes={}-{}", self.start, end.saturating_sub(1))),
            None if self.start > 0 => Some(format!("bytes={}-", self.start)),
            None => None,
        }
    }
}

impl Shared {
    pub(super) fn registry(&self, repository: &Repository) -> Result<Arc<Registry>, SourceError> {
        let registry = repository.registry();
        if let Some(known) = self.configured.get(registry) {
            return Ok(Arc::clone(known));
        }
        let endpoint =
            Endpoint::unconfigured(registry, &self.plain).map_err(|error| SourceError::Failed(error.to_string()))?;
        Ok(Registry::new(vec![Origin { endpoint, credentials: None, login: registry.to_owned() }]))
    }

    /// Sends a request, and once more with a new authorization if the registry asks for one.
    pub(super) async fn send(
        &self,
        origin: &Origin,
        repository: &Repository,
        request: &Request,
    ) -> Result<Response, SourceError> {
        let authorization = self.authenticator.current(origin, repository).await;
        let response = self.send_once(origin, request, authorization.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !origin.endpoint.owns(response.url()) {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let renewed = self.authenticator.renew(origin, repository, authorization.as_ref(), &headers);
        match Box::pin(renewed).await {
            Ok(authorization) => self.send_once(origin, request, Some(&authorization)).await,
            Err(SourceError::Unauthorized(reason)) => match classify::refusal(response, true).await {
                SourceError::Unauthorized(said) => Err(SourceError::Unauthorized(format!("{said} ({reason})"))),
                other => Err(other),
            },
            Err(other) => Err(other),
        }
    }

    async fn send_once(
        &self,
        origin: &Origin,
        request: &Request,
        authorization: Option<&reqwest::header::HeaderValue>,
    ) -> Result<Response, SourceError> {
        let mut url = origin.endpoint.base.clone();
        url.set_path(&request.path);
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut builder = origin
            .endpoint
            .client
            .get()
            .map_err(request_error)?
            .request(request.method.clone(), url)
            .header(ACCEPT, request.accept)
            .header(ACCEPT_ENCODING, "identity")
            .header(LAYERMESH_VIA, self.via.clone());
        if let Some(range) = request.range() {
            builder = builder.header(RANGE, range);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        builder.send().await.map_err(request_error)
    }

    /// The error that an answer other than the one asked for stands for.
    pub(super) async fn refusal(&self, origin: &Origin, repository: &Repository, response: Response) -> SourceError {
        let own = origin.endpoint.owns(response.url());
        if own && matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // The next request starts without it, so a log-in since then is noticed.
            self.authenticator.forget(origin, repository).await;
        }
        classify::refusal(response, own).await
    }
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// `Content-Encoding` would change the bytes, and with them the digest.
pub(super) fn refuse_encoded(headers: &HeaderMap) -> Result<(), SourceError> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(SourceError::Failed(format!(
            "sent a body encoded as {}, although asked for it as it is",
            shown(&String::from_utf8_lossy(encoding.as_bytes()))
        ))),
        _ => Ok(()),
    }
}

fn claimed_digest(headers: &HeaderMap) -> Result<Option<ContentId>, SourceError> {
    let Some(value) = headers.get(DOCKER_CONTENT_DIGEST) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|error| SourceError::Failed(format!("Docker-Content-Digest: {error}")))
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next()?.trim();
    (essence.contains('/') && essence.len() <= MEDIA_TYPE_LEN_MAX).then(|| essence.to_owned())
}

/// What a HEAD's headers say, `None` if they do not say it all.
pub(super) fn descriptor_of_headers(headers: &HeaderMap) -> Result<Option<Descriptor>, SourceError> {
    let Some(content) = claimed_digest(headers)? else { return Ok(None) };
    let Some(media_type) = media_type(headers) else { return Ok(None) };
    match number(headers, CONTENT_LENGTH) {
        // Registries that do not know the length leave it out or say 0; no manifest is empty.
        None | Some(0) => Ok(None),
        Some(size) if size > MANIFEST_BYTES_MAX => Err(manifest_too_large(size)),
        Some(size) => Ok(Some(Descriptor { content, size, media_type })),
    }
}

/// What a manifest is, from its bytes.
pub(super) fn descriptor_of_bytes(headers: &HeaderMap, bytes: &Bytes) -> Result<Descriptor, SourceError> {
    /// The property that OCI and Docker manifests share (image spec, "mediaType").
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        media_type: Option<String>,
    }
    let claimed = claimed_digest(headers)?;
    let algorithm = claimed.map_or(Algorithm::Sha256, |content| content.algorithm());
    let content = ContentId::of(algorithm, bytes);
    if claimed.is_some_and(|claimed| claimed != content) {
        return Err(SourceError::Failed("sent a manifest that does not have the digest it claims".to_owned()));
    }
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|_| SourceError::Failed("answered something that is not a manifest".to_owned()))?;
    let media_type = manifest
        .media_type
        .filter(|text| text.contains('/') && text.len() <= MEDIA_TYPE_LEN_MAX)
        .or_else(|| media_type(headers))
        .ok_or_else(|| SourceError::Failed("sent a manifest without a media type".to_owned()))?;
    Ok(Descriptor { content, size: bytes.len() as u64, media_type })
}

fn manifest_too_large(size: u64) -> SourceError {
    SourceError::Failed(format!("has a manifest of {size} bytes, more than {MANIFEST_BYTES_MAX}"))
}

/// `bytes first-last/total` (RFC 9110 section 14.4).
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(total.parse().ok()?) };
        let range = Self { first: first.parse().ok()?, last: last.parse().ok()?, total };
        (range.first <= range.last && range.total.is_none_or(|total| range.last < total)).then_some(range)
    }
}

/// Whether a 416 says that the object is empty.
pub(super) fn says_empty(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    text.is_some_and(|text| text.trim() == "bytes */0")
}

/// The bytes of a 200 or a 206.
pub(super) fn into_body(
    response: Response,
    kind: ObjectKind,
    request: &Request,
    counters: Arc<Counters>,
) -> Result<OriginBody, SourceError> {
    let headers = response.headers();
    refuse_encoded(headers)?;
    let length = number(headers, CONTENT_LENGTH);
    let partial = response.status() == StatusCode::PARTIAL_CONTENT;
    let (start, end, total) = match partial {
        true => (request.start, request.end, total_of_range(headers, request, length)?),
        false => (0, None, length),
    };
    let ranged = partial || request.range().is_none();
    let bytes_max = match kind {
        ObjectKind::Manifest => MANIFEST_BYTES_MAX,
        ObjectKind::Blob => BLOB_SIZE_MAX,
    };
    if let Some(total) = total.filter(|&total| total > bytes_max) {
        return Err(SourceError::Failed(format!("has a {kind} of {total} bytes, more than {bytes_max}")));
    }
    let expected = total.map(|total| end.map_or(total, |end| end.min(total)) - start);
    let bytes = BodyBytes { response, received: 0, expected, bytes_max: bytes_max.saturating_sub(start), counters };
    let stream = stream::unfold(Some(bytes), |bytes| async move {
        let mut bytes = bytes?;
        match bytes.next().await? {
            Ok(chunk) => Some((Ok(chunk), Some(bytes))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(OriginBody { total, start, ranged, stream: stream.boxed() })
}

fn total_of_range(headers: &HeaderMap, request: &Request, length: Option<u64>) -> Result<Option<u64>, SourceError> {
    let nonsense = |what: &str| Err(SourceError::Failed(format!("answered part of the object, {what}")));
    if request.range().is_none() {
        return nonsense("although asked for the whole");
    }
    let text = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let Some(range) = text.and_then(ContentRange::parse) else {
        return nonsense("without saying which");
    };
    if range.first != request.start {
        return nonsense("but not the one asked for");
    }
    if length.is_some_and(|length| length.checked_sub(1) != Some(range.last - range.first)) {
        return nonsense("with a length that is not its range's");
    }
    Ok(range.total)
}

/// A range that is accepted is the one that was asked for.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_ranges(headers: &HeaderMap) {
    let content = ContentId::of(Algorithm::Sha256, b"x");
    let length = number(headers, CONTENT_LENGTH);
    for start in [0, 5] {
        let request = Request::object(&super::fuzzing::repository(), ObjectKind::Blob, &content, start, Some(10));
        if let Ok(Some(total)) = total_of_range(headers, &request, length) {
            assert!(total > start);
        }
    }
}

/// A body under way.
struct BodyBytes {
    response: Response,
    received: u64,
    expected: Option<u64>,
    bytes_max: u64,
    counters: Arc<Counters>,
}

impl BodyBytes {
    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        let chunk = match self.response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                let expected = self.expected.filter(|&expected| expected != self.received)?;
                let reason = format!("the body ended after {} of {expected} bytes", self.received);
                return Some(Err(SourceError::Unreachable(reason)));
            }
            Err(error) => return Some(Err(request_error(error))),
        };
        self.counters.from_origin.add(chunk.len() as u64);
        self.received += chunk.len() as u64;
        if self.received > self.expected.unwrap_or(self.bytes_max) {
            return Some(Err(SourceError::Failed("sent more bytes than the object has".to_owned())));
        }
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        assert_eq!(ContentRange::parse("bytes 5-9/10"), range(5, 9, Some(10)));
        assert_eq!(ContentRange::parse("bytes 5-9/*"), range(5, 9, None));
        for nonsense in
            ["", "bytes", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "5-9/10", "bytes 5-9", "bytes a-9/10"]
        {
            assert_eq!(ContentRange::parse(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn the_longest_range_there_can_be_has_no_length() {
        let mut headers = HeaderMap::new();
        let range = format!("bytes 0-{}/*", u64::MAX);
        headers.insert(CONTENT_RANGE, range.parse().unwrap());
        let content = ContentId::of(Algorithm::Sha256, b"x");
        let repository = crate::origin::fuzzing::repository();
        let request = Request::object(&repository, ObjectKind::Blob, &content, 0, Some(10));
        assert!(total_of_range(&headers, &request, Some(10)).is_err());
        assert!(total_of_range(&headers, &request, Some(0)).is_err());
        assert_eq!(total_of_range(&headers, &request, None), Ok(None));
    }
}
