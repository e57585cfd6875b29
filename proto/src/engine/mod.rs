//! The sans-IO mesh engine: all decisions of a node, without doing any of them.
//!
//! # Contract
//! Mutate with [`Engine::handle`], drain [`Engine::poll_action`] until it returns `None` and perform what it
//! says, then sleep until [`Engine::next_deadline`] or the next event, whichever is first; at the deadline send
//! [`Event::Tick`]. Nothing here fails, blocks, reads a clock or draws randomness but from its seed: the same
//! events at the same times give the same actions.
//!
//! Invariants: ids that the engine does not know are ignored; nothing is announced before [`Event::Held`] says
//! that it is durable and verified; every want, resolve and promise that was taken up is answered once, whatever
//! the driver fails to do, as long as ticks come; every collection has a limit in [`config::Limits`].
//!
//! # Policy
//! A blob comes from several sources at once (`planning.rs`): from those who hold it, else stripe by stripe. What nobody has
//! is asked of the origin by one node of the site for each stripe, its owner, which vouches for the pieces
//! (`vouching.rs`), and the others take it from upstream while it lands (`joining.rs`). What nobody waits for
//! asks the origin only when the budget of the uplink allows it (`budget.rs`). Deliberately absent: a node that
//! takes part without wanting the blob itself.

mod asking;
mod bindings;
mod blame;
pub mod budget;
mod clearing;
mod comparing;
pub mod config;
mod conversation;
mod directory;
mod electing;
pub mod event;
mod fetching;
mod inventory;
mod joining;
mod ledger;
#[cfg(any(test, fuzzing))]
pub mod model;
mod origin;
pub mod overview;
mod peers;
mod planning;
mod random;
mod reaching;
mod rebuilding;
pub mod releases;
mod resolving;
mod select;
mod site;
mod spreading;
pub mod tags;
mod timers;
mod transfer;
mod trees;
mod uplink;
mod vouches;
mod vouching;
mod wanting;
mod yielding;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use self::{
    asking::Questions, bindings::Bindings, directory::Directory, inventory::Inventory, ledger::Ledger, origin::Origins,
    peers::Peers, random::Random, reaching::Reaching, releases::Releases, site::Site, timers::Timer, timers::Timers,
    transfer::Transfers, uplink::Budget,
};
pub use self::{
    bindings::BindingView,
    budget::{Uplink, Urgency},
    config::{Config, ConfigError, Limits},
    event::{Action, Event, Instant, Note, Source},
    rebuilding::Rebuild,
    transfer::PieceState,
};
use crate::{ContentId, NodeId, PieceIndex, Repository, TagRef};

/// A connected peer, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// The peer.
    pub peer: NodeId,
    /// Its program version, once it said hello.
    pub version: Option<String>,
    /// Its platform, once it said hello.
    pub platform: Option<String>,
    /// The TCP port of its bulk exchange, once it said hello.
    pub bulk_port: Option<u16>,
    /// Blobs that it said it holds.
    pub blobs: usize,
    /// Whether it sent wrong bytes and is not asked for any.
    pub penalised: bool,
}

/// A transfer under way, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes, once known.
    pub size: Option<u64>,
    /// Pieces that are durable.
    pub durable_pieces: u32,
    /// Bytes that are durable.
    pub durable_bytes: u64,
    /// Where the running fetches take their bytes from.
    pub sources: Vec<Source>,
    /// Where an origin has it, if whoever wants it said so.
    pub repository: Option<Repository>,
    /// Since when nothing of it came, and nothing of it was made.
    pub quiet: Duration,
    /// Of a blob that is made of another one: how many bytes of the work are done, and how many there are.
    pub rebuilding: Option<(u64, u64)>,
    /// What it waits for before it asks an origin, if it does.
    pub waits_for: Option<budget::Wait>,
}

/// A registry that was asked since the start, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginView {
    /// The registry, as clients name it.
    pub registry: String,
    /// Whether it answered last time.
    pub reachable: bool,
}

/// The decisions of one node.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    node: NodeId,
    random: Random,
    now: Instant,
    /// When the first event came.
    started: Option<Instant>,
    /// When a peer last connected.
    met: Option<Instant>,
    /// Bytes a second that this node's stripes had from origins.
    uplink_rate: Option<u64>,
    /// Bytes a second that others' stripes had, as far as their words tell: the best guess for a node that has had none.
    others_rate: Option<u64>,
    /// Bytes a second that this device got through when it made blobs of others.
    rebuild_rate: Option<u64>,
    /// How blobs that are not held can be made of others.
    rebuilds: BTreeMap<ContentId, Rebuild>,
    /// How many times as long as usual this node's stripes are, since an origin limits requests.
    stretch: u32,
    timers: Timers,
    actions: VecDeque<Action>,
    inventory: Inventory,
    directory: Directory,
    peers: Peers,
    reaching: Reaching,
    origins: Origins,
    transfers: Transfers,
    site: Site,
    /// When the hashes of blobs that this node holds were last said.
    offered: BTreeMap<ContentId, Instant>,
    /// Blobs whose hashes the store was asked for to be said.
    asked_offers: BTreeSet<ContentId>,
    budget: Budget,
    bindings: Bindings,
    questions: Questions,
    releases: Releases,
    ledger: Ledger,
}

impl Engine {
    /// The engine of `node`, which knows nothing yet: the driver tells it what the store holds by [`Event::Held`],
    /// [`Event::PartlyHeld`] and [`Event::BindingKnown`]. `config` is as [`Config::validate`] wants it. `seed`
    /// must differ from start to start, since the inventory's epoch is drawn from it.
    pub fn new(config: Config, node: NodeId, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let inventory = Inventory::new(random.epoch(), config.limits.inventory, config.limits.tombstones);
        Self {
            config,
            node,
            random,
            now: Instant::default(),
            started: None,
            met: None,
            uplink_rate: None,
            others_rate: None,
            rebuild_rate: None,
            rebuilds: BTreeMap::new(),
            stretch: 1,
            timers: Timers::default(),
            actions: VecDeque::new(),
            inventory,
            directory: Directory::default(),
            peers: Peers::default(),
            reaching: Reaching::default(),
            origins: Origins::default(),
            transfers: Transfers::default(),
            site: Site::default(),
            offered: BTreeMap::new(),
            asked_offers: BTreeSet::new(),
            budget: Budget::default(),
            bindings: Bindings::default(),
            questions: Questions::default(),
            releases: Releases::default(),
            ledger: Ledger::default(),
        }
    }

    /// Takes in what happened at `now`. Time does not run backwards: an earlier `now` counts as the last one.
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.now = self.now.max(now);
        self.started.get_or_insert(self.now);
        if !self.timers.is_set(Timer::Summary) {
            self.schedule_summary();
        }
        match event {
            Event::PeerConnected { peer } => self.on_connected(peer),
            Event::PeerDisconnected { peer } => self.on_disconnected(peer),
            Event::Announced { from, sequence, announcement } => self.on_announced(from, sequence, announcement),
            Event::Requested { call, from, request } => self.on_requested(call, from, request),
            Event::Responded { request, response } => self.on_responded(request, response),
            Event::RequestFailed { request } => self.on_request_failed(request),
            Event::Held { content, size } => self.on_held(content, size),
            Event::Lost { content } => self.on_lost(content),
            Event::PartlyHeld { content, size, pieces } => self.on_partly_held(content, size, pieces),
            Event::BindingKnown(binding) => self.on_binding_known(binding),
            Event::SignedBindings(signed) => self.on_signed(signed),
            Event::Want { want, content, kind, repository, urgency, size_max } => {
                self.on_want((want, urgency), content, kind, repository);
                self.bound_want(want, size_max);
            }
            Event::ReaderAt { want, offset } => self.on_reader_at(want, offset),
            Event::Unwant { want } => self.on_unwant(want),
            Event::Resolve { resolve, reference, now_unix_s } => self.on_resolve(resolve, reference, now_unix_s),
            Event::Promise { promise, contents, repository } => self.on_promise(promise, contents, &repository),
            Event::FetchStarted { fetch, size, ranged } => self.on_fetch_started(fetch, size, ranged),
            Event::FetchProgress { fetch, bytes } => self.on_fetch_progress(fetch, bytes),
            Event::FetchStored { fetch, pieces } => self.on_fetch_stored(fetch, pieces),
            Event::Recalled { content, pieces } => self.on_recalled(content, pieces),
            Event::FetchEnded { fetch, result } => self.on_fetch_ended(fetch, result),
            Event::Rebuildable { content, rebuild } => self.on_rebuildable(content, rebuild),
            Event::RebuildProgress { content, done } => self.on_rebuild_progress(content, done),
            Event::RebuildFailed { content, error } => self.on_rebuild_failed(content, error),
            Event::CompleteFailed { content, error } => self.on_complete_failed(content, error),
            Event::OriginAnswered { lookup, result } => self.on_origin_answered(lookup, result),
            Event::Clock { minute_of_week } => self.on_clock(minute_of_week),
            Event::Following(following) => self.on_following(following),
            Event::Examined { content, examined } => self.on_examined(content, examined),
            Event::Rollout(rollout) => self.on_rollout(rollout),
            Event::Tick => self.on_tick(),
        }
        self.keep_budget();
    }

    /// The next thing to do, until there is none.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to send [`Event::Tick`] if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    fn on_tick(&mut self) {
        for timer in self.timers.due(self.now) {
            if !self.timers.take(timer, self.now) {
                continue;
            }
            match timer {
                Timer::Announce => self.announce_news(),
                Timer::Summary => self.announce_summary(),
                Timer::RequestTimeout(request) => self.on_request_failed(request),
                Timer::AskAgain(peer) => self.ask_again(peer),
                Timer::Stall(fetch) => self.on_stall(fetch),
                Timer::Retry(content) => self.retry(content),
                Timer::Tell(content) => self.tell_again(content),
                Timer::Vouch(content) => self.vouch_now(content),
                Timer::Offer(content) => self.make_offer(content),
                Timer::Rebuild(content) => self.on_rebuild_stalled(content),
                Timer::CompleteTimeout(content) => self.on_complete_timeout(content),
                Timer::AnswerFromMemory(lookup) => self.answer_from_memory(lookup),
                Timer::LookupTimeout(lookup) => self.on_lookup_timeout(lookup),
                Timer::TagHold(lookup) => self.on_tag_hold(lookup),
                Timer::TagPatience(lookup) => self.on_tag_patience(lookup),
                Timer::Probe => self.probe(),
                Timer::Examine => self.on_examine_timer(),
                Timer::Rollout => self.tell_rollout(),
                // Every event is followed by another look at the budget; this one came for it.
                Timer::Budget => {}
            }
        }
    }

    /// Connected peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(|(peer, state)| PeerView {
            peer: *peer,
            version: state.hello.as_ref().map(|hello| hello.version.clone()),
            platform: state.hello.as_ref().map(|hello| hello.summary.platform.clone()),
            bulk_port: state.hello.as_ref().map(|hello| hello.bulk_port),
            blobs: self.directory.blobs_of(peer),
            penalised: self.peers.is_penalised(peer, self.now),
        })
    }

    /// Transfers under way.
    pub fn transfers(&self) -> impl Iterator<Item = TransferView> + '_ {
        self.transfers.open.iter().map(|(content, transfer)| TransferView {
            content: *content,
            size: transfer.size(),
            durable_pieces: transfer.pieces.as_ref().map_or(0, |pieces| pieces.durable.count()),
            durable_bytes: transfer.pieces.as_ref().map_or(0, |pieces| pieces.bytes()),
            sources: transfer.fetches.values().map(|fetch| fetch.source.clone()).collect(),
            repository: transfer.origins.first().map(|(repository, _)| repository.clone()),
            quiet: self.now.since(transfer.last_progress),
            rebuilding: transfer.rebuilding(),
            waits_for: self.waits_for(content),
        })
    }

    /// Registries asked since the start.
    pub fn origins(&self) -> impl Iterator<Item = OriginView> + '_ {
        let view = |(registry, reachable): (&str, bool)| OriginView { registry: registry.to_owned(), reachable };
        self.origins.iter().map(view)
    }

    /// The tags of a repository that this node or its peers know bindings of, in order.
    pub fn known_tags(&self, repository: &Repository) -> Vec<String> {
        self.bindings.tags_of(repository)
    }

    /// What the site knows a tag stands for, without asking its origin.
    pub fn known_binding(&self, reference: &TagRef) -> Option<event::Resolution> {
        self.bindings.newest(reference, self.now, self.config.clock_error_max)
    }

    /// The connected peers that hold a blob and that it may be had from, in order.
    pub fn holders(&self, content: &ContentId) -> Vec<NodeId> {
        let holders = self.directory.holders(content).map(|(peer, _)| peer);
        holders.filter(|peer| self.trusts(peer)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Size of a blob that is being had, once known.
    pub fn size_of(&self, content: &ContentId) -> Option<u64> {
        self.transfers.open.get(content)?.size()
    }

    /// States of the pieces of a transfer that is under way.
    pub fn piece_states(&self, content: &ContentId) -> Option<impl Fn(PieceIndex) -> PieceState + '_> {
        let transfer = self.transfers.open.get(content)?;
        Some(|piece| transfer.piece_state(piece))
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn limit_reached(&mut self, limit: &'static str) {
        self.act(Action::Note(Note::LimitReached { limit }));
    }
}
