//! The node's status as metrics, in OpenMetrics or in the older text format.
//!
//! Made anew for each scrape from one status, so that the numbers of one scrape belong together. Invariant: names are as
//! Prometheus wants them (base units, `_total`), labels have few values that this node or its configuration gives, and what can
//! be counted is there from the start with a zero. docs/monitoring.md lists them, and a test compares.

mod classic;
mod process;

use std::{collections::BTreeMap, fmt, sync::atomic::AtomicU64};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

pub(super) use self::process::ProcessUse;
use super::problems::is_stuck;
use crate::{
    admin::types::NodeStatus,
    counters::Waits,
    release::{RefusalKind, status::ReleasesStatus},
};

/// Media type of OpenMetrics, and how who wants it begins to say so.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text";

type Count = Gauge<u64, AtomicU64>;

/// A label with a name and values of its own.
macro_rules! label {
    ($name:ident, $field:ident: $of:ty) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name {
            $field: $of,
        }
    };
}

label!(From, source: &'static str);
label!(To, target: &'static str);
label!(Reason, reason: String);
label!(Origin, registry: String);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Released {
    channel: String,
    version: String,
}

/// The metrics as whoever asks takes them.
pub(super) fn answer(asked: &HeaderMap, status: &NodeStatus, waits: &Waits) -> Response {
    let text = match encode(status, waits, &ProcessUse::now()) {
        Ok(text) => text,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let mut accepts = asked.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    match accepts.any(|accept| accept.contains(OPEN_METRICS)) {
        true => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        false => ([(header::CONTENT_TYPE, classic::CONTENT_TYPE)], classic::of_open_metrics(&text)).into_response(),
    }
}

pub(super) fn encode(status: &NodeStatus, waits: &Waits, process: &ProcessUse) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let mesh = registry.sub_registry_with_prefix("layermesh");
    traffic(mesh, status);
    transfers(mesh, status, waits);
    room(mesh, status);
    neighbours(mesh, status);
    if let Some(it) = &status.releases {
        releases(mesh, it);
    }
    let uptime = Gauge::<f64, AtomicU64>::default();
    uptime.set(status.uptime_s);
    mesh.register_with_unit("uptime", "Time since the start", Unit::Seconds, uptime);
    mesh.register("build", "The program", Info::new(vec![("version", status.version.clone())]));
    process.register(&mut registry);
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// Bytes that went where.
fn traffic(mesh: &mut Registry, status: &NodeStatus) {
    let received = Family::<From, Counter>::default();
    for (source, bytes) in [("origin", status.bytes_from_origin), ("peer", status.bytes_from_peers)] {
        received.get_or_create(&From { source }).inc_by(bytes);
    }
    mesh.register_with_unit("received", "Blob bytes received, by source", Unit::Bytes, received);
    let sent = Family::<To, Counter>::default();
    for (target, bytes) in [("peer", status.bytes_to_peers), ("runtime", status.bytes_to_runtimes)] {
        sent.get_or_create(&To { target }).inc_by(bytes);
    }
    mesh.register_with_unit("sent", "Blob bytes sent, by target", Unit::Bytes, sent);
    let counters = [
        ("discarded", "Blob bytes received and thrown away", status.bytes_discarded),
        ("uplink", "Blob bytes that crossed the site's uplink, as far as this node knows", status.uplink_bytes),
        ("uplink_surplus", "Those of them that were more than one copy", status.uplink_surplus_bytes),
    ];
    for (name, help, bytes) in counters {
        mesh.register_with_unit(name, help, Unit::Bytes, counter(bytes));
    }
}

/// What is being had, and how that ended.
fn transfers(mesh: &mut Registry, status: &NodeStatus, waits: &Waits) {
    let waiting = status.transfers.iter().filter(|transfer| transfer.waits_for.is_some()).count();
    let stuck = status.transfers.iter().filter(|transfer| is_stuck(transfer)).count();
    let gauges = [
        ("transfers", "Transfers under way", status.transfers.len()),
        ("transfers_waiting", "Those of them that wait for the uplink's budget", waiting),
        ("transfers_stuck", "Those of them of which nothing came for half a minute, and that wait for nothing", stuck),
    ];
    for (name, help, value) in gauges {
        mesh.register(name, help, gauge(value as u64));
    }
    let (runtime, background) = (waits.runtime.clone(), waits.background.clone());
    mesh.register_with_unit(
        "completion",
        "Time from when a blob was asked for by a runtime until it was held",
        Unit::Seconds,
        runtime,
    );
    mesh.register_with_unit(
        "background_completion",
        "Time from when a blob was asked for in the background until it was held",
        Unit::Seconds,
        background,
    );
    let failed = Family::<Reason, Counter>::default();
    for (why, count) in waits.failed() {
        failed.get_or_create(&Reason { reason: why.label().to_owned() }).inc_by(count);
    }
    mesh.register("failures", "Blobs that could not be had, by reason", failed);
}

/// What is held, and how much room there is.
fn room(mesh: &mut Registry, status: &NodeStatus) {
    mesh.register("blobs", "Blobs held whole", gauge(status.blobs));
    let gauges = [
        ("store", "Blobs held whole", status.store_bytes),
        ("partial", "Blobs held in part", status.partial_bytes),
        ("pinned", "Blobs that are pinned", status.pinned_bytes),
        ("attached", "Blobs that only attached stores have", status.attached_bytes),
        ("store_quota", "What blobs may take together", status.quota),
        ("disk_free", "Free on the disk", status.disk_free),
        ("disk_reserve", "What blobs leave free of the disk", status.disk_free_min),
        ("disk_size", "Size of the disk", status.disk_size),
    ];
    for (name, help, bytes) in gauges {
        mesh.register_with_unit(name, help, Unit::Bytes, gauge(bytes));
    }
}

/// Peers, registries, and who was let in, and who was not.
fn neighbours(mesh: &mut Registry, status: &NodeStatus) {
    mesh.register("peers", "Connected peers", gauge(status.peers as u64));
    let penalised = gauge(status.penalised as u64);
    mesh.register(
        "peers_distrusted",
        "Those of them that may have sent wrong bytes and are not asked for any",
        penalised,
    );
    let reachable = Family::<Origin, Count>::default();
    for origin in &status.origins {
        reachable.get_or_create(&Origin { registry: origin.registry.clone() }).set(origin.reachable.into());
    }
    mesh.register("origin_reachable", "Whether the registry answered last time", reachable);
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
    if let Some(expires) = admission.membership.as_ref().and_then(|membership| unix_s(membership.expires.as_deref()?)) {
        mesh.register_with_unit(
            "membership_expiry_timestamp",
            "When this device's membership ends",
            Unit::Seconds,
            gauge(expires),
        );
    }
}

/// How signed releases stand.
fn releases(mesh: &mut Registry, releases: &ReleasesStatus) {
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
    if let Some(expires) = releases.expires.as_deref().and_then(unix_s) {
        mesh.register_with_unit(
            "release_metadata_expiry_timestamp",
            "When the trusted metadata expires",
            Unit::Seconds,
            gauge(expires),
        );
    }
    let (total, held) = (Family::<Released, Count>::default(), Family::<Released, Count>::default());
    for release in &releases.releases {
        let label = Released { channel: release.channel.clone(), version: release.version.clone() };
        total.get_or_create(&label).set(release.total);
        held.get_or_create(&label).set(release.held);
    }
    mesh.register_with_unit("release", "Bytes that this device is to hold of a release", Unit::Bytes, total);
    mesh.register_with_unit("release_held", "Bytes of these that it holds", Unit::Bytes, held);
}

/// A time as statuses say it, in seconds since the Unix epoch.
fn unix_s(rfc3339: &str) -> Option<u64> {
    u64::try_from(chrono::DateTime::parse_from_rfc3339(rfc3339).ok()?.timestamp()).ok()
}

fn gauge(value: u64) -> Count {
    let gauge = Count::default();
    gauge.set(value);
    gauge
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}
