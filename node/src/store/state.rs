//! Which pieces of a growing blob are there, which of them the journal knows, and what became of them since. Pure.
//!
//! Invariants: durable pieces are readable; the journal's last record of a piece that is neither is not one that calls it
//! durable, unless the piece is among those *revoked*, whose record is still to be written.

use std::collections::{BTreeMap, BTreeSet};

use layermesh_proto::{PieceHash, PieceIndex, PieceSet};

use super::journal::Record;

/// Where a growing blob stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Growing,
    /// Verified and moved into `blobs/`. The file and the hashes stay good for those who read it.
    Whole,
    /// Given up; whoever waits for it waits for the next partial of this content.
    Discarded,
}

/// What stands for the hash of a piece that never was there.
pub(super) const NO_HASH: PieceHash = PieceHash([0; 32]);

/// The pieces.
pub(super) struct State {
    /// Of readable pieces. Of a dropped one it is what it was, which tells whether its successor is the same.
    pub(super) hashes: Vec<PieceHash>,
    pub(super) readable: PieceSet,
    pub(super) durable: PieceSet,
    /// Dropped pieces that the journal still calls durable.
    pub(super) revoked: BTreeSet<PieceIndex>,
    /// How often a piece was dropped, or replaced by other bytes.
    upsets: u64,
    /// Pieces that have other bytes than before, and at which upset they got them.
    replaced: BTreeMap<PieceIndex, u64>,
    pub(super) phase: Phase,
    /// Whether the digest ran over all pieces as they are now, and is the blob's.
    pub(super) verified: bool,
}

impl State {
    /// Of a partial of which these pieces are durable, with a hash for each (any for the others).
    pub(super) fn new(durable: PieceSet, hashes: Vec<PieceHash>) -> Self {
        Self {
            hashes,
            readable: durable.clone(),
            durable,
            revoked: BTreeSet::new(),
            upsets: 0,
            replaced: BTreeMap::new(),
            phase: Phase::Growing,
            verified: false,
        }
    }

    /// Takes a piece out. Says whether it was there.
    pub(super) fn forget(&mut self, index: PieceIndex) -> bool {
        if !self.readable.remove(index) {
            return false;
        }
        self.upsets += 1;
        self.verified = false;
        if self.durable.remove(index) {
            self.revoked.insert(index);
        }
        true
    }

    /// Takes a piece in. Returns the hash that it, or one in its place, had before.
    pub(super) fn admit(&mut self, index: PieceIndex, hash: PieceHash) -> PieceHash {
        self.readable.insert(index);
        let before = std::mem::replace(&mut self.hashes[index as usize], hash);
        if before != hash && before != NO_HASH {
            self.upsets += 1;
            self.replaced.insert(index, self.upsets);
        }
        before
    }

    /// The records that the journal lacks: of pieces that are no longer to be trusted, and of new ones.
    pub(super) fn unrecorded(&self) -> Vec<Record> {
        let revoked = self.revoked.iter().filter(|&&index| !self.readable.contains(index));
        let revoked = revoked.map(|&index| Record { index, hash: None });
        let fresh = self.readable.iter().filter(|&index| !self.durable.contains(index));
        let fresh = fresh.map(|index| Record { index, hash: Some(self.hashes[index as usize]) });
        revoked.chain(fresh).collect()
    }

    /// Takes note that the journal has these records now. Returns the pieces that became durable.
    pub(super) fn recorded(&mut self, records: &[Record]) -> Vec<PieceIndex> {
        let mut durable = Vec::new();
        for &Record { index, hash } in records {
            let stands = hash.is_some_and(|hash| self.readable.contains(index) && self.hashes[index as usize] == hash);
            if hash.is_none() || stands {
                self.revoked.remove(&index);
            } else {
                // Dropped, or replaced, while its record was written.
                self.revoked.insert(index);
            }
            if stands && self.durable.insert(index) {
                durable.push(index);
            }
        }
        durable
    }

    pub(super) fn nothing_given(&self) -> Given {
        Given { pieces: PieceSet::empty(self.readable.pieces()), upsets: self.upsets }
    }

    /// Whether what a reader gave is still what is there.
    pub(super) fn standing(&self, given: &mut Given) -> Standing {
        if given.upsets == self.upsets {
            return Standing::Same;
        }
        if self.replaced.iter().any(|(&index, &at)| at > given.upsets && given.pieces.contains(index)) {
            return Standing::Replaced;
        }
        if given.pieces.iter().any(|index| !self.readable.contains(index)) {
            return Standing::Dropped;
        }
        given.upsets = self.upsets;
        Standing::Same
    }

    /// Whether the pieces that a reader gave bytes of have these hashes; of one that was dropped it is what it was.
    pub(super) fn gave_of(&self, given: &Given, hash: impl Fn(PieceIndex) -> Option<PieceHash>) -> bool {
        given.pieces.iter().all(|index| hash(index) == Some(self.hashes[index as usize]))
    }

    /// Notes that a reader gives bytes of a piece, unless something was dropped or replaced since its
    /// [`State::standing`] was [`Standing::Same`].
    pub(super) fn give(&self, given: &mut Given, index: PieceIndex) -> bool {
        let same = given.upsets == self.upsets;
        if same {
            given.pieces.insert(index);
        }
        same
    }
}

/// The pieces of which a reader gave bytes.
pub(super) struct Given {
    pieces: PieceSet,
    /// All of them were there and unchanged when this many upsets had been.
    upsets: u64,
}

impl Given {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// What became of the pieces that a reader gave bytes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// All of them are what they were.
    Same,
    /// One was dropped; its successor will tell.
    Dropped,
    /// One has other bytes now.
    Replaced,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: PieceHash = PieceHash([1; 32]);
    const NEW: PieceHash = PieceHash([2; 32]);

    fn state() -> State {
        let mut state = State::new(PieceSet::empty(4), vec![NO_HASH; 4]);
        state.admit(0, OLD);
        state.admit(1, OLD);
        state
    }

    fn record(index: PieceIndex, hash: Option<PieceHash>) -> Record {
        Record { index, hash }
    }

    #[test]
    fn a_piece_dropped_before_it_was_recorded_leaves_nothing_to_record() {
        let mut state = state();
        assert!(state.forget(0) && !state.forget(0) && !state.forget(9));
        assert_eq!(state.unrecorded(), [record(1, Some(OLD))]);
    }

    #[test]
    fn a_piece_dropped_while_it_is_recorded_is_revoked_by_the_next_sync() {
        let mut state = state();
        let records = state.unrecorded();
        state.forget(0);
        assert_eq!(state.recorded(&records), [1]);
        assert!(!state.durable.contains(0));
        let revocation = state.unrecorded();
        assert_eq!(revocation, [record(0, None)]);
        assert!(state.recorded(&revocation).is_empty());
        assert_eq!(state.unrecorded(), []);
    }

    #[test]
    fn a_piece_replaced_while_it_is_recorded_is_recorded_again() {
        let mut state = state();
        let records = state.unrecorded();
        state.forget(0);
        state.admit(0, NEW);
        assert_eq!(state.recorded(&records), [1]);
        let again = state.unrecorded();
        assert_eq!(again, [record(0, Some(NEW))]);
        assert_eq!(state.recorded(&again), [0]);
        assert_eq!(state.unrecorded(), []);
        // The same one again is what was recorded.
        let mut state = self::state();
        let records = state.unrecorded();
        state.forget(0);
        state.admit(0, OLD);
        assert_eq!(state.recorded(&records), [0, 1]);
        assert_eq!(state.unrecorded(), []);
    }

    #[test]
    fn a_reader_is_told_of_pieces_that_it_gave_and_of_no_others() {
        let mut state = state();
        let (mut first, mut second) = (state.nothing_given(), state.nothing_given());
        assert!(state.give(&mut first, 0) && state.give(&mut second, 1));
        state.forget(0);
        assert!(!state.give(&mut second, 0), "it may be what was read just before");
        assert_eq!((state.standing(&mut first), state.standing(&mut second)), (Standing::Dropped, Standing::Same));
        state.admit(0, NEW);
        assert_eq!((state.standing(&mut first), state.standing(&mut second)), (Standing::Replaced, Standing::Same));
        assert!(state.give(&mut second, 0), "this is the new one");
        // Dropped and replaced twice, with nobody looking.
        state.forget(1);
        state.admit(1, OLD);
        assert_eq!(state.standing(&mut second), Standing::Same);
        state.forget(0);
        state.admit(0, OLD);
        assert_eq!(state.standing(&mut second), Standing::Replaced);
    }
}
