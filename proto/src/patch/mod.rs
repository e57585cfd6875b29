//! Patches: how a new layer's tar is made from an old one.
//!
//! docs/patch-format.md has the format.

mod cursor;
mod decode;
mod encode;
mod header;
mod mix;
mod model;
mod range;
mod ring;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Decoder, Need};
pub use encode::{Op, WrongOp, encode};
pub use header::{HEAD_LEN, HEADER_MAX, Header, HeaderError, LEN_MAX, MAGIC, Sizes};
