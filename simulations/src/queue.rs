//! What is going to happen, in order of time and then of planning.

use std::collections::BTreeMap;

use layermesh_proto::{
    ContentId, NodeId, TagRef,
    engine::event::{Event, FetchId, Instant, LookupId, RequestId},
    wire::{ControlRequest, ControlResponse},
};

/// Something that happens to a node.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The engine is told.
    Event(Event),
    /// A peer's question arrives.
    Question { from: NodeId, request: RequestId, body: ControlRequest },
    /// The answer to the node's own question arrives.
    Answer { request: RequestId, response: ControlResponse },
    /// The source of a fetch is reached.
    Open { fetch: FetchId },
    /// The next piece of a fetch has arrived.
    Piece { fetch: FetchId },
    /// A fetch looks whether its source has got more by now.
    More { fetch: FetchId },
    /// The source of a fetch is gone.
    Broken { fetch: FetchId },
    /// The store has checked a whole blob.
    Checked { content: ContentId },
    /// The origin is reached with a question.
    AtOrigin { lookup: LookupId, reference: TagRef },
}

/// A node in one of its lives: what was meant for an earlier one is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    planned: BTreeMap<(Instant, u64), (Target, Happening)>,
    count: u64,
}

impl Queue {
    pub(crate) fn plan(&mut self, at: Instant, target: Target, happening: Happening) {
        self.planned.insert((at, self.count), (target, happening));
        self.count += 1;
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.planned.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Target, Happening)> {
        self.planned.pop_first().map(|(_, planned)| planned)
    }
}
