//! Disks that take their time, and have an end.
//!
//! Room is taken for the whole of a blob when it is begun, as nodes do it: a disk that is full by then refuses it, one that
//! gets full later does not.
//!
//! Invariants: a disk writes one piece after the other; a fetch has one piece on its way at most while others of it wait
//! for the disk, so a slow disk slows its sources and no memory fills.

use std::time::Duration;

use layermesh_proto::{
    PieceHash, PieceIndex,
    engine::event::{Event, FetchId, Instant},
};

use crate::{
    checks::Violation,
    queue::Happening,
    sabotage::Sabotage,
    world::{NodeIndex, World},
};

/// Pieces of one fetch that may wait for the disk while the next is on its way.
pub(crate) const UNSTORED_MAX: u32 = 1;
/// Between two words that pieces wait for the disk. 2 s: well below what an engine waits for a source.
const STORING_INTERVAL: Duration = Duration::from_secs(2);

/// How a disk writes.
#[derive(Debug)]
pub(crate) struct Disk {
    /// In bytes a second; at once if `None`.
    rate: Option<u64>,
    /// Bytes that it has room for, if there is an end.
    free: Option<u64>,
    /// When all is written that came so far.
    busy_until: Instant,
}

impl Disk {
    pub(crate) fn new(rate: Option<u64>, free: Option<u64>) -> Self {
        Self { rate, free, busy_until: Instant::default() }
    }

    /// When so many bytes that come now are written; `None` if at once.
    fn written(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let Some(rate) = self.rate.map(|rate| rate.max(1)) else {
            // What came while it was slow is written first.
            return (self.busy_until > now).then_some(self.busy_until);
        };
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.busy_until = self.busy_until.max(now) + takes;
        Some(self.busy_until)
    }

    /// Takes room for bytes. `false` if there is none.
    pub(crate) fn take_room(&mut self, bytes: u64) -> bool {
        let Some(free) = &mut self.free else { return true };
        let fits = *free >= bytes;
        *free -= if fits { bytes } else { 0 };
        fits
    }
}

impl World {
    /// From now on a node's disk takes so many bytes a second; at once if `None`.
    pub fn set_disk(&mut self, node: NodeIndex, bytes_per_s: Option<u64>) {
        self.nodes[node].disk.rate = bytes_per_s;
    }

    /// A node's disk has room for so many bytes from now on; without end if `None`.
    pub fn set_disk_free(&mut self, node: NodeIndex, bytes: Option<u64>) {
        self.nodes[node].disk.free = bytes;
    }

    /// A piece of a fetch came in and goes to the disk.
    pub(crate) fn land(
        &mut self,
        node: NodeIndex,
        fetch: FetchId,
        (piece, hash, bytes): (PieceIndex, PieceHash, u64),
    ) -> Result<(), Violation> {
        let now = self.now;
        let Some(at) = self.nodes[node].disk.written(bytes, now) else {
            return self.keep(node, fetch, piece, hash);
        };
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        flow.unstored += 1;
        self.plan(at.since(now), node, Happening::Stored { fetch, piece, hash });
        if at.since(now) > STORING_INTERVAL {
            self.plan(STORING_INTERVAL, node, Happening::Storing { fetch });
        }
        Ok(())
    }

    /// Pieces of a fetch have waited for the disk for a while: nobody is to blame for the silence.
    pub(crate) fn storing(&mut self, node: NodeIndex, fetch: FetchId) -> Result<(), Violation> {
        if self.nodes[node].flows.get(&fetch).is_none_or(|flow| flow.unstored == 0) {
            return Ok(());
        }
        self.plan(STORING_INTERVAL, node, Happening::Storing { fetch });
        self.handle(node, Event::FetchProgress { fetch, bytes: 0 })
    }

    /// A piece is on the disk, later than it came.
    pub(crate) fn stored(
        &mut self,
        node: NodeIndex,
        fetch: FetchId,
        (piece, hash): (PieceIndex, PieceHash),
    ) -> Result<(), Violation> {
        let Some(flow) = self.nodes[node].flows.get_mut(&fetch) else { return Ok(()) };
        flow.unstored -= 1;
        self.keep(node, fetch, piece, hash)?;
        self.send_next(node, fetch)
    }

    /// A piece is durable.
    fn keep(&mut self, node: NodeIndex, fetch: FetchId, piece: PieceIndex, hash: PieceHash) -> Result<(), Violation> {
        let owner = &mut self.nodes[node];
        let Some(flow) = owner.flows.get_mut(&fetch) else { return Ok(()) };
        let (content, Some(layout)) = (flow.content, flow.layout) else { return Ok(()) };
        let range = layout.bytes_of(piece);
        let bytes = range.end - range.start;
        flow.landed = piece + 1;
        let lost =
            self.options.sabotage == Some(Sabotage::LosesPieces) && Sabotage::LosesPieces.loses(u64::from(piece));
        if !lost && !owner.store.write(content, piece, hash) {
            owner.bytes_wasted += bytes;
        }
        let half = owner
            .store
            .partial
            .get(&content)
            .is_some_and(|partial| partial.pieces.len() as u64 == u64::from(layout.count()).div_ceil(2));
        if half && self.is_sabotaged(Sabotage::HoldsEarly) {
            self.handle(node, Event::Held { content, size: layout.blob_size() })?;
        }
        self.wake_takers(node, content, Some(piece));
        self.handle(node, Event::FetchStored { fetch, pieces: vec![(piece, hash)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_becomes_fast_writes_what_came_before_first() {
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let mut disk = Disk::new(Some(10), None);
        assert_eq!(disk.written(100, at(0)), Some(at(10)));
        disk.rate = None;
        assert_eq!(disk.written(100, at(3)), Some(at(10)));
        assert_eq!(disk.written(100, at(10)), None);
    }
}
