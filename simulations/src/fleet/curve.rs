//! A quantity against time, in few points however long it takes.
//!
//! Invariant: at most twice [`POINTS_MAX`] points are kept, about evenly spaced, the last one always.

use std::time::Duration;

use crate::report::POINTS_MAX;

/// The curve.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    points: Vec<(Duration, u64)>,
    interval: Duration,
}

impl Curve {
    /// A curve whose points are `interval` apart at first.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { points: vec![(Duration::ZERO, 0)], interval: interval.max(Duration::from_millis(1)) }
    }

    /// When the next point is due.
    pub(crate) fn next(&self) -> Duration {
        self.points.last().map_or(Duration::ZERO, |(at, _)| *at) + self.interval
    }

    /// Notes the value, if it is due.
    pub(crate) fn note(&mut self, now: Duration, value: u64) {
        if now < self.next() {
            return;
        }
        self.points.push((now, value));
        if self.points.len() >= 2 * POINTS_MAX {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2;
        }
    }

    /// At most [`POINTS_MAX`] points, with the value at the end.
    pub(crate) fn points(&self, now: Duration, value: u64) -> Vec<(f64, u64)> {
        let step = self.points.len().div_ceil(POINTS_MAX - 1).max(1);
        let kept = self.points.iter().step_by(step).filter(|(at, _)| *at < now);
        kept.copied().chain([(now, value)]).map(|(at, value)| (at.as_secs_f64(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_it_takes_the_points_are_few_and_in_order() {
        let mut curve = Curve::new(Duration::from_secs(1));
        for second in 0..100_000 {
            curve.note(Duration::from_secs(second), second * 10);
        }
        let points = curve.points(Duration::from_secs(100_000), 1_000_000);
        assert!(points.len() <= POINTS_MAX && points.len() > POINTS_MAX / 4, "{}", points.len());
        assert!(points.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(points.last(), Some(&(100_000.0, 1_000_000)));
    }
}
