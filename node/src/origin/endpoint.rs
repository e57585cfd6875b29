//! Where an origin is and how it is reached: address, trust, redirects, time-outs.
//!
//! Invariant: an origin that is not configured for plain HTTP is never spoken to over it, not on the first
//! request and not after a redirect, so neither credentials nor bytes travel in the clear unasked; and one that is not
//! configured at all is only spoken to outside the device and its LAN (`internal.rs`).

use std::{
    fs,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use reqwest::redirect::{Attempt, Policy};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use url::Url;

use super::{OriginConfig, OriginSetupError, internal, names::Names};

/// How long a connection may take. Longer than two lost SYNs (3 s) on a bad uplink; short enough that a device
/// that has just gone offline turns to its peers before a person gives up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an origin may stay silent, before its answer or within a body. Registries that fetch from cold
/// storage take several seconds to the first byte; containerd cancels a pull after five minutes without a byte, so
/// there must be time left for another source.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept: the pauses within one pull, not those between pulls. A kept TLS connection
/// costs about 40 KiB.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Idle connections kept for each host, for the same reason.
const POOL_IDLE_MAX: usize = 2;
/// Most redirects followed: storage back-ends take one, a registry behind a load balancer two.
const REDIRECTS_MAX: usize = 5;
/// Largest CA file, in bytes: the bundle of all public CAs has 220 KiB.
const CA_FILE_BYTES_MAX: u64 = 4 << 20;

/// How this program names itself to registries.
const USER_AGENT: &str = concat!("layermesh/", env!("CARGO_PKG_VERSION"));

/// Certificates that are trusted besides the system's.
type ExtraRoots = Arc<Vec<CertificateDer<'static>>>;

/// A client, made when it is first needed: it holds the system's CAs, some MiB that a node that only ever asks its peers
/// need not spend. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct HttpClient {
    roots: ExtraRoots,
    plain_http: bool,
    /// Whether addresses of the device and its LAN are allowed: whoever wrote the configuration said so.
    internal: bool,
    names: Names,
    made: Arc<OnceLock<reqwest::Client>>,
}

impl HttpClient {
    /// A client for registries that somebody named who may: at any address.
    pub(super) fn anywhere() -> Self {
        Self { internal: true, ..Self::default() }
    }

    /// Another one at any address, which has its turn for looking names up with this one.
    pub(super) fn beside(&self, roots: ExtraRoots, plain_http: bool) -> Self {
        Self { roots, plain_http, internal: true, names: self.names.clone(), made: Arc::default() }
    }

    /// The client.
    pub(super) fn get(&self) -> Result<reqwest::Client, reqwest::Error> {
        if let Some(client) = self.made.get() {
            return Ok(client.clone());
        }
        let client = http_client(self)?;
        // Should two have been made at once, one is dropped.
        Ok(self.made.get_or_init(|| client).clone())
    }
}

/// The way to a registry's API.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Scheme, host and port.
    pub(super) base: Url,
    /// How to speak to it.
    pub(super) client: HttpClient,
}

impl Endpoint {
    /// The endpoint of a configured origin; `plain` is the client of those that need nothing special, at any address.
    pub(super) fn configured(config: &OriginConfig, plain: &HttpClient) -> Result<Self, OriginSetupError> {
        let base = match &config.endpoint {
            Some(url) => url.clone(),
            None => default_base(&config.registry, config.plain_http)?,
        };
        check_base(&config.registry, &base, config.plain_http)?;
        let Some(path) = &config.ca_file else {
            let client = if config.plain_http { plain.beside(ExtraRoots::default(), true) } else { plain.clone() };
            return Ok(Self { base, client });
        };
        let roots = Arc::new(read_roots(path)?);
        let client = plain.beside(roots, config.plain_http);
        // PEM says nothing of what it wraps; making the client tells whether that is a certificate.
        client.get().map_err(|error| OriginSetupError::CaFile { path: path.clone(), reason: error.to_string() })?;
        Ok(Self { base, client })
    }

    /// The endpoint of a registry that nothing is configured for.
    pub(super) fn unconfigured(registry: &str, plain: &HttpClient) -> Result<Self, OriginSetupError> {
        let base = default_base(registry, false)?;
        if !plain.internal {
            internal::check(&base).map_err(|error| OriginSetupError::Endpoint {
                registry: registry.to_owned(),
                endpoint: base.authority().to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(Self { base, client: plain.clone() })
    }

    /// Whether plain HTTP is allowed, here and where this origin redirects to.
    pub(super) fn plain_http(&self) -> bool {
        self.client.plain_http
    }

    /// Whether it may lead to addresses of the device and its LAN.
    pub(super) fn internal(&self) -> bool {
        self.client.internal
    }

    /// Host and port as a URL has them.
    pub(super) fn authority(&self) -> &str {
        self.base.authority()
    }

    /// Whether `url` is this registry itself rather than something that it redirected to.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }
}

/// A client that trusts `roots` besides the system's certificates.
fn http_client(
    HttpClient { roots, plain_http, internal, names, .. }: &HttpClient,
) -> Result<reqwest::Client, reqwest::Error> {
    let roots = roots.iter().map(|root| reqwest::Certificate::from_der(root)).collect::<Result<Vec<_>, _>>()?;
    let (plain_http, internal) = (*plain_http, *internal);
    reqwest::Client::builder()
        .dns_resolver(names.resolver(!internal && !internal::is_proxied()))
        .tls_certs_merge(roots)
        .user_agent(USER_AGENT)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_MAX)
        .referer(false)
        .redirect(Policy::custom(move |attempt| redirect(attempt, plain_http, internal)))
        .build()
}

/// reqwest removes `Authorization` when host, port or scheme change; what is left to decide is whether to go.
fn redirect(attempt: Attempt<'_>, plain_http: bool, internal: bool) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(format!("redirected more than {REDIRECTS_MAX} times"));
    }
    if let Err(refused) = internal::check(attempt.url())
        && !internal
    {
        return attempt.error(refused);
    }
    match attempt.url().scheme() {
        "https" => attempt.follow(),
        "http" if plain_http => attempt.follow(),
        _ => attempt.error("redirected away from HTTPS; if that is meant, set `plain_http = true` for this origin"),
    }
}

fn default_base(registry: &str, plain_http: bool) -> Result<Url, OriginSetupError> {
    // The name that people use for Docker Hub is not a host that serves the API.
    let host = match registry {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    let scheme = if plain_http { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{host}/")).map_err(|error| OriginSetupError::Endpoint {
        registry: registry.to_owned(),
        endpoint: host.to_owned(),
        reason: error.to_string(),
    })
}

fn check_base(registry: &str, base: &Url, plain_http: bool) -> Result<(), OriginSetupError> {
    let refuse = |reason: &str| OriginSetupError::Endpoint {
        registry: registry.to_owned(),
        endpoint: format!("{}://{}", base.scheme(), base.host_str().unwrap_or_default()),
        reason: reason.to_owned(),
    };
    match base.scheme() {
        "https" => {}
        "http" if plain_http => {}
        "http" => return Err(OriginSetupError::PlainHttp { registry: registry.to_owned(), endpoint: base.clone() }),
        _ => return Err(refuse("expected https:// (or http:// with `plain_http = true`)")),
    }
    if base.host_str().is_none_or(str::is_empty) {
        return Err(refuse("it has no host"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(refuse("credentials do not belong into the URL, set `username` and `password` instead"));
    }
    if !matches!(base.path(), "" | "/" | "/v2" | "/v2/") || base.query().is_some() || base.fragment().is_some() {
        return Err(refuse("expected scheme, host and port only: the API's place is /v2/ (distribution spec)"));
    }
    Ok(())
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, OriginSetupError> {
    let refuse = |reason: String| OriginSetupError::CaFile { path: path.to_owned(), reason };
    let len = fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if len > CA_FILE_BYTES_MAX {
        return Err(refuse(format!("larger than {CA_FILE_BYTES_MAX} bytes")));
    }
    let text = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let roots = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(format!("not PEM: {error}")))?;
    if roots.is_empty() {
        return Err(refuse("it holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(registry: &str, endpoint: Option<&str>, plain_http: bool) -> OriginConfig {
        OriginConfig {
            registry: registry.to_owned(),
            endpoint: endpoint.map(|url| url.parse().unwrap()),
            ca_file: None,
            plain_http,
            credentials: None,
        }
    }

    fn base(registry: &str, endpoint: Option<&str>, plain_http: bool) -> Result<String, String> {
        Endpoint::configured(&config(registry, endpoint, plain_http), &HttpClient::anywhere())
            .map(|endpoint| endpoint.base.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn registries_are_found_where_they_are() {
        assert_eq!(base("docker.io", None, false).unwrap(), "https://registry-1.docker.io/");
        assert_eq!(base("registry.test:5000", None, false).unwrap(), "https://registry.test:5000/");
        assert_eq!(base("[::1]:5000", None, true).unwrap(), "http://[::1]:5000/");
        assert_eq!(base("localhost", None, false).unwrap(), "https://localhost/");
        assert_eq!(base("a.test", Some("https://b.test:8443"), false).unwrap(), "https://b.test:8443/");
    }

    #[test]
    fn what_nobody_configured_is_outside() {
        let base =
            |registry, client| Endpoint::unconfigured(registry, &client).map(|endpoint| endpoint.base.to_string());
        assert_eq!(base("registry.test", HttpClient::default()).unwrap(), "https://registry.test/");
        for registry in ["127.0.0.1:5000", "[::1]", "localhost:443", "169.254.169.254", "10.0.0.1"] {
            let refused = base(registry, HttpClient::default()).unwrap_err().to_string();
            assert!(refused.contains("[[origin]]"), "{refused}");
            assert!(base(registry, HttpClient::anywhere()).is_ok());
        }
    }

    #[test]
    fn plain_http_needs_its_setting_and_the_error_says_which() {
        let refused = base("a.test", Some("http://a.test"), false).unwrap_err();
        assert!(refused.contains("plain_http = true") && refused.contains("a.test"), "{refused}");
        assert!(base("a.test", Some("http://a.test"), true).is_ok());
    }

    #[test]
    fn endpoints_that_would_be_misunderstood_are_refused() {
        for endpoint in ["ftp://a.test", "https://ann:secret@a.test", "https://a.test/prefix", "https://a.test/?x=1"] {
            let refused = base("a.test", Some(endpoint), true).unwrap_err();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut config = config("a.test", None, false);
        config.ca_file = Some(path.clone());
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        // The last is PEM, but around bytes that are no certificate.
        for text in [None, Some("no certificate here".to_owned()), Some(pem("%%")), Some(pem("AAAA"))] {
            if let Some(text) = &text {
                fs::write(&path, text).unwrap();
            }
            let refused = Endpoint::configured(&config, &HttpClient::anywhere()).unwrap_err().to_string();
            assert!(refused.contains("ca.pem"), "{refused}");
        }
    }
}
