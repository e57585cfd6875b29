//! The Layermesh node: the device's half of the mesh, as a library under the `layermesh` binary.
//!
//! Decisions are made by [`layermesh_proto::engine`]; everything here is IO around it. [`driver`] alone touches
//! the engine, [`daemon`] alone constructs, and `mirror` and `origin` know nothing of `swarm`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr))]

pub mod counters;
pub mod exchange;
pub mod mesh;
pub mod swarm;
