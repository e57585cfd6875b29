//! The world: what there is, what can be done to it, and what can be asked of it. How time passes is in `run.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use layermesh_proto::{
    Algorithm, ContentId, NodeId, ObjectKind, PieceIndex, Repository, TagRef,
    engine::{
        Config, Engine, PeerView, Urgency,
        event::{Event, Instant, Note, PromiseId, Resolution, ResolveId, SourceError, WantError, WantId},
    },
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::{
    checks::Violation,
    connections::Connections,
    limits::Meter,
    links::{LinkId, Links},
    network::{Options, Origin, OriginMode},
    node::{Fault, Node, NodeOptions, Ports, Traffic, Want},
    queue::Queue,
    quota::{Address, Quota},
    reach::Mesh,
    sabotage::Sabotage,
    trace::Trace,
};

/// A node of the world.
pub type NodeIndex = usize;

/// Bytes of a node's key that say which node of the world it is.
const INDEX_BYTES: usize = 8;

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
    pub(crate) seed: u64,
    pub(crate) options: Options,
    /// What the checks hold the engines to, which are told the same unless they are sabotaged.
    pub(crate) rules: Config,
    pub(crate) now: Instant,
    pub(crate) random: ChaCha8Rng,
    pub(crate) queue: Queue,
    /// When engines want their next ticks.
    pub(crate) ticks: BTreeSet<(Instant, NodeIndex)>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) mesh: Mesh,
    pub(crate) links: Links,
    /// The link that all nodes share to the origin.
    pub(crate) uplink: LinkId,
    /// The radio, which only counts if all share one.
    pub(crate) radio: LinkId,
    pub(crate) origin: Origin,
    repository: Repository,
    pub(crate) notes: Vec<(NodeIndex, Note)>,
    pub(crate) trace: Trace,
    pub(crate) events: u64,
    pub(crate) messages: u64,
    /// Wants that have not ended, of nodes that are up.
    pub(crate) open_wants: usize,
    /// Wants that ended and that nobody took yet: at most as many as wants were opened.
    pub(crate) ended: VecDeque<(NodeIndex, WantId)>,
    pub(crate) meter: Meter,
    /// Pieces that the event under way concerns.
    pub(crate) touched: Vec<(ContentId, Range<PieceIndex>)>,
    /// Said in place of what the next engine says that handles an event, the last first.
    #[cfg(test)]
    pub(crate) forged: Vec<layermesh_proto::engine::Action>,
}

/// A runner gives each of its threads worlds of its own.
const _: () = {
    const fn goes_to_a_thread<T: Send>() {}
    goes_to_a_thread::<World>();
};

impl World {
    /// An empty site whose origin has one repository, `repository`.
    pub fn new(seed: u64, options: Options, config: Config, repository: Repository) -> Self {
        let mut links = Links::default();
        let uplink = links.add(options.uplink_bytes_per_s);
        let radio = links.add(options.lan_bytes_per_s);
        let (blobs, tags) = (BTreeMap::new(), BTreeMap::new());
        let quota = Quota::new(options.origin_requests_per_min);
        Self {
            seed,
            options,
            rules: config,
            now: Instant::default(),
            random: ChaCha8Rng::seed_from_u64(seed),
            queue: Queue::default(),
            ticks: BTreeSet::new(),
            nodes: Vec::new(),
            mesh: Mesh::default(),
            links,
            uplink,
            radio,
            origin: Origin {
                mode: OriginMode::Up,
                tags_asked: 0,
                since: Instant::default(),
                blobs,
                tags,
                bytes: 0,
                bytes_broken_off: 0,
                quota,
            },
            repository,
            notes: Vec::new(),
            trace: Trace::default(),
            events: 0,
            messages: 0,
            open_wants: 0,
            ended: VecDeque::new(),
            meter: Meter::default(),
            touched: Vec::new(),
            #[cfg(test)]
            forged: Vec::new(),
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
        let corrupt = self.is_sabotaged(Sabotage::CorruptOrigin) && mode == OriginMode::Up;
        let mode = if corrupt { OriginMode::Corrupt } else { mode };
        if self.origin.mode != mode {
            self.origin.since = self.now;
        }
        self.origin.mode = mode;
    }

    /// Adds a node and starts it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn add_node(&mut self) -> Result<NodeIndex, Violation> {
        self.add_node_with(NodeOptions::default())
    }

    /// Adds a node that is as `options` say, and starts it unless they say that it is down.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn add_node_with(&mut self, options: NodeOptions) -> Result<NodeIndex, Violation> {
        let down = options.down;
        let node = self.new_node(options);
        if !down {
            self.start(node)?;
        }
        Ok(node)
    }

    /// Adds a node that is connected with nobody yet, and starts it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn add_node_apart(&mut self) -> Result<NodeIndex, Violation> {
        let node = self.new_node(NodeOptions::default());
        self.start_apart(node)?;
        Ok(node)
    }

    fn new_node(&mut self, options: NodeOptions) -> NodeIndex {
        let node = self.nodes.len();
        let mut key = [0; 32];
        key[..INDEX_BYTES].copy_from_slice(&(node as u64 + 1).to_be_bytes());
        // The rest is as good as random, as real keys are: engines go by its last byte, too.
        let rest = ChaCha8Rng::seed_from_u64(node as u64).next_u64();
        key[32 - INDEX_BYTES..].copy_from_slice(&rest.to_be_bytes());
        let own = self.options.uplink_of_its_own.then_some(self.options.uplink_bytes_per_s);
        let uplink = options.uplink_bytes_per_s.or(own).map(|rate| self.links.add(rate));
        let lan = self.options.lan_bytes_per_s;
        let ports = Ports { out: self.links.add(lan), into: self.links.add(lan), uplink };
        self.nodes.push(Node::new(NodeId::from_public_key(key), options, ports));
        self.mesh.add_node();
        node
    }

    /// The node of the world that has an id.
    pub(crate) fn index_of(&self, id: &NodeId) -> Option<NodeIndex> {
        let bytes = id.public_key().first_chunk::<INDEX_BYTES>()?;
        let node = usize::try_from(u64::from_be_bytes(*bytes).checked_sub(1)?).ok()?;
        (self.nodes.get(node)?.id == *id).then_some(node)
    }

    /// A request of a node reaches the origin, which answers it or has had too many.
    pub(crate) fn request_origin(&mut self, node: NodeIndex) -> Result<(), SourceError> {
        let own = self.nodes[node].ports.uplink.is_some();
        self.origin.quota.take(if own { Address::Device(node) } else { Address::Site }, self.now)
    }

    /// Whether its nodes go by windows of time.
    pub(crate) fn has_windows(&self) -> bool {
        !self.rules.uplink.windows.is_empty()
    }

    /// Gives a node an uplink of its own, or that another rate, in bytes a second.
    pub fn set_uplink(&mut self, node: NodeIndex, bytes_per_s: u64) {
        let ports = &mut self.nodes[node].ports;
        match ports.uplink {
            Some(link) => self.links.set_capacity(link, bytes_per_s, self.now),
            None => ports.uplink = Some(self.links.add(bytes_per_s)),
        }
    }

    /// Gives the uplink that nodes share another rate, in bytes a second.
    pub fn set_site_uplink(&mut self, bytes_per_s: u64) {
        self.links.set_capacity(self.uplink, bytes_per_s, self.now);
    }

    /// Starts a node that is down; its disk is as it was left. It and those that are up and in reach find each other.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn start(&mut self, node: NodeIndex) -> Result<(), Violation> {
        self.start_apart(node)?;
        self.discover(node);
        Ok(())
    }

    fn start_apart(&mut self, node: NodeIndex) -> Result<(), Violation> {
        let (seed, clock) = (self.random.next_u64(), self.clock_of(node));
        let started = &mut self.nodes[node];
        started.life += 1;
        started.fruitless.reset();
        started.lookups = 0;
        if let Some(by) = self.options.sabotage {
            by.store(&mut started.store);
        }
        let mut config = self.options.sabotage.map_or_else(|| self.rules.clone(), |by| by.config(&self.rules));
        started.pace = config.uplink.site_bytes_per_s;
        if let Some(platform) = &started.options.platform {
            config.platform.clone_from(platform);
        }
        started.engine = Some(Engine::new(config, started.id, seed));
        let store = &started.store;
        let held = store.whole.iter().map(|(content, size)| Event::Held { content: *content, size: *size });
        let partly = store.partial.iter().map(|(content, partial)| Event::PartlyHeld {
            content: *content,
            size: partial.size,
            pieces: partial.piece_set(),
        });
        let bindings = store.bindings.values().cloned().map(Event::BindingKnown);
        let events: Vec<_> = held.chain(partly).chain(bindings).chain(clock).collect();
        for event in events {
            self.handle(node, event)?;
        }
        self.tell_ways(node)
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
        for fetch in self.nodes[node].flows.keys().copied().collect::<Vec<_>>() {
            self.remove_flow(node, fetch);
        }
        self.touched.clear();
        let stopped = &mut self.nodes[node];
        let was_up = stopped.engine.take().is_some();
        stopped.calls.clear();
        stopped.connections = Connections::default();
        stopped.takers.clear();
        stopped.making.clear();
        let before = stopped.wants.len();
        stopped.wants.retain(|_, want| want.ended.is_some());
        if was_up {
            self.open_wants -= before - stopped.wants.len();
        }
        if let Some(due) = stopped.due.take() {
            self.ticks.remove(&(due, node));
        }
        self.part_with_all(node, noticed);
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: NodeIndex) -> bool {
        self.nodes[node].is_up()
    }

    /// Makes a node misbehave from now on.
    pub fn set_fault(&mut self, node: NodeIndex, fault: Fault) {
        self.nodes[node].fault = Some(fault);
    }

    /// Lets a node behave again; what it stored or announced stays.
    pub fn clear_fault(&mut self, node: NodeIndex) {
        self.nodes[node].fault = None;
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
        if self.nodes[node].is_up() {
            self.open_want(node, want, blob, urgency);
        }
        self.handle(node, self.want_event(want, blob, urgency))?;
        Ok(want)
    }

    pub(crate) fn open_want(&mut self, node: NodeIndex, want: WantId, blob: Blob, urgency: Urgency) {
        self.nodes[node].wants.insert(want, Want { content: blob.content, urgency, ended: None });
        self.open_wants += 1;
    }

    pub(crate) fn want_event(&self, want: WantId, blob: Blob, urgency: Urgency) -> Event {
        let (content, kind, repository) = (blob.content, blob.kind, Some(self.repository.clone()));
        Event::Want { want, content, kind, repository, urgency, size_max: None }
    }

    /// How a want ended, if it did.
    pub fn ended(&self, node: NodeIndex, want: WantId) -> Option<&Result<(), WantError>> {
        self.nodes[node].wants.get(&want)?.ended.as_ref().map(|(_, result)| result)
    }

    /// When a want ended, well or not, if it did.
    pub fn want_ended_at(&self, node: NodeIndex, want: WantId) -> Option<Instant> {
        self.nodes[node].wants.get(&want)?.ended.as_ref().map(|(at, _)| *at)
    }

    /// A want that ended and that nobody took yet.
    pub fn take_ended(&mut self) -> Option<(NodeIndex, WantId)> {
        self.ended.pop_front()
    }

    /// Whether there is one.
    pub fn has_news(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Whether every want that is open at nodes that are up has ended.
    pub fn all_ended(&self) -> bool {
        self.open_wants == 0
    }

    /// Somebody at a node asks for a tag.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn resolve(&mut self, node: NodeIndex, reference: TagRef) -> Result<ResolveId, Violation> {
        let resolve = ResolveId(self.nodes[node].id());
        self.nodes[node].resolves.insert(resolve, None);
        let passed_s = self.now.as_nanos() / 1_000_000_000;
        let now_unix_s = self.nodes[node].wall_clock(self.options.start_unix_s, passed_s);
        self.handle(node, Event::Resolve { resolve, reference, now_unix_s })?;
        Ok(resolve)
    }

    /// How often the origin was asked what a tag stands for, and answered.
    pub fn tags_asked(&self) -> u64 {
        self.origin.tags_asked
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

    /// Payload bytes that a node took and threw away: wrong, there already, not asked for, or of a piece that never came
    /// to its end.
    pub fn wasted_bytes(&self, node: NodeIndex) -> u64 {
        self.nodes[node].bytes_wasted
    }

    /// Bytes of gossip, questions and answers of a node.
    pub fn traffic(&self, node: NodeIndex) -> Traffic {
        self.nodes[node].traffic
    }

    /// Payload bytes of pieces that crossed the uplinks.
    pub fn origin_bytes(&self) -> u64 {
        self.origin.bytes
    }

    /// Payload bytes that crossed the uplinks besides: of pieces whose fetch was broken off while they came.
    pub fn origin_bytes_broken_off(&self) -> u64 {
        self.origin.bytes_broken_off
    }

    /// Requests that the origin answered with 429.
    pub fn requests_refused(&self) -> u64 {
        self.origin.quota.refused
    }

    /// What the nodes had people know.
    pub fn notes(&self) -> &[(NodeIndex, Note)] {
        &self.notes
    }

    /// Gossip messages delivered and questions and answers sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Events that engines handled.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// A node's connected peers, as it sees them.
    pub fn peers(&self, node: NodeIndex) -> Vec<PeerView> {
        self.nodes[node].engine.as_ref().map(|engine| engine.peers().collect()).unwrap_or_default()
    }

    /// Number of nodes, those that are down included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
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
}
