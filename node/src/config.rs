//! What this node is told: `layermesh.toml`, then `LAYERMESH_*` environment variables, then flags, the later winning.
//!
//! The three sources become [`Layer`]s of unparsed text that remember where each word came from. [`load`] merges
//! them and parses once into a [`Config`]; past it nothing is a string that still needs checking. Invariant: one
//! run of `load` reports *every* mistake, each with its file and line, variable or flag, and what to write instead.
//!
//! Lists: static peers and windows of a stronger source replace those of a weaker one; an origin of a stronger source replaces
//! the weaker source's origin of the same registry and leaves the others alone.
//!
//! Plain HTTP: an `http://` endpoint in the file needs `plain_http = true` beside it, because files get copied and
//! a lost `s` must not send passwords in the clear. In `--origin` and `LAYERMESH_ORIGINS` the `http://` that
//! somebody just typed is the consent.
//!
//! Deliberately absent: reloading. A node is restarted to change its configuration.

use std::{net::SocketAddr, path::PathBuf};

use layermesh_proto::engine::{Uplink, tags::TagRules};
use libp2p::Multiaddr;

mod effective;
mod file;
mod fleet;
mod layer;
mod local;
mod paths;
mod profile;
mod reference;
mod tags;
pub mod units;
mod validate;
mod windows;

pub use crate::origin::{Credentials, OriginConfig};
pub use crate::store::{Quota, room::QUOTA_SHARE_PERCENT_DEFAULT};
use crate::{
    contents::Platform,
    fleet::FleetOptions,
    release::{Channel, Trusted},
};
pub use effective::{Effective, effective};
pub use layer::{ConfigError, ConfigErrors, Layer, Setting};
pub use local::{AdminConfig, MirrorAccessConfig};
pub use paths::{DataDirInputs, Environment, SYSTEM_CONFIG_FILE, SYSTEM_DATA_DIR, default_data_dir};
pub use profile::{Means, Profile};
pub use reference::commented_file;
pub(crate) use validate::parse_registry;
pub use validate::{find_admin_socket, find_data_dir, find_mirror, load};

/// Bytes that must stay free on the disk: room for the system's own logs and for the store's metadata.
pub const FREE_BYTES_MIN_DEFAULT: u64 = 64 << 20;
/// Where container runtimes find the mirror. Loopback: it has no authentication unless told.
pub const MIRROR_DEFAULT: &str = "127.0.0.1:7117";
/// Where peers connect for gossip and control.
pub const PEERS_DEFAULT: &str = "0.0.0.0:7118";
/// Where peers fetch bytes.
pub const BULK_DEFAULT: &str = "0.0.0.0:7119";
/// Where health, metrics and status are served. Loopback: it has no authentication.
pub const STATUS_DEFAULT: &str = "127.0.0.1:7120";
/// Fleet of nodes that were not told theirs.
pub const FLEET_DEFAULT: &str = "default";
/// What is logged.
///
/// gossipsub writes down each message that a peer whose connection is dead was not sent, as long as its bytes are.
pub const LOG_FILTER_DEFAULT: &str = "info,libp2p_gossipsub=error";

/// Everything that a node is told, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the device is like, and so what limits the node has.
    pub profile: Profile,
    /// Identity, run file, admin socket and store live here.
    pub data_dir: PathBuf,
    /// Address of the registry mirror for container runtimes.
    pub mirror: SocketAddr,
    /// What the mirror demands of those who ask it.
    pub mirror_access: MirrorAccessConfig,
    /// Where admin commands reach the node, and whose.
    pub admin: AdminConfig,
    /// Address of the libp2p control plane.
    pub peers: SocketAddr,
    /// Address of the bulk exchange.
    pub bulk: SocketAddr,
    /// Address of health, metrics and status.
    pub status: SocketAddr,
    /// The fleet's name; nodes with another are not talked to.
    pub fleet: String,
    /// Who is let in.
    pub admission: FleetOptions,
    /// Whether nodes on the LAN are found by multicast DNS.
    pub mdns: bool,
    /// Nodes to connect to besides those found.
    pub static_peers: Vec<Multiaddr>,
    /// Registries that need more than their name to be reached.
    pub origins: Vec<OriginConfig>,
    /// Docker's `config.json` with credentials; `None` for the user's own.
    pub docker_config: Option<PathBuf>,
    /// A blob that would leave fewer free bytes than this on the disk is not begun.
    pub store_free_bytes_min: u64,
    /// How much the store may hold.
    pub store_quota: Quota,
    /// Directories whose blobs are held where they are.
    pub store_attached: Vec<AttachedConfig>,
    /// Most bytes a second that this node takes from all registries together; `None` for no limit.
    pub uplink_bytes_per_s: Option<u64>,
    /// What the uplink may be used for: its meter, windows for background work, the site's rate.
    pub uplink: Uplink,
    /// Whether each device of the site has an uplink of its own.
    pub uplink_own: bool,
    /// Most bytes a second that this node gives to all peers together; `None` for no limit.
    pub lan_bytes_per_s: Option<u64>,
    /// Who says what tags stand for.
    pub tags: TagRules,
    /// Whether layers are made of others.
    pub deltas: Deltas,
    /// Signed releases that this node follows; none if it follows none.
    pub releases: Option<ReleasesConfig>,
    /// What is logged and how.
    pub log: LogConfig,
}

/// A directory with `blobs/sha256` whose blobs are held where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedConfig {
    /// The directory; it need not be there when the node starts.
    pub path: PathBuf,
    /// Whether the node's own copies go for those there.
    pub reuse: bool,
}

/// Whether layers are made of others that are held, with patches, and how much memory that may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deltas {
    /// They are fetched.
    Off,
    /// Patches that need up to 12 MiB.
    Tiny,
    /// Patches that need up to 32 MiB.
    #[default]
    On,
}

/// Signed releases that a node follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasesConfig {
    /// The root that is trusted from the start.
    pub root: Trusted,
    /// Channels that are followed.
    pub channels: Vec<Channel>,
    /// Platforms that releases are held for.
    pub platforms: Vec<Platform>,
    /// Copies of each blob of a release that the site keeps.
    pub replicas: usize,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Form of a line.
    pub format: LogFormat,
    /// Which lines, in the syntax of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests;
