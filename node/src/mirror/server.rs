//! The connections under the mirror: how many, how long, and how they end.
//!
//! Invariant: a response that could not be finished ends in a TCP reset. HTTP/1.1 has no other way to say so once the
//! head has gone out, and some clients take an orderly close before Content-Length for a reason to ask for ever.
//!
//! HTTP/1.1 alone: without TLS no runtime speaks anything else, and with it a body that breaks has to take its connection along.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Discovery, Limits, MirrorState, MirrorStore, router};
use crate::crowd::{Crowd, Place, Places, Source, Watched};

/// Largest request head in bytes. Clients send some hundreds; Docker's bearer tokens are a few thousand.
pub(super) const HEAD_LEN_MAX: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the mirror on `listener` until `shutdown`, then lets running responses finish for a bounded time.
pub async fn serve<S: MirrorStore, D: Discovery>(
    listener: TcpListener,
    state: MirrorState<S, D>,
    shutdown: CancellationToken,
) {
    let (limits, tls) = (state.limits.clone(), state.access.tls().cloned());
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
        let (serving, tls) =
            (Serving { router: router.clone(), limits: limits.clone(), shutdown: shutdown.clone() }, tls.clone());
        connections.spawn(async move {
            match tls {
                None => serving.plain(stream, &place).await,
                Some(tls) => serving.encrypted(stream, &place, &tls).await,
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// What serves one connection.
struct Serving {
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
}

impl Serving {
    async fn plain(self, stream: TcpStream, place: &Place) {
        let stream = self.watched(stream, place);
        self.connection(stream, place, Watched::into_inner).await;
    }

    async fn encrypted(self, stream: TcpStream, place: &Place, tls: &TlsAcceptor) {
        let stream = self.watched(stream, place);
        let accepted = tokio::select! {
            accepted = timeout(self.limits.head, tls.accept(stream)) => accepted,
            () = place.taken_away() => return,
            () = self.shutdown.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => {
                let under = |stream: TlsStream<Watched<TcpStream>>| stream.into_inner().0.into_inner();
                self.connection(stream, place, under).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "closing a connection whose handshake failed"),
            Err(_) => tracing::debug!("closing a connection whose handshake takes too long"),
        }
    }

    fn watched(&self, stream: TcpStream, place: &Place) -> Watched<TcpStream> {
        // Chunks are large; the small head of the next answer must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        place.watch(stream, self.limits.write)
    }

    /// Serves requests on `io`; `under` gives the connection that it goes over.
    async fn connection<T>(self, io: T, place: &Place, under: fn(T) -> TcpStream)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_LEN_MAX)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(self.router));
        let finished = tokio::select! {
            result = &mut connection => Some(result),
            () = place.taken_away() => {
                tracing::debug!("resetting a connection that does nothing: another one needs its place");
                return reset(under(connection.into_parts().io.into_inner()));
            }
            () = self.shutdown.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                timeout(self.limits.drain, &mut connection).await.ok()
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
        reset(under(connection.into_parts().io.into_inner()));
    }
}

fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset a connection, closing it");
    }
}
