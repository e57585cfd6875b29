//! This device: configuration, node, mirror, ports, data directory, disk, clock.

use crate::{
    config::units::{show_bytes, show_duration},
    doctor::{
        Check, Facts, Finding,
        facts::{DirFacts, MirrorAnswer, NodeFacts, RunningFacts},
    },
    wall_clock::CLOCK_MIN_UNIX_S,
};
use std::time::Duration;

/// Fewer files than this that can still be made: the store makes two a blob.
const INODES_MIN: u64 = 1000;
/// A clock that is wrong by more than this is worth a warning: memberships and tags have times.
const CLOCK_OFF_WARN_S: u64 = 120;
/// A clock that is wrong by more than this makes certificates of registries and members invalid.
const CLOCK_OFF_FAIL_S: u64 = 86_400;
/// How the clock is set on most devices.
const SET_CLOCK: &str = "timedatectl set-ntp true    (without an uplink: timedatectl set-time 'YYYY-MM-DD hh:mm:ss')";

pub(in crate::doctor) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    configuration(facts, findings);
    node(facts, findings);
    mirror(facts, findings);
    ports(facts, findings);
    data_directory(facts, findings);
    disk(facts, findings);
    clock(facts, findings);
}

fn configuration(facts: &Facts, findings: &mut Vec<Finding>) {
    findings.push(match &facts.config {
        Ok(config) => Finding::pass(
            Check::Configuration,
            config.file.as_ref().map_or("no file, all defaults".to_owned(), |file| file.display().to_string()),
        ),
        Err(mistakes) => Finding::fail(
            Check::Configuration,
            format!("{} in the configuration, so the node does not start", counted(mistakes.len(), "mistake")),
            mistakes.join("; "),
            "correct the lines that are named, then start the node: systemctl restart layermesh",
        ),
    });
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn node(facts: &Facts, findings: &mut Vec<Finding>) {
    let start = "systemctl start layermesh    (by hand: layermesh run)";
    findings.push(match &facts.node {
        NodeFacts::Running(running) => {
            let status = &running.status;
            let up = show_duration(Duration::from_secs(status.uptime_s.max(0.0) as u64));
            Finding::pass(Check::Node, format!("version {} answers, process {}, up {up}", status.version, status.pid))
        }
        NodeFacts::NotStarted => Finding::fail(
            Check::Node,
            "no node runs on this device",
            format!("nothing listens in {}", facts.data_dir.path.display()),
            format!("{start}; if it runs elsewhere, name its directory with --data-dir"),
        ),
        NodeFacts::Died => Finding::fail(
            Check::Node,
            "the node has ended without tidying up",
            "its socket or run file is there and its process is not: it was killed or crashed",
            "journalctl -u layermesh -n 50, then systemctl start layermesh",
        ),
        NodeFacts::Denied => Finding::fail(
            Check::Node,
            "the node cannot be asked",
            "its admin socket belongs to another user",
            "sudo layermesh doctor",
        ),
        NodeFacts::Ill(what) => Finding::fail(
            Check::Node,
            "the node does not answer as it should",
            what.clone(),
            "systemctl restart layermesh; if it comes again, journalctl -u layermesh says more",
        ),
    });
}

fn mirror(facts: &Facts, findings: &mut Vec<Finding>) {
    let address = facts.mirror.address;
    let finding = match (&facts.mirror.answer, facts.node.running()) {
        (MirrorAnswer::Registry, Some(_)) if is_exposed(facts) => Finding::warn(
            Check::Mirror,
            format!("the mirror answers at {address}, to others on the network as well"),
            "it asks for no password: whoever reaches it pulls with this device's credentials",
            "set `mirror` under [listen] to 127.0.0.1:7117, or give it a password and TLS under [mirror]",
        ),
        (MirrorAnswer::Registry, _) => Finding::pass(Check::Mirror, format!("answers at http://{address}")),
        (MirrorAnswer::Other(status), _) => Finding::fail(
            Check::Mirror,
            format!("another program answers at {address}"),
            format!("it answers /v2/ with status {status}, which no mirror does"),
            format!("ss -ltnp 'sport = :{}' names it; end it, or give the node another mirror address", address.port()),
        ),
        (MirrorAnswer::Nothing(what), Some(_)) => Finding::fail(
            Check::Mirror,
            format!("nothing answers at {address}, where the node says that its mirror is"),
            what.clone(),
            "systemctl restart layermesh",
        ),
        // That no node runs is said already.
        (MirrorAnswer::Nothing(_), None) => return,
    };
    findings.push(finding);
}

/// Whether others on the network can ask the mirror, without a password.
fn is_exposed(facts: &Facts) -> bool {
    let listens = facts.ports.iter().find(|port| port.setting == "--mirror-addr").map(|port| port.address);
    !listens.unwrap_or(facts.mirror.address).ip().is_loopback() && !facts.mirror.is_protected
}

fn ports(facts: &Facts, findings: &mut Vec<Finding>) {
    let taken: Vec<_> = facts.ports.iter().filter_map(|port| Some((port, port.taken_by.as_ref()?))).collect();
    if taken.is_empty() && !facts.ports.is_empty() {
        findings.push(Finding::pass(Check::Ports, "nobody else has the node's ports"));
    }
    for (port, holder) in taken {
        findings.push(Finding::fail(
            Check::Ports,
            format!("port {} is taken, so the node cannot listen there", port.address.port()),
            format!("{holder} listens at {}", port.address),
            format!("end that program, or give the node another port with {}", port.setting),
        ));
    }
}

fn data_directory(facts: &Facts, findings: &mut Vec<Finding>) {
    let path = facts.data_dir.path.display();
    let Some(found) = &facts.data_dir.found else {
        if facts.node.running().is_none() {
            findings.push(Finding::pass(Check::DataDirectory, format!("{path} is made when the node starts")));
        }
        return;
    };
    let before = findings.len();
    if let Some(finding) = foreign(found, facts.node.running(), &path.to_string()) {
        findings.push(finding);
    }
    if found.mode & 0o022 != 0 {
        findings.push(Finding::fail(
            Check::DataDirectory,
            format!("others may write to {path}"),
            format!(
                "its mode is {:o}: whoever changes the store's files changes what runtimes get",
                found.mode & 0o7777
            ),
            format!("chmod go-w {path}"),
        ));
    }
    if let Some(mode) = facts.data_dir.identity_mode.filter(|mode| mode & 0o077 != 0) {
        findings.push(Finding::fail(
            Check::DataDirectory,
            "others may read the node's private key",
            format!("mode {:o} of {path}/{}", mode & 0o7777, crate::identity::IDENTITY_FILE),
            format!("chmod 600 {path}/{}", crate::identity::IDENTITY_FILE),
        ));
    }
    if findings.len() == before {
        findings.push(Finding::pass(Check::DataDirectory, path.to_string()));
    }
}

/// Whether the node may not write to its directory.
fn foreign(found: &DirFacts, running: Option<&RunningFacts>, path: &str) -> Option<Finding> {
    let fail = |cause: String, next: String| {
        Some(Finding::fail(Check::DataDirectory, format!("the node cannot write to {path}"), cause, next))
    };
    match running.and_then(|running| running.uid) {
        Some(uid) if uid != 0 && uid != found.owner && found.mode & 0o002 == 0 => fail(
            format!("it belongs to user {}, and the node runs as user {uid}", found.owner),
            format!("chown -R {uid} {path}"),
        ),
        None if !found.writable && !found.read_only && running.is_none() => fail(
            format!("it belongs to user {}, who is not you", found.owner),
            "start the node as that user (the service does), or as root".to_owned(),
        ),
        _ => None,
    }
}

fn disk(facts: &Facts, findings: &mut Vec<Finding>) {
    let path = facts.data_dir.path.display();
    let status = facts.node.running().map(|running| &running.status);
    let before = findings.len();
    if let Some(found) = &facts.data_dir.found {
        let least = facts.config.as_ref().map_or(crate::config::FREE_BYTES_MIN_DEFAULT, |config| config.free_bytes_min);
        if found.read_only {
            findings.push(Finding::fail(
                Check::Disk,
                format!("nothing can be written to {path}"),
                "its file system is mounted read-only, by the administrator or by the kernel after an error",
                format!("dmesg | tail; then mount -o remount,rw $(findmnt -no TARGET -T {path})"),
            ));
        } else if found.free_bytes <= least {
            findings.push(Finding::fail(
                Check::Disk,
                "the disk is full: no layer is taken in",
                format!(
                    "{} are free, and the node leaves {} to others",
                    show_bytes(found.free_bytes),
                    show_bytes(least)
                ),
                "layermesh gc --dry-run shows what the node would let go; `layermesh gc --to SIZE` does",
            ));
        } else if found.free_inodes.is_some_and(|free| free < INODES_MIN) {
            findings.push(Finding::fail(
                Check::Disk,
                "no more files can be made on the disk",
                format!("{} inodes are free", found.free_inodes.unwrap_or_default()),
                format!("df -i {path}; layermesh gc --to SIZE, or remove small files elsewhere on that disk"),
            ));
        }
    }
    if let Some(status) = status.filter(|status| status.quota > 0) {
        if status.pinned_bytes >= status.quota {
            findings.push(Finding::fail(
                Check::Disk,
                "the store is full of what is pinned: nothing new is kept",
                format!("{} of {} are pinned", show_bytes(status.pinned_bytes), show_bytes(status.quota)),
                "layermesh unpin IMAGE, or a larger `quota` under [store]",
            ));
        } else if status.pinned_bytes > status.quota / 10 * 9 {
            findings.push(Finding::warn(
                Check::Disk,
                "little of the store is left for what is not pinned",
                format!("{} of {} are pinned", show_bytes(status.pinned_bytes), show_bytes(status.quota)),
                "layermesh unpin IMAGE, or a larger `quota` under [store]",
            ));
        }
    }
    if let (true, Some(found)) = (findings.len() == before, &facts.data_dir.found) {
        findings.push(Finding::pass(Check::Disk, format!("{} free in {path}", show_bytes(found.free_bytes))));
    }
}

fn clock(facts: &Facts, findings: &mut Vec<Finding>) {
    let clock = &facts.clock;
    if i64::try_from(clock.unix_s).unwrap_or(i64::MAX) < CLOCK_MIN_UNIX_S {
        findings.push(Finding::fail(
            Check::Clock,
            "the clock is not set",
            format!("it says {}, before this program was made", crate::release::verify::show_time(clock.unix_s)),
            SET_CLOCK,
        ));
        return;
    }
    let Some((ahead, registry)) = &clock.origin_ahead else {
        findings.push(Finding::pass(Check::Clock, "set; no registry answered to compare it with"));
        return;
    };
    let off = ahead.unsigned_abs();
    let way = if *ahead > 0 { "behind" } else { "ahead of" };
    let cause = format!("it is {} {way} that of {registry}", show_duration(Duration::from_secs(off)));
    findings.push(if off > CLOCK_OFF_FAIL_S {
        Finding::fail(Check::Clock, "the clock is wrong: certificates and memberships do not hold", cause, SET_CLOCK)
    } else if off > CLOCK_OFF_WARN_S {
        Finding::warn(Check::Clock, "the clock is wrong", cause, SET_CLOCK)
    } else {
        Finding::pass(Check::Clock, format!("agrees with that of {registry}"))
    });
}
