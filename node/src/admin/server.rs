//! The admin API's server.

use std::{
    convert::Infallible,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use nix::unistd::Gid;
use thiserror::Error;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    Asked, Further, Limits, NodeView, StoreView, problem,
    types::{
        AttachRequest, CheckRequest, DetachRequest, GcRequest, PinRequest, PullEvent, PullRequest, UnpinRequest,
        VerifyEvent, VerifyRequest,
    },
};
use crate::{
    check::{self, Check},
    pinning::{self, PinningError},
    pull::{self, Pull},
    verifying,
};

/// Commands of one device's people; more at once is a script gone wild.
const LIMITS: Limits = Limits {
    connections_max: 16,
    further: Further::Wait,
    write_stall_max: Duration::from_secs(60),
    head_time_max: Duration::from_secs(30),
};
/// Largest request body: a few images' names.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Events of a pull that wait for a slow client; a full queue slows the pull's reports, not its bytes.
const PULL_EVENTS_LEN: usize = 64;

/// Why the admin socket cannot be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// A node answers on it.
    #[error("another node runs here: it answers on {0}")]
    Live(PathBuf),
    /// Something that is not a socket is in its place.
    #[error("{0} is in the way: it is not a socket")]
    NotASocket(PathBuf),
    /// The node's user may not give it to the group.
    #[error(
        "cannot give the admin socket {path} to group {group}: make the node's user a member of it, or leave the group out"
    )]
    Group {
        /// The socket.
        path: PathBuf,
        /// The group's number.
        group: u32,
        /// What the system says.
        source: io::Error,
    },
    /// The file system refuses.
    #[error("cannot open the admin socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

/// The admin API's server, bound.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminServer {
    /// Binds the socket with mode 0600, or 0660 for `group`. The socket of a dead node is replaced.
    ///
    /// # Errors
    /// If a live node has it, or it cannot be made or given to the group.
    pub async fn bind(path: &Path, group: Option<Gid>) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(BindError::Live(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // Bound under another name, so that nobody can connect before owner and mode are set.
        let private = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&private);
        let listener = UnixListener::bind(&private).map_err(failed)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&private, None, Some(group.as_raw())).map_err(|source| BindError::Group {
                path: path.to_owned(),
                group: group.as_raw(),
                source,
            })?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        std::fs::rename(&private, path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until `shutdown`, then removes the socket. Pulls end with the node. `more` are routes beside those of
    /// [`router`].
    pub async fn run<S: StoreView>(self, view: NodeView<S>, more: Router, shutdown: CancellationToken) {
        super::serve(self.listener, router(view).merge(more), LIMITS, shutdown).await;
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The admin API's routes.
pub fn router<S: StoreView>(view: NodeView<S>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(view): State<NodeView<S>>| Json(view.status().await)))
        .route("/v1/peers", get(async |State(view): State<NodeView<S>>| Json(view.peers().await)))
        .route("/v1/blobs", get(async |State(view): State<NodeView<S>>| Json(view.blobs())))
        .route("/v1/tags", get(async |State(view): State<NodeView<S>>| Json(view.tags().await)))
        .route("/v1/pull", post(start_pull::<S>))
        .route("/v1/check", post(run_check::<S>))
        .route("/v1/pins", get(async |State(view): State<NodeView<S>>| Json(pinning::list(&view.store))))
        .route("/v1/pin", post(pin::<S>))
        .route("/v1/unpin", post(unpin::<S>))
        .route("/v1/gc", post(gc::<S>))
        .route("/v1/verify", post(start_verify::<S>))
        .route("/v1/attached", get(async |State(view): State<NodeView<S>>| Json(view.attached())))
        .route("/v1/attach", post(attach::<S>))
        .route("/v1/detach", post(detach::<S>))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(view)
}

async fn run_check<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<CheckRequest>) -> Response {
    let check = match Check::parse(&request) {
        Ok(check) => check,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match check::run(&view.mesh, &view.store, check).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

async fn start_pull<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<PullRequest>) -> Response {
    let pull = match Pull::parse(&request) {
        Ok(pull) => pull,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let (events, queue) = mpsc::channel(PULL_EVENTS_LEN);
    // The pull ends when the client goes: the body's queue closes, and with it the race below.
    tokio::spawn(async move {
        let gone = events.clone();
        let work = pull::run(&view.mesh, &view.store, &view.counters, pull, &events);
        let last = tokio::select! {
            () = gone.closed() => return,
            result = work => match result {
                Ok(summary) => PullEvent::Done(summary),
                Err(error) => PullEvent::Error { message: error.to_string() },
            },
        };
        let _ = events.send(last).await;
    });
    lines(queue)
}

/// Events as an answer, one a line, as they come.
fn lines<T: serde::Serialize + Send + 'static>(queue: mpsc::Receiver<T>) -> Response {
    let lines = futures::stream::unfold(queue, async |mut queue| Some((queue.recv().await?, queue))).map(|event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn start_verify<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<VerifyRequest>) -> Response {
    let (events, queue) = mpsc::channel(PULL_EVENTS_LEN);
    // As a pull, it ends when the client goes.
    tokio::spawn(async move {
        let gone = events.clone();
        let work = verifying::run(&view.mesh, &view.store, &request, &events);
        let last = tokio::select! {
            () = gone.closed() => return,
            summary = work => VerifyEvent::Done(summary),
        };
        let _ = events.send(last).await;
    });
    lines(queue)
}

async fn pin<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<PinRequest>) -> Response {
    pins_changed(pinning::pin(&view.mesh, &view.store, &request).await)
}

async fn unpin<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<UnpinRequest>) -> Response {
    pins_changed(pinning::unpin(&view.store, &request).await)
}

fn pins_changed<T: serde::Serialize>(result: Result<T, PinningError>) -> Response {
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(error) if error.is_usage() => problem(StatusCode::BAD_REQUEST, error.to_string()),
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
    }
}

async fn gc<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<GcRequest>) -> Response {
    match view.collect(request).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

async fn attach<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<AttachRequest>) -> Response {
    if !Path::new(&request.path).is_absolute() {
        return problem(StatusCode::BAD_REQUEST, format!("`{}` is not an absolute path", request.path));
    }
    match view.store.attach(request.path.into(), request.reuse).await {
        Ok(()) => Json(view.attached()).into_response(),
        Err(error) => problem(StatusCode::UNPROCESSABLE_ENTITY, error),
    }
}

async fn detach<S: StoreView>(State(view): State<NodeView<S>>, Asked(request): Asked<DetachRequest>) -> Response {
    match view.store.detach(request.path.as_str().into()).await {
        Ok(true) => Json(view.attached()).into_response(),
        Ok(false) => {
            let message = format!("`{}` is not attached: `layermesh status` shows what is", request.path);
            problem(StatusCode::UNPROCESSABLE_ENTITY, message)
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

#[cfg(test)]
mod tests;
