//! Names of things at an origin: repositories and tags.
//!
//! The grammar is that of the OCI distribution spec 1.1 ("Pulling manifests"); a value of these types is valid
//! by construction, so nothing past the parser needs to think about slashes, dots or `..`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest registry name: a DNS name (RFC 1035, 253 characters), a colon and a port.
pub const REGISTRY_LEN_MAX: usize = 259;
/// Longest repository name. The distribution spec lets clients assume 255 in all with the registry's name.
pub const REPOSITORY_LEN_MAX: usize = 255;
/// Longest tag (distribution spec: 128 characters).
pub const TAG_LEN_MAX: usize = 128;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a registry host with optional port.
    #[error("`{0}` is not a registry: expected a host name or address with an optional port")]
    Registry(String),
    /// Not a repository name.
    #[error("`{0}` is not a repository name: expected lower-case path components such as `library/debian`")]
    Repository(String),
    /// Not a tag.
    #[error("`{0}` is not a tag: expected up to 128 letters, digits, `_`, `.` and `-`")]
    Tag(String),
}

/// A repository of a registry, such as `docker.io` and `library/debian`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(String, String)", into = "(String, String)")]
pub struct Repository {
    registry: String,
    name: String,
}

impl Repository {
    /// A repository, checked against the grammar.
    ///
    /// # Errors
    /// If either part is outside the grammar or its length limit.
    pub fn new(registry: &str, name: &str) -> Result<Self, NameError> {
        if !is_registry(registry) {
            return Err(NameError::Registry(shown(registry)));
        }
        if name.len() > REPOSITORY_LEN_MAX || name.is_empty() || !name.split('/').all(is_component) {
            return Err(NameError::Repository(shown(name)));
        }
        Ok(Self { registry: registry.to_owned(), name: name.to_owned() })
    }

    /// The registry as clients name it, with its port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository's path within the registry.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl TryFrom<(String, String)> for Repository {
    type Error = NameError;
    fn try_from((registry, name): (String, String)) -> Result<Self, NameError> {
        Self::new(&registry, &name)
    }
}

impl From<Repository> for (String, String) {
    fn from(repository: Repository) -> Self {
        (repository.registry, repository.name)
    }
}

/// A tag of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(Repository, String)", into = "(Repository, String)")]
pub struct TagRef {
    repository: Repository,
    tag: String,
}

impl TagRef {
    /// A tag, checked against the grammar.
    ///
    /// # Errors
    /// If the tag is outside the grammar or its length limit.
    pub fn new(repository: Repository, tag: &str) -> Result<Self, NameError> {
        if !is_tag(tag) {
            return Err(NameError::Tag(shown(tag)));
        }
        Ok(Self { repository, tag: tag.to_owned() })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for TagRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl TryFrom<(Repository, String)> for TagRef {
    type Error = NameError;
    fn try_from((repository, tag): (Repository, String)) -> Result<Self, NameError> {
        Self::new(repository, &tag)
    }
}

impl From<TagRef> for (Repository, String) {
    fn from(reference: TagRef) -> Self {
        (reference.repository, reference.tag)
    }
}

/// Which endpoint of an origin has the object: registries keep manifests and other blobs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A manifest or an index.
    Manifest,
    /// A layer, a config or any other blob.
    Blob,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        })
    }
}

impl FromStr for ObjectKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "manifest" => Ok(Self::Manifest),
            "blob" => Ok(Self::Blob),
            _ => Err(()),
        }
    }
}

/// Refused text as errors quote it: short, and with nothing in it that could steer a terminal.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).take(160).collect()
}

/// A DNS name, IPv4 address or bracketed IPv6 address, with an optional port.
fn is_registry(text: &str) -> bool {
    if text.is_empty() || text.len() > REGISTRY_LEN_MAX {
        return false;
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match after.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if after.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(label))
        && port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` of the distribution spec.
fn is_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    bytes
        .split(|&byte| word(byte))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` of the distribution spec.
fn is_tag(text: &str) -> bool {
    text.len() <= TAG_LEN_MAX
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_names_are_taken() {
        for (registry, name) in [
            ("docker.io", "library/debian"),
            ("127.0.0.1:5000", "a"),
            ("localhost", "a/b/c"),
            ("[::1]:5000", "a"),
            ("ghcr.io", "owner/some_name/with--dashes.and__more"),
        ] {
            let repository = Repository::new(registry, name).unwrap();
            assert_eq!(repository.to_string(), format!("{registry}/{name}"));
        }
        assert!(TagRef::new(Repository::new("docker.io", "a").unwrap(), "v1.2.3-rc_1").is_ok());
    }

    #[test]
    fn anything_that_could_steer_a_path_or_a_host_is_refused() {
        for registry in ["", "docker.io/x", "a b", "user@host", "host:0", "host:99999", "host:", "-a", "[::1", "a..b"] {
            assert!(Repository::new(registry, "a").is_err(), "{registry}");
        }
        for name in ["", "/", "a/", "/a", "a//b", "../a", "a/../b", "A", "a.", "a..b", "a___b", "a%2fb", "_a"] {
            assert!(Repository::new("docker.io", name).is_err(), "{name}");
        }
        let repository = Repository::new("docker.io", "a").unwrap();
        for tag in ["", ".a", "-a", "a/b", "a:b", "a b", &"a".repeat(129)] {
            assert!(TagRef::new(repository.clone(), tag).is_err(), "{tag}");
        }
    }

    #[test]
    fn the_longest_names_are_taken_and_longer_ones_are_not() {
        let host = [&*"a".repeat(63), &*"b".repeat(63), &*"c".repeat(63), &*"d".repeat(61)].join(".");
        let registry = format!("{host}:65535");
        assert_eq!(registry.len(), REGISTRY_LEN_MAX);
        let name = "n".repeat(REPOSITORY_LEN_MAX);
        let repository = Repository::new(&registry, &name).unwrap();
        assert!(TagRef::new(repository, &"t".repeat(TAG_LEN_MAX)).is_ok());
        assert_eq!(Repository::new(&format!("{registry}0"), &name).map_err(|_| ()), Err(()));
        assert!(matches!(Repository::new("a", &format!("{name}n")), Err(NameError::Repository(_))));
        assert!(matches!(Repository::new(&"a".repeat(64), "a"), Err(NameError::Registry(_))));
    }

    #[test]
    fn what_is_refused_is_quoted_short_and_without_control_characters() {
        let refusal = Repository::new(&"\u{1b}[2J\n".repeat(1000), "a").unwrap_err().to_string();
        assert!(refusal.len() < 250 && refusal.chars().all(|char| !char.is_control()), "{refusal:?}");
    }

    proptest! {
        /// Whatever is taken comes back as it was and cannot leave the path or the host that it is put into.
        #[test]
        fn names_taken_are_tame(
            registry in "[a-z0-9.:\\[\\]/@%-]{0,12}",
            name in "[a-zA-Z0-9._/%-]{0,12}",
            tag in "[a-zA-Z0-9._/:%-]{0,12}",
        ) {
            let Ok(repository) = Repository::new(&registry, &name) else { return Ok(()) };
            prop_assert_eq!((repository.registry(), repository.name()), (&*registry, &*name));
            prop_assert!(registry.bytes().all(|byte| !matches!(byte, b'/' | b'@' | b'%')), "{}", registry);
            prop_assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{}", name);
            prop_assert!(!name.contains("..") && !name.contains('%'), "{}", name);
            if let Ok(reference) = TagRef::new(repository, &tag) {
                prop_assert_eq!(reference.to_string(), format!("{registry}/{name}:{tag}"));
                prop_assert!(!tag.starts_with('.') && !tag.contains(['/', ':', '%']), "{}", tag);
            }
        }
    }
}
