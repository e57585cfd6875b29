//! The admin API's routes for releases.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use super::{
    MetadataSet, Verified,
    follow::{HandError, Releases},
    inspect::{InspectError, inspect},
    set::TARGETS_BYTES_MAX,
    status::{ReleasesView, SiteReleases},
};
use crate::{
    admin::{
        Asked, problem,
        types::{HandedReleases, InspectRequest, InspectedImage},
    },
    image::ImageReference,
    mesh::Mesh,
    origin::Origins,
    store::Store,
};

/// Largest body with a set: quotes in its files are escaped, which at worst doubles it.
const SET_BYTES_MAX: usize = 3 * TARGETS_BYTES_MAX;

#[derive(Debug, Clone)]
struct Releasing {
    releases: Releases,
    view: ReleasesView,
    mesh: Mesh,
    store: Store,
    origins: Origins,
}

/// Routes to make releases, to hand them to the node, and to see how they stand.
pub fn routes(releases: Releases, view: ReleasesView, mesh: Mesh, store: Store, origins: Origins) -> Router {
    Router::new()
        .route("/v1/releases", get(stand))
        .route("/v1/releases/inspect", post(look_at))
        .route("/v1/releases/metadata", post(hand))
        .route("/v1/releases/check", post(check))
        .layer(DefaultBodyLimit::max(SET_BYTES_MAX))
        .with_state(Releasing { releases, view, mesh, store, origins })
}

async fn stand(State(node): State<Releasing>) -> Json<SiteReleases> {
    Json(node.view.site(&node.mesh).await)
}

async fn hand(State(node): State<Releasing>, Asked(set): Asked<MetadataSet>) -> Response {
    told(node.releases.hand(set).await)
}

async fn check(State(node): State<Releasing>, Asked(set): Asked<MetadataSet>) -> Response {
    told(node.releases.check(set).await)
}

fn told(judged: Result<Arc<Verified>, HandError>) -> Response {
    match judged {
        Ok(verified) => Json(HandedReleases {
            repository: verified.repository.to_string(),
            version: verified.version,
            releases: verified.releases.len(),
        })
        .into_response(),
        Err(error @ (HandError::Refused(_) | HandError::Another { .. })) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn look_at(
    State(node): State<Releasing>,
    Asked(request): Asked<InspectRequest>,
) -> Result<Json<InspectedImage>, Response> {
    let image: ImageReference =
        request.image.parse().map_err(|error| problem(StatusCode::BAD_REQUEST, format!("{error}")))?;
    match inspect(&node.mesh, &node.store, &node.origins, &image).await {
        Ok(inspected) => Ok(Json(inspected)),
        Err(error @ (InspectError::Contents(_) | InspectError::Platforms(_))) => {
            Err(problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
        }
        Err(error) => Err(problem(StatusCode::BAD_GATEWAY, error.to_string())),
    }
}
