//! Health, metrics and status over TCP, for monitoring.
//!
//! Read-only and free of secrets, because the address may be opened to the network: `/healthz`, `/metrics`
//! (OpenMetrics), `/v1/status` (the admin API's JSON) and a text at `/` that names these. Deliberately absent:
//! anything that changes the node.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{Further, Limits, NodeView, StoreView, serve};

mod metrics;

/// A few scrapers and a person with a browser.
const LIMITS: Limits = Limits {
    connections_max: 32,
    further: Further::Replace { per_address: 8, idle_min: Duration::from_secs(2) },
    write_stall_max: Duration::from_secs(10),
    head_time_max: Duration::from_secs(15),
};

const INDEX: &str = "\
Layermesh node.

/healthz    ok while the node runs
/metrics    for Prometheus
/v1/status  the node and its mesh, as JSON
";

/// The routes.
pub fn router<S: StoreView>(view: NodeView<S>) -> Router {
    Router::new()
        .route("/", get(async || INDEX))
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(serve_metrics::<S>))
        .route("/v1/status", get(async |State(view): State<NodeView<S>>| Json(view.status().await)))
        .with_state(view)
}

/// Serves on `listener` until `shutdown`.
pub async fn run<S: StoreView>(listener: TcpListener, view: NodeView<S>, shutdown: CancellationToken) {
    serve(listener, router(view), LIMITS, shutdown).await;
}

async fn serve_metrics<S: StoreView>(State(view): State<NodeView<S>>) -> Response {
    let status = view.status().await;
    match metrics::encode(&status, &metrics::ProcessUse::now()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
