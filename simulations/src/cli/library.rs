//! `list` and `show`: the scenarios that come with the program.

use std::fmt::Write as _;

use super::print;
use crate::scenario::{Scenario, library};

pub(super) fn list() -> anyhow::Result<bool> {
    let mut text = String::new();
    let width = library::library().iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, toml) in library::library() {
        let scenario = Scenario::parse(name, toml)?;
        writeln!(text, "{name:width$}  {}", scenario.about)?;
    }
    print(&text);
    Ok(true)
}

pub(super) fn show(name: &str) -> anyhow::Result<bool> {
    print(library::find(name).ok_or_else(|| unknown(name))?);
    Ok(true)
}

/// What is said of a name that the library has not.
pub(super) fn unknown(name: &str) -> anyhow::Error {
    let hint = library::nearest(name).map_or_else(String::new, |meant| format!("did you mean {meant:?}? "));
    anyhow::anyhow!("no scenario {name:?} in the library; {hint}`layermesh-sim list` shows which there are")
}
