//! A rate that several senders share, as devices of a site share an uplink.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Bytes sent at once. Also the most that an unused uplink's allowance lets through in a burst.
pub(super) const CHUNK_BYTES_MAX: u64 = 64 << 10;
/// The part of a second's bytes that is sent at once at most, so that slow rates are even.
const CHUNKS_PER_S_MIN: u64 = 20;

/// Lets bytes through at a rate, first come first served.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    bytes_per_s: Option<u64>,
    /// When the bytes let through so far have passed.
    free_at: Instant,
}

impl Pace {
    pub(super) fn new(bytes_per_s: Option<u64>) -> Self {
        Self(Mutex::new(State { bytes_per_s, free_at: Instant::now() }))
    }

    pub(super) fn set(&self, bytes_per_s: Option<u64>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_per_s = bytes_per_s;
        state.free_at = Instant::now();
    }

    /// The most bytes to send at once.
    pub(super) fn chunk_bytes(&self) -> u64 {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes_per_s.map_or(CHUNK_BYTES_MAX, |rate| (rate / CHUNKS_PER_S_MIN).clamp(1, CHUNK_BYTES_MAX))
    }

    /// Waits until these bytes have passed.
    pub(super) async fn pass(&self, bytes: u64) {
        let free_at = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(rate) = state.bytes_per_s else { return };
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
            let taken = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            state.free_at = state.free_at.max(Instant::now()) + taken;
            state.free_at
        };
        tokio::time::sleep_until(free_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn senders_share_the_rate() {
        let pace = Pace::new(Some(1000));
        let start = Instant::now();
        futures::join!(pace.pass(500), pace.pass(1500));
        assert_eq!(start.elapsed().as_millis(), 2000);
        // What was not used before is not there to be used now.
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        pace.pass(1000).await;
        assert_eq!(start.elapsed().as_millis(), 1000);
        pace.set(None);
        let start = Instant::now();
        pace.pass(u64::MAX).await;
        assert_eq!(start.elapsed().as_millis(), 0);
    }
}
