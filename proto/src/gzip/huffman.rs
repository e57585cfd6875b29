//! Prefix codes of limited length, with the choices that Go's compressors make.
//!
//! Which optimal code comes out is a matter of ties. Go's: symbols in order of frequency, then of value; lengths by
//! package-merge, in which a package goes before a symbol of the same weight; codes canonical as RFC 1951 has them.
//!
//! Invariant: a symbol has a code (of at least one bit) if and only if its frequency was not zero.

use super::{
    bits::BitSink,
    symbols::{DISTANCES, LITERALS},
};

/// The longest code of the format.
pub(super) const CODE_BITS_MAX: usize = 15;
/// Items of one row of package-merge: each symbol, and one package for each two items of the row before.
const ROW_MAX: usize = 2 * LITERALS;

/// A symbol's code: its bits, first bit lowest, and how many there are. None: no bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code {
    bits: u16,
    len: u8,
}

/// The codes of an alphabet of `N` symbols.
#[derive(Debug, Clone)]
pub(super) struct Codes<const N: usize>([Code; N]);

impl<const N: usize> Default for Codes<N> {
    fn default() -> Self {
        Self([Code::default(); N])
    }
}

impl<const N: usize> Codes<N> {
    /// The best code for these frequencies with at most `bits_max` bits a symbol.
    pub(super) fn of(frequencies: &[u32; N], bits_max: usize) -> Self {
        Self::made(frequencies, |used| depths(&taken_by_row(used, bits_max), used.len()))
    }

    /// The same by Huffman's tree, if that is not too deep. Of two codes that are equally good it may be the other one.
    pub(super) fn by_tree(frequencies: &[u32; N], bits_max: usize) -> Self {
        Self::made(frequencies, |used| {
            let tree = if used.len() > 2 { tree_depths(used) } else { [0; LITERALS] };
            let fits = used.len() > 2 && tree.iter().all(|depth| usize::from(*depth) <= bits_max);
            if fits { tree } else { depths(&taken_by_row(used, bits_max), used.len()) }
        })
    }

    /// The code in which the symbols that are used, in order of frequency, have the lengths that `lengths_of` gives.
    fn made(frequencies: &[u32; N], lengths_of: impl Fn(&[(u32, u16)]) -> [u8; LITERALS]) -> Self {
        let mut lengths = [0_u8; N];
        let mut used = [(0_u32, 0_u16); N];
        let mut count = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
            used[count] = (frequency, symbol as u16);
            count += 1;
        }
        let used = &mut used[..count];
        used.sort_unstable();
        for ((_, symbol), length) in used.iter().zip(lengths_of(used)) {
            lengths[usize::from(*symbol)] = length;
        }
        Self::with_lengths(&lengths)
    }

    /// The canonical code with these lengths.
    pub(super) fn with_lengths(lengths: &[u8; N]) -> Self {
        let mut of_length = [0_u16; CODE_BITS_MAX + 1];
        for length in lengths {
            of_length[usize::from(*length)] += 1;
        }
        of_length[0] = 0;
        let (mut next, mut code) = ([0_u16; CODE_BITS_MAX + 1], 0_u16);
        for length in 1..=CODE_BITS_MAX {
            code = (code + of_length[length - 1]) << 1;
            next[length] = code;
        }
        let mut codes = Self::default();
        for (code, &len) in codes.0.iter_mut().zip(lengths).filter(|(_, len)| **len > 0) {
            let value = &mut next[usize::from(len)];
            *code = Code { bits: value.reverse_bits() >> (u16::BITS - u32::from(len)), len };
            *value += 1;
        }
        codes
    }

    /// How many bits `symbol` takes; zero if it has no code.
    #[inline]
    pub(super) fn len_of(&self, symbol: usize) -> u8 {
        self.0[symbol].len
    }

    /// How many bits symbols in these numbers take. Those without a code count nothing.
    pub(super) fn cost(&self, frequencies: &[u32; N]) -> u32 {
        self.0.iter().zip(frequencies).map(|(code, frequency)| u32::from(code.len) * frequency).sum()
    }

    /// Whether every symbol that occurs has a code.
    pub(super) fn covers(&self, frequencies: &[u32; N]) -> bool {
        self.0.iter().zip(frequencies).all(|(code, frequency)| *frequency == 0 || code.len > 0)
    }

    #[inline]
    pub(super) fn put(&self, symbol: usize, sink: &mut BitSink) {
        let code = self.0[symbol];
        sink.put(u32::from(code.bits), u32::from(code.len));
    }
}

impl Codes<LITERALS> {
    /// The fixed code of literals and lengths (RFC 1951, 3.2.6).
    pub(super) fn fixed() -> Self {
        // The two symbols at the end are never used, but take part in the code.
        let all = Codes::<288>::with_lengths(&std::array::from_fn(|symbol| match symbol {
            0..144 | 280.. => 8,
            144..256 => 9,
            256..280 => 7,
        }));
        Self(std::array::from_fn(|symbol| all.0[symbol]))
    }
}

impl Codes<DISTANCES> {
    /// The fixed code of distances.
    pub(super) fn fixed() -> Self {
        Self::with_lengths(&[5; DISTANCES])
    }
}

/// A symbol's code has one bit for each row that took it.
fn depths(taken: &[usize; CODE_BITS_MAX], count: usize) -> [u8; LITERALS] {
    let mut depths = [0; LITERALS];
    for (rank, depth) in depths[..count].iter_mut().enumerate() {
        *depth = taken.iter().filter(|taken| **taken > rank).count() as u8;
    }
    depths
}

/// Huffman's tree: how deep each symbol is in it. Of the same weight a symbol goes before a node. Depths end at the
/// largest number that there is. `used` is in order, and has two symbols at least.
fn tree_depths(used: &[(u32, u16)]) -> [u8; LITERALS] {
    let (mut parents, mut weights) = ([0_usize; 2 * LITERALS], [0_u32; LITERALS]);
    let (mut symbols, mut nodes) = (0, 0);
    for made in 0..used.len() - 1 {
        for _ in 0..2 {
            let symbol = used.get(symbols).map(|(weight, _)| *weight);
            match symbol {
                Some(weight) if nodes >= made || weight <= weights[nodes] => {
                    weights[made] += weight;
                    parents[symbols] = made;
                    symbols += 1;
                }
                _ => {
                    weights[made] += weights[nodes];
                    parents[LITERALS + nodes] = made;
                    nodes += 1;
                }
            }
        }
    }
    // The last node that was made is the root; each has its parent after it.
    let mut of_nodes = [0_u8; LITERALS];
    for node in (0..used.len() - 2).rev() {
        of_nodes[node] = of_nodes[parents[LITERALS + node]].saturating_add(1);
    }
    let mut depths = [0; LITERALS];
    for (symbol, depth) in depths[..used.len()].iter_mut().enumerate() {
        *depth = of_nodes[parents[symbol]].saturating_add(1);
    }
    depths
}

/// Package-merge: for each row, how many of the lightest symbols the cheapest code takes there. `used` is in order.
fn taken_by_row(used: &[(u32, u16)], bits_max: usize) -> [usize; CODE_BITS_MAX] {
    let mut taken = [0; CODE_BITS_MAX];
    if used.len() <= 2 {
        // One bit each; also for one alone, which needs none.
        taken[0] = used.len();
        return taken;
    }
    // No code of n symbols is longer than n - 1 bits.
    let rows = bits_max.min(used.len() - 1).min(CODE_BITS_MAX);
    let needed = 2 * used.len() - 2;
    let mut is_symbol = [[false; ROW_MAX]; CODE_BITS_MAX];
    let (mut before, mut before_len) = ([0_u32; ROW_MAX], 0);
    for is_symbol in &mut is_symbol[..rows] {
        let (mut row, mut len, mut symbols) = ([0_u32; ROW_MAX], 0, used.iter().map(|(weight, _)| *weight).peekable());
        let mut packages = before[..before_len].chunks_exact(2).map(|pair| pair[0] + pair[1]).peekable();
        while len < needed {
            let symbol_next = match (symbols.peek(), packages.peek()) {
                (None, None) => break,
                (Some(symbol), Some(package)) => symbol < package,
                (symbol, None) => symbol.is_some(),
                (None, Some(_)) => false,
            };
            row[len] = if symbol_next { symbols.next() } else { packages.next() }.unwrap_or_default();
            is_symbol[len] = symbol_next;
            len += 1;
        }
        (before, before_len) = (row, len);
    }
    // From the last row down: what is not a symbol is a package of two items of the row before.
    let mut items = needed;
    for row in (0..rows).rev() {
        taken[row] = is_symbol[row][..items].iter().filter(|symbol| **symbol).count();
        items = 2 * (items - taken[row]);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths<const N: usize>(codes: &Codes<N>) -> Vec<u8> {
        codes.0.iter().map(|code| code.len).collect()
    }

    #[test]
    fn codes_are_optimal_and_canonical() {
        let codes = Codes::of(&[5, 1, 0, 1, 2], 15);
        assert_eq!(lengths(&codes), [1, 3, 0, 3, 2]);
        // 0, 110, 111, 10, from the lowest bit on.
        assert_eq!(codes.0.map(|code| code.bits), [0b0, 0b011, 0, 0b111, 0b01]);
        assert_eq!(codes.cost(&[5, 1, 0, 1, 2]), 5 + 3 + 3 + 4);
        assert!(codes.covers(&[1, 1, 0, 1, 1]) && !codes.covers(&[0, 0, 1, 0, 0]));
    }

    #[test]
    fn a_tree_s_code_is_as_good() {
        let mut frequencies = [0_u32; 60];
        for (symbol, frequency) in frequencies.iter_mut().enumerate() {
            *frequency = (symbol as u32).pow(2) / 7 % 40;
        }
        let (tree, merged) = (Codes::by_tree(&frequencies, 15), Codes::of(&frequencies, 15));
        assert_eq!(tree.cost(&frequencies), merged.cost(&frequencies));
        assert_eq!(lengths(&Codes::by_tree(&[1, 1, 2, 2], 15)), [2, 2, 2, 2]);
        assert_eq!(lengths(&Codes::of(&[1, 1, 2, 2], 15)), [3, 3, 2, 1]);
        // Too deep for a tree.
        let powers: [u32; 10] = std::array::from_fn(|power| 1 << power);
        assert_eq!(lengths(&Codes::by_tree(&powers, 7)), lengths(&Codes::of(&powers, 7)));
        assert_eq!(lengths(&Codes::by_tree(&[0, 7, 0], 7)), [0, 1, 0]);
    }

    #[test]
    fn few_symbols_take_a_bit_each() {
        assert_eq!(lengths(&Codes::of(&[0, 0, 0], 15)), [0, 0, 0]);
        assert_eq!(lengths(&Codes::of(&[0, 9, 0], 15)), [0, 1, 0]);
        assert_eq!(lengths(&Codes::of(&[1, 0, 9], 15)), [1, 0, 1]);
    }

    #[test]
    fn long_codes_are_cut_and_stay_complete() {
        let mut frequencies = [0_u32; 30];
        let (mut a, mut b) = (1, 1);
        for frequency in &mut frequencies {
            *frequency = a;
            (a, b) = (b, a + b);
        }
        for bits_max in [5, 7, 15] {
            let lengths = lengths(&Codes::of(&frequencies, bits_max));
            let kraft: u32 = lengths.iter().map(|len| 1 << (15 - len)).sum();
            assert_eq!(kraft, 1 << 15, "{lengths:?}");
            assert_eq!(usize::from(*lengths.iter().max().unwrap()), bits_max);
        }
    }

    #[test]
    fn the_fixed_code_is_that_of_the_rfc() {
        let codes = Codes::<LITERALS>::fixed();
        assert_eq!(codes.0[0].bits.reverse_bits() >> 8, 0b0011_0000);
        assert_eq!(codes.0[144].bits.reverse_bits() >> 7, 0b1_1001_0000);
        assert_eq!(codes.0[256].bits, 0);
        assert_eq!(codes.0[280].bits.reverse_bits() >> 8, 0b1100_0000);
    }
}
