//! Plans become files. Each is written beside its place, made durable and renamed, with the mode and owner it had; so a
//! reader sees the old text or the new one. The record comes first, directories that are empty again go last.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{Change, Disk, Plan, RECORD_DIR, Record, Runtime, SetupError, Undo};

/// Mode of files that were not there: configuration is readable by all.
const FILE_MODE: u32 = 0o644;
/// Mode of directories that were not there.
const DIR_MODE: u32 = 0o755;
/// Mode of records, which may repeat passwords.
const RECORD_MODE: u32 = 0o600;

pub(super) fn apply(plan: &Plan, disk: &Disk, earlier: Option<&Record>) -> Result<(), SetupError> {
    if plan.changes.is_empty() && earlier.is_none_or(|earlier| *earlier == plan.record) {
        return Ok(());
    }
    let mut record = plan.record.clone();
    for change in plan.changes.iter().filter(|change| change.after.is_some()) {
        for dir in missing(disk, &change.path)? {
            if !record.dirs.contains(&dir) {
                record.dirs.push(dir);
            }
        }
    }
    save(&record, disk)?;
    make_real(&plan.changes, disk)?;
    let dirs = remove_empty(&record.dirs, disk)?;
    if dirs != record.dirs {
        record.dirs = dirs;
        save(&record, disk)?;
    }
    Ok(())
}

pub(super) fn undo(undo: &Undo, disk: &Disk, record: &Record) -> Result<(), SetupError> {
    make_real(&undo.changes, disk)?;
    let dirs = remove_empty(&record.dirs, disk)?;
    let path = record.own_path();
    if undo.conflicts.is_empty() {
        let failed = |reason| SetupError::Io { doing: "removed", path: path.clone(), reason };
        fs::remove_file(disk.locate(&path)?).map_err(failed)?;
        hand_over(&dirs, disk)?;
        remove_empty(&[PathBuf::from(RECORD_DIR)], disk)?;
        return Ok(());
    }
    let stays = |path: &Path| undo.conflicts.iter().any(|conflict| conflict.path == path);
    let files = record.files.iter().filter(|kept| stays(&kept.path)).cloned().collect();
    save(&Record { files, dirs, ..record.clone() }, disk)
}

/// Lets the other runtimes' records have directories that their files are still in, so that the last one removes them.
fn hand_over(dirs: &[PathBuf], disk: &Disk) -> Result<(), SetupError> {
    for runtime in Runtime::ALL {
        let Some(mut other) = Record::load(runtime, disk)? else { continue };
        let used = dirs.iter().filter(|dir| other.files.iter().any(|kept| kept.path.starts_with(dir)));
        let before = other.dirs.len();
        let new: Vec<PathBuf> = used.filter(|dir| !other.dirs.contains(dir)).cloned().collect();
        other.dirs.extend(new);
        if other.dirs.len() > before {
            save(&other, disk)?;
        }
    }
    Ok(())
}

fn save(record: &Record, disk: &Disk) -> Result<(), SetupError> {
    let path = record.own_path();
    let text =
        serde_json::to_string_pretty(record).map_err(|reason| SetupError::Record { path: path.clone(), reason })?;
    write(disk, &path, &(text + "\n"), RECORD_MODE)
}

fn make_real(changes: &[Change], disk: &Disk) -> Result<(), SetupError> {
    for change in changes {
        match &change.after {
            Some(text) => write(disk, &change.path, text, FILE_MODE)?,
            None => {
                let failed = |reason| SetupError::Io { doing: "removed", path: change.path.clone(), reason };
                fs::remove_file(disk.locate(&change.path)?).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Directories above a file that are not there, the outermost first.
fn missing(disk: &Disk, path: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let mut dirs = Vec::new();
    for dir in path.ancestors().skip(1).take_while(|dir| dir.parent().is_some()) {
        if disk.locate(dir)?.exists() {
            break;
        }
        dirs.push(dir.to_owned());
    }
    dirs.reverse();
    Ok(dirs)
}

/// Removes those of the directories that are empty, and returns the others.
fn remove_empty(dirs: &[PathBuf], disk: &Disk) -> Result<Vec<PathBuf>, SetupError> {
    let mut rest = Vec::new();
    for dir in dirs.iter().rev() {
        match fs::remove_dir(disk.locate(dir)?) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Somebody put something into it, or mounted something over it.
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => {
                rest.push(dir.clone());
            }
            Err(reason) => return Err(SetupError::Io { doing: "removed", path: dir.clone(), reason }),
        }
    }
    rest.reverse();
    Ok(rest)
}

fn write(disk: &Disk, path: &Path, text: &str, new_mode: u32) -> Result<(), SetupError> {
    for dir in missing(disk, path)? {
        let real = disk.locate(&dir)?;
        let made =
            fs::create_dir(&real).and_then(|()| fs::set_permissions(&real, fs::Permissions::from_mode(DIR_MODE)));
        made.map_err(|reason| SetupError::Io { doing: "made", path: dir, reason })?;
    }
    replace(&disk.locate(path)?, text, new_mode).map_err(|reason| SetupError::Io {
        doing: "written",
        path: path.to_owned(),
        reason,
    })
}

fn replace(path: &Path, text: &str, new_mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new().prefix(".layermesh-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    let mode = match fs::metadata(path) {
        Ok(old) => {
            let (ours, (user, group)) = (file.as_file().metadata()?, (old.uid(), old.gid()));
            if (ours.uid(), ours.gid()) != (user, group) {
                std::os::unix::fs::fchown(file.as_file(), Some(user), Some(group))?;
            }
            old.mode() & 0o7777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_mode,
        Err(error) => return Err(error),
    };
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}
