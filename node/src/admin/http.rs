//! Serving HTTP/1.1 with limits, on any kind of listener.

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::crowd::{Crowd, Places, Source};

/// How long answers under way may take after shutdown began.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections served at once.
    pub(crate) connections_max: usize,
    /// What happens to further ones.
    pub(crate) further: Further,
    /// Time for which a client may take none of the bytes that are ready for it.
    pub(crate) write_stall_max: Duration,
    /// Time that a client has to send a request's head, and that a kept connection may idle.
    pub(crate) head_time_max: Duration,
}

/// What happens to connections beyond the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Further {
    /// They wait in the kernel's queue: whoever may come here is trusted, and may be at something that takes long.
    Wait,
    /// They take the place of one that does nothing, or are closed; of one address that is not the device's own there are
    /// at most `per_address`.
    Replace {
        /// Connections of one address.
        per_address: usize,
        /// After so long without a byte a connection does nothing.
        idle_min: Duration,
    },
}

/// Whose ends have addresses, or have none.
pub(crate) trait Ends {
    /// Where it comes from, as far as that counts.
    fn source(&self) -> Option<Source>;
}

impl Ends for TcpStream {
    fn source(&self) -> Option<Source> {
        Source::of_connection(self.peer_addr(), self.local_addr())
    }
}

impl Ends for UnixStream {
    fn source(&self) -> Option<Source> {
        None
    }
}

impl Limits {
    fn places(&self) -> Places {
        let (per_address, idle_min) = match self.further {
            Further::Wait => (self.connections_max, Duration::MAX),
            Further::Replace { per_address, idle_min } => (per_address, idle_min),
        };
        Places { all: self.connections_max, per_address, idle_min }
    }
}

/// Serves `router` on `listener` until `shutdown`, then lets answers under way finish for a moment.
pub(crate) async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, shutdown: CancellationToken)
where
    L::Io: Ends,
{
    let slots = Arc::new(Semaphore::new(match limits.further {
        Further::Wait => limits.connections_max,
        Further::Replace { .. } => Semaphore::MAX_PERMITS,
    }));
    let crowd = Crowd::new(limits.places());
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
        let Some(place) = crowd.enter(stream.source()) else {
            if let Some(closed) = crowd.refused() {
                debug!(closed, "closing connections: too many are open");
            }
            continue;
        };
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            let stream = place.watch(stream, limits.write_stall_max);
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head_time_max)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = place.taken_away() => return debug!("a connection that does nothing makes room for another"),
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
