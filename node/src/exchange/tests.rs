//! Over loopback.
