//! A device on which all is well, and what doctor says when one thing at a time is broken.

use std::{collections::BTreeMap, path::Path};

use super::{
    facts::*,
    firewall::{Packet, Protocol, judge_iptables},
    settings::Setting,
    *,
};
use crate::{
    admin::{testing::World, types::Peer},
    fleet::{AdmissionMode, AdmissionStatus},
    origin::probe::{ProbeError, Way},
    setup::{Facts as OfRuntime, Runtime, Version, tree::fake::Files},
};

const MIRROR: &str = "127.0.0.1:7117";

fn peer(version: &str) -> Peer {
    Peer {
        peer_id: "12D3".to_owned(),
        address: "10.0.0.2:7118".to_owned(),
        bulk: None,
        version: Some(version.to_owned()),
        platform: None,
        blobs: 1,
    }
}

fn admission(mode: AdmissionMode) -> AdmissionStatus {
    AdmissionStatus {
        mode,
        authorities: Vec::new(),
        membership: None,
        problem: None,
        members: 1,
        revocations: 0,
        refused: BTreeMap::new(),
        refused_by_peers: BTreeMap::new(),
    }
}

async fn well() -> Facts {
    let mut status = World::new().node().status().await;
    status.admission = Some(admission(AdmissionMode::Fleet));
    status.version = "1.0.0".to_owned();
    (status.quota, status.pinned_bytes) = (1000, 0);
    Facts {
        version: "1.0.0".to_owned(),
        config: Ok(ConfigFacts {
            file: Some("/etc/layermesh/layermesh.toml".into()),
            mdns: true,
            static_peers: 0,
            mirror: MIRROR.parse().unwrap(),
            free_bytes_min: 64 << 20,
        }),
        node: NodeFacts::Running(Box::new(RunningFacts { status, peers: vec![peer("1.0.0")], uid: Some(990) })),
        mirror: MirrorFacts { address: MIRROR.parse().unwrap(), is_protected: false, answer: MirrorAnswer::Registry },
        ports: vec![PortFacts { setting: "--bulk-addr", address: "0.0.0.0:7119".parse().unwrap(), taken_by: None }],
        data_dir: DataDirFacts {
            path: "/var/lib/layermesh".into(),
            found: Some(DirFacts {
                owner: 990,
                mode: 0o40755,
                writable: true,
                read_only: false,
                free_bytes: 10 << 30,
                free_inodes: Some(1 << 20),
            }),
            identity_mode: Some(0o100600),
        },
        interfaces: vec![InterfaceFacts { name: "eth0".to_owned(), up: true, multicast: true, hears_mdns: true }],
        firewall: FirewallFacts { readable: true, blocked: Vec::new() },
        clock: ClockFacts { unix_s: 1_800_000_000, origin_ahead: Some((1, "docker.io".to_owned())) },
        origins: vec![OriginFacts {
            registry: "r.test".to_owned(),
            endpoint: "r.test".to_owned(),
            configured: true,
            outcome: Ok(Way::Credentials),
        }],
        runtimes: vec![RuntimeFacts {
            runtime: Runtime::Containerd,
            version: Some(Version { major: 2, minor: 1 }),
            settings: Ok(Vec::new()),
            proxy: None,
            pull: PullFacts::Came,
        }],
    }
}

fn running(facts: &mut Facts) -> &mut RunningFacts {
    match &mut facts.node {
        NodeFacts::Running(running) => running,
        other => panic!("{other:?}"),
    }
}

fn dir(facts: &mut Facts) -> &mut DirFacts {
    facts.data_dir.found.as_mut().unwrap()
}

/// Breaks one thing, and demands exactly one finding that is not in order, with a cause in which these words are.
async fn broken(break_it: impl FnOnce(&mut Facts), check: Check, outcome: Outcome, words: &[&str]) {
    let mut facts = well().await;
    break_it(&mut facts);
    let findings = diagnose(&facts);
    let bad: Vec<_> = findings.iter().filter(|finding| finding.outcome != Outcome::Pass).collect();
    assert_eq!(bad.len(), 1, "{check}: {bad:#?}");
    assert_eq!((bad[0].check, bad[0].outcome), (check, outcome), "{bad:#?}");
    let said = format!("{} {}", bad[0].what, bad[0].cause.clone().unwrap());
    for word in words {
        assert!(said.contains(word), "`{word}` is not in `{said}`");
    }
    assert!(bad[0].next.as_ref().is_some_and(|next| !next.is_empty()));
    assert_eq!(worst(&findings), outcome);
}

#[tokio::test]
async fn nothing_is_wrong_where_all_is_well() {
    let findings = diagnose(&well().await);
    let bad: Vec<_> = findings.iter().filter(|finding| finding.outcome != Outcome::Pass).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    // Every check had its say.
    for check in [
        Check::Configuration,
        Check::Node,
        Check::Mirror,
        Check::Ports,
        Check::DataDirectory,
        Check::Disk,
        Check::Interfaces,
        Check::Firewall,
        Check::Clock,
        Check::Fleet,
        Check::Peers,
        Check::Origins,
        Check::Runtime,
        Check::RuntimePull,
        Check::Versions,
    ] {
        assert!(findings.iter().any(|finding| finding.check == check), "{check}");
        let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DOCS)).unwrap();
        assert!(docs.contains(&format!("\n## {check}\n")), "{DOCS} says nothing of {check}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_device() {
    use {Check::*, Outcome::*};
    let mistake = |facts: &mut Facts| facts.config = Err(vec!["layermesh.toml:3: unknown key `mirorr`".to_owned()]);
    broken(mistake, Configuration, Fail, &["1 mistake", "layermesh.toml:3", "mirorr"]).await;
    let silent = |node: NodeFacts| {
        move |facts: &mut Facts| {
            facts.node = node;
            facts.mirror.answer = MirrorAnswer::Nothing("connection refused".to_owned());
        }
    };
    broken(silent(NodeFacts::NotStarted), Node, Fail, &["no node runs", "/var/lib/layermesh"]).await;
    broken(silent(NodeFacts::Died), Node, Fail, &["killed or crashed"]).await;
    broken(silent(NodeFacts::Denied), Node, Fail, &["another user"]).await;
    broken(silent(NodeFacts::Ill("no answer within 10 s".to_owned())), Node, Fail, &["within 10 s"]).await;
    let other = |facts: &mut Facts| facts.mirror.answer = MirrorAnswer::Other(404);
    broken(other, Mirror, Fail, &["another program", "404"]).await;
    let gone = |facts: &mut Facts| facts.mirror.answer = MirrorAnswer::Nothing("connection refused".to_owned());
    broken(gone, Mirror, Fail, &["connection refused"]).await;
    let exposed = |facts: &mut Facts| facts.mirror.address = "10.0.0.5:7117".parse().unwrap();
    broken(exposed, Mirror, Warn, &["no password"]).await;
    let everywhere = |facts: &mut Facts| {
        let address = "0.0.0.0:7117".parse().unwrap();
        facts.ports.push(PortFacts { setting: "--mirror-addr", address, taken_by: None });
    };
    broken(everywhere, Mirror, Warn, &["no password"]).await;
    let taken = |facts: &mut Facts| facts.ports[0].taken_by = Some("nginx (process 7)".to_owned());
    broken(taken, Ports, Fail, &["7119", "nginx (process 7)"]).await;
    broken(|facts| dir(facts).owner = 0, DataDirectory, Fail, &["cannot write", "user 0", "user 990"]).await;
    broken(|facts| dir(facts).mode = 0o40777, DataDirectory, Fail, &["others may write", "777"]).await;
    broken(|facts| facts.data_dir.identity_mode = Some(0o100644), DataDirectory, Fail, &["private key", "644"]).await;
    broken(|facts| dir(facts).read_only = true, Disk, Fail, &["read-only"]).await;
    broken(|facts| dir(facts).free_bytes = 1 << 20, Disk, Fail, &["disk is full", "1.00 MiB"]).await;
    broken(|facts| dir(facts).free_inodes = Some(3), Disk, Fail, &["3 inodes"]).await;
    broken(|facts| running(facts).status.pinned_bytes = 1000, Disk, Fail, &["pinned"]).await;
    broken(|facts| running(facts).status.pinned_bytes = 950, Disk, Warn, &["pinned"]).await;
    broken(|facts| facts.clock.unix_s = 0, Clock, Fail, &["not set", "1970"]).await;
    let ahead = |seconds| move |facts: &mut Facts| facts.clock.origin_ahead = Some((seconds, "r.test".to_owned()));
    broken(ahead(86_401 * 30), Clock, Fail, &["behind that of r.test"]).await;
    broken(ahead(-600), Clock, Warn, &["ahead of that of r.test"]).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_site() {
    use {Check::*, Outcome::*};
    broken(|facts| facts.interfaces[0].up = false, Interfaces, Fail, &["down: eth0"]).await;
    broken(|facts| facts.interfaces.clear(), Interfaces, Fail, &["none but loopback"]).await;
    broken(|facts| facts.interfaces[0].multicast = false, Interfaces, Warn, &["without MULTICAST: eth0"]).await;
    broken(|facts| facts.interfaces[0].hears_mdns = false, Interfaces, Warn, &["224.0.0.251"]).await;
    broken(|facts| facts.config.as_mut().unwrap().mdns = false, Interfaces, Warn, &["mdns = false"]).await;
    let packet = Packet { protocol: Protocol::Udp, port: 5353, what: "multicast DNS" };
    let rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p udp -m udp --dport 5353 -j DROP\n";
    let drops = |facts: &mut Facts| facts.firewall.blocked = judge_iptables(rules, &[packet]);
    broken(drops, Firewall, Fail, &["multicast DNS", "udp port 5353", "--dport 5353 -j DROP"]).await;
    let of = |change: fn(&mut AdmissionStatus)| {
        move |facts: &mut Facts| change(running(facts).status.admission.as_mut().unwrap())
    };
    let alone = of(|admission| admission.mode = AdmissionMode::Alone);
    broken(alone, Fleet, Warn, &["its own device only"]).await;
    let expired = of(|admission| admission.problem = Some("this device's membership has expired".to_owned()));
    broken(expired, Fleet, Fail, &["do not let this one in", "expired"]).await;
    let refused = of(|admission| admission.refused_by_peers.extend([("revoked".to_owned(), 3)]));
    broken(refused, Peers, Warn, &["others refused this node", "revoked (3 times)"]).await;
    let refuses = of(|admission| admission.refused.extend([("stranger".to_owned(), 1)]));
    broken(refuses, Peers, Warn, &["this node refused others", "stranger"]).await;
    broken(|facts| running(facts).peers.clear(), Peers, Warn, &["no other node", "VLANs"]).await;
    let mixed = |facts: &mut Facts| running(facts).peers.push(peer("0.9.0"));
    broken(mixed, Versions, Warn, &["different versions", "0.9.0 on 1"]).await;
    broken(|facts| facts.version = "2.0.0".to_owned(), Versions, Warn, &["1.0.0", "2.0.0"]).await;
}

#[tokio::test]
async fn what_is_wrong_with_registries() {
    use Outcome::*;
    let why = || "because".to_owned();
    for (error, outcome, words) in [
        (ProbeError::Dns(why()), Warn, "cannot be looked up: because"),
        (ProbeError::Connect(why()), Warn, "cannot be connected to: because"),
        (ProbeError::Slow(why()), Warn, "does not answer: because"),
        (ProbeError::Tls(why()), Fail, "cannot prove who it is because"),
        (ProbeError::Refused(why()), Fail, "refuses the credentials because"),
        (ProbeError::NoCredentials, Fail, "wants credentials, and there are none"),
        (ProbeError::NotARegistry(why()), Fail, "is no registry because"),
        (ProbeError::Setup(why()), Fail, "as it is configured because"),
    ] {
        broken(|facts| facts.origins[0].outcome = Err(error), Check::Origins, outcome, &[words]).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_runtimes() {
    use {Check::*, Outcome::*};
    let set = |setting: Setting| move |facts: &mut Facts| facts.runtimes[0].settings = Ok(vec![setting]);
    broken(set(Setting::NotSetUp), Runtime, Warn, &["not told of the mirror"]).await;
    broken(set(Setting::ConfigPathUnset), Runtime, Fail, &["ignores its mirrors", "unset"]).await;
    broken(set(Setting::ConfigPathJoined("/a:/b".to_owned())), Runtime, Fail, &["/a:/b"]).await;
    broken(set(Setting::Deprecated(vec!["docker.io".to_owned()])), Runtime, Fail, &["docker.io", "exclude"]).await;
    broken(set(Setting::HidesDefault("/d/quay.io".into())), Runtime, Fail, &["/d/quay.io", "hides _default"]).await;
    broken(set(Setting::OtherMirror("http://127.0.0.1:9".to_owned())), Runtime, Fail, &["127.0.0.1:9", MIRROR]).await;
    broken(|facts| facts.runtimes[0].settings = Err("x:1: y".to_owned()), Runtime, Fail, &["x:1: y"]).await;
    broken(|facts| facts.runtimes[0].proxy = Some("HTTP_PROXY=p".to_owned()), Runtime, Fail, &["HTTP_PROXY=p"]).await;
    broken(|facts| facts.runtimes.clear(), Runtime, Warn, &["PATH"]).await;
    let failed = |facts: &mut Facts| facts.runtimes[0].pull = PullFacts::Failed("not found".to_owned());
    broken(failed, RuntimePull, Fail, &["does not pull through the node", "not found"]).await;
    // An older containerd understands joined directories.
    let old = |facts: &mut Facts| {
        facts.runtimes[0].version = Some(Version { major: 1, minor: 6 });
        facts.runtimes[0].settings = Ok(vec![Setting::ConfigPathJoined("/a:/b".to_owned())]);
    };
    broken(old, Runtime, Warn, &["after an upgrade"]).await;
}

fn settings(runtime: Runtime, files: &[(&str, &str)]) -> Vec<Setting> {
    settings::inspect(runtime, MIRROR, OfRuntime::default(), &Files::of(files)).unwrap()
}

const CONFIG: &str = "/etc/containerd/config.toml";
const OURS: &str = "[host.\"http://127.0.0.1:7117\"]\n";

#[test]
fn settings_of_containerd_are_read_from_its_files() {
    let table = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n";
    let with = |path: &str| format!("{table}config_path = \"{path}\"\n");
    let default = ("/d/_default/hosts.toml", OURS);
    assert_eq!(settings(Runtime::Containerd, &[(CONFIG, &with("/d")), default]), []);
    assert_eq!(settings(Runtime::Containerd, &[]), [Setting::NotSetUp]);
    let usual = ("/etc/containerd/certs.d/_default/hosts.toml", OURS);
    assert_eq!(settings(Runtime::Containerd, &[(CONFIG, table), usual]), [Setting::ConfigPathUnset]);
    let joined = settings(Runtime::Containerd, &[(CONFIG, &with("/d:/e")), default]);
    assert_eq!(joined, [Setting::ConfigPathJoined("/d:/e".to_owned())]);
    let hidden = ("/d/quay.io/hosts.toml", "server = \"https://quay.io\"\n");
    let hides = settings(Runtime::Containerd, &[(CONFIG, &with("/d")), default, hidden]);
    assert_eq!(hides, [Setting::HidesDefault("/d/quay.io".into())]);
    let other = ("/d/_default/hosts.toml", "[host.\"http://127.0.0.1:5000\"]\n");
    let elsewhere = settings(Runtime::Containerd, &[(CONFIG, &with("/d")), other]);
    assert_eq!(elsewhere, [Setting::OtherMirror("http://127.0.0.1:5000".to_owned())]);
    let deprecated = format!("{table}[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"a.test\"]\n");
    assert_eq!(
        settings(Runtime::Containerd, &[(CONFIG, &deprecated)]),
        [Setting::Deprecated(vec!["a.test".to_owned()])]
    );
    let discards =
        format!("{}[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n", with("/d"));
    assert_eq!(settings(Runtime::Containerd, &[(CONFIG, &discards), default]), [Setting::DiscardsLayers]);
    let broken = Files::of(&[(CONFIG, &with("/d")), ("/d/_default/hosts.toml", "[host\n")]);
    let error = settings::inspect(Runtime::Containerd, MIRROR, OfRuntime::default(), &broken).unwrap_err();
    assert!(error.to_string().starts_with("/d/_default/hosts.toml:1: "), "{error}");
}

#[test]
fn settings_of_the_others_are_read_from_their_files() {
    let docker = |mirrors: &str| {
        settings(Runtime::Docker, &[("/etc/docker/daemon.json", &format!("{{\"registry-mirrors\": [{mirrors}]}}"))])
    };
    assert_eq!(docker("\"http://127.0.0.1:7117/\""), [Setting::DockerIoOnly]);
    assert_eq!(docker("\"https://m.test\""), [Setting::NotSetUp, Setting::DockerIoOnly]);
    assert_eq!(docker("\"http://localhost:1\"")[0], Setting::OtherMirror("http://localhost:1".to_owned()));
    let podman = |mirror: &str| {
        let text =
            format!("[[registry]]\nprefix = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{mirror}/docker.io\"\n");
        settings(Runtime::Podman, &[("/etc/containers/registries.conf.d/a.conf", &text)])
    };
    assert_eq!(podman(MIRROR), []);
    assert_eq!(podman("m.test"), [Setting::NotSetUp]);
    let k3s = |endpoint: &str| {
        let text = format!("mirrors:\n  \"*\":\n    endpoint: [\"{endpoint}\"]\n");
        settings(Runtime::K3s, &[("/etc/rancher/k3s/registries.yaml", &text)])
    };
    assert_eq!(k3s("http://127.0.0.1:7117"), []);
    assert_eq!(k3s("http://127.0.0.1:6000"), [Setting::OtherMirror("http://127.0.0.1:6000".to_owned())]);
}
