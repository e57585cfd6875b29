//! One blob's life: wanted, fetched, completed; then held or failed.
//!
//! Invariant: a piece is in exactly one state. Durable pieces are a set; those of the running fetch that are
//! not in it are in flight; the others are missing. So no piece can be lost between two states or be in both.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use super::event::{FetchId, Instant, Source, SourceError, WantError, WantId};
use crate::{ContentId, NodeId, ObjectKind, PieceIndex, PieceLayout, PieceSet, Repository};

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

/// Durable pieces of a blob, and who they came from.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    pub(super) layout: PieceLayout,
    pub(super) durable: PieceSet,
    /// Who supplied them.
    pub(super) suppliers: BTreeSet<Source>,
    /// Some were there before this node started, or survived damage: nobody can be blamed for them.
    pub(super) inherited: bool,
    /// Some came from a peer that had not the whole blob, which vouched for them without having verified it.
    pub(super) relayed: bool,
}

impl Pieces {
    /// No pieces of a blob of `size` bytes; `None` if no blob can be so large.
    pub(super) fn none(size: u64) -> Option<Self> {
        let layout = PieceLayout::for_size(size)?;
        let durable = PieceSet::empty(layout.count());
        Some(Self { layout, durable, suppliers: BTreeSet::new(), inherited: false, relayed: false })
    }

    /// Bytes of the durable pieces.
    pub(super) fn bytes(&self) -> u64 {
        let bytes_of = |piece| {
            let bytes = self.layout.bytes_of(piece);
            bytes.end - bytes.start
        };
        self.durable.iter().map(bytes_of).sum()
    }

    /// Takes over what the store says is there of the same blob: exactly that, but for pieces of `run`, which a fetch
    /// may have stored since.
    pub(super) fn take(&mut self, mut stored: PieceSet, run: Range<PieceIndex>) {
        self.inherited |= stored.iter().any(|piece| !self.durable.contains(piece));
        self.durable.iter().filter(|piece| run.contains(piece)).for_each(|piece| {
            stored.insert(piece);
        });
        self.durable = stored;
    }
}

/// A fetch that runs.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) id: FetchId,
    pub(super) source: Source,
    /// Size that the source was asked to confirm.
    pub(super) size: Option<u64>,
    pub(super) run: Range<PieceIndex>,
    /// The source is a peer that has not the whole blob.
    pub(super) growing: bool,
    /// When it was asked.
    pub(super) began: Instant,
}

/// What a transfer does.
#[derive(Debug)]
pub(super) enum Phase {
    /// It has no source now.
    Waiting,
    /// A fetch runs.
    Fetching(Fetch),
    /// The store checks the whole blob.
    Completing,
}

/// A blob that is being had.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) wants: BTreeMap<WantId, Option<u64>>,
    pub(super) origins: Vec<(Repository, ObjectKind)>,
    pub(super) pieces: Option<Pieces>,
    pub(super) phase: Phase,
    /// Sources that failed, and how: for this round if it may pass, else for the life of the transfer.
    pub(super) failures: BTreeMap<Source, SourceError>,
    /// Rounds of sources since the last piece.
    pub(super) rounds: u32,
    /// How often pieces were missing when all should have been there.
    pub(super) losses: u32,
    pub(super) last_progress: Instant,
    /// When this node last said that it takes part, if it did.
    pub(super) told_at: Option<Instant>,
    /// When this node last said that it fetches the blob from the origin.
    pub(super) claimed_at: Option<Instant>,
    /// From when on nodes claim the blob in turn, while nobody owns it.
    pub(super) election: Option<Instant>,
    /// The set retry is for somebody's word, not for another round of sources.
    pub(super) waits: bool,
    /// The last source that failed in a way that may pass, for people.
    pub(super) last_trouble: Option<String>,
}

impl Transfer {
    pub(super) fn new(now: Instant, pieces: Option<Pieces>) -> Self {
        Self {
            wants: BTreeMap::new(),
            origins: Vec::new(),
            pieces,
            phase: Phase::Waiting,
            failures: BTreeMap::new(),
            rounds: 0,
            losses: 0,
            last_progress: now,
            told_at: None,
            claimed_at: None,
            election: None,
            waits: false,
            last_trouble: None,
        }
    }

    /// The running fetch.
    pub(super) fn fetch(&self) -> Option<&Fetch> {
        match &self.phase {
            Phase::Fetching(fetch) => Some(fetch),
            Phase::Waiting | Phase::Completing => None,
        }
    }

    /// Whether the running fetch is from an origin.
    pub(super) fn asks_origin(&self) -> bool {
        self.fetch().is_some_and(|fetch| matches!(fetch.source, Source::Origin(..)))
    }

    /// Size of the blob as far as pieces vouch for it.
    pub(super) fn size(&self) -> Option<u64> {
        self.pieces.as_ref().map(|pieces| pieces.layout.blob_size())
    }

    pub(super) fn is_full(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| pieces.durable.is_full())
    }

    /// Whether some of it is there.
    pub(super) fn has_pieces(&self) -> bool {
        self.pieces.as_ref().is_some_and(|pieces| !pieces.durable.is_empty())
    }

    /// State of a piece. Without a known size nothing is durable, and all that was asked for is in flight.
    pub(super) fn piece_state(&self, piece: PieceIndex) -> PieceState {
        if self.pieces.as_ref().is_some_and(|pieces| pieces.durable.contains(piece)) {
            PieceState::Durable
        } else if self.fetch().is_some_and(|fetch| fetch.run.contains(&piece)) {
            PieceState::InFlight
        } else {
            PieceState::Missing
        }
    }

    /// The piece where the reader nearest to the start stands.
    pub(super) fn first_reader(&self) -> Option<PieceIndex> {
        let offset = self.wants.values().flatten().min()?;
        self.pieces.as_ref()?.layout.piece_at(*offset)
    }

    /// Takes over a size that a source gave; pieces of another size are forgotten. `false` if no blob can have it.
    pub(super) fn take_size(&mut self, size: u64) -> bool {
        if self.size() != Some(size) {
            let Some(pieces) = Pieces::none(size) else { return false };
            self.pieces = Some(pieces);
        }
        self.fit_run();
        true
    }

    /// Takes over pieces that the store says it has.
    pub(super) fn take_pieces(&mut self, given: Pieces) {
        match &mut self.pieces {
            Some(known) if known.layout == given.layout => {
                let run = match &self.phase {
                    Phase::Fetching(fetch) => fetch.run.clone(),
                    Phase::Waiting | Phase::Completing => 0..0,
                };
                known.take(given.durable, run);
            }
            // What a running fetch was told stands until it ends; otherwise the store knows best.
            Some(_) if matches!(self.phase, Phase::Fetching(_)) => {}
            _ => self.pieces = Some(given),
        }
        self.fit_run();
    }

    /// A fetch of a blob of unknown size asks for all pieces there could be: far too many to go through one by one.
    fn fit_run(&mut self) {
        if let (Phase::Fetching(fetch), Some(pieces)) = (&mut self.phase, &self.pieces) {
            fetch.run.end = fetch.run.end.min(pieces.layout.count());
            fetch.run.start = fetch.run.start.min(fetch.run.end);
        }
    }

    /// The running fetch made pieces durable. Those that were not asked for are left out.
    pub(super) fn store(&mut self, stored: impl Iterator<Item = PieceIndex>) {
        let (Phase::Fetching(fetch), Some(pieces)) = (&self.phase, &mut self.pieces) else { return };
        for piece in stored.filter(|piece| fetch.run.contains(piece)) {
            if pieces.durable.insert(piece) {
                pieces.suppliers.insert(fetch.source.clone());
                pieces.relayed |= fetch.growing;
                self.rounds = 0;
            }
        }
        // An empty blob has no piece that could name its supplier.
        if pieces.layout.count() == 0 {
            pieces.suppliers.insert(fetch.source.clone());
        }
    }

    /// The running fetch is over.
    pub(super) fn stop_fetch(&mut self) -> Option<Fetch> {
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Fetching(fetch) => Some(fetch),
            phase @ (Phase::Waiting | Phase::Completing) => {
                self.phase = phase;
                None
            }
        }
    }

    /// A source failed.
    pub(super) fn fail(&mut self, source: Source, error: SourceError) {
        if is_transient(&error) {
            self.last_trouble = Some(error.to_string());
        }
        self.failures.insert(source, error);
        // The size that a source gave without giving pieces binds nobody.
        if !self.has_pieces() && !self.is_full() {
            self.pieces = None;
        }
    }

    /// Begins another round: what failed and may pass is tried again.
    pub(super) fn next_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
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
    pub(super) fn next_fetch(&mut self) -> FetchId {
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        fetch
    }
}
