//! The admin API's routes for the fleet.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use super::{AdmissionStatus, Fleet, RevocationStatus, files, own::JoinError, roster::RevocationError};
use crate::admin::{Asked, problem};

/// Largest text taken: all revocations that a node keeps, in PEM.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// How the fleet stands on this node: `GET /v1/fleet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// How admission stands.
    pub admission: AdmissionStatus,
    /// Revocations that are known.
    pub revoked: Vec<RevocationStatus>,
}

/// A membership, or revocations, in PEM: `POST /v1/fleet/membership`, `POST /v1/fleet/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordText {
    /// The text.
    pub pem: String,
}

/// What came of revocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationsTaken {
    /// How many the node did not know.
    pub new: usize,
    /// How many it knows now.
    pub known: usize,
}

/// Routes to see the fleet, to join it and to revoke.
pub fn routes(fleet: Fleet) -> Router {
    Router::new()
        .route("/v1/fleet", get(show))
        .route("/v1/fleet/membership", post(join))
        .route("/v1/fleet/revocations", post(revoke))
        .layer(DefaultBodyLimit::max(TEXT_BYTES_MAX))
        .with_state(fleet)
}

async fn show(State(fleet): State<Fleet>) -> Json<FleetStatus> {
    Json(shown(&fleet))
}

fn shown(fleet: &Fleet) -> FleetStatus {
    FleetStatus { peer_id: fleet.0.node.to_string(), admission: fleet.status(), revoked: fleet.revocations() }
}

async fn join(State(fleet): State<Fleet>, Asked(request): Asked<RecordText>) -> Response {
    let joining = fleet.clone();
    // It is written to disk.
    let joined = tokio::task::spawn_blocking(move || joining.join(&request.pem)).await;
    match joined {
        Ok(Ok(())) => Json(shown(&fleet)).into_response(),
        Ok(Err(error @ JoinError::NotOne)) => problem(StatusCode::BAD_REQUEST, error.to_string()),
        Ok(Err(error @ JoinError::File(_))) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        Ok(Err(error)) => problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn revoke(State(fleet): State<Fleet>, Asked(request): Asked<RecordText>) -> Response {
    if fleet.is_open() || fleet.is_alone() {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, JoinError::NoFleet.to_string());
    }
    let Some(records) = files::parse_revocations(request.pem.as_bytes()).filter(|records| !records.is_empty()) else {
        return problem(StatusCode::BAD_REQUEST, "no revocation in it: it must have a block `LAYERMESH REVOCATION`");
    };
    let mut new = 0;
    for record in &records {
        match fleet.revoke(record, None) {
            Ok(news) => new += usize::from(news),
            Err(error @ RevocationError::Full) => return problem(StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
            Err(error) => return problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
        }
    }
    fleet.save().await;
    Json(RevocationsTaken { new, known: fleet.revocations().len() }).into_response()
}
