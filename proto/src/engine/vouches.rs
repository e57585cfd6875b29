//! Who says which hash a piece has.
//!
//! Whoever takes a piece from the origin says its hash, and the others check what they are given against it. Invariants:
//! a piece is taken from a peer only if all who may be believed say the same hash of it; whoever says two hashes of
//! one piece is a liar.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{NodeId, PieceHash, PieceIndex};

/// Most nodes whose word on one piece is kept: two that disagree are enough to believe none.
const VOUCHERS_PER_PIECE_MAX: usize = 4;

/// A node's word on a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vouch {
    /// Who says so.
    pub(super) by: NodeId,
    /// The hash.
    pub(super) hash: PieceHash,
    /// It took the piece from the origin itself, so it cannot have been lied to.
    pub(super) sure: bool,
}

/// Nodes' words on one piece. Nearly always there is one.
#[derive(Debug)]
struct Words {
    first: Vouch,
    others: Vec<Vouch>,
}

impl Words {
    fn iter(&self) -> impl Iterator<Item = &Vouch> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn of_mut(&mut self, node: &NodeId) -> Option<&mut Vouch> {
        std::iter::once(&mut self.first).chain(&mut self.others).find(|vouch| vouch.by == *node)
    }

    /// What is left without a node's word.
    fn without(self, node: &NodeId) -> Option<Self> {
        let mut left = std::iter::once(self.first).chain(self.others).filter(|vouch| vouch.by != *node);
        Some(Self { first: left.next()?, others: left.collect() })
    }
}

/// All words on the pieces of one blob.
#[derive(Debug, Default)]
pub(super) struct Vouches {
    words: BTreeMap<PieceIndex, Words>,
    /// Hashes that may be lies: only who took the piece from the origin itself can confirm them.
    questioned: BTreeMap<PieceIndex, PieceHash>,
}

impl Vouches {
    /// Takes in a word. `false` if the same node said another hash before.
    pub(super) fn add(&mut self, piece: PieceIndex, vouch: Vouch) -> bool {
        let words = match self.words.entry(piece) {
            Entry::Vacant(new) => {
                new.insert(Words { first: vouch, others: Vec::new() });
                return true;
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        if let Some(known) = words.of_mut(&vouch.by) {
            // What it was told it may tell anew; what it fetched it fetched once.
            let lies = known.sure && vouch.sure && known.hash != vouch.hash;
            if vouch.sure && !known.sure {
                *known = vouch;
            }
            return !lies;
        }
        if words.others.len() + 1 < VOUCHERS_PER_PIECE_MAX {
            words.others.push(vouch);
        }
        true
    }

    /// The hash of a piece, if those who are `trusted` agree on one: the word of whoever is surest.
    pub(super) fn of(&self, piece: PieceIndex, trusted: impl Fn(&NodeId) -> bool) -> Option<Vouch> {
        let questioned = self.questioned.get(&piece);
        let confirms = |vouch: &&Vouch| vouch.sure || questioned != Some(&vouch.hash);
        let words = self.words.get(&piece)?.iter().filter(|vouch| trusted(&vouch.by)).filter(confirms);
        let mut found: Option<Vouch> = None;
        for vouch in words {
            match found {
                Some(other) if other.hash != vouch.hash => return None,
                Some(other) if other.sure => {}
                _ => found = Some(*vouch),
            }
        }
        found
    }

    /// On whose word a piece with this hash was taken: the surest of those who said it, whatever became of them since.
    pub(super) fn who_said(&self, piece: PieceIndex, hash: PieceHash) -> Option<Vouch> {
        let words = self.words.get(&piece)?.iter().filter(|vouch| vouch.hash == hash);
        words.min_by_key(|vouch| !vouch.sure).copied()
    }

    /// The words of those who took a piece from the origin themselves.
    pub(super) fn sure(&self, piece: PieceIndex) -> impl Iterator<Item = &Vouch> {
        self.words.get(&piece).into_iter().flat_map(Words::iter).filter(|vouch| vouch.sure)
    }

    /// Whether one of those who are meant took a piece from the origin with this hash.
    pub(super) fn is_sure(&self, piece: PieceIndex, hash: PieceHash, meant: impl Fn(&NodeId) -> bool) -> bool {
        self.sure(piece).any(|vouch| vouch.hash == hash && meant(&vouch.by))
    }

    /// Whether anybody said a hash of a piece.
    pub(super) fn is_known(&self, piece: PieceIndex) -> bool {
        self.words.contains_key(&piece)
    }

    /// Who said another hash of a piece than it turns out to have, and whether that is a lie or only hearsay.
    pub(super) fn refuted(&self, piece: PieceIndex, hash: PieceHash) -> Vec<Vouch> {
        self.words.get(&piece).into_iter().flat_map(Words::iter).filter(|vouch| vouch.hash != hash).copied().collect()
    }

    /// A hash may be a lie that others passed on.
    pub(super) fn question(&mut self, piece: PieceIndex, hash: PieceHash) {
        self.questioned.insert(piece, hash);
    }

    /// Nothing that a node said counts any more.
    pub(super) fn forget(&mut self, node: &NodeId) {
        let words = std::mem::take(&mut self.words).into_iter();
        self.words = words.filter_map(|(piece, words)| Some((piece, words.without(node)?))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vouch(by: u8, hash: u8, sure: bool) -> Vouch {
        Vouch { by: NodeId::from_public_key([by; 32]), hash: PieceHash([hash; 32]), sure }
    }

    #[test]
    fn those_who_agree_are_believed_and_the_surest_is_named() {
        let mut vouches = Vouches::default();
        assert!(vouches.add(0, vouch(1, 7, false)) && vouches.add(0, vouch(2, 7, true)));
        assert_eq!(vouches.of(0, |_| true), Some(vouch(2, 7, true)));
        assert!(vouches.add(0, vouch(3, 8, true)));
        assert_eq!(vouches.of(0, |_| true), None, "nobody is believed while two disagree");
        let third = vouch(3, 8, true).by;
        assert_eq!(vouches.of(0, |node| *node != third), Some(vouch(2, 7, true)));
        assert_eq!(vouches.refuted(0, PieceHash([7; 32])), [vouch(3, 8, true)]);
        assert_eq!(vouches.who_said(0, PieceHash([7; 32])), Some(vouch(2, 7, true)), "also while it is contested");
        vouches.forget(&third);
        assert_eq!(vouches.of(0, |_| true), Some(vouch(2, 7, true)));
        assert_eq!(vouches.who_said(0, PieceHash([8; 32])), None);
        assert_eq!(vouches.of(1, |_| true), None);
    }

    #[test]
    fn a_questioned_hash_needs_a_word_from_who_asked_the_origin() {
        let mut vouches = Vouches::default();
        vouches.add(0, vouch(1, 7, false));
        vouches.question(0, PieceHash([7; 32]));
        assert_eq!(vouches.of(0, |_| true), None);
        vouches.add(0, vouch(2, 7, true));
        assert_eq!(vouches.of(0, |_| true), Some(vouch(2, 7, true)));
    }

    #[test]
    fn two_hashes_of_one_piece_are_a_lie_unless_they_are_hearsay() {
        let mut vouches = Vouches::default();
        assert!(vouches.add(0, vouch(1, 7, false)) && vouches.add(0, vouch(1, 8, false)));
        assert!(vouches.add(0, vouch(1, 8, true)) && vouches.add(0, vouch(1, 8, true)));
        assert!(!vouches.add(0, vouch(1, 9, true)));
        for by in 2..9 {
            vouches.add(0, vouch(by, 8, false));
        }
        assert_eq!(vouches.words[&0].iter().count(), VOUCHERS_PER_PIECE_MAX);
    }
}
