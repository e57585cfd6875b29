//! Fetching: from a transfer's missing pieces to durable ones, source by source.
//!
//! Invariant: a transfer that is open always has a running fetch, a set timer, or a whole blob with the store;
//! so every want ends, whatever the driver and the sources do or fail to do. Durable pieces are never asked for.

use super::{
    Engine,
    event::{Action, FetchId, Instant, Note, Source, SourceError, WantError},
    joining::Choice,
    select,
    timers::Timer,
    transfer::{Fetch, Phase, Transfer},
};
use crate::{ContentId, NodeId, PieceIndex, piece::PieceLayout};

impl Engine {
    /// Takes a transfer that has no source to its next step: completion, a fetch, another round later, or its end.
    pub(super) fn advance(&mut self, content: ContentId, preferred: Option<&Source>) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if !matches!(transfer.phase, Phase::Waiting) {
            return;
        }
        self.timers.stop(Timer::Retry(content));
        if transfer.is_full() {
            transfer.phase = Phase::Completing;
            self.timers.set(Timer::CompleteTimeout(content), self.now, self.config.complete_timeout);
            return self.act(Action::Complete { content });
        }
        match self.choose(content, preferred) {
            Choice::From(source, growing) => self.start_fetch(content, source, growing),
            Choice::Wait(until) => self.wait(content, until),
            Choice::Nobody => self.exhausted(content),
        }
    }

    fn wait(&mut self, content: ContentId, until: Instant) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.waits = true;
            self.timers.set(Timer::Retry(content), self.now, until.since(self.now));
        }
    }

    fn start_fetch(&mut self, content: ContentId, source: Source, growing: bool) {
        let announced = match &source {
            Source::Peer(peer) => self.directory.holders(&content).find(|(holder, _)| holder == peer),
            Source::Origin(..) => None,
        };
        let fetch = self.transfers.next_fetch();
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let size = transfer.size().or(announced.map(|(_, size)| size));
        let pieces = match (&transfer.pieces, size.and_then(PieceLayout::for_size)) {
            (Some(pieces), _) => select::run(&pieces.durable, transfer.first_reader()),
            (None, Some(layout)) => Some(0..layout.count().max(1)),
            (None, None) => Some(0..PieceIndex::MAX),
        };
        let Some(pieces) = pieces else { return };
        self.transfers.fetches.insert(fetch, content);
        transfer.phase = Phase::Fetching(Fetch {
            id: fetch,
            source: source.clone(),
            size,
            run: pieces.clone(),
            growing,
            began: self.now,
        });
        self.watch(fetch);
        self.act(Action::Fetch { fetch, content, source, size, pieces, growing });
    }

    /// A fetch gets its time anew.
    fn watch(&mut self, fetch: FetchId) {
        let Some(running) = self.fetching(fetch).and_then(|(_, transfer)| transfer.fetch()) else { return };
        let stall = match running.source {
            Source::Peer(_) if running.growing => self.config.fetch_stall_growing,
            Source::Peer(_) => self.config.fetch_stall_peer,
            Source::Origin(..) => self.config.fetch_stall_origin,
        };
        self.timers.set(Timer::Stall(fetch), self.now, stall);
    }

    /// No source is left in this round: tries again later if that may work and somebody may still wait, else ends.
    fn exhausted(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let started = transfer.has_pieces();
        let hope = started || transfer.has_transient_failure() || self.peers.any_learning();
        let window = if started { self.config.give_up } else { self.config.give_up_unstarted };
        let doubled = self.config.retry_first.saturating_mul(1 << transfer.rounds.min(16));
        let asked = transfer.retry_after().unwrap_or_default().min(self.config.retry_after_max);
        let waited = self.now.since(transfer.last_progress);
        let wait = self.random.around(doubled.min(self.config.retry_max)).max(asked);
        if hope && transfer.rounds < self.config.rounds_max && waited.saturating_add(wait) <= window {
            if let Some(transfer) = self.transfers.open.get_mut(&content) {
                transfer.waits = false;
            }
            self.timers.set(Timer::Retry(content), self.now, wait);
            return;
        }
        let verdict = transfer.verdict();
        // Should others hold the blob in another size, the pieces at hand are what was wrong; start anew next time.
        if transfer.size().is_some_and(|size| self.directory.holders(&content).any(|(_, other)| other != size))
            && let Some(transfer) = self.transfers.open.get_mut(&content)
        {
            transfer.pieces = None;
        }
        self.end_transfer(content, Err(verdict));
    }

    /// The time for another round has come.
    pub(super) fn retry(&mut self, content: ContentId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            if !std::mem::take(&mut transfer.waits) {
                transfer.next_round();
            }
            self.advance(content, None);
        }
    }

    /// A connected peer says that it holds blobs: transfers that wait for a source go on at once.
    pub(super) fn wake(&mut self, contents: Vec<ContentId>, peer: NodeId) {
        for content in contents {
            if let Some(transfer) = self.transfers.open.get_mut(&content) {
                transfer.pardon(peer);
                self.advance(content, None);
            }
        }
    }

    fn fetching(&mut self, fetch: FetchId) -> Option<(ContentId, &mut Transfer)> {
        let content = *self.transfers.fetches.get(&fetch)?;
        Some((content, self.transfers.open.get_mut(&content)?))
    }

    /// Bytes came in: the fetch does not stall, and the transfer is not given up.
    fn progressed(&mut self, fetch: FetchId) {
        let now = self.now;
        let Some((_, transfer)) = self.fetching(fetch) else { return };
        transfer.last_progress = now;
        self.watch(fetch);
    }

    pub(super) fn on_fetch_started(&mut self, fetch: FetchId, size: u64) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some((source, asked)) = transfer.fetch().map(|fetch| (fetch.source.clone(), fetch.size)) else { return };
        // An origin is the one to say how large a blob is; a peer must keep to what it announced.
        let contradicts = matches!(source, Source::Peer(_)) && asked.is_some_and(|asked| asked != size);
        if contradicts || !transfer.take_size(size) {
            self.act(Action::CancelFetch { fetch });
            let what = if contradicts { "gives the blob another size" } else { "gives the blob an impossible size" };
            return self.fail_fetch(content, SourceError::Failed(what.to_owned()));
        }
        if let Some(repository) = select::origin_of(&source) {
            self.origin_answered(repository.registry());
        }
        self.watch(fetch);
    }

    pub(super) fn on_fetch_progress(&mut self, fetch: FetchId, bytes: u64) {
        if bytes > 0 {
            self.progressed(fetch);
        }
    }

    pub(super) fn on_fetch_stored(&mut self, fetch: FetchId, stored: Vec<PieceIndex>) {
        let Some((_, transfer)) = self.fetching(fetch) else { return };
        let before = transfer.pieces.as_ref().map_or(0, |pieces| pieces.durable.count());
        transfer.store(stored.into_iter());
        if transfer.pieces.as_ref().is_some_and(|pieces| pieces.durable.count() > before) {
            self.progressed(fetch);
        }
    }

    pub(super) fn on_fetch_ended(&mut self, fetch: FetchId, result: Result<(), SourceError>) {
        let now = self.now;
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        if let Err(error) = result {
            return self.fail_fetch(content, error);
        }
        let Some(running) = transfer.fetch() else { return };
        let (run, source) = (running.run.clone(), running.source.clone());
        if transfer.pieces.is_none() {
            let error = SourceError::Failed("ended without saying how large the blob is".to_owned());
            return self.fail_fetch(content, error);
        }
        // Pieces that an earlier fetch left behind are not reported again; the end says that all are there.
        transfer.store(run);
        transfer.last_progress = now;
        transfer.stop_fetch();
        self.forget_fetch(fetch);
        self.advance(content, Some(&source));
    }

    /// A fetch made no progress.
    pub(super) fn on_stall(&mut self, fetch: FetchId) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(source) = transfer.fetch().map(|fetch| fetch.source.clone()) else { return };
        self.act(Action::CancelFetch { fetch });
        self.act(Action::Note(Note::Stalled { content, source }));
        self.end_fetch_badly(content, SourceError::Unreachable("no progress for too long".to_owned()));
    }

    fn fail_fetch(&mut self, content: ContentId, error: SourceError) {
        let Some(source) = self.transfers.open.get(&content).and_then(Transfer::fetch).map(|f| f.source.clone()) else {
            return;
        };
        self.act(Action::Note(Note::SourceFailed { content, source, error: error.clone() }));
        self.end_fetch_badly(content, error);
    }

    fn end_fetch_badly(&mut self, content: ContentId, error: SourceError) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let Some(fetch) = transfer.stop_fetch() else { return };
        self.forget_fetch(fetch.id);
        if fetch.growing && !matches!(error, SourceError::Store(_)) {
            return self.upstream_failed(content, fetch.source, error);
        }
        if let SourceError::Store(what) = error {
            return self.end_transfer(content, Err(WantError::Store(what)));
        }
        self.learn_from_failure(content, &fetch.source, &error);
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.fail(fetch.source, error);
            self.advance(content, None);
        }
    }

    /// A peer that had not the whole blob did not go on. It may not have begun yet, so nothing is final; an owner that
    /// brings nothing is not waited for by anybody for a while.
    fn upstream_failed(&mut self, content: ContentId, source: Source, error: SourceError) {
        if let (Source::Peer(peer), SourceError::Unreachable(_) | SourceError::WrongBytes) = (&source, &error)
            && self.owner_of(&content) == Some(*peer)
        {
            self.suspect(*peer);
        }
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let error = match error {
            SourceError::NotFound => SourceError::Failed("it has not begun the blob".to_owned()),
            other => other,
        };
        transfer.fail(source, error);
        self.advance(content, None);
    }

    /// What a failure says of the source beyond this transfer.
    fn learn_from_failure(&mut self, content: ContentId, source: &Source, error: &SourceError) {
        match source {
            Source::Peer(peer) => match error {
                SourceError::WrongBytes => self.penalise(*peer, content),
                SourceError::NotFound => self.directory.lose(*peer, &content),
                _ => {}
            },
            Source::Origin(repository, _) => self.origin_failed(repository.registry(), error),
        }
    }

    pub(super) fn penalise(&mut self, peer: NodeId, content: ContentId) {
        let until = self.now + self.config.penalty;
        self.peers.penalise(peer, self.now, until, self.config.limits.penalties);
        self.act(Action::Note(Note::PeerPenalised { peer, content }));
    }

    /// A peer may have sent wrong bytes.
    pub(super) fn suspect(&mut self, peer: NodeId) {
        if !self.peers.is_penalised(&peer, self.now) {
            let until = self.now + self.config.suspicion;
            self.peers.penalise(peer, self.now, until, self.config.limits.penalties);
        }
    }

    /// Stops a transfer's fetch because it is not needed any more.
    pub(super) fn cancel_fetch(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if let Some(fetch) = transfer.stop_fetch() {
            self.forget_fetch(fetch.id);
            self.act(Action::CancelFetch { fetch: fetch.id });
        }
    }

    fn forget_fetch(&mut self, fetch: FetchId) {
        self.transfers.fetches.remove(&fetch);
        self.timers.stop(Timer::Stall(fetch));
    }

    /// An origin answered, whatever it said.
    pub(super) fn origin_answered(&mut self, registry: &str) {
        if self.origins.answered(registry, self.now, self.config.limits.origins) {
            self.act(Action::Note(Note::OriginReachability { registry: registry.to_owned(), reachable: true }));
        }
    }

    /// A question to an origin, or a fetch from it, failed.
    pub(super) fn origin_failed(&mut self, registry: &str, error: &SourceError) {
        let origins_max = self.config.limits.origins;
        match error {
            SourceError::Unreachable(_) => {
                if self.origins.unreachable(registry, self.now, self.config.origin_down_for, origins_max) {
                    self.act(Action::Note(Note::OriginReachability {
                        registry: registry.to_owned(),
                        reachable: false,
                    }));
                }
            }
            SourceError::RateLimited { retry_after } => {
                self.origin_answered(registry);
                let wait = retry_after.unwrap_or(self.config.origin_down_for).min(self.config.retry_after_max);
                self.origins.busy(registry, self.now, wait, origins_max);
            }
            SourceError::NotFound | SourceError::Unauthorized(_) | SourceError::Failed(_) | SourceError::WrongBytes => {
                self.origin_answered(registry);
            }
            SourceError::Store(_) | SourceError::Cancelled => {}
        }
    }
}
