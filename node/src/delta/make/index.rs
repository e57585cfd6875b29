//! Where bytes were seen before.

/// No place.
const NONE: u32 = u32::MAX;

/// Places by the hash of the bytes that begin there, the last first.
#[derive(Debug)]
pub(super) struct Index {
    seed: usize,
    bits: u32,
    heads: Vec<u32>,
    /// The place before, by the place modulo the length.
    before: Vec<u32>,
    /// Places up to here were taken.
    pub(super) end: usize,
}

impl Index {
    /// An index by `seed` bytes, 4 to 16, of the last 2^log places.
    pub(super) fn new(seed: usize, log: u32) -> Self {
        let bits = log.clamp(10, 22);
        Self { seed, bits, heads: vec![NONE; 1 << bits], before: vec![NONE; 1 << log], end: 0 }
    }

    /// An index that holds all of `len` places.
    pub(super) fn of(seed: usize, len: usize) -> Self {
        Self::new(seed, usize::BITS - len.max(1024).leading_zeros())
    }

    fn hash(&self, bytes: &[u8]) -> Option<usize> {
        let bytes = bytes.get(..self.seed)?;
        let mut value = 0_u64;
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            value = (value.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        Some(((value ^ value >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - self.bits)) as usize)
    }

    /// Takes the places of `data` up to `end`, or one of `step` of them.
    pub(super) fn extend(&mut self, data: &[u8], end: usize, step: usize) {
        for at in (self.end.next_multiple_of(step)..end).step_by(step) {
            if let Some(hash) = self.hash(&data[at..]) {
                let slot = at & (self.before.len() - 1);
                self.before[slot] = std::mem::replace(&mut self.heads[hash], at as u32);
            }
        }
        self.end = self.end.max(end);
    }

    /// Places where `bytes` may begin, the last first, `most` at most.
    pub(super) fn places(&self, bytes: &[u8], most: usize) -> impl Iterator<Item = usize> {
        let mut next = self.hash(bytes).map_or(NONE, |hash| self.heads[hash]);
        let oldest = self.end.saturating_sub(self.before.len());
        std::iter::from_fn(move || {
            let at = next as usize;
            if next == NONE || at < oldest {
                return None;
            }
            let before = self.before[at & (self.before.len() - 1)];
            // The slot may have been taken by a later place since.
            next = if before == NONE || before as usize >= at { NONE } else { before };
            Some(at)
        })
        .take(most)
    }
}

/// How many bytes two slices begin with that are the same.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if a != b {
            break;
        }
        len += 8;
    }
    len + a[len..].iter().zip(&b[len..]).take_while(|(a, b)| a == b).count()
}

/// How many bytes two slices end with that are the same.
pub(super) fn common_end(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}
