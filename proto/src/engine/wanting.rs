//! Wants, and what the store says: where transfers begin and end.
//!
//! Invariants: a want that was taken up is answered once, unless it is withdrawn; a blob is announced only when
//! the store says that it holds it.

use super::{
    Engine,
    budget::Urgency,
    event::{Action, PromiseId, SourceError, WantError, WantId},
    timers::Timer,
    transfer::{Phase, Pieces, Transfer},
};
use crate::{ContentId, ObjectKind, PieceSet, Repository};

impl Engine {
    pub(super) fn on_want(
        &mut self,
        (want, urgency): (WantId, Urgency),
        content: ContentId,
        kind: ObjectKind,
        repository: Option<Repository>,
    ) {
        if self.transfers.wants.contains_key(&want) {
            return;
        }
        if self.inventory.held(&content).is_some() {
            return self.act(Action::WantEnded { want, result: Ok(()) });
        }
        let limits = &self.config.limits;
        let new = !self.transfers.open.contains_key(&content);
        if self.transfers.wants.len() >= limits.wants || (new && self.transfers.open.len() >= limits.transfers) {
            return self.act(Action::WantEnded { want, result: Err(WantError::Busy) });
        }
        let partials = &mut self.transfers.partials;
        let now = self.now;
        let transfer =
            self.transfers.open.entry(content).or_insert_with(|| Transfer::new(now, partials.remove(&content)));
        transfer.wants.insert(want, None);
        let origin =
            repository.map(|repository| (repository, kind)).filter(|origin| !transfer.origins.contains(origin));
        let new_origin = origin.is_some();
        let full = transfer.origins.len() >= limits.origins_per_transfer;
        if let Some(origin) = origin.filter(|_| !full) {
            transfer.origins.push(origin);
        }
        self.transfers.wants.insert(want, content);
        let raised = self.ranked(content, want, urgency);
        if new_origin && full {
            self.limit_reached("origins_per_transfer");
        }
        if new && self.transfers.open.get(&content).is_some_and(Transfer::has_pieces) {
            self.act(Action::Recall { content });
        }
        if new || new_origin || raised {
            self.advance(content, None);
        }
    }

    /// Bounds the size of what is wanted.
    pub(super) fn bound_want(&mut self, want: WantId, size_max: Option<u64>) {
        let (Some(max), Some(content)) = (size_max, self.transfers.wants.get(&want).copied()) else { return };
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.bounds.insert(want, max);
            self.keep_bounds(content);
        }
    }

    /// Ends the wants of a blob that is larger than they can use.
    pub(super) fn keep_bounds(&mut self, content: ContentId) {
        let Some(transfer) = self.transfers.open.get(&content) else { return };
        let Some(size) = transfer.size() else { return };
        let over: Vec<WantId> = transfer.bounds.iter().filter(|(_, max)| size > **max).map(|(want, _)| *want).collect();
        for want in over {
            self.act(Action::WantEnded { want, result: Err(WantError::TooLarge(size)) });
            self.on_unwant(want);
        }
    }

    pub(super) fn on_reader_at(&mut self, want: WantId, offset: u64) {
        let Some(content) = self.transfers.wants.get(&want) else { return };
        if let Some(reader) = self.transfers.open.get_mut(content).and_then(|transfer| transfer.wants.get_mut(&want)) {
            *reader = Some(offset);
        }
    }

    /// A want is withdrawn. Whoever hangs up often comes back, but nobody may: fetching on would spend the uplink
    /// for nothing, so the fetch stops and the pieces stay.
    pub(super) fn on_unwant(&mut self, want: WantId) {
        let Some(content) = self.transfers.wants.remove(&want) else { return };
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.wants.remove(&want);
        transfer.bounds.remove(&want);
        if transfer.wants.is_empty() && !matches!(transfer.phase, Phase::Completing) {
            self.cancel_fetches(content);
            self.close_transfer(content);
        }
    }

    /// Ends a transfer and its wants.
    pub(super) fn end_transfer(&mut self, content: ContentId, result: Result<(), WantError>) {
        self.cancel_fetches(content);
        let Some(wants) = self.close_transfer(content) else { return };
        for want in wants.into_keys() {
            self.transfers.wants.remove(&want);
            self.act(Action::WantEnded { want, result: result.clone() });
        }
    }

    /// Takes a transfer out, keeps its pieces in mind and returns its wants.
    pub(super) fn close_transfer(
        &mut self,
        content: ContentId,
    ) -> Option<std::collections::BTreeMap<WantId, Option<u64>>> {
        let transfer = self.transfers.open.remove(&content)?;
        self.timers.stop(Timer::Retry(content));
        self.timers.stop(Timer::CompleteTimeout(content));
        self.leave(content, &transfer);
        if let Some(mut pieces) = transfer.pieces.filter(|pieces| !pieces.durable.is_empty()) {
            // The store knows the hashes should they be needed again.
            pieces.known.clear();
            self.keep_partial(content, pieces);
        }
        Some(transfer.wants)
    }

    fn keep_partial(&mut self, content: ContentId, pieces: Pieces) {
        let partials = &mut self.transfers.partials;
        if partials.len() >= self.config.limits.partials && !partials.contains_key(&content) {
            return self.limit_reached("partials");
        }
        partials.insert(content, pieces);
    }

    pub(super) fn on_held(&mut self, content: ContentId, size: u64) {
        if !self.inventory.hold(content, size) {
            self.limit_reached("inventory");
        }
        self.schedule_announcement();
        // Nobody has heard hashes of what did not come piece by piece.
        let all_at_once = self.note_rebuilt(&content) || !self.transfers.open.contains_key(&content);
        self.judge(content);
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            // That it is held says that this node is done with it.
            transfer.told_at = None;
        }
        self.end_transfer(content, Ok(()));
        self.transfers.partials.remove(&content);
        if all_at_once {
            self.offer_to_waiting(content);
        }
    }

    pub(super) fn on_lost(&mut self, content: ContentId) {
        if self.inventory.lose(content) {
            self.schedule_announcement();
        }
    }

    pub(super) fn on_partly_held(&mut self, content: ContentId, size: u64, durable: PieceSet) {
        let Some(mut pieces) = Pieces::none(size).filter(|pieces| pieces.layout.count() == durable.pieces()) else {
            return;
        };
        pieces.durable = durable;
        match self.transfers.open.get_mut(&content) {
            Some(transfer) => transfer.take_pieces(pieces),
            None => match self.transfers.partials.get_mut(&content) {
                Some(known) if known.layout == pieces.layout => known.take(pieces.durable, |_| false),
                _ => self.keep_partial(content, pieces),
            },
        }
    }

    pub(super) fn on_complete_failed(&mut self, content: ContentId, error: SourceError) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if !matches!(transfer.phase, Phase::Completing) {
            return;
        }
        self.timers.stop(Timer::CompleteTimeout(content));
        match error {
            SourceError::WrongBytes => self.not_the_blob(content),
            SourceError::Store(what) => self.not_completed(content, what),
            other => self.not_completed(content, other.to_string()),
        }
    }

    /// The store did not take a whole blob in. If that is for pieces that it lost, which it has said by now, they
    /// are fetched again.
    fn not_completed(&mut self, content: ContentId, what: String) {
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        if transfer.is_full() || transfer.wants.is_empty() || transfer.losses >= self.config.losses_max {
            return self.end_transfer(content, Err(WantError::Store(what)));
        }
        transfer.losses += 1;
        transfer.phase = Phase::Fetching;
        self.advance(content, None);
    }

    /// The store did not say what became of a whole blob.
    pub(super) fn on_complete_timeout(&mut self, content: ContentId) {
        self.end_transfer(content, Err(WantError::Store("checking the whole blob took too long".to_owned())));
    }

    pub(super) fn on_promise(&mut self, promise: PromiseId, contents: Vec<ContentId>, repository: &Repository) {
        // An origin that did not answer this node may answer another, which then fetches for all.
        let origin =
            !self.origins.is_down(repository.registry(), self.now) || self.site.reaches_origin(&self.node, self.now);
        let obtainable = |content: &ContentId| {
            origin
                || self.inventory.held(content).is_some()
                || self.directory.holders(content).any(|(peer, _)| self.trusts(&peer))
        };
        let missing = contents.into_iter().filter(|content| !obtainable(content)).collect();
        self.act(Action::Promised { promise, missing });
    }
}
