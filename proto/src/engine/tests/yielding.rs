//! Stories of nodes that ask the origin before they have heard what their neighbours have, and whether those who do not have
//! what they say can keep a node from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use proptest::prelude::*;

use super::{
    super::{
        Config, Engine, Urgency,
        event::{Action, Event, FetchId, Instant, Source, SourceError, WantError, WantId},
    },
    script::{blob, hashes, peer, repository, run_site, size_of},
};
use crate::{
    NodeId, ObjectKind, PieceHash, PieceIndex, PieceSet,
    wire::{
        Announcement, Change, ControlRequest, ControlResponse, Entry, Having, Hello, InventoryPage, InventoryPosition,
        Part, Summary, VouchedRun, Vouches,
    },
};

#[test]
fn what_a_peer_turns_out_to_hold_comes_from_it_but_for_the_piece_on_its_way() {
    run_site(
        "
        0ms want 1 A from app
      501ms tick                       -> fetch 0 A from app 0..
      510ms fetch 0 started 64
      520ms fetch 0 stored 0 1
      530ms P connects                 -> ask P hello
      540ms P announces A:64           -> ask P inventory since 0
      541ms P inventory A:64           -> claim told A 0..3; fetch 1 A from P 3..64
      550ms fetch 0 stored 2           -> cancel 0
    ",
    );
}

#[test]
fn a_fetch_of_which_nothing_has_come_makes_way_whole() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        0ms Q connects                 -> ask Q hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms P announces A:4            -> ask P inventory since 0
     2051ms P inventory A:4            -> cancel 0; want told A; fetch 1 A from P 0..4
     2100ms want 2 B from app          -> want told B
     2140ms tick                       -> claim told B 0..; fetch 2 B from app 0..
     2150ms fetch 2 started 64         -> claim told B 0..32
     2160ms Q announces B:64           -> ask Q inventory since 0
     2161ms Q inventory B:64           -> cancel 2; want told B   # both may want it: it looks for a moment who does
    ",
    );
}

#[test]
fn what_a_peer_has_without_having_all_is_cut_out_of_a_fetch() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms fetch 0 started 64         -> claim told A 0..32
     2060ms fetch 0 stored 0
     2070ms P wants A 8..64/64         -> vouch told A 0..1; claim told A 0..8; ask P hashes A 8..
     2071ms P hashes A 8..64/64        -> fetch 1 A from growing P 8..64
     2080ms fetch 0 stored 1 2 3 4 5 6
     2090ms fetch 0 stored 7           -> vouch told A 1..8; cancel 0
    ",
    );
}

#[test]
fn who_is_not_believed_and_who_is_not_connected_keep_nobody_from_the_origin() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2001ms P vouches A 60..61/64      -> fetch 0 A from growing P 60..61
     2002ms P vouches A 60..61/64 wrongly -> P penalised
     3100ms tick                       -> claim told A 0..60; fetch 1 A from app 0..60
     3110ms fetch 1 started 64
     3111ms P wants A 0..64/64
     3112ms R wants A 0..64/64         -> connect R
    ",
    );
}

#[test]
fn of_what_is_contested_only_the_origin_tells_something() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms fetch 0 started 64         -> claim told A 0..32
     2060ms fetch 0 stored 0
     2070ms R vouches A 8..9/64 wrongly
     2080ms P vouches A 8..9/64
    ",
    );
}

#[test]
fn who_does_not_have_what_it_says_delays_a_blob_once() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms fetch 0 started 64         -> claim told A 0..32
     2060ms fetch 0 stored 0
     2070ms P announces A:64           -> ask P inventory since 0
     2071ms P inventory A:64           -> claim told A 0..2; fetch 1 A from P 2..64
     2080ms fetch 1 ended notfound     -> A of P failed
     2090ms fetch 0 stored 1           -> cancel 0; claim told A 2..64; fetch 2 A from app 2..64
     2110ms fetch 2 started 64
     2120ms fetch 2 stored 2
     2130ms P announces -A A:64        # once more it says so
     2140ms fetch 2 stored 3 4 5
    ",
    );
}

#[test]
fn a_blob_yields_again_once_a_peer_brought_something() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms fetch 0 started 64         -> claim told A 0..32
     2060ms fetch 0 stored 0
     2070ms P wants A 8..16/64         -> vouch told A 0..1; claim told A 0..8; ask P hashes A 8..
     2071ms P hashes A 8..16/64        -> fetch 1 A from growing P 8..16
     2080ms P wants A 4..16/64
     2090ms fetch 1 started 64
     2091ms fetch 1 stored 8
     2092ms P wants A 2..16/64         -> claim told A 0..2; ask P hashes A 2..
    ",
    );
}

#[test]
fn what_an_origin_would_have_to_send_anew_is_not_cut() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        2s want 1 A from app           -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2050ms fetch 0 started 64 whole   -> claim told A 0..64 turn 128
     2060ms fetch 0 stored 0
     2070ms P wants A 8..16/64         -> vouch told A 0..1
     2080ms P announces A:64           -> ask P inventory since 0
     2081ms P inventory A:64           -> claim told A 0..2 turn 128; fetch 1 A from P 2..64
    ",
    );
}

#[test]
fn a_claim_over_one_of_who_is_not_believed_goes_before_it_for_all() {
    run_site(
        "
        0ms P connects                 -> ask P hello
        0ms Q connects                 -> ask Q hello
        2s P wants A
        2s want 1 A from app           -> want told A
     2041ms P claims A 0..8/8 turn 3   -> fetch 0 A from growing P 0..8
     2042ms P vouches A 0..1/8         -> expect 0: 0
     2043ms P vouches A 0..1/8 wrongly -> P penalised; cancel 0; claim told A 0..8 turn 4; fetch 1 A from app 0..8
    ",
    );
}

/// Pieces of the blob.
const PIECES: u32 = 24;
/// Between two pieces of a fetch.
const PIECE_TIME: Duration = Duration::from_millis(50);
/// For the blob to be there once nobody says anything any more. Peers that begin and go silent cost most.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// How a peer keeps to what it says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Honest,
    /// It does not have what it says.
    Empty,
    /// It begins, and goes silent.
    Silent,
    /// It sends other bytes.
    Wrong,
}

/// What a peer says.
#[derive(Debug, Clone)]
enum Word {
    /// It has a part of the blob.
    Has(Range<PieceIndex>),
    /// It took a part of it from the origin.
    Vouches(Range<PieceIndex>),
    /// It has all of it.
    Holds,
}

struct Neighbour {
    id: NodeId,
    nature: Nature,
    /// What it says that it has; an honest one has it.
    has: PieceSet,
    holds: bool,
    seq: u64,
}

impl Neighbour {
    fn position(&self) -> InventoryPosition {
        InventoryPosition { epoch: 1, seq: self.seq }
    }

    fn changes(&self) -> Vec<Change> {
        let entry = Entry::Held { content: blob("A"), size: size_of(u64::from(PIECES)) };
        self.holds.then_some(Change { seq: self.seq, entry }).into_iter().collect()
    }

    fn says(&mut self, word: Word) -> Announcement {
        let (content, size) = (blob("A"), size_of(u64::from(PIECES)));
        match word {
            Word::Has(run) => {
                self.has.insert_run(run);
                let having = Some(Having { size, pieces: self.has.clone() });
                Announcement::Taking(Part::Wanted { content, origin: false, having, claim: None })
            }
            Word::Vouches(run) => {
                self.has.insert_run(run.clone());
                let hashes = hashes(&content, run.clone(), false);
                Announcement::Taking(Part::Vouched { content, size, first: run.start, hashes })
            }
            Word::Holds => {
                let since = self.position();
                (self.holds, self.has, self.seq) = (true, PieceSet::full(PIECES), self.seq + 1);
                Announcement::Changed { since, changes: self.changes() }
            }
        }
    }

    /// Its answer, if it gives one.
    fn answers(&self, request: &ControlRequest) -> Option<ControlResponse> {
        Some(match request {
            ControlRequest::Hello(_) => {
                let summary =
                    Summary { position: self.position(), origin_reachable: None, platform: "linux".to_owned() };
                ControlResponse::Hello(Hello { bulk_port: 1, version: "1".to_owned(), summary })
            }
            ControlRequest::Inventory { .. } => ControlResponse::Inventory(InventoryPage {
                from_start: true,
                changes: self.changes(),
                position: self.position(),
                more: false,
            }),
            ControlRequest::Vouches { .. } if self.nature == Nature::Silent => return None,
            ControlRequest::Vouches { first, .. } => {
                let pieces = self.has.iter().filter(|piece| piece >= first && self.nature != Nature::Empty);
                let run = |first| VouchedRun { first, own: true, hashes: hashes(&blob("A"), first..first + 1, false) };
                let runs = pieces.map(run).collect();
                ControlResponse::Vouches(Vouches { size: size_of(u64::from(PIECES)), runs })
            }
            ControlRequest::Claim { .. } => ControlResponse::Claim { free: true },
            ControlRequest::Tag { .. } | ControlRequest::TagSaid { .. } => ControlResponse::Noted,
        })
    }
}

/// A node among its neighbours, and the origin, which has everything.
struct World {
    engine: Engine,
    now: Instant,
    neighbours: Vec<Neighbour>,
    fetches: BTreeMap<FetchId, (Source, Range<PieceIndex>)>,
    started: BTreeSet<FetchId>,
    durable: PieceSet,
    ended: Option<Result<(), WantError>>,
    /// Fetches from the origin that made way.
    made_way: BTreeSet<FetchId>,
    /// Whether a peer brought a piece since one last did.
    brought: bool,
}

impl World {
    fn new(natures: &[Nature]) -> Self {
        let neighbour = |(name, nature): (&str, &Nature)| Neighbour {
            id: peer(name),
            nature: *nature,
            has: PieceSet::empty(PIECES),
            holds: false,
            seq: 0,
        };
        let neighbours: Vec<_> = ["P", "Q", "R"].into_iter().zip(natures).map(neighbour).collect();
        let mut world = Self {
            engine: Engine::new(Config::default(), peer("me"), 7),
            now: Instant::default(),
            neighbours,
            fetches: BTreeMap::new(),
            started: BTreeSet::new(),
            durable: PieceSet::empty(PIECES),
            ended: None,
            made_way: BTreeSet::new(),
            brought: true,
        };
        for at in 0..world.neighbours.len() {
            world.handle(Event::PeerConnected { peer: world.neighbours[at].id });
        }
        world.handle(Event::Want {
            want: WantId(0),
            content: blob("A"),
            kind: ObjectKind::Blob,
            repository: Some(repository("app")),
            urgency: Urgency::Runtime,
            size_max: None,
        });
        world
    }

    /// The fetch from the origin, and where it ends.
    fn asked(&self) -> Option<(FetchId, PieceIndex)> {
        let transfer = self.engine.transfers.open.get(&blob("A"))?;
        transfer.origin_fetch().map(|(id, fetch)| (id, fetch.run.end.min(PIECES)))
    }

    /// Nobody else claims anything here, so a fetch that ends early made way for peers.
    fn makes_way(&mut self, fetch: FetchId) {
        if self.made_way.insert(fetch) {
            assert!(self.brought, "it makes way again, and no peer brought anything");
            self.brought = false;
        }
    }

    fn handle(&mut self, event: Event) {
        let (before, starts) = (self.asked(), matches!(event, Event::FetchStarted { .. }));
        self.engine.handle(self.now, event);
        let mut then = Vec::new();
        while let Some(action) = self.engine.poll_action() {
            // Whoever is first to say how large the blob is goes on alone: that makes way for nobody's word.
            self.perform(action, before.filter(|_| !starts).map(|(fetch, _)| fetch), &mut then);
        }
        if let (Some((fetch, end)), Some((same, now))) = (before, self.asked())
            && (fetch == same && now < end && !starts)
        {
            self.makes_way(fetch);
        }
        then.into_iter().for_each(|event| self.handle(event));
    }

    fn perform(&mut self, action: Action, asked: Option<FetchId>, then: &mut Vec<Event>) {
        let content = blob("A");
        match action {
            Action::Fetch { fetch, source, pieces, .. } => {
                for piece in pieces.start..pieces.end.min(PIECES) {
                    assert!(!self.durable.contains(piece), "a piece is asked for that is there");
                }
                self.fetches.insert(fetch, (source, pieces.start..pieces.end.min(PIECES)));
            }
            Action::CancelFetch { fetch } => {
                self.fetches.remove(&fetch);
                if asked == Some(fetch) && !self.durable.is_full() {
                    self.makes_way(fetch);
                }
            }
            Action::Complete { .. } => {
                assert!(self.durable.is_full());
                then.push(Event::Held { content, size: size_of(u64::from(PIECES)) });
            }
            Action::WantEnded { result, .. } => self.ended = Some(result),
            Action::Request { request, peer, body } => {
                let asked = self.neighbours.iter().find(|neighbour| neighbour.id == peer).unwrap();
                then.extend(asked.answers(&body).map(|response| Event::Responded { request, response }));
            }
            _ => {}
        }
    }

    /// A fetch goes on by a piece, or as its source is.
    fn serve(&mut self, fetch: FetchId) {
        let Some((source, run)) = self.fetches.get(&fetch).cloned() else { return };
        let next = run.clone().find(|piece| !self.durable.contains(*piece));
        let neighbour = match source {
            Source::Peer(peer) => self.neighbours.iter().find(|neighbour| neighbour.id == peer),
            Source::Origin(..) => None,
        };
        let result = match (neighbour.map(|neighbour| neighbour.nature), next) {
            (Some(Nature::Empty), _) => Some(Err(SourceError::NotFound)),
            (Some(Nature::Wrong), _) => Some(Err(SourceError::WrongBytes)),
            (_, None) => Some(Ok(())),
            _ => None,
        };
        if let Some(result) = result {
            self.fetches.remove(&fetch);
            return self.handle(Event::FetchEnded { fetch, result });
        }
        if self.started.insert(fetch) {
            let size = size_of(u64::from(PIECES));
            return self.handle(Event::FetchStarted { fetch, size, ranged: true });
        }
        let sends = neighbour.is_none_or(|peer| peer.nature == Nature::Honest);
        let Some(piece) = next.filter(|piece| sends && neighbour.is_none_or(|peer| peer.has.contains(*piece))) else {
            return;
        };
        self.brought |= neighbour.is_some();
        self.durable.insert(piece);
        let hash: PieceHash = hashes(&blob("A"), piece..piece + 1, false).0[0];
        self.handle(Event::FetchStored { fetch, pieces: vec![(piece, hash)] });
    }

    /// Until then, or the end.
    fn run(&mut self, until: Instant) {
        let mut step = self.now + PIECE_TIME;
        while self.ended.is_none() {
            let due = self.engine.next_deadline().into_iter().chain([step]).fold(until, Instant::min);
            if due >= until {
                break;
            }
            self.now = self.now.max(due);
            if due < step {
                self.handle(Event::Tick);
                continue;
            }
            step = step + PIECE_TIME;
            self.fetches.keys().copied().collect::<Vec<_>>().into_iter().for_each(|fetch| self.serve(fetch));
        }
        self.now = self.now.max(until);
    }
}

fn natures() -> impl Strategy<Value = Vec<Nature>> {
    let nature = prop::sample::select(vec![Nature::Honest, Nature::Empty, Nature::Silent, Nature::Wrong]);
    prop::collection::vec(nature, 3)
}

fn word() -> impl Strategy<Value = Word> {
    let run = || (0..PIECES, 1..PIECES).prop_map(|(first, len)| first..(first + len).min(PIECES));
    prop_oneof![3 => run().prop_map(Word::Has), 1 => run().prop_map(Word::Vouches), 1 => Just(Word::Holds)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_neighbours_say_the_blob_comes_and_makes_way_again_only_for_who_brings_something(
        natures in natures(),
        words in prop::collection::vec((0u64..600, 0usize..3, word()), 0..30),
    ) {
        let mut world = World::new(&natures);
        for (after, who, word) in words {
            world.run(world.now + Duration::from_millis(after));
            let (from, announcement) = (world.neighbours[who].id, world.neighbours[who].says(word));
            world.handle(Event::Announced { from, sequence: 0, announcement });
        }
        let silent = world.now;
        world.run(silent + SILENCE_MAX);
        prop_assert_eq!(world.ended, Some(Ok(())), "the blob does not come");
    }
}
