//! The exchange of credentials for a bearer token, as a registry's challenge asks for it (distribution's token
//! authentication specification, "Requesting a Token").
//!
//! Our own rather than the registry client's, which looks names up and follows redirects by itself: the request goes out
//! over the same client as the fetches do, so a token service is held to the same rules. Invariants: credentials go to
//! HTTPS only, unless the origin is configured for plain HTTP, and to no address of the device or its LAN unless the
//! registry is configured; they follow no redirect to another host; and what is asked for is to pull from one repository,
//! whatever else a challenge names.

use layermesh_proto::{Repository, engine::event::SourceError};
use reqwest::{
    Response,
    header::{HeaderMap, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use url::Url;

use super::{
    classify::{body, message, refusal, request_error, shown},
    credentials::Credentials,
    endpoint::Endpoint,
    internal,
};

/// Largest answer of a token service, in bytes. Tokens have 1 to 4 KiB, those that name many rights four times that.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What a 401 asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) bearer: Option<TokenService>,
    pub(super) basic: bool,
}

/// Where a registry's tokens come from, as it says; whether to go there is [`TokenService::url`]'s to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenService {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut challenge = Self::default();
        for value in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
            for asked in http_auth::parse_challenges(value).unwrap_or_default() {
                let word = |wanted: &str| {
                    let found = asked.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if asked.scheme.eq_ignore_ascii_case("basic") {
                    challenge.basic = true;
                } else if asked.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = word("realm")
                {
                    challenge.bearer = Some(TokenService { realm, service: word("service") });
                }
            }
        }
        challenge
    }
}

impl TokenService {
    /// Where to ask for a token, for a registry at this endpoint: to pull from `repository`, or for nothing in particular.
    pub(super) fn url(&self, endpoint: &Endpoint, repository: Option<&Repository>) -> Result<Url, SourceError> {
        let mut url = match Url::parse(&self.realm) {
            Ok(url) if !endpoint.internal() && internal::check(&url).is_err() => {
                return Err(SourceError::Failed(format!(
                    "its token service {} is an address of this device or its LAN; if that is meant, add an `[[origin]]` for it",
                    shown(url.authority())
                )));
            }
            Ok(url) if url.scheme() == "https" => url,
            Ok(url) if url.scheme() == "http" && endpoint.plain_http() => url,
            Ok(url) if url.scheme() == "http" => {
                return Err(SourceError::Unauthorized(format!(
                    "its token service {} speaks plain HTTP; if that is meant, set `plain_http = true` for this origin",
                    shown(url.authority())
                )));
            }
            _ => {
                return Err(SourceError::Failed(format!(
                    "its token service `{}` has no usable address",
                    shown(&self.realm)
                )));
            }
        };
        let scope = repository.map(|repository| format!("repository:{}:pull", repository.name()));
        for (name, value) in [("service", &self.service), ("scope", &scope)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        Ok(url)
    }

    /// A token for pulling from `repository`.
    pub(super) async fn token(
        &self,
        endpoint: &Endpoint,
        repository: &Repository,
        credentials: Option<&Credentials>,
    ) -> Result<String, SourceError> {
        let url = self.url(endpoint, Some(repository))?;
        let client = endpoint.client.get().map_err(request_error)?;
        let mut request = client.get(url);
        if let Some(Credentials { username, password }) = credentials {
            request = request.basic_auth(username, Some(password));
        }
        let answer = request.send().await.map_err(request_error)?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        let answer = body(answer, ANSWER_BYTES_MAX).await?;
        let Answer { token, access_token } = serde_json::from_slice(&answer)
            .map_err(|_| SourceError::Failed(format!("its token service answered `{}`", message(&answer))))?;
        match token.or(access_token) {
            Some(token) if !token.is_empty() => Ok(token),
            _ => Err(SourceError::Failed("its token service answered without a token".to_owned())),
        }
    }
}

/// A token service's answer; the specification lets it use either name, and both for the same.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Why there is no token.
async fn refused(answer: Response) -> SourceError {
    let status = answer.status();
    match refusal(answer, true).await {
        SourceError::NotFound => SourceError::Failed(format!("its token service answered {status}")),
        SourceError::Unavailable(said) => SourceError::Unavailable(format!("its token service: {said}")),
        SourceError::Failed(said) => SourceError::Failed(format!("its token service: {said}")),
        other => other,
    }
}

/// Any challenge is one that can be met or none.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_challenge(headers: &HeaderMap) {
    let challenge = Challenge::of(headers);
    assert_eq!(challenge, Challenge::of(headers));
    if let Some(service) = challenge.bearer
        && let Ok(endpoint) = Endpoint::unconfigured("registry.example", &super::endpoint::HttpClient::default())
        && let Ok(url) = service.url(&endpoint, None)
    {
        assert!(url.scheme() == "https" && internal::check(&url).is_ok(), "credentials go to {url}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::endpoint::HttpClient;

    fn challenge(values: &[&str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        Challenge::of(&headers)
    }

    fn service(realm: &str) -> TokenService {
        TokenService { realm: realm.to_owned(), service: None }
    }

    #[test]
    fn challenges_are_read_in_one_header_or_several() {
        let bearer = r#"Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a:pull""#;
        let asked = || {
            let service = Some("registry.test".to_owned());
            Some(TokenService { realm: "https://auth.test/token".to_owned(), service })
        };
        assert_eq!(challenge(&[bearer]), Challenge { bearer: asked(), basic: false });
        assert_eq!(challenge(&["basic realm=\"x\"", bearer]), Challenge { bearer: asked(), basic: true });
        assert_eq!(challenge(&["Negotiate"]), Challenge::default());
        assert_eq!(challenge(&["Bearer service=\"x\""]), Challenge::default());
        assert_eq!(challenge(&["===,,"]), Challenge::default());
    }

    #[test]
    fn what_is_asked_for_is_to_pull_whatever_a_challenge_says() {
        let asked =
            challenge(&[r#"Bearer realm="https://auth.test/t?a=b",service="x y",scope="repository:a:push,pull""#]);
        let endpoint = Endpoint::unconfigured("registry.test", &HttpClient::default()).unwrap();
        let repository = Repository::new("registry.test", "team/app").unwrap();
        let url = asked.bearer.unwrap().url(&endpoint, Some(&repository)).unwrap();
        assert_eq!(url.as_str(), "https://auth.test/t?a=b&service=x+y&scope=repository%3Ateam%2Fapp%3Apull");
    }

    #[test]
    fn a_token_service_is_held_to_its_registrys_rules() {
        let unconfigured = Endpoint::unconfigured("registry.test", &HttpClient::default()).unwrap();
        let configured = Endpoint::unconfigured("registry.test", &HttpClient::anywhere()).unwrap();
        let url = |endpoint, realm| service(realm).url(endpoint, None);
        for realm in ["https://10.0.0.1/token", "https://localhost/token", "https://[::1]/token"] {
            let refused = url(&unconfigured, realm);
            assert!(matches!(&refused, Err(SourceError::Failed(said)) if said.contains("[[origin]]")), "{refused:?}");
            assert!(url(&configured, realm).is_ok(), "{realm}");
        }
        let refused = url(&configured, "http://auth.test/token");
        assert!(matches!(&refused, Err(SourceError::Unauthorized(said)) if said.contains("plain_http")), "{refused:?}");
        for realm in ["ftp://auth.test/token", "token", ""] {
            assert!(matches!(url(&configured, realm), Err(SourceError::Failed(_))), "{realm}");
        }
    }
}
