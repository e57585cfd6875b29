//! The world: virtual time, and everything that drivers do.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hash::{DefaultHasher, Hasher as _},
    time::Duration,
};

use layermesh_proto::{
    Algorithm, ContentId, NodeId, ObjectKind, Repository, TagRef,
    engine::{
        Config, Engine, PeerView, Urgency,
        event::{
            CallId, Event, Instant, LookupId, Note, OriginTag, PromiseId, RequestId, Resolution, ResolveId, Source,
            SourceError, WantError, WantId,
        },
    },
    wire::ControlRequest,
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    checks::{self, ACTIONS_PER_EVENT_MAX, Violation},
    flows::broken,
    network::{Options, Origin, OriginMode},
    node::{Fault, Node},
    queue::{Happening, Queue, Target},
};

/// A node of the world.
pub type NodeIndex = usize;

/// Most events of one run: a run that takes more does not end by itself.
const EVENTS_MAX: u64 = 5_000_000;

/// A blob that the origin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Its kind.
    pub kind: ObjectKind,
}

/// A site of nodes and an origin, in virtual time.
#[derive(Debug)]
pub struct World {
    seed: u64,
    pub(crate) options: Options,
    config: Config,
    pub(crate) now: Instant,
    pub(crate) random: ChaCha8Rng,
    pub(crate) queue: Queue,
    pub(crate) nodes: Vec<Node>,
    pub(crate) by_id: BTreeMap<NodeId, NodeIndex>,
    pub(crate) origin: Origin,
    repository: Repository,
    pub(crate) notes: Vec<(NodeIndex, Note)>,
    trace: DefaultHasher,
    events: u64,
    messages: u64,
}

impl World {
    /// An empty site whose origin has one repository, `repository`.
    pub fn new(seed: u64, options: Options, config: Config, repository: Repository) -> Self {
        Self {
            seed,
            options,
            config,
            now: Instant::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            queue: Queue::default(),
            nodes: Vec::new(),
            by_id: BTreeMap::new(),
            origin: Origin { mode: OriginMode::Up, blobs: BTreeMap::new(), tags: BTreeMap::new(), bytes: 0 },
            repository,
            notes: Vec::new(),
            trace: DefaultHasher::new(),
            events: 0,
            messages: 0,
        }
    }

    /// Puts a blob into the origin. Its name follows from `name`, since it has no bytes.
    pub fn publish(&mut self, name: &str, size: u64, kind: ObjectKind) -> Blob {
        let content = ContentId::of(Algorithm::Sha256, name.as_bytes());
        self.origin.blobs.insert(content, size);
        Blob { content, size, kind }
    }

    /// Lets a tag of the origin stand for a blob.
    pub fn tag(&mut self, reference: TagRef, blob: Blob) {
        self.origin.tags.insert(reference, blob.content);
    }

    /// Lets the origin behave so from now on; running fetches from it break off unless it is up.
    pub fn set_origin(&mut self, mode: OriginMode) {
        self.origin.mode = mode;
    }

    /// Adds a node and starts it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn add_node(&mut self) -> Result<NodeIndex, Violation> {
        let node = self.new_node();
        self.start(node)?;
        Ok(node)
    }

    fn new_node(&mut self) -> NodeIndex {
        let node = self.nodes.len();
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(node as u64 + 1).to_be_bytes());
        let id = NodeId::from_public_key(key);
        self.nodes.push(Node::new(id));
        self.by_id.insert(id, node);
        node
    }

    /// Adds a node that is connected with nobody yet, and starts it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn add_node_apart(&mut self) -> Result<NodeIndex, Violation> {
        let node = self.new_node();
        self.start_apart(node)?;
        Ok(node)
    }

    /// Connects two nodes that are up and were not connected.
    pub fn connect(&mut self, one: NodeIndex, other: NodeIndex) {
        for (node, peer) in [(one, other), (other, one)] {
            let (after, peer) = (self.lan_time(), self.nodes[peer].id);
            self.plan(after, node, Happening::Event(Event::PeerConnected { peer }));
        }
    }

    /// Gives a node an uplink of another rate than the others', in bytes a second.
    pub fn set_uplink(&mut self, node: NodeIndex, bytes_per_s: u64) {
        self.nodes[node].uplink_bytes_per_s = Some(bytes_per_s);
    }

    /// Starts a node that is down; its disk is as it was left. All nodes that are up connect to it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn start(&mut self, node: NodeIndex) -> Result<(), Violation> {
        self.start_apart(node)?;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.nodes[other].is_up() {
                self.connect(node, other);
            }
        }
        Ok(())
    }

    fn start_apart(&mut self, node: NodeIndex) -> Result<(), Violation> {
        let seed = self.random.next_u64();
        let started = &mut self.nodes[node];
        started.life += 1;
        started.engine = Some(Engine::new(self.config.clone(), started.id, seed));
        let store = &started.store;
        let held = store.whole.iter().map(|(content, size)| Event::Held { content: *content, size: *size });
        let partly = store.partial.iter().map(|(content, partial)| Event::PartlyHeld {
            content: *content,
            size: partial.size,
            pieces: partial.piece_set(),
        });
        let bindings = store.bindings.values().cloned().map(Event::BindingKnown);
        let events: Vec<_> = held.chain(partly).chain(bindings).collect();
        for event in events {
            self.handle(node, event)?;
        }
        Ok(())
    }

    /// Stops a node in good order: its connections close.
    pub fn leave(&mut self, node: NodeIndex) {
        self.stop(node, self.options.lan_latency);
    }

    /// Cuts a node's power: its flows fall silent, and peers notice late.
    pub fn crash(&mut self, node: NodeIndex) {
        self.stop(node, self.options.power_loss_noticed);
    }

    fn stop(&mut self, node: NodeIndex, noticed: Duration) {
        let stopped = &mut self.nodes[node];
        let peer = stopped.id;
        stopped.engine = None;
        stopped.flows.clear();
        stopped.calls.clear();
        stopped.wants.retain(|_, (_, ended)| ended.is_some());
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.plan(noticed, other, Happening::Event(Event::PeerDisconnected { peer }));
            let source = Source::Peer(peer);
            if noticed < Duration::from_secs(1) {
                let flows = self.nodes[other].flows.iter().filter(|(_, flow)| flow.source == source);
                let broken: Vec<_> = flows.map(|(fetch, _)| *fetch).collect();
                for fetch in broken {
                    self.plan(noticed, other, Happening::Broken { fetch });
                }
            }
        }
    }

    /// Makes a node misbehave from now on.
    pub fn set_fault(&mut self, node: NodeIndex, fault: Fault) {
        self.nodes[node].fault = Some(fault);
    }

    /// Somebody at a node needs a blob.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn want(&mut self, node: NodeIndex, blob: Blob) -> Result<WantId, Violation> {
        self.want_as(node, blob, Urgency::Runtime)
    }

    pub(crate) fn want_as(&mut self, node: NodeIndex, blob: Blob, urgency: Urgency) -> Result<WantId, Violation> {
        let want = WantId(self.nodes[node].id());
        self.nodes[node].wants.insert(want, (blob.content, None));
        let (content, kind, repository) = (blob.content, blob.kind, Some(self.repository.clone()));
        self.handle(node, Event::Want { want, content, kind, repository, urgency })?;
        Ok(want)
    }

    /// How a want ended, if it did.
    pub fn ended(&self, node: NodeIndex, want: WantId) -> Option<&Result<(), WantError>> {
        self.nodes[node].wants.get(&want)?.1.as_ref()
    }

    /// Whether every want that is open at nodes that are up has ended.
    pub fn all_ended(&self) -> bool {
        self.nodes.iter().filter(|node| node.is_up()).all(|node| node.wants.values().all(|(_, ended)| ended.is_some()))
    }

    /// Somebody at a node asks for a tag.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn resolve(&mut self, node: NodeIndex, reference: TagRef) -> Result<ResolveId, Violation> {
        let resolve = ResolveId(self.nodes[node].id());
        self.nodes[node].resolves.insert(resolve, None);
        self.handle(node, Event::Resolve { resolve, reference })?;
        Ok(resolve)
    }

    /// What a tag was said to stand for, if it was answered.
    pub fn resolved(&self, node: NodeIndex, resolve: ResolveId) -> Option<&Result<Resolution, WantError>> {
        self.nodes[node].resolves.get(&resolve)?.as_ref()
    }

    /// Somebody at a node asks whether blobs could be had; the answer is those that could not.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn promise(&mut self, node: NodeIndex, blobs: &[Blob]) -> Result<Vec<ContentId>, Violation> {
        let promise = PromiseId(self.nodes[node].id());
        let contents = blobs.iter().map(|blob| blob.content).collect();
        self.handle(node, Event::Promise { promise, contents, repository: self.repository.clone() })?;
        match self.nodes[node].promises.remove(&promise) {
            Some(missing) => Ok(missing),
            None => Err(self.violation(node, "a promise was not answered at once".to_owned())),
        }
    }

    /// Whether a node's disk has a blob, whole.
    pub fn holds(&self, node: NodeIndex, blob: Blob) -> bool {
        self.nodes[node].store.whole.get(&blob.content) == Some(&blob.size)
    }

    /// Pieces of a blob on a node's disk, if it is not whole.
    pub fn pieces(&self, node: NodeIndex, blob: Blob) -> usize {
        self.nodes[node].store.partial.get(&blob.content).map_or(0, |partial| partial.pieces.len())
    }

    /// Pieces that were written to a node's disk though they were there.
    pub fn refetched(&self, node: NodeIndex) -> u64 {
        self.nodes[node].store.refetched
    }

    /// Payload bytes that a node took from the origin and from peers.
    pub fn bytes_from(&self, node: NodeIndex) -> (u64, u64) {
        (self.nodes[node].bytes_from_origin, self.nodes[node].bytes_from_peers)
    }

    /// Payload bytes that crossed the uplink.
    pub fn origin_bytes(&self) -> u64 {
        self.origin.bytes
    }

    /// What the nodes had people know.
    pub fn notes(&self) -> &[(NodeIndex, Note)] {
        &self.notes
    }

    /// Gossip messages delivered and questions and answers sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// A node's connected peers, as it sees them.
    pub fn peers(&self, node: NodeIndex) -> Vec<PeerView> {
        self.nodes[node].engine.as_ref().map(|engine| engine.peers().collect()).unwrap_or_default()
    }

    /// The node's id.
    pub fn id(&self, node: NodeIndex) -> NodeId {
        self.nodes[node].id
    }

    /// Seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash of everything that happened and all that the engines said, in order.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Lets time pass until `done`, at most `limit`. Returns whether it was done.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, Violation> {
        let end = self.now + limit;
        loop {
            if done(self) {
                return Ok(true);
            }
            let deadline = |node: &Node| node.engine.as_ref().and_then(Engine::next_deadline);
            let tick = (0..self.nodes.len()).filter_map(|node| Some((deadline(&self.nodes[node])?, node))).min();
            let planned = self.queue.next();
            let at = tick.map(|(at, _)| at).into_iter().chain(planned).min();
            let Some(at) = at.filter(|at| *at <= end) else {
                self.now = end;
                return Ok(done(self));
            };
            self.now = self.now.max(at);
            match tick {
                Some((due, node)) if planned.is_none_or(|planned| due < planned) => self.handle(node, Event::Tick)?,
                _ => {
                    if let Some((target, happening)) = self.queue.pop() {
                        self.happen(target, happening)?;
                    }
                }
            }
        }
    }

    fn violation(&self, node: NodeIndex, what: String) -> Violation {
        let recent = self.nodes[node].recent.iter().cloned().collect();
        Violation { seed: self.seed, at: self.now, node, what, recent }
    }

    fn record(&mut self, node: NodeIndex, what: &dyn std::fmt::Debug) {
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write!(line, "{} {node} {what:?}", self.now.as_nanos());
        self.trace.write(line.as_bytes());
        self.nodes[node].remember(line);
    }

    /// Hands an event to a node's engine and does what it says.
    pub(crate) fn handle(&mut self, node: NodeIndex, event: Event) -> Result<(), Violation> {
        self.record(node, &event);
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(self.violation(node, "the run does not end".to_owned()));
        }
        let Some(engine) = &mut self.nodes[node].engine else { return Ok(()) };
        engine.handle(self.now, event);
        for _ in 0..ACTIONS_PER_EVENT_MAX {
            let Some(action) = self.nodes[node].engine.as_mut().and_then(Engine::poll_action) else {
                return checks::pieces(&self.nodes[node]).map_err(|what| self.violation(node, what));
            };
            self.record(node, &action);
            checks::action(&self.nodes[node], &action).map_err(|what| self.violation(node, what))?;
            self.perform(node, action);
        }
        Err(self.violation(node, "one event leads to too many actions".to_owned()))
    }

    pub(crate) fn plan(&mut self, after: Duration, node: NodeIndex, happening: Happening) {
        let target = Target { node, life: self.nodes[node].life };
        self.queue.plan(self.now + after, target, happening);
    }

    pub(crate) fn lan_time(&mut self) -> Duration {
        let latency = self.options.lan_latency;
        latency + latency * (self.random.next_u32() >> 16) / (1 << 16)
    }

    fn happen(&mut self, target: Target, happening: Happening) -> Result<(), Violation> {
        let node = target.node;
        let announced = matches!(happening, Happening::Event(Event::Announced { .. }));
        let spoken = matches!(happening, Happening::Question { .. } | Happening::Answer { .. });
        self.messages += u64::from(announced || spoken);
        if self.nodes[node].life != target.life || !self.nodes[node].is_up() {
            return Ok(());
        }
        match happening {
            Happening::Event(event) => self.handle(node, event),
            Happening::Question { from, request, body } => self.question(node, from, request, body),
            Happening::Answer { request, response } => self.handle(node, Event::Responded { request, response }),
            Happening::Open { fetch } => self.open(node, fetch),
            Happening::Piece { fetch } => self.piece(node, fetch),
            Happening::More { fetch } => self.send_next(node, fetch),
            Happening::Broken { fetch } => self.end_flow(node, fetch, Err(broken())),
            Happening::Checked { content } => {
                let size = self.origin.blobs.get(&content).copied();
                let event = match self.nodes[node].store.complete(content, size) {
                    Some(size) => Event::Held { content, size },
                    None => Event::CompleteFailed { content, error: SourceError::WrongBytes },
                };
                self.handle(node, event)
            }
            Happening::AtOrigin { lookup, reference } => self.at_origin(node, lookup, &reference),
        }
    }

    fn question(
        &mut self,
        node: NodeIndex,
        from: NodeId,
        request: RequestId,
        body: ControlRequest,
    ) -> Result<(), Violation> {
        let call = CallId(self.nodes[node].id());
        if let Some(asker) = self.by_id.get(&from).copied() {
            let target = Target { node: asker, life: self.nodes[asker].life };
            self.nodes[node].calls.insert(call, (target, request));
        }
        self.handle(node, Event::Requested { call, from, request: body })
    }

    fn at_origin(&mut self, node: NodeIndex, lookup: LookupId, reference: &TagRef) -> Result<(), Violation> {
        let now_unix_s = self.options.start_unix_s + self.now.as_nanos() / 1_000_000_000;
        let result = match self.origin.mode {
            OriginMode::Silent => return Ok(()),
            OriginMode::Refusing => Err(SourceError::Unreachable("connection refused".to_owned())),
            OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => {
                let content = self.origin.tags.get(reference).copied();
                content.map(|content| OriginTag { content, now_unix_s }).ok_or(SourceError::NotFound)
            }
        };
        self.handle(node, Event::OriginAnswered { lookup, result })
    }
}
