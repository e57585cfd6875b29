//! How much a peer may say by gossip, whoever's words they are.
//!
//! Invariant: of what a peer passes on, a bounded number of words a second is looked at; who goes on far beyond that is
//! disconnected, since each word costs the check of a signature before it comes here. What this node itself passes on is
//! less than that, so that nobody can have it disconnected by its neighbours by saying much to it, with however many ids.

use std::{collections::HashMap, time::Duration};

use libp2p::PeerId;
use tokio::time::Instant;

/// Words a second that a peer may pass on for long: all nodes of a site together say some 20 a second of releases, and 10 for
/// each blob that is fetched.
const WORDS_PER_S: u32 = 500;
/// Words that it may pass on at once: who brings a thousand images says so at once, and a site that powers up as well.
const WORDS_AT_ONCE_MAX: u32 = 5_000;
/// Words beyond that until a peer is disconnected. Some may be on their way when a node was asleep.
const SURPLUS_MAX: u32 = 5_000;
/// Words a second that a node passes on for others, and at once: what it has to say itself comes to these.
const PASSED_ON_PER_S: u32 = 300;
const PASSED_ON_AT_ONCE_MAX: u32 = 3_000;
/// Time after which surplus is forgotten.
const SURPLUS_WINDOW: Duration = Duration::from_secs(60);

/// What becomes of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is looked at.
    Yes,
    /// It is one too many.
    No,
    /// The same, and so many were that the peer has to go.
    Never,
}

/// What may be said at once, and comes back as time passes.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(at_once: u32, now: Instant) -> Self {
        Self { left: f64::from(at_once), at: now }
    }

    fn take(&mut self, per_s: u32, at_once: u32, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() * f64::from(per_s);
        self.left = (self.left + earned).min(f64::from(at_once));
        self.at = now;
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

#[derive(Debug)]
struct Words {
    allowance: Allowance,
    surplus: u32,
    since: Instant,
}

/// What connected peers have said lately, an entry a peer; and what was passed on.
#[derive(Debug, Default)]
pub(super) struct Rates {
    peers: HashMap<PeerId, Words>,
    passed_on: Option<Allowance>,
}

impl Rates {
    /// Whether another word may be passed on now, which is then counted.
    pub(super) fn passes_on(&mut self, now: Instant) -> bool {
        let allowance = self.passed_on.get_or_insert_with(|| Allowance::new(PASSED_ON_AT_ONCE_MAX, now));
        allowance.take(PASSED_ON_PER_S, PASSED_ON_AT_ONCE_MAX, now)
    }

    /// Takes note of a word that a peer passed on.
    pub(super) fn hears(&mut self, peer: PeerId, now: Instant) -> Heard {
        let new = || Words { allowance: Allowance::new(WORDS_AT_ONCE_MAX, now), surplus: 0, since: now };
        let words = self.peers.entry(peer).or_insert_with(new);
        if words.allowance.take(WORDS_PER_S, WORDS_AT_ONCE_MAX, now) {
            return Heard::Yes;
        }
        if now.duration_since(words.since) >= SURPLUS_WINDOW {
            (words.surplus, words.since) = (0, now);
        }
        words.surplus = words.surplus.saturating_add(1);
        if words.surplus > SURPLUS_MAX { Heard::Never } else { Heard::No }
    }

    /// The peer is gone.
    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_times_as_many_words_are_not_heard_and_end_the_connection() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let [loud, other] = [PeerId::random(), PeerId::random()];
        let heard: Vec<_> = (0..10 * WORDS_AT_ONCE_MAX).map(|_| rates.hears(loud, now)).collect();
        let count = |what| heard.iter().filter(|heard| **heard == what).count() as u32;
        assert_eq!((count(Heard::Yes), count(Heard::No)), (WORDS_AT_ONCE_MAX, SURPLUS_MAX));
        assert_eq!(rates.hears(other, now), Heard::Yes, "others are heard on");
        rates.disconnected(&loud);
        assert_eq!(rates.peers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_to_the_rate_is_heard_for_ever() {
        let (mut rates, mut now) = (Rates::default(), Instant::now());
        let peer = PeerId::random();
        for _ in 0..100 * WORDS_PER_S {
            now += Duration::from_secs(1) / WORDS_PER_S;
            assert_eq!(rates.hears(peer, now), Heard::Yes);
        }
        // A burst that is too long now and then is no reason to go.
        for _ in 0..5 {
            now += 2 * SURPLUS_WINDOW;
            assert!((0..WORDS_AT_ONCE_MAX + SURPLUS_MAX / 2).all(|_| rates.hears(peer, now) != Heard::Never));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_passed_on_is_less_than_neighbours_bear_whoever_it_is_of() {
        let (mut here, mut neighbour, mut now) = (Rates::default(), Rates::default(), Instant::now());
        let this = PeerId::random();
        for _ in 0..20 {
            // Somebody new each time, with all that one may say.
            let other = PeerId::random();
            for _ in 0..WORDS_AT_ONCE_MAX {
                if here.hears(other, now) == Heard::Yes && here.passes_on(now) {
                    assert_eq!(neighbour.hears(this, now), Heard::Yes);
                }
            }
            here.disconnected(&other);
            now += Duration::from_secs(1);
        }
    }
}
