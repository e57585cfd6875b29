//! Releases: what a fleet is to run, signed, as a TUF repository.
//!
//! A *release* is a version on a *channel* and names images by digest. [`publisher`] keeps the repository on the
//! admin's disk and signs; [`verify()`] says whether a set of metadata may be believed, given what was believed before;
//! [`set`] is the form in which metadata travels: an OCI artifact, so that its files are blobs like all others.
//! Invariant: nothing here acts on metadata that [`verify()`] did not accept, and every number that strangers write is
//! bounded before it is used.
//!
//! Trust is `tough`'s business: signatures, thresholds, versions, the chain of roots. What it leaves to us: where files
//! come from, what is kept from one look to the next, and whether there is a clock by which metadata can expire.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod clock;
pub mod content;
pub mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inspect;
pub mod keys;
mod pins;
mod plan;
pub mod prefetch;
pub mod publisher;
pub mod refusal;
pub mod routes;
pub mod set;
pub mod status;
pub mod verify;

pub use content::{Release, ReleasedImage, ReleasedPlatform};
pub use refusal::{Refusal, RefusalKind};
pub use set::MetadataSet;
pub use verify::{Trusted, Verified, verify};

/// Longest name of a channel or a version.
pub const NAME_LEN_MAX: usize = 64;

/// Text that is not the name of a channel or version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a {1}: write up to {NAME_LEN_MAX} letters, digits, `.`, `_`, `+` and `-`, the first a letter or digit"
)]
pub struct NameError(String, &'static str);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NameError(shortened(text), $what)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// A series of releases that devices follow, such as `stable`.
    Channel,
    "channel"
);
name!(
    /// One release of a channel, such as `1.4.0`. Releases follow each other as they were published, whatever their
    /// versions say.
    ReleaseVersion,
    "version"
);

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    text.len() <= NAME_LEN_MAX
        && text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_LEN_MAX).collect()
}

/// Which repository of releases: 16 bytes in hex, drawn when it was made. Its root metadata says it, signed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryId(String);

impl RepositoryId {
    /// The id of these bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The id in hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id's bytes.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // Ids are made of sixteen bytes or checked to be.
        let _ = hex::decode_to_slice(&self.0, &mut bytes);
        bytes
    }
}

impl TryFrom<String> for RepositoryId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut bytes = [0; 16];
        match hex::decode_to_slice(&text, &mut bytes) {
            Ok(()) => Ok(Self::new(bytes)),
            Err(_) => Err("a repository's id has 32 hex digits".to_owned()),
        }
    }
}

impl From<RepositoryId> for String {
    fn from(id: RepositoryId) -> Self {
        id.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests;
