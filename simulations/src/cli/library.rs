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
    let text = library::find(name)
        .ok_or_else(|| anyhow::anyhow!("no scenario {name:?}: `layermesh-sim list` shows which there are"))?;
    print(text);
    Ok(true)
}
