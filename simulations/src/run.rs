//! How time passes: the next thing that is planned or due happens, engines handle it, and the checks look on.
//!
//! Invariant: an event costs about as much as what it concerns, whatever there is besides.

use std::time::Duration;

use layermesh_proto::{
    NodeId, TagRef,
    engine::{
        Engine,
        event::{Action, CallId, Event, Instant, LookupId, OriginTag, RequestId, SourceError},
    },
    wire::ControlRequest,
};
use rand_chacha::rand_core::Rng as _;

use crate::{
    checks::{self, ACTIONS_PER_EVENT_MAX, CHECK_ALL_EVERY, Violation},
    flows::{broken, refused},
    limits,
    network::OriginMode,
    queue::{Gossip, Happening, Target},
    world::{NodeIndex, World},
};

const NANOS_PER_S: u64 = 1_000_000_000;

impl World {
    /// Lets time pass.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_until(time, |_| false).map(|_| ())
    }

    /// Lets time pass until every want at nodes that are up has ended, at most `limit`. Returns whether they have.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn run_until_ended(&mut self, limit: Duration) -> Result<bool, Violation> {
        self.run_until(limit, Self::all_ended)
    }

    /// Lets time pass until `done`, at most `limit`. Returns whether it was done. It is asked after every event, so it
    /// should not take long.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, Violation> {
        let end = self.now + limit;
        loop {
            if done(self) {
                return Ok(true);
            }
            if !self.step(end)? {
                self.now = end;
                return Ok(done(self));
            }
        }
    }

    /// Lets the next thing happen, unless that is after `end`.
    fn step(&mut self, end: Instant) -> Result<bool, Violation> {
        let tick = self.ticks.first().copied();
        let planned = self.queue.next();
        let at = tick.map(|(at, _)| at).into_iter().chain(planned).min();
        let Some(at) = at.filter(|at| *at <= end) else { return Ok(false) };
        self.now = self.now.max(at);
        match tick {
            Some((due, node)) if planned.is_none_or(|planned| due < planned) => self.handle(node, Event::Tick)?,
            _ => {
                if let Some((target, happening)) = self.queue.pop() {
                    self.happen(target, happening)?;
                }
            }
        }
        Ok(true)
    }

    /// Checks all pieces of all nodes; what an event concerns is checked after it.
    ///
    /// # Errors
    /// If a safety rule is broken.
    pub fn check_all(&self) -> Result<(), Violation> {
        for (node, state) in self.nodes.iter().enumerate() {
            checks::pieces(state).map_err(|what| self.violation(node, what))?;
        }
        Ok(())
    }

    pub(crate) fn violation(&self, node: NodeIndex, what: String) -> Violation {
        let recent = self.nodes[node].recent.iter().cloned().collect();
        Violation { seed: self.seed, at: self.now, node, what, recent }
    }

    fn explain(&mut self, node: NodeIndex, what: &dyn std::fmt::Debug) {
        if self.options.explains(self.nodes.len()) {
            let line = format!("{} {node} {what:?}", self.now.as_nanos());
            self.nodes[node].remember(line);
        }
    }

    /// Hands an event to a node's engine and does what it says.
    pub(crate) fn handle(&mut self, node: NodeIndex, event: Event) -> Result<(), Violation> {
        self.trace.event(self.now, node, &event);
        self.explain(node, &event);
        self.events += 1;
        if self.events > self.options.events_max(self.nodes.len()) {
            return Err(self.violation(node, "the run does not end".to_owned()));
        }
        let Some(engine) = &mut self.nodes[node].engine else {
            self.touched.clear();
            return Ok(());
        };
        engine.handle(self.now, event);
        for _ in 0..ACTIONS_PER_EVENT_MAX {
            let Some(action) = self.next_action(node) else {
                self.plan_tick(node);
                return self.check(node);
            };
            let said = self.options.sabotage.map(|_| action.clone());
            self.obey(node, action)?;
            if let Some(said) = said {
                self.forge(node, &said)?;
            }
        }
        Err(self.violation(node, "one event leads to too many actions".to_owned()))
    }

    fn next_action(&mut self, node: NodeIndex) -> Option<Action> {
        #[cfg(test)]
        if let Some(forged) = self.forged.pop() {
            return Some(forged);
        }
        self.nodes[node].engine.as_mut().and_then(Engine::poll_action)
    }

    /// Checks and does one thing that an engine says.
    pub(crate) fn obey(&mut self, node: NodeIndex, action: Action) -> Result<(), Violation> {
        self.trace.action(&action);
        self.explain(node, &action);
        let state = &self.nodes[node];
        let checked = checks::action(state, &action).and_then(|()| limits::action(state, &action, &self.rules));
        checked.map_err(|what| self.violation(node, what))?;
        self.perform(node, action).map_err(|what| self.violation(node, what))
    }

    fn plan_tick(&mut self, node: NodeIndex) {
        let state = &mut self.nodes[node];
        let due = state.engine.as_ref().and_then(Engine::next_deadline);
        if due == state.due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut state.due, due) {
            self.ticks.remove(&(before, node));
        }
        if let Some(due) = due {
            self.ticks.insert((due, node));
        }
    }

    fn check(&mut self, node: NodeIndex) -> Result<(), Violation> {
        let state = &mut self.nodes[node];
        let mut checked = checks::touched(state, &self.touched);
        self.touched.clear();
        state.until_check = state.until_check.saturating_sub(1);
        if state.until_check == 0 {
            let all = limits::all(state, &self.rules).and_then(|()| checks::pieces(state));
            if let Ok(pieces) = &all {
                state.until_check = CHECK_ALL_EVERY.max(*pieces);
            }
            checked = checked.and(all.map(|_| ()));
        }
        if self.rules.uplink.metered || self.has_windows() {
            checked = checked.and_then(|()| limits::budget(&self.nodes[node], &self.rules, self.minute_of(node)));
        }
        checked.map_err(|what| self.violation(node, what))
    }

    pub(crate) fn plan(&mut self, after: Duration, node: NodeIndex, happening: Happening) {
        let target = self.target(node);
        self.queue.plan(self.now + after, target, happening);
    }

    pub(crate) fn lan_time(&mut self) -> Duration {
        let drawn = self.random.next_u32();
        self.options.lan().takes(drawn)
    }

    fn is_there(&self, target: Target) -> bool {
        let node = &self.nodes[target.node];
        node.life == target.life && node.is_up()
    }

    fn happen(&mut self, target: Target, happening: Happening) -> Result<(), Violation> {
        let node = target.node;
        let happening = match happening {
            Happening::Gossip(gossip) => return self.hear(target, gossip),
            other => other,
        };
        let spoken = matches!(happening, Happening::Question { .. } | Happening::Answer { .. });
        self.messages += u64::from(spoken);
        if !self.is_there(target) {
            return Ok(());
        }
        match happening {
            Happening::Event(event) => self.handle(node, *event),
            Happening::Question { from, request, body, bytes } => {
                self.nodes[node].traffic.received += bytes;
                self.question(node, from, request, *body)
            }
            Happening::Answer { from, .. } if !self.mesh.hears(node, from) => Ok(()),
            Happening::Answer { request, response, bytes, .. } => {
                self.nodes[node].traffic.received += bytes;
                self.handle(node, Event::Responded { request, response: *response })
            }
            Happening::Open { fetch } => self.open(node, fetch),
            Happening::Piece { fetch } => self.piece(node, fetch),
            Happening::Progress { fetch, since } => self.progress(node, fetch, since),
            Happening::Stored { fetch, piece, hash } => self.stored(node, fetch, (piece, hash)),
            Happening::Storing { fetch } => self.storing(node, fetch),
            Happening::More { fetch } => self.more(node, fetch),
            Happening::Broken { fetch } if !self.nodes[node].flows.contains_key(&fetch) => Ok(()),
            Happening::Broken { fetch } => self.end_flow(node, fetch, Err(broken())),
            Happening::Checked { content } => self.checked(node, content),
            Happening::Making { content, attempt } => self.make(node, content, attempt),
            Happening::CalledOff { want } => self.call_off(node, want),
            Happening::AtOrigin { lookup, reference } => self.at_origin(node, lookup, &reference),
            Happening::Meet { other } => {
                if self.is_there(other) {
                    self.meet(node, other.node);
                }
                Ok(())
            }
            Happening::Parted { other } => self.parted(node, other),
            Happening::Gossip(_) => Ok(()),
        }
    }

    /// A gossip message reaches one of its listeners, and is on its way to the next.
    fn hear(&mut self, target: Target, mut gossip: Box<Gossip>) -> Result<(), Violation> {
        gossip.listeners.pop();
        let (from, sequence, bytes) = (gossip.from, gossip.sequence, gossip.bytes);
        let announcement = gossip.announcement.clone();
        self.plan_gossip(gossip);
        self.messages += 1;
        let same_side = self.index_of(&from).is_none_or(|from| self.mesh.hears(from, target.node));
        if !self.is_there(target) || !same_side {
            return Ok(());
        }
        self.nodes[target.node].traffic.received += bytes;
        // The last listener has it alone.
        let announcement = std::sync::Arc::unwrap_or_clone(announcement);
        self.handle(target.node, Event::Announced { from, sequence, announcement })
    }

    /// The store has looked at all pieces of a blob together.
    fn checked(&mut self, node: NodeIndex, content: layermesh_proto::ContentId) -> Result<(), Violation> {
        let size = self.origin.blobs.get(&content).copied();
        let event = match self.nodes[node].store.complete(content, size) {
            Some(taken) => {
                checks::whole(&content, &taken).map_err(|what| self.violation(node, what))?;
                Event::Held { content, size: taken.size }
            }
            None => Event::CompleteFailed { content, error: SourceError::WrongBytes },
        };
        self.handle(node, event)
    }

    fn question(
        &mut self,
        node: NodeIndex,
        from: NodeId,
        request: RequestId,
        body: ControlRequest,
    ) -> Result<(), Violation> {
        let call = CallId(self.nodes[node].id());
        if let Some(asker) = self.index_of(&from) {
            if !self.mesh.hears(node, asker) {
                return Ok(());
            }
            let target = self.target(asker);
            self.nodes[node].calls.insert(call, (target, request));
        }
        self.handle(node, Event::Requested { call, from, request: body })
    }

    fn at_origin(&mut self, node: NodeIndex, lookup: LookupId, reference: &TagRef) -> Result<(), Violation> {
        self.nodes[node].lookups = self.nodes[node].lookups.saturating_sub(1);
        let passed_s = self.now.as_nanos() / NANOS_PER_S;
        let now_unix_s = self.nodes[node].wall_clock(self.options.start_unix_s, passed_s);
        let result = match self.origin.mode {
            _ if !self.mesh.reaches_origin(node) => Err(refused()),
            OriginMode::Silent => return Ok(()),
            OriginMode::Refusing => Err(refused()),
            OriginMode::Up | OriginMode::Corrupt | OriginMode::Unranged => {
                self.origin.tags_asked += 1;
                let content = self.origin.tags.get(reference).copied();
                let known = content.map(|content| OriginTag { content, now_unix_s }).ok_or(SourceError::NotFound);
                self.request_origin(node).and(known)
            }
        };
        self.handle(node, Event::OriginAnswered { lookup, result })
    }
}
