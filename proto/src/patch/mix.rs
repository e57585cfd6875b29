//! Probabilities that learn, and their mixing.
//!
//! Bits are predicted as in Matt Mahoney's lpaq: each context has a probability of its own that moves towards the bits
//! seen in it, first quickly and then slowly; a mixer weighs what the contexts say in the logistic domain, and its
//! weights move towards those that were right.
//!
//! Invariant: integers only, so that every machine predicts the same.

use super::range::Coder;

/// What a context knows of a bit: its probability to be one, 22 bits, and below that how often it was seen, 10 bits.
/// The highest bit is inverted, so that zero stands for even odds, never seen.
pub(super) type Slot = u32;

const SEEN_BITS: u32 = 10;
const SEEN_MASK: u32 = (1 << SEEN_BITS) - 1;
const EVEN: u32 = 1 << 31;

/// How far a probability moves, by how often it was seen: 2¹⁵ / (2 n + 3).
const RATES: [i32; 1 << SEEN_BITS] = {
    let mut rates = [0; 1 << SEEN_BITS];
    let mut seen = 0;
    while seen < rates.len() {
        rates[seen] = 32768 / (2 * seen as i32 + 3);
        seen += 1;
    }
    rates
};

/// The probability, of 4096.
#[inline]
const fn p12(slot: Slot) -> usize {
    ((slot ^ EVEN) >> 20) as usize
}

/// Moves the slot towards the bit; its weight stays above that of `limit` sightings.
#[inline]
fn learn(slot: &mut Slot, bit: u32, limit: u32) {
    let seen = *slot & SEEN_MASK;
    let p = ((*slot ^ EVEN) >> SEEN_BITS) as i32;
    let target = ((bit << 22) as i32) - bit as i32;
    let moved = p + ((i64::from(target - p) * i64::from(RATES[seen as usize])) >> 14) as i32;
    *slot = ((moved as u32) << SEEN_BITS | seen.saturating_add(1).min(limit)) ^ EVEN;
}

/// Codes a bit by one slot alone.
#[inline]
pub(super) fn alone<C: Coder>(coder: &mut C, slot: &mut Slot, bit: u32) -> u32 {
    let p = ((*slot ^ EVEN) >> 16).clamp(64, 65536 - 64);
    let bit = coder.bit(p, bit);
    learn(slot, bit, ALONE_LIMIT);
    bit
}

/// Sightings after which a slot that is used alone, or of a context of bytes, or of flags, learns no slower.
const ALONE_LIMIT: u32 = 30;

/// 4096 / (1 + e^(-x/256)), for x of -2047 to 2047.
fn squash(x: i32) -> i32 {
    const KNOTS: [i32; 33] = [
        1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785, 3901,
        3975, 4024, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
    ];
    let x = x.clamp(-2047, 2047);
    let (knot, weight) = (((x >> 7) + 16) as usize, x & 127);
    (KNOTS[knot] * (128 - weight) + KNOTS[knot + 1] * weight + 64) >> 7
}

/// The inverse of [`squash`], for probabilities of 0 to 4095.
fn stretches() -> Box<[i16; 4096]> {
    let mut table = Box::new([0; 4096]);
    let mut from = 0;
    for x in -2047..=2047 {
        let value = squash(x);
        for at in from..=value {
            table[at as usize] = x as i16;
        }
        from = from.max(value + 1);
    }
    for at in from..4096 {
        table[at as usize] = 2047;
    }
    table
}

/// The logistic functions, made once.
#[derive(Debug)]
pub(super) struct Logistic {
    stretch: Box<[i16; 4096]>,
    squash: Box<[i16; 4096]>,
}

impl Logistic {
    pub(super) fn new() -> Self {
        let mut table = Box::new([0; 4096]);
        for (at, value) in table.iter_mut().enumerate() {
            *value = squash(at as i32 - 2048) as i16;
        }
        Self { stretch: stretches(), squash: table }
    }

    #[inline]
    fn squash(&self, x: i32) -> i32 {
        i32::from(self.squash[(x.clamp(-2047, 2047) + 2048) as usize])
    }
}

/// Weighs what `N` contexts say. Which set of weights is used is a context too.
#[derive(Debug)]
pub(super) struct Mixer<const N: usize> {
    weights: Vec<[i32; N]>,
    /// Fine corrections of what comes out, by a context: 33 knots each.
    refined: Vec<u16>,
    rate: i32,
    limit: u32,
}

const WEIGHT_BITS: u32 = 16;
const WEIGHT_MAX: i32 = 1 << 22;

impl<const N: usize> Mixer<N> {
    pub(super) fn new(sets: usize, rate: i32, limit: u32) -> Self {
        let weight = (1 << WEIGHT_BITS) * 2 / (N as i32 + 2);
        let mut refined = Vec::with_capacity(sets * 33);
        for _ in 0..sets {
            refined.extend((0..33).map(|knot| (squash((knot - 16) * 128) * 16) as u16));
        }
        Self { weights: vec![[weight; N]; sets], refined, rate, limit }
    }

    /// Codes a bit by the slots at `at`.
    #[inline]
    pub(super) fn code<C: Coder>(
        &mut self,
        logistic: &Logistic,
        coder: &mut C,
        slots: &mut [Slot],
        at: &[usize; N],
        set: usize,
        bit: u32,
    ) -> u32 {
        let weights = &mut self.weights[set];
        let mut inputs = [0_i32; N];
        let mut sum = 0_i64;
        for ((input, weight), at) in inputs.iter_mut().zip(weights.iter()).zip(at) {
            *input = i32::from(logistic.stretch[p12(slots[*at])]);
            sum += i64::from(*input) * i64::from(*weight);
        }
        let x = ((sum >> WEIGHT_BITS) as i32).clamp(-2047, 2047);
        let p = logistic.squash(x);
        // The refinement looks up what really came of such predictions.
        let (knot, weight) = (((x + 2048) >> 7) as usize, (x + 2048) & 127);
        let row = set * 33 + knot;
        let seen = (i32::from(self.refined[row]) * (128 - weight) + i32::from(self.refined[row + 1]) * weight) >> 7;
        let p16 = ((p * 16 + 3 * seen) >> 2).clamp(24, 65536 - 24);
        let bit = coder.bit(p16 as u32, bit);
        let nearer = row + usize::from(weight >= 64);
        let target = if bit == 1 { 65535 } else { 0 };
        self.refined[nearer] =
            (i32::from(self.refined[nearer]) + ((target - i32::from(self.refined[nearer])) >> 6)) as u16;
        let error = (((bit << 12) as i32) - p) * self.rate;
        for (weight, input) in weights.iter_mut().zip(&inputs) {
            *weight = (*weight + ((input * error + (1 << 15)) >> 16)).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        }
        for at in at {
            learn(&mut slots[*at], bit, self.limit);
        }
        bit
    }
}
