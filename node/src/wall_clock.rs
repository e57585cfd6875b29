//! The clock on the wall, for windows of background work: the engine hears the minute of the local week.
//!
//! It is read anew each minute, so that a clock that is set, a change to summer time and another time zone count from the
//! next minute on. Invariant: a clock that cannot be right is not told, so windows stay closed until it was set.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Local, TimeZone, Timelike as _};
use layermesh_proto::engine::{budget::MINUTES_PER_DAY, event::Event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Before this the clock has not been set, in seconds since the Unix epoch. 2026-01-01: the year in which this program
/// was made; devices without a battery wake up in 1970, or at a time that their system was built with.
pub const CLOCK_MIN_UNIX_S: i64 = 1_767_225_600;

/// Seconds since the Unix epoch; 0 if the clock cannot be right.
pub fn unix_s() -> u64 {
    let now = Local::now().timestamp();
    if now < CLOCK_MIN_UNIX_S { 0 } else { u64::try_from(now).unwrap_or(0) }
}

/// Tells the engine each minute which one it is, until `shutdown` or until nobody listens.
pub async fn run(events: mpsc::Sender<Event>, shutdown: CancellationToken) {
    let mut warned = false;
    loop {
        let now = Local::now();
        let minute = minute_of_week(&now);
        if let Some(minute_of_week) = minute
            && events.send(Event::Clock { minute_of_week }).await.is_err()
        {
            return;
        }
        if minute.is_none() && !std::mem::replace(&mut warned, true) {
            tracing::warn!(%now, "the clock is not set; until it is, no window for background work is open");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(rest_of_minute(&now)) => {}
        }
    }
}

/// Minutes since Monday 00:00, local time; `None` if the clock cannot be right.
fn minute_of_week<Zone: TimeZone>(now: &DateTime<Zone>) -> Option<u16> {
    if now.timestamp() < CLOCK_MIN_UNIX_S {
        return None;
    }
    let day = u16::try_from(now.weekday().num_days_from_monday()).ok()?;
    let minute = u16::try_from(now.hour() * 60 + now.minute()).ok()?;
    Some(day * MINUTES_PER_DAY + minute)
}

/// Until the next minute begins. A leap second is the last one of its minute, and then there is nothing left of it.
fn rest_of_minute<Zone: TimeZone>(now: &DateTime<Zone>) -> Duration {
    let passed = Duration::from_secs(now.second().into()) + Duration::from_nanos(now.nanosecond().into());
    // A millisecond, so that a minute that just ends is not told twice.
    Duration::from_secs(60).saturating_sub(passed) + Duration::from_millis(1)
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, Utc};

    use super::*;

    fn at(text: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(text).unwrap()
    }

    #[test]
    fn the_week_begins_on_monday_by_the_wall_and_a_clock_of_the_past_is_none() {
        // A Monday; what counts is the time on the wall, not that of Greenwich, where it is still Sunday.
        assert_eq!(minute_of_week(&at("2026-11-23T00:00:00+02:00")), Some(0));
        assert_eq!(minute_of_week(&at("2026-11-23T00:00:00+02:00").with_timezone(&Utc)), Some(6 * 1440 + 22 * 60));
        assert_eq!(minute_of_week(&at("2026-11-29T23:59:59-05:00")), Some(7 * 1440 - 1));
        assert_eq!(minute_of_week(&at("1970-01-01T00:10:00Z")), None);
        assert_eq!(minute_of_week(&at("2025-12-31T23:59:59Z")), None);
        assert!(minute_of_week(&at("2026-01-01T00:00:00Z")).is_some());
    }

    #[test]
    fn the_next_word_comes_when_the_next_minute_begins() {
        assert_eq!(rest_of_minute(&at("2026-11-23T00:00:59.500Z")), Duration::from_millis(501));
        assert_eq!(rest_of_minute(&at("2026-11-23T00:00:00Z")), Duration::from_millis(60_001));
        assert_eq!(rest_of_minute(&at("2026-06-30T23:59:60.250Z")), Duration::from_millis(1));
    }

    #[tokio::test]
    async fn the_engine_hears_the_minute_at_once() {
        let (events, mut heard) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let clock = tokio::spawn(run(events, shutdown.clone()));
        assert!(matches!(heard.recv().await, Some(Event::Clock { .. })));
        shutdown.cancel();
        clock.await.unwrap();
    }
}
