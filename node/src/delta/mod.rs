//! Deltas between layers: how a layer was compressed, how it is made again from an older one and a patch, where patches are,
//! and making layers as the engine says.
//!
//! Invariant: nothing is said of a layer that was not compared byte for byte, and what is made has the digest that the
//! patch names or is refused.

pub mod apply;
pub mod artifact;
pub mod make;
pub mod publish;
pub mod rebuilding;
pub mod recipe;
#[cfg(test)]
mod tests;
pub mod ways;

/// How a zstd stream begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How a gzip stream begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
