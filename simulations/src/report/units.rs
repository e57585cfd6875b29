//! Numbers as people read them, the way the node's own command line writes them.
//!
//! Invariant: every number has a text, also one that no run can have; none is longer than a table's cell.

use std::time::Duration;

/// A size with three or more significant digits: `0 B`, `1.50 KiB`, `412 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut name = NAMES[0];
    for next in &NAMES[1..] {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        name = next;
    }
    let digits = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {name}")
}

/// How long something took: `0.42 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
    let whole = time.as_secs();
    match whole {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// How long something took, or that it never came to an end.
pub(crate) fn duration_or_never(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), duration)
}

/// A whole number, its thousands apart: `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 device`, `2 devices`, `12,345 devices`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A ratio near 1, in few digits: `1.003`, `12.3`, `1,234`.
pub(crate) fn ratio(value: f64) -> String {
    match value {
        ..9.9995 => format!("{value:.3}"),
        ..999.95 => format!("{value:.1}"),
        // Beyond what a count can say it says that.
        _ => count(value.round() as u64),
    }
}

/// A ratio, or that there is none.
pub(crate) fn ratio_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), ratio)
}

/// A part of a whole; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A share: `43 %`, `0.3 %`. What is not all is not shown as all, nor what is not nothing as nothing.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    match value {
        ..=0.0 => "0 %".to_owned(),
        ..0.1 => "< 0.1 %".to_owned(),
        ..9.95 => format!("{value:.1} %"),
        ..99.5 => format!("{value:.0} %"),
        ..100.0 => format!("{:.1} %", value.min(99.9)),
        _ => format!("{value:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.50 KiB"), (412 << 20, "412 MiB")] {
            assert_eq!(bytes(value), text);
        }
        for (value, text) in [
            (0.42, "0.42 s"),
            (12.34, "12.3 s"),
            (185.0, "3 min 05 s"),
            (7620.0, "2 h 07 min"),
            (273_600.0, "3 d 4 h"),
            (-1.0, "0.00 s"),
            (f64::NAN, "0.00 s"),
        ] {
            assert_eq!(duration(value), text);
        }
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([ratio(1.0034), ratio(12.34), ratio(1234.4)], ["1.003", "12.3", "1,234"]);
        assert_eq!([counted(1, "site", "sites"), counted(2, "site", "sites")], ["1 site", "2 sites"]);
        assert_eq!([duration_or_never(None), ratio_or_none(None)], ["never", "-"]);
    }

    #[test]
    fn a_share_that_is_not_all_is_not_shown_as_all() {
        assert_eq!([percent(0.0), percent(1.0), percent(0.43)], ["0 %", "100 %", "43 %"]);
        assert_eq!([percent(0.99999), percent(0.996), percent(0.00001)], ["99.9 %", "99.6 %", "< 0.1 %"]);
        assert_eq!(share(1, 0).to_bits(), 0.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn every_number_has_a_short_text(value in any::<f64>(), size in any::<u64>()) {
            for text in [duration(value), ratio(value.abs()), bytes(size), count(size), percent(share(size / 2, size))] {
                prop_assert!(!text.is_empty() && text.len() <= 30, "{}", text);
            }
        }
    }
}
