//! The Layermesh node: the device's half of the mesh, as a library under the `layermesh` binary.
//!
//! Decisions are made by [`layermesh_proto::engine`]; everything here is IO around it. [`driver`] alone touches
//! the engine, [`daemon`] alone constructs, and `mirror` and `origin` know nothing of `swarm`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr))]

pub mod admin;
pub mod archive;
pub mod check;
pub mod cli;
pub mod config;
pub mod contents;
pub mod counters;
mod crowd;
pub mod daemon;
pub mod delta;
pub mod doctor;
pub mod driver;
pub mod embedded;
pub mod exchange;
pub mod fetch;
pub mod fleet;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod identity;
pub mod image;
pub mod mesh;
pub mod mirror;
pub mod origin;
pub mod pace;
pub mod pinning;
pub mod pull;
pub mod release;
pub mod remembered;
pub mod seed;
pub mod setup;
pub mod status;
pub mod store;
pub mod swarm;
pub mod verifying;
pub mod wall_clock;
mod watchdog;
