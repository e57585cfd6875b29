//! Pieces: the unit in which blobs are exchanged, checked and stored.
//!
//! Invariant: a piece's length is a function of the blob's size alone, so that all nodes cut a blob the same way
//! without saying so. What is deliberately absent: any knowledge of who has a piece or wants it.

use std::{fmt, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest blob, in bytes: 64 GiB. Registries in common use refuse layers well below this.
pub const BLOB_SIZE_MAX: u64 = 64 << 30;
/// Shortest piece, in bytes. Smaller ones cost more in haves and requests than they gain in overlap.
pub const PIECE_LEN_MIN: u32 = 128 << 10;
/// Longest piece, in bytes. A piece is held in memory while it is checked, so this bounds a node's buffers; and a node
/// passes a piece on once it has all of it, so this is what each hop adds to the time of a blob.
pub const PIECE_LEN_MAX: u32 = 1 << 20;
/// Pieces that a blob is cut into where the limits on their length allow it.
const PIECES_AIM: u64 = 256;
/// Most pieces that a blob can have.
pub const PIECES_MAX: u32 = (BLOB_SIZE_MAX / PIECE_LEN_MAX as u64) as u32;

/// Bytes that are asked of an origin at first when nobody knows how large the blob is: a whole number of pieces whatever
/// its size turns out to be. 4 MiB: most blobs of an image are smaller, and a second question costs no more than the first.
pub const FIRST_BYTES: u64 = 4 << 20;

/// A piece's number within its blob, from 0.
pub type PieceIndex = u32;

/// How a blob of a given size is cut into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceLayout {
    blob_size: u64,
    piece_len: u32,
}

impl PieceLayout {
    /// The layout of a blob of `blob_size` bytes, or `None` above [`BLOB_SIZE_MAX`].
    ///
    /// The piece length is the power of two that cuts the blob into at most 256 pieces, within
    /// [`PIECE_LEN_MIN`] and [`PIECE_LEN_MAX`].
    pub fn for_size(blob_size: u64) -> Option<Self> {
        if blob_size > BLOB_SIZE_MAX {
            return None;
        }
        let ideal = blob_size.div_ceil(PIECES_AIM).max(1).next_power_of_two();
        let piece_len = ideal.clamp(u64::from(PIECE_LEN_MIN), u64::from(PIECE_LEN_MAX)) as u32;
        Some(Self { blob_size, piece_len })
    }

    /// The blob's size in bytes.
    pub const fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// Length in bytes of every piece but the last.
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Number of pieces. An empty blob has none.
    pub const fn count(&self) -> u32 {
        self.blob_size.div_ceil(self.piece_len as u64) as u32
    }

    /// The bytes of piece `index`; empty if there is no such piece.
    pub fn bytes_of(&self, index: PieceIndex) -> Range<u64> {
        let start = (u64::from(index) * u64::from(self.piece_len)).min(self.blob_size);
        start..(start + u64::from(self.piece_len)).min(self.blob_size)
    }

    /// The bytes of a run of pieces.
    pub fn bytes_of_run(&self, run: &Range<PieceIndex>) -> Range<u64> {
        if run.is_empty() {
            return 0..0;
        }
        self.bytes_of(run.start).start..self.bytes_of(run.end - 1).end
    }

    /// The piece that holds byte `offset`, or `None` past the end.
    pub fn piece_at(&self, offset: u64) -> Option<PieceIndex> {
        (offset < self.blob_size).then(|| (offset / u64::from(self.piece_len)) as u32)
    }
}

/// BLAKE3 hash of a piece's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceHash(pub [u8; 32]);

impl PieceHash {
    /// The hash of a piece.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Debug for PieceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..8]))
    }
}

/// Hashes of consecutive pieces, as messages carry them: one byte string of 32 bytes a piece.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct PieceHashes(pub Vec<PieceHash>);

impl From<PieceHashes> for serde_bytes::ByteBuf {
    fn from(hashes: PieceHashes) -> Self {
        Self::from(hashes.0.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>())
    }
}

/// A byte string that is not a whole number of hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} bytes are no whole number of piece hashes")]
pub struct PieceHashesError(usize);

impl TryFrom<serde_bytes::ByteBuf> for PieceHashes {
    type Error = PieceHashesError;
    fn try_from(bytes: serde_bytes::ByteBuf) -> Result<Self, PieceHashesError> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(PieceHashesError(bytes.len()));
        }
        Ok(Self(hashes.iter().map(|&hash| PieceHash(hash)).collect()))
    }
}

/// Why bytes are not a piece map.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PieceMapError {
    /// The blob is above [`BLOB_SIZE_MAX`].
    #[error("a blob of {0} bytes is over the limit of {BLOB_SIZE_MAX}")]
    TooLarge(u64),
    /// Not one hash a piece.
    #[error("a piece map of {expected} pieces has {} bytes, this one has {found}", expected * 32)]
    WrongLength {
        /// Pieces of the blob.
        expected: u32,
        /// Bytes found.
        found: usize,
    },
}

/// The hash of each piece of a blob, vouched for by whoever verified the whole blob or took it from an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceMap {
    layout: PieceLayout,
    hashes: Vec<PieceHash>,
}

impl PieceMap {
    /// A map from all hashes, in order; `None` unless there is one a piece.
    pub fn new(layout: PieceLayout, hashes: Vec<PieceHash>) -> Option<Self> {
        (hashes.len() == layout.count() as usize).then_some(Self { layout, hashes })
    }

    /// The map of a blob that is at hand.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let layout = PieceLayout::for_size(bytes.len() as u64)?;
        let hashes = bytes.chunks(layout.piece_len() as usize).map(PieceHash::of).collect();
        Self::new(layout, hashes)
    }

    /// How the blob is cut.
    pub const fn layout(&self) -> PieceLayout {
        self.layout
    }

    /// The hash of one piece.
    pub fn hash(&self, index: PieceIndex) -> Option<PieceHash> {
        self.hashes.get(index as usize).copied()
    }

    /// The hashes one after the other, 32 bytes each: the form on disk and on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| hash.0).collect()
    }

    /// A map of a blob of `blob_size` bytes from its bytes.
    ///
    /// # Errors
    /// If the blob is over the limit or the length does not fit its size.
    pub fn from_bytes(blob_size: u64, bytes: &[u8]) -> Result<Self, PieceMapError> {
        let layout = PieceLayout::for_size(blob_size).ok_or(PieceMapError::TooLarge(blob_size))?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || hashes.len() != layout.count() as usize {
            return Err(PieceMapError::WrongLength { expected: layout.count(), found: bytes.len() });
        }
        Ok(Self { layout, hashes: hashes.iter().map(|&hash| PieceHash(hash)).collect() })
    }
}

/// A set of a blob's pieces, as a bitmap. Copies share it until one of them changes: what a node has goes into many messages
/// and is kept by all who hear them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PieceSetWire", into = "PieceSetWire")]
pub struct PieceSet {
    words: Arc<[u64]>,
    pieces: u32,
    count: u32,
}

impl PieceSet {
    /// No piece of a blob of `pieces` pieces.
    pub fn empty(pieces: u32) -> Self {
        Self { words: std::iter::repeat_n(0, pieces.div_ceil(64) as usize).collect(), pieces, count: 0 }
    }

    /// Every piece of a blob of `pieces` pieces.
    pub fn full(pieces: u32) -> Self {
        let mut set = Self::empty(pieces);
        set.insert_run(0..pieces);
        set
    }

    /// Pieces that the blob has.
    pub const fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Pieces in the set.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether no piece is in the set.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether every piece is in the set.
    pub const fn is_full(&self) -> bool {
        self.count == self.pieces
    }

    /// Whether piece `index` is in the set.
    pub fn contains(&self, index: PieceIndex) -> bool {
        index < self.pieces && self.words[index as usize / 64] & (1 << (index % 64)) != 0
    }

    /// Adds a piece. Returns whether it was absent; a piece that the blob does not have is not added.
    pub fn insert(&mut self, index: PieceIndex) -> bool {
        if index >= self.pieces || self.contains(index) {
            return false;
        }
        Arc::make_mut(&mut self.words)[index as usize / 64] |= 1 << (index % 64);
        self.count += 1;
        true
    }

    /// Adds the pieces of another set of as many; one of another number is left alone.
    pub(crate) fn unite(&mut self, other: &Self) {
        if self.pieces == other.pieces {
            for (word, theirs) in Arc::make_mut(&mut self.words).iter_mut().zip(&*other.words) {
                self.count += (theirs & !*word).count_ones();
                *word |= theirs;
            }
        }
    }

    /// Adds a run of pieces; those that the blob does not have are not added.
    pub fn insert_run(&mut self, run: Range<PieceIndex>) {
        let (start, end) = (run.start, run.end.min(self.pieces));
        if start >= end {
            return;
        }
        let words = Arc::make_mut(&mut self.words);
        let mut at = start;
        while at < end {
            let upto = (at / 64 * 64).saturating_add(64).min(end);
            let (low, len) = (at % 64, upto - at);
            let mask = (u64::MAX >> (64 - len)) << low;
            let word = &mut words[at as usize / 64];
            self.count += (mask & !*word).count_ones();
            *word |= mask;
            at = upto;
        }
    }

    /// All bits, piece 0 in the lowest of the first number.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The bits of 64 pieces from number `64 * index` on, piece 0 in the lowest.
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    /// Whether some piece is in the set and not in another one.
    pub(crate) fn goes_beyond(&self, other: &Self) -> bool {
        self.words.iter().enumerate().any(|(at, word)| word & !other.word(at) != 0)
    }

    /// The pieces that are in the set and not in another one, in order.
    pub(crate) fn beyond<'a>(&'a self, other: Option<&'a Self>) -> impl Iterator<Item = PieceIndex> + 'a {
        let left = move |at: usize| self.word(at) & !other.map_or(0, |other| other.word(at));
        (0_u32..).zip(0..self.words.len()).flat_map(move |(word, at)| {
            let next = |bits: &u64| Some(bits & (bits - 1)).filter(|bits| *bits != 0);
            let bits = std::iter::successors(Some(left(at)).filter(|bits| *bits != 0), next);
            bits.map(move |bits| word * 64 + bits.trailing_zeros())
        })
    }

    /// Removes a piece. Returns whether it was there.
    pub fn remove(&mut self, index: PieceIndex) -> bool {
        if !self.contains(index) {
            return false;
        }
        Arc::make_mut(&mut self.words)[index as usize / 64] &= !(1 << (index % 64));
        self.count -= 1;
        true
    }

    /// The first run of pieces at or after `from` that are not in the set, at most `len_max` long; `None` if
    /// there is none.
    pub fn missing_run(&self, from: PieceIndex, len_max: u32) -> Option<Range<PieceIndex>> {
        let start = self.next_missing(from)?;
        let end_max = start.saturating_add(len_max.max(1)).min(self.pieces);
        let end = (start..end_max).find(|&index| self.contains(index)).unwrap_or(end_max);
        Some(start..end)
    }

    /// The first piece at or after `from` that is not in the set.
    pub fn next_missing(&self, from: PieceIndex) -> Option<PieceIndex> {
        let mut at = from;
        while at < self.pieces {
            let missing = !self.words[at as usize / 64] >> (at % 64);
            if missing != 0 {
                let found = at + missing.trailing_zeros();
                return (found < self.pieces).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    /// Number of pieces from the start without a gap.
    pub fn prefix(&self) -> u32 {
        self.missing_run(0, 1).map_or(self.pieces, |run| run.start)
    }

    /// The pieces in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        (0..self.pieces).filter(|&index| self.contains(index))
    }
}

impl fmt::Debug for PieceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} pieces", self.count, self.pieces)
    }
}

/// Wire form: number of pieces, then the bitmap with piece 0 in the lowest bit of the first byte.
#[derive(Serialize, Deserialize)]
struct PieceSetWire(u32, #[serde(with = "serde_bytes")] Vec<u8>);

impl From<PieceSet> for PieceSetWire {
    fn from(set: PieceSet) -> Self {
        let mut bytes: Vec<u8> = set.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(set.pieces.div_ceil(8) as usize);
        Self(set.pieces, bytes)
    }
}

/// A piece bitmap that does not fit its own number of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a piece bitmap does not fit its number of pieces")]
pub struct PieceSetError;

impl TryFrom<PieceSetWire> for PieceSet {
    type Error = PieceSetError;
    fn try_from(PieceSetWire(pieces, bytes): PieceSetWire) -> Result<Self, PieceSetError> {
        if pieces > PIECES_MAX || bytes.len() != pieces.div_ceil(8) as usize {
            return Err(PieceSetError);
        }
        let mut set = Self::empty(pieces);
        for (at, byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                // A bit past the end would be a second spelling of the same set.
                if !set.insert(at as u32 * 8 + bit) {
                    return Err(PieceSetError);
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layouts_at_the_edges() {
        assert_eq!(PieceLayout::for_size(0).unwrap().count(), 0);
        assert_eq!(PieceLayout::for_size(1).unwrap().count(), 1);
        assert_eq!(PieceLayout::for_size(64 << 20).unwrap().piece_len(), 256 << 10);
        assert_eq!(PieceLayout::for_size(BLOB_SIZE_MAX).unwrap().count(), PIECES_MAX);
        assert_eq!(PieceLayout::for_size(BLOB_SIZE_MAX + 1), None);
    }

    #[test]
    fn what_is_beyond_another_set_is_what_it_lacks() {
        let set = |pieces: &[u32], of| {
            let mut set = PieceSet::empty(of);
            pieces.iter().for_each(|piece| assert!(set.insert(*piece)));
            set
        };
        let (more, less) = (set(&[0, 1, 63, 64, 127, 128], 130), set(&[1, 64, 129], 130));
        assert_eq!(more.beyond(Some(&less)).collect::<Vec<_>>(), [0, 63, 127, 128]);
        assert_eq!(less.beyond(Some(&more)).collect::<Vec<_>>(), [129]);
        assert_eq!(less.beyond(None).collect::<Vec<_>>(), [1, 64, 129]);
        assert_eq!(more.beyond(Some(&set(&[0], 1))).count(), 5, "a blob of another size");
        assert_eq!(more.beyond(Some(&more)).count(), 0);
        assert!(more.goes_beyond(&less) && less.goes_beyond(&more) && !more.goes_beyond(&more));
        assert!(!set(&[64], 130).goes_beyond(&more));
    }

    #[test]
    fn a_map_of_the_wrong_length_is_refused() {
        let bytes = vec![9; (PIECE_LEN_MIN * 2 + 1) as usize];
        let map = PieceMap::of(&bytes).unwrap();
        assert_eq!(PieceMap::from_bytes(bytes.len() as u64, &map.to_bytes()), Ok(map.clone()));
        assert!(PieceMap::from_bytes(bytes.len() as u64, &map.to_bytes()[..64]).is_err());
        assert!(PieceMap::from_bytes(bytes.len() as u64, &map.to_bytes()[..95]).is_err());
    }

    #[test]
    fn a_piece_hash_is_blake3() {
        let known = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(hex::encode(PieceHash::of(b"abc").0), known);
    }

    #[test]
    fn a_map_hashes_each_piece_and_only_of_a_blob_within_the_limit() {
        let bytes: Vec<u8> = (0..PIECE_LEN_MIN * 2 + 1).map(|at| (at / PIECE_LEN_MIN) as u8).collect();
        let map = PieceMap::of(&bytes).unwrap();
        assert_eq!(map.layout().count(), 3);
        assert_eq!(map.hash(1), Some(PieceHash::of(&[1; PIECE_LEN_MIN as usize])));
        assert_eq!(map.hash(2), Some(PieceHash::of(&[2])));
        assert_eq!(map.hash(3), None);
        assert!(PieceMap::of(&[]).unwrap().to_bytes().is_empty());
        assert_eq!(PieceMap::from_bytes(BLOB_SIZE_MAX + 1, &[]), Err(PieceMapError::TooLarge(BLOB_SIZE_MAX + 1)));
        let wrong = PieceMapError::WrongLength { expected: 1, found: 31 };
        assert_eq!(wrong.to_string(), "a piece map of 1 pieces has 32 bytes, this one has 31");
        assert_eq!(PieceMap::from_bytes(1, &[0; 31]), Err(wrong));
    }

    #[test]
    fn runs_at_the_edges() {
        let layout = PieceLayout::for_size(u64::from(PIECE_LEN_MIN) * 2 + 1).unwrap();
        let len = u64::from(PIECE_LEN_MIN);
        assert_eq!(layout.bytes_of_run(&(1..3)), len..len * 2 + 1);
        assert_eq!(layout.bytes_of_run(&(2..9)), len * 2..len * 2 + 1, "clamped to the blob");
        assert!(layout.bytes_of_run(&(1..1)).is_empty());
        assert!(layout.bytes_of(u32::MAX).is_empty());
        let mut set = PieceSet::full(130);
        assert_eq!((set.count(), set.prefix(), set.missing_run(0, 1)), (130, 130, None));
        assert!(set.remove(64) && !set.remove(64) && set.remove(129));
        assert_eq!((set.prefix(), set.missing_run(65, 9)), (64, Some(129..130)));
        assert_eq!(PieceSet::empty(130).missing_run(7, 0), Some(7..8), "a run is never empty");
        assert!(PieceSet::empty(0).is_full() && PieceSet::empty(0).is_empty());
    }

    #[test]
    fn a_bitmap_with_bits_past_its_end_is_refused() {
        assert_eq!(PieceSet::try_from(PieceSetWire(3, vec![0b1000])), Err(PieceSetError));
        assert_eq!(PieceSet::try_from(PieceSetWire(3, vec![])), Err(PieceSetError));
        assert_eq!(PieceSet::try_from(PieceSetWire(u32::MAX, vec![])), Err(PieceSetError));
        assert!(PieceSet::try_from(PieceSetWire(3, vec![0b111])).unwrap().is_full());
    }

    #[test]
    fn hashes_travel_as_bytes_and_half_a_hash_is_refused() {
        let hashes = PieceHashes(vec![PieceHash([1; 32]), PieceHash([2; 32])]);
        let bytes: serde_bytes::ByteBuf = hashes.clone().into();
        assert_eq!(PieceHashes::try_from(bytes), Ok(hashes));
        assert_eq!(PieceHashes::try_from(serde_bytes::ByteBuf::from(vec![0; 33])), Err(PieceHashesError(33)));
    }

    proptest! {
        #[test]
        fn pieces_tile_the_blob(size in 0..=BLOB_SIZE_MAX) {
            let layout = PieceLayout::for_size(size).unwrap();
            prop_assert!(layout.count() <= PIECES_MAX);
            let count = layout.count();
            prop_assert_eq!(layout.bytes_of_run(&(0..count)), 0..size);
            for index in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|&index| index < count) {
                let bytes = layout.bytes_of(index);
                prop_assert_eq!(layout.piece_at(bytes.start), Some(index));
                prop_assert_eq!(layout.piece_at(bytes.end - 1), Some(index));
                prop_assert_eq!(layout.bytes_of(index + 1).start, bytes.end);
            }
            prop_assert_eq!(layout.piece_at(size), None);
        }

        #[test]
        fn a_set_agrees_with_a_plain_one(pieces in 1u32..300, steps in prop::collection::vec((any::<bool>(), 0u32..320), 0..200)) {
            let mut set = PieceSet::empty(pieces);
            let mut plain = std::collections::BTreeSet::new();
            for (add, index) in steps {
                if add && index < pieces {
                    prop_assert_eq!(set.insert(index), plain.insert(index));
                } else if add {
                    prop_assert!(!set.insert(index));
                } else {
                    prop_assert_eq!(set.remove(index), plain.remove(&index));
                }
            }
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count() as usize, plain.len());
            let missing = (0..pieces).find(|index| !plain.contains(index));
            prop_assert_eq!(set.missing_run(0, u32::MAX).map(|run| run.start), missing);
            if let Some(run) = set.missing_run(0, u32::MAX) {
                prop_assert!(run.clone().all(|index| !plain.contains(&index)));
                prop_assert!(run.end == pieces || plain.contains(&run.end));
            }
            prop_assert_eq!(PieceSet::try_from(PieceSetWire::from(set.clone())), Ok(set));
        }
    }
}
