//! Who takes part in bringing a blob to the site, what each has of it, and who fetches which pieces from the origin.
//!
//! A blob that nobody holds is cut into *stripes*, runs of pieces that one node each claims and fetches from the origin;
//! they flow on to the others along a tree while they land. There is no leader and no vote: every node sorts those that
//! take part by the same weight (rendezvous hashing over the stripe's start), so all come to the same answer from the same
//! words. Where words were lost or are not the same everywhere, two may claim a piece for a moment; as soon as each
//! hears the other, the same order says who goes on.
//!
//! Invariants: a claim counts only until its lease ends, and only while pieces of it come; a node has one claim on a blob at a
//! time; a node's place in a tree depends on the stripe, on the node and on who else takes part, on nothing else, so
//! no cycle can form: everybody takes bytes from somebody nearer to the front.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    ops::Range,
    time::Duration,
};

use super::{electing::is_rebuild, event::Instant, fetching::RATE_BYTES_MIN};
use crate::{ContentId, NodeId, PieceIndex, PieceLayout, PieceSet, bytes, wire::Stripe};

/// A word that a node fetches a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) stripe: Stripe,
    /// It is believed until then.
    until: Instant,
    /// When it was first heard.
    pub(super) since: Instant,
    /// When it was first heard, or its last piece so far was vouched for.
    moved: Instant,
    /// For how long it is believed without a piece.
    patience: Duration,
    /// Its first piece that is not vouched for, nor said to be there.
    pub(super) next: PieceIndex,
    /// It was said to this node alone: until then a word without it may be older.
    told_apart: Option<Instant>,
}

impl Claim {
    /// Whether its owner makes the blob of another one.
    pub(super) const fn rebuilds(&self) -> bool {
        is_rebuild(&self.stripe)
    }

    fn counts(&self, now: Instant) -> bool {
        self.until > now && self.next < self.stripe.end && now.since(self.moved) < self.patience
    }

    /// When it counts no more unless something is heard of it.
    pub(super) fn lapses(&self) -> Instant {
        self.until.min(self.moved + self.patience)
    }

    /// Bytes a second at which all of it came.
    fn rate(&self, piece_len: u32, now: Instant) -> Option<u64> {
        let bytes = u64::from(self.stripe.end - self.stripe.first) * u64::from(piece_len);
        let ms = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
        (bytes >= RATE_BYTES_MIN).then(|| bytes.saturating_mul(1000).checked_div(ms)).flatten()
    }

    /// Whether it was renewed all the time and brought nothing.
    fn is_idle(&self, now: Instant) -> bool {
        self.until > now && self.next < self.stripe.end && now.since(self.moved) >= self.patience
    }
}

/// A node's part in one blob.
#[derive(Debug, Clone)]
pub(super) struct Party {
    /// Its weight for the blob.
    weight: u64,
    /// It could ask the origin.
    origin: bool,
    /// The blob's size in bytes, as it says.
    pub(super) size: Option<u64>,
    /// What it has, if it said so and there was room to remember it.
    pub(super) having: Option<PieceSet>,
    /// When it was first heard.
    since: Instant,
    /// Its want is believed until then.
    pub(super) wanted_until: Instant,
    /// Number of its last word, and when that came.
    heard: (u64, Instant),
}

impl Claim {
    /// What its owner has moves it on: it says that from time to time, and not everybody heard all its hashes.
    fn move_on(&mut self, having: Option<&PieceSet>, now: Instant) {
        let Some(set) = having else { return };
        let reached = set.next_missing(self.next).unwrap_or(set.pieces()).min(self.stripe.end);
        if reached > self.next {
            self.next = reached;
            self.moved = now;
        }
    }
}

impl Party {
    /// The node's weight for what begins at a piece.
    pub(super) const fn weight(&self, first: PieceIndex) -> u64 {
        weight_at(self.weight, first)
    }

    fn bytes(&self) -> usize {
        self.having.as_ref().map_or(0, |set| set.pieces().div_ceil(8) as usize)
    }
}

/// A claim that was said again, or anew.
fn renewed(old: Option<Claim>, stripe: Stripe, until: Instant, patience: Duration, now: Instant) -> Claim {
    let fresh = Claim { stripe, until, since: now, moved: now, patience, next: stripe.first, told_apart: None };
    let same = |old: &Claim| old.stripe.first == stripe.first && old.stripe.turn == stripe.turn;
    let old = old.filter(same).unwrap_or(fresh);
    // Whoever takes it along a tree must not see it move to another.
    let stripe = Stripe { tree: old.stripe.tree, ..stripe };
    Claim { stripe, until, patience, told_apart: None, ..old }
}

/// What a node says of its part in a blob.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// The node's later words have higher numbers.
    pub(super) sequence: u64,
    /// For how long after a later word it counts for nothing.
    pub(super) overtaken_within: Duration,
    /// It could ask the origin.
    pub(super) origin: bool,
    /// The blob's size in bytes, if it knows.
    pub(super) size: Option<u64>,
    /// What it has.
    pub(super) having: Option<PieceSet>,
    /// What it fetches from the origin, and until when that is good.
    pub(super) claim: Option<(Stripe, Instant)>,
    /// For how long a claim is believed without a piece.
    pub(super) patience: Duration,
    /// It is believed until then.
    pub(super) until: Instant,
}

/// Stripes of a blob that are remembered after their owners have fetched them. 16: four windows, by which a site lags behind
/// at most whose LAN is no faster than its uplink.
const BROUGHT_MAX: usize = 16;

/// What a word changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// Its node was not known to take part.
    pub(super) new: bool,
    /// Who fetches what from the origin is not as it was.
    pub(super) claims: bool,
    /// What its node had before.
    pub(super) had: Option<PieceSet>,
}

/// What came of a word with hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brought {
    /// Who fetches what from the origin is not as it was.
    pub(super) claims: bool,
    /// Bytes a second at which a stripe came, if this was the end of it.
    pub(super) rate: Option<u64>,
}

/// What may be remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Blobs.
    pub(super) parts: usize,
    /// Nodes' parts in them, all together.
    pub(super) parties: usize,
    /// Bytes of piece sets.
    pub(super) having_bytes: usize,
}

/// Everybody's part in one blob.
#[derive(Debug, Default)]
struct Parts {
    parties: BTreeMap<NodeId, Party>,
    /// Apart from the parties, since few of them have one and they are gone through all the time.
    claims: BTreeMap<NodeId, Claim>,
    /// What its owner has fetched to its end, the latest last: it goes on spreading along its tree.
    brought: VecDeque<(NodeId, Claim)>,
    /// Those of the parties that say that they have all of it.
    full: BTreeSet<NodeId>,
    /// The pieces that somebody had at some time, 64 to a number, as large as the largest of the parties' sets was: most
    /// questions who has a piece are about one that nobody has.
    had: Vec<u64>,
    /// Pieces that came of others' claims since that was last asked.
    came: u32,
}

impl Parts {
    /// What a node fetches, if its claim counts.
    fn stripe_of(&self, node: &NodeId, now: Instant) -> Option<Stripe> {
        self.claims.get(node).filter(|claim| claim.counts(now)).map(|claim| claim.stripe)
    }

    /// Whether one of the parties waits for the blob, could ask the origin for it, and does not yet.
    fn is_candidate(&self, node: &NodeId, party: &Party, now: Instant) -> bool {
        party.origin && party.wanted_until > now && self.stripe_of(node, now).is_none()
    }

    /// What a node fetches from now on, by its word.
    fn claims_now(&mut self, node: NodeId, claim: Option<(Stripe, Instant)>, patience: Duration, now: Instant) {
        let Some(party) = self.parties.get_mut(&node) else { return };
        let came = &mut self.came;
        let old = self.claims.get_mut(&node).map(|old| {
            let before = old.next;
            old.move_on(party.having.as_ref(), now);
            *came += if old.rebuilds() { 0 } else { old.next - before };
            *old
        });
        if claim.is_none() && old.is_some_and(|old| old.told_apart.is_some_and(|until| until > now)) {
            return;
        }
        let goes_on = |(stripe, _): (Stripe, Instant)| old.is_some_and(|old| old.stripe.first == stripe.first);
        if !claim.is_some_and(goes_on) {
            self.ended(&node);
        }
        let Some((stripe, until)) = claim else { return };
        let mut claim = renewed(old, stripe, until, patience, now);
        claim.move_on(self.parties.get(&node).and_then(|party| party.having.as_ref()), now);
        self.claims.insert(node, claim);
    }

    /// A node's claim is over, by what it says: what it brought goes on spreading.
    fn ended(&mut self, node: &NodeId) {
        let Some(claim) = self.claims.remove(node).filter(|claim| claim.next > claim.stripe.first) else { return };
        let stripe = Stripe { end: claim.stripe.end.min(claim.next), ..claim.stripe };
        self.brought.retain(|(_, old)| old.stripe.first != stripe.first);
        self.brought.push_back((*node, Claim { stripe, ..claim }));
        if self.brought.len() > BROUGHT_MAX {
            self.brought.pop_front();
        }
    }

    /// Takes over what a node has.
    fn note_had(had: &mut Vec<u64>, full: &mut BTreeSet<NodeId>, (node, set): (NodeId, Option<&PieceSet>)) {
        let words = set.map_or(&[][..], PieceSet::words);
        if had.len() < words.len() {
            had.resize(words.len(), 0);
        }
        had.iter_mut().zip(words).for_each(|(had, word)| *had |= word);
        if set.is_some_and(PieceSet::is_full) {
            full.insert(node);
        } else if !full.is_empty() {
            full.remove(&node);
        }
    }
}

/// Everybody's part in every blob, this node's included. On a large site most of the others are not connected with this node:
/// their words count as much, and only bytes are asked of those that are.
#[derive(Debug, Default)]
pub(super) struct Site {
    blobs: BTreeMap<ContentId, Parts>,
    parties: usize,
    having_bytes: usize,
}

/// A node's weight for what begins at a piece of a blob; the highest comes first.
pub(super) fn weight(content: &ContentId, first: PieceIndex, node: &NodeId) -> u64 {
    weight_at(weight_of(content, node), first)
}

/// A node's weight for a blob, from which those for its pieces are made.
fn weight_of(content: &ContentId, node: &NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content.digest());
    hasher.update(node.public_key());
    hashed(&hasher)
}

/// The weight for what begins at a piece, of a node that has this one for the blob: mixed (as by splitmix64, each bit of one
/// changes half of the other's) in place of another hash, since every node weighs all others for every stripe. Nobody gains by
/// that: whoever looks for a key that comes first has to try keys either way, as for a weight that was hashed, and the
/// order only says who may fetch first.
const fn weight_at(of_blob: u64, first: PieceIndex) -> u64 {
    if first == 0 {
        return of_blob;
    }
    let mut mixed = of_blob.wrapping_add((first as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A number from what was hashed.
pub(super) fn hashed(hasher: &blake3::Hasher) -> u64 {
    bytes::head(hasher.finalize().as_bytes())
}

impl Site {
    /// The list of a blob, with a node in it.
    fn parts(&mut self, content: ContentId, node: NodeId, (room, now): (Room, Instant)) -> Option<&mut Parts> {
        let (blobs, full) = (self.blobs.len(), self.parties >= room.parties);
        let parts = match self.blobs.entry(content) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if blobs >= room.parts || full => return None,
            Entry::Vacant(new) => new.insert(Parts::default()),
        };
        match parts.parties.entry(node) {
            Entry::Occupied(_) => {}
            Entry::Vacant(_) if full => return None,
            Entry::Vacant(new) => {
                self.parties += 1;
                new.insert(Party {
                    weight: weight_of(&content, &node),
                    origin: false,
                    size: None,
                    having: None,
                    since: now,
                    wanted_until: Instant::default(),
                    heard: (0, Instant::default()),
                });
            }
        }
        Some(parts)
    }

    /// A node says what part it takes; `None` if a limit forbids to remember it.
    pub(super) fn wanted(
        &mut self,
        content: ContentId,
        node: NodeId,
        word: Word,
        now: Instant,
        room: Room,
    ) -> Option<Heard> {
        let before = self.having_bytes;
        let parts = self.parts(content, node, (room, now))?;
        let stripe = parts.stripe_of(&node, now);
        let Parts { parties, full, had, .. } = &mut *parts;
        let party = parties.get_mut(&node)?;
        // Also who comes back after its last word was forgotten.
        let new = party.wanted_until <= now;
        if new {
            party.since = now;
        }
        let (latest, at) = party.heard;
        if word.sequence < latest && now.since(at) < word.overtaken_within {
            return Some(Heard { new: false, claims: false, had: party.having.clone() });
        }
        party.heard = (word.sequence, now);
        let others = before - party.bytes();
        party.origin = word.origin;
        party.size = word.size;
        party.wanted_until = word.until;
        let old = party.having.take();
        party.having = word.having.filter(|set| others + set.pieces().div_ceil(8) as usize <= room.having_bytes);
        Parts::note_had(had, full, (node, party.having.as_ref()));
        let bytes = others + party.bytes();
        // Most words are of nodes that fetch nothing.
        let fetches = word.claim.is_some() || parts.claims.contains_key(&node);
        if fetches {
            parts.claims_now(node, word.claim, word.patience, now);
        }
        let claims = fetches && parts.stripe_of(&node, now) != stripe;
        self.having_bytes = bytes;
        Some(Heard { new, claims, had: old })
    }

    /// A node took these pieces from the origin; `None` if a limit forbids to remember it.
    pub(super) fn vouched(
        &mut self,
        content: ContentId,
        node: NodeId,
        (size, run): (u64, Range<PieceIndex>),
        now: Instant,
        room: Room,
    ) -> Option<Brought> {
        let before = self.having_bytes;
        let layout = PieceLayout::for_size(size)?;
        let count = layout.count();
        let Parts { parties, claims, full, had, came, .. } = self.parts(content, node, (room, now))?;
        let party = parties.get_mut(&node)?;
        let others = before - party.bytes();
        let fits = others + count.div_ceil(8) as usize <= room.having_bytes;
        if party.having.as_ref().is_none_or(|set| set.pieces() != count) {
            party.having = fits.then(|| PieceSet::empty(count));
        }
        if let Some(set) = &mut party.having {
            set.insert_run(run.clone());
        }
        Parts::note_had(had, full, (node, party.having.as_ref()));
        let mut brought = Brought { claims: false, rate: None };
        if let Some(claim) = claims.get_mut(&node) {
            let (open, counts, from) = (claim.next < claim.stripe.end, claim.counts(now), claim.next);
            if run.contains(&claim.next) {
                claim.next = run.end;
                claim.moved = now;
            }
            claim.move_on(party.having.as_ref(), now);
            *came += if claim.rebuilds() { 0 } else { claim.next.saturating_sub(from) };
            let done = open && claim.next >= claim.stripe.end;
            brought.claims = claim.counts(now) != counts;
            brought.rate = done.then(|| claim.rate(layout.piece_len(), now)).flatten();
        }
        party.size = Some(size);
        self.having_bytes = others + party.bytes();
        Some(brought)
    }

    /// Something came of what a node claimed.
    pub(super) fn brought(&mut self, content: &ContentId, node: &NodeId, now: Instant) {
        if let Some(claim) = self.claim_mut(content, node) {
            claim.moved = now;
        }
    }

    /// A node claims a stripe, by what it says to this node alone; its word to all comes later. `None` if a limit forbids to
    /// remember it.
    pub(super) fn claimed(
        &mut self,
        (content, node): (ContentId, NodeId),
        claim: (Stripe, Instant),
        patience: Duration,
        now: Instant,
        room: Room,
    ) -> Option<()> {
        let parts = self.parts(content, node, (room, now))?;
        parts.claims_now(node, Some(claim), patience, now);
        parts.claims.get_mut(&node)?.told_apart = Some(claim.1);
        Some(())
    }

    /// How large the blob is, as a node says.
    pub(super) fn size_said(&self, content: &ContentId, node: &NodeId) -> Option<u64> {
        self.party(content, node)?.size
    }

    /// How large the blob is, as somebody says who takes part: whoever fetches of it, else the first in order.
    pub(super) fn size(&self, content: &ContentId, now: Instant, trusted: impl Fn(&NodeId) -> bool) -> Option<u64> {
        let claims = self.claims(content, now, &trusted);
        let owners = claims.into_iter().map(|(node, _)| node);
        let others = self.sorted(content, 0, |node, party| party.size.is_some() && trusted(node));
        owners.chain(others).find_map(|node| self.size_said(content, &node))
    }

    /// What others have of a blob without having all, and take part in, and how large it is by their word.
    pub(super) fn sets(&self, content: &ContentId) -> impl Iterator<Item = (NodeId, &PieceSet, Option<u64>)> {
        self.parties(content).filter_map(|(node, party)| Some((*node, party.having.as_ref()?, party.size)))
    }

    /// Who says that it has all of a blob, and how large it is by its word.
    pub(super) fn full(&self, content: &ContentId) -> impl Iterator<Item = (NodeId, u64)> {
        self.blobs
            .get(content)
            .into_iter()
            .flat_map(|parts| parts.full.iter().filter_map(move |node| Some((*node, parts.parties.get(node)?.size?))))
    }

    /// A node's claim is over, its want is not.
    pub(super) fn released(&mut self, content: &ContentId, node: &NodeId) {
        if let Some(parts) = self.blobs.get_mut(content) {
            parts.ended(node);
        }
    }

    /// Stripes of a blob that came to their ends and spread, the oldest first.
    pub(super) fn spreading(&self, content: &ContentId) -> impl Iterator<Item = &(NodeId, Claim)> {
        self.blobs.get(content).into_iter().flat_map(|parts| &parts.brought)
    }

    fn claim_mut(&mut self, content: &ContentId, node: &NodeId) -> Option<&mut Claim> {
        self.blobs.get_mut(content)?.claims.get_mut(node)
    }

    /// A node's claim, if it counts.
    pub(super) fn claim_of(&self, content: &ContentId, node: &NodeId, now: Instant) -> Option<Claim> {
        self.blobs.get(content)?.claims.get(node).copied().filter(|claim| claim.counts(now))
    }

    /// A node's claim ends before this piece: the rest is another's.
    pub(super) fn shorten(&mut self, content: &ContentId, node: &NodeId, end: PieceIndex) {
        if let Some(claim) = self.claim_mut(content, node) {
            claim.stripe.end = claim.stripe.end.min(end);
        }
    }

    /// Whether some other node that takes part in anything could ask an origin.
    pub(super) fn reaches_origin(&self, me: &NodeId, now: Instant) -> bool {
        let mut parties = self.blobs.values().flat_map(|parts| &parts.parties);
        parties.any(|(node, party)| node != me && party.origin && party.wanted_until > now)
    }

    /// How many nodes fetch something from an origin. Also those that are not believed: they use the uplink all the same.
    pub(super) fn fetching(&self, now: Instant) -> usize {
        let mut owners: Vec<_> = self.counting(now).map(|(node, _)| *node).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.len()
    }

    /// The same where more than so many, which are few, need not be told apart.
    pub(super) fn fetching_few(&self, now: Instant, max: usize) -> usize {
        let mut owners: Vec<&NodeId> = Vec::with_capacity(max);
        for (node, _) in self.counting(now) {
            if owners.len() >= max {
                break;
            }
            if !owners.contains(&node) {
                owners.push(node);
            }
        }
        owners.len()
    }

    /// A node takes no part any more.
    pub(super) fn left(&mut self, content: &ContentId, node: &NodeId) {
        if let Some(Parts { parties, claims, full, .. }) = self.blobs.get_mut(content) {
            if let Some(gone) = parties.remove(node) {
                self.parties -= 1;
                self.having_bytes -= gone.bytes();
            }
            claims.remove(node);
            full.remove(node);
            if parties.is_empty() {
                self.blobs.remove(content);
            }
        }
    }

    /// A node is gone. Returns the blobs that it took part in.
    pub(super) fn gone(&mut self, node: &NodeId) -> Vec<ContentId> {
        let theirs = self.blobs.iter().filter(|(_, parts)| parts.parties.contains_key(node));
        let theirs: Vec<_> = theirs.map(|(content, _)| *content).collect();
        for content in &theirs {
            self.left(content, node);
        }
        theirs
    }

    /// How many pieces came of others' claims on a blob since this was last asked.
    pub(super) fn take_came(&mut self, content: &ContentId) -> u32 {
        self.blobs.get_mut(content).map_or(0, |parts| std::mem::take(&mut parts.came))
    }

    /// The blobs that somebody takes part in.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &ContentId> {
        self.blobs.keys()
    }

    /// Forgets words that are too old.
    pub(super) fn expire(&mut self, now: Instant) {
        let old = self.blobs.iter().flat_map(|(content, parts)| {
            let old = parts.parties.iter().filter(|(_, party)| party.wanted_until <= now);
            old.map(|(node, _)| (*content, *node))
        });
        for (content, node) in old.collect::<Vec<_>>() {
            self.left(&content, &node);
        }
    }

    /// A node's part in a blob.
    pub(super) fn party(&self, content: &ContentId, node: &NodeId) -> Option<&Party> {
        self.blobs.get(content)?.parties.get(node)
    }

    pub(super) fn parties(&self, content: &ContentId) -> impl Iterator<Item = (&NodeId, &Party)> {
        self.blobs.get(content).into_iter().flat_map(|parts| &parts.parties)
    }

    /// When a node was first heard to take part in a blob.
    pub(super) fn joined(&self, content: &ContentId, node: &NodeId) -> Option<Instant> {
        Some(self.party(content, node)?.since)
    }

    /// How many others want a blob.
    pub(super) fn takers(&self, content: &ContentId, me: &NodeId, now: Instant) -> usize {
        self.wanting(content, now).filter(|node| *node != me).count()
    }

    /// Who wants a blob, as far as was heard.
    pub(super) fn wanting(&self, content: &ContentId, now: Instant) -> impl Iterator<Item = &NodeId> {
        self.parties(content).filter(move |(_, party)| party.wanted_until > now).map(|(node, _)| node)
    }

    /// How many take part in a blob, as far as was heard.
    pub(super) fn parties_of(&self, content: &ContentId) -> usize {
        self.blobs.get(content).map_or(0, |parts| parts.parties.len())
    }

    /// The claims on all blobs that count.
    pub(super) fn all_claims(&self, now: Instant) -> Vec<(NodeId, Claim)> {
        self.counting(now).map(|(node, claim)| (*node, *claim)).collect()
    }

    fn counting(&self, now: Instant) -> impl Iterator<Item = (&NodeId, &Claim)> {
        self.blobs.values().flat_map(|parts| &parts.claims).filter(move |(_, claim)| claim.counts(now))
    }

    /// How many other blobs somebody fetches from an origin.
    pub(super) fn fetched_beside(&self, content: &ContentId, now: Instant) -> usize {
        let others = self.blobs.iter().filter(|(other, _)| *other != content);
        others.filter(|(_, parts)| parts.claims.values().any(|claim| claim.counts(now))).count()
    }

    /// The claims on a blob that count.
    pub(super) fn claims(
        &self,
        content: &ContentId,
        now: Instant,
        trusted: impl Fn(&NodeId) -> bool,
    ) -> Vec<(NodeId, Claim)> {
        let claims = self.blobs.get(content).into_iter().flat_map(|parts| &parts.claims);
        claims.filter(|(node, claim)| claim.counts(now) && trusted(node)).map(|(node, claim)| (*node, *claim)).collect()
    }

    /// When the first of the claims on a blob that count now counts no more, unless something is heard of it.
    pub(super) fn next_lapse(&self, content: &ContentId, now: Instant) -> Option<Instant> {
        let claims = self.blobs.get(content).into_iter().flat_map(|parts| parts.claims.values());
        claims.filter(|claim| claim.counts(now)).map(Claim::lapses).min()
    }

    /// Nodes that say that they fetch the blob and bring nothing of it.
    pub(super) fn idlers(&self, content: &ContentId, now: Instant) -> Vec<NodeId> {
        let claims = self.blobs.get(content).into_iter().flat_map(|parts| &parts.claims);
        claims.filter(|(_, claim)| claim.is_idle(now)).map(|(node, _)| *node).collect()
    }

    /// Whose a piece is: of several claims on it the one that changed hands more often, then the one that begins
    /// later, which its owner made knowing of the other, then the first in order.
    pub(super) fn owner_at(
        content: &ContentId,
        claims: &[(NodeId, Claim)],
        piece: PieceIndex,
    ) -> Option<(NodeId, Claim)> {
        let covering = claims.iter().filter(|(_, claim)| (claim.stripe.first..claim.stripe.end).contains(&piece));
        let rank = |claim: &Claim| (claim.stripe.turn, claim.stripe.first);
        let order = |(node, claim): &(NodeId, Claim)| weight(content, claim.stripe.first, node);
        // Between equals only, since each weight takes a hash and this is asked for every piece.
        covering
            .max_by(|one, other| rank(&one.1).cmp(&rank(&other.1)).then_with(|| order(one).cmp(&order(other))))
            .copied()
    }

    /// Who may fetch something of a blob from the origin, of those that fit: those that fetch nothing of it.
    pub(super) fn candidates(
        &self,
        content: &ContentId,
        now: Instant,
        fits: impl Fn(&NodeId, &Party) -> bool,
    ) -> impl Iterator<Item = (&NodeId, &Party)> {
        let all = self.blobs.get(content).into_iter().flat_map(|parts| parts.parties.iter().map(move |of| (parts, of)));
        let fits = move |(parts, (node, party)): &(&Parts, (&NodeId, &Party))| {
            fits(node, party) && parts.is_candidate(node, party, now)
        };
        all.filter(fits).map(|(_, of)| of)
    }

    /// A node that may fetch something of a blob from the origin.
    pub(super) fn candidate(&self, content: &ContentId, node: &NodeId, now: Instant) -> Option<&Party> {
        let parts = self.blobs.get(content)?;
        parts.parties.get(node).filter(|party| parts.is_candidate(node, party, now))
    }

    /// Those of a blob's parties that `fits`, the first in order first.
    pub(super) fn sorted(
        &self,
        content: &ContentId,
        first: PieceIndex,
        fits: impl Fn(&NodeId, &Party) -> bool,
    ) -> Vec<NodeId> {
        let mut sorted: Vec<_> = self.parties(content).filter(|(node, party)| fits(node, party)).collect();
        sorted.sort_by_cached_key(|(_, party)| Reverse(party.weight(first)));
        sorted.into_iter().map(|(node, _)| *node).collect()
    }

    /// Whether some piece outside a set may be had from somebody. Without one it cannot.
    pub(super) fn may_have_beyond(&self, content: &ContentId, set: &PieceSet) -> bool {
        let had = self.blobs.get(content).into_iter().flat_map(|parts| &parts.had);
        had.enumerate().any(|(at, word)| word & !set.word(at) != 0)
    }

    /// Who has a piece without having all, and takes part.
    pub(super) fn havers<'a>(&'a self, content: &ContentId, piece: PieceIndex) -> impl Iterator<Item = NodeId> + 'a {
        let had =
            |parts: &&Parts| parts.had.get(piece as usize / 64).is_some_and(|word| word & (1 << (piece % 64)) != 0);
        let has = move |party: &Party| party.having.as_ref().is_some_and(|set| set.contains(piece));
        let parties = self.blobs.get(content).filter(had).into_iter().flat_map(|parts| &parts.parties);
        parties.filter(move |(_, party)| has(party)).map(|(node, _)| *node)
    }

    /// Whether a node that takes part has a piece, by what it says.
    pub(super) fn has(&self, content: &ContentId, node: &NodeId, piece: PieceIndex) -> bool {
        self.party(content, node).and_then(|party| party.having.as_ref()).is_some_and(|set| set.contains(piece))
    }

    /// Whether somebody else wants the blob too.
    pub(super) fn is_shared(&self, content: &ContentId, me: &NodeId, now: Instant) -> bool {
        self.parties(content).any(|(node, party)| node != me && party.wanted_until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::trees::Shape, *};
    use crate::Algorithm;

    const ROOM: Room = Room { parts: 2, parties: 64, having_bytes: 8 };

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    fn blob(n: u8) -> ContentId {
        ContentId::of(Algorithm::Sha256, &[n])
    }

    fn at(s: u64) -> Instant {
        Instant::default() + Duration::from_secs(s)
    }

    fn stripe(first: PieceIndex, end: PieceIndex, turn: u8) -> Stripe {
        Stripe { first, end, turn, tree: 0 }
    }

    fn word(until: u64) -> Word {
        Word {
            sequence: 0,
            overtaken_within: Duration::from_secs(2),
            origin: true,
            size: None,
            having: None,
            claim: None,
            patience: Duration::from_secs(100),
            until: at(until),
        }
    }

    fn having(pieces: u32) -> Word {
        Word { having: Some(PieceSet::full(pieces)), ..word(5) }
    }

    fn claim(site: &mut Site, node: NodeId, stripe: Stripe, until: u64) {
        let word = Word { claim: Some((stripe, at(until))), ..word(9) };
        site.wanted(blob(0), node, word, at(0), ROOM);
    }

    fn site(nodes: u8) -> Site {
        let mut site = Site::default();
        for n in 0..nodes {
            assert!(site.wanted(blob(0), node(n), word(9), at(0), ROOM).unwrap().new);
        }
        site
    }

    /// The candidates, the first in order first.
    fn order(site: &Site, first: PieceIndex, now: u64) -> Vec<NodeId> {
        let content = blob(0);
        let candidates = site.candidates(&content, at(now), |_, _| true);
        let mut order: Vec<_> = candidates.map(|(node, party)| (Reverse(party.weight(first)), *node)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, node)| node).collect()
    }

    fn owner(site: &Site, piece: PieceIndex, now: u64) -> Option<NodeId> {
        let claims = site.claims(&blob(0), at(now), |_| true);
        Site::owner_at(&blob(0), &claims, piece).map(|(node, _)| node)
    }

    #[test]
    fn the_same_words_in_any_order_give_the_same_order_and_stripes_spread_over_nodes() {
        let site = site(5);
        let mut reversed = Site::default();
        for n in (0..5).rev() {
            reversed.wanted(blob(0), node(n), word(9), at(0), ROOM);
        }
        assert_eq!(order(&reversed, 7, 1), order(&site, 7, 1));
        let owners: std::collections::BTreeSet<_> = (0..40).map(|first| order(&site, first, 1)[0]).collect();
        assert_eq!(owners.len(), 5);
    }

    #[test]
    fn who_is_busy_or_cannot_reach_the_origin_is_no_candidate() {
        let mut site = site(5);
        let before = order(&site, 0, 1);
        site.wanted(blob(0), before[0], Word { origin: false, ..word(9) }, at(0), ROOM);
        claim(&mut site, before[2], stripe(8, 16, 0), 5);
        assert_eq!(order(&site, 0, 1), [before[1], before[3], before[4]]);
        assert!(order(&site, 0, 9).is_empty(), "old wants count for nothing");
    }

    #[test]
    fn a_piece_belongs_to_one_claim_and_none_counts_for_longer_than_its_lease() {
        let mut site = site(3);
        let order = order(&site, 0, 1);
        claim(&mut site, order[2], stripe(0, 9, 0), 4);
        assert_eq!(owner(&site, 0, 1), Some(order[2]));
        claim(&mut site, order[1], stripe(0, 9, 0), 3);
        assert_eq!(owner(&site, 0, 1), Some(order[1]), "the first in order");
        claim(&mut site, order[0], stripe(5, 7, 0), 3);
        assert_eq!((owner(&site, 4, 1), owner(&site, 5, 1)), (Some(order[1]), Some(order[0])), "the later begun");
        claim(&mut site, order[2], stripe(3, 9, 1), 4);
        assert_eq!(
            (owner(&site, 2, 1), owner(&site, 6, 1)),
            (Some(order[1]), Some(order[2])),
            "the one with more turns"
        );
        assert_eq!((owner(&site, 0, 3), owner(&site, 6, 3)), (None, Some(order[2])));
        site.shorten(&blob(0), &order[2], 5);
        assert_eq!(owner(&site, 6, 1), Some(order[0]));
        site.released(&blob(0), &order[0]);
        assert_eq!(owner(&site, 6, 1), Some(order[1]));
        assert_eq!(site.gone(&order[1]), [blob(0)]);
        assert_eq!(owner(&site, 6, 1), None);
    }

    #[test]
    fn a_claim_ends_with_its_last_piece_and_one_that_brings_nothing_is_found_idle() {
        let mut site = site(2);
        let size = 4 * u64::from(crate::piece::PIECE_LEN_MIN);
        let claims = |stripe| Word { claim: Some((stripe, at(30))), patience: Duration::from_secs(3), ..word(30) };
        site.wanted(blob(0), node(0), claims(stripe(0, 2, 0)), at(0), ROOM);
        site.wanted(blob(0), node(1), claims(stripe(2, 4, 0)), at(0), ROOM);
        site.vouched(blob(0), node(0), (size, 0..1), at(2), ROOM);
        assert!(site.idlers(&blob(0), at(2)).is_empty());
        site.wanted(blob(0), node(1), claims(stripe(2, 4, 0)), at(2), ROOM);
        assert_eq!(site.idlers(&blob(0), at(3)), [node(1)], "said again, and still nothing came");
        assert_eq!(owner(&site, 1, 3), Some(node(0)));
        site.vouched(blob(0), node(0), (size, 1..2), at(3), ROOM);
        assert_eq!(owner(&site, 1, 3), None);
        assert_eq!(site.havers(&blob(0), 1).collect::<Vec<_>>(), [node(0)]);
        assert_eq!(site.size(&blob(0), at(3), |_| true), Some(size));
    }

    #[test]
    fn what_an_owner_has_fetched_goes_on_spreading_and_only_the_last_of_it_is_remembered() {
        let mut site = site(1);
        let count = 4 * u32::try_from(BROUGHT_MAX).unwrap();
        let size = u64::from(count) * u64::from(crate::piece::PIECE_LEN_MIN);
        let room = Room { having_bytes: 1 << 10, ..ROOM };
        let spreads = |site: &Site| site.spreading(&blob(0)).map(|(_, claim)| claim.stripe.first).collect::<Vec<_>>();
        for first in 0..count / 2 {
            let claims = Word { claim: Some((stripe(first * 2, first * 2 + 2, 0), at(30))), ..word(30) };
            site.wanted(blob(0), node(0), claims, at(0), room);
            assert!(!spreads(&site).contains(&(first * 2)), "it is still under way");
            site.vouched(blob(0), node(0), (size, first * 2..first * 2 + 1), at(1), room);
        }
        site.wanted(blob(0), node(0), word(30), at(2), room);
        let last = (count / 2 - u32::try_from(BROUGHT_MAX).unwrap()..count / 2).map(|first| first * 2);
        assert_eq!(spreads(&site), last.collect::<Vec<_>>());
        assert!(
            site.spreading(&blob(0)).all(|(_, claim)| claim.stripe.end == claim.stripe.first + 1),
            "as far as it came"
        );
        site.wanted(blob(0), node(0), Word { claim: Some((stripe(0, 2, 0), at(30))), ..word(30) }, at(3), room);
        site.wanted(blob(0), node(0), word(30), at(3), room);
        assert!(!spreads(&site).contains(&0), "nothing came of it");
    }

    #[test]
    fn everybody_takes_from_somebody_nearer_to_the_owner() {
        let site = site(8);
        let order = order(&site, 3, 1);
        let owner = order[4];
        let mut children = BTreeMap::<NodeId, usize>::new();
        let mut line = vec![owner];
        line.extend(order.iter().filter(|node| **node != owner));
        for (place, me) in line.iter().enumerate().skip(1) {
            let upstream = site.upstream(
                &blob(0),
                (owner, stripe(3, 4, 0), *me),
                at(1),
                Shape { root: 2, fan_out: 2, trees: 1 },
                |_| true,
            );
            assert_eq!(upstream.len(), place, "whoever is nearer, and nobody else");
            let parent = line.iter().position(|node| *node == upstream[0]).unwrap();
            assert!(parent < place);
            *children.entry(upstream[0]).or_default() += 1;
        }
        assert!(children.values().all(|children| *children <= 2));
    }

    #[test]
    fn blobs_and_sets_are_bounded_and_old_words_make_room() {
        let mut site = site(1);
        assert!(!site.wanted(blob(0), node(0), having(64), at(0), ROOM).unwrap().new);
        assert_eq!(site.havers(&blob(0), 63).count(), 1);
        assert!(site.wanted(blob(0), node(1), having(8), at(0), ROOM).unwrap().new);
        assert_eq!(site.havers(&blob(0), 0).count(), 1, "no room for a second set");
        assert!(site.wanted(blob(1), node(0), word(9), at(0), ROOM).unwrap().new);
        assert_eq!(site.wanted(blob(2), node(0), word(9), at(0), ROOM), None);
        site.expire(at(5));
        assert_eq!((site.having_bytes, site.havers(&blob(0), 0).count()), (0, 0));
        assert!(site.wanted(blob(2), node(0), word(9), at(5), ROOM).unwrap().new);
        site.left(&blob(1), &node(0));
        assert!(site.claims(&blob(1), at(1), |_| true).is_empty());
    }

    #[test]
    fn a_word_says_whether_it_changes_who_fetches_what() {
        let mut site = site(1);
        let mut say = |claim, having: Option<PieceSet>, now| {
            let word = Word { claim, having, patience: Duration::from_secs(3), ..word(99) };
            site.wanted(blob(0), node(0), word, at(now), ROOM).unwrap().claims
        };
        let mut half = PieceSet::empty(4);
        half.insert_run(0..2);
        assert!(!say(None, None, 0));
        assert!(say(Some((stripe(0, 4, 0), at(9))), None, 1));
        assert!(!say(Some((stripe(0, 4, 0), at(9))), Some(half), 2), "it is said again, and goes on");
        assert!(say(Some((stripe(0, 3, 0), at(9))), None, 3), "it is shorter");
        assert!(!say(Some((stripe(0, 3, 0), at(9))), None, 6), "it brings nothing");
        assert!(say(Some((stripe(3, 4, 0), at(9))), None, 7), "another one");
        assert!(say(Some((stripe(3, 4, 0), at(9))), Some(PieceSet::full(4)), 8), "all of it is there");
        assert!(!say(None, None, 9));
    }

    #[test]
    fn a_word_that_was_overtaken_counts_for_nothing() {
        let mut site = Site::default();
        let say = |site: &mut Site, sequence, first, now| {
            let claim = Some((stripe(first, first + 1, 0), at(99)));
            site.wanted(blob(0), node(0), Word { sequence, claim, ..word(99) }, now, ROOM);
            site.claim_of(&blob(0), &node(0), now).map(|claim| claim.stripe.first)
        };
        assert_eq!(say(&mut site, 7, 3, at(1)), Some(3));
        assert_eq!(say(&mut site, 6, 2, at(1)), Some(3));
        assert_eq!(say(&mut site, 8, 4, at(1)), Some(4));
        assert_eq!(say(&mut site, 1, 5, at(3)), Some(5), "its clock was set back");
    }
}
