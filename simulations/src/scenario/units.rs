//! Rates, sizes, times and shares as people write them.
//!
//! Invariant: what a `write_` function returns, its `parse_` function reads back as the same value. Numbers are scaled
//! as decimals, never as floats, so `0.3GB` is 300,000,000 bytes.

use std::time::Duration;

use thiserror::Error;

use super::Daily;

/// Why a value is not of its unit, and how to write one that is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// Not a rate.
    #[error("`{0}` is not a rate: write bits as `2mbit`, `512kbit` or `1gbit`, or bytes as `10MB/s` or `300KB/s`")]
    Rate(String),
    /// Not a size.
    #[error("`{0}` is not a size: write a number and a unit, such as `300MB`, `1.5GB` or `4GiB`")]
    Size(String),
    /// Not a duration.
    #[error(
        "`{0}` is not a duration: write numbers and units from `y d h m s ms us ns`, the longest first, such as `90s`, \
         `10m`, `1h30m` or `0.5ms`"
    )]
    Duration(String),
    /// Not a time of every day.
    #[error("`{0}` is not a time of day: write from when to when, such as `01:00-05:00` or `22:00-06:00`")]
    Daily(String),
    /// A time of every day that ends when it begins.
    #[error("`{0}` ends when it begins: leave it out for the whole day")]
    DailyWhole(String),
    /// Not a time of the week.
    #[error("`{0}` is not a time of the week: write a day from Mon to Sun and a time, such as `Mon 22:00`")]
    Start(String),
    /// Not a share.
    #[error("`{0}` is not a share: write a number from 0 to 1 such as `0.1`, or `\"10%\"`")]
    Share(String),
    /// Too large a number.
    #[error("`{text}` is too large: at most {max} is possible")]
    TooLarge {
        /// What was written.
        text: String,
        /// What is the most.
        max: String,
    },
    /// Nothing at all, where there has to be something.
    #[error("`{0}` is nothing at all: write more than zero")]
    Zero(String),
}

/// Highest rate, in bytes a second: 1 Tbit/s, above any link of a device.
pub const RATE_MAX: u64 = 125_000_000_000;
/// Longest time that can be written: 100 years, beyond any clock that is wrong.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

const MINUTES_PER_DAY: u16 = 1440;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Bits are decimal, as links are sold.
const BITS: [(&str, u64); 3] = [("gbit", 125_000_000), ("mbit", 125_000), ("kbit", 125)];
const SIZES: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const DURATIONS: [(&str, u64); 9] = [
    ("y", 365 * 86_400 * NANOS_PER_S),
    ("d", 86_400 * NANOS_PER_S),
    ("h", 3_600 * NANOS_PER_S),
    ("m", 60 * NANOS_PER_S),
    ("s", NANOS_PER_S),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("ns", 1),
];
const NANOS_PER_S: u64 = 1_000_000_000;

/// A decimal number times a whole one, rounded down; `None` if it is no number.
fn scaled(number: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || number.ends_with('.') {
        return None;
    }
    // More digits than a u128 can take after scaling say nothing more: the number is too large or the rest too small.
    let fraction = fraction.get(..fraction.len().min(15))?;
    let whole: u128 = whole.parse().ok().filter(|whole| *whole <= u128::from(u64::MAX))?;
    let tenths = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some((whole * tenths + fraction).saturating_mul(u128::from(scale)) / tenths)
}

/// The number and the unit of a text.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

fn bounded(text: &str, found: u128, max: u64, shown: String) -> Result<u64, UnitError> {
    match u64::try_from(found) {
        Ok(found) if found <= max => Ok(found),
        _ => Err(UnitError::TooLarge { text: text.to_owned(), max: shown }),
    }
}

/// Reads `2mbit`, `1.5 gbit`, `512kbit` or `10MB/s`, in bytes a second.
///
/// # Errors
/// If it is no rate, none at all, or above [`RATE_MAX`].
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Rate(text.to_owned());
    let (number, unit) = split_unit(text);
    let of = |units: &[(&str, u64)], unit: &str| {
        units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, scale)| *scale)
    };
    // Bytes need their `/s`: without it `2MB` would pass for a rate where `2mbit` was meant.
    let bytes = unit.strip_suffix("/s").and_then(|unit| of(&SIZES, unit));
    let scale = bytes.or_else(|| of(&BITS, unit.strip_suffix("/s").unwrap_or(unit))).ok_or_else(wrong)?;
    let rate = scaled(number, scale).ok_or_else(wrong)?;
    match bounded(text, rate, RATE_MAX, write_rate(RATE_MAX))? {
        0 => Err(UnitError::Zero(text.to_owned())),
        rate => Ok(rate),
    }
}

/// Reads `300MB`, `1.5 GB` or `4 GiB`, in bytes.
///
/// # Errors
/// If it is no size, zero, or above `max`.
pub fn parse_size(text: &str, max: u64) -> Result<u64, UnitError> {
    let wrong = || UnitError::Size(text.to_owned());
    let (number, unit) = split_unit(text);
    let &(_, scale) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
    let size = scaled(number, scale).ok_or_else(wrong)?;
    match bounded(text, size, max, write_size(max))? {
        0 => Err(UnitError::Zero(text.to_owned())),
        size => Ok(size),
    }
}

/// Reads `90s`, `10m`, `1h30m`, `0.5ms`, `1d` or `3y`; a year has 365 days.
///
/// # Errors
/// If it is no duration, or above [`DURATION_MAX`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    let (mut rest, mut total, mut before) = (text.trim(), 0_u128, u64::MAX);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = split_unit(rest);
        let end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let &(_, scale) = DURATIONS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        if scale >= before {
            return Err(wrong());
        }
        total = total.saturating_add(scaled(number, scale).ok_or_else(wrong)?);
        (rest, before) = (next.trim_start(), scale);
    }
    let max = u64::try_from(DURATION_MAX.as_nanos()).unwrap_or(u64::MAX);
    bounded(text, total, max, write_duration(DURATION_MAX)).map(Duration::from_nanos)
}

/// Reads `01:00-05:00`; over midnight if it ends before it begins.
///
/// # Errors
/// If it is no time of day, or ends when it begins.
pub fn parse_daily(text: &str) -> Result<Daily, UnitError> {
    let wrong = || UnitError::Daily(text.to_owned());
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let from = parse_time(from).filter(|from| *from < MINUTES_PER_DAY).ok_or_else(wrong)?;
    let to = parse_time(to).ok_or_else(wrong)? % MINUTES_PER_DAY;
    if from == to { Err(UnitError::DailyWhole(text.to_owned())) } else { Ok(Daily { from, to }) }
}

/// Reads `Mon 22:00` as a minute of the week.
///
/// # Errors
/// If it is no time of the week.
pub fn parse_start(text: &str) -> Result<u16, UnitError> {
    let wrong = || UnitError::Start(text.to_owned());
    let (day, time) = text.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
    let (_, day) = DAYS.iter().zip(0_u16..).find(|(name, _)| name.eq_ignore_ascii_case(day)).ok_or_else(wrong)?;
    let time = parse_time(time).filter(|time| *time < MINUTES_PER_DAY).ok_or_else(wrong)?;
    Ok(day * MINUTES_PER_DAY + time)
}

/// Minutes since midnight, 24:00 included.
fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok());
    if !(1..=2).contains(&hours.len()) || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (number(hours)??, number(minutes)??);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= MINUTES_PER_DAY).then_some(time)
}

/// Reads `0.1` or `10%`.
///
/// # Errors
/// If it is not from 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, UnitError> {
    let number = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim_end().parse::<f64>().map(|percent| percent / 100.0),
        None => text.trim().parse(),
    };
    number.ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| UnitError::Share(text.to_owned()))
}

/// The largest unit of which there is a whole number, and that number.
fn whole(value: u64, units: &[(&'static str, u64)]) -> Option<(u64, &'static str)> {
    let fits = units.iter().find(|(_, scale)| value > 0 && value.is_multiple_of(*scale));
    fits.map(|(name, scale)| (value / scale, *name))
}

/// As [`parse_rate`] reads it.
pub fn write_rate(bytes_per_s: u64) -> String {
    match whole(bytes_per_s, &BITS) {
        Some((number, unit)) => format!("{number}{unit}"),
        None => format!("{bytes_per_s}B/s"),
    }
}

/// As [`parse_size`] reads it.
pub fn write_size(bytes: u64) -> String {
    let (number, unit) = whole(bytes, &SIZES).unwrap_or((bytes, "B"));
    format!("{number}{unit}")
}

/// As [`parse_duration`] reads it.
pub fn write_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut text = String::new();
    // Years are for clocks; days are clearer in everything that is shown, and one of two names of a unit is enough.
    for (name, scale) in DURATIONS.iter().filter(|(name, _)| !["y", "µs"].contains(name)) {
        let number = rest / u128::from(*scale);
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
        rest %= u128::from(*scale);
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// As [`parse_daily`] reads it.
pub fn write_daily(daily: Daily) -> String {
    let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    format!("{}-{}", time(daily.from), time(daily.to))
}

/// As [`parse_start`] reads it.
pub fn write_start(minute: u16) -> String {
    let day = DAYS.get(usize::from(minute / MINUTES_PER_DAY)).copied().unwrap_or("Sun");
    let minute = minute % MINUTES_PER_DAY;
    format!("{day} {:02}:{:02}", minute / 60, minute % 60)
}
