//! Finds the facts out. Every question has a deadline, and what cannot be found out is left open.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use reqwest::StatusCode;
use tokio::{net::TcpStream, time::timeout};

use super::{
    facts::{
        ClockFacts, ConfigFacts, Facts, MirrorAnswer, MirrorFacts, NodeFacts, OriginFacts, PortFacts, RunningFacts,
    },
    firewall::{Packet, Protocol},
};
use crate::{
    admin::{
        client::{AdminClient, ClientError},
        run_file::{ADMIN_SOCKET, RUN_FILE},
    },
    config::{Config, MirrorAccessConfig, OriginConfig},
    origin::{docker_config_path, probe},
};

pub mod local;
pub mod pull;
pub mod runtimes;

/// How long the mirror may take to answer a ping.
const MIRROR_TIME_MAX: Duration = Duration::from_secs(5);
/// Registries that are looked at; each takes up to half a minute, all at once.
const ORIGINS_MAX: usize = 16;
/// Port of multicast DNS.
const MDNS_PORT: u16 = 5353;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The configuration, or its mistakes.
    pub config: Result<Config, Vec<String>>,
    /// The file that it is from.
    pub config_file: Option<PathBuf>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The node's admin socket.
    pub client: AdminClient,
    /// Whether runtimes may be made to pull a tiny image.
    pub pull: bool,
}

/// Finds everything out.
pub async fn gather(sources: &Sources) -> Facts {
    let node = node(sources).await;
    let config = sources.config.as_ref().map_err(Clone::clone).map(|config| ConfigFacts {
        file: sources.config_file.clone(),
        mdns: config.mdns,
        static_peers: config.static_peers.len(),
        mirror: config.mirror,
        free_bytes_min: config.store_free_bytes_min,
    });
    let addresses = addresses(sources, node.running());
    let mirror_address = reachable(
        addresses
            .iter()
            .find(|(name, _)| *name == "--mirror-addr")
            .map_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7117), |(_, address)| *address),
    );
    let access = sources.config.as_ref().map(|config| config.mirror_access.clone()).unwrap_or_default();
    let pid = node.running().map(|running| running.status.pid);
    let (mirror, (clock, origins)) = futures::join!(mirror(mirror_address, access), origins(sources, node.running()));
    let packets = packets(&addresses);
    let (firewall, runtimes) = futures::join!(
        local::firewall(&packets),
        runtimes::gather(mirror_address, sources.pull.then_some(&sources.client).filter(|_| node.running().is_some())),
    );
    let ports = addresses.iter().map(|(setting, address)| PortFacts {
        setting,
        address: *address,
        taken_by: local::foreign_listener(*address, pid),
    });
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config,
        mirror,
        ports: ports.collect(),
        data_dir: local::data_dir(&sources.data_dir),
        interfaces: local::interfaces(),
        firewall,
        clock,
        origins,
        runtimes,
        node,
    }
}

async fn node(sources: &Sources) -> NodeFacts {
    let status = match sources.client.status().await {
        Ok(status) => status,
        Err(ClientError::Unreachable { source, .. }) => {
            let left = |name: &str| sources.data_dir.join(name).exists();
            return match source.kind() {
                std::io::ErrorKind::PermissionDenied => NodeFacts::Denied,
                _ if left(RUN_FILE) || left(ADMIN_SOCKET) => NodeFacts::Died,
                _ => NodeFacts::NotStarted,
            };
        }
        Err(error) => return NodeFacts::Ill(error.to_string()),
    };
    let peers = sources.client.peers().await.unwrap_or_default();
    let uid = local::user_of(status.pid);
    NodeFacts::Running(Box::new(RunningFacts { status, peers, uid }))
}

/// The addresses that the node listens on, as it says itself, else as it is told; by the flags that name them.
fn addresses(sources: &Sources, running: Option<&RunningFacts>) -> Vec<(&'static str, SocketAddr)> {
    if let Some(running) = running {
        let listen = &running.status.listen;
        let words = [
            ("--mirror-addr", &listen.mirror),
            ("--peers-addr", &listen.peers),
            ("--bulk-addr", &listen.bulk),
            ("--status-addr", &listen.status),
        ];
        return words.into_iter().filter_map(|(flag, word)| Some((flag, word.parse().ok()?))).collect();
    }
    let Ok(config) = &sources.config else { return Vec::new() };
    vec![
        ("--mirror-addr", config.mirror),
        ("--peers-addr", config.peers),
        ("--bulk-addr", config.bulk),
        ("--status-addr", config.status),
    ]
}

/// Where a program on this device reaches a service that listens here.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

async fn mirror(address: SocketAddr, access: MirrorAccessConfig) -> MirrorFacts {
    let is_protected = access.tls.is_some() || access.credentials.is_some();
    if access.tls.is_some() {
        // Whom its certificate convinces is not this device's matter.
        let answer = match timeout(MIRROR_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(_)) => MirrorAnswer::Registry,
            Ok(Err(error)) => MirrorAnswer::Nothing(error.to_string()),
            Err(_) => MirrorAnswer::Nothing(format!("no answer within {} s", MIRROR_TIME_MAX.as_secs())),
        };
        return MirrorFacts { address, is_protected, answer };
    }
    let client = reqwest::Client::builder().no_proxy().build();
    let answer = match client {
        Err(error) => MirrorAnswer::Nothing(error.to_string()),
        Ok(client) => match timeout(MIRROR_TIME_MAX, client.get(format!("http://{address}/v2/")).send()).await {
            Err(_) => MirrorAnswer::Nothing(format!("no answer within {} s", MIRROR_TIME_MAX.as_secs())),
            Ok(Err(error)) if error.is_connect() => MirrorAnswer::Nothing("connection refused".to_owned()),
            Ok(Err(error)) => MirrorAnswer::Nothing(error.without_url().to_string()),
            Ok(Ok(answer)) if answer.status().is_success() => MirrorAnswer::Registry,
            Ok(Ok(answer)) if is_protected && answer.status() == StatusCode::UNAUTHORIZED => MirrorAnswer::Registry,
            Ok(Ok(answer)) => MirrorAnswer::Other(answer.status().as_u16()),
        },
    };
    MirrorFacts { address, is_protected, answer }
}

/// The packets that others send to this node.
fn packets(addresses: &[(&str, SocketAddr)]) -> Vec<Packet> {
    let port = |flag: &str| {
        let found = addresses.iter().find(|(name, _)| *name == flag);
        found.map(|(_, address)| *address).filter(|address| !address.ip().is_loopback()).map(|address| address.port())
    };
    let mut packets = vec![Packet { protocol: Protocol::Udp, port: MDNS_PORT, what: "multicast DNS" }];
    for (flag, what) in [("--peers-addr", "connections of peers"), ("--bulk-addr", "peers that fetch bytes")] {
        packets.extend(port(flag).map(|port| Packet { protocol: Protocol::Tcp, port, what }));
    }
    packets
}

/// Registries that are configured, those that the node asked, or docker.io; and what their clocks say.
async fn origins(sources: &Sources, running: Option<&RunningFacts>) -> (ClockFacts, Vec<OriginFacts>) {
    let (mut configs, docker_config) = match &sources.config {
        Ok(config) => (config.origins.clone(), config.docker_config.clone()),
        Err(_) => (Vec::new(), None),
    };
    let configured = configs.len();
    let asked = running.into_iter().flat_map(|running| &running.status.origins).map(|origin| origin.registry.as_str());
    let asked: Vec<String> =
        asked.filter(|name| configs.iter().all(|config| config.registry != *name)).map(str::to_owned).collect();
    configs.extend(asked.into_iter().map(plain));
    if configs.is_empty() {
        configs.push(plain("docker.io".to_owned()));
    }
    configs.truncate(ORIGINS_MAX);
    let docker_config = docker_config.or_else(docker_config_path);
    let probed = join_all(configs.iter().map(|config| probe::probe(config, docker_config.clone()))).await;
    let unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let ahead = configs.iter().zip(&probed).find_map(|(config, probed)| {
        let difference = i64::try_from(probed.unix_s?).ok()? - i64::try_from(unix_s).ok()?;
        Some((difference, config.registry.clone()))
    });
    let facts = configs.into_iter().zip(probed).enumerate().map(|(number, (config, probed))| OriginFacts {
        registry: config.registry,
        endpoint: probed.endpoint,
        configured: number < configured,
        outcome: probed.outcome,
    });
    (ClockFacts { unix_s, origin_ahead: ahead }, facts.collect())
}

fn plain(registry: String) -> OriginConfig {
    OriginConfig { registry, endpoint: None, ca_file: None, plain_http: false, credentials: None }
}

/// Reads a small file of the kernel's.
fn kernel(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
