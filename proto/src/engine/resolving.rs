//! What does a tag stand for: the origin first, and what the site knows when it does not answer.
//!
//! Invariants: a question that was taken up is answered once and within
//! [`super::config::Config::resolve_timeout_unknown`]. `NotFound` and `Unauthorized` are the origin's answers and
//! final: what the site knows does not paper over a deleted tag or a revoked credential. Only an origin that
//! does not answer is stood in for.

use std::collections::BTreeMap;

use super::{
    Engine,
    event::{Action, LookupId, OriginTag, Provenance, Resolution, ResolveId, SignedBinding, SourceError, WantError},
    timers::Timer,
};
use crate::{TagRef, wire::Binding};

/// A question to an origin that is open.
#[derive(Debug)]
pub(super) struct Lookup {
    reference: TagRef,
    /// Who waits; nobody if it is a probe, or if all were answered from memory.
    resolves: Vec<ResolveId>,
}

/// Questions to origins.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    pub(super) open: BTreeMap<LookupId, Lookup>,
    by_tag: BTreeMap<TagRef, LookupId>,
    next: u64,
}

impl Lookups {
    /// Resolves that wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.open.values().map(|lookup| lookup.resolves.len()).sum()
    }

    fn remove(&mut self, lookup: LookupId) -> Option<Lookup> {
        let removed = self.open.remove(&lookup)?;
        self.by_tag.remove(&removed.reference);
        Some(removed)
    }
}

impl Engine {
    pub(super) fn on_resolve(&mut self, resolve: ResolveId, reference: TagRef) {
        let registry = reference.repository().registry().to_owned();
        let known = self.bindings.knows(&reference);
        if known && self.origins.is_down(&registry, self.now) {
            self.resolved(vec![resolve], self.recall(&reference, &SourceError::Unreachable(String::new())));
            if self.origins.take_probe(&registry, self.now, self.config.origin_down_for) {
                self.look_up(reference, None);
            }
            return;
        }
        if self.lookups.waiting() >= self.config.limits.resolves || !self.look_up(reference, Some(resolve)) {
            self.act(Action::Resolved { resolve, result: Err(WantError::Busy) });
        }
    }

    /// Asks an origin, or joins the question that is open. `false` if too many are open.
    fn look_up(&mut self, reference: TagRef, resolve: Option<ResolveId>) -> bool {
        let open = self.lookups.by_tag.get(&reference).copied();
        if open.is_none() && self.lookups.open.len() >= self.config.limits.lookups {
            return false;
        }
        let lookup = open.unwrap_or(LookupId(self.lookups.next));
        if open.is_none() {
            self.lookups.next += 1;
            self.lookups.by_tag.insert(reference.clone(), lookup);
            self.lookups.open.insert(lookup, Lookup { reference: reference.clone(), resolves: Vec::new() });
            self.timers.set(Timer::LookupTimeout(lookup), self.now, self.config.resolve_timeout_unknown);
            self.act(Action::AskOrigin { lookup, reference: reference.clone() });
        }
        if let (Some(resolve), Some(joined)) = (resolve, self.lookups.open.get_mut(&lookup)) {
            joined.resolves.push(resolve);
            if self.bindings.knows(&reference) && !self.timers.is_set(Timer::AnswerFromMemory(lookup)) {
                self.timers.set(Timer::AnswerFromMemory(lookup), self.now, self.config.resolve_timeout_known);
            }
        }
        true
    }

    pub(super) fn on_origin_answered(&mut self, lookup: LookupId, result: Result<OriginTag, SourceError>) {
        let Some(open) = self.close_lookup(lookup) else { return };
        let registry = open.reference.repository().registry().to_owned();
        let answer = match result {
            Ok(OriginTag { content, now_unix_s }) => {
                self.origin_answered(&registry);
                self.observe(Binding { reference: open.reference, content, observed_unix_s: now_unix_s });
                Ok(Resolution { content, provenance: Provenance::Origin })
            }
            Err(error) => {
                self.origin_failed(&registry, &error);
                match error {
                    SourceError::NotFound => Err(WantError::NotFound),
                    SourceError::Unauthorized(what) => Err(WantError::Unauthorized(what)),
                    other => self.recall(&open.reference, &other),
                }
            }
        };
        self.resolved(open.resolves, answer);
    }

    /// The origin is slow and the site knows an answer. The question stays open, so that a late answer is kept.
    pub(super) fn answer_from_memory(&mut self, lookup: LookupId) {
        let Some(open) = self.lookups.open.get_mut(&lookup) else { return };
        let resolves = std::mem::take(&mut open.resolves);
        let reference = open.reference.clone();
        let error = SourceError::Unreachable("the origin is slow to answer".to_owned());
        self.origin_failed(reference.repository().registry(), &error);
        self.resolved(resolves, self.recall(&reference, &error));
    }

    pub(super) fn on_lookup_timeout(&mut self, lookup: LookupId) {
        let error = SourceError::Unreachable("the origin did not answer in time".to_owned());
        self.on_origin_answered(lookup, Err(error));
    }

    fn close_lookup(&mut self, lookup: LookupId) -> Option<Lookup> {
        self.timers.stop(Timer::LookupTimeout(lookup));
        self.timers.stop(Timer::AnswerFromMemory(lookup));
        self.lookups.remove(lookup)
    }

    fn recall(&self, reference: &TagRef, error: &SourceError) -> Result<Resolution, WantError> {
        let newest = self.bindings.newest(reference, self.now, self.config.clock_error_max);
        newest.ok_or_else(|| WantError::Unavailable(error.to_string()))
    }

    fn resolved(&mut self, resolves: Vec<ResolveId>, result: Result<Resolution, WantError>) {
        for resolve in resolves {
            self.act(Action::Resolved { resolve, result: result.clone() });
        }
    }

    /// The origin said what a tag stands for: keeps it, and tells peers unless they know it well enough.
    fn observe(&mut self, binding: Binding) {
        self.act(Action::Remember(binding.clone()));
        self.on_binding_known(binding);
    }

    /// Signed releases say what tags stand for.
    pub(super) fn on_signed(&mut self, signed: Vec<SignedBinding>) {
        if !self.bindings.sign(signed, &self.config.limits) {
            self.limit_reached("bindings_signed");
        }
    }

    /// This node's store, or the origin, says what a tag stands for.
    pub(super) fn on_binding_known(&mut self, binding: Binding) {
        if !self.bindings.observe(&binding, self.now, &self.config.limits) {
            return self.limit_reached("bindings");
        }
        let interval = self.config.binding_announce_interval.as_secs();
        let told = self.inventory.bound(&binding.reference).is_some_and(|told| {
            let age = binding.observed_unix_s.saturating_sub(told.observed_unix_s);
            told.content == binding.content && age < interval
        });
        if told {
            return;
        }
        if !self.inventory.bind(binding) {
            return self.limit_reached("inventory");
        }
        self.schedule_announcement();
    }
}
