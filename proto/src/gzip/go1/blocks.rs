//! Blocks as Go up to 1.26 writes them: which of three forms a block has, and its bits.
//!
//! Invariant: no block is the last; the stream ends with an empty stored one.

use super::super::{
    bits::BitSink,
    huffman::{CODE_BITS_MAX, Codes},
    symbols::{END_OF_BLOCK, LITERALS, STORED_MAX, Token},
    tables::Tables,
    tally::{BlockCodes, Tally, put_tokens, stored_bits},
};

/// The kind of a block with the fixed code, in two bits.
const FIXED: u32 = 1;

/// Writes blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) sink: BitSink,
    fixed: BlockCodes,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { sink: BitSink::default(), fixed: BlockCodes::fixed() }
    }

    /// Writes `tokens` in the form that takes the fewest bits. `input` is what they stand for, if it is still at hand:
    /// without it the block cannot be stored.
    pub(super) fn smallest(&mut self, tokens: &[Token], input: Option<&[u8]>) {
        let mut tally = Tally::of(tokens);
        tally.complete();
        let stored = input.and_then(|input| stored_bits(input.len()));
        // They count only against the stored form: the other two have the same.
        let extra = if stored.is_some() { tally.extra_bits() } else { 0 };
        let fixed = 3 + self.fixed.cost(&tally) + extra;
        let codes = BlockCodes::of(&tally, false);
        let tables = codes.tables(&tally, false);
        let dynamic = tables.bits() + codes.cost(&tally) + extra;
        if let (Some(input), Some(stored)) = (input, stored)
            && stored < dynamic.min(fixed)
        {
            self.stored(input);
        } else if dynamic < fixed {
            tables.put(false, &mut self.sink);
            put_tokens(tokens, &codes, &mut self.sink);
            codes.put_end(&mut self.sink);
        } else {
            self.sink.put(FIXED << 1, 3);
            put_tokens(tokens, &self.fixed, &mut self.sink);
            self.fixed.put_end(&mut self.sink);
        }
    }

    /// Writes `tokens` with a code of their own, or stores `input` if that would hardly be shorter.
    pub(super) fn dynamic(&mut self, tokens: &[Token], input: &[u8]) {
        let mut tally = Tally::of(tokens);
        tally.complete();
        let codes = BlockCodes::of(&tally, false);
        let tables = codes.tables(&tally, false);
        // Without the extra bits, too: that is what Go compares.
        if worth(tables.bits() + codes.cost(&tally), input) {
            tables.put(false, &mut self.sink);
            put_tokens(tokens, &codes, &mut self.sink);
            codes.put_end(&mut self.sink);
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
        let tables = Tables::new(&codes, END_OF_BLOCK + 1, &distances, 1, false);
        // The one bit is that of a distance which never comes.
        if worth(tables.bits() + codes.cost(&frequencies) + 1, input) {
            tables.put(false, &mut self.sink);
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
