//! Identifiers as bytes that are as good as random: nearly all differ in the first eight, which are looked at as one number.
//!
//! Invariant: pure, and nothing here knows whose bytes they are.

use std::cmp::Ordering;

/// The first eight bytes as a number, whose order is theirs; zeros stand for what is missing.
#[inline]
pub(crate) fn head(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Their order, for sorted maps that are looked into for each message: what is looked for differs in the first eight bytes or,
/// mostly, is found.
#[inline]
pub(crate) fn compare<const N: usize>(one: &[u8; N], other: &[u8; N]) -> Ordering {
    let rest = || if same(one, other) { Ordering::Equal } else { one.cmp(other) };
    head(one).cmp(&head(other)).then_with(rest)
}

/// Whether they are equal: for a few dozen, less than a call.
#[inline]
fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let (one, other) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    let differs = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other);
    let all = one.0.iter().zip(other.0).fold(0, |before, both| before | differs(both));
    all == 0 && one.1 == other.1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_the_bytes(one: [u8; 19], at in 0usize..19, byte: u8) {
            let mut other = one;
            other[at] = byte;
            prop_assert_eq!(compare(&one, &other), one.cmp(&other));
            prop_assert_eq!(compare(&one, &one), Ordering::Equal);
        }
    }
}
