//! How the mirror says no: status and error document of the distribution spec ("Error Codes").
//!
//! Invariant: a refusal makes every runtime go upstream at once. Measured clients do so on 404 and 503; they retry
//! 429 and 408 at once, and answer 401 by sending the user's credentials, so those three cannot be expressed here.
//! A thing that this node knows not to exist, or cannot even name, is 404; a thing that it cannot give now is 503.
//! Access that the origin denies to the node is 404 too: the client may hold better credentials and takes them
//! upstream.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use layermesh_proto::engine::event::{SourceError, WantError};
use serde::Serialize;

use super::route::RouteError;

/// Error codes: those of the distribution spec, and `UNAVAILABLE`, which registries use for 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// No such blob.
    BlobUnknown,
    /// No such manifest.
    ManifestUnknown,
    /// No such repository.
    NameUnknown,
    /// No repository can have this name.
    NameInvalid,
    /// No content can have this digest.
    DigestInvalid,
    /// The origin gives it to others only.
    Denied,
    /// Not an operation of a pull-only registry.
    Unsupported,
    /// No byte of the blob is in this range.
    SizeInvalid,
    /// Not now.
    Unavailable,
}

impl Code {
    /// The code as clients read it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    /// Size of the blob that a range lies outside of.
    outside: Option<u64>,
}

impl Refusal {
    /// It does not exist, or this node cannot name it: 404.
    pub(super) fn unknown(code: Code, message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, message: message.into(), outside: None }
    }

    /// It cannot be had now: 503.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: Code::Unavailable,
            message: message.into(),
            outside: None,
        }
    }

    /// The range begins past the end of a blob of `size` bytes: 416 (RFC 9110, 15.5.17).
    pub(super) fn outside(size: u64) -> Self {
        Self {
            status: StatusCode::RANGE_NOT_SATISFIABLE,
            code: Code::SizeInvalid,
            message: format!("the range begins past the end of this blob of {size} bytes"),
            outside: Some(size),
        }
    }

    /// A want that ended so, for something whose absence has this code.
    pub(super) fn of_want(error: &WantError, absent: Code) -> Self {
        match error {
            WantError::NotFound | WantError::NotSigned => Self::unknown(absent, error.to_string()),
            WantError::Unauthorized(_) => Self::unknown(Code::Denied, error.to_string()),
            WantError::Unavailable(_) | WantError::Store(_) | WantError::TooLarge(_) | WantError::Busy => {
                Self::unavailable(error.to_string())
            }
        }
    }

    /// An origin's list that ended so.
    pub(super) fn of_source(error: &SourceError) -> Self {
        let message = format!("the origin: {error}");
        match error {
            SourceError::NotFound => Self::unknown(Code::NameUnknown, message),
            SourceError::Unauthorized(_) => Self::unknown(Code::Denied, message),
            _ => Self::unavailable(message),
        }
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let message = error.to_string();
        match error {
            RouteError::ReadOnly => {
                Self { status: StatusCode::METHOD_NOT_ALLOWED, code: Code::Unsupported, message, outside: None }
            }
            RouteError::NoEndpoint | RouteError::Query(_) => Self::unknown(Code::Unsupported, message),
            RouteError::Name(_) => Self::unknown(Code::NameInvalid, message),
            RouteError::Digest(_) => Self::unknown(Code::DigestInvalid, message),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document<'a> {
            errors: [Entry<'a>; 1],
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            code: &'static str,
            message: &'a str,
        }
        let document = Document { errors: [Entry { code: self.code.as_str(), message: &self.message }] };
        // Strings alone cannot fail to serialise; an empty body would still carry the status.
        let mut response = Response::new(Body::from(serde_json::to_vec(&document).unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if let Some(value) = self.outside.and_then(|size| HeaderValue::from_str(&format!("bytes */{size}")).ok()) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_makes_a_client_retry_or_hand_over_credentials() {
        let text = || "x".to_owned();
        let wants = [
            WantError::NotFound,
            WantError::Unauthorized(text()),
            WantError::Unavailable(text()),
            WantError::Store(text()),
            WantError::Busy,
        ];
        let sources = [
            SourceError::Unreachable(text()),
            SourceError::NotFound,
            SourceError::Unauthorized(text()),
            SourceError::RateLimited { retry_after: None },
            SourceError::Failed(text()),
        ];
        let refusals = wants
            .iter()
            .map(|error| Refusal::of_want(error, Code::BlobUnknown))
            .chain(sources.iter().map(Refusal::of_source))
            .map(|refusal| refusal.status.as_u16());
        assert_eq!(refusals.collect::<Vec<_>>(), [404, 404, 503, 503, 503, 503, 404, 404, 503, 503]);
    }
}
