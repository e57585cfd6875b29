//! Configuration files as they are found on machines, set up and taken back.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

use proptest::prelude::*;

use super::{tree::fake::Files, *};

const DEBIAN: &str = include_str!("testdata/containerd-debian-12.toml");
const DEFAULT_1: &str = include_str!("testdata/containerd-1.6-default.toml");
const DEFAULT_2: &str = include_str!("testdata/containerd-2-default.toml");
const REGISTRIES: &str = include_str!("testdata/registries-debian-12.conf");
const CORPORATE: &str = include_str!("testdata/registries-corporate.conf");
const K3S: &str = include_str!("testdata/k3s-registries.yaml");
const CONFIG: &str = "/etc/containerd/config.toml";
const DEFAULT_HOSTS: &str = "/etc/containerd/certs.d/_default/hosts.toml";
const DAEMON: &str = "/etc/docker/daemon.json";
const YAML: &str = "/etc/rancher/k3s/registries.yaml";

pub(super) fn wish(runtime: Runtime) -> Wish {
    Wish {
        runtime,
        mirror: "127.0.0.1:7117".parse().unwrap(),
        registries: Vec::new(),
        config_file: None,
        facts: Facts::default(),
    }
}

fn set_up(wish: &Wish, files: &Files) -> Result<Files, SetupError> {
    Ok(files.after(&plan(wish, files, None)?.changes))
}

/// Lines of the second text that the first one has not, and the other way round.
fn difference(before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (mut gone, mut new) = (lines(before), Vec::new());
    for line in lines(after) {
        match gone.iter().position(|old| *old == line) {
            Some(at) => drop(gone.remove(at)),
            None => new.push(line),
        }
    }
    (gone, new)
}

/// Sets up, again, and takes back, and demands that this changes something, nothing, and everything back.
fn round(wish: &Wish, files: &Files) -> Files {
    let first = plan(wish, files, None).unwrap();
    let after = files.after(&first.changes);
    let again = plan(wish, &after, Some(&first.record)).unwrap();
    assert_eq!((&again.changes, &again.record), (&Vec::new(), &first.record), "{files:?}");
    assert_eq!(plan(wish, &after, None).unwrap().changes, []);
    let undo = plan_undo(&after, &first.record).unwrap();
    assert!(undo.conflicts.is_empty());
    assert_eq!(after.after(&undo.changes), *files);
    after
}

fn indented(text: &str) -> String {
    format!("{text:?}")
}

#[test]
fn containerd_of_debian_12() {
    let after = round(&wish(Runtime::Containerd), &Files::of(&[(CONFIG, DEBIAN)]));
    let added =
        "    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"/etc/containerd/certs.d\"\n";
    let (gone, new) = difference(DEBIAN, after.text(CONFIG));
    assert_eq!((gone.len(), format!("{}\n", new.join("\n").trim_matches('\n'))), (0, added.to_owned()));
    let hosts = after.text(DEFAULT_HOSTS);
    assert!(hosts.ends_with("[host.\"http://127.0.0.1:7117\"]\n  capabilities = [\"pull\", \"resolve\"]\n"), "{hosts}");
}

#[test]
fn containerd_with_the_default_configuration_written_out() {
    let after = round(&wish(Runtime::Containerd), &Files::of(&[(CONFIG, DEFAULT_1)]));
    let (gone, new) = difference(DEFAULT_1, after.text(CONFIG));
    assert_eq!(gone, ["      config_path = \"\""]);
    assert_eq!(new, ["      config_path = \"/etc/containerd/certs.d\""]);
    let after = round(&wish(Runtime::Containerd), &Files::of(&[(CONFIG, DEFAULT_2)]));
    let (gone, new) = difference(DEFAULT_2, after.text(CONFIG));
    assert_eq!(gone, ["      config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'"]);
    assert_eq!(new, ["      config_path = \"/etc/containerd/certs.d\""]);
}

#[test]
fn containerd_without_a_configuration_gets_the_least_one() {
    for (major, format, plugin) in [(1, 2, "io.containerd.grpc.v1.cri"), (2, 3, "io.containerd.cri.v1.images")] {
        let mut wish = wish(Runtime::Containerd);
        wish.facts.version = Some(Version { major, minor: 0 });
        let after = round(&wish, &Files::default());
        let text = after.text(CONFIG);
        let expected = format!(
            "version = {format}\n\n[plugins.\"{plugin}\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
        );
        assert!(text.ends_with(&expected), "{text}");
    }
}

#[test]
fn an_explicit_directory_of_containerd_is_used_as_it_is() {
    let config = "version = 3 # keep\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path='/srv/hosts'#x\n";
    let own = "server = \"https://a.test\"\n";
    let files = Files::of(&[(CONFIG, config), ("/srv/hosts/a.test/hosts.toml", own)]);
    let after = round(&wish(Runtime::Containerd), &files);
    assert_eq!(after.text(CONFIG), config);
    assert!(after.text("/srv/hosts/_default/hosts.toml").contains("127.0.0.1:7117"));
    assert!(after.text("/srv/hosts/a.test/hosts.toml").starts_with(own), "a directory of its own hides _default");
    assert!(after.text("/srv/hosts/a.test/hosts.toml").contains("127.0.0.1:7117"));
}

#[test]
fn joined_directories_of_containerd_become_one_where_that_loses_nothing() {
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/a:/b\" # two\n";
    let none = round(&wish(Runtime::Containerd), &Files::of(&[(CONFIG, config)]));
    assert!(none.text(CONFIG).contains("config_path = \"/a\" # two\n"), "{}", none.text(CONFIG));
    let one = Files::of(&[(CONFIG, config), ("/b/r.test/hosts.toml", "server = \"https://r.test\"\n")]);
    assert!(round(&wish(Runtime::Containerd), &one).text(CONFIG).contains("config_path = \"/b\" # two\n"));
    let mut both = one;
    both.0.insert("/a/s.test/hosts.toml".into(), "server = \"https://s.test\"\n".to_owned());
    let error = set_up(&wish(Runtime::Containerd), &both).unwrap_err().to_string();
    assert!(error.contains("mv /b/* /a/") && error.contains("Nothing was changed"), "{error}");
    let mut old = wish(Runtime::Containerd);
    old.facts.version = Some(Version { major: 1, minor: 6 });
    let after = round(&old, &both);
    assert_eq!(after.text(CONFIG), config);
    assert!(after.text("/a/s.test/hosts.toml").contains("7117"));
    assert!(after.text("/b/_default/hosts.toml").contains("7117"));
    assert_eq!(after.text("/a/_default/hosts.toml"), "(none)", "it would hide /b");
}

#[test]
fn files_that_containerd_imports_count_more_than_the_one_that_names_them() {
    let main = "version = 2\nimports = [\"conf.d/*.toml\"]\n";
    let import = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/x:/y\"\n";
    let files =
        Files::of(&[(CONFIG, main), ("/etc/containerd/conf.d/a.toml", import), ("/etc/containerd/conf.d/b.txt", "=")]);
    let after = round(&wish(Runtime::Containerd), &files);
    assert_eq!(after.text(CONFIG), main);
    assert_eq!(after.text("/etc/containerd/conf.d/a.toml"), import.replace("/x:/y", "/x"));
    let found = containerd::inspect(CONFIG.as_ref(), &files).unwrap();
    assert_eq!((found.file, found.config_path.as_str()), ("/etc/containerd/conf.d/a.toml".into(), "/x:/y"));
}

#[test]
fn deprecated_mirrors_of_containerd_are_shown_to_people() {
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\n\
                  endpoint = [\"https://cache.test\"]\n";
    let error = set_up(&wish(Runtime::Containerd), &Files::of(&[(CONFIG, config)])).unwrap_err().to_string();
    assert!(
        error.contains("deprecated") && error.contains("docker.io/hosts.toml:\n  [host.\"https://cache.test\"]"),
        "{error}"
    );
}

#[test]
fn containerd_without_cri_gets_hosts_only() {
    let config = "# As Docker's packages have it\ndisabled_plugins = [\"cri\"]\n";
    let files = Files::of(&[(CONFIG, config)]);
    let plan = plan(&wish(Runtime::Containerd), &files, None).unwrap();
    assert_eq!(plan.changes.iter().map(|change| change.path.as_path()).collect::<Vec<_>>(), [Path::new(DEFAULT_HOSTS)]);
    assert!(plan.said.notes[0].contains("CRI"), "{:?}", plan.said.notes);
    assert_eq!(next_step(Runtime::Containerd, &plan.changes), None);
}

#[test]
fn unparsable_files_are_named_with_the_line() {
    let of = |runtime, path, text| set_up(&wish(runtime), &Files::of(&[(path, text)])).unwrap_err().to_string();
    assert!(of(Runtime::Containerd, CONFIG, "version = 2\n[plugins\n").starts_with("/etc/containerd/config.toml:2: "));
    assert!(of(Runtime::Docker, DAEMON, "{\n  \"debug\": true,\n}\n").starts_with("/etc/docker/daemon.json:3: "));
    assert!(of(Runtime::Podman, "/etc/containers/registries.conf", "[[registry]\n").contains("registries.conf:1: "));
    let error = of(Runtime::K3s, YAML, "mirrors:\n  docker.io: [\n");
    assert!(error.starts_with("/etc/rancher/k3s/registries.yaml:") && error.contains("Nothing was changed"), "{error}");
}

#[test]
fn docker_with_a_graph_driver_keeps_its_layout() {
    let url = "http://127.0.0.1:7117";
    for (before, after) in [
        ("", format!("{{\n  \"registry-mirrors\": [\"{url}\"]\n}}\n")),
        ("{}\n", format!("{{\n  \"registry-mirrors\": [\"{url}\"]\n}}\n")),
        (
            "{\n    \"log-driver\": \"local\",\n    \"debug\": true\n}\n",
            format!(
                "{{\n    \"log-driver\": \"local\",\n    \"debug\": true,\n    \"registry-mirrors\": [\"{url}\"]\n}}\n"
            ),
        ),
        (
            "{\n\t\"registry-mirrors\": [\n\t\t\"https://m.test\"\n\t],\n\t\"debug\": true\n}",
            format!(
                "{{\n\t\"registry-mirrors\": [\n\t\t\"{url}\",\n\t\t\"https://m.test\"\n\t],\n\t\"debug\": true\n}}"
            ),
        ),
        (
            "{\"registry-mirrors\": [\"https://m.test\"]}",
            format!("{{\"registry-mirrors\": [\"{url}\", \"https://m.test\"]}}"),
        ),
    ] {
        let done = round(&wish(Runtime::Docker), &Files::of(&[(DAEMON, before)]));
        assert_eq!(indented(done.text(DAEMON)), indented(&after));
    }
    let present = "{\"registry-mirrors\": [\"https://m.test\", \"http://127.0.0.1:7117/\"]}";
    let files = Files::of(&[(DAEMON, present)]);
    assert_eq!(set_up(&wish(Runtime::Docker), &files).unwrap(), files);
}

#[test]
fn docker_says_that_graph_drivers_mirror_docker_io_only() {
    let plan_of = |wish: &Wish| plan(wish, &Files::default(), None);
    let said = plan_of(&wish(Runtime::Docker)).unwrap().said;
    assert!(said.way.contains("docker.io only") && said.notes[0].contains("docker.io"), "{said:?}");
    let mut quay = wish(Runtime::Docker);
    quay.registries = vec!["quay.io".to_owned()];
    let error = plan_of(&quay).unwrap_err().to_string();
    assert!(error.contains("docker.io alone, not for quay.io") && error.contains("containerd-snapshotter"), "{error}");
}

#[test]
fn docker_is_restarted_only_to_forget_its_last_mirror() {
    for (before, undo_step) in [
        ("{\n  \"debug\": true\n}\n", "systemctl restart docker"),
        ("{\n  \"registry-mirrors\": [\"https://m.test\"]\n}\n", "systemctl reload docker"),
    ] {
        let files = Files::of(&[(DAEMON, before)]);
        let plan = plan(&wish(Runtime::Docker), &files, None).unwrap();
        assert_eq!(next_step(Runtime::Docker, &plan.changes), Some("systemctl reload docker"));
        let undo = plan_undo(&files.after(&plan.changes), &plan.record).unwrap();
        assert_eq!(next_step(Runtime::Docker, &undo.changes), Some(undo_step));
    }
}

#[test]
fn docker_with_containerds_store_gets_hosts_and_no_restart() {
    let hosts = "/etc/docker/certs.d/_default/hosts.toml";
    let by_file = Files::of(&[(DAEMON, "{\"features\": {\"containerd-snapshotter\": true}}")]);
    let mut by_itself = wish(Runtime::Docker);
    by_itself.facts.containerd_store = Some(true);
    let mut new = wish(Runtime::Docker);
    new.facts.version = Some(Version { major: 29, minor: 0 });
    for (wish, files) in
        [(&wish(Runtime::Docker), &by_file), (&by_itself, &Files::default()), (&new, &Files::default())]
    {
        let plan = plan(wish, files, None).unwrap();
        assert_eq!(plan.changes.len(), 1);
        assert_eq!(next_step(Runtime::Docker, &plan.changes), None);
        assert!(round(wish, files).text(hosts).contains("127.0.0.1:7117"));
    }
    let upgraded = Files::of(&[("/var/lib/docker/image/overlay2/repositories.json", "{}")]);
    assert!(round(&new, &upgraded).text(DAEMON).contains("registry-mirrors"), "an upgraded one keeps its graph driver");
}

#[test]
fn podman_gets_a_file_of_its_own() {
    let main = "/etc/containers/registries.conf";
    let after = round(&wish(Runtime::Podman), &Files::of(&[(main, REGISTRIES)]));
    assert_eq!(after.text(main), REGISTRIES);
    let text = after.text("/etc/containers/registries.conf.d/zz-layermesh-podman.conf");
    for registry in REGISTRIES_DEFAULT {
        let block = format!(
            "\n[[registry]]\nprefix = \"{registry}\"\nlocation = \"{registry}\"\n\n[[registry.mirror]]\nlocation = \
             \"127.0.0.1:7117/{registry}\"\ninsecure = true\n"
        );
        assert!(text.contains(&block), "{block} in {text}");
    }
    // CRI-O reads the same directory and has a file of its own there.
    let both = set_up(&wish(Runtime::Crio), &after).unwrap();
    assert_eq!(both.0.len(), 3);
}

#[test]
fn podman_takes_over_what_earlier_files_say_of_its_registries() {
    let main = "/etc/containers/registries.conf";
    let plan = plan(&wish(Runtime::Podman), &Files::of(&[(main, CORPORATE)]), None).unwrap();
    let text = plan.changes[0].after.clone().unwrap();
    let hub = "[[registry.mirror]]\nlocation = \"127.0.0.1:7117/docker.io\"\ninsecure = true\n\n[[registry.mirror]]\n\
               location = \"cache.corp.example/hub\"\npull-from-mirror = \"digest-only\"\n";
    assert!(text.contains(hub), "{text}");
    let inner = "prefix = \"quay.io/app\"\nlocation = \"harbor.corp.example/quay-app\"\ninsecure = true\n\n\
                 [[registry.mirror]]\nlocation = \"127.0.0.1:7117/harbor.corp.example/quay-app\"\ninsecure = true\n";
    assert!(text.contains(inner), "{text}");
    assert!(!text.contains("secret") && plan.said.notes[0].contains("docker.io/secret is blocked"), "{text}");
    let late = "/etc/containers/registries.conf.d/zzz.conf";
    let error = set_up(&wish(Runtime::Podman), &Files::of(&[(late, CORPORATE)])).unwrap_err().to_string();
    assert!(error.contains(late) && error.contains("would win"), "{error}");
}

#[test]
fn k3s_keeps_comments_and_puts_the_mirror_first() {
    let after = round(&wish(Runtime::K3s), &Files::of(&[(YAML, K3S)]));
    let (gone, new) = difference(K3S, after.text(YAML));
    assert_eq!(gone, ["    endpoint: [\"https://registry.corp.example:5000\"]"]);
    assert_eq!(new.len(), 7, "{new:?}");
    let found = k3s::inspect(YAML.as_ref(), &after).unwrap();
    for name in ["docker.io", "registry.corp.example:5000", "quay.io", "*"] {
        let (_, endpoints) = found.iter().find(|(other, _)| other == name).unwrap();
        assert_eq!(endpoints[0], "http://127.0.0.1:7117", "{name}");
    }
    assert_eq!(after.text(YAML).matches('#').count(), K3S.matches('#').count());
}

#[test]
fn k3s_in_the_styles_that_people_write() {
    for (before, is_done) in [
        ("", true),
        ("# nothing yet\n", true),
        ("configs:\n  a.test:\n    tls:\n      insecure_skip_verify: true", true),
        ("mirrors:\n", true),
        ("mirrors:\n    \"*\":\n        endpoint:\n        - https://m.test\n", true),
        ("mirrors:\n- a\n", false),
        ("mirrors: {docker.io: {endpoint: []}}\n", false),
        ("mirrors:\n  docker.io:\n    endpoint: []\n", false),
        ("a: 1\n---\nb: 2\n", false),
    ] {
        let files = Files::of(&[(YAML, before)]);
        match set_up(&wish(Runtime::K3s), &files) {
            Ok(_) => {
                assert!(is_done, "{before}");
                round(&wish(Runtime::K3s), &files);
            }
            Err(error) => assert!(!is_done, "{before}: {error}"),
        }
    }
}

#[test]
fn another_address_replaces_the_first() {
    let files = Files::of(&[(CONFIG, DEBIAN)]);
    let first = plan(&wish(Runtime::Containerd), &files, None).unwrap();
    let after = files.after(&first.changes);
    let mut other = wish(Runtime::Containerd);
    other.mirror = "0.0.0.0:8000".parse().unwrap();
    let second = plan(&other, &after, Some(&first.record)).unwrap();
    let after = after.after(&second.changes);
    assert!(after.text(DEFAULT_HOSTS).contains("http://127.0.0.1:8000") && !after.text(DEFAULT_HOSTS).contains("7117"));
    let undo = plan_undo(&after, &second.record).unwrap();
    assert_eq!(after.after(&undo.changes), files);
}

#[test]
fn changes_of_others_survive_taking_back() {
    let files =
        Files::of(&[(DAEMON, "{\n  \"debug\": true,\n  \"log-driver\": \"local\",\n  \"bip\": \"10.0.0.1/24\"\n}\n")]);
    let plan = plan(&wish(Runtime::Docker), &files, None).unwrap();
    let mut after = files.after(&plan.changes);
    let edited = after.text(DAEMON).replace("\"debug\": true", "\"debug\": false");
    after.0.insert(DAEMON.into(), edited);
    let undo = plan_undo(&after, &plan.record).unwrap();
    assert_eq!(after.after(&undo.changes).text(DAEMON), files.text(DAEMON).replace("true", "false"));
    // The same lines: nobody can tell whose they are.
    let theirs = "{\n  \"registry-mirrors\": [\"http://127.0.0.1:7117\", \"https://m.test\"]\n}\n";
    after.0.insert(DAEMON.into(), theirs.to_owned());
    let undo = plan_undo(&after, &plan.record).unwrap();
    assert_eq!((undo.changes.len(), undo.conflicts.len()), (0, 1));
    assert!(undo.conflicts[0].diff().contains("+  \"registry-mirrors\""));
}

/// A directory's files with their modes, and its directories.
fn photograph(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, mode) = (entry.path(), entry.metadata().unwrap().permissions().mode());
        if entry.metadata().unwrap().is_dir() {
            seen.extend(photograph(&path));
            seen.insert(path, (mode, Vec::new()));
        } else {
            seen.insert(path.clone(), (mode, fs::read(path).unwrap()));
        }
    }
    seen
}

#[test]
fn a_disk_is_as_before_after_undo_and_modes_stay() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    };
    put(CONFIG, DEBIAN);
    put(YAML, K3S);
    put("/etc/containers/registries.conf", CORPORATE);
    let (disk, before) = (Disk::new(root.path()), photograph(root.path()));
    for runtime in Runtime::ALL {
        let plan = plan(&wish(runtime), &disk, None).unwrap();
        apply(&plan, &disk, None).unwrap();
    }
    let changed = root.path().join("etc/containerd/config.toml");
    assert_eq!(fs::metadata(changed).unwrap().permissions().mode() & 0o7777, 0o640);
    let record = root.path().join("var/lib/layermesh-setup/k3s.json");
    assert_eq!(fs::metadata(record).unwrap().permissions().mode() & 0o7777, 0o600);
    for runtime in Runtime::ALL {
        let record = Record::load(runtime, &disk).unwrap().unwrap();
        let again = plan(&wish(runtime), &disk, Some(&record)).unwrap();
        assert_eq!(again.changes, [], "{runtime:?}");
        apply(&again, &disk, Some(&record)).unwrap();
        assert_eq!(Record::load(runtime, &disk).unwrap(), Some(record));
    }
    for runtime in Runtime::ALL {
        let record = Record::load(runtime, &disk).unwrap().unwrap();
        apply_undo(&plan_undo(&disk, &record).unwrap(), &disk, &record).unwrap();
    }
    let after = photograph(root.path());
    // /var/lib is made for records, and is not setup's to remove where others may use it.
    let left: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert_eq!(left, [&root.path().join("var"), &root.path().join("var/lib")]);
    assert!(before.iter().all(|(path, seen)| after.get(path) == Some(seen)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_there_comes_back(
        parts in prop::sample::subsequence(vec![
            (CONFIG, DEBIAN), (CONFIG, DEFAULT_1), (CONFIG, DEFAULT_2), (CONFIG, "# only a comment"),
            (DEFAULT_HOSTS, "[host.\"https://m.test\"]"),
            ("/etc/containerd/certs.d/a.test/hosts.toml", "server='https://a.test'"),
            ("/etc/containerd/certs.d/b.test:5000/ca.crt", "certificate"),
            (DAEMON, "{ \"debug\":true }"), (DAEMON, "{\n\t\"registry-mirrors\": []\n}\n"),
            ("/etc/containers/registries.conf", REGISTRIES), ("/etc/containers/registries.conf", CORPORATE),
            ("/etc/containers/registries.conf.d/a.conf", CORPORATE), (YAML, K3S), (YAML, "mirrors:\n"),
        ], 0..=8),
        ends in any::<bool>(),
        port in 1_u16..,
        runtime in prop::sample::select(Runtime::ALL.to_vec()),
    ) {
        let ended = |text: &'static str| if ends { text } else { text.trim_end() };
        let parts: Vec<_> = parts.iter().map(|&(path, text)| (path, ended(text))).collect();
        let mut wish = wish(runtime);
        wish.mirror.set_port(port);
        round(&wish, &Files::of(&parts));
    }
}
