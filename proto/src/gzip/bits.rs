//! Bits into bytes, in deflate's order: the first bit written is the lowest of the first byte.
//!
//! Invariant: fewer than [`FLUSH_AT_BITS`] bits wait at any time between two calls.

/// Six whole bytes leave at once; 16 more bits, the longest that one call writes, still fit beside what then waits.
const FLUSH_AT_BITS: u32 = 48;
/// The bytes of [`FLUSH_AT_BITS`].
const FLUSH_BYTES: usize = 6;
/// A block with the fixed codes and nothing but its end, not the last.
const EMPTY_FIXED_BLOCK: u32 = 0b010;

/// Where an encoder's bits go; the bytes are taken out with [`BitSink::drain_into`].
#[derive(Debug, Default)]
pub(super) struct BitSink {
    waiting: u64,
    count: u32,
    bytes: Vec<u8>,
}

impl BitSink {
    /// Writes the low `count` bits of `value`, which has no others; at most 16.
    #[inline]
    pub(super) fn put(&mut self, value: u32, count: u32) {
        self.waiting |= u64::from(value) << self.count;
        self.count += count;
        if self.count >= FLUSH_AT_BITS {
            self.bytes.extend_from_slice(&self.waiting.to_le_bytes()[..FLUSH_BYTES]);
            self.waiting >>= FLUSH_AT_BITS;
            self.count -= FLUSH_AT_BITS;
        }
    }

    /// Fills the last byte with zeros.
    pub(super) fn align(&mut self) {
        let whole = self.count.div_ceil(8) as usize;
        self.bytes.extend_from_slice(&self.waiting.to_le_bytes()[..whole]);
        (self.waiting, self.count) = (0, 0);
    }

    /// Writes the header of a stored block of `len` bytes, which have to follow by [`BitSink::raw`].
    pub(super) fn stored_header(&mut self, len: u16, last: bool) {
        self.put(u32::from(last), 3);
        self.align();
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(&(!len).to_le_bytes());
    }

    /// Fills the last byte with as few empty blocks as it takes: fixed ones have ten bits, and a stored one ends at a
    /// byte's border.
    pub(super) fn pad_with_blocks(&mut self) {
        if self.count % 2 == 1 {
            self.stored_header(0, false);
        }
        while !self.count.is_multiple_of(8) {
            self.put(EMPTY_FIXED_BLOCK, 10);
        }
        self.align();
    }

    /// Writes bytes as they are, at a byte's border.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.count, 0, "raw bytes begin at a byte's border");
        self.bytes.extend_from_slice(bytes);
    }

    /// Moves the whole bytes so far to the end of `out`.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_low_end() {
        let (mut sink, mut out) = (BitSink::default(), Vec::new());
        sink.put(0b101, 3);
        sink.put(0b11, 2);
        sink.stored_header(2, true);
        sink.raw(b"ab");
        sink.drain_into(&mut out);
        assert_eq!(out, [0b0011_1101, 2, 0, 0xfd, 0xff, b'a', b'b']);
    }

    #[test]
    fn empty_blocks_fill_bytes() {
        let padded = |bits: u32| {
            let (mut sink, mut out) = (BitSink::default(), Vec::new());
            sink.put(0, bits);
            sink.pad_with_blocks();
            sink.drain_into(&mut out);
            out
        };
        assert_eq!(padded(8), [0]);
        assert_eq!(padded(6), [0b1000_0000, 0]);
        assert_eq!(padded(4), [0b0010_0000, 0b1000_0000, 0]);
        assert_eq!(padded(5), [0, 0, 0, 0xff, 0xff]);
        assert_eq!(padded(7), [0, 0, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn many_bits_come_out_as_they_went_in() {
        let (mut sink, mut out) = (BitSink::default(), Vec::new());
        for byte in 0..=255_u32 {
            sink.put(byte & 0x7, 3);
            sink.put(byte >> 3, 5);
        }
        sink.align();
        sink.drain_into(&mut out);
        assert_eq!(out, (0..=255).collect::<Vec<u8>>());
    }
}
