//! Authentication: what to put into `Authorization`, and when to ask for a new one.
//!
//! A registry's challenge decides. A bearer challenge is answered by oci-client, which asks the token service that
//! the registry names; a basic challenge by the credentials themselves. Nothing is sent before it was asked for.
//! What a registry accepted is kept for each repository (tokens are scoped to one) until the registry refuses it or
//! docker's configuration changes; registries say when a token has run out, so no clock is kept here.
//!
//! oci-client's own cache cannot be read from outside and its `auth` always asks anew, so a client of it is made for
//! each exchange and dropped with its cache and its connections. It also does not say with which status a token
//! service refused; [`exchange_error`] tells a refusal from an illness by the body.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use layermesh_proto::{Repository, engine::event::SourceError};
use oci_client::{
    Reference, RegistryOperation,
    client::Client,
    errors::{OciDistributionError, OciEnvelope, OciErrorCode},
    secrets::RegistryAuth,
};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use super::{
    Origin,
    classify::{message, request_error, shown},
    credentials::{Credentials, DockerConfig, Stamp},
    endpoint::Endpoint,
    internal,
};

/// Repositories whose authorization is kept. A pull uses one or two; the limit only keeps a node that pulls for
/// years from growing, and passing it costs a challenge each.
const REPOSITORIES_MAX: usize = 256;
/// How long an exchange may take in all: a ping and a request to the token service. It also bounds how much a token
/// service can make oci-client read.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// What a registry accepted, and the state of docker's configuration that it came from.
#[derive(Debug)]
struct Accepted {
    authorization: HeaderValue,
    stamp: Option<Stamp>,
}

/// Held while an exchange runs, so that requests that need the same token wait for it rather than ask again.
type Slot = Arc<tokio::sync::Mutex<Option<Accepted>>>;

/// Keeps what registries accepted.
#[derive(Debug)]
pub(super) struct Authenticator {
    docker_config: DockerConfig,
    /// By endpoint and repository.
    slots: Mutex<HashMap<(String, Repository), Slot>>,
}

impl Authenticator {
    pub(super) fn new(docker_config: DockerConfig) -> Self {
        Self { docker_config, slots: Mutex::new(HashMap::new()) }
    }

    /// What to send first.
    pub(super) async fn current(&self, origin: &Origin, repository: &Repository) -> Option<HeaderValue> {
        let slot = self.slot(origin, repository);
        let mut accepted = slot.lock().await;
        if let Some(held) = accepted.as_ref()
            && held.stamp != self.docker_config.stamp().await
        {
            *accepted = None;
        }
        accepted.as_ref().map(|held| held.authorization.clone())
    }

    /// Forgets what was refused.
    pub(super) async fn forget(&self, origin: &Origin, repository: &Repository) {
        *self.slot(origin, repository).lock().await = None;
    }

    /// What to send after a 401 with these `headers` to a request that carried `refused`.
    pub(super) async fn renew(
        &self,
        origin: &Origin,
        repository: &Repository,
        refused: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, SourceError> {
        let slot = self.slot(origin, repository);
        let mut accepted = slot.lock().await;
        if let Some(held) = accepted.as_ref()
            && Some(&held.authorization) != refused
        {
            return Ok(held.authorization.clone());
        }
        *accepted = None;
        let stamp = self.docker_config.stamp().await;
        let authorization = self.answer(origin, repository, headers).await?;
        *accepted = Some(Accepted { authorization: authorization.clone(), stamp });
        Ok(authorization)
    }

    async fn answer(
        &self,
        origin: &Origin,
        repository: &Repository,
        headers: &HeaderMap,
    ) -> Result<HeaderValue, SourceError> {
        let (challenge, endpoint) = (Challenge::of(headers), &origin.endpoint);
        let (credentials, trouble) = match &origin.credentials {
            Some(credentials) => (Some(credentials.clone()), None),
            None => match self.docker_config.lookup(&origin.login).await {
                Ok(found) => (found, None),
                Err(error) => (None, Some(error)),
            },
        };
        let unauthorized = |reason: &str| {
            SourceError::Unauthorized(match &trouble {
                Some(trouble) => format!("{reason}; {trouble}"),
                None => reason.to_owned(),
            })
        };
        if let Some(realm) = &challenge.bearer_realm {
            check_realm(realm, endpoint)?;
            match exchange(repository, endpoint, credentials.as_ref()).await {
                Ok(Some(token)) => return header(&format!("Bearer {token}")),
                Ok(None) if challenge.basic => {}
                Ok(None) => return Err(unauthorized("it names a token service only for some requests")),
                Err(SourceError::Unauthorized(reason)) => {
                    return Err(unauthorized(&format!("its token service refused: {reason}")));
                }
                Err(other) => return Err(other),
            }
        }
        match credentials {
            Some(credentials) if challenge.basic => {
                header(&http_auth::basic::encode_credentials(&credentials.username, &credentials.password))
            }
            None if challenge.basic => Err(unauthorized("there are no credentials for it, log in to it")),
            _ => Err(unauthorized("it asks for neither basic nor bearer authentication")),
        }
    }

    fn slot(&self, origin: &Origin, repository: &Repository) -> Slot {
        let key = (origin.endpoint.authority().to_owned(), repository.clone());
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= REPOSITORIES_MAX && !slots.contains_key(&key) {
            slots.clear();
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

/// What a 401 asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    bearer_realm: Option<String>,
    basic: bool,
}

impl Challenge {
    fn of(headers: &HeaderMap) -> Self {
        let mut challenge = Self::default();
        for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
            for asked in http_auth::parse_challenges(value).unwrap_or_default() {
                if asked.scheme.eq_ignore_ascii_case("basic") {
                    challenge.basic = true;
                } else if asked.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = asked.params.iter().find(|(name, _)| name.eq_ignore_ascii_case("realm"));
                    challenge.bearer_realm = realm.map(|(_, value)| value.to_unescaped()).or(challenge.bearer_realm);
                }
            }
        }
        challenge
    }
}

/// oci-client sends credentials to whatever address the challenge names; this keeps them off plain HTTP, and the request off
/// the device and its LAN as far as the address says it: names are looked up by oci-client itself.
fn check_realm(realm: &str, endpoint: &Endpoint) -> Result<(), SourceError> {
    match Url::parse(realm) {
        Ok(url) if !endpoint.internal() && internal::check(&url).is_err() => Err(SourceError::Failed(format!(
            "its token service {} is an address of this device or its LAN; if that is meant, add an `[[origin]]` for it",
            shown(url.authority())
        ))),
        Ok(url) if url.scheme() == "https" => Ok(()),
        Ok(url) if url.scheme() == "http" && endpoint.plain_http() => Ok(()),
        Ok(url) if url.scheme() == "http" => Err(SourceError::Unauthorized(format!(
            "its token service {} speaks plain HTTP; if that is meant, set `plain_http = true` for this origin",
            shown(url.authority())
        ))),
        _ => Err(SourceError::Failed(format!("its token service `{}` has no usable address", shown(realm)))),
    }
}

/// Any challenge is one that can be met or none.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_challenge(headers: &HeaderMap) {
    let challenge = Challenge::of(headers);
    assert_eq!(challenge, Challenge::of(headers));
    if let Some(realm) = challenge.bearer_realm
        && let Ok(endpoint) = Endpoint::unconfigured("registry.example", &super::endpoint::HttpClient::default())
        && check_realm(&realm, &endpoint).is_ok()
    {
        let url = Url::parse(&realm).map(|url| (url.scheme().to_owned(), internal::check(&url).is_ok()));
        assert_eq!(url, Ok(("https".to_owned(), true)), "credentials go to {realm}");
    }
}

/// A bearer token for pulling from `repository`; `None` if the registry's ping asks for none.
async fn exchange(
    repository: &Repository,
    endpoint: &Endpoint,
    credentials: Option<&Credentials>,
) -> Result<Option<String>, SourceError> {
    let client = Client::try_from(endpoint.oci_client_config()).map_err(exchange_error)?;
    // Only registry and repository of the reference are used.
    let reference =
        Reference::with_tag(endpoint.authority().to_owned(), repository.name().to_owned(), "latest".to_owned());
    let auth = match credentials {
        Some(Credentials { username, password }) => RegistryAuth::Basic(username.clone(), password.clone()),
        None => RegistryAuth::Anonymous,
    };
    let asked = Box::pin(client.auth(&reference, &auth, RegistryOperation::Pull));
    match tokio::time::timeout(EXCHANGE_DEADLINE, asked).await {
        Ok(answer) => answer.map_err(exchange_error),
        Err(_) => Err(SourceError::Unreachable("its token service did not answer in time".to_owned())),
    }
}

/// Why there is no token. A refusal of the credentials comes as an error envelope, as other JSON (Docker Hub) or as
/// a line of text; a token service that is ill, or the proxy before it, sends HTML, nothing, or another code.
fn exchange_error(error: OciDistributionError) -> SourceError {
    let body = match error {
        OciDistributionError::RequestError(error) => return request_error(error),
        OciDistributionError::AuthenticationFailure(body) => body,
        other => return SourceError::Failed(format!("its token service: {}", shown(&other.to_string()))),
    };
    let said = message(body.as_bytes());
    let code = serde_json::from_str::<OciEnvelope>(&body).ok().and_then(|said| said.errors.into_iter().next());
    match code.map(|error| error.code) {
        Some(OciErrorCode::Toomanyrequests) => SourceError::RateLimited { retry_after: None },
        Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => SourceError::Unauthorized(said),
        None if !said.is_empty() && !said.starts_with('<') => SourceError::Unauthorized(said),
        _ => SourceError::Failed(format!("its token service: {said}")),
    }
}

fn header(value: &str) -> Result<HeaderValue, SourceError> {
    let mut header = HeaderValue::try_from(value)
        .map_err(|_| SourceError::Failed("its token has characters that no header can carry".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(values: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    #[test]
    fn challenges_are_read_in_one_header_or_several() {
        let bearer = r#"Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a:pull""#;
        let realm = Some("https://auth.test/token".to_owned());
        assert_eq!(challenge(&[bearer]), Challenge { bearer_realm: realm.clone(), basic: false });
        assert_eq!(challenge(&["basic realm=\"x\"", bearer]), Challenge { bearer_realm: realm, basic: true });
        assert_eq!(challenge(&["Negotiate"]), Challenge::default());
        assert_eq!(challenge(&["===,,"]), Challenge::default());
    }

    #[test]
    fn a_refusal_is_told_from_an_illness() {
        let class = |body: &str| exchange_error(OciDistributionError::AuthenticationFailure(body.to_owned()));
        let envelope = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#);
        assert!(matches!(class(&envelope("UNAUTHORIZED")), SourceError::Unauthorized(_)));
        assert!(matches!(class(r#"{"details":"incorrect username or password"}"#), SourceError::Unauthorized(_)));
        assert!(matches!(class("Auth failed."), SourceError::Unauthorized(_)));
        assert!(matches!(class(&envelope("TOOMANYREQUESTS")), SourceError::RateLimited { .. }));
        assert!(matches!(class(&envelope("UNAVAILABLE")), SourceError::Failed(_)));
        assert!(matches!(class("<html>502 Bad Gateway"), SourceError::Failed(_)));
        assert!(matches!(class(""), SourceError::Failed(_)));
    }
}
