//! The node's status as OpenMetrics text.
//!
//! Made anew for each scrape from one status, so that the numbers of one scrape belong together.

use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{admin::types::NodeStatus, release::RefusalKind};

/// Media type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Count = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct From {
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct To {
    target: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Released {
    channel: String,
    version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Origin {
    registry: String,
}

/// What the operating system says of this process; zero where it says nothing.
#[derive(Debug, Default)]
pub(super) struct ProcessUse {
    resident_bytes: u64,
    open_files: u64,
}

impl ProcessUse {
    pub(super) fn now() -> Self {
        // proc_pid_status(5): VmRSS in kB, which are KiB.
        let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        Self { resident_bytes: resident.unwrap_or(0) * 1024, open_files }
    }
}

/// How signed releases stand, if any are followed.
fn releases(mesh: &mut Registry, status: &NodeStatus) {
    let Some(releases) = &status.releases else { return };
    let refusals = Family::<Reason, Counter>::default();
    for kind in RefusalKind::ALL {
        let count = releases.refusals.get(kind.label()).copied().unwrap_or_default();
        refusals.get_or_create(&Reason { reason: kind.label().to_owned() }).inc_by(count);
    }
    mesh.register("release_metadata_refused", "Metadata of releases that was refused, by reason", refusals);
    mesh.register("release_metadata_version", "Version of the metadata that is trusted", gauge(releases.version));
    mesh.register(
        "release_metadata_expired",
        "Whether the trusted metadata has expired",
        gauge(releases.expired.into()),
    );
    let (total, held) = (Family::<Released, Count>::default(), Family::<Released, Count>::default());
    for release in &releases.releases {
        let label = Released { channel: release.channel.clone(), version: release.version.clone() };
        total.get_or_create(&label).set(release.total);
        held.get_or_create(&label).set(release.held);
    }
    mesh.register_with_unit("release", "Bytes that this device is to hold of a release", Unit::Bytes, total);
    mesh.register_with_unit("release_held", "Bytes of these that it holds", Unit::Bytes, held);
}

/// Who was let in, and who was not.
fn admission(mesh: &mut Registry, status: &NodeStatus) {
    let Some(admission) = &status.admission else { return };
    let by_reason = |counts: &BTreeMap<String, u64>| {
        let family = Family::<Reason, Counter>::default();
        for (reason, count) in counts {
            family.get_or_create(&Reason { reason: reason.clone() }).inc_by(*count);
        }
        family
    };
    let (refused, refused_by) = (by_reason(&admission.refused), by_reason(&admission.refused_by_peers));
    mesh.register("peers_refused", "Peers that were not let in, by reason", refused);
    mesh.register("refused_by_peers", "Peers that did not let this node in, by the reason that they gave", refused_by);
    mesh.register("members", "Members that are let in", gauge(admission.members as u64));
    mesh.register("revocations", "Revocations that are known", gauge(admission.revocations as u64));
    mesh.register(
        "admission_problem",
        "Whether others do not let this node in, or it has no fleet",
        gauge(admission.problem.is_some().into()),
    );
}

pub(super) fn encode(status: &NodeStatus, process: &ProcessUse) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let mesh = registry.sub_registry_with_prefix("layermesh");
    traffic(mesh, status);
    let gauges = [
        ("peers", "Connected peers", status.peers as u64),
        ("blobs", "Blobs held whole", status.blobs),
        ("transfers", "Transfers under way", status.transfers.len() as u64),
    ];
    for (name, help, value) in gauges {
        mesh.register(name, help, gauge(value));
    }
    mesh.register_with_unit("store", "Blobs held whole", Unit::Bytes, gauge(status.store_bytes));
    mesh.register_with_unit("partial", "Blobs held in part", Unit::Bytes, gauge(status.partial_bytes));
    let uptime = Gauge::<f64, AtomicU64>::default();
    uptime.set(status.uptime_s);
    mesh.register_with_unit("uptime", "Time since the start", Unit::Seconds, uptime);
    let reachable = Family::<Origin, Count>::default();
    for origin in &status.origins {
        reachable.get_or_create(&Origin { registry: origin.registry.clone() }).set(origin.reachable.into());
    }
    mesh.register("origin_reachable", "Whether the registry answered last time", reachable);
    releases(mesh, status);
    admission(mesh, status);
    mesh.register("build", "The program", Info::new(vec![("version", status.version.clone())]));
    let resident = gauge(process.resident_bytes);
    registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident);
    registry.register("process_open_fds", "Open file descriptors", gauge(process.open_files));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

fn traffic(registry: &mut Registry, status: &NodeStatus) {
    let received = Family::<From, Counter>::default();
    for (source, bytes) in [("origin", status.bytes_from_origin), ("peer", status.bytes_from_peers)] {
        received.get_or_create(&From { source }).inc_by(bytes);
    }
    registry.register_with_unit("received", "Blob bytes received, by source", Unit::Bytes, received);
    let sent = Family::<To, Counter>::default();
    for (target, bytes) in [("peer", status.bytes_to_peers), ("runtime", status.bytes_to_runtimes)] {
        sent.get_or_create(&To { target }).inc_by(bytes);
    }
    registry.register_with_unit("sent", "Blob bytes sent, by target", Unit::Bytes, sent);
    let discarded = Counter::<u64>::default();
    discarded.inc_by(status.bytes_discarded);
    registry.register_with_unit("discarded", "Blob bytes received and thrown away", Unit::Bytes, discarded);
}

fn gauge(value: u64) -> Count {
    let gauge = Count::default();
    gauge.set(value);
    gauge
}
