//! The one timer table of the engine.
//!
//! Invariant: a timer is set at most once; setting it again moves it. Timers never act by themselves: they are
//! taken when the driver says that their time has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::event::{FetchId, Instant, LookupId, RequestId};
use crate::{ContentId, NodeId};

/// What is to be done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Announce what changed in the own inventory.
    Announce,
    /// Announce the summary.
    Summary,
    /// A control request was not answered.
    RequestTimeout(RequestId),
    /// Ask a peer that did not answer again.
    AskAgain(NodeId),
    /// A fetch made no progress.
    Stall(FetchId),
    /// Begin another round of a transfer's sources.
    Retry(ContentId),
    /// Say again what part this node takes in bringing a blob to its site.
    Tell(ContentId),
    /// Say the hashes of what came from the origin.
    Vouch(ContentId),
    /// Say the hashes of a blob that is held and that many want.
    Offer(ContentId),
    /// Making a blob of another one got on no further.
    Rebuild(ContentId),
    /// The store did not check a whole blob in time.
    CompleteTimeout(ContentId),
    /// Whoever waits for an origin's answer is given what the site knows.
    AnswerFromMemory(LookupId),
    /// An origin's answer is no longer awaited.
    LookupTimeout(LookupId),
    /// Peers that ask what a tag stands for are told that nothing is known yet.
    TagHold(LookupId),
    /// A tag's keeper did not answer, or whoever may ask did not say what it heard.
    TagPatience(LookupId),
    /// Ask an origin that is away whether it is back.
    Probe,
    /// Looking at metadata of releases took too long, or somebody's offers count again.
    Examine,
    /// Say how far this node is with its releases.
    Rollout,
    /// Background work may be allowed to ask an origin, or not any more.
    Budget,
}

/// Timers of which there is one only.
const SINGLE_MAX: usize = 6;

impl Timer {
    /// Its number among those of which there is one only.
    const fn single(self) -> Option<usize> {
        match self {
            Self::Announce => Some(0),
            Self::Summary => Some(1),
            Self::Probe => Some(2),
            Self::Examine => Some(3),
            Self::Rollout => Some(4),
            Self::Budget => Some(5),
            _ => None,
        }
    }
}

/// Timers and when they are due. Each has a number while it is set, by which they are ordered: they are moved all the time, and
/// names of blobs are long.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, (Instant, usize)>,
    /// Those of which there is one only: they are asked for with each event.
    single: [Option<(Instant, usize)>; SINGLE_MAX],
    order: BTreeSet<(Instant, usize)>,
    numbered: Vec<Timer>,
    free: Vec<usize>,
}

impl Timers {
    fn get_mut(&mut self, timer: Timer) -> Option<&mut (Instant, usize)> {
        match timer.single() {
            Some(place) => self.single[place].as_mut(),
            None => self.at.get_mut(&timer),
        }
    }

    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, now: Instant, after: Duration) {
        let due = now + after;
        if let Some((before, number)) = self.get_mut(timer) {
            let (before, number) = (std::mem::replace(before, due), *number);
            if before != due {
                self.order.remove(&(before, number));
                self.order.insert((due, number));
            }
            return;
        }
        let number = self.free.pop().unwrap_or(self.numbered.len());
        match self.numbered.get_mut(number) {
            Some(place) => *place = timer,
            None => self.numbered.push(timer),
        }
        match timer.single() {
            Some(place) => self.single[place] = Some((due, number)),
            None => {
                self.at.insert(timer, (due, number));
            }
        }
        self.order.insert((due, number));
    }

    /// Removes a timer, if it is set.
    pub(super) fn stop(&mut self, timer: Timer) {
        let was = match timer.single() {
            Some(place) => self.single[place].take(),
            None => self.at.remove(&timer),
        };
        if let Some((due, number)) = was {
            self.order.remove(&(due, number));
            self.free.push(number);
        }
    }

    /// Whether a timer is set.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at(timer).is_some()
    }

    /// When a timer is due, if it is set.
    pub(super) fn at(&self, timer: Timer) -> Option<Instant> {
        let set = match timer.single() {
            Some(place) => self.single[place].as_ref(),
            None => self.at.get(&timer),
        };
        set.map(|(due, _)| *due)
    }

    /// When the first timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// The timers that are due, in order. Each is then taken by [`Timers::take`], since what one does may stop
    /// another; what they set anew waits for the next tick, so that a tick always ends.
    pub(super) fn due(&self, now: Instant) -> Vec<Timer> {
        let due = self.order.iter().take_while(|(due, _)| *due <= now);
        let mut due: Vec<_> = due.filter_map(|(due, number)| Some((*due, *self.numbered.get(*number)?))).collect();
        due.sort_unstable();
        due.into_iter().map(|(_, timer)| timer).collect()
    }

    /// Removes a timer if it is due, and says whether it was.
    pub(super) fn take(&mut self, timer: Timer, now: Instant) -> bool {
        let due = self.at(timer).is_some_and(|due| due <= now);
        if due {
            self.stop(timer);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_in_order_and_can_be_moved_and_stopped() {
        let second = Duration::from_secs(1);
        let start = Instant::default();
        let mut timers = Timers::default();
        timers.set(Timer::Summary, start, second * 3);
        timers.set(Timer::Announce, start, second * 2);
        timers.set(Timer::AskAgain(NodeId::from_public_key([1; 32])), start, second);
        assert_eq!(timers.next(), Some(start + second));
        timers.set(Timer::Announce, start, second * 4);
        timers.stop(Timer::AskAgain(NodeId::from_public_key([1; 32])));
        assert_eq!(timers.due(start + second * 3), [Timer::Summary]);
        assert!(!timers.take(Timer::Announce, start + second * 3));
        assert!(timers.take(Timer::Summary, start + second * 3));
        assert_eq!(timers.next(), Some(start + second * 4));
        timers.set(Timer::Probe, start, second * 4);
        timers.set(Timer::Budget, start, second * 4);
        assert_eq!(
            timers.due(start + second * 4),
            [Timer::Announce, Timer::Probe, Timer::Budget],
            "whatever was set first"
        );
    }
}
