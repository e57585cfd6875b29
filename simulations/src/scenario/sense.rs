//! Faults that would change nothing where they are told to happen.
//!
//! Invariant: a fault that passes can change something. People who write one expect to see it in the report; a run in
//! which nothing goes wrong would tell them that all is well.

use std::time::Duration;

use super::{Fault, FaultKind, Scope, Site};

/// Why a fault makes no sense, and the key that is to blame.
pub(crate) fn against(fault: &Fault, sites: &[Site]) -> Option<(&'static str, String)> {
    let (kind, scope) = (fault.kind, &fault.scope);
    let befalls = |site: &Site| scope.has_site(site) && site.devices.iter().any(|group| scope.has_group(group));
    let there: Vec<_> = sites.iter().filter(|site| befalls(site)).collect();
    if there.is_empty() {
        return None;
    }
    let wrong = |key, why: &str| Some((key, why.to_owned()));
    if fault.lasts == Some(Duration::ZERO) {
        return wrong(
            "lasts",
            "it lasts no time at all: write how long, or leave `lasts` out for what stays to the end",
        );
    }
    if kind.of_site() && !scope.devices.is_empty() {
        return wrong(
            "devices",
            "it befalls whole sites: leave out `devices`; `sites` and `site_share` say which sites",
        );
    }
    if kind.of_site() && scope.share < 1.0 {
        return wrong("share", "it befalls whole sites: leave out `share`; `sites` and `site_share` say which sites");
    }
    let all_there = |holds: &dyn Fn(&Site) -> bool| there.iter().all(|site| holds(site));
    match kind {
        FaultKind::Unranged if all_there(&|site| !site.uplink.ranged) => {
            wrong("kind", "the registry of these sites answers no ranges anyway: leave it out, or `ranges = false`")
        }
        FaultKind::Reboot if fault.lasts.is_none() => wrong(
            "kind",
            "a reboot ends: write how long it takes, such as `lasts = \"1m\"`; `crash` may last to the end",
        ),
        FaultKind::DiskFull if fault.lasts.is_none() => wrong(
            "kind",
            "a device whose disk stays full never has the release: write how long, such as `lasts = \"1m\"`",
        ),
        FaultKind::Partition if all_there(&|site| has_all(scope, site)) => wrong(
            "kind",
            "it befalls all devices of its sites, so nobody is cut off: write `devices` or a `share` below 1",
        ),
        FaultKind::Crash if fault.lasts.is_none() && loses_all(scope, sites) => {
            wrong("kind", "no device is left: write how long it `lasts`, or `sites`, `devices` or a `share` below 1")
        }
        FaultKind::Corrupts | FaultKind::Lies | FaultKind::HasNothing | FaultKind::Stalls
            if all_there(&|site| site.size() == 1) =>
        {
            wrong("kind", "a device that is alone at its site has no peers to do it to: raise the `count` of devices")
        }
        _ => None,
    }
}

fn loses_all(scope: &Scope, sites: &[Site]) -> bool {
    scope.site_share >= 1.0 && sites.iter().all(|site| scope.has_site(site) && has_all(scope, site))
}

/// Whether all devices of a site of that kind are in scope.
fn has_all(scope: &Scope, site: &Site) -> bool {
    let all_groups = site.devices.iter().all(|group| scope.has_group(group));
    all_groups && (scope.share >= 1.0 || site.size() == 1)
}
