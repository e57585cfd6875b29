//! The Layermesh fleet on one machine: engines in virtual time.
//!
//! A [`World`] is everything that the engine is not: clock, network, peers' stores and the origin. It drives one
//! engine for each node exactly as a driver would and takes nothing from them but actions, so what holds here
//! holds for the code that runs on devices.
//!
//! Invariants: the same seed and the same calls give the same trace ([`World::trace`]); after every event the
//! safety rules are checked ([`checks`]), and a broken one ends the run with a [`Violation`].
//!
//! Deliberately simple: a piece keeps the share of the links that it set out with (`links.rs`), control messages take no
//! share of them, and blobs have sizes and goodness but no bytes.

mod acts;
mod background;
pub mod checks;
pub mod cli;
mod connections;
mod disk;
pub mod fleet;
mod flows;
pub mod lab;
mod limits;
mod links;
mod network;
mod node;
mod queue;
mod quota;
mod reach;
mod rebuild;
pub mod report;
mod run;
pub mod sabotage;
pub mod scenario;
mod store;
pub mod sweep;
mod trace;
mod world;

pub use checks::Violation;
pub use network::{Options, OriginMode};
pub use node::{Fault, NodeOptions, Traffic};
pub use world::{Blob, NodeIndex, World};
