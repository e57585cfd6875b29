//! Health, metrics and status over TCP, for people with a browser and for monitoring.
//!
//! Read-only and free of secrets, because the address may be opened to the network: the status page at `/`, what it shows
//! (`/v1/site`), `/healthz`, `/metrics` (OpenMetrics) and `/v1/status` (the admin API's JSON). Deliberately absent:
//! anything that changes the node.
//!
//! Invariant: a page of somebody else's, in a browser on this device, learns nothing here. No answer may be read across
//! origins, and who comes over loopback by a name that is not the device's own is turned away: that name may have been made
//! to stand for this device a moment ago.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::site::Site;
use crate::admin::{Further, Limits, NodeView, StoreView, serve, types::NodeStatus};

mod images;
mod metrics;
mod page;
mod problems;
mod site;

/// A few scrapers and a person with a browser.
const LIMITS: Limits = Limits {
    connections_max: 32,
    further: Further::Replace { per_address: 8, idle_min: Duration::from_secs(2) },
    write_stall_max: Duration::from_secs(10),
    head_time_max: Duration::from_secs(15),
};

/// What is said here of why others do not let this node in: the reason itself may name files.
const NOT_ADMITTED: &str =
    "others do not let this device in, or it has no fleet; `layermesh fleet show` on it says why";

/// A status as whoever reaches the address may read it.
fn public(mut status: NodeStatus) -> NodeStatus {
    if let Some(problem) = status.admission.as_mut().and_then(|admission| admission.problem.as_mut()) {
        *problem = NOT_ADMITTED.to_owned();
    }
    status
}

/// The site as JSON, here and in the admin API.
pub fn site_routes<S: StoreView>(site: Arc<Site<S>>) -> Router {
    Router::new().route("/v1/site", get(serve_site::<S>)).with_state(site)
}

/// The routes, of a server that only this device reaches if it is on `loopback`.
pub fn router<S: StoreView>(view: NodeView<S>, site: Arc<Site<S>>, loopback: bool) -> Router {
    let mut router = Router::new().route("/v1/status", get(serve_status::<S>)).with_state(view.clone());
    router = router.merge(site_routes(site));
    for file in &page::FILES {
        router = router.route(file.path, get(async move || file));
    }
    if loopback {
        router = router.layer(middleware::from_fn(own_names_only));
    }
    // Monitoring is told of a device by whatever name it likes, and there is nothing in these that a page could use.
    let monitoring = Router::new().route("/metrics", get(serve_metrics::<S>)).with_state(view);
    router.route("/healthz", get(async || "ok\n")).merge(monitoring)
}

/// Whether a name in a request's head stands for this device wherever it is looked up: an address, or `localhost`.
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').map_or("", |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

async fn own_names_only(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(header::HOST).map_or(Some(""), |host| host.to_str().ok());
    if host.is_some_and(|host| host.is_empty() || is_own_name(host)) {
        return next.run(request).await;
    }
    let why = "This address answers to 127.0.0.1 and localhost only. To open it to the network, set [listen] status.\n";
    (StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

async fn serve_site<S: StoreView>(State(site): State<Arc<Site<S>>>) -> Response {
    match site.json().await {
        Ok(json) => page::guarded(([(header::CONTENT_TYPE, "application/json")], json).into_response()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Serves on `listener` until `shutdown`.
pub async fn run<S: StoreView>(
    listener: TcpListener,
    view: NodeView<S>,
    site: Arc<Site<S>>,
    shutdown: CancellationToken,
) {
    let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    serve(listener, router(view, site, loopback), LIMITS, shutdown).await;
}

async fn serve_status<S: StoreView>(State(view): State<NodeView<S>>) -> Response {
    page::guarded(Json(public(view.status().await)).into_response())
}

async fn serve_metrics<S: StoreView>(State(view): State<NodeView<S>>, asked: HeaderMap) -> Response {
    metrics::answer(&asked, &view.status().await, &view.counters.waits)
}

#[cfg(test)]
mod tests;
