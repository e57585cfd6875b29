//! Windows of the week as people write them.
//!
//! ```text
//! window = [ days ] [ from "-" to ]     at least one of them
//! days   = day [ "-" day ] { "," day [ "-" day ] }
//! day    = "mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun"
//! from   = "00:00" … "23:59"            to = "00:00" … "24:00"
//! ```
//!
//! Without days it is every day, without times the whole day. An end that is not later than the beginning is on the next
//! day: `mon-fri 22:00-06:00` ends on Saturday morning.

use layermesh_proto::engine::budget::{MINUTES_PER_DAY, Window};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const EXAMPLE: &str = "write one such as `mon-fri 22:00-06:00`, `sat,sun` or `01:00-05:00`";

/// Parses a window.
///
/// # Errors
/// With what is wrong and what to write instead.
pub(super) fn parse_window(text: &str) -> Result<Window, String> {
    let wrong = |what: &str| format!("`{text}` is not a window: {what}; {EXAMPLE}");
    let words: Vec<_> = text.split_whitespace().collect();
    let (days, times) = match words.as_slice() {
        [] => return Err(wrong("it is empty")),
        [times] if times.contains(':') => (None, Some(*times)),
        [days] => (Some(*days), None),
        [days, times] if !days.contains(':') => (Some(*days), Some(*times)),
        _ => return Err(wrong("it is days and then times, each without spaces")),
    };
    let days = days.map_or(Ok([true; 7]), parse_days).map_err(|what| wrong(&what))?;
    let (from, to) = times.map_or(Ok((0, MINUTES_PER_DAY)), parse_times).map_err(|what| wrong(&what))?;
    if from == to {
        return Err(wrong("it ends when it begins, and for a whole day the times are left out"));
    }
    Window::new(days, from, to).map_err(|error| wrong(&error.to_string()))
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_day(first)?, parse_day(last)?);
        // From Saturday to Monday is over the end of the week.
        let count = (last + DAYS.len() - first) % DAYS.len() + 1;
        let (before, from) = days.split_at_mut(first);
        for day in from.iter_mut().chain(before).take(count) {
            *day = true;
        }
    }
    Ok(days)
}

fn parse_day(text: &str) -> Result<usize, String> {
    let day = DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    day.ok_or_else(|| format!("`{text}` is no day, days are {}", DAYS.join(", ")))
}

fn parse_times(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').ok_or_else(|| format!("`{text}` is not from when to when"))?;
    let (from, to) = (parse_time(from)?, parse_time(to)?);
    if from == MINUTES_PER_DAY {
        return Err("no day begins at `24:00`, the next one begins at `00:00`".to_owned());
    }
    Ok((from, to))
}

/// Minutes since midnight, 24:00 included.
fn parse_time(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no time of day, which is written as `06:00`");
    let number = |digits: &str, lengths: std::ops::RangeInclusive<usize>| {
        let plain = lengths.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let (hours, minutes) = number(hours, 1..=2).zip(number(minutes, 2..=2)).ok_or_else(wrong)?;
    let time = hours * 60 + minutes;
    if minutes < 60 && time <= MINUTES_PER_DAY { Ok(time) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(text: &str) -> [bool; 7] {
        std::array::from_fn(|day| text.as_bytes()[day] == b'x')
    }

    #[test]
    fn days_and_times_may_each_be_left_out() {
        for (text, on, from, to) in [
            ("mon-fri 22:00-06:00", "xxxxx..", 1320, 360),
            ("sat,sun", ".....xx", 0, 1440),
            ("01:00-5:30", "xxxxxxx", 60, 330),
            ("Mon,wed-thu,SUN 12:15-24:00", "x.xx..x", 735, 1440),
            ("sat-mon 20:00-00:00", "x....xx", 1200, 0),
            ("  fri   00:00-24:00 ", "....x..", 0, 1440),
            ("mon-sun", "xxxxxxx", 0, 1440),
        ] {
            assert_eq!(parse_window(text), Ok(Window::new(days(on), from, to).unwrap()), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named_with_an_example() {
        for (text, what) in [
            ("", "it is empty"),
            ("weekend", "`weekend` is no day, days are mon, tue"),
            ("mon-frei 22:00-06:00", "`frei` is no day"),
            ("mon, tue 22:00-06:00", "it is days and then times, each without spaces"),
            ("22:00-06:00 mon", "it is days and then times"),
            ("22:00", "`22:00` is not from when to when"),
            ("mon 22-6", "`22` is no time of day, which is written as `06:00`"),
            ("25:00-06:00", "`25:00` is no time of day"),
            ("22:60-06:00", "`22:60` is no time of day"),
            ("22:0-06:00", "`22:0` is no time of day"),
            ("+1:00-06:00", "`+1:00` is no time of day"),
            ("24:00-06:00", "no day begins at `24:00`"),
            ("06:00-06:00", "it ends when it begins"),
            ("mon,,tue", "`` is no day"),
        ] {
            let error = parse_window(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` is not a window: ")), "{error}");
            assert!(error.contains(what), "{what} in {error}");
            assert!(error.ends_with(EXAMPLE), "{error}");
        }
    }
}
