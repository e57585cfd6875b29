//! The admin API's client, for the CLI.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use super::types::{Blob, NodeStatus, Peer, Problem, PullEvent, PullRequest};

/// A node that is alive answers its own device well within this.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer taken: a list of 100,000 blobs is about 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest line of a pull's events taken.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Why the node did not do it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node answers on {path}: {source}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the node did not answer within {} s", ANSWER_TIME_MAX.as_secs())]
    Slow,
    /// It refused, and said why.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or the answer makes no sense.
    #[error("the node's answer broke off: {0}")]
    Broken(String),
}

/// A node's admin API.
#[derive(Debug, Clone)]
pub struct AdminClient {
    path: PathBuf,
}

impl AdminClient {
    /// The API on this socket. Nothing is connected yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The node and its mesh now.
    ///
    /// # Errors
    /// If the node cannot be reached or its answer makes no sense.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// The connected peers.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn peers(&self) -> Result<Vec<Peer>, ClientError> {
        self.get("/v1/peers").await
    }

    /// The blobs held whole.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn blobs(&self) -> Result<Vec<Blob>, ClientError> {
        self.get("/v1/blobs").await
    }

    /// Begins a pull.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn pull(&self, request: &PullRequest) -> Result<PullEvents, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Broken(error.to_string()))?;
        let response = self.send(Method::POST, "/v1/pull", body.into()).await?;
        Ok(PullEvents { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let body = timeout(ANSWER_TIME_MAX, whole(response)).await.map_err(|_| ClientError::Slow)??;
        serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.to_string()))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let exchange = async {
            let unreachable = |source| ClientError::Unreachable { path: self.path.clone(), source };
            let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends by itself when the answer was read or dropped.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, "layermesh")
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|error| ClientError::Broken(error.to_string()))?;
            Ok::<_, ClientError>(sender.send_request(request).await?)
        };
        let response: Response<Incoming> =
            timeout(ANSWER_TIME_MAX, exchange).await.map_err(|_| ClientError::Slow)??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = timeout(ANSWER_TIME_MAX, whole(response)).await.map_err(|_| ClientError::Slow)??;
        let said = serde_json::from_slice(&body).map(|problem: Problem| problem.error);
        Err(ClientError::Refused(said.unwrap_or_else(|_| format!("the node answered {status}"))))
    }
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes())
}

/// The events of a pull, as they come. Dropping it ends the pull.
#[derive(Debug)]
pub struct PullEvents {
    body: Incoming,
    buffer: BytesMut,
}

impl PullEvents {
    /// The next event; `None` after the last. There is no time limit: the node owns the deadlines of its transfers.
    ///
    /// # Errors
    /// If the connection broke or the line makes no sense.
    pub async fn next(&mut self) -> Result<Option<PullEvent>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return serde_json::from_slice(&line).map(Some).map_err(|error| ClientError::Broken(error.to_string()));
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return Err(ClientError::Broken("a line is too long".to_owned()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ClientError::Broken("it ended within a line".to_owned())),
            }
        }
    }
}
