//! Settings of a runtime that stand between it and the mirror, read from its files.

use std::path::{Path, PathBuf};

use crate::setup::{
    Facts, Runtime, SetupError, Tree, containerd, containers, docker,
    hosts::{self, DEFAULT_DIR, HOSTS_FILE},
    k3s,
};

/// What is special about a runtime's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Nothing names a mirror on this device.
    NotSetUp,
    /// containerd's `config_path` is unset.
    ConfigPathUnset,
    /// It joins several directories.
    ConfigPathJoined(String),
    /// Registries with deprecated settings that exclude `config_path`.
    Deprecated(Vec<String>),
    /// The directory of a registry that hides `_default` and has no mirror.
    HidesDefault(PathBuf),
    /// A mirror on this device at another address.
    OtherMirror(String),
    /// Compressed layers are thrown away.
    DiscardsLayers,
    /// Only docker.io can be mirrored.
    DockerIoOnly,
    /// Kubernetes' interface is off.
    CriDisabled,
}

/// Reads a runtime's settings. `mirror` is host and port of the node's.
///
/// # Errors
/// If a file cannot be read or parsed.
pub fn inspect(runtime: Runtime, mirror: &str, facts: Facts, tree: &dyn Tree) -> Result<Vec<Setting>, SetupError> {
    let main = runtime.config_file();
    match runtime {
        Runtime::Containerd => containerd_settings(main, mirror, tree),
        Runtime::Docker => {
            let found = docker::inspect(main, tree)?;
            if docker::containerd_store(facts, &found, tree)? {
                return hosts_settings(&[docker::HOSTS_DIR.into()], mirror, tree);
            }
            let mut settings = of_urls(found.mirrors.iter().map(String::as_str), mirror);
            settings.push(Setting::DockerIoOnly);
            Ok(settings)
        }
        Runtime::Podman | Runtime::Crio => {
            let blocks = containers::inspect(main, tree)?;
            let hosts = blocks.iter().flat_map(|(_, mirrors)| mirrors).filter_map(|place| place.split('/').next());
            Ok(of_urls(hosts, mirror))
        }
        Runtime::K3s => {
            let entries = k3s::inspect(main, tree)?;
            Ok(of_urls(entries.iter().flat_map(|(_, endpoints)| endpoints.iter().map(String::as_str)), mirror))
        }
    }
}

fn containerd_settings(main: &Path, mirror: &str, tree: &dyn Tree) -> Result<Vec<Setting>, SetupError> {
    let found = containerd::inspect(main, tree)?;
    let mut settings = Vec::new();
    if found.discards_layers {
        settings.push(Setting::DiscardsLayers);
    }
    if found.cri_disabled {
        settings.push(Setting::CriDisabled);
        settings.extend(hosts_settings(&[containerd::HOSTS_DIR.into()], mirror, tree)?);
        return Ok(settings);
    }
    if !found.deprecated.is_empty() {
        settings.push(Setting::Deprecated(found.deprecated));
        return Ok(settings);
    }
    let dirs = found.dirs();
    if dirs.is_empty() {
        // Somebody who set hosts up and no `config_path` meant them to count; others did not set anything up.
        let usual = hosts_settings(&[containerd::HOSTS_DIR.into()], mirror, tree)?;
        settings.push(if usual.contains(&Setting::NotSetUp) { Setting::NotSetUp } else { Setting::ConfigPathUnset });
        return Ok(settings);
    }
    if found.config_path.contains(':') {
        settings.push(Setting::ConfigPathJoined(found.config_path.clone()));
    }
    settings.extend(hosts_settings(&dirs, mirror, tree)?);
    Ok(settings)
}

/// What directories of hosts.toml say, the first that knows a registry counting.
fn hosts_settings(dirs: &[PathBuf], mirror: &str, tree: &dyn Tree) -> Result<Vec<Setting>, SetupError> {
    let (mut settings, mut anywhere, mut others) = (Vec::new(), false, Vec::new());
    let mut hiding = Vec::new();
    for dir in dirs {
        for (name, _) in tree.list(dir)?.into_iter().filter(|(_, is_dir)| *is_dir) {
            let path = dir.join(&name).join(HOSTS_FILE);
            let document = match tree.read(&path)? {
                Some(text) => text.parse::<toml_edit::DocumentMut>().map_err(|error| SetupError::Unparsable {
                    path: path.clone(),
                    line: 1 + text[..error.span().map_or(0, |span| span.start)].matches('\n').count(),
                    message: error.message().to_owned(),
                })?,
                None => toml_edit::DocumentMut::new(),
            };
            if hosts::names_mirror(&document, mirror) {
                anywhere = true;
                continue;
            }
            let names = document.get("host").and_then(|item| item.as_table_like());
            others.extend(names.into_iter().flat_map(|names| names.iter()).map(|(name, _)| name.to_owned()));
            if name != DEFAULT_DIR {
                hiding.push(Setting::HidesDefault(dir.join(name)));
            }
        }
    }
    let other = others.iter().find(|other| is_on_this_device(other));
    match (anywhere, other) {
        (false, Some(other)) => settings.push(Setting::OtherMirror(other.clone())),
        (false, None) => settings.push(Setting::NotSetUp),
        (true, _) => settings.append(&mut hiding),
    }
    Ok(settings)
}

fn of_urls<'a>(urls: impl Iterator<Item = &'a str>, mirror: &str) -> Vec<Setting> {
    let mut other = None;
    for url in urls {
        let place = url.trim_start_matches("http://").trim_end_matches('/');
        if place == mirror {
            return Vec::new();
        }
        if is_on_this_device(url) {
            other = Some(url.to_owned());
        }
    }
    vec![other.map_or(Setting::NotSetUp, Setting::OtherMirror)]
}

/// Whether a mirror is at loopback, as a node's is.
fn is_on_this_device(url: &str) -> bool {
    let host = url.trim_start_matches("http://");
    ["127.", "localhost:", "[::1]:"].iter().any(|start| host.starts_with(start))
}
