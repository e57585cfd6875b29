//! The admin API's client, for the CLI.

use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use layermesh_proto::ContentId;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use super::types::{
    AttachRequest, Attached, Blob, CheckReport, CheckRequest, DetachRequest, GcReport, GcRequest, HandedReleases,
    InspectRequest, InspectedImage, NodeStatus, Peer, PinRequest, PinnedImage, PinsOfOwner, Problem, PullEvent,
    PullRequest, SeedBlob, SeedNeed, SeedPlan, SeedPlanRequest, SeedRequest, SeedSummary, SiteStatus, Tag,
    UnpinRequest, VerifyEvent, VerifyRequest,
};
use crate::{
    fleet::routes::{FleetStatus, RecordText, RevocationsTaken},
    release::{MetadataSet, status::SiteReleases},
};

/// A node that is alive answers its own device well within this.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// To answer a check, a node may fetch manifests from peers for 20 s; to take an image in, it reads its manifests.
const WORK_TIME_MAX: Duration = Duration::from_secs(60);
/// Largest answer taken: a list of 100,000 blobs is about 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest line of a pull's events taken.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Why the node did not do it.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node answers on {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the node did not answer within {0} s")]
    Slow(u64),
    /// It refused, and said why.
    #[error("{0}")]
    Refused(String),
    /// What it had of a blob before may be wrong (of seeding only).
    #[error("{0}")]
    Suspect(String),
    /// What it had of a blob before is gone (of seeding only).
    #[error("{0}")]
    Changed(String),
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

    /// The site as the node sees it.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node is of a version that does not tell of it here.
    pub async fn site(&self) -> Result<SiteStatus, ClientError> {
        self.get("/v1/site").await
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

    /// What is known of tags.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn tags(&self) -> Result<Vec<Tag>, ClientError> {
        self.get("/v1/tags").await
    }

    /// Begins a pull.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn pull(&self, request: &PullRequest) -> Result<PullEvents, ClientError> {
        let response = self.send(Method::POST, "/v1/pull", json(request)?, Some(ANSWER_TIME_MAX)).await?;
        Ok(Events::of(response))
    }

    /// Pins images.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn pin(&self, request: &PinRequest) -> Result<Vec<PinnedImage>, ClientError> {
        self.ask("/v1/pin", request).await
    }

    /// Unpins images; returns what was pinned.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn unpin(&self, request: &UnpinRequest) -> Result<Vec<PinsOfOwner>, ClientError> {
        self.ask("/v1/unpin", request).await
    }

    /// Begins to verify all that is held.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn verify(&self, request: &VerifyRequest) -> Result<Events<VerifyEvent>, ClientError> {
        Ok(Events::of(self.send(Method::POST, "/v1/verify", json(request)?, Some(ANSWER_TIME_MAX)).await?))
    }

    /// All pins.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn pins(&self) -> Result<Vec<PinsOfOwner>, ClientError> {
        self.get("/v1/pins").await
    }

    /// Removes what is not needed, or asks what would go.
    ///
    /// # Errors
    /// As [`Self::status`], or if the store fails.
    pub async fn gc(&self, request: &GcRequest) -> Result<GcReport, ClientError> {
        self.ask("/v1/gc", request).await
    }

    /// The attached stores.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn attached(&self) -> Result<Vec<Attached>, ClientError> {
        self.get("/v1/attached").await
    }

    /// Attaches a store; returns all that are.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn attach(&self, request: &AttachRequest) -> Result<Vec<Attached>, ClientError> {
        self.ask("/v1/attach", request).await
    }

    /// Lets go of an attached store; returns those that are left.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node refuses the request.
    pub async fn detach(&self, request: &DetachRequest) -> Result<Vec<Attached>, ClientError> {
        self.ask("/v1/detach", request).await
    }

    /// Who holds what of an image.
    ///
    /// # Errors
    /// As [`Self::pull`].
    pub async fn check(&self, request: &CheckRequest) -> Result<CheckReport, ClientError> {
        self.ask("/v1/check", request).await
    }

    /// What the node lacks of these blobs, in their order. Blobs of a named image are kept from now on.
    ///
    /// # Errors
    /// As [`Self::pull`], or if there is no room for them.
    pub async fn seed_plan(&self, image: Option<String>, blobs: Vec<SeedBlob>) -> Result<Vec<SeedNeed>, ClientError> {
        let plan: SeedPlan = self.ask("/v1/seed/plan", &SeedPlanRequest { image, blobs }).await?;
        Ok(plan.blobs)
    }

    /// Sends a blob from a byte on. There is no time limit.
    ///
    /// # Errors
    /// As [`Self::pull`], or if the bytes are not the blob's.
    pub async fn send_blob<S>(&self, content: &ContentId, size: u64, from: u64, bytes: S) -> Result<(), ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let path = format!("/v1/seed/blobs/{content}?size={size}&from={from}");
        self.send(Method::PUT, &path, streamed(bytes), None).await.map(drop)
    }

    /// Has the node drop what it has of a blob and is not the blob's, by sending it all of the blob.
    ///
    /// # Errors
    /// As [`Self::send_blob`].
    pub async fn compare_blob<S>(&self, content: &ContentId, size: u64, bytes: S) -> Result<(), ClientError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let path = format!("/v1/seed/blobs/{content}/compare?size={size}");
        self.send(Method::POST, &path, streamed(bytes), None).await.map(drop)
    }

    /// Has an image whose blobs were sent pinned and known under its name.
    ///
    /// # Errors
    /// As [`Self::pull`], or if the node lacks blobs of it.
    pub async fn seed_image(&self, request: &SeedRequest) -> Result<SeedSummary, ClientError> {
        self.ask("/v1/seed/images", request).await
    }

    /// What an image is that is to be released. There is no time limit: its registry may be slow.
    ///
    /// # Errors
    /// As [`Self::pull`], or if the image is not to be had.
    pub async fn inspect(&self, request: &InspectRequest) -> Result<InspectedImage, ClientError> {
        parsed(self.send(Method::POST, "/v1/releases/inspect", json(request)?, None).await?).await
    }

    /// Gives the node metadata of releases.
    ///
    /// # Errors
    /// As [`Self::pull`], or if the node does not believe it.
    pub async fn hand_releases(&self, set: &MetadataSet) -> Result<HandedReleases, ClientError> {
        self.ask("/v1/releases/metadata", set).await
    }

    /// What the node would say to [`Self::hand_releases`]; it takes nothing up.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn check_releases(&self, set: &MetadataSet) -> Result<HandedReleases, ClientError> {
        self.ask("/v1/releases/check", set).await
    }

    /// How releases stand on the site.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn releases(&self) -> Result<SiteReleases, ClientError> {
        self.get("/v1/releases").await
    }

    /// How the fleet stands on this node.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn fleet(&self) -> Result<FleetStatus, ClientError> {
        self.get("/v1/fleet").await
    }

    /// Gives the node its membership.
    ///
    /// # Errors
    /// As [`Self::pull`], or if others would not let it in with that.
    pub async fn join_fleet(&self, membership: &RecordText) -> Result<FleetStatus, ClientError> {
        self.ask("/v1/fleet/membership", membership).await
    }

    /// Gives the node revocations, which it spreads.
    ///
    /// # Errors
    /// As [`Self::pull`], or if the node does not believe them.
    pub async fn revoke(&self, revocations: &RecordText) -> Result<RevocationsTaken, ClientError> {
        self.ask("/v1/fleet/revocations", revocations).await
    }

    /// Reads a blob that the node holds.
    ///
    /// # Errors
    /// As [`Self::status`], or if the node does not hold it.
    pub async fn read_blob(&self, content: &ContentId) -> Result<BlobBody, ClientError> {
        let path = format!("/v1/blobs/{content}");
        let response = self.send(Method::GET, &path, whole_body(Bytes::new()), Some(ANSWER_TIME_MAX)).await?;
        Ok(BlobBody(response.into_body()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Method::GET, path, whole_body(Bytes::new()), Some(ANSWER_TIME_MAX)).await?;
        parsed(response).await
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, request: &impl Serialize) -> Result<T, ClientError> {
        parsed(self.send(Method::POST, path, json(request)?, Some(WORK_TIME_MAX)).await?).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: RequestBody,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, ClientError> {
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
                .body(body)
                .map_err(|error| ClientError::Broken(error.to_string()))?;
            Ok::<_, ClientError>(sender.send_request(request).await?)
        };
        let response = match patience {
            Some(patience) => {
                timeout(patience, exchange).await.map_err(|_| ClientError::Slow(patience.as_secs()))??
            }
            None => exchange.await?,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = said(response).await?.unwrap_or_else(|| format!("the node answered {status}"));
        Err(match status {
            StatusCode::CONFLICT => ClientError::Suspect(said),
            StatusCode::PRECONDITION_FAILED => ClientError::Changed(said),
            _ => ClientError::Refused(said),
        })
    }
}

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

fn whole_body(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> RequestBody {
    StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync()
}

fn json(request: &impl Serialize) -> Result<RequestBody, ClientError> {
    let bytes = serde_json::to_vec(request).map_err(|error| ClientError::Broken(error.to_string()))?;
    Ok(whole_body(bytes.into()))
}

async fn parsed<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    serde_json::from_slice(&whole(response).await?).map_err(|error| ClientError::Broken(error.to_string()))
}

/// What a refusal says.
async fn said(response: Response<Incoming>) -> Result<Option<String>, ClientError> {
    let body = whole(response).await?;
    Ok(serde_json::from_slice(&body).map(|problem: Problem| problem.error).ok())
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    let body = timeout(ANSWER_TIME_MAX, body).await.map_err(|_| ClientError::Slow(ANSWER_TIME_MAX.as_secs()))?;
    Ok(body.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes())
}

/// A blob's bytes, as they come.
#[derive(Debug)]
pub struct BlobBody(Incoming);

impl BlobBody {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// If the connection broke, or the node found the blob damaged.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// The events of a pull.
pub type PullEvents = Events<PullEvent>;

/// Events of something that the node does, as they come. Dropping it ends what it does.
#[derive(Debug)]
pub struct Events<T> {
    body: Incoming,
    buffer: BytesMut,
    event: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Events<T> {
    fn of(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), event: PhantomData }
    }

    /// The next event; `None` after the last. There is no time limit: the node owns the deadlines of its transfers.
    ///
    /// # Errors
    /// If the connection broke or the line makes no sense.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
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
