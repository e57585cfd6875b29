//! Blocks as Go up to 1.26 writes them: which of three forms a block has, and its bits.
//!
//! Invariant: no block is the last; the stream ends with an empty stored one.

use super::super::{
    bits::BitSink,
    huffman::Codes,
    symbols::{DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LENGTH_EXTRA, LITERALS, STORED_MAX, Token, distance_extra},
    tables::Tables,
};

/// The longest code of a symbol.
const CODE_BITS_MAX: usize = 15;
/// The kind of a block with the fixed code, in two bits.
const FIXED: u32 = 1;

/// Writes blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) sink: BitSink,
    fixed: (Codes<LITERALS>, Codes<DISTANCES>),
}

/// How often each symbol occurs in a block, and how many symbols its tables list.
struct Tally {
    literals: [u32; LITERALS],
    distances: [u32; DISTANCES],
    literals_used: usize,
    distances_used: usize,
}

impl Tally {
    fn of(tokens: &[Token]) -> Self {
        let (mut literals, mut distances) = ([0; LITERALS], [0; DISTANCES]);
        for token in tokens {
            match token.as_literal() {
                Some(byte) => literals[usize::from(byte)] += 1,
                None => {
                    literals[FIRST_LENGTH + token.length().symbol] += 1;
                    distances[token.distance().symbol] += 1;
                }
            }
        }
        literals[END_OF_BLOCK] = 1;
        let used = |frequencies: &[u32]| frequencies.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        if used(&distances) == 0 {
            // A block without matches still has a code of distances, as if there were one.
            distances[0] = 1;
        }
        Self { literals_used: used(&literals), distances_used: used(&distances), literals, distances }
    }

    /// Bits that follow the symbols.
    fn extra_bits(&self) -> u32 {
        let lengths = self.literals[FIRST_LENGTH..].iter().zip(LENGTH_EXTRA).map(|(n, bits)| n * u32::from(bits));
        let distances = self.distances.iter().enumerate().map(|(symbol, n)| n * distance_extra(symbol));
        lengths.sum::<u32>() + distances.sum::<u32>()
    }
}

/// Bits of a stored block, if `len` bytes fit into one.
const fn stored_bits(len: usize) -> Option<u32> {
    if len <= STORED_MAX { Some((len as u32 + 5) * 8) } else { None }
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { sink: BitSink::default(), fixed: (Codes::<LITERALS>::fixed(), Codes::<DISTANCES>::fixed()) }
    }

    /// Writes `tokens` in the form that takes the fewest bits. `input` is what they stand for, if it is still at hand:
    /// without it the block cannot be stored.
    pub(super) fn smallest(&mut self, tokens: &[Token], input: Option<&[u8]>) {
        let tally = Tally::of(tokens);
        let stored = input.and_then(|input| stored_bits(input.len()));
        // They count only against the stored form: the other two have the same.
        let extra = if stored.is_some() { tally.extra_bits() } else { 0 };
        let fixed = 3 + self.fixed.0.cost(&tally.literals) + self.fixed.1.cost(&tally.distances) + extra;
        let codes = (Codes::of(&tally.literals, CODE_BITS_MAX), Codes::of(&tally.distances, CODE_BITS_MAX));
        let tables = Tables::new(&codes.0, tally.literals_used, &codes.1, tally.distances_used);
        let dynamic = tables.bits() + codes.0.cost(&tally.literals) + codes.1.cost(&tally.distances) + extra;
        if let (Some(input), Some(stored)) = (input, stored)
            && stored < dynamic.min(fixed)
        {
            self.stored(input);
        } else if dynamic < fixed {
            tables.put(&mut self.sink);
            put_tokens(tokens, &codes, &mut self.sink);
        } else {
            self.sink.put(FIXED << 1, 3);
            put_tokens(tokens, &self.fixed, &mut self.sink);
        }
    }

    /// Writes `tokens` with a code of their own, or stores `input` if that would hardly be shorter.
    pub(super) fn dynamic(&mut self, tokens: &[Token], input: &[u8]) {
        let tally = Tally::of(tokens);
        let codes = (Codes::of(&tally.literals, CODE_BITS_MAX), Codes::of(&tally.distances, CODE_BITS_MAX));
        let tables = Tables::new(&codes.0, tally.literals_used, &codes.1, tally.distances_used);
        // Without the extra bits, too: that is what Go compares.
        let bits = tables.bits() + codes.0.cost(&tally.literals) + codes.1.cost(&tally.distances);
        if worth(bits, input) {
            tables.put(&mut self.sink);
            put_tokens(tokens, &codes, &mut self.sink);
        } else {
            self.stored(input);
        }
    }

    /// Writes `input` as literals with a code of their own, or stores it if that would hardly be shorter.
    pub(super) fn literals(&mut self, input: &[u8]) {
        let mut frequencies = [0; LITERALS];
        for byte in input {
            frequencies[usize::from(*byte)] += 1;
        }
        frequencies[END_OF_BLOCK] = 1;
        let codes = Codes::of(&frequencies, CODE_BITS_MAX);
        let distances = Codes::of(&std::array::from_fn(|symbol| u32::from(symbol == 0)), CODE_BITS_MAX);
        let tables = Tables::new(&codes, END_OF_BLOCK + 1, &distances, 1);
        // The one bit is that of a distance which never comes.
        if worth(tables.bits() + codes.cost(&frequencies) + 1, input) {
            tables.put(&mut self.sink);
            for byte in input {
                codes.put(usize::from(*byte), &mut self.sink);
            }
            codes.put(END_OF_BLOCK, &mut self.sink);
        } else {
            self.stored(input);
        }
    }

    /// Stores `input`, at most [`STORED_MAX`] bytes.
    pub(super) fn stored(&mut self, input: &[u8]) {
        debug_assert!(input.len() <= STORED_MAX, "callers cut it");
        self.sink.stored_header(input.len() as u16, false);
        self.sink.raw(input);
    }

    /// Ends the stream.
    pub(super) fn end(&mut self) {
        self.sink.stored_header(0, true);
    }
}

/// Whether `bits` instead of `input` stored saves at least about a sixteenth.
fn worth(bits: u32, input: &[u8]) -> bool {
    stored_bits(input.len()).is_none_or(|stored| stored >= bits + (bits >> 4))
}

fn put_tokens(tokens: &[Token], (literals, distances): &(Codes<LITERALS>, Codes<DISTANCES>), sink: &mut BitSink) {
    for token in tokens {
        if let Some(byte) = token.as_literal() {
            literals.put(usize::from(byte), sink);
            continue;
        }
        let (length, distance) = (token.length(), token.distance());
        literals.put(FIRST_LENGTH + length.symbol, sink);
        sink.put(length.extra, length.extra_bits);
        distances.put(distance.symbol, sink);
        sink.put(distance.extra, distance.extra_bits);
    }
    literals.put(END_OF_BLOCK, sink);
}
