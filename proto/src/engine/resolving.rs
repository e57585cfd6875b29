//! What does a tag stand for: what the site heard a moment ago, else the origin, and what the site knows when that does not
//! answer.
//!
//! Invariants: a question that was taken up is answered once, within [`super::config::Config::resolve_timeout_known`] if the
//! site knows an answer, at once while the origin is known to be away, and else within
//! [`super::config::Config::resolve_timeout_unknown`]. `NotFound` and `Unauthorized` are the origin's answers and final: what
//! the site knows does not paper over a deleted tag or a revoked credential. Only an origin that does not answer is stood in
//! for, unless the registry's rule says otherwise. How a site comes to ask an origin once is decided in `asking.rs`.

use super::{
    Engine,
    asking::{Asked, Stage},
    bindings::{BindingView, Fact},
    event::{
        Action, Basis, LookupId, Note, OriginTag, Provenance, Resolution, ResolveId, SignedBinding, SourceError,
        WantError,
    },
    tags::{TagPolicy, TagRule},
    timers::Timer,
};
use crate::{
    TagRef,
    wire::{Binding, Change, Entry, TagWord},
};

impl Engine {
    pub(super) fn on_resolve(&mut self, resolve: ResolveId, reference: TagRef, now_unix_s: u64) {
        self.bindings.tell_time(now_unix_s, self.now);
        let rule = self.tag_rule(&reference);
        if let Some(result) = self.answer_at_once(&reference, rule) {
            return self.resolved(&reference, vec![resolve], result);
        }
        if self.questions.resolves() >= self.config.limits.resolves {
            return self.act(Action::Resolved { resolve, result: Err(WantError::Busy) });
        }
        let Some(lookup) = self.question(&reference, Asked::Here(resolve)) else {
            return self.act(Action::Resolved { resolve, result: Err(WantError::Busy) });
        };
        self.limit_patience(lookup);
        self.pursue(lookup);
    }

    pub(super) fn tag_rule(&self, reference: &TagRef) -> TagRule {
        self.config.tags.of(reference.repository().registry())
    }

    /// An answer for which nobody needs to be asked.
    fn answer_at_once(&mut self, reference: &TagRef, rule: TagRule) -> Option<Result<Resolution, WantError>> {
        if rule.policy == TagPolicy::SignedOnly {
            return Some(self.bindings.signed(reference).ok_or(WantError::NotSigned));
        }
        if let Some(fresh) = self.bindings.fresh(reference, self.now, rule.fresh_for) {
            return Some(Ok(self.bindings.resolution(&fresh, self.now, Basis::Fresh)));
        }
        let newest = self.newest(reference)?;
        if let TagPolicy::SiteFirst { age_max } = rule.policy
            && (newest.provenance == Provenance::Signed || newest.age.is_some_and(|age| age < age_max))
        {
            return Some(Ok(Resolution { basis: Basis::Policy, ..newest }));
        }
        let slow = self.questions.is_slow(reference);
        if slow || self.origins.is_down(reference.repository().registry(), self.now) {
            self.origins.missed(reference, self.now);
            return Some(Ok(newest));
        }
        None
    }

    /// Nobody waits for long for what the site can say, too, or for an origin that is known to be away.
    fn limit_patience(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get(&lookup) else { return };
        let patience = if self.bindings.knows(&question.reference) {
            self.config.resolve_timeout_known
        } else if self.origins.is_silent(question.reference.repository().registry(), self.now) {
            self.config.origin_patience_away
        } else {
            return;
        };
        let due = self.timers.at(Timer::AnswerFromMemory(lookup));
        if !question.resolves.is_empty() && due.is_none_or(|due| due > self.now + patience) {
            self.timers.set(Timer::AnswerFromMemory(lookup), self.now, patience);
        }
    }

    pub(super) fn on_origin_answered(&mut self, lookup: LookupId, result: Result<OriginTag, SourceError>) {
        let Some(question) = self.questions.open.get(&lookup) else { return };
        if !matches!(question.stage, Stage::Origin) {
            return;
        }
        let reference = question.reference.clone();
        match result {
            Ok(OriginTag { content, now_unix_s }) => {
                self.origin_answered(reference.repository().registry());
                let binding = Binding { reference, content, observed_unix_s: now_unix_s, age_ms: None, by: None };
                let word = TagWord::Bound(Binding { age_ms: Some(0), ..binding.clone() });
                self.observe(binding);
                let (basis, age) = (Basis::Asked, Some(std::time::Duration::ZERO));
                let resolution = Resolution { content, provenance: Provenance::Origin, basis, age };
                self.settle(lookup, Ok(resolution), &word);
            }
            Err(error) => {
                self.tag_failed(&reference, &error);
                let (answer, word) = match error {
                    SourceError::NotFound => (Err(WantError::NotFound), TagWord::Ask),
                    SourceError::Unauthorized(what) => (Err(WantError::Unauthorized(what)), TagWord::Ask),
                    other => (self.recall(&reference, &other), TagWord::Away),
                };
                self.settle(lookup, answer, &word);
            }
        }
    }

    /// An origin did not say what a tag stands for.
    fn tag_failed(&mut self, reference: &TagRef, error: &SourceError) {
        if let SourceError::Unreachable(_) | SourceError::Unavailable(_) = error {
            self.origin_away(reference);
        } else {
            self.origin_failed(reference.repository().registry(), error);
        }
        self.plan_probes();
    }

    /// An origin counts as away from now on.
    pub(super) fn origin_away(&mut self, reference: &TagRef) {
        if self.origins.away(reference, self.now, self.config.probing(), self.config.limits.origins) {
            let registry = reference.repository().registry().to_owned();
            self.act(Action::Note(Note::OriginReachability { registry, reachable: false }));
        }
    }

    /// It takes too long and the site knows an answer. The question stays open, so that a late answer is kept.
    pub(super) fn answer_from_memory(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        question.slow = true;
        let resolves = std::mem::take(&mut question.resolves);
        let reference = question.reference.clone();
        let error = SourceError::Unreachable("the origin is slow to answer".to_owned());
        self.tag_failed(&reference, &error);
        let answer = self.recall(&reference, &error);
        self.resolved(&reference, resolves, answer);
    }

    pub(super) fn on_lookup_timeout(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get(&lookup) else { return };
        let reference = question.reference.clone();
        let error = SourceError::Unreachable("the origin did not answer in time".to_owned());
        // That it did not answer others is theirs to find out.
        if question.stage == Stage::Origin || !question.resolves.is_empty() {
            self.tag_failed(&reference, &error);
        }
        let answer = self.recall(&reference, &error);
        self.settle(lookup, answer, &TagWord::Away);
    }

    /// Asks origins that are away whether they are back.
    pub(super) fn probe(&mut self) {
        for reference in self.origins.take_probes(self.now, self.config.probing()) {
            // What is open already tells as well.
            if self.questions.lookup(&reference).is_some_and(|lookup| self.is_asking(lookup)) {
                continue;
            }
            match self.question(&reference, Asked::Probe) {
                Some(lookup) => self.ask_itself(lookup),
                None => self.origin_away(&reference),
            }
        }
        self.plan_probes();
    }

    pub(super) fn plan_probes(&mut self) {
        match self.origins.next_probe() {
            Some(at) => self.timers.set(Timer::Probe, self.now, at.since(self.now)),
            None => self.timers.stop(Timer::Probe),
        }
    }

    /// The best answer without the origin.
    fn newest(&self, reference: &TagRef) -> Option<Resolution> {
        self.bindings.newest(reference, self.now, self.config.clock_error_max)
    }

    pub(super) fn recall(&self, reference: &TagRef, error: &SourceError) -> Result<Resolution, WantError> {
        self.newest(reference).ok_or_else(|| WantError::Unavailable(error.to_string()))
    }

    /// Answers those who asked here. What a peer told and was of use is kept, and told to others.
    pub(super) fn resolved(
        &mut self,
        reference: &TagRef,
        resolves: Vec<ResolveId>,
        result: Result<Resolution, WantError>,
    ) {
        if resolves.is_empty() {
            return;
        }
        if let Ok(Resolution { provenance: Provenance::Peer { .. }, .. }) = &result {
            self.adopt(reference);
        }
        for resolve in resolves {
            self.act(Action::Resolved { resolve, result: result.clone() });
        }
    }

    fn adopt(&mut self, reference: &TagRef) {
        let limits = &self.config.limits;
        match self.bindings.adopt(reference, self.now, self.config.clock_error_max, limits) {
            Ok(Some(fact)) => {
                let binding = fact.binding(reference, self.now);
                self.act(Action::Remember(binding.clone()));
                self.tell_binding(binding);
            }
            Ok(None) => {}
            Err(()) => self.limit_reached("bindings"),
        }
    }

    /// The origin said what a tag stands for: keeps it, and tells peers unless they know it well enough.
    fn observe(&mut self, binding: Binding) {
        self.act(Action::Remember(binding.clone()));
        if self.bindings.observe(&binding, self.now, &self.config.limits) {
            self.tell_binding(binding);
        } else {
            self.limit_reached("bindings");
        }
    }

    /// Signed releases say what tags stand for.
    pub(super) fn on_signed(&mut self, signed: Vec<SignedBinding>) {
        if !self.bindings.sign(signed, &self.config.limits) {
            self.limit_reached("bindings_signed");
        }
    }

    /// This node's store remembers what a tag stood for.
    pub(super) fn on_binding_known(&mut self, binding: Binding) {
        if self.bindings.restore(&binding, self.now, &self.config.limits) {
            self.tell_binding(binding);
        } else {
            self.limit_reached("bindings");
        }
    }

    fn tell_binding(&mut self, binding: Binding) {
        let interval = self.config.binding_announce_interval.as_secs();
        let told = self.inventory.bound(&binding.reference).is_some_and(|told| {
            let age = binding.observed_unix_s.saturating_sub(told.observed_unix_s);
            told.content == binding.content && (age < interval || binding.by.is_some())
        });
        if told {
            return;
        }
        if !self.inventory.bind(binding) {
            return self.limit_reached("inventory");
        }
        self.schedule_announcement();
    }

    /// Peers' bindings, as they come in any of their words. Returns whether a limit forbade to keep one.
    pub(super) fn heard_binding(&mut self, peer: crate::NodeId, binding: Binding) -> bool {
        let reference = binding.reference.clone();
        if !self.bindings.learn(peer, binding, self.now, &self.config.limits) {
            return false;
        }
        let Some(lookup) = self.questions.lookup(&reference) else { return true };
        if let Some(fresh) = self.fresh(&reference) {
            self.satisfy(lookup, &fresh);
        }
        self.limit_patience(lookup);
        true
    }

    /// What the origin told somebody on the site so lately that it need not be asked.
    pub(super) fn fresh(&self, reference: &TagRef) -> Option<Fact> {
        self.bindings.fresh(reference, self.now, self.tag_rule(reference).fresh_for)
    }

    /// Says how old bindings are now: they may have waited to be told.
    pub(super) fn date(&self, changes: &mut [Change]) {
        for change in changes {
            if let Entry::Bound(binding) = &mut change.entry
                && let Some(fact) = self.bindings.mine(&binding.reference)
                && fact.content == binding.content
            {
                *binding = fact.binding(&binding.reference, self.now);
            }
        }
    }

    /// What is known of every tag, in order.
    pub fn bindings(&self) -> Vec<BindingView> {
        self.bindings.views(self.now, self.config.clock_error_max, |reference| self.tag_rule(reference).fresh_for)
    }
}
