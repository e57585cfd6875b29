//! A body that goes on at another endpoint where one broke off.
//!
//! Invariants: bytes come in order and each once; an endpoint that says that the object has another size, or that would send it
//! from its start, is not gone on with. With one endpoint a body that breaks off ends with the error.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use layermesh_proto::{ContentId, ObjectKind, Repository, engine::event::SourceError};
use tokio::time::{Instant, timeout};

use super::{OriginBody, Origins, transfer::Request, turns::Turns};

/// Without a byte, after which an endpoint is left for another. 5 s: longer than a bad uplink's retransmissions.
const STALL: Duration = Duration::from_secs(5);

/// What is being sent.
pub(super) struct Part {
    pub(super) repository: Repository,
    pub(super) kind: ObjectKind,
    pub(super) content: ContentId,
    /// Excluded; to the object's end if `None`.
    pub(super) end: Option<u64>,
}

struct Resuming {
    origins: Origins,
    part: Part,
    turns: Turns,
    stream: BoxStream<'static, Result<Bytes, SourceError>>,
    /// The next byte's place in the object.
    at: u64,
    total: Option<u64>,
    began: Instant,
    bytes: u64,
}

/// The body, and at the endpoints that are left what it lacks in the end.
pub(super) fn resuming(origins: Origins, part: Part, turns: Turns, body: OriginBody) -> OriginBody {
    let OriginBody { total, start, ranged, stream } = body;
    let resuming = Resuming { origins, part, turns, stream, at: start, total, began: Instant::now(), bytes: 0 };
    let stream = stream::unfold(Some(resuming), |resuming| async move {
        let mut resuming = resuming?;
        match resuming.next().await {
            Some(Ok(chunk)) => Some((Ok(chunk), Some(resuming))),
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    });
    OriginBody { total, start, ranged, stream: stream.boxed() }
}

impl Resuming {
    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        loop {
            let chunk = match self.turns.is_last() {
                true => self.stream.next().await,
                false => timeout(STALL, self.stream.next())
                    .await
                    .unwrap_or_else(|_| Some(Err(SourceError::Unreachable(format!("no bytes for {STALL:?}"))))),
            };
            match chunk {
                Some(Ok(chunk)) => {
                    self.at += chunk.len() as u64;
                    self.bytes += chunk.len() as u64;
                    return Some(Ok(chunk));
                }
                None => {
                    self.turns.registry.brought(self.turns.index, self.bytes, self.began.elapsed());
                    return None;
                }
                Some(Err(error)) => {
                    self.turns.refuse(error.clone());
                    if !self.go_on().await {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Whether another endpoint sends the rest.
    async fn go_on(&mut self) -> bool {
        // Without the size nothing would show that it is the same object.
        let Some(total) = self.total else { return false };
        let Part { repository, kind, content, end } = &self.part;
        let request = Request::object(repository, *kind, content, self.at, Some(end.unwrap_or(total).min(total)));
        while let Some(origin) = self.turns.next() {
            let origins = self.origins.clone();
            let Some(body) = self.turns.take(origins.body_at(&origin, repository, *kind, &request)).await else {
                continue;
            };
            if body.ranged && body.start == self.at && body.total == Some(total) {
                tracing::info!(
                    registry = repository.registry(), endpoint = origin.endpoint.authority(), %content, at = self.at,
                    "a body broke off; another endpoint goes on with it"
                );
                (self.stream, self.began, self.bytes) = (body.stream, Instant::now(), 0);
                return true;
            }
            self.turns.refuse(SourceError::Failed("does not go on where another broke off".to_owned()));
        }
        false
    }
}
