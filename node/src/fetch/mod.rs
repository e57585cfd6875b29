//! One fetch: bytes of one blob from one source into the store's partial.
//!
//! Several fetches of one blob may run at the same time, over other pieces or the same: they share the partial, which
//! writes one piece at a time and each only once.
//!
//! Invariants: a piece is written only when it is complete, in one write, and is reported as stored, with its hash, once
//! it is written and its hash is right. The end of a fetch does not wait for the disk: what was written becomes durable
//! by itself, soon ([`Partial::sync_soon`]), or with the whole blob, or when the store is closed. Pieces at the start of a
//! run that the store has are not asked for, also where the engine does not know of them, because the fetch that brought
//! them was cancelled; they are reported as stored like the others.
//! What is deliberately absent: any choice of source, order or retry; those are the engine's.

mod intake;
mod parts;
#[cfg(test)]
mod tests;
mod vouched;

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use layermesh_proto::{
    ContentId, FIRST_BYTES, NodeId, ObjectKind, PieceIndex, PieceLayout, Repository,
    engine::event::{Event, FetchId, SourceError},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{intake::VOUCH_WAIT, vouched::Vouched};
use self::{
    intake::{Intake, Vouch},
    parts::Wanted,
};
use crate::{
    counters::Counters,
    exchange::BulkClient,
    origin::{OriginBody, Origins},
    pace::Pace,
    store::{BeginError, Partial, Store, WriteError},
};

/// Largest body, in bytes, that is taken from an origin that does not say how long it is: it must be buffered to
/// learn its size. Manifests, which some registries send chunked, are below this.
const UNSIZED_BODY_MAX: usize = 4 << 20;

/// What fetches share.
#[derive(Clone)]
pub struct FetchContext {
    /// Where pieces go.
    pub store: Store,
    /// Bytes from registries.
    pub origins: Origins,
    /// Bytes from peers.
    pub bulk: BulkClient,
    /// What all fetches from registries share.
    pub uplink: Arc<Pace>,
    /// Byte counts.
    pub counters: Arc<Counters>,
    /// Where events go: the driver's queue.
    pub events: mpsc::Sender<Event>,
}

/// A source with what it takes to reach it.
#[derive(Debug, Clone)]
pub enum Reach {
    /// A peer.
    Peer {
        /// The peer.
        peer: NodeId,
        /// Its bulk address.
        bulk: std::net::SocketAddr,
        /// If it may not have the whole blob yet: what others vouch for. One that has it vouches itself.
        growing: Option<Vouched>,
    },
    /// A registry.
    Origin(Repository, ObjectKind),
}

impl Reach {
    /// The peer, if it is one.
    const fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Peer { peer, .. } => Some(*peer),
            Self::Origin(..) => None,
        }
    }
}

/// What one fetch is to bring.
#[derive(Debug, Clone)]
pub struct Job {
    /// The engine's id.
    pub fetch: FetchId,
    /// The blob.
    pub content: ContentId,
    /// From where.
    pub from: Reach,
    /// Size in bytes, if known. If not, an origin is asked for [`FIRST_BYTES`], and gives the size with them.
    pub size: Option<u64>,
    /// Which pieces; may reach past the end.
    pub pieces: Range<PieceIndex>,
}

/// What is left to ask for.
struct Plan {
    /// How the blob is cut, if that is known, or assumed because it was begun so.
    layout: Option<PieceLayout>,
    /// The pieces that the store has at the start of the run.
    skipped: Range<PieceIndex>,
    /// The others.
    run: Range<PieceIndex>,
}

/// What a source has said of itself.
struct Answer {
    size: u64,
    ranged: bool,
    run: Range<PieceIndex>,
    vouch: Vouch,
}

impl FetchContext {
    /// Runs a fetch to its end and reports it. Ends soon after `cancel`, keeping what was written.
    pub async fn run(self, job: Job, cancel: CancellationToken) {
        let result = self.transfer(&job, &cancel).await;
        // The driver is gone only when the node stops, and then nobody needs to know.
        let _ = self.events.send(Event::FetchEnded { fetch: job.fetch, result }).await;
    }

    /// Leaves out the pieces at the start of the run that the store has.
    fn plan(&self, job: &Job) -> Result<Plan, SourceError> {
        let known = job.size.map(layout).transpose()?;
        let begun = self.store.begun(&job.content).filter(|begun| known.is_none_or(|known| known == begun.layout()));
        let start = job.pieces.start;
        let first = begun.as_ref().map_or(start, |begun| begun.first_missing(start));
        // What nothing depends on is not assumed.
        let layout = known.or_else(|| Some(begun?.layout()).filter(|_| first > start));
        let end = layout.map_or(job.pieces.end, |layout| job.pieces.end.min(layout.count()));
        let first = first.min(end);
        Ok(Plan { layout, skipped: start.min(first)..first, run: first..end })
    }

    async fn transfer(&self, job: &Job, cancel: &CancellationToken) -> Result<(), SourceError> {
        let plan = self.plan(job)?;
        if let Some(layout) = plan.layout.filter(|_| plan.run.is_empty()) {
            let run = plan.run.clone();
            let answer = Answer { size: layout.blob_size(), ranged: true, run, vouch: Vouch::Nobody };
            return self.begin(job, &plan, answer, cancel).await.map(drop);
        }
        match &job.from {
            Reach::Peer { peer, bulk, growing } => {
                let (size, run) = (plan.layout.map(|layout| layout.blob_size()), plan.run.clone());
                let body = match growing {
                    Some(_) => {
                        or_cancelled(cancel, self.bulk.open_growing(*peer, *bulk, job.content, size, run)).await?
                    }
                    None => or_cancelled(cancel, self.bulk.open(*peer, *bulk, job.content, size, run)).await?,
                };
                let vouch = match (growing, body.map) {
                    (Some(vouched), _) => Vouch::Others(vouched.clone()),
                    (None, Some(map)) => Vouch::Map(map),
                    (None, None) => return Err(SourceError::Failed("does not say the pieces' hashes".to_owned())),
                };
                let answer = Answer { size: body.layout.blob_size(), ranged: true, run: body.pieces, vouch };
                self.begin(job, &plan, answer, cancel).await?.drain(body.stream, 0).await
            }
            Reach::Origin(repository, kind) => {
                let body = or_cancelled(cancel, self.open_origin(job, &plan, repository, *kind)).await?;
                let assumed = plan.layout.filter(|_| job.size.is_none()).map(|layout| layout.blob_size());
                if assumed.is_some() && body.total.is_some() && body.total != assumed {
                    // The origin is the one to say how large a blob is; the next try starts without those pieces.
                    self.store.remove(&job.content).await.map_err(|error| store_error(&error))?;
                }
                self.take_origin_body(job, &plan, body, cancel).await
            }
        }
    }

    async fn open_origin(
        &self,
        job: &Job,
        plan: &Plan,
        repository: &Repository,
        kind: ObjectKind,
    ) -> Result<OriginBody, SourceError> {
        let bytes = plan.layout.map_or(0..0, |layout| layout.bytes_of_run(&plan.run));
        let end = match job.size {
            // Of an empty blob, no part can be asked for.
            Some(_) => Some(bytes.end).filter(|&end| end > 0),
            None => Some(first_end(bytes.start)),
        };
        let (repository, sized) = (repository.clone(), job.size.is_some());
        let wanted = Wanted { repository, kind, content: job.content, start: bytes.start, end, sized };
        parts::open(&self.origins, &self.uplink, wanted).await
    }

    async fn take_origin_body(
        &self,
        job: &Job,
        plan: &Plan,
        body: OriginBody,
        cancel: &CancellationToken,
    ) -> Result<(), SourceError> {
        let OriginBody { total, start, ranged, stream } = body;
        let known = plan.layout.map(|layout| layout.blob_size());
        let (size, stream) = match (total, known) {
            (Some(total), Some(size)) if total != size => {
                return Err(SourceError::Failed(format!("it says that the blob has {total} bytes, not {size}")));
            }
            (Some(size), _) | (None, Some(size)) => (size, stream),
            (None, None) => {
                let bytes = or_cancelled(cancel, buffer_unsized(stream)).await?;
                let size = bytes.len() as u64;
                (size, futures::stream::once(std::future::ready(Ok(bytes))).boxed())
            }
        };
        let layout = layout(size)?;
        let wanted = layout.bytes_of(plan.run.start).start;
        let end = match job.size {
            None if ranged => first_end(wanted).div_ceil(u64::from(layout.piece_len())),
            _ => u64::from(plan.run.end),
        };
        let end = end.min(u64::from(layout.count())) as PieceIndex;
        let skip = wanted.checked_sub(start).ok_or_else(|| SourceError::Failed("it skipped bytes".to_owned()))?;
        let answer = Answer { size, ranged, run: plan.run.start..end, vouch: Vouch::Nobody };
        self.begin(job, plan, answer, cancel).await?.drain(stream, skip).await
    }

    /// Opens the partial, and says how large the blob is and which of the pieces asked for are there already.
    async fn begin(
        &self,
        job: &Job,
        plan: &Plan,
        answer: Answer,
        cancel: &CancellationToken,
    ) -> Result<Intake, SourceError> {
        let Answer { size, ranged, run, vouch } = answer;
        let partial = self.begin_partial(job, size).await?;
        let fetch = job.fetch;
        let _ = self.events.send(Event::FetchStarted { fetch, size, ranged }).await;
        let there: Vec<_> = plan.skipped.clone().filter_map(|index| Some((index, partial.hash_of(index)?))).collect();
        let mut intake = Intake {
            fetch,
            from_peer: job.from.peer(),
            layout: partial.layout(),
            next: run.start,
            end: run.end,
            vouch,
            flushed: partial.flushed(),
            partial,
            buffer: BytesMut::new(),
            unreported_bytes: 0,
            reported_at: Instant::now(),
            counters: self.counters.clone(),
            events: self.events.clone(),
            cancel: cancel.clone(),
        };
        if !there.is_empty() {
            intake.stored(there).await;
        }
        Ok(intake)
    }

    async fn begin_partial(&self, job: &Job, size: u64) -> Result<Partial, SourceError> {
        let partial = match self.store.begin(job.content, size).await {
            // Only a peer can have said otherwise, and pieces of a blob of another size are of no use. Fetches that still
            // bring such pieces end, since their partial is discarded.
            Err(BeginError::OtherSize { .. }) if matches!(job.from, Reach::Origin(..)) => {
                self.store.remove(&job.content).await.map_err(|error| store_error(&error))?;
                self.store.begin(job.content, size).await
            }
            begun => begun,
        };
        partial.map_err(|error| match error {
            BeginError::Held { .. } | BeginError::OtherSize { .. } | BeginError::TooLarge(_) => {
                SourceError::Failed(error.to_string())
            }
            error => store_error(&error),
        })
    }
}

/// Where the first question to an origin ends if it starts at this byte: at the next multiple of [`FIRST_BYTES`], which is
/// also the end of a piece.
const fn first_end(start: u64) -> u64 {
    (start / FIRST_BYTES + 1) * FIRST_BYTES
}

async fn or_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    cancel.run_until_cancelled(work).await.unwrap_or(Err(SourceError::Cancelled))
}

/// What a piece that is not stored says of its source.
fn write_error(error: &WriteError) -> SourceError {
    match error {
        WriteError::WrongHash { .. } => SourceError::WrongBytes,
        // The store is fine: what this source brings is no longer wanted in this form. Its size may be wrong.
        WriteError::Discarded => SourceError::Failed(error.to_string()),
        error => store_error(error),
    }
}

fn layout(size: u64) -> Result<PieceLayout, SourceError> {
    PieceLayout::for_size(size).ok_or_else(|| SourceError::Failed(format!("a blob of {size} bytes is over the limit")))
}

fn store_error(error: &dyn std::error::Error) -> SourceError {
    SourceError::Store(error.to_string())
}

async fn buffer_unsized(mut stream: BoxStream<'static, Result<Bytes, SourceError>>) -> Result<Bytes, SourceError> {
    let mut buffer = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if buffer.len() + chunk.len() > UNSIZED_BODY_MAX {
            return Err(SourceError::Failed(format!(
                "it does not say how long the body is, and the body is over {UNSIZED_BODY_MAX} bytes"
            )));
        }
        buffer.extend_from_slice(&chunk);
    }
    Ok(buffer.freeze())
}
