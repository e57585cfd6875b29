//! Arbitrary events in any order: the engine never panics, keeps its limits and its word, and when the world falls
//! silent every want, resolve and fetch ends by ticks alone.
//!
//! Property tests and the fuzzer draw the events; [`run`] plays them and holds the engine to its word.

use std::{collections::BTreeSet, time::Duration};

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{
    Config, Engine, Limits, PieceState, Rebuild, Uplink, Urgency,
    budget::{MINUTES_PER_DAY, MINUTES_PER_WEEK, Window},
    event::{
        Action, CallId, Event, FetchId, Instant, LookupId, OriginTag, PromiseId, RequestId, ResolveId, SignedBinding,
        SourceError, WantId,
    },
    releases::Examined,
    timers::Timer,
};
use crate::{
    Algorithm, ContentId, NodeId, ObjectKind, PieceHash, PieceHashes, PieceSet, Repository, TagRef,
    piece::PIECE_LEN_MIN,
    wire::{
        Announcement, Binding, Change, Claim, ControlRequest, ControlResponse, Entry, Following, Having, Hello,
        InventoryPage, InventoryPosition, Part, Stripe, Summary, TagWord, VouchedRun, Vouches,
    },
};

/// By when every want has ended once nothing happens any more: a check by the store takes longest.
const SILENCE_MAX: Duration = Duration::from_secs(1800);
/// Ticks in that time: retries are the most frequent.
const TICKS_MAX: usize = 5000;

/// Events of a story that bytes draw.
const DRAWN_EVENTS_MAX: usize = 60;
/// Bytes that draw one of them.
const DRAW_BYTES: usize = 8;

/// Small ones, so that a few events reach them.
const LIMITS: Limits = Limits {
    transfers: 2,
    wants: 4,
    origins_per_transfer: 2,
    tag_calls: 1,
    resolves: 3,
    lookups: 2,
    peers: 2,
    peers_remembered: 1,
    reaching: 1,
    penalties: 1,
    blobs_per_peer: 2,
    blobs_of_peers: 3,
    inventory: 3,
    tombstones: 1,
    bindings: 1,
    bindings_signed: 1,
    rollouts: 1,
    bindings_of_peers: 2,
    bindings_per_tag: 1,
    partials: 1,
    rebuilds: 2,
    parts: 1,
    offers: 1,
    parties: 3,
    having_bytes: 2,
    origins: 1,
};

fn content() -> impl Strategy<Value = ContentId> {
    prop::sample::select(vec!["A", "B", "C", "D"]).prop_map(blob)
}

fn node() -> impl Strategy<Value = NodeId> {
    prop::sample::select(vec!["P", "Q", "R"]).prop_map(peer)
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![8 => (0u64..6).prop_map(size_of), 1 => Just(u64::MAX), 1 => Just(1)]
}

fn tag() -> impl Strategy<Value = TagRef> {
    ("[ab]", "[v-w]").prop_map(|(name, tag)| TagRef::new(repository(&name), &tag).unwrap())
}

fn binding() -> impl Strategy<Value = Binding> {
    let age = prop::option::of(prop_oneof![0u64..100_000, Just(u64::MAX)]);
    (tag(), content(), any::<u64>(), age, prop::option::of(node())).prop_map(
        |(reference, content, observed_unix_s, age_ms, by)| Binding { reference, content, observed_unix_s, age_ms, by },
    )
}

fn tag_word() -> impl Strategy<Value = TagWord> {
    prop_oneof![
        2 => binding().prop_map(TagWord::Bound),
        1 => Just(TagWord::Ask),
        1 => Just(TagWord::Wait),
        1 => Just(TagWord::Away),
    ]
}

fn signed() -> impl Strategy<Value = SignedBinding> {
    (tag(), content()).prop_map(|(reference, content)| SignedBinding { reference, content, release: String::new() })
}

fn error() -> impl Strategy<Value = SourceError> {
    prop::sample::select(vec![
        SourceError::Unreachable(String::new()),
        SourceError::NotFound,
        SourceError::Unauthorized(String::new()),
        SourceError::RateLimited { retry_after: Some(Duration::MAX) },
        SourceError::RateLimited { retry_after: None },
        SourceError::Unavailable(String::new()),
        SourceError::Failed(String::new()),
        SourceError::WrongBytes,
        SourceError::Store(String::new()),
        SourceError::Cancelled,
    ])
}

fn position() -> impl Strategy<Value = InventoryPosition> {
    (0u64..3, prop_oneof![0u64..6, Just(u64::MAX)]).prop_map(|(epoch, seq)| InventoryPosition { epoch, seq })
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let entry = prop_oneof![
        4 => (content(), size()).prop_map(|(content, size)| Entry::Held { content, size }),
        1 => content().prop_map(|content| Entry::Gone { content }),
        1 => binding().prop_map(Entry::Bound),
        1 => following().prop_map(Entry::Following),
    ];
    prop::collection::vec((1u64..6, entry).prop_map(|(seq, entry)| Change { seq, entry }), 0..4).prop_map(
        |mut changes| {
            // Mostly in order, or nothing would ever be applied.
            changes.sort_by_key(|change| change.seq);
            changes
        },
    )
}

fn following() -> impl Strategy<Value = Following> {
    (0u64..4, prop::option::of(content())).prop_map(|(version, content)| Following {
        repository: "r".to_owned(),
        version,
        content,
        channels: vec!["stable".to_owned()],
        platforms: Vec::new(),
    })
}

fn summary() -> impl Strategy<Value = Summary> {
    position().prop_map(|position| Summary { position, origin_reachable: None, platform: String::new() })
}

fn hello() -> impl Strategy<Value = Hello> {
    summary().prop_map(|summary| Hello { bulk_port: 0, version: String::new(), summary })
}

fn response() -> impl Strategy<Value = ControlResponse> {
    let page = (any::<bool>(), changes(), position(), any::<bool>())
        .prop_map(|(from_start, changes, position, more)| InventoryPage { from_start, changes, position, more });
    let run = (0u32..6, hashes(), any::<bool>()).prop_map(|(first, hashes, own)| VouchedRun { first, hashes, own });
    let vouches = (size(), prop::collection::vec(run, 0..3)).prop_map(|(size, runs)| Vouches { size, runs });
    prop_oneof![
        hello().prop_map(ControlResponse::Hello),
        page.prop_map(ControlResponse::Inventory),
        vouches.prop_map(ControlResponse::Vouches),
        tag_word().prop_map(ControlResponse::Tag),
        Just(ControlResponse::Noted),
    ]
}

fn pieces() -> impl Strategy<Value = PieceSet> {
    (0u32..6, prop::collection::vec(0u32..6, 0..6)).prop_map(|(count, pieces)| {
        let mut set = PieceSet::empty(count);
        for piece in pieces {
            set.insert(piece);
        }
        set
    })
}

fn having() -> impl Strategy<Value = Having> {
    pieces().prop_map(|pieces| Having { size: size_of(u64::from(pieces.pieces())), pieces })
}

fn claim() -> impl Strategy<Value = Claim> {
    let end = prop_oneof![4 => 0u32..7, 1 => Just(u32::MAX)];
    let turn = prop_oneof![4 => Just(0u8), 1 => any::<u8>()];
    (0u32..6, end, turn, any::<u32>()).prop_map(|(first, end, turn, lease_ms)| Claim {
        stripe: Stripe { first, end, turn, tree: turn % 3 },
        lease_ms,
    })
}

fn hash() -> impl Strategy<Value = PieceHash> {
    prop_oneof![6 => Just(0u8), 1 => Just(1u8)].prop_map(|byte| PieceHash([byte; 32]))
}

fn hashes() -> impl Strategy<Value = PieceHashes> {
    prop::collection::vec(hash(), 1..4).prop_map(PieceHashes)
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        (content(), any::<bool>(), prop::option::of(having()), prop::option::of(claim()))
            .prop_map(|(content, origin, having, claim)| Part::Wanted { content, origin, having, claim }),
        (content(), size(), 0u32..6, hashes()).prop_map(|(content, size, first, hashes)| Part::Vouched {
            content,
            size,
            first,
            hashes
        }),
        content().prop_map(|content| Part::Left { content }),
    ]
}

fn from_peers() -> impl Strategy<Value = Event> {
    let request = prop_oneof![
        hello().prop_map(ControlRequest::Hello),
        position().prop_map(|since| ControlRequest::Inventory { since }),
        (content(), 0u32..6).prop_map(|(content, first)| ControlRequest::Vouches { content, first }),
        tag().prop_map(|reference| ControlRequest::Tag { reference }),
        (tag(), tag_word()).prop_map(|(reference, word)| ControlRequest::TagSaid { reference, word }),
    ];
    let announcement = prop_oneof![
        (position(), changes()).prop_map(|(since, changes)| Announcement::Changed { since, changes }),
        summary().prop_map(Announcement::Summary),
        part().prop_map(Announcement::Taking),
    ];
    prop_oneof![
        node().prop_map(|peer| Event::PeerConnected { peer }),
        node().prop_map(|peer| Event::PeerDisconnected { peer }),
        (node(), 0..9u64, announcement).prop_map(|(from, sequence, announcement)| Event::Announced {
            from,
            sequence,
            announcement
        }),
        (node(), request).prop_map(|(from, request)| Event::Requested { call: CallId(0), from, request }),
        (0u64..12, response()).prop_map(|(id, response)| Event::Responded { request: RequestId(id), response }),
        (0u64..12).prop_map(|id| Event::RequestFailed { request: RequestId(id) }),
    ]
}

fn from_store() -> impl Strategy<Value = Event> {
    prop_oneof![
        (content(), size()).prop_map(|(content, size)| Event::Held { content, size }),
        content().prop_map(|content| Event::Lost { content }),
        (content(), size(), pieces()).prop_map(|(content, size, pieces)| Event::PartlyHeld { content, size, pieces }),
        (content(), error()).prop_map(|(content, error)| Event::CompleteFailed { content, error }),
        (content(), content(), size(), size(), any::<u64>()).prop_map(|(content, patch, patch_bytes, size, work)| {
            Event::Rebuildable { content, rebuild: Rebuild { patch, patch_bytes, size, work } }
        }),
        (content(), prop_oneof![0u64..9, Just(u64::MAX)])
            .prop_map(|(content, done)| Event::RebuildProgress { content, done }),
        (content(), error()).prop_map(|(content, error)| Event::RebuildFailed { content, error }),
        (content(), prop::collection::vec((0u32..7, hash()), 0..4))
            .prop_map(|(content, pieces)| Event::Recalled { content, pieces }),
        binding().prop_map(Event::BindingKnown),
        prop::collection::vec(signed(), 0..3).prop_map(Event::SignedBindings),
    ]
}

fn urgency() -> impl Strategy<Value = Urgency> {
    prop::sample::select(vec![Urgency::Runtime, Urgency::Background])
}

/// Windows are open on Mondays.
fn uplink() -> impl Strategy<Value = Uplink> {
    let monday = Window::new([true, false, false, false, false, false, false], 0, MINUTES_PER_DAY).unwrap();
    (any::<bool>(), any::<bool>(), prop::option::of(1u64..100)).prop_map(move |(metered, windows, site_bytes_per_s)| {
        // Without a window, what waits for a metered uplink waits for ever.
        Uplink {
            metered: metered && windows,
            windows: windows.then_some(monday).into_iter().collect(),
            site_bytes_per_s,
        }
    })
}

fn from_readers() -> impl Strategy<Value = Event> {
    let repository = || "[ab]".prop_map(|name| repository(&name));
    let want = (0u64..12, content(), prop::option::of(repository()), urgency(), prop::option::of(size())).prop_map(
        |(want, content, repository, urgency, size_max)| Event::Want {
            want: WantId(want),
            content,
            kind: ObjectKind::Blob,
            repository,
            urgency,
            size_max,
        },
    );
    let examined = prop_oneof![Just(Examined::Accepted), Just(Examined::Refused), Just(Examined::Unavailable)];
    let examined = (content(), examined).prop_map(|(content, examined)| Event::Examined { content, examined });
    prop_oneof![
        4 => want,
        1 => (0u64..12, any::<u64>()).prop_map(|(want, offset)| Event::ReaderAt { want: WantId(want), offset }),
        1 => (0u64..12, size()).prop_map(|(want, offset)| Event::ReaderAt { want: WantId(want), offset }),
        1 => examined,
        1 => following().prop_map(Event::Following),
        1 => (0u64..12).prop_map(|want| Event::Unwant { want: WantId(want) }),
        1 => (0u64..100, tag(), prop_oneof![Just(0), any::<u64>()]).prop_map(|(id, reference, now_unix_s)| {
            Event::Resolve { resolve: ResolveId(id), reference, now_unix_s }
        }),
        1 => (prop::collection::vec(content(), 0..3), repository()).prop_map(|(contents, repository)| {
            Event::Promise { promise: PromiseId(0), contents, repository }
        }),
    ]
}

fn from_sources() -> impl Strategy<Value = Event> {
    let fetch = || (0u64..12).prop_map(FetchId);
    let outcome = prop_oneof![2 => Just(Ok(())), 1 => error().prop_map(Err)];
    let said = (content(), any::<u64>()).prop_map(|(content, now_unix_s)| OriginTag { content, now_unix_s });
    prop_oneof![
        4 => (fetch(), size(), prop::bool::weighted(0.8))
            .prop_map(|(fetch, size, ranged)| Event::FetchStarted { fetch, size, ranged }),
        1 => (fetch(), any::<u64>()).prop_map(|(fetch, bytes)| Event::FetchProgress { fetch, bytes }),
        4 => (fetch(), prop::collection::vec((0u32..7, hash()), 0..6))
            .prop_map(|(fetch, pieces)| Event::FetchStored { fetch, pieces }),
        3 => (fetch(), outcome).prop_map(|(fetch, result)| Event::FetchEnded { fetch, result }),
        1 => (0u64..6, prop_oneof![said.prop_map(Ok), error().prop_map(Err)])
            .prop_map(|(lookup, result)| Event::OriginAnswered { lookup: LookupId(lookup), result }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let clock = prop_oneof![0..MINUTES_PER_DAY, 0..MINUTES_PER_WEEK, any::<u16>()];
    prop_oneof![
        3 => from_peers(),
        2 => from_store(),
        3 => from_readers(),
        4 => from_sources(),
        1 => Just(Event::Tick),
        1 => clock.prop_map(|minute_of_week| Event::Clock { minute_of_week }),
    ]
}

/// What a driver knows, to hold the engine to its word.
#[derive(Default)]
struct Witness {
    held: BTreeSet<ContentId>,
    wants: BTreeSet<WantId>,
    resolves: Vec<ResolveId>,
    fetches: BTreeSet<FetchId>,
}

impl Witness {
    fn sees(&mut self, event: &Event) {
        match event {
            Event::Held { content, .. } => {
                self.held.insert(*content);
            }
            Event::Lost { content } => {
                self.held.remove(content);
            }
            Event::Want { want, .. } => {
                self.wants.insert(*want);
            }
            Event::Unwant { want } => {
                self.wants.remove(want);
            }
            Event::Resolve { resolve, .. } => self.resolves.push(*resolve),
            Event::FetchEnded { fetch, .. } => {
                self.fetches.remove(fetch);
            }
            _ => {}
        }
    }

    fn hears(&mut self, engine: &Engine, action: &Action) {
        match action {
            Action::Announce(Announcement::Changed { changes, .. }) => self.believes(changes),
            Action::Respond { response: ControlResponse::Inventory(page), .. } => self.believes(&page.changes),
            Action::WantEnded { want, result } => {
                assert!(self.wants.remove(want), "want {want} ended and was not open");
                assert!(result.is_err() || !self.held.is_empty());
            }
            Action::Resolved { resolve, .. } => {
                let at = self.resolves.iter().position(|open| open == resolve).expect("a resolve was not open");
                self.resolves.remove(at);
            }
            Action::Fetch { fetch, content, pieces, .. } => {
                assert!(self.fetches.insert(*fetch), "fetch {fetch} is not new");
                let durable = engine.transfers.open.get(content).and_then(|transfer| transfer.pieces.as_ref());
                let again =
                    durable.and_then(|durable| pieces.clone().take(64).find(|piece| durable.durable.contains(*piece)));
                assert_eq!(again, None, "a durable piece is asked for");
            }
            Action::CancelFetch { fetch } => assert!(self.fetches.remove(fetch), "fetch {fetch} does not run"),
            _ => {}
        }
    }

    fn believes(&self, changes: &[Change]) {
        for change in changes {
            if let Entry::Held { content, .. } = change.entry {
                assert!(self.held.contains(&content), "{content} is announced and not held");
            }
        }
    }
}

fn step(engine: &mut Engine, witness: &mut Witness, now: Instant, event: Event) {
    // A want under an id that is open is not a second want; the driver never does that, so the witness is not asked.
    let twice = matches!(&event, Event::Want { want, .. } if witness.wants.contains(want));
    if !twice {
        witness.sees(&event);
    }
    engine.handle(now, event);
    for _ in 0..200 {
        let Some(action) = engine.poll_action() else { return check(engine, witness) };
        witness.hears(engine, &action);
    }
    panic!("one event leads to too many actions");
}

fn check(engine: &Engine, witness: &Witness) {
    let transfers = &engine.transfers;
    assert!(transfers.open.len() <= LIMITS.transfers);
    assert!(transfers.wants.len() <= LIMITS.wants);
    assert!(transfers.partials.len() <= LIMITS.partials);
    assert!(engine.peers.len() <= LIMITS.peers);
    assert!(engine.questions.open.len() <= LIMITS.lookups);
    assert!(engine.questions.resolves() <= LIMITS.resolves);
    assert!(engine.questions.calls() <= LIMITS.tag_calls);
    assert!(engine.origins().count() <= LIMITS.origins);
    assert!(engine.peers().all(|peer| peer.blobs <= LIMITS.blobs_per_peer));
    assert_eq!(transfers.wants.keys().copied().collect::<BTreeSet<_>>(), witness.wants);
    assert_eq!(transfers.fetches.keys().copied().collect::<BTreeSet<_>>(), witness.fetches);
    for (content, transfer) in &transfers.open {
        assert!(
            transfer.origin_fetch().is_none() || engine.may_ask_origin(content),
            "an origin is asked against the budget"
        );
        let withheld = engine.budget.withholds(content);
        assert!(!withheld || !engine.may_ask_origin(content), "a transfer is withheld without a reason");
        assert!(!withheld || transfer.origin_fetch().is_none(), "a transfer is withheld and asks an origin");
        assert!(transfer.origins.len() <= LIMITS.origins_per_transfer);
        assert!(!transfers.partials.contains_key(content), "pieces are kept twice");
        if let Some(pieces) = &transfer.pieces {
            let state = engine.piece_states(content).unwrap();
            let durable = (0..pieces.layout.count()).filter(|piece| state(*piece) == PieceState::Durable).count();
            assert_eq!(durable, pieces.durable.count() as usize);
        }
    }
}

/// Events and the milliseconds before each.
pub type Story = Vec<(u64, Event)>;

/// Draws an uplink and a story of at most `events_max` events.
pub fn stories(events_max: usize) -> impl Strategy<Value = (Uplink, Story)> {
    (uplink(), prop::collection::vec(told(), 1..events_max))
}

fn told() -> impl Strategy<Value = (u64, Event)> {
    (prop_oneof![5 => 0u64..50, 1 => 0u64..20_000], event())
}

/// The story that these bytes draw: the same bytes, the same story. Eight bytes draw an event, so that a change of a few
/// changes few events; the first eight draw the uplink.
///
/// # Panics
/// Never: every draw ends in a value.
pub fn drawn(bytes: &[u8]) -> (Uplink, Story) {
    let config = ProptestConfig::default();
    let runner = |seed: &[u8]| {
        let mut key = [0; 32];
        key[..seed.len()].copy_from_slice(seed);
        TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &key))
    };
    let (first, rest) = bytes.split_at(bytes.len().min(DRAW_BYTES));
    let uplink = uplink().new_tree(&mut runner(first)).expect("nothing is filtered").current();
    let told = told();
    let draw = |seed| told.new_tree(&mut runner(seed)).expect("nothing is filtered").current();
    (uplink, rest.chunks(DRAW_BYTES).take(DRAWN_EVENTS_MAX).map(draw).collect())
}

/// Plays a story to its end, and silence after it.
///
/// # Panics
/// If the engine breaks its word.
pub fn run(uplink: Uplink, story: Story) {
    let mut engine = Engine::new(Config { limits: LIMITS, uplink, ..Config::default() }, peer("me"), 7);
    let mut witness = Witness::default();
    let mut now = Instant::default();
    for (after, event) in story {
        now = now + Duration::from_millis(after);
        step(&mut engine, &mut witness, now, event);
    }
    // What waits for a window ends once there is one.
    step(&mut engine, &mut witness, now, Event::Clock { minute_of_week: 0 });
    let silent = now;
    let mut ticks = 0;
    while !witness.wants.is_empty() || !witness.resolves.is_empty() || !engine.transfers.open.is_empty() {
        now = engine.next_deadline().expect("something is open and no deadline is set").max(now);
        step(&mut engine, &mut witness, now, Event::Tick);
        ticks += 1;
        assert!(ticks < TICKS_MAX, "it ticks without end");
        assert!(now.since(silent) <= SILENCE_MAX, "a want or a resolve does not end");
    }
    // What is left is idle: summaries, and questions to peers that do not answer.
    for _ in 0..50 {
        now = engine.next_deadline().expect("summaries never end").max(now);
        step(&mut engine, &mut witness, now, Event::Tick);
    }
    assert!(now.since(silent) >= Duration::from_secs(100), "an idle engine wakes up too often");
    for timer in [Timer::Stall(FetchId(0)), Timer::Retry(blob("A")), Timer::CompleteTimeout(blob("A"))] {
        assert!(!engine.timers.is_set(timer));
    }
}

/// All that the engine says to a story.
pub fn said(story: &Story) -> Vec<Action> {
    let mut engine = Engine::new(Config { limits: LIMITS, ..Config::default() }, peer("me"), 7);
    let mut now = Instant::default();
    let mut said = Vec::new();
    for (after, event) in story {
        now = now + Duration::from_millis(*after);
        engine.handle(now, event.clone());
        said.extend(std::iter::from_fn(|| engine.poll_action()));
    }
    said
}

pub(super) fn peer(name: &str) -> NodeId {
    NodeId::from_public_key([name.as_bytes()[0]; 32])
}

pub(super) fn blob(name: &str) -> ContentId {
    ContentId::of(Algorithm::Sha256, name.as_bytes())
}

pub(super) fn repository(name: &str) -> Repository {
    Repository::new("registry.example", name).unwrap()
}

pub(super) fn size_of(pieces: u64) -> u64 {
    pieces * u64::from(PIECE_LEN_MIN)
}
