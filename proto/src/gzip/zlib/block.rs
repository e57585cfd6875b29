//! How a block is written: with codes of its own, with the fixed ones, or as it is.

use super::super::{
    bits::BitSink,
    huffman::CODE_BITS_MAX,
    symbols::{END_OF_BLOCK, STORED_MAX, Token},
    tables::Tables,
    tally::{BlockCodes, Tally, put_tokens},
};
use super::tree;

/// The kind of a block with the fixed codes, in two bits.
const FIXED: u32 = 1;
/// Bytes that a stored block has more than its content, as far as they count here.
const STORED_EXTRA: usize = 4;

/// Writes the smallest block of these tokens. `input` is what they stand for, if that is still there. Of blocks that
/// are as small in whole bytes, a stored one goes before one with fixed codes, and that before another.
pub(super) fn put(tokens: &[Token], input: Option<&[u8]>, last: bool, sink: &mut BitSink) {
    let mut tally = Tally::of(tokens);
    tally.literals[END_OF_BLOCK] = 1;
    let (literals, literals_listed) = tree::code(&tally.literals, CODE_BITS_MAX);
    let (distances, distances_listed) = tree::code(&tally.distances, CODE_BITS_MAX);
    let (own, fixed) = (BlockCodes { literals, distances }, BlockCodes::fixed());
    let tables = Tables::apart(&own.literals, literals_listed, &own.distances, distances_listed);
    let extra = tally.extra_bits();
    let own_len = (tables.bits() + own.cost(&tally) + extra).div_ceil(8) as usize;
    let fixed_len = (3 + fixed.cost(&tally) + extra).div_ceil(8) as usize;
    let stored =
        input.filter(|input| input.len() <= STORED_MAX && input.len() + STORED_EXTRA <= own_len.min(fixed_len));
    if let Some(input) = stored {
        sink.stored_header(input.len() as u16, last);
        sink.raw(input);
    } else if fixed_len <= own_len {
        sink.put(FIXED << 1 | u32::from(last), 3);
        put_tokens(tokens, &fixed, sink);
        fixed.put_end(sink);
    } else {
        tables.put(last, sink);
        put_tokens(tokens, &own, sink);
        own.put_end(sink);
    }
    if last {
        sink.align();
    }
}
