//! Fetching: from a transfer's missing pieces to durable ones, from several sources side by side.
//!
//! Invariant: a transfer that is open always has a running fetch, a set timer, or a whole blob with the store;
//! so every want ends, whatever the driver and the sources do or fail to do, but for those that wait for the uplink's
//! budget: nothing is wrong with them. Durable pieces are never asked for.

use super::{
    Engine,
    event::{Action, FetchId, Instant, Note, Source, SourceError, WantError},
    planning::{Choice, Step},
    select,
    timers::Timer,
    transfer::{Fetch, Kind, Phase, Transfer},
};
use crate::{ContentId, FIRST_BYTES, NodeId, PieceHash, PieceIndex};

/// Bytes of a fetch from which on its rate says something of its source.
pub(super) const RATE_BYTES_MIN: u64 = 256 << 10;

impl Engine {
    /// Takes a transfer to its next steps: completion, as many fetches as make sense, another round later, or its end.
    pub(super) fn advance(&mut self, content: ContentId, preferred: Option<&Source>) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let phase = transfer.phase;
        if phase == Phase::Completing || (phase != Phase::Fetching && self.goes_on_rebuilding(content)) {
            return;
        }
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let mut withheld = self.budget.release(content, transfer, (self.now, self.config.retry_max));
        let compares = self.compare_next(content);
        if self.transfers.open.get(&content).is_some_and(Transfer::is_full) {
            return match compares {
                Some(until) => self.wait(content, until),
                None => self.complete(content),
            };
        }
        for _ in 0..=self.config.fetches_per_transfer {
            let choice = self.choose(content, preferred);
            if std::mem::take(&mut withheld) {
                self.resume(content, &choice);
            }
            match choice {
                Choice::Start(step) => self.start_fetch(content, step),
                Choice::Rebuild(rebuild) => return self.begin_rebuild(content, rebuild),
                Choice::Wait(until) => return self.wait(content, until),
                Choice::Withheld => {
                    self.timers.stop(Timer::Retry(content));
                    return self.look_later(content);
                }
                Choice::Enough => break,
                Choice::Nobody => return self.exhausted(content),
            }
        }
        self.hedge(content);
        self.look_later(content);
    }

    fn complete(&mut self, content: ContentId) {
        self.timers.stop(Timer::Retry(content));
        self.cancel_fetches(content);
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.phase = Phase::Completing;
        self.timers.set(Timer::CompleteTimeout(content), self.now, self.config.complete_timeout);
        self.act(Action::Complete { content });
    }

    /// Waits until then, or for what nobody says: a claim that runs out, or a fetch that brings nothing.
    fn wait(&mut self, content: ContentId, until: Instant) {
        let lapse = self.site.next_lapse(&content, self.now);
        let until = lapse.into_iter().chain([self.next_look(&content)]).fold(until, Instant::min);
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.waits = true;
            self.timers.set(Timer::Retry(content), self.now, until.since(self.now));
        }
    }

    /// A transfer whose fetches do all there is to do looks whether one of them is slow, now and then.
    fn look_later(&mut self, content: ContentId) {
        if self.transfers.is_fetching(&content) {
            self.wait(content, self.next_look(&content));
        }
    }

    fn next_look(&self, content: &ContentId) -> Instant {
        let share = self.age(content) / self.config.look_share.max(1);
        self.now + share.clamp(self.config.look_min, self.config.look_max)
    }

    fn start_fetch(&mut self, content: ContentId, step: Step) {
        let fetch = self.transfers.next_fetch();
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        self.timers.stop(Timer::Retry(content));
        let Step { source, kind, size, run } = step;
        let growing = kind.is_growing();
        let expected = |piece| Some((piece, self.vouched(transfer, piece)?.hash));
        let expected = if growing { run.clone().filter_map(expected).collect() } else { Vec::new() };
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        self.transfers.fetches.insert(fetch, content);
        let running = Fetch {
            source: source.clone(),
            kind,
            size,
            run: run.clone(),
            began: self.now,
            moved: self.now,
            bytes: 0,
            stored: 0,
            bytes_watched: 0,
            shortened: false,
        };
        transfer.begin(fetch, running);
        self.watch(fetch);
        self.act(Action::Fetch { fetch, content, source, size, pieces: run, growing, expected });
    }

    /// A fetch gets its time anew.
    pub(super) fn watch(&mut self, fetch: FetchId) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(running) = transfer.fetches.get_mut(&fetch) else { return };
        running.bytes_watched = 0;
        let origin = select::origin_of(&running.source).filter(|_| running.bytes == 0).cloned();
        let (kind, run) = (running.kind, running.run.clone());
        let missing = match &transfer.pieces {
            Some(pieces) => pieces.durable.next_missing(run.start),
            None => Some(run.start),
        };
        let next = missing.filter(|piece| run.contains(piece));
        let awaited = next.is_some_and(|piece| !transfer.vouches.is_known(piece));
        let silent = origin.is_some_and(|origin| self.origins.is_silent(origin.registry(), self.now));
        let stall = match kind {
            Kind::Origin if silent => self.config.origin_patience_away,
            Kind::Origin => self.config.fetch_stall_origin,
            // What is vouched for is there and need not be waited for.
            Kind::Stripe(..) if awaited => self.patience(&content).max(self.config.fetch_stall_growing),
            // Hashes come before the bytes do, which may have several hops before them.
            Kind::Section => self.config.fetch_stall_section,
            Kind::Stripe(..) | Kind::Holder | Kind::Haver => self.config.fetch_stall_peer,
        };
        self.timers.set(Timer::Stall(fetch), self.now, stall);
    }

    /// No source is left in this round: tries again later if that may work and somebody may still wait, else ends.
    fn exhausted(&mut self, content: ContentId) {
        if self.transfers.is_fetching(&content) {
            return self.look_later(content);
        }
        if self.withhold(content, None).is_some() {
            return;
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        if !transfer.waits && self.timers.is_set(Timer::Retry(content)) {
            // Another round is due as it is.
            return;
        }
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
        if self.dispel_doubt(content) {
            return self.look_again(content);
        }
        let Some(transfer) = self.transfers.open.get(&content) else { return };
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
            self.look_again(content);
        }
    }

    /// A connected peer says that it holds blobs: transfers that wait for a source go on at once.
    pub(super) fn wake(&mut self, contents: Vec<ContentId>, peer: NodeId) {
        for content in contents {
            if let Some(transfer) = self.transfers.open.get_mut(&content) {
                transfer.pardon(peer);
                self.look_again(content);
            }
        }
    }

    pub(super) fn fetching(&mut self, fetch: FetchId) -> Option<(ContentId, &mut Transfer)> {
        let content = *self.transfers.fetches.get(&fetch)?;
        Some((content, self.transfers.open.get_mut(&content)?))
    }

    pub(super) fn on_fetch_started(&mut self, fetch: FetchId, size: u64, ranged: bool) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(running) = transfer.fetches.get(&fetch) else { return };
        let (source, asked) = (running.source.clone(), running.size);
        // An origin is the one to say how large a blob is; a peer must keep to what it announced.
        let contradicts = matches!(source, Source::Peer(_)) && asked.is_some_and(|asked| asked != size);
        let anew = transfer.size() != Some(size);
        if anew && !contradicts {
            // What the others bring is of no use any more.
            let others: Vec<_> = transfer.fetches.keys().filter(|other| **other != fetch).copied().collect();
            others.into_iter().for_each(|other| self.cancel_one(other));
        }
        let Some((_, transfer)) = self.fetching(fetch) else { return };
        if contradicts || !transfer.take_size(&content, size) {
            self.act(Action::CancelFetch { fetch });
            let what = if contradicts { "gives the blob another size" } else { "gives the blob an impossible size" };
            return self.fail_fetch(fetch, SourceError::Failed(what.to_owned()));
        }
        self.keep_bounds(content);
        if self.fetching(fetch).is_none() {
            return;
        }
        if let Some(repository) = select::origin_of(&source) {
            self.origin_answered(repository.registry());
            self.on_origin_started(content, fetch, asked.is_none(), ranged);
        }
        self.watch(fetch);
    }

    /// An origin answered: what was asked for without knowing how large the blob is gets its end, and whether there can be
    /// stripes is known.
    fn on_origin_started(&mut self, content: ContentId, fetch: FetchId, first: bool, ranged: bool) {
        let Some((_, transfer)) = self.fetching(fetch) else { return };
        let Some(layout) = transfer.pieces.as_ref().map(|pieces| pieces.layout) else { return };
        let Some(running) = transfer.fetches.get_mut(&fetch) else { return };
        let whole = running.run.end >= layout.count() && running.run.start == 0;
        if first && ranged {
            let asked = u32::try_from(FIRST_BYTES / u64::from(layout.piece_len())).unwrap_or(u32::MAX);
            running.run.end = running.run.end.min(asked);
        } else if !ranged && !whole && !transfer.unranged {
            // It would send what is there already first: better one node has it all than each a part.
            transfer.unranged = true;
            self.cancel_one(fetch);
            return self.look_again(content);
        } else if !ranged {
            transfer.unranged = true;
        }
        if first {
            self.refine_claim(content);
        }
    }

    pub(super) fn on_fetch_progress(&mut self, fetch: FetchId, bytes: u64) {
        let (now, enough) = (self.now, self.config.stall_bytes_min);
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(running) = transfer.fetches.get_mut(&fetch) else { return };
        if bytes > 0 {
            running.moved = now;
        }
        running.bytes = running.bytes.saturating_add(bytes);
        running.bytes_watched = running.bytes_watched.saturating_add(bytes);
        let alive = bytes == 0 || running.bytes_watched >= enough;
        let brings = bytes > 0 && running.kind == Kind::Origin;
        let size = transfer.size();
        if alive {
            transfer.last_progress = now;
            self.watch(fetch);
        }
        if brings {
            // An origin without ranges sends what is there first, of which nothing is stored.
            self.origin_brought(content);
            self.ledger.note(content, size, bytes, now);
        }
        self.hedge(content);
    }

    /// Bytes came from an origin, so that this node's claim is good for longer.
    fn origin_brought(&mut self, content: ContentId) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.origin_progress = self.now;
        }
        self.site.brought(&content, &self.node, self.now);
    }

    pub(super) fn on_fetch_stored(&mut self, fetch: FetchId, stored: Vec<(PieceIndex, PieceHash)>) {
        let now = self.now;
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let new = transfer.store(fetch, stored.into_iter().map(|(piece, hash)| (piece, Some(hash))));
        if new.is_empty() {
            return;
        }
        transfer.last_progress = now;
        let Some(running) = transfer.fetches.get_mut(&fetch) else { return };
        running.moved = now;
        if running.kind == Kind::Origin {
            self.origin_brought(content);
        }
        self.watch(fetch);
        self.learn_hashes(content, fetch, new);
        self.end_if_shortened(content, fetch);
    }

    /// A fetch whose end was moved has all that is left for it.
    fn end_if_shortened(&mut self, content: ContentId, fetch: FetchId) {
        let Some((_, transfer)) = self.fetching(fetch) else { return };
        let Some(pieces) = &transfer.pieces else { return };
        let done =
            |running: &Fetch| running.shortened && running.run.clone().all(|piece| pieces.durable.contains(piece));
        if transfer.fetches.get(&fetch).is_some_and(done) {
            self.cancel_one(fetch);
            self.advance(content, None);
        }
    }

    pub(super) fn on_fetch_ended(&mut self, fetch: FetchId, result: Result<(), SourceError>) {
        let now = self.now;
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        if let Err(error) = result {
            return self.fail_fetch(fetch, error);
        }
        let Some(running) = transfer.fetches.get(&fetch) else { return };
        let (run, source) = (running.run.clone(), running.source.clone());
        if transfer.pieces.is_none() {
            let error = SourceError::Failed("ended without saying how large the blob is".to_owned());
            return self.fail_fetch(fetch, error);
        }
        // Pieces that an earlier fetch left behind are not reported again; the end says that all are there.
        transfer.store(fetch, run.map(|piece| (piece, None)));
        transfer.last_progress = now;
        self.take_fetch(fetch);
        self.advance(content, Some(&source));
    }

    /// A fetch made no progress.
    pub(super) fn on_stall(&mut self, fetch: FetchId) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(running) = transfer.fetches.get(&fetch) else { return };
        let (source, nothing) = (running.source.clone(), running.bytes == 0);
        if self.waits_for_owner(fetch) {
            return self.watch(fetch);
        }
        let silent = select::origin_of(&source).filter(|_| nothing).map(|origin| origin.registry().to_owned());
        self.act(Action::CancelFetch { fetch });
        self.act(Action::Note(Note::Stalled { content, source }));
        if let Some(registry) = silent {
            self.origins.silent(&registry, self.now, self.config.origin_silent_for, self.config.limits.origins);
        }
        self.end_fetch_badly(fetch, SourceError::Unreachable("no progress for too long".to_owned()));
    }

    /// A slow source makes room for a faster one that is idle.
    pub(super) fn replace_slow(&mut self, content: ContentId, fetch: FetchId, source: Source) {
        self.cancel_one(fetch);
        let error = SourceError::Failed("slower by far than another".to_owned());
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.fail(source.clone(), error.clone());
        }
        self.act(Action::Note(Note::SourceFailed { content, source, error }));
        self.advance(content, None);
    }

    fn fail_fetch(&mut self, fetch: FetchId, error: SourceError) {
        let Some((content, transfer)) = self.fetching(fetch) else { return };
        let Some(source) = transfer.fetches.get(&fetch).map(|fetch| fetch.source.clone()) else { return };
        self.act(Action::Note(Note::SourceFailed { content, source, error: error.clone() }));
        self.end_fetch_badly(fetch, error);
    }

    fn end_fetch_badly(&mut self, fetch: FetchId, error: SourceError) {
        let Some((content, running)) = self.take_fetch(fetch) else { return };
        if let SourceError::Store(what) = error {
            return self.end_transfer(content, Err(WantError::Store(what)));
        }
        match running.kind {
            Kind::Stripe(..) | Kind::Section | Kind::Haver => self.upstream_failed(content, &running, error),
            Kind::Holder | Kind::Origin => {
                self.learn_from_failure(content, &running.source, &error);
                if let Some(transfer) = self.transfers.open.get_mut(&content) {
                    transfer.fail(running.source, error);
                }
            }
        }
        self.look_again(content);
        if running.kind == Kind::Origin {
            self.tell_if_idle(content);
        }
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

    /// Stops a fetch because it is not needed any more.
    pub(super) fn cancel_one(&mut self, fetch: FetchId) {
        if self.take_fetch(fetch).is_some() {
            self.act(Action::CancelFetch { fetch });
        }
    }

    /// Stops all that brings bytes of a transfer.
    pub(super) fn cancel_fetches(&mut self, content: ContentId) {
        self.cancel_rebuild(content);
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        for fetch in transfer.fetches.keys().copied().collect::<Vec<_>>() {
            self.cancel_one(fetch);
        }
    }

    /// Takes a fetch that is over out of its transfer; what it brought tells how fast its source is. The hashes of what came
    /// from an origin are said at once: others may wait for the last of them, and this node may have its blob whole now.
    fn take_fetch(&mut self, fetch: FetchId) -> Option<(ContentId, Fetch)> {
        let now = self.now;
        let (content, transfer) = self.fetching(fetch)?;
        let running = transfer.end(fetch)?;
        self.transfers.fetches.remove(&fetch);
        self.timers.stop(Timer::Stall(fetch));
        if let Some(rate) = running.rate(now).filter(|_| running.bytes >= RATE_BYTES_MIN) {
            match (running.kind, running.peer()) {
                (Kind::Origin, _) => self.uplink_rate = Some(mixed(self.uplink_rate, rate)),
                // A stripe comes as fast as it lands upstream, which says nothing of the peer.
                (Kind::Holder | Kind::Haver, Some(peer)) => self.peers.measured(&peer, rate),
                _ => {}
            }
        }
        if running.kind == Kind::Origin {
            self.site.released(&content, &self.node);
            self.vouch_now(content);
        }
        Some((content, running))
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
                // Fewer requests for as many bytes.
                self.stretch = (self.stretch * 2).min(self.config.stripe_stretch_max);
            }
            SourceError::NotFound | SourceError::Unauthorized(_) | SourceError::Failed(_) | SourceError::WrongBytes => {
                self.origin_answered(registry);
            }
            // It answers, but an origin that is away because it is ill is not back.
            SourceError::Unavailable(_) | SourceError::Store(_) | SourceError::Cancelled => {}
        }
    }
}

/// A measured rate mixed into what was measured before, so that one odd fetch does not count for much.
pub(super) fn mixed(before: Option<u64>, now: u64) -> u64 {
    before.map_or(now, |before| before / 4 * 3 + now / 4)
}
