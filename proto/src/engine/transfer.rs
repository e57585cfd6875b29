//! One blob's life: wanted, fetched, completed; then held or failed.
//!
//! Invariant: a piece is in exactly one state. Durable pieces are a set; those of running fetches that are not in it are
//! in flight; the others are missing. So no piece can be lost between two states or be in both. The runs of a transfer's
//! fetches do not overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use super::{
    clearing::Clearance,
    comparing::Comparing,
    event::{FetchId, Instant, Source, SourceError, WantError, WantId},
    rebuilding::Rebuilding,
    vouches::Vouches,
};
use crate::{ContentId, NodeId, ObjectKind, PieceHash, PieceIndex, PieceLayout, PieceSet, Repository};

/// State of one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceState {
    /// To be fetched.
    Missing,
    /// Asked for.
    InFlight,
    /// In the store.
    Durable,
}

/// Where a stored piece came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Supplier {
    /// This node took it from the origin.
    Origin,
    /// It has the hash that this node said.
    Peer(NodeId),
    /// It has the hash that this node had been told, and whom it had that from is not known.
    Hearsay(NodeId),
}

/// Durable pieces of a blob, and who they came from.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    pub(super) layout: PieceLayout,
    pub(super) durable: PieceSet,
    /// The hash of each piece that came in this transfer, and who is to blame if it is wrong. Of the others, which were
    /// there before this node started or survived damage, nobody is.
    pub(super) known: BTreeMap<PieceIndex, (Supplier, PieceHash)>,
}

impl Pieces {
    /// No pieces of a blob of `size` bytes; `None` if no blob can be so large.
    pub(super) fn none(size: u64) -> Option<Self> {
        let layout = PieceLayout::for_size(size)?;
        let durable = PieceSet::empty(layout.count());
        Some(Self { layout, durable, known: BTreeMap::new() })
    }

    /// Bytes of the durable pieces.
    pub(super) fn bytes(&self) -> u64 {
        let bytes_of = |piece| {
            let bytes = self.layout.bytes_of(piece);
            bytes.end - bytes.start
        };
        self.durable.iter().map(bytes_of).sum()
    }

    /// Takes over what the store says is there of the same blob: exactly that, but for pieces that `may_have_come` since.
    pub(super) fn take(&mut self, mut stored: PieceSet, may_have_come: impl Fn(PieceIndex) -> bool) {
        self.durable.iter().filter(|piece| may_have_come(*piece)).for_each(|piece| {
            stored.insert(piece);
        });
        self.known.retain(|piece, _| stored.contains(*piece));
        self.durable = stored;
    }

    /// Forgets pieces.
    pub(super) fn drop(&mut self, pieces: &[PieceIndex]) {
        for piece in pieces {
            self.durable.remove(*piece);
            self.known.remove(piece);
        }
    }

    /// Pieces that nobody is known to have supplied.
    pub(super) fn inherited(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.durable.iter().filter(|piece| !self.known.contains_key(piece))
    }
}

/// What a fetch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a peer that has the whole blob.
    Holder,
    /// From a peer that has these pieces.
    Haver,
    /// From a peer upstream, while the pieces land there: those of the stripe that begins at this piece and that this
    /// node fetches from the origin.
    Stripe(NodeId, PieceIndex),
    /// From a peer that is nearer to a holder, while the pieces of a section land there.
    Section,
    /// From the origin.
    Origin,
}

impl Kind {
    /// Whether the source has not all of the blob, and others vouch for what it sends.
    pub(super) const fn is_growing(self) -> bool {
        matches!(self, Self::Haver | Self::Stripe(..) | Self::Section)
    }
}

/// A fetch that runs.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) source: Source,
    pub(super) kind: Kind,
    /// Size that the source was asked to confirm.
    pub(super) size: Option<u64>,
    pub(super) run: Range<PieceIndex>,
    /// When it was asked.
    pub(super) began: Instant,
    /// When bytes last came, or it was asked.
    pub(super) moved: Instant,
    /// Bytes that came since, as far as was told.
    pub(super) bytes: u64,
    /// Bytes of the pieces that were stored since.
    pub(super) stored: u64,
    /// Bytes that came since its time was last set anew.
    pub(super) bytes_watched: u64,
    /// Its end was moved to the front since it was asked: it is over once it has what is left.
    pub(super) shortened: bool,
}

impl Fetch {
    /// The peer, if the source is one.
    pub(super) fn peer(&self) -> Option<NodeId> {
        match self.source {
            Source::Peer(peer) => Some(peer),
            Source::Origin(..) => None,
        }
    }

    /// Bytes a second so far; `None` as long as nothing came or hardly any time passed.
    pub(super) fn rate(&self, now: Instant) -> Option<u64> {
        let ms = u64::try_from(now.since(self.began).as_millis()).unwrap_or(u64::MAX);
        (self.bytes > 0 && ms >= RATE_TIME_MIN_MS).then(|| self.bytes.saturating_mul(1000) / ms)
    }
}

/// Time over which a rate says something, in milliseconds.
const RATE_TIME_MIN_MS: u64 = 20;

/// What a transfer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its pieces are being had.
    Fetching,
    /// It is made of another one on this device.
    Rebuilding(Rebuilding),
    /// The store checks the whole blob.
    Completing,
}

/// This node's wait for its turn to claim what begins at a piece.
#[derive(Debug, Clone, Copy)]
pub(super) struct Election {
    pub(super) first: PieceIndex,
    /// From when on the candidates have their turns.
    pub(super) begins: Instant,
    /// What the blob's keeper says to its claim.
    pub(super) clearance: Clearance,
}

/// A blob that is being had.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) wants: BTreeMap<WantId, Option<u64>>,
    /// Most bytes that wants can use.
    pub(super) bounds: BTreeMap<WantId, u64>,
    pub(super) origins: Vec<(Repository, ObjectKind)>,
    pub(super) pieces: Option<Pieces>,
    pub(super) phase: Phase,
    pub(super) fetches: BTreeMap<FetchId, Fetch>,
    /// Which of them is from an origin.
    from_origin: Option<FetchId>,
    /// Sources that failed, and how: for this round if it may pass, else for the life of the transfer.
    pub(super) failures: BTreeMap<Source, SourceError>,
    /// Those of them whose streams ended for want of a piece that they had not either, as far as is known, and which.
    pub(super) dry: BTreeMap<NodeId, PieceIndex>,
    /// Rounds of sources since the last piece.
    pub(super) rounds: u32,
    /// How often pieces were missing when all should have been there.
    pub(super) losses: u32,
    /// How often all pieces together were not the blob.
    pub(super) rejections: u32,
    /// When it was first wanted.
    pub(super) began: Instant,
    pub(super) last_progress: Instant,
    /// When it last got another round because it need not be withheld any more.
    pub(super) released_at: Instant,
    /// When bytes last came from the origin.
    pub(super) origin_progress: Instant,
    /// When this node last said that it takes part, if it did.
    pub(super) told_at: Option<Instant>,
    pub(super) election: Option<Election>,
    /// How often a keeper of the blob said that others fetch what nobody then claimed.
    pub(super) misled: u32,
    /// Since when somebody is known who has all of it, so that it may come from others who want it too.
    pub(super) crowd_since: Option<Instant>,
    /// The size that was last believed.
    sized: Option<u64>,
    /// What others said of its pieces.
    pub(super) vouches: Vouches,
    /// Nodes whose word on this blob counts for nothing: they may have lied, or did.
    pub(super) doubted: BTreeSet<NodeId>,
    /// Those of them who said another hash than the origin's bytes had: innocent if those turn out to be wrong.
    pub(super) exposed: BTreeSet<NodeId>,
    /// Those of them whose pieces were only had from elsewhere to compare.
    pub(super) audited: BTreeSet<NodeId>,
    /// Pieces that came with other bytes than somebody vouched for: from whom, and what hash was said.
    pub(super) disputes: BTreeMap<PieceIndex, (NodeId, PieceHash)>,
    /// Hashes that are being compared with the origin's, and whose word they are.
    pub(super) audit: BTreeMap<PieceIndex, (Supplier, PieceHash)>,
    /// Pieces that this node has from the origin with its own eyes.
    pub(super) comparing: Comparing,
    /// Pieces from the origin whose hashes the others have not been told.
    pub(super) unsaid: BTreeMap<PieceIndex, PieceHash>,
    /// When hashes were last told.
    pub(super) vouched_at: Instant,
    /// A fetch from the origin made way for peers, and none of them has brought a piece since.
    pub(super) yielded: bool,
    /// The origin sends whole blobs only.
    pub(super) unranged: bool,
    /// To make it of another one was tried in vain, here or elsewhere on the site.
    pub(super) rebuild_failed: bool,
    /// The set retry is for somebody's word, not for another round of sources.
    pub(super) waits: bool,
    /// The last source that failed in a way that may pass, for people.
    pub(super) last_trouble: Option<String>,
}

impl Transfer {
    pub(super) fn new(now: Instant, pieces: Option<Pieces>) -> Self {
        Self {
            wants: BTreeMap::new(),
            bounds: BTreeMap::new(),
            origins: Vec::new(),
            pieces,
            phase: Phase::Fetching,
            fetches: BTreeMap::new(),
            from_origin: None,
            failures: BTreeMap::new(),
            dry: BTreeMap::new(),
            rounds: 0,
            losses: 0,
            rejections: 0,
            began: now,
            last_progress: now,
            released_at: Instant::default(),
            origin_progress: Instant::default(),
            told_at: None,
            election: None,
            misled: 0,
            crowd_since: None,
            sized: None,
            vouches: Vouches::default(),
            doubted: BTreeSet::new(),
            exposed: BTreeSet::new(),
            audited: BTreeSet::new(),
            disputes: BTreeMap::new(),
            audit: BTreeMap::new(),
            comparing: Comparing::default(),
            unsaid: BTreeMap::new(),
            vouched_at: Instant::default(),
            yielded: false,
            unranged: false,
            rebuild_failed: false,
            waits: false,
            last_trouble: None,
        }
    }

    /// A fetch begins.
    pub(super) fn begin(&mut self, id: FetchId, fetch: Fetch) {
        if fetch.kind == Kind::Origin {
            self.from_origin = Some(id);
        }
        self.fetches.insert(id, fetch);
    }

    /// A fetch is over.
    pub(super) fn end(&mut self, id: FetchId) -> Option<Fetch> {
        self.from_origin = self.from_origin.filter(|other| *other != id);
        self.fetches.remove(&id)
    }

    /// The running fetch from an origin, of which there is one at most.
    pub(super) fn origin_fetch(&self) -> Option<(FetchId, &Fetch)> {
        let id = self.from_origin?;
        Some((id, self.fetches.get(&id)?))
    }

    /// How much of the work is done of a blob that is made of another one, and how much there is.
    pub(super) fn rebuilding(&self) -> Option<(u64, u64)> {
        match self.phase {
            Phase::Rebuilding(rebuilding) => Some((rebuilding.done, rebuilding.rebuild.work)),
            Phase::Fetching | Phase::Completing => None,
        }
    }

    /// Whether it is to be made of another one and the patch is not here yet.
    pub(super) fn awaits_patch(&self) -> bool {
        matches!(self.phase, Phase::Rebuilding(rebuilding) if !rebuilding.began())
    }

    /// Size of the blob as far as pieces vouch for it.
    pub(super) fn size(&self) -> Option<u64> {
        self.pieces.as_ref().map(|pieces| pieces.layout.blob_size())
    }

    /// The same where it has led to something: until then it is hearsay, and whoever holds the blob knows better.
    pub(super) fn fixed_size(&self) -> Option<u64> {
        self.size().filter(|_| self.has_pieces() || !self.fetches.is_empty())
    }

    pub(super) fn is_full(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.durable.is_full())
    }

    /// Whether some of it is there.
    pub(super) fn has_pieces(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| !pieces.durable.is_empty())
    }

    fn is_in_flight(&self, piece: PieceIndex) -> bool {
        self.fetches.values().any(|fetch| fetch.run.contains(&piece))
    }

    /// State of a piece. Without a known size nothing is durable, and all that was asked for is in flight.
    pub(super) fn piece_state(&self, piece: PieceIndex) -> PieceState {
        if self.pieces.as_ref().is_some_and(|pieces| pieces.durable.contains(piece)) {
            PieceState::Durable
        } else if self.is_in_flight(piece) {
            PieceState::InFlight
        } else {
            PieceState::Missing
        }
    }

    /// The piece that a fetch brings next, once the size is known.
    pub(super) fn next_of(&self, fetch: &Fetch) -> Option<PieceIndex> {
        let next = self.pieces.as_ref()?.durable.next_missing(fetch.run.start);
        next.filter(|piece| fetch.run.contains(piece))
    }

    /// The pieces that are durable, in flight or to be compared; `None` while the size is not known.
    pub(super) fn taken(&self) -> Option<PieceSet> {
        let pieces = self.pieces.as_ref()?;
        let mut taken = pieces.durable.clone();
        for fetch in self.fetches.values() {
            taken.insert_run(fetch.run.clone());
        }
        if let Some(piece) = self.comparing.piece {
            taken.insert(piece);
        }
        Some(taken)
    }

    /// The piece where the reader nearest to the start stands.
    pub(super) fn first_reader(&self) -> Option<PieceIndex> {
        let offset = self.wants.values().flatten().min()?;
        self.pieces.as_ref()?.layout.piece_at(*offset)
    }

    /// Takes over a size that a source gave; pieces of another size are forgotten. `false` if this blob cannot have it.
    pub(super) fn take_size(&mut self, content: &ContentId, size: u64) -> bool {
        // Without a piece nothing would show that it is wrong.
        if size == 0 && *content != ContentId::of(content.algorithm(), &[]) {
            return false;
        }
        if self.size() != Some(size) {
            let Some(pieces) = Pieces::none(size) else { return false };
            self.pieces = Some(pieces);
            if self.sized.replace(size).is_some_and(|before| before != size) {
                // What was said was of a blob that is cut in another way.
                self.vouches = Vouches::default();
                self.audit.clear();
                self.comparing = Comparing::default();
                self.disputes.clear();
                self.unsaid.clear();
            }
        }
        self.fit_run();
        true
    }

    /// Takes over pieces that the store says it has.
    pub(super) fn take_pieces(&mut self, given: Pieces) {
        match &mut self.pieces {
            Some(known) if known.layout == given.layout => {
                let fetches = &self.fetches;
                known.take(given.durable, |piece| fetches.values().any(|fetch| fetch.run.contains(&piece)));
            }
            // What a running fetch was told stands until it ends; otherwise the store knows best.
            Some(_) if !self.fetches.is_empty() => {}
            _ => self.pieces = Some(given),
        }
        self.fit_run();
    }

    /// A fetch of a blob of unknown size asks for all pieces there could be: far too many to go through one by one.
    fn fit_run(&mut self) {
        let Some(pieces) = &self.pieces else { return };
        for fetch in self.fetches.values_mut() {
            fetch.run.end = fetch.run.end.min(pieces.layout.count());
            fetch.run.start = fetch.run.start.min(fetch.run.end);
        }
    }

    /// A running fetch made pieces durable. Those that were not asked for are left out. Returns those that are new.
    pub(super) fn store(
        &mut self,
        id: FetchId,
        stored: impl Iterator<Item = (PieceIndex, Option<PieceHash>)>,
    ) -> Vec<(PieceIndex, Option<PieceHash>)> {
        let (Some(fetch), Some(pieces)) = (self.fetches.get(&id), &mut self.pieces) else { return Vec::new() };
        let supplier = |piece, hash| match &fetch.source {
            _ if fetch.kind.is_growing() => self
                .vouches
                .who_said(piece, hash)
                .map(|vouch| if vouch.sure { Supplier::Peer(vouch.by) } else { Supplier::Hearsay(vouch.by) }),
            Source::Peer(peer) => Some(Supplier::Peer(*peer)),
            Source::Origin(..) => Some(Supplier::Origin),
        };
        let (mut new, mut stored_bytes) = (Vec::new(), 0);
        for (piece, hash) in stored.filter(|(piece, _)| fetch.run.contains(piece)) {
            if pieces.durable.insert(piece) {
                let bytes = pieces.layout.bytes_of(piece);
                stored_bytes += bytes.end - bytes.start;
                if let Some(hash) = hash
                    && let Some(supplier) = supplier(piece, hash)
                {
                    pieces.known.insert(piece, (supplier, hash));
                }
                self.rounds = 0;
                new.push((piece, hash));
            }
        }
        if let Some(fetch) = self.fetches.get_mut(&id) {
            self.yielded &= new.is_empty() || fetch.kind == Kind::Origin;
            fetch.stored += stored_bytes;
            fetch.bytes = fetch.bytes.max(fetch.stored);
        }
        new
    }

    /// A source failed.
    pub(super) fn fail(&mut self, source: Source, error: SourceError) {
        if is_transient(&error) {
            self.last_trouble = Some(error.to_string());
        }
        self.failures.insert(source, error);
        // The size that a source gave without giving pieces binds nobody.
        if !self.has_pieces() && self.fetches.is_empty() {
            self.pieces = None;
        }
    }

    /// Begins another round: what failed and may pass is tried again.
    pub(super) fn next_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
        self.dry.clear();
        self.failures.retain(|_, error| !is_transient(error));
    }

    /// A peer says that it holds the blob: what failed at it is worth another try, unless it sent wrong bytes.
    pub(super) fn pardon(&mut self, peer: NodeId) {
        let source = Source::Peer(peer);
        if self.failures.get(&source).is_some_and(|error| *error != SourceError::WrongBytes) {
            self.failures.remove(&source);
        }
    }

    /// Whether some source failed in a way that may pass.
    pub(super) fn has_transient_failure(&self) -> bool {
        self.failures.values().any(is_transient)
    }

    /// Longest wait that a source asked for in this round.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let asked = |error: &SourceError| match error {
            SourceError::RateLimited { retry_after } => *retry_after,
            _ => None,
        };
        self.failures.values().filter_map(asked).max()
    }

    /// Why the blob cannot be had, now that no source is left.
    pub(super) fn verdict(&self) -> WantError {
        if let (true, Some(trouble)) = (self.has_transient_failure(), &self.last_trouble) {
            return WantError::Unavailable(trouble.clone());
        }
        let of_origins = || {
            let origin = |(source, error)| matches!(source, &Source::Origin(..)).then_some(error);
            self.failures.iter().filter_map(origin)
        };
        let unauthorized = |error: &SourceError| match error {
            SourceError::Unauthorized(what) => Some(WantError::Unauthorized(what.clone())),
            _ => None,
        };
        if let Some(error) = of_origins().find_map(unauthorized) {
            return error;
        }
        if of_origins().any(|error| *error == SourceError::WrongBytes) {
            return WantError::Unavailable("the origin sent bytes that do not have this digest".to_owned());
        }
        if of_origins().any(|error| *error == SourceError::NotFound) {
            return WantError::NotFound;
        }
        if self.origins.is_empty() {
            return WantError::Unavailable("no origin was named for it".to_owned());
        }
        WantError::Unavailable(self.last_trouble.clone().unwrap_or_else(|| "no source is left".to_owned()))
    }
}

/// Whether trying the source again may work.
pub(super) fn is_transient(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable(_)
        | SourceError::RateLimited { .. }
        | SourceError::Unavailable(_)
        | SourceError::Failed(_)
        | SourceError::Cancelled => true,
        SourceError::NotFound | SourceError::Unauthorized(_) | SourceError::WrongBytes | SourceError::Store(_) => false,
    }
}

/// Transfers, and pieces of blobs that are not being had.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    pub(super) open: BTreeMap<ContentId, Transfer>,
    pub(super) wants: BTreeMap<WantId, ContentId>,
    pub(super) fetches: BTreeMap<FetchId, ContentId>,
    pub(super) partials: BTreeMap<ContentId, Pieces>,
    next_fetch: u64,
}

impl Transfers {
    /// Fetches that run from a peer.
    pub(super) fn load(&self, peer: &NodeId) -> usize {
        let fetches = self.open.values().flat_map(|transfer| transfer.fetches.values());
        fetches.filter(|fetch| fetch.peer() == Some(*peer)).count()
    }

    /// The transfer that a running fetch is for.
    pub(super) fn of_fetch(&self, fetch: FetchId) -> Option<(ContentId, &Transfer)> {
        let content = *self.fetches.get(&fetch)?;
        Some((content, self.open.get(&content)?))
    }

    /// Whether fetches of a transfer run.
    pub(super) fn is_fetching(&self, content: &ContentId) -> bool {
        self.open.get(content).is_some_and(|transfer| !transfer.fetches.is_empty())
    }

    pub(super) fn next_fetch(&mut self) -> FetchId {
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        fetch
    }
}
