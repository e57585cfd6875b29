//! Docker Engine: `hosts.toml` where images are in containerd's store, else `registry-mirrors` in daemon.json.
//!
//! Graph drivers ask a mirror for docker.io alone. daemon.json is JSON without comments; its layout is kept all the
//! same, and it is read anew at SIGHUP.

use std::path::Path;

use jsonc_parser::{
    ParseOptions,
    cst::{CstInputValue, CstRootNode},
};
use serde_json::Value;

use super::{Facts, Said, SetupError, Staged, Tree, Version, Wish, hosts};

/// Where Docker looks for hosts and certificates of registries.
pub const HOSTS_DIR: &str = "/etc/docker/certs.d";
/// From here on fresh installations keep images in containerd's store.
const CONTAINERD_STORE_SINCE: u32 = 29;
/// What graph drivers leave: an installation that has it goes on with it.
const GRAPH_DRIVER_DIR: &str = "/var/lib/docker/image";
/// The key of mirrors in daemon.json.
pub(super) const MIRRORS: &str = "registry-mirrors";

/// What daemon.json says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// `registry-mirrors`.
    pub mirrors: Vec<String>,
    /// Whether images are in containerd's store, as far as the file says.
    pub containerd_store: Option<bool>,
    /// Whether it names a proxy.
    pub proxy: bool,
}

/// Reads what daemon.json says.
///
/// # Errors
/// If it cannot be read or parsed.
pub fn inspect(path: &Path, tree: &dyn Tree) -> Result<Found, SetupError> {
    let Some(value) = parse(path, tree.read(path)?.as_deref())? else { return Ok(Found::default()) };
    let mirrors = value.get(MIRRORS).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(Found {
        mirrors: mirrors.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        containerd_store: value.pointer("/features/containerd-snapshotter").and_then(Value::as_bool),
        proxy: value.get("proxies").is_some(),
    })
}

/// Whether Docker keeps images in containerd's store: what it says itself, else what its file says, else what an
/// installation of this version and age does.
///
/// # Errors
/// If files cannot be read.
pub fn containerd_store(facts: Facts, found: &Found, tree: &dyn Tree) -> Result<bool, SetupError> {
    if let Some(known) = facts.containerd_store.or(found.containerd_store) {
        return Ok(known);
    }
    let new = facts.version.is_some_and(|Version { major, .. }| major >= CONTAINERD_STORE_SINCE);
    Ok(new && tree.list(Path::new(GRAPH_DRIVER_DIR))?.is_empty())
}

/// Plans the mirror for Docker.
pub(super) fn plan(wish: &Wish, staged: &mut Staged<'_>) -> Result<Said, SetupError> {
    let path = wish.config_file();
    let found = inspect(path, staged)?;
    if containerd_store(wish.facts, &found, staged)? {
        hosts::plan(wish, Path::new(HOSTS_DIR), staged)?;
        let mut said = Said::new("Docker with containerd's image store, by hosts.toml: all registries");
        said.note("Docker reads it at each pull: nothing needs a restart.");
        return Ok(said);
    }
    let others: Vec<&String> = wish.registries.iter().filter(|name| *name != "docker.io").collect();
    if !others.is_empty() {
        return Err(SetupError::Wish(format!(
            "Docker keeps images in a graph driver here, and then asks a mirror for docker.io alone, not for {}. With \
             `\"features\": {{\"containerd-snapshotter\": true}}` in {} it asks for all; images are pulled anew then.",
            others.into_iter().cloned().collect::<Vec<_>>().join(", "),
            path.display()
        )));
    }
    let before = staged.read(path)?;
    if let Some(after) = with_mirror(path, before.as_deref(), &wish.url())? {
        staged.put(path, Some(after));
    }
    let mut said = Said::new("Docker with a graph driver, by registry-mirrors: docker.io only");
    said.note(
        "Images of other registries are pulled from there as before: Docker's graph drivers ask a mirror for docker.io \
         only. With the containerd image store (default of new installations of Docker 29) they would ask for all.",
    );
    said.note("Without systemd: kill -HUP of dockerd's process. Containers go on running.");
    Ok(said)
}

fn parse(path: &Path, text: Option<&str>) -> Result<Option<Value>, SetupError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let wrong = |line, message| SetupError::Unparsable { path: path.to_owned(), line, message };
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(error.line(), error.to_string()))?;
    if !value.is_object() {
        return Err(wrong(1, "it is not an object in braces".to_owned()));
    }
    Ok(Some(value))
}

/// The text with the mirror as the first one; `None` if it is among them.
fn with_mirror(path: &Path, before: Option<&str>, url: &str) -> Result<Option<String>, SetupError> {
    let Some(mut value) = parse(path, before)? else {
        return Ok(Some(format!("{{\n  \"{MIRRORS}\": [\"{url}\"]\n}}\n")));
    };
    let by_hand = |why: &str| SetupError::ByHand {
        path: path.to_owned(),
        why: why.to_owned(),
        lines: format!("  \"{MIRRORS}\": [\"{url}\"]\n"),
    };
    let mirrors = match value.get(MIRRORS) {
        None => Vec::new(),
        Some(Value::Array(mirrors)) => mirrors.clone(),
        Some(_) => return Err(by_hand("`registry-mirrors` is not a list")),
    };
    if mirrors.iter().filter_map(Value::as_str).any(|mirror| mirror.trim_end_matches('/') == url) {
        return Ok(None);
    }
    let text = before.unwrap_or_default();
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|error| by_hand(&error.to_string()))?;
    let object = root.object_value().ok_or_else(|| by_hand("it is not an object in braces"))?;
    match object.array_value(MIRRORS) {
        Some(array) => {
            array.insert(0, CstInputValue::String(url.to_owned()));
        }
        None => {
            object.append(MIRRORS, CstInputValue::Array(vec![CstInputValue::String(url.to_owned())]));
        }
    }
    let after = root.to_string();
    // The rest has to mean what it did.
    let all: Vec<Value> = std::iter::once(Value::String(url.to_owned())).chain(mirrors).collect();
    if let Some(object) = value.as_object_mut() {
        object.insert(MIRRORS.to_owned(), Value::Array(all));
    }
    if serde_json::from_str::<Value>(&after).ok() != Some(value) {
        return Err(by_hand("its layout cannot be kept"));
    }
    Ok(Some(after))
}
