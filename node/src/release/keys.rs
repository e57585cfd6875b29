//! Signing keys: Ed25519, each in a PKCS#8 PEM file of its own.
//!
//! Other tools read and write the format (`openssl genpkey -algorithm ed25519`). Invariant: a file that this program
//! writes is new and only its owner can read it; no key is ever written anywhere else.

use std::{
    fmt,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use thiserror::Error;
use tough::{
    async_trait,
    key_source::KeySource,
    schema::{RoleKeys, Root, key::Key},
    sign::{Sign, parse_keypair},
};

/// Key files looked at: a fleet has a handful.
const KEY_FILES_MAX: usize = 256;
/// Largest key file: an Ed25519 key has 120 bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 << 10;
const PEM_TAG: &str = "PRIVATE KEY";

/// Why keys cannot be had.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file system refuses.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Not a key.
    #[error("{0} is not a private key: it must be an Ed25519 key in PKCS#8 PEM, without a password")]
    NotAKey(PathBuf),
    /// More files than any fleet has keys.
    #[error("{0} has more than {KEY_FILES_MAX} key files; name the directory of this repository's keys")]
    TooMany(PathBuf),
    /// No key could be made.
    #[error("the system gives no random numbers to make a key of")]
    Random,
}

/// A private key, read from a file.
#[derive(Clone)]
pub struct SigningKey {
    der: Vec<u8>,
    public: Key,
    /// Where it was read from, or written to.
    pub path: PathBuf,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.path).finish()
    }
}

impl SigningKey {
    /// Makes a key and writes it into a new file, `DIR/STEM-XXXXXXXX.pem`, which has the begin of its id in its name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(dir: &Path, stem: &str) -> Result<Self, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        let mut key = Self::of_der(document.as_ref().to_vec(), dir)?;
        let id = key.public.key_id().map_err(|_| KeyError::NotAKey(dir.to_owned()))?;
        key.path = dir.join(format!("{stem}-{}.pem", hex::encode(&id[..4])));
        let path = &key.path;
        let failed = |what, source| KeyError::Io { what, path: path.clone(), source };
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| failed("make the directory of", error))?;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let mut file = file.map_err(|error| failed("write", error))?;
        let text = pem::encode(&pem::Pem::new(PEM_TAG, document.as_ref()));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed("write", error))?;
        Ok(key)
    }

    fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { what: "read", path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > KEY_FILE_BYTES_MAX {
            return Err(KeyError::NotAKey(path.to_owned()));
        }
        let text = std::fs::read(path).map_err(failed)?;
        match pem::parse(&text) {
            Ok(pem) if pem.tag() == PEM_TAG => Self::of_der(pem.into_contents(), path),
            _ => Err(KeyError::NotAKey(path.to_owned())),
        }
    }

    fn of_der(der: Vec<u8>, path: &Path) -> Result<Self, KeyError> {
        // The library reads other algorithms, too; devices should not have to.
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| KeyError::NotAKey(path.to_owned()))?;
        Ok(Self { public: pair.tuf_key(), der, path: path.to_owned() })
    }

    /// The public half.
    pub fn public(&self) -> &Key {
        &self.public
    }
}

#[async_trait]
impl KeySource for SigningKey {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(Box::new(parse_keypair(&self.der)?))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Err("keys are made by `layermesh release`".into())
    }
}

/// The private keys at hand.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<SigningKey>,
    looked_in: Vec<PathBuf>,
}

impl KeyRing {
    /// Reads the `.pem` files of directories, and of the directories in them; or single files.
    ///
    /// # Errors
    /// If one of them cannot be read or is not a key.
    pub fn read(places: &[PathBuf]) -> Result<Self, KeyError> {
        let mut ring = Self { keys: Vec::new(), looked_in: places.to_vec() };
        for place in places {
            if place.is_dir() { ring.read_dir(place, 1)? } else { ring.keys.push(SigningKey::read(place)?) }
        }
        Ok(ring)
    }

    fn read_dir(&mut self, dir: &Path, deeper: u32) -> Result<(), KeyError> {
        let failed = |source| KeyError::Io { what: "read", path: dir.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort();
        for path in paths {
            if path.is_dir() {
                if deeper > 0 {
                    self.read_dir(&path, deeper - 1)?;
                }
            } else if path.extension().is_some_and(|extension| extension == "pem") {
                if self.keys.len() >= KEY_FILES_MAX {
                    return Err(KeyError::TooMany(dir.to_owned()));
                }
                self.keys.push(SigningKey::read(&path)?);
            }
        }
        Ok(())
    }

    /// Adds keys.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = SigningKey>) {
        self.keys.extend(keys);
    }

    /// Where keys were looked for.
    pub fn looked_in(&self) -> &[PathBuf] {
        &self.looked_in
    }

    /// Those keys of a role, among the keys at hand, each once.
    pub fn of_role(&self, root: &Root, role: &RoleKeys) -> Vec<Box<dyn KeySource>> {
        let ids = role.keyids.iter().filter_map(|id| root.keys.get(id));
        let found = ids.filter_map(|public| self.keys.iter().find(|key| key.public() == public));
        found.map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect()
    }
}
