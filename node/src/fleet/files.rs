//! How a fleet's keys and records lie on disk: PEM, which goes through mails and terminals.
//!
//! A membership's file has a block for the membership, and one for the enrolment key that signed it, if one did. A key's
//! file has the private key as other tools write it (PKCS#8), and for an enrolment key its enrolment beside it.
//! Invariant: a file with a private key is new, only its owner can read it, and one that others can read is refused;
//! what a node keeps appears whole or not at all.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    encoding::{AsBigEndian as _, Curve25519SeedBin},
    rand::SystemRandom,
    signature::Ed25519KeyPair,
};
use layermesh_proto::{
    NodeId,
    wire::fleet::{Credential, Enrolment},
};
use libp2p::identity::Keypair;
use pem::Pem;
use thiserror::Error;

use super::record;

/// File of an authority's key in its directory.
pub const AUTHORITY_FILE: &str = "authority.pem";
/// A node's directory for all this, in its data directory.
pub const FLEET_DIR: &str = "fleet";
/// The node's own membership, there.
pub const MEMBERSHIP_FILE: &str = "membership.pem";
/// Revocations, there.
const REVOCATIONS_FILE: &str = "revocations.pem";
/// The newest time that an authority is known to have signed, there.
const STAMP_FILE: &str = "newest-stamp";
/// Largest file read: all revocations that a node keeps have 2 MiB in PEM.
const FILE_BYTES_MAX: u64 = 4 << 20;
const MEMBERSHIP_TAG: &str = "LAYERMESH MEMBERSHIP";
const ENROLMENT_TAG: &str = "LAYERMESH ENROLMENT";
const REVOCATION_TAG: &str = "LAYERMESH REVOCATION";
const KEY_TAG: &str = "PRIVATE KEY";

/// Why a file is not used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A private key that others can read.
    #[error("{} can be read by other users; run: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// There is a key already.
    #[error("there is an authority in {} already; keep it, or name another directory with --dir", .0.display())]
    Exists(PathBuf),
    /// Not what was expected.
    #[error("{}: no {what} in it, or a damaged one", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// No key could be made.
    #[error("the system gives no random numbers to make a key of")]
    Random,
}

impl FileError {
    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A private key, in both of its forms.
pub struct FleetKey {
    /// For signing.
    pub keypair: Keypair,
    der: Vec<u8>,
}

impl FleetKey {
    /// Makes a key.
    ///
    /// # Errors
    /// If there are no random numbers.
    pub fn generate() -> Result<Self, FileError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| FileError::Random)?;
        Self::of_der(document.as_ref()).ok_or(FileError::Random)
    }

    fn of_der(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let seed: Curve25519SeedBin<'_> = pair.seed().ok()?.as_be_bytes().ok()?;
        let mut seed = seed.as_ref().to_vec();
        let keypair = Keypair::ed25519_from_bytes(&mut seed).ok()?;
        Some(Self { keypair, der: der.to_vec() })
    }

    /// The public half.
    pub fn public(&self) -> NodeId {
        // Made of an Ed25519 seed.
        record::public(&self.keypair).unwrap_or(NodeId::from_public_key([0; 32]))
    }
}

/// Makes an authority's key in a directory, which is made if need be.
///
/// # Errors
/// If there is one, or it cannot be written.
pub fn create_authority(dir: &Path) -> Result<(FleetKey, PathBuf), FileError> {
    let path = dir.join(AUTHORITY_FILE);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| FileError::Io { what: "make", path: dir.to_owned(), source })?;
    let key = FleetKey::generate()?;
    match write_new(&path, &pem::encode(&Pem::new(KEY_TAG, key.der.as_slice()))) {
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(FileError::Exists(dir.to_owned()))
        }
        other => other.map(|()| (key, path)),
    }
}

/// An authority's key: of a directory, or of a file.
///
/// # Errors
/// If it cannot be read, others can read it, or it is no key.
pub fn read_authority(place: &Path) -> Result<FleetKey, FileError> {
    let path = if place.is_dir() { place.join(AUTHORITY_FILE) } else { place.to_owned() };
    let blocks = blocks(&path, &read_private(&path)?, "private key")?;
    key_of(&blocks).ok_or(FileError::Content { path, what: "Ed25519 private key in PKCS#8 PEM" })
}

/// Writes an enrolment key into a new file.
///
/// # Errors
/// If the file is there already or cannot be written.
pub fn write_enrolment_key(path: &Path, key: &FleetKey, enrolment: &[u8]) -> Result<(), FileError> {
    let blocks = [Pem::new(KEY_TAG, key.der.as_slice()), Pem::new(ENROLMENT_TAG, enrolment)];
    write_new(path, &pem::encode_many(&blocks))
}

/// An enrolment key and its enrolment's record.
///
/// # Errors
/// If it cannot be read, others can read it, or it is none.
pub fn read_enrolment_key(path: &Path) -> Result<(FleetKey, Vec<u8>), FileError> {
    let what = "enrolment key";
    let blocks = blocks(path, &read_private(path)?, what)?;
    let enrolment = blocks.iter().find(|block| block.tag() == ENROLMENT_TAG).map(|block| block.contents().to_vec());
    let fits = |key: &FleetKey, enrolment: &[u8]| {
        record::open::<Enrolment>(enrolment).is_ok_and(|(enrolment, _)| enrolment.key == key.public())
    };
    match (key_of(&blocks), enrolment) {
        (Some(key), Some(enrolment)) if fits(&key, &enrolment) => Ok((key, enrolment)),
        _ => Err(FileError::Content { path: path.to_owned(), what }),
    }
}

fn key_of(blocks: &[Pem]) -> Option<FleetKey> {
    FleetKey::of_der(blocks.iter().find(|block| block.tag() == KEY_TAG)?.contents())
}

/// A credential as text.
pub fn show_credential(credential: &Credential) -> String {
    let enrolment = credential.enrolment.iter().map(|record| Pem::new(ENROLMENT_TAG, record.as_slice()));
    let membership = Pem::new(MEMBERSHIP_TAG, credential.membership.as_slice());
    pem::encode_many(&std::iter::once(membership).chain(enrolment).collect::<Vec<_>>())
}

/// A credential from its text; nothing of it is checked yet.
pub fn parse_credential(text: &[u8]) -> Option<Credential> {
    let blocks = pem::parse_many(text).ok()?;
    let find = |tag: &str| blocks.iter().find(|block| block.tag() == tag).map(|block| block.contents().to_vec());
    Some(Credential { membership: find(MEMBERSHIP_TAG)?, enrolment: find(ENROLMENT_TAG).map(Into::into) })
}

/// A credential from a file; nothing of it is checked yet.
///
/// # Errors
/// If there is none.
pub fn read_credential(path: &Path) -> Result<Credential, FileError> {
    let what = "membership";
    parse_credential(&read(path)?).ok_or_else(|| FileError::Content { path: path.to_owned(), what })
}

/// Revocations' records as text.
pub fn show_revocations<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> String {
    pem::encode_many(&records.into_iter().map(|record| Pem::new(REVOCATION_TAG, record)).collect::<Vec<_>>())
}

/// Revocations' records from their text; nothing of them is checked yet.
pub fn parse_revocations(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let blocks = pem::parse_many(text).ok()?;
    let blocks = blocks.into_iter().filter(|block| block.tag() == REVOCATION_TAG);
    Some(blocks.map(Pem::into_contents).collect())
}

/// Revocations' records from a file; nothing of them is checked yet.
///
/// # Errors
/// If there are none.
pub fn read_revocations(path: &Path) -> Result<Vec<Vec<u8>>, FileError> {
    let records = parse_revocations(&read(path)?).filter(|records| !records.is_empty());
    records.ok_or_else(|| FileError::Content { path: path.to_owned(), what: "revocation" })
}

/// What a node kept of its fleet: revocations' records, unchecked, and the newest known time.
///
/// # Errors
/// If there is something that cannot be read. Nothing there is no error.
pub fn read_state(dir: &Path) -> Result<(Vec<Vec<u8>>, u64), FileError> {
    let records = match read_revocations(&dir.join(REVOCATIONS_FILE)) {
        Ok(records) => records,
        Err(error) if error.is_missing() => Vec::new(),
        Err(error) => return Err(error),
    };
    let path = dir.join(STAMP_FILE);
    let stamp = match read(&path) {
        Ok(text) => std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()),
        Err(error) if error.is_missing() => Some(0),
        Err(error) => return Err(error),
    };
    Ok((records, stamp.ok_or(FileError::Content { path, what: "time" })?))
}

/// Keeps what [`read_state`] reads.
///
/// # Errors
/// If it cannot be written.
pub fn write_state(dir: &Path, records: &[Vec<u8>], stamp_unix_s: u64) -> Result<(), FileError> {
    if !records.is_empty() {
        let text = show_revocations(records.iter().map(Vec::as_slice));
        replace(&dir.join(REVOCATIONS_FILE), &text)?;
    }
    replace(&dir.join(STAMP_FILE), &format!("{stamp_unix_s}\n"))
}

/// Writes a file of a node's that may be there already, in one step, for its owner alone.
///
/// # Errors
/// If it cannot be written.
pub fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let written = (|| {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    })();
    written.map_err(|source| FileError::Io { what: "write", path: path.to_owned(), source })
}

/// Writes a new file for its owner alone.
///
/// # Errors
/// If it is there already or cannot be written.
pub fn write_new(path: &Path, text: &str) -> Result<(), FileError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| FileError::Io { what: "write", path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_checked(path, |_| Ok(()))
}

fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    read_checked(path, |mode| if mode & 0o077 == 0 { Ok(()) } else { Err(FileError::Exposed(path.to_owned())) })
}

fn read_checked(path: &Path, check: impl Fn(u32) -> Result<(), FileError>) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Io { what: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    check(file.metadata().map_err(failed)?.permissions().mode())?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(bytes)
}

fn blocks(path: &Path, text: &[u8], what: &'static str) -> Result<Vec<Pem>, FileError> {
    pem::parse_many(text).map_err(|_| FileError::Content { path: path.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("new/authority");
        let (made, path) = create_authority(&place).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read(&path).unwrap();
        assert!(matches!(create_authority(&place), Err(FileError::Exists(_))));
        assert_eq!(std::fs::read(&path).unwrap(), text, "never overwritten");
        assert_eq!(read_authority(&place).unwrap().public(), made.public());
        assert_eq!(read_authority(&path).unwrap().public(), made.public());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_authority(&place), Err(FileError::Exposed(_))));
        assert!(matches!(read_authority(dir.path()), Err(error) if error.is_missing()));
    }

    #[test]
    fn enrolment_keys_and_credentials_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let (authority, key) = (FleetKey::generate().unwrap(), FleetKey::generate().unwrap());
        let statement =
            Enrolment { authority: authority.public(), key: key.public(), issued_unix_s: 1, expires_unix_s: 2 };
        let record = record::sign(&authority.keypair, &statement).unwrap();
        let path = dir.path().join("key.pem");
        write_enrolment_key(&path, &key, &record).unwrap();
        assert!(write_enrolment_key(&path, &key, &record).is_err(), "never overwritten");
        let (read, enrolment) = read_enrolment_key(&path).unwrap();
        assert_eq!((read.public(), &enrolment), (key.public(), &record));

        let credential = record::enrol(&key.keypair, &record, NodeId::from_public_key([9; 32]), 0).unwrap();
        let text = show_credential(&credential);
        assert_eq!(parse_credential(text.as_bytes()), Some(credential));
        assert_eq!(parse_credential(b"junk"), None);
        // Another key beside this enrolment.
        std::fs::remove_file(&path).unwrap();
        write_enrolment_key(&path, &authority, &record).unwrap();
        assert!(matches!(read_enrolment_key(&path), Err(FileError::Content { .. })));
    }

    #[test]
    fn what_a_node_keeps_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join(FLEET_DIR);
        assert_eq!(read_state(&place).unwrap(), (vec![], 0));
        write_state(&place, &[vec![1, 2], vec![3]], 77).unwrap();
        assert_eq!(read_state(&place).unwrap(), (vec![vec![1, 2], vec![3]], 77));
        std::fs::write(place.join(REVOCATIONS_FILE), "junk").unwrap();
        assert!(read_state(&place).is_err());
    }
}
