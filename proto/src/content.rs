//! Content ids: the name of a blob, derived from its bytes.
//!
//! A content id is the CIDv1 (raw codec) of the blob's sha2-256 or sha2-512 multihash. It converts to and from
//! an OCI digest (image-spec, descriptor.md, "Digests") without loss, so the registry's name for a blob and the
//! mesh's name for it are the same fact. Other algorithms are refused: a node can only vouch for what it can
//! compute.

use std::{fmt, str::FromStr};

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

/// Multicodec of a raw binary block (multicodec table, `raw`).
const RAW_CODEC: u64 = 0x55;

/// Longest binary CID that a content id has: version, codec, hash code and length, and 64 bytes of sha2-512.
pub const CONTENT_ID_BYTES_MAX: usize = 4 + 64;

/// Hash algorithms that name content: those that the OCI image spec registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name that OCI digests use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of a digest in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    const fn multihash_code(self) -> u64 {
        match self {
            Self::Sha256 => 0x12,
            Self::Sha512 => 0x13,
        }
    }
}

/// Why something is not a content id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ContentIdError {
    /// The text has no `algorithm:hex` form.
    #[error("`{0}` is not a digest: expected `sha256:` or `sha512:` and lower-case hex digits")]
    Malformed(String),
    /// A hash algorithm that this node cannot compute.
    #[error("digest algorithm `{0}` is not supported: only sha256 and sha512 are")]
    UnsupportedAlgorithm(String),
    /// The digest has the wrong number of digits for its algorithm.
    #[error("a {algorithm} digest has {expected} hex digits, this one has {found}")]
    WrongLength {
        /// The algorithm's name.
        algorithm: &'static str,
        /// Hex digits that the algorithm gives.
        expected: usize,
        /// Hex digits found.
        found: usize,
    },
    /// The CID is not a version 1 CID of raw content.
    #[error("not a content id: expected a version 1 CID with the raw codec")]
    NotRaw,
    /// The bytes are no CID at all.
    #[error("not a CID: {0}")]
    NotACid(String),
}

/// The name of a blob: algorithm and digest.
///
/// Displays as the OCI digest (`sha256:…`); [`ContentId::to_cid`] gives the CID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId {
    algorithm: Algorithm,
    // Bytes past the algorithm's length are zero, so that derived equality and order are right.
    digest: [u8; 64],
}

impl ContentId {
    /// The content id of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A content id from a raw digest; `None` if the length does not fit the algorithm.
    pub fn from_digest(algorithm: Algorithm, digest: &[u8]) -> Option<Self> {
        if digest.len() != algorithm.digest_len() {
            return None;
        }
        let mut padded = [0; 64];
        padded[..digest.len()].copy_from_slice(digest);
        Some(Self { algorithm, digest: padded })
    }

    /// The hash algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest's bytes, 32 or 64.
    pub fn digest(&self) -> &[u8] {
        &self.digest[..self.algorithm.digest_len()]
    }

    /// The digest in lower-case hex, as OCI image layouts name files.
    pub fn hex(&self) -> String {
        hex::encode(self.digest())
    }

    /// The CIDv1 of this content.
    pub fn to_cid(&self) -> Cid {
        #[allow(clippy::expect_used)]
        let hash = Multihash::wrap(self.algorithm.multihash_code(), self.digest())
            .expect("a digest of at most 64 bytes fits a 64-byte multihash");
        Cid::new_v1(RAW_CODEC, hash)
    }

    /// A content id from its CID.
    ///
    /// # Errors
    /// If the CID is not version 1 of raw content, or its hash is neither sha2-256 nor sha2-512.
    pub fn from_cid(cid: &Cid) -> Result<Self, ContentIdError> {
        if cid.version() != cid::Version::V1 || cid.codec() != RAW_CODEC {
            return Err(ContentIdError::NotRaw);
        }
        let hash = cid.hash();
        let algorithm = match hash.code() {
            0x12 => Algorithm::Sha256,
            0x13 => Algorithm::Sha512,
            other => return Err(ContentIdError::UnsupportedAlgorithm(format!("multihash {other:#x}"))),
        };
        Self::from_digest(algorithm, hash.digest()).ok_or(ContentIdError::WrongLength {
            algorithm: algorithm.name(),
            expected: algorithm.digest_len() * 2,
            found: hash.digest().len() * 2,
        })
    }

    /// A content id from the text form of its CID, as the bulk exchange puts it into a path.
    ///
    /// # Errors
    /// As [`ContentId::from_cid`], or if the text is no CID.
    pub fn from_cid_text(text: &str) -> Result<Self, ContentIdError> {
        // The longest is a multibase base16 CID of sha2-512; anything longer is not ours.
        if text.len() > CONTENT_ID_BYTES_MAX * 2 + 1 {
            return Err(ContentIdError::NotACid("too long".to_owned()));
        }
        let cid = Cid::try_from(text).map_err(|error| ContentIdError::NotACid(error.to_string()))?;
        Self::from_cid(&cid)
    }

    /// A content id from its binary CID.
    ///
    /// # Errors
    /// As [`ContentId::from_cid`], or if the bytes are no CID or more than one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ContentIdError> {
        if bytes.len() > CONTENT_ID_BYTES_MAX {
            return Err(ContentIdError::NotACid("too long".to_owned()));
        }
        let cid = Cid::try_from(bytes).map_err(|error| ContentIdError::NotACid(error.to_string()))?;
        let content = Self::from_cid(&cid)?;
        // A CID followed by other bytes, or with an over-long varint, would give one name two encodings.
        if content.to_bytes() != bytes {
            return Err(ContentIdError::NotACid("not in its shortest form".to_owned()));
        }
        Ok(content)
    }

    /// The binary CID: 36 bytes for sha2-256, 68 for sha2-512.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_cid().to_bytes()
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentId {
    type Err = ContentIdError;

    /// Parses an OCI digest, `sha256:<64 hex>` or `sha512:<128 hex>`, lower-case as the image spec demands.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ContentIdError::Malformed(text.chars().take(160).collect());
        let (name, encoded) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other if other.is_empty() || other.len() > 32 => return Err(malformed()),
            other => return Err(ContentIdError::UnsupportedAlgorithm(other.to_owned())),
        };
        if encoded.bytes().any(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(malformed());
        }
        let expected = algorithm.digest_len() * 2;
        if encoded.len() != expected {
            return Err(ContentIdError::WrongLength { algorithm: algorithm.name(), expected, found: encoded.len() });
        }
        let mut digest = [0; 64];
        hex::decode_to_slice(encoded, &mut digest[..algorithm.digest_len()]).map_err(|_| malformed())?;
        Ok(Self { algorithm, digest })
    }
}

impl Serialize for ContentId {
    /// As the bytes of the binary CID.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ContentId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a CID")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ContentId, E> {
                ContentId::from_bytes(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> ContentId {
        let mut digest = [0; 64];
        let algorithm = match self {
            Self::Sha256(hasher) => {
                digest[..32].copy_from_slice(&hasher.finalize());
                Algorithm::Sha256
            }
            Self::Sha512(hasher) => {
                digest.copy_from_slice(&hasher.finalize());
                Algorithm::Sha512
            }
        };
        ContentId { algorithm, digest }
    }
}

/// The bytes are not those that the content id names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("these are the bytes of {found}")]
pub struct DigestMismatch {
    /// The content id of the bytes given.
    pub found: ContentId,
}

/// Checks a blob against its content id, in order and in parts of any size.
pub struct Verifier {
    expected: ContentId,
    hasher: Hasher,
}

impl Verifier {
    /// A verifier for `expected`, before its first byte.
    pub fn new(expected: ContentId) -> Self {
        Self { expected, hasher: Hasher::new(expected.algorithm) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Says whether all bytes taken are the blob.
    ///
    /// # Errors
    /// With the content id that the bytes do have, if they are not.
    pub fn finish(self) -> Result<(), DigestMismatch> {
        let found = self.hasher.finish();
        if found == self.expected { Ok(()) } else { Err(DigestMismatch { found }) }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}
