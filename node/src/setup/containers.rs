//! Podman, Buildah, skopeo and CRI-O: a block a registry, in a file of our own in `registries.conf.d`.
//!
//! A block replaces an earlier one of the same prefix, and of several the longest prefix counts. So ours take over what
//! earlier files say of the same prefixes (further mirrors, places, whether they are blocked), with the mirror before
//! it, and there is one for each longer prefix of the registries as well. A file that comes later would replace ours
//! again; then nothing is done. Registries that are blocked stay so.

use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::{REGISTRIES_DEFAULT, Runtime, Said, SetupError, Staged, Tree, Wish, text};

/// The start of our files' names. Late in the alphabet: later files win.
const OUR_FILES: &str = "zz-layermesh";
/// The block that says where images of a prefix are.
const REGISTRY: &str = "registry";

/// A block of a registry, and the file that it is from.
struct Block {
    file: PathBuf,
    prefix: String,
    table: Table,
}

/// Our file for a runtime. Podman and CRI-O read the same directory, and each can be taken back alone.
fn our_file(wish: &Wish) -> PathBuf {
    drop_in_dir(wish.config_file()).join(format!("{OUR_FILES}-{}.conf", wish.runtime.name()))
}

fn drop_in_dir(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

/// Locations of the mirrors that count for each prefix.
///
/// # Errors
/// If a file cannot be read or parsed.
pub fn inspect(main: &Path, tree: &dyn Tree) -> Result<Vec<(String, Vec<String>)>, SetupError> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for block in blocks(main, tree, true)? {
        let mirrors = block.table.get("mirror").cloned().map(Item::into_array_of_tables);
        let mirrors = mirrors.and_then(Result::ok).unwrap_or_default();
        let locations = mirrors.iter().filter_map(|mirror| mirror.get("location").and_then(Item::as_str));
        let locations = locations.map(str::to_owned).collect();
        found.retain(|(prefix, _)| *prefix != block.prefix);
        found.push((block.prefix, locations));
    }
    Ok(found)
}

/// The blocks of all files in the order in which they are read.
fn blocks(main: &Path, tree: &dyn Tree, with_ours: bool) -> Result<Vec<Block>, SetupError> {
    let dir = drop_in_dir(main);
    let drop_ins = tree.list(&dir)?.into_iter().filter(|(name, is_dir)| !is_dir && name.ends_with(".conf"));
    let drop_ins = drop_ins.filter(|(name, _)| with_ours || !name.starts_with(OUR_FILES));
    let files = std::iter::once(main.to_owned()).chain(drop_ins.map(|(name, _)| dir.join(name)));
    let mut blocks = Vec::new();
    for file in files {
        let Some(text) = tree.read(&file)? else { continue };
        let document = text::parse_toml(&file, &text)?;
        let Some(item) = document.get(REGISTRY) else { continue };
        // `registry = [{...}]` is another way to write it.
        let Ok(tables) = item.clone().into_array_of_tables() else { continue };
        for table in tables.iter() {
            let word = |key: &str| table.get(key).and_then(Item::as_str).map(str::to_owned);
            let Some(prefix) = word("prefix").or_else(|| word("location")) else { continue };
            blocks.push(Block { file: file.clone(), prefix, table: table.clone() });
        }
    }
    Ok(blocks)
}

/// Plans the mirror for what reads `registries.conf`.
pub(super) fn plan(wish: &Wish, staged: &mut Staged<'_>) -> Result<Said, SetupError> {
    let file = our_file(wish);
    let registries = match wish.registries.as_slice() {
        [] => REGISTRIES_DEFAULT.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let existing = blocks(wish.config_file(), staged, false)?;
    let mut said = Said::new(format!("registries.conf, one block a registry: {}", registries.join(", ")));
    let mut ours = ArrayOfTables::new();
    for registry in &registries {
        let belongs = |block: &&Block| {
            block.prefix == *registry || block.prefix.strip_prefix(registry).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut prefixes: Vec<&str> = existing.iter().filter(belongs).map(|block| block.prefix.as_str()).collect();
        prefixes.push(registry);
        prefixes.sort_unstable();
        prefixes.dedup();
        for prefix in prefixes {
            let last = existing.iter().rev().find(|block| block.prefix == prefix);
            if let Some(late) = last.filter(|block| block.file > file && block.file != wish.config_file()) {
                return Err(SetupError::ByHand {
                    path: late.file.clone(),
                    why: format!("it configures {prefix} after {}, and would win", file.display()),
                    lines: format!("give it a name that comes before {OUR_FILES}, then run this again.\n"),
                });
            }
            match block(wish, prefix, last.map(|block| &block.table)) {
                Some(table) => ours.push(table),
                None => said.note(format!("{prefix} is blocked in registries.conf, and stays so.")),
            }
        }
    }
    let mut document = DocumentMut::new();
    document.insert(REGISTRY, Item::ArrayOfTables(ours));
    staged.put(&file, Some(format!("{}{document}", wish.header())));
    said.note(
        "Versions from before the middle of 2026 ask whoever gave an image's manifest for all of its layers too, and \
         fail where that has not all: the node therefore answers only for images that it can bring whole.",
    );
    if wish.runtime == Runtime::Podman {
        said.note("Podman, Buildah and skopeo read it at each pull: nothing needs a restart.");
    }
    Ok(said)
}

/// What there is of a prefix, with the mirror first; `None` if it is blocked.
fn block(wish: &Wish, prefix: &str, existing: Option<&Table>) -> Option<Table> {
    let mut table = Table::new();
    table.insert("prefix", value(prefix));
    table.insert("location", value(prefix));
    let mut mirrors = ArrayOfTables::new();
    let mut further = ArrayOfTables::new();
    for (key, item) in existing.into_iter().flat_map(Table::iter) {
        if key == "mirror" {
            further = item.clone().into_array_of_tables().unwrap_or_default();
        } else if let Some(scalar) = item.as_value() {
            let mut scalar = scalar.clone();
            scalar.decor_mut().clear();
            table.insert(key, Item::Value(scalar));
        }
    }
    if table.get("blocked").and_then(Item::as_bool) == Some(true) {
        return None;
    }
    let location = table.get("location").and_then(Item::as_str).unwrap_or(prefix).to_owned();
    let mut mirror = Table::new();
    mirror.insert("location", value(format!("{}/{location}", wish.authority())));
    mirror.insert("insecure", value(true));
    mirrors.push(mirror);
    for other in further.iter() {
        let mut copy = Table::new();
        for (key, item) in other.iter() {
            if let Some(scalar) = item.as_value() {
                let mut scalar = scalar.clone();
                scalar.decor_mut().clear();
                copy.insert(key, Item::Value(scalar));
            }
        }
        mirrors.push(copy);
    }
    table.insert("mirror", Item::ArrayOfTables(mirrors));
    table.decor_mut().set_prefix("\n");
    Some(table)
}
