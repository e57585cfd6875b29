//! What is wrong on this device or its site, in words, and what to do about it.
//!
//! Pure: the same status gives the same problems. Invariant: no path of a file and no secret stands in them, since whoever
//! reaches the status address reads them.

use std::time::Duration;

use crate::{
    admin::types::{NodeStatus, Severity, SiteDevice, SiteProblem, SiteUplink},
    config::units::{show_bytes, show_duration},
    fleet::{AdmissionMode, AdmissionStatus},
    release::status::ReleasesStatus,
};

/// A transfer is stuck when nothing of it came for so many seconds and it waits for nothing that is known.
pub(super) const STUCK_AFTER_S: u64 = 30;
/// So much of what crossed the uplink may be more than one copy before it is worth a word: a fiftieth.
const SURPLUS_SHARE: u64 = 50;
/// And so many bytes: below, it is a piece or two that came twice.
const SURPLUS_BYTES_MIN: u64 = 8 << 20;
/// Pinned blobs that leave less than a twentieth of the quota for everything else are worth a word.
const ROOM_SHARE: u64 = 20;

/// What is looked at.
pub(super) struct Seen<'a> {
    pub(super) node: &'a NodeStatus,
    pub(super) devices: &'a [SiteDevice],
    pub(super) uplink: &'a SiteUplink,
    /// Attached stores that cannot be looked at.
    pub(super) attached_ill: usize,
}

fn problem(severity: Severity, what: impl Into<String>, next: impl Into<String>) -> SiteProblem {
    SiteProblem { severity, what: what.into(), next: next.into() }
}

/// Problems, the worst first.
pub(super) fn problems(seen: &Seen<'_>) -> Vec<SiteProblem> {
    let mut found = Vec::new();
    if let Some(admission) = &seen.node.admission {
        found.extend(of_admission(admission));
    }
    found.extend(of_disk(seen));
    found.extend(of_origins(seen.node));
    if let Some(releases) = &seen.node.releases {
        found.extend(of_releases(releases));
    }
    found.extend(of_transfers(seen.node));
    found.extend(of_site(seen));
    found.sort_by_key(|problem| problem.severity);
    found
}

fn of_admission(admission: &AdmissionStatus) -> Vec<SiteProblem> {
    let mut found = Vec::new();
    if admission.mode == AdmissionMode::Alone {
        found.push(problem(
            Severity::Error,
            "This device belongs to no fleet, so it serves itself only.",
            "Set [fleet] authorities in its configuration, or run it with --open on a LAN that you trust.",
        ));
    } else if admission.problem.is_some() {
        // Why may name files of this device.
        found.push(problem(
            Severity::Error,
            "The other devices of the fleet do not let this device in.",
            "On the device, `layermesh fleet show` says why and what to do.",
        ));
    }
    let reasons = |counts: &std::collections::BTreeMap<String, u64>| {
        let counted = counts.iter().filter(|(_, count)| **count > 0);
        counted
            .map(|(reason, count)| format!("{} ({count})", reason.replace(['-', '_'], " ")))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let refused = reasons(&admission.refused);
    if !refused.is_empty() {
        found.push(problem(
            Severity::Warning,
            format!("Other devices were not let in since this one started: {refused}."),
            "If they belong to the fleet, admit them with `layermesh fleet admit`.",
        ));
    }
    let refused = reasons(&admission.refused_by_peers);
    if !refused.is_empty() {
        found.push(problem(
            Severity::Warning,
            format!("Other devices refused this one since it started: {refused}."),
            "`layermesh fleet show` says how this device stands.",
        ));
    }
    found
}

fn of_disk(seen: &Seen<'_>) -> Vec<SiteProblem> {
    let node = seen.node;
    let mut found = Vec::new();
    if node.disk_size > 0 && node.disk_free < node.disk_free_min {
        found.push(problem(
            Severity::Error,
            format!(
                "The disk is full: {} are free and {} are to stay free, so nothing new can be held.",
                show_bytes(node.disk_free),
                show_bytes(node.disk_free_min)
            ),
            "Make room on the disk, or see with `layermesh gc --dry-run` what could go.",
        ));
    }
    let room = node.quota.saturating_sub(node.pinned_bytes);
    if node.quota > 0 && room < node.quota / ROOM_SHARE {
        found.push(problem(
            Severity::Warning,
            format!(
                "Pinned layers take {} of the {} that layers may take, so there is hardly room for others.",
                show_bytes(node.pinned_bytes),
                show_bytes(node.quota)
            ),
            "Unpin what is not needed any more (`layermesh blobs` says who pins what), or raise [store] quota.",
        ));
    }
    if seen.attached_ill > 0 {
        found.push(problem(
            Severity::Warning,
            format!("{} cannot be read.", counted(seen.attached_ill, "attached store", "attached stores")),
            "`layermesh attach` without a directory lists them, and why.",
        ));
    }
    found
}

fn of_origins(node: &NodeStatus) -> Vec<SiteProblem> {
    let away = node.origins.iter().filter(|origin| !origin.reachable);
    let away = away.map(|origin| {
        problem(
            Severity::Warning,
            format!("The registry {} does not answer.", origin.registry),
            "What the site holds is served all the same. The node asks again by itself; if the uplink is up, look at the \
             registry's address and credentials.",
        )
    });
    away.collect()
}

fn of_releases(releases: &ReleasesStatus) -> Vec<SiteProblem> {
    let mut found = Vec::new();
    if releases.expired {
        found.push(problem(
            Severity::Warning,
            format!(
                "The signed releases' metadata expired on {}. What it says stays in force until newer comes.",
                releases.expires.as_deref().unwrap_or("a day that is not known")
            ),
            "Sign it again with `layermesh release renew` and publish it.",
        ));
    }
    if let Some(refused) = &releases.refused {
        found.push(problem(
            Severity::Warning,
            format!("New metadata of signed releases was refused: {}.", refused.kind.replace('_', " ")),
            "`layermesh release status` on the device says why.",
        ));
    }
    if !releases.clock {
        found.push(problem(
            Severity::Note,
            "This device has no clock that can be right, so it cannot tell whether signed releases have expired.",
            "Let it set its clock, by NTP for example.",
        ));
    }
    found
}

fn of_transfers(node: &NodeStatus) -> Vec<SiteProblem> {
    let stuck: Vec<_> = node.transfers.iter().filter(|transfer| is_stuck(transfer)).collect();
    let Some(longest) = stuck.iter().map(|transfer| transfer.quiet_s).max() else { return Vec::new() };
    vec![problem(
        Severity::Warning,
        format!(
            "Nothing has come of {} for {}.",
            counted(stuck.len(), "layer that is wanted", "layers that are wanted"),
            show_duration(Duration::from_secs(longest))
        ),
        "Nobody on the site has it and its registry gives nothing. `layermesh status` names it; look at the registry.",
    )]
}

/// Whether nothing comes of a transfer although it waits for nothing that is known.
pub(super) fn is_stuck(transfer: &crate::admin::types::TransferStatus) -> bool {
    transfer.waits_for.is_none() && transfer.quiet_s >= STUCK_AFTER_S
}

fn of_site(seen: &Seen<'_>) -> Vec<SiteProblem> {
    let mut found = Vec::new();
    let alone = seen.node.admission.as_ref().is_some_and(|admission| admission.mode == AdmissionMode::Alone);
    if seen.node.peers == 0 && !alone {
        found.push(problem(
            Severity::Note,
            "No other device is connected.",
            "Devices on one LAN find each other by multicast DNS; across VLANs name one with --peer.",
        ));
    }
    let liars = seen.devices.iter().filter(|device| device.penalised).count();
    if liars > 0 {
        found.push(problem(
            Severity::Warning,
            format!(
                "{} may have sent wrong bytes and is not asked for any, for now.",
                counted(liars, "device", "devices")
            ),
            "The log of this device names it. Bad memory or a bad disk is the usual cause.",
        ));
    }
    let surplus = seen.uplink.surplus_bytes;
    if surplus >= SURPLUS_BYTES_MIN && surplus > seen.uplink.bytes / SURPLUS_SHARE {
        found.push(problem(
            Severity::Note,
            format!("{} came over the uplink more than once since this device started.", show_bytes(surplus)),
            "That is so when layers were removed and fetched again; otherwise see whether all devices are connected.",
        ));
    }
    let versions: std::collections::BTreeSet<_> = seen
        .devices
        .iter()
        .filter_map(|device| device.version.as_deref())
        .chain([seen.node.version.as_str()])
        .collect();
    if versions.len() > 1 {
        let versions = versions.into_iter().take(4).collect::<Vec<_>>().join(", ");
        found.push(problem(
            Severity::Note,
            format!("The devices of this site run different versions: {versions}."),
            "Update all devices of a site together.",
        ));
    }
    found
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{
        testing::World,
        types::{OriginStatus, TransferStatus},
    };

    /// A node with one peer and no problem.
    async fn well() -> NodeStatus {
        let mut node = World::new().node().status().await;
        node.origins.retain(|origin| origin.reachable);
        node
    }

    fn device() -> SiteDevice {
        SiteDevice {
            peer_id: "P".to_owned(),
            connected: true,
            address: None,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            platform: None,
            blobs: 0,
            bytes: 0,
            wants: 0,
            wanted_bytes: 0,
            had_bytes: 0,
            fetches: 0,
            penalised: false,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    fn said(node: &NodeStatus, devices: &[SiteDevice], uplink: &SiteUplink) -> Vec<(Severity, String)> {
        let found = problems(&Seen { node, devices, uplink, attached_ill: 0 });
        found.into_iter().map(|problem| (problem.severity, problem.what)).collect()
    }

    fn of(node: &NodeStatus) -> Vec<(Severity, String)> {
        said(node, &[device()], &SiteUplink::default())
    }

    #[tokio::test]
    async fn a_site_that_is_well_has_no_problem() {
        assert_eq!(of(&well().await), []);
    }

    #[tokio::test]
    async fn who_has_no_fleet_or_is_not_let_in_is_told_first() {
        let mut node = well().await;
        node.origins.push(OriginStatus { registry: "gone.test".to_owned(), reachable: false });
        let admission = node.admission.as_mut().unwrap();
        admission.mode = AdmissionMode::Alone;
        admission.problem = Some("cannot read /etc/secret".to_owned());
        let found = of(&node);
        assert_eq!(found[0].1, "This device belongs to no fleet, so it serves itself only.");
        assert_eq!(found[1], (Severity::Warning, "The registry gone.test does not answer.".to_owned()));
        let admission = node.admission.as_mut().unwrap();
        admission.mode = AdmissionMode::Fleet;
        admission.refused.insert("not_a_member".to_owned(), 3);
        admission.refused_by_peers.insert("expired".to_owned(), 0);
        let found = of(&node);
        assert_eq!(found[0], (Severity::Error, "The other devices of the fleet do not let this device in.".to_owned()));
        assert_eq!(found[1].1, "Other devices were not let in since this one started: not a member (3).");
        assert!(found.iter().all(|(_, what)| !what.contains("/etc")), "{found:?}");
    }

    #[tokio::test]
    async fn a_full_disk_and_pinned_blobs_without_room_are_told() {
        let mut node = well().await;
        (node.disk_size, node.disk_free, node.disk_free_min) = (1 << 30, 10 << 20, 64 << 20);
        (node.quota, node.pinned_bytes) = (1000, 960);
        let found = of(&node);
        assert!(
            found[0].1.starts_with("The disk is full: 10.0 MiB are free and 64.0 MiB are to stay free"),
            "{found:?}"
        );
        assert!(found[1].1.starts_with("Pinned layers take 960 B of the 1000 B"), "{found:?}");
    }

    #[tokio::test]
    async fn a_transfer_is_stuck_when_nothing_came_for_long_and_nothing_is_waited_for() {
        let mut node = well().await;
        let transfer = |quiet_s, waits_for: Option<&str>| TransferStatus {
            digest: "sha256:aa".to_owned(),
            size: None,
            bytes: 0,
            sources: Vec::new(),
            quiet_s,
            waits_for: waits_for.map(str::to_owned),
        };
        node.transfers = vec![transfer(29, None), transfer(3000, Some("a window"))];
        assert_eq!(of(&node), []);
        node.transfers.push(transfer(90, None));
        assert_eq!(of(&node)[0].1, "Nothing has come of 1 layer that is wanted for 1 min 30 s.");
    }

    #[tokio::test]
    async fn liars_other_versions_surplus_and_solitude_are_told() {
        let mut node = well().await;
        let other = SiteDevice { version: Some("0.0.1".to_owned()), penalised: true, ..device() };
        let uplink = SiteUplink { bytes: 100 << 20, surplus_bytes: 9 << 20, lately: Vec::new() };
        let found = said(&node, &[other], &uplink);
        let words: Vec<_> =
            found.iter().map(|(_, what)| what.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(words, ["1 device may", "9.00 MiB came", "The devices of"]);
        node.peers = 0;
        assert_eq!(said(&node, &[], &SiteUplink::default())[0].1, "No other device is connected.");
    }
}
