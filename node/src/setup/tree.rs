//! The files that setup reads and means to change: those of the disk, and above them what is planned.
//!
//! Paths are those that the runtime sees, from `/` on; where the tree stands on this machine is the disk's matter.
//! Invariant: planning only reads. What is planned becomes real in one place, `write`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::SetupError;

/// Largest configuration file read; a larger one is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Links that a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// What planning needs to see of a machine's files.
pub trait Tree {
    /// Text of a file; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, is too large or no text.
    fn read(&self, path: &Path) -> Result<Option<String>, SetupError>;

    /// Names of what is in a directory, sorted, with whether it is a directory itself; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    fn list(&self, dir: &Path) -> Result<BTreeMap<String, bool>, SetupError>;
}

/// The files below a directory of this machine, which is `/` unless an image of another machine is prepared.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The machine whose root is here.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether that is the machine on which this program runs.
    pub fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path is on this machine. Symbolic links are followed as they would be by a process whose root the tree
    /// is, so that preparing an image never writes outside it.
    ///
    /// # Errors
    /// If a link cannot be read, or links go in circles.
    pub fn locate(&self, path: &Path) -> Result<PathBuf, SetupError> {
        let failed = |reason| SetupError::Io { doing: "read", path: path.to_owned(), reason };
        let mut todo: Vec<PathBuf> = parts(path);
        let (mut place, mut links) = (PathBuf::new(), 0);
        while let Some(part) = todo.pop() {
            if part == Path::new("..") {
                place.pop();
                continue;
            }
            place.push(&part);
            let real = self.root.join(&place);
            match fs::symlink_metadata(&real) {
                Ok(metadata) if metadata.is_symlink() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(failed(io::Error::other("symbolic links go in circles")));
                    }
                    let target = fs::read_link(&real).map_err(failed)?;
                    place.pop();
                    if target.is_absolute() {
                        place = PathBuf::new();
                    }
                    todo.extend(parts(&target));
                }
                Ok(_) => {}
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(self.root.join(place))
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |component: Component<'_>| match component {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    let mut parts: Vec<PathBuf> = path.components().filter_map(part).collect();
    parts.reverse();
    parts
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Tree for Disk {
    fn read(&self, path: &Path) -> Result<Option<String>, SetupError> {
        let failed = |reason| SetupError::Io { doing: "read", path: path.to_owned(), reason };
        let real = self.locate(path)?;
        match fs::metadata(&real) {
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(failed(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes"))));
            }
            Ok(_) => {}
        }
        fs::read_to_string(&real).map(Some).map_err(failed)
    }

    fn list(&self, dir: &Path) -> Result<BTreeMap<String, bool>, SetupError> {
        let failed = |reason| SetupError::Io { doing: "read", path: dir.to_owned(), reason };
        let entries = match fs::read_dir(self.locate(dir)?) {
            Err(error) if is_absent(&error) => return Ok(BTreeMap::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // A name that is no text names no registry and no file that a runtime looks for.
            if let Ok(name) = entry.file_name().into_string() {
                names.insert(name, fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()));
            }
        }
        Ok(names)
    }
}

/// A tree with planned changes above it.
pub struct Staged<'a> {
    below: &'a dyn Tree,
    planned: BTreeMap<PathBuf, Option<String>>,
}

impl<'a> Staged<'a> {
    /// Nothing planned yet.
    pub fn new(below: &'a dyn Tree) -> Self {
        Self { below, planned: BTreeMap::new() }
    }

    /// Plans a file's text; `None` removes it.
    pub fn put(&mut self, path: &Path, text: Option<String>) {
        self.planned.insert(path.to_owned(), text);
    }

    /// The files that are planned.
    pub(super) fn planned(&self) -> impl Iterator<Item = &PathBuf> {
        self.planned.keys()
    }

    /// What is planned and different from what is there.
    ///
    /// # Errors
    /// If what is there cannot be read.
    pub fn changes(&self) -> Result<Vec<Change>, SetupError> {
        let mut changes = Vec::new();
        for (path, after) in &self.planned {
            let before = self.below.read(path)?;
            if before != *after {
                changes.push(Change { path: path.clone(), before, after: after.clone() });
            }
        }
        Ok(changes)
    }
}

impl Tree for Staged<'_> {
    fn read(&self, path: &Path) -> Result<Option<String>, SetupError> {
        match self.planned.get(path) {
            Some(planned) => Ok(planned.clone()),
            None => self.below.read(path),
        }
    }

    fn list(&self, dir: &Path) -> Result<BTreeMap<String, bool>, SetupError> {
        let mut names = self.below.list(dir)?;
        let gone: BTreeSet<_> = self.planned.iter().filter(|(_, text)| text.is_none()).map(|(path, _)| path).collect();
        names.retain(|name, is_dir| *is_dir || !gone.contains(&dir.join(name)));
        for (path, _) in self.planned.iter().filter(|(_, text)| text.is_some()) {
            let Ok(rest) = path.strip_prefix(dir) else { continue };
            let mut parts = rest.components();
            if let Some(first) = parts.next() {
                names.insert(first.as_os_str().to_string_lossy().into_owned(), parts.next().is_some());
            }
        }
        Ok(names)
    }
}

/// A file that is planned to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file, as the runtime sees it.
    pub path: PathBuf,
    /// Its text now; `None` if it is to be made.
    pub before: Option<String>,
    /// Its text then; `None` if it is to be removed.
    pub after: Option<String>,
}

impl Change {
    /// The change as a unified diff, for people and for `patch -p0`.
    pub fn diff(&self) -> String {
        let name = |text: &Option<String>| match text {
            Some(_) => self.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        let (before, after) = (self.before.clone().unwrap_or_default(), self.after.clone().unwrap_or_default());
        diffy::DiffOptions::new()
            .set_original_filename(name(&self.before))
            .set_modified_filename(name(&self.after))
            .create_patch(&before, &after)
            .to_string()
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use super::*;

    /// Files in memory.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Files(pub(crate) BTreeMap<PathBuf, String>);

    impl Files {
        pub(crate) fn of(files: &[(&str, &str)]) -> Self {
            Self(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
        }

        pub(crate) fn text(&self, path: &str) -> &str {
            self.0.get(Path::new(path)).map_or("(none)", String::as_str)
        }

        /// What the tree is after the changes.
        pub(crate) fn after(&self, changes: &[Change]) -> Self {
            let mut files = self.clone();
            for change in changes {
                match &change.after {
                    Some(text) => files.0.insert(change.path.clone(), text.clone()),
                    None => files.0.remove(&change.path),
                };
            }
            files
        }
    }

    impl Tree for Files {
        fn read(&self, path: &Path) -> Result<Option<String>, SetupError> {
            Ok(self.0.get(path).cloned())
        }

        fn list(&self, dir: &Path) -> Result<BTreeMap<String, bool>, SetupError> {
            let mut names = BTreeMap::new();
            for path in self.0.keys() {
                let Ok(rest) = path.strip_prefix(dir) else { continue };
                let mut parts = rest.components();
                if let Some(first) = parts.next() {
                    names.insert(first.as_os_str().to_string_lossy().into_owned(), parts.next().is_some());
                }
            }
            Ok(names)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{fake::Files, *};

    #[test]
    fn links_of_an_image_stay_inside_it() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::new(root.path());
        fs::create_dir_all(root.path().join("usr/etc")).unwrap();
        symlink("/usr/etc", root.path().join("etc")).unwrap();
        symlink("../../../../real.conf", root.path().join("usr/etc/a.conf")).unwrap();
        fs::write(root.path().join("real.conf"), "inside").unwrap();
        assert_eq!(disk.locate(Path::new("/etc/b.conf")).unwrap(), root.path().join("usr/etc/b.conf"));
        assert_eq!(disk.read(Path::new("/etc/a.conf")).unwrap().as_deref(), Some("inside"));
        symlink("loop", root.path().join("loop")).unwrap();
        assert!(disk.read(Path::new("/loop")).unwrap_err().to_string().contains("/loop"));
        assert_eq!(disk.read(Path::new("/absent/file")).unwrap(), None);
    }

    #[test]
    fn planned_files_are_seen_and_only_differences_are_changes() {
        let files = Files::of(&[("/etc/a", "1\n"), ("/etc/d/x", "x\n"), ("/etc/gone", "g\n")]);
        let mut staged = Staged::new(&files);
        staged.put(Path::new("/etc/a"), Some("1\n".to_owned()));
        staged.put(Path::new("/etc/new/b"), Some("2\n".to_owned()));
        staged.put(Path::new("/etc/gone"), None);
        let names: Vec<_> = staged.list(Path::new("/etc")).unwrap().into_iter().collect();
        assert_eq!(names, [("a".to_owned(), false), ("d".to_owned(), true), ("new".to_owned(), true)]);
        let changes = staged.changes().unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0].diff(), "--- /etc/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-g\n");
        assert_eq!(changes[1].diff(), "--- /dev/null\n+++ /etc/new/b\n@@ -0,0 +1 @@\n+2\n");
    }
}
