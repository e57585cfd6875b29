//! What nodes tell each other: hellos, inventories and announcements.
//!
//! Invariants: what a peer says is applied only where it continues what was learnt from it; everything else
//! leads to a question, of which one is open at a time. Nothing that a peer sends makes this node send more than
//! one message in return, except that a page with more to come is followed by the next question, and that questions about
//! tags are passed on (`asking.rs`).

use super::{
    Engine,
    directory::Standing,
    event::{Action, CallId, Note, RequestId},
    inventory::Burst,
    peers::Question,
    timers::Timer,
};
use crate::{
    ContentId, NodeId,
    wire::{
        Announcement, Change, ControlRequest, ControlResponse, Entry, Hello, InventoryPage, InventoryPosition, Summary,
    },
};

impl Engine {
    pub(super) fn on_connected(&mut self, peer: NodeId) {
        if peer == self.node || self.peers.is_connected(&peer) {
            return;
        }
        if self.peers.len() >= self.config.limits.peers {
            return self.limit_reached("peers");
        }
        self.peers.connect(peer);
        self.directory.connected(peer);
        self.ask(peer, Question::Hello);
        self.met = Some(self.now);
        self.tell_soon();
        let soon = self.random.around(self.config.summary_after_connect);
        if self.timers.at(Timer::Summary).is_none_or(|due| due > self.now + soon) {
            self.timers.set(Timer::Summary, self.now, soon);
        }
        // It may be whom bytes are to come from.
        self.look_where_waiting();
    }

    pub(super) fn on_disconnected(&mut self, peer: NodeId) {
        for request in self.peers.disconnect(&peer) {
            self.timers.stop(Timer::RequestTimeout(request));
        }
        self.timers.stop(Timer::AskAgain(peer));
        self.inventory.left(&peer);
        self.tags_without(&peer);
        self.directory.disconnected(peer, &self.config.limits);
        self.part_with(&peer);
    }

    pub(super) fn ask(&mut self, peer: NodeId, question: Question) {
        let body = match question {
            Question::Hello => ControlRequest::Hello(self.hello()),
            Question::Inventory => ControlRequest::Inventory { since: self.directory.applied(&peer) },
            Question::Hashes(content, first) => ControlRequest::Vouches { content, first },
        };
        if let Some(request) = self.peers.ask(peer, question) {
            self.timers.set(Timer::RequestTimeout(request), self.now, self.config.request_timeout);
            self.act(Action::Request { request, peer, body });
        }
    }

    /// A peer's inventory has reached a position that is not known: asks, now or when the open question is answered.
    fn catch_up(&mut self, peer: NodeId, position: InventoryPosition) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.heard = Some(position);
        }
        self.ask(peer, Question::Inventory);
    }

    fn summary(&self) -> Summary {
        Summary {
            position: self.inventory.position(),
            origin_reachable: self.origins.any_reachable(),
            platform: self.config.platform.clone(),
        }
    }

    fn hello(&self) -> Hello {
        Hello { bulk_port: self.config.bulk_port, version: self.config.version.clone(), summary: self.summary() }
    }

    pub(super) fn on_requested(&mut self, call: CallId, from: NodeId, request: ControlRequest) {
        match request {
            ControlRequest::Hello(hello) => {
                self.act(Action::Respond { call, response: ControlResponse::Hello(self.hello()) });
                self.on_hello(from, hello);
            }
            ControlRequest::Inventory { since } => {
                let mut page = self.inventory.page(from, since);
                self.date(&mut page.changes);
                self.act(Action::Respond { call, response: ControlResponse::Inventory(page) });
                if !self.peers.is_connected(&from) {
                    self.inventory.left(&from);
                }
            }
            ControlRequest::Vouches { content, first } => self.answer_hashes(call, &content, first),
            ControlRequest::Claim { content, stripe } => self.on_claim_asked(call, from, content, stripe),
            ControlRequest::Tag { reference } => self.on_tag_asked(call, from, &reference),
            ControlRequest::TagSaid { reference, word } => {
                self.act(Action::Respond { call, response: ControlResponse::Noted });
                self.on_tag_said(from, &reference, word);
            }
        }
    }

    pub(super) fn on_responded(&mut self, request: RequestId, response: ControlResponse) {
        if self.on_tag_answered(request, Some(&response)) || self.on_claim_answered(request, Some(&response)) {
            return;
        }
        self.timers.stop(Timer::RequestTimeout(request));
        let Some((peer, question)) = self.peers.close(request) else { return };
        match (question, response) {
            (Question::Hello, ControlResponse::Hello(hello)) => {
                self.peers.answered(&peer);
                self.on_hello(peer, hello);
            }
            (Question::Inventory, ControlResponse::Inventory(page)) => self.on_page(peer, page),
            (Question::Hashes(content, first), ControlResponse::Vouches(vouches)) => {
                self.on_hashes(peer, content, first, vouches);
                self.ask_next_hashes(peer, content);
            }
            _ => self.violation(peer, "answered another question"),
        }
    }

    pub(super) fn on_request_failed(&mut self, request: RequestId) {
        if self.on_tag_answered(request, None) || self.on_claim_answered(request, None) {
            return;
        }
        self.timers.stop(Timer::RequestTimeout(request));
        match self.peers.close(request) {
            Some((peer, Question::Hashes(content, _))) => {
                self.without_hashes(peer, content);
                self.ask_next_hashes(peer, content);
            }
            Some((peer, Question::Hello | Question::Inventory)) => self.ask_later(peer),
            None => {}
        }
    }

    fn ask_later(&mut self, peer: NodeId) {
        if let Some(wait) = self.peers.failed(&peer, self.config.request_retry) {
            let wait = self.random.around(wait);
            self.timers.set(Timer::AskAgain(peer), self.now, wait);
        }
    }

    /// The time to ask a peer that did not answer has come.
    pub(super) fn ask_again(&mut self, peer: NodeId) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let question = if state.hello.is_none() { Question::Hello } else { Question::Inventory };
        self.ask(peer, question);
    }

    fn violation(&mut self, peer: NodeId, what: &'static str) {
        self.act(Action::Note(Note::ProtocolViolation { peer, what }));
        self.ask_later(peer);
    }

    fn on_hello(&mut self, peer: NodeId, hello: Hello) {
        let position = hello.summary.position;
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.hello = Some(hello);
        self.on_position(peer, position);
        self.look_for_releases();
    }

    /// A peer says where its inventory stands.
    fn on_position(&mut self, peer: NodeId, position: InventoryPosition) {
        let back = self.directory.confirm(peer, position.epoch);
        match self.directory.standing(&peer, position) {
            Standing::Behind => self.catch_up(peer, position),
            Standing::UpToDate => self.learnt(peer),
        }
        self.wake(back, peer);
    }

    fn learnt(&mut self, peer: NodeId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.learning = false;
        }
    }

    fn on_page(&mut self, peer: NodeId, mut page: InventoryPage) {
        let applied = self.directory.applied(&peer);
        if !page.from_start && page.position.epoch == applied.epoch {
            // What was announced while the question was open is known already.
            page.changes.retain(|change| change.seq > applied.seq);
            page.position.seq = page.position.seq.max(applied.seq);
        }
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.restarts = if page.from_start { state.restarts + 1 } else { state.restarts };
        let restarts = state.restarts;
        let after = if page.from_start { 0 } else { applied.seq };
        let epoch = page.from_start || page.position.epoch == applied.epoch;
        let advances = page.position.seq > after || !page.more;
        if !epoch || !advances || restarts > 2 || !is_ascending(&page.changes, after, page.position.seq) {
            return self.violation(peer, "its inventory page makes no sense");
        }
        self.peers.answered(&peer);
        if page.from_start {
            self.directory.restart(peer);
            self.releases.forget(&peer);
        }
        let mut held = self.directory.confirm(peer, page.position.epoch);
        held.extend(self.apply(peer, page.changes));
        self.directory.reached(peer, page.position);
        if page.more {
            self.ask(peer, Question::Inventory);
        } else if let Some(state) = self.peers.get_mut(&peer) {
            state.restarts = 0;
            state.learning = false;
            let heard = state.heard.take();
            if heard.is_some_and(|heard| self.directory.standing(&peer, heard) == Standing::Behind) {
                self.ask(peer, Question::Inventory);
            }
        }
        self.wake(held, peer);
    }

    pub(super) fn on_announced(&mut self, from: NodeId, sequence: u64, announcement: Announcement) {
        match announcement {
            Announcement::Taking(part) => self.on_part(from, sequence, part),
            Announcement::Rollout(rollout) => self.on_rollout_heard(from, rollout),
            Announcement::Changed { changes, .. } if !self.peers.is_connected(&from) => {
                self.on_changed_afar(from, changes);
            }
            // What a node holds counts once it can be asked for bytes; it says it all when it connects.
            Announcement::Summary(_) if !self.peers.is_connected(&from) => {}
            Announcement::Summary(summary) => {
                let position = summary.position;
                if let Some(hello) = self.peers.get_mut(&from).and_then(|state| state.hello.as_mut()) {
                    hello.summary = summary;
                }
                self.on_position(from, position);
            }
            Announcement::Changed { since, changes } => self.on_changed(from, since, changes),
        }
    }

    /// A node that is not connected has got blobs, and takes no part in fetching them any more; or it was told what a tag
    /// stands for.
    fn on_changed_afar(&mut self, from: NodeId, changes: Vec<Change>) {
        for change in changes {
            match change.entry {
                Entry::Held { content, size } => {
                    self.note_claim_done(content, &from, size);
                    self.site.left(&content, &from);
                }
                Entry::Bound(binding) if self.bindings.has_room_for_strangers(&self.config.limits) => {
                    self.heard_binding(from, binding);
                }
                // Releases spread between those that are connected.
                Entry::Bound(_) | Entry::Gone { .. } | Entry::Following(_) => {}
            }
        }
    }

    fn on_changed(&mut self, from: NodeId, since: InventoryPosition, changes: Vec<Change>) {
        let Some(last) = changes.last().map(|change| change.seq) else { return };
        if !is_ascending(&changes, since.seq, last) {
            return self
                .act(Action::Note(Note::ProtocolViolation { peer: from, what: "its changes are out of order" }));
        }
        let reached = InventoryPosition { seq: last, ..since };
        let mut held = self.directory.confirm(from, since.epoch);
        let applied = self.directory.applied(&from);
        if applied.epoch == since.epoch && applied.seq >= since.seq {
            // What an answer brought in the meantime is applied twice; the last change of each subject wins both times.
            if last > applied.seq {
                held.extend(self.apply(from, changes));
                self.directory.reached(from, reached);
            }
        } else {
            self.catch_up(from, reached);
        }
        self.wake(held, from);
    }

    /// Applies a peer's changes and returns the blobs that it says it holds.
    fn apply(&mut self, peer: NodeId, changes: Vec<Change>) -> Vec<ContentId> {
        let mut held = Vec::new();
        let (mut blobs_left_out, mut bindings_left_out, mut followers_left_out) = (false, false, false);
        for change in changes {
            match change.entry {
                Entry::Held { content, size } => {
                    self.note_claim_done(content, &peer, size);
                    self.site.left(&content, &peer);
                    if self.directory.hold(peer, content, size, &self.config.limits) {
                        held.push(content);
                    } else {
                        blobs_left_out = true;
                    }
                }
                Entry::Gone { content } => {
                    self.site.left(&content, &peer);
                    self.directory.lose(peer, &content);
                }
                Entry::Following(following) => {
                    let connected = |peer: &NodeId| self.peers.is_connected(peer);
                    followers_left_out |= !self.releases.learn(peer, following, &self.config.limits, connected);
                }
                Entry::Bound(binding) => {
                    bindings_left_out |= !self.heard_binding(peer, binding);
                }
            }
        }
        if blobs_left_out {
            self.limit_reached("blobs_of_peers");
        }
        if bindings_left_out {
            self.limit_reached("bindings_of_peers");
        }
        if followers_left_out {
            self.limit_reached("peers");
        }
        self.look_for_releases();
        held
    }

    /// The own inventory changed: it is announced soon, together with what changes until then.
    pub(super) fn schedule_announcement(&mut self) {
        if self.inventory.has_news() && !self.timers.is_set(Timer::Announce) {
            self.timers.set(Timer::Announce, self.now, self.config.announce_delay);
        }
    }

    pub(super) fn announce_news(&mut self) {
        if self.peers.len() == 0 {
            // Whoever connects later hears of the position and asks.
            return self.inventory.drop_news();
        }
        let (bytes_max, count_max) = (self.config.announcement_bytes_max, self.config.announcements_per_burst_max);
        match self.inventory.take_news(bytes_max, count_max) {
            Burst::Announcements(announcements) => {
                for mut announcement in announcements {
                    if let Announcement::Changed { changes, .. } = &mut announcement {
                        self.date(changes);
                    }
                    self.act(Action::Announce(announcement));
                }
            }
            Burst::Summary => self.act(Action::Announce(Announcement::Summary(self.summary()))),
        }
    }

    pub(super) fn announce_summary(&mut self) {
        self.schedule_summary();
        // Of those that are connected it is known when they leave; the others fall silent.
        self.site.expire(self.now);
        if self.peers.len() > 0 {
            self.act(Action::Announce(Announcement::Summary(self.summary())));
        }
    }

    pub(super) fn schedule_summary(&mut self) {
        let wait = self.random.around(self.config.summary_interval);
        self.timers.set(Timer::Summary, self.now, wait);
    }
}

/// Whether changes are numbered upwards within `after..=last`.
fn is_ascending(changes: &[Change], after: u64, last: u64) -> bool {
    let inside = changes.iter().all(|change| change.seq > after && change.seq <= last);
    inside && changes.is_sorted_by(|a, b| a.seq < b.seq)
}
