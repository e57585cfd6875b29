//! The connections under the mirror: how many, how long, and how they end.
//!
//! Invariant: a response that could not be finished ends in a TCP reset. HTTP/1.1 has no other way to say so once the
//! head has gone out, and some clients take an orderly close before Content-Length for a reason to ask for ever.
//!
//! HTTP/1.1 alone: without TLS no runtime speaks anything else.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Discovery, Limits, MirrorState, MirrorStore, router};
use crate::crowd::{Crowd, Place, Places, Source};

/// Largest request head in bytes. Clients send some hundreds; Docker's bearer tokens are a few thousand.
const HEAD_LEN_MAX: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the mirror on `listener` until `shutdown`, then lets running responses finish for a bounded time.
pub async fn serve<S: MirrorStore, D: Discovery>(
    listener: TcpListener,
    state: MirrorState<S, D>,
    shutdown: CancellationToken,
) {
    let limits = state.limits.clone();
    let router = router(state);
    let crowd = Crowd::new(Places {
        all: limits.connections,
        per_address: limits.connections_per_address,
        idle_min: limits.idle,
    });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let from = Source::of_connection(stream.peer_addr(), stream.local_addr());
        let Some(place) = crowd.enter(from) else {
            if let Some(closed) = crowd.refused() {
                tracing::warn!(limit = limits.connections, closed, "closing connections: too many are open");
            }
            continue;
        };
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(stream, &place, router, &limits, &shutdown).await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, place: &Place, router: Router, limits: &Limits, shutdown: &CancellationToken) {
    // Chunks are large; the small head of the next answer must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(place.watch(stream, limits.write)), TowerToHyperService::new(router));
    let finished = tokio::select! {
        result = &mut connection => Some(result),
        () = place.taken_away() => {
            tracing::debug!("resetting a connection that does nothing: another one needs its place");
            return reset(connection.into_parts().io.into_inner().into_inner());
        }
        () = shutdown.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            timeout(limits.drain, &mut connection).await.ok()
        }
    };
    match finished {
        Some(Ok(())) => return,
        Some(Err(error)) if !error.is_user() => {
            tracing::debug!(%error, "a connection ended");
            return;
        }
        Some(Err(error)) => tracing::debug!(%error, "resetting a connection: its response cannot be finished"),
        None => tracing::info!("resetting a connection: its response takes longer than the shutdown may"),
    }
    reset(connection.into_parts().io.into_inner().into_inner());
}

fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset a connection, closing it");
    }
}
