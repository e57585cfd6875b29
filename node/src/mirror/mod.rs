//! The mirror: a pull-only OCI registry (distribution spec 1.1) that container runtimes on this device talk to.
//!
//! It turns requests into questions to the [store](MirrorStore) and the [mesh](crate::mesh::Mesh), and what comes
//! back into answers that real runtimes take well. Its invariants are what those runtimes punish:
//! - every byte is verified before it is written to a socket, and a blob that turns out wrong never ends cleanly;
//! - a body that cannot be finished ends in a reset, never in a short clean end;
//! - nothing waits for ever: no runtime has a read time-out, so every wait here has a limit;
//! - "not me" is 404 or 503, so that every runtime goes upstream at once; there is no 408 or 429, and 401 only where the mirror
//!   itself was told to ask for a password;
//! - content is never encoded, whatever `Accept-Encoding` says: its digest is that of the bytes as they are.
//!
//! [`route`] says what a request asks, `access` who may, `answer` how it is answered, `server` keeps the connections. Deliberately
//! absent: the push half, any policy of where bytes come from, and
//! any cache beside the store.

mod access;
mod answer;
mod blob;
#[cfg(test)]
mod fake;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lists;
pub mod manifest;
mod range;
mod refusal;
pub mod route;
mod server;
mod source;
#[cfg(test)]
mod tests;
mod via;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    response::{IntoResponse as _, Response},
};
use layermesh_proto::NodeId;

pub use self::{
    access::{Access, AccessError},
    server::serve,
    source::{BlobRead, Discovery, MirrorStore, Passed, ReadError},
};
use self::{
    lists::Asked,
    refusal::{Code, Refusal},
};
use crate::{counters::Counters, mesh::Mesh};

/// Answered with every response; old clients take it as the sign of a registry.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What the mirror works with.
#[derive(Debug, Clone)]
pub struct MirrorState<S, D> {
    /// This node, for the loop guard.
    pub node: NodeId,
    /// Where blobs and tags are asked for.
    pub mesh: Mesh,
    /// Where blobs are read.
    pub store: S,
    /// Where lists are asked for.
    pub discovery: D,
    /// Where bytes are counted.
    pub counters: Arc<Counters>,
    /// Who may ask.
    pub access: Access,
    /// How long, how many.
    pub limits: Limits,
}

/// The mirror's limits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest wait for an answer's first byte, and for each further one. Runtimes wait for ever, and containerd's CRI
    /// gives up a whole pull after 5 minutes without a byte; 30 s to the first byte is known to do no harm.
    pub stall: Duration,
    /// Longest time that a request's head may take to come, counted from the connection or from the response before,
    /// so that it is also how long an idle connection is kept.
    pub head: Duration,
    /// Longest time that a client may take none of the bytes that are ready for it. Podman unpacks while it reads, so
    /// this is generous; it frees what a suspended process would hold.
    pub write: Duration,
    /// Longest time that running responses get when the node shuts down. Supervisors kill after 90 s (systemd) or
    /// 10 s (container engines).
    pub drain: Duration,
    /// Most connections at once; those beyond are closed, and their clients go upstream. Docker opens one for each
    /// request, containerd some for each layer; at two chunks each, this many use at most 32 MiB, besides what the
    /// store keeps for all readers together.
    pub connections: usize,
    /// Most of one address that is not the device's own: a mirror may listen on the LAN.
    pub connections_per_address: usize,
    /// Where all connections are taken, one on which nothing moved for so long makes room for another. Longer than a runtime
    /// needs for its next request or to unpack what it has read; a runtime opens another connection when one is gone.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            head: Duration::from_secs(60),
            write: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            connections: 64,
            connections_per_address: 16,
            idle: Duration::from_secs(10),
        }
    }
}

/// The mirror as a service.
pub fn router<S: MirrorStore, D: Discovery>(state: MirrorState<S, D>) -> Router {
    Router::new().fallback(handle::<S, D>).with_state(Arc::new(state))
}

async fn handle<S: MirrorStore, D: Discovery>(
    State(state): State<Arc<MirrorState<S, D>>>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    if let Some(refusal) = state.access.refusal(&head.headers) {
        return refusal;
    }
    let asked = Asked { path: head.uri.path(), query: head.uri.query().unwrap_or_default() };
    let result = match via::forwarded(&head.headers, state.node) {
        Some(why) => {
            tracing::warn!(why, "refusing a node's request");
            Err(Refusal::unknown(Code::NameUnknown, why))
        }
        None => match route::route(&head.method, asked.path, head.uri.query()) {
            Ok(route) => answer::answer(&state, &head.method, &head.headers, asked, route).await,
            Err(error) => Err(error.into()),
        },
    };
    let mut response = result.unwrap_or_else(|refusal| {
        tracing::debug!(method = %head.method, uri = %head.uri, ?refusal, "refusing");
        refusal.into_response()
    });
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}
