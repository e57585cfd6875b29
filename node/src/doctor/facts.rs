//! What was found out about this device. Plain values: checks judge them, tests make them up.

use std::{net::SocketAddr, path::PathBuf};

use super::{firewall::Blocked, settings::Setting};
use crate::{
    admin::types::{NodeStatus, Peer},
    origin::probe::{ProbeError, Way},
    setup::{Runtime, Version},
};

/// All that was found out.
#[derive(Debug, Clone)]
pub struct Facts {
    /// This program's version.
    pub version: String,
    /// The configuration, or its mistakes.
    pub config: Result<ConfigFacts, Vec<String>>,
    /// The node.
    pub node: NodeFacts,
    /// What answers where runtimes look for the mirror.
    pub mirror: MirrorFacts,
    /// Ports that the node listens on, or would.
    pub ports: Vec<PortFacts>,
    /// The data directory.
    pub data_dir: DataDirFacts,
    /// Network interfaces but for loopback.
    pub interfaces: Vec<InterfaceFacts>,
    /// Packets to the node that this device's firewall drops.
    pub firewall: FirewallFacts,
    /// The clock.
    pub clock: ClockFacts,
    /// Registries that the node asks.
    pub origins: Vec<OriginFacts>,
    /// Container runtimes on this device.
    pub runtimes: Vec<RuntimeFacts>,
}

/// What of the configuration matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFacts {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether nodes are looked for by multicast DNS.
    pub mdns: bool,
    /// How many nodes are named.
    pub static_peers: usize,
    /// Where runtimes find the mirror.
    pub mirror: SocketAddr,
    /// Bytes that stay free on the disk.
    pub free_bytes_min: u64,
}

/// The node.
#[derive(Debug, Clone)]
pub enum NodeFacts {
    /// It answers.
    Running(Box<RunningFacts>),
    /// Its admin socket is not there.
    NotStarted,
    /// Its socket or its run file is there, and it is not.
    Died,
    /// Its socket belongs to another user.
    Denied,
    /// It takes the question and says nothing, or nonsense; what happened, for people.
    Ill(String),
}

/// A node that answers.
#[derive(Debug, Clone)]
pub struct RunningFacts {
    /// What it says of itself.
    pub status: NodeStatus,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// The user that it runs as, if that can be seen.
    pub uid: Option<u32>,
}

impl NodeFacts {
    /// The node, if it answers.
    pub fn running(&self) -> Option<&RunningFacts> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }
}

/// What answers at the mirror's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorFacts {
    /// The address.
    pub address: SocketAddr,
    /// Whether it demands TLS or a password.
    pub is_protected: bool,
    /// What answered.
    pub answer: MirrorAnswer,
}

/// What answered at the mirror's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorAnswer {
    /// A registry's `/v2/`.
    Registry,
    /// Something else: its status.
    Other(u16),
    /// Nothing; what happened, for people.
    Nothing(String),
}

/// A port that the node listens on, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFacts {
    /// The setting that names it.
    pub setting: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Who listens there who is not the node; the name of the program, or `another program`.
    pub taken_by: Option<String>,
}

/// The data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirFacts {
    /// Where it is.
    pub path: PathBuf,
    /// What is known of it; `None` if it is not there.
    pub found: Option<DirFacts>,
    /// Mode of the file with the node's identity, if it is there and can be seen.
    pub identity_mode: Option<u32>,
}

/// A directory and its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirFacts {
    /// Its owner.
    pub owner: u32,
    /// Its mode.
    pub mode: u32,
    /// Whether this program may write to it.
    pub writable: bool,
    /// Whether its file system is mounted read-only.
    pub read_only: bool,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where the file system does not count them.
    pub free_inodes: Option<u64>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Whether it is switched on and has a carrier.
    pub up: bool,
    /// Whether it can multicast.
    pub multicast: bool,
    /// Whether somebody on this device listens to multicast DNS there.
    pub hears_mdns: bool,
}

/// The firewall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirewallFacts {
    /// Whether its rules could be read.
    pub readable: bool,
    /// What it drops of what the node needs.
    pub blocked: Vec<Blocked>,
}

/// The clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClockFacts {
    /// Seconds since the Unix epoch.
    pub unix_s: u64,
    /// By how many seconds a registry's clock is ahead, and which registry's.
    pub origin_ahead: Option<(i64, String)>,
}

/// A registry that the node asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginFacts {
    /// Its name.
    pub registry: String,
    /// Where it is.
    pub endpoint: String,
    /// Whether the configuration names it.
    pub configured: bool,
    /// How it lets the node in, or why not.
    pub outcome: Result<Way, ProbeError>,
}

/// A container runtime on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFacts {
    /// The runtime.
    pub runtime: Runtime,
    /// Its version.
    pub version: Option<Version>,
    /// What is special about its settings, or why they cannot be read.
    pub settings: Result<Vec<Setting>, String>,
    /// A proxy that its environment names and that would stand between it and the mirror.
    pub proxy: Option<String>,
    /// What came of a pull.
    pub pull: PullFacts,
}

/// What came of pulling a tiny image that only the node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullFacts {
    /// It came.
    Came,
    /// It did not; what the runtime said.
    Failed(String),
    /// Nobody tried; why, for people.
    NotTried(String),
}
