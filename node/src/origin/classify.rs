//! What went wrong, in the engine's words.
//!
//! Invariant: whatever an origin sends, the text kept of it is bounded, printable, and free of URLs' queries
//! (storage back-ends are addressed with signed ones).

use std::{
    error::Error as StdError,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use layermesh_proto::engine::event::SourceError;
use oci_client::errors::OciEnvelope;
use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

/// Most characters kept of what an origin says.
pub(super) const MESSAGE_CHARS_MAX: usize = 256;
/// Most bytes read of an error's body. Registries answer a few hundred bytes of JSON, proxies a page of HTML.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// How long to wait for the rest of an error's body. The status already says what happened, and docker-registry
/// 2.8 announces a whole blob's length on a 416 and sends 33 bytes.
const ERROR_BODY_DEADLINE: Duration = Duration::from_secs(2);
/// The longest wait that an origin can ask for. Docker Hub's limit covers six hours; more than a day is an error.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// `text` on one line, cut to a bounded length.
pub(super) fn shown(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.chars().count() > MESSAGE_CHARS_MAX {
            let mut cut: String = line.chars().take(MESSAGE_CHARS_MAX).collect();
            cut.push('…');
            return cut;
        }
    }
    line
}

/// A request that got no answer, or an answer whose body broke off.
pub(super) fn request_error(error: reqwest::Error) -> SourceError {
    let error = error.without_url();
    let mut reason = shown(&chain(&error));
    if error.is_redirect() || error.is_builder() {
        return SourceError::Failed(reason);
    }
    if let Some(hint) = tls_hint(&error) {
        reason.push_str("; ");
        reason.push_str(hint);
    }
    SourceError::Unreachable(reason)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error and its causes, without repeating what a cause's text already holds.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// The TLS error that `error` is, or that it wraps without naming it as its source, as [`std::io::Error`] does.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref().or_else(|| tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?))
}

/// What a person can do about a failed handshake.
fn tls_hint(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let tls = causes(error).find_map(tls_error)?;
    match tls {
        rustls::Error::InvalidMessage(_) => {
            Some("if this registry speaks plain HTTP, set `plain_http = true` for its origin")
        }
        rustls::Error::InvalidCertificate(_) => {
            Some("if this registry's certificate is of your own CA, set `ca_file` for its origin")
        }
        _ => None,
    }
}

/// An answer that is not the one asked for. `own` says whether the registry itself gave it, rather than a storage
/// back-end that it redirected to and that knows nothing of its users.
pub(super) async fn refusal(response: Response, own: bool) -> SourceError {
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        return SourceError::RateLimited { retry_after: retry_after(response.headers(), SystemTime::now()) };
    }
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        return SourceError::NotFound;
    }
    let message = message(&error_body(response).await);
    let said = if message.is_empty() { status.to_string() } else { format!("{status}: {message}") };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if own => SourceError::Unauthorized(said),
        StatusCode::REQUEST_TIMEOUT => SourceError::Unreachable(said),
        _ if own && status.is_server_error() => SourceError::Unavailable(said),
        _ if own => SourceError::Failed(said),
        _ => SourceError::Failed(format!("the registry's storage answered {said}")),
    }
}

/// What a registry's error body says: the OCI error envelope (distribution spec, "Error Codes"), or its text.
pub(super) fn message(body: &[u8]) -> String {
    if let Ok(envelope) = serde_json::from_slice::<OciEnvelope>(body)
        && let Some(first) = envelope.errors.first()
    {
        let code = serde_json::to_value(&first.code).unwrap_or_default();
        return shown(&format!("{}: {}", code.as_str().unwrap_or_default(), first.message));
    }
    shown(&String::from_utf8_lossy(&body[..body.len().min(4 * MESSAGE_CHARS_MAX)]))
}

/// As much of an error's body as comes in time.
async fn error_body(mut response: Response) -> BytesMut {
    let mut body = BytesMut::new();
    let read = async {
        while body.len() < ERROR_BODY_BYTES_MAX {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            let room = ERROR_BODY_BYTES_MAX - body.len();
            body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // Late or broken, what did arrive is still the best explanation there is.
    let _ = tokio::time::timeout(ERROR_BODY_DEADLINE, read).await;
    body
}

/// How long an origin asks to wait: `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The whole body of an answer that may not be longer than `bytes_max`.
pub(super) async fn body(mut response: Response, bytes_max: u64) -> Result<Bytes, SourceError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(request_error)? {
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(SourceError::Failed(format!("answered more than {bytes_max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str, now: SystemTime) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_717);
        assert_eq!(wait("120", now), Some(Duration::from_secs(120)));
        // RFC 9110 section 5.6.7's example date is 60 s after `now`.
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:40:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait("99999999999", now), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("soon", now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn messages_come_from_the_envelope_or_the_text_and_are_bounded() {
        let envelope = br#"{"errors":[{"code":"DENIED","message":"requested\naccess to the resource is denied"}]}"#;
        assert_eq!(message(envelope), "DENIED: requested access to the resource is denied");
        assert_eq!(message(b"404 page\tnot \x1b[31mfound\n"), "404 page not [31mfound");
        assert_eq!(message(&[b'x'; 100_000]).chars().count(), MESSAGE_CHARS_MAX + 1);
        assert_eq!(message(b""), "");
    }
}
