//! Directories of `hosts.toml`, which containerd and Docker's containerd store read: one a registry, and `_default`.
//!
//! A registry's own directory hides `_default`, so the mirror goes into each that there is. Hosts are asked in the
//! order of their tables, so the mirror's is the first. A directory without `hosts.toml` holds certificates in Docker's
//! way, which a `hosts.toml` beside them would turn off; it then names them.

use std::{collections::BTreeMap, path::Path};

use toml_edit::DocumentMut;

use super::{SetupError, Staged, Tree as _, Wish, text};

/// Name of the file in each directory.
pub const HOSTS_FILE: &str = "hosts.toml";
/// Name of the directory for registries without one of their own.
pub const DEFAULT_DIR: &str = "_default";

/// Puts the mirror into the directories below `dir`: all that there are and `_default`, or those of the registries.
pub(super) fn plan(wish: &Wish, dir: &Path, staged: &mut Staged<'_>) -> Result<(), SetupError> {
    let existing: Vec<String> =
        staged.list(dir)?.into_iter().filter(|(_, is_dir)| *is_dir).map(|(name, _)| name).collect();
    let mut names = existing.clone();
    if wish.registries.is_empty() {
        names.push(DEFAULT_DIR.to_owned());
    } else {
        names = wish.registries.iter().map(|registry| directory_of(registry, &existing)).collect();
    }
    names.sort();
    names.dedup();
    for name in names {
        // An empty directory hides `_default` like any other.
        let own = staged.list(&dir.join(&name))?;
        let path = dir.join(&name).join(HOSTS_FILE);
        let before = staged.read(&path)?;
        if let Some(after) = merged(wish, &path, before.as_deref(), &own)? {
            staged.put(&path, Some(after));
        }
    }
    Ok(())
}

/// The directory that containerd looks into for a registry: `host_port_` before `host:port`.
fn directory_of(registry: &str, existing: &[String]) -> String {
    let Some((host, port)) = registry.rsplit_once(':') else { return registry.to_owned() };
    let underscored = format!("{host}_{port}_");
    if existing.contains(&underscored) { underscored } else { registry.to_owned() }
}

/// Whether hosts of a `hosts.toml` include one at this authority, for pulls by tag and digest.
pub fn names_mirror(document: &DocumentMut, authority: &str) -> bool {
    let Some(hosts) = document.get("host").and_then(|item| item.as_table_like()) else { return false };
    hosts.iter().any(|(name, host)| {
        let able = |what: &str| match host.get("capabilities").and_then(|item| item.as_array()) {
            Some(capabilities) => capabilities.iter().any(|one| one.as_str() == Some(what)),
            None => true,
        };
        is_at(name, authority) && able("pull") && able("resolve")
    })
}

fn is_at(name: &str, authority: &str) -> bool {
    name.trim_end_matches('/') == format!("http://{authority}")
}

/// The text with the mirror as its first host; `None` if it is there.
fn merged(
    wish: &Wish,
    path: &Path,
    before: Option<&str>,
    beside: &BTreeMap<String, bool>,
) -> Result<Option<String>, SetupError> {
    let table = format!("[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", wish.url());
    let Some(before) = before.filter(|text| !text.trim().is_empty()) else {
        return Ok(Some(format!("{}{}\n{table}", wish.header(), certificates(beside))));
    };
    let document = text::parse_toml(path, before)?;
    if names_mirror(&document, &wish.authority()) {
        return Ok(None);
    }
    let by_hand = |why: &str| SetupError::ByHand {
        path: path.to_owned(),
        why: why.to_owned(),
        lines: format!("put this before all other hosts:\n\n{table}"),
    };
    let hosts = document.get("host").and_then(|item| item.as_table_like());
    if hosts.is_some_and(|hosts| hosts.iter().any(|(name, _)| is_at(name, &wish.authority()))) {
        return Err(by_hand("the mirror is a host there already, but not one for both `pull` and `resolve`"));
    }
    let after = inserted(before, &table);
    let means = after.parse::<DocumentMut>().ok().is_some_and(|after| is_first(&after, &wish.url()));
    // The rest means what it did before, whatever its layout.
    if !means || without(&after, &wish.url()) != without(before, &wish.url()) {
        return Err(by_hand("its hosts are not written as tables of their own, such as `[host.\"https://...\"]`"));
    }
    Ok(Some(after))
}

/// What a `hosts.toml` has to say so that certificates beside it are used as without it.
fn certificates(beside: &BTreeMap<String, bool>) -> String {
    let named = |end: &str| beside.keys().filter(move |name| name.ends_with(end)).cloned().collect::<Vec<_>>();
    let quoted = |names: &[String]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let mut lines = String::new();
    let authorities = named(".crt");
    if !authorities.is_empty() {
        lines += &format!("ca = [{}]\n", quoted(&authorities));
    }
    let pair = |certificate: &String| {
        let key = format!("{}.key", certificate.trim_end_matches(".cert"));
        beside.contains_key(&key).then(|| format!("[{}]", quoted(&[certificate.clone(), key])))
    };
    let pairs: Vec<String> = named(".cert").iter().filter_map(pair).collect();
    if !pairs.is_empty() {
        lines += &format!("client = [{}]\n", pairs.join(", "));
    }
    lines
}

/// The text with a table before the first host and the comment above that.
fn inserted(before: &str, table: &str) -> String {
    let mut lines: Vec<&str> = before.split_inclusive('\n').collect();
    let is_host = |line: &&str| {
        let inner = line.trim_start().strip_prefix('[').map(str::trim_start);
        inner.and_then(|inner| inner.strip_prefix("host")).is_some_and(|rest| rest.starts_with(['.', ' ', ']', '\t']))
    };
    match lines.iter().position(is_host) {
        Some(mut at) => {
            while at > 0 && lines[at - 1].trim_start().starts_with('#') {
                at -= 1;
            }
            let table = format!("{table}\n");
            lines.insert(at, &table);
            lines.concat()
        }
        None => format!("{}\n{table}", text::ended(before)),
    }
}

fn is_first(document: &DocumentMut, url: &str) -> bool {
    let hosts = document.get("host").and_then(|item| item.as_table_like());
    hosts.is_some_and(|hosts| hosts.iter().next().is_some_and(|(name, _)| name == url))
}

/// What a text means but for one host; `None` if nothing.
fn without(text: &str, url: &str) -> Option<toml::Table> {
    let mut table: toml::Table = toml::from_str(text).ok()?;
    if let Some(toml::Value::Table(hosts)) = table.get_mut("host") {
        hosts.remove(url);
        if hosts.is_empty() {
            table.remove("host");
        }
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Runtime;
    use crate::setup::{tests::wish, tree::fake::Files};

    fn planned(files: &Files, registries: &[&str]) -> Result<Files, SetupError> {
        let mut wish = wish(Runtime::Containerd);
        wish.registries = registries.iter().map(|&name| name.to_owned()).collect();
        let mut staged = Staged::new(files);
        plan(&wish, Path::new("/d"), &mut staged)?;
        Ok(files.after(&staged.changes()?))
    }

    const OURS: &str = "[host.\"http://127.0.0.1:7117\"]\n  capabilities = [\"pull\", \"resolve\"]\n";

    #[test]
    fn the_mirror_goes_before_other_hosts_and_their_comments() {
        let before =
            "# Ours\nserver = \"https://a.test\" # end\n\n# The cache\n[host.\"https://cache.test\"]\n  ca = \"x\"\n";
        let files = planned(&Files::of(&[("/d/a.test/hosts.toml", before)]), &[]).unwrap();
        let expected = format!(
            "# Ours\nserver = \"https://a.test\" # end\n\n{OURS}\n\
             # The cache\n[host.\"https://cache.test\"]\n  ca = \"x\"\n"
        );
        assert_eq!(files.text("/d/a.test/hosts.toml"), expected);
        assert!(files.text("/d/_default/hosts.toml").ends_with(OURS));
        assert_eq!(planned(&files, &[]).unwrap(), files);
    }

    #[test]
    fn a_file_without_hosts_gets_one_at_its_end() {
        let files = planned(&Files::of(&[("/d/_default/hosts.toml", "server = \"https://a.test\"")]), &[]).unwrap();
        assert_eq!(files.text("/d/_default/hosts.toml"), format!("server = \"https://a.test\"\n\n{OURS}"));
    }

    #[test]
    fn certificates_in_dockers_way_stay_in_use() {
        let beside =
            Files::of(&[("/d/r.test:5000/ca.crt", ""), ("/d/r.test:5000/c.cert", ""), ("/d/r.test:5000/c.key", "")]);
        let files = planned(&beside, &[]).unwrap();
        let text = files.text("/d/r.test:5000/hosts.toml");
        assert!(text.contains("ca = [\"ca.crt\"]\nclient = [[\"c.cert\", \"c.key\"]]\n\n[host."), "{text}");
        assert!(text.parse::<DocumentMut>().is_ok());
    }

    #[test]
    fn only_the_registries_that_were_named() {
        let before = Files::of(&[("/d/a.test_5000_/hosts.toml", "# a\n"), ("/d/b.test/hosts.toml", "# b\n")]);
        let files = planned(&before, &["a.test:5000", "c.test:1"]).unwrap();
        assert!(files.text("/d/a.test_5000_/hosts.toml").contains(OURS));
        assert!(files.text("/d/c.test:1/hosts.toml").contains(OURS));
        assert_eq!(files.text("/d/b.test/hosts.toml"), "# b\n");
        assert_eq!(files.text("/d/_default/hosts.toml"), "(none)");
    }

    #[test]
    fn what_is_not_understood_is_left_to_people() {
        for text in [
            "host = { \"https://a.test\" = {} }\n",
            "[host.\"http://127.0.0.1:7117\"]\n  capabilities = [\"pull\"]\n",
            "server = \"\"\"\n[host.x]\n\"\"\"\n[host.\"https://a.test\"]\n",
        ] {
            let error = planned(&Files::of(&[("/d/_default/hosts.toml", text)]), &[]).unwrap_err();
            assert!(error.to_string().contains(OURS), "{text}: {error}");
        }
        let error = planned(&Files::of(&[("/d/_default/hosts.toml", "a = 1\n[host\n")]), &[]).unwrap_err();
        assert!(error.to_string().starts_with("/d/_default/hosts.toml:2: "), "{error}");
    }
}
