//! The composition root: builds everything a node is, connects it, and takes it down again in order.
//!
//! Invariant: `run.json` and the readiness notice come only when every listener is bound, and the store is closed
//! only when nothing writes to it any more. This is the only place that constructs the parts.

mod releases;
mod views;

use std::{
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use layermesh_proto::{
    NodeId,
    engine::{self, Engine, event::Event},
};
use libp2p::identity::Keypair;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{releases::Releasing, views::Lists};
use crate::{
    admin::{
        NodeFacts, NodeView,
        run_file::{ADMIN_SOCKET, RunFile},
        server::AdminServer,
        types::ListenStatus,
    },
    config::Config,
    contents::Platform,
    counters::Counters,
    delta::rebuilding::{ORDER_QUEUE_LEN, Rebuilder},
    driver::{Driver, Parts, TASK_EVENT_QUEUE_LEN},
    exchange::{BulkClient, BulkServer, gather_entropy},
    fetch::FetchContext,
    fleet::{self, Fleet},
    identity,
    mesh::Mesh,
    mirror::{self, Access, MirrorState},
    origin::{Origins, docker_config_path},
    pace::Pace,
    release::{follow::EXAMINE_QUEUE_LEN, status::ReleasesView},
    remembered::Remembered,
    seed, status,
    store::{Inventory, Opened, Store, StoreOptions},
    swarm::{self, SwarmEvent, SwarmHandle, SwarmOptions},
    wall_clock, watchdog,
};

/// How long libp2p may take to say where it listens.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a node until `shutdown`, then stops it without losing anything.
///
/// # Errors
/// If the node cannot start: its data directory, identity, store, configuration or an address cannot be used.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    // Beside each other: gathering keeps a processor busy, starting waits for the disk.
    let entropy = async { Ok(tokio::task::spawn_blocking(gather_entropy).await??) };
    let (node, ()) = tokio::try_join!(Node::start(&config), entropy)?;
    let run_file = node.announce(&config).await;
    let result = match run_file {
        Ok(run_file) => {
            tracing::info!(
                peer_id = run_file.peer_id,
                mirror = %run_file.mirror,
                bulk = run_file.bulk.map(tracing::field::display),
                status = %run_file.status,
                "the node runs"
            );
            shutdown.cancelled().await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    RunFile::remove(&config.data_dir);
    node.stop().await;
    result
}

/// A running node.
struct Node {
    facts: Arc<NodeFacts>,
    listen: Listen,
    /// Ends whatever takes requests or connections.
    fronts_stop: CancellationToken,
    fronts: JoinSet<()>,
    /// Ends the driver and then the swarm.
    core_stop: CancellationToken,
    core: JoinSet<()>,
}

/// Real addresses of the listeners.
struct Listen {
    mirror: SocketAddr,
    /// Absent of a node that serves its own device only.
    bulk: Option<SocketAddr>,
    status: SocketAddr,
}

impl Node {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        make_data_dir(&config.data_dir)?;
        let keypair = identity::load_or_create(&config.data_dir.join(identity::IDENTITY_FILE))?;
        let node = identity::node_id(&keypair).ok_or_else(|| anyhow!("the identity is not an Ed25519 key"))?;
        let counters = Arc::new(Counters::default());
        let docker_config = config.docker_config.clone().or_else(docker_config_path);
        let origins = Origins::new(config.origins.clone(), docker_config, node, Arc::clone(&counters))?;
        let Opened { store, inventory, events: store_events } = open_store(config).await?;

        let admin = AdminServer::bind(&admin_socket(config), config.admin.group).await?;
        let access = mirror_access(config)?;
        let mirror_listener = listen("mirror", "--mirror-addr", config.mirror).await?;
        let status_listener = listen("status", "--status-addr", config.status).await?;
        let fleet = load_fleet(config, &keypair)?;
        let bulk = bind_bulk(config, &keypair, &fleet, &store, &counters).await?;
        let listen = Listen {
            mirror: mirror_listener.local_addr()?,
            bulk: bulk.as_ref().map(BulkServer::local_addr),
            status: status_listener.local_addr()?,
        };

        let (mesh, commands) = Mesh::new();
        let (listening, addresses) = watch::channel(Vec::new());
        let (remembered, saver) = Remembered::load(config.data_dir.join("peers.json"));
        let (fronts_stop, core_stop) = (CancellationToken::new(), CancellationToken::new());
        let (mut fronts, mut core) = (JoinSet::new(), JoinSet::new());

        let options = swarm_options(config, &keypair, &fleet, &remembered);
        let (swarm, swarm_events) = start_swarm(options, &mut core, &core_stop)?;
        core.spawn(fleet.clone().run(core_stop.clone()));
        core.spawn(saver.run(core_stop.clone()));
        let (events, task_events) = mpsc::channel(TASK_EVENT_QUEUE_LEN);
        let bulk_client = BulkClient::new(&keypair, &fleet)?;
        let uplink = Arc::new(Pace::new(config.uplink_bytes_per_s));
        let (of_store, of_origins, counted) = (store.clone(), origins.clone(), Arc::clone(&counters));
        let fetches =
            FetchContext { store: of_store, origins: of_origins, bulk: bulk_client, uplink, counters: counted, events };
        tell_the_time(config, &fetches, &mut core, &core_stop);
        let engine = Engine::new(engine_config(config, listen.bulk), node, rand::random());
        let (examines, examining) = mpsc::channel(EXAMINE_QUEUE_LEN);
        let (deltas, orders) = mpsc::channel(ORDER_QUEUE_LEN);
        let parts = Parts {
            engine,
            fetches,
            task_events,
            swarm,
            swarm_events,
            store_events,
            commands,
            listening,
            remembered,
            examines,
            deltas,
        };
        core.spawn(Driver::new(parts).run(known(inventory), core_stop.clone()));
        core.spawn(store.clone().tend(core_stop.clone()));
        core.spawn(watchdog::run(mesh.clone(), core_stop.clone()));
        core.spawn(Rebuilder::new(mesh.clone(), store.clone(), config.deltas, orders).run(core_stop.clone()));

        let releasing = Releasing { mesh: &mesh, store: &store, origins: &origins, counters: &counters };
        let (releases, more) = releasing.start(config, examining, &mut fronts, &fronts_stop);
        let more = more.merge(seed::routes(store.clone(), mesh.clone())).merge(fleet::routes::routes(fleet.clone()));
        let facts = Arc::new(node_facts(config, node, &listen, (addresses, releases, fleet)));
        let (store_view, mesh_view) = (store.clone(), mesh.clone());
        let view = NodeView { mesh: mesh_view, store: store_view, counters: counters.clone(), facts: facts.clone() };
        let (limits, discovery) = (config.profile.means().mirror, Lists { origins, mesh: mesh.clone() });
        let state = MirrorState { node, mesh, store, discovery, counters, access, limits };
        fronts.spawn(mirror::serve(mirror_listener, state, fronts_stop.clone()));
        if let Some(bulk) = bulk {
            fronts.spawn(bulk.run(fronts_stop.clone()));
        }
        let site = status::Site::new(view.clone());
        let more = more.merge(status::site_routes(site.clone()));
        fronts.spawn(status::run(status_listener, view.clone(), site, fronts_stop.clone()));
        fronts.spawn(admin.run(view, more, fronts_stop.clone()));
        Ok(Self { facts, listen, fronts_stop, fronts, core_stop, core })
    }

    /// Says that the node runs, and where, once libp2p has said where it listens.
    async fn announce(&self, config: &Config) -> anyhow::Result<RunFile> {
        let mut addresses = self.facts.addresses.clone();
        let alone = self.facts.fleet_of_node.is_alone();
        let listening = addresses.wait_for(|addresses| alone || !addresses.is_empty());
        let peers = match tokio::time::timeout(LISTEN_TIMEOUT, listening).await {
            Ok(Ok(peers)) => peers.clone(),
            _ => return Err(anyhow!("cannot listen for peers on {}; give another with --peers-addr", config.peers)),
        };
        let run_file = RunFile {
            pid: std::process::id(),
            peer_id: self.facts.peer_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mirror: self.listen.mirror,
            peers,
            bulk: self.listen.bulk,
            status: self.listen.status,
            admin: admin_socket(config),
        };
        match run_file.write(&config.data_dir) {
            Ok(()) => {}
            Err(error) if RunFile::is_dispensable(&error) => {
                // One of an earlier start would lead astray.
                RunFile::remove(&config.data_dir);
                let admin = run_file.admin.display();
                tracing::warn!(%error, %admin, "cannot write run.json; commands that do not find the node need --admin");
            }
            Err(error) => return Err(error).context("cannot write run.json into the data directory"),
        }
        // Without a supervisor that listens this does nothing.
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
        Ok(run_file)
    }

    /// Fronts first, so that nobody is promised anything more; then the driver, which closes the store.
    async fn stop(mut self) {
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        self.fronts_stop.cancel();
        while self.fronts.join_next().await.is_some() {}
        self.core_stop.cancel();
        while self.core.join_next().await.is_some() {}
        tracing::info!("the node stopped");
    }
}

/// Opens the store, and begins to look through those that are attached.
async fn open_store(config: &Config) -> anyhow::Result<Opened> {
    let mut options = StoreOptions::new(config.data_dir.join("store"));
    options.free_bytes_min = config.store_free_bytes_min;
    options.quota = config.store_quota;
    options.kept_bytes_max = config.profile.means().kept_bytes_max;
    let opened = Store::open(options).await?;
    for attached in &config.store_attached {
        opened.store.attach_when_there(&attached.path, attached.reuse).await?;
    }
    opened.store.attach_lasting().await?;
    Ok(opened)
}

fn admin_socket(config: &Config) -> PathBuf {
    config.admin.socket.clone().unwrap_or_else(|| config.data_dir.join(ADMIN_SOCKET))
}

fn mirror_access(config: &Config) -> anyhow::Result<Access> {
    let access = Access::new(&config.mirror_access).context("the mirror cannot start")?;
    if access.is_free() && !config.mirror.ip().is_loopback() {
        tracing::warn!(
            address = %config.mirror,
            "the mirror is not on loopback and asks for no password: whoever reaches it can pull what this node can"
        );
    }
    Ok(access)
}

fn load_fleet(config: &Config, keypair: &Keypair) -> anyhow::Result<Fleet> {
    Fleet::load(keypair, config.admission.clone(), &config.data_dir).context(
        "cannot read who was revoked; restore the file, or remove it and have the node told again by its neighbours",
    )
}

fn make_data_dir(dir: &Path) -> anyhow::Result<()> {
    // Private images lie here: nobody else on the device may read them.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the data directory {}; give another with --data-dir", dir.display()))
}

async fn bind_bulk(
    config: &Config,
    keypair: &Keypair,
    fleet: &Fleet,
    store: &Store,
    counters: &Arc<Counters>,
) -> anyhow::Result<Option<BulkServer<Store>>> {
    if fleet.is_alone() {
        return Ok(None);
    }
    let limits = config.profile.means().bulk;
    let bulk = BulkServer::bind(config.bulk, (keypair, fleet), store.clone(), Arc::clone(counters), limits)
        .await
        .context("the bulk exchange cannot start; give another address with --bulk-addr")?;
    bulk.limit_rate(config.lan_bytes_per_s);
    Ok(Some(bulk))
}

async fn listen(what: &str, flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("the {what} cannot listen on {address}; give another address with {flag}"))
}

/// Starts the swarm. A node without a fleet has none: it listens to nobody and looks for nobody.
fn start_swarm(
    options: SwarmOptions,
    core: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<(SwarmHandle, mpsc::Receiver<SwarmEvent>)> {
    if options.admission.is_alone() {
        tracing::warn!(problem = options.admission.status().problem, "nobody is let in");
        let (silence, events) = mpsc::channel(1);
        let stop = stop.clone();
        core.spawn(async move {
            stop.cancelled().await;
            drop(silence);
        });
        return Ok((SwarmHandle::of_nothing(), events));
    }
    let (swarm, events, task) = swarm::spawn(options, stop.clone())?;
    core.spawn(async move { drop(task.await) });
    Ok((swarm, events))
}

fn swarm_options(config: &Config, keypair: &Keypair, fleet: &Fleet, remembered: &Remembered) -> SwarmOptions {
    SwarmOptions {
        keypair: keypair.clone(),
        listen: config.peers,
        fleet: config.fleet.clone(),
        admission: fleet.clone(),
        mdns: config.mdns,
        static_peers: config.static_peers.clone(),
        remembered: remembered.addresses(),
    }
}

/// Windows need to know what time it is, and nothing else does.
fn tell_the_time(config: &Config, fetches: &FetchContext, core: &mut JoinSet<()>, stop: &CancellationToken) {
    if !config.uplink.windows.is_empty() {
        core.spawn(wall_clock::run(fetches.events.clone(), stop.clone()));
    }
}

fn node_facts(
    config: &Config,
    node: NodeId,
    listen: &Listen,
    (addresses, releases, fleet): (watch::Receiver<Vec<String>>, ReleasesView, Fleet),
) -> NodeFacts {
    let nowhere = || "nowhere".to_owned();
    NodeFacts {
        peer_id: node.to_string(),
        fleet: config.fleet.clone(),
        started: tokio::time::Instant::now(),
        listen: ListenStatus {
            mirror: listen.mirror.to_string(),
            peers: if fleet.is_alone() { nowhere() } else { config.peers.to_string() },
            bulk: listen.bulk.map_or_else(nowhere, |bulk| bulk.to_string()),
            status: listen.status.to_string(),
        },
        addresses,
        releases,
        fleet_of_node: fleet,
    }
}

fn engine_config(config: &Config, bulk: Option<SocketAddr>) -> engine::config::Config {
    let default = engine::config::Config::default();
    engine::config::Config {
        bulk_port: bulk.map_or(0, |bulk| bulk.port()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: Platform::of_this_device().to_string(),
        uplink: config.uplink.clone(),
        tags: config.tags.clone(),
        release_replicas: config.releases.as_ref().map_or(default.release_replicas, |releases| releases.replicas),
        fetches_per_transfer: config.profile.means().fetches_per_transfer,
        window: if config.uplink_own { engine::config::WINDOW_OF_OWN_UPLINKS } else { default.window },
        ..default
    }
}

/// What the store held at start, as the engine hears it.
fn known(inventory: Inventory) -> Vec<Event> {
    let held = inventory.held.into_iter().map(|(content, size)| Event::Held { content, size });
    let partial =
        inventory.partial.into_iter().map(|(content, size, pieces)| Event::PartlyHeld { content, size, pieces });
    let bindings = inventory.bindings.into_iter().map(Event::BindingKnown);
    held.chain(partial).chain(bindings).collect()
}
