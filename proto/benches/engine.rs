//! How many events an engine takes in a second: `cargo bench -p layermesh-proto --bench engine`.
//!
//! One engine among [`PEERS`] peers fetches a blob of [`PIECES`] pieces from one of them, while the others announce
//! [`ANNOUNCEMENTS`] changes. Counted is every event handled, with all actions that come of it drained; the
//! messages are made before the clock starts, and encoding them is not part of it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "its result is the line that it prints")]
#![allow(clippy::disallowed_types, reason = "the clock is for the one who measures; the engine does not see it")]

use std::time::{Duration, Instant as Clock};

use layermesh_proto::{
    Algorithm, ContentId, NodeId, ObjectKind, PieceHash,
    engine::{
        Action, Config, Engine, Event, Instant, Urgency,
        event::{FetchId, WantId},
    },
    piece::{PIECE_LEN_MAX, PieceLayout},
    wire::{
        Announcement, ControlRequest, ControlResponse, TagWord, Vouches,
        control::{Change, Entry, Hello, InventoryPage, InventoryPosition, Summary},
    },
};

/// Connected peers: a large site.
const PEERS: u8 = 40;
/// Pieces of the blob, of the largest length there is.
const PIECES: u32 = 1024;
/// Announcements of one change each, in turn from all peers.
const ANNOUNCEMENTS: u32 = 1000;
/// Rounds go on for so long, so that one preempted round does not decide the figure.
const MEASURED_FOR: Duration = Duration::from_secs(3);
/// Virtual time between two events: the announcements of a round then take a few seconds, as on a busy site.
const STEP: Duration = Duration::from_millis(2);

fn main() {
    // Tests of all targets run this too, without the flag that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let announcements = announcements();
    let (mut rates, begun) = (Vec::new(), Clock::now());
    while begun.elapsed() < MEASURED_FOR {
        let mut site = Site::new();
        let start = (Clock::now(), site.events);
        site.transfer(announcements.clone());
        rates.push(f64::from(site.events - start.1) / start.0.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    let (median, least) = (rates[rates.len() / 2], rates[0]);
    println!("engine | {PEERS} peers, {PIECES} pieces, {ANNOUNCEMENTS} announcements | rounds | median | worst");
    println!("engine | events/s | {} | {median:.0} | {least:.0}", rates.len());
}

fn node(number: u8) -> NodeId {
    NodeId::from_public_key([number; 32])
}

fn blob() -> (ContentId, u64) {
    let size = u64::from(PIECES) * u64::from(PIECE_LEN_MAX);
    assert_eq!(PieceLayout::for_size(size).unwrap().count(), PIECES);
    (ContentId::of(Algorithm::Sha256, b"the blob"), size)
}

const fn position(peer: u8, seq: u64) -> InventoryPosition {
    InventoryPosition { epoch: peer as u64, seq }
}

fn announcements() -> Vec<Event> {
    let event = |number: u32| {
        // Each peer's log goes on at the one change that its inventory had.
        let (peer, seq) = ((number % u32::from(PEERS)) as u8 + 1, u64::from(number / u32::from(PEERS)) + 1);
        let content = ContentId::of(Algorithm::Sha256, &number.to_le_bytes());
        let changes = vec![Change { seq: seq + 1, entry: Entry::Held { content, size: 1 << 20 } }];
        Event::Announced {
            from: node(peer),
            sequence: seq,
            announcement: Announcement::Changed { since: position(peer, seq), changes },
        }
    };
    (0..ANNOUNCEMENTS).map(event).collect()
}

/// An engine, and what answers it.
struct Site {
    engine: Engine,
    now: Instant,
    events: u32,
    /// Fetches that were started and not yet performed, with their runs.
    fetches: Vec<(FetchId, std::ops::Range<u32>)>,
    complete: bool,
    had: bool,
}

impl Site {
    /// All peers are connected, and each holds the blob that is to be fetched.
    fn new() -> Self {
        let engine = Engine::new(Config { bulk_port: 1, ..Config::default() }, node(0), 1);
        let mut site =
            Self { engine, now: Instant::default(), events: 0, fetches: Vec::new(), complete: false, had: false };
        for peer in 1..=PEERS {
            site.handle(Event::PeerConnected { peer: node(peer) });
        }
        site
    }

    /// Hands in an event, and the answers to what the engine asks of its peers.
    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.now = self.now + STEP;
            if self.engine.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                events.push(event);
                self.engine.handle(self.now, Event::Tick);
            } else {
                self.engine.handle(self.now, event);
            }
            self.events += 1;
            while let Some(action) = self.engine.poll_action() {
                match action {
                    Action::Request { request, peer, body } => {
                        events.push(Event::Responded { request, response: answer(peer, &body) });
                    }
                    Action::Fetch { fetch, pieces, .. } => self.fetches.push((fetch, pieces)),
                    Action::Complete { .. } => self.complete = true,
                    Action::WantEnded { result, .. } => self.had = result.is_ok(),
                    _ => {}
                }
            }
        }
    }

    /// Fetches the blob, an announcement after each piece for as long as there are any.
    fn transfer(&mut self, announcements: Vec<Event>) {
        let (content, size) = blob();
        let mut announcements = announcements.into_iter();
        self.handle(Event::Want {
            want: WantId(1),
            content,
            kind: ObjectKind::Blob,
            repository: None,
            urgency: Urgency::Runtime,
            size_max: None,
        });
        while let Some((fetch, pieces)) = self.fetches.pop() {
            self.handle(Event::FetchStarted { fetch, size, ranged: true });
            for piece in pieces.start..pieces.end.min(PIECES) {
                self.handle(Event::FetchStored { fetch, pieces: vec![(piece, PieceHash([0; 32]))] });
                announcements.next().into_iter().for_each(|event| self.handle(event));
            }
            self.handle(Event::FetchEnded { fetch, result: Ok(()) });
        }
        announcements.for_each(|event| self.handle(event));
        assert!(self.complete, "the blob is fetched");
        self.handle(Event::Held { content, size });
        assert!(self.had, "the want is answered");
        let heard: usize = self.engine.peers().map(|peer| peer.blobs).sum();
        assert_eq!(heard, usize::from(PEERS) + ANNOUNCEMENTS as usize, "every announcement was taken in");
    }
}

fn answer(peer: NodeId, question: &ControlRequest) -> ControlResponse {
    let number = peer.public_key()[0];
    match question {
        ControlRequest::Hello(_) => ControlResponse::Hello(Hello {
            bulk_port: 1,
            version: "1".to_owned(),
            summary: Summary { position: position(number, 1), origin_reachable: None, platform: "linux".to_owned() },
        }),
        ControlRequest::Inventory { .. } => {
            let (content, size) = blob();
            ControlResponse::Inventory(InventoryPage {
                from_start: true,
                changes: vec![Change { seq: 1, entry: Entry::Held { content, size } }],
                position: position(number, 1),
                more: false,
            })
        }
        ControlRequest::Vouches { .. } => ControlResponse::Vouches(Vouches { size: 0, runs: Vec::new() }),
        ControlRequest::Claim { .. } => ControlResponse::Claim { free: true },
        ControlRequest::Tag { .. } => ControlResponse::Tag(TagWord::Ask),
        ControlRequest::TagSaid { .. } => ControlResponse::Noted,
    }
}
