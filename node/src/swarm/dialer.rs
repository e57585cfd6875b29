//! Whom to dial, and when.
//!
//! Pure: time and jitter come in, [`Dial`]s come out. A fleet that powers up together must not end in everybody
//! dialling everybody: of two nodes the one with the smaller id dials first, each after a random moment, few at a
//! time, and whoever fails to connect waits longer each time. Static peers are dialled for ever, and first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use libp2p::PeerId;
use tokio::time::Instant;

use super::address::{Family, StaticPeer, Target};

/// Connected peers from which on a node dials nobody but its static peers. Sites below this are fully meshed; on
/// larger ones the random moments make the choice.
pub(super) const DEGREE_AIM: usize = 48;
/// Dials under way: a fleet's start is then spread over its handshakes' own time.
const DIALS_AT_ONCE_MAX: usize = 8;
/// Of these, dials to peers that multicast does not show: many of them may be off, and each such dial takes until
/// its time-out, while a peer in sight is there.
const DIALS_UNSEEN_MAX: usize = 6;
/// Peers that can be known: a site of a thousand, since each of them may be needed. Some 200 bytes each.
const KNOWN_MAX: usize = 1024;
/// Peers that are needed at the same time beyond the degree: below the connections that are left above it.
const NEEDED_MAX: usize = 12;
/// After a peer was needed, when its connection is one too many: a release's blobs come one after the other.
const NEEDED_TIME: Duration = Duration::from_secs(600);
/// Addresses of one peer; the newest push out the oldest.
const ADDRESSES_PER_PEER_MAX: usize = 8;
/// Within this after a peer was found it is dialled: below what a person notices, above a handshake's time.
const SPREAD: Duration = Duration::from_millis(250);
/// The node with the larger id waits for so much longer: time for the other's dial. Where that is lost both dial, which costs a
/// handshake; a device that comes back after a reboot is among its peers so much sooner.
const YIELD: Duration = Duration::from_secs(1);
/// After a lost connection: a restarting node needs about that long.
const RECONNECT: Duration = Duration::from_millis(500);
/// First wait after a failed dial; doubled with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Longest wait for a static peer: somebody wants it connected.
const BACKOFF_STATIC_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a peer that multicast shows.
const BACKOFF_IN_SIGHT_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a peer that was there once. It will also dial this node when it is back.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A node of another fleet, other software, or this node itself is left alone for so long.
const STRANGER_PAUSE: Duration = Duration::from_secs(600);

/// What is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A peer that was found.
    Peer(PeerId),
    /// The static peer of this number.
    Static(usize),
}

/// A dial that is due. To be followed by [`Dialer::ended`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dial {
    pub(super) key: Key,
    /// Who must be there, if that is known.
    pub(super) peer: Option<PeerId>,
    pub(super) to: To,
}

/// Where a dial goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum To {
    Addresses(Vec<SocketAddr>),
    Name { host: String, port: u16, family: Family },
}

/// How a dial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With a connection to this peer.
    Connected(PeerId),
    /// Nobody there, or nobody who answers.
    Failed,
    /// Somebody else is at this address.
    Another(SocketAddr),
    /// This node itself is there.
    Myself,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(Instant),
    Dialing,
}

impl State {
    /// Waits until `at`, or longer if it was to wait longer.
    fn not_before(&mut self, at: Instant) {
        *self = match *self {
            Self::Waiting(before) => Self::Waiting(before.max(at)),
            Self::Dialing => Self::Waiting(at),
        };
    }

    fn is_due(self, now: Instant) -> bool {
        matches!(self, Self::Waiting(at) if at <= now)
    }

    fn at(self) -> Option<Instant> {
        match self {
            Self::Waiting(at) => Some(at),
            Self::Dialing => None,
        }
    }
}

#[derive(Debug)]
struct Known {
    /// Newest first.
    addresses: Vec<SocketAddr>,
    in_sight: bool,
    failures: u32,
    state: State,
}

#[derive(Debug)]
struct Fixed {
    config: StaticPeer,
    /// Who was found there, or must be.
    peer: Option<PeerId>,
    failures: u32,
    state: State,
}

/// Who is known, who is connected, and when to dial whom.
#[derive(Debug)]
pub(super) struct Dialer {
    own: PeerId,
    jitter: fn(Duration) -> Duration,
    connected: BTreeSet<PeerId>,
    known: BTreeMap<PeerId, Known>,
    /// Peers that are dialled whatever the degree, and kept until then.
    needed: BTreeMap<PeerId, Instant>,
    fixed: Vec<Fixed>,
}

impl Dialer {
    /// A dialer for node `own`. `jitter` draws a time from zero to the given one.
    pub(super) fn new(own: PeerId, fixed: Vec<StaticPeer>, jitter: fn(Duration) -> Duration, now: Instant) -> Self {
        let fixed = fixed
            .into_iter()
            .filter(|config| config.peer != Some(own))
            .map(|config| Fixed { peer: config.peer, config, failures: 0, state: State::Waiting(now + jitter(SPREAD)) })
            .collect();
        Self { own, jitter, connected: BTreeSet::new(), known: BTreeMap::new(), needed: BTreeMap::new(), fixed }
    }

    /// A peer can be found at an address; `in_sight` if multicast says so.
    pub(super) fn found(&mut self, peer: PeerId, address: SocketAddr, in_sight: bool, now: Instant) {
        if peer == self.own || !self.make_room(&peer) {
            return;
        }
        let at = now + (self.jitter)(SPREAD) + self.courtesy(&peer);
        let known = self.known.entry(peer).or_insert_with(|| Known {
            addresses: Vec::new(),
            in_sight,
            failures: 0,
            state: State::Waiting(at),
        });
        let is_new = !known.addresses.contains(&address);
        known.addresses.retain(|other| *other != address);
        known.addresses.insert(0, address);
        known.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        let comes_in_sight = in_sight && !known.in_sight;
        known.in_sight |= in_sight;
        // A new address, or a sign of life, is worth a try whatever happened before.
        if (is_new || comes_in_sight)
            && known.failures > 0
            && let State::Waiting(due) = known.state
        {
            known.failures = 0;
            known.state = State::Waiting(due.min(at));
        }
    }

    /// Multicast shows a peer no longer. It may still be there: some networks filter multicast.
    pub(super) fn out_of_sight(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.in_sight = false;
        }
    }

    /// This node needs something of a peer: it is dialled at once, whatever the degree, if it is known where it is.
    pub(super) fn needed(&mut self, peer: PeerId, now: Instant) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        let until = now + NEEDED_TIME;
        if self.connected.contains(&peer) {
            // It may have come about for that reason before.
            self.needed.entry(peer).and_modify(|kept| *kept = until);
            return;
        }
        self.needed.retain(|peer, until| *until > now || self.connected.contains(peer));
        if !self.needed.contains_key(&peer) && self.needed.len() >= NEEDED_MAX {
            return;
        }
        self.needed.insert(peer, until);
        // A pause after a failure, or since it is a stranger, is kept; politeness is not.
        if let State::Waiting(at) = known.state
            && known.failures == 0
            && at <= now + YIELD + 2 * SPREAD
        {
            known.state = State::Waiting(at.min(now));
        }
    }

    /// A connected peer that was needed once and is one too many now.
    pub(super) fn surplus(&mut self, now: Instant) -> Option<PeerId> {
        let spare = self.connected.len().saturating_sub(DEGREE_AIM);
        let old: Vec<_> = self.needed.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer).collect();
        for peer in old {
            self.needed.remove(&peer);
            // Else it is one of the usual ones from now on.
            if spare > 0 && self.connected.contains(&peer) {
                return Some(peer);
            }
        }
        None
    }

    /// The peer has a connection, whoever dialled.
    pub(super) fn connected(&mut self, peer: PeerId) {
        self.connected.insert(peer);
        if let Some(known) = self.known.get_mut(&peer) {
            known.failures = 0;
        }
    }

    /// The peer has no connection any more.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        self.connected.remove(&peer);
        self.needed.remove(&peer);
        let at = now + RECONNECT + (self.jitter)(RECONNECT) + self.courtesy(&peer);
        if let Some(known) = self.known.get_mut(&peer) {
            known.state.not_before(at);
        }
        for fixed in self.fixed.iter_mut().filter(|fixed| fixed.peer == Some(peer)) {
            fixed.state.not_before(at);
        }
    }

    /// The peer is not of the fleet: to be left alone for a while.
    pub(super) fn stranger(&mut self, peer: &PeerId, now: Instant) {
        let at = now + STRANGER_PAUSE;
        if let Some(known) = self.known.get_mut(peer) {
            known.state.not_before(at);
        }
        for fixed in self.fixed.iter_mut().filter(|fixed| fixed.peer == Some(*peer)) {
            fixed.state.not_before(at);
        }
    }

    /// Whatever happened before, everybody is worth a try soon: this node can show itself as it could not before.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        let jitter = self.jitter;
        let known = self.known.values_mut().map(|known| (&mut known.failures, &mut known.state));
        let fixed = self.fixed.iter_mut().map(|fixed| (&mut fixed.failures, &mut fixed.state));
        for (failures, state) in known.chain(fixed) {
            if let State::Waiting(at) = *state {
                *failures = 0;
                *state = State::Waiting(at.min(now + jitter(SPREAD)));
            }
        }
    }

    /// The next dial that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Dial> {
        if self.dialing() >= DIALS_AT_ONCE_MAX {
            return None;
        }
        let (wants_more, unseen) = (self.wants_more(), self.dialing_unseen() < DIALS_UNSEEN_MAX);
        let connected = &self.connected;
        let is_apart = |peer: Option<&PeerId>| peer.is_none_or(|peer| !connected.contains(peer));
        let fixed = self.fixed.iter_mut().enumerate();
        if let Some((at, fixed)) =
            fixed.into_iter().find(|(_, fixed)| unseen && fixed.state.is_due(now) && is_apart(fixed.peer.as_ref()))
        {
            fixed.state = State::Dialing;
            let to = match &fixed.config.target {
                Target::Address(address) => To::Addresses(vec![*address]),
                Target::Name { host, port, family } => To::Name { host: host.clone(), port: *port, family: *family },
            };
            return Some(Dial { key: Key::Static(at), peer: fixed.config.peer, to });
        }
        let needed = &self.needed;
        // By time, not by id: the random moments are what spreads dials and picks neighbours.
        let (&peer, known) = self
            .known
            .iter_mut()
            .filter(|(peer, known)| known.state.is_due(now) && is_apart(Some(peer)) && !known.addresses.is_empty())
            .filter(|(peer, known)| (wants_more || needed.contains_key(peer)) && (unseen || known.in_sight))
            .min_by_key(|(_, known)| known.state.at())?;
        known.state = State::Dialing;
        Some(Dial { key: Key::Peer(peer), peer: Some(peer), to: To::Addresses(known.addresses.clone()) })
    }

    /// A dial is over.
    pub(super) fn ended(&mut self, key: Key, outcome: Outcome, now: Instant) {
        let jitter = self.jitter;
        match key {
            Key::Static(at) => {
                let Some(fixed) = self.fixed.get_mut(at) else { return };
                if let Outcome::Connected(peer) = outcome {
                    fixed.peer = Some(peer);
                    fixed.failures = 0;
                    fixed.state = State::Waiting(now);
                    return;
                }
                fixed.failures += 1;
                let wait = match outcome {
                    Outcome::Myself => STRANGER_PAUSE,
                    _ => backoff(fixed.failures, BACKOFF_STATIC_MAX, jitter),
                };
                fixed.state = State::Waiting(now + wait);
            }
            Key::Peer(peer) => {
                let Some(known) = self.known.get_mut(&peer) else { return };
                match outcome {
                    Outcome::Connected(_) => return known.state = State::Waiting(now),
                    Outcome::Another(address) => known.addresses.retain(|known| *known != address),
                    Outcome::Failed | Outcome::Myself => {}
                }
                self.needed.remove(&peer);
                known.failures += 1;
                let wait_max = if known.in_sight { BACKOFF_IN_SIGHT_MAX } else { BACKOFF_MAX };
                known.state = State::Waiting(now + backoff(known.failures, wait_max, jitter));
            }
        }
    }

    /// When [`Dialer::due`] should be asked again, if nothing happens before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.dialing() >= DIALS_AT_ONCE_MAX {
            return None;
        }
        let (wants_more, unseen) = (self.wants_more(), self.dialing_unseen() < DIALS_UNSEEN_MAX);
        let fixed = self
            .fixed
            .iter()
            .filter(|fixed| unseen && fixed.peer.is_none_or(|peer| !self.connected.contains(&peer)))
            .filter_map(|fixed| fixed.state.at());
        let known = self
            .known
            .iter()
            .filter(|(peer, known)| !self.connected.contains(peer) && !known.addresses.is_empty())
            .filter(|(peer, known)| (wants_more || self.needed.contains_key(peer)) && (unseen || known.in_sight))
            .filter_map(|(_, known)| known.state.at());
        let surplus = self.needed.values().copied();
        fixed.chain(known).chain(surplus).min()
    }

    /// How much later than its counterpart this node dials.
    fn courtesy(&self, peer: &PeerId) -> Duration {
        if self.own < *peer { Duration::ZERO } else { YIELD + (self.jitter)(SPREAD) }
    }

    fn dialing(&self) -> usize {
        let known = self.known.values().filter(|known| known.state == State::Dialing).count();
        known + self.fixed.iter().filter(|fixed| fixed.state == State::Dialing).count()
    }

    fn dialing_unseen(&self) -> usize {
        let known = self.known.values().filter(|known| known.state == State::Dialing && !known.in_sight).count();
        known + self.fixed.iter().filter(|fixed| fixed.state == State::Dialing).count()
    }

    fn wants_more(&self) -> bool {
        self.connected.len() + self.dialing() < DEGREE_AIM
    }

    /// Whether there is room for this peer, if need be after forgetting the one that failed most.
    fn make_room(&mut self, peer: &PeerId) -> bool {
        if self.known.contains_key(peer) || self.known.len() < KNOWN_MAX {
            return true;
        }
        let worst = self
            .known
            .iter()
            .filter(|(peer, known)| !known.in_sight && known.state != State::Dialing && !self.connected.contains(peer))
            .max_by_key(|(_, known)| known.failures)
            .map(|(&peer, _)| peer);
        worst.is_some_and(|worst| self.known.remove(&worst).is_some())
    }
}

fn backoff(failures: u32, wait_max: Duration, jitter: fn(Duration) -> Duration) -> Duration {
    let wait = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(wait_max);
    wait + jitter(wait / 4)
}

#[cfg(test)]
mod tests {
    use layermesh_proto::NodeId;

    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        super::super::peer_id(NodeId::from_public_key(key))
    }

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    fn at(target: SocketAddr, peer: Option<PeerId>) -> StaticPeer {
        StaticPeer { target: Target::Address(target), peer }
    }

    fn dialer(own: u16, fixed: Vec<StaticPeer>, now: Instant) -> Dialer {
        Dialer::new(peer(own), fixed, |_| Duration::ZERO, now)
    }

    #[tokio::test]
    async fn the_smaller_id_dials_first_and_the_other_if_need_be() {
        let now = Instant::now();
        let (mut small, mut large) = (dialer(1, vec![], now), dialer(2, vec![], now));
        small.found(peer(2), address(2), true, now);
        large.found(peer(1), address(1), true, now);
        assert_eq!(small.due(now).map(|dial| dial.key), Some(Key::Peer(peer(2))));
        assert_eq!(large.due(now), None);
        assert_eq!(large.next_due(), Some(now + YIELD));
        assert_eq!(large.due(now + YIELD).map(|dial| dial.key), Some(Key::Peer(peer(1))));
        large.found(peer(3), address(3), true, now);
        large.connected(peer(3));
        assert_eq!(large.due(now + YIELD), None, "a connected peer is not dialled");
    }

    #[tokio::test]
    async fn waits_double_to_a_limit_that_a_sign_of_life_lifts() {
        let now = Instant::now();
        let mut dialer = dialer(1, vec![], now);
        dialer.found(peer(2), address(2), false, now);
        let mut clock = now;
        let mut waits = Vec::new();
        for _ in 0..11 {
            assert!(dialer.due(clock).is_some());
            dialer.ended(Key::Peer(peer(2)), Outcome::Failed, clock);
            let next = dialer.next_due().unwrap();
            waits.push((next - clock).as_secs());
            clock = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(dialer.due(clock).is_some());
        dialer.ended(Key::Peer(peer(2)), Outcome::Failed, clock);
        dialer.found(peer(2), address(2), true, clock);
        assert_eq!(dialer.next_due(), Some(clock));
    }

    #[tokio::test]
    async fn a_static_peer_is_dialled_for_ever_and_not_while_connected() {
        let now = Instant::now();
        let mut dialer = dialer(9, vec![at(address(1), None), at(address(9), Some(peer(9)))], now);
        let dial = Dial { key: Key::Static(0), peer: None, to: To::Addresses(vec![address(1)]) };
        let mut clock = now;
        for _ in 0..100 {
            assert_eq!(dialer.due(clock), Some(dial.clone()));
            dialer.ended(Key::Static(0), Outcome::Failed, clock);
            let next = dialer.next_due().unwrap();
            assert!(next - clock <= BACKOFF_STATIC_MAX);
            clock = next;
        }
        assert_eq!(dialer.due(clock), Some(dial));
        dialer.ended(Key::Static(0), Outcome::Connected(peer(1)), clock);
        dialer.connected(peer(1));
        assert_eq!((dialer.due(clock), dialer.next_due()), (None, None));
        dialer.disconnected(peer(1), clock);
        assert_eq!(dialer.next_due(), Some(clock + RECONNECT + YIELD));
    }

    #[tokio::test]
    async fn dials_at_once_and_degree_are_bounded() {
        let now = Instant::now();
        let mut dialer = dialer(0, vec![], now);
        for n in 1..=60 {
            dialer.found(peer(n), address(n), true, now);
        }
        let mut connected = 0;
        while let Some(first) = dialer.due(now) {
            let mut dials = vec![first];
            while let Some(dial) = dialer.due(now) {
                dials.push(dial);
            }
            assert!(dials.len() <= DIALS_AT_ONCE_MAX);
            for dial in dials {
                let peer = dial.peer.unwrap();
                dialer.ended(dial.key, Outcome::Connected(peer), now);
                dialer.connected(peer);
                connected += 1;
            }
        }
        assert_eq!(connected, DEGREE_AIM);
        assert_eq!(dialer.next_due(), None);
        dialer.disconnected(peer(1), now);
        assert!(dialer.next_due().is_some());
    }

    #[tokio::test]
    async fn a_needed_peer_is_dialled_beyond_the_degree_and_let_go_later() {
        let now = Instant::now();
        let mut dialer = dialer(0, vec![], now);
        for n in 1..=u16::try_from(DEGREE_AIM).unwrap() {
            dialer.found(peer(n), address(n), true, now);
            dialer.connected(peer(n));
        }
        let (far, gone) = (peer(100), peer(101));
        for needed in [far, gone] {
            dialer.found(needed, address(100), true, now);
        }
        assert_eq!((dialer.due(now), dialer.next_due()), (None, None));
        dialer.needed(far, now);
        dialer.needed(peer(102), now);
        let dial = dialer.due(now).unwrap();
        assert_eq!((dial.key, dialer.due(now)), (Key::Peer(far), None));
        dialer.ended(dial.key, Outcome::Connected(far), now);
        dialer.connected(far);
        assert_eq!((dialer.surplus(now), dialer.next_due()), (None, Some(now + NEEDED_TIME)));
        let later = now + NEEDED_TIME;
        assert_eq!((dialer.surplus(later), dialer.surplus(later)), (Some(far), None));

        dialer.needed(gone, later);
        let dial = dialer.due(later).unwrap();
        dialer.ended(dial.key, Outcome::Failed, later);
        dialer.needed(gone, later);
        assert_eq!(dialer.due(later), None, "it failed just now");
        assert!(dialer.due(later + BACKOFF_MIN).is_some());
    }

    #[tokio::test]
    async fn peers_that_may_be_off_leave_room_for_one_in_sight() {
        let now = Instant::now();
        let mut dialer = dialer(0, vec![at(address(99), None)], now);
        for n in 1..=20 {
            dialer.found(peer(n), address(n), false, now);
        }
        let dials = std::iter::from_fn(|| dialer.due(now)).count();
        assert_eq!(dials, DIALS_UNSEEN_MAX);
        assert_eq!(dialer.next_due(), None, "nothing to do before one of them ends");
        dialer.found(peer(30), address(30), true, now);
        assert_eq!(dialer.next_due(), Some(now));
        assert_eq!(dialer.due(now).map(|dial| dial.key), Some(Key::Peer(peer(30))));
        dialer.ended(Key::Static(0), Outcome::Failed, now);
        assert_eq!(dialer.next_due(), Some(now));
        assert!(dialer.due(now).is_some());
    }

    #[tokio::test]
    async fn strangers_and_wrong_addresses_are_left_alone() {
        let now = Instant::now();
        let mut dialer = dialer(0, vec![], now);
        dialer.found(peer(1), address(1), true, now);
        let dial = dialer.due(now).unwrap();
        dialer.ended(dial.key, Outcome::Connected(peer(1)), now);
        dialer.connected(peer(1));
        dialer.stranger(&peer(1), now);
        dialer.disconnected(peer(1), now);
        assert_eq!(dialer.next_due(), Some(now + STRANGER_PAUSE));

        dialer.found(peer(2), address(2), true, now);
        let dial = dialer.due(now).unwrap();
        dialer.ended(dial.key, Outcome::Another(address(2)), now);
        assert_eq!(dialer.due(now + STRANGER_PAUSE / 2), None, "no address is left");
    }

    #[tokio::test]
    async fn the_peers_known_are_bounded_and_the_worst_goes() {
        let now = Instant::now();
        let mut dialer = dialer(0, vec![], now);
        let last = u16::try_from(KNOWN_MAX).unwrap();
        for n in 1..=last {
            dialer.found(peer(n), address(n), n != 7, now);
        }
        dialer.found(peer(last + 1), address(1), true, now);
        assert_eq!(dialer.known.len(), KNOWN_MAX);
        assert!(!dialer.known.contains_key(&peer(7)));
        dialer.found(peer(last + 2), address(1), true, now);
        assert!(!dialer.known.contains_key(&peer(last + 2)), "nobody in sight is forgotten for another");
        for port in 1..=20 {
            dialer.found(peer(1), address(port), true, now);
        }
        assert_eq!(dialer.known[&peer(1)].addresses.len(), ADDRESSES_PER_PEER_MAX);
        assert_eq!(dialer.known[&peer(1)].addresses[0], address(20));
    }
}
