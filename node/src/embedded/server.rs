//! Listening: connections that can all be dropped at once, as when a link is cut.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{registry::State, respond};

/// Connections at once; more wait to be accepted. A demo of fifty devices with four connections each fits.
const CONNECTIONS_MAX: usize = 512;
/// Pause after a failed accept: it fails when the process is out of file descriptors, and would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener and its connections. Dropping it drops them all.
#[derive(Debug)]
pub(super) struct Server {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn bind(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        state: Arc<State>,
    ) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(listener, tls.map(TlsAcceptor::from), state, shutdown.clone()));
        Ok((Self { shutdown, task }, address))
    }

    /// Closes the listener and all connections, and waits until they are closed.
    pub(super) async fn stop(mut self) {
        self.shutdown.cancel();
        // Its only failure would be a panic, after which it is stopped as well.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn run(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&state)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the embedded registry cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let result = match tls {
        None => serve(stream, state).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => serve(stream, state).await,
            Err(error) => Err(error.to_string()),
        },
    };
    // Clients that leave early and bodies that are cut on purpose end up here.
    if let Err(error) = result {
        tracing::debug!(error, "a connection to the embedded registry ended early");
    }
}

async fn serve<S>(stream: S, state: Arc<State>) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(respond::respond(&state, &request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}
