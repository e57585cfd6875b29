//! Image references as people write them.
//!
//! Normalised as docker does: no registry means `docker.io`, a single word on `docker.io` means `library/<word>`,
//! neither tag nor digest means `latest`, and a digest beside a tag wins. A first component is a registry if it has
//! a dot or a colon or is `localhost`. The reference parsers at hand are one regular expression that can only say
//! "invalid format" and knows no bracketed IPv6 hosts, so the split is made here and the parts are checked by the
//! protocol's own types.
//!
//! [`ImageSource`] adds the transports of containers-transports(5), for commands that also read images from disk.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use layermesh_proto::{ContentId, ContentIdError, NameError, Repository, TagRef};
use thiserror::Error;

/// Registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest reference looked at: the longest repository, tag and sha512 digest.
const REFERENCE_LEN_MAX: usize = 1024;

/// Why text is not an image.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Nothing was given.
    #[error("the image has no name: write one such as `debian:12` or `ghcr.io/owner/name:tag`")]
    Empty,
    /// Longer than any image can be named.
    #[error("the image's name is longer than {REFERENCE_LEN_MAX} characters")]
    TooLong,
    /// It begins like a web address.
    #[error("`{0}` is a web address: write the image without `http://` or `https://`")]
    WebAddress(String),
    /// Its repository has capitals, the commonest mistake.
    #[error("`{given}` has capital letters, which repositories cannot have; did you mean `{meant}`?")]
    Capitals {
        /// The repository given.
        given: String,
        /// In lower case.
        meant: String,
    },
    /// A part is outside the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What follows `@` is not a digest.
    #[error(transparent)]
    Digest(#[from] ContentIdError),
    /// A transport that cannot be read from.
    #[error(
        "`{0}` is not a transport: write docker://IMAGE, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]"
    )]
    Transport(String),
    /// A transport without a path.
    #[error("`{0}` needs a path")]
    NoPath(&'static str),
}

/// Which version of a repository's image is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// What this tag stands for.
    Tag(TagRef),
    /// This manifest or index.
    Digest(ContentId),
}

/// An image at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    repository: Repository,
    version: Version,
}

impl ImageReference {
    /// The image that people name in a command, as they would for a runtime or for skopeo (`docker://...`).
    ///
    /// # Errors
    /// If the text names no image.
    pub fn named(text: &str) -> Result<Self, ImageError> {
        text.strip_prefix("docker://").unwrap_or(text).parse()
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(reference) => reference.fmt(f),
            Version::Digest(content) => write!(f, "{}@{content}", self.repository),
        }
    }
}

impl FromStr for ImageReference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if text.is_empty() {
            return Err(ImageError::Empty);
        }
        if text.len() > REFERENCE_LEN_MAX {
            return Err(ImageError::TooLong);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(ImageError::WebAddress(text.to_owned()));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse::<ContentId>()?)),
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match named.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (named, None),
        };
        let repository = repository(name)?;
        let tag = TagRef::new(repository.clone(), tag.unwrap_or(DEFAULT_TAG))?;
        let version = digest.map_or(Version::Tag(tag), Version::Digest);
        Ok(Self { repository, version })
    }
}

fn repository(name: &str) -> Result<Repository, ImageError> {
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    if path.is_empty() {
        return Err(ImageError::Empty);
    }
    // Docker Hub's older name.
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let path =
        if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    let lower = path.to_ascii_lowercase();
    match Repository::new(registry, &path) {
        Err(NameError::Repository(_)) if lower != path && Repository::new(registry, &lower).is_ok() => {
            Err(ImageError::Capitals { given: path, meant: lower })
        }
        other => Ok(other?),
    }
}

/// Where an image is read from: a registry, or a file or directory of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// `docker://IMAGE`, or an image without a transport.
    Registry(ImageReference),
    /// `oci:DIR[:REF]`: an OCI image layout.
    Oci(LocalImage),
    /// `oci-archive:FILE[:REF]`: an OCI image layout in a tar file.
    OciArchive(LocalImage),
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive(LocalImage),
}

/// An image in a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// The file or directory.
    pub path: PathBuf,
    /// Which image in it; not needed if there is one only.
    pub name: Option<String>,
}

impl FromStr for ImageSource {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(reference.parse()?));
        }
        type Make = fn(LocalImage) -> ImageSource;
        let transports: [(&'static str, Make); 3] =
            [("oci:", Self::Oci), ("oci-archive:", Self::OciArchive), ("docker-archive:", Self::DockerArchive)];
        for (prefix, make) in transports {
            if let Some(rest) = text.strip_prefix(prefix) {
                return local(rest).map(make).ok_or(ImageError::NoPath(prefix));
            }
        }
        if let Some((transport, _)) = text.split_once("://").filter(|(transport, _)| !transport.starts_with("http")) {
            return Err(ImageError::Transport(transport.to_owned()));
        }
        Ok(Self::Registry(text.parse()?))
    }
}

/// `PATH[:REF]`. As in containers-transports(5) the first colon ends the path.
fn local(text: &str) -> Option<LocalImage> {
    let (path, name) = match text.split_once(':') {
        Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
        None => (text, None),
    };
    (!path.is_empty()).then(|| LocalImage { path: Path::new(path).to_owned(), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised_as_docker_does() {
        for (text, normal) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:12", "docker.io/library/debian:12".to_owned()),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            ("docker.io/debian", "docker.io/library/debian:latest".to_owned()),
            ("index.docker.io/debian", "docker.io/library/debian:latest".to_owned()),
            ("ghcr.io/a/b:tag", "ghcr.io/a/b:tag".to_owned()),
            ("ghcr.io/a", "ghcr.io/a:latest".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("host:5000/x", "host:5000/x:latest".to_owned()),
            ("host:5000/x:y", "host:5000/x:y".to_owned()),
            ("[::1]:5000/x:y", "[::1]:5000/x:y".to_owned()),
            (&format!("host:5000/x@{DIGEST}"), format!("host:5000/x@{DIGEST}")),
            (&format!("debian:12@{DIGEST}"), format!("docker.io/library/debian@{DIGEST}")),
        ] {
            let reference: ImageReference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), normal, "{text}");
            assert_eq!(normal.parse(), Ok(reference), "{text} is not stable");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("", "has no name"),
            ("ghcr.io/", "has no name"),
            ("https://ghcr.io/a", "without `http://`"),
            ("Debian", "did you mean `library/debian`?"),
            ("debian:", "not a tag"),
            ("debian:a b", "not a tag"),
            ("a//b", "not a repository name"),
            ("ghcr.io/../etc", "not a repository name"),
            ("host:99999/x", "not a registry"),
            ("debian@sha256:abc", "hex digits"),
            ("debian@md5:d41d8cd98f00b204e9800998ecf8427e", "not supported"),
            ("debian@", "not a digest"),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert_eq!("a".repeat(2000).parse::<ImageReference>(), Err(ImageError::TooLong));
    }

    #[test]
    fn transports_are_those_of_skopeo() {
        let local = |path: &str, name: Option<&str>| LocalImage { path: path.into(), name: name.map(str::to_owned) };
        for (text, source) in [
            ("docker://debian", ImageSource::Registry("debian".parse().unwrap())),
            ("ghcr.io/a/b:c", ImageSource::Registry("ghcr.io/a/b:c".parse().unwrap())),
            ("oci:/tmp/x", ImageSource::Oci(local("/tmp/x", None))),
            ("oci:x:v1", ImageSource::Oci(local("x", Some("v1")))),
            ("oci-archive:x.tar:", ImageSource::OciArchive(local("x.tar", None))),
            (
                "docker-archive:x.tar:docker.io/library/debian:12",
                ImageSource::DockerArchive(local("x.tar", Some("docker.io/library/debian:12"))),
            ),
        ] {
            assert_eq!(text.parse(), Ok(source), "{text}");
        }
        assert_eq!("oci:".parse::<ImageSource>(), Err(ImageError::NoPath("oci:")));
        assert_eq!("dir://x".parse::<ImageSource>(), Err(ImageError::Transport("dir".to_owned())));
    }
}
