//! What is simulated: sites, their devices and links, what is released to them, and what goes wrong.
//!
//! Invariant: a [`Scenario`] that exists is valid. It names only what it has, its shares are between 0 and 1, and its
//! sizes are those that the world can carry ([`DEVICES_MAX`], [`BLOBS_MAX`]). `docs/scenarios.md` is its reference.

mod errors;
mod keys;
pub mod library;
mod parse;
mod rollout;
pub(crate) mod sense;
mod table;
#[cfg(test)]
mod tests;
pub mod units;
mod write;

use std::time::Duration;

pub use errors::{Mistake, ScenarioError, ScenarioErrors};

/// Most devices of a scenario, all sites together. 100,000: ten times what a run on two processors is made for.
pub const DEVICES_MAX: u32 = 100_000;
/// Most devices of one site. 2,000: all of them hear each other.
pub const SITE_DEVICES_MAX: u32 = 2_000;
/// Most blobs of all images together. 1,000: more than any release has.
pub const BLOBS_MAX: usize = 1_000;
/// Most requests a minute that are a limit. A million: no site asks more often.
pub const REQUESTS_PER_MIN_MAX: u32 = 1_000_000;
/// Longest time of a scenario. 60 days: a ship that is at sea for weeks, and engines that tick all the while.
pub const LIMIT_MAX: Duration = Duration::from_secs(60 * 86_400);

/// A fleet, and a time in its life.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Short, as a file name.
    pub name: String,
    /// What real life it stands for, in a sentence or two.
    pub about: String,
    /// Of all that is random, unless the command line says another.
    pub seed: u64,
    /// By when every want of a device that can be reached has ended well.
    pub limit: Duration,
    /// Wall clock at the start: minute of the week, Monday 00:00 is 0.
    pub start_minute: u16,
    /// What must hold at the end besides the checks that always do.
    pub bounds: Bounds,
    /// Kinds of sites.
    pub sites: Vec<Site>,
    /// What the registries have.
    pub images: Vec<Image>,
    /// What is rolled out.
    pub releases: Vec<Release>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// Expectations of one scenario.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// Payload bytes over the uplinks of a site, as copies of what its devices wanted.
    pub copies_max: Option<f64>,
    /// A site's last finish after its release, by the time that its uplink alone needs for one copy.
    pub last_max: Option<f64>,
}

/// Sites that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Name of the kind; faults and releases refer to it.
    pub name: String,
    /// How many of them.
    pub count: u32,
    /// The way to the registry.
    pub uplink: Uplink,
    /// The network between the devices.
    pub lan: Lan,
    /// The devices of each.
    pub devices: Vec<Devices>,
}

impl Site {
    /// Devices of one such site.
    pub fn size(&self) -> u32 {
        self.devices.iter().map(|devices| devices.count).sum()
    }
}

/// The way from a site to the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    /// Rate towards the site, in bytes a second.
    pub bytes_per_s: u64,
    /// One way.
    pub latency: Duration,
    /// Each device has one of its own (a modem), instead of all sharing one.
    pub per_device: bool,
    /// Most that the registry gives over one connection, in bytes a second.
    pub bytes_per_s_each: Option<u64>,
    /// Requests that the registry answers each address in a minute; the others it answers with 429.
    pub requests_per_min: Option<u32>,
    /// Whether the registry answers ranges.
    pub ranged: bool,
    /// When it is there, every day; always if empty.
    pub up: Vec<Daily>,
    /// The nodes are told that it costs by the byte (`[uplink] metered`).
    pub metered: bool,
    /// The rate that the nodes are told the site has, in bytes a second (`[uplink] site_rate`).
    pub site_bytes_per_s: Option<u64>,
    /// The nodes' windows for background work (`[uplink] windows`); always if empty.
    pub windows: Vec<Daily>,
}

/// A time of every day, over midnight if it ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daily {
    /// Minute of the day, 0 to 1439.
    pub from: u16,
    /// Minute of the day at which it ends, 0 to 1439.
    pub to: u16,
}

/// The network between the devices of a site.
#[derive(Debug, Clone, PartialEq)]
pub struct Lan {
    /// Rate of each device's link, each way, in bytes a second.
    pub bytes_per_s: u64,
    /// One way, between two devices.
    pub latency: Duration,
    /// Up to so much is added to each message's way, at random.
    pub jitter: Duration,
    /// Share of gossip messages that a listener misses.
    pub loss: f64,
    /// All devices share one radio, half duplex, of that rate: what goes from one to another takes it twice.
    pub shared_radio: bool,
    /// Up to so much passes before a device that came is found by the others (mDNS), at random.
    pub discovery: Duration,
}

/// Devices of a site that are alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    /// Name of the group; faults and releases refer to it.
    pub name: String,
    /// How many at each such site.
    pub count: u32,
    /// OCI platform, such as `linux/arm64`.
    pub platform: String,
    /// Rate at which its flash takes bytes, in bytes a second; at once if `None`.
    pub disk_bytes_per_s: Option<u64>,
    /// How far its wall clock is off at most, either way, at random.
    pub clock_skew: Duration,
    /// The groups whose devices it finds; all if empty. Others are other VLANs.
    pub finds: Vec<String>,
    /// When it is at its site, every day; always if empty. Elsewhere it has no network.
    pub home: Vec<Daily>,
}

/// An image in the registries.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its reference, such as `shop:2`.
    pub name: String,
    /// What each platform's device has to get. One entry with an empty platform is for all.
    pub variants: Vec<Variant>,
}

impl Image {
    /// What a device of a platform has to get: its own variant, or that for all.
    pub fn variant_for(&self, platform: &str) -> Option<&Variant> {
        let of = |name: &str| self.variants.iter().find(|variant| variant.platform == name);
        of(platform).or_else(|| of(""))
    }
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// OCI platform, or empty for any.
    pub platform: String,
    /// Its layers. Those of one name and size are the same blob, wherever they appear.
    pub layers: Vec<Layer>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// What it is, such as `base`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
}

/// An image that devices are told to get.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The image.
    pub image: String,
    /// When, after the start.
    pub at: Duration,
    /// Within which time the devices are told, at random; all at once if zero.
    pub spread: Duration,
    /// Where and whom.
    pub scope: Scope,
    /// Nobody waits for it: the node's own pull, in the background.
    pub background: bool,
    /// What the devices have of it before.
    pub prior: Option<Prior>,
}

/// An image that devices hold before they are told to get another.
#[derive(Debug, Clone, PartialEq)]
pub struct Prior {
    /// The image.
    pub image: String,
    /// Share of the devices that hold it, 1 for all: the first of each site.
    pub share: f64,
    /// Bytes of the patches from its layers to those of the new image, all together; without them layers are fetched.
    pub patch: Option<u64>,
}

/// Some devices of a fleet. By default all.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Kinds of sites; all if empty.
    pub sites: Vec<String>,
    /// Groups of devices; all if empty.
    pub devices: Vec<String>,
    /// Share of those sites, at random, 1 for all.
    pub site_share: f64,
    /// Share of those devices at each such site, at random, 1 for all; at least one device.
    pub share: f64,
}

impl Default for Scope {
    fn default() -> Self {
        Self { sites: Vec::new(), devices: Vec::new(), site_share: 1.0, share: 1.0 }
    }
}

impl Scope {
    /// Whether sites of that kind belong to it.
    pub fn has_site(&self, site: &Site) -> bool {
        self.sites.is_empty() || self.sites.contains(&site.name)
    }

    /// Whether devices of that group belong to it, where its sites do.
    pub fn has_group(&self, group: &Devices) -> bool {
        self.devices.is_empty() || self.devices.contains(&group.name)
    }
}

/// Something that goes wrong at some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When it begins, after the start.
    pub at: Duration,
    /// Within which time it begins at each of those that it befalls, at random.
    pub spread: Duration,
    /// How long it lasts; to the end if `None`.
    pub lasts: Option<Duration>,
    /// Where and whom it befalls.
    pub scope: Scope,
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The site's way to the registry is cut: what runs breaks off, connections are refused.
    UplinkCut,
    /// What comes over the uplink is accepted and answered by silence.
    UplinkSilent,
    /// The registry ignores ranges.
    Unranged,
    /// A device loses power, and starts again with its disk when it is over.
    Crash,
    /// A device restarts in good order: it is away for so long.
    Reboot,
    /// The devices it befalls hear and are heard only among themselves.
    Partition,
    /// A device's flash takes bytes at a tenth of its rate, or at 1 MB/s if it had none.
    SlowDisk,
    /// A device's disk has no room for what was not begun.
    DiskFull,
    /// A device sends wrong bytes in place of right ones.
    Corrupts,
    /// A device vouches for pieces that are not the blob's.
    Lies,
    /// A device announces blobs and has none.
    HasNothing,
    /// A device begins to send and stops.
    Stalls,
    /// What a device keeps of what it takes from the registry are other bytes.
    Forges,
}

impl FaultKind {
    /// All of them, with their names in scenarios.
    pub const ALL: [(&'static str, Self); 13] = [
        ("uplink-cut", Self::UplinkCut),
        ("uplink-silent", Self::UplinkSilent),
        ("unranged", Self::Unranged),
        ("crash", Self::Crash),
        ("reboot", Self::Reboot),
        ("partition", Self::Partition),
        ("slow-disk", Self::SlowDisk),
        ("disk-full", Self::DiskFull),
        ("corrupts", Self::Corrupts),
        ("lies", Self::Lies),
        ("has-nothing", Self::HasNothing),
        ("stalls", Self::Stalls),
        ("forges", Self::Forges),
    ];

    /// Its name in scenarios, such as `uplink-cut`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Whether devices that it befalls vouch for bytes that are not the blob's, so that others keep them until the whole
    /// is checked.
    pub fn lies(self) -> bool {
        matches!(self, Self::Lies | Self::Forges)
    }

    /// Whether it befalls a site as a whole, and not devices.
    pub fn of_site(self) -> bool {
        matches!(self, Self::UplinkCut | Self::UplinkSilent | Self::Unranged)
    }
}
