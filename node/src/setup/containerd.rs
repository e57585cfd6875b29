//! containerd: one explicit `config_path` in its configuration, and the mirror in the directories there.
//!
//! The file's format says where the setting is: format 1 and 2 (containerd 1.x, which 2.x reads as well) have it in the
//! CRI plugin, 3 and newer (containerd 2.x) in its image service. Files of `imports` win over the file that names them,
//! and a later one over an earlier one, so the setting is changed where it counts. Unset, or two directories joined by
//! a colon, is what containerd 2.1 and newer take for one directory that is not there: all mirrors are ignored then,
//! silently.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table, TableLike, Value, value};

use super::{Said, SetupError, Staged, Tree, Version, Wish, hosts, text};

/// Where hosts are configured unless a configuration says otherwise.
pub const HOSTS_DIR: &str = "/etc/containerd/certs.d";
/// The newest format that is written; newer ones are only changed.
const FORMAT_NEW: i64 = 3;
/// Files of `imports` that are looked at; more are a mistake.
const IMPORTS_MAX: usize = 64;
/// From this version on a colon does not join two directories.
const NO_JOIN: Version = Version { major: 2, minor: 1 };

/// Keys of the tables with `registry`, by the file's format.
fn keys(format: i64) -> [&'static str; 3] {
    match format {
        ..=1 => ["plugins", "cri", "registry"],
        2 => ["plugins", "io.containerd.grpc.v1.cri", "registry"],
        _ => ["plugins", "io.containerd.cri.v1.images", "registry"],
    }
}

/// What a configuration says of registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Whether there is a configuration file at all.
    pub exists: bool,
    /// The file in which the setting counts.
    pub file: PathBuf,
    /// `config_path`, empty if unset.
    pub config_path: String,
    /// Whether Kubernetes' interface is switched off, so that `config_path` means nothing.
    pub cri_disabled: bool,
    /// Registries with the deprecated settings that exclude `config_path`.
    pub deprecated: Vec<String>,
    /// Whether compressed layers are thrown away after unpacking.
    pub discards_layers: bool,
}

impl Found {
    /// The directories of `config_path`.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.config_path.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect()
    }
}

struct File {
    path: PathBuf,
    text: String,
    document: DocumentMut,
}

impl File {
    fn format(&self) -> i64 {
        self.document.get("version").and_then(Item::as_integer).unwrap_or(1)
    }

    /// The registry table, in whichever format the file has it: files of `imports` often name none.
    fn registry(&self) -> Option<&dyn TableLike> {
        let found = (1..=FORMAT_NEW).rev().find_map(|format| text::find(self.document.as_table(), &keys(format)));
        found.and_then(Item::as_table_like)
    }

    fn config_path(&self) -> Option<&str> {
        self.registry()?.get("config_path")?.as_str().filter(|path| !path.is_empty())
    }
}

/// Reads what a configuration says.
///
/// # Errors
/// If a file cannot be read or parsed.
pub fn inspect(path: &Path, tree: &dyn Tree) -> Result<Found, SetupError> {
    let files = read(path, tree)?;
    let Some(main) = files.first() else { return Ok(Found { file: path.to_owned(), ..Found::default() }) };
    let counts = counting(&files).unwrap_or(main);
    Ok(Found {
        exists: true,
        file: counts.path.clone(),
        config_path: counts.config_path().unwrap_or_default().to_owned(),
        cri_disabled: files.iter().any(disables_cri),
        deprecated: files.iter().flat_map(|file| deprecated(file).into_iter().map(|(name, _)| name)).collect(),
        discards_layers: files.iter().any(discards_layers),
    })
}

/// The file and those that it imports, in the order in which they count.
fn read(path: &Path, tree: &dyn Tree) -> Result<Vec<File>, SetupError> {
    let Some(text) = tree.read(path)? else { return Ok(Vec::new()) };
    let document = text::parse_toml(path, &text)?;
    let imports: Vec<PathBuf> = document
        .get("imports")
        .and_then(Item::as_array)
        .map(|imports| imports.iter().filter_map(Value::as_str).map(PathBuf::from).collect())
        .unwrap_or_default();
    let mut files = vec![File { path: path.to_owned(), text, document }];
    for import in imports {
        let import = path.parent().unwrap_or(Path::new("/")).join(import);
        for path in matching(&import, tree)? {
            if files.len() > IMPORTS_MAX {
                return Err(SetupError::Wish(format!("{} imports more than {IMPORTS_MAX} files", path.display())));
            }
            if let Some(text) = tree.read(&path)? {
                let document = text::parse_toml(&path, &text)?;
                files.push(File { path, text, document });
            }
        }
    }
    Ok(files)
}

/// The files that an import names: itself, or those that a `*` in its last part stands for.
fn matching(import: &Path, tree: &dyn Tree) -> Result<Vec<PathBuf>, SetupError> {
    let (Some(dir), Some(name)) = (import.parent(), import.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let Some((start, end)) = name.split_once('*') else { return Ok(vec![import.to_owned()]) };
    let fits = |name: &str| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
    let names = tree.list(dir)?.into_iter().filter(|(name, is_dir)| !is_dir && fits(name));
    Ok(names.map(|(name, _)| dir.join(name)).collect())
}

fn counting(files: &[File]) -> Option<&File> {
    files.iter().rev().find(|file| file.config_path().is_some())
}

fn disables_cri(file: &File) -> bool {
    let disabled = file.document.get("disabled_plugins").and_then(Item::as_array);
    let names = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"];
    disabled.is_some_and(|disabled| disabled.iter().any(|one| one.as_str().is_some_and(|one| names.contains(&one))))
}

fn discards_layers(file: &File) -> bool {
    let plugins = file.document.get("plugins").and_then(Item::as_table_like);
    plugins.is_some_and(|plugins| {
        plugins.iter().filter_map(|(_, plugin)| plugin.as_table_like()).any(|plugin| {
            let inner = plugin.get("containerd").and_then(Item::as_table_like);
            [Some(plugin), inner]
                .into_iter()
                .flatten()
                .any(|table| table.get("discard_unpacked_layers").and_then(Item::as_bool) == Some(true))
        })
    })
}

/// Registries with `mirrors`, or with TLS settings in `configs`, and the endpoints of each.
fn deprecated(file: &File) -> Vec<(String, Vec<String>)> {
    let Some(registry) = file.registry() else { return Vec::new() };
    let table = |name: &str| registry.get(name).and_then(Item::as_table_like);
    let mut found = Vec::new();
    for (name, mirror) in table("mirrors").into_iter().flat_map(TableLike::iter) {
        let endpoints = mirror.get("endpoint").and_then(Item::as_array);
        let endpoints = endpoints.into_iter().flat_map(|array| array.iter().filter_map(Value::as_str));
        found.push((name.to_owned(), endpoints.map(str::to_owned).collect()));
    }
    for (name, config) in table("configs").into_iter().flat_map(TableLike::iter) {
        let tls = config.get("tls").and_then(Item::as_table_like).is_some_and(|tls| !tls.is_empty());
        if tls && found.iter().all(|(other, _)| other != name) {
            found.push((name.to_owned(), Vec::new()));
        }
    }
    found
}

/// Plans the mirror for containerd.
pub(super) fn plan(wish: &Wish, staged: &mut Staged<'_>) -> Result<Said, SetupError> {
    let path = wish.config_file().to_owned();
    let files = read(&path, staged)?;
    let mut said = Said::new("containerd, by hosts.toml");
    let dirs = if files.iter().any(disables_cri) {
        said.note(format!(
            "{} switches Kubernetes' interface (CRI) off, so only its clients matter: nerdctl looks into {HOSTS_DIR} \
             by itself, `ctr images pull` with --hosts-dir {HOSTS_DIR}.",
            path.display()
        ));
        vec![PathBuf::from(HOSTS_DIR)]
    } else {
        configure(wish, &path, &files, staged, &mut said)?
    };
    if files.iter().any(discards_layers) {
        said.note(
            "containerd throws compressed layers away after unpacking (`discard_unpacked_layers`). The node keeps its \
             own copies, so that matters only to `layermesh attach`.",
        );
    }
    let (last, others) = dirs.split_last().ok_or_else(|| SetupError::Wish("no directory for hosts.toml".to_owned()))?;
    for dir in others {
        // Of joined directories the first that knows a registry counts: `_default` in it would hide the rest.
        if !staged.list(dir)?.is_empty() {
            let known = staged.list(dir)?.into_iter().filter(|(name, is_dir)| *is_dir && name != hosts::DEFAULT_DIR);
            let registries: Vec<String> = known.map(|(name, _)| name).collect();
            if !registries.is_empty() {
                hosts::plan(&Wish { registries, ..wish.clone() }, dir, staged)?;
            }
        }
    }
    hosts::plan(wish, last, staged)?;
    Ok(said)
}

/// Sees to an explicit `config_path`, and says what it is.
fn configure(
    wish: &Wish,
    path: &Path,
    files: &[File],
    staged: &mut Staged<'_>,
    said: &mut Said,
) -> Result<Vec<PathBuf>, SetupError> {
    let Some(main) = files.first() else {
        let new = wish.facts.version.is_some_and(|version| version.major >= 2);
        let format = if new { FORMAT_NEW } else { 2 };
        let [plugins, plugin, registry] = keys(format);
        let text = format!(
            "{}version = {format}\n\n[{plugins}.\"{plugin}\".{registry}]\n  config_path = \"{HOSTS_DIR}\"\n",
            wish.header()
        );
        staged.put(path, Some(text));
        return Ok(vec![HOSTS_DIR.into()]);
    };
    refuse_deprecated(wish, files)?;
    let counts = counting(files).unwrap_or(main);
    let joined: Vec<PathBuf> = counts.config_path().unwrap_or_default().split(':').map(PathBuf::from).collect();
    let joined: Vec<PathBuf> = joined.into_iter().filter(|dir| !dir.as_os_str().is_empty()).collect();
    let dir = match joined.as_slice() {
        [] => PathBuf::from(HOSTS_DIR),
        [_] if counts.config_path().is_some_and(|path| !path.contains(':')) => return Ok(joined),
        dirs => {
            let mut used = Vec::new();
            for dir in dirs {
                if staged.list(dir)?.values().any(|is_dir| *is_dir) {
                    used.push(dir.clone());
                }
            }
            match used.as_slice() {
                [] => dirs[0].clone(),
                [one] => one.clone(),
                _ if wish.facts.version.is_some_and(|version| version < NO_JOIN) => {
                    said.note(
                        "`config_path` joins several directories, which containerd 2.1 and newer do not understand: \
                         make it one before you upgrade.",
                    );
                    return Ok(joined);
                }
                _ => return Err(joined_by_hand(counts, &used)),
            }
        }
    };
    let after = with_config_path(counts, main.format(), &dir)?;
    staged.put(&counts.path, Some(after));
    Ok(vec![dir])
}

fn joined_by_hand(file: &File, used: &[PathBuf]) -> SetupError {
    let first = used[0].display();
    let moves = used[1..].iter().map(|dir| format!("  mv {}/* {first}/\n", dir.display())).collect::<String>();
    SetupError::ByHand {
        path: file.path.clone(),
        why: "`config_path` joins directories with a colon, and several of them configure registries. containerd 2.1 \
              and newer take that for one directory, and ignore all of it."
            .to_owned(),
        lines: format!("move them together, then run this again:\n\n{moves}  config_path = \"{first}\"\n"),
    }
}

fn refuse_deprecated(wish: &Wish, files: &[File]) -> Result<(), SetupError> {
    for file in files {
        let found = deprecated(file);
        if found.is_empty() {
            continue;
        }
        let mut lines = String::new();
        for (name, endpoints) in found {
            let dir = if name == "*" { hosts::DEFAULT_DIR } else { &name };
            lines += &format!("{HOSTS_DIR}/{dir}/{}:\n", hosts::HOSTS_FILE);
            lines += &endpoints.iter().map(|url| format!("  [host.\"{url}\"]\n")).collect::<String>();
        }
        return Err(SetupError::ByHand {
            path: file.path.clone(),
            why: "`registry.mirrors` and `registry.configs.*.tls` are deprecated, and exclude `config_path`, without \
                  which there is no mirror for all registries."
                .to_owned(),
            lines: format!(
                "move each registry into a file of its own, remove them from the configuration, and run \
                 `layermesh setup {}` again:\n\n{lines}",
                wish.runtime.name()
            ),
        });
    }
    Ok(())
}

/// The file's text with `config_path`.
fn with_config_path(file: &File, main_format: i64, dir: &Path) -> Result<String, SetupError> {
    let dir = dir.to_string_lossy();
    let format = file.document.get("version").and_then(Item::as_integer).unwrap_or(main_format);
    let keys = (1..=FORMAT_NEW)
        .rev()
        .map(keys)
        .find(|keys| text::find(file.document.as_table(), keys).is_some())
        .unwrap_or(keys(format));
    let table = format!("[{}.\"{}\".{}]\n  config_path = \"{dir}\"\n", keys[0], keys[1], keys[2]);
    let after = if file.document.contains_key(keys[0]) {
        let mut document = file.document.clone();
        set(document.as_table_mut(), &keys, &dir).map(|()| document.to_string())
    } else {
        // After all comments, of which the last ones belong to no key.
        Some(format!("{}\n{table}", text::ended(&file.text)))
    };
    let Some(after) = after.filter(|after| differs_in_config_path_only(&file.text, after, &keys, &dir)) else {
        return Err(SetupError::ByHand {
            path: file.path.clone(),
            why: "its tables are written in a way that cannot be changed without risk".to_owned(),
            lines: table,
        });
    };
    Ok(after)
}

/// Sets `config_path`, making tables that are missing in the style of those around them.
fn set(root: &mut Table, keys: &[&str; 3], dir: &str) -> Option<()> {
    let [plugins, plugin, registry] = keys;
    let implicit = |root: &mut dyn TableLike, key: &str| {
        if root.get(key).is_none() {
            let mut table = Table::new();
            table.set_implicit(true);
            root.insert(key, Item::Table(table));
        }
    };
    implicit(root, plugins);
    let plugins = root.get_mut(plugins)?.as_table_like_mut()?;
    implicit(plugins, plugin);
    let item = plugins.get_mut(plugin)?;
    let indent = indentation_below(item);
    let plugin = item.as_table_like_mut()?;
    if plugin.get(registry).is_none() {
        let mut table = Table::new();
        table.decor_mut().set_prefix(format!("\n{indent}"));
        plugin.insert(registry, Item::Table(table));
    }
    let registry = plugin.get_mut(registry)?.as_table_like_mut()?;
    match registry.get_mut("config_path").and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = Value::from(dir);
            *old.decor_mut() = decor;
        }
        None => {
            registry.insert("config_path", value(dir));
            registry.key_mut("config_path")?.leaf_decor_mut().set_prefix(format!("{indent}  "));
        }
    }
    Some(())
}

/// How tables below this one are indented: as those that there are, or two further than itself if it is indented at
/// all.
fn indentation_below(item: &Item) -> String {
    let prefix = |table: &Table| {
        let prefix = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
        text::indentation(prefix.rsplit('\n').next().unwrap_or_default()).to_owned()
    };
    let Some(table) = item.as_table() else { return String::new() };
    let sibling = table.iter().filter_map(|(_, item)| item.as_table()).find(|table| !table.is_implicit());
    match sibling {
        Some(sibling) => prefix(sibling),
        None => {
            let own = prefix(table);
            if own.is_empty() { own } else { format!("{own}  ") }
        }
    }
}

/// Whether two texts mean the same but for `config_path`, which the second one has.
fn differs_in_config_path_only(before: &str, after: &str, keys: &[&str; 3], dir: &str) -> bool {
    let parse = |text: &str| toml::from_str::<toml::Table>(text).ok();
    let (Some(mut before), Some(after)) = (parse(before), parse(after)) else { return false };
    let mut table = &mut before;
    for key in keys {
        let below = table.entry(*key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let toml::Value::Table(below) = below else { return false };
        table = below;
    }
    table.insert("config_path".to_owned(), toml::Value::String(dir.to_owned()));
    before == after
}
