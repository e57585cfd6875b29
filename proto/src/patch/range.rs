//! The arithmetic coder: bits of known probability to bytes and back.
//!
//! It is the carry-propagating range coder of LZMA (Igor Pavlov's LZMA specification, "Range Decoder"), with
//! probabilities of 16 bits and without the first byte, which is always zero.
//!
//! Invariant: the decoder reads exactly the bytes that the encoder wrote, and both narrow the same range for the same
//! bits.

/// Below this a range is shifted on by a byte.
const RANGE_MIN: u32 = 1 << 24;
/// Bytes that the decoder holds, and that the encoder ends with.
pub(super) const FLUSH_LEN: usize = 4;
/// The most bytes that one bit takes: a range is at least [`RANGE_MIN`], and a probability at least 2⁻¹⁶.
pub(super) const BIT_BYTES_MAX: usize = 2;

/// Codes a bit whose probability to be one is `p` of 65536, which is neither 0 nor 65536.
pub(super) trait Coder {
    /// Takes the bit if it writes, and gives it if it reads.
    fn bit(&mut self, p: u32, bit: u32) -> u32;

    /// Codes the low `count` bits of `value` as they are.
    fn raw(&mut self, count: u32, value: u64) -> u64 {
        (0..count).rev().fold(0, |read, at| read << 1 | u64::from(self.bit(1 << 15, (value >> at) as u32 & 1)))
    }
}

/// Writes.
#[derive(Debug)]
pub(super) struct Encoder {
    low: u64,
    range: u32,
    /// The last byte, which a carry may still reach, and how many bytes of 255 follow it.
    cache: u8,
    pending: u64,
    /// The first byte is not written.
    begun: bool,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) const fn new() -> Self {
        Self { low: 0, range: u32::MAX, cache: 0, pending: 0, begun: false, out: Vec::new() }
    }

    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        if self.low < 0xff00_0000 || carry == 1 {
            if self.begun {
                self.out.push(self.cache.wrapping_add(carry));
            }
            self.begun = true;
            for _ in 0..std::mem::take(&mut self.pending) {
                self.out.push(0xff_u8.wrapping_add(carry));
            }
            self.cache = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    /// Ends the stream.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for _ in 0..=FLUSH_LEN {
            self.shift();
        }
        self.out
    }
}

impl Coder for Encoder {
    #[inline]
    fn bit(&mut self, p: u32, bit: u32) -> u32 {
        let bound = (self.range >> 16) * p;
        if bit == 1 {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.shift();
        }
        bit
    }
}

/// Reads. Its bytes come in pieces; what was read is dropped.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    code: u32,
    range: u32,
    input: Vec<u8>,
    read: usize,
    /// More was read than there was.
    overrun: bool,
}

impl Decoder {
    /// Takes more bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.drain(..self.read);
        self.read = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Bytes that were taken and not read.
    pub(super) const fn buffered(&self) -> usize {
        self.input.len() - self.read
    }

    /// Reads the first bytes.
    pub(super) fn begin(&mut self) {
        self.range = u32::MAX;
        for _ in 0..FLUSH_LEN {
            self.next();
        }
    }

    /// Whether it read beyond the end.
    pub(super) const fn overrun(&self) -> bool {
        self.overrun
    }

    /// Whether it is where an encoder that ended here leaves it.
    pub(super) const fn ended(&self) -> bool {
        self.code == 0
    }

    #[inline]
    fn next(&mut self) {
        let byte = self.input.get(self.read).copied();
        self.overrun |= byte.is_none();
        self.read += usize::from(byte.is_some());
        self.code = self.code << 8 | u32::from(byte.unwrap_or(0));
    }
}

impl Coder for Decoder {
    #[inline]
    fn bit(&mut self, p: u32, _: u32) -> u32 {
        let bound = (self.range >> 16) * p;
        let bit = u32::from(self.code < bound);
        if bit == 1 {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.next();
        }
        bit
    }
}
