//! The site: interfaces, firewall, fleet, peers, versions.

use std::collections::BTreeMap;

use crate::{
    doctor::{Check, Facts, Finding, facts::RunningFacts, firewall::Protocol},
    fleet::{AdmissionMode, AdmissionStatus},
};

pub(in crate::doctor) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    interfaces(facts, findings);
    firewall(facts, findings);
    if let Some(running) = facts.node.running() {
        if let Some(admission) = &running.status.admission {
            fleet(admission, findings);
        }
        peers(facts, running, findings);
        versions(facts, running, findings);
    }
}

fn uses_mdns(facts: &Facts) -> bool {
    facts.config.as_ref().map_or(true, |config| config.mdns)
}

fn has_static_peers(facts: &Facts) -> bool {
    facts.config.as_ref().is_ok_and(|config| config.static_peers > 0)
}

fn interfaces(facts: &Facts, findings: &mut Vec<Finding>) {
    let up: Vec<_> = facts.interfaces.iter().filter(|interface| interface.up).collect();
    let names = |interfaces: &mut dyn Iterator<Item = &str>| interfaces.collect::<Vec<_>>().join(", ");
    if up.is_empty() {
        let down = names(&mut facts.interfaces.iter().map(|interface| interface.name.as_str()));
        let cause = if down.is_empty() { "there is none but loopback".to_owned() } else { format!("down: {down}") };
        findings.push(Finding::fail(
            Check::Interfaces,
            "no network interface is up: neither peers nor registries can be reached",
            cause,
            "ip link; plug the cable in, join the Wi-Fi, or ip link set IFACE up",
        ));
        return;
    }
    if !uses_mdns(facts) {
        findings.push(if has_static_peers(facts) {
            Finding::pass(Check::Interfaces, "peers are named in the configuration; multicast is not used")
        } else {
            Finding::warn(
                Check::Interfaces,
                "this node looks for nobody",
                "`mdns = false`, and no peer is named",
                "under [mesh] leave `mdns` out, or name a node: peers = [\"/ip4/10.0.0.7/tcp/7118\"]",
            )
        });
        return;
    }
    if up.iter().all(|interface| !interface.multicast) {
        findings.push(Finding::warn(
            Check::Interfaces,
            "no interface can multicast, so devices do not find each other by themselves",
            format!("without MULTICAST: {}", names(&mut up.iter().map(|interface| interface.name.as_str()))),
            format!("ip link set {} multicast on; or name a peer under [mesh]: peers = [...]", up[0].name),
        ));
        return;
    }
    if facts.node.running().is_some() && up.iter().all(|interface| !interface.hears_mdns) {
        findings.push(Finding::warn(
            Check::Interfaces,
            "the node hears no multicast DNS",
            "it has joined 224.0.0.251 on no interface: the network came after it, or it is another's namespace",
            "systemctl restart layermesh",
        ));
        return;
    }
    let able = names(&mut up.iter().filter(|interface| interface.multicast).map(|interface| interface.name.as_str()));
    findings.push(Finding::pass(Check::Interfaces, format!("up and able to multicast: {able}")));
}

fn firewall(facts: &Facts, findings: &mut Vec<Finding>) {
    if !facts.firewall.readable {
        findings.push(Finding::pass(Check::Firewall, "its rules cannot be read; as root more can be said"));
        return;
    }
    if facts.firewall.blocked.is_empty() {
        findings.push(Finding::pass(Check::Firewall, "lets in what the node needs"));
    }
    for blocked in &facts.firewall.blocked {
        let protocol = match blocked.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        findings.push(Finding::fail(
            Check::Firewall,
            format!("this device's firewall drops {} ({protocol} port {})", blocked.what, blocked.port),
            format!("{}: {}", blocked.tool, blocked.rule),
            format!("{}    (ufw: ufw allow {}/{protocol})", blocked.accept(), blocked.port),
        ));
    }
}

fn fleet(admission: &AdmissionStatus, findings: &mut Vec<Finding>) {
    findings.push(match (admission.mode, &admission.problem) {
        (AdmissionMode::Alone, problem) => Finding::warn(
            Check::Fleet,
            "this node serves its own device only",
            problem.clone().unwrap_or_else(|| "it has no fleet".to_owned()),
            "set [fleet] authorities = [...] in layermesh.toml, or run with --open on a network that you trust",
        ),
        (_, Some(problem)) => Finding::fail(
            Check::Fleet,
            "other devices of the fleet do not let this one in",
            problem.clone(),
            "layermesh fleet show; then as it says, or with an enrolment key: [fleet] enrolment_key",
        ),
        (AdmissionMode::Open, None) => {
            Finding::pass(Check::Fleet, "open: everybody on the LAN is let in, and gets all that this node holds")
        }
        (AdmissionMode::Fleet, None) => Finding::pass(Check::Fleet, "this device is a member"),
    });
}

fn peers(facts: &Facts, running: &RunningFacts, findings: &mut Vec<Finding>) {
    let admission = running.status.admission.as_ref();
    let before = findings.len();
    if let Some(admission) = admission {
        let words = |counts: &BTreeMap<String, u64>| {
            let counts = counts.iter().filter(|(_, count)| **count > 0);
            counts.map(|(reason, count)| format!("{reason} ({count} times)")).collect::<Vec<_>>().join(", ")
        };
        let (ours, theirs) = (words(&admission.refused), words(&admission.refused_by_peers));
        if !theirs.is_empty() {
            findings.push(Finding::warn(
                Check::Peers,
                "others refused this node",
                theirs,
                "layermesh fleet show, here and there: both need the same authority and a membership that holds",
            ));
        }
        if !ours.is_empty() {
            findings.push(Finding::warn(
                Check::Peers,
                "this node refused others",
                ours,
                "expected of strangers; a device of yours needs `layermesh fleet admit PEER_ID`",
            ));
        }
    }
    match running.peers.len() {
        0 if admission.is_some_and(|admission| admission.mode == AdmissionMode::Alone) => {}
        0 if findings.len() == before => findings.push(Finding::warn(
            Check::Peers,
            "no other node is found",
            if uses_mdns(facts) {
                "none answers multicast DNS: this is the only device, or the network keeps devices apart (VLANs, Wi-Fi \
                 client isolation, IGMP snooping)"
            } else {
                "multicast DNS is off, and no peer that is named answers"
            },
            "on another device: layermesh doctor; across VLANs name one under [mesh]: peers = [\"/ip4/.../tcp/7118\"]",
        )),
        0 => {}
        1 => findings.push(Finding::pass(Check::Peers, "connected with 1 other node")),
        count => findings.push(Finding::pass(Check::Peers, format!("connected with {count} other nodes"))),
    }
}

fn versions(facts: &Facts, running: &RunningFacts, findings: &mut Vec<Finding>) {
    let own = &running.status.version;
    if *own != facts.version {
        findings.push(Finding::warn(
            Check::Versions,
            "the node is not the program that is installed",
            format!("it runs version {own}, and this is {}", facts.version),
            "systemctl restart layermesh",
        ));
    }
    let mut count: BTreeMap<&str, usize> = BTreeMap::from([(own.as_str(), 1)]);
    for version in running.peers.iter().filter_map(|peer| peer.version.as_deref()) {
        *count.entry(version).or_default() += 1;
    }
    let words = count.iter().map(|(version, count)| format!("{version} on {count}")).collect::<Vec<_>>().join(", ");
    findings.push(if count.len() > 1 {
        Finding::warn(
            Check::Versions,
            "the site's devices run different versions",
            words,
            "layermesh peers --json names them; upgrade the older ones (they share layers meanwhile)",
        )
    } else {
        Finding::pass(Check::Versions, words)
    });
}
