//! Making a blob on this device, from one that it holds and a patch, in place of fetching it.
//!
//! Of the nodes of a site that want a blob which nobody there holds and that could rebuild it, one does, in its turn like
//! whoever asks an origin; it claims the whole blob while it does, and the others wait and take it from this one. What a driver
//! does for it (fetching the patch, which is a blob like any other; going through the old one) is its own affair.
//!
//! Invariants: nothing of a blob is said to be there before the store has verified all of it, so that a patch that is wrong
//! costs one try of one node, and no peer a byte; after a try in vain the site takes the blob from its origin. A rebuild under
//! way has its timer, and ends with the last want.

use super::{
    Engine,
    electing::TURN_REBUILD,
    event::{Action, Instant, Note, SourceError, WantError},
    fetching::mixed,
    planning::Choice,
    select,
    site::{Claim, Site},
    timers::Timer,
    transfer::{Phase, Transfer},
};
use crate::{ContentId, NodeId, PieceIndex, PieceSet, wire::Stripe};

/// How a blob can be made of one that this device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuild {
    /// The patch that ends in the blob. The driver knows which others come before it.
    pub patch: ContentId,
    /// Bytes of all patches that have to be fetched for it.
    pub patch_bytes: u64,
    /// The blob's size in bytes.
    pub size: u64,
    /// Bytes that the device has to go through: those of the tars, which are compressed at the end.
    pub work: u64,
}

/// A rebuild that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rebuilding {
    pub(super) rebuild: Rebuild,
    /// When the driver first went through something: the patch was there then.
    began: Option<Instant>,
    /// Bytes of the work that are done.
    pub(super) done: u64,
}

impl Rebuilding {
    /// Whether the patch is here.
    pub(super) const fn began(&self) -> bool {
        self.began.is_some()
    }
}

impl Engine {
    /// The driver knows a way to make a blob. The last one counts.
    pub(super) fn on_rebuildable(&mut self, content: ContentId, rebuild: Rebuild) {
        if self.inventory.held(&content).is_some() {
            return;
        }
        let full = self.rebuilds.len() >= self.config.limits.rebuilds;
        if full && !self.rebuilds.contains_key(&content) {
            return self.limit_reached("rebuilds");
        }
        self.rebuilds.insert(content, rebuild);
        self.look_again(content);
    }

    /// Waits for somebody else who makes the blob, or makes it, if that is worth it and this node's turn.
    pub(super) fn ask_rebuild(&mut self, content: ContentId, claims: &[(NodeId, Claim)]) -> Option<Choice> {
        let maker = claims.iter().find(|(node, claim)| *node != self.node && claim.rebuilds());
        if let Some((_, claim)) = maker {
            // All of it will be there at once; what is fetched meanwhile would be fetched twice.
            return Some(Choice::Wait(claim.lapses()));
        }
        let rebuild = self.worthwhile(&content)?;
        if !self.may_ask_origin(&content) {
            return None;
        }
        let stripe = self.whole(content)?;
        if let Some(until) = self.before_turn(content, 0).or_else(|| self.cleared_at(content, stripe)) {
            return Some(Choice::Wait(until));
        }
        self.claim(content, stripe);
        Some(Choice::Rebuild(rebuild))
    }

    /// All of a blob, so that it goes before everybody's claims on parts.
    fn whole(&self, content: ContentId) -> Option<Stripe> {
        let transfer = self.transfers.open.get(&content)?;
        let tree = self.site.tree_for(&self.node, self.now, self.config.trees);
        let stripe = Stripe { first: 0, end: PieceIndex::MAX, turn: TURN_REBUILD, tree };
        Some(self.over_distrusted(&content, transfer, stripe))
    }

    /// How to make a blob, if that brings fewer bytes over the uplink than what is left to fetch, and not by far more slowly.
    fn worthwhile(&self, content: &ContentId) -> Option<Rebuild> {
        let rebuild = *self.rebuilds.get(content)?;
        let transfer = self.transfers.open.get(content)?;
        let left = self.left(content, transfer, rebuild.size);
        if transfer.rebuild_failed || rebuild.patch_bytes >= left {
            return None;
        }
        // Bytes that cost money are worth any time; as long as no rate is known the uplink is taken for a weak one.
        let Some(rate) = self.uplink_rate.or(self.others_rate).filter(|_| !self.config.uplink.metered) else {
            return Some(rebuild);
        };
        let work_rate = self.rebuild_rate.unwrap_or(self.config.rebuild_rate_assumed);
        let with = select::time_for(rebuild.patch_bytes, rate) + select::time_for(rebuild.work, work_rate);
        let without = select::time_for(left, rate);
        (with <= without.saturating_mul(self.config.rebuild_slower_max)).then_some(rebuild)
    }

    /// Bytes of a blob that neither this node nor anybody else who takes part has.
    fn left(&self, content: &ContentId, transfer: &Transfer, size: u64) -> u64 {
        let Some(pieces) = &transfer.pieces else { return size };
        let mut had: PieceSet = pieces.durable.clone();
        for (node, set, _) in self.site.sets(content) {
            // Whoever is not believed, or not in reach, has nothing that counts.
            if node != self.node && self.may_reach(transfer, &node) {
                had.unite(set);
            }
        }
        u64::from(had.pieces() - had.count()) * u64::from(pieces.layout.piece_len())
    }

    /// It is this node's turn: the driver is told.
    pub(super) fn begin_rebuild(&mut self, content: ContentId, rebuild: Rebuild) {
        self.cancel_fetches(content);
        self.timers.stop(Timer::Retry(content));
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        transfer.phase = Phase::Rebuilding(Rebuilding { rebuild, began: None, done: 0 });
        let urgency = self.urgency(&content);
        self.timers.set(Timer::Rebuild(content), self.now, self.config.rebuild_stall);
        self.tell(content);
        self.act(Action::Rebuild { content, patch: rebuild.patch, urgency });
    }

    /// The driver got on: with the patch, or with the work.
    pub(super) fn on_rebuild_progress(&mut self, content: ContentId, done: u64) {
        let now = self.now;
        let Some(transfer) = self.transfers.open.get_mut(&content) else { return };
        let Phase::Rebuilding(rebuilding) = &mut transfer.phase else { return };
        if done > 0 {
            rebuilding.began.get_or_insert(now);
        }
        rebuilding.done = done.min(rebuilding.rebuild.work);
        transfer.last_progress = now;
        self.timers.set(Timer::Rebuild(content), now, self.config.rebuild_stall);
    }

    /// The blob is there: how fast that went says what the next one will take. Returns whether it was made.
    pub(super) fn note_rebuilt(&mut self, content: &ContentId) -> bool {
        self.rebuilds.remove(content);
        let Some(transfer) = self.transfers.open.get_mut(content) else { return false };
        let Phase::Rebuilding(rebuilding) = transfer.phase else { return false };
        transfer.phase = Phase::Completing;
        self.timers.stop(Timer::Rebuild(*content));
        let took = rebuilding.began.map(|began| self.now.since(began));
        let ms = took.map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let rate = rebuilding.rebuild.work.saturating_mul(1000).checked_div(ms);
        if let Some(rate) = rate.filter(|_| rebuilding.rebuild.work >= self.config.rebuild_measured_min) {
            self.rebuild_rate = Some(mixed(self.rebuild_rate, rate.max(1)));
        }
        true
    }

    /// The blob could not be made: it is had as if there were no patch.
    pub(super) fn on_rebuild_failed(&mut self, content: ContentId, error: SourceError) {
        let Some(rebuild) = self.end_rebuild(content) else { return };
        if let SourceError::Store(what) = error {
            return self.end_transfer(content, Err(WantError::Store(what)));
        }
        // What hinders it now need not do so at the next try.
        if error == SourceError::WrongBytes {
            self.rebuilds.remove(&content);
        }
        self.go_on_without_patch(content, Note::RebuildFailed { content, patch: rebuild.patch, error });
    }

    /// The driver says nothing.
    pub(super) fn on_rebuild_stalled(&mut self, content: ContentId) {
        self.cancel_rebuild(content);
        self.go_on_without_patch(content, Note::RebuildStalled { content });
    }

    /// It was tried in vain: the blob is fetched.
    fn go_on_without_patch(&mut self, content: ContentId, note: Note) {
        if let Some(transfer) = self.transfers.open.get_mut(&content) {
            transfer.rebuild_failed = true;
        }
        self.act(Action::Note(note));
        self.tell(content);
        self.advance(content, None);
    }

    /// Stops making a blob, if that is what happens to it.
    pub(super) fn cancel_rebuild(&mut self, content: ContentId) {
        if self.end_rebuild(content).is_some() {
            self.act(Action::CancelRebuild { content });
        }
    }

    /// A blob that was being made is not any more, and its claim is over. Returns how it was made.
    fn end_rebuild(&mut self, content: ContentId) -> Option<Rebuild> {
        let transfer = self.transfers.open.get_mut(&content)?;
        let Phase::Rebuilding(Rebuilding { rebuild, .. }) = transfer.phase else { return None };
        transfer.phase = Phase::Fetching;
        self.timers.stop(Timer::Rebuild(content));
        self.site.released(&content, &self.node);
        Some(rebuild)
    }

    /// Whether the blob goes on being made. Not if a connected peer holds it, or another makes it that goes before this node, and more
    /// than half is still to be done.
    pub(super) fn goes_on_rebuilding(&mut self, content: ContentId) -> bool {
        let Some(transfer) = self.transfers.open.get(&content) else { return false };
        let Phase::Rebuilding(Rebuilding { rebuild, done, .. }) = transfer.phase else { return false };
        let held = self.directory.holders(&content).any(|(peer, _)| self.can_ask(transfer, &peer));
        let first = Site::owner_at(&content, &self.claims(&content), 0).is_none_or(|(owner, _)| owner == self.node);
        if (held || !first) && done < rebuild.work / 2 {
            self.cancel_rebuild(content);
            self.tell(content);
            return false;
        }
        true
    }

    /// Somebody who made the blob says that it does not any more, and not that it holds it.
    pub(super) fn gave_up_rebuild(&mut self, content: ContentId, before: Option<Claim>, from: &NodeId) {
        let rebuilds = |claim: Option<Claim>| claim.is_some_and(|claim| claim.rebuilds());
        let now = self.site.claim_of(&content, from, self.now);
        if rebuilds(before)
            && !rebuilds(now)
            && self.trusts(from)
            && let Some(transfer) = self.transfers.open.get_mut(&content)
        {
            // It would fail here as well.
            transfer.rebuild_failed = true;
        }
    }
}
