//! Patches: what leads from an old layer's tar to a new one's, written and read.
//!
//! A patch is one stream of symbols, each bit of which is predicted from what both sides know and coded
//! arithmetically: go along the old tar and say which bytes changed, and by how much; jump elsewhere in it; repeat bytes
//! of the new one; or give them as they are. docs/patch-format.md has its bytes.
//!
//! [`Decoder`] is handed the patch and the old tar in order, each once, in pieces of any size. Who finds what the new tar
//! is made of, and turns that into [`Op`]s for [`encode`], is elsewhere: it takes memory and time that no device has.
//!
//! Invariant: patches of one format lead to the same bytes for good, on every machine. What a decoder holds and makes is
//! bounded by the header, which the one who applies it has looked at.

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
