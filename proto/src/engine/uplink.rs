//! Keeping to the uplink's budget: which transfers are held back from origins, and this node's share of the site's rate.
//!
//! What is allowed is decided in `budget.rs`; here it is applied. A transfer that may not ask an origin is *withheld*: it
//! takes part like any other, says that it reaches no origin, so that nobody waits for it to claim the blob, and takes
//! the blob from whoever else on the site has or brings it. Invariants, after every event: no transfer asks an origin
//! that may not; a transfer that is withheld is one that may not, so it goes on as soon as it may; being withheld is no
//! failure, so it uses up none of a transfer's patience. Pieces that are durable stay when a fetch is broken off.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Engine,
    budget::{MINUTES_PER_WEEK, Urgency, Verdict, Wait},
    event::{Action, Instant, Source, WantId},
    planning::Choice,
    timers::Timer,
    transfer::{Transfer, is_transient},
};
use crate::ContentId;

const MINUTE: Duration = Duration::from_secs(60);

/// What the budget is reckoned with.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The last word of the wall clock: when it came, and the minute of the week.
    clock: Option<(Instant, u16)>,
    /// Wants that nobody waits for; the others are runtimes'.
    background: BTreeSet<WantId>,
    /// Transfers that would ask an origin and may not.
    withheld: BTreeSet<ContentId>,
    /// Whether a runtime's transfer asked an origin after the last event.
    runtime_asks: bool,
    /// Until when background work leaves the uplink alone, because of what a runtime's transfer did last.
    runtime_until: Option<Instant>,
    /// The share that the driver was told.
    share: Option<u64>,
}

impl Budget {
    fn urgency<'a>(&self, mut wants: impl Iterator<Item = &'a WantId>) -> Urgency {
        if wants.all(|want| self.background.contains(want)) { Urgency::Background } else { Urgency::Runtime }
    }

    fn of(&self, transfer: &Transfer) -> Urgency {
        self.urgency(transfer.wants.keys())
    }

    /// Minutes that have begun since the last word of the wall clock.
    fn minutes_since(at: Instant, now: Instant) -> u64 {
        now.since(at).as_secs() / MINUTE.as_secs()
    }

    /// The local minute of the week, if it is known.
    fn minute_of_week(&self, now: Instant) -> Option<u16> {
        let (at, minute) = self.clock?;
        let minutes = u64::from(minute) + Self::minutes_since(at, now);
        u16::try_from(minutes % u64::from(MINUTES_PER_WEEK)).ok()
    }

    /// The moment so many minutes after the beginning of the current one.
    fn after(&self, minutes: u16, now: Instant) -> Option<Instant> {
        let (at, _) = self.clock?;
        let minutes = Self::minutes_since(at, now).saturating_add(u64::from(minutes));
        Some(at + MINUTE.saturating_mul(u32::try_from(minutes).unwrap_or(u32::MAX)))
    }

    /// Whether a transfer is withheld.
    pub(super) fn withholds(&self, content: &ContentId) -> bool {
        self.withheld.contains(content)
    }

    /// A transfer looks for a source again. If it was withheld, which this says, its patience with sources begins anew:
    /// it did not wait for them.
    pub(super) fn release(
        &mut self,
        content: ContentId,
        transfer: &mut Transfer,
        (now, retry): (Instant, Duration),
    ) -> bool {
        let withheld = self.withheld.remove(&content);
        if withheld {
            transfer.last_progress = now;
            transfer.rounds = 0;
        }
        // Not at each word of somebody, or peers that have nothing would be asked as fast as they can say so.
        if withheld && now.since(transfer.released_at) >= retry {
            transfer.released_at = now;
            transfer.failures.retain(|_, error| !is_transient(error));
        }
        withheld
    }
}

impl Engine {
    pub(super) fn on_clock(&mut self, minute_of_week: u16) {
        if minute_of_week < MINUTES_PER_WEEK {
            self.budget.clock = Some((self.now, minute_of_week));
        }
    }

    /// A want of a transfer has this urgency. Says whether the transfer need not be withheld any more.
    pub(super) fn ranked(&mut self, content: ContentId, want: WantId, urgency: Urgency) -> bool {
        match urgency {
            Urgency::Background => {
                self.budget.background.insert(want);
                false
            }
            Urgency::Runtime => self.budget.withholds(&content),
        }
    }

    /// Whether somebody waits for a blob.
    pub(super) fn urgency(&self, content: &ContentId) -> Urgency {
        self.transfers.open.get(content).map_or(Urgency::Background, |transfer| self.budget.of(transfer))
    }

    fn verdict(&self, urgency: Urgency) -> Verdict {
        let asking =
            |transfer: &&Transfer| transfer.origin_fetch().is_some() && self.budget.of(transfer) == Urgency::Runtime;
        let asking = self.transfers.open.values().filter(asking).count();
        let lately = self.budget.runtime_until.is_some_and(|until| until > self.now);
        self.config.uplink.verdict(urgency, self.budget.minute_of_week(self.now), asking.max(usize::from(lately)))
    }

    /// Whether the budget lets a transfer ask an origin.
    pub(super) fn may_ask_origin(&self, content: &ContentId) -> bool {
        matches!(self.verdict(self.urgency(content)), Verdict::Allowed(_))
    }

    /// What a transfer that is withheld waits for.
    pub(super) fn waits_for(&self, content: &ContentId) -> Option<Wait> {
        if !self.budget.withholds(content) {
            return None;
        }
        match self.verdict(Urgency::Background) {
            Verdict::Wait(wait) => Some(wait),
            Verdict::Allowed(_) => None,
        }
    }

    /// Holds a transfer back if it has an origin to ask and may not ask it.
    pub(super) fn withhold(&mut self, content: ContentId, preferred: Option<&Source>) -> Option<Choice> {
        self.origin_source(content, preferred)?;
        if self.may_ask_origin(&content) {
            return None;
        }
        // Turns that others took meanwhile say nothing of whose it is afterwards.
        self.transfers.open.get_mut(&content)?.election = None;
        self.budget.withheld.insert(content);
        self.let_go(content);
        if self.site.candidate(&content, &self.node, self.now).is_some() {
            // The others still count on it.
            self.tell(content);
        }
        Some(Choice::Withheld)
    }

    /// A transfer that was withheld has something to do: the others hear it, and soon again.
    pub(super) fn resume(&mut self, content: ContentId, choice: &Choice) {
        let told = self.transfers.open.get(&content).is_none_or(|transfer| transfer.told_at == Some(self.now));
        if !told && matches!(choice, Choice::Start(_) | Choice::Wait(_)) {
            self.tell(content);
        }
    }

    /// This node's claim is over, and the others hear it.
    fn let_go(&mut self, content: ContentId) {
        if self.site.claim_of(&content, &self.node, self.now).is_some() {
            self.site.released(&content, &self.node);
            self.tell(content);
        }
    }

    /// Breaks off what asks an origin.
    fn leave_uplink(&mut self, content: ContentId) {
        let asked = self.transfers.open.get(&content).and_then(Transfer::origin_fetch).map(|(fetch, _)| fetch);
        if let Some(fetch) = asked {
            self.cancel_one(fetch);
        }
        self.cancel_rebuild(content);
    }

    /// Breaks off what is not allowed any more, lets go on what is, and names the time for the next look. Called after
    /// every event, since nearly each may begin or end a runtime's fetch.
    pub(super) fn keep_budget(&mut self) {
        let asking =
            |transfer: &Transfer| transfer.origin_fetch().is_some() && self.budget.of(transfer) == Urgency::Runtime;
        let asks = self.transfers.open.values().any(asking);
        if std::mem::replace(&mut self.budget.runtime_asks, asks) || asks {
            self.budget.runtime_until = Some(self.now + self.config.runtime_pause);
        }
        let wants = &self.transfers.wants;
        self.budget.background.retain(|want| wants.contains_key(want));
        let open = &self.transfers.open;
        self.budget.withheld.retain(|content| open.contains_key(content));
        self.share_uplink();
        if self.budget.background.is_empty() {
            return self.timers.stop(Timer::Budget);
        }
        let verdict = self.verdict(Urgency::Background);
        let background =
            self.transfers.open.iter().filter(|(_, transfer)| self.budget.of(transfer) == Urgency::Background);
        // A patch that is awaited may come from an origin, too.
        let asks = |transfer: &Transfer| transfer.origin_fetch().is_some() || transfer.awaits_patch();
        let background: BTreeMap<_, _> = background.map(|(content, of)| (*content, asks(of))).collect();
        for (content, asks) in background {
            match (verdict, asks) {
                (Verdict::Wait(_), true) => {
                    self.leave_uplink(content);
                    self.tell(content);
                    self.advance(content, None);
                }
                (Verdict::Allowed(_), _) if self.budget.withholds(&content) => self.advance(content, None),
                _ => {}
            }
        }
        self.plan_budget(verdict);
    }

    fn plan_budget(&mut self, verdict: Verdict) {
        let (Verdict::Allowed(minutes) | Verdict::Wait(Wait { minutes, .. })) = verdict;
        let turn = minutes.and_then(|minutes| self.budget.after(minutes, self.now));
        let paused = self.budget.runtime_until.filter(|until| *until > self.now);
        match turn.into_iter().chain(paused).min() {
            Some(at) if self.timers.at(Timer::Budget) == Some(at) => {}
            Some(at) => self.timers.set(Timer::Budget, self.now, at.since(self.now)),
            None => self.timers.stop(Timer::Budget),
        }
    }

    /// Says how fast this node may take from origins, if that is another rate than before.
    fn share_uplink(&mut self) {
        if self.config.uplink.site_bytes_per_s.is_none() {
            return;
        }
        let fetching = self.site.fetching(self.now);
        let share = self.config.uplink.share(fetching);
        if let Some(bytes_per_s) = share.filter(|_| share != self.budget.share) {
            self.budget.share = share;
            self.act(Action::PaceUplink { bytes_per_s });
        }
    }
}
