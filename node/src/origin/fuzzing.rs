//! What must hold of a registry's answer, whatever it is.

use std::time::SystemTime;

use layermesh_proto::{ContentId, Repository};
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};

use super::{classify, token, transfer};

/// Any headers and any body are an answer that makes sense or none.
///
/// # Panics
/// If that does not hold.
pub fn answer(bytes: &[u8]) {
    let names = [
        CONTENT_RANGE,
        WWW_AUTHENTICATE,
        RETRY_AFTER,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        HeaderName::from_static("docker-content-digest"),
        CONTENT_ENCODING,
        WWW_AUTHENTICATE,
    ];
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    for name in names {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { break };
        if let Ok(value) = HeaderValue::from_bytes(&rest[..end])
            && end > 0
        {
            headers.append(name, value);
        }
        rest = &rest[end + 1..];
    }
    assert!(
        classify::retry_after(&headers, SystemTime::UNIX_EPOCH).is_none_or(|wait| wait <= classify::RETRY_AFTER_MAX)
    );
    assert!(classify::message(rest).chars().count() <= 2 * classify::MESSAGE_CHARS_MAX);
    token::fuzz_challenge(&headers);
    transfer::fuzz_ranges(&headers);
    let body = bytes::Bytes::copy_from_slice(rest);
    if let Ok(descriptor) = transfer::descriptor_of_bytes(&headers, &body) {
        assert_eq!(descriptor.size, rest.len() as u64);
        assert_eq!(descriptor.content, ContentId::of(descriptor.content.algorithm(), rest));
    }
    let _ = transfer::descriptor_of_headers(&headers);
    let _ = (transfer::refuse_encoded(&headers), transfer::says_empty(&headers));
}

/// A repository to ask for.
pub(super) fn repository() -> Repository {
    Repository::new("registry.example", "app").expect("a valid name")
}
