//! The connections under the mirror: how many, how long, and how they end.
//!
//! Invariant: a response that could not be finished ends in a TCP reset. HTTP/1.1 has no other way to say so once the
//! head has gone out, and some clients take an orderly close before Content-Length for a reason to ask for ever.
//!
//! HTTP/1.1 alone: without TLS no runtime speaks anything else.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Discovery, Limits, MirrorState, MirrorStore, router};

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
    let permits = Arc::new(Semaphore::new(limits.connections));
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
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(limit = limits.connections, "closing a connection: too many are open");
            continue;
        };
        let (router, limits, shutdown) = (router.clone(), limits.clone(), shutdown.clone());
        connections.spawn(async move {
            connection(stream, router, &limits, &shutdown).await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router, limits: &Limits, shutdown: &CancellationToken) {
    // Chunks are large; the small head of the next answer must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, limits.write)), TowerToHyperService::new(router));
    let finished = tokio::select! {
        result = &mut connection => Some(result),
        () = shutdown.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
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
    let stream = connection.into_parts().io.into_inner().stream;
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot reset a connection, closing it");
    }
}

/// A TCP stream whose writes fail after `limit` without progress.
struct Patient {
    stream: TcpStream,
    limit: Duration,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Self { stream, limit, deadline: None }
    }

    fn watched<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.deadline = None;
            return poll;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watched(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watched(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
