//! Who may send next: a bounded number of slots, given for a bounded time, peer by peer.
//!
//! A slot goes to the waiting peer that holds the fewest, in turn among equals, and within a peer to whoever asked first.
//! It is taken from a holder whose time is over only for a peer that holds fewer, or for that peer's own next. Turns
//! alone would not do: a peer with one request would queue behind a crowd's next one after each quantum, and have a
//! slot for a part of the time in which the crowd always has the others.
//!
//! Pure: no IO, and time comes in as the time since some start. Invariants: at most `slots` tickets are held; while a
//! ticket waits, every slot is held; while a peer waits and holds none, no other peer gets more than one. A ticket is
//! held, or waits, or is unknown: forgotten when it was given back, and when its slot was taken for somebody else.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How many may send, wait, and for how long a slot is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Tickets held at once.
    pub(super) slots: usize,
    /// Tickets waiting, beyond which newcomers are refused.
    pub(super) waiting: usize,
    /// Tickets of one peer waiting, beyond which its newcomers are refused.
    pub(super) waiting_per_peer: usize,
    /// Bytes sent with a slot, after which it is somebody else's turn.
    pub(super) quantum_bytes: u64,
    /// The time for which a slot is kept, after which it is somebody else's turn.
    pub(super) quantum: Duration,
}

/// One wish to send, from asking to giving back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Whether the one who asks has been refused before it began, or is in the middle of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// May be refused.
    Newcomer,
    /// Always may wait: there are no more of them than connections.
    Begun,
}

#[derive(Debug)]
struct Held<P> {
    peer: P,
    sent: u64,
    /// When it may be taken away; never while the server itself keeps its holder from sending.
    until: Option<Duration>,
    /// The end of its quantum.
    quantum_end: Duration,
}

/// Where the next one's slot comes from.
#[derive(Debug, Clone, Copy)]
enum Room {
    Free,
    Of(Ticket),
}

/// The slots, and who waits for one.
#[derive(Debug)]
pub(super) struct Slots<P> {
    limits: Limits,
    last: u64,
    held: BTreeMap<Ticket, Held<P>>,
    /// How many each peer holds. None is 0.
    holds: BTreeMap<P, usize>,
    /// Oldest first. No queue is empty.
    waiting: BTreeMap<P, VecDeque<Ticket>>,
    /// The peers that wait, whoever has waited longest since its last slot first.
    turns: VecDeque<P>,
}

impl<P: Copy + Ord> Slots<P> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: 0,
            held: BTreeMap::new(),
            holds: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// A ticket that waits from now on, behind its peer's others; `None` if too many wait. [`Slots::grant`] comes next.
    pub(super) fn ask(&mut self, peer: P, asker: Asker, now: Duration) -> Option<Ticket> {
        let waits = !self.turns.is_empty() || self.room_for(peer, now).is_none();
        if asker == Asker::Newcomer && waits {
            let of_peer = self.waiting.get(&peer).map_or(0, VecDeque::len);
            if of_peer >= self.limits.waiting_per_peer || self.waiting() >= self.limits.waiting {
                return None;
            }
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        let tickets = self.waiting.entry(peer).or_default();
        if tickets.is_empty() {
            self.turns.push_back(peer);
        }
        tickets.push_back(ticket);
        Some(ticket)
    }

    /// The next one that waits, which holds a slot from now on: a free one, or one whose holder's time is over. Its own
    /// time runs from [`Slots::start`] on.
    pub(super) fn grant(&mut self, now: Duration) -> Option<Ticket> {
        if self.turns.is_empty() || !(self.has_free() || self.held.values().any(|held| held.is_overdue(now))) {
            return None;
        }
        let mut turns: Vec<usize> = (0..self.turns.len()).collect();
        turns.sort_by_key(|&turn| self.held_by(self.turns[turn]));
        let (turn, room) = turns.into_iter().find_map(|turn| Some((turn, self.room_for(self.turns[turn], now)?)))?;
        if let Room::Of(ticket) = room {
            self.release(ticket);
        }
        let peer = self.turns.remove(turn)?;
        let tickets = self.waiting.get_mut(&peer)?;
        let ticket = tickets.pop_front()?;
        if tickets.is_empty() {
            self.waiting.remove(&peer);
        } else {
            self.turns.push_back(peer);
        }
        *self.holds.entry(peer).or_default() += 1;
        self.held.insert(ticket, Held { peer, sent: 0, until: None, quantum_end: Duration::ZERO });
        Some(ticket)
    }

    /// The holder has learnt that it holds a slot, and its quantum begins.
    pub(super) fn start(&mut self, ticket: Ticket, now: Duration) {
        if let Some(held) = self.held.get_mut(&ticket) {
            held.quantum_end = now + self.limits.quantum;
            held.until = Some(held.quantum_end);
        }
    }

    /// The server itself keeps the holder from sending: its slot is not taken away meanwhile.
    pub(super) fn pin(&mut self, ticket: Ticket) {
        if let Some(held) = self.held.get_mut(&ticket) {
            held.until = None;
        }
    }

    /// The opposite of [`Slots::pin`]; the quantum went on.
    pub(super) fn unpin(&mut self, ticket: Ticket) {
        if let Some(held) = self.held.get_mut(&ticket) {
            held.until = Some(held.quantum_end);
        }
    }

    /// Counts bytes against the holder's quantum.
    pub(super) fn sent(&mut self, ticket: Ticket, bytes: u64) {
        if let Some(held) = self.held.get_mut(&ticket) {
            held.sent = held.sent.saturating_add(bytes);
        }
    }

    /// Whether the holder may send more. If its quantum is over, it may only if nobody waits for it, and a new one begins;
    /// otherwise its slot is free, and [`Slots::ask`] comes next.
    pub(super) fn may_send(&mut self, ticket: Ticket, now: Duration) -> bool {
        let Some(held) = self.held.get(&ticket) else { return false };
        if held.sent < self.limits.quantum_bytes && now < held.quantum_end {
            return true;
        }
        if self.is_wanted(held.peer) {
            self.release(ticket);
            return false;
        }
        if let Some(held) = self.held.get_mut(&ticket) {
            held.sent = 0;
        }
        self.start(ticket, now);
        true
    }

    /// Forgets a ticket, held or waiting. [`Slots::grant`] comes next.
    pub(super) fn give_back(&mut self, ticket: Ticket, peer: P) {
        if self.release(ticket) {
            return;
        }
        let Some(tickets) = self.waiting.get_mut(&peer) else { return };
        tickets.retain(|&waiting| waiting != ticket);
        if tickets.is_empty() {
            self.waiting.remove(&peer);
            self.turns.retain(|&waiting| waiting != peer);
        }
    }

    /// When the next slot can be taken from its holder; `None` if nobody waits for it.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.held.values().filter(|held| self.is_wanted(held.peer)).filter_map(|held| held.until).min()
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    fn held_by(&self, peer: P) -> usize {
        self.holds.get(&peer).copied().unwrap_or(0)
    }

    /// Whether a slot of `holder` may be taken for `other`.
    fn yields(&self, holder: P, other: P) -> bool {
        holder == other || self.held_by(other) < self.held_by(holder)
    }

    /// Whether somebody waits for whom a slot of this peer may be taken.
    fn is_wanted(&self, holder: P) -> bool {
        self.turns.iter().any(|&other| self.yields(holder, other))
    }

    fn has_free(&self) -> bool {
        self.held.len() < self.limits.slots
    }

    /// A free slot, or that of the holder whose time has been over for longest of those that yield to this peer.
    fn room_for(&self, peer: P, now: Duration) -> Option<Room> {
        if self.has_free() {
            return Some(Room::Free);
        }
        let yields = |(_, held): &(&Ticket, &Held<P>)| held.is_overdue(now) && self.yields(held.peer, peer);
        let longest = self.held.iter().filter(yields).min_by_key(|(_, held)| held.until)?;
        Some(Room::Of(*longest.0))
    }

    fn release(&mut self, ticket: Ticket) -> bool {
        let Some(held) = self.held.remove(&ticket) else { return false };
        if let Some(holds) = self.holds.get_mut(&held.peer) {
            *holds -= 1;
            if *holds == 0 {
                self.holds.remove(&held.peer);
            }
        }
        true
    }
}

impl<P> Held<P> {
    fn is_overdue(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { slots: 2, waiting: 8, waiting_per_peer: 4, quantum_bytes: 100, quantum: Duration::from_millis(250) };
    const NOW: Duration = Duration::from_secs(1);

    fn slots(slots: usize) -> Slots<char> {
        Slots::new(Limits { slots, ..LIMITS })
    }

    /// Asks and gets a slot.
    fn holder(slots: &mut Slots<char>, peer: char) -> Ticket {
        let ticket = slots.ask(peer, Asker::Newcomer, NOW).unwrap();
        assert_eq!(slots.grant(NOW), Some(ticket));
        slots.start(ticket, NOW);
        ticket
    }

    #[test]
    fn a_crowd_of_one_peer_does_not_delay_anothers_first() {
        let mut slots = Slots::new(Limits { slots: 1, waiting: 20, ..LIMITS });
        let first = holder(&mut slots, 'a');
        let crowd: Vec<_> = (0..10).map(|_| slots.ask('a', Asker::Begun, NOW).unwrap()).collect();
        let other = slots.ask('b', Asker::Newcomer, NOW).unwrap();
        assert_eq!(slots.grant(NOW), None);
        let mut served = vec![first];
        for _ in 0..11 {
            let ended = *served.last().unwrap();
            slots.give_back(ended, if ended == other { 'b' } else { 'a' });
            served.push(slots.grant(NOW).unwrap());
        }
        let expected: Vec<_> = [first, crowd[0], other].into_iter().chain(crowd[1..].iter().copied()).collect();
        assert_eq!(served, expected);
    }

    #[test]
    fn who_holds_the_fewest_is_next_and_equals_take_turns() {
        let mut slots = slots(2);
        let (of_crowd, single) = (holder(&mut slots, 'a'), holder(&mut slots, 'b'));
        let crowd = [(); 3].map(|()| slots.ask('a', Asker::Newcomer, NOW).unwrap());
        let end = NOW + LIMITS.quantum;
        assert_eq!(slots.grant(end), Some(crowd[0]), "its own next");
        assert!(!slots.may_send(of_crowd, end));
        assert!(slots.may_send(single, end), "the crowd has one already");
        slots.give_back(single, 'b');
        assert_eq!(slots.grant(end), Some(crowd[1]), "nobody else waits");
        let others = ['b', 'c'].map(|peer| slots.ask(peer, Asker::Newcomer, end).unwrap());
        slots.give_back(crowd[0], 'a');
        assert_eq!(slots.grant(end), Some(others[0]));
        slots.give_back(others[0], 'b');
        assert_eq!(slots.grant(end), Some(others[1]));
    }

    #[test]
    fn newcomers_are_refused_when_too_many_wait_and_those_who_have_begun_are_not() {
        let mut slots = slots(1);
        holder(&mut slots, 'a');
        for peer in ['a', 'b'] {
            assert!((0..LIMITS.waiting_per_peer).all(|_| slots.ask(peer, Asker::Newcomer, NOW).is_some()));
            assert_eq!(slots.ask(peer, Asker::Newcomer, NOW), None);
        }
        assert_eq!(slots.ask('c', Asker::Newcomer, NOW), None, "in all");
        assert!(slots.ask('a', Asker::Begun, NOW).is_some());
        assert_eq!((slots.held(), slots.waiting()), (1, LIMITS.waiting + 1));
    }

    #[test]
    fn with_no_room_to_wait_a_free_slot_is_had_all_the_same() {
        let mut slots = Slots::new(Limits { slots: 1, waiting: 0, ..LIMITS });
        holder(&mut slots, 'a');
        assert_eq!(slots.ask('b', Asker::Newcomer, NOW), None);
        let later = NOW + LIMITS.quantum;
        let ticket = slots.ask('b', Asker::Newcomer, later).unwrap();
        assert_eq!(slots.grant(later), Some(ticket));
    }

    #[test]
    fn a_quantum_ends_by_bytes_or_by_time_if_somebody_waits() {
        let end = NOW + LIMITS.quantum;
        let just_before = end.checked_sub(Duration::from_nanos(1)).unwrap();
        let mut slots = slots(1);
        let ticket = holder(&mut slots, 'a');
        slots.sent(ticket, LIMITS.quantum_bytes);
        assert!(slots.may_send(ticket, NOW), "nobody waits");
        assert_eq!(slots.next_expiry(), None);
        let other = slots.ask('a', Asker::Newcomer, NOW).unwrap();
        slots.sent(ticket, LIMITS.quantum_bytes - 1);
        assert!(slots.may_send(ticket, just_before));
        assert_eq!((slots.grant(just_before), slots.next_expiry()), (None, Some(end)));
        slots.sent(ticket, 1);
        assert!(!slots.may_send(ticket, just_before));
        assert_eq!(slots.grant(just_before), Some(other));
        slots.start(other, just_before);

        slots.ask('b', Asker::Newcomer, end).unwrap();
        assert_eq!(slots.grant(end), None);
        assert!(!slots.may_send(other, just_before + LIMITS.quantum));
    }

    #[test]
    fn a_slot_is_taken_from_a_holder_that_does_not_ask_but_not_while_it_is_pinned() {
        let mut slots = slots(2);
        let (slow, pinned) = (holder(&mut slots, 'a'), holder(&mut slots, 'a'));
        slots.pin(pinned);
        let waiting = ['b', 'c'].map(|peer| slots.ask(peer, Asker::Newcomer, NOW).unwrap());
        let end = NOW + LIMITS.quantum;
        assert_eq!((slots.grant(NOW), slots.grant(end), slots.grant(end)), (None, Some(waiting[0]), None));
        assert!(!slots.may_send(slow, end));
        slots.unpin(pinned);
        assert_eq!(slots.grant(end), Some(waiting[1]));
        assert!(!slots.may_send(pinned, end));
        assert_eq!(
            (slots.ask('d', Asker::Begun, end * 9).is_some(), slots.grant(end * 9)),
            (true, None),
            "not started"
        );
    }

    const PEERS: u8 = 4;

    #[derive(Debug, Clone)]
    enum Step {
        Ask(u8, bool),
        GiveBack(usize),
        MaySend(usize),
        Sent(usize, u64),
        Pin(usize, bool),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..PEERS, any::<bool>()).prop_map(|(peer, begun)| Step::Ask(peer, begun)),
            2 => any::<usize>().prop_map(Step::GiveBack),
            2 => any::<usize>().prop_map(Step::MaySend),
            2 => (any::<usize>(), 1..120_u64).prop_map(|(which, bytes)| Step::Sent(which, bytes)),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(which, pin)| Step::Pin(which, pin)),
            1 => (1..300_u64).prop_map(Step::Pass),
        ]
    }

    /// What must hold of [`Slots`], kept in the simplest way.
    #[derive(Default)]
    struct Model {
        /// In the order in which they asked.
        waiting: Vec<(Ticket, u8)>,
        held: Vec<(Ticket, u8)>,
        /// Of each peer that waits and holds none, who else got a slot since that is so.
        passed_over: BTreeMap<u8, Vec<u8>>,
    }

    impl Model {
        fn waits(&self, peer: u8) -> bool {
            self.waiting.iter().any(|(_, waiting)| *waiting == peer)
        }

        fn ask(&mut self, ticket: Ticket, peer: u8) {
            self.waiting.push((ticket, peer));
            self.note_who_has_none();
        }

        fn holds(&self, peer: u8) -> usize {
            self.held.iter().filter(|(_, holder)| *holder == peer).count()
        }

        fn note_who_has_none(&mut self) {
            for peer in 0..PEERS {
                if !self.waits(peer) || self.holds(peer) > 0 {
                    self.passed_over.remove(&peer);
                } else {
                    self.passed_over.entry(peer).or_default();
                }
            }
        }

        fn granted(&mut self, ticket: Ticket, taken_from: Option<u8>) -> Result<(), TestCaseError> {
            let at = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
            prop_assert!(at.is_some(), "a ticket that does not wait");
            let (_, peer) = self.waiting.remove(at.unwrap());
            prop_assert!(
                self.waiting.iter().all(|(other, of)| *of != peer || *other > ticket),
                "not its peer's oldest"
            );
            let holds = self.holds(peer);
            let fewer = self.waiting.iter().any(|(_, other)| self.holds(*other) < holds);
            prop_assert!(!fewer || taken_from == Some(peer), "another one holds fewer");
            prop_assert!(
                taken_from.is_none_or(|from| from == peer || self.holds(from) >= holds),
                "taken from a peer that had no more"
            );
            self.passed_over.remove(&peer);
            for others in self.passed_over.values_mut() {
                prop_assert!(!others.contains(&peer), "a peer got two slots while another had none");
                others.push(peer);
            }
            self.held.push((ticket, peer));
            self.note_who_has_none();
            Ok(())
        }

        fn forget(&mut self, ticket: Ticket) {
            self.held.retain(|(held, _)| *held != ticket);
            self.waiting.retain(|(waiting, _)| *waiting != ticket);
            self.note_who_has_none();
        }

        fn any(&self, which: usize) -> Option<(Ticket, u8)> {
            let all: Vec<_> = self.held.iter().chain(&self.waiting).copied().collect();
            if all.is_empty() { None } else { Some(all[which % all.len()]) }
        }
    }

    fn apply(slots: &mut Slots<u8>, model: &mut Model, step: Step, now: &mut Duration) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(peer, begun) => {
                let asker = if begun { Asker::Begun } else { Asker::Newcomer };
                let waiting = model.waiting.len();
                match slots.ask(peer, asker, *now) {
                    Some(ticket) => {
                        prop_assert!(begun || waiting < LIMITS.waiting, "too many wait");
                        model.ask(ticket, peer);
                    }
                    None => prop_assert!(!begun && model.held.len() == LIMITS.slots, "refused with a slot free"),
                }
            }
            Step::GiveBack(which) => {
                if let Some((ticket, peer)) = model.any(which) {
                    slots.give_back(ticket, peer);
                    model.forget(ticket);
                }
            }
            Step::MaySend(which) => {
                if let Some((ticket, peer)) = model.any(which).filter(|ticket| model.held.contains(ticket))
                    && !slots.may_send(ticket, *now)
                {
                    prop_assert!(!model.waiting.is_empty(), "nobody needs the slot");
                    model.forget(ticket);
                    let again = slots.ask(peer, Asker::Begun, *now);
                    prop_assert!(again.is_some());
                    model.ask(again.unwrap(), peer);
                }
            }
            Step::Sent(which, bytes) => {
                if let Some((ticket, _)) = model.any(which) {
                    slots.sent(ticket, bytes);
                }
            }
            Step::Pin(which, pin) => match model.any(which) {
                Some((ticket, _)) if pin => slots.pin(ticket),
                Some((ticket, _)) => slots.unpin(ticket),
                None => {}
            },
            Step::Pass(millis) => *now += Duration::from_millis(millis),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn slots_are_bounded_never_idle_and_shared_peer_by_peer(steps in prop::collection::vec(step(), 1..120)) {
            let (mut slots, mut model, mut now) = (Slots::new(LIMITS), Model::default(), NOW);
            for step in steps {
                apply(&mut slots, &mut model, step, &mut now)?;
                while let Some(ticket) = slots.grant(now) {
                    slots.start(ticket, now);
                    // A slot may have been taken from somebody for it.
                    let taken = model.held.iter().find(|(held, _)| !slots.held.contains_key(held)).copied();
                    if let Some((taken, _)) = taken {
                        model.forget(taken);
                    }
                    model.granted(ticket, taken.map(|(_, peer)| peer))?;
                }
                prop_assert!(slots.held() <= LIMITS.slots);
                prop_assert_eq!((slots.held(), slots.waiting()), (model.held.len(), model.waiting.len()));
                prop_assert!(slots.waiting() == 0 || slots.held() == LIMITS.slots, "somebody waits for a free slot");
                prop_assert!(slots.next_expiry().is_none_or(|at| at > now), "somebody waits for a slot that is overdue");
            }
            while let Some((ticket, peer)) = model.any(0) {
                slots.give_back(ticket, peer);
                model.forget(ticket);
            }
            prop_assert_eq!((slots.held(), slots.waiting(), slots.turns.len()), (0, 0, 0));
        }
    }
}
