//! What this node tells others: its inventory, as a log compacted to the newest change of each subject.
//!
//! Invariants: a change's number is never given twice in an epoch; every subject has at most one change in the
//! log; a blob is in the log as held only between [`Inventory::hold`] and [`Inventory::lose`]. Removals are
//! remembered up to a limit; the highest forgotten one is the floor, and whoever asks from below it starts anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ContentId, NodeId, TagRef,
    wire::{
        Announcement, Binding, Change, Entry, InventoryPage, InventoryPosition,
        announcement::CHANGES_PER_ANNOUNCEMENT_MAX,
        control::{CHANGES_PER_PAGE_MAX, CONTROL_RESPONSE_BYTES_MAX},
    },
};

/// Bytes of a page that are not changes, and reserve for what the estimate does not know.
const PAGE_RESERVE_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Blob(ContentId),
    Tag(TagRef),
}

/// The own inventory.
#[derive(Debug)]
pub(super) struct Inventory {
    position: InventoryPosition,
    floor: u64,
    log: BTreeMap<u64, Entry>,
    newest: BTreeMap<Subject, u64>,
    removals: BTreeSet<u64>,
    removals_max: usize,
    entries_max: usize,
    announced: u64,
    /// Peers that are being told everything from the start, and how far they are: their position may be below
    /// the floor without their having missed anything.
    from_start: BTreeMap<NodeId, u64>,
}

/// What to do about changes that were not announced yet.
pub(super) enum Burst {
    /// Send these.
    Announcements(Vec<Announcement>),
    /// There are too many: say where the inventory stands and let peers ask.
    Summary,
}

impl Inventory {
    pub(super) fn new(epoch: u64, entries_max: usize, removals_max: usize) -> Self {
        Self {
            position: InventoryPosition { epoch, seq: 0 },
            floor: 0,
            log: BTreeMap::new(),
            newest: BTreeMap::new(),
            removals: BTreeSet::new(),
            removals_max,
            entries_max,
            announced: 0,
            from_start: BTreeMap::new(),
        }
    }

    pub(super) fn position(&self) -> InventoryPosition {
        self.position
    }

    /// Size of a blob that is held.
    pub(super) fn held(&self, content: &ContentId) -> Option<u64> {
        match self.log.get(self.newest.get(&Subject::Blob(*content))?)? {
            Entry::Held { size, .. } => Some(*size),
            _ => None,
        }
    }

    /// Takes up a blob. `false` if the inventory is full.
    pub(super) fn hold(&mut self, content: ContentId, size: u64) -> bool {
        self.held(&content) == Some(size) || self.put(Subject::Blob(content), Entry::Held { content, size })
    }

    /// Takes a blob out, and says whether it was in.
    pub(super) fn lose(&mut self, content: ContentId) -> bool {
        self.held(&content).is_some() && self.put(Subject::Blob(content), Entry::Gone { content })
    }

    /// The binding of a tag that peers can know.
    pub(super) fn bound(&self, reference: &TagRef) -> Option<&Binding> {
        match self.log.get(self.newest.get(&Subject::Tag(reference.clone()))?)? {
            Entry::Bound(binding) => Some(binding),
            _ => None,
        }
    }

    /// Takes up a binding. `false` if the inventory is full.
    pub(super) fn bind(&mut self, binding: Binding) -> bool {
        self.put(Subject::Tag(binding.reference.clone()), Entry::Bound(binding))
    }

    fn put(&mut self, subject: Subject, entry: Entry) -> bool {
        let before = self.newest.get(&subject).copied();
        let live = self.log.len() - self.removals.len();
        let replaces_live = before.is_some_and(|seq| !self.removals.contains(&seq));
        let removal = matches!(entry, Entry::Gone { .. });
        if !removal && !replaces_live && live >= self.entries_max {
            return false;
        }
        if let Some(seq) = before {
            self.log.remove(&seq);
            self.removals.remove(&seq);
        }
        self.position.seq += 1;
        let seq = self.position.seq;
        self.newest.insert(subject, seq);
        self.log.insert(seq, entry);
        if removal {
            self.removals.insert(seq);
            if self.removals.len() > self.removals_max {
                self.forget_oldest_removal();
            }
        }
        true
    }

    fn forget_oldest_removal(&mut self) {
        let Some(seq) = self.removals.pop_first() else { return };
        if let Some(Entry::Gone { content }) = self.log.remove(&seq) {
            self.newest.remove(&Subject::Blob(content));
        }
        self.floor = seq;
        // Those half-way through may have been told of the blob and would now never hear that it is gone.
        self.from_start.clear();
    }

    /// Answers a peer's question what changed after `since`.
    pub(super) fn page(&mut self, asker: NodeId, since: InventoryPosition) -> InventoryPage {
        let continues = self.from_start.remove(&asker) == Some(since.seq);
        let comparable = since.epoch == self.position.epoch && since.seq <= self.position.seq;
        let from_start = !(comparable && (continues || since.seq >= self.floor));
        let after = if from_start { 0 } else { since.seq };
        let bytes_max = CONTROL_RESPONSE_BYTES_MAX - PAGE_RESERVE_BYTES;
        let (changes, more) = self.changes_after(after, CHANGES_PER_PAGE_MAX, bytes_max);
        let seq = match changes.last() {
            Some(last) if more => last.seq,
            _ => self.position.seq,
        };
        if more && (from_start || continues) {
            self.from_start.insert(asker, seq);
        }
        InventoryPage { from_start, changes, position: InventoryPosition { seq, ..self.position }, more }
    }

    /// Forgets where a peer's questions are; it left.
    pub(super) fn left(&mut self, asker: &NodeId) {
        self.from_start.remove(asker);
    }

    /// Whether something was not announced yet.
    pub(super) fn has_news(&self) -> bool {
        self.announced < self.position.seq
    }

    /// What to say about the news, which then is none.
    pub(super) fn take_news(&mut self, bytes_max: usize, announcements_max: usize) -> Burst {
        let mut since = InventoryPosition { seq: self.announced, ..self.position };
        self.announced = self.position.seq;
        if since.seq < self.floor {
            return Burst::Summary;
        }
        let mut announcements = Vec::new();
        loop {
            let (changes, more) = self.changes_after(since.seq, CHANGES_PER_ANNOUNCEMENT_MAX, bytes_max);
            let Some(last) = changes.last().map(|change| change.seq) else { break };
            announcements.push(Announcement::Changed { since, changes });
            since.seq = last;
            if !more {
                break;
            }
            if announcements.len() >= announcements_max {
                return Burst::Summary;
            }
        }
        Burst::Announcements(announcements)
    }

    /// Everything there is to say is known to all who could hear it: nobody is connected.
    pub(super) fn drop_news(&mut self) {
        self.announced = self.position.seq;
    }

    fn changes_after(&self, after: u64, count_max: usize, bytes_max: usize) -> (Vec<Change>, bool) {
        let mut bytes = 0;
        let mut changes = Vec::new();
        for (&seq, entry) in self.log.range(after.saturating_add(1)..) {
            bytes += bytes_of(entry);
            if changes.len() == count_max || (bytes > bytes_max && !changes.is_empty()) {
                return (changes, true);
            }
            changes.push(Change { seq, entry: entry.clone() });
        }
        (changes, false)
    }
}

/// Upper estimate of a change's encoded size: field names, numbers and a sha2-512 content id, and the names of
/// a binding.
fn bytes_of(entry: &Entry) -> usize {
    match entry {
        Entry::Held { .. } | Entry::Gone { .. } => 160,
        Entry::Bound(Binding { reference, .. }) => {
            let repository = reference.repository();
            240 + repository.registry().len() + repository.name().len() + reference.tag().len()
        }
    }
}
