//! Deltas between layers: how a layer was compressed, and how it is made again from an older one and a patch.
//!
//! Invariant: nothing is said of a layer that was not compared byte for byte, and what is made has the digest that the
//! patch names or is refused.

pub mod apply;
pub mod make;
pub mod recipe;
#[cfg(test)]
mod tests;

/// How a zstd stream begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How a gzip stream begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
