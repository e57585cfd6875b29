//! k3s and RKE2: `mirrors` in registries.yaml, of which `*` stands for all registries that have no entry of their own.
//!
//! Nothing keeps the comments of YAML while changing it, so lines are put in as text, at the places that the parser
//! names, and what comes of it is parsed and compared with what was meant. Where that differs (a style that few write
//! by hand), nothing is changed, and the error says what to write.

use std::path::Path;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Scalar, Yaml, YamlData};

use super::{Said, SetupError, Staged, Tree, Wish, text};

/// The name of an entry of `mirrors`, and its endpoints.
type Entry = (String, Vec<String>);

/// The entry that stands for all registries without one of their own.
const ALL: &str = "*";

/// The endpoints of each entry of `mirrors`.
///
/// # Errors
/// If the file cannot be read or parsed.
pub fn inspect(path: &Path, tree: &dyn Tree) -> Result<Vec<Entry>, SetupError> {
    let text = tree.read(path)?.unwrap_or_default();
    Ok(meaning(path, &text)?.unwrap_or_default())
}

/// Plans the mirror for k3s.
pub(super) fn plan(wish: &Wish, staged: &mut Staged<'_>) -> Result<Said, SetupError> {
    let path = wish.config_file();
    let before = staged.read(path)?;
    let url = wish.url();
    let names: Vec<String> = if wish.registries.is_empty() { vec![ALL.to_owned()] } else { wish.registries.clone() };
    let mut text = before.clone().unwrap_or_else(|| wish.header());
    let entries = meaning(path, &text)?.unwrap_or_default();
    // An entry of its own hides `*` from a registry.
    let mut wanted: Vec<String> = match wish.registries.as_slice() {
        [] => entries.iter().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    };
    wanted.extend(names);
    wanted.dedup();
    let is_ours = |endpoint: &String| endpoint.trim_end_matches('/') == url;
    let mut expected = entries.clone();
    for name in wanted {
        let entry = expected.iter_mut().find(|(other, _)| *other == name);
        match entry {
            Some((_, endpoints)) if endpoints.iter().any(is_ours) => continue,
            Some((_, endpoints)) => endpoints.insert(0, url.clone()),
            None => expected.push((name.clone(), vec![url.clone()])),
        }
        text = with_endpoint(&text, &name, &url).filter(|text| is_meant(path, text, &expected)).ok_or_else(|| {
            SetupError::ByHand {
                path: path.to_owned(),
                why: format!("its entry `{name}` is written in a style that cannot be changed without risk"),
                lines: format!("mirrors:\n  \"{name}\":\n    endpoint:\n      - \"{url}\"\n"),
            }
        })?;
    }
    if rest(path, &text) != rest(path, before.as_deref().unwrap_or_default()) {
        return Err(SetupError::Wish(format!("{} cannot be changed without risk", path.display())));
    }
    if expected != entries {
        staged.put(path, Some(text));
    }
    let mut said = Said::new("k3s, by registries.yaml");
    said.note("It is read when k3s starts. On agents the service is k3s-agent; of RKE2 rke2-server or rke2-agent.");
    Ok(said)
}

fn is_meant(path: &Path, text: &str, expected: &[Entry]) -> bool {
    // The order of entries means nothing to k3s.
    let sorted = |entries: &[Entry]| {
        let mut entries = entries.to_vec();
        entries.sort();
        entries
    };
    meaning(path, text).ok().flatten().is_some_and(|entries| sorted(&entries) == sorted(expected))
}

fn load<'a>(path: &Path, text: &'a str) -> Result<Option<MarkedYaml<'a>>, SetupError> {
    let mut documents = MarkedYaml::load_from_str(text).map_err(|error| SetupError::Unparsable {
        path: path.to_owned(),
        line: error.marker().line(),
        message: error.info().to_owned(),
    })?;
    match documents.len() {
        0 => Ok(None),
        1 => Ok(documents.pop()),
        _ => Err(SetupError::Unparsable {
            path: path.to_owned(),
            line: documents[1].span.start.line(),
            message: "it has several documents".to_owned(),
        }),
    }
}

fn is_nothing(node: &MarkedYaml<'_>) -> bool {
    matches!(node.data, YamlData::Value(Scalar::Null))
}

/// The entries of `mirrors` in order; `None` if the text is no mapping with at most a mapping there.
fn meaning(path: &Path, text: &str) -> Result<Option<Vec<Entry>>, SetupError> {
    let Some(root) = load(path, text)?.filter(|root| !is_nothing(root)) else { return Ok(Some(Vec::new())) };
    let wrong = |node: &MarkedYaml<'_>, message: &str| SetupError::Unparsable {
        path: path.to_owned(),
        line: node.span.start.line(),
        message: message.to_owned(),
    };
    if root.data.as_mapping().is_none() {
        return Err(wrong(&root, "it is no mapping"));
    }
    let Some(mirrors) = root.data.as_mapping_get("mirrors").filter(|mirrors| !is_nothing(mirrors)) else {
        return Ok(Some(Vec::new()));
    };
    let Some(mirrors) = mirrors.data.as_mapping() else { return Err(wrong(mirrors, "`mirrors` is no mapping")) };
    let mut entries = Vec::new();
    for (name, entry) in mirrors {
        let Some(name) = name.data.as_str() else { return Ok(None) };
        let endpoints = entry.data.as_mapping_get("endpoint");
        let endpoints = endpoints.and_then(|endpoints| endpoints.data.as_vec()).map(Vec::as_slice).unwrap_or_default();
        let words = endpoints.iter().filter_map(|endpoint| endpoint.data.as_str().map(str::to_owned));
        entries.push((name.to_owned(), words.collect()));
    }
    Ok(Some(entries))
}

/// What the file means besides endpoints of mirrors, for comparison.
fn rest(path: &Path, text: &str) -> Option<String> {
    load(path, text).ok()?;
    let documents = Yaml::load_from_str(text).ok()?;
    let Some(Yaml::Mapping(root)) = documents.first() else { return Some(String::new()) };
    let mut rest = String::new();
    for (key, value) in root {
        if key.as_str() != Some("mirrors") {
            rest += &format!("{key:?}: {value:?}\n");
        } else if let Yaml::Mapping(mirrors) = value {
            for (name, entry) in mirrors {
                let others =
                    entry.as_mapping().into_iter().flatten().filter(|(key, _)| key.as_str() != Some("endpoint"));
                let others: Vec<_> = others.collect();
                if !others.is_empty() {
                    rest += &format!("{name:?}: {others:?}\n");
                }
            }
        }
    }
    Some(rest)
}

/// The text with an endpoint before others of an entry; `None` if there is no line for it.
fn with_endpoint(before: &str, name: &str, url: &str) -> Option<String> {
    let mut lines: Vec<String> = before.split_inclusive('\n').map(str::to_owned).collect();
    let place = Place::find(before, name)?;
    if let Some(last) = lines.last_mut() {
        *last = text::ended(last);
    }
    let entry = |indent: &str| format!("{indent}\"{name}\":\n{indent}  endpoint:\n{indent}    - \"{url}\"\n");
    match place {
        Place::NoMirrors => lines.push(format!("mirrors:\n{}", entry("  "))),
        Place::EmptyMirrors { line } => lines.insert(line, entry("  ")),
        Place::NoEntry { line, column } => lines.insert(line - 1, entry(&" ".repeat(column))),
        Place::NoEndpoints { line, column } => {
            let indent = " ".repeat(column + 2);
            lines.insert(line, format!("{indent}endpoint:\n{indent}  - \"{url}\"\n"));
        }
        Place::Item { line } => {
            let old = lines.get(line - 1)?;
            let indent = text::indentation(old);
            let new = format!("{indent}- \"{url}\"\n");
            lines.insert(line - 1, new);
        }
        Place::Flow { line, column } => {
            let old = lines.get_mut(line - 1)?;
            let at = old.char_indices().nth(column)?.0;
            old.insert_str(at, &format!("\"{url}\", "));
        }
    }
    Some(lines.concat())
}

/// Where a new endpoint goes. Lines are counted from 1 on, columns from 0.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// At the end, with the key `mirrors`.
    NoMirrors,
    /// After the line with `mirrors:`.
    EmptyMirrors { line: usize },
    /// Before the first entry, which is here.
    NoEntry { line: usize, column: usize },
    /// After the line with the entry's name, which is here.
    NoEndpoints { line: usize, column: usize },
    /// Before the first endpoint, an item on a line of its own.
    Item { line: usize },
    /// Before the first endpoint, in brackets.
    Flow { line: usize, column: usize },
}

impl Place {
    fn find(text: &str, name: &str) -> Option<Self> {
        let root = MarkedYaml::load_from_str(text).ok()?.pop();
        let Some(root) = root.filter(|root| !is_nothing(root)) else { return Some(Self::NoMirrors) };
        let Some((key, mirrors)) = named(&root, "mirrors") else { return Some(Self::NoMirrors) };
        if is_nothing(mirrors) {
            return Some(Self::EmptyMirrors { line: key.span.start.line() });
        }
        let Some((key, entry)) = named(mirrors, name) else {
            let first = mirrors.data.as_mapping()?.iter().next()?.0.span.start;
            return Some(Self::NoEntry { line: first.line(), column: first.col() });
        };
        let at = key.span.start;
        let Some((_, endpoints)) = named(entry, "endpoint") else {
            return Some(Self::NoEndpoints { line: at.line(), column: at.col() });
        };
        let first = endpoints.data.as_vec()?.first()?.span.start;
        let line = text.lines().nth(first.line().checked_sub(1)?)?;
        let item = line.trim_start().starts_with('-');
        Some(if item {
            Self::Item { line: first.line() }
        } else {
            Self::Flow { line: first.line(), column: first.col() }
        })
    }
}

fn named<'a, 'b>(node: &'a MarkedYaml<'b>, name: &str) -> Option<(&'a MarkedYaml<'b>, &'a MarkedYaml<'b>)> {
    node.data.as_mapping()?.iter().find(|(key, _)| key.data.as_str() == Some(name))
}
