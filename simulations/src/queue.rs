//! What is going to happen, in order of time and then of planning.
//!
//! Invariant: two things planned for the same moment happen in the order in which they were planned.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use layermesh_proto::{
    ContentId, NodeId, PieceHash, PieceIndex, TagRef,
    engine::event::{Event, FetchId, Instant, LookupId, RequestId, WantId},
    wire::{Announcement, ControlRequest, ControlResponse},
};

/// Something that happens to a node. What is large is boxed: most are gossip, and all are moved in and out of the queue.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The engine is told.
    Event(Box<Event>),
    /// A gossip message reaches the next of its listeners.
    Gossip(Box<Gossip>),
    /// A peer's question arrives.
    Question { from: NodeId, request: RequestId, body: Box<ControlRequest>, bytes: u64 },
    /// The answer to the node's own question arrives.
    Answer { from: usize, request: RequestId, response: Box<ControlResponse>, bytes: u64 },
    /// The source of a fetch is reached.
    Open { fetch: FetchId },
    /// The next piece of a fetch has arrived.
    Piece { fetch: FetchId },
    /// A piece that set out then is on its way for long: it is told how much came.
    Progress { fetch: FetchId, since: Instant },
    /// A piece of a fetch is on the disk.
    Stored { fetch: FetchId, piece: PieceIndex, hash: PieceHash },
    /// A fetch whose pieces wait for the disk says so.
    Storing { fetch: FetchId },
    /// What a fetch waits for may be there.
    More { fetch: FetchId },
    /// The source of a fetch is gone.
    Broken { fetch: FetchId },
    /// Some time has passed in which a blob was made of another one.
    Making { content: ContentId, attempt: u64 },
    /// A want of the driver's own is withdrawn.
    CalledOff { want: WantId },
    /// The store has checked a whole blob.
    Checked { content: ContentId },
    /// The origin is reached with a question.
    AtOrigin { lookup: LookupId, reference: Box<TagRef> },
    /// The node and another that is in this life find each other.
    Meet { other: Target },
    /// A connection with another node counts as gone, unless there is a new one.
    Parted { other: usize },
}

/// A gossip message on its way to all that listen.
#[derive(Debug)]
pub(crate) struct Gossip {
    pub(crate) from: NodeId,
    pub(crate) sequence: u64,
    pub(crate) announcement: Arc<Announcement>,
    /// Its encoded length.
    pub(crate) bytes: u64,
    /// When it reaches whom, the last first.
    pub(crate) listeners: Vec<(Instant, Target)>,
}

/// A node in one of its lives: what was meant for an earlier one is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

/// The queue: keys in a heap, what they stand for in slots that are used again, since moving large things is dear.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    order: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    slots: Vec<Option<(Target, Happening)>>,
    free: Vec<usize>,
    count: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Instant, target: Target, happening: Happening) {
        let planned = Some((target, happening));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = planned;
                slot
            }
            None => {
                self.slots.push(planned);
                self.slots.len() - 1
            }
        };
        self.order.push(Reverse((at, self.count, slot)));
        self.count += 1;
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Target, Happening)> {
        let Reverse((.., slot)) = self.order.pop()?;
        self.free.push(slot);
        self.slots[slot].take()
    }
}
