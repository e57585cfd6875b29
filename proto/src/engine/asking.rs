//! Who of a site asks an origin what a tag stands for.
//!
//! Of the nodes that a node is connected with, itself included, the first in the order that rendezvous hashing over the tag
//! gives is the tag's *keeper*. Whoever wants to know asks it, by the control stream, which loses nothing. The keeper tells what
//! it heard a moment ago; else it lets the first who asks, itself before others, ask the origin, holds the rest, and passes on
//! what it hears. So credentials and uplink are always those of a node whose own device wants to know, and a site whose nodes
//! are connected with each other asks once. A keeper that has one itself asks that first, so on a large site questions run together
//! along chains that cannot be circles: each goes to a node further to the front.
//!
//! Invariants: a node whose keeper does not answer in time asks the next, and itself in the end: keepers save requests, they
//! never cost an answer. Everybody who was held is told something within [`super::tags::Keeping::hold`], so a keeper that
//! is lost is noticed. Whoever may ask and says nothing is passed over after [`super::tags::Keeping::lease`].

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Engine,
    bindings::Fact,
    event::{Action, Basis, CallId, Instant, LookupId, RequestId, Resolution, ResolveId, SourceError, WantError},
    peers::Peer,
    site::hashed,
    timers::Timer,
};
use crate::{
    NodeId, TagRef,
    wire::{ControlRequest, ControlResponse, TagWord},
};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody yet.
    New,
    /// The tag's keeper.
    Keeper(NodeId, RequestId),
    /// This peer may ask the origin.
    Granted(NodeId),
    /// The origin, by this node.
    Origin,
}

/// Who wants to know.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    /// Somebody on this device.
    Here(ResolveId),
    /// A peer.
    There(CallId, NodeId),
    /// The engine, to learn whether the origin is back.
    Probe,
}

/// A tag that somebody wants to know about.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) reference: TagRef,
    pub(super) resolves: Vec<ResolveId>,
    calls: Vec<(CallId, NodeId)>,
    pub(super) stage: Stage,
    /// Keepers that did not answer.
    tried: BTreeSet<NodeId>,
    /// The keeper that lets this node ask and waits for what it hears.
    granted_by: Option<NodeId>,
    /// It took so long that somebody was answered from memory.
    pub(super) slow: bool,
}

/// Questions that are open.
#[derive(Debug, Default)]
pub(super) struct Questions {
    pub(super) open: BTreeMap<LookupId, Question>,
    by_tag: BTreeMap<TagRef, LookupId>,
    by_request: BTreeMap<RequestId, LookupId>,
    /// Peers that did not answer, and until when they are no keepers.
    mute: BTreeMap<NodeId, Instant>,
    next: u64,
}

impl Questions {
    /// Resolves that wait for an answer.
    pub(super) fn resolves(&self) -> usize {
        self.open.values().map(|question| question.resolves.len()).sum()
    }

    /// Peers' questions that are held.
    pub(super) fn calls(&self) -> usize {
        self.open.values().map(|question| question.calls.len()).sum()
    }

    /// The open question about a tag.
    pub(super) fn lookup(&self, reference: &TagRef) -> Option<LookupId> {
        self.by_tag.get(reference).copied()
    }

    /// Whether the open question about a tag takes too long.
    pub(super) fn is_slow(&self, reference: &TagRef) -> bool {
        self.lookup(reference).and_then(|lookup| self.open.get(&lookup)).is_some_and(|question| question.slow)
    }
}

/// A node's weight for a tag; the highest comes first.
fn weight(reference: &TagRef, node: &NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let repository = reference.repository();
    for part in [repository.registry(), repository.name(), reference.tag()] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    hasher.update(node.public_key());
    hashed(&hasher)
}

impl Engine {
    /// Opens a question, or joins the one that is open. `None` if too many are open.
    pub(super) fn question(&mut self, reference: &TagRef, asked: Asked) -> Option<LookupId> {
        let lookup = match self.questions.lookup(reference) {
            Some(lookup) => lookup,
            None if self.questions.open.len() >= self.config.limits.lookups => return None,
            None => self.open_question(reference),
        };
        let question = self.questions.open.get_mut(&lookup)?;
        match asked {
            Asked::Here(resolve) => question.resolves.push(resolve),
            Asked::There(call, peer) => {
                question.calls.push((call, peer));
                if !self.timers.is_set(Timer::TagHold(lookup)) {
                    self.timers.set(Timer::TagHold(lookup), self.now, self.config.keeping.hold);
                }
            }
            Asked::Probe => {}
        }
        Some(lookup)
    }

    fn open_question(&mut self, reference: &TagRef) -> LookupId {
        let lookup = LookupId(self.questions.next);
        self.questions.next += 1;
        self.questions.by_tag.insert(reference.clone(), lookup);
        let question = Question {
            reference: reference.clone(),
            resolves: Vec::new(),
            calls: Vec::new(),
            stage: Stage::New,
            tried: BTreeSet::new(),
            granted_by: None,
            slow: false,
        };
        self.questions.open.insert(lookup, question);
        self.timers.set(Timer::LookupTimeout(lookup), self.now, self.config.resolve_timeout_unknown);
        lookup
    }

    fn close_question(&mut self, lookup: LookupId) -> Option<Question> {
        for timer in [Timer::LookupTimeout, Timer::AnswerFromMemory, Timer::TagHold, Timer::TagPatience] {
            self.timers.stop(timer(lookup));
        }
        let question = self.questions.open.remove(&lookup)?;
        self.questions.by_tag.remove(&question.reference);
        if let Stage::Keeper(_, request) = question.stage {
            self.questions.by_request.remove(&request);
        }
        Some(question)
    }

    /// Whether the origin is being asked by this node.
    pub(super) fn is_asking(&self, lookup: LookupId) -> bool {
        self.questions.open.get(&lookup).is_some_and(|question| question.stage == Stage::Origin)
    }

    /// Takes a question that nobody pursues to its next step.
    pub(super) fn pursue(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get(&lookup) else { return };
        if question.stage != Stage::New {
            return;
        }
        match self.keeper(&question.reference, &question.tried) {
            Some(keeper) => self.ask_keeper(lookup, keeper),
            None => self.grant(lookup),
        }
    }

    /// The first in order of the connected peers, if it comes before this node.
    fn keeper(&self, reference: &TagRef, tried: &BTreeSet<NodeId>) -> Option<NodeId> {
        if self.tag_rule(reference).fresh_for.is_zero() {
            return None;
        }
        self.first_keeper(|node| weight(reference, node), |peer, state| state.hello.is_some() && !tried.contains(peer))
    }

    /// The first by weight of the peers that can be keepers and fit. `None` if this node comes before all of them.
    pub(super) fn first_keeper(
        &self,
        weight: impl Fn(&NodeId) -> u64,
        fits: impl Fn(&NodeId, &Peer) -> bool,
    ) -> Option<NodeId> {
        let can = |peer: &NodeId| !self.is_mute(peer) && self.trusts(peer);
        let peers = self.peers.iter().filter(|(peer, state)| can(peer) && fits(peer, state));
        let first = peers.map(|(peer, _)| (weight(peer), *peer)).max()?;
        (first.0 > weight(&self.node)).then_some(first.1)
    }

    fn ask_keeper(&mut self, lookup: LookupId, keeper: NodeId) {
        let request = self.peers.next_request();
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        question.stage = Stage::Keeper(keeper, request);
        let body = ControlRequest::Tag { reference: question.reference.clone() };
        self.questions.by_request.insert(request, lookup);
        self.timers.set(Timer::TagPatience(lookup), self.now, self.config.keeping.patience);
        self.act(Action::Request { request, peer: keeper, body });
    }

    /// Whoever is first may ask the origin: this device, then peers.
    fn grant(&mut self, lookup: LookupId) {
        self.timers.stop(Timer::TagPatience(lookup));
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        if question.resolves.is_empty() && !question.calls.is_empty() {
            let (call, peer) = question.calls.remove(0);
            question.stage = Stage::Granted(peer);
            self.timers.set(Timer::TagPatience(lookup), self.now, self.config.keeping.lease);
            return self.answer_call(call, TagWord::Ask);
        }
        if question.resolves.is_empty() && question.granted_by.is_none() {
            self.close_question(lookup);
            return;
        }
        self.ask_itself(lookup);
    }

    /// Asks the origin.
    pub(super) fn ask_itself(&mut self, lookup: LookupId) {
        self.timers.stop(Timer::TagPatience(lookup));
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        if let Stage::Keeper(_, request) = std::mem::replace(&mut question.stage, Stage::Origin) {
            self.questions.by_request.remove(&request);
        }
        let reference = question.reference.clone();
        self.act(Action::AskOrigin { lookup, reference });
    }

    fn answer_call(&mut self, call: CallId, word: TagWord) {
        self.act(Action::Respond { call, response: ControlResponse::Tag(word) });
    }

    /// A peer asks this node as a tag's keeper.
    pub(super) fn on_tag_asked(&mut self, call: CallId, from: NodeId, reference: &TagRef) {
        if let Some(fresh) = self.fresh(reference) {
            let word = TagWord::Bound(fresh.binding(reference, self.now));
            return self.answer_call(call, word);
        }
        let shared = !self.tag_rule(reference).fresh_for.is_zero() && self.peers.is_connected(&from);
        if !shared || self.questions.calls() >= self.config.limits.tag_calls {
            return self.answer_call(call, TagWord::Ask);
        }
        // Who may ask and comes back did not hear that it may, or was told so in another life.
        let granted = |question: &Question| question.stage == Stage::Granted(from);
        let lookup = self.questions.lookup(reference);
        if lookup.and_then(|lookup| self.questions.open.get(&lookup)).is_some_and(granted) {
            return self.answer_call(call, TagWord::Ask);
        }
        match self.question(reference, Asked::There(call, from)) {
            Some(lookup) => self.pursue(lookup),
            None => self.answer_call(call, TagWord::Ask),
        }
    }

    /// Whether a peer is no keeper for now.
    pub(super) fn is_mute(&self, peer: &NodeId) -> bool {
        self.questions.mute.get(peer).is_some_and(|until| *until > self.now)
    }

    /// A peer did not answer as a keeper: it is none for a while.
    pub(super) fn pass_over(&mut self, keeper: NodeId) {
        let now = self.now;
        self.questions.mute.retain(|_, until| *until > now);
        if self.questions.mute.len() < self.config.limits.peers {
            self.questions.mute.insert(keeper, now + self.config.keeping.mute);
        }
    }

    /// Those who are held are told that there is nothing yet.
    pub(super) fn on_tag_hold(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        for (call, _) in std::mem::take(&mut question.calls) {
            self.answer_call(call, TagWord::Wait);
        }
    }

    /// A keeper did not answer, or whoever may ask did not say what it heard.
    pub(super) fn on_tag_patience(&mut self, lookup: LookupId) {
        match self.questions.open.get(&lookup).map(|question| question.stage) {
            Some(Stage::Keeper(keeper, _)) => {
                self.pass_over(keeper);
                self.keeper_failed(lookup, keeper);
            }
            Some(Stage::Granted(_)) => self.grant(lookup),
            _ => {}
        }
    }

    fn keeper_failed(&mut self, lookup: LookupId, keeper: NodeId) {
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        question.tried.insert(keeper);
        self.without_keeper(lookup);
        self.pursue(lookup);
    }

    fn without_keeper(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        if let Stage::Keeper(_, request) = std::mem::replace(&mut question.stage, Stage::New) {
            self.questions.by_request.remove(&request);
        }
        self.timers.stop(Timer::TagPatience(lookup));
    }

    /// A request was answered, or failed (`None`). Returns whether it was one about a tag.
    pub(super) fn on_tag_answered(&mut self, request: RequestId, response: Option<&ControlResponse>) -> bool {
        let Some(lookup) = self.questions.by_request.remove(&request) else { return false };
        let Some(Stage::Keeper(keeper, _)) = self.questions.open.get(&lookup).map(|question| question.stage) else {
            return true;
        };
        match response {
            Some(ControlResponse::Tag(word)) => {
                self.questions.mute.remove(&keeper);
                self.on_keeper_said(lookup, keeper, word.clone());
            }
            _ => self.keeper_failed(lookup, keeper),
        }
        true
    }

    fn on_keeper_said(&mut self, lookup: LookupId, keeper: NodeId, word: TagWord) {
        match word {
            TagWord::Wait => self.ask_keeper(lookup, keeper),
            TagWord::Ask => {
                if let Some(question) = self.questions.open.get_mut(&lookup) {
                    question.granted_by = Some(keeper);
                }
                self.grant(lookup);
            }
            TagWord::Bound(binding) => {
                self.without_keeper(lookup);
                self.heard_binding(keeper, binding);
                // This node may be told to be less easily content.
                self.pursue_alone(lookup);
            }
            TagWord::Away => {
                self.without_keeper(lookup);
                let Some(question) = self.questions.open.get(&lookup) else { return };
                let reference = question.reference.clone();
                if self.bindings.knows(&reference) {
                    self.origin_away(&reference);
                    self.plan_probes();
                    let error = SourceError::Unreachable("the origin does not answer this site".to_owned());
                    let answer = self.recall(&reference, &error);
                    self.settle(lookup, answer, &TagWord::Away);
                } else {
                    self.pursue_alone(lookup);
                }
            }
        }
    }

    fn pursue_alone(&mut self, lookup: LookupId) {
        if self.questions.open.get(&lookup).is_some_and(|question| question.stage == Stage::New) {
            self.grant(lookup);
        }
    }

    /// A peer that may ask the origin says what it heard.
    pub(super) fn on_tag_said(&mut self, from: NodeId, reference: &TagRef, word: TagWord) {
        let lookup = self.questions.lookup(reference);
        let stage = lookup.and_then(|lookup| self.questions.open.get(&lookup)).map(|question| question.stage);
        let granted = lookup.filter(|_| stage == Some(Stage::Granted(from)));
        match (word, granted) {
            (TagWord::Bound(binding), granted) if binding.reference == *reference => {
                // Answers whoever waits, too.
                self.heard_binding(from, binding);
                if let Some(lookup) = granted {
                    // Unless it was no news: then the next may ask.
                    self.regrant(lookup, from);
                }
            }
            (TagWord::Away, Some(lookup)) => {
                let error = SourceError::Unreachable("the origin does not answer this site".to_owned());
                let here = self.questions.open.get(&lookup).is_some_and(|question| !question.resolves.is_empty());
                if here && !self.bindings.knows(reference) {
                    // What is said there ends no question here.
                    return self.grant(lookup);
                }
                let answer = self.recall(reference, &error);
                self.settle(lookup, answer, &TagWord::Away);
            }
            (TagWord::Ask, Some(lookup)) => self.release(lookup),
            _ => {}
        }
    }

    fn regrant(&mut self, lookup: LookupId, from: NodeId) {
        if self.questions.open.get(&lookup).is_some_and(|question| question.stage == Stage::Granted(from)) {
            self.grant(lookup);
        }
    }

    /// What the origin said to one it need not say to others: all may ask.
    fn release(&mut self, lookup: LookupId) {
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        for (call, _) in std::mem::take(&mut question.calls) {
            self.answer_call(call, TagWord::Ask);
        }
        self.grant(lookup);
    }

    /// Somebody heard from the origin just now: that answers everybody who waits. What this node asks the origin itself is
    /// heard all the same.
    pub(super) fn satisfy(&mut self, lookup: LookupId, fresh: &Fact) {
        let Some(question) = self.questions.open.get(&lookup) else { return };
        let resolution = self.bindings.resolution(fresh, self.now, Basis::Fresh);
        let word = TagWord::Bound(fresh.binding(&question.reference, self.now));
        if question.stage != Stage::Origin {
            return self.settle(lookup, Ok(resolution), &word);
        }
        let Some(question) = self.questions.open.get_mut(&lookup) else { return };
        let (resolves, calls) = (std::mem::take(&mut question.resolves), std::mem::take(&mut question.calls));
        let reference = question.reference.clone();
        for (call, _) in calls {
            self.answer_call(call, word.clone());
        }
        self.resolved(&reference, resolves, Ok(resolution));
    }

    /// A question is over: answers everybody who waits.
    pub(super) fn settle(&mut self, lookup: LookupId, answer: Result<Resolution, WantError>, word: &TagWord) {
        let Some(question) = self.close_question(lookup) else { return };
        for (call, _) in question.calls {
            self.answer_call(call, word.clone());
        }
        if let Some(keeper) = question.granted_by.filter(|keeper| self.peers.is_connected(keeper)) {
            let request = self.peers.next_request();
            let body = ControlRequest::TagSaid { reference: question.reference.clone(), word: word.clone() };
            self.act(Action::Request { request, peer: keeper, body });
        }
        self.resolved(&question.reference, question.resolves, answer);
    }

    /// A peer left: nobody waits for its answer, and it waits for none.
    pub(super) fn tags_without(&mut self, peer: &NodeId) {
        for question in self.questions.open.values_mut() {
            question.calls.retain(|(_, caller)| caller != peer);
            question.granted_by = question.granted_by.filter(|keeper| keeper != peer);
        }
        let stages = self.questions.open.iter().map(|(lookup, question)| (*lookup, question.stage));
        for (lookup, stage) in stages.collect::<Vec<_>>() {
            match stage {
                Stage::Keeper(keeper, _) if keeper == *peer => self.keeper_failed(lookup, keeper),
                Stage::Granted(granted) if granted == *peer => self.grant(lookup),
                _ => {}
            }
        }
        self.questions.mute.remove(peer);
    }
}
