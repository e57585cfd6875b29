//! `layermesh.toml` as a layer.
//!
//! Walks the parsed table rather than deserialising into structs: a derived deserialiser stops at the first
//! mistake, and people want to see all of them with their lines.

use std::{path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::layer::{ConfigError, Given, Layer, Place, RawAttached, RawOrigin, RawRegistry, Setting, nearest};

/// Tables of the file, besides the top level.
const TABLES: [&str; 11] =
    ["listen", "mirror", "admin", "fleet", "mesh", "store", "uplink", "lan", "tags", "releases", "log"];
/// Tables and keys that are lists.
const LISTS: [(&str, &str); 5] = [
    ("fleet", "authorities"),
    ("mesh", "peers"),
    ("uplink", "windows"),
    ("releases", "channels"),
    ("releases", "platforms"),
];
const PEERS_EXAMPLE: &str = r#"["/ip4/192.168.1.10/tcp/7118"]"#;
const AUTHORITIES_EXAMPLE: &str = r#"["12D3KooW..."]"#;
const CHANNELS_EXAMPLE: &str = r#"["stable"]"#;
const PLATFORMS_EXAMPLE: &str = r#"["linux/amd64", "linux/arm64"]"#;
const WINDOWS_EXAMPLE: &str = r#"["mon-fri 22:00-06:00", "sat,sun"]"#;
/// Keys of an `[[origin]]`.
const ORIGIN_KEYS: [&str; 6] = ["registry", "endpoint", "ca_file", "plain_http", "username", "password_file"];

/// Keys of a `[[registry]]`.
const REGISTRY_KEYS: [&str; 4] = ["name", "policy", "fresh", "max_age"];

/// Reads the text of a configuration file; what is wrong goes into `errors`.
pub(super) fn parse(path: &Path, text: &str, errors: &mut Vec<ConfigError>) -> Layer {
    let mut reader = Reader { path: path.into(), text, errors, layer: Layer::default() };
    let (table, wrong) = DeTable::parse_recoverable(text);
    for error in wrong {
        let at = error.span().map_or(0, |span| span.start);
        reader.error(at, error.message().to_owned());
    }
    reader.top(table.get_ref());
    reader.layer
}

struct Reader<'a> {
    path: Arc<Path>,
    text: &'a str,
    errors: &'a mut Vec<ConfigError>,
    layer: Layer,
}

impl Reader<'_> {
    fn place(&self, at: usize) -> Place {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        Place::File { path: self.path.clone(), line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() }
    }

    fn error(&mut self, at: usize, message: String) {
        let place = self.place(at);
        self.errors.push(ConfigError::new(place, message));
    }

    fn top(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("origin", DeValue::Array(origins)) => {
                    for origin in origins.iter() {
                        self.origin(origin);
                    }
                }
                ("registry", DeValue::Array(registries)) => {
                    for registry in registries.iter() {
                        self.registry(registry);
                    }
                }
                ("registry", _) => self.error(value.span().start, "write registries as `[[registry]]`".to_owned()),
                ("origin", _) => self.error(value.span().start, "write origins as `[[origin]]`".to_owned()),
                (name, DeValue::Table(inner)) if TABLES.contains(&name) => self.table(name, inner),
                (name, _) if TABLES.contains(&name) => {
                    let meant = Setting::ALL.into_iter().map(Setting::key).find(|(_, key)| *key == name);
                    let hint = meant.map(|(table, key)| format!("; the key `{key}` belongs under `[{table}]`"));
                    let hint = hint.unwrap_or_default();
                    self.error(value.span().start, format!("`{name}` is a table: write `[{name}]`{hint}"));
                }
                _ => self.entry("", key.span().start, key.get_ref(), value),
            }
        }
    }

    fn table(&mut self, name: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            match (name, key.get_ref().as_ref()) {
                ("mesh", "peers") => self.layer.peers = self.list("peers", PEERS_EXAMPLE, value),
                ("fleet", "authorities") => {
                    self.layer.authorities = self.list("authorities", AUTHORITIES_EXAMPLE, value);
                }
                ("store", "attached") => self.attached_stores(value),
                ("releases", "channels") => self.layer.channels = self.list("channels", CHANNELS_EXAMPLE, value),
                ("releases", "platforms") => self.layer.platforms = self.list("platforms", PLATFORMS_EXAMPLE, value),
                ("uplink", "windows") => self.layer.windows = self.list("windows", WINDOWS_EXAMPLE, value),
                _ => self.entry(name, key.span().start, key.get_ref(), value),
            }
        }
    }

    fn entry(&mut self, table: &str, at: usize, key: &str, value: &Spanned<DeValue<'_>>) {
        match Setting::ALL.into_iter().find(|setting| setting.key() == (table, key)) {
            Some(setting) => {
                if let Some(given) = self.scalar(key, value) {
                    self.layer.values.insert(setting, given);
                }
            }
            None => self.unknown(table, at, key),
        }
    }

    /// Names what the key could have meant: one of this table first, then the same key of another table.
    fn unknown(&mut self, table: &str, at: usize, key: &str) {
        let all = || Setting::ALL.into_iter().map(Setting::key).chain(LISTS);
        let here = all().filter(|(of, _)| *of == table).map(|(_, key)| key);
        let here = here.chain(TABLES.into_iter().chain(["origin", "registry"]).filter(|_| table.is_empty()));
        let hint = if let Some(meant) = nearest(key, here) {
            format!("; did you mean `{meant}`?")
        } else if let Some((table, key)) = all().find(|(_, other)| *other == key) {
            if table.is_empty() {
                format!("; `{key}` belongs above the first table")
            } else {
                format!("; `{key}` belongs under `[{table}]`")
            }
        } else {
            String::new()
        };
        let shown = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        self.error(at, format!("unknown key `{shown}`{hint}"));
    }

    fn scalar(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Given> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Boolean(yes) => yes.to_string(),
            other => {
                let found = other.type_str();
                self.error(value.span().start, format!("`{key}` has one value, this is of type {found}"));
                return None;
            }
        };
        Some(Given { text, place: self.place(value.span().start) })
    }

    fn list(&mut self, key: &str, example: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Given>> {
        let DeValue::Array(values) = value.get_ref() else {
            self.error(value.span().start, format!("`{key}` is a list: write `{key} = {example}`"));
            return None;
        };
        Some(values.iter().filter_map(|value| self.scalar(key, value)).collect())
    }

    fn attached_stores(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(stores) = value.get_ref() else {
            return self.error(value.span().start, "write attached stores as `[[store.attached]]`".to_owned());
        };
        for store in stores.iter() {
            let DeValue::Table(table) = store.get_ref() else {
                self.error(store.span().start, "write attached stores as `[[store.attached]]`".to_owned());
                continue;
            };
            let mut attached = RawAttached { place: self.place(store.span().start), path: None, reuse: None };
            for (key, value) in table {
                let slot = match key.get_ref().as_ref() {
                    "path" => &mut attached.path,
                    "reuse" => &mut attached.reuse,
                    other => {
                        let message =
                            format!("unknown key `store.attached.{other}`; an attached store has path, reuse");
                        self.error(key.span().start, message);
                        continue;
                    }
                };
                *slot = self.scalar(key.get_ref(), value);
            }
            self.layer.attached.push(attached);
        }
    }

    fn origin(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = value.get_ref() else {
            self.error(value.span().start, "write origins as `[[origin]]`".to_owned());
            return;
        };
        let mut origin = RawOrigin::at(self.place(value.span().start));
        for (key, value) in table {
            let slot = match key.get_ref().as_ref() {
                "registry" => &mut origin.registry,
                "endpoint" => &mut origin.endpoint,
                "ca_file" => &mut origin.ca_file,
                "plain_http" => &mut origin.plain_http,
                "username" => &mut origin.username,
                "password_file" => &mut origin.password_file,
                other => {
                    let hint = match nearest(other, ORIGIN_KEYS.into_iter()) {
                        Some(meant) => format!("; did you mean `{meant}`?"),
                        None if other == "password" => "; write the password into a file of its own and name \
                             it in `password_file`"
                            .to_owned(),
                        None => format!("; an origin has {}", ORIGIN_KEYS.join(", ")),
                    };
                    self.error(key.span().start, format!("unknown key `origin.{other}`{hint}"));
                    continue;
                }
            };
            *slot = self.scalar(key.get_ref(), value);
        }
        self.layer.origins.push(origin);
    }

    fn registry(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = value.get_ref() else {
            self.error(value.span().start, "write registries as `[[registry]]`".to_owned());
            return;
        };
        let place = self.place(value.span().start);
        let mut registry = RawRegistry { place, name: None, policy: None, fresh: None, max_age: None };
        for (key, value) in table {
            let slot = match key.get_ref().as_ref() {
                "name" => &mut registry.name,
                "policy" => &mut registry.policy,
                "fresh" => &mut registry.fresh,
                "max_age" => &mut registry.max_age,
                other => {
                    let hint = match nearest(other, REGISTRY_KEYS.into_iter()) {
                        Some(meant) => format!("; did you mean `{meant}`?"),
                        None if ORIGIN_KEYS.contains(&other) => {
                            format!("; `{other}` belongs under an `[[origin]]` with `registry` set to its name")
                        }
                        None => format!("; a registry has {}", REGISTRY_KEYS.join(", ")),
                    };
                    self.error(key.span().start, format!("unknown key `registry.{other}`{hint}"));
                    continue;
                }
            };
            *slot = self.scalar(key.get_ref(), value);
        }
        self.layer.registries.push(registry);
    }
}
