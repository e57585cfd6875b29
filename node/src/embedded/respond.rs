//! Answers to requests: routes, ranges, and the faults among them.

use std::{collections::VecDeque, io::SeekFrom, sync::Arc};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
        header::{
            ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER,
            WWW_AUTHENTICATE,
        },
    },
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::{
    faults::Fault,
    registry::{Object, RequestRecord, Source, State},
};
use crate::origin::LAYERMESH_VIA;
use crate::pace::{CHUNK_BYTES_MAX, Pace};

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Answers a request.
pub(super) async fn respond(state: &Arc<State>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let text = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    state.record(RequestRecord {
        method: request.method().clone(),
        path: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        range: text("range"),
        authorization: request.headers().contains_key(AUTHORIZATION),
        via: text(LAYERMESH_VIA),
    });
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this registry is for pulling");
    }
    let mut faults: VecDeque<Fault> = state.faults.take(request.method(), path).into();
    for fault in &faults {
        match fault {
            Fault::Blackhole => return std::future::pending().await,
            Fault::Status { code, retry_after } => return status(*code, retry_after.as_deref()),
            Fault::Redirect { to } => return redirect(to, path),
            _ => {}
        }
    }
    let mut response = route(state, request, faults.make_contiguous()).await;
    for fault in faults {
        if let Fault::Header { name, value } = fault {
            response.headers_mut().remove(name);
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
    }
    response
}

async fn route(state: &Arc<State>, request: &Request<Incoming>, faults: &[Fault]) -> Response<Body> {
    let path = request.uri().path();
    let authorization = request.headers().get(AUTHORIZATION);
    if path == "/token" {
        return token(state, request.uri().query().unwrap_or_default(), authorization);
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "there is only /v2/");
    };
    let named = split(rest);
    let repository = named.as_ref().map(|(repository, _, _)| *repository);
    if let Some(challenge) = state.gate.challenge(authorization, repository, &state.base_url()) {
        let mut response = refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        return response;
    }
    let object = match named {
        None if rest.is_empty() => return json(StatusCode::OK, "{}".to_owned()),
        Some((repository, "tags", "list")) => return tags(state, repository, request.uri().query()),
        Some((repository, "manifests", reference)) => {
            let content = reference.parse().ok().or_else(|| state.tag(repository, reference));
            content.and_then(|content| state.manifest(repository, content)).ok_or("MANIFEST_UNKNOWN")
        }
        Some((_, "blobs", digest)) => {
            digest.parse().ok().and_then(|content| state.blob(&content)).ok_or("BLOB_UNKNOWN")
        }
        _ => Err("NOT_FOUND"),
    };
    match object {
        Ok(object) => Box::pin(send(state, request, object, faults)).await,
        Err(code) => refuse(StatusCode::NOT_FOUND, code, "unknown to this registry"),
    }
}

/// Repository, kind and reference of a path under `/v2/`.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let (rest, reference) = path.rsplit_once('/')?;
    let (repository, kind) = rest.rsplit_once('/')?;
    (!repository.is_empty() && !reference.is_empty()).then_some((repository, kind, reference))
}

fn query_value(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn token(state: &State, query: &str, authorization: Option<&HeaderValue>) -> Response<Body> {
    let scope = query_value(query, "scope").unwrap_or_default();
    match state.gate.token(authorization, &scope) {
        Some(token) => json(StatusCode::OK, serde_json::json!({"token": token, "expires_in": 300}).to_string()),
        None => refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect user name or password"),
    }
}

/// A page of tags (distribution spec, "Listing Tags").
fn tags(state: &State, repository: &str, query: Option<&str>) -> Response<Body> {
    let Some(mut tags) = state.tags(repository) else {
        return refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "unknown to this registry");
    };
    let query = query.unwrap_or_default();
    if let Some(last) = query_value(query, "last") {
        tags.retain(|tag| *tag > last);
    }
    let mut link = None;
    if let Some(n) = query_value(query, "n").and_then(|n| n.parse::<usize>().ok())
        && n < tags.len()
    {
        tags.truncate(n);
        link = tags.last().map(|last| format!("</v2/{repository}/tags/list?n={n}&last={last}>; rel=\"next\""));
    }
    let mut response = json(StatusCode::OK, serde_json::json!({"name": repository, "tags": tags}).to_string());
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(link).ok()) {
        response.headers_mut().insert("link", link);
    }
    response
}

/// Part of an object that a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part { first: u64, last: u64 },
    Nothing,
}

/// Reads a single range (RFC 9110 section 14.2); what is not one is ignored, as the RFC says.
fn asked(headers: &HeaderMap, size: u64) -> Asked {
    let spec = headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Asked::Whole };
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => return Asked::Whole,
        (Ok(first), Ok(last)) => (first, last),
        (Ok(first), Err(_)) if last.is_empty() => (first, u64::MAX),
        (Err(_), Ok(length)) if first.is_empty() && length > 0 => (size.saturating_sub(length), u64::MAX),
        _ => return Asked::Whole,
    };
    if first >= size { Asked::Nothing } else { Asked::Part { first, last: last.min(size - 1) } }
}

async fn send(state: &Arc<State>, request: &Request<Incoming>, object: Object, faults: &[Fault]) -> Response<Body> {
    let asked = match asked(request.headers(), object.size) {
        _ if faults.contains(&Fault::IgnoreRange) => Asked::Whole,
        Asked::Part { .. } if faults.contains(&Fault::OddRangeNotSatisfiable) => Asked::Nothing,
        asked => asked,
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(digest) = HeaderValue::try_from(object.content.to_string()) {
        headers.insert(DOCKER_CONTENT_DIGEST, digest);
    }
    let (first, end) = match asked {
        Asked::Whole => (0, object.size),
        Asked::Part { first, last } => (first, last + 1),
        Asked::Nothing => return not_satisfiable(object.size, faults),
    };
    if let Ok(media_type) = HeaderValue::try_from(&object.media_type) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - first));
    if let Asked::Part { first, last } = asked {
        let range = format!("bytes {first}-{last}/{}", object.size);
        if let Ok(range) = HeaderValue::try_from(range) {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if request.method() == Method::GET {
        match Sender::open(state, request.uri().path(), object, first..end, faults).await {
            Ok(sender) => *response.body_mut() = sender.into_body(),
            Err(error) => {
                tracing::warn!(%error, "the embedded registry cannot read a blob's file");
                return refuse(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the blob's file cannot be read");
            }
        }
    }
    response
}

fn not_satisfiable(size: u64, faults: &[Fault]) -> Response<Body> {
    if faults.contains(&Fault::OddRangeNotSatisfiable) {
        // A stream's length is not corrected, and one that is not ready at its end lets hyper send what there is.
        let said = stream::once(async { Ok(Bytes::from_static(b"invalid range: failed to overlap\n")) });
        let end = stream::once(async {
            tokio::task::yield_now().await;
            Ok::<_, std::io::Error>(Bytes::new())
        });
        let body = said.chain(end);
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(size));
        return response;
    }
    let mut response = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", "there are no such bytes");
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, range);
    }
    response
}

fn status(code: u16, retry_after: Option<&str>) -> Response<Body> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = refuse(status, "UNKNOWN", "this registry was told to answer so");
    if let Some(value) = retry_after.and_then(|value| HeaderValue::try_from(value).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

fn redirect(to: &str, path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::try_from(format!("{to}{path}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// An error as the distribution spec has them ("Error Codes").
fn refuse(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string())
}

fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body under way.
struct Sender {
    state: Arc<State>,
    path: String,
    input: Input,
    /// Offset in the object of the next byte.
    offset: u64,
    /// Offset where the object's bytes end and those of [`Fault::Longer`] begin.
    end: u64,
    longer: u64,
    sent: u64,
    cut: Option<u64>,
    stall: Option<u64>,
    flip: Option<u64>,
    paces: Vec<Arc<Pace>>,
}

enum Input {
    Memory(Bytes),
    File(tokio::fs::File),
}

impl Sender {
    async fn open(
        state: &Arc<State>,
        path: &str,
        object: Object,
        range: std::ops::Range<u64>,
        faults: &[Fault],
    ) -> std::io::Result<Self> {
        let input = match object.source {
            Source::Memory(bytes) => Input::Memory(bytes),
            Source::File(path) => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(SeekFrom::Start(range.start)).await?;
                Input::File(file)
            }
        };
        let mut sender = Self {
            state: Arc::clone(state),
            path: path.to_owned(),
            input,
            offset: range.start,
            end: range.end,
            longer: 0,
            sent: 0,
            cut: None,
            stall: None,
            flip: None,
            paces: vec![Arc::clone(&state.pace)],
        };
        for fault in faults {
            match fault {
                Fault::Cut { after } => sender.cut = Some(*after),
                Fault::Stall { after } => sender.stall = Some(*after),
                Fault::Flip { offset } => sender.flip = Some(*offset),
                Fault::Longer { by } => sender.longer = *by,
                Fault::Slow { bytes_per_s } => sender.paces.push(Arc::new(Pace::new(Some(*bytes_per_s)))),
                _ => {}
            }
        }
        Ok(sender)
    }

    fn into_body(self) -> Body {
        Body::from_stream(stream::try_unfold(self, |mut sender| async move {
            Ok::<_, std::io::Error>(sender.next().await?.map(|chunk| (chunk, sender)))
        }))
    }

    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.stall == Some(self.sent) {
            return std::future::pending().await;
        }
        if self.cut == Some(self.sent) {
            // hyper discards what it has not sent yet when a body fails, and sends when a body is not ready.
            tokio::task::yield_now().await;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        let left = if self.offset < self.end { self.end - self.offset } else { self.longer };
        let until = |point: Option<u64>| point.map_or(u64::MAX, |point| point - self.sent);
        let pace = self.paces.iter().map(|pace| pace.chunk_bytes()).fold(CHUNK_BYTES_MAX, u64::min);
        let length = left.min(until(self.cut)).min(until(self.stall)).min(pace);
        if length == 0 {
            return Ok(None);
        }
        for pace in &self.paces {
            pace.pass(length).await;
        }
        let chunk = self.read(length).await?;
        self.sent += chunk.len() as u64;
        self.state.count(&self.path, chunk.len() as u64);
        Ok(Some(chunk))
    }

    /// The next `length` bytes, at most [`CHUNK_BYTES_MAX`].
    async fn read(&mut self, length: u64) -> std::io::Result<Bytes> {
        #[allow(clippy::cast_possible_truncation, reason = "a chunk is at most 64 KiB")]
        let length = length.min(CHUNK_BYTES_MAX) as usize;
        if self.offset >= self.end {
            self.longer -= length as u64;
            return Ok(Bytes::from(vec![0; length]));
        }
        let mut chunk = match &mut self.input {
            Input::Memory(bytes) => {
                #[allow(clippy::cast_possible_truncation, reason = "an offset into bytes in memory")]
                let at = self.offset as usize;
                bytes.slice(at..at + length)
            }
            Input::File(file) => {
                let mut chunk = vec![0; length];
                file.read_exact(&mut chunk).await?;
                chunk.into()
            }
        };
        if let Some(flip) = self.flip
            && (self.offset..self.offset + length as u64).contains(&flip)
        {
            let mut wrong = chunk.to_vec();
            #[allow(clippy::cast_possible_truncation, reason = "less than the chunk's length")]
            let at = (flip - self.offset) as usize;
            wrong[at] = !wrong[at];
            chunk = wrong.into();
        }
        self.offset += length as u64;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        let part = |first, last| Asked::Part { first, last };
        for (text, expected) in [
            ("bytes=0-", part(0, 9)),
            ("bytes=3-5", part(3, 5)),
            ("bytes=3-50", part(3, 9)),
            ("bytes=-4", part(6, 9)),
            ("bytes=-40", part(0, 9)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=5-3", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=-0", Asked::Whole),
            ("items=0-1", Asked::Whole),
            ("bytes=x-", Asked::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            assert_eq!(asked(&headers, 10), expected, "{text}");
        }
    }

    #[test]
    fn paths_are_split_from_the_right() {
        assert_eq!(split("a/b/manifests/v1"), Some(("a/b", "manifests", "v1")));
        assert_eq!(split("manifests/v1"), None);
        assert_eq!(split(""), None);
    }
}
