//! The client against an embedded registry, with every fault that it knows.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use layermesh_proto::Algorithm;

use super::*;
use crate::embedded::{Access, Fault, FaultRule, Registry};

const REPOSITORY: &str = "library/app";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
const MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Nothing here may take this long, not even in paused time, where the read timeout comes first.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("hangs")
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn blob() -> Bytes {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

struct Site {
    registry: Registry,
    origins: Origins,
    counters: Arc<Counters>,
    blob: ContentId,
    manifest: ContentId,
}

fn plain(registry: &Registry) -> OriginConfig {
    OriginConfig {
        registry: registry.local_addr().to_string(),
        endpoint: None,
        ca_file: None,
        plain_http: true,
        credentials: None,
    }
}

fn ann() -> Credentials {
    Credentials { username: "ann".to_owned(), password: "secret".to_owned() }
}

fn basic() -> Access {
    Access::Basic { username: "ann".to_owned(), password: "secret".to_owned() }
}

fn bearer_for_ann() -> Access {
    Access::Bearer { user: Some(("ann".to_owned(), "secret".to_owned())), realm: None }
}

fn node() -> NodeId {
    NodeId::from_public_key([7; 32])
}

impl Site {
    async fn start() -> Self {
        let registry = Registry::start(loopback()).await.unwrap();
        let config = plain(&registry);
        Self::with(registry, config, None)
    }

    fn with(registry: Registry, config: OriginConfig, docker_config: Option<PathBuf>) -> Self {
        let blob = registry.put_blob(blob());
        let manifest = registry.put_manifest(REPOSITORY, Some("v1"), Bytes::from_static(MANIFEST), MEDIA_TYPE);
        let counters = Arc::new(Counters::default());
        let origins = Origins::new(vec![config], docker_config, node(), Arc::clone(&counters)).unwrap();
        Self { registry, origins, counters, blob, manifest }
    }

    /// A site whose registry lets only Ann in.
    async fn for_ann(access: Access, credentials: Option<Credentials>, docker_config: Option<PathBuf>) -> Self {
        let registry = Registry::start(loopback()).await.unwrap();
        registry.set_access(access);
        let config = OriginConfig { credentials, ..plain(&registry) };
        Self::with(registry, config, docker_config)
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.registry.local_addr().to_string(), REPOSITORY).unwrap()
    }

    fn fault(&self, path_prefix: &str, fault: Fault, times: Option<u32>) {
        self.registry.inject(FaultRule { path_prefix: path_prefix.to_owned(), fault, times });
    }

    async fn resolve(&self) -> Result<Descriptor, SourceError> {
        let reference = TagRef::new(self.repository(), "v1").unwrap();
        within(self.origins.resolve(&reference)).await
    }

    async fn open(&self, start: u64) -> Result<OriginBody, SourceError> {
        within(self.origins.open(&self.repository(), ObjectKind::Blob, &self.blob, start)).await
    }

    /// Total, start and bytes.
    async fn read(&self, start: u64) -> Result<(Option<u64>, u64, Bytes), SourceError> {
        let body = self.open(start).await?;
        let chunks: Vec<Bytes> = within(body.stream.try_collect()).await?;
        Ok((body.total, body.start, chunks.concat().into()))
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor { content: self.manifest, size: MANIFEST.len() as u64, media_type: MEDIA_TYPE.to_owned() }
    }
}

fn header(name: &'static str, value: &str) -> Fault {
    Fault::Header { name, value: Some(value.to_owned()) }
}

fn without(name: &'static str) -> Fault {
    Fault::Header { name, value: None }
}

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

fn is_failed(result: &SourceError) -> bool {
    matches!(result, SourceError::Failed(_))
}

#[tokio::test]
async fn a_tag_is_resolved_with_one_head() {
    let site = Site::start().await;
    assert_eq!(site.resolve().await, Ok(site.descriptor()));
    let requests = site.registry.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, Method::HEAD);
    assert_eq!(requests[0].via, Some(node().to_string()));
    assert_eq!(site.counters.from_origin.get(), 0);
}

#[tokio::test]
async fn a_head_that_does_not_say_enough_is_followed_by_a_get() {
    for fault in [
        without("docker-content-digest"),
        without("content-length"),
        header("content-length", "0"),
        without("content-type"),
        status(405),
    ] {
        let site = Site::start().await;
        site.fault("/v2/library/app/manifests/", fault.clone(), Some(1));
        assert_eq!(site.resolve().await, Ok(site.descriptor()), "{fault:?}");
        assert_eq!(site.registry.request_count(), 2, "{fault:?}");
        assert_eq!(site.counters.from_origin.get(), MANIFEST.len() as u64);
    }
    // A registry that never names digests is still usable.
    let site = Site::start().await;
    site.fault("/v2/", without("docker-content-digest"), None);
    assert_eq!(site.resolve().await, Ok(site.descriptor()));
}

#[tokio::test]
async fn nonsense_about_a_tag_is_a_failure() {
    let other = ContentId::of(Algorithm::Sha256, b"other").to_string();
    for faults in [
        vec![header("docker-content-digest", "sha256:xyz")],
        vec![header("docker-content-digest", "md5:d41d8cd98f00b204e9800998ecf8427e")],
        vec![header("content-length", "5000000")],
        // A GET whose bytes are not those of the digest it claims.
        vec![header("docker-content-digest", &other), without("content-type")],
        vec![without("docker-content-digest"), header("content-encoding", "gzip")],
        vec![without("docker-content-digest"), Fault::Flip { offset: 0 }],
    ] {
        let site = Site::start().await;
        for fault in &faults {
            site.fault("/v2/", fault.clone(), None);
        }
        let error = site.resolve().await.unwrap_err();
        assert!(is_failed(&error), "{faults:?}: {error:?}");
    }
    let site = Site::start().await;
    let repository = site.repository();
    site.registry.put_manifest(REPOSITORY, Some("big"), Bytes::from(vec![b' '; 5 << 20]), MEDIA_TYPE);
    site.fault("/v2/", without("docker-content-digest"), None);
    site.fault("/v2/", without("content-length"), None);
    let reference = TagRef::new(repository, "big").unwrap();
    assert!(is_failed(&within(site.origins.resolve(&reference)).await.unwrap_err()));
}

#[tokio::test]
async fn objects_come_whole_or_from_a_byte_on() {
    let site = Site::start().await;
    let whole = blob();
    let size = whole.len() as u64;
    assert_eq!(site.read(0).await, Ok((Some(size), 0, whole.clone())));
    assert_eq!(site.counters.from_origin.get(), size);
    assert_eq!(site.read(size - 5).await, Ok((Some(size), size - 5, whole.slice(whole.len() - 5..))));
    assert_eq!(site.counters.from_origin.get(), size + 5);
    let ranges: Vec<_> = site.registry.requests().into_iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some(format!("bytes={}-", size - 5))]);

    // Also from the start, and not further than to the end.
    let repository = site.repository();
    for (start, end) in [(0, 1000), (5, 6), (size - 5, size + 5)] {
        let open = site.origins.open_part(&repository, ObjectKind::Blob, &site.blob, start, Some(end));
        let body = within(open).await.unwrap();
        assert_eq!((body.total, body.start), (Some(size), start));
        let bytes: Vec<Bytes> = within(body.stream.try_collect()).await.unwrap();
        assert_eq!(bytes.concat(), whole[start as usize..end.min(size) as usize]);
    }

    let open = site.origins.open(&repository, ObjectKind::Manifest, &site.manifest, 0);
    let manifest = within(open).await.unwrap();
    assert_eq!(manifest.total, Some(MANIFEST.len() as u64));
    let bytes: Vec<Bytes> = within(manifest.stream.try_collect()).await.unwrap();
    assert_eq!(bytes.concat(), MANIFEST);
}

#[tokio::test]
async fn registries_may_lack_ranges_and_lengths() {
    let site = Site::start().await;
    let size = blob().len() as u64;
    site.fault("/v2/", Fault::IgnoreRange, Some(1));
    assert_eq!(site.read(1000).await, Ok((Some(size), 0, blob())));
    site.fault("/v2/", without("content-length"), Some(1));
    assert_eq!(site.read(0).await, Ok((None, 0, blob())));
    // The range still says how long the object is.
    site.fault("/v2/", without("content-length"), Some(1));
    assert_eq!(site.read(1000).await, Ok((Some(size), 1000, blob().slice(1000..))));
    site.fault("/v2/", Fault::Slow { bytes_per_s: 8_000_000 }, Some(1));
    assert_eq!(site.read(0).await, Ok((Some(size), 0, blob())));
}

#[tokio::test]
async fn statuses_become_classes_and_nothing_is_tried_again() {
    let limited = |seconds| SourceError::RateLimited { retry_after: Some(Duration::from_secs(seconds)) };
    type Check = Box<dyn Fn(&SourceError) -> bool>;
    let cases: Vec<(Fault, Check)> = vec![
        (status(404), Box::new(|error| *error == SourceError::NotFound)),
        (status(403), Box::new(|error| matches!(error, SourceError::Unauthorized(said) if said.contains("told to")))),
        (status(401), Box::new(|error| matches!(error, SourceError::Unauthorized(_)))),
        (status(408), Box::new(|error| matches!(error, SourceError::Unreachable(_)))),
        (status(500), Box::new(|error| matches!(error, SourceError::Unavailable(_)))),
        (status(503), Box::new(|error| matches!(error, SourceError::Unavailable(_)))),
        (status(418), Box::new(is_failed)),
        (status(429), Box::new(|error| *error == SourceError::RateLimited { retry_after: None })),
        (
            Fault::Status { code: 429, retry_after: Some("120".to_owned()) },
            Box::new(move |error| *error == limited(120)),
        ),
        (
            Fault::Status { code: 429, retry_after: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()) },
            Box::new(move |error| *error == limited(0)),
        ),
    ];
    for (fault, check) in cases {
        let site = Site::start().await;
        site.fault("/v2/", fault.clone(), Some(2));
        for error in [site.resolve().await.unwrap_err(), site.read(0).await.unwrap_err()] {
            // A HEAD's error has no body to explain it.
            assert!(check(&error) || matches!(error, SourceError::Unauthorized(_)), "{fault:?}: {error:?}");
        }
        assert_eq!(site.registry.request_count(), 2, "{fault:?}");
        assert!(site.resolve().await.is_ok() && site.read(0).await.is_ok(), "{fault:?}");
    }
}

#[tokio::test]
async fn contradictions_about_a_part_are_failures() {
    for fault in [
        without("content-range"),
        header("content-range", "bytes 0-999/1000"),
        header("content-range", "bytes 1000-1999/800000"),
        // As long as the part asked for, one byte off.
        header("content-range", "bytes 999-799998/800000"),
        header("content-range", "bytes 1000-799999/1000"),
        header("content-encoding", "gzip"),
        header("content-length", "99999999999999"),
        Fault::OddRangeNotSatisfiable,
    ] {
        let site = Site::start().await;
        site.fault("/v2/", fault.clone(), Some(1));
        let error = site.read(1000).await.unwrap_err();
        assert!(is_failed(&error), "{fault:?}: {error:?}");
        assert!(site.read(1000).await.is_ok(), "{fault:?}");
    }
    let site = Site::start().await;
    site.fault("/v2/", header("content-length", "99999999999999"), Some(1));
    assert!(is_failed(&site.read(0).await.unwrap_err()), "larger than any blob may be");
}

#[tokio::test]
async fn a_body_of_another_length_is_an_error_after_its_bytes() {
    let site = Site::start().await;
    site.fault("/v2/", Fault::Cut { after: 1000 }, Some(1));
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    // The bytes before the cut are there to be kept.
    site.fault("/v2/", Fault::Cut { after: 1000 }, Some(1));
    let parts: Vec<_> = within(site.open(0).await.unwrap().stream.collect()).await;
    let (last, good) = parts.split_last().unwrap();
    assert!(last.is_err());
    let bytes: usize = good.iter().map(|part| part.as_ref().unwrap().len()).sum();
    assert_eq!(bytes, 1000);
    // A range that is shorter than what is left, in an answer without contradictions.
    let site = Site::start().await;
    site.fault("/v2/", header("content-range", "bytes 1000-1009/800000"), Some(1));
    site.fault("/v2/", header("content-length", "10"), Some(1));
    let error = site.read(1000).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    // More bytes than the range that was announced has.
    site.fault("/v2/", without("content-length"), Some(1));
    site.fault("/v2/", Fault::Longer { by: 10 }, Some(1));
    assert!(is_failed(&site.read(1000).await.unwrap_err()));
}

#[tokio::test]
async fn wrong_bytes_are_passed_on_for_the_store_to_find() {
    let site = Site::start().await;
    site.fault("/v2/", Fault::Flip { offset: 1500 }, Some(1));
    let (_, _, bytes) = site.read(1000).await.unwrap();
    let wrong: Vec<_> = bytes.iter().zip(blob().slice(1000..)).enumerate().filter(|(_, (a, b))| **a != *b).collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].0, 500);
}

#[tokio::test]
async fn silence_ends_in_time() {
    let site = Site::start().await;
    let mut body = {
        site.fault("/v2/", Fault::Stall { after: 1000 }, Some(1));
        site.open(0).await.unwrap()
    };
    let first = within(body.stream.next()).await.unwrap().unwrap();
    assert!(!first.is_empty());
    tokio::time::pause();
    let rest: Vec<_> = within(body.stream.collect()).await;
    assert!(matches!(rest.last(), Some(Err(SourceError::Unreachable(_)))), "{rest:?}");

    site.fault("/v2/", Fault::Blackhole, Some(1));
    let error = site.resolve().await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    assert_eq!(site.registry.request_count(), 2);
}

#[tokio::test]
async fn an_origin_that_is_off_is_unreachable_until_it_is_on() {
    let site = Site::start().await;
    site.registry.set_online(false).await.unwrap();
    for error in [site.resolve().await.unwrap_err(), site.read(0).await.unwrap_err()] {
        assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    }
    site.registry.set_online(true).await.unwrap();
    assert!(site.read(0).await.is_ok());
    // Also when it goes off within a body.
    site.registry.set_rate(Some(1_000_000));
    let body = site.open(0).await.unwrap();
    site.registry.set_online(false).await.unwrap();
    let error = within(body.stream.try_collect::<Vec<_>>()).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn redirects_are_followed_without_the_credentials() {
    let site = Site::for_ann(basic(), Some(ann()), None).await;
    let storage = Registry::start(loopback()).await.unwrap();
    storage.put_blob(blob());
    // The challenge first, so that the redirected request does carry credentials.
    site.resolve().await.unwrap();
    site.fault("/v2/", Fault::Redirect { to: storage.base_url() }, None);
    assert_eq!(site.read(1000).await.unwrap().2, blob().slice(1000..));
    assert!(site.registry.requests().last().unwrap().authorization);
    let there = storage.requests();
    assert_eq!(there.len(), 1);
    assert!(!there[0].authorization, "credentials went to another host");
    assert_eq!(there[0].range.as_deref(), Some("bytes=1000-"));
    // What the storage refuses has nothing to do with this node's credentials.
    storage.inject(FaultRule { path_prefix: "/".to_owned(), fault: status(403), times: Some(1) });
    assert!(is_failed(&site.read(0).await.unwrap_err()));
    storage.set_access(basic());
    let before = site.registry.request_count();
    assert!(is_failed(&site.read(0).await.unwrap_err()));
    assert_eq!(site.registry.request_count(), before + 1, "a challenge of the storage is not the registry's");
    assert!(storage.requests().iter().all(|request| !request.authorization));
}

#[tokio::test]
async fn redirects_in_circles_end() {
    let site = Site::start().await;
    site.fault("/v2/", Fault::Redirect { to: site.registry.base_url() }, None);
    assert!(is_failed(&site.read(0).await.unwrap_err()));
    assert!(site.registry.request_count() < 10);
}

#[tokio::test]
async fn credentials_are_sent_only_when_asked_for_and_then_kept() {
    let site = Site::for_ann(basic(), Some(ann()), None).await;
    site.read(0).await.unwrap();
    site.read(0).await.unwrap();
    // What was refused is not kept, so that a log-in that only a credential helper knows of is noticed.
    site.fault("/v2/", status(403), Some(1));
    assert!(matches!(site.read(0).await, Err(SourceError::Unauthorized(_))));
    site.read(0).await.unwrap();
    let sent: Vec<_> = site.registry.requests().into_iter().map(|request| request.authorization).collect();
    assert_eq!(sent, [false, true, true, true, false, true]);
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_said_so() {
    let wrong = Credentials { password: "guess".to_owned(), ..ann() };
    for access in [basic(), bearer_for_ann()] {
        for credentials in [Some(wrong.clone()), None] {
            let site = Site::for_ann(access.clone(), credentials.clone(), None).await;
            let error = site.read(0).await.unwrap_err();
            let SourceError::Unauthorized(said) = &error else { panic!("{access:?} {credentials:?}: {error:?}") };
            assert!(said.contains("401"), "{said}");
            assert!(!said.contains("guess"), "{said}");
            assert!(site.registry.request_count() <= 4, "tried again and again");
        }
    }
}

#[tokio::test]
async fn bearer_tokens_are_fetched_once_and_again_when_they_run_out() {
    for (access, credentials) in [(bearer_for_ann(), Some(ann())), (Access::Bearer { user: None, realm: None }, None)] {
        let site = Site::for_ann(access, credentials, None).await;
        let tokens = || site.registry.requests().iter().filter(|request| request.path.starts_with("/token")).count();
        let reads = futures::future::join_all((0..8).map(|_| site.read(0))).await;
        assert!(reads.iter().all(Result::is_ok), "{:?}", reads.iter().find(|read| read.is_err()));
        assert_eq!(tokens(), 1);
        site.registry.revoke_tokens();
        assert!(site.read(0).await.is_ok());
        assert_eq!(tokens(), 2);
    }
}

#[tokio::test]
async fn an_ill_token_service_is_not_a_refusal() {
    let site = Site::for_ann(bearer_for_ann(), Some(ann()), None).await;
    site.fault("/token", status(500), Some(1));
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(error, SourceError::Unavailable(_)), "{error:?}");
    site.fault("/token", status(404), Some(1));
    let error = site.read(0).await.unwrap_err();
    assert!(is_failed(&error), "the blob may well be there: {error:?}");
    site.fault("/token", Fault::Status { code: 429, retry_after: Some("7".to_owned()) }, Some(1));
    let asked = SourceError::RateLimited { retry_after: Some(Duration::from_secs(7)) };
    assert_eq!(site.read(0).await.unwrap_err(), asked);
    site.fault("/token", Fault::Blackhole, Some(1));
    let reading = site.read(0);
    tokio::time::pause();
    let error = reading.await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error:?}");
    tokio::time::resume();
    assert!(site.read(0).await.is_ok());
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_of_the_token_service() {
    let site = Site::for_ann(bearer_for_ann(), Some(ann()), None).await;
    let other = Registry::start(loopback()).await.unwrap();
    other.set_access(Access::Bearer { user: None, realm: None });
    site.fault("/token", Fault::Redirect { to: other.base_url() }, None);
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized(_)), "{error:?}");
    let here = site.registry.requests();
    assert!(here.iter().any(|request| request.path.starts_with("/token") && request.authorization));
    let there = other.requests();
    assert!(!there.is_empty() && there.iter().all(|request| !request.authorization), "{there:?}");
}

#[tokio::test]
async fn a_login_takes_effect_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for access in [basic(), bearer_for_ann()] {
        let _ = std::fs::remove_file(&path);
        let site = Site::for_ann(access, None, Some(path.clone())).await;
        let error = site.read(0).await.unwrap_err();
        assert!(matches!(error, SourceError::Unauthorized(_)), "{error:?}");
        let login = |auth: &str| {
            let config = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, site.registry.local_addr());
            std::fs::write(dir.path().join("new"), config).unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        login("YW5uOnNlY3JldA==");
        assert!(site.read(0).await.is_ok());
        // bob:guess, whom the registry does not know: what Ann was given must not be used for him.
        login("Ym9iOmd1ZXNz");
        let error = site.read(0).await.unwrap_err();
        assert!(matches!(error, SourceError::Unauthorized(_)), "{error:?}");
        // A file that cannot be read is named in the refusal.
        std::fs::write(&path, "{").unwrap();
        let error = site.read(0).await.unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

struct Tls {
    dir: tempfile::TempDir,
    config: Arc<rustls::ServerConfig>,
}

/// A CA of one's own and a certificate of it for 127.0.0.1.
fn tls() -> Tls {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca, &ca_key).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Tls { dir, config: Arc::new(config) }
}

async fn tls_site(access: Access, ca: bool) -> (Site, Tls) {
    let tls = tls();
    let registry = Registry::start_tls(loopback(), Arc::clone(&tls.config)).await.unwrap();
    registry.set_access(access);
    let config = OriginConfig {
        plain_http: false,
        ca_file: ca.then(|| tls.dir.path().join("ca.pem")),
        credentials: Some(ann()),
        ..plain(&registry)
    };
    (Site::with(registry, config, None), tls)
}

#[tokio::test]
async fn an_own_ca_is_trusted_for_transfers_and_for_tokens() {
    for access in [Access::Anonymous, basic(), bearer_for_ann()] {
        let (site, _tls) = tls_site(access.clone(), true).await;
        assert_eq!(site.resolve().await, Ok(site.descriptor()), "{access:?}");
        assert_eq!(site.read(0).await.unwrap().2, blob());
    }
    let (site, _tls) = tls_site(Access::Anonymous, false).await;
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unreachable(said) if said.contains("ca_file")), "{error:?}");
    assert_eq!(site.registry.request_count(), 0);
}

#[tokio::test]
async fn nothing_goes_over_plain_http_unasked() {
    // A registry that does not speak TLS, configured as if it did.
    let registry = Registry::start(loopback()).await.unwrap();
    let config = OriginConfig { plain_http: false, ..plain(&registry) };
    let site = Site::with(registry, config, None);
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unreachable(said) if said.contains("plain_http = true")), "{error:?}");
    assert_eq!(site.registry.request_count(), 0);

    // A registry that redirects away from TLS.
    let (site, _tls) = tls_site(Access::Anonymous, true).await;
    let storage = Registry::start(loopback()).await.unwrap();
    site.fault("/v2/", Fault::Redirect { to: storage.base_url() }, None);
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(&error, SourceError::Failed(said) if said.contains("plain_http = true")), "{error:?}");

    // A registry whose token service does not speak TLS.
    let service = Registry::start(loopback()).await.unwrap();
    let realm = Some(format!("{}/token", service.base_url()));
    let (site, _tls) = tls_site(Access::Bearer { user: None, realm }, true).await;
    let error = site.read(0).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unauthorized(said) if said.contains("plain_http = true")), "{error:?}");
    assert_eq!((storage.request_count(), service.request_count()), (0, 0));
}

#[tokio::test]
async fn listings_are_passed_through() {
    let site = Site::start().await;
    for tag in ["v2", "v3"] {
        site.registry.put_manifest(REPOSITORY, Some(tag), Bytes::from_static(MANIFEST), MEDIA_TYPE);
    }
    let page = within(site.origins.tags(&site.repository(), Some(1), Some("v1"))).await.unwrap();
    assert_eq!(page.body, r#"{"name":"library/app","tags":["v2"]}"#);
    assert_eq!(page.link.unwrap(), "</v2/library/app/tags/list?n=1&last=v2>; rel=\"next\"");
    assert_eq!(page.content_type.unwrap(), "application/json");
    let all = within(site.origins.tags(&site.repository(), None, None)).await.unwrap();
    assert_eq!(all.body, r#"{"name":"library/app","tags":["v1","v2","v3"]}"#);
    let referrers = within(site.origins.referrers(&site.repository(), &site.manifest, Some("a/b+c"))).await;
    assert_eq!(referrers, Err(SourceError::NotFound));
    let asked = site.registry.requests().last().unwrap().path.clone();
    assert_eq!(asked, format!("/v2/library/app/referrers/{}?artifactType=a%2Fb%2Bc", site.manifest));
    assert_eq!(site.counters.from_origin.get(), 0, "listings are not content");
}

/// Two registries with the same content, as two endpoints of one.
struct Pair {
    first: Registry,
    second: Registry,
    origins: Origins,
    repository: Repository,
    blob: ContentId,
    manifest: ContentId,
}

impl Pair {
    async fn start(credentials: [Option<Credentials>; 2]) -> Self {
        let (first, second) = (Registry::start(loopback()).await.unwrap(), Registry::start(loopback()).await.unwrap());
        let mut configs = Vec::new();
        for (registry, credentials) in [&first, &second].into_iter().zip(credentials) {
            let endpoint = Some(registry.base_url().parse().unwrap());
            configs.push(OriginConfig { registry: "pair.test".to_owned(), endpoint, credentials, ..plain(registry) });
        }
        let put = |registry: &Registry| {
            let manifest = Bytes::from_static(MANIFEST);
            (registry.put_blob(blob()), registry.put_manifest(REPOSITORY, Some("v1"), manifest, MEDIA_TYPE))
        };
        put(&first);
        let (blob, manifest) = put(&second);
        let origins = Origins::new(configs, None, node(), Arc::default()).unwrap();
        let repository = Repository::new("pair.test", REPOSITORY).unwrap();
        Self { first, second, origins, repository, blob, manifest }
    }

    async fn resolve(&self) -> Result<ContentId, SourceError> {
        let reference = TagRef::new(self.repository.clone(), "v1").unwrap();
        within(self.origins.resolve(&reference)).await.map(|descriptor| descriptor.content)
    }

    async fn read(&self, start: u64, end: Option<u64>) -> Result<Bytes, SourceError> {
        let body = self.origins.open_part(&self.repository, ObjectKind::Blob, &self.blob, start, end);
        let chunks: Vec<Bytes> = within(async { body.await?.stream.try_collect().await }).await?;
        Ok(chunks.concat().into())
    }

    fn fault(&self, registry: &Registry, fault: Fault) {
        registry.inject(FaultRule { path_prefix: "/v2/".to_owned(), fault, times: None });
    }
}

#[tokio::test]
async fn an_endpoint_that_is_away_or_hangs_is_left_for_the_next_and_asked_last_then() {
    let pair = Pair::start([None, None]).await;
    pair.fault(&pair.first, Fault::Blackhole);
    assert_eq!(pair.resolve().await, Ok(pair.manifest));
    assert_eq!((pair.first.request_count(), pair.second.request_count()), (1, 1));
    assert_eq!(pair.resolve().await, Ok(pair.manifest));
    assert_eq!((pair.first.request_count(), pair.second.request_count()), (1, 2), "it is known to hang");
    pair.second.set_online(false).await.unwrap();
    pair.first.clear_faults();
    assert_eq!(pair.resolve().await, Ok(pair.manifest), "the ill one is better than none");
    pair.first.set_online(false).await.unwrap();
    assert!(matches!(pair.resolve().await, Err(SourceError::Unreachable(_))));
}

#[tokio::test]
async fn what_one_endpoint_lacks_the_next_may_have() {
    let pair = Pair::start([None, None]).await;
    let missing = Fault::Status { code: 404, retry_after: None };
    pair.fault(&pair.first, missing.clone());
    assert_eq!(pair.resolve().await, Ok(pair.manifest));
    pair.fault(&pair.second, missing);
    assert_eq!(pair.resolve().await, Err(SourceError::NotFound));
    pair.first.set_online(false).await.unwrap();
    // That one of them does not know it does not mean that it is not there.
    assert!(matches!(pair.resolve().await, Err(SourceError::Unreachable(_))));
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_the_next_endpoint() {
    let pair = Pair::start([None, None]).await;
    let whole = blob();
    for (fault, start, end) in [
        (Fault::Cut { after: 300_000 }, 0, None),
        (Fault::Cut { after: 100_000 }, 50_000, Some(700_000)),
        (Fault::Stall { after: 300_000 }, 0, None),
    ] {
        let pair = Pair::start([None, None]).await;
        pair.fault(&pair.first, fault.clone());
        let expected = whole.slice(start as usize..end.unwrap_or(whole.len() as u64) as usize);
        assert!(pair.read(start, end).await.unwrap() == expected, "{fault:?}");
        let asked = pair.second.requests().last().unwrap().range.clone().unwrap();
        let first: u64 = asked.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
        assert!(first > start, "only the rest is asked for: {asked}");
        assert_eq!(pair.first.request_count(), 1);
    }
    // Nowhere to go on.
    pair.fault(&pair.first, Fault::Cut { after: 300_000 });
    pair.second.set_online(false).await.unwrap();
    assert!(matches!(pair.read(0, None).await, Err(SourceError::Unreachable(_))));
}

#[tokio::test]
async fn each_endpoint_gets_its_own_credentials_only() {
    let pair = Pair::start([Some(ann()), None]).await;
    pair.first.set_access(basic());
    pair.second.set_access(basic());
    assert_eq!(pair.resolve().await, Ok(pair.manifest));
    assert!(pair.first.requests().iter().any(|request| request.authorization));
    pair.first.set_online(false).await.unwrap();
    assert!(matches!(pair.resolve().await, Err(SourceError::Unreachable(_))));
    assert!(pair.second.request_count() > 0);
    assert!(pair.second.requests().iter().all(|request| !request.authorization));
}

#[test]
fn an_origin_configured_twice_is_refused() {
    let config = OriginConfig {
        registry: "a.test".to_owned(),
        endpoint: None,
        ca_file: None,
        plain_http: false,
        credentials: None,
    };
    let refused = Origins::new(vec![config.clone(), config], None, node(), Arc::default()).unwrap_err();
    assert!(refused.to_string().contains("a.test"), "{refused}");
}
