//! Container runtimes: whether they are set up, and whether pulls come through the node.

use crate::{
    doctor::{
        Check, Facts, Finding,
        facts::{PullFacts, RuntimeFacts},
        settings::Setting,
    },
    setup::{Runtime, Version},
};

/// From here on a `config_path` that is not one directory makes containerd ignore mirrors.
const NO_JOIN: Version = Version { major: 2, minor: 1 };

pub(in crate::doctor) fn judge(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.runtimes.is_empty() {
        findings.push(Finding::warn(
            Check::Runtime,
            "no container runtime is found on this device",
            "neither containerd, Docker, Podman, CRI-O nor k3s is on the PATH",
            "install one, or run this where it is; then layermesh setup RUNTIME",
        ));
    }
    for runtime in &facts.runtimes {
        settings(facts, runtime, findings);
        pull(runtime, findings);
    }
}

fn settings(facts: &Facts, found: &RuntimeFacts, findings: &mut Vec<Finding>) {
    let name = found.runtime.name();
    let set_up = format!("layermesh setup {name}");
    let before = findings.len();
    match &found.settings {
        Err(cause) => findings.push(Finding::fail(
            Check::Runtime,
            format!("the configuration of {name} cannot be read"),
            cause.clone(),
            "correct the file, or try again with sudo",
        )),
        Ok(settings) => {
            findings.extend(settings.iter().filter_map(|setting| setting_finding(facts, found, setting, &set_up)));
        }
    }
    if let Some(proxy) = &found.proxy {
        findings.push(Finding::fail(
            Check::Runtime,
            format!("{name} asks a proxy for the mirror"),
            proxy.clone(),
            format!("add {} to NO_PROXY of its service: systemctl edit {name}", facts.mirror.address.ip()),
        ));
    }
    if findings[before..].iter().all(|finding| finding.outcome == crate::doctor::Outcome::Pass) {
        let version = found.version.map_or(String::new(), |version| format!(" {}.{}", version.major, version.minor));
        findings.push(Finding::pass(Check::Runtime, format!("{name}{version} is told of the mirror")));
    }
}

fn setting_finding(facts: &Facts, found: &RuntimeFacts, setting: &Setting, set_up: &str) -> Option<Finding> {
    let name = found.runtime.name();
    let old = found.version.is_some_and(|version| version < NO_JOIN);
    Some(match setting {
        Setting::NotSetUp => Finding::warn(
            Check::Runtime,
            format!("{name} is not told of the mirror, and pulls past it"),
            format!("no configuration of it names {}", facts.mirror.address),
            set_up,
        ),
        Setting::ConfigPathUnset => Finding::fail(
            Check::Runtime,
            "containerd ignores its mirrors",
            "`config_path` is unset, so no hosts.toml is read (newer versions join two directories, and find neither)",
            set_up,
        ),
        Setting::ConfigPathJoined(path) if old => Finding::warn(
            Check::Runtime,
            "containerd will ignore its mirrors after an upgrade",
            format!("`config_path` joins directories ({path}); from 2.1 on that is one that is not there"),
            set_up,
        ),
        Setting::ConfigPathJoined(path) => Finding::fail(
            Check::Runtime,
            "containerd ignores its mirrors",
            format!("`config_path` joins directories ({path}), which containerd 2.1 and newer take for one"),
            set_up,
        ),
        Setting::Deprecated(registries) => Finding::fail(
            Check::Runtime,
            "containerd cannot have a mirror for all registries",
            format!("`registry.mirrors` or `configs.*.tls` ({}) exclude `config_path`", registries.join(", ")),
            format!("{set_up}: it shows what to move where"),
        ),
        Setting::HidesDefault(dir) => Finding::fail(
            Check::Runtime,
            format!("{name} pulls past the mirror for one registry"),
            format!("{} has no host for the mirror, and hides _default", dir.display()),
            set_up,
        ),
        Setting::OtherMirror(other) => Finding::fail(
            Check::Runtime,
            format!("{name} looks for the mirror elsewhere"),
            format!("it is told of {other}, and the node's is at {}", facts.mirror.address),
            format!("{set_up} --mirror-addr {}", facts.mirror.address),
        ),
        Setting::DiscardsLayers => Finding::pass(
            Check::Runtime,
            "containerd throws compressed layers away (discard_unpacked_layers): the node's own copies serve others",
        ),
        Setting::DockerIoOnly => Finding::pass(
            Check::Runtime,
            "Docker's graph driver asks the mirror for docker.io only; its containerd image store would for all",
        ),
        Setting::CriDisabled if found.runtime == Runtime::Containerd => Finding::pass(
            Check::Runtime,
            "Kubernetes' interface of containerd is off: only nerdctl, and ctr with --hosts-dir, use mirrors",
        ),
        Setting::CriDisabled => return None,
    })
}

fn pull(found: &RuntimeFacts, findings: &mut Vec<Finding>) {
    let name = found.runtime.name();
    findings.push(match &found.pull {
        PullFacts::Came => Finding::pass(Check::RuntimePull, format!("{name} pulled an image that only the node has")),
        PullFacts::NotTried(why) => Finding::pass(Check::RuntimePull, format!("{name}: not tried, {why}")),
        PullFacts::Failed(said) => Finding::fail(
            Check::RuntimePull,
            format!("{name} does not pull through the node"),
            said.clone(),
            match crate::setup::restart(found.runtime) {
                Some(restart) => format!("layermesh setup {name}; if it is set up already: {restart}"),
                None => format!("layermesh setup {name}"),
            },
        ),
    });
}
