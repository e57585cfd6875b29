//! What this device's kernel and file system say.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::kernel;
use crate::{
    doctor::{
        facts::{DataDirFacts, DirFacts, FirewallFacts, InterfaceFacts},
        firewall::{Packet, judge_iptables, judge_nft},
    },
    identity::IDENTITY_FILE,
    setup::ask::said,
};

/// `IFF_UP`, `IFF_LOOPBACK`, `IFF_RUNNING` and `IFF_MULTICAST` of an interface's flags.
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const RUNNING: u32 = 0x40;
const MULTICAST: u32 = 0x1000;
/// 224.0.0.251, the group of multicast DNS, as the kernel prints it.
const MDNS_GROUP: &str = "FB0000E0";
/// State of a TCP socket that listens, as the kernel prints it.
const LISTENING: &str = "0A";
/// Interfaces that are looked at.
const INTERFACES_MAX: usize = 256;

/// The network interfaces but for loopback, and those that containers' ends hang on.
pub(super) fn interfaces() -> Vec<InterfaceFacts> {
    let groups = kernel("/proc/net/igmp").unwrap_or_default();
    let names = kernel("/proc/net/dev").unwrap_or_default();
    let names = names.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let mut interfaces = Vec::new();
    for name in names.take(INTERFACES_MAX) {
        let file = |file: &str| kernel(format!("/sys/class/net/{name}/{file}")).map(|text| text.trim().to_owned());
        let flags = file("flags").and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        // Of an interface that the kernel shows nowhere else nothing bad is assumed.
        let flags = flags.unwrap_or(if name == "lo" { LOOPBACK } else { UP | RUNNING | MULTICAST });
        if flags & LOOPBACK != 0 || name.starts_with("veth") {
            continue;
        }
        let carrier = file("carrier").is_none_or(|carrier| carrier != "0");
        interfaces.push(InterfaceFacts {
            up: flags & UP != 0 && carrier,
            multicast: flags & MULTICAST != 0,
            hears_mdns: joined(&groups, &name),
            name,
        });
    }
    interfaces
}

/// Whether somebody joined the group of multicast DNS on an interface.
fn joined(groups: &str, interface: &str) -> bool {
    let mut here = false;
    for line in groups.lines().skip(1) {
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            here = line.split_whitespace().nth(1).is_some_and(|name| name.trim_end_matches(':') == interface);
        } else if here && line.trim_start().starts_with(MDNS_GROUP) {
            return true;
        }
    }
    false
}

/// What the firewall drops of these packets. Both of its tools are asked: rules of the older one are not among the
/// newer's.
pub(super) async fn firewall(packets: &[Packet]) -> FirewallFacts {
    let nft = said(&["nft", "-j", "list", "ruleset"]).await;
    let legacy = match said(&["iptables-legacy-save", "-t", "filter"]).await {
        None if nft.is_none() => said(&["iptables-save", "-t", "filter"]).await,
        legacy => legacy,
    };
    let ruleset = nft.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut blocked = ruleset.as_ref().map(|ruleset| judge_nft(ruleset, packets)).unwrap_or_default();
    for other in legacy.iter().flat_map(|text| judge_iptables(text, packets)) {
        if blocked.iter().all(|one| (one.port, one.protocol) != (other.port, other.protocol)) {
            blocked.push(other);
        }
    }
    FirewallFacts { readable: nft.is_some() || legacy.is_some(), blocked }
}

/// The data directory and its disk.
pub(super) fn data_dir(path: &Path) -> DataDirFacts {
    let mode = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.permissions().mode());
    let found = fs::metadata(path).ok().zip(statvfs(path).ok()).map(|(metadata, disk)| DirFacts {
        owner: metadata.uid(),
        mode: metadata.mode(),
        writable: access(path, Access::WRITE_OK).is_ok(),
        read_only: disk.f_flag.contains(StatVfsMountFlags::RDONLY),
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        free_inodes: (disk.f_files > 0).then_some(disk.f_favail),
    });
    DataDirFacts { path: path.to_owned(), found, identity_mode: mode(&path.join(IDENTITY_FILE)) }
}

/// The user that a process runs as.
pub(super) fn user_of(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// Who listens at an address and is not the process `node`; its name, if that can be seen.
pub(super) fn foreign_listener(address: SocketAddr, node: Option<u32>) -> Option<String> {
    // The node listens at its addresses itself.
    if node.is_some() {
        return None;
    }
    let tables = [kernel("/proc/net/tcp"), kernel("/proc/net/tcp6")];
    let tables: Vec<&str> = tables.iter().flatten().map(String::as_str).collect();
    let inode = tables.iter().find_map(|table| listener(table, address.port()))?;
    Some(holder(&inode).unwrap_or_else(|| "another program".to_owned()))
}

/// The inode of the socket that listens on a port, in a table of sockets.
fn listener(table: &str, port: u16) -> Option<String> {
    let port = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1)?.ends_with(&port) && words.get(3) == Some(&LISTENING))
            .then(|| (*words.get(9).unwrap_or(&"")).to_owned())
    })
}

/// The process that has a socket open.
fn holder(inode: &str) -> Option<String> {
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    for process in processes {
        let name = process.file_name().into_string().ok()?;
        if !name.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let links = files.filter_map(Result::ok).filter_map(|file| fs::read_link(file.path()).ok());
        if links.into_iter().any(|link| link.as_os_str() == socket.as_str()) {
            let command = kernel(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {name})", command.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_of_the_interface() {
        let groups = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                      1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
                      2\teth0      :     2      V3\n\t\t\t\tFB0000E0     1 0:0\t\t0\n\t\t\t\t010000E0     1 0:0\t\t0\n";
        assert!(joined(groups, "eth0"));
        assert!(!joined(groups, "lo") && !joined(groups, "eth1"));
    }

    #[test]
    fn a_listener_is_found_with_its_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let own = format!("(process {})", std::process::id());
        assert!(foreign_listener(address, None).is_some_and(|holder| holder.ends_with(&own)));
        assert_eq!(foreign_listener(address, Some(1)), None);
        drop(socket);
        assert_eq!(foreign_listener(address, None), None);
    }

    #[test]
    fn a_directory_and_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let facts = data_dir(dir.path());
        let found = facts.found.unwrap();
        assert!(found.writable && !found.read_only && found.free_bytes > 0);
        assert_eq!((found.mode & 0o777, facts.identity_mode), (0o700, None));
        assert_eq!(data_dir(&dir.path().join("absent")).found, None);
    }
}
