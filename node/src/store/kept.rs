//! Pieces that readers keep between two reads, together within one limit.
//!
//! A piece is read and checked whole, but given out in parts. Invariant: all readers together keep at most
//! what they were allowed (or one piece, if that is more); beyond it the reader that has not read for longest loses its
//! piece and reads it again should it go on. So clients that stop reading cost no memory, and those that read on are
//! not slowed by them.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use layermesh_proto::PieceIndex;

use super::lock;

/// Bytes of pieces that all readers keep together, unless told otherwise: 32 of the largest pieces, or the readers of dozens of common
/// layers, whose pieces have 256 to 512 KiB.
pub const KEPT_BYTES_MAX: usize = 32 << 20;

/// The pieces, the one used last at the end.
#[derive(Debug)]
pub(super) struct KeptPieces {
    bytes_max: usize,
    pieces: Mutex<VecDeque<Kept>>,
    next_reader: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    reader: u64,
    index: PieceIndex,
    bytes: Bytes,
}

impl KeptPieces {
    /// None are kept; of so many bytes at most they will be.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, pieces: Mutex::default(), next_reader: AtomicU64::default() }
    }

    /// A number for a new reader.
    pub(super) fn reader(&self) -> u64 {
        self.next_reader.fetch_add(1, Ordering::Relaxed)
    }

    /// The piece that a reader keeps, if it is this one.
    pub(super) fn get(&self, reader: u64, index: PieceIndex) -> Option<Bytes> {
        let mut pieces = lock(&self.pieces);
        let at = pieces.iter().position(|kept| kept.reader == reader && kept.index == index)?;
        let kept = pieces.remove(at)?;
        let bytes = kept.bytes.clone();
        pieces.push_back(kept);
        Some(bytes)
    }

    /// Keeps a piece for a reader instead of the one that it kept.
    pub(super) fn keep(&self, reader: u64, index: PieceIndex, bytes: Bytes) {
        let mut pieces = lock(&self.pieces);
        pieces.retain(|kept| kept.reader != reader);
        let mut total: usize = pieces.iter().map(|kept| kept.bytes.len()).sum();
        while total + bytes.len() > self.bytes_max
            && let Some(oldest) = pieces.pop_front()
        {
            total -= oldest.bytes.len();
        }
        pieces.push_back(Kept { reader, index, bytes });
    }

    /// Lets go of what a reader keeps.
    pub(super) fn release(&self, reader: u64) {
        lock(&self.pieces).retain(|kept| kept.reader != reader);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_that_stopped_lose_their_piece_first() {
        let kept = KeptPieces::new(1024);
        let piece = Bytes::from(vec![0; 1024 / 4]);
        let readers: Vec<u64> = (0..4).map(|_| kept.reader()).collect();
        for reader in &readers {
            kept.keep(*reader, 0, piece.clone());
        }
        assert!(kept.get(readers[0], 0).is_some(), "this one reads on");
        let new = kept.reader();
        kept.keep(new, 7, piece.clone());
        assert_eq!(kept.get(readers[1], 0), None);
        assert!([readers[0], readers[2], readers[3]].iter().all(|reader| kept.get(*reader, 0).is_some()));
        assert_eq!(kept.get(new, 6), None, "another piece");
        kept.keep(new, 8, piece);
        assert_eq!(kept.get(new, 7), None, "one piece a reader");
        kept.release(new);
        assert_eq!(kept.get(new, 8), None);
    }
}
