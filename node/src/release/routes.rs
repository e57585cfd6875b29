//! The admin API's routes for releases.

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::inspect::{InspectError, inspect};
use crate::{
    admin::types::{InspectRequest, InspectedImage, Problem},
    image::ImageReference,
    mesh::Mesh,
    origin::Origins,
    store::Store,
};

#[derive(Debug, Clone)]
struct Releasing {
    mesh: Mesh,
    store: Store,
    origins: Origins,
}

/// Routes to make releases.
pub fn routes(mesh: Mesh, store: Store, origins: Origins) -> Router {
    Router::new().route("/v1/releases/inspect", post(look_at)).with_state(Releasing { mesh, store, origins })
}

async fn look_at(
    State(node): State<Releasing>,
    request: Result<Json<InspectRequest>, JsonRejection>,
) -> Result<Json<InspectedImage>, Response> {
    let Json(request) = request.map_err(|rejection| problem(rejection.status(), rejection.body_text()))?;
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

fn problem(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}
