//! The answer to each [`Route`]: what is asked of store and mesh in which order, and what is said of the result.
//!
//! A manifest is answered only when everything that it owes can be had (RUNTIMES: clients of the Podman family never
//! go upstream for a single blob), and always from memory, whole and verified. A blob is answered as it comes.
//!
//! `Accept` is not looked at. The bytes behind a digest have one media type, and what a tag stands for is the origin's
//! answer, which this node may have to give long after it was given; all runtimes send lists that take every kind.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use layermesh_proto::{
    ContentId, ObjectKind, Repository, TagRef,
    engine::{
        Urgency,
        event::{Basis, Provenance, Resolution, WantError},
    },
};
use tokio::time::timeout;

use super::{
    MirrorState,
    blob::{Ask, Interruption, Supply},
    lists::{self, Asked},
    manifest::{self, MANIFEST_LEN_MAX, Manifest, Owes},
    range::{self, Slice},
    refusal::{Code, Refusal},
    route::{Reference, Route},
    source::{BlobRead, Discovery, MirrorStore, ReadError},
};

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// Who said what a tag stands for, when it was not the origin just now.
pub(super) const PROVENANCE: HeaderName = HeaderName::from_static("layermesh-provenance");
/// Tries at a manifest that the store holds and then cannot read, before the disk is given up on.
const MANIFEST_TRIES: u32 = 3;

/// Answers one question.
pub(super) async fn answer<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    method: &Method,
    headers: &HeaderMap,
    asked: Asked<'_>,
    route: Route,
) -> Result<Response, Refusal> {
    match route {
        Route::Version => Ok(version(method)),
        Route::Manifest { repository, reference } => {
            let limit = state.limits.stall;
            let found = timeout(limit, found_manifest(state, &repository, reference)).await;
            let found = found.map_err(|_| too_slow(limit))??;
            manifest_response(state, method, headers, found)
        }
        Route::Blob { repository, content } => blob(state, method, headers, repository, content).await,
        Route::Tags { .. } | Route::Referrers { .. } => lists::answer(state, asked, route).await,
    }
}

fn too_slow(limit: Duration) -> Refusal {
    Refusal::unavailable(format!("it did not come within {limit:?}"))
}

fn version(method: &Method) -> Response {
    let body = if method == Method::HEAD { Body::empty() } else { Body::from("{}") };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("2"));
    response
}

/// A manifest that may be answered.
struct Found {
    content: ContentId,
    bytes: Bytes,
    manifest: Manifest,
    /// Set for a tag.
    resolution: Option<Resolution>,
}

async fn found_manifest<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    repository: &Repository,
    reference: Reference,
) -> Result<Found, Refusal> {
    let (content, resolution) = match reference {
        Reference::Digest(content) => (content, None),
        Reference::Tag(tag) => {
            let resolution = state.mesh.resolve(tag.clone()).await.map_err(refused_manifest)?;
            trace_resolution(&tag, &resolution);
            (resolution.content, Some(resolution))
        }
    };
    let bytes = whole_manifest(state, repository, content).await?;
    let manifest = manifest::parse(&bytes)
        .map_err(|error| Refusal::unknown(Code::ManifestUnknown, format!("{content} is no manifest: {error}")))?;
    if matches!(manifest.owes, Owes::All(_)) {
        state.mesh.prepare(repository.clone(), (content, bytes.clone()), Vec::new(), Urgency::Runtime).await;
    }
    let (owed, enough) = match &manifest.owes {
        Owes::All(blobs) => (blobs, 0),
        // Which children a client takes is its choice; without any there is nothing to choose.
        Owes::Some(manifests) => (manifests, manifests.len().saturating_sub(1)),
    };
    if !owed.is_empty() {
        let missing = state.mesh.promise(owed.clone(), repository.clone()).await;
        if missing.len() > enough {
            tracing::info!(%repository, %content, missing = missing.len(), "not answering a manifest without its content");
            let first = missing.first().map(ToString::to_string).unwrap_or_default();
            return Err(Refusal::unavailable(format!("{} of its contents cannot be had now: {first}", missing.len())));
        }
    }
    // Nor is a client sent on its way that would be stopped half-way by a store that is full.
    if let Err(error) = state.store.fits(manifest.sizes.clone()).await {
        tracing::warn!(%repository, %content, error, "not answering a manifest whose content has no room");
        return Err(Refusal::unavailable(format!("this node has no room for the image: {error}")));
    }
    Ok(Found { content, bytes, manifest, resolution })
}

fn refused_manifest(error: WantError) -> Refusal {
    Refusal::of_want(&error, Code::ManifestUnknown)
}

/// Says in the log who said what a tag stands for; for people who wonder why they got an old image, so what an origin did
/// not say itself is worth a line.
fn trace_resolution(tag: &TagRef, resolution: &Resolution) {
    let Resolution { content, provenance, basis, age } = resolution;
    let said_by = said_by(*provenance);
    let age_s = age.map(|age| age.as_secs());
    match basis {
        Basis::Asked => tracing::debug!(%tag, %content, "the origin says what the tag stands for"),
        Basis::Fresh => {
            tracing::debug!(%tag, %content, said_by, age_s, "the site heard what the tag stands for lately")
        }
        Basis::Policy => {
            tracing::info!(%tag, %content, said_by, age_s, "answering a tag without the origin, as the registry's policy is");
        }
        Basis::Away => {
            tracing::info!(%tag, %content, said_by, age_s, "the origin is away: answering a tag from what the site knows");
        }
    }
}

/// Who said it, for people.
fn said_by(provenance: Provenance) -> String {
    match provenance {
        Provenance::Origin => "the origin".to_owned(),
        Provenance::Remembered { .. } => "the origin to this node".to_owned(),
        Provenance::Peer { peer, .. } => format!("the origin to {peer}"),
        Provenance::Signed => "a signed release".to_owned(),
    }
}

/// A manifest's bytes, from the store or, through the mesh, into the store.
async fn whole_manifest<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    repository: &Repository,
    content: ContentId,
) -> Result<Bytes, Refusal> {
    for _ in 0..MANIFEST_TRIES {
        if state.store.size_of(&content).is_none() {
            fetch_manifest(state, repository, content).await?;
        }
        match state.store.read_whole(&content, MANIFEST_LEN_MAX).await {
            Ok(bytes) => return Ok(bytes),
            // Withdrawn since, or evicted between the want's end and the read: want it again.
            Err(ReadError::Damaged | ReadError::NotHeld) => {}
            Err(ReadError::TooLarge) => return Err(too_large(&content)),
            Err(error @ (ReadError::Discarded | ReadError::Io(_))) => {
                return Err(Refusal::unavailable(error.to_string()));
            }
        }
    }
    Err(Refusal::unavailable("the store does not keep it"))
}

async fn fetch_manifest<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    repository: &Repository,
    content: ContentId,
) -> Result<(), Refusal> {
    let mut reader = state.store.reader(content);
    let mut want = state.mesh.want(content, ObjectKind::Manifest, Some(repository.clone()), Urgency::Runtime).await;
    want.reader_at(0);
    tokio::select! {
        biased;
        ended = want.ended() => return ended.map_err(refused_manifest),
        // Somebody asks for a layer as if it were a manifest: do not have the site fetch it for that.
        size = reader.size() => if size > MANIFEST_LEN_MAX {
            return Err(too_large(&content));
        },
    }
    want.ended().await.map_err(refused_manifest)
}

fn too_large(content: &ContentId) -> Refusal {
    Refusal::unknown(Code::ManifestUnknown, format!("{content} is larger than a manifest"))
}

fn manifest_response<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    method: &Method,
    headers: &HeaderMap,
    found: Found,
) -> Result<Response, Refusal> {
    let mut response = Response::new(Body::empty());
    describe(&mut response, &found.content)?;
    if let Some(provenance) = found.resolution.as_ref().and_then(shown) {
        response.headers_mut().insert(PROVENANCE, text_value(&provenance)?);
    }
    if range::already_there(headers, &found.content) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, text_value(&found.manifest.media_type)?);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(found.bytes.len()));
    if method == Method::GET {
        let counters = state.counters.clone();
        let chunk = stream::once(async move {
            counters.to_runtimes.add(found.bytes.len() as u64);
            Ok::<_, std::convert::Infallible>(found.bytes)
        });
        *response.body_mut() = Body::from_stream(chunk);
    }
    Ok(response)
}

/// Of an answer that the origin did not give now: who said so, why that counts, and how old it is.
fn shown(resolution: &Resolution) -> Option<String> {
    let (said_by, observed, peer) = match resolution.provenance {
        Provenance::Origin => return None,
        Provenance::Remembered { observed_unix_s } => ("remembered", observed_unix_s, None),
        Provenance::Peer { peer, observed_unix_s } => ("peer", observed_unix_s, Some(peer)),
        Provenance::Signed => ("signed", 0, None),
    };
    let because = match resolution.basis {
        Basis::Asked => "asked",
        Basis::Fresh => "fresh",
        Basis::Policy => "policy",
        Basis::Away => "origin-away",
    };
    let mut text = format!("{said_by}; because={because}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("; {name}={value}"));
        }
    };
    add("age", resolution.age.map(|age| age.as_secs().to_string()));
    add("observed", Some(observed).filter(|observed| *observed > 0).map(|observed| observed.to_string()));
    add("peer", peer.map(|peer| peer.to_string()));
    Some(text)
}

async fn blob<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    method: &Method,
    headers: &HeaderMap,
    repository: Repository,
    content: ContentId,
) -> Result<Response, Refusal> {
    let ask =
        Ask { store: state.store.clone(), mesh: state.mesh.clone(), content, repository, stall: state.limits.stall };
    let mut supply = Supply::open(ask).await.map_err(refused_blob)?;
    let size = supply.size();
    let mut response = Response::new(Body::empty());
    describe(&mut response, &content)?;
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if range::already_there(headers, &content) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // RFC 9110, 14.2: ranges are for GET alone.
    let slice = if method == Method::GET { range::slice(headers, &content, size) } else { Slice::Whole };
    let (start, end) = match slice {
        Slice::Whole => (0, size),
        Slice::Part(start, end) => (start, end),
        Slice::Unsatisfiable => return Err(Refusal::outside(size)),
    };
    if let Slice::Part(..) = slice {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = text_value(&format!("bytes {start}-{}/{size}", end - 1))?;
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if method == Method::GET {
        supply.limit(start, end);
        // A client can still be sent upstream while no byte has gone out, so the head waits for the first.
        let first = supply.next().await.map_err(refused_blob)?;
        *response.body_mut() = streamed(state, supply, first);
    }
    Ok(response)
}

/// A body of what the supply gives, counted as it leaves. Nothing is read ahead of the connection.
fn streamed<S: MirrorStore, D: Discovery>(state: &MirrorState<S, D>, supply: Supply<S>, first: Option<Bytes>) -> Body {
    let counters = state.counters.clone();
    let Some(first) = first else { return Body::empty() };
    let rest = stream::unfold(Some(supply), |supply| async move {
        let mut supply = supply?;
        match supply.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(supply))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(content = %supply.content(), offset = supply.offset(), %error, "cutting a blob off");
                Some((Err(error), None))
            }
        }
    });
    let all = stream::once(async move { Ok(first) }).chain(rest).inspect(move |chunk: &Result<Bytes, Interruption>| {
        if let Ok(bytes) = chunk {
            counters.to_runtimes.add(bytes.len() as u64);
        }
    });
    Body::from_stream(all)
}

fn refused_blob(interruption: Interruption) -> Refusal {
    match interruption {
        Interruption::Want(error) => Refusal::of_want(&error, Code::BlobUnknown),
        Interruption::Read(_) | Interruption::WrongSize => Refusal::unavailable(interruption.to_string()),
        Interruption::Stalled(limit) => too_slow(limit),
    }
}

/// The headers that every answer about a content carries.
fn describe(response: &mut Response, content: &ContentId) -> Result<(), Refusal> {
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, text_value(&content.to_string())?);
    headers.insert(header::ETAG, text_value(&range::etag(content))?);
    Ok(())
}

/// Text as a header's value. What comes here is ASCII by its grammar; should it not be, the client goes upstream.
pub(super) fn text_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|_| Refusal::unavailable("the answer has no form that HTTP can carry"))
}
