//! The engine's one source of randomness, seeded by the driver.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded generator.
#[derive(Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// An epoch: never zero, which stands for "nothing applied yet".
    pub(super) fn epoch(&mut self) -> u64 {
        self.0.next_u64().max(1)
    }

    /// `mean` give or take a quarter, so that nodes that started together drift apart.
    pub(super) fn around(&mut self, mean: Duration) -> Duration {
        mean * 3 / 4 + self.below(mean / 2)
    }

    /// A place in a list of so many.
    pub(super) fn index(&mut self, count: usize) -> usize {
        ((u64::from(self.0.next_u32()) * count as u64) >> 32) as usize
    }

    /// Less than `max`.
    pub(super) fn below(&mut self, max: Duration) -> Duration {
        max * (self.0.next_u32() >> 16) / (1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_quarter() {
        let mut random = Random::new(7);
        let mean = Duration::from_secs(600);
        let drawn: Vec<_> = (0..1000).map(|_| random.around(mean)).collect();
        assert!(drawn.iter().all(|time| *time >= mean * 3 / 4 && *time < mean * 5 / 4));
        assert!(drawn.iter().any(|time| *time < mean * 4 / 5) && drawn.iter().any(|time| *time > mean * 6 / 5));
    }
}
