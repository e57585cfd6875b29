//! Comparing single pieces with the origin's bytes: who of those that supplied a blob lies, found for the price of a few pieces.
//!
//! All pieces of a blob are there and are not the blob, or two nodes say different hashes of one. A node then has one piece
//! after the other from the origin with its own eyes, whatever others claim or say of it: first those of which two say
//! different hashes, then one at random of each supplier in turn, but for those that two nodes took from the origin with the same
//! hash. It says the hashes of what it compared, so that whoever was told others compares one piece too and knows who lied; and the
//! nodes begin one after the other, so that few look for what one finds.
//!
//! Where bytes differ, a supplier lied or this node spoils what it stores. So a node is named once another one's bytes are the
//! origin's; and a node whose bytes differ from two others' and agree with nobody's doubts itself: it has its own pieces from
//! others, and leaves the origin to them, once a transfer.
//!
//! Invariants: one piece of a transfer is compared at a time, and none twice; a node that cannot ask the origin compares
//! nothing; what is compared is not had from a peer. What no sample shows is left to `blame.rs`, which compares all that one
//! node supplied.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Engine,
    event::{Instant, Source},
    planning::{Choice, Step},
    transfer::{Kind, Phase, Supplier, Transfer},
};
use crate::{ContentId, NodeId, PieceHash, PieceIndex, wire::Stripe};

/// Nodes whose pieces must differ from a node's own, while nobody's agree, for it to doubt itself. 2: one may lie. That two do
/// and are met first costs the blob a round.
const OTHERS_FOR_DOUBT: usize = 2;

/// For how long a node leaves it to those before it to find whose pieces are wrong. 60 s: more than a hundred have begun by then, and
/// somebody waits for the blob.
const TURN_MAX: Duration = Duration::from_secs(60);

/// Whether a node takes what it has from the origin for the origin's bytes.
#[derive(Debug, Default)]
enum SelfDoubt {
    #[default]
    None,
    /// Not since these said otherwise.
    Doubts(BTreeSet<NodeId>),
    /// It did not, and those who said otherwise did not bring the blob.
    Dispelled,
}

/// What a transfer compares, and what that showed. All of it is by nodes that take part or by pieces, of which there are so many
/// at most.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    /// The piece that is being had from the origin to be compared.
    pub(super) piece: Option<PieceIndex>,
    /// How many pieces of each supplier were.
    compared: BTreeMap<Supplier, usize>,
    /// Nodes of which some piece turned out to be the origin's.
    agree: BTreeSet<NodeId>,
    /// Nodes of which some piece turned out not to be, and that are not named yet.
    differ: BTreeSet<NodeId>,
    /// The first word of each node that took a piece from the origin with another hash than the one that is here.
    conflicts: BTreeMap<NodeId, (PieceIndex, PieceHash)>,
    /// All pieces were there and were not the blob, and none has changed since: samples are taken from then on.
    samples_from: Option<Instant>,
    /// Samples showed nothing.
    sampled: bool,
    /// Somebody passed on a hash that is not the origin's: maybe it did others.
    passed_on: bool,
    doubt: SelfDoubt,
    /// Hashes of compared pieces, which are not said before it is clear whose fault a difference is.
    unsaid: BTreeMap<PieceIndex, PieceHash>,
}

impl Comparing {
    /// Whether there is nothing to be looked at, as nearly always.
    fn is_idle(&self) -> bool {
        self.piece.is_none() && self.differ.is_empty() && self.conflicts.is_empty() && self.samples_from.is_none()
    }

    /// The origin's bytes of a piece are known: whether they are what a node said of it.
    pub(super) fn note(&mut self, node: NodeId, agrees: bool) {
        if agrees {
            self.agree.insert(node)
        } else {
            self.differ.insert(node)
        };
    }

    /// A node that took a piece from the origin says another hash of it than the one that is here.
    pub(super) fn contradicted(&mut self, by: NodeId, piece: PieceIndex, hash: PieceHash) {
        self.conflicts.entry(by).or_insert((piece, hash));
    }

    /// Somebody passed on another hash than the origin's bytes have.
    pub(super) fn passed_on(&mut self) {
        self.passed_on = true;
        self.samples_from = None;
    }

    /// The origin's bytes of a piece came. Returns whether that was to compare them: then their hash is not said yet.
    pub(super) fn came(&mut self, piece: PieceIndex, hash: PieceHash) -> bool {
        let compared = self.piece == Some(piece);
        if compared {
            self.piece = None;
            self.unsaid.insert(piece, hash);
        }
        compared
    }
}

impl Engine {
    /// All pieces are there and are not the blob: single ones may tell whose fault it is. `false`: they cannot.
    pub(super) fn begin_samples(&mut self, content: ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get(&content) else { return false };
        if transfer.comparing.sampled || !self.can_compare(&content, transfer) {
            return false;
        }
        let mine = self.site.party(&content, &self.node).map(|party| (party.weight(0), self.node));
        let before = self.site.parties(&content).filter(|(node, party)| {
            let looks = party.wanted_until > self.now && self.trusts_for(transfer, node);
            looks && mine.is_some_and(|mine| (party.weight(0), **node) > mine)
        });
        let turn = self.config.claim_grace.saturating_mul(u32::try_from(before.count()).unwrap_or(u32::MAX));
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.comparing.samples_from = Some(self.now + turn.min(TURN_MAX));
        }
        true
    }

    /// Whether this node can have single pieces from an origin, and takes them for the origin's.
    fn can_compare(&self, content: &ContentId, transfer: &Transfer) -> bool {
        !transfer.unranged && self.origin_source(*content, None).is_some() && self.may_ask_origin(content)
    }

    /// Drops the next piece to be compared, if one is due. Returns until when a blob that was found wrong waits for that.
    pub(super) fn compare_next(&mut self, content: ContentId) -> Option<Instant> {
        let transfer = self.transfers.open.get_mut(&content)?;
        if transfer.comparing.is_idle() {
            return None;
        }
        // The end of its fetch says that it is there also where its hash was not reported.
        let here = |piece: &PieceIndex| transfer.pieces.as_ref().is_some_and(|pieces| pieces.durable.contains(*piece));
        transfer.comparing.piece = transfer.comparing.piece.filter(|piece| !here(piece));
        let transfer = self.transfers.open.get(&content)?;
        if !self.can_compare(&content, transfer) {
            // What was being compared is had like any other piece.
            let comparing = &mut self.transfers.open.get_mut(&content)?.comparing;
            (comparing.piece, comparing.samples_from) = (None, None);
            return None;
        }
        if transfer.comparing.piece.is_some() {
            return None;
        }
        if !transfer.comparing.differ.is_empty() {
            if let Some(piece) = self.sample(&content, true) {
                return self.compare(content, piece);
            }
            self.expose_differing(content);
        }
        if let Some(piece) = self.next_conflict(&content) {
            return self.compare(content, piece);
        }
        let from = self.transfers.open.get(&content)?.comparing.samples_from?;
        if self.now < from {
            return Some(from);
        }
        if let Some(piece) = self.sample(&content, false) {
            return self.compare(content, piece);
        }
        let comparing = &mut self.transfers.open.get_mut(&content)?.comparing;
        (comparing.sampled, comparing.samples_from) = (true, None);
        self.blame_one(content);
        None
    }

    /// Drops a piece, to be had from the origin and compared.
    fn compare(&mut self, content: ContentId, piece: PieceIndex) -> Option<Instant> {
        let transfer = self.transfers.open.get_mut(&content)?;
        let known = *transfer.pieces.as_ref()?.known.get(&piece)?;
        transfer.audit.insert(piece, known);
        transfer.comparing.piece = Some(piece);
        *transfer.comparing.compared.entry(known.0).or_default() += 1;
        self.drop_pieces(content, vec![piece]);
        None
    }

    /// The first piece here of which a node that is believed says another hash, having taken it from the origin itself.
    fn next_conflict(&mut self, content: &ContentId) -> Option<PieceIndex> {
        loop {
            let (by, (piece, said)) = self.transfers.open.get_mut(content)?.comparing.conflicts.pop_first()?;
            let transfer = self.transfers.open.get(content)?;
            let known = transfer.pieces.as_ref()?.known.get(&piece);
            let stands = known.is_some_and(|(supplier, hash)| *supplier != Supplier::Origin && *hash != said);
            if stands && self.trusts_for(transfer, &by) {
                return Some(piece);
            }
        }
    }

    /// A piece of the supplier of which fewest were compared: none that another node says to have taken from the origin with the
    /// same hash. Or, to see whose fault it is that somebody's pieces differ, any of another supplier.
    fn sample(&mut self, content: &ContentId, of_another: bool) -> Option<PieceIndex> {
        let transfer = self.transfers.open.get(content)?;
        let comparing = &transfer.comparing;
        let mut open: BTreeMap<(usize, bool), Vec<(Supplier, PieceIndex)>> = BTreeMap::new();
        for (piece, (supplier, hash)) in &transfer.pieces.as_ref()?.known {
            let (node, hearsay) = match supplier {
                Supplier::Origin => continue,
                Supplier::Peer(node) => (node, false),
                Supplier::Hearsay(node) => (node, true),
            };
            let confirmed =
                || transfer.vouches.is_sure(*piece, *hash, |by| by != node && self.trusts_for(transfer, by));
            let fits = if of_another { !hearsay && !comparing.differ.contains(node) } else { !confirmed() };
            if fits {
                let before = comparing.compared.get(supplier).copied().unwrap_or_default();
                open.entry((before, hearsay)).or_default().push((*supplier, *piece));
            }
        }
        let (_, least) = open.pop_first()?;
        // Each supplier is as likely as another, however much it supplied.
        let suppliers: BTreeSet<_> = least.iter().map(|(supplier, _)| *supplier).collect();
        let chosen = suppliers.iter().nth(self.random.index(suppliers.len()))?;
        let pieces: Vec<_> = least.iter().filter(|(supplier, _)| supplier == chosen).map(|(_, piece)| *piece).collect();
        pieces.get(self.random.index(pieces.len())).copied()
    }

    /// The piece that is to be compared, from the origin: that others claim it or have it does not count.
    pub(super) fn ask_compared(&mut self, content: ContentId) -> Option<Choice> {
        let transfer = self.transfers.open.get(&content)?;
        let piece = transfer.comparing.piece.filter(|_| transfer.origin_fetch().is_none())?;
        let (size, source) = (transfer.size(), self.origin_source(content, None)?);
        if !self.may_ask_origin(&content) {
            return None;
        }
        // Claimed all the same, since those who fetch share the site's rate.
        let tree = self.site.tree_for(&self.node, self.now, self.config.trees);
        self.claim(content, Stripe { first: piece, end: piece + 1, turn: 0, tree });
        self.tell(content);
        Some(Choice::Start(Step { source, kind: Kind::Origin, size, run: piece..piece + 1 }))
    }

    /// Says who lied, as far as what was compared so far tells.
    pub(super) fn weigh(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if transfer.phase != Phase::Fetching {
            return;
        }
        let comparing = &mut transfer.comparing;
        let trusted = !comparing.agree.is_empty() || matches!(comparing.doubt, SelfDoubt::Dispelled);
        if comparing.differ.is_empty() || trusted {
            transfer.unsaid.append(&mut comparing.unsaid);
            self.expose_differing(content);
            return self.drop_passed_on(content);
        }
        if comparing.differ.len() >= OTHERS_FOR_DOUBT {
            return self.doubt_itself(content);
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let known = transfer.pieces.iter().flat_map(|pieces| pieces.known.values());
        let mut others = known.filter(
            |(supplier, _)| matches!(supplier, Supplier::Peer(node) if !transfer.comparing.differ.contains(node)),
        );
        if others.next().is_none() || !self.can_compare(&content, transfer) {
            // Nobody else can tell.
            self.expose_differing(content);
        }
    }

    fn expose_differing(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        for liar in std::mem::take(&mut transfer.comparing.differ) {
            self.expose_voucher(liar, content);
        }
    }

    /// Drops what was taken on hearsay if it was wrong once, where a node that agrees with the origin knows another hash.
    fn drop_passed_on(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if !std::mem::take(&mut transfer.comparing.passed_on) {
            return;
        }
        let refuted = |piece: PieceIndex, hash: &PieceHash| {
            let mut words = transfer.vouches.sure(piece);
            words.any(|vouch| vouch.hash != *hash && transfer.comparing.agree.contains(&vouch.by))
        };
        let known = transfer.pieces.iter().flat_map(|pieces| &pieces.known);
        let wrong = known
            .filter(|(piece, (supplier, hash))| matches!(supplier, Supplier::Hearsay(_)) && refuted(**piece, hash));
        let wrong: Vec<_> = wrong.map(|(piece, _)| *piece).collect();
        if !wrong.is_empty() {
            self.drop_questioned(content, wrong);
        }
    }

    /// This node's own bytes are those that differ: it takes the blob from the others.
    fn doubt_itself(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let mine = transfer.supplied_by(&Supplier::Origin);
        let others = std::mem::take(&mut transfer.comparing.differ);
        transfer.comparing = Comparing { doubt: SelfDoubt::Doubts(others), ..Comparing::default() };
        transfer.unsaid.clear();
        transfer.audit.clear();
        let fetch = transfer.origin_fetch().map(|(fetch, _)| fetch);
        fetch.into_iter().for_each(|fetch| self.cancel_one(fetch));
        self.rule_out_origins(content);
        self.drop_questioned(content, mine);
        self.site.released(&content, &self.node);
        self.tell(content);
    }

    /// Those who said otherwise did not bring the blob: this node trusts itself again. `false` if it did all the time.
    pub(super) fn dispel_doubt(&mut self, content: ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return false };
        let SelfDoubt::Doubts(others) = &mut transfer.comparing.doubt else { return false };
        let others = std::mem::take(others);
        transfer.comparing.doubt = SelfDoubt::Dispelled;
        transfer.failures.retain(|source, _| matches!(source, Source::Peer(_)));
        for liar in others {
            self.expose_voucher(liar, content);
        }
        true
    }

    /// A node vouched for other bytes than the origin's: it is named, and what has its word is not waited for to be found wrong, of
    /// this blob and of all others.
    pub(super) fn expose_voucher(&mut self, liar: NodeId, content: ContentId) {
        self.expose(liar, content);
        self.drop_what_supplied(liar);
    }

    /// Drops what has a liar's word.
    pub(super) fn drop_what_supplied(&mut self, liar: NodeId) {
        let supplied = |transfer: &Transfer| {
            let fetching = transfer.phase == Phase::Fetching;
            if fetching { transfer.supplied_by(&Supplier::Peer(liar)) } else { Vec::new() }
        };
        let open = self.transfers.open.iter().filter(|(content, _)| self.inventory.held(content).is_none());
        let theirs: Vec<_> = open.map(|(content, transfer)| (*content, supplied(transfer))).collect();
        for (content, pieces) in theirs.into_iter().filter(|(_, pieces)| !pieces.is_empty()) {
            self.drop_questioned(content, pieces);
        }
    }

    /// Drops pieces whose hashes are lies, which others may pass on.
    fn drop_questioned(&mut self, content: ContentId, pieces: Vec<PieceIndex>) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        for piece in &pieces {
            let known = transfer.pieces.as_ref().and_then(|known| known.known.get(piece));
            if let Some((_, hash)) = known {
                transfer.vouches.question(*piece, *hash);
            }
        }
        transfer.comparing.samples_from = None;
        self.drop_pieces(content, pieces);
    }
}
