//! The loop between the engine and the world.
//!
//! Invariant: the driver decides nothing. It turns what happens into [`Event`]s, hands them to the engine one at a
//! time, and turns each [`Action`] into a spawned task or a queued message; it never awaits an action, so no
//! slow disk, peer or registry can hold up the engine. What it does of an action at once, it does in memory: pieces that
//! are dropped are gone, and hashes that pieces must have are known, before the next action is looked at. It is the only
//! place that touches the engine.

mod notes;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use layermesh_proto::{
    ContentId, NodeId, PieceIndex,
    engine::{
        Engine, Urgency,
        event::{
            Action, Event, FetchId, Instant, LookupId, OriginTag, PromiseId, Resolution, ResolveId, Source,
            SourceError, WantError, WantId,
        },
        overview::UplinkView,
        releases::Examined,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    delta::rebuilding::Order,
    fetch::{FetchContext, Job, Reach, Vouched},
    mesh::{Command, Examine, MeshStatus, PeerStatus, TransferStatus},
    remembered::Remembered,
    store::{CompleteError, Hold, StoreEvent, WriteError},
    swarm::{SwarmEvent, SwarmHandle},
    wall_clock,
};

/// Events of tasks that may wait for the driver. Tasks wait when it is full; the driver never does.
pub const TASK_EVENT_QUEUE_LEN: usize = 256;

/// Where the engine's events and actions are logged, at the level `trace`.
const ENGINE_LOG: &str = "layermesh::engine";

/// How long running tasks get at shutdown to write what they have. Making it durable is left to the store's end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Everything the driver connects.
pub struct Parts {
    /// Decides.
    pub engine: Engine,
    /// Performs fetches. Its `events` is the sending end of `task_events`.
    pub fetches: FetchContext,
    /// Events of the tasks that the driver starts.
    pub task_events: mpsc::Receiver<Event>,
    /// The libp2p side.
    pub swarm: SwarmHandle,
    /// What happens there.
    pub swarm_events: mpsc::Receiver<SwarmEvent>,
    /// What the store finds out by itself.
    pub store_events: mpsc::Receiver<StoreEvent>,
    /// What the mirror and the admin API ask.
    pub commands: mpsc::Receiver<Command>,
    /// Addresses at which this node listens for peers.
    pub listening: watch::Sender<Vec<String>>,
    /// Addresses of peers, kept for the next start.
    pub remembered: Remembered,
    /// Metadata of releases to look at.
    pub examines: mpsc::Sender<Examine>,
    /// Layers to make of others, and images to look for patches for.
    pub deltas: mpsc::Sender<Order>,
}

/// Monotonic time as the engine counts it.
struct Clock(tokio::time::Instant);

impl Clock {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.0 + Duration::from_nanos(instant.as_nanos())
    }
}

/// The loop's state. The maps are bounded by the engine, which answers or refuses every want and question.
pub struct Driver {
    parts: Parts,
    clock: Clock,
    /// Where each connected peer is connected from.
    addresses: HashMap<NodeId, IpAddr>,
    /// Who waits for each want.
    wants: HashMap<WantId, Waiting>,
    resolves: HashMap<ResolveId, oneshot::Sender<Result<Resolution, WantError>>>,
    promises: HashMap<PromiseId, oneshot::Sender<Vec<ContentId>>>,
    /// What fetches under way can be told. An entry goes when its fetch has ended.
    running: HashMap<FetchId, Running>,
    tasks: JoinSet<()>,
}

/// Somebody who waits for a blob.
struct Waiting {
    ended: oneshot::Sender<Result<(), WantError>>,
    /// What is wanted is held on to.
    hold: Hold,
    urgency: Urgency,
    /// Since when, unless it was held already.
    since: Option<tokio::time::Instant>,
}

/// A fetch under way.
struct Running {
    cancel: CancellationToken,
    /// Of a growing blob: the hashes that its pieces must have.
    vouched: Option<Vouched>,
    /// The blob, if it comes from an origin.
    from_origin: Option<ContentId>,
}

/// What woke the loop.
enum Input {
    Event(Event),
    Swarm(SwarmEvent),
    Command(Command),
    Nothing,
    Stop,
}

impl Driver {
    /// A driver over its parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            clock: Clock(tokio::time::Instant::now()),
            addresses: HashMap::new(),
            wants: HashMap::new(),
            resolves: HashMap::new(),
            promises: HashMap::new(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Tells the engine what the store holds, then loops until `shutdown`. Returns when all tasks have ended.
    pub async fn run(mut self, start: Vec<Event>, shutdown: CancellationToken) {
        for event in start {
            self.handle(event);
        }
        loop {
            match self.next_input(&shutdown).await {
                Input::Event(event) => {
                    let tick = event == Event::Tick;
                    self.hear_store();
                    self.handle(event);
                    if tick {
                        self.drop_closed_wants();
                    }
                }
                Input::Swarm(event) => self.on_swarm(event),
                Input::Command(command) => {
                    self.hear_store();
                    self.on_command(command);
                }
                Input::Nothing => {}
                Input::Stop => break,
            }
        }
        self.stop().await;
    }

    async fn next_input(&mut self, shutdown: &CancellationToken) -> Input {
        let deadline = self.parts.engine.next_deadline().map(|at| self.clock.at(at));
        let sleep = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => Input::Stop,
            Some(event) = self.parts.task_events.recv() => Input::Event(event),
            Some(event) = self.parts.store_events.recv() => Input::Event(of_store(event)),
            event = self.parts.swarm_events.recv() => event.map_or(Input::Stop, Input::Swarm),
            command = self.parts.commands.recv() => command.map_or(Input::Stop, Input::Command),
            Some(_) = self.tasks.join_next() => Input::Nothing,
            () = sleep => Input::Event(Event::Tick),
        }
    }

    /// What the store told before something was asked or reported is heard before it: whoever was refused a damaged
    /// blob wants it again, and a blob that could not be completed lacks pieces, which the engine must know by then.
    fn hear_store(&mut self) {
        while let Ok(event) = self.parts.store_events.try_recv() {
            self.handle(of_store(event));
        }
    }

    fn handle(&mut self, event: Event) {
        tracing::trace!(target: ENGINE_LOG, ?event);
        match &event {
            Event::FetchProgress { fetch, bytes } => {
                if let Some(content) = self.running.get(fetch).and_then(|running| running.from_origin) {
                    self.parts.fetches.counters.watched.add(&content, *bytes);
                }
            }
            Event::FetchEnded { fetch, .. } => drop(self.running.remove(fetch)),
            _ => {}
        }
        self.parts.engine.handle(self.clock.now(), event);
        while let Some(action) = self.parts.engine.poll_action() {
            tracing::trace!(target: ENGINE_LOG, ?action);
            self.perform(action);
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent) {
        let event = match event {
            SwarmEvent::Listening(address) => {
                return self.parts.listening.send_modify(|listening| listening.push(address.to_string()));
            }
            SwarmEvent::AddressLearned { peer, address } => return self.parts.remembered.learn(peer, address),
            SwarmEvent::PeerConnected { peer, address } => {
                self.addresses.insert(peer, address);
                Event::PeerConnected { peer }
            }
            SwarmEvent::PeerMoved { peer, address } => {
                self.addresses.insert(peer, address);
                return;
            }
            SwarmEvent::PeerDisconnected { peer } => {
                self.addresses.remove(&peer);
                Event::PeerDisconnected { peer }
            }
            SwarmEvent::Announced { from, sequence, announcement } => Event::Announced { from, sequence, announcement },
            SwarmEvent::Requested { call, from, request } => Event::Requested { call, from, request },
            SwarmEvent::Responded { request, response } => Event::Responded { request, response },
            SwarmEvent::RequestFailed { request } => Event::RequestFailed { request },
        };
        self.handle(event);
    }

    /// Where a peer serves bytes: at the address that it is connected from, on the port that its hello named.
    fn bulk_address(&self, peer: &NodeId) -> Option<SocketAddr> {
        let address = self.addresses.get(peer)?;
        let port = self.parts.engine.peers().find(|view| view.peer == *peer)?.bulk_port?;
        Some(SocketAddr::new(*address, port))
    }

    fn on_command(&mut self, command: Command) {
        let event = match command {
            Command::Want { want, content, kind, repository, urgency, size_max, ended } => {
                let store = &self.parts.fetches.store;
                let since = store.size_of(&content).is_none().then(tokio::time::Instant::now);
                self.wants.insert(want, Waiting { ended, hold: store.hold(content), urgency, since });
                Event::Want { want, content, kind, repository, urgency, size_max }
            }
            Command::ReaderAt { want, offset } => Event::ReaderAt { want, offset },
            Command::Unwant { want } => {
                self.wants.remove(&want);
                Event::Unwant { want }
            }
            Command::Resolve { resolve, reference, answer } => {
                self.resolves.insert(resolve, answer);
                Event::Resolve { resolve, reference, now_unix_s: wall_clock::unix_s() }
            }
            Command::Promise { promise, contents, repository, answer } => {
                self.promises.insert(promise, answer);
                Event::Promise { promise, contents, repository }
            }
            Command::SignedBindings(signed) => Event::SignedBindings(signed),
            Command::KnownTags { repository, answer } => {
                let _ = answer.send(self.parts.engine.known_tags(&repository));
                return;
            }
            Command::Recall { reference, answer } => {
                let _ = answer.send(self.parts.engine.known_binding(&reference));
                return;
            }
            Command::Holders { contents, answer } => {
                let engine = &self.parts.engine;
                let _ = answer.send(contents.iter().map(|content| engine.holders(content)).collect());
                return;
            }
            Command::Following(following) => Event::Following(following),
            Command::Examined { content, examined } => Event::Examined { content, examined },
            Command::Rollout(rollout) => Event::Rollout(rollout),
            Command::FollowerPlatforms { channel, answer } => {
                let _ = answer.send(self.parts.engine.follower_platforms(&channel));
                return;
            }
            Command::Keeps { channel, blobs, answer } => {
                let engine = &self.parts.engine;
                let keeps =
                    |(content, platforms): &(ContentId, Vec<String>)| engine.keeps(&channel, content, platforms);
                let _ = answer.send(blobs.iter().map(keeps).collect());
                return;
            }
            Command::Rollouts { answer } => {
                let _ = answer.send(self.parts.engine.rollouts());
                return;
            }
            // Whoever asked goes on if this is not taken up.
            Command::Prepare(prepare) => return drop(self.parts.deltas.try_send(Order::Prepare(prepare))),
            Command::Rebuildable { content, rebuild } => Event::Rebuildable { content, rebuild },
            Command::RebuildProgress { content, done } => Event::RebuildProgress { content, done },
            Command::RebuildFailed { content, error } => Event::RebuildFailed { content, error },
            Command::TookIn { content, size } => Event::Held { content, size },
            Command::Bind(binding) => Event::BindingKnown(binding),
            Command::Bindings { answer } => {
                let _ = answer.send(self.parts.engine.bindings());
                return;
            }
            Command::Status { answer } => {
                let _ = answer.send(self.status());
                return self.drop_closed_wants();
            }
            Command::Overview { bounds, answer } => {
                let _ = answer.send((self.status(), self.parts.engine.overview(bounds)));
                return self.drop_closed_wants();
            }
        };
        self.handle(event);
    }

    /// Wants whose owner is gone without saying so: the queue was full when it was dropped.
    fn drop_closed_wants(&mut self) {
        let closed: Vec<WantId> =
            self.wants.iter().filter(|(_, waiting)| waiting.ended.is_closed()).map(|(&want, _)| want).collect();
        for want in closed {
            self.wants.remove(&want);
            self.handle(Event::Unwant { want });
        }
    }

    // An asker that is gone does not need its answer, so failed sends below are ignored.
    fn perform(&mut self, action: Action) {
        match action {
            Action::Announce(announcement) => self.parts.swarm.announce(announcement),
            Action::Request { request, peer, body } => self.parts.swarm.request(request, peer, body),
            Action::Respond { call, response } => self.parts.swarm.respond(call, response),
            Action::Examine { from, content, .. } => {
                // Whoever is busy, or not there, has not looked; the engine asks again.
                if self.parts.examines.try_send(Examine { from, content }).is_err() {
                    let examined = Examined::Unavailable;
                    self.parts.engine.handle(self.clock.now(), Event::Examined { content, examined });
                }
            }
            Action::Connect { peer } => self.parts.swarm.connect(peer),
            Action::Fetch { fetch, content, source, size, pieces, growing, expected } => {
                let vouched = growing.then(|| Vouched::new(pieces.clone()));
                if let Some(vouched) = &vouched {
                    vouched.add(expected);
                }
                let from = match source {
                    Source::Origin(repository, kind) => Some(Reach::Origin(repository, kind)),
                    Source::Peer(peer) => {
                        let growing = vouched.clone();
                        self.bulk_address(&peer).map(|bulk| Reach::Peer { peer, bulk, growing })
                    }
                };
                self.fetch(fetch, vouched, from.map(|from| Job { fetch, content, from, size, pieces }));
            }
            Action::Expect { fetch, pieces } => {
                if let Some(vouched) = self.running.get(&fetch).and_then(|running| running.vouched.as_ref()) {
                    vouched.add(pieces);
                }
            }
            Action::CancelFetch { fetch } => {
                if let Some(running) = self.running.remove(&fetch) {
                    running.cancel.cancel();
                }
            }
            Action::Drop { content, pieces } => self.drop_pieces(content, &pieces),
            Action::Recall { content } => {
                let FetchContext { store, events, .. } = self.parts.fetches.clone();
                // What is there now, so that the answer lacks what was dropped before the question.
                let partly = store.recall(&content);
                self.tasks.spawn(async move {
                    let pieces = match store.piece_map(&content).await {
                        Some(map) => {
                            (0..map.layout().count()).filter_map(|piece| Some((piece, map.hash(piece)?))).collect()
                        }
                        None => partly,
                    };
                    drop(events.send(Event::Recalled { content, pieces }).await);
                });
            }
            Action::Complete { content } => self.complete(content),
            Action::Rebuild { content, patch, urgency } => {
                if self.parts.deltas.try_send(Order::Rebuild { content, patch, urgency }).is_err() {
                    let error = SourceError::Failed("too many layers are to be made".to_owned());
                    self.parts.engine.handle(self.clock.now(), Event::RebuildFailed { content, error });
                }
            }
            // One that does not get there ends by itself, and what comes of it is not heard.
            Action::CancelRebuild { content } => drop(self.parts.deltas.try_send(Order::Cancel { content })),
            Action::AskOrigin { lookup, reference } => self.ask_origin(lookup, reference),
            Action::Remember(binding) => {
                let store = self.parts.fetches.store.clone();
                self.tasks.spawn(async move {
                    if let Err(error) = store.remember(binding).await {
                        tracing::warn!(%error, "could not keep what a tag stands for");
                    }
                });
            }
            Action::WantEnded { want, result } => {
                if let Some(Waiting { ended, hold, urgency, since }) = self.wants.remove(&want) {
                    if let Some(since) = since {
                        self.parts.fetches.counters.waits.ended(urgency, since.elapsed(), &result);
                    }
                    let _ = ended.send(result);
                    drop(hold);
                }
            }
            Action::Resolved { resolve, result } => {
                if let Some(answer) = self.resolves.remove(&resolve) {
                    let _ = answer.send(result);
                }
            }
            Action::Promised { promise, missing } => {
                if let Some(answer) = self.promises.remove(&promise) {
                    let _ = answer.send(missing);
                }
            }
            Action::PaceUplink { bytes_per_s } => self.parts.fetches.uplink.limit(bytes_per_s),
            Action::Note(note) => notes::log(&note),
        }
    }

    fn fetch(&mut self, fetch: FetchId, vouched: Option<Vouched>, job: Option<Job>) {
        let context = self.parts.fetches.clone();
        let Some(job) = job else {
            let result = Err(SourceError::Unreachable("the peer left".to_owned()));
            self.tasks.spawn(async move { drop(context.events.send(Event::FetchEnded { fetch, result }).await) });
            return;
        };
        let cancel = CancellationToken::new();
        let from_origin = matches!(job.from, Reach::Origin(..)).then_some(job.content);
        self.running.insert(fetch, Running { cancel: cancel.clone(), vouched, from_origin });
        self.tasks.spawn(context.run(job, cancel));
    }

    /// Takes pieces out at once, so that no fetch that is started next takes them for stored; only the record of it is
    /// left to a task.
    fn drop_pieces(&mut self, content: ContentId, pieces: &[PieceIndex]) {
        let Some(partial) = self.parts.fetches.store.drop_pieces(&content, pieces) else { return };
        self.tasks.spawn(async move {
            match partial.sync().await {
                Ok(_) | Err(WriteError::Discarded) => {}
                Err(error) => tracing::warn!(%content, %error, "cannot record that pieces were dropped"),
            }
        });
    }

    fn complete(&mut self, content: ContentId) {
        let FetchContext { store, events, .. } = self.parts.fetches.clone();
        self.tasks.spawn(async move {
            let event = match store.complete(content).await {
                Ok(size) => Event::Held { content, size },
                Err(error) => {
                    let error = match error {
                        CompleteError::WrongDigest { .. } => SourceError::WrongBytes,
                        other => SourceError::Store(other.to_string()),
                    };
                    Event::CompleteFailed { content, error }
                }
            };
            let _ = events.send(event).await;
        });
    }

    fn ask_origin(&mut self, lookup: LookupId, reference: layermesh_proto::TagRef) {
        let FetchContext { origins, events, .. } = self.parts.fetches.clone();
        self.tasks.spawn(async move {
            let result = origins
                .resolve(&reference)
                .await
                .map(|descriptor| OriginTag { content: descriptor.content, now_unix_s: wall_clock::unix_s() });
            let _ = events.send(Event::OriginAnswered { lookup, result }).await;
        });
    }

    fn status(&self) -> MeshStatus {
        let engine = &self.parts.engine;
        let peers = engine
            .peers()
            .filter_map(|view| {
                let address = *self.addresses.get(&view.peer)?;
                Some(PeerStatus {
                    peer: view.peer,
                    address,
                    bulk: view.bulk_port.map(|port| SocketAddr::new(address, port)),
                    version: view.version,
                    platform: view.platform,
                    blobs: view.blobs,
                })
            })
            .collect();
        let transfers = engine
            .transfers()
            .map(|view| TransferStatus {
                content: view.content,
                size: view.size,
                durable_bytes: view.durable_bytes,
                sources: view.sources.iter().map(notes::source).chain(view.rebuilding.map(notes::rebuilding)).collect(),
                quiet: view.quiet,
                repository: view.repository,
                waits_for: view.waits_for,
            })
            .collect();
        let origins = engine.origins().map(|view| (view.registry, view.reachable)).collect();
        let UplinkView { bytes, surplus, .. } = engine.uplink();
        let penalised = engine.peers().filter(|view| view.penalised).count();
        MeshStatus { peers, transfers, origins, penalised, uplink_bytes: bytes, uplink_surplus_bytes: surplus }
    }

    async fn stop(mut self) {
        for running in self.running.values() {
            running.cancel.cancel();
        }
        // Tasks report into the queue as they end; it must not fill up while nobody handles events any more.
        self.parts.task_events.close();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            tracing::warn!(grace = ?SHUTDOWN_GRACE, "some tasks did not end in time and are dropped");
        }
        self.parts.fetches.store.close().await;
    }
}

fn of_store(event: StoreEvent) -> Event {
    match event {
        StoreEvent::Held { content, size } => Event::Held { content, size },
        StoreEvent::Lost { content } => Event::Lost { content },
        StoreEvent::PartlyHeld { content, size, pieces } => Event::PartlyHeld { content, size, pieces },
    }
}
