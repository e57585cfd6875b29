//! Whether this device knows what time it is.
//!
//! Many devices have no battery behind their clock and start in 1970, or where the last shutdown was. Believing such a
//! clock would do no harm by itself: early clocks expire nothing. Reporting that expiry was checked would, so it has to
//! be known. Invariant: a clock counts only if it is not earlier than anything that is known to have happened.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nothing runs this version of the program before this moment: 2026-11-01. Moved along with the program's version.
pub const BUILT_UNIX_S: u64 = 1_793_491_200;

/// What the device knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Seconds since the Unix epoch.
    Known(u64),
    /// The clock shows a time that is over: there is no clock.
    None,
}

impl Clock {
    /// The device's clock, given the latest time at which something signed is known to have been signed.
    pub fn of_this_device(signed_unix_s: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self::credible(now, signed_unix_s)
    }

    /// The clock that shows `now`, if that can be right.
    pub fn credible(now: u64, signed_unix_s: u64) -> Self {
        if now >= BUILT_UNIX_S && now >= signed_unix_s { Self::Known(now) } else { Self::None }
    }

    /// Whether something that expires then has expired; without a clock nothing has.
    pub fn is_past(self, unix_s: u64) -> bool {
        matches!(self, Self::Known(now) if now > unix_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_what_has_happened_is_none() {
        let signed = BUILT_UNIX_S + 1000;
        assert_eq!(Clock::credible(0, 0), Clock::None);
        assert_eq!(Clock::credible(BUILT_UNIX_S - 1, 0), Clock::None);
        assert_eq!(Clock::credible(signed - 1, signed), Clock::None);
        assert_eq!(Clock::credible(signed, signed), Clock::Known(signed));
        assert!(Clock::Known(signed).is_past(signed - 1) && !Clock::Known(signed).is_past(signed));
        assert!(!Clock::None.is_past(0));
    }
}
