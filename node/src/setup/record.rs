//! What setup did, so that it can be taken back: of each file the text before and after, and the directories it made.
//!
//! One file a runtime, in a directory that is setup's alone, readable by its owner alone (registries.yaml may hold
//! passwords). It is written before anything else is, so that what breaks off can be taken back as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Change, Runtime, SetupError, Staged, Tree};

/// Where records are. Not in the node's data directory: that may be another user's, or go.
pub const RECORD_DIR: &str = "/var/lib/layermesh-setup";

/// What setup did for a runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub(super) runtime: String,
    pub(super) files: Vec<Kept>,
    pub(super) dirs: Vec<PathBuf>,
}

/// A file that setup changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// Its text before; absent if setup made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<String>,
    /// Its text after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
}

/// What comes of taking back.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Texts of the files as they would be without setup.
    bases: BTreeMap<PathBuf, Option<String>>,
    /// Files in which somebody changed the same lines; they stay as they are.
    conflicts: BTreeSet<PathBuf>,
}

impl Record {
    /// Where the record of a runtime is.
    pub fn path(runtime: Runtime) -> PathBuf {
        Path::new(RECORD_DIR).join(format!("{}.json", runtime.name()))
    }

    /// Where this record is.
    pub(super) fn own_path(&self) -> PathBuf {
        Path::new(RECORD_DIR).join(format!("{}.json", self.runtime))
    }

    /// Reads the record of a runtime, if there is one.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn load(runtime: Runtime, tree: &dyn Tree) -> Result<Option<Self>, SetupError> {
        let path = Self::path(runtime);
        let Some(text) = tree.read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|reason| SetupError::Record { path, reason })
    }

    /// Plans the files as they would be without setup: the text from before where the file is as setup left it, else
    /// what is there without the lines of setup, if they can be told from others' changes.
    pub(super) fn stage_undo(&self, disk: &dyn Tree, staged: &mut Staged<'_>) -> Result<Taken, SetupError> {
        let mut taken = Taken::default();
        for kept in &self.files {
            let now = disk.read(&kept.path)?;
            let base = if now == kept.after {
                kept.before.clone()
            } else if let (Some(now), false) = (&now, now == kept.before) {
                let (after, before) = (kept.after.as_deref().unwrap_or_default(), kept.before.as_deref());
                match diffy::merge(after, now, before.unwrap_or_default()) {
                    Ok(rest) if rest.trim().is_empty() && before.is_none() => None,
                    Ok(rest) => Some(rest),
                    Err(_) => {
                        taken.conflicts.insert(kept.path.clone());
                        continue;
                    }
                }
            } else {
                // As it was before, or gone: somebody took it back already.
                now
            };
            staged.put(&kept.path, base.clone());
            taken.bases.insert(kept.path.clone(), base);
        }
        Ok(taken)
    }

    /// The record for what is planned above an earlier setup.
    pub(super) fn after(
        earlier: Option<&Self>,
        runtime: Runtime,
        disk: &dyn Tree,
        staged: &Staged<'_>,
        taken: &Taken,
    ) -> Result<Self, SetupError> {
        let mut files = Vec::new();
        for path in staged.planned() {
            if taken.conflicts.contains(path) {
                continue;
            }
            let before = match taken.bases.get(path) {
                Some(base) => base.clone(),
                None => disk.read(path)?,
            };
            let after = staged.read(path)?;
            if before != after {
                files.push(Kept { path: path.clone(), before, after });
            }
        }
        for old in earlier.into_iter().flat_map(|record| &record.files) {
            if taken.conflicts.contains(&old.path) {
                let planned = staged.read(&old.path)?;
                let after = if planned == disk.read(&old.path)? { old.after.clone() } else { planned };
                files.push(Kept { after, ..old.clone() });
            }
        }
        let dirs = earlier.map(|record| record.dirs.clone()).unwrap_or_default();
        Ok(Self { runtime: runtime.name().to_owned(), files, dirs })
    }

    /// What setup once changed in the files that stay as they are.
    pub(super) fn conflicts(&self, taken: &Taken) -> Vec<Change> {
        let of = self.files.iter().filter(|kept| taken.conflicts.contains(&kept.path));
        of.map(|kept| Change { path: kept.path.clone(), before: kept.before.clone(), after: kept.after.clone() })
            .collect()
    }
}
