use std::{collections::BTreeMap, path::Path, time::Duration};

use layermesh_proto::engine::tags::{TagPolicy, TagRule};

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let mut all = BTreeMap::from([("HOME".to_owned(), "/nowhere".to_owned())]);
    all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Environment { variables: all, system_writable: false }
}

fn with_file(text: &str, variables: &[(&str, &str)], flags: Layer) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layermesh.toml");
    std::fs::write(&path, text).unwrap();
    load(flags, Some(&path), &environment(variables))
}

fn mistakes(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layermesh.toml");
    std::fs::write(&path, text).unwrap();
    let errors = load(Layer::default(), Some(&path), &environment(&[])).unwrap_err();
    let prefix = format!("{}/", dir.path().display());
    errors.0.iter().map(|error| error.to_string().replace(&prefix, "")).collect()
}

#[test]
fn without_any_source_the_documented_defaults_hold() {
    let config = with_file("", &[], Layer::default()).unwrap();
    assert_eq!(config.data_dir, Path::new("/nowhere/.local/share/layermesh"));
    assert_eq!(config.mirror.to_string(), "127.0.0.1:7117");
    assert_eq!(config.peers.to_string(), "0.0.0.0:7118");
    assert_eq!(config.bulk.to_string(), "0.0.0.0:7119");
    assert_eq!(config.status.to_string(), "127.0.0.1:7120");
    assert!(config.mdns && config.static_peers.is_empty() && config.origins.is_empty());
    assert_eq!(config.store_free_bytes_min, 64 << 20);
    assert_eq!(config.store_quota, Quota { bytes: None, share_percent: 50 });
    assert_eq!((config.uplink_bytes_per_s, config.lan_bytes_per_s), (None, None));
    assert_eq!((config.uplink, config.uplink_own), (Uplink::default(), false));
    assert_eq!(config.log, LogConfig { format: LogFormat::Text, filter: LOG_FILTER_DEFAULT.to_owned() });
}

#[test]
fn a_tiny_device_is_told_by_one_word_and_told_more_by_others() {
    let tiny = with_file("profile = \"tiny\"\n", &[], Layer::default()).unwrap();
    assert_eq!((tiny.profile, tiny.deltas), (Profile::Tiny, Deltas::Tiny));
    let text = "profile = \"tiny\"\n[store]\ndeltas = \"off\"\n";
    assert_eq!(with_file(text, &[], Layer::default()).unwrap().deltas, Deltas::Off, "the file says so");
    let normal = with_file(text, &[("LAYERMESH_PROFILE", "normal")], Layer::default()).unwrap();
    assert_eq!((normal.profile, normal.deltas), (Profile::Normal, Deltas::Off));
    let said = "layermesh.toml:1: `small` is not what a device is like: write `normal` or `tiny`";
    assert_eq!(mistakes("profile = \"small\"\n"), [said]);
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let text = r#"
        [listen]
        mirror = "127.0.0.1:1"
        bulk = "127.0.0.1:2"
        status = "127.0.0.1:3"
        [mesh]
        peers = ["/ip4/10.0.0.1/tcp/1"]
        [[origin]]
        registry = "a.test"
        endpoint = "https://file.test"
        [[origin]]
        registry = "b.test"
        endpoint = "https://file.test"
    "#;
    let mut flags = Layer::default();
    flags.flag(Setting::Mirror, "127.0.0.1:30");
    flags.flag_origins(vec!["b.test=http://flag.test:80".to_owned()]);
    let variables = [("LAYERMESH_MIRROR_ADDR", "127.0.0.1:20"), ("LAYERMESH_BULK_ADDR", "127.0.0.1:21")];
    let config = with_file(text, &variables, flags).unwrap();
    assert_eq!([config.mirror.port(), config.bulk.port(), config.status.port()], [30, 21, 3]);
    assert_eq!(config.static_peers.len(), 1);
    let origins: Vec<_> = config
        .origins
        .iter()
        .map(|origin| (origin.registry.as_str(), origin.endpoint.as_ref().unwrap().as_str(), origin.plain_http))
        .collect();
    assert_eq!(origins, [("a.test", "https://file.test/", false), ("b.test", "http://flag.test/", true)]);

    let variables =
        [("LAYERMESH_PEERS", "/ip4/10.0.0.2/tcp/1,/dns/x/tcp/2 /ip6/::1/tcp/3"), ("LAYERMESH_MDNS", "false")];
    let config = with_file(text, &variables, Layer::default()).unwrap();
    assert_eq!((config.static_peers.len(), config.mdns), (3, false));
}

#[test]
fn every_mistake_is_reported_with_its_line_and_a_remedy() {
    let text = r#"
data-dir = "/x"
mirror = "127.0.0.1:7117"
[listen]
mirror = "7117"
bulk = "127.0.0.1"
[store]
free_bytes_min = "64M"
[mesh]
fleet = "a b"
mdns = "maybe"
peers = ["10.0.0.1:7118", "/ip4/10.0.0.1/udp/7118"]
[[origin]]
endpoint = "https://x.test"
[[origin]]
registry = "docker.io/library"
[[origin]]
registry = "plain.test"
endpoint = "http://plain.test"
username = "u"
[log]
format = "yaml"
fliter = "info"
"#;
    let found = mistakes(text);
    let expected = [
        "layermesh.toml:2: unknown key `data-dir`; did you mean `data_dir`?",
        "layermesh.toml:3: `mirror` is a table: write `[mirror]`; the key `mirror` belongs under `[listen]`",
        "layermesh.toml:5: `7117` is a port: write the address too, such as `127.0.0.1:7117`",
        "layermesh.toml:6: `127.0.0.1` is not an address and port",
        "layermesh.toml:8: `64M` is not a size",
        "layermesh.toml:10: `a b` is not a fleet's name",
        "layermesh.toml:11: `maybe` is neither true nor false",
        "layermesh.toml:12: `10.0.0.1:7118` is not a multiaddress",
        "layermesh.toml:12: `/ip4/10.0.0.1/udp/7118` has no TCP port",
        "layermesh.toml:13: an origin needs `registry",
        "layermesh.toml:16: `docker.io/library` is not a registry",
        "layermesh.toml:19: plain HTTP is neither private nor authentic",
        "layermesh.toml:20: a user name needs `password_file`",
        "layermesh.toml:22: `yaml` is not a log format: write `text` or `json`",
        "layermesh.toml:23: unknown key `log.fliter`; did you mean `filter`?",
    ];
    for text in expected {
        assert!(found.iter().any(|error| error.starts_with(text)), "missing: {text}\nfound: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn syntax_errors_have_their_line_too() {
    let found = mistakes("[listen]\nmirror = \n[mesh]\nfleet = a\n");
    assert!(found.iter().any(|error| error.starts_with("layermesh.toml:2:")), "{found:#?}");
    assert!(found.iter().any(|error| error.starts_with("layermesh.toml:4:")), "{found:#?}");
}

#[test]
fn a_mistyped_variable_is_an_error_and_a_foreign_one_is_not() {
    let errors = with_file("", &[("LAYERMESH_MIROR_ADDR", "x")], Layer::default()).unwrap_err();
    assert_eq!(
        errors.0[0].to_string(),
        "LAYERMESH_MIROR_ADDR: unknown variable; did you mean `LAYERMESH_MIRROR_ADDR`?"
    );
    // Kubernetes sets these for a service named layermesh.
    assert!(
        with_file("", &[("LAYERMESH_SERVICE_HOST", "10.0.0.1"), ("LAYERMESH_PORT", "x")], Layer::default()).is_ok()
    );
}

#[test]
fn two_services_on_one_port_are_refused() {
    let mut flags = Layer::default();
    flags.flag(Setting::Status, "127.0.0.1:7117");
    let errors = with_file("", &[], flags).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert!(errors.0[0].to_string().starts_with("--status-addr: --status-addr and --mirror-addr"), "{errors}");
    let mut flags = Layer::default();
    for setting in [Setting::Mirror, Setting::Peers, Setting::Bulk, Setting::Status] {
        flags.flag(setting, "127.0.0.1:0");
    }
    assert!(with_file("", &[], flags).is_ok(), "port 0 is any free port");
}

#[test]
fn credentials_come_from_a_file_beside_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "s3cret\n").unwrap();
    let path = dir.path().join("layermesh.toml");
    std::fs::write(&path, "[[origin]]\nregistry = \"r.test\"\nusername = \"u\"\npassword_file = \"pw\"\n").unwrap();
    let config = load(Layer::default(), Some(&path), &environment(&[])).unwrap();
    assert_eq!(config.origins[0].credentials.as_ref().unwrap().password, "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let missing = Path::new("/nowhere/layermesh.toml");
    assert!(load(Layer::default(), Some(missing), &environment(&[])).is_err());
    assert!(load(Layer::default(), None, &environment(&[("LAYERMESH_CONFIG", "/nowhere/x.toml")])).is_err());
}

#[test]
fn admin_commands_find_the_data_dir_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layermesh.toml");
    std::fs::write(&path, "data_dir = \"data\"\nnonsense = 1\n").unwrap();
    let named = path.to_str().unwrap();
    let find =
        |flag: Option<&str>, variables: &[(&str, &str)]| find_data_dir(flag.map(Into::into), &environment(variables));
    assert_eq!(find(None, &[("LAYERMESH_CONFIG", named)]), Some(dir.path().join("data")));
    assert_eq!(find(None, &[("LAYERMESH_CONFIG", named), ("LAYERMESH_DATA_DIR", "/v")]), Some("/v".into()));
    assert_eq!(find(Some("/f"), &[("LAYERMESH_DATA_DIR", "/v")]), Some("/f".into()));
}

#[test]
fn admin_commands_find_the_socket_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layermesh.toml");
    std::fs::write(&path, "[admin]\nsocket = \"run/admin.sock\"\nnonsense = 1\n").unwrap();
    let named = [("LAYERMESH_CONFIG", path.to_str().unwrap())];
    assert_eq!(find_admin_socket(&environment(&named)), Some(dir.path().join("run/admin.sock")));
    assert_eq!(find_admin_socket(&environment(&[("LAYERMESH_ADMIN_SOCKET", "/v")])), Some("/v".into()));
    assert_eq!(find_admin_socket(&environment(&[])), None);
}

#[test]
fn who_may_ask_the_mirror_and_the_admin_socket() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["pw", "cert.pem", "key.pem"] {
        std::fs::write(dir.path().join(name), "s3cret\n").unwrap();
    }
    let path = dir.path().join("layermesh.toml");
    let text = r#"
[listen]
mirror = "0.0.0.0:7117"
[mirror]
certificate = "cert.pem"
key = "key.pem"
username = "device"
password_file = "pw"
[admin]
socket = "/run/layermesh/admin.sock"
group = "root"
"#;
    std::fs::write(&path, text).unwrap();
    let config = load(Layer::default(), Some(&path), &environment(&[])).unwrap();
    assert_eq!(config.mirror_access.tls, Some((dir.path().join("cert.pem"), dir.path().join("key.pem"))));
    assert_eq!(config.mirror_access.credentials.as_ref().unwrap().password, "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"));
    let admin = AdminConfig { socket: Some("/run/layermesh/admin.sock".into()), group: Some(0.into()) };
    assert_eq!(config.admin, admin);
    let found = with_file("", &[("LAYERMESH_ADMIN_GROUP", "12")], Layer::default()).unwrap();
    assert_eq!(found.admin, AdminConfig { socket: None, group: Some(12.into()) }, "a number names a group, too");
}

#[test]
fn passwords_that_would_cross_the_network_in_the_clear_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pw"), "x").unwrap();
    let password = format!("username = \"u\"\npassword_file = \"{}/pw\"\n", dir.path().display());
    let on = |address: &str| format!("[listen]\nmirror = \"{address}\"\n[mirror]\n{password}");
    let found = mistakes(&on("0.0.0.0:7117"));
    assert!(found[0].starts_with("layermesh.toml:4: without TLS the password crosses the network"), "{found:?}");
    assert!(with_file(&on("127.0.0.1:7117"), &[], Layer::default()).is_ok());
    let found = mistakes("[mirror]\nkey = \"k\"\nusername = \"u\"\n[admin]\ngroup = \"no such group\"\n");
    let expected = [
        "layermesh.toml:2: a key needs its `certificate` beside it",
        "layermesh.toml:3: a user name needs `password_file` beside it",
        "layermesh.toml:5: there is no group `no such group` on this device: make it with",
    ];
    for text in expected {
        assert!(found.iter().any(|error| error.starts_with(text)), "missing: {text}\nfound: {found:#?}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_uplink_has_a_meter_windows_and_a_rate_for_the_site() {
    let text = "[uplink]\nmetered = true\nsite_rate = \"8mbit\"\nwindows = [\"mon-fri 22:00-06:00\", \"sat,sun\"]\n";
    let uplink = |variables: &[(&str, &str)], flags| with_file(text, variables, flags).unwrap().uplink;
    let of_file = uplink(&[], Layer::default());
    assert_eq!((of_file.metered, of_file.site_bytes_per_s, of_file.windows.len()), (true, Some(1_000_000), 2));
    // A window has commas and spaces in it.
    let variables = [("LAYERMESH_UPLINK_WINDOWS", "mon,tue 01:00-02:00; 22:00-06:00; sun ;")];
    assert_eq!(uplink(&variables, Layer::default()).windows.len(), 3);
    assert!(uplink(&[("LAYERMESH_UPLINK_WINDOWS", "")], Layer::default()).windows.is_empty());
    let mut flags = Layer::default();
    flags.flag_windows(vec!["sun".to_owned()]);
    assert_eq!(uplink(&variables, flags).windows.len(), 1);
}

#[test]
fn mistakes_in_windows_show_how_to_write_one() {
    let text = r#"
[uplink]
metered = "sometimes"
windows = ["mon-fri 22-6", 5]
site_rate = "0mbit"
[lan]
windows = ["sat"]
"#;
    let found = mistakes(text);
    let expected = [
        "layermesh.toml:3: `sometimes` is neither true nor false",
        "layermesh.toml:4: `mon-fri 22-6` is not a window: `22` is no time of day, which is written as `06:00`; \
         write one such as `mon-fri 22:00-06:00`, `sat,sun` or `01:00-05:00`",
        "layermesh.toml:4: `5` is not a window: `5` is no day",
        "layermesh.toml:5: `0mbit` is no rate at all",
        "layermesh.toml:7: unknown key `lan.windows`; `windows` belongs under `[uplink]`",
    ];
    for text in expected {
        assert!(found.iter().any(|error| error.starts_with(text)), "missing: {text}\nfound: {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let one = mistakes("[uplink]\nwindows = \"sat,sun\"\n");
    let list = "layermesh.toml:2: `windows` is a list: write `windows = [\"mon-fri 22:00-06:00\", \"sat,sun\"]`";
    assert_eq!(one, [list]);
    let many = format!("[uplink]\nwindows = [{}]\n", "\"sat\",".repeat(15));
    assert_eq!(mistakes(&many), ["layermesh.toml:2: more than 14 windows"]);
}

#[test]
fn registries_have_rules_for_tags() {
    let text = r#"
        [tags]
        policy = "site-first"
        max_age = "24h"
        fresh = "30s"
        [[registry]]
        name = "docker.io"
        policy = "origin-first"
        [[registry]]
        name = "a.test"
        fresh = "0s"
        [[registry]]
        name = "b.test"
        policy = "signed-only"
        [[registry]]
        name = "c.test"
        policy = "site-first"
    "#;
    let rules = with_file(text, &[], Layer::default()).unwrap().tags;
    let rule = |registry: &str| (rules.of(registry).policy, rules.of(registry).fresh_for.as_secs());
    let site_first = |hours: u64| TagPolicy::SiteFirst { age_max: Duration::from_secs(hours * 3600) };
    assert_eq!(rule("other.test"), (site_first(24), 30));
    assert_eq!(rule("docker.io"), (TagPolicy::OriginFirst, 30));
    assert_eq!(rule("a.test"), (site_first(24), 0));
    assert_eq!(rule("b.test"), (TagPolicy::SignedOnly, 30));
    assert_eq!(rule("c.test"), (site_first(1), 30));
    let variables = [("LAYERMESH_TAG_POLICY", "signed-only"), ("LAYERMESH_TAG_FRESH", "1min")];
    let rules = with_file("", &variables, Layer::default()).unwrap().tags;
    assert_eq!(rules.of("any.test"), TagRule { policy: TagPolicy::SignedOnly, fresh_for: Duration::from_secs(60) });
}

#[test]
fn mistakes_in_rules_for_tags_say_what_to_write() {
    let text = r#"
[tags]
policy = "site"
fresh = "2h"
[[registry]]
policy = "site-first"
[[registry]]
name = "a.test"
max_age = "1w"
[[registry]]
name = "a.test"
endpoint = "https://b.test"
polcy = "signed-only"
"#;
    let expected = [
        "layermesh.toml:3: `site` is no policy for tags: write `origin-first`, `site-first` or `signed-only`",
        "layermesh.toml:4: `2h` is longer than an hour: if the site need not ask so often, write `policy",
        "layermesh.toml:5: a registry needs `name",
        "layermesh.toml:9: `1w` is not a time",
        "layermesh.toml:9: a maximum age is for `policy = \"site-first\"`: add that",
        "layermesh.toml:10: a second `[[registry]]` named `a.test`: make them one",
        "layermesh.toml:12: unknown key `registry.endpoint`; `endpoint` belongs under an `[[origin]]`",
        "layermesh.toml:13: unknown key `registry.polcy`; did you mean `policy`?",
    ];
    let mut found = mistakes(text);
    let line = |text: &String| text.split(':').nth(1).and_then(|line| line.parse::<u32>().ok());
    found.sort_by_key(line);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
}

#[test]
fn a_quota_is_a_size_and_a_share_of_the_disk() {
    let quota = |text: &str| with_file(text, &[], Layer::default()).unwrap().store_quota;
    assert_eq!(
        quota("[store]\nquota = \"20GiB\"\nquota_share = \"80%\""),
        Quota { bytes: Some(20 << 30), share_percent: 80 }
    );
    assert_eq!(quota("[store]\nquota = \"unlimited\"\nquota_share = 100"), Quota { bytes: None, share_percent: 100 });
    let wrong = mistakes("[store]\nquota = 0\nquota_share = \"101%\"");
    assert!(wrong[0].contains("write a quota such as `20GiB`") && wrong[1].contains("1 to 100 percent"), "{wrong:?}");
}

#[test]
fn attached_stores_are_directories_of_the_file() {
    let text =
        "[[store.attached]]\npath = \"/var/lib/containerd/x\"\n[[store.attached]]\npath = \"stick\"\nreuse = true\n";
    let attached = with_file(text, &[], Layer::default()).unwrap().store_attached;
    assert_eq!(attached[0], AttachedConfig { path: "/var/lib/containerd/x".into(), reuse: false });
    assert!(attached[1].reuse && attached[1].path.is_absolute() && attached[1].path.ends_with("stick"));
    let wrong = mistakes("[store]\nattached = \"/x\"");
    assert!(wrong[0].contains("[[store.attached]]"), "{wrong:?}");
    let wrong = mistakes(
        "[[store.attached]]\nreuse = \"maybe\"\n[[store.attached]]\npath = \"/a\"\n[[store.attached]]\npath = \"/a\"\nx = 1",
    );
    assert_eq!(wrong.len(), 4, "{wrong:?}");
}

#[test]
fn a_fleet_has_authorities_or_is_open_and_without_either_the_node_is_alone() {
    let (old, new) = (
        "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq",
        layermesh_proto::NodeId::from_public_key([7; 32]).to_string(),
    );
    let text = format!("[fleet]\nauthorities = [\"{old}\", \"{new}\", \"{old}\"]\nmembership = \"m.pem\"\n");
    let of = |text: &str, variables: &[(&str, &str)]| with_file(text, variables, Layer::default()).unwrap().admission;
    let admission = of(&text, &[]);
    assert_eq!(admission.authorities.iter().map(ToString::to_string).collect::<Vec<_>>(), [old, new.as_str()]);
    assert!(admission.membership.unwrap().ends_with("m.pem") && !admission.open);
    assert_eq!(of(&text, &[("LAYERMESH_FLEET_AUTHORITIES", new.as_str())]).authorities.len(), 1);
    assert!(of("", &[]).is_alone());
    assert!(!of("[fleet]\nopen = true\n", &[]).is_alone());
    assert!(of("", &[("LAYERMESH_OPEN", "true")]).open);

    let wrong = format!(
        "[fleet]\nopen = true\nauthorities = [\"x\", \"{old}\", \"{old}\", \"{old}\", \"{old}\"]\n[mesh]\nopen = true\n"
    );
    let found = mistakes(&wrong);
    for part in ["is not an authority's id", "more than 4 authorities", "leave out one of the two", "`[fleet]`"] {
        assert!(found.iter().any(|mistake| mistake.contains(part)), "{part}: {found:?}");
    }
    let found = mistakes("[fleet]\nenrolment_key = \"k\"\n");
    assert!(found[0].contains("needs the fleet's authority"), "{found:?}");
}
