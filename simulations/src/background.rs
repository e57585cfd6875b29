//! What nobody waits for, and the clock on the wall that it goes by.

use layermesh_proto::engine::{
    Urgency,
    budget::MINUTES_PER_WEEK,
    event::{Event, Instant, WantId},
};

use crate::{Blob, NodeIndex, Violation, World};

const SECONDS_PER_MINUTE: i64 = 60;

impl World {
    /// A blob is to be at a node some day, and nobody waits for it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn want_in_background(&mut self, node: NodeIndex, blob: Blob) -> Result<WantId, Violation> {
        self.want_as(node, blob, Urgency::Background)
    }

    /// At a node's wall a minute of the week begins. The world's own time goes on from there, so once is enough.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn set_wall_clock(&mut self, node: NodeIndex, minute_of_week: u16) -> Result<(), Violation> {
        self.nodes[node].clock_set = Some((self.now, minute_of_week));
        self.handle(node, Event::Clock { minute_of_week })
    }

    /// What a node is told of its wall clock when it starts, if anybody knows it and the node goes by it. Engines count the
    /// minutes from there on.
    pub(crate) fn clock_of(&self, node: NodeIndex) -> Option<Event> {
        let minute_of_week = self.minute_of(node).filter(|_| self.has_windows())?;
        Some(Event::Clock { minute_of_week })
    }

    /// The minute of the week that a node's wall clock shows, if anybody knows it.
    pub(crate) fn minute_of(&self, node: NodeIndex) -> Option<u16> {
        let (since, start, skew_s) = match self.nodes[node].clock_set {
            Some((at, minute)) => (at, minute, 0),
            None => (Instant::default(), self.options.start_minute?, self.nodes[node].options.skew_s),
        };
        let passed_s = i64::try_from(self.now.since(since).as_secs()).unwrap_or(i64::MAX);
        let seconds = passed_s.saturating_add(skew_s);
        let minutes = i64::from(start).saturating_add(seconds.div_euclid(SECONDS_PER_MINUTE));
        let minute_of_week = minutes.rem_euclid(i64::from(MINUTES_PER_WEEK));
        u16::try_from(minute_of_week).ok()
    }
}
