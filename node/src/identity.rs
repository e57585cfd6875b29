//! The node's identity: an Ed25519 key, made at the first start and kept.
//!
//! The file holds the libp2p protobuf encoding of the key pair, readable by its owner alone. It is never
//! overwritten: a damaged one is an error for a person to look at, since a new identity would be a new device.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use layermesh_proto::NodeId;
use libp2p::identity::Keypair;
use thiserror::Error;

/// Name of the key file in the data directory.
pub const IDENTITY_FILE: &str = "identity";
/// Longest key file in bytes; an Ed25519 key pair takes 68.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("cannot use the identity file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not a key.
    #[error(
        "the identity file {} is damaged; restore it from a backup, or remove it to start as a new device",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the file.
    #[error("the identity file {} can be read by other users; run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

/// The identity kept at `path`, made if there is none.
///
/// # Errors
/// If the file cannot be read or made, is no Ed25519 key, or is open to other users.
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(IdentityError::Io { path: path.to_owned(), source }),
    }
}

/// The node id of a key pair; `None` if it is not an Ed25519 one.
pub fn node_id(keypair: &Keypair) -> Option<NodeId> {
    let key = keypair.public().try_into_ed25519().ok()?;
    Some(NodeId::from_public_key(key.to_bytes()))
}

fn load(path: &Path, file: File) -> Result<Keypair, IdentityError> {
    let io_error = |source| IdentityError::Io { path: path.to_owned(), source };
    if file.metadata().map_err(io_error)?.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error)?;
    let keypair = Keypair::from_protobuf_encoding(&bytes).ok().filter(|keypair| node_id(keypair).is_some());
    keypair.ok_or_else(|| IdentityError::Damaged { path: path.to_owned() })
}

fn create(path: &Path) -> Result<Keypair, IdentityError> {
    let keypair = Keypair::generate_ed25519();
    let written = (|| {
        let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
        // Under another name first: a power cut must not leave half a key behind.
        let temporary = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    })();
    written.map_err(|source| IdentityError::Io { path: path.to_owned(), source })?;
    Ok(keypair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let first = load_or_create(&path).unwrap();
        let second = load_or_create(&path).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(node_id(&first).unwrap().to_string(), first.public().to_peer_id().to_string());
    }

    #[test]
    fn a_damaged_or_exposed_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        load_or_create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load_or_create(&path), Err(IdentityError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"not a key").unwrap();
        assert!(matches!(load_or_create(&path), Err(IdentityError::Damaged { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
    }
}
