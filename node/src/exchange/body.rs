//! The bytes of a blob as the body of an answer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use http_body::{Body, Frame, SizeHint};
use layermesh_proto::NodeId;
use tokio::time::timeout;

use super::{BlobRead, uploads::Upload};
use crate::{counters::Counters, pace::Pace};

/// Bytes asked of the source at a time. Larger ones only cost memory: TLS cuts into 16 KiB records anyway.
const CHUNK_BYTES: usize = 128 << 10;

/// What a body is made of, but for the place in the blob.
pub(super) struct Sending<R> {
    pub(super) reader: R,
    /// Whether bytes may come much later, from elsewhere.
    pub(super) growing: bool,
    /// For the next bytes to be readable.
    pub(super) stall_max: Duration,
    pub(super) upload: Upload,
    pub(super) lan: Arc<Pace>,
}

impl<R: BlobRead> Sending<R> {
    /// Some of the `left` bytes from `offset`, which may be sent now.
    async fn chunk(&mut self, offset: u64, left: u64) -> io::Result<Bytes> {
        // Reading ahead of a slot costs a piece's memory, and of a slow disk what those who have one need. Of a growing
        // blob it is what tells whether there is something to send.
        if !self.growing {
            self.upload.turn().await;
        }
        let chunk_max = CHUNK_BYTES.min(usize::try_from(self.lan.chunk_bytes()).unwrap_or(CHUNK_BYTES));
        let max = usize::try_from(left).map_or(chunk_max, |left| left.min(chunk_max));
        let chunk = {
            let mut read = std::pin::pin!(self.reader.read(offset, max));
            match read.as_mut().now_or_never() {
                Some(chunk) => chunk,
                None => {
                    // It may wait for a node that waits for one of these slots.
                    if self.growing {
                        self.upload.rest();
                    }
                    timeout(self.stall_max, read).await?
                }
            }
        }?;
        self.upload.turn().await;
        // With the slot: so those who share the rate are those who have one, and a peer has no more of it for having
        // many requests.
        self.upload.held_up(self.lan.pass(chunk.len() as u64)).await;
        self.upload.sent(chunk.len() as u64);
        Ok(chunk)
    }
}

/// A run of a blob's bytes as a body of known length. An error, also of a source that ends early, makes hyper
/// close the connection without ending the body.
pub(super) struct BlobBody {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    remaining: u64,
    peer: NodeId,
    counters: Arc<Counters>,
}

impl BlobBody {
    /// `len` bytes from `start` on for the peer that they are counted as sent to.
    pub(super) fn new<R: BlobRead>(
        sending: Sending<R>,
        start: u64,
        len: u64,
        counted: (NodeId, Arc<Counters>),
    ) -> Self {
        let (peer, counters) = counted;
        let end = start + len;
        let bytes = futures::stream::try_unfold((sending, start), move |(mut sending, offset)| async move {
            if offset >= end {
                return Ok(None);
            }
            let chunk = sending.chunk(offset, end - offset).await?;
            let next = offset + chunk.len() as u64;
            Ok(Some((chunk, (sending, next))))
        });
        Self { bytes: bytes.boxed(), remaining: len, peer, counters }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.bytes.poll_next_unpin(cx)) {
            Some(Ok(chunk)) if !chunk.is_empty() && chunk.len() as u64 <= self.remaining => {
                self.remaining -= chunk.len() as u64;
                self.counters.went_to(self.peer, chunk.len() as u64);
                Ok(Frame::data(chunk))
            }
            Some(Ok(_)) | None => Err(io::Error::other("the source gave another number of bytes than asked for")),
            Some(Err(error)) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::exchange::{
        BlobSource as _,
        memory::{Fault, MemorySource},
        slots::Limits,
        uploads::{self, Uploads},
    };

    const STALL_MAX: Duration = Duration::from_secs(20);
    const BYTES_PER_S: u64 = 1_000_000;

    fn peer(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    /// Upload slots, and a source with one blob that bodies are made of.
    struct Bench {
        uploads: Arc<Uploads>,
        lan: Arc<Pace>,
        source: MemorySource,
        content: layermesh_proto::ContentId,
        len: u64,
    }

    impl Bench {
        fn new(slots: usize, bytes_per_s: Option<u64>, len: u64) -> Self {
            let uploads = Arc::new(Uploads::new(Limits { slots, ..uploads::LIMITS }));
            let (lan, source) = (Arc::new(Pace::new(bytes_per_s)), MemorySource::default());
            let content = source.insert(vec![7; usize::try_from(len).unwrap()]);
            tokio::spawn({
                let uploads = Arc::clone(&uploads);
                async move { uploads.take_back_overdue().await }
            });
            Self { uploads, lan, source, content, len }
        }

        async fn body(&self, peer: NodeId, growing: bool, counters: Arc<Counters>) -> BlobBody {
            let upload = self.uploads.admit(peer, STALL_MAX * 10).await.unwrap();
            let (reader, lan) = (self.source.reader(self.content), Arc::clone(&self.lan));
            BlobBody::new(Sending { reader, growing, stall_max: STALL_MAX, upload, lan }, 0, self.len, (peer, counters))
        }

        /// Asks and reads all, as fast as it comes.
        async fn fetch(&self, peer: NodeId, counters: &Arc<Counters>) {
            self.body(peer, false, Arc::clone(counters)).await.collect().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_growing_body_with_nothing_to_send_has_no_slot() {
        let bench = Bench::new(2, None, 1 << 20);
        bench.source.fault(bench.content, Fault::StallAt(CHUNK_BYTES as u64));
        let mut growing = bench.body(peer(1), true, Arc::default()).await;
        let mut whole = bench.body(peer(1), false, Arc::default()).await;
        assert_eq!(bench.uploads.count(), (2, 0));
        for body in [&mut growing, &mut whole] {
            body.frame().now_or_never().unwrap().unwrap().unwrap();
            assert!(body.frame().now_or_never().is_none(), "nothing more has landed");
        }
        assert_eq!(bench.uploads.count(), (1, 0), "only the one that reads what the node has");
        let start = Instant::now();
        let others =
            [bench.body(peer(2), false, Arc::default()).await, bench.body(peer(3), false, Arc::default()).await];
        assert_eq!(start.elapsed().as_millis(), 250, "that one's source is as slow as a reader can be");
        assert_eq!(bench.uploads.count(), (2, 0));
        drop((others, growing, whole));
        assert_eq!(bench.uploads.count(), (0, 0));
    }

    /// One peer with ten requests and one with one, under a rate that all of them share.
    #[tokio::test(start_paused = true)]
    async fn the_rate_is_shared_peer_by_peer() {
        let bench = Bench::new(2, Some(BYTES_PER_S), 4 << 20);
        let (crowd, single) = (Arc::<Counters>::default(), Arc::<Counters>::default());
        let start = Instant::now();
        tokio::select! {
            biased;
            _ = futures::future::join_all((0..10).map(|_| bench.fetch(peer(1), &crowd))) => panic!("the crowd was first"),
            () = bench.fetch(peer(2), &single) => {}
        }
        let (crowd, single) = (crowd.to_peers.get(), single.to_peers.get());
        assert_eq!(single, bench.len);
        assert!(crowd.abs_diff(single) <= single / 10, "{crowd} and {single}");
        let sent_in_s = (crowd + single) as f64 / start.elapsed().as_secs_f64();
        assert!((sent_in_s / BYTES_PER_S as f64 - 1.0).abs() < 0.1, "{sent_in_s}");
        assert_eq!(bench.uploads.count(), (0, 0));
    }

    /// With a slot for everybody, the rate is shared body by body.
    #[tokio::test(start_paused = true)]
    async fn bodies_with_slots_get_the_rate_in_turn() {
        let bench = Bench::new(4, Some(BYTES_PER_S), 1 << 20);
        let sent: [Arc<Counters>; 4] = Default::default();
        tokio::select! {
            () = bench.fetch(peer(1), &sent[0]) => {}
            () = bench.fetch(peer(1), &sent[1]) => {}
            () = bench.fetch(peer(1), &sent[2]) => {}
            () = bench.fetch(peer(2), &sent[3]) => {}
        }
        let sent = sent.map(|counters| counters.to_peers.get());
        assert!(sent.iter().all(|&bytes| bytes + bench.lan.chunk_bytes() >= bench.len), "{sent:?}");
    }
}
