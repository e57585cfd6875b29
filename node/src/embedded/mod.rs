//! A registry of one's own: the pull half of the OCI distribution spec 1.1, in this process.
//!
//! The `demo` command uses it as its origin, with an image made by [`image`] and an uplink's rate; tests use it with
//! [`faults`]. It holds what it is given, in memory or as files on disk that it does not own, and listens where it is
//! told, normally on loopback.
//!
//! Deliberately absent: pushing, deletion, and repositories that hide blobs from each other. A blob is served under
//! every repository, since who may read what is not what this registry is for.

pub mod faults;
pub mod image;

mod access;
mod registry;
mod respond;
mod server;

#[cfg(test)]
mod tests;

pub use self::{
    access::Access,
    faults::{Fault, FaultRule},
    registry::{Registry, RequestRecord},
};
