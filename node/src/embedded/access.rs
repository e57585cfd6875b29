//! Who may read: everybody, who knows a password, or who holds a token that this registry gave out.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::http::HeaderValue;

/// Tokens that are good at once; when there are more, all are withdrawn and clients ask again.
const TOKENS_MAX: usize = 1024;

/// Who may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    #[default]
    Anonymous,
    /// Who sends this user name and password (RFC 7617).
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// Who sends a token of the token service at `/token` (distribution's token authentication).
    Bearer {
        /// Who gets a token: who sends this user name and password, or everybody.
        user: Option<(String, String)>,
        /// Where the challenge says that the token service is, if not here.
        realm: Option<String>,
    },
}

/// An access rule and the tokens given out.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    access: Access,
    /// Each good token and its scope.
    tokens: BTreeMap<String, String>,
}

impl Gate {
    pub(super) fn set(&self, access: Access) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Inner { access, tokens: BTreeMap::new() };
    }

    pub(super) fn revoke_tokens(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).tokens.clear();
    }

    /// The challenge to answer with, `None` if this request may go on. `repository` is `None` for the ping.
    pub(super) fn challenge(
        &self,
        authorization: Option<&HeaderValue>,
        repository: Option<&str>,
        base_url: &str,
    ) -> Option<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = authorization.and_then(|value| value.to_str().ok());
        match &inner.access {
            Access::Anonymous => None,
            Access::Basic { username, password } => {
                let good = http_auth::basic::encode_credentials(username, password);
                (sent != Some(good.as_str())).then(|| "Basic realm=\"layermesh embedded registry\"".to_owned())
            }
            Access::Bearer { realm, .. } => {
                let scope = repository.map(scope);
                let held = sent.and_then(|text| text.strip_prefix("Bearer ")).and_then(|token| inner.tokens.get(token));
                if held.is_some_and(|held| scope.as_ref().is_none_or(|scope| scope == held)) {
                    return None;
                }
                let realm = realm.clone().unwrap_or_else(|| format!("{base_url}/token"));
                let scope = scope.map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
                Some(format!("Bearer realm=\"{realm}\",service=\"layermesh\"{scope}"))
            }
        }
    }

    /// A token for `scope`, `None` if the request has not the credentials for it.
    pub(super) fn token(&self, authorization: Option<&HeaderValue>, scope: &str) -> Option<String> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Access::Bearer { user, .. } = &inner.access else { return None };
        if let Some((username, password)) = user {
            let good = http_auth::basic::encode_credentials(username, password);
            if authorization.and_then(|value| value.to_str().ok()) != Some(good.as_str()) {
                return None;
            }
        }
        let token = format!("{:032x}", rand::random::<u128>());
        if inner.tokens.len() >= TOKENS_MAX {
            inner.tokens.clear();
        }
        inner.tokens.insert(token.clone(), scope.to_owned());
        Some(token)
    }
}

fn scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}
