//! What is predicted of each symbol, and from what.
//!
//! Invariant: predictions depend on what both sides know alone: old bytes around the place of the alignment, new bytes
//! so far, symbols so far.

use super::{
    mix::{Logistic, Mixer, Slot, alone},
    range::Coder,
};

/// Contexts of a flag, of a changed byte, and of a literal.
const FLAG_CONTEXTS: usize = 7;
const CHANGE_CONTEXTS: usize = 8;
const LITERAL_CONTEXTS: usize = 7;
/// Slots of a bucket: one for the check, and a tree of four bits.
const BUCKET: usize = 16;
/// Numbers have at most so many bits.
const NUMBER_BITS: u32 = 48;
/// Bits after the highest that are predicted.
const MANTISSA_BITS: u32 = 3;

/// What both sides know at a place.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Where it is in the new tar.
    pub(super) new_at: u64,
    /// What is before it there, the nearest in the lowest byte.
    pub(super) tail: u64,
    /// What is before and after the aligned place in the old tar, the nearest in the lowest byte.
    pub(super) behind: u64,
    pub(super) ahead: u64,
    /// Flags of the last aligned bytes, the last in the lowest bit: whether they changed.
    pub(super) changed: u32,
    /// By how much the last ones changed, the last in the lowest byte.
    pub(super) changes: u64,
    /// What stood where the last match would go on.
    pub(super) expected: u8,
}

/// The kinds of numbers, which have statistics of their own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Run,
    Jump,
    Distance,
    Length,
}

const NUMBERS: usize = 4;
const NUMBER_SLOTS: usize = 64 + (NUMBER_BITS as usize + 1) * 8;

/// Symbols between aligned stretches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Literal,
    Match,
    /// As far back as an earlier match.
    MatchAgain,
    Jump,
    /// To an earlier alignment.
    JumpAgain,
}

#[derive(Debug)]
pub(super) struct Model {
    logistic: Logistic,
    flags: Vec<Slot>,
    bytes: Vec<Slot>,
    flag_mixer: Mixer<FLAG_CONTEXTS>,
    change_mixer: Mixer<CHANGE_CONTEXTS>,
    literal_mixer: Mixer<LITERAL_CONTEXTS>,
    numbers: Vec<Slot>,
    ops: Vec<Slot>,
    breaks: [Slot; 64],
    recents: [Slot; 2 * 4],
    /// The last ops, three bits each.
    history: usize,
}

#[inline]
fn hash(kind: u32, value: u64) -> u32 {
    let mixed = (value ^ u64::from(kind).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 32) as u32
}

impl Model {
    /// `log` is the binary logarithm of the slots for bytes.
    pub(super) fn new(log: u32) -> Self {
        Self {
            logistic: Logistic::new(),
            flags: vec![0; 1 << (log - 2)],
            bytes: vec![0; 1 << log],
            flag_mixer: Mixer::new(256, 12, 255),
            change_mixer: Mixer::new(256, 18, 127),
            literal_mixer: Mixer::new(256, 14, 127),
            numbers: vec![0; NUMBERS * NUMBER_SLOTS],
            ops: vec![0; 512 * 8],
            breaks: [0; 64],
            recents: [0; 8],
            history: 0,
        }
    }

    /// Whether the aligned byte changed.
    pub(super) fn flag<C: Coder>(&mut self, coder: &mut C, place: &Place, changed: bool) -> bool {
        let Place { new_at, behind, ahead, changed: flags, changes, .. } = *place;
        let (flags64, b) = (u64::from(flags), behind);
        let contexts: [u64; FLAG_CONTEXTS] = [
            flags64 & 0xffff,
            (b & 0xff) | (ahead & 0xff) << 8 | (flags64 & 0xf) << 16,
            (b & 0x00ff_ffff) | (flags64 & 7) << 24,
            (new_at & 511) | (flags64 & 7) << 9,
            (ahead & 0xffff_ffff) | (flags64 & 0xf) << 32,
            (b & 0xffff) | (ahead & 0xffff) << 16 | (flags64 & 3) << 32,
            (changes & 0xff) | (ahead & 0xff) << 8 | (flags64 & 0xff) << 16,
        ];
        let mask = self.flags.len() - 1;
        let mut at = [0; FLAG_CONTEXTS];
        for (kind, (at, context)) in (0..).zip(at.iter_mut().zip(contexts)) {
            *at = hash(kind, context) as usize & mask;
        }
        let set = (flags & 0xff) as usize;
        let bit = self.flag_mixer.code(&self.logistic, coder, &mut self.flags, &at, set, u32::from(changed));
        bit == 1
    }

    /// By how much it changed: the new byte less the old one.
    pub(super) fn change<C: Coder>(&mut self, coder: &mut C, place: &Place, change: u8) -> u8 {
        let Place { new_at, behind, ahead, changed: flags, changes, .. } = *place;
        let flags = u64::from(flags);
        let last = if flags & 1 == 1 { changes & 0xff } else { 0x100 };
        let contexts: [u64; CHANGE_CONTEXTS] = [
            flags & 0xf,
            last | (ahead & 0xff) << 9,
            (changes & 0xffff) | (flags & 0xf) << 16,
            (ahead & 0xffff_ffff) | (flags & 3) << 32,
            (behind & 0xff) | (ahead & 0xffff) << 8 | (flags & 1) << 24,
            (new_at & 511) | (ahead & 0xff) << 9,
            (behind & 0x00ff_ffff) | last << 24,
            (changes & 0x00ff_ffff) | (flags & 0xff) << 24,
        ];
        let hashes = hashes(16, contexts);
        let set = (flags & 7) as usize;
        byte(&mut self.bytes, &mut self.change_mixer, &self.logistic, coder, hashes, set, change)
    }

    /// A byte that is not aligned.
    pub(super) fn literal<C: Coder>(&mut self, coder: &mut C, place: &Place, literal: u8) -> u8 {
        let Place { tail, ahead, expected, .. } = *place;
        let contexts: [u64; LITERAL_CONTEXTS] = [
            tail & 0xff,
            tail & 0xffff,
            tail & 0x00ff_ffff,
            tail & 0xffff_ffff,
            tail & 0xffff_ffff_ffff,
            u64::from(expected) | (tail & 0xff) << 8,
            (ahead & 0xff) | (tail & 0xff) << 8,
        ];
        let hashes = hashes(32, contexts);
        let set = self.history >> 3 & 7;
        byte(&mut self.bytes, &mut self.literal_mixer, &self.logistic, coder, hashes, set, literal)
    }

    /// Whether an aligned stretch ends rather than that a byte changed.
    pub(super) fn breaks<C: Coder>(&mut self, coder: &mut C, place: &Place, breaks: bool) -> bool {
        alone(coder, &mut self.breaks[(place.changed & 63) as usize], u32::from(breaks)) == 1
    }

    /// An op.
    pub(super) fn op<C: Coder>(&mut self, coder: &mut C, op: Op) -> Op {
        let slots = &mut self.ops[(self.history & 511) * 8..][..8];
        let mut bit = |at: usize, bit: bool| alone(coder, &mut slots[at], u32::from(bit)) == 1;
        let read = if !bit(0, op != Op::Literal) {
            Op::Literal
        } else if !bit(1, matches!(op, Op::Jump | Op::JumpAgain)) {
            if bit(2, op == Op::MatchAgain) { Op::MatchAgain } else { Op::Match }
        } else if bit(3, op == Op::JumpAgain) {
            Op::JumpAgain
        } else {
            Op::Jump
        };
        self.remember(read as usize);
        read
    }

    /// Takes note that an aligned stretch came between ops.
    pub(super) const fn remember_aligned(&mut self) {
        self.remember(7);
    }

    const fn remember(&mut self, op: usize) {
        self.history = (self.history << 3 | op) & 0xffff;
    }

    /// Which of the four last distances, or alignments.
    pub(super) fn recent<C: Coder>(&mut self, coder: &mut C, jump: bool, recent: usize) -> usize {
        let slots = &mut self.recents[usize::from(jump) * 4..][..4];
        let high = alone(coder, &mut slots[1], (recent >> 1) as u32);
        (high << 1 | alone(coder, &mut slots[2 + high as usize], (recent & 1) as u32)) as usize
    }

    /// A number below 2⁴⁸.
    pub(super) fn number<C: Coder>(&mut self, coder: &mut C, kind: Number, value: u64) -> u64 {
        let slots = &mut self.numbers[kind as usize * NUMBER_SLOTS..][..NUMBER_SLOTS];
        let value = value + 1;
        let exponent = 63 - value.leading_zeros();
        let mut node = 1;
        for at in (0..6).rev() {
            node = node << 1 | alone(coder, &mut slots[node], exponent >> at & 1) as usize;
        }
        let exponent = (node as u32 - 64).min(NUMBER_BITS);
        let predicted = exponent.min(MANTISSA_BITS);
        let row = &mut slots[64 + exponent as usize * 8..][..8];
        let mut node = 1;
        for at in 1..=predicted {
            node = node << 1 | alone(coder, &mut row[node], (value >> (exponent - at)) as u32 & 1) as usize;
        }
        let rest = exponent - predicted;
        let read = (node as u64) << rest | coder.raw(rest, value);
        read - 1
    }

    /// A check of 16 bits.
    pub(super) fn check<C: Coder>(coder: &mut C, check: u16) -> u16 {
        coder.raw(16, check.into()) as u16
    }
}

fn hashes<const N: usize>(kind: u32, contexts: [u64; N]) -> [u32; N] {
    let mut hashes = [0; N];
    for (at, (out, context)) in (0..).zip(hashes.iter_mut().zip(contexts)) {
        *out = hash(kind + at, context);
    }
    hashes
}

/// Codes a byte, the high bits first.
fn byte<C: Coder, const N: usize>(
    slots: &mut [Slot],
    mixer: &mut Mixer<N>,
    logistic: &Logistic,
    coder: &mut C,
    hashes: [u32; N],
    set: usize,
    value: u8,
) -> u8 {
    let mut read = 1_usize;
    for nibble in 0..2 {
        let mut bases = [0; N];
        for (base, hash) in bases.iter_mut().zip(hashes) {
            *base = bucket(
                slots,
                if nibble == 0 { hash } else { hash.wrapping_add(read as u32).wrapping_mul(0x2c1b_3c6d) },
            );
        }
        let mut node = 1_usize;
        for bit in 0..4 {
            let at = bases.map(|base| base + node);
            let set = set * 32 + nibble * 16 + node;
            let shift = 7 - (nibble as u32 * 4 + bit);
            let bit = mixer.code(logistic, coder, slots, &at, set, u32::from(value >> shift) & 1);
            node = node << 1 | bit as usize;
        }
        read = read << 4 | (node & 15);
    }
    read as u8
}

/// The bucket of a context, emptied if it was another's.
#[inline]
fn bucket(slots: &mut [Slot], hash: u32) -> usize {
    let at = (hash as usize & (slots.len() / BUCKET - 1)) * BUCKET;
    let check = hash >> 16 | 1 << 16;
    if slots[at] != check {
        slots[at..at + BUCKET].fill(0);
        slots[at] = check;
    }
    at
}
