//! What holds for a node, and where each of it was written.

use std::path::Path;

use serde::Serialize;

use super::{
    Environment,
    layer::{ConfigErrors, Given, Layer, RawOrigin},
    reference::{Fallback, ROWS, Row, plain},
    validate,
};

/// A setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Table and key, such as `listen.mirror`.
    pub name: String,
    /// What holds, as it was written; of a list, all of it with commas between.
    pub value: String,
    /// File and line, variable or flag, or `default`.
    pub source: String,
}

/// All that holds: the settings in the order of the reference, then origins, registries and attached stores.
///
/// # Errors
/// With every mistake, as [`load`](super::load) reports them.
pub fn effective(
    flags: Layer,
    config_file: Option<&Path>,
    environment: &Environment,
) -> Result<Vec<Effective>, ConfigErrors> {
    let (layer, errors) = validate::merged(flags, config_file, environment);
    validate::checked(layer.clone(), errors, environment)?;
    let mut all: Vec<Effective> = ROWS.iter().map(|row| of_row(row, &layer, environment)).collect();
    all.extend(layer.origins.iter().flat_map(of_origin));
    for registry in &layer.registries {
        let keys = [("name", &registry.name), ("policy", &registry.policy), ("fresh", &registry.fresh)];
        all.extend(table("registry", keys.into_iter().chain([("max_age", &registry.max_age)])));
    }
    for attached in &layer.attached {
        all.extend(table("store.attached", [("path", &attached.path), ("reuse", &attached.reuse)].into_iter()));
    }
    Ok(all)
}

fn of_row(row: &Row, layer: &Layer, environment: &Environment) -> Effective {
    let name = if row.table.is_empty() { row.key.to_owned() } else { format!("{}.{}", row.table, row.key) };
    let one = row.setting.and_then(|setting| layer.values.get(&setting)).map(std::slice::from_ref);
    match one.or_else(|| list(row, layer)) {
        Some([]) => Effective { name, value: "none".to_owned(), source: "emptied".to_owned() },
        Some(given @ [first, ..]) => {
            let words: Vec<&str> = given.iter().map(|given| given.text.as_str()).collect();
            Effective { name, value: words.join(", "), source: first.place.to_string() }
        }
        None => {
            let value = match row.default {
                Fallback::Value(value) => value.to_owned(),
                Fallback::Words { said, .. } if row.key != "data_dir" => plain(said),
                Fallback::Words { .. } => {
                    environment.default_data_dir().map(|dir| dir.display().to_string()).unwrap_or_default()
                }
            };
            Effective { name, value, source: "default".to_owned() }
        }
    }
}

fn list<'a>(row: &Row, layer: &'a Layer) -> Option<&'a [Given]> {
    let list = match (row.table, row.key) {
        ("fleet", "authorities") => &layer.authorities,
        ("mesh", "peers") => &layer.peers,
        ("uplink", "windows") => &layer.windows,
        ("releases", "channels") => &layer.channels,
        ("releases", "platforms") => &layer.platforms,
        _ => return None,
    };
    list.as_deref()
}

fn of_origin(origin: &RawOrigin) -> impl Iterator<Item = Effective> {
    // Passwords are in files of their own, whose names are no secret.
    table(
        "origin",
        [
            ("registry", &origin.registry),
            ("endpoint", &origin.endpoint),
            ("ca_file", &origin.ca_file),
            ("plain_http", &origin.plain_http),
            ("username", &origin.username),
            ("password_file", &origin.password_file),
        ]
        .into_iter(),
    )
}

fn table<'a>(
    table: &'static str,
    keys: impl Iterator<Item = (&'static str, &'a Option<Given>)>,
) -> impl Iterator<Item = Effective> {
    keys.filter_map(move |(key, given)| {
        let given = given.as_ref()?;
        Some(Effective { name: format!("{table}.{key}"), value: given.text.clone(), source: given.place.to_string() })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Setting;

    #[test]
    fn each_value_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layermesh.toml");
        let text = "[listen]\nmirror = \"127.0.0.1:1\"\nbulk = \"127.0.0.1:2\"\n[mesh]\npeers = [\"/ip4/10.0.0.1/tcp/1\"]\n\
                    [[origin]]\nregistry = \"r.test\"\n";
        std::fs::write(&path, text).unwrap();
        let variables =
            [("HOME", "/nowhere"), ("LAYERMESH_BULK_ADDR", "127.0.0.1:3"), ("LAYERMESH_UPLINK_WINDOWS", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment { variables: BTreeMap::from(variables), system_writable: false };
        let mut flags = Layer::default();
        flags.flag(Setting::Quota, "1GiB");
        let all = effective(flags.clone(), Some(&path), &environment).unwrap();
        let find = |name: &str| {
            let found = all.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("{name}"));
            (found.value.as_str(), found.source.replace(&format!("{}/", dir.path().display()), ""))
        };
        for (name, value, source) in [
            ("data_dir", "/nowhere/.local/share/layermesh", "default"),
            ("listen.mirror", "127.0.0.1:1", "layermesh.toml:2"),
            ("listen.bulk", "127.0.0.1:3", "LAYERMESH_BULK_ADDR"),
            ("listen.status", "127.0.0.1:7120", "default"),
            ("mesh.peers", "/ip4/10.0.0.1/tcp/1", "layermesh.toml:5"),
            ("uplink.windows", "none", "emptied"),
            ("store.quota", "1GiB", "--quota"),
            ("origin.registry", "r.test", "layermesh.toml:7"),
        ] {
            assert_eq!(find(name), (value, source.to_owned()), "{name}");
        }
        flags.flag(Setting::Quota, "much");
        assert!(effective(flags, Some(&path), &environment).is_err());
    }
}
