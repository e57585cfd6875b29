//! A rate that several senders share, as devices of a site share an uplink: one token bucket.
//!
//! Invariant: in any span of time at most `rate x (span + LATE_MAX)` bytes pass, whoever sends them, and a sender that
//! always has more to send gets the whole rate. Bytes whose sender goes away while they wait still take their time, as
//! bytes on a wire do.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bytes sent at once.
pub const CHUNK_BYTES_MAX: u64 = 64 << 10;
/// The part of a second's bytes that is sent at once at most, so that slow rates are even.
const CHUNKS_PER_S_MIN: u64 = 20;
/// How much of the time that went unused may be made up for. Timers fire a millisecond late or more, which at 64 KiB
/// every few milliseconds would cost a lone sender a fifth of the rate; a longer time would let visible bursts through.
const LATE_MAX: Duration = Duration::from_millis(20);

/// Lets bytes through at a rate, first come first served.
#[derive(Debug)]
pub struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    bytes_per_s: Option<u64>,
    /// What [`Pace::limit`] may not lift.
    most: Option<u64>,
    /// When the bytes let through so far have passed.
    free_at: Instant,
}

impl Pace {
    /// A pace of this rate; `None` lets everything through at once.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self(Mutex::new(State { bytes_per_s, most: bytes_per_s, free_at: Instant::now() }))
    }

    /// Changes the rate from now on.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { bytes_per_s, most: bytes_per_s, free_at: Instant::now() };
    }

    /// Changes the rate to this one, or to that of [`Pace::new`] if it is lower. What waits already keeps its time, so that
    /// changes in a row let nothing through that the rates would not.
    pub fn limit(&self, bytes_per_s: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_per_s = Some(state.most.map_or(bytes_per_s, |most| most.min(bytes_per_s)));
    }

    /// The most bytes to send at once, for the rate to be even.
    pub fn chunk_bytes(&self) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_per_s.map_or(u64::MAX, |rate| (rate / CHUNKS_PER_S_MIN).clamp(1, CHUNK_BYTES_MAX))
    }

    /// How many bytes pass in a time; none if there is no rate.
    pub fn bytes_in(&self, time: Duration) -> Option<u64> {
        let rate = self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes_per_s?;
        Some(u64::try_from(u128::from(rate) * time.as_nanos() / 1_000_000_000).unwrap_or(u64::MAX))
    }

    /// Waits until these bytes have passed.
    pub async fn pass(&self, bytes: u64) {
        if let Some((_, end)) = self.take(bytes) {
            tokio::time::sleep_until(end).await;
        }
    }

    /// When it is the turn of these bytes: those before them have passed then. Their own time runs whether somebody waits
    /// or not.
    pub fn turn(&self, bytes: u64) -> Instant {
        self.take(bytes).map_or_else(Instant::now, |(begin, _)| begin)
    }

    fn take(&self, bytes: u64) -> Option<(Instant, Instant)> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = state.time_of(bytes)?;
        let now = Instant::now();
        let begin = state.free_at.max(now.checked_sub(LATE_MAX).unwrap_or(now));
        state.free_at = begin + taken;
        Some((begin, state.free_at))
    }

    /// Of what had its turn, these bytes will not come.
    pub fn refund(&self, bytes: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = state.time_of(bytes) else { return };
        state.free_at = state.free_at.checked_sub(taken).unwrap_or(state.free_at);
    }
}

impl State {
    /// How long bytes take; none if there is no rate.
    fn time_of(&self, bytes: u64) -> Option<Duration> {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s?.max(1));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;

    use super::*;

    /// A rate at which a chunk takes 6.5536 ms, like that of the demo.
    const BYTES_PER_S: u64 = 10_000_000;
    const CHUNKS: u32 = 100;

    /// Sends as a connection does, a chunk after the other, each `late` after the one before could have gone.
    async fn send(pace: Arc<Pace>, late: Duration) {
        for _ in 0..CHUNKS {
            pace.pass(CHUNK_BYTES_MAX).await;
            tokio::time::sleep(late).await;
        }
    }

    fn taken(chunks: u32) -> Duration {
        Duration::from_micros(6_553) * chunks
    }

    #[tokio::test(start_paused = true)]
    async fn senders_share_the_rate() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        futures::join!(pace.pass(500), pace.pass(1500));
        assert_eq!(start.elapsed().as_millis(), 2000);
        // Of what was not used before, next to nothing is there to be used now.
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        pace.pass(1000).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1).checked_sub(LATE_MAX).unwrap());
        pace.set(None);
        let start = Instant::now();
        pace.pass(u64::MAX).await;
        assert_eq!(start.elapsed().as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_lowers_the_rate_and_never_lifts_it_over_the_own() {
        let pace = Pace::new(Some(1000));
        for (limit, seconds) in [(500, 2), (5000, 1), (250, 4)] {
            pace.limit(limit);
            let start = Instant::now();
            pace.pass(1000).await;
            assert_eq!(start.elapsed().as_secs_f64().round() as u64, seconds);
        }
        let unlimited = Pace::new(None);
        unlimited.limit(100);
        let start = Instant::now();
        unlimited.pass(200).await;
        assert_eq!(start.elapsed().as_secs_f64().round() as u64, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_its_turn_takes_its_time_and_what_is_refunded_none() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        assert_eq!((pace.turn(500), pace.turn(500)), (start, start + ms(500)));
        pace.refund(400);
        tokio::time::advance(ms(100)).await;
        assert_eq!(pace.turn(100), start + ms(600), "it runs while nobody waits");
        assert_eq!((pace.bytes_in(ms(250)), pace.bytes_in(Duration::ZERO)), (Some(250), Some(0)));
        let unlimited = Pace::new(None);
        unlimited.refund(5);
        assert_eq!((unlimited.bytes_in(ms(1)), unlimited.turn(u64::MAX)), (None, Instant::now()));
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn any_number_of_connections_is_as_fast_as_one() {
        for senders in [1, 2, 15] {
            let pace = Arc::new(Pace::new(Some(BYTES_PER_S)));
            let start = Instant::now();
            let mut ends = join_all((0..senders).map(|_| async {
                send(Arc::clone(&pace), Duration::ZERO).await;
                start.elapsed()
            }))
            .await;
            ends.sort();
            let (first, last) = (ends[0], ends[ends.len() - 1]);
            assert!(last >= taken(CHUNKS * senders).saturating_sub(LATE_MAX), "{senders} senders: {last:?}");
            assert!(last <= taken(CHUNKS * senders) + LATE_MAX, "{senders} senders: {last:?}");
            // First come, first served: equals end at the same time.
            assert!(last.saturating_sub(first) <= taken(senders), "{first:?} to {last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_is_a_little_late_loses_nothing() {
        let pace = Arc::new(Pace::new(Some(BYTES_PER_S)));
        let start = Instant::now();
        send(pace, Duration::from_millis(2)).await;
        assert!(start.elapsed() <= taken(CHUNKS) + LATE_MAX, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_goes_away_does_not_hold_the_others_up() {
        let pace = Arc::new(Pace::new(Some(1000)));
        let start = Instant::now();
        let gone = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move { pace.pass(500).await }
        });
        tokio::task::yield_now().await;
        gone.abort();
        pace.pass(500).await;
        assert_eq!(start.elapsed().as_millis(), 1000);
    }

    #[test]
    fn slow_rates_are_sent_in_small_chunks() {
        let chunk = |rate| Pace::new(rate).chunk_bytes();
        assert_eq!(
            (chunk(None), chunk(Some(BYTES_PER_S)), chunk(Some(125_000)), chunk(Some(1))),
            (u64::MAX, CHUNK_BYTES_MAX, 6250, 1)
        );
    }
}
