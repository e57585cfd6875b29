//! Scenarios that once broke a rule, kept so that they never do again.
//!
//! `tests/kept/*.toml` hold. Those in `tests/kept/open/` show faults that are not mended yet: once one is, its file belongs
//! beside the others (`cargo test -p layermesh-sim --test kept -- --ignored` says which).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use layermesh_sim::{
    fleet::{Settings, run},
    scenario::Scenario,
};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// What each file breaks.
fn broken(folder: &str) -> Vec<(PathBuf, Vec<String>)> {
    let of = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario = Scenario::parse(&name, &std::fs::read_to_string(&path).unwrap()).unwrap();
        let report = run(&scenario, &Settings::of(&scenario), |_, _| ());
        let rules = report.broken.iter().map(|broken| format!("{} at {}: {}", broken.rule, broken.site, broken.what));
        (path, rules.collect())
    };
    files(folder).into_iter().map(of).collect()
}

#[test]
fn what_was_mended_stays_so() {
    for (path, rules) in broken("tests/kept") {
        assert_eq!(rules, Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
#[ignore = "faults that are known and not mended; it fails for those that are"]
fn what_is_open_is_still_there() {
    let mended: Vec<_> = broken("tests/kept/open").into_iter().filter(|(_, rules)| rules.is_empty()).collect();
    assert_eq!(mended, Vec::new(), "these hold now: move them to tests/kept");
}
