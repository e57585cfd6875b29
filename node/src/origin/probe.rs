//! One careful look at a registry, for people who want to know why it does not work: each stage by itself (name,
//! connection, TLS, API, credentials), so that the first one that fails is named.
//!
//! Says the same as a fetch would meet, with the same trust and credentials, and fetches nothing. Behind a proxy only
//! the answer as a whole can be judged.

use std::{path::PathBuf, time::Duration};

use reqwest::{Response, StatusCode, header::DATE};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::{
    Credentials, OriginConfig,
    classify::{request_error, shown},
    credentials::DockerConfig,
    endpoint::{Endpoint, HttpClient},
    token::Challenge,
};

/// How long a name may take to be looked up, and a connection to be made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Variables that name a proxy for registries.
const PROXY_VARIABLES: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// How a registry lets this device in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without asking.
    Open,
    /// It gives tokens without credentials.
    Anonymous,
    /// It accepts the credentials.
    Credentials,
}

/// The first stage that fails, and why, for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The configuration is contradictory.
    #[error("{0}")]
    Setup(String),
    /// The name is not known.
    #[error("the name cannot be looked up: {0}")]
    Dns(String),
    /// There is no connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// It cannot prove who it is.
    #[error("TLS: {0}")]
    Tls(String),
    /// It does not answer in time.
    #[error("no answer: {0}")]
    Slow(String),
    /// It refuses the credentials.
    #[error("it refuses the credentials: {0}")]
    Refused(String),
    /// It wants credentials.
    #[error("it wants credentials, and there are none")]
    NoCredentials,
    /// What answers is something else.
    #[error("it is no registry: {0}")]
    NotARegistry(String),
}

/// What was seen of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Host and port.
    pub endpoint: String,
    /// What its clock says, in seconds since the Unix epoch.
    pub unix_s: Option<u64>,
    /// How it lets this device in, or why not.
    pub outcome: Result<Way, ProbeError>,
}

/// Looks at a registry.
pub async fn probe(config: &OriginConfig, docker_config: Option<PathBuf>) -> Probed {
    let endpoint = match Endpoint::configured(config, &HttpClient::anywhere()) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let outcome = Err(ProbeError::Setup(error.to_string()));
            return Probed { endpoint: config.registry.clone(), unix_s: None, outcome };
        }
    };
    let mut unix_s = None;
    let outcome = look(config, &endpoint, docker_config, &mut unix_s).await;
    Probed { endpoint: endpoint.authority().to_owned(), unix_s, outcome }
}

async fn look(
    config: &OriginConfig,
    endpoint: &Endpoint,
    docker_config: Option<PathBuf>,
    unix_s: &mut Option<u64>,
) -> Result<Way, ProbeError> {
    if PROXY_VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) {
        connect(&endpoint.base).await?;
    }
    let client = endpoint.client.get().map_err(|error| ProbeError::Setup(error.to_string()))?;
    let api = endpoint.base.join("/v2/").map_err(|error| ProbeError::Setup(error.to_string()))?;
    let answer = get(&client, api.clone(), None).await?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    *unix_s = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok()).map(|since| since.as_secs());
    match answer.status() {
        StatusCode::OK => return Ok(Way::Open),
        StatusCode::UNAUTHORIZED => {}
        other => return Err(ProbeError::NotARegistry(format!("GET /v2/ is answered with {other}"))),
    }
    let credentials = match &config.credentials {
        Some(credentials) => Some(credentials.clone()),
        None => DockerConfig::new(docker_config)
            .lookup(&config.registry)
            .await
            .map_err(|error| ProbeError::Refused(error.to_string()))?,
    };
    let challenge = Challenge::of(answer.headers());
    if let Some(service) = &challenge.bearer {
        let token_service = service.url(endpoint, None).map_err(|error| ProbeError::Refused(error.to_string()))?;
        let answer = get(&client, token_service, credentials.as_ref()).await?;
        return match (answer.status().is_success(), credentials) {
            (false, None) => Err(ProbeError::NoCredentials),
            (_, None) => Ok(Way::Anonymous),
            (_, Some(_)) => judge(answer, Way::Credentials),
        };
    }
    match credentials {
        _ if !challenge.basic => {
            Err(ProbeError::NotARegistry("it answers /v2/ with 401 and asks for nothing".to_owned()))
        }
        None => Err(ProbeError::NoCredentials),
        Some(credentials) => judge(get(&client, api, Some(&credentials)).await?, Way::Credentials),
    }
}

fn judge(answer: Response, way: Way) -> Result<Way, ProbeError> {
    match answer.status() {
        status if status.is_success() => Ok(way),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(ProbeError::Refused(format!("it answers them with {}", answer.status())))
        }
        status => Err(ProbeError::NotARegistry(format!("it answers the credentials with {status}"))),
    }
}

async fn connect(base: &Url) -> Result<(), ProbeError> {
    let (Some(host), Some(port)) = (base.host_str(), base.port_or_known_default()) else {
        return Err(ProbeError::Setup(format!("{base} has no host")));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let found = timeout(CONNECT_TIME_MAX, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<_> = match found {
        Err(_) => return Err(ProbeError::Dns("no name server answers in time".to_owned())),
        Ok(Err(error)) => return Err(ProbeError::Dns(shown(&error.to_string()))),
        Ok(Ok(addresses)) => addresses.collect(),
    };
    match timeout(CONNECT_TIME_MAX, TcpStream::connect(addresses.as_slice())).await {
        Err(_) => Err(ProbeError::Connect("nobody answers in time: packets are lost or dropped".to_owned())),
        Ok(Err(error)) => Err(ProbeError::Connect(shown(&error.to_string()))),
        Ok(Ok(_)) => Ok(()),
    }
}

async fn get(client: &reqwest::Client, url: Url, credentials: Option<&Credentials>) -> Result<Response, ProbeError> {
    let mut request = client.get(url);
    if let Some(Credentials { username, password }) = credentials {
        request = request.basic_auth(username, Some(password));
    }
    match timeout(ANSWER_TIME_MAX, request.send()).await {
        Err(_) => Err(ProbeError::Slow(format!("nothing within {} s", ANSWER_TIME_MAX.as_secs()))),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let is_connecting = error.is_connect();
            let reason = request_error(error).to_string();
            Err(match reason {
                // The connection itself was tried before.
                reason if reason.contains("certificate") || reason.contains("TLS") || is_connecting => {
                    ProbeError::Tls(reason)
                }
                reason => ProbeError::Slow(reason),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::{Access, Registry};

    fn config(endpoint: &str, credentials: Option<(&str, &str)>) -> OriginConfig {
        OriginConfig {
            registry: "r.test".to_owned(),
            endpoint: Some(endpoint.parse().unwrap()),
            ca_file: None,
            plain_http: true,
            credentials: credentials.map(|(username, password)| Credentials {
                username: username.to_owned(),
                password: password.to_owned(),
            }),
        }
    }

    async fn outcome(endpoint: &str, credentials: Option<(&str, &str)>) -> Result<Way, ProbeError> {
        probe(&config(endpoint, credentials), None).await.outcome
    }

    #[tokio::test]
    async fn an_open_registry_and_its_clock() {
        let registry = Registry::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        assert_eq!(outcome(&registry.base_url(), None).await, Ok(Way::Open));
    }

    #[tokio::test]
    async fn credentials_are_accepted_refused_or_missing() {
        let basic = Access::Basic { username: "u".to_owned(), password: "p".to_owned() };
        let bearer = Access::Bearer { user: Some(("u".to_owned(), "p".to_owned())), realm: None };
        for access in [basic, bearer] {
            let registry = Registry::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
            registry.set_access(access);
            let url = registry.base_url();
            assert_eq!(outcome(&url, Some(("u", "p"))).await, Ok(Way::Credentials));
            assert!(matches!(outcome(&url, Some(("u", "wrong"))).await, Err(ProbeError::Refused(_))));
            assert_eq!(outcome(&url, None).await, Err(ProbeError::NoCredentials));
        }
    }

    #[tokio::test]
    async fn each_stage_that_fails_is_named() {
        let dns = outcome("http://no-such-name.invalid", None).await;
        assert!(matches!(dns, Err(ProbeError::Dns(_))), "{dns:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = outcome(&format!("http://{address}"), None).await;
        assert!(matches!(refused, Err(ProbeError::Connect(_))), "{refused:?}");
        let registry = Registry::start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let tls = outcome(&registry.base_url().replace("http://", "https://"), None).await;
        assert!(matches!(tls, Err(ProbeError::Tls(_))), "{tls:?}");
        let mut wrong = config("http://127.0.0.1:1", None);
        wrong.plain_http = false;
        assert!(matches!(probe(&wrong, None).await.outcome, Err(ProbeError::Setup(_))));
    }
}
