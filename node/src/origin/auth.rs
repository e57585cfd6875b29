//! Authentication: what to put into `Authorization`, and when to ask for a new one.
//!
//! A registry's challenge decides. A bearer challenge is answered with a token of the token service that the registry
//! names; a basic challenge with the credentials themselves. Nothing is sent before it was asked for.
//! What a registry accepted is kept for each repository (tokens are scoped to one) until the registry refuses it or
//! docker's configuration changes; registries say when a token has run out, so no clock is kept here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use layermesh_proto::{Repository, engine::event::SourceError};
use reqwest::header::{HeaderMap, HeaderValue};

use super::{
    Origin,
    credentials::{DockerConfig, Stamp},
    token::Challenge,
};

/// Repositories whose authorization is kept. A pull uses one or two; the limit only keeps a node that pulls for
/// years from growing, and passing it costs a challenge each.
const REPOSITORIES_MAX: usize = 256;
/// How long an exchange may take in all, however slowly a token service answers.
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
        let challenge = Challenge::of(headers);
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
        if let Some(service) = &challenge.bearer {
            let asked = service.token(&origin.endpoint, repository, credentials.as_ref());
            let answer = tokio::time::timeout(EXCHANGE_DEADLINE, Box::pin(asked)).await.unwrap_or_else(|_| {
                Err(SourceError::Unreachable("its token service did not answer in time".to_owned()))
            });
            return match answer {
                Ok(token) => header(&format!("Bearer {token}")),
                Err(SourceError::Unauthorized(reason)) => {
                    Err(unauthorized(&format!("its token service refused: {reason}")))
                }
                Err(other) => Err(other),
            };
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

fn header(value: &str) -> Result<HeaderValue, SourceError> {
    let mut header = HeaderValue::try_from(value)
        .map_err(|_| SourceError::Failed("its token has characters that no header can carry".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}
