//! The state file of a partial: which pieces are durable, and their hashes.
//!
//! Layout: a header of [`HEADER_LEN`] bytes, then records of [`RECORD_LEN`] bytes, appended and never changed.
//! All integers are little-endian.
//!
//! | header | bytes | | record | bytes |
//! |---|---|---|---|---|
//! | magic `LMPIECES` | 8 | | kind: 1 durable, 2 dropped | 1 |
//! | version, now 1 | 4 | | zero | 3 |
//! | size of the blob | 8 | | piece index | 4 |
//! | length of the CID | 1 | | BLAKE3 of the piece (zero if dropped) | 32 |
//! | CID, then zeros | 99 | | checksum | 8 |
//! | checksum | 8 | | | |
//!
//! A checksum is the first 8 bytes of a BLAKE3 hash; a record's also covers the header's checksum and the record's
//! own place in the file, so that stale disk blocks of another partial, or a block written to the wrong place, are
//! no records. Invariant: a record that does not check is ignored, and those after it still count. A later record
//! of a piece overrides an earlier one. This module is pure.

use layermesh_proto::{ContentId, PieceHash, PieceIndex, PieceLayout, PieceSet, piece::PIECES_MAX};
use thiserror::Error;

/// Length of the header in bytes.
pub(super) const HEADER_LEN: usize = 128;
/// Length of a record in bytes.
pub(super) const RECORD_LEN: usize = 48;
/// Longest state file that is read, in bytes: each piece of the largest blob dropped and fetched again once.
pub(super) const JOURNAL_BYTES_MAX: u64 = HEADER_LEN as u64 + 3 * PIECES_MAX as u64 * RECORD_LEN as u64;

const MAGIC: &[u8; 8] = b"LMPIECES";
const VERSION: u32 = 1;
const CHECKSUM_LEN: usize = 8;
const CID_AT: usize = 21;
const KIND_DURABLE: u8 = 1;
const KIND_DROPPED: u8 = 2;

/// Why bytes are not the start of a state file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum JournalError {
    /// Too short, another magic, a wrong checksum, or a content id or size that cannot be.
    #[error("not a state file, or one that was cut or altered")]
    NotOne,
    /// Written by a later version.
    #[error("state file of version {0}, which this program does not know")]
    Version(u32),
}

/// A record: a piece became durable with this hash, or (`None`) is no longer to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) index: PieceIndex,
    pub(super) hash: Option<PieceHash>,
}

/// What a state file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) content: ContentId,
    pub(super) layout: PieceLayout,
    /// The records that check, in order.
    pub(super) records: Vec<Record>,
    /// Where the next record goes, counted in records; a torn one at the end is overwritten.
    pub(super) next_slot: u64,
}

impl Journal {
    /// The durable pieces, and a hash for each of them (zero for the others).
    pub(super) fn pieces(&self) -> (PieceSet, Vec<PieceHash>) {
        let mut set = PieceSet::empty(self.layout.count());
        let mut hashes = vec![PieceHash([0; 32]); self.layout.count() as usize];
        for record in &self.records {
            match (record.hash, hashes.get_mut(record.index as usize)) {
                (Some(hash), Some(slot)) => {
                    *slot = hash;
                    set.insert(record.index);
                }
                _ => {
                    set.remove(record.index);
                }
            }
        }
        (set, hashes)
    }
}

/// The header of a new state file.
pub(super) fn header(content: &ContentId, size: u64) -> [u8; HEADER_LEN] {
    let cid = content.to_bytes();
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&size.to_le_bytes());
    bytes[20] = cid.len() as u8;
    bytes[CID_AT..CID_AT + cid.len()].copy_from_slice(&cid);
    let checksum = checksum(&[&bytes[..HEADER_LEN - CHECKSUM_LEN]]);
    bytes[HEADER_LEN - CHECKSUM_LEN..].copy_from_slice(&checksum);
    bytes
}

/// The record for place `slot` of the file that starts with `header`.
pub(super) fn record(header: &[u8; HEADER_LEN], slot: u64, record: Record) -> [u8; RECORD_LEN] {
    let mut bytes = [0; RECORD_LEN];
    bytes[0] = if record.hash.is_some() { KIND_DURABLE } else { KIND_DROPPED };
    bytes[4..8].copy_from_slice(&record.index.to_le_bytes());
    bytes[8..40].copy_from_slice(&record.hash.map_or([0; 32], |hash| hash.0));
    let checksum = record_checksum(header, slot, &bytes);
    bytes[RECORD_LEN - CHECKSUM_LEN..].copy_from_slice(&checksum);
    bytes
}

/// Byte offset of a record's place.
pub(super) const fn slot_offset(slot: u64) -> u64 {
    HEADER_LEN as u64 + slot * RECORD_LEN as u64
}

/// Reads a state file.
pub(super) fn parse(bytes: &[u8]) -> Result<Journal, JournalError> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(JournalError::NotOne)?;
    let (content, size) = parse_header(header)?;
    let layout = PieceLayout::for_size(size).ok_or(JournalError::NotOne)?;
    let (slots, _torn) = rest.as_chunks::<RECORD_LEN>();
    let records = (0..)
        .zip(slots)
        .filter_map(|(slot, bytes)| parse_record(header, slot, bytes))
        .filter(|record| record.index < layout.count())
        .collect();
    Ok(Journal { content, layout, records, next_slot: slots.len() as u64 })
}

fn parse_header(header: &[u8; HEADER_LEN]) -> Result<(ContentId, u64), JournalError> {
    let (body, sum) = header.split_at(HEADER_LEN - CHECKSUM_LEN);
    if &body[..8] != MAGIC || checksum(&[body]) != sum {
        return Err(JournalError::NotOne);
    }
    let version = u32::from_le_bytes([body[8], body[9], body[10], body[11]]);
    if version != VERSION {
        return Err(JournalError::Version(version));
    }
    let mut size = [0; 8];
    size.copy_from_slice(&body[12..20]);
    let cid = body.get(CID_AT..CID_AT + usize::from(body[20])).ok_or(JournalError::NotOne)?;
    let content = ContentId::from_bytes(cid).map_err(|_| JournalError::NotOne)?;
    Ok((content, u64::from_le_bytes(size)))
}

fn parse_record(header: &[u8; HEADER_LEN], slot: u64, bytes: &[u8; RECORD_LEN]) -> Option<Record> {
    if record_checksum(header, slot, bytes) != bytes[RECORD_LEN - CHECKSUM_LEN..] {
        return None;
    }
    let index = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[8..40]);
    match bytes[0] {
        KIND_DURABLE => Some(Record { index, hash: Some(PieceHash(hash)) }),
        KIND_DROPPED => Some(Record { index, hash: None }),
        _ => None,
    }
}

fn record_checksum(header: &[u8; HEADER_LEN], slot: u64, record: &[u8; RECORD_LEN]) -> [u8; CHECKSUM_LEN] {
    checksum(&[&header[HEADER_LEN - CHECKSUM_LEN..], &slot.to_le_bytes(), &record[..RECORD_LEN - CHECKSUM_LEN]])
}

fn checksum(parts: &[&[u8]]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut short = [0; CHECKSUM_LEN];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_LEN]);
    short
}

/// The same file with all checksums as they have to be, so that arbitrary bytes come past them.
#[cfg(any(test, fuzzing))]
pub(super) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    let Some((header, rest)) = sealed.split_first_chunk_mut::<HEADER_LEN>() else { return sealed };
    header[..8].copy_from_slice(MAGIC);
    let sum = checksum(&[&header[..HEADER_LEN - CHECKSUM_LEN]]);
    header[HEADER_LEN - CHECKSUM_LEN..].copy_from_slice(&sum);
    for (slot, record) in (0..).zip(rest.as_chunks_mut::<RECORD_LEN>().0) {
        let sum = record_checksum(header, slot, record);
        record[RECORD_LEN - CHECKSUM_LEN..].copy_from_slice(&sum);
    }
    sealed
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 40 * (128 << 10) - 5;

    fn content() -> ContentId {
        ContentId::of(Algorithm::Sha512, b"some blob")
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let header = header(&content(), SIZE);
        let mut bytes = header.to_vec();
        for (slot, &one) in (0..).zip(records) {
            bytes.extend(record(&header, slot, one));
        }
        bytes
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let one = (0u32..40, prop::option::of(any::<[u8; 32]>()))
            .prop_map(|(index, hash)| Record { index, hash: hash.map(PieceHash) });
        prop::collection::vec(one, 0..20)
    }

    #[test]
    fn the_last_record_of_a_piece_counts() {
        let hash = |byte| Some(PieceHash([byte; 32]));
        let journal = parse(&file(&[
            Record { index: 3, hash: hash(1) },
            Record { index: 3, hash: hash(2) },
            Record { index: 4, hash: hash(4) },
            Record { index: 4, hash: None },
        ]))
        .unwrap();
        let (set, hashes) = journal.pieces();
        assert_eq!(set.iter().collect::<Vec<_>>(), [3]);
        assert_eq!(hashes[3], PieceHash([2; 32]));
    }

    #[test]
    fn a_record_in_another_place_is_none() {
        let header = header(&content(), SIZE);
        let mut bytes = header.to_vec();
        bytes.extend(record(&header, 1, Record { index: 0, hash: None }));
        assert_eq!(parse(&bytes).unwrap().records, []);
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = header(&content(), SIZE);
        bytes[8] = 2;
        let sum = checksum(&[&bytes[..HEADER_LEN - CHECKSUM_LEN]]);
        bytes[HEADER_LEN - CHECKSUM_LEN..].copy_from_slice(&sum);
        assert_eq!(parse(&bytes), Err(JournalError::Version(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn arbitrary_bytes_after_a_header_are_no_records(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut all = file(&[]);
            all.extend(bytes);
            prop_assert_eq!(parse(&all).unwrap().records, []);
        }

        #[test]
        fn a_prefix_of_the_file_is_a_prefix_of_the_records(records in records(), cut in any::<prop::sample::Index>()) {
            let bytes = file(&records);
            let cut = cut.index(bytes.len() + 1);
            match parse(&bytes[..cut]) {
                Ok(journal) => {
                    let whole = (cut - HEADER_LEN) / RECORD_LEN;
                    prop_assert_eq!(journal.next_slot, whole as u64);
                    prop_assert_eq!(&journal.records[..], &records[..whole]);
                }
                Err(error) => {
                    prop_assert_eq!(error, JournalError::NotOne);
                    prop_assert!(cut < HEADER_LEN);
                }
            }
        }

        #[test]
        fn a_flipped_bit_loses_that_record_alone(records in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = file(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            match parse(&bytes) {
                Err(_) => prop_assert!(at < HEADER_LEN),
                Ok(journal) => {
                    let mut left = records.clone();
                    left.remove((at - HEADER_LEN) / RECORD_LEN);
                    prop_assert_eq!(journal.records, left);
                }
            }
        }
    }
}
