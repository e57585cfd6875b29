//! Prediction and measurement side by side.
//!
//! Invariant: pure. They agree only if every device got what the simulator says that it gets, the last one when it says
//! so, over as many bytes of uplink as it says.

use std::fmt::Write as _;

use super::{
    outcome::Measured,
    predict::{Prediction, Range},
};

/// How far the last finish may lie outside what was predicted, as a share of it.
pub const LAST_OFF_MAX: f64 = 0.10;
/// How far copies over the uplink may.
pub const COPIES_OFF_MAX: f64 = 0.02;
/// Share of their time at work from which on the processors may be what was measured.
const BUSY_MAX: f64 = 0.9;

/// What the simulator says, and what was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    predicted: Prediction,
    last_s: Option<f64>,
    copies: f64,
    done: u32,
    notes: Vec<String>,
    failures: Vec<String>,
}

/// A line of the table.
struct Row {
    what: String,
    predicted: String,
    measured: String,
    off: String,
    agrees: bool,
}

impl Verdict {
    /// Compares. `released_s` says when each release was, on the plan's clock.
    pub fn new(predicted: &Prediction, measured: &Measured, released_s: &[f64]) -> Self {
        let mut notes = vec![
            format!(
                "load {:.1} before and {:.1} after, processors {:.0} % at work; steps {:.2} s late at most",
                measured.load[0],
                measured.load[1],
                measured.busy * 100.0,
                measured.late_s
            ),
            format!(
                "the nodes that run at the end count {:.3} copies from the registry",
                measured.origin_bytes as f64 / predicted.one_copy_bytes.max(1) as f64
            ),
        ];
        if measured.busy > BUSY_MAX {
            notes.push("the processors may be what was measured: stop other work, or take fewer devices".to_owned());
        }
        Self {
            predicted: predicted.clone(),
            last_s: measured.last_s(released_s),
            copies: measured.copies(predicted.one_copy_bytes),
            done: measured.done(released_s),
            notes,
            failures: measured.failures.clone(),
        }
    }

    fn last_agrees(&self) -> bool {
        let range = self.predicted.last_s;
        match self.last_s {
            Some(last) => range.high > 0.0 && range.outside(last).abs() <= range.median * LAST_OFF_MAX,
            None => self.predicted.done == 0,
        }
    }

    fn copies_agree(&self) -> bool {
        self.predicted.copies.outside(self.copies).abs() <= COPIES_OFF_MAX
    }

    /// Whether they agree.
    pub fn agrees(&self) -> bool {
        self.failures.is_empty() && self.done == self.predicted.done && self.last_agrees() && self.copies_agree()
    }

    fn rows(&self) -> [Row; 3] {
        let predicted = &self.predicted;
        let range = |range: Range, places: usize| {
            if range.high - range.low < 0.5 * 10_f64.powi(-(places as i32)) {
                format!("{:.places$}", range.median)
            } else {
                format!("{:.places$} ({:.places$}-{:.places$})", range.median, range.low, range.high)
            }
        };
        let last_off = self.last_s.filter(|_| predicted.last_s.median > 0.0);
        [
            Row {
                what: "last finish, s".to_owned(),
                predicted: range(predicted.last_s, 1),
                measured: self.last_s.map_or("never".to_owned(), |last| format!("{last:.1}")),
                off: last_off
                    .map_or(String::new(), |last| format!("{:+.1} %", (last / predicted.last_s.median - 1.0) * 100.0)),
                agrees: self.last_agrees(),
            },
            Row {
                what: "copies over the uplink".to_owned(),
                predicted: range(predicted.copies, 3),
                measured: format!("{:.3}", self.copies),
                off: format!("{:+.3}", self.copies - predicted.copies.median),
                agrees: self.copies_agree(),
            },
            Row {
                what: format!("devices done, of {}", predicted.wanting),
                predicted: predicted.done.to_string(),
                measured: self.done.to_string(),
                off: String::new(),
                agrees: self.done == predicted.done,
            },
        ]
    }

    /// As people read it.
    pub fn to_text(&self, scenario: &str) -> String {
        let word = |agrees: bool| if agrees { "agrees" } else { "DIFFERS" };
        let mut text = format!("{scenario}: {}\n", word(self.agrees()));
        let mut line = |columns: [&str; 5]| {
            let [what, predicted, measured, off, word] = columns;
            let line = format!("  {what:<24}{predicted:>22}{measured:>11}{off:>10}  {word}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        line(["", "predicted", "measured", "off by", ""]);
        for row in self.rows() {
            line([&row.what, &row.predicted, &row.measured, &row.off, word(row.agrees)]);
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "  FAIL {failure}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::sample, *};

    fn point(at: f64) -> Range {
        Range { low: at, median: at, high: at }
    }

    fn predicted(last_s: f64, copies: f64) -> Prediction {
        Prediction { last_s: point(last_s), copies: point(copies), done: 2, wanting: 2, one_copy_bytes: 10_000_000 }
    }

    fn verdict(predicted: &Prediction) -> Verdict {
        Verdict::new(predicted, &sample(&[Some(11.0), Some(12.0)]), &[2.0])
    }

    #[test]
    fn within_the_bounds_they_agree_and_beyond_they_do_not() {
        assert!(verdict(&predicted(10.0, 1.0)).agrees());
        assert!(verdict(&predicted(9.2, 1.015)).agrees());
        assert!(!verdict(&predicted(9.0, 1.0)).agrees(), "11 % late");
        assert!(!verdict(&predicted(11.2, 1.0)).agrees(), "11 % early");
        assert!(!verdict(&predicted(10.0, 1.03)).agrees(), "too few bytes");
    }

    #[test]
    fn what_chance_may_do_is_within_the_range() {
        let mut wide = predicted(8.0, 1.0);
        assert!(!verdict(&wide).agrees());
        wide.last_s.high = 9.5;
        assert!(verdict(&wide).agrees());
        let text = verdict(&wide).to_text("wide");
        assert!(text.contains("8.0 (8.0-9.5)"), "{text}");
    }

    #[test]
    fn a_device_that_gets_nothing_or_a_failure_is_no_agreement() {
        let lacking = Verdict::new(&predicted(10.0, 1.0), &sample(&[Some(12.0), None]), &[2.0]);
        assert!(!lacking.agrees());
        let mut broken = sample(&[Some(11.0), Some(12.0)]);
        broken.failures.push("a node ended".to_owned());
        let broken = Verdict::new(&predicted(10.0, 1.0), &broken, &[2.0]);
        assert!(!broken.agrees());
        assert!(broken.to_text("x").contains("FAIL a node ended"));
    }

    #[test]
    fn where_nobody_is_ever_done_that_has_to_be_predicted_too() {
        let nobody = Verdict::new(&predicted(10.0, 1.0), &sample(&[None, None]), &[2.0]);
        assert!(!nobody.agrees());
        let never = Prediction { last_s: Range::default(), done: 0, ..predicted(10.0, 1.0) };
        assert!(Verdict::new(&never, &sample(&[None, None]), &[2.0]).agrees());
    }

    #[test]
    fn the_table_says_what_differs() {
        let text = verdict(&predicted(9.0, 1.0)).to_text("far");
        assert!(text.starts_with("far: DIFFERS\n"), "{text}");
        assert!(text.contains("+11.1 %  DIFFERS") && text.contains("-0.001  agrees"), "{text}");
    }
}
