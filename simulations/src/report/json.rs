//! A report for programs: JSON, and back.
//!
//! Invariant: one report gives the same bytes each time, and so does what is read back from them. Times are rounded to
//! milliseconds and ratios to four digits before they are written; what no JSON can hold (no number at all) becomes 0.

use std::{error::Error, fmt, io};

use serde::{Deserialize, Serialize};
use serde_json::{Serializer, ser::Formatter};

use super::{Report, SiteReport, Totals};

/// The number of the layout of a report's JSON. It changes when a reader of the old one would misread the new one.
pub const FORMAT: u32 = 1;

/// How deep in the document things have a line of their own: a site is one line, so that two reports can be compared by
/// line as well.
const LINES_DEPTH: usize = 2;

/// Why a text is no report.
#[derive(Debug)]
pub enum JsonError {
    /// It is no JSON, or not a report's.
    Malformed(serde_json::Error),
    /// It is a report of another format.
    Format(u32),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "not a report of a simulation: {error}"),
            Self::Format(format) => {
                write!(f, "a report of format {format}, and this program reads format {FORMAT}: run the scenario again")
            }
        }
    }
}

impl Error for JsonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Malformed(error) => Some(error),
            Self::Format(_) => None,
        }
    }
}

/// A report and which format it has.
#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    #[serde(flatten)]
    report: &'a Report,
}

/// What is read first: the rest may have another layout.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Report {
    /// The report as JSON, one line to a site, ending with a line break.
    pub fn to_json(&self) -> Result<String, JsonError> {
        let document = Document { format: FORMAT, report: &self.rounded() };
        let mut bytes = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut bytes, Lines::default());
        document.serialize(&mut serializer).map_err(JsonError::Malformed)?;
        bytes.push(b'\n');
        String::from_utf8(bytes).map_err(|error| JsonError::Malformed(serde::ser::Error::custom(error)))
    }

    /// Reads what [`Self::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, JsonError> {
        let head: Head = serde_json::from_str(text).map_err(JsonError::Malformed)?;
        if head.format != FORMAT {
            return Err(JsonError::Format(head.format));
        }
        let report: Self = serde_json::from_str(text).map_err(JsonError::Malformed)?;
        // Reading may be off by the last bit.
        Ok(report.rounded())
    }

    /// The same with as many digits as are written.
    pub fn rounded(&self) -> Self {
        let mut report = self.clone();
        report.ended_s = millis(report.ended_s);
        round_totals(&mut report.fleet);
        round_times(&mut report.completion);
        for release in &mut report.releases {
            release.at_s = millis(release.at_s);
            release.spread_s = millis(release.spread_s);
        }
        for fault in &mut report.faults {
            fault.from_s = millis(fault.from_s);
            fault.to_s = fault.to_s.map(millis);
        }
        report.sites.iter_mut().for_each(round_site);
        for device in &mut report.slowest {
            device.took_s = device.took_s.map(millis);
        }
        report
    }
}

fn round_site(site: &mut SiteReport) {
    round_totals(&mut site.totals);
    round_times(&mut site.uplink);
    round_times(&mut site.completion);
}

fn round_totals(totals: &mut Totals) {
    totals.copies = rounded(totals.copies, 1e4);
    totals.uplink_only_s = millis(totals.uplink_only_s);
    for time in [&mut totals.first_s, &mut totals.median_s, &mut totals.last_s] {
        *time = time.map(millis);
    }
}

fn round_times<T>(curve: &mut [(f64, T)]) {
    for (time, _) in curve {
        *time = millis(*time);
    }
}

fn millis(seconds: f64) -> f64 {
    rounded(seconds, 1e3)
}

fn rounded(value: f64, steps: f64) -> f64 {
    let rounded = (value * steps).round() / steps;
    // Adding 0 turns -0 into 0.
    if rounded.is_finite() { rounded + 0.0 } else { 0.0 }
}

/// Lays JSON out in lines down to [`LINES_DEPTH`].
#[derive(Default)]
struct Lines {
    depth: usize,
    /// Whether what was opened last has something in it.
    filled: bool,
}

impl Lines {
    fn open<W: io::Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        writer.write_all(bracket)
    }

    fn next<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        self.line(writer, self.depth)
    }

    fn close<W: io::Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        if self.filled {
            self.line(writer, self.depth - 1)?;
        }
        self.depth -= 1;
        self.filled = true;
        writer.write_all(bracket)
    }

    /// Begins a line `indent` deep, if what is open now is laid out in lines.
    fn line<W: io::Write + ?Sized>(&self, writer: &mut W, indent: usize) -> io::Result<()> {
        if self.depth > LINES_DEPTH {
            return Ok(());
        }
        writer.write_all(b"\n")?;
        (0..indent).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Lines {
    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.next(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(if self.depth > LINES_DEPTH { b":" } else { b": " })
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::report::sample;

    #[test]
    fn what_is_written_is_read_and_written_again_the_same() {
        for report in [sample::fleet(40), sample::fleet(3), sample::empty(), sample::broken()] {
            let text = report.to_json().unwrap();
            assert_eq!(text, report.to_json().unwrap());
            let read = Report::from_json(&text).unwrap();
            assert_eq!(read, report.rounded());
            assert_eq!(read.to_json().unwrap(), text);
        }
    }

    #[test]
    fn it_says_its_format_first_and_gives_a_site_one_line() {
        let report = sample::fleet(5);
        let text = report.to_json().unwrap();
        assert!(text.starts_with("{\n  \"format\": 1,\n  \"scenario\": "), "{}", &text[..80]);
        assert!(text.ends_with("}\n"));
        let sites =
            text.lines().filter(|line| line.starts_with("    {\"name\":\"") && line.contains("\"uplink\":")).count();
        assert_eq!(sites, 5);
    }

    #[test]
    fn an_empty_report_has_empty_lists() {
        let text = sample::empty().to_json().unwrap();
        assert!(text.contains("\"sites\": []"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let mut report = sample::empty();
        report.ended_s = 1.0 / 3.0;
        report.fleet.copies = 2.0 / 3.0;
        report.fleet.last_s = Some(f64::NAN);
        let text = report.to_json().unwrap();
        assert!(text.contains("\"ended_s\": 0.333,"), "{text}");
        assert!(text.contains("\"copies\": 0.6667,"), "{text}");
        assert!(text.contains("\"last_s\": 0.0,"), "{text}");
        assert!(Report::from_json(&text).is_ok());
    }

    #[test]
    fn another_format_and_no_report_are_told_apart() {
        let text = sample::empty().to_json().unwrap();
        let newer = Report::from_json(&text.replace("\"format\": 1", "\"format\": 2")).unwrap_err();
        assert!(newer.to_string().contains("format 2"), "{newer}");
        assert!(Report::from_json("{}").unwrap_err().to_string().starts_with("not a report"));
        assert!(Report::from_json("{\"format\":1}").unwrap_err().source().is_some());
    }

    proptest! {
        #[test]
        fn rounding_again_changes_nothing(value in -1e9..1e12_f64) {
            prop_assert_eq!(millis(millis(value)).to_bits(), millis(value).to_bits());
            let text = serde_json::to_string(&millis(value)).unwrap();
            prop_assert_eq!(millis(serde_json::from_str(&text).unwrap()).to_bits(), millis(value).to_bits());
        }
    }
}
