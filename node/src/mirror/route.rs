//! Which question a request asks: method, path and query of the distribution spec 1.1 to a [`Route`].
//!
//! Pure, and the only place that knows how clients spell the name of an origin:
//! - `?ns=<registry>` (containerd, Docker's containerd image store): the whole path is the repository;
//! - a path prefix (Podman, CRI-O, Buildah, skopeo): the first component names the registry if it contains a `.` or a
//!   `:` or is `localhost`, the rule by which image references are read everywhere;
//! - neither (Docker's graph drivers, whose mirrors are docker.io's alone): docker.io.
//!
//! A path is read from its right end, because a repository's name may itself contain components such as
//! `manifests`, `blobs` or `tags`.
//!
//! Deliberately absent: the push half, `_catalog` (not of the spec) and any idea of what the node holds.

use axum::http::Method;
use layermesh_proto::{ContentId, ContentIdError, NameError, Repository, TagRef};
use percent_encoding::percent_decode_str;
use thiserror::Error;
use url::form_urlencoded;

/// Registry that a request means when it names none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where docker.io keeps repositories of one component.
const DEFAULT_NAMESPACE: &str = "library/";
/// Longest path and query in bytes: a registry, a repository and a sha512 digest, each percent-encoded, fit
/// several times.
pub(super) const TARGET_LEN_MAX: usize = 4096;
/// Longest `artifactType` filter in bytes (media types: RFC 6838, 127 characters on each side of the slash).
const ARTIFACT_TYPE_LEN_MAX: usize = 255;

/// A question of the pull half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: is this a registry?
    Version,
    /// `/v2/<name>/manifests/<reference>`.
    Manifest {
        /// Where an origin has it.
        repository: Repository,
        /// Which one.
        reference: Reference,
    },
    /// `/v2/<name>/blobs/<digest>`.
    Blob {
        /// Where an origin has it.
        repository: Repository,
        /// Which one.
        content: ContentId,
    },
    /// `/v2/<name>/tags/list`.
    Tags {
        /// Of which repository.
        repository: Repository,
        /// Which part of the list.
        page: Page,
    },
    /// `/v2/<name>/referrers/<digest>`.
    Referrers {
        /// Of which repository.
        repository: Repository,
        /// What is referred to.
        content: ContentId,
        /// Only referrers of this type.
        artifact_type: Option<String>,
    },
}

/// A manifest's name within its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A tag, which may come to mean something else.
    Tag(TagRef),
    /// A digest, which never does.
    Digest(ContentId),
}

/// Part of a list of tags (distribution spec, "Listing Tags").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most this many.
    pub n: Option<u32>,
    /// Only those after this one, in lexical order.
    pub last: Option<String>,
}

/// Why a request is no question of the pull half.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// A method or an endpoint that only writers use.
    #[error("this registry is read-only")]
    ReadOnly,
    /// No endpoint of the distribution spec.
    #[error("no such endpoint")]
    NoEndpoint,
    /// A registry, repository or tag outside the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A digest outside the grammar, or of an algorithm that this node cannot compute.
    #[error(transparent)]
    Digest(#[from] ContentIdError),
    /// A query parameter outside its grammar.
    #[error("`{0}` is not a valid value of its query parameter")]
    Query(String),
}

/// The question that a request asks.
///
/// `path` and `query` are as on the wire, percent-encoded.
///
/// # Errors
/// If it asks none that a pull-only registry answers.
pub fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, RouteError> {
    let query = query.unwrap_or_default();
    if path.len() + query.len() > TARGET_LEN_MAX {
        return Err(RouteError::NoEndpoint);
    }
    let rest = match path.strip_prefix("/v2") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => return Err(RouteError::NoEndpoint),
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(RouteError::ReadOnly);
    }
    if rest.is_empty() {
        return Ok(Route::Version);
    }
    // Components are decoded one by one, so that an encoded slash never becomes a separator.
    let components = rest.split('/').map(decoded).collect::<Result<Vec<_>, _>>()?;
    let components: Vec<&str> = components.iter().map(String::as_str).collect();
    let parameters = Parameters::of(query)?;
    match components.as_slice() {
        // A session of an upload; its path would otherwise be no endpoint at all.
        [_, .., "blobs", "uploads", _] | [_, .., "blobs", "uploads"] => Err(RouteError::ReadOnly),
        [name @ .., "manifests", reference] if !name.is_empty() => {
            let repository = parameters.repository(name)?;
            let reference = if reference.contains(':') {
                Reference::Digest(reference.parse()?)
            } else {
                Reference::Tag(TagRef::new(repository.clone(), reference)?)
            };
            Ok(Route::Manifest { repository, reference })
        }
        [name @ .., "blobs", digest] if !name.is_empty() => {
            Ok(Route::Blob { repository: parameters.repository(name)?, content: digest.parse()? })
        }
        [name @ .., "tags", "list"] if !name.is_empty() => {
            Ok(Route::Tags { repository: parameters.repository(name)?, page: parameters.page()? })
        }
        [name @ .., "referrers", digest] if !name.is_empty() => Ok(Route::Referrers {
            repository: parameters.repository(name)?,
            content: digest.parse()?,
            artifact_type: parameters.artifact_type()?,
        }),
        _ => Err(RouteError::NoEndpoint),
    }
}

fn decoded(component: &str) -> Result<String, RouteError> {
    let text = percent_decode_str(component).decode_utf8().map_err(|_| RouteError::NoEndpoint)?;
    if text.contains('/') {
        return Err(RouteError::NoEndpoint);
    }
    Ok(text.into_owned())
}

/// The query parameters that have a meaning here; the first of each counts.
#[derive(Default)]
struct Parameters {
    ns: Option<String>,
    n: Option<String>,
    last: Option<String>,
    artifact_type: Option<String>,
}

impl Parameters {
    fn of(query: &str) -> Result<Self, RouteError> {
        let mut parameters = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*key {
                "ns" => &mut parameters.ns,
                "n" => &mut parameters.n,
                "last" => &mut parameters.last,
                "artifactType" => &mut parameters.artifact_type,
                _ => continue,
            };
            slot.get_or_insert_with(|| value.into_owned());
        }
        Ok(parameters)
    }

    fn repository(&self, components: &[&str]) -> Result<Repository, RouteError> {
        let (registry, name) = match (&self.ns, components) {
            (Some(ns), _) => (ns.as_str(), components.join("/")),
            (None, [registry, name @ ..]) if is_registry(registry) => (*registry, name.join("/")),
            (None, _) => (DEFAULT_REGISTRY, components.join("/")),
        };
        if registry == DEFAULT_REGISTRY && !name.is_empty() && !name.contains('/') {
            return Ok(Repository::new(registry, &format!("{DEFAULT_NAMESPACE}{name}"))?);
        }
        Ok(Repository::new(registry, &name)?)
    }

    fn page(&self) -> Result<Page, RouteError> {
        let n = match &self.n {
            Some(n) => Some(n.parse().map_err(|_| query_error(n))?),
            None => None,
        };
        if let Some(last) = self.last.as_ref().filter(|last| last.len() > layermesh_proto::name::TAG_LEN_MAX) {
            return Err(query_error(last));
        }
        Ok(Page { n, last: self.last.clone() })
    }

    fn artifact_type(&self) -> Result<Option<String>, RouteError> {
        match &self.artifact_type {
            Some(text) if text.len() > ARTIFACT_TYPE_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(query_error(text))
            }
            other => Ok(other.clone()),
        }
    }
}

fn query_error(text: &str) -> RouteError {
    RouteError::Query(text.chars().take(80).collect())
}

fn is_registry(component: &str) -> bool {
    component.contains(['.', ':']) || component == "localhost"
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn digest() -> ContentId {
        format!("sha256:{HEX}").parse().unwrap()
    }

    fn get(target: &str) -> Result<Route, RouteError> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        route(&Method::GET, path, query)
    }

    fn repository(registry: &str, name: &str) -> Repository {
        Repository::new(registry, name).unwrap()
    }

    fn tag(registry: &str, name: &str, tag: &str) -> Route {
        let repository = repository(registry, name);
        Route::Manifest {
            repository: repository.clone(),
            reference: Reference::Tag(TagRef::new(repository, tag).unwrap()),
        }
    }

    #[test]
    fn the_three_ways_to_name_an_origin() {
        for (target, expected) in [
            ("/v2/a/b/manifests/v1?ns=127.0.0.1%3A5000", tag("127.0.0.1:5000", "a/b", "v1")),
            ("/v2/a/b/manifests/v1?ns=127.0.0.1:5000", tag("127.0.0.1:5000", "a/b", "v1")),
            ("/v2/a/manifests/v1?ns=ghcr.io", tag("ghcr.io", "a", "v1")),
            ("/v2/a/manifests/v1?x=y&ns=ghcr.io&ns=quay.io", tag("ghcr.io", "a", "v1")),
            ("/v2/quay.io/a/manifests/v1?ns=ghcr.io", tag("ghcr.io", "quay.io/a", "v1")),
            ("/v2/docker.io/library/debian/manifests/v1", tag("docker.io", "library/debian", "v1")),
            ("/v2/docker.io/debian/manifests/v1", tag("docker.io", "library/debian", "v1")),
            ("/v2/debian/manifests/v1?ns=docker.io", tag("docker.io", "library/debian", "v1")),
            ("/v2/localhost/a/manifests/v1", tag("localhost", "a", "v1")),
            ("/v2/registry:5000/a/manifests/v1", tag("registry:5000", "a", "v1")),
            ("/v2/registry%3A5000/a/manifests/v1", tag("registry:5000", "a", "v1")),
            ("/v2/[::1]:5000/a/manifests/v1", tag("[::1]:5000", "a", "v1")),
            ("/v2/library/debian/manifests/v1", tag("docker.io", "library/debian", "v1")),
            ("/v2/debian/manifests/v1", tag("docker.io", "library/debian", "v1")),
            ("/v2/a/b/c/d/manifests/v1", tag("docker.io", "a/b/c/d", "v1")),
        ] {
            assert_eq!(get(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn repositories_may_be_called_like_endpoints() {
        for (target, expected) in [
            ("/v2/a.io/manifests/manifests/v1", tag("a.io", "manifests", "v1")),
            ("/v2/a.io/manifests/blobs/manifests/v1", tag("a.io", "manifests/blobs", "v1")),
            ("/v2/a.io/tags/list/manifests/list", tag("a.io", "tags/list", "list")),
            ("/v2/a.io/blobs/uploads/manifests/v1", tag("a.io", "blobs/uploads", "v1")),
            ("/v2/manifests/manifests/manifests", tag("docker.io", "library/manifests", "manifests")),
            ("/v2/v2/x/manifests/latest", tag("docker.io", "v2/x", "latest")),
        ] {
            assert_eq!(get(target), Ok(expected), "{target}");
        }
        let blob = Route::Blob { repository: repository("a.io", "blobs/manifests"), content: digest() };
        assert_eq!(get(&format!("/v2/a.io/blobs/manifests/blobs/sha256:{HEX}")), Ok(blob));
        let tags = Route::Tags { repository: repository("a.io", "tags/list"), page: Page::default() };
        assert_eq!(get("/v2/a.io/tags/list/tags/list"), Ok(tags));
    }

    #[test]
    fn every_endpoint_of_the_pull_half() {
        assert_eq!(get("/v2/"), Ok(Route::Version));
        assert_eq!(get("/v2"), Ok(Route::Version));
        assert_eq!(get("/v2/?ns=docker.io"), Ok(Route::Version));
        let manifest = Route::Manifest { repository: repository("a.io", "b"), reference: Reference::Digest(digest()) };
        assert_eq!(get(&format!("/v2/a.io/b/manifests/sha256:{HEX}")), Ok(manifest.clone()));
        assert_eq!(get(&format!("/v2/a.io/b/manifests/sha256%3A{HEX}")), Ok(manifest));
        let blob = Route::Blob { repository: repository("a.io", "b"), content: digest() };
        assert_eq!(get(&format!("/v2/b/blobs/sha256:{HEX}?ns=a.io")), Ok(blob.clone()));
        assert_eq!(route(&Method::HEAD, &format!("/v2/a.io/b/blobs/sha256:{HEX}"), None), Ok(blob));
        let page = Page { n: Some(5), last: Some("v1".to_owned()) };
        let tags = Route::Tags { repository: repository("a.io", "b"), page };
        assert_eq!(get("/v2/b/tags/list?n=5&ns=a.io&last=v1"), Ok(tags));
        let referrers = Route::Referrers {
            repository: repository("a.io", "b"),
            content: digest(),
            artifact_type: Some("application/vnd.x+json".to_owned()),
        };
        assert_eq!(
            get(&format!("/v2/a.io/b/referrers/sha256:{HEX}?artifactType=application%2Fvnd.x%2Bjson")),
            Ok(referrers)
        );
        let sha512 = format!("sha512:{HEX}{HEX}");
        assert!(matches!(get(&format!("/v2/a.io/b/blobs/{sha512}")), Ok(Route::Blob { .. })));
    }

    #[test]
    fn writers_are_told_that_it_is_read_only() {
        for (method, path) in [
            (Method::POST, "/v2/a.io/b/blobs/uploads/"),
            (Method::PATCH, "/v2/a.io/b/blobs/uploads/1"),
            (Method::PUT, "/v2/a.io/b/manifests/v1"),
            (Method::DELETE, "/v2/a.io/b/manifests/v1"),
            (Method::OPTIONS, "/v2/"),
            (Method::GET, "/v2/a.io/b/blobs/uploads/1"),
            (Method::GET, "/v2/a.io/b/blobs/uploads/"),
            (Method::HEAD, "/v2/a.io/b/blobs/uploads"),
        ] {
            assert_eq!(route(&method, path, None), Err(RouteError::ReadOnly), "{method} {path}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for target in ["/", "", "/v1/", "/v22/", "/v2x", "/v2/_catalog", "/v2/a.io/b", "/v2/a/tags/lists", "/v2/%ff/x"]
        {
            assert_eq!(get(target), Err(RouteError::NoEndpoint), "{target}");
        }
        for target in ["/v2/a.io/b%2Fc/manifests/v1", "/v2/manifests/v1", "/v2/tags/list", "/v2/blobs/x"] {
            assert_eq!(get(target), Err(RouteError::NoEndpoint), "{target}");
        }
        for target in [
            "/v2/a.io/manifests/v1",
            "/v2/A/manifests/v1",
            "/v2/a.io/../manifests/v1",
            "/v2/a.io/%2e%2e/manifests/v1",
            "/v2/a.io//b/manifests/v1",
            "/v2/a/manifests/v1?ns=",
            "/v2/a/manifests/v1?ns=user@host",
            "/v2/a/manifests/v1?ns=http://host",
            "/v2/a.io/b/manifests/",
            "/v2/a.io/b/manifests/-x",
        ] {
            assert!(matches!(get(target), Err(RouteError::Name(_))), "{target}");
        }
        for digest in ["v1", "sha256:00", "sha3:00", "sha256:", &format!("sha256:{}", HEX.to_uppercase())] {
            assert!(matches!(get(&format!("/v2/a.io/b/blobs/{digest}")), Err(RouteError::Digest(_))), "{digest}");
        }
        assert!(matches!(get("/v2/a.io/b/manifests/sha256:00"), Err(RouteError::Digest(_))));
        for query in ["n=x", "n=-1", &format!("last={}", "a".repeat(129))] {
            assert!(matches!(get(&format!("/v2/a.io/b/tags/list?{query}")), Err(RouteError::Query(_))), "{query}");
        }
        let long = format!("/v2/a.io/{}/manifests/v1", "a/".repeat(3000));
        assert_eq!(get(&long), Err(RouteError::NoEndpoint));
    }
}
