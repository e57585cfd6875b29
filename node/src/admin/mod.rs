//! The node's own API, for people on the device: HTTP/JSON on a unix socket.
//!
//! [`server`] answers from a [`NodeView`]; [`client`] is what the CLI uses; [`types`] is what both say, and what
//! `--json` prints. [`run_file`] says where a running node listens. Invariant: whoever can open the socket (mode
//! 0600) may use all of it; nothing here is reachable over the network. The read-only part that is, lives in
//! [`crate::status`].

mod asked;
pub mod client;
mod http;
pub mod run_file;
pub mod server;
pub mod types;
pub(crate) mod view;

pub(crate) use asked::{Asked, problem};
pub(crate) use http::{Further, Limits, serve};
pub use view::{NodeFacts, NodeView, StoreBlob, StoreTotals, StoreView};

#[cfg(test)]
pub(crate) mod testing;
