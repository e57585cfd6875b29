//! The Layermesh fleet on one machine: engines in virtual time.
//!
//! A [`World`] is everything that the engine is not: clock, network, peers' stores and the origin. It drives one
//! engine for each node exactly as a driver would and takes nothing from them but actions, so what holds here
//! holds for the code that runs on devices.
//!
//! Invariants: the same seed and the same calls give the same trace ([`World::trace`]); after every event the
//! safety rules are checked ([`checks`]), and a broken one ends the run with a [`Violation`].
//!
//! Deliberately simple: a flow gets its share of the two ends' rates piece by piece, disks are instantaneous,
//! and blobs have sizes and goodness but no bytes.

mod acts;
mod background;
pub mod checks;
mod flows;
mod network;
mod node;
mod queue;
pub mod report;
pub mod scenario;
mod store;
mod world;

pub use checks::Violation;
pub use network::{Options, OriginMode};
pub use node::Fault;
pub use world::{Blob, NodeIndex, World};
