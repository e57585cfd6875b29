//! What must hold of a runtime's request, whatever it is.

use axum::http::{HeaderMap, HeaderValue, Method, header};
use layermesh_proto::{Algorithm, ContentId};

use super::{
    range::{Slice, already_there, etag, slice},
    route::{Reference, Route, route},
};

/// Any path and query are a question or none; a name that is accepted has no part that leads elsewhere.
///
/// # Panics
/// If that does not hold.
pub fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let found = route(&Method::GET, path, query);
    assert_eq!(found, route(&Method::HEAD, path, query));
    assert!(!matches!(route(&Method::PUT, path, query), Ok(route) if route != Route::Version));
    let repository = match &found {
        Ok(Route::Manifest { repository, reference }) => {
            assert!(!matches!(reference, Reference::Tag(tag) if tag.tag().contains(['/', ':'])));
            repository
        }
        Ok(Route::Blob { repository, .. } | Route::Tags { repository, .. } | Route::Referrers { repository, .. }) => {
            repository
        }
        _ => return,
    };
    assert!(!repository.name().split('/').any(|part| matches!(part, "" | "." | "..")));
    assert!(!repository.registry().contains(['/', '@', '?', '#', '\\']));
}

/// Any headers ask for a slice that the blob has.
///
/// # Panics
/// If that does not hold.
pub fn headers(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    let content = ContentId::of(Algorithm::Sha256, b"x");
    let mut headers = HeaderMap::new();
    for (line, name) in bytes.split(|&byte| byte == b'\n').take(8).zip([
        header::RANGE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::RANGE,
        header::IF_NONE_MATCH,
    ]) {
        let of_blob = line == b"=";
        let value = if of_blob {
            HeaderValue::from_str(&etag(&content))
        } else {
            Ok(HeaderValue::from_bytes(line).unwrap_or(HeaderValue::from_static("")))
        };
        if !line.is_empty()
            && let Ok(value) = value
        {
            headers.append(name, value);
        }
    }
    if let Slice::Part(start, end) = slice(&headers, &content, size) {
        assert!(start < end && end <= size);
    }
    let _ = already_there(&headers, &content);
}
