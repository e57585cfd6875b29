//! Axes: from a value to a place, and the values that are worth a label.
//!
//! Invariant: whatever the largest value is, also none, places are within the plot, ticks are in order, begin at 0, do not
//! exceed the largest value and are few, and no two labels of an axis are the same.

use crate::report::units;

/// A linear axis that begins at 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// The largest value: larger than 0.
    max: f64,
    /// Where 0 is.
    start: f64,
    /// Where the largest value is.
    end: f64,
}

impl Scale {
    /// An axis to `max`; to 1 if that is none.
    pub(crate) fn new(max: f64, start: f64, end: f64) -> Self {
        Self { max: usable(max), start, end }
    }

    /// The largest value.
    pub(crate) fn max(&self) -> f64 {
        self.max
    }

    /// Where a value is; what is beyond the axis is at its end.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let share = value / self.max;
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.start + share * (self.end - self.start)
    }
}

/// A value that has a label.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// What is written at an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// What it measures, and in which unit.
    pub(crate) title: String,
    pub(crate) ticks: Vec<Tick>,
}

/// Steps of times that people count in, in each unit that an axis may have: from which length on, its seconds, its steps.
const UNITS: [(f64, &str, f64, &[f64]); 5] = [
    (0.0, "milliseconds", 0.001, &[]),
    (2.0, "seconds", 1.0, &[0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0]),
    (120.0, "minutes", 60.0, &[0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0]),
    (7_200.0, "hours", 3_600.0, &[0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0, 24.0]),
    (172_800.0, "days", 86_400.0, &[0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 14.0, 28.0]),
];

/// An axis of times from the start, of at most `most` steps; with 3 or more there is a label besides 0.
pub(crate) fn times(max_s: f64, most: u32) -> Axis {
    let max_s = usable(max_s);
    let unit = UNITS.iter().rev().find(|(from, ..)| max_s >= *from).unwrap_or(&UNITS[0]);
    let (_, name, seconds, steps) = *unit;
    let max = max_s / seconds;
    let step = steps.iter().copied().find(|step| max / step <= f64::from(most)).unwrap_or_else(|| decimal(max, most));
    let ticks = stepped(max, step).map(|value| Tick { value: value * seconds, label: plain(value, step) });
    Axis { title: format!("{name} since the start"), ticks: ticks.collect() }
}

/// An axis of numbers, of at most `most` steps (3 or more), none of them smaller than `least`.
pub(crate) fn numbers(max: f64, most: u32, least: f64, title: &str) -> Axis {
    let max = usable(max);
    let step = decimal(max, most).max(least);
    let ticks = stepped(max, step).map(|value| Tick { value, label: plain(value, step) });
    Axis { title: title.to_owned(), ticks: ticks.collect() }
}

/// A largest value that an axis can have.
fn usable(max: f64) -> f64 {
    if max.is_finite() && max > 0.0 { max.clamp(1e-6, 1e15) } else { 1.0 }
}

/// The smallest of 1, 2 and 5 times a power of ten that is at most `most` times in `max`.
fn decimal(max: f64, most: u32) -> f64 {
    let least = max / f64::from(most.max(1));
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    // A hair off is near enough.
    steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(least)
}

/// 0 and every step up to the largest value.
fn stepped(max: f64, step: f64) -> impl Iterator<Item = f64> {
    let last = (max / step * (1.0 + 1e-9)).floor() as u32;
    (0..=last).map(move |index| (f64::from(index) * step).min(max))
}

/// A value with as many digits as its axis's steps need, and no more.
fn plain(value: f64, step: f64) -> String {
    let digits = (0..=8).find(|digits| is_whole(step * 10_f64.powi(*digits))).unwrap_or(8);
    if digits == 0 {
        return units::count(value.round() as u64);
    }
    let text = format!("{value:.0$}", usize::try_from(digits).unwrap_or(0));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6 && value.round() >= 1.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn steps_are_those_that_people_count_in() {
        assert_eq!(labels(&times(3_000.0, 6)), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(times(3_000.0, 6).title, "minutes since the start");
        assert_eq!(labels(&times(86_400.0, 8)), ["0", "3", "6", "9", "12", "15", "18", "21", "24"]);
        assert_eq!(labels(&times(7_200.0, 4)), ["0", "0.5", "1", "1.5", "2"]);
        assert_eq!(labels(&times(0.5, 5)), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(labels(&numbers(10_000.0, 5, 1.0, "")), ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]);
        assert_eq!(labels(&numbers(1.26, 5, 0.0, "")), ["0", "0.5", "1"]);
        assert_eq!(labels(&numbers(2.0, 5, 1.0, "")), ["0", "1", "2"]);
    }

    #[test]
    fn an_axis_of_nothing_is_an_axis() {
        for max in [0.0, -3.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX] {
            assert!(times(max, 6).ticks.len() >= 2, "{max}");
            assert!(numbers(max, 6, 1.0, "").ticks.iter().all(|tick| tick.value.is_finite()), "{max}");
            assert!(Scale::new(max, 10.0, 20.0).at(f64::NAN) >= 10.0, "{max}");
        }
    }

    fn check(axis: &Axis, max: f64, most: u32) -> Result<(), TestCaseError> {
        prop_assert!(axis.ticks.len() <= most as usize + 2, "{:?}", axis);
        prop_assert!(!axis.ticks.is_empty() && axis.ticks[0].value.abs() < 1e-12, "{:?}", axis);
        prop_assert!(axis.ticks.windows(2).all(|pair| pair[0].value < pair[1].value), "{:?}", axis);
        prop_assert!(axis.ticks.windows(2).all(|pair| pair[0].label != pair[1].label), "{:?}", axis);
        prop_assert!(axis.ticks.iter().all(|tick| tick.value <= max * (1.0 + 1e-9)), "{:?}", axis);
        Ok(())
    }

    proptest! {
        #[test]
        fn ticks_are_few_in_order_and_on_the_axis(power in -3.0..9.0_f64, most in 3_u32..12) {
            let max = 10_f64.powf(power);
            check(&times(max, most), max, most)?;
            check(&numbers(max, most, 0.0, ""), max, most)?;
            check(&numbers(max, most, 1.0, ""), max, most)?;
            prop_assert!(numbers(max, most, 0.0, "").ticks.len() >= 2);
            prop_assert!(times(max, most).ticks.len() >= 2);
        }

        #[test]
        fn places_are_on_the_axis_and_in_order(max in any::<f64>(), one in any::<f64>(), other in any::<f64>()) {
            let scale = Scale::new(max, 300.0, 20.0);
            for value in [one, other] {
                prop_assert!((20.0..=300.0).contains(&scale.at(value)));
            }
            if one < other {
                prop_assert!(scale.at(one) >= scale.at(other));
            }
            prop_assert!((scale.at(scale.max()) - 20.0).abs() < 1e-9);
        }
    }
}
