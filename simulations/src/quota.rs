//! How many requests a registry answers an address in a minute.
//!
//! What comes beyond is answered with 429 and `Retry-After`, which nodes pass to their engines as
//! [`SourceError::RateLimited`]. Invariant: in each minute of virtual time at most so many requests of one address are
//! answered, and who waits as long as it was told is answered if nobody else asks.

use std::{collections::BTreeMap, time::Duration};

use layermesh_proto::engine::event::{Instant, SourceError};

const NANOS_PER_S: u64 = 1_000_000_000;
const SECONDS_PER_MINUTE: u64 = 60;

/// From where the registry sees a request come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    /// The site's, behind which all its devices are.
    Site,
    /// That of a device's own uplink.
    Device(usize),
}

/// The requests of the minute.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    per_minute: Option<u32>,
    /// The minute, and how many requests of it were answered: one entry for each address at most.
    answered: BTreeMap<Address, (u64, u32)>,
    /// Requests that were not.
    pub(crate) refused: u64,
}

impl Quota {
    /// So many requests a minute; no limit if `None`.
    pub(crate) fn new(per_minute: Option<u32>) -> Self {
        Self { per_minute, ..Self::default() }
    }

    /// A request comes.
    pub(crate) fn take(&mut self, from: Address, now: Instant) -> Result<(), SourceError> {
        let Some(max) = self.per_minute else { return Ok(()) };
        let minute = now.as_nanos() / (SECONDS_PER_MINUTE * NANOS_PER_S);
        let (of, answered) = self.answered.entry(from).or_insert((minute, 0));
        if *of != minute {
            (*of, *answered) = (minute, 0);
        }
        if *answered < max {
            *answered += 1;
            return Ok(());
        }
        self.refused += 1;
        let next = (minute + 1) * SECONDS_PER_MINUTE * NANOS_PER_S;
        // The header has whole seconds.
        let seconds = (next - now.as_nanos()).div_ceil(NANOS_PER_S);
        Err(SourceError::RateLimited { retry_after: Some(Duration::from_secs(seconds)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn so_many_are_answered_each_minute_and_the_others_told_when_to_come_back() {
        let mut quota = Quota::new(Some(2));
        let limited = |seconds| Err(SourceError::RateLimited { retry_after: Some(Duration::from_secs(seconds)) });
        let asked = [0, 10, 20_500, 59_999, 60_000].map(|ms| quota.take(Address::Site, at(ms)));
        assert_eq!(asked, [Ok(()), Ok(()), limited(40), limited(1), Ok(())]);
        assert_eq!(quota.take(Address::Device(3), at(60_000)), Ok(()), "another address has its own");
        assert_eq!(quota.refused, 2);
    }

    #[test]
    fn without_a_limit_all_are_answered() {
        let mut quota = Quota::default();
        assert!((0..10_000).all(|_| quota.take(Address::Site, at(0)).is_ok()));
    }
}
