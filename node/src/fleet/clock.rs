//! What time it is, where expiry is judged.
//!
//! No clock of a device is trusted by itself: many have no battery and start in 1970, some wake up in 2099. The rule:
//! time is the later of the device's clock and the newest time stamp that the fleet's authority itself has signed in
//! anything that this node has seen (the *floor*), and a clock that shows a time in which this program cannot run is
//! none. So a clock of the past keeps nobody in for longer than until the authority signs something later, and it never
//! keeps anybody out, since no time of signing is in the future of a device that has no clock. A clock that is ahead by
//! less than decades is believed: the device takes others for expired until its clock is right, and nothing of that
//! stays. Only the floor is kept on disk, which no device's clock has any part in.

use crate::release::clock::BUILT_UNIX_S;

/// Nothing runs this version of the program after this moment: 20 years after it was made. A battery that fails leaves some clocks in 2036, 2099 or 2106.
const OVER_UNIX_S: u64 = BUILT_UNIX_S + 20 * 365 * 86_400;

/// The time by which expiry is judged, in seconds since the Unix epoch, from a device's clock and a floor.
pub fn judged(wall_unix_s: u64, floor_unix_s: u64) -> u64 {
    if is_credible(wall_unix_s) { wall_unix_s.max(floor_unix_s) } else { floor_unix_s.max(BUILT_UNIX_S) }
}

/// Whether a device's clock can be right.
pub fn is_credible(wall_unix_s: u64) -> bool {
    (BUILT_UNIX_S..OVER_UNIX_S).contains(&wall_unix_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_a_possible_clock_and_the_floor_counts() {
        let now = BUILT_UNIX_S + 1000;
        assert_eq!(judged(now, 0), now);
        assert_eq!(judged(now, now + 5), now + 5);
        // 1970, and 2099.
        assert_eq!(judged(0, 0), BUILT_UNIX_S);
        assert_eq!(judged(0, now), now);
        assert_eq!(judged(4_070_908_800, 0), BUILT_UNIX_S);
        assert_eq!(judged(4_070_908_800, now), now);
    }
}
