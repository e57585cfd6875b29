//! A model of crashes and power cuts: after every step that changes the disk, what could be on it is copied, opened
//! and checked.
//!
//! Three worlds are made of each step. *Killed*: everything that was written is there, as after `kill -9`. *Behind*:
//! only what was synced is there, names included, as the strictest reading of POSIX allows. *Ahead*: names are as
//! they are now, but bytes that were not synced read as zeros, as some file systems do. redb guards its own file, which
//! is taken as it is.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Mutex,
};

use super::*;

const META: &str = "meta.redb";

/// Copies a directory with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What has been promised to the outside so far.
#[derive(Debug, Clone, Default)]
struct Promised {
    durable: Vec<PieceIndex>,
    held: bool,
    removed: bool,
}

#[derive(Default)]
struct Recorded {
    /// Synced bytes, by inode.
    bytes: HashMap<u64, Vec<u8>>,
    /// Synced names: directory → name → inode, or `None` for a directory.
    names: HashMap<PathBuf, HashMap<String, Option<u64>>>,
    worlds: Vec<(String, PathBuf, Promised)>,
}

/// Real file operations that record the worlds.
struct Recorder {
    dir: PathBuf,
    worlds: PathBuf,
    promised: Mutex<Promised>,
    recorded: Mutex<Recorded>,
}

impl Recorder {
    /// Records what happens to `dir`; all that is in it now is durable.
    fn new(dir: &Path, worlds: &Path) -> Arc<Self> {
        let recorder = Self {
            dir: dir.to_owned(),
            worlds: worlds.to_owned(),
            promised: Mutex::default(),
            recorded: Mutex::default(),
        };
        recorder.all_durable(dir);
        Arc::new(recorder)
    }

    fn all_durable(&self, dir: &Path) {
        self.note_dir(dir);
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.all_durable(&entry.path());
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                self.recorded.lock().unwrap().bytes.insert(entry.metadata().unwrap().ino(), bytes);
            }
        }
    }

    fn note_dir(&self, dir: &Path) {
        let names = fs::read_dir(dir).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            (entry.file_name().into_string().unwrap(), metadata.is_file().then(|| metadata.ino()))
        });
        self.recorded.lock().unwrap().names.insert(dir.to_owned(), names.collect());
    }

    fn promise(&self, change: impl FnOnce(&mut Promised)) {
        change(&mut self.promised.lock().unwrap());
    }

    fn step<T>(&self, what: &str, result: io::Result<T>) -> io::Result<T> {
        let promised = self.promised.lock().unwrap().clone();
        let recorded = &mut *self.recorded.lock().unwrap();
        let number = recorded.worlds.len() / 3;
        for kind in ["killed", "behind", "ahead"] {
            let name = format!("{number:03}-{what}-{kind}");
            let world = self.worlds.join(&name);
            match kind {
                "killed" => copy(&self.dir, &world),
                "behind" => behind(recorded, &self.dir, &world),
                _ => ahead(recorded, &self.dir, &world),
            }
            let meta = self.dir.join(META);
            if meta.exists() {
                fs::copy(meta, world.join(META)).unwrap();
            }
            recorded.worlds.push((name, world, promised.clone()));
        }
        result
    }
}

fn behind(recorded: &Recorded, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Some(names) = recorded.names.get(from) else { return };
    for (name, inode) in names {
        match inode {
            None => behind(recorded, &from.join(name), &to.join(name)),
            Some(inode) => fs::write(to.join(name), recorded.bytes.get(inode).map_or(&[][..], Vec::as_slice)).unwrap(),
        }
    }
}

fn ahead(recorded: &Recorded, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let to = to.join(entry.file_name());
        if metadata.is_dir() {
            ahead(recorded, &entry.path(), &to);
        } else {
            let mut bytes = recorded.bytes.get(&metadata.ino()).cloned().unwrap_or_default();
            bytes.resize(metadata.len() as usize, 0);
            fs::write(to, bytes).unwrap();
        }
    }
}

impl FileOps for Recorder {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step("create_dir", disk::Os.create_dir(path))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let new = !path.exists();
        let file = disk::Os.open(path)?;
        if new {
            // An inode number that is used again has none of the bytes of its last file.
            self.recorded.lock().unwrap().bytes.remove(&file.metadata()?.ino());
        }
        self.step("open", Ok(file))
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Torn: only half of it is there yet.
        disk::Os.write_at(file, &bytes[..bytes.len() / 2], offset)?;
        self.step("half_write", Ok(()))?;
        self.step("write", disk::Os.write_at(file, bytes, offset))
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.step("set_len", disk::Os.set_len(file, len))
    }

    fn reserve(&self, file: &File, len: u64, keep_size: bool) -> io::Result<()> {
        self.step("reserve", disk::Os.reserve(file, len, keep_size))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let metadata = file.metadata()?;
        let mut bytes = vec![0; metadata.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        self.recorded.lock().unwrap().bytes.insert(metadata.ino(), bytes);
        self.step("sync", Ok(()))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note_dir(path);
        self.step("sync_dir", Ok(()))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename", disk::Os.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.step("remove_file", disk::Os.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step("remove_dir", disk::Os.remove_dir(path))
    }
}

/// Says which worlds have a row for the blob, which is what makes it whole.
fn worlds_with_row(recorder: &Recorder, content: ContentId) -> Vec<PathBuf> {
    let worlds: Vec<_> = recorder.recorded.lock().unwrap().worlds.iter().map(|(_, world, _)| world.clone()).collect();
    let has_row = |world: &PathBuf| {
        let (meta, _) = Meta::open(&world.join(META)).unwrap();
        meta.prepare().unwrap();
        meta.blobs().unwrap().iter().any(|(other, _)| *other == content)
    };
    worlds.into_iter().filter(has_row).collect()
}

/// Opens every world and checks it: promises kept, everything listed readable and right, and the blob can be had.
async fn check(recorder: Arc<Recorder>, content: ContentId, bytes: &Bytes) {
    let worlds = std::mem::take(&mut recorder.recorded.lock().unwrap().worlds);
    assert!(worlds.len() > 20, "the scenario did something");
    for (name, world, promised) in worlds {
        let Opened { store, inventory, .. } = open(&world).await;
        let held = store.size_of(&content).is_some();
        assert_eq!(held, !inventory.held.is_empty(), "{name}");
        if promised.held && !promised.removed {
            assert!(held, "{name}: a whole blob was lost");
        }
        let pieces = inventory.partial.first().map(|(_, _, pieces)| pieces.clone());
        if !held && !promised.removed {
            for &index in &promised.durable {
                let kept = pieces.as_ref().is_some_and(|pieces| pieces.contains(index));
                assert!(kept, "{name}: piece {index} was lost");
            }
        }
        if held {
            assert!(read_blob(&store, content).await.unwrap() == *bytes, "{name}");
        } else {
            finish(&store, &name, content, bytes, pieces).await;
        }
        soon(store.close()).await;
        drop(store);
        let again = open(&world).await;
        assert_eq!(again.inventory.held, [(content, bytes.len() as u64)], "{name}");
        assert!(again.inventory.partial.is_empty(), "{name}");
        drop(again);
        fs::remove_dir_all(world).unwrap();
    }
}

async fn finish(store: &Store, name: &str, content: ContentId, bytes: &Bytes, pieces: Option<PieceSet>) {
    let partial = soon(store.begin(content, bytes.len() as u64)).await.unwrap();
    let mut reader = store.reader(content);
    for index in pieces.iter().flat_map(PieceSet::iter) {
        let offset = partial.layout().bytes_of(index).start;
        let read = soon(reader.read(offset, usize::MAX)).await.unwrap();
        assert!(read == piece(bytes, index), "{name}: piece {index} was listed");
        assert!(partial.pieces().contains(index), "{name}: piece {index} was listed but is bad");
    }
    soon(store.insert(content, bytes.clone())).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read_blob(store, content).await.unwrap() == *bytes, "{name}");
}

#[tokio::test]
async fn a_blob_survives_a_cut_at_any_step_of_its_way_in() {
    let (dir, worlds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(dir.path()).await);
    let recorder = Recorder::new(dir.path(), worlds.path());
    let (content, bytes) = blob(1, SIZE);
    let Opened { store, .. } = open_with(dir.path(), recorder.clone()).await;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    for batch in [&[1, 0][..], &[4], &[2]] {
        write(&partial, &bytes, batch.iter().copied()).await;
        let durable = soon(partial.sync()).await.unwrap();
        recorder.promise(|promised| promised.durable.extend(durable));
    }
    write(&partial, &bytes, [3]).await;
    soon(store.complete(content)).await.unwrap();
    recorder.promise(|promised| promised.held = true);
    soon(store.remove(&blob(2, SIZE).0)).await.unwrap();
    recorder.step("end", Ok(())).unwrap();
    drop((partial, store));
    let whole = worlds_with_row(&recorder, content);
    assert!(!whole.is_empty());
    for (_, world, promised) in &mut recorder.recorded.lock().unwrap().worlds {
        promised.held |= whole.contains(world);
    }
    check(recorder, content, &bytes).await;
}

#[tokio::test]
async fn a_damaged_blob_survives_a_cut_at_any_step_of_its_way_out_and_in_again() {
    let (dir, worlds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(dir.path()).await.store, content, &bytes).await;
    flip(&blob_path(dir.path(), &content), 5);
    let recorder = Recorder::new(dir.path(), worlds.path());
    recorder.promise(|promised| promised.durable.extend([1, 2, 3, 4]));
    let Opened { store, .. } = open_with(dir.path(), recorder.clone()).await;
    assert!(matches!(read_blob(&store, content).await, Err(ReadError::Damaged)));
    recorder.step("withdrawn", Ok(())).unwrap();
    drop(store);
    check_damaged(recorder, content, &bytes).await;
}

#[tokio::test]
async fn a_blob_of_the_wrong_size_survives_a_cut_at_any_step_of_start_up() {
    let (dir, worlds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(dir.path()).await.store, content, &bytes).await;
    let file = fs::OpenOptions::new().write(true).open(blob_path(dir.path(), &content)).unwrap();
    file.set_len(SIZE as u64 - 1).unwrap();
    let recorder = Recorder::new(dir.path(), worlds.path());
    recorder.promise(|promised| promised.durable.extend([0, 1, 2, 3]));
    drop(open_with(dir.path(), recorder.clone()).await);
    check(recorder, content, &bytes).await;
}

/// As [`check`], for worlds where the blob may still be listed although it is damaged: reading finds that out.
async fn check_damaged(recorder: Arc<Recorder>, content: ContentId, bytes: &Bytes) {
    let worlds: Vec<_> = recorder.recorded.lock().unwrap().worlds.clone();
    for (name, world, _) in worlds {
        let Opened { store, .. } = open(&world).await;
        if store.size_of(&content).is_some() {
            assert!(matches!(read_blob(&store, content).await, Err(ReadError::Damaged)), "{name}");
        }
        soon(store.close()).await;
    }
    check(recorder, content, bytes).await;
}

#[tokio::test]
async fn a_removed_blob_is_gone_or_whole_after_a_cut() {
    let (dir, worlds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (content, bytes) = blob(1, SIZE);
    store_blob(&open(dir.path()).await.store, content, &bytes).await;
    let recorder = Recorder::new(dir.path(), worlds.path());
    let Opened { store, .. } = open_with(dir.path(), recorder.clone()).await;
    recorder.promise(|promised| promised.removed = true);
    soon(store.remove(&content)).await.unwrap();
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, 0..2).await;
    soon(store.remove(&content)).await.unwrap();
    recorder.step("end", Ok(())).unwrap();
    drop((partial, store));
    check(recorder, content, &bytes).await;
}

#[tokio::test]
async fn a_dropped_piece_does_not_come_back_after_a_cut() {
    let (dir, worlds) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(dir.path()).await);
    let (content, bytes) = blob(1, SIZE);
    let (_, wrong) = blob(2, SIZE);
    let recorder = Recorder::new(dir.path(), worlds.path());
    let Opened { store, .. } = open_with(dir.path(), recorder.clone()).await;
    let partial = soon(store.begin(content, SIZE as u64)).await.unwrap();
    write(&partial, &bytes, [0, 2, 3, 4]).await;
    write(&partial, &wrong, [1]).await;
    soon(partial.sync()).await.unwrap();
    recorder.promise(|promised| promised.durable.extend([0, 2, 3, 4]));
    assert!(matches!(soon(store.complete(content)).await, Err(CompleteError::WrongDigest { .. })));
    store.drop_pieces(&content, &[1]).unwrap();
    soon(partial.sync()).await.unwrap();
    recorder.promise(|promised| promised.removed = true);
    recorder.step("dropped", Ok(())).unwrap();
    write(&partial, &bytes, [1]).await;
    recorder.promise(|promised| promised.removed = false);
    assert_eq!(soon(partial.sync()).await.unwrap(), [1]);
    recorder.promise(|promised| promised.durable.push(1));
    recorder.step("end", Ok(())).unwrap();
    drop((partial, store));

    let worlds: Vec<_> = recorder.recorded.lock().unwrap().worlds.drain(..).collect();
    assert!(worlds.iter().any(|(_, _, promised)| promised.removed));
    for (name, world, promised) in worlds {
        let Opened { store, inventory, .. } = open(&world).await;
        let listed = inventory.partial.first().map_or(PieceSet::empty(5), |(_, _, pieces)| pieces.clone());
        assert!(promised.durable.iter().all(|&index| listed.contains(index)), "{name}: {listed:?}");
        assert!(!(promised.removed && listed.contains(1)), "{name}: the wrong piece is back");
        store_blob(&store, content, &bytes).await;
        assert!(read_blob(&store, content).await.unwrap() == bytes, "{name}");
        soon(store.close()).await;
    }
}
