//! Rebuilding layers, as the engine says.
//!
//! The patch is wanted from the mesh like any blob. Then the old layer is read from the store, the patch applied to it and
//! the new layer written to the store as it comes, in one pass, and compressed as the registry has it. Invariants: one layer
//! is made at a time, since that takes memory and a processor; one that comes out wrong leaves nothing behind; every
//! order is answered once, unless it is called off.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use layermesh_proto::{
    ContentId, ObjectKind,
    engine::{Urgency, event::SourceError},
};
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    apply::{ApplyError, Limits, apply, read_header},
    ways::{Way, Ways},
};
use crate::{
    config::Deltas,
    mesh::{Mesh, Prepare},
    seed::{self, Keep, ReceiveError},
    store::{BlobReader, Store},
};

/// Orders that may wait. 512: each transfer of the engine may be begun and called off.
pub const ORDER_QUEUE_LEN: usize = 512;
/// Images that are looked at and layers that are made or wait for that, at once. 512: what the engine may order, and as much.
const TASKS_MAX: usize = 512;
/// How often the engine hears how far a layer is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes read from the store at a time.
const READ_LEN: usize = 256 << 10;
/// Bytes of the new layer that are handed to the store at a time.
const CHUNK_LEN: usize = 256 << 10;
/// Such chunks on their way to the store.
const CHUNKS: usize = 4;

/// What is to be done.
#[derive(Debug)]
pub enum Order {
    /// An image is about to be pulled: look for patches.
    Prepare(Prepare),
    /// Make a layer with a patch.
    Rebuild {
        /// The layer.
        content: ContentId,
        /// The patch.
        patch: ContentId,
        /// Whether somebody waits for it.
        urgency: Urgency,
    },
    /// Do not make it any more.
    Cancel {
        /// The layer.
        content: ContentId,
    },
}

/// Why a layer was not made.
#[derive(Debug, Error)]
enum RebuildError {
    /// Nobody said how.
    #[error("it is not known any more how it is made")]
    Unknown,
    /// The patch cannot be had.
    #[error("the patch cannot be had: {0}")]
    Patch(layermesh_proto::engine::event::WantError),
    /// The patch does not make it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The patch is another layer's.
    #[error("the patch makes {0}")]
    Another(ContentId),
    /// The store did not take it.
    #[error(transparent)]
    Store(ReceiveError),
    /// The task broke off.
    #[error("it broke off")]
    BrokeOff,
}

impl RebuildError {
    fn for_engine(&self) -> SourceError {
        match self {
            // A patch that asks for too much, or is of another layer, will do so the next time as well.
            Self::Apply(error) if !matches!(error, ApplyError::Patch(_) | ApplyError::Base(_) | ApplyError::Out(_)) => {
                SourceError::WrongBytes
            }
            Self::Another(_) | Self::Store(ReceiveError::WrongBytes { .. } | ReceiveError::TooLong(_)) => {
                SourceError::WrongBytes
            }
            Self::Store(ReceiveError::Begin(_) | ReceiveError::Write(_) | ReceiveError::Complete(_)) => {
                SourceError::Store(self.to_string())
            }
            _ => SourceError::Failed(self.to_string()),
        }
    }
}

/// The task.
pub struct Rebuilder {
    mesh: Mesh,
    store: Store,
    ways: Ways,
    limits: Limits,
    orders: mpsc::Receiver<Order>,
}

impl Rebuilder {
    /// The task that does what it is ordered to.
    pub fn new(mesh: Mesh, store: Store, deltas: Deltas, orders: mpsc::Receiver<Order>) -> Self {
        let ways = Ways::new(mesh.clone(), store.clone(), deltas != Deltas::Off);
        let limits = if deltas == Deltas::Tiny { Limits::TINY } else { Limits::DEFAULT };
        Self { mesh, store, ways, limits, orders }
    }

    /// Makes layers until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let turns = Arc::new(Semaphore::new(1));
        let mut running: HashMap<ContentId, CancellationToken> = HashMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let order = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = tasks.join_next() => continue,
                order = self.orders.recv() => order,
            };
            match order {
                None => break,
                Some(Order::Prepare(prepare)) if tasks.len() < TASKS_MAX => {
                    let ways = self.ways.clone();
                    tasks.spawn(async move { ways.prepare(prepare).await });
                }
                // Whoever waits for it goes on.
                Some(Order::Prepare(_)) => {}
                Some(Order::Cancel { content }) => {
                    if let Some(cancel) = running.remove(&content) {
                        cancel.cancel();
                    }
                }
                Some(Order::Rebuild { content, patch, urgency }) => {
                    running.retain(|_, cancel| !cancel.is_cancelled());
                    let cancel = shutdown.child_token();
                    running.insert(content, cancel.clone());
                    let making = Making {
                        mesh: self.mesh.clone(),
                        store: self.store.clone(),
                        way: self.ways.of(&content, &patch),
                        limits: self.limits,
                        content,
                        urgency,
                        turns: Arc::clone(&turns),
                        work: Arc::default(),
                        cancel,
                    };
                    tasks.spawn(making.run());
                }
            }
        }
        running.into_values().for_each(|cancel| cancel.cancel());
        while tasks.join_next().await.is_some() {}
    }
}

/// One layer that is made.
struct Making {
    mesh: Mesh,
    store: Store,
    way: Option<Way>,
    limits: Limits,
    content: ContentId,
    urgency: Urgency,
    turns: Arc<Semaphore>,
    /// Bytes of the new layer that came.
    work: Arc<AtomicU64>,
    /// Called off, or over.
    cancel: CancellationToken,
}

impl Making {
    async fn run(self) {
        let content = self.content;
        let result = tokio::select! {
            result = self.make() => result,
            never = self.report() => match never {},
        };
        let called_off = self.cancel.is_cancelled();
        self.cancel.cancel();
        match result {
            // Also if it was called off at the last moment: a runtime that has read the last piece, and waits for nothing any
            // more, may be sooner than this. It is there, and others want it.
            Ok(size) => {
                tracing::info!(%content, size, "made a layer of one that is held, with a patch");
                self.mesh.took_in(content, size).await;
            }
            // The engine may have ordered it anew; it is not to take this for that one's end.
            Err(_) if called_off => {}
            Err(error) => {
                tracing::warn!(%content, %error, "a layer could not be made of one that is held; it is fetched");
                self.mesh.rebuild_failed(content, error.for_engine()).await;
            }
        }
    }

    /// Says how far it is, for ever.
    async fn report(&self) -> std::convert::Infallible {
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let made = self.work.load(Ordering::Relaxed);
            let done = self.way.as_ref().map_or(0, |way| {
                let work = u128::from(way.entry.base_len.saturating_add(way.entry.target_len));
                let share = work * u128::from(made) / u128::from(way.entry.target_size.max(1));
                u64::try_from(share).unwrap_or(u64::MAX)
            });
            self.mesh.rebuild_progress(self.content, done).await;
        }
    }

    async fn make(&self) -> Result<u64, RebuildError> {
        let way = self.way.as_ref().ok_or(RebuildError::Unknown)?;
        let (patch, base) = (way.entry.patch, way.base);
        let _holds = (self.store.hold(patch), self.store.hold(base));
        if self.store.size_of(&patch).is_none() {
            let (from, size) = (Some(way.repository.clone()), Some(way.entry.patch_size));
            let mut want = self.mesh.want_within(patch, ObjectKind::Blob, from, self.urgency, size).await;
            tokio::select! {
                ended = want.ended() => ended.map_err(RebuildError::Patch)?,
                () = self.cancel.cancelled() => return Err(RebuildError::BrokeOff),
            }
        }
        let _turn = tokio::select! {
            turn = self.turns.acquire() => turn,
            () = self.cancel.cancelled() => return Err(RebuildError::BrokeOff),
        };
        let (chunks, chunked) = mpsc::channel(CHUNKS);
        let (content, work) = (self.content, Arc::clone(&self.work));
        let limits = self.limits.for_layer(way.entry.target_size);
        let old = Blocking::new(self.store.reader(base));
        let (first, patch) = (Blocking::new(self.store.reader(patch)), Blocking::new(self.store.reader(patch)));
        let making = tokio::task::spawn_blocking(move || {
            let mut out = Chunks { chunks, buffer: Vec::with_capacity(CHUNK_LEN), work };
            let result = match read_header(first) {
                // Whoever reads what comes would be cut off in the end.
                Ok(header) if header.blob != content => Ok(header),
                Ok(_) => apply(old, patch, &mut out, &limits),
                Err(error) => Err(error),
            };
            let result = result.and_then(|header| out.flush().map(|()| header).map_err(ApplyError::Out));
            if let Err(error) = &result {
                // The store must not take what came so far for all that comes.
                let _ = out.chunks.blocking_send(Err(error.to_string()));
            }
            result
        });
        let cancel = &self.cancel;
        let body = stream::unfold(chunked, |mut chunked| async move {
            let chunk = tokio::select! {
                chunk = chunked.recv() => chunk,
                // So that the store drops what came.
                () = cancel.cancelled() => Some(Err("it was called off".to_owned())),
            };
            chunk.map(|chunk| (chunk, chunked))
        });
        let taken =
            seed::receive(&self.store, content, way.entry.target_size, 0, Box::pin(body), Keep::OnlyIfWhole).await;
        // What the patch says of itself explains more than that the store got too little.
        let header = making.await.map_err(|_| RebuildError::BrokeOff)??;
        if header.blob != content {
            return Err(RebuildError::Another(header.blob));
        }
        taken.map_err(RebuildError::Store)?;
        Ok(way.entry.target_size)
    }
}

/// A blob of the store, read by a thread that may wait.
struct Blocking {
    reader: BlobReader,
    runtime: Handle,
    at: u64,
    part: Bytes,
}

impl Blocking {
    fn new(reader: BlobReader) -> Self {
        Self { reader, runtime: Handle::current(), at: 0, part: Bytes::new() }
    }
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.part.is_empty() {
            self.part = self.runtime.block_on(self.reader.read(self.at, READ_LEN)).map_err(io::Error::other)?;
            self.at += self.part.len() as u64;
        }
        let len = buffer.len().min(self.part.len());
        buffer[..len].copy_from_slice(&self.part.split_to(len));
        Ok(len)
    }
}

/// The new layer on its way to the store.
struct Chunks {
    chunks: mpsc::Sender<Result<Bytes, String>>,
    buffer: Vec<u8>,
    work: Arc<AtomicU64>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(CHUNK_LEN - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..len]);
        if self.buffer.len() == CHUNK_LEN {
            self.flush()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::copy_from_slice(&self.buffer);
        self.work.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.buffer.clear();
        // Whoever does not take it any more says why itself.
        self.chunks.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
