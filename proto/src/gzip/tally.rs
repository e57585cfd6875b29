//! What a block's symbols are, and what they cost: the counts that both generations of encoders decide by.
//!
//! Invariant: a [`Tally`] counts the tokens of one block; the block's end is counted by who ends it.

use super::{
    bits::BitSink,
    huffman::{CODE_BITS_MAX, Codes},
    symbols::{DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LENGTH_EXTRA, LITERALS, STORED_MAX, Token, distance_extra},
    tables::Tables,
};

/// How often each symbol occurs in a block, and how many symbols its tables list.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) literals: [u32; LITERALS],
    pub(super) distances: [u32; DISTANCES],
    pub(super) literals_used: usize,
    pub(super) distances_used: usize,
}

impl Tally {
    pub(super) fn of(tokens: &[Token]) -> Self {
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
        Self { literals, distances, literals_used: LITERALS, distances_used: DISTANCES }
    }

    /// Counts the block's end, and cuts the tables after the last symbol that occurs.
    pub(super) fn complete(&mut self) {
        self.literals[END_OF_BLOCK] = 1;
        let used = |frequencies: &[u32]| frequencies.iter().rposition(|n| *n > 0).map_or(0, |last| last + 1);
        if used(&self.distances) == 0 {
            // A block without matches still has a code of distances, as if there were one.
            self.distances[0] = 1;
        }
        (self.literals_used, self.distances_used) = (used(&self.literals), used(&self.distances));
    }

    /// Bits that follow the symbols.
    pub(super) fn extra_bits(&self) -> u32 {
        let lengths = self.literals[FIRST_LENGTH..].iter().zip(LENGTH_EXTRA).map(|(n, bits)| n * u32::from(bits));
        let distances = self.distances.iter().enumerate().map(|(symbol, n)| n * distance_extra(symbol));
        lengths.sum::<u32>() + distances.sum::<u32>()
    }
}

/// Bits of a stored block, if `len` bytes fit into one.
pub(super) const fn stored_bits(len: usize) -> Option<u32> {
    if len <= STORED_MAX { Some((len as u32 + 5) * 8) } else { None }
}

/// The best code, by one way or the other.
pub(super) fn code_of<const N: usize>(frequencies: &[u32; N], by_tree: bool) -> Codes<N> {
    if by_tree { Codes::by_tree(frequencies, CODE_BITS_MAX) } else { Codes::of(frequencies, CODE_BITS_MAX) }
}

/// The two codes of a block.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockCodes {
    pub(super) literals: Codes<LITERALS>,
    pub(super) distances: Codes<DISTANCES>,
}

impl BlockCodes {
    pub(super) fn of(tally: &Tally, by_tree: bool) -> Self {
        Self { literals: code_of(&tally.literals, by_tree), distances: code_of(&tally.distances, by_tree) }
    }

    pub(super) fn fixed() -> Self {
        Self { literals: Codes::<LITERALS>::fixed(), distances: Codes::<DISTANCES>::fixed() }
    }

    /// What a block with these codes begins with.
    pub(super) fn tables(&self, tally: &Tally, by_tree: bool) -> Tables {
        Tables::new(&self.literals, tally.literals_used, &self.distances, tally.distances_used, by_tree)
    }

    /// Bits of the symbols, without what follows them.
    pub(super) fn cost(&self, tally: &Tally) -> u32 {
        self.literals.cost(&tally.literals) + self.distances.cost(&tally.distances)
    }

    pub(super) fn put_end(&self, sink: &mut BitSink) {
        self.literals.put(END_OF_BLOCK, sink);
    }
}

pub(super) fn put_tokens(tokens: &[Token], codes: &BlockCodes, sink: &mut BitSink) {
    for token in tokens {
        if let Some(byte) = token.as_literal() {
            codes.literals.put(usize::from(byte), sink);
            continue;
        }
        let (length, distance) = (token.length(), token.distance());
        codes.literals.put(FIRST_LENGTH + length.symbol, sink);
        sink.put(length.extra, length.extra_bits);
        codes.distances.put(distance.symbol, sink);
        sink.put(distance.extra, distance.extra_bits);
    }
}
