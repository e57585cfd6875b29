//! `run.json` in the data directory: what a running node bound, for whoever starts it with port 0.
//!
//! It appears whole or not at all (written beside and renamed), after everything that it names is listening. A node
//! removes it when it ends; after a crash a stale one stays, so readers check the process or just connect.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name of the file in the data directory.
pub const RUN_FILE: &str = "run.json";
/// Name of the admin socket in the data directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// What a running node bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Process id.
    pub pid: u32,
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// Program version.
    pub version: String,
    /// Address of the mirror.
    pub mirror: std::net::SocketAddr,
    /// Multiaddresses of the control plane; none of such a node.
    pub peers: Vec<String>,
    /// Address of the bulk exchange; absent of a node that serves its own device only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<std::net::SocketAddr>,
    /// Address of health, metrics and status.
    pub status: std::net::SocketAddr,
    /// Path of the admin socket.
    pub admin: PathBuf,
}

impl RunFile {
    /// Writes the file into `data_dir`, replacing an older one in one step.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.persist(data_dir.join(RUN_FILE)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Whether a node can do without the file, if this is why it could not be written: a device whose disk is full, or has
    /// turned read-only, needs its node as much as any other, and commands look for its socket at the usual place, too.
    pub fn is_dispensable(error: &io::Error) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    }

    /// Reads the file of `data_dir`.
    ///
    /// # Errors
    /// `NotFound` if no node runs there, or `InvalidData` if the file is not a run file.
    pub fn read(data_dir: &Path) -> io::Result<Self> {
        let text = std::fs::read(data_dir.join(RUN_FILE))?;
        serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Removes the file of `data_dir`, if there is one.
    pub fn remove(data_dir: &Path) {
        // Left behind it would only mislead until the next start, so a failure is not worth more than this.
        let _ = std::fs::remove_file(data_dir.join(RUN_FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunFile::read(dir.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let run = RunFile {
            pid: 7,
            peer_id: "12D3KooW".to_owned(),
            version: "0.1.0".to_owned(),
            mirror: ([127, 0, 0, 1], 1).into(),
            peers: vec!["/ip4/127.0.0.1/tcp/2".to_owned()],
            bulk: Some(([127, 0, 0, 1], 3).into()),
            status: ([127, 0, 0, 1], 4).into(),
            admin: dir.path().join(ADMIN_SOCKET),
        };
        run.write(dir.path()).unwrap();
        assert_eq!(RunFile::read(dir.path()).unwrap(), run);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        RunFile::remove(dir.path());
        assert!(RunFile::read(dir.path()).is_err());
    }

    #[test]
    fn a_full_disk_keeps_no_node_from_running() {
        let full = io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert!(RunFile::is_dispensable(&full));
        // As the file beside is made, with its path in the error.
        assert!(RunFile::is_dispensable(&io::Error::new(full.kind(), "at path")));
        assert!(!RunFile::is_dispensable(&io::ErrorKind::PermissionDenied.into()));
    }
}
