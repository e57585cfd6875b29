//! A story of events and what the engine says to each, as text.
//!
//! A line is `<time>ms <event> -> <action>; <action>`; `#` begins a comment. Before the event, the engine gets every
//! tick that is due by that time. The actions are all that the engine said since the line before, in order, and
//! they must be exactly those, unless it says `*`. Peers are `P`, `Q`, `R`; blobs `A`, `B`, `C`; `A:5` is blob `A` of five pieces; `-A`
//! says that it is gone; tags are `v1`, `v2`, and `v1=A` is what one stands for. Times in seconds `s` also work.
//!
//! Events:
//! ```text
//! P connects | P leaves | P hello | P inventory A:5 B:1 | P announces A:5 -B v1=A@1000 | P missed | P fails
//! P diff A:5 | P announces summary | P asks hello | P asks inventory since 3 | P asks inventory anew
//! want 1 A [from repo] [in background] | want 1 A within 5 | follow 3 A | examined A refused | P announces follows:3:A | clock mon 21:59 | show A | reader 1 3 | unwant 1 | A held 5 | A lost | A partly 5: 0 1 | A wrong | A unstorable
//! fetch 0 started 5 | fetch 0 progress | fetch 0 stored 0 1 | fetch 0 ended ok|<error>
//! resolve 1 v1 [at 5000] | origin 0 says A@1000 | origin 0 fails <error> | known v1=A@1000 | signed v1=A v2=B | promise 1 A B | tick
//! ```
//! `A rebuildable 8 by 1 work 20` says that this device can make `A`, of eight pieces, with the patch `B` of one piece and the
//! work of twenty; then come `A rebuilding 10 | A unrebuilt <error> | A held 8`, and `rebuild A by B | stop rebuild A`.
//!
//! A source that answers from the start whatever is asked is `fetch 0 started 5 whole`. Hashes follow from the blob and the
//! piece; `wrongly` makes them others: `fetch 0 stored 1 2 wrongly`.
//!
//! What nodes say of their part in a blob that nobody holds is heard only in stories of sites ([`run_site`]); in the others
//! nobody waits for such words either. A set of pieces is `0..3/8`, the first three of eight:
//! ```text
//! P wants A | P wants A 0..3/8 | P wants A offline | P claims A 0.. | P claims A 3..5/8 | P claims A 3..5/8 turn 1
//! P claims A 3..5/8 has 0..4 | P vouches A 0..2/8 | P hashes A 0..2/8 [hearsay] | P hashes A nothing | P left A | P asks hashes A | A recalled 0 1
//! want told A [2/8] [offline] | connect P | claim told A 3..5 [turn 1] | vouch told A 0..2 | left told A
//! ```
//!
//! `show A` says what the transfer of `A` waits for, `overview` what people see of the site.
//!
//! A binding is `v1=A@1000`, seen at 1000 s after the epoch, or `v1=A@1000~5`, five seconds old. Peers speak about tags by
//! `P asks tag v1 | P says tag v1=A@1000~5 | P says tag ask|wait|away | P ignores tag | P heard v1 away`; for `v1` the order is
//! `R`, `P`, `me`, `Q`. In answers, `fresh` and `by rule` say why the origin was not asked.
//!
//! Only stories of keepers ([`run_kept`]) ask a blob's keeper before they claim; for `A` the order is `P`, `Q`, `me`:
//! `P says A free|taken | P ignores A | Q asks claim A 0..4`, and `answer Q free|taken`.
//!
//! Errors: `unreachable`, `notfound`, `unauthorized`, `failed`, `ill`, `wrong`, `store`, `busy <seconds>`.

use std::{collections::BTreeMap, time::Duration};

pub(super) use super::super::model::{blob, peer, repository, size_of};
use super::super::{
    Config, Engine, Rebuild, Urgency,
    budget::MINUTES_PER_DAY,
    event::{
        Action, Basis, CallId, Event, FetchId, Instant, LookupId, Note, OriginTag, PromiseId, Provenance, RequestId,
        ResolveId, SignedBinding, Source, SourceError, WantError, WantId,
    },
    overview::{Bounds, DeviceView, HeldView, UnderWayView},
    releases::Examined,
    trees::tree_of,
};
use crate::{
    ContentId, NodeId, ObjectKind, PieceHash, PieceHashes, PieceIndex, PieceSet, TagRef,
    wire::{
        Announcement, Binding, Change, Claim, ControlRequest, ControlResponse, Entry, Following, Having, Hello,
        InventoryPage, InventoryPosition, Part, Stripe, Summary, TagWord, VouchedRun, Vouches,
    },
};

/// Runs a story with the default configuration.
pub(super) fn run(story: &str) {
    run_with(Config::default(), story);
}

/// Runs a story.
pub(super) fn run_with(config: Config, story: &str) {
    let none = Duration::ZERO;
    let config = Config {
        settle: none,
        settle_while_fetched: none,
        settle_after_start: none,
        settle_after_connect: none,
        clearance: none,
        ..config
    };
    tell(Teller::new(config, false), story);
}

/// Runs a story of nodes that want the same.
pub(super) fn run_site(story: &str) {
    run_site_with(Config::default(), story);
}

/// The same with another configuration.
pub(super) fn run_site_with(config: Config, story: &str) {
    tell(Teller::new(Config { clearance: Duration::ZERO, ..config }, true), story);
}

/// Runs a story of nodes that ask keepers before they claim what others may fetch.
pub(super) fn run_kept(story: &str) {
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
        if expected == ["*"] {
            continue;
        }
        assert_eq!(said, expected, "\n  at: {line}");
    }
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
    hashes: BTreeMap<String, RequestId>,
    claims: BTreeMap<String, RequestId>,
    tags: BTreeMap<String, RequestId>,
    /// What each fetch is of.
    fetched: BTreeMap<FetchId, ContentId>,
    names: BTreeMap<ContentId, &'static str>,
    /// Whether words about parts are listened to.
    parts: bool,
}

impl Teller {
    fn new(config: Config, parts: bool) -> Self {
        let names = ["A", "B", "C", "D"].map(|name| (blob(name), name)).into();
        let engine = Engine::new(config, peer("me"), 1);
        let (seqs, hello, inventory, hashes, claims, tags) = Default::default();
        let (now, fetched) = (Instant::default(), BTreeMap::new());
        Self { engine, now, seqs, hello, inventory, hashes, claims, tags, fetched, names, parts }
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
        match words.as_slice() {
            ["show", name] => {
                said.push(self.shown(&blob(name)));
                return said;
            }
            ["overview"] => return self.overview(),
            _ => {}
        }
        if let Some(event) = self.event(&words) {
            self.handle(event, &mut said);
        }
        said
    }

    /// The site as the engine shows it, in pieces; what was shown for good reasons only is left out.
    fn overview(&self) -> Vec<String> {
        let bounds = Bounds { devices: 9, under_way: 9, fetching: 9, held: 9, crossed: 9 };
        let seen = self.engine.overview(bounds);
        let pieces = |bytes: u64| bytes / size_of(1);
        let name = |node: &NodeId| ["me", "P", "Q", "R"].into_iter().find(|name| peer(name) == *node).unwrap_or("?");
        let of = |content: &ContentId| self.names.get(content).copied().unwrap_or("?");
        let device = |device: &DeviceView| {
            let (had, wanted) = (pieces(device.had_bytes), pieces(device.wanted_bytes));
            let fetches = if device.fetches > 0 { " and fetches" } else { "" };
            let afar = if device.connected { "" } else { " afar" };
            format!("{}{afar} holds {}, has {had}/{wanted}{fetches}", name(&device.node), device.blobs)
        };
        let under_way = |blob: &UnderWayView| {
            let by: Vec<_> = blob.fetching.iter().map(name).collect();
            let (size, had, crossed) = (pieces(blob.size.unwrap_or(0)), pieces(blob.had_bytes), pieces(blob.crossed));
            let (holders, wanting) = (blob.holders, blob.wanting);
            format!(
                "{}:{size} by [{}], {holders} hold, {wanting} want and have {had}, {crossed} crossed",
                of(&blob.content),
                by.join(" ")
            )
        };
        let held = |blob: &HeldView| {
            format!(
                "{}:{} at {}{}",
                of(&blob.content),
                pieces(blob.size),
                blob.holders,
                if blob.here { " and here" } else { "" }
            )
        };
        let uplink = (seen.uplink.bytes > 0)
            .then(|| format!("uplink {}, {} too many", pieces(seen.uplink.bytes), pieces(seen.uplink.surplus)));
        let devices = seen.devices.iter().map(device);
        devices.chain(seen.under_way.iter().map(under_way)).chain(seen.held.iter().map(held)).chain(uplink).collect()
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
            ["want", want, content, rest @ ..] if rest.first() != Some(&"within") => {
                let (name, urgency) = match rest {
                    [] => (None, Urgency::Runtime),
                    ["in", "background"] => (None, Urgency::Background),
                    ["from", name] => (Some(name), Urgency::Runtime),
                    ["from", name, "in", "background"] => (Some(name), Urgency::Background),
                    other => panic!("what is wanted? {other:?}"),
                };
                Event::Want {
                    want: WantId(number(want)),
                    content: blob(content),
                    kind: ObjectKind::Blob,
                    repository: name.map(|name| repository(name)),
                    urgency,
                    size_max: None,
                }
            }
            ["want", want, content, "within", pieces] => Event::Want {
                want: WantId(number(want)),
                content: blob(content),
                kind: ObjectKind::Blob,
                repository: None,
                urgency: Urgency::Runtime,
                size_max: Some(size_of(number(pieces))),
            },
            ["follow", version, content] => Event::Following(following(version, content)),
            ["examined", content, how] => Event::Examined { content: blob(content), examined: examined(how) },
            ["clock", day, time] => Event::Clock { minute_of_week: minute_of_week(day, time) },
            ["reader", want, piece] => Event::ReaderAt { want: WantId(number(want)), offset: size_of(number(piece)) },
            ["unwant", want] => Event::Unwant { want: WantId(number(want)) },
            ["fetch", fetch, rest @ ..] => {
                let fetch = FetchId(number(fetch));
                let content = self.fetched.get(&fetch).copied().unwrap_or_else(|| blob("A"));
                fetch_event(fetch, content, rest)
            }
            ["resolve", resolve, name, clock @ ..] => {
                let now_unix_s = if let ["at", unix_s] = clock { number(unix_s) } else { 0 };
                Event::Resolve { resolve: ResolveId(number(resolve)), reference: tag(name), now_unix_s }
            }
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
            ["signed", words @ ..] => Event::SignedBindings(words.iter().map(|word| signed(word)).collect()),
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

    fn shown(&self, content: &ContentId) -> String {
        let name = self.name(content);
        match self.engine.transfers().find(|view| view.content == *content) {
            None => format!("{name} is no transfer"),
            Some(view) => match view.waits_for {
                None => format!("{name} waits for nothing"),
                Some(wait) => {
                    let minutes = wait.minutes.map(|minutes| format!(" in {minutes} min")).unwrap_or_default();
                    format!("{name} waits for {:?}{minutes}", wait.reason)
                }
            },
        }
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
            ["announces", "summary"] => Event::Announced {
                from: id,
                sequence: 0,
                announcement: Announcement::Summary(self.hello_of(name).summary),
            },
            ["announces", entries @ ..] => {
                let since = self.position(name);
                let changes = self.changes(name, entries);
                Event::Announced { from: id, sequence: 0, announcement: Announcement::Changed { since, changes } }
            }
            ["wants", content, how @ ..] => {
                let origin = !how.contains(&"offline");
                let having = how.iter().find(|word| word.contains('/')).map(|word| having(word));
                said(id, Part::Wanted { content: blob(content), origin, having, claim: None })
            }
            ["claims", content, run, how @ ..] => {
                let turn = if let ["turn", turn, ..] = how { number(turn) } else { 0 };
                let (first, end, total) = run_of(run);
                let had = if let [.., "has", had] = how { run_of(had) } else { (0, 0, None) };
                let having = total.map(|total| having(&format!("{}..{}/{total}", had.0, had.1)));
                let claim = Some(Claim { stripe: Stripe { first, end, turn, tree: tree_of(&id, 4) }, lease_ms: 4000 });
                said(id, Part::Wanted { content: blob(content), origin: true, having, claim })
            }
            ["vouches", content, run, how @ ..] => {
                let (first, end, total) = run_of(run);
                let content = blob(content);
                let hashes = hashes(&content, first..end, *how == ["wrongly"]);
                said(id, Part::Vouched { content, size: size_of(total.unwrap()), first, hashes })
            }
            ["hashes", content, run, how @ ..] => {
                let request = self.hashes.remove(name).expect("no question about hashes is open");
                let content = blob(content);
                let vouches = if *run == "nothing" {
                    Vouches { size: 0, runs: Vec::new() }
                } else {
                    let (first, end, total) = run_of(run);
                    let own = !how.contains(&"hearsay");
                    let hashes = hashes(&content, first..end, how.contains(&"wrongly"));
                    Vouches { size: size_of(total.unwrap()), runs: vec![VouchedRun { first, hashes, own }] }
                };
                Event::Responded { request, response: ControlResponse::Vouches(vouches) }
            }
            ["asks", "hashes", content] => {
                let request = ControlRequest::Vouches { content: blob(content), first: 0 };
                Event::Requested { call: CallId(1), from: id, request }
            }
            ["asks", "tag", reference] => {
                let request = ControlRequest::Tag { reference: tag(reference) };
                Event::Requested { call: call_of(&id), from: id, request }
            }
            ["says", "tag", word] => {
                let request = self.tags.remove(name).expect("no question about a tag is open");
                Event::Responded { request, response: ControlResponse::Tag(tag_word(word)) }
            }
            ["ignores", "tag"] => {
                let request = self.tags.remove(name).expect("no question about a tag is open");
                Event::RequestFailed { request }
            }
            ["heard", reference, word] => {
                let request = ControlRequest::TagSaid { reference: tag(reference), word: tag_word(word) };
                Event::Requested { call: call_of(&id), from: id, request }
            }
            ["asks", "claim", content, run] => {
                let (first, end, _) = run_of(run);
                let stripe = Stripe { first, end, turn: 0, tree: tree_of(&id, 4) };
                let request = ControlRequest::Claim { content: blob(content), stripe };
                Event::Requested { call: call_of(&id), from: id, request }
            }
            ["says", _, word @ ("free" | "taken")] => {
                let request = self.claims.remove(name).expect("no question about a claim is open");
                Event::Responded { request, response: ControlResponse::Claim { free: *word == "free" } }
            }
            ["ignores", "A"] => {
                let request = self.claims.remove(name).expect("no question about a claim is open");
                Event::RequestFailed { request }
            }
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
            Entry::Following(Following { version, content, .. }) => {
                format!(" follows:{version}:{}", content.map_or("-", |content| self.name(&content)))
            }
            Entry::Bound(binding) => format!(" {}={}", binding.reference.tag(), self.name(&binding.content)),
        };
        changes.map(entry).collect()
    }

    fn tag_word(&self, word: &TagWord) -> String {
        match word {
            TagWord::Bound(binding) => {
                let age = binding.age_ms.map(|age| format!("~{}", age / 1000)).unwrap_or_default();
                let by = binding.by.map(|by| format!(" of {}", self.peer_name(by))).unwrap_or_default();
                format!("{}={}{age}{by}", binding.reference.tag(), self.name(&binding.content))
            }
            TagWord::Ask => "ask".to_owned(),
            TagWord::Wait => "wait".to_owned(),
            TagWord::Away => "away".to_owned(),
        }
    }

    fn describe(&mut self, action: Action) -> String {
        match action {
            Action::Announce(Announcement::Taking(part)) => match part {
                Part::Wanted { content, claim: Some(Claim { stripe, .. }), .. } => {
                    let turn = if stripe.turn > 0 { format!(" turn {}", stripe.turn) } else { String::new() };
                    format!("claim told {} {}{turn}", self.name(&content), run_text(stripe))
                }
                Part::Wanted { content, origin, having, claim: None } => {
                    let offline = if origin { "" } else { " offline" };
                    let some = having.map(|having| having.pieces).filter(|set| !set.is_empty());
                    let having = some.map(|set| format!(" {}/{}", set.count(), set.pieces())).unwrap_or_default();
                    format!("want told {}{having}{offline}", self.name(&content))
                }
                Part::Vouched { content, first, hashes, .. } => {
                    format!("vouch told {} {first}..{}", self.name(&content), first as usize + hashes.0.len())
                }
                Part::Left { content } => format!("left told {}", self.name(&content)),
            },
            Action::Announce(Announcement::Rollout(rollout)) => format!("rollout told {}", rollout.platform),
            Action::Examine { from, version, content } => {
                format!("examine {version} {} of {}", self.name(&content), self.peer_name(from))
            }
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
                    ControlRequest::Vouches { content, first } => {
                        self.hashes.insert(name.clone(), request);
                        format!("ask {name} hashes {} {first}..", self.name(&content))
                    }
                    ControlRequest::Claim { content, stripe } => {
                        self.claims.insert(name.clone(), request);
                        format!("ask {name} claim {} {}", self.name(&content), run_text(stripe))
                    }
                    ControlRequest::Tag { reference } => {
                        self.tags.insert(name.clone(), request);
                        format!("ask {name} tag {}", reference.tag())
                    }
                    ControlRequest::TagSaid { reference, word } => {
                        format!("tell {name} {} {}", reference.tag(), self.tag_word(&word))
                    }
                }
            }
            Action::Respond { response: ControlResponse::Vouches(vouches), .. } => {
                let run = |run: &VouchedRun| {
                    let hearsay = if run.own { "" } else { " hearsay" };
                    format!(" {}..{}{hearsay}", run.first, run.first as usize + run.hashes.0.len())
                };
                format!("answer hashes{}", vouches.runs.iter().map(run).collect::<String>())
            }
            Action::Respond { call, response: ControlResponse::Tag(word) } => {
                let asker = char::from(u8::try_from(call.0).unwrap());
                format!("answer {asker} tag {}", self.tag_word(&word))
            }
            Action::Respond { call, response: ControlResponse::Claim { free } } => {
                let asker = char::from(u8::try_from(call.0).unwrap());
                format!("answer {asker} {}", if free { "free" } else { "taken" })
            }
            Action::Respond { response: ControlResponse::Noted, .. } => "noted".to_owned(),
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
                self.fetched.insert(fetch, content);
                let (content, source) = (self.name(&content), self.source(&source));
                let growing = if growing { "growing " } else { "" };
                format!("fetch {fetch} {content} from {growing}{source} {}..{end}", pieces.start)
            }
            Action::Connect { peer } => format!("connect {}", self.peer_name(peer)),
            Action::Expect { fetch, pieces } => {
                format!("expect {fetch}:{}", listed(pieces.iter().map(|(piece, _)| piece)))
            }
            Action::Drop { content, pieces } => format!("drop {}:{}", self.name(&content), listed(pieces.iter())),
            Action::Recall { content } => format!("recall {}", self.name(&content)),
            Action::CancelFetch { fetch } => format!("cancel {fetch}"),
            Action::Rebuild { content, patch, .. } => {
                format!("rebuild {} by {}", self.name(&content), self.name(&patch))
            }
            Action::CancelRebuild { content } => format!("stop rebuild {}", self.name(&content)),
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
                        Provenance::Signed => "a release".to_owned(),
                    };
                    let basis = match found.basis {
                        Basis::Asked | Basis::Away => "",
                        Basis::Fresh => ", fresh",
                        Basis::Policy => ", by rule",
                    };
                    format!("resolved {resolve} {} by {by}{basis}", self.name(&found.content))
                }
                Err(error) => format!("resolved {resolve} {}", outcome(&Some(error))),
            },
            Action::Promised { promise, missing } => {
                let missing: String = missing.iter().map(|content| format!(" {}", self.name(content))).collect();
                format!("promised {promise} without{missing}")
            }
            Action::PaceUplink { bytes_per_s } => format!("pace {bytes_per_s}"),
            Action::Note(note) => self.note(&note),
        }
    }

    fn note(&self, note: &Note) -> String {
        match note {
            Note::SourceFailed { content, source, .. } => {
                format!("{} of {} failed", self.name(content), self.source(source))
            }
            Note::Stalled { content, source } => format!("{} of {} stalled", self.name(content), self.source(source)),
            Note::RebuildFailed { content, .. } => format!("rebuild of {} failed", self.name(content)),
            Note::RebuildStalled { content } => format!("rebuild of {} stalled", self.name(content)),
            Note::PeerPenalised { peer, .. } => format!("{} penalised", self.peer_name(*peer)),
            Note::OriginReachability { reachable, .. } => {
                format!("origin {}", if *reachable { "back" } else { "away" })
            }
            Note::ProtocolViolation { peer, .. } => format!("{} broke the protocol", self.peer_name(*peer)),
            Note::ReleasesRefused { peer } => format!("refused {}", self.peer_name(*peer)),
            Note::LimitReached { limit } => format!("limit {limit}"),
        }
    }
}

/// Such as `mon` and `21:59`.
fn minute_of_week(day: &str, time: &str) -> u16 {
    let day = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].iter().position(|name| *name == day).unwrap();
    let (hour, minute) = time.split_once(':').unwrap();
    u16::try_from(day).unwrap() * MINUTES_PER_DAY + number::<u16>(hour) * 60 + number::<u16>(minute)
}

fn said(from: NodeId, part: Part) -> Event {
    Event::Announced { from, sequence: 0, announcement: Announcement::Taking(part) }
}

/// The run of `first..end` and the total of `first..end/total`.
fn run_of(word: &str) -> (PieceIndex, PieceIndex, Option<u64>) {
    let (run, total) = word.split_once('/').map_or((word, None), |(run, total)| (run, Some(number(total))));
    let (first, end) = run.split_once("..").unwrap();
    (number(first), if end.is_empty() { PieceIndex::MAX } else { number(end) }, total)
}

fn run_text(stripe: Stripe) -> String {
    let end = if stripe.end == PieceIndex::MAX { String::new() } else { stripe.end.to_string() };
    format!("{}..{end}", stripe.first)
}

fn having(word: &str) -> Having {
    let (first, end, total) = run_of(word);
    let total = total.unwrap();
    let mut pieces = PieceSet::empty(u32::try_from(total).unwrap());
    for piece in first..end {
        assert!(pieces.insert(piece));
    }
    Having { size: size_of(total), pieces }
}

fn hash_of(content: &ContentId, piece: PieceIndex, wrongly: bool) -> PieceHash {
    PieceHash::of(format!("{content} {piece} {wrongly}").as_bytes())
}

pub(super) fn hashes(content: &ContentId, run: std::ops::Range<PieceIndex>, wrongly: bool) -> PieceHashes {
    PieceHashes(run.map(|piece| hash_of(content, piece, wrongly)).collect())
}

fn listed<'a>(pieces: impl Iterator<Item = &'a PieceIndex>) -> String {
    pieces.map(|piece| format!(" {piece}")).collect()
}

fn outcome(error: &Option<WantError>) -> &'static str {
    match error {
        None => "ok",
        Some(WantError::NotFound) => "not found",
        Some(WantError::Unauthorized(_)) => "unauthorized",
        Some(WantError::Unavailable(_)) => "unavailable",
        Some(WantError::Store(_)) => "cannot be stored",
        Some(WantError::NotSigned) => "not signed",
        Some(WantError::TooLarge(_)) => "too large",
        Some(WantError::Busy) => "busy",
    }
}

fn entry(word: &str) -> Entry {
    if let Some(name) = word.strip_prefix('-') {
        return Entry::Gone { content: blob(name) };
    }
    if let Some((version, content)) = word.strip_prefix("follows:").and_then(|word| word.split_once(':')) {
        return Entry::Following(following(version, content));
    }
    if let Some((name, pieces)) = word.split_once(':') {
        return Entry::Held { content: blob(name), size: size_of(number(pieces)) };
    }
    let (name, bound) = word.split_once('=').unwrap();
    let (content, at) = bound.split_once('@').unwrap();
    let (at, age) = at.split_once('~').map_or((at, None), |(at, age)| (at, Some(number::<u64>(age) * 1000)));
    let content = blob(content);
    Entry::Bound(Binding { reference: tag(name), content, observed_unix_s: number(at), age_ms: age, by: None })
}

/// Such as `v1=A@1000~5`, five seconds old, or `ask`.
fn tag_word(word: &str) -> TagWord {
    match word {
        "ask" => TagWord::Ask,
        "wait" => TagWord::Wait,
        "away" => TagWord::Away,
        word => match entry(word) {
            Entry::Bound(binding) => TagWord::Bound(binding),
            _ => panic!("not a word on a tag: {word}"),
        },
    }
}

/// What a peer asks about tags: one at a time.
fn call_of(peer: &NodeId) -> CallId {
    CallId(u64::from(peer.public_key()[0]))
}

/// Such as `3 A`; without metadata `0 -`.
fn following(version: &str, content: &str) -> Following {
    Following {
        repository: "fleet".to_owned(),
        version: number(version),
        content: (content != "-").then(|| blob(content)),
        channels: vec!["stable".to_owned()],
        platforms: vec!["linux/amd64".to_owned()],
    }
}

fn examined(word: &str) -> Examined {
    match word {
        "accepted" => Examined::Accepted,
        "refused" => Examined::Refused,
        "unavailable" => Examined::Unavailable,
        other => panic!("what came of it? {other}"),
    }
}

/// Such as `v1=A`.
fn signed(word: &str) -> SignedBinding {
    let (name, content) = word.split_once('=').unwrap();
    SignedBinding { reference: tag(name), content: blob(content), release: "stable 1".to_owned() }
}

fn source_error(words: &[&str]) -> SourceError {
    match words {
        ["unreachable"] => SourceError::Unreachable("no route".to_owned()),
        ["notfound"] => SourceError::NotFound,
        ["unauthorized"] => SourceError::Unauthorized("no credentials".to_owned()),
        ["failed"] => SourceError::Failed("nonsense".to_owned()),
        ["ill"] => SourceError::Unavailable("500".to_owned()),
        ["wrong"] => SourceError::WrongBytes,
        ["store"] => SourceError::Store("disk full".to_owned()),
        ["busy", seconds] => SourceError::RateLimited { retry_after: Some(Duration::from_secs(number(seconds))) },
        other => panic!("not an error: {other:?}"),
    }
}

fn fetch_event(fetch: FetchId, content: ContentId, words: &[&str]) -> Event {
    match words {
        ["started", pieces, how @ ..] => {
            Event::FetchStarted { fetch, size: size_of(number(pieces)), ranged: *how != ["whole"] }
        }
        ["busy"] => Event::FetchProgress { fetch, bytes: 0 },
        ["brought", bytes] => Event::FetchProgress { fetch, bytes: number(bytes) },
        ["progress"] => Event::FetchProgress { fetch, bytes: 100_000 },
        ["stored", pieces @ ..] => {
            let (wrongly, pieces) = match pieces {
                [pieces @ .., "wrongly"] => (true, pieces),
                pieces => (false, pieces),
            };
            let piece = |word: &&str| (number(word), hash_of(&content, number(word), wrongly));
            Event::FetchStored { fetch, pieces: pieces.iter().map(piece).collect() }
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
        ["recalled", pieces @ ..] => {
            let piece = |word: &&str| (number(word), hash_of(&content, number(word), false));
            Event::Recalled { content, pieces: pieces.iter().map(piece).collect() }
        }
        ["rebuildable", pieces, "by", patch, "work", work] => {
            let rebuild = Rebuild {
                patch: blob("B"),
                patch_bytes: size_of(number(patch)),
                size: size_of(number(pieces)),
                work: size_of(number(work)),
            };
            Event::Rebuildable { content, rebuild }
        }
        ["rebuilding", done] => Event::RebuildProgress { content, done: size_of(number(done)) },
        ["unrebuilt", error @ ..] => Event::RebuildFailed { content, error: source_error(error) },
        ["wrong"] => Event::CompleteFailed { content, error: SourceError::WrongBytes },
        ["unstorable"] => Event::CompleteFailed { content, error: SourceError::Store("read-only".to_owned()) },
        other => panic!("what happens to {content}? {other:?}"),
    }
}
