//! One fetch: bytes of one blob from one source into the store's partial.
//!
//! Invariants: a piece is written only when it is complete, in one write, and is reported as stored once it is
//! written and its hash is right; the end is reported only after the store made all of it durable. Pieces that the store
//! has are not asked for, also where the engine does not know of them, because the fetch that brought them was cancelled.
//! What is deliberately absent: any choice of source, order or retry; those are the engine's.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use layermesh_proto::{
    ContentId, NodeId, ObjectKind, PieceHash, PieceIndex, PieceLayout, PieceMap, Repository,
    engine::event::{Event, FetchId, SourceError},
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    counters::Counters,
    exchange::BulkClient,
    origin::{OriginBody, Origins},
    pace::Pace,
    store::{BeginError, Partial, Store, WriteError},
};

/// Bytes that a fetch writes before it asks the store to make them durable. Fewer syncs wear flash less; more
/// bytes at stake cost more after a power cut. 8 MiB is 32 s of a 2 Mbit/s uplink.
pub const SYNC_BYTES: u64 = 8 << 20;

/// Longest time that a verified piece stays undurable while the fetch goes on.
const SYNC_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes that may be written while a sync runs. More would be at stake and in the page cache; on a slow disk the
/// fetch then waits, and the source with it.
const UNSYNCED_BYTES_MAX: u64 = 2 * SYNC_BYTES;

/// Longest time that a sync counts as progress. Worn flash stalls for tens of seconds; a disk that takes longer over
/// a few megabytes is lost, and the engine's stall deadline shall see it.
const SYNC_PATIENCE: Duration = Duration::from_secs(120);

/// How often a fetch tells the engine that bytes come in. Far below the engine's stall deadlines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

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
        /// Whether it may not have the whole blob yet.
        growing: bool,
    },
    /// A registry.
    Origin(Repository, ObjectKind),
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
    /// Size in bytes, if known.
    pub size: Option<u64>,
    /// Which pieces; may reach past the end.
    pub pieces: Range<PieceIndex>,
}

impl FetchContext {
    /// Runs a fetch to its end and reports it. Ends soon after `cancel`, keeping what was written.
    pub async fn run(self, job: Job, cancel: CancellationToken) {
        let (fetch, content) = (job.fetch, job.content);
        let result = match cancel.run_until_cancelled(self.transfer(job)).await {
            Some(result) => result,
            None => {
                self.keep(&content).await;
                Err(SourceError::Cancelled)
            }
        };
        // The driver is gone only when the node stops, and then nobody needs to know.
        let _ = self.events.send(Event::FetchEnded { fetch, result }).await;
    }

    /// Makes durable what a cancelled fetch has written.
    async fn keep(&self, content: &ContentId) {
        let Some(partial) = self.store.begun(content) else { return };
        match partial.sync().await {
            Ok(_) | Err(WriteError::Discarded) => {}
            Err(error) => tracing::warn!(%content, %error, "cannot keep what a cancelled fetch brought"),
        }
    }

    /// Leaves out the pieces at the start of the run that the store has. Returns the size that it took from there,
    /// if it was not known.
    fn skip_stored(&self, job: &mut Job) -> Option<u64> {
        let partial = self.store.begun(&job.content)?;
        let layout = partial.layout();
        let first = partial.first_missing(job.pieces.start);
        if job.size.is_some_and(|size| size != layout.blob_size()) || first == job.pieces.start {
            return None;
        }
        job.pieces.end = job.pieces.end.min(layout.count());
        job.pieces.start = first.min(job.pieces.end);
        let size = layout.blob_size();
        job.size.replace(size).is_none().then_some(size)
    }

    async fn transfer(&self, mut job: Job) -> Result<(), SourceError> {
        let assumed = self.skip_stored(&mut job);
        if let Some(size) = job.size.filter(|_| job.pieces.is_empty()) {
            let pieces = job.pieces.clone();
            return self.begin(&job, size, pieces, None).await?.drain(futures::stream::empty().boxed(), 0).await;
        }
        match &job.from {
            Reach::Peer { peer, bulk, growing } => {
                let run = job.pieces.clone();
                let body = if *growing {
                    self.bulk.open_growing(*peer, *bulk, job.content, job.size, run).await?
                } else {
                    self.bulk.open(*peer, *bulk, job.content, job.size, run).await?
                };
                let intake = self.begin(&job, body.layout.blob_size(), body.pieces, body.map).await?;
                intake.drain(body.stream, 0).await
            }
            Reach::Origin(repository, kind) => {
                let (start, end) = match job.size {
                    Some(size) => byte_range(layout(size)?, &job.pieces),
                    None => (0, None),
                };
                let body = self.origins.open_part(repository, *kind, &job.content, start, end).await?;
                if assumed.is_some() && body.total.is_some() && body.total != assumed {
                    // The origin is the one to say how large a blob is; the next try starts without those pieces.
                    self.store.remove(&job.content).await.map_err(|error| store_error(&error))?;
                }
                self.take_origin_body(&job, body).await
            }
        }
    }

    async fn take_origin_body(&self, job: &Job, body: OriginBody) -> Result<(), SourceError> {
        let OriginBody { total, start, stream } = body;
        let uplink = Arc::clone(&self.uplink);
        // Not read on before it passed: the registry is slowed down by its connection.
        let stream = stream
            .then(move |chunk| {
                let uplink = Arc::clone(&uplink);
                async move {
                    if let Ok(chunk) = &chunk {
                        uplink.pass(chunk.len() as u64).await;
                    }
                    chunk
                }
            })
            .boxed();
        let (size, stream) = match (total, job.size) {
            (Some(total), Some(size)) if total != size => {
                return Err(SourceError::Failed(format!("it says that the blob has {total} bytes, not {size}")));
            }
            (Some(size), _) | (None, Some(size)) => (size, stream),
            (None, None) => {
                let bytes = buffer_unsized(stream).await?;
                let size = bytes.len() as u64;
                (size, futures::stream::once(std::future::ready(Ok(bytes))).boxed())
            }
        };
        let layout = layout(size)?;
        let pieces = job.pieces.start..job.pieces.end.min(layout.count());
        let wanted = layout.bytes_of_run(&pieces).start;
        let skip = wanted.checked_sub(start).ok_or_else(|| SourceError::Failed("it skipped bytes".to_owned()))?;
        let intake = self.begin(job, size, pieces, None).await?;
        intake.drain(stream, skip).await
    }

    /// Opens the partial and says how large the blob is.
    async fn begin(
        &self,
        job: &Job,
        size: u64,
        pieces: Range<PieceIndex>,
        map: Option<Arc<PieceMap>>,
    ) -> Result<Intake, SourceError> {
        let partial = match self.store.begin(job.content, size).await {
            // Only a peer can have said otherwise, and pieces of a blob of another size are of no use.
            Err(BeginError::OtherSize { .. }) if matches!(job.from, Reach::Origin(..)) => {
                self.store.remove(&job.content).await.map_err(|error| store_error(&error))?;
                self.store.begin(job.content, size).await
            }
            begun => begun,
        };
        let partial = partial.map_err(|error| match error {
            BeginError::Held { .. } | BeginError::OtherSize { .. } | BeginError::TooLarge(_) => {
                SourceError::Failed(error.to_string())
            }
            error => store_error(&error),
        })?;
        let _ = self.events.send(Event::FetchStarted { fetch: job.fetch, size }).await;
        let now = Instant::now();
        Ok(Intake {
            fetch: job.fetch,
            from_peer: matches!(job.from, Reach::Peer { .. }),
            layout: partial.layout(),
            next: pieces.start,
            end: pieces.end,
            map,
            partial,
            buffer: BytesMut::new(),
            unsynced_bytes: 0,
            unsynced_since: now,
            unreported_bytes: 0,
            reported_at: now,
            syncing: None,
            counters: self.counters.clone(),
            events: self.events.clone(),
        })
    }
}

/// Where a run of pieces starts, and where it ends unless with the blob.
fn byte_range(layout: PieceLayout, pieces: &Range<PieceIndex>) -> (u64, Option<u64>) {
    let end = (pieces.end < layout.count()).then(|| layout.bytes_of(pieces.end).start);
    (layout.bytes_of(pieces.start).start, end)
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

/// Cuts a byte stream into pieces and stores them.
struct Intake {
    fetch: FetchId,
    from_peer: bool,
    layout: PieceLayout,
    next: PieceIndex,
    end: PieceIndex,
    map: Option<Arc<PieceMap>>,
    partial: Partial,
    buffer: BytesMut,
    unsynced_bytes: u64,
    unsynced_since: Instant,
    unreported_bytes: u64,
    reported_at: Instant,
    syncing: Option<JoinHandle<Result<Vec<PieceIndex>, WriteError>>>,
    counters: Arc<Counters>,
    events: mpsc::Sender<Event>,
}

impl Intake {
    /// Takes the stream, without its first `skip` bytes, until all pieces are durable.
    async fn drain(
        mut self,
        mut stream: BoxStream<'static, Result<Bytes, SourceError>>,
        mut skip: u64,
    ) -> Result<(), SourceError> {
        let outcome = loop {
            if self.next >= self.end {
                break Ok(());
            }
            let chunk = tokio::select! {
                chunk = stream.next() => chunk,
                synced = finished(&mut self.syncing) => {
                    synced?;
                    continue;
                }
                // A source that stalls must not keep what it already gave from becoming durable.
                () = tokio::time::sleep_until(self.unsynced_since + SYNC_INTERVAL), if self.sync_due_later() => {
                    self.start_sync();
                    continue;
                }
            };
            let result = match chunk {
                Some(Ok(chunk)) => match self.take(chunk, &mut skip).await {
                    Ok(()) if self.unsynced_bytes >= UNSYNCED_BYTES_MAX => self.await_sync().await,
                    taken => taken,
                },
                Some(Err(error)) => Err(error),
                None => Err(SourceError::Unreachable("the body ended early".to_owned())),
            };
            if let Err(error) = result {
                break Err(error);
            }
        };
        // Also after a failure: what came in whole need not come again.
        let synced = self.settle().await;
        outcome.and(synced)
    }

    async fn take(&mut self, mut chunk: Bytes, skip: &mut u64) -> Result<(), SourceError> {
        self.count(chunk.len() as u64).await;
        let skipped = (*skip).min(chunk.len() as u64);
        *skip -= skipped;
        self.counters.discarded.add(skipped);
        // `skipped` is at most the chunk's length.
        let _ = chunk.split_to(skipped as usize);
        while !chunk.is_empty() && self.next < self.end {
            let bytes = self.layout.bytes_of(self.next);
            let piece_len = (bytes.end - bytes.start) as usize;
            let missing = piece_len - self.buffer.len();
            let part = chunk.split_to(missing.min(chunk.len()));
            if self.buffer.is_empty() && part.len() == piece_len {
                self.store(part).await?;
                continue;
            }
            self.buffer.reserve(missing);
            self.buffer.extend_from_slice(&part);
            if self.buffer.len() == piece_len {
                let piece = self.buffer.split().freeze();
                self.store(piece).await?;
            }
        }
        Ok(())
    }

    async fn store(&mut self, piece: Bytes) -> Result<(), SourceError> {
        let index = self.next;
        self.next += 1;
        let expected: Option<PieceHash> = self.map.as_ref().and_then(|map| map.hash(index));
        let len = piece.len() as u64;
        match self.partial.write(index, piece, expected).await {
            Ok(new) => {
                self.stored(index).await;
                if !new {
                    self.counters.discarded.add(len);
                    return Ok(());
                }
                if self.unsynced_bytes == 0 {
                    self.unsynced_since = Instant::now();
                }
                self.unsynced_bytes += len;
            }
            Err(WriteError::WrongHash { .. }) => {
                self.counters.discarded.add(len);
                return Err(SourceError::WrongBytes);
            }
            Err(error) => return Err(store_error(&error)),
        }
        if self.unsynced_bytes >= SYNC_BYTES && self.syncing.is_none() {
            self.start_sync();
        }
        Ok(())
    }

    fn sync_due_later(&self) -> bool {
        self.unsynced_bytes > 0 && self.syncing.is_none()
    }

    fn start_sync(&mut self) {
        let partial = self.partial.clone();
        self.unsynced_bytes = 0;
        self.syncing = Some(tokio::spawn(async move { partial.sync().await }));
    }

    /// Waits until everything written is durable.
    async fn settle(&mut self) -> Result<(), SourceError> {
        self.await_sync().await?;
        self.start_sync();
        self.await_sync().await
    }

    /// Waits for the sync that runs, if one does. A slow disk is not a source that stalls, so this counts as progress.
    async fn await_sync(&mut self) -> Result<(), SourceError> {
        let since = Instant::now();
        while self.syncing.is_some() {
            tokio::select! {
                synced = finished(&mut self.syncing) => synced?,
                () = tokio::time::sleep(PROGRESS_INTERVAL), if since.elapsed() < SYNC_PATIENCE => self.report(1).await,
            }
        }
        Ok(())
    }

    /// Says at once what others can have from here; that it is durable is not needed for that.
    async fn stored(&mut self, piece: PieceIndex) {
        let _ = self.events.send(Event::FetchStored { fetch: self.fetch, pieces: vec![piece] }).await;
    }

    async fn count(&mut self, bytes: u64) {
        if self.from_peer {
            self.counters.from_peers.add(bytes);
        }
        self.unreported_bytes += bytes;
        if self.reported_at.elapsed() >= PROGRESS_INTERVAL {
            self.report(self.unreported_bytes).await;
        }
    }

    async fn report(&mut self, bytes: u64) {
        self.unreported_bytes = 0;
        self.reported_at = Instant::now();
        let _ = self.events.send(Event::FetchProgress { fetch: self.fetch, bytes }).await;
    }
}

/// The result of a sync under way; never, if there is none.
async fn finished(syncing: &mut Option<JoinHandle<Result<Vec<PieceIndex>, WriteError>>>) -> Result<(), SourceError> {
    let Some(handle) = syncing else { return std::future::pending().await };
    let joined = handle.await;
    *syncing = None;
    match joined {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(store_error(&error)),
        Err(error) => Err(store_error(&error)),
    }
}
