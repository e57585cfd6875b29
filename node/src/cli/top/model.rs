//! What `top` knows: the node's answers, folded into what is shown of them.
//!
//! Pure: the same answers at the same times give the same rows. Invariant: every text in [`Seen`] is plain, whoever wrote it.

use std::{cmp::Reverse, collections::HashMap, net::IpAddr, time::Duration};

use super::{
    rates::{History, had_by_others},
    words::{self, plain},
};
use crate::{
    admin::types::{Severity, SiteDevice, SiteStatus, SiteTransfer, TransferStatus},
    cli::output::counted,
    config::units::show_bytes,
    fleet::AdmissionMode,
};

/// What crossed the uplink counts for the bar if it did so in the last hour, as on the status page.
const LATELY_S: u64 = 3600;

/// In which order transfers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TransferOrder {
    /// This device's first, then the largest.
    #[default]
    Here,
    /// The fastest first.
    Rate,
    /// What is done soonest first.
    Left,
    /// By name.
    Name,
}

/// In which order devices are. This one is always first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum DeviceOrder {
    /// By address, then by id.
    #[default]
    Name,
    /// Those that need a look or do something first.
    State,
    /// The fastest first.
    Rate,
    /// Those that hold most first.
    Holds,
}

/// Whether the node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    Live,
    Lost { since: Duration, why: String },
}

/// What is known. Times are since `top` began.
#[derive(Debug)]
pub(super) struct Model {
    site: SiteStatus,
    history: History,
    link: Link,
}

/// A transfer, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) name: String,
    /// Bytes of the blob, once known.
    pub(super) size: Option<u64>,
    /// Bytes that are there: on this device, or if it does not want them on the others together.
    pub(super) had: u64,
    /// Bytes that are to be there, once known.
    pub(super) wanted: Option<u64>,
    pub(super) bytes_per_s: u64,
    pub(super) left: Option<Duration>,
    /// Where it comes from, or what it waits for.
    pub(super) doing: String,
    /// Whether this device wants it.
    pub(super) here: bool,
    /// Whether some of it comes from a registry.
    pub(super) from_registry: bool,
}

/// What a device does. The order is that of [`DeviceOrder::State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It sent wrong bytes, and is not asked for any.
    Distrusted,
    /// It takes something from a registry.
    Fetching,
    /// It takes something from others.
    Getting,
    /// It is connected and has what it wants.
    Idle,
    /// It is not connected with this one.
    Apart,
}

/// A device, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) state: State,
    /// Bytes of what it is getting: those that it has, and all.
    pub(super) getting: Option<(u64, u64)>,
    /// Bytes a second from it, of this device from everybody.
    pub(super) incoming: u64,
    /// Bytes a second to it, of this device to all others.
    pub(super) outgoing: u64,
    /// Blobs that it holds and their bytes, if it is known.
    pub(super) holds: Option<(u64, u64)>,
    pub(super) platform: String,
    pub(super) version: String,
}

/// A problem, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) severity: Severity,
    pub(super) what: String,
    pub(super) next: String,
}

/// What came over the uplink lately, against one copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) crossed: u64,
    pub(super) copy: u64,
}

/// Everything that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Which node this is.
    pub(super) title: String,
    /// The site in a line, the most important first.
    pub(super) site: Vec<String>,
    pub(super) uplink: Option<Uplink>,
    pub(super) problems: Vec<Problem>,
    pub(super) transfers: Vec<Transfer>,
    /// How many there are, should the node not have named all.
    pub(super) transfers_total: usize,
    /// This one first.
    pub(super) devices: Vec<Device>,
    /// As for transfers.
    pub(super) devices_total: usize,
    /// That the node does not answer.
    pub(super) lost: Option<String>,
}

impl Model {
    /// Begins with an answer; others are to come about every `interval`.
    pub(super) fn new(site: SiteStatus, interval: Duration) -> Self {
        let mut history = History::new(interval);
        history.take(&site);
        Self { site, history, link: Link::Live }
    }

    /// Takes an answer in.
    pub(super) fn take(&mut self, site: SiteStatus) {
        if site.node.peer_id != self.site.node.peer_id {
            self.history.forget();
        }
        self.history.take(&site);
        self.site = site;
        self.link = Link::Live;
    }

    /// There was no answer. What was known before stays.
    pub(super) fn miss(&mut self, why: &str, now: Duration) {
        let since = match self.link {
            Link::Live => now,
            Link::Lost { since, .. } => since,
        };
        self.link = Link::Lost { since, why: plain(why) };
    }

    /// What there is to see.
    pub(super) fn seen(&self, now: Duration, transfers: TransferOrder, devices: DeviceOrder) -> Seen {
        let site = &self.site;
        let names = words::device_names(site);
        let lost = match &self.link {
            Link::Live => None,
            Link::Lost { since, why } => {
                let since = words::show_time(now.saturating_sub(*since));
                Some(format!("NO ANSWER for {since}: {why}. Asking again; what you see is from before."))
            }
        };
        let transfers = self.transfers(&names, transfers);
        Seen {
            title: title(site),
            site: self.in_a_line(),
            uplink: uplink(site),
            problems: problems(site),
            transfers_total: transfers.len().max(site.under_way_total),
            transfers,
            devices: self.devices(&names, devices),
            devices_total: site.devices_total.saturating_add(1),
            lost,
        }
    }

    fn in_a_line(&self) -> Vec<String> {
        let (site, node) = (&self.site, &self.site.node);
        let linked = site.devices.iter().filter(|device| device.connected).count();
        let mut devices = counted(site.devices_total as u64 + 1, "device", "devices");
        if linked < site.devices_total {
            devices.push_str(&format!(", {linked} linked"));
        }
        devices.push_str(", ");
        devices.push_str(admitted(site));
        let once = site.uplink.bytes.saturating_sub(site.uplink.surplus_bytes);
        let mut uplink = match once {
            0 => "uplink unused".to_owned(),
            once => format!("uplink {:.2} copies", site.uplink.bytes as f64 / once as f64),
        };
        match self.history.per_second(|then| Some(then.uplink)) {
            0 if once > 0 => uplink.push_str(", idle"),
            0 => {}
            rate => uplink.push_str(&format!(", {}", words::rate(rate))),
        }
        let came = node.bytes_from_peers.saturating_add(node.bytes_from_origin);
        let saved = format!("saved {}", show_bytes(node.bytes_from_peers));
        let share = (came > 0).then(|| format!("{} from neighbours", words::percent(node.bytes_from_peers, came)));
        [devices, uplink, saved].into_iter().chain(share).collect()
    }

    fn transfers(&self, names: &HashMap<&str, String>, order: TransferOrder) -> Vec<Transfer> {
        let site = &self.site;
        let under_way: HashMap<&str, &SiteTransfer> =
            site.under_way.iter().map(|blob| (blob.digest.as_str(), blob)).collect();
        let own = site.node.transfers.iter();
        let own_digests: Vec<&str> = own.clone().map(|transfer| transfer.digest.as_str()).collect();
        let others = site.under_way.iter().filter(|blob| !own_digests.contains(&blob.digest.as_str()));
        let mut rows: Vec<Transfer> = own
            .map(|transfer| self.own(transfer, under_way.get(transfer.digest.as_str()).copied(), names))
            .chain(others.map(|blob| self.elsewhere(blob, names)))
            .collect();
        match order {
            TransferOrder::Here => rows.sort_by_key(|row| (!row.here, Reverse(row.size))),
            TransferOrder::Rate => rows.sort_by_key(|row| Reverse(row.bytes_per_s)),
            TransferOrder::Left => rows.sort_by_key(|row| (row.left.is_none(), row.left)),
            TransferOrder::Name => rows.sort_by(|one, other| one.name.cmp(&other.name)),
        }
        rows
    }

    /// A transfer of this device.
    fn own(&self, transfer: &TransferStatus, blob: Option<&SiteTransfer>, names: &HashMap<&str, String>) -> Transfer {
        let bytes_per_s = self.history.per_second(|then| then.own.get(&transfer.digest).copied());
        let missing = transfer.size.map(|size| size.saturating_sub(transfer.bytes));
        let doing = match (transfer.sources.as_slice(), &transfer.waits_for) {
            ([], Some(what)) => format!("waits for {}", plain(what)),
            ([], None) => "waits for its turn".to_owned(),
            (sources, _) => format!("from {}", words::sources(sources, names)),
        };
        Transfer {
            name: words::layer_name(blob.and_then(|blob| blob.image.as_deref()), &transfer.digest),
            size: transfer.size,
            had: transfer.bytes,
            wanted: transfer.size,
            bytes_per_s,
            left: missing.and_then(|missing| words::left(missing, bytes_per_s)),
            doing,
            here: true,
            from_registry: transfer.sources.iter().any(|source| source.starts_with("origin ")),
        }
    }

    /// A blob that other devices are getting.
    fn elsewhere(&self, blob: &SiteTransfer, names: &HashMap<&str, String>) -> Transfer {
        let bytes_per_s = self.history.per_second(|then| then.others.get(&blob.digest).copied());
        let devices = blob.holders.saturating_add(blob.wanting) as u64;
        let wanted = blob.size.map(|size| size.saturating_mul(devices));
        let had = had_by_others(blob);
        let wanting = counted(blob.wanting as u64, "other device wants it", "other devices want it");
        let fetching = blob.fetching.iter().map(|id| names.get(id.as_str()).cloned());
        let fetching = fetching.zip(&blob.fetching).map(|(name, id)| name.unwrap_or_else(|| words::short_id(id)));
        let fetched = match blob.fetching.len() {
            0 => String::new(),
            _ => format!(", from its registry: {}", words::listed(fetching.collect())),
        };
        Transfer {
            name: words::layer_name(blob.image.as_deref(), &blob.digest),
            size: blob.size,
            had,
            wanted,
            bytes_per_s,
            left: wanted.and_then(|wanted| words::left(wanted.saturating_sub(had), bytes_per_s)),
            doing: format!("{wanting}{fetched}"),
            here: false,
            from_registry: !blob.fetching.is_empty(),
        }
    }

    fn devices(&self, names: &HashMap<&str, String>, order: DeviceOrder) -> Vec<Device> {
        let site = &self.site;
        let name = |device: &SiteDevice| names.get(device.peer_id.as_str()).cloned().unwrap_or_default();
        let mut rows: Vec<Device> = site.devices.iter().map(|device| self.device(device, name(device))).collect();
        // Addresses by their numbers, then what has none.
        rows.sort_by_cached_key(|row| {
            let address: Option<IpAddr> = row.name.split(' ').next().and_then(|name| name.parse().ok());
            (address.is_none(), address, row.name.clone())
        });
        match order {
            DeviceOrder::Name => {}
            DeviceOrder::State => rows.sort_by_key(|row| row.state),
            DeviceOrder::Rate => rows.sort_by_key(|row| Reverse(row.incoming.saturating_add(row.outgoing))),
            DeviceOrder::Holds => rows.sort_by_key(|row| Reverse(row.holds.map(|(_, bytes)| bytes))),
        }
        rows.insert(0, self.this_device());
        rows
    }

    fn device(&self, device: &SiteDevice, name: String) -> Device {
        let of =
            |way: fn(&(u64, u64)) -> u64| self.history.per_second(|then| then.devices.get(&device.peer_id).map(way));
        let state = match device {
            device if device.penalised => State::Distrusted,
            device if device.fetches > 0 => State::Fetching,
            device if device.wants > 0 => State::Getting,
            device if device.connected => State::Idle,
            _ => State::Apart,
        };
        Device {
            name,
            id: words::short_id(&device.peer_id),
            state,
            getting: (device.wants > 0).then_some((device.had_bytes, device.wanted_bytes)),
            incoming: of(|(received, _)| *received),
            outgoing: of(|(_, sent)| *sent),
            holds: device.connected.then_some((device.blobs as u64, device.bytes)),
            platform: device.platform.as_deref().map(plain).unwrap_or_default(),
            version: device.version.as_deref().map(plain).unwrap_or_default(),
        }
    }

    fn this_device(&self) -> Device {
        let node = &self.site.node;
        let fetches = node.transfers.iter().flat_map(|transfer| &transfer.sources);
        let state = match node.transfers.len() {
            0 => State::Idle,
            _ if fetches.into_iter().any(|source| source.starts_with("origin ")) => State::Fetching,
            _ => State::Getting,
        };
        let sum = |of: fn(&TransferStatus) -> u64| node.transfers.iter().map(of).fold(0, u64::saturating_add);
        let getting = (sum(|transfer| transfer.bytes), sum(|transfer| transfer.size.unwrap_or(0)));
        Device {
            name: "this device".to_owned(),
            id: words::short_id(&node.peer_id),
            state,
            getting: (!node.transfers.is_empty()).then_some(getting),
            incoming: self.history.per_second(|then| Some(then.received)),
            outgoing: self.history.per_second(|then| Some(then.sent)),
            holds: Some((node.blobs, node.store_bytes)),
            platform: plain(&node.platform),
            version: plain(&node.version),
        }
    }
}

fn title(site: &SiteStatus) -> String {
    let node = &site.node;
    let up = words::show_time(Duration::try_from_secs_f64(node.uptime_s).unwrap_or_default());
    let id = words::short_id(&node.peer_id);
    format!("Layermesh {}  fleet {}  {id}  up {up}", plain(&node.version), plain(&node.fleet))
}

/// Whether others let this device in, in a word or two.
fn admitted(site: &SiteStatus) -> &'static str {
    match &site.node.admission {
        None => "open to all",
        Some(admission) => match (admission.mode, &admission.problem) {
            (AdmissionMode::Open, _) => "open to all",
            (AdmissionMode::Alone, _) => "NO FLEET",
            (AdmissionMode::Fleet, Some(_)) => "NOT ADMITTED",
            (AdmissionMode::Fleet, None) => "admitted",
        },
    }
}

fn problems(site: &SiteStatus) -> Vec<Problem> {
    let shown = site.problems.iter().map(|problem| Problem {
        severity: problem.severity,
        what: plain(&problem.what),
        next: plain(&problem.next),
    });
    shown.collect()
}

/// What crossed the uplink lately or is about to, against what one copy of it is.
fn uplink(site: &SiteStatus) -> Option<Uplink> {
    let lately = site.uplink.lately.iter().filter(|blob| blob.ago_s <= LATELY_S);
    let mut blobs: HashMap<&str, (u64, u64)> =
        lately.map(|blob| (blob.digest.as_str(), (blob.bytes, blob.size.unwrap_or(blob.bytes)))).collect();
    for blob in &site.under_way {
        let crossed = blobs.get(blob.digest.as_str()).map_or(blob.uplink_bytes, |(bytes, _)| *bytes);
        // What somebody has already need not cross.
        if blob.holders == 0 || crossed > 0 {
            blobs.insert(&blob.digest, (crossed, blob.size.unwrap_or(crossed)));
        }
    }
    let sum = |of: fn(&(u64, u64)) -> u64| blobs.values().map(of).fold(0, u64::saturating_add);
    let (crossed, copy) = (sum(|(crossed, _)| *crossed), sum(|(_, size)| *size));
    (copy > 0).then_some(Uplink { crossed, copy })
}

#[cfg(test)]
mod tests;
