//! Connections to the origin: what it costs to begin.
//!
//! A new one takes a round trip for TCP and one for TLS before it can be asked; the first question of a node one more, since
//! the registry asks who it is. Then TCP sends a few segments, and each round trip twice as many, until something else is
//! the limit. Over near registries that is nothing; over a satellite it decides.
//!
//! Invariant: a connection is used by one fetch at a time; what broke off is not used again.

use std::time::Duration;

use layermesh_proto::engine::event::Instant;

/// Segments that TCP sends before it hears of the first: Linux's, after RFC 6928, of 1448 bytes each.
const FIRST_BYTES: f64 = 10.0 * 1448.0;
/// How long nodes keep a connection that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// After this and a round trip without traffic TCP begins as small as at first (RFC 5681, section 4.1).
const RESTART: Duration = Duration::from_millis(200);
/// Idle connections that nodes keep at most.
const KEPT_MAX: usize = 2;
/// Round trip up to which a beginning costs nothing worth reckoning.
const NEAR: Duration = Duration::from_millis(2);

/// The connections of a node to the origin that nobody uses, and what it knows of it.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Since when, and the bytes that it carried since TCP began.
    idle: Vec<(Instant, u64)>,
    authorized: bool,
}

impl Connections {
    /// Takes a connection. Returns the round trips until the answer comes, and the bytes that it carried.
    pub(crate) fn take(&mut self, now: Instant, round_trip: Duration) -> (u32, u64) {
        self.idle.retain(|(since, _)| now.since(*since) < IDLE_MAX);
        let asked_who = u32::from(!std::mem::replace(&mut self.authorized, true));
        match self.idle.pop() {
            Some((since, carried)) if now.since(since) < round_trip + RESTART => (1 + asked_who, carried),
            Some(_) => (1 + asked_who, 0),
            None => (3 + asked_who, 0),
        }
    }

    /// A fetch is done with its connection, which carried so much.
    pub(crate) fn give_back(&mut self, now: Instant, carried: u64) {
        if self.idle.len() < KEPT_MAX {
            self.idle.push((now, carried));
        }
    }
}

/// Most that TCP gives of the next `bytes`, in bytes a second, over a connection that carried so much.
pub(crate) fn slow_start(carried: u64, bytes: u64, round_trip: Duration) -> u64 {
    let trips = |sent: u64| ((sent as f64 / FIRST_BYTES + 1.0).log2() - 1.0).max(0.0);
    let seconds = (trips(carried + bytes) - trips(carried)) * round_trip.as_secs_f64();
    if round_trip <= NEAR || seconds <= 0.0 { u64::MAX } else { (bytes as f64 / seconds) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(600);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_connection_costs_its_handshakes_once() {
        let mut connections = Connections::default();
        assert_eq!(connections.take(at(0), TRIP), (4, 0));
        assert_eq!(connections.take(at(0), TRIP), (3, 0), "a second one at the same time");
        connections.give_back(at(5000), 70_000);
        assert_eq!(connections.take(at(5500), TRIP), (1, 70_000));
        connections.give_back(at(6000), 70_000);
        assert_eq!(connections.take(at(7000), TRIP), (1, 0), "it has been silent");
        connections.give_back(at(8000), 70_000);
        assert_eq!(connections.take(at(40_000), TRIP), (3, 0), "it is gone");
    }

    #[test]
    fn tcp_doubles_what_it_sends_each_round_trip() {
        let seconds = |carried, bytes| bytes as f64 / slow_start(carried, bytes, TRIP) as f64;
        // 15 times the first segments are there after three round trips more than the answer takes.
        assert!((seconds(0, 15 * 14_480) - 1.8).abs() < 0.01);
        assert!((seconds(15 * 14_480, 16 * 14_480) - 0.6).abs() < 0.01);
        assert_eq!(slow_start(0, 14_480, TRIP), u64::MAX);
        assert_eq!(slow_start(0, 1 << 20, Duration::from_millis(1)), u64::MAX);
    }
}
