//! A story of events and what the engine says to each, as text.
//!
//! A line is `<time>ms <event> -> <action>; <action>`; `#` begins a comment. Before the event, the engine gets every
//! tick that is due by that time. The actions are all that the engine said since the line before, in order, and
//! they must be exactly those. Peers are `P`, `Q`, `R`; blobs `A`, `B`, `C`; `A:5` is blob `A` of five pieces; `-A`
//! says that it is gone; tags are `v1`, `v2`, and `v1=A` is what one stands for. Times in seconds `s` also work.
//!
//! Events:
//! ```text
//! P connects | P leaves | P hello | P inventory A:5 B:1 | P announces A:5 -B v1=A@1000 | P missed | P fails
//! P diff A:5 | P announces summary | P asks hello | P asks inventory since 3 | P asks inventory anew
//! want 1 A [from repo] | reader 1 3 | unwant 1 | A held 5 | A lost | A partly 5: 0 1 | A wrong | A unstorable
//! fetch 0 started 5 | fetch 0 progress | fetch 0 stored 0 1 | fetch 0 ended ok|<error>
//! resolve 1 v1 | origin 0 says A@1000 | origin 0 fails <error> | known v1=A@1000 | promise 1 A B | tick
//! ```
//! What nodes say of their part in a blob that nobody holds (`P wants A`, `P wants A 3` having three pieces, `P wants A
//! offline`, `P claims A`, `P left A`; `want told A`, `claim told A`, `left told A`) is heard only in stories of sites
//! ([`run_site`]); in the others nobody waits for such words either.
//!
//! Errors: `unreachable`, `notfound`, `unauthorized`, `failed`, `wrong`, `store`, `busy <seconds>`.

use std::{collections::BTreeMap, time::Duration};

use super::super::{
    Config, Engine,
    event::{
        Action, CallId, Event, FetchId, Instant, LookupId, Note, OriginTag, PromiseId, Provenance, RequestId,
        ResolveId, Source, SourceError, WantError, WantId,
    },
};
use crate::{
    Algorithm, ContentId, NodeId, ObjectKind, PieceIndex, PieceSet, Repository, TagRef,
    piece::PIECE_LEN_MIN,
    wire::{
        Announcement, Binding, Change, ControlRequest, ControlResponse, Entry, Hello, InventoryPage, InventoryPosition,
        Part, Summary,
    },
};

/// Runs a story with the default configuration.
pub(super) fn run(story: &str) {
    run_with(Config::default(), story);
}

/// Runs a story.
pub(super) fn run_with(config: Config, story: &str) {
    let none = Duration::ZERO;
    tell(Teller::new(Config { settle: none, settle_after_start: none, ..config }, false), story);
}

/// Runs a story of nodes that want the same.
pub(super) fn run_site(story: &str) {
    tell(Teller::new(Config::default(), true), story);
}

fn tell(mut teller: Teller, story: &str) {
    for line in story.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (told, expected) = line.split_once("->").unwrap_or((line, ""));
        let expected: Vec<_> = expected.split(';').map(str::trim).filter(|action| !action.is_empty()).collect();
        let said = teller.tell(told.trim());
        assert_eq!(said, expected, "\n  at: {line}");
    }
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

fn tag(name: &str) -> TagRef {
    TagRef::new(repository("app"), name).unwrap()
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("`{text}` is not a number: {error:?}"))
}

struct Teller {
    engine: Engine,
    now: Instant,
    /// Sequence number of each peer's inventory; its epoch is its name's first byte.
    seqs: BTreeMap<String, u64>,
    /// The last question to each peer that is open.
    hello: BTreeMap<String, RequestId>,
    inventory: BTreeMap<String, RequestId>,
    names: BTreeMap<ContentId, &'static str>,
    /// Whether words about parts are listened to.
    parts: bool,
}

impl Teller {
    fn new(config: Config, parts: bool) -> Self {
        let names = ["A", "B", "C", "D"].map(|name| (blob(name), name)).into();
        let engine = Engine::new(config, peer("me"), 1);
        let (seqs, hello, inventory) = Default::default();
        Self { engine, now: Instant::default(), seqs, hello, inventory, names, parts }
    }

    fn tell(&mut self, line: &str) -> Vec<String> {
        let (time, event) = line.split_once(' ').unwrap();
        let time = match time.strip_suffix("ms") {
            Some(ms) => Duration::from_millis(number(ms)),
            None => Duration::from_secs(number(time.strip_suffix('s').unwrap())),
        };
        let at = Instant::default() + time;
        assert!(at >= self.now, "time runs backwards: {line}");
        let mut said = Vec::new();
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= at) {
            self.now = self.now.max(due);
            self.handle(Event::Tick, &mut said);
        }
        self.now = at;
        let words: Vec<_> = event.split_whitespace().collect();
        if let Some(event) = self.event(&words) {
            self.handle(event, &mut said);
        }
        said
    }

    fn handle(&mut self, event: Event, said: &mut Vec<String>) {
        self.engine.handle(self.now, event);
        while let Some(action) = self.engine.poll_action() {
            if self.parts || !matches!(action, Action::Announce(Announcement::Taking(_))) {
                said.push(self.describe(action));
            }
        }
    }

    fn position(&self, name: &str) -> InventoryPosition {
        InventoryPosition { epoch: u64::from(name.as_bytes()[0]), seq: self.seqs.get(name).copied().unwrap_or(0) }
    }

    fn hello_of(&self, name: &str) -> Hello {
        let summary = Summary { position: self.position(name), origin_reachable: None, platform: "linux".to_owned() };
        Hello { bulk_port: 1, version: "1".to_owned(), summary }
    }

    fn changes(&mut self, name: &str, words: &[&str]) -> Vec<Change> {
        let seq = self.seqs.entry(name.to_owned()).or_default();
        let mut change = |word: &&str| {
            *seq += 1;
            Change { seq: *seq, entry: entry(word) }
        };
        words.iter().map(&mut change).collect()
    }

    fn event(&mut self, words: &[&str]) -> Option<Event> {
        Some(match words {
            ["tick"] => return None,
            // Its next change is not heard of.
            [name, "missed"] => {
                *self.seqs.entry((*name).to_owned()).or_default() += 1;
                return None;
            }
            ["want", want, content] => self.want(want, content, None),
            ["want", want, content, "from", name] => self.want(want, content, Some(repository(name))),
            ["reader", want, piece] => Event::ReaderAt { want: WantId(number(want)), offset: size_of(number(piece)) },
            ["unwant", want] => Event::Unwant { want: WantId(number(want)) },
            ["fetch", fetch, rest @ ..] => fetch_event(FetchId(number(fetch)), rest),
            ["resolve", resolve, name] => Event::Resolve { resolve: ResolveId(number(resolve)), reference: tag(name) },
            ["origin", lookup, "says", said] => {
                let (name, at) = said.split_once('@').unwrap();
                let result = Ok(OriginTag { content: blob(name), now_unix_s: number(at) });
                Event::OriginAnswered { lookup: LookupId(number(lookup)), result }
            }
            ["origin", lookup, "fails", error @ ..] => {
                Event::OriginAnswered { lookup: LookupId(number(lookup)), result: Err(source_error(error)) }
            }
            ["known", word] => match entry(word) {
                Entry::Bound(binding) => Event::BindingKnown(binding),
                _ => panic!("not a binding: {word}"),
            },
            ["promise", promise, names @ ..] => Event::Promise {
                promise: PromiseId(number(promise)),
                contents: names.iter().map(|name| blob(name)).collect(),
                repository: repository("app"),
            },
            [name, rest @ ..] if "PQR".contains(name) => self.peer_event(name, rest),
            [name, rest @ ..] => store_event(blob(name), rest),
            [] => panic!("no event"),
        })
    }

    fn want(&self, want: &str, content: &str, repository: Option<Repository>) -> Event {
        Event::Want { want: WantId(number(want)), content: blob(content), kind: ObjectKind::Blob, repository }
    }

    fn peer_event(&mut self, name: &str, words: &[&str]) -> Event {
        let id = peer(name);
        match words {
            ["connects"] => Event::PeerConnected { peer: id },
            ["leaves"] => Event::PeerDisconnected { peer: id },
            ["hello"] => Event::Responded {
                request: self.hello.remove(name).expect("no hello is open"),
                response: ControlResponse::Hello(self.hello_of(name)),
            },
            ["inventory", entries @ ..] => {
                let changes = self.changes(name, entries);
                let page = InventoryPage { from_start: true, changes, position: self.position(name), more: false };
                let request = self.inventory.remove(name).expect("no inventory question is open");
                Event::Responded { request, response: ControlResponse::Inventory(page) }
            }
            ["diff", entries @ ..] => {
                let changes = self.changes(name, entries);
                let page = InventoryPage { from_start: false, changes, position: self.position(name), more: false };
                let request = self.inventory.remove(name).expect("no inventory question is open");
                Event::Responded { request, response: ControlResponse::Inventory(page) }
            }
            ["announces", "summary"] => {
                Event::Announced { from: id, announcement: Announcement::Summary(self.hello_of(name).summary) }
            }
            ["announces", entries @ ..] => {
                let since = self.position(name);
                let changes = self.changes(name, entries);
                Event::Announced { from: id, announcement: Announcement::Changed { since, changes } }
            }
            ["wants", content, how @ ..] => {
                let (origin, pieces) = match how {
                    ["offline"] => (false, 0),
                    [pieces] => (true, number(pieces)),
                    _ => (true, 0),
                };
                said(id, Part::Wanted { content: blob(content), origin, pieces })
            }
            ["claims", content] => said(id, Part::Claimed { content: blob(content), lease_ms: 4000 }),
            ["left", content] => said(id, Part::Left { content: blob(content) }),
            ["fails"] => {
                let open = self.hello.remove(name).or_else(|| self.inventory.remove(name));
                Event::RequestFailed { request: open.expect("no question is open") }
            }
            ["asks", "hello"] => {
                let request = ControlRequest::Hello(self.hello_of(name));
                Event::Requested { call: CallId(1), from: id, request }
            }
            ["asks", "inventory", "anew"] => {
                let since = InventoryPosition { epoch: 0, seq: 0 };
                Event::Requested { call: CallId(1), from: id, request: ControlRequest::Inventory { since } }
            }
            ["asks", "inventory", "since", seq] => {
                let since = InventoryPosition { seq: number(seq), ..self.engine.inventory.position() };
                Event::Requested { call: CallId(1), from: id, request: ControlRequest::Inventory { since } }
            }
            other => panic!("what does {name} do? {other:?}"),
        }
    }

    fn name(&self, content: &ContentId) -> &'static str {
        self.names[content]
    }

    fn peer_name(&self, id: NodeId) -> String {
        char::from(id.public_key()[0]).to_string()
    }

    fn source(&self, source: &Source) -> String {
        match source {
            Source::Peer(peer) => self.peer_name(*peer),
            Source::Origin(repository, _) => repository.name().to_owned(),
        }
    }

    fn entries<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> String {
        let entry = |change: &Change| match &change.entry {
            Entry::Held { content, size } => format!(" {}:{}", self.name(content), size / size_of(1)),
            Entry::Gone { content } => format!(" -{}", self.name(content)),
            Entry::Bound(binding) => format!(" {}={}", binding.reference.tag(), self.name(&binding.content)),
        };
        changes.map(entry).collect()
    }

    fn describe(&mut self, action: Action) -> String {
        match action {
            Action::Announce(Announcement::Taking(part)) => match part {
                Part::Wanted { content, origin, pieces } => {
                    let offline = if origin { "" } else { " offline" };
                    let having = if pieces > 0 { format!(" {pieces}") } else { String::new() };
                    format!("want told {}{having}{offline}", self.name(&content))
                }
                Part::Claimed { content, .. } => format!("claim told {}", self.name(&content)),
                Part::Left { content } => format!("left told {}", self.name(&content)),
            },
            Action::Announce(Announcement::Summary(_)) => "announce summary".to_owned(),
            Action::Announce(Announcement::Changed { since, changes }) => {
                format!("announce since {}:{}", since.seq, self.entries(changes.iter()))
            }
            Action::Request { request, peer, body } => {
                let name = self.peer_name(peer);
                match body {
                    ControlRequest::Hello(_) => {
                        self.hello.insert(name.clone(), request);
                        format!("ask {name} hello")
                    }
                    ControlRequest::Inventory { since } => {
                        self.inventory.insert(name.clone(), request);
                        format!("ask {name} inventory since {}", since.seq)
                    }
                }
            }
            Action::Respond { response: ControlResponse::Hello(hello), .. } => {
                format!("answer hello at {}", hello.summary.position.seq)
            }
            Action::Respond { response: ControlResponse::Inventory(page), .. } => {
                let start = if page.from_start { " from start" } else { "" };
                let more = if page.more { " and more" } else { "" };
                format!(
                    "answer inventory{start}{} until {}{more}",
                    self.entries(page.changes.iter()),
                    page.position.seq
                )
            }
            Action::Fetch { fetch, content, source, pieces, growing, .. } => {
                let end = if pieces.end == PieceIndex::MAX { String::new() } else { pieces.end.to_string() };
                let (content, source) = (self.name(&content), self.source(&source));
                let growing = if growing { "growing " } else { "" };
                format!("fetch {fetch} {content} from {growing}{source} {}..{end}", pieces.start)
            }
            Action::CancelFetch { fetch } => format!("cancel {fetch}"),
            Action::Complete { content } => format!("complete {}", self.name(&content)),
            Action::AskOrigin { lookup, reference } => format!("ask origin {lookup} {}", reference.tag()),
            Action::Remember(binding) => {
                format!("remember {}={}", binding.reference.tag(), self.name(&binding.content))
            }
            Action::WantEnded { want, result } => format!("want {want} {}", outcome(&result.err())),
            Action::Resolved { resolve, result } => match result {
                Ok(found) => {
                    let by = match found.provenance {
                        Provenance::Origin => "origin".to_owned(),
                        Provenance::Remembered { .. } => "me".to_owned(),
                        Provenance::Peer { peer, .. } => self.peer_name(peer),
                    };
                    format!("resolved {resolve} {} by {by}", self.name(&found.content))
                }
                Err(error) => format!("resolved {resolve} {}", outcome(&Some(error))),
            },
            Action::Promised { promise, missing } => {
                let missing: String = missing.iter().map(|content| format!(" {}", self.name(content))).collect();
                format!("promised {promise} without{missing}")
            }
            Action::Note(note) => self.note(&note),
        }
    }

    fn note(&self, note: &Note) -> String {
        match note {
            Note::SourceFailed { content, source, .. } => {
                format!("{} of {} failed", self.name(content), self.source(source))
            }
            Note::Stalled { content, source } => format!("{} of {} stalled", self.name(content), self.source(source)),
            Note::PeerPenalised { peer, .. } => format!("{} penalised", self.peer_name(*peer)),
            Note::OriginReachability { reachable, .. } => {
                format!("origin {}", if *reachable { "back" } else { "away" })
            }
            Note::ProtocolViolation { peer, .. } => format!("{} broke the protocol", self.peer_name(*peer)),
            Note::LimitReached { limit } => format!("limit {limit}"),
        }
    }
}

fn said(from: NodeId, part: Part) -> Event {
    Event::Announced { from, announcement: Announcement::Taking(part) }
}

fn outcome(error: &Option<WantError>) -> &'static str {
    match error {
        None => "ok",
        Some(WantError::NotFound) => "not found",
        Some(WantError::Unauthorized(_)) => "unauthorized",
        Some(WantError::Unavailable(_)) => "unavailable",
        Some(WantError::Store(_)) => "cannot be stored",
        Some(WantError::Busy) => "busy",
    }
}

fn entry(word: &str) -> Entry {
    if let Some(name) = word.strip_prefix('-') {
        return Entry::Gone { content: blob(name) };
    }
    if let Some((name, pieces)) = word.split_once(':') {
        return Entry::Held { content: blob(name), size: size_of(number(pieces)) };
    }
    let (name, bound) = word.split_once('=').unwrap();
    let (content, at) = bound.split_once('@').unwrap();
    Entry::Bound(Binding { reference: tag(name), content: blob(content), observed_unix_s: number(at) })
}

fn source_error(words: &[&str]) -> SourceError {
    match words {
        ["unreachable"] => SourceError::Unreachable("no route".to_owned()),
        ["notfound"] => SourceError::NotFound,
        ["unauthorized"] => SourceError::Unauthorized("no credentials".to_owned()),
        ["failed"] => SourceError::Failed("500".to_owned()),
        ["wrong"] => SourceError::WrongBytes,
        ["store"] => SourceError::Store("disk full".to_owned()),
        ["busy", seconds] => SourceError::RateLimited { retry_after: Some(Duration::from_secs(number(seconds))) },
        other => panic!("not an error: {other:?}"),
    }
}

fn fetch_event(fetch: FetchId, words: &[&str]) -> Event {
    match words {
        ["started", pieces] => Event::FetchStarted { fetch, size: size_of(number(pieces)) },
        ["progress"] => Event::FetchProgress { fetch, bytes: 1000 },
        ["stored", pieces @ ..] => {
            Event::FetchStored { fetch, pieces: pieces.iter().map(|piece| number(piece)).collect() }
        }
        ["ended", "ok"] => Event::FetchEnded { fetch, result: Ok(()) },
        ["ended", error @ ..] => Event::FetchEnded { fetch, result: Err(source_error(error)) },
        other => panic!("what does fetch {fetch} do? {other:?}"),
    }
}

fn store_event(content: ContentId, words: &[&str]) -> Event {
    match words {
        ["held", pieces] => Event::Held { content, size: size_of(number(pieces)) },
        ["lost"] => Event::Lost { content },
        ["partly", count, durable @ ..] => {
            let count: u64 = number(count.trim_end_matches(':'));
            let mut pieces = PieceSet::empty(u32::try_from(count).unwrap());
            for piece in durable {
                assert!(pieces.insert(number(piece)));
            }
            Event::PartlyHeld { content, size: size_of(count), pieces }
        }
        ["wrong"] => Event::CompleteFailed { content, error: SourceError::WrongBytes },
        ["unstorable"] => Event::CompleteFailed { content, error: SourceError::Store("read-only".to_owned()) },
        other => panic!("what happens to {content}? {other:?}"),
    }
}
