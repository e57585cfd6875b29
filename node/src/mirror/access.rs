//! Who may ask the mirror, and how what it says is kept from others: for a mirror that is not on loopback.
//!
//! Invariant: where a password is demanded, nothing is answered without it, not even what the mirror is. This is the one
//! place that answers 401: clients send the credentials that they have for the mirror itself, and here that is meant.

use std::{fmt, path::Path, sync::Arc};

use ::aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::{Credentials, MirrorAccessConfig};

/// What a client is told that shows no password (RFC 7617, 2).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"layermesh\", charset=\"UTF-8\"");
/// As the distribution spec writes errors.
const UNAUTHORIZED: &str =
    r#"{"errors":[{"code":"UNAUTHORIZED","message":"this mirror asks for a user name and a password"}]}"#;

/// Why the mirror cannot be kept from others as it was told to.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A file with certificates or a key is not what it should be.
    #[error("cannot read {path}")]
    Pem {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file has no certificate.
    #[error("{0} has no certificate: it has to begin with the mirror's own, in PEM")]
    NoCertificate(String),
    /// Certificate and key do not belong together, or the TLS library does not know their kind.
    #[error("the mirror's certificate cannot be used")]
    Tls(#[from] rustls::Error),
}

/// What the mirror demands of those who ask it.
#[derive(Clone, Default)]
pub struct Access {
    tls: Option<TlsAcceptor>,
    /// `user:password`.
    demanded: Option<Arc<[u8]>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, password) = (self.tls.is_some(), self.demanded.is_some());
        f.debug_struct("Access").field("tls", &tls).field("password", &password).finish()
    }
}

impl Access {
    /// As it is configured. Reads the certificate and its key.
    ///
    /// # Errors
    /// If they cannot be read or do not belong together.
    pub fn new(config: &MirrorAccessConfig) -> Result<Self, AccessError> {
        let tls = config.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let demanded = config.credentials.as_ref();
        let demanded = demanded.map(|Credentials { username, password }| format!("{username}:{password}"));
        Ok(Self { tls, demanded: demanded.map(|text| text.into_bytes().into()) })
    }

    /// How connections are encrypted, if they are.
    pub(super) fn tls(&self) -> Option<&TlsAcceptor> {
        self.tls.as_ref()
    }

    /// Whether everybody who reaches the mirror may ask it.
    pub fn is_free(&self) -> bool {
        self.demanded.is_none()
    }

    /// The refusal of a request that does not show what is demanded.
    pub(super) fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let demanded = self.demanded.as_deref()?;
        // Of equal length or not, an answer says nothing of how much of it was right.
        if shown(headers).is_some_and(|shown| verify_slices_are_equal(&shown, demanded).is_ok()) {
            return None;
        }
        let mut response = Response::new(Body::from(UNAUTHORIZED));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Some(response)
    }
}

/// The user name and password of a request, if it has any in the form of RFC 7617.
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(token.trim()).ok())?
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, AccessError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| AccessError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate).map_err(failed(certificate))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(failed(certificate))?;
    if chain.is_empty() {
        return Err(AccessError::NoCertificate(certificate.display().to_string()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    // Runtimes that are offered HTTP/2 would take it, and a body that breaks has no reset of its connection there.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let credentials = Credentials { username: "device".to_owned(), password: "pass:word".to_owned() };
        Access::new(&MirrorAccessConfig { tls: None, credentials: Some(credentials) }).unwrap()
    }

    fn answer(authorization: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        access().refusal(&headers).map(|response| response.status().as_u16())
    }

    #[test]
    fn only_the_very_password_is_let_in() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert_eq!(answer(Some(&basic("device:pass:word"))), None);
        assert_eq!(answer(Some(&basic("device:pass:word").replace("Basic", "bAsIc "))), None);
        for wrong in ["device:pass:wor", "device:pass:words", "device:", "", "Device:pass:word", "device"] {
            assert_eq!(answer(Some(&basic(wrong))), Some(401), "{wrong}");
        }
        let bearer = basic("device:pass:word").replace("Basic", "Bearer");
        for other in [None, Some("Basic"), Some("Basic !!!"), Some(bearer.as_str())] {
            assert_eq!(answer(other), Some(401), "{other:?}");
        }
        assert!(Access::default().refusal(&HeaderMap::new()).is_none(), "where nothing is demanded all are let in");
        assert!(!format!("{:?}", access()).contains("pass:word"));
    }

    #[test]
    fn files_that_are_no_certificate_or_not_its_key_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = || rcgen::generate_simple_self_signed(["mirror.test".to_owned()]).unwrap();
        let (mine, other) = (made(), made());
        let certificate = file("certificate", &mine.cert.pem());
        let (key, strange) =
            (file("key", &mine.key_pair.serialize_pem()), file("strange", &other.key_pair.serialize_pem()));
        let empty = file("empty", "");
        let of = |certificate: &Path, key: &Path| {
            Access::new(&MirrorAccessConfig { tls: Some((certificate.into(), key.into())), credentials: None })
        };
        assert!(of(&certificate, &key).unwrap().tls().is_some());
        assert!(matches!(of(&empty, &key), Err(AccessError::NoCertificate(_))));
        assert!(matches!(of(&certificate, &empty), Err(AccessError::Pem { .. })));
        assert!(matches!(of(&certificate, &strange), Err(AccessError::Tls(_))));
    }
}
