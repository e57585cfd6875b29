//! Sizes, rates and durations as people write and read them.

use std::time::Duration;

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Bits in a second, in bytes: decimal, as links are sold and as `tc` has them.
const RATES: [(&str, u64); 3] = [("kbit", 125), ("mbit", 125_000), ("gbit", 125_000_000)];

/// Parses `64MiB`, `1.5 GiB`, `500MB` or a plain number of bytes.
///
/// # Errors
/// With what to write instead.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write a number and a unit, such as `64MiB` or `2GB`");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let scale = if unit.is_empty() {
        1
    } else {
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(|| format!("`{text}` is too large"));
    }
    if !number.contains('.') {
        return Err(if number.is_empty() { wrong() } else { format!("`{text}` is too large") });
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = fraction * scale as f64;
    if bytes > u64::MAX as f64 {
        return Err(format!("`{text}` is too large"));
    }
    Ok(bytes as u64)
}

/// Parses `80mbit`, `1.5 gbit` or `unlimited`; returns bytes a second, `None` for no limit.
///
/// # Errors
/// With what to write instead.
pub fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    let wrong =
        || format!("`{text}` is not a rate: write a number and a unit, such as `80mbit` or `512kbit`, or `unlimited`");
    let text = text.trim();
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(None);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = RATES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?.1;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let rate = number * scale as f64;
    if rate > u64::MAX as f64 {
        return Err(format!("`{text}` is too large"));
    }
    match rate as u64 {
        0 => Err(format!("`{text}` is no rate at all")),
        bytes_per_s => Ok(Some(bytes_per_s)),
    }
}

/// Units of time, in seconds.
const TIMES: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 86_400)];

/// Parses `60s`, `10 min`, `24h` or `7d`.
///
/// # Errors
/// With what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a time: write a number and a unit (s, min, h or d), such as `60s` or `24h`");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = TIMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(wrong)?.1;
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// Shows a rate given in bytes a second as links are sold: `80 Mbit/s`, `1.5 Gbit/s`, `512 kbit/s`.
pub fn show_rate(bytes_per_s: u64) -> String {
    let bits = bytes_per_s as f64 * 8.0;
    let (value, unit) = match bits {
        ..1e3 => (bits, "bit/s"),
        1e3..1e6 => (bits / 1e3, "kbit/s"),
        1e6..1e9 => (bits / 1e6, "Mbit/s"),
        _ => (bits / 1e9, "Gbit/s"),
    };
    // Two decimals are enough to tell rates apart; what people write has none of them as a rule.
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

/// Shows a size with three or more significant digits: `0 B`, `1.50 KiB`, `412 MiB`.
pub fn show_bytes(bytes: u64) -> String {
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
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {name}")
}

/// Shows how long something took or has lasted: `0.42 s`, `12.3 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", duration.as_secs_f64()),
        10..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1.5KiB", 1536),
            ("2GB", 2_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "64 MiBs", "-1", "1.2.3MB", "64M", "18446744073709551616", "99999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_shown_as_links_are_sold() {
        for (text, bytes_per_s, shown) in [
            ("80mbit", 10_000_000, "80 Mbit/s"),
            ("1.5 Gbit", 187_500_000, "1.5 Gbit/s"),
            (" 512kbit ", 64_000, "512 kbit/s"),
            ("0.01kbit", 1, "8 bit/s"),
        ] {
            assert_eq!(parse_rate(text), Ok(Some(bytes_per_s)), "{text}");
            assert_eq!(show_rate(bytes_per_s), shown);
        }
        assert_eq!(parse_rate("Unlimited"), Ok(None));
        for text in ["", "80", "mbit", "80mb", "80 mbit/s", "-1mbit", "1.2.3mbit", "0mbit", "0.001kbit", "none"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        assert!(parse_rate(&format!("{}gbit", "9".repeat(30))).unwrap_err().contains("too large"));
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("0s", 0), ("60s", 60), ("10 min", 600), ("24H", 86_400), (" 7d ", 604_800)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "60", "s", "1.5h", "-1s", "1w", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_duration(text).unwrap_err().contains("such as `60s`"), "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            (10 << 10, "10.0 KiB"),
            (412 << 20, "412 MiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(show_bytes(bytes), text);
        }
        for (millis, text) in [
            (420, "0.42 s"),
            (12_340, "12.3 s"),
            (185_000, "3 min 05 s"),
            (7_620_000, "2 h 07 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
        }
    }
}
