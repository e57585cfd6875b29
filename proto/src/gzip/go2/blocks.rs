//! Blocks of the second generation: a block may go on with the codes of the one before instead of having its own.
//!
//! The next block's tokens are then written into the same deflate block, whose end is owed until something else comes.
//! Whether that pays is estimated before new codes are made.
//!
//! Invariant: after a call with `sync` no block is open.

use super::{
    super::{
        bits::BitSink,
        huffman::{CODE_BITS_MAX, Codes},
        symbols::{DISTANCES, END_OF_BLOCK, FIRST_LENGTH, LENGTH_EXTRA, LITERALS, Token, distance_extra},
        tables::Tables,
        tally::{BlockCodes, Tally, code_of, put_tokens, stored_bits},
    },
    Variant,
};

/// The kind of a block with the fixed code, in two bits.
const FIXED: u32 = 1;
/// Bits of the end of a block with the fixed code.
const FIXED_END_BITS: u32 = 7;
/// From so many tokens on the fixed code is not considered.
const FIXED_TOKENS_MAX: usize = 250;
/// What the tables of a block of literals are guessed to take, in bits.
const LITERAL_TABLES_BITS: u32 = 70 * 8;
/// Longer blocks of literals are looked at for bytes that are all about as frequent.
const EVEN_LEN_MIN: usize = 1024;

/// Writes blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) sink: BitSink,
    fixed: BlockCodes,
    open: Option<Open>,
    variant: Variant,
    /// The higher, the sooner new codes are made: a new table is reckoned dearer by its share of 1 / 2^this.
    penalty_shift: u32,
}

/// A block that was not ended.
#[derive(Debug)]
struct Open {
    codes: BlockCodes,
    /// What its tables took.
    table_bits: u32,
    /// Its codes were made for literals alone: nothing with matches goes on with them.
    literals_only: bool,
}

impl Blocks {
    pub(super) fn new(variant: Variant, penalty_shift: u32) -> Self {
        Self { sink: BitSink::default(), fixed: BlockCodes::fixed(), open: None, variant, penalty_shift }
    }

    /// Writes `tokens`. `input` is what they stand for, if it is still at hand: without it they cannot be stored.
    pub(super) fn matches(&mut self, tokens: &[Token], input: Option<&[u8]>, sync: bool) {
        let mut tally = Tally::of(tokens);
        if self.open.as_ref().is_some_and(|open| open.literals_only || !open.covers(&tally)) {
            self.close();
        }
        if sync || !self.variant.whole_tables {
            tally.complete();
        }
        // The end counts as a token if it is written with these.
        let count = tokens.len() + usize::from(sync);
        let stored = input.and_then(|input| Some((input, stored_bits(input.len())?)));
        let extra = if stored.is_some() || self.open.is_some() { tally.extra_bits() } else { 0 };
        if let Some(open) = self.open.take() {
            let reused = open.codes.cost(&tally) + extra;
            let renewed = open.table_bits + estimated_bits(&tally, count);
            let end_bits = u32::from(open.codes.literals.len_of(END_OF_BLOCK));
            let renewed = renewed + end_bits + (renewed >> self.penalty_shift);
            self.open = Some(open);
            if renewed < reused {
                self.close();
            }
            let bits = renewed.min(reused);
            let fixed = 3 + self.fixed.cost(&tally) + extra + FIXED_END_BITS;
            let prefers_fixed = count < FIXED_TOKENS_MAX && fixed < bits;
            match stored {
                Some((input, stored)) if stored <= bits => return self.stored(input),
                _ if prefers_fixed => return self.with_fixed(tokens),
                _ => {}
            }
        }
        if self.open.is_none() && !self.begin(tokens, count, tally, extra, stored) {
            return;
        }
        if let Some(open) = &self.open {
            put_tokens(tokens, &open.codes, &mut self.sink);
        }
        if sync {
            self.close();
        }
    }

    /// Begins a block with codes of its own, unless fixed codes or no code are shorter; then all is written.
    fn begin(
        &mut self,
        tokens: &[Token],
        count: usize,
        mut tally: Tally,
        extra: u32,
        stored: Option<(&[u8], u32)>,
    ) -> bool {
        tally.literals[END_OF_BLOCK] = 1;
        let codes = BlockCodes::of(&tally, self.variant.by_tree);
        let tables = codes.tables(&tally, self.variant.by_tree);
        let dynamic = tables.bits() + codes.cost(&tally) + extra;
        let fixed = 3 + self.fixed.cost(&tally) + extra;
        let prefers_fixed = count < FIXED_TOKENS_MAX && fixed <= dynamic;
        let best = if prefers_fixed { fixed } else { dynamic };
        match stored {
            Some((input, stored)) if stored <= best => self.stored(input),
            _ if prefers_fixed => self.with_fixed(tokens),
            _ => {
                tables.put(false, &mut self.sink);
                self.open = Some(Open { codes, table_bits: tables.bits(), literals_only: false });
                return true;
            }
        }
        false
    }

    /// Writes `input` as literals, or stores it if that would hardly be shorter.
    pub(super) fn literals(&mut self, input: &[u8], sync: bool) {
        let mut frequencies = [0_u32; LITERALS];
        for byte in input {
            frequencies[usize::from(*byte)] += 1;
        }
        let stored = stored_bits(input.len());
        if stored.is_some() && input.len() > EVEN_LEN_MIN && is_even(&frequencies[..END_OF_BLOCK], input.len()) {
            return self.stored(input);
        }
        let bytes = frequencies;
        frequencies[END_OF_BLOCK] = 1;
        let codes = code_of(&frequencies, self.variant.by_tree);
        let renewed = codes.cost(&frequencies) + self.open.as_ref().map_or(LITERAL_TABLES_BITS, |open| open.table_bits);
        let renewed = renewed + (renewed >> self.penalty_shift);
        if stored.is_some_and(|stored| stored <= renewed) {
            return self.stored(input);
        }
        if self
            .open
            .as_ref()
            .is_some_and(|open| !open.codes.literals.covers(&bytes) || renewed < open.codes.literals.cost(&bytes))
        {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| {
            let distances = Codes::of(&std::array::from_fn::<_, DISTANCES, _>(|symbol| u32::from(symbol == 0)), 1);
            let tables = Tables::new(&codes, END_OF_BLOCK + 1, &distances, 1, self.variant.by_tree);
            tables.put(false, &mut self.sink);
            Open { codes: BlockCodes { literals: codes, distances }, table_bits: tables.bits(), literals_only: true }
        });
        for byte in input {
            open.codes.literals.put(usize::from(*byte), &mut self.sink);
        }
        if sync {
            self.close();
        }
    }

    /// Stores `input`, at most what a stored block can have. Nothing is a flush.
    pub(super) fn stored(&mut self, input: &[u8]) {
        self.close();
        self.sink.stored_header(input.len() as u16, false);
        self.sink.raw(input);
    }

    fn with_fixed(&mut self, tokens: &[Token]) {
        self.close();
        self.sink.put(FIXED << 1, 3);
        put_tokens(tokens, &self.fixed, &mut self.sink);
        self.fixed.put_end(&mut self.sink);
    }

    /// Ends the block that is open.
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            open.codes.put_end(&mut self.sink);
        }
    }

    /// Ends the stream.
    pub(super) fn end(&mut self) {
        self.close();
        self.sink.put(FIXED << 1 | 1, 3);
        self.fixed.put_end(&mut self.sink);
        self.sink.align();
    }
}

impl Open {
    fn covers(&self, tally: &Tally) -> bool {
        self.codes.literals.covers(&tally.literals) && self.codes.distances.covers(&tally.distances)
    }
}

/// Whether bytes are about equally frequent, as in what is compressed or encrypted.
fn is_even(frequencies: &[u32], len: usize) -> bool {
    let (mean, limit) = (len as f64 / 256.0, (len * 2) as f64);
    let squares = frequencies.iter().scan(0.0, |sum, frequency| {
        let difference = f64::from(*frequency) - mean;
        *sum += difference * difference;
        Some(*sum)
    });
    squares.last().is_some_and(|sum| sum < limit)
}

/// What the tokens would take with the best codes, tables aside: their entropy, at least a bit and at most 15 a symbol.
/// In single precision and in this order of additions, since the result decides.
fn estimated_bits(tally: &Tally, count: usize) -> u32 {
    let bits_of = |frequency: u32, share: f32| {
        let frequency = frequency as f32;
        (-log2(frequency * share)).clamp(1.0, CODE_BITS_MAX as f32) * frequency
    };
    let (mut entropy, mut extra, mut matches) = (0_f32, 0, 0);
    if count > 0 {
        let share = 1.0 / count as f32;
        for frequency in tally.literals[..END_OF_BLOCK].iter().filter(|frequency| **frequency > 0) {
            entropy += bits_of(*frequency, share);
        }
        // The end.
        entropy += CODE_BITS_MAX as f32;
        for (frequency, bits) in tally.literals[FIRST_LENGTH..].iter().zip(LENGTH_EXTRA) {
            if *frequency > 0 {
                entropy += bits_of(*frequency, share);
                extra += u32::from(bits) * frequency;
                matches += frequency;
            }
        }
    }
    if matches > 0 {
        let share = 1.0 / matches as f32;
        for (symbol, frequency) in tally.distances.iter().enumerate().filter(|(_, frequency)| **frequency > 0) {
            entropy += bits_of(*frequency, share);
            extra += distance_extra(symbol) * frequency;
        }
    }
    entropy as u32 + extra
}

/// About the logarithm: the exponent, and a parabola through the rest.
fn log2(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 128;
    let rest = f32::from_bits((bits & 0x807f_ffff) + (127 << 23));
    exponent as f32 + ((-0.344_848_43 * rest + 2.024_665_8) * rest - 0.674_877_6)
}
