//! Content ids: the name of a blob, derived from its bytes.
//!
//! A content id is the CIDv1 (raw codec) of the blob's sha2-256 or sha2-512 multihash. It converts to and from
//! an OCI digest (image-spec, descriptor.md, "Digests") without loss, so the registry's name for a blob and the
//! mesh's name for it are the same fact. Other algorithms are refused: a node can only vouch for what it can
//! compute.

use std::{cmp::Ordering, fmt, str::FromStr};

use cid::{
    Cid, Version,
    multibase::{self, Base},
};
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};
use thiserror::Error;

use crate::bytes;

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
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentId {
    algorithm: Algorithm,
    // Bytes past the algorithm's length are zero, so that derived equality and the order of all bytes are right.
    digest: [u8; 64],
}

/// By algorithm, then by digest.
impl Ord for ContentId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.algorithm.cmp(&other.algorithm).then_with(|| bytes::compare(&self.digest, &other.digest))
    }
}

impl PartialOrd for ContentId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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
        if cid.version() != Version::V1 || cid.codec() != RAW_CODEC {
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

    /// A content id from the text form of its CID in any multibase, as the bulk exchange puts it into a path.
    ///
    /// # Errors
    /// As [`ContentId::from_bytes`], or if the text is no CID.
    pub fn from_cid_text(text: &str) -> Result<Self, ContentIdError> {
        // The longest is a multibase base16 CID of sha2-512; anything longer is not ours.
        if text.len() > CONTENT_ID_BYTES_MAX * 2 + 1 {
            return Err(ContentIdError::NotACid("too long".to_owned()));
        }
        // Not by the cid crate's own parser: it skips anything before `/ipfs/` and takes bytes after the hash.
        let decoded = if Version::is_v0_str(text) {
            Base::Base58Btc.decode(text)
        } else {
            multibase::decode(text).map(|(_, bytes)| bytes)
        };
        Self::from_bytes(&decoded.map_err(|error| ContentIdError::NotACid(error.to_string()))?)
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
        let malformed = || ContentIdError::Malformed(shown(text));
        let (name, encoded) = text.split_once(':').ok_or_else(malformed)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other if other.is_empty() || other.len() > 32 => return Err(malformed()),
            other => return Err(ContentIdError::UnsupportedAlgorithm(shown(other))),
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

/// Refused text as errors quote it: short, and with nothing in it that could steer a terminal.
fn shown(text: &str) -> String {
    text.chars().take(160).flat_map(char::escape_debug).take(320).collect()
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Algorithm, bytes, their digest (FIPS 180-4 examples) and the CID in base32.
    const KNOWN: [(Algorithm, &[u8], &str, &str); 4] = [
        (
            Algorithm::Sha256,
            b"",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        ),
        (
            Algorithm::Sha256,
            b"abc",
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "bafkreif2pall7dybz7vecqka3zo24irdwabwdi4wc55jznaq75q7eaavvu",
        ),
        (
            Algorithm::Sha512,
            b"",
            "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                    47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
            "bafkrgqgpqpqtk7xpxc67cvbikdlg3aah2yqoibilk4k5za7uveq5g3hjzzd5buj4lwc7fmh7qmmnfb365qxwhojrxvduc6ubuu4de6xze7nd4",
        ),
        (
            Algorithm::Sha512,
            b"abc",
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                    2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "bafkrgqg5v422de3bpk5myqltjgxcaqjrcltputujvf7kecu653tewvottiqzfgjke5h4dkbwxi6chi765o6uktkeensdz2aofknmst5fjssj6",
        ),
    ];

    #[test]
    fn known_bytes_have_known_digests_and_cids() {
        for (algorithm, bytes, digest, cid) in KNOWN {
            let content = ContentId::of(algorithm, bytes);
            assert_eq!(content.to_string(), digest);
            assert_eq!(content.to_cid().to_string(), cid);
            assert_eq!(digest.parse(), Ok(content));
            assert_eq!(ContentId::from_cid_text(cid), Ok(content));
            assert_eq!(ContentId::from_bytes(&content.to_bytes()), Ok(content));
            assert_eq!(content.to_bytes().len(), 4 + algorithm.digest_len());
            assert_eq!(digest, format!("{}:{}", algorithm.name(), content.hex()));
        }
    }

    #[test]
    fn digests_outside_the_grammar_are_refused() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let upper = format!("sha256:{}", hex.to_uppercase());
        let slash = format!("sha256:{}/", &hex[1..]);
        let wide = format!("sha256:{}é", &hex[2..]);
        for text in ["", ":", "sha256", hex, &format!(":{hex}"), &upper, &slash, &wide, &format!("sha256: {hex}")] {
            assert_eq!(text.parse::<ContentId>(), Err(ContentIdError::Malformed(text.to_owned())));
        }
        for algorithm in ["md5", "blake3", "SHA256", "sha256+b64"] {
            let refusal = format!("{algorithm}:{hex}").parse::<ContentId>();
            assert_eq!(refusal, Err(ContentIdError::UnsupportedAlgorithm(algorithm.to_owned())));
        }
        let refusal = format!("blake3:{hex}").parse::<ContentId>().unwrap_err();
        assert_eq!(refusal.to_string(), "digest algorithm `blake3` is not supported: only sha256 and sha512 are");
        for (algorithm, expected, found) in [("sha256", 64, 63), ("sha256", 64, 128), ("sha512", 128, 64)] {
            let refusal = format!("{algorithm}:{}", "0".repeat(found)).parse::<ContentId>();
            assert_eq!(refusal, Err(ContentIdError::WrongLength { algorithm, expected, found }));
        }
    }

    #[test]
    fn refusals_quote_little_and_no_control_characters() {
        for text in ["\u{1b}[2J\n".repeat(10_000), format!("\u{1b}]0;\u{7}:{}", "0".repeat(64)), "a".repeat(1 << 20)] {
            let refusal = text.parse::<ContentId>().unwrap_err().to_string();
            assert!(refusal.len() < 500, "{}", refusal.len());
            assert!(refusal.chars().all(|char| !char.is_control()), "{refusal:?}");
        }
    }

    /// A CID with the given head in front of the 32 bytes of a digest.
    fn headed(head: &[u8]) -> Result<ContentId, ContentIdError> {
        let bytes = [head, &[7; 32]].concat();
        let text = multibase::encode(Base::Base32Lower, &bytes);
        let result = ContentId::from_bytes(&bytes);
        assert_eq!(ContentId::from_cid_text(&text), result, "both forms are judged alike");
        result
    }

    #[test]
    fn other_cids_are_refused() {
        assert!(headed(&[1, 0x55, 0x12, 32]).is_ok());
        assert_eq!(headed(&[0x12, 32]), Err(ContentIdError::NotRaw), "version 0");
        assert_eq!(headed(&[1, 0x70, 0x12, 32]), Err(ContentIdError::NotRaw), "dag-pb");
        let blake3 = ContentIdError::UnsupportedAlgorithm("multihash 0x1e".to_owned());
        assert_eq!(headed(&[1, 0x55, 0x1e, 32]), Err(blake3));
        let short = ContentIdError::WrongLength { algorithm: "sha512", expected: 128, found: 64 };
        assert_eq!(headed(&[1, 0x55, 0x13, 32]), Err(short));
        for (why, head) in [
            ("version 2", &[2, 0x55, 0x12, 32][..]),
            ("a byte after the digest", &[1, 0x55, 0x12, 31]),
            ("a byte missing", &[1, 0x55, 0x12, 33]),
            ("version in two bytes", &[0x81, 0, 0x55, 0x12, 32]),
            ("codec in two bytes", &[1, 0xd5, 0, 0x12, 32]),
            ("algorithm in two bytes", &[1, 0x55, 0x92, 0, 32]),
            ("length in two bytes", &[1, 0x55, 0x12, 0xa0, 0]),
        ] {
            assert!(headed(head).is_err(), "{why}");
        }
    }

    #[test]
    fn other_texts_of_a_cid_are_refused() {
        let cid = KNOWN[0].3;
        let bytes = ContentId::of(Algorithm::Sha256, b"").to_bytes();
        let followed = multibase::encode(Base::Base32Lower, [&bytes[..], &[0]].concat());
        for text in [
            &*followed,
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
            &format!("/ipfs/{cid}"),
            &format!("{cid}/"),
            &cid[1..],
            "",
            "b",
            "\u{1f600}",
        ] {
            assert!(ContentId::from_cid_text(text).is_err(), "{text}");
        }
        let too_long = Err(ContentIdError::NotACid("too long".to_owned()));
        assert_eq!(ContentId::from_cid_text(&"b".repeat(1 << 20)), too_long);
        assert_eq!(ContentId::from_bytes(&[1; 69]), too_long);
        let longest = ContentId::of(Algorithm::Sha512, b"");
        let text = longest.to_cid().to_string_of_base(Base::Base16Lower).unwrap();
        assert_eq!(ContentId::from_cid_text(&text), Ok(longest), "the longest text is not too long");
    }

    #[test]
    fn a_digest_of_another_length_is_no_digest() {
        for (algorithm, len) in [(Algorithm::Sha256, 31), (Algorithm::Sha256, 64), (Algorithm::Sha512, 32)] {
            assert_eq!(ContentId::from_digest(algorithm, &vec![0; len]), None);
        }
    }

    fn content() -> impl Strategy<Value = ContentId> {
        let of = |algorithm: Algorithm| {
            vec(any::<u8>(), algorithm.digest_len())
                .prop_map(move |digest| ContentId::from_digest(algorithm, &digest).unwrap())
        };
        prop_oneof![of(Algorithm::Sha256), of(Algorithm::Sha512)]
    }

    proptest! {
        #[test]
        fn all_forms_come_back(content in content()) {
            prop_assert_eq!(content.to_string().parse(), Ok(content));
            prop_assert_eq!(ContentId::from_bytes(&content.to_bytes()), Ok(content));
            prop_assert_eq!(ContentId::from_cid(&content.to_cid()), Ok(content));
            prop_assert_eq!(ContentId::from_cid_text(&content.to_cid().to_string()), Ok(content));
            prop_assert_eq!(ContentId::from_digest(content.algorithm(), content.digest()), Some(content));
        }

        #[test]
        fn changed_bytes_are_another_id_or_none(content in content(), at in any::<prop::sample::Index>(), xor in 1..=u8::MAX) {
            let mut bytes = content.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            if let Ok(other) = ContentId::from_bytes(&bytes) {
                prop_assert_ne!(other, content);
                prop_assert_eq!(other.to_bytes(), bytes);
            }
        }

        #[test]
        fn arbitrary_text_is_one_digest_or_none(text in "\\PC{0,80}|sha(256|512):[0-9a-fA-F]{60,68}") {
            if let Ok(content) = text.parse::<ContentId>() {
                prop_assert_eq!(&content.to_string(), &text);
            }
            let _ = ContentId::from_cid_text(&text);
        }

        #[test]
        fn a_verifier_takes_parts_of_any_size(
            bytes in vec(any::<u8>(), 0..600),
            cuts in vec(any::<prop::sample::Index>(), 0..5),
            sha512 in any::<bool>(),
        ) {
            let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let content = ContentId::of(algorithm, &bytes);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut verifier = Verifier::new(content);
            let mut start = 0;
            for end in cuts.into_iter().chain([bytes.len()]) {
                verifier.update(&bytes[start..end]);
                start = end;
            }
            prop_assert_eq!(verifier.finish(), Ok(()));

            let mut verifier = Verifier::new(content);
            verifier.update(&bytes);
            verifier.update(&[0]);
            let found = ContentId::of(algorithm, &[&bytes[..], &[0]].concat());
            prop_assert_eq!(verifier.finish(), Err(DigestMismatch { found }));
        }
    }
}
