//! Deflate's alphabets (RFC 1951, 3.2.5): literals, lengths and distances as symbols with extra bits, and tokens.
//!
//! Invariant: a [`Token`] is a literal byte or a match of 3 to 258 bytes at a distance of 1 to 32768.

/// Symbols of literals, the end of a block and lengths that a stream may use.
pub(super) const LITERALS: usize = 286;
/// Symbols of distances that a stream may use.
pub(super) const DISTANCES: usize = 30;
/// Ends a block.
pub(super) const END_OF_BLOCK: usize = 256;
/// The symbol of the shortest length.
pub(super) const FIRST_LENGTH: usize = 257;
/// The shortest match that the format has.
pub(super) const MATCH_MIN: u32 = 3;
/// The longest.
pub(super) const MATCH_MAX: usize = 258;
/// How far a match may reach back: the format's window.
pub(super) const WINDOW: usize = 1 << 15;
/// The most bytes that a stored block can have.
pub(super) const STORED_MAX: usize = 65_535;

/// Extra bits of each length symbol, from [`FIRST_LENGTH`] on.
pub(super) const LENGTH_EXTRA: [u8; LITERALS - FIRST_LENGTH] = length_extra();
/// The shortest length of each length symbol, less [`MATCH_MIN`].
const LENGTH_BASE: [u8; LITERALS - FIRST_LENGTH] = length_base();
/// The length symbol of each length less [`MATCH_MIN`], from [`FIRST_LENGTH`] on.
const LENGTH_SYMBOL: [u8; 256] = length_symbols();

const fn length_extra() -> [u8; LITERALS - FIRST_LENGTH] {
    let mut extra = [0; LITERALS - FIRST_LENGTH];
    let mut symbol = 8;
    // The last symbol is the one length 258, without extra bits.
    while symbol < extra.len() - 1 {
        extra[symbol] = (symbol / 4 - 1) as u8;
        symbol += 1;
    }
    extra
}

const fn length_base() -> [u8; LITERALS - FIRST_LENGTH] {
    let (mut base, mut next, mut symbol) = ([0; LITERALS - FIRST_LENGTH], 0_u32, 0);
    while symbol < base.len() - 1 {
        base[symbol] = next as u8;
        next += 1 << LENGTH_EXTRA[symbol];
        symbol += 1;
    }
    base[symbol] = u8::MAX;
    base
}

const fn length_symbols() -> [u8; 256] {
    let (mut symbols, mut symbol, mut length) = ([0; 256], 0, 0);
    while length < symbols.len() {
        if symbol + 1 < LENGTH_BASE.len() && length >= LENGTH_BASE[symbol + 1] as usize {
            symbol += 1;
        }
        symbols[length] = symbol as u8;
        length += 1;
    }
    symbols
}

/// Extra bits of a distance symbol.
#[inline]
pub(super) const fn distance_extra(symbol: usize) -> u32 {
    if symbol < 4 { 0 } else { symbol as u32 / 2 - 1 }
}

/// A symbol with the bits that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) symbol: usize,
    pub(super) extra: u32,
    pub(super) extra_bits: u32,
}

/// One step of a block: a literal byte or a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u32);

impl Token {
    /// Set in a match: bits 16 to 23 are its length less [`MATCH_MIN`], the lower ones its distance less one.
    const MATCH: u32 = 1 << 31;

    #[inline]
    pub(super) const fn literal(byte: u8) -> Self {
        Self(byte as u32)
    }

    #[inline]
    pub(super) const fn copy(length: usize, distance: usize) -> Self {
        debug_assert!(length >= MATCH_MIN as usize && length <= MATCH_MAX && distance >= 1 && distance <= WINDOW);
        Self(Self::MATCH | (length as u32 - MATCH_MIN) << 16 | (distance as u32 - 1))
    }

    /// The byte, if it is a literal.
    #[inline]
    pub(super) const fn as_literal(self) -> Option<u8> {
        if self.0 & Self::MATCH == 0 { Some(self.0 as u8) } else { None }
    }

    /// The length's symbol counted from [`FIRST_LENGTH`], for a match.
    #[inline]
    pub(super) const fn length(self) -> Extended {
        let length = (self.0 >> 16) as u8;
        let symbol = LENGTH_SYMBOL[length as usize];
        Extended {
            symbol: symbol as usize,
            extra: (length - LENGTH_BASE[symbol as usize]) as u32,
            extra_bits: LENGTH_EXTRA[symbol as usize] as u32,
        }
    }

    /// The distance's symbol, for a match.
    #[inline]
    pub(super) const fn distance(self) -> Extended {
        let distance = self.0 & 0xffff;
        if distance < 4 {
            return Extended { symbol: distance as usize, extra: 0, extra_bits: 0 };
        }
        // Two symbols a power of two: by the bit below the highest.
        let extra_bits = distance.ilog2() - 1;
        let symbol = 2 * (extra_bits + 1) + (distance >> extra_bits & 1);
        Extended { symbol: symbol as usize, extra: distance & ((1 << extra_bits) - 1), extra_bits }
    }
}

/// How many bytes `a` and `b` begin with in common, at most those of the shorter.
#[inline]
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    let (words_a, rest_a) = a.as_chunks::<8>();
    let (words_b, rest_b) = b.as_chunks::<8>();
    for (index, (x, y)) in words_a.iter().zip(words_b).enumerate() {
        let differing = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differing != 0 {
            return index * 8 + (differing.trailing_zeros() / 8) as usize;
        }
    }
    words_a.len() * 8 + rest_a.iter().zip(rest_b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_distances_have_the_symbols_of_the_rfc() {
        let length = |length| {
            let it = Token::copy(length, 1).length();
            (it.symbol + FIRST_LENGTH, it.extra, it.extra_bits)
        };
        assert_eq!((length(3), length(10), length(11)), ((257, 0, 0), (264, 0, 0), (265, 0, 1)));
        assert_eq!((length(34), length(257), length(258)), ((272, 3, 2), (284, 30, 5), (285, 0, 0)));
        let distance = |distance| {
            let it = Token::copy(3, distance).distance();
            (it.symbol, it.extra, it.extra_bits)
        };
        assert_eq!((distance(1), distance(4), distance(5), distance(8)), ((0, 0, 0), (3, 0, 0), (4, 0, 1), (5, 1, 1)));
        assert_eq!((distance(24_577), distance(32_768)), ((29, 0, 13), (29, 8191, 13)));
        for symbol in 0..DISTANCES {
            let from = (0..WINDOW).find(|d| Token::copy(3, d + 1).distance().symbol == symbol).unwrap();
            assert_eq!(Token::copy(3, from + 1).distance().extra_bits, distance_extra(symbol));
        }
    }

    #[test]
    fn prefixes_are_compared_to_the_byte() {
        let bytes: Vec<u8> = (0..40).collect();
        for differing in 0..40 {
            let mut other = bytes.clone();
            other[differing] ^= 0x80;
            assert_eq!(common_prefix(&bytes, &other), differing);
        }
        assert_eq!(common_prefix(&bytes, &bytes[..13]), 13);
    }
}
