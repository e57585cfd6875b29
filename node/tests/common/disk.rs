//! A node's store as it lies on disk, and ways to damage it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use layermesh_proto::{ContentId, PieceLayout};
use sha2::{Digest as _, Sha256};

/// Length of a state file's header and of each of its records, in bytes (see the store's `journal`).
const STATE_HEADER_LEN: usize = 128;
const STATE_RECORD_LEN: usize = 48;
const RECORD_DURABLE: u8 = 1;

/// The store in a node's data directory.
pub struct Disk(PathBuf);

impl Disk {
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("store"))
    }

    /// Where a whole blob is.
    pub fn blob(&self, content: &ContentId) -> PathBuf {
        self.0.join("blobs").join(content.algorithm().name()).join(content.hex())
    }

    /// Where the bytes of a partial are.
    pub fn partial_data(&self, content: &ContentId) -> PathBuf {
        self.partial(content).join("data")
    }

    /// Where it is written down which pieces of a partial are durable.
    pub fn partial_state(&self, content: &ContentId) -> PathBuf {
        self.partial(content).join("state")
    }

    fn partial(&self, content: &ContentId) -> PathBuf {
        self.0.join("partial").join(format!("{}-{}", content.algorithm().name(), content.hex()))
    }

    /// Bytes of the pieces of a partial that its state calls durable; 0 if there is no partial.
    pub fn durable_bytes(&self, content: &ContentId, size: u64) -> u64 {
        let Ok(state) = fs::read(self.partial_state(content)) else { return 0 };
        let layout = PieceLayout::for_size(size).unwrap();
        let mut durable = BTreeSet::new();
        for record in state.get(STATE_HEADER_LEN..).unwrap_or_default().chunks_exact(STATE_RECORD_LEN) {
            let index = u32::from_le_bytes(record[4..8].try_into().unwrap());
            if record[0] == RECORD_DURABLE {
                durable.insert(index);
            } else {
                durable.remove(&index);
            }
        }
        durable.into_iter().map(|index| layout.bytes_of(index)).map(|bytes| bytes.end - bytes.start).sum()
    }

    /// The files in `blobs/sha256` that are not what their names say.
    pub fn wrong_blobs(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.0.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| hex_of(path).unwrap() != *path.file_name().unwrap().to_str().unwrap()).collect()
    }
}

/// The SHA-256 of a file.
fn hex_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = HashWriter(Sha256::new());
    io::copy(&mut file, &mut hasher)?;
    Ok(hex::encode(hasher.0.finalize()))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flips a bit of a file.
pub fn flip_bit(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 4;
    file.write_all_at(&byte, offset).unwrap();
}

/// Writes into a file, past its end if need be.
pub fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

/// Sets a file's length.
pub fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// A file's length.
pub fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
