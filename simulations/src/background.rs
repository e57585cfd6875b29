//! What nobody waits for, and the clock on the wall that it goes by.

use layermesh_proto::engine::{
    Urgency,
    event::{Event, WantId},
};

use crate::{Blob, NodeIndex, Violation, World};

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
        self.handle(node, Event::Clock { minute_of_week })
    }
}
