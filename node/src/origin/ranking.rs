//! Which of a registry's endpoints is asked first.
//!
//! Invariants: pure functions of what they are told; no endpoint is ever left out, those that failed come last. What a tag
//! stands for is asked in the order in which people wrote the endpoints, since mirrors lag behind; bytes are the same wherever
//! they come from, and are asked of the fastest. So that it is known which that is, an endpoint whose rate was not measured
//! for a while gets a turn now and then.

use std::time::Duration;

/// After an endpoint failed, during which others come first; doubles with every failure in a row. 5 s: a blip diverts one pull.
const AVOID_FIRST: Duration = Duration::from_secs(5);
/// Longest such time. 5 min: one fetch in that time waits for an endpoint that is gone for good.
const AVOID_MAX: Duration = Duration::from_secs(300);
/// After which a measured rate says nothing any more. 10 min: a pull's blobs and the next one's.
const MEASURED_FOR: Duration = Duration::from_secs(600);
/// Fewest bytes that measure anything: below it latency decides.
const MEASURED_BYTES_MIN: u64 = 256 << 10;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Words that may differ from endpoint to endpoint.
    Words,
    /// Bytes of a content.
    Bytes,
}

#[derive(Debug, Clone, Default)]
struct Health {
    failures: u32,
    /// Others come first until then, counted from the start.
    avoid_until: Duration,
    /// Bytes a second, and when that was measured.
    rate: Option<(u64, Duration)>,
    /// When its rate was last to be measured.
    tried: Option<Duration>,
}

/// A registry's endpoints.
#[derive(Debug)]
pub(super) struct Ranking {
    endpoints: Vec<Health>,
}

impl Ranking {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { endpoints: vec![Health::default(); endpoints] }
    }

    /// The order in which to ask at `now`, counted from the start.
    pub(super) fn order(&mut self, what: Use, now: Duration) -> Vec<usize> {
        let (mut well, mut ill): (Vec<_>, Vec<_>) =
            (0..self.endpoints.len()).partition(|index| self.endpoints[*index].avoid_until <= now);
        ill.sort_by_key(|index| self.endpoints[*index].avoid_until);
        if what == Use::Bytes {
            let recent = |at: Duration| now.saturating_sub(at) < MEASURED_FOR;
            let rate = |index: &usize| self.endpoints[*index].rate.filter(|(_, at)| recent(*at)).map(|(rate, _)| rate);
            well.sort_by_key(|index| std::cmp::Reverse(rate(index).unwrap_or(0)));
            let unknown = |index: &&usize| {
                rate(index).is_none() && self.endpoints[**index].tried.is_none_or(|tried| !recent(tried))
            };
            if let Some(index) = well.iter().filter(unknown).min().copied() {
                self.endpoints[index].tried = Some(now);
                well.retain(|other| *other != index);
                well.insert(0, index);
            }
        }
        well.into_iter().chain(ill).collect()
    }

    /// An endpoint answered.
    pub(super) fn answered(&mut self, index: usize) {
        if let Some(health) = self.endpoints.get_mut(index) {
            (health.failures, health.avoid_until) = (0, Duration::ZERO);
        }
    }

    /// An endpoint did not answer, or broke off.
    pub(super) fn failed(&mut self, index: usize, now: Duration) {
        if let Some(health) = self.endpoints.get_mut(index) {
            let avoid = AVOID_FIRST.saturating_mul(1 << health.failures.min(16)).min(AVOID_MAX);
            health.failures = health.failures.saturating_add(1);
            health.avoid_until = now + avoid;
            health.rate = None;
        }
    }

    /// An endpoint brought bytes in so much time.
    pub(super) fn brought(&mut self, index: usize, bytes: u64, time: Duration, now: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        if let Some(health) = self.endpoints.get_mut(index).filter(|_| bytes >= MEASURED_BYTES_MIN) {
            let rate = bytes.saturating_mul(1000) / ms;
            let mixed = health.rate.map_or(rate, |(before, _)| before / 4 * 3 + rate / 4);
            health.rate = Some((mixed, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn words_come_in_the_order_written_from_whoever_is_well() {
        let mut ranking = Ranking::new(3);
        assert_eq!(ranking.order(Use::Words, at(0)), [0, 1, 2]);
        ranking.failed(0, at(0));
        assert_eq!(ranking.order(Use::Words, at(4)), [1, 2, 0]);
        ranking.failed(1, at(2));
        assert_eq!(ranking.order(Use::Words, at(4)), [2, 0, 1], "of the ill the one first that is due first");
        assert_eq!(ranking.order(Use::Words, at(5)), [0, 2, 1]);
        ranking.brought(2, 9 * MIB, at(1), at(5));
        ranking.answered(1);
        assert_eq!(ranking.order(Use::Words, at(5)), [0, 1, 2]);
    }

    #[test]
    fn whoever_fails_again_and_again_is_left_alone_for_longer_but_not_for_ever() {
        let mut ranking = Ranking::new(2);
        let mut now = at(0);
        for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
            ranking.failed(0, now);
            assert_eq!(ranking.order(Use::Words, now + at(seconds) - Duration::from_millis(1)), [1, 0]);
            now += at(seconds);
            assert_eq!(ranking.order(Use::Words, now), [0, 1]);
        }
        ranking.answered(0);
        ranking.failed(0, now);
        assert_eq!(ranking.order(Use::Words, now + at(5)), [0, 1]);
    }

    #[test]
    fn bytes_come_from_the_fastest_once_all_were_measured() {
        let mut ranking = Ranking::new(3);
        for (index, rate) in [(0, MIB), (1, 4 * MIB), (2, 2 * MIB)] {
            assert_eq!(ranking.order(Use::Bytes, at(0))[0], index, "its turn");
            ranking.brought(index, rate, at(1), at(1));
        }
        assert_eq!(ranking.order(Use::Bytes, at(2)), [1, 2, 0]);
        ranking.failed(1, at(2));
        assert_eq!(ranking.order(Use::Bytes, at(3)), [2, 0, 1]);
        assert_eq!(ranking.order(Use::Bytes, at(8)), [2, 0, 1], "what it brought before counts for nothing");
        ranking.brought(1, 8 * MIB, at(1), at(9));
        for _ in 0..20 {
            ranking.brought(1, MIB, at(10), at(10));
        }
        assert_eq!(ranking.order(Use::Bytes, at(11)), [2, 0, 1], "it has become slow");
    }

    #[test]
    fn an_endpoint_gets_one_turn_to_be_measured_and_another_much_later() {
        let mut ranking = Ranking::new(2);
        assert_eq!(ranking.order(Use::Bytes, at(0)), [0, 1]);
        assert_eq!(ranking.order(Use::Bytes, at(0)), [1, 0], "the first one is being measured");
        ranking.brought(0, 1000, at(1), at(1));
        assert_eq!(ranking.order(Use::Bytes, at(1)), [0, 1], "too little to tell");
        ranking.brought(0, MIB, at(1), at(2));
        assert_eq!(ranking.order(Use::Bytes, at(599))[0], 0);
        assert_eq!(ranking.order(Use::Bytes, at(600))[0], 1);
        ranking.brought(1, 2 * MIB, at(1), at(601));
        assert_eq!(ranking.order(Use::Bytes, at(601)), [1, 0]);
        assert_eq!(ranking.order(Use::Bytes, at(602))[0], 0, "what was measured is too long ago");
    }
}
