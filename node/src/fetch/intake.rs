//! Where the bytes of a fetch become pieces in the store.
//!
//! Invariant: at most one piece and one chunk are in memory. A piece waits here until somebody vouches for it, or until
//! the disk has caught up, and its source waits with it.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use layermesh_proto::{
    NodeId, PieceHash, PieceIndex, PieceLayout, PieceMap,
    engine::event::{Event, FetchId, SourceError},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Vouched, store_error, write_error};
use crate::{
    counters::Counters,
    store::{Flushed, Partial, UNDURABLE_BYTES_MAX},
};

/// Longest wait for somebody who vouches for a piece that has come. Whoever could has had the piece from the same source
/// at about the same time, so hashes come within a round trip or a few; the source's connection waits meanwhile, and
/// is given up by the peer after a minute or less.
pub const VOUCH_WAIT: Duration = Duration::from_secs(10);

/// Longest time that a sync counts as progress. Worn flash stalls for tens of seconds; a disk that takes longer over
/// a few megabytes is lost, and the engine's stall deadline shall see it.
const SYNC_PATIENCE: Duration = Duration::from_secs(120);

/// How often a fetch tells the engine that bytes come in. Far below the engine's stall deadlines.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Who says which hash a piece has.
pub(super) enum Vouch {
    /// Nobody before it has come: it is from an origin.
    Nobody,
    /// The source, which holds the whole blob.
    Map(Arc<PieceMap>),
    /// Others, one piece after the other.
    Others(Vouched),
}

/// Cuts a byte stream into pieces and stores them.
pub(super) struct Intake {
    pub(super) fetch: FetchId,
    /// The source, if it is a peer.
    pub(super) from_peer: Option<NodeId>,
    pub(super) layout: PieceLayout,
    pub(super) next: PieceIndex,
    pub(super) end: PieceIndex,
    pub(super) vouch: Vouch,
    pub(super) partial: Partial,
    pub(super) flushed: watch::Receiver<Flushed>,
    pub(super) buffer: BytesMut,
    pub(super) unreported_bytes: u64,
    pub(super) reported_at: Instant,
    pub(super) counters: Arc<Counters>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) cancel: CancellationToken,
}

impl Intake {
    /// Takes the stream, without its first `skip` bytes, until all pieces are written. A piece whose bytes have come is
    /// still written and reported after the fetch was cancelled.
    pub(super) async fn drain(
        mut self,
        mut stream: BoxStream<'static, Result<Bytes, SourceError>>,
        mut skip: u64,
    ) -> Result<(), SourceError> {
        while self.next < self.end {
            let chunk = tokio::select! {
                () = self.cancel.cancelled() => return Err(SourceError::Cancelled),
                chunk = stream.next() => chunk,
                () = tokio::time::sleep_until(self.reported_at + PROGRESS_INTERVAL), if self.unreported_bytes > 0 => {
                    self.report(self.unreported_bytes).await;
                    continue;
                }
            };
            match chunk {
                Some(Ok(chunk)) => self.take(chunk, &mut skip).await?,
                Some(Err(error)) => return Err(error),
                None => return Err(SourceError::Unreachable("the body ended early".to_owned())),
            }
        }
        Ok(())
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
        let len = piece.len() as u64;
        let expected = match self.expected(index).await {
            Ok(expected) => expected,
            Err(error) => {
                self.counters.discarded.add(len);
                return Err(error);
            }
        };
        match self.partial.write(index, piece, expected).await {
            Ok(written) => {
                if written.new {
                    self.partial.sync_soon(len);
                } else {
                    self.counters.discarded.add(len);
                }
                self.stored(vec![(index, written.hash)]).await;
            }
            Err(error) => {
                self.counters.discarded.add(len);
                return Err(write_error(&error));
            }
        }
        self.wait_for_the_disk().await
    }

    /// The hash that a piece must have. If others are to say and have not, waits for them, or for somebody else to write
    /// the piece.
    async fn expected(&mut self, index: PieceIndex) -> Result<Option<PieceHash>, SourceError> {
        let vouched = match &self.vouch {
            Vouch::Nobody => return Ok(None),
            Vouch::Map(map) => return Ok(map.hash(index)),
            Vouch::Others(vouched) => vouched.clone(),
        };
        if vouched.get(index).is_none() && self.partial.hash_of(index).is_none() {
            // This wait is not the source's; that it gave bytes shall be known.
            if self.unreported_bytes > 0 {
                self.report(self.unreported_bytes).await;
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(SourceError::Cancelled),
                () = vouched.known(index) => {}
                () = self.partial.written(index) => {}
                () = tokio::time::sleep(VOUCH_WAIT) => {
                    return Err(SourceError::Unreachable(format!("nobody vouched for its piece {index} in time")));
                }
            }
        }
        let expected = vouched.get(index);
        vouched.forget(index);
        match (expected, self.partial.hash_of(index)) {
            (Some(expected), _) => Ok(Some(expected)),
            // The bytes are not looked at then; should it be dropped just now, they must be what was there.
            (None, Some(written)) => Ok(Some(written)),
            (None, None) => Err(SourceError::Unreachable(format!("nobody vouches for its piece {index} any more"))),
        }
    }

    /// Lets the disk catch up if too much would be lost by a power cut. A slow disk is not a source that stalls, so the
    /// engine, to which no bytes are a sign that this device is busy, is told so now and then; not for ever.
    async fn wait_for_the_disk(&mut self) -> Result<(), SourceError> {
        let since = Instant::now();
        loop {
            if self.flushed.has_changed().unwrap_or(false) {
                let failure = self.flushed.borrow_and_update().clone();
                if let Some(error) = failure {
                    return Err(store_error(&*error));
                }
            }
            if self.partial.undurable_bytes() < UNDURABLE_BYTES_MAX {
                return Ok(());
            }
            // It may be that a sync has failed and none is due.
            self.partial.sync_soon(0);
            tokio::select! {
                () = self.cancel.cancelled() => return Err(SourceError::Cancelled),
                // The partial keeps the sender.
                _ = self.flushed.changed() => self.flushed.mark_changed(),
                () = tokio::time::sleep(PROGRESS_INTERVAL), if since.elapsed() < SYNC_PATIENCE => {
                    if self.unreported_bytes > 0 {
                        self.report(self.unreported_bytes).await;
                    }
                    self.report(0).await;
                }
            }
        }
    }

    /// Says at once what others can have from here; that it is durable is not needed for that.
    pub(super) async fn stored(&mut self, pieces: Vec<(PieceIndex, PieceHash)>) {
        let _ = self.events.send(Event::FetchStored { fetch: self.fetch, pieces }).await;
    }

    async fn count(&mut self, bytes: u64) {
        if let Some(peer) = self.from_peer {
            self.counters.came_from(peer, bytes);
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
