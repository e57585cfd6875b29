//! Making a blob of one that a node holds, with a patch: what the driver does for its engine.
//!
//! The patch is wanted like any other blob; then the node goes through the work at its rate. Invariant: a blob that is made is
//! the origin's, or the patch is one that does not make it.

use std::time::Duration;

use layermesh_proto::{
    ContentId,
    engine::{
        Rebuild, Urgency,
        event::{Event, SourceError, WantId},
    },
};

use crate::{
    checks::Violation,
    queue::Happening,
    world::{Blob, NodeIndex, World},
};

/// Between two words on how far it is.
const STEP: Duration = Duration::from_millis(500);
/// Bytes of tars a second that a node gets through. 20 MB/s: between a small ARM board and a server.
const WORK_BYTES_PER_S: u64 = 20_000_000;
/// Bytes to go through for each byte of a layer: its tar is about two and a half times as large, and it is read and written.
const WORK_PER_BYTE: u64 = 5;

/// A way to make a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) base: ContentId,
    pub(crate) patch: Blob,
    pub(crate) size: u64,
    /// The patch does not make the blob.
    pub(crate) wrong: bool,
}

/// A blob that is being made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    /// The want of the patch.
    pub(crate) want: WantId,
    done: u64,
    /// Words about an earlier attempt count for nothing.
    attempt: u64,
}

impl Way {
    const fn work(&self) -> u64 {
        self.size * WORK_PER_BYTE
    }
}

impl World {
    /// A node's disk has a blob from the start, or from now on.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn hold(&mut self, node: NodeIndex, blob: Blob) -> Result<(), Violation> {
        self.nodes[node].store.whole.insert(blob.content, blob.size);
        self.handle(node, Event::Held { content: blob.content, size: blob.size })
    }

    /// A node learns that a blob can be made of another one with a patch. If it holds that one, its engine hears of it, and
    /// again when it starts anew.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn patched(&mut self, node: NodeIndex, blob: Blob, base: Blob, patch: Blob) -> Result<(), Violation> {
        let way = Way { base: base.content, patch, size: blob.size, wrong: false };
        self.nodes[node].ways.insert(blob.content, way);
        self.tell_ways(node)
    }

    /// Lets the patch of a blob be one that does not make it, at all nodes.
    pub fn spoil_patch(&mut self, blob: Blob) {
        for node in &mut self.nodes {
            if let Some(way) = node.ways.get_mut(&blob.content) {
                way.wrong = true;
            }
        }
    }

    pub(crate) fn tell_ways(&mut self, node: NodeIndex) -> Result<(), Violation> {
        let state = &self.nodes[node];
        let whole = &state.store.whole;
        let open =
            state.ways.iter().filter(|(content, way)| whole.contains_key(&way.base) && !whole.contains_key(content));
        let told: Vec<_> = open.map(|(content, way)| (*content, *way)).collect();
        for (content, way) in told {
            let (patch, patch_bytes) = (way.patch.content, way.patch.size);
            let rebuild = Rebuild { patch, patch_bytes, size: way.size, work: way.work() };
            self.handle(node, Event::Rebuildable { content, rebuild })?;
        }
        Ok(())
    }

    /// The engine wants a blob to be made.
    pub(crate) fn begin_making(&mut self, node: NodeIndex, content: ContentId, urgency: Urgency) {
        let Some(way) = self.nodes[node].ways.get(&content).copied() else {
            let error = SourceError::Failed("nobody said how".to_owned());
            return self.plan(
                Duration::ZERO,
                node,
                Happening::Event(Box::new(Event::RebuildFailed { content, error })),
            );
        };
        let want = WantId(self.nodes[node].id());
        let attempt = self.nodes[node].id();
        self.nodes[node].making.insert(content, Making { want, done: 0, attempt });
        self.open_want(node, want, way.patch, urgency);
        let want = self.want_event(want, way.patch, urgency);
        self.plan(Duration::ZERO, node, Happening::Event(Box::new(want)));
        self.plan(STEP, node, Happening::Making { content, attempt });
    }

    /// The engine does not want it to be made any more.
    pub(crate) fn stop_making(&mut self, node: NodeIndex, content: ContentId) {
        if let Some(making) = self.nodes[node].making.remove(&content) {
            self.plan(Duration::ZERO, node, Happening::CalledOff { want: making.want });
        }
    }

    /// The patch of a blob that is not made any more is not wanted either.
    pub(crate) fn call_off(&mut self, node: NodeIndex, want: WantId) -> Result<(), Violation> {
        if self.nodes[node].wants.remove(&want).is_some_and(|want| want.ended.is_none()) {
            self.open_wants -= 1;
        }
        self.handle(node, Event::Unwant { want })
    }

    /// Some time has passed in which a blob was made.
    pub(crate) fn make(&mut self, node: NodeIndex, content: ContentId, attempt: u64) -> Result<(), Violation> {
        let state = &mut self.nodes[node];
        let (Some(making), Some(way)) = (state.making.get_mut(&content), state.ways.get(&content)) else {
            return Ok(());
        };
        if making.attempt != attempt {
            return Ok(());
        }
        let (work, wrong, size) = (way.work(), way.wrong, way.size);
        match state.wants.get(&making.want).and_then(|want| want.ended.as_ref()) {
            None => {}
            Some((_, Ok(()))) => making.done += WORK_BYTES_PER_S * STEP.as_millis() as u64 / 1000,
            Some((_, Err(error))) => {
                let error = SourceError::Failed(error.to_string());
                state.making.remove(&content);
                return self.handle(node, Event::RebuildFailed { content, error });
            }
        }
        let done = making.done;
        if done < work {
            self.plan(STEP, node, Happening::Making { content, attempt });
            return self.handle(node, Event::RebuildProgress { content, done });
        }
        state.making.remove(&content);
        if wrong {
            return self.handle(node, Event::RebuildFailed { content, error: SourceError::WrongBytes });
        }
        state.store.partial.remove(&content);
        state.store.whole.insert(content, size);
        self.handle(node, Event::Held { content, size })
    }

    /// How many blobs nodes made of others.
    pub fn is_making(&self, node: NodeIndex) -> bool {
        !self.nodes[node].making.is_empty()
    }
}
