//! What this node tells others: its inventory, as a log compacted to the newest change of each subject.
//!
//! Invariants: a change's number is never given twice in an epoch; every subject has at most one change in the
//! log; a blob is in the log as held only between [`Inventory::hold`] and [`Inventory::lose`]. Removals are
//! remembered up to a limit; the highest forgotten one is the floor, and whoever asks from below it starts anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ContentId, NodeId, TagRef,
    piece::BLOB_SIZE_MAX,
    wire::{
        Announcement, Binding, Change, Entry, Following, InventoryPage, InventoryPosition,
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
    Releases,
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

    /// Every blob that is held, and its size.
    pub(super) fn all_held(&self) -> impl Iterator<Item = (ContentId, u64)> + '_ {
        self.log.values().filter_map(|entry| match entry {
            Entry::Held { content, size } => Some((*content, *size)),
            _ => None,
        })
    }

    /// Takes up a blob. `false` if the inventory is full, or the blob larger than can be said on the wire.
    pub(super) fn hold(&mut self, content: ContentId, size: u64) -> bool {
        if size > BLOB_SIZE_MAX {
            return false;
        }
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

    /// Says that this node follows releases. `false` if the inventory is full.
    pub(super) fn follow(&mut self, following: Following) -> bool {
        self.put(Subject::Releases, Entry::Following(following))
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
            300 + repository.registry().len() + repository.name().len() + reference.tag().len()
        }
        Entry::Following(Following { repository, channels, platforms, .. }) => {
            let labels = channels.iter().chain(platforms).chain([repository]);
            180 + labels.map(|label| label.len() + 2).sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Algorithm, Repository,
        engine::Config,
        wire::{
            ControlResponse,
            codec::{encode_announcement, encode_control_response},
        },
    };

    const ASKER: NodeId = NodeId::from_public_key([1; 32]);

    fn blob(number: u16) -> ContentId {
        ContentId::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    /// A peer that asks page by page.
    struct Listener {
        position: InventoryPosition,
        held: BTreeSet<ContentId>,
    }

    impl Listener {
        fn new() -> Self {
            Self { position: InventoryPosition { epoch: 0, seq: 0 }, held: BTreeSet::new() }
        }

        fn apply(&mut self, changes: Vec<Change>) {
            for change in changes {
                match change.entry {
                    Entry::Held { content, .. } => self.held.insert(content),
                    Entry::Gone { content } => self.held.remove(&content),
                    Entry::Bound(_) | Entry::Following(_) => false,
                };
            }
        }

        /// Asks once and says whether there is more.
        fn ask(&mut self, inventory: &mut Inventory) -> bool {
            let page = inventory.page(ASKER, self.position);
            assert!(page.changes.len() <= CHANGES_PER_PAGE_MAX);
            if page.from_start {
                self.held.clear();
            }
            self.apply(page.changes);
            self.position = page.position;
            page.more
        }
    }

    #[test]
    fn a_large_inventory_with_forgotten_removals_is_told_page_by_page() {
        let mut inventory = Inventory::new(9, 10_000, 1);
        (0..700).for_each(|number| assert!(inventory.hold(blob(number), 1)));
        // The floor now lies above most of the log.
        (0..3).for_each(|number| assert!(inventory.lose(blob(number))));
        let mut listener = Listener::new();
        assert!(listener.ask(&mut inventory));
        assert!(listener.ask(&mut inventory));
        assert!(!listener.ask(&mut inventory));
        assert_eq!(listener.held, (3..700).map(blob).collect());
    }

    #[test]
    fn a_full_inventory_takes_nothing_more_but_what_it_has_can_change() {
        let mut inventory = Inventory::new(9, 2, 2);
        assert!(inventory.hold(blob(1), 1) && inventory.hold(blob(2), 1));
        assert!(!inventory.hold(blob(3), 1));
        assert!(inventory.hold(blob(2), 5), "found to be of another size");
        assert!(inventory.lose(blob(1)) && inventory.hold(blob(3), 1));
        assert_eq!([1, 2, 3].map(|number| inventory.held(&blob(number))), [None, Some(5), Some(1)]);
    }

    #[test]
    fn a_small_burst_is_sent_in_messages_and_a_large_one_left_to_questions() {
        let mut inventory = Inventory::new(9, 10_000, 2);
        (0..70).for_each(|number| assert!(inventory.hold(blob(number), 1)));
        let Burst::Announcements(announcements) = inventory.take_news(12 << 10, 4) else { panic!("too many") };
        let mut listener = Listener::new();
        let mut reached = 0;
        for announcement in announcements {
            let Announcement::Changed { since, changes } = announcement else { panic!("not changes") };
            assert_eq!(since.seq, reached);
            assert!(changes.len() <= CHANGES_PER_ANNOUNCEMENT_MAX);
            reached = changes.last().unwrap().seq;
            listener.apply(changes);
        }
        assert_eq!(listener.held.len(), 70);
        assert!(!inventory.has_news());
        (70..1000).for_each(|number| assert!(inventory.hold(blob(number), 1)));
        assert!(matches!(inventory.take_news(12 << 10, 4), Burst::Summary));
        assert!(!inventory.has_news());
    }

    #[test]
    fn the_longest_names_fit_their_message() {
        let registry = format!("{}:65535", vec!["a".repeat(63); 4].join(".").get(..253).unwrap());
        let repository = Repository::new(&registry, &"a".repeat(255)).unwrap();
        let mut inventory = Inventory::new(9, 10_000, 2);
        for number in 0..300 {
            let reference = TagRef::new(repository.clone(), &format!("{number:0>128}")).unwrap();
            let content = ContentId::of(Algorithm::Sha512, b"");
            assert!(inventory.bind(Binding {
                reference,
                content,
                observed_unix_s: u64::MAX,
                age_ms: Some(u64::MAX),
                by: Some(NodeId::from_public_key([0xff; 32])),
            }));
        }
        assert!(inventory.hold(ContentId::of(Algorithm::Sha512, b"a"), BLOB_SIZE_MAX));
        let page = inventory.page(ASKER, InventoryPosition { epoch: 0, seq: 0 });
        assert!(page.more && page.changes.len() > 200);
        assert!(encode_control_response(&ControlResponse::Inventory(page)).is_ok());
        for announcement in all_news(&mut inventory) {
            assert!(encode_announcement(&announcement).is_ok());
        }
        let mut inventory = Inventory::new(u64::MAX, 10_000, 2);
        for number in 0u16..300 {
            assert!(inventory.hold(ContentId::of(Algorithm::Sha512, &number.to_be_bytes()), BLOB_SIZE_MAX));
        }
        for announcement in all_news(&mut inventory) {
            assert!(encode_announcement(&announcement).is_ok());
        }
        assert!(!inventory.hold(ContentId::of(Algorithm::Sha512, b""), BLOB_SIZE_MAX + 1));
    }

    fn all_news(inventory: &mut Inventory) -> Vec<Announcement> {
        match inventory.take_news(Config::default().announcement_bytes_max, usize::MAX) {
            Burst::Announcements(announcements) => announcements,
            Burst::Summary => panic!("news was left out"),
        }
    }

    proptest! {
        #[test]
        fn a_listener_ends_up_with_what_is_held(
            steps in prop::collection::vec((0u16..600, 0u8..8, 1u16..200), 1..60), removals_max in 1usize..4
        ) {
            let mut inventory = Inventory::new(9, 10_000, removals_max);
            let mut listener = Listener::new();
            for (first, what, count) in steps {
                let numbers = first..first + count;
                match what {
                    0..=3 => numbers.for_each(|number| { inventory.hold(blob(number), 1); }),
                    4 | 5 => numbers.take(5).for_each(|number| { inventory.lose(blob(number)); }),
                    _ => { listener.ask(&mut inventory); }
                }
            }
            let mut pages = 0;
            while listener.ask(&mut inventory) {
                pages += 1;
                prop_assert!(pages < 20);
            }
            let held = (0..800).map(blob).filter(|content| inventory.held(content).is_some()).collect();
            prop_assert_eq!(listener.held, held);
            prop_assert!(inventory.removals.len() <= removals_max);
        }
    }
}
