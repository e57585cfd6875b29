//! The checks, by what they look at. All are functions of the facts alone.

pub(super) mod device;
pub(super) mod origins;
pub(super) mod runtimes;
pub(super) mod site;
