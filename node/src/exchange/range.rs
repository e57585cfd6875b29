//! The `Range` header of a request (RFC 9110, section 14.2), as far as the bulk exchange has it: one range of bytes.

use std::ops::Range;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requested {
    /// All of it. Also for headers that are not one range of bytes: a server may ignore those.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// Bytes that the blob does not have.
    Unsatisfiable,
}

/// Reads the header's value for a blob of `size` bytes.
pub(super) fn requested(value: Option<&[u8]>, size: u64) -> Requested {
    let Some(spec) = value.and_then(|value| std::str::from_utf8(value).ok()).and_then(single_range) else {
        return Requested::Whole;
    };
    let (first, last) = match spec {
        (Some(first), last) => (first, last.unwrap_or(u64::MAX)),
        (None, Some(suffix_len)) if suffix_len > 0 => (size.saturating_sub(suffix_len), u64::MAX),
        (None, _) => return Requested::Unsatisfiable,
    };
    if first >= size {
        return Requested::Unsatisfiable;
    }
    Requested::Part(first..last.saturating_add(1).min(size))
}

/// First and last position of `bytes=first-last`, either of which may be left out but not both.
fn single_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (first, last) = value.strip_prefix("bytes=")?.trim().split_once('-')?;
    let position = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    match (position(first)?, position(last)?) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        spec => Some(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Requested {
        requested(Some(value.as_bytes()), 100)
    }

    #[test]
    fn one_range_in_its_three_forms() {
        assert_eq!(of("bytes=0-0"), Requested::Part(0..1));
        assert_eq!(of("bytes=10-19"), Requested::Part(10..20));
        assert_eq!(of("bytes=90-"), Requested::Part(90..100));
        assert_eq!(of("bytes=90-1000"), Requested::Part(90..100));
        assert_eq!(of("bytes=-10"), Requested::Part(90..100));
        assert_eq!(of("bytes=-1000"), Requested::Part(0..100));
        assert_eq!(of(&format!("bytes=5-{}", u64::MAX)), Requested::Part(5..100));
    }

    #[test]
    fn ranges_outside_the_blob_cannot_be_satisfied() {
        assert_eq!(of("bytes=100-"), Requested::Unsatisfiable);
        assert_eq!(of("bytes=100-200"), Requested::Unsatisfiable);
        assert_eq!(of("bytes=-0"), Requested::Unsatisfiable);
        assert_eq!(requested(Some(b"bytes=0-"), 0), Requested::Unsatisfiable);
        assert_eq!(requested(Some(b"bytes=-5"), 0), Requested::Unsatisfiable);
    }

    #[test]
    fn anything_else_is_ignored() {
        for value in ["", "bytes=", "bytes=-", "bytes=5-4", "bytes=a-b", "bytes=1-2,4-5", "bytes=+1-2", "lines=1-2"] {
            assert_eq!(of(value), Requested::Whole, "{value}");
        }
        assert_eq!(of("bytes=99999999999999999999-"), Requested::Whole);
        assert_eq!(requested(Some(&[0xff]), 100), Requested::Whole);
        assert_eq!(requested(None, 100), Requested::Whole);
    }
}
