//! Which bytes of a blob a request asks for: `Range`, `If-Range` and `If-None-Match` of RFC 9110, as pure functions.
//!
//! A blob's entity tag is its digest, which is a strong validator by nature. Deliberately absent: answers in
//! several parts (RFC 9110, 14.2 lets a server ignore `Range`, and no runtime asks for several).

use axum::http::{HeaderMap, header};
use layermesh_proto::ContentId;

/// The part of a blob that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slice {
    /// All of it.
    Whole,
    /// From the first byte to before the second; never empty.
    Part(u64, u64),
    /// None of it: the range begins past the end.
    Unsatisfiable,
}

/// The entity tag of a content.
pub(super) fn etag(content: &ContentId) -> String {
    format!("\"{content}\"")
}

/// The part of a blob of `size` bytes that these headers ask for.
///
/// A range that is not one, that counts in another unit, or that comes with others is ignored (RFC 9110, 14.2).
pub(super) fn slice(headers: &HeaderMap, content: &ContentId, size: u64) -> Slice {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Slice::Whole };
    // A date, or the tag of something else, says that the client's other part may be of something else (13.1.5).
    if headers.get_all(header::IF_RANGE).iter().any(|tag| tag.as_bytes() != etag(content).as_bytes()) {
        return Slice::Whole;
    }
    line.to_str().ok().and_then(|line| parse(line, size)).unwrap_or(Slice::Whole)
}

fn parse(line: &str, size: u64) -> Option<Slice> {
    let (unit, set) = line.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    if first.is_empty() {
        return Some(match (number(last)?, size) {
            (0, _) => Slice::Unsatisfiable,
            // All of nothing: there is no byte that a Content-Range could name.
            (_, 0) => Slice::Whole,
            (length, _) => Slice::Part(size.saturating_sub(length), size),
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some(if first >= size { Slice::Unsatisfiable } else { Slice::Part(first, last.saturating_add(1).min(size)) })
}

/// Decimal digits; what is beyond 64 bits is beyond every blob.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether the client says that it already has this content (RFC 9110, 13.1.2, weak comparison).
pub(super) fn already_there(headers: &HeaderMap, content: &ContentId) -> bool {
    let tag = etag(content);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok()).any(|line| {
        line.split(',')
            .map(str::trim)
            .any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use layermesh_proto::Algorithm;

    use super::*;

    fn content() -> ContentId {
        ContentId::of(Algorithm::Sha256, b"x")
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn ranges_of_ten_bytes() {
        for (range, expected) in [
            ("bytes=0-", Slice::Part(0, 10)),
            ("bytes=3-", Slice::Part(3, 10)),
            ("bytes=9-", Slice::Part(9, 10)),
            ("bytes=10-", Slice::Unsatisfiable),
            ("bytes=0-0", Slice::Part(0, 1)),
            ("bytes=2-4", Slice::Part(2, 5)),
            ("bytes=2-99", Slice::Part(2, 10)),
            ("bytes=2-99999999999999999999999", Slice::Part(2, 10)),
            ("bytes=99999999999999999999999-", Slice::Unsatisfiable),
            ("bytes=18446744073709551615-18446744073709551615", Slice::Unsatisfiable),
            ("bytes=10-12", Slice::Unsatisfiable),
            ("bytes=-3", Slice::Part(7, 10)),
            ("bytes=-10", Slice::Part(0, 10)),
            ("bytes=-11", Slice::Part(0, 10)),
            ("bytes=-0", Slice::Unsatisfiable),
            ("Bytes=1-2", Slice::Part(1, 3)),
            ("bytes= 1-2", Slice::Part(1, 3)),
            ("bytes=4-2", Slice::Whole),
            ("bytes=-", Slice::Whole),
            ("bytes=", Slice::Whole),
            ("bytes=a-b", Slice::Whole),
            ("bytes=+1-2", Slice::Whole),
            ("bytes=1-2,4-5", Slice::Whole),
            ("bytes 1-2", Slice::Whole),
            ("pieces=1-2", Slice::Whole),
            ("", Slice::Whole),
        ] {
            assert_eq!(slice(&headers(&[(header::RANGE, range)]), &content(), 10), expected, "{range}");
        }
        assert_eq!(slice(&HeaderMap::new(), &content(), 10), Slice::Whole);
        let twice = headers(&[(header::RANGE, "bytes=1-2"), (header::RANGE, "bytes=4-5")]);
        assert_eq!(slice(&twice, &content(), 10), Slice::Whole);
    }

    #[test]
    fn a_blob_may_be_longer_than_what_32_bits_count() {
        const GIB: u64 = 1 << 30;
        for (range, expected) in [
            ("bytes=4294967295-4294967296", Slice::Part(4 * GIB - 1, 4 * GIB + 1)),
            ("bytes=5368709119-", Slice::Part(5 * GIB - 1, 5 * GIB)),
            ("bytes=-4294967297", Slice::Part(GIB - 1, 5 * GIB)),
            ("bytes=5368709120-", Slice::Unsatisfiable),
        ] {
            assert_eq!(slice(&headers(&[(header::RANGE, range)]), &content(), 5 * GIB), expected, "{range}");
        }
    }

    #[test]
    fn an_empty_blob_has_no_part() {
        for (range, expected) in
            [("bytes=0-", Slice::Unsatisfiable), ("bytes=0-0", Slice::Unsatisfiable), ("bytes=-5", Slice::Whole)]
        {
            assert_eq!(slice(&headers(&[(header::RANGE, range)]), &content(), 0), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_something_else_is_ignored() {
        let range = (header::RANGE, "bytes=1-2");
        let same = etag(&content());
        assert_eq!(slice(&headers(&[range.clone(), (header::IF_RANGE, &same)]), &content(), 9), Slice::Part(1, 3));
        for other in ["\"x\"", "Tue, 24 Nov 2026 05:00:00 GMT", &format!("W/{same}")] {
            assert_eq!(slice(&headers(&[range.clone(), (header::IF_RANGE, other)]), &content(), 9), Slice::Whole);
        }
    }

    #[test]
    fn what_the_client_has() {
        let tag = etag(&content());
        for (line, expected) in [
            (tag.clone(), true),
            (format!("W/{tag}"), true),
            (format!("\"a\", {tag}"), true),
            ("*".to_owned(), true),
            ("\"a\"".to_owned(), false),
            (content().to_string(), false),
        ] {
            assert_eq!(already_there(&headers(&[(header::IF_NONE_MATCH, &line)]), &content()), expected, "{line}");
        }
        assert!(!already_there(&HeaderMap::new(), &content()));
    }
}
