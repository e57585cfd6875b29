//! Prediction and measurement side by side.
//!
//! Invariant: pure. They agree only if every device got what the simulator says that it gets, the last one when it says
//! so, over as many bytes of uplink as it says.

use std::fmt::Write as _;

use super::{outcome::Measured, predict::Prediction};

/// How far the last finish may be off, as a share of what was predicted.
pub const LAST_OFF_MAX: f64 = 0.10;
/// How far copies over the uplink may be off.
pub const COPIES_OFF_MAX: f64 = 0.02;
/// Share of the time with all processors at work from which on they may be what was measured.
const BUSY_MAX: f64 = 0.8;

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

impl Verdict {
    /// Compares. `released_s` says when each release was, on the plan's clock.
    pub fn new(predicted: Prediction, measured: &Measured, released_s: &[f64]) -> Self {
        let mut notes = vec![format!(
            "load {:.2} before, {:.2} after; processors all at work {:.0} % of the time; steps at most {:.2} s late",
            measured.load[0],
            measured.load[1],
            measured.busy * 100.0,
            measured.late_s
        )];
        if measured.busy > BUSY_MAX {
            notes.push("the processors may be what was measured: fewer devices, or slower links".to_owned());
        }
        Self {
            predicted,
            last_s: measured.last_s(released_s),
            copies: measured.copies(predicted.one_copy_bytes),
            done: measured.done(released_s),
            notes,
            failures: measured.failures.clone(),
        }
    }

    /// Measured by predicted, less one.
    fn last_off(&self) -> Option<f64> {
        Some(self.last_s? / self.predicted.last_s.filter(|last| *last > 0.0)? - 1.0)
    }

    fn last_agrees(&self) -> bool {
        match (self.last_off(), self.last_s, self.predicted.last_s) {
            (Some(off), ..) => off.abs() <= LAST_OFF_MAX,
            (None, measured, predicted) => measured.is_none() && predicted.is_none(),
        }
    }

    fn copies_agree(&self) -> bool {
        (self.copies - self.predicted.copies).abs() <= COPIES_OFF_MAX
    }

    /// Whether they agree.
    pub fn agrees(&self) -> bool {
        self.failures.is_empty() && self.done == self.predicted.done && self.last_agrees() && self.copies_agree()
    }

    /// As people read it.
    pub fn to_text(&self, scenario: &str) -> String {
        let seconds = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time:.2} s"));
        let word = |agrees: bool| if agrees { "agrees" } else { "DIFFERS" };
        let off = self.last_off().map_or(String::new(), |off| format!("{:+.1} %", off * 100.0));
        let predicted = &self.predicted;
        let rows = [
            ["", "predicted", "measured", "off by", ""].map(str::to_owned),
            [
                "last finish".to_owned(),
                seconds(predicted.last_s),
                seconds(self.last_s),
                off,
                word(self.last_agrees()).to_owned(),
            ],
            [
                "copies over the uplink".to_owned(),
                format!("{:.3}", predicted.copies),
                format!("{:.3}", self.copies),
                format!("{:+.3}", self.copies - predicted.copies),
                word(self.copies_agree()).to_owned(),
            ],
            [
                format!("devices done, of {}", predicted.wanting),
                predicted.done.to_string(),
                self.done.to_string(),
                String::new(),
                word(self.done == predicted.done).to_owned(),
            ],
        ];
        let mut text = format!("{scenario}: {}\n", if self.agrees() { "agrees" } else { "DIFFERS" });
        for [what, predicted, measured, off, word] in rows {
            let line = format!("  {what:<24}{predicted:>12}{measured:>12}{off:>10}  {word}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
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

    fn predicted(last_s: f64, copies: f64) -> Prediction {
        Prediction { last_s: Some(last_s), copies, done: 2, wanting: 2, one_copy_bytes: 10_000_000 }
    }

    fn verdict(predicted: Prediction) -> Verdict {
        Verdict::new(predicted, &sample(&[Some(11.0), Some(12.0)]), &[2.0])
    }

    #[test]
    fn within_the_bounds_they_agree_and_beyond_they_do_not() {
        assert!(verdict(predicted(10.0, 1.0)).agrees());
        assert!(verdict(predicted(9.2, 1.015)).agrees());
        assert!(!verdict(predicted(9.0, 1.0)).agrees(), "11 % late");
        assert!(!verdict(predicted(11.2, 1.0)).agrees(), "11 % early");
        assert!(!verdict(predicted(10.0, 1.03)).agrees(), "too few bytes");
    }

    #[test]
    fn a_device_that_gets_nothing_or_a_failure_is_no_agreement() {
        let lacking = Verdict::new(predicted(10.0, 1.0), &sample(&[Some(12.0), None]), &[2.0]);
        assert!(!lacking.agrees());
        let mut broken = sample(&[Some(11.0), Some(12.0)]);
        broken.failures.push("a node ended".to_owned());
        let broken = Verdict::new(predicted(10.0, 1.0), &broken, &[2.0]);
        assert!(!broken.agrees());
        assert!(broken.to_text("x").contains("FAIL a node ended"));
    }

    #[test]
    fn where_nobody_is_ever_done_that_has_to_be_predicted_too() {
        let nobody = Verdict::new(predicted(10.0, 1.0), &sample(&[None, None]), &[2.0]);
        assert!(!nobody.agrees());
        let never = Prediction { last_s: None, done: 0, ..predicted(10.0, 1.0) };
        assert!(Verdict::new(never, &sample(&[None, None]), &[2.0]).agrees());
    }

    #[test]
    fn the_table_says_what_differs() {
        let text = verdict(predicted(9.0, 1.0)).to_text("far");
        assert!(text.starts_with("far: DIFFERS\n"), "{text}");
        assert!(text.contains("+11.1 %  DIFFERS") && text.contains("+0.000  agrees"), "{text}");
    }
}
