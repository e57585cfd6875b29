//! Deltas between layers. So far what they need first: how a layer was compressed.
//!
//! Invariant: nothing is said of a layer that was not compared byte for byte.

pub mod recipe;
