//! What a dynamic block begins with: the lengths of its codes, themselves run-length and prefix coded (RFC 1951, 3.2.7).
//!
//! Invariant: [`Tables`] are of one block; what they cost and what they write is the same.

use super::{
    bits::BitSink,
    huffman::Codes,
    symbols::{DISTANCES, FIRST_LENGTH, LITERALS},
    zlib::tree,
};

/// The alphabet of code lengths: 0 to 15 are lengths, the others repeat.
const LENGTHS: usize = 19;
/// Repeats the length before, 3 to 6 times.
const REPEAT: u8 = 16;
/// 3 to 10 zeros.
const ZEROS: u8 = 17;
/// 11 to 138 zeros.
const MANY_ZEROS: u8 = 18;
/// The longest code of a code length.
const LENGTH_BITS_MAX: usize = 7;
/// The fewest code lengths' lengths that a header can have.
const LENGTHS_SENT_MIN: usize = 4;
/// In which order the lengths of the code lengths' codes are written.
const ORDER: [usize; LENGTHS] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// The kind of a block with tables, in two bits.
const DYNAMIC: u32 = 2;

/// The header of a dynamic block.
#[derive(Debug)]
pub(super) struct Tables {
    literals: usize,
    distances: usize,
    /// Symbols of [`LENGTHS`] with what follows them.
    runs: Vec<(u8, u8)>,
    codes: Codes<LENGTHS>,
    sent: usize,
    bits: u32,
}

impl Tables {
    /// The header for the first `literals` and `distances` codes.
    pub(super) fn new(
        literal_codes: &Codes<LITERALS>,
        literals: usize,
        distance_codes: &Codes<DISTANCES>,
        distances: usize,
        by_tree: bool,
    ) -> Self {
        let lengths = (0..literals).map(|symbol| literal_codes.len_of(symbol));
        let runs = runs(lengths.chain((0..distances).map(|symbol| distance_codes.len_of(symbol))));
        let frequencies = frequencies(&runs);
        let codes = if by_tree {
            Codes::by_tree(&frequencies, LENGTH_BITS_MAX)
        } else {
            Codes::of(&frequencies, LENGTH_BITS_MAX)
        };
        Self::with(literals, distances, runs, codes)
    }

    /// The header as zlib writes it: no run has lengths of both codes, and its own code is one of zlib's.
    pub(super) fn apart(
        literal_codes: &Codes<LITERALS>,
        literals: usize,
        distance_codes: &Codes<DISTANCES>,
        distances: usize,
    ) -> Self {
        let mut both = runs((0..literals).map(|symbol| literal_codes.len_of(symbol)));
        both.extend(runs((0..distances).map(|symbol| distance_codes.len_of(symbol))));
        let (codes, _) = tree::code(&frequencies(&both), LENGTH_BITS_MAX);
        Self::with(literals, distances, both, codes)
    }

    fn with(literals: usize, distances: usize, runs: Vec<(u8, u8)>, codes: Codes<LENGTHS>) -> Self {
        let unused = ORDER.iter().rev().take_while(|symbol| codes.len_of(**symbol) == 0).count();
        let sent = (LENGTHS - unused).max(LENGTHS_SENT_MIN);
        let extra: u32 = runs.iter().map(|(symbol, _)| extra_bits(*symbol)).sum();
        let bits = 3 + 5 + 5 + 4 + 3 * sent as u32 + codes.cost(&frequencies(&runs)) + extra;
        Self { literals, distances, runs, codes, sent, bits }
    }

    /// Bits of the header, with those that say the block's kind.
    pub(super) const fn bits(&self) -> u32 {
        self.bits
    }

    /// Writes the header of a block.
    pub(super) fn put(&self, last: bool, sink: &mut BitSink) {
        sink.put(DYNAMIC << 1 | u32::from(last), 3);
        sink.put((self.literals - FIRST_LENGTH) as u32, 5);
        sink.put((self.distances - 1) as u32, 5);
        sink.put((self.sent - LENGTHS_SENT_MIN) as u32, 4);
        for symbol in &ORDER[..self.sent] {
            sink.put(u32::from(self.codes.len_of(*symbol)), 3);
        }
        for (symbol, extra) in &self.runs {
            self.codes.put(usize::from(*symbol), sink);
            sink.put(u32::from(*extra), extra_bits(*symbol));
        }
    }
}

/// How often each symbol occurs.
fn frequencies(runs: &[(u8, u8)]) -> [u32; LENGTHS] {
    let mut frequencies = [0; LENGTHS];
    for (symbol, _) in runs {
        frequencies[usize::from(*symbol)] += 1;
    }
    frequencies
}

const fn extra_bits(symbol: u8) -> u32 {
    match symbol {
        REPEAT => 2,
        ZEROS => 3,
        MANY_ZEROS => 7,
        _ => 0,
    }
}

/// Code lengths as runs: the longest first, what is left one by one.
fn runs(lengths: impl Iterator<Item = u8>) -> Vec<(u8, u8)> {
    let mut runs = Vec::with_capacity(LITERALS + DISTANCES);
    let mut lengths = lengths.peekable();
    while let Some(length) = lengths.next() {
        let mut count = 1;
        while lengths.next_if_eq(&length).is_some() {
            count += 1;
        }
        if length == 0 {
            while count >= 11 {
                let run = count.min(138);
                runs.push((MANY_ZEROS, (run - 11) as u8));
                count -= run;
            }
            if count >= 3 {
                runs.push((ZEROS, (count - 3) as u8));
                count = 0;
            }
        } else {
            runs.push((length, 0));
            count -= 1;
            while count >= 3 {
                let run = count.min(6);
                runs.push((REPEAT, (run - 3) as u8));
                count -= run;
            }
        }
        runs.extend(std::iter::repeat_n((length, 0), count));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_repeat_in_runs() {
        let of = |length: u8, count: usize| runs(std::iter::repeat_n(length, count));
        assert_eq!(of(5, 3), [(5, 0); 3]);
        assert_eq!(of(5, 4), [(5, 0), (16, 0)]);
        assert_eq!(of(5, 9), [(5, 0), (16, 3), (5, 0), (5, 0)]);
        assert_eq!(of(0, 2), [(0, 0); 2]);
        assert_eq!(of(0, 10), [(17, 7)]);
        assert_eq!(of(0, 139), [(18, 127), (0, 0)]);
        assert_eq!(of(0, 149), [(18, 127), (18, 0)]);
    }
}
