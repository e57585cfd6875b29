//! What the status page and `layermesh top` show: the site as one node sees it. Free of secrets, and of paths of files.

use serde::{Deserialize, Serialize};

use super::NodeStatus;
use crate::release::status::DeviceRollout;

/// The site as this node sees it: the answer to `GET /v1/site`, also at the status address. Lists are sorted and bounded; the
/// `*_total` fields say how much there is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// This node.
    pub node: NodeStatus,
    /// What is wrong, the worst first.
    pub problems: Vec<SiteProblem>,
    /// The other devices, connected ones first.
    pub devices: Vec<SiteDevice>,
    /// How many they are.
    pub devices_total: usize,
    /// Blobs that somebody of the site is about to have, the largest first.
    pub under_way: Vec<SiteTransfer>,
    /// How many they are.
    pub under_way_total: usize,
    /// Images whose tags the site knows and whose manifests this device has, by name.
    pub images: Vec<SiteImage>,
    /// Tags that the site knows.
    pub tags_total: usize,
    /// Blobs that devices hold, the largest first.
    pub layers: Vec<SiteLayer>,
    /// How many they are.
    pub layers_total: usize,
    /// Of these, how many one device alone holds.
    pub layers_held_once: usize,
    /// What crossed the uplink.
    pub uplink: SiteUplink,
    /// How far devices are with releases, this one first.
    pub rollouts: Vec<DeviceRollout>,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something will not work, or works less well.
    Warning,
    /// Worth knowing.
    Note,
}

/// A problem, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteProblem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// What to do; empty if nothing.
    pub next: String,
}

/// Another device of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteDevice {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Whether it is connected with this one. Of the others only what they say to all is known.
    pub connected: bool,
    /// Address that it is connected from.
    pub address: Option<String>,
    /// Its program version, once it said so.
    pub version: Option<String>,
    /// Its platform, once it said so.
    pub platform: Option<String>,
    /// Blobs that it says it holds.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that it is about to have.
    pub wants: usize,
    /// Their bytes, as far as is known.
    pub wanted_bytes: u64,
    /// Bytes that it has of these.
    pub had_bytes: u64,
    /// Blobs that it fetches from a registry.
    pub fetches: usize,
    /// Whether it may have sent wrong bytes, and is not asked for any.
    pub penalised: bool,
    /// Bytes that came from it since this node's start.
    pub received_bytes: u64,
    /// Bytes that went to it since this node's start.
    pub sent_bytes: u64,
}

/// A blob that somebody of the site is about to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTransfer {
    /// Its digest.
    pub digest: String,
    /// Its size, once known.
    pub size: Option<u64>,
    /// The image, or else the repository, that it belongs to, if that is known.
    pub image: Option<String>,
    /// Devices that hold it, this one included.
    pub holders: usize,
    /// Other devices that want it.
    pub wanting: usize,
    /// Bytes that these have of it, all together.
    pub had_bytes: u64,
    /// Peer ids of devices that fetch of it from a registry, this one included.
    pub fetching: Vec<String>,
    /// Bytes of it that crossed the uplink.
    pub uplink_bytes: u64,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteImage {
    /// Its name and tag.
    pub image: String,
    /// Its manifest or index.
    pub digest: String,
    /// Bytes of one platform's: this device's, else the first that is known.
    pub bytes: u64,
    /// Layers of the same.
    pub layers: usize,
    /// Devices that hold all of it for some platform, this one included.
    pub holders: usize,
    /// Whether this one does.
    pub here: bool,
}

/// A blob that devices hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteLayer {
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub size: u64,
    /// An image that it belongs to, if one is known.
    pub image: Option<String>,
    /// Devices that hold it, this one included.
    pub holders: usize,
    /// Whether this one does.
    pub here: bool,
}

/// What crossed the site's uplink since this node's start, as far as it fetched it or heard of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteUplink {
    /// Bytes.
    pub bytes: u64,
    /// Those of them that were more than one copy of a blob.
    pub surplus_bytes: u64,
    /// The blobs that crossed last, the latest first.
    pub lately: Vec<SiteCrossed>,
}

/// How much of a blob crossed the uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCrossed {
    /// Its digest.
    pub digest: String,
    /// Its size, once known.
    pub size: Option<u64>,
    /// Bytes that crossed.
    pub bytes: u64,
    /// Seconds since the last of them.
    pub ago_s: u64,
    /// Devices that hold it, this one included.
    pub holders: usize,
}
