//! Serving HTTP/1.1 with limits, on any kind of listener.

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// How long answers under way may take after shutdown began.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections served at once; further ones wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// Time that a client has to send a request's head, and that a kept connection may idle.
    pub(crate) head_time_max: Duration,
}

/// Serves `router` on `listener` until `shutdown`, then lets answers under way finish for a moment.
pub(crate) async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await.0)
        };
        let (slot, stream) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head_time_max)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    timeout(SHUTDOWN_GRACE, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                debug!(%error, "connection ended early");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
