//! The admin API's routes for seeding.

use axum::{
    Json, Router,
    body::{Body, BodyDataStream},
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use futures::{StreamExt as _, stream};
use layermesh_proto::{ContentId, ContentIdError};
use serde::Deserialize;

use super::{Keep, ReceiveError, SeedError, compare, finish, keep, needed_from, receive};
use crate::{
    admin::{
        Asked, problem,
        types::{SeedBlob, SeedNeed, SeedPlan, SeedPlanRequest, SeedRequest, SeedSummary},
    },
    contents::PARTS_MAX,
    mesh::Mesh,
    store::{BeginError, BlobReader, CompleteError, ReadError, RoomError, Store, WriteError},
};

/// Largest list of blobs, in bytes: some 200 bytes for each part of the largest image.
const PLAN_BYTES_MAX: usize = PARTS_MAX * 256;
/// Bytes of a refused body that are read, so that whoever sends it comes to read why.
const DRAINED_BYTES_MAX: usize = 64 << 20;
/// Bytes read from the store at a time.
const READ_LEN: usize = 256 << 10;

#[derive(Debug, Clone)]
struct Seeding {
    store: Store,
    mesh: Mesh,
}

/// Routes to bring images to a node, and to read its blobs.
pub fn routes(store: Store, mesh: Mesh) -> Router {
    Router::new()
        .route("/v1/seed/plan", post(plan))
        .route("/v1/seed/blobs/{digest}", put(take))
        .route("/v1/seed/blobs/{digest}/compare", post(check))
        .route("/v1/seed/images", post(end))
        .route("/v1/blobs/{digest}", get(read))
        .layer(DefaultBodyLimit::max(PLAN_BYTES_MAX))
        .with_state(Seeding { store, mesh })
}

#[derive(Debug, Deserialize)]
struct Sent {
    size: u64,
    #[serde(default)]
    from: u64,
}

async fn plan(
    State(seeding): State<Seeding>,
    Asked(request): Asked<SeedPlanRequest>,
) -> Result<Json<SeedPlan>, Response> {
    let (mut blobs, mut parts) = (Vec::new(), Vec::new());
    for SeedBlob { digest, size } in request.blobs {
        let content = digest.parse::<ContentId>().map_err(no_digest)?;
        let from = needed_from(&seeding.store, &content);
        blobs.push(SeedNeed { digest, from });
        parts.push((content, size));
    }
    let contents = parts.iter().map(|(content, _)| *content).collect();
    seeding.store.fits(parts).await.map_err(|error| {
        let status = match error {
            RoomError::Short(_) => StatusCode::INSUFFICIENT_STORAGE,
            RoomError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        problem(status, error.to_string())
    })?;
    if let Some(image) = &request.image {
        keep(&seeding.store, image, contents).await.map_err(|error| seed_refused(&error))?;
    }
    Ok(Json(SeedPlan { blobs }))
}

async fn take(
    State(seeding): State<Seeding>,
    Path(digest): Path<String>,
    Query(sent): Query<Sent>,
    body: Body,
) -> Result<StatusCode, Response> {
    let content = digest.parse::<ContentId>().map_err(no_digest)?;
    let mut body = body.into_data_stream();
    match receive(&seeding.store, content, sent.size, sent.from, &mut body, Keep::WhatCame).await {
        Ok(()) => {
            seeding.mesh.took_in(content, sent.size).await;
            Ok(StatusCode::CREATED)
        }
        Err(error) => Err(refuse(body, &error).await),
    }
}

async fn check(
    State(seeding): State<Seeding>,
    Path(digest): Path<String>,
    Query(sent): Query<Sent>,
    body: Body,
) -> Result<StatusCode, Response> {
    let content = digest.parse::<ContentId>().map_err(no_digest)?;
    let mut body = body.into_data_stream();
    match compare(&seeding.store, content, sent.size, &mut body).await {
        Ok(dropped) => {
            tracing::info!(%content, dropped, "compared what was begun of a blob with what is brought");
            Ok(StatusCode::NO_CONTENT)
        }
        Err(error) => Err(refuse(body, &error).await),
    }
}

/// Says why, once what is still being sent was read.
async fn refuse(mut body: BodyDataStream, error: &ReceiveError) -> Response {
    let mut left = DRAINED_BYTES_MAX;
    while let Some(Ok(chunk)) = body.next().await {
        left = left.saturating_sub(chunk.len());
        if left == 0 {
            break;
        }
    }
    refused(error)
}

async fn end(
    State(seeding): State<Seeding>,
    Asked(request): Asked<SeedRequest>,
) -> Result<Json<SeedSummary>, Response> {
    let summary = finish(&seeding.store, &seeding.mesh, &request).await.map_err(|error| seed_refused(&error))?;
    Ok(Json(summary))
}

/// A whole blob, each piece checked as it is read. One that turns out to be damaged breaks off.
async fn read(State(seeding): State<Seeding>, Path(digest): Path<String>) -> Result<Response, Response> {
    let content = digest.parse::<ContentId>().map_err(no_digest)?;
    let size = seeding.store.size_of(&content);
    let size = size.ok_or_else(|| problem(StatusCode::NOT_FOUND, format!("this node does not hold {content}")))?;
    let reader = seeding.store.reader(content);
    let bytes = stream::try_unfold((reader, 0), async |(mut reader, at): (BlobReader, u64)| {
        let part = reader.read(at, READ_LEN).await?;
        let next = at + part.len() as u64;
        Ok::<_, ReadError>((!part.is_empty()).then_some((part, (reader, next))))
    });
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, size.to_string())];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

fn no_digest(error: ContentIdError) -> Response {
    problem(StatusCode::BAD_REQUEST, error.to_string())
}

fn seed_refused(error: &SeedError) -> Response {
    let status = match error {
        SeedError::Image(_) | SeedError::Platform(_) | SeedError::OtherDigest { .. } => StatusCode::BAD_REQUEST,
        SeedError::Contents(_) | SeedError::NoPlatform(_) | SeedError::Incomplete { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        SeedError::Owner(_) | SeedError::Pin(_) | SeedError::Bind(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.to_string())
}

fn refused(error: &ReceiveError) -> Response {
    let status = match error {
        ReceiveError::Suspect => StatusCode::CONFLICT,
        ReceiveError::Incomplete(_) => StatusCode::PRECONDITION_FAILED,
        ReceiveError::Begin(BeginError::NoRoom(_))
        | ReceiveError::Write(WriteError::NoSpace)
        | ReceiveError::Complete(CompleteError::NoSpace) => StatusCode::INSUFFICIENT_STORAGE,
        ReceiveError::Begin(_) | ReceiveError::Write(_) | ReceiveError::Complete(_) | ReceiveError::Change(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ReceiveError::OtherSize { .. }
        | ReceiveError::NoPiece { .. }
        | ReceiveError::BrokeOff { .. }
        | ReceiveError::TooLong(_)
        | ReceiveError::WrongBytes { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    problem(status, error.to_string())
}
