//! Connected peers: what they said of themselves, what they were asked, and who is not asked for a while.
//!
//! Invariant: at most one hello, one inventory question and one about hashes is open with a peer at any time, so that a peer that
//! says much cannot make this node ask much.

use std::{collections::BTreeMap, time::Duration};

use super::{
    event::{Instant, RequestId},
    fetching::mixed,
};
use crate::{
    ContentId, NodeId, PieceIndex,
    wire::{Hello, InventoryPosition},
};

/// What a peer can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Who are you?
    Hello,
    /// What do you hold?
    Inventory,
    /// Which hashes have the pieces of this blob from this one on?
    Hashes(ContentId, PieceIndex),
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// What it said of itself.
    pub(super) hello: Option<Hello>,
    hello_open: Option<RequestId>,
    inventory_open: Option<RequestId>,
    hashes_open: Option<RequestId>,
    /// Bytes a second that it brought.
    rate: Option<u64>,
    /// A position that was heard of while an inventory question was open: its answer may not reach so far.
    pub(super) heard: Option<InventoryPosition>,
    /// Pages without an end in which everything was told from the start.
    pub(super) restarts: u32,
    /// What it holds was not learnt since it connected, and it did not fail to answer.
    pub(super) learning: bool,
    failures: u32,
}

/// All connected peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    connected: BTreeMap<NodeId, Peer>,
    open: BTreeMap<RequestId, (NodeId, Question)>,
    penalties: BTreeMap<NodeId, Instant>,
    next_request: u64,
}

impl Peers {
    pub(super) fn connect(&mut self, peer: NodeId) {
        self.connected.entry(peer).or_insert(Peer {
            hello: None,
            hello_open: None,
            inventory_open: None,
            hashes_open: None,
            rate: None,
            heard: None,
            restarts: 0,
            learning: true,
            failures: 0,
        });
    }

    /// Forgets a peer and returns the ids of the questions that it leaves unanswered.
    pub(super) fn disconnect(&mut self, peer: &NodeId) -> Vec<RequestId> {
        let Some(gone) = self.connected.remove(peer) else { return Vec::new() };
        let open: Vec<_> = [gone.hello_open, gone.inventory_open, gone.hashes_open].into_iter().flatten().collect();
        for request in &open {
            self.open.remove(request);
        }
        open
    }

    pub(super) fn is_connected(&self, peer: &NodeId) -> bool {
        self.connected.contains_key(peer)
    }

    pub(super) fn len(&self) -> usize {
        self.connected.len()
    }

    pub(super) fn get_mut(&mut self, peer: &NodeId) -> Option<&mut Peer> {
        self.connected.get_mut(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.connected.iter()
    }

    /// Whether what some connected peer holds is still being learnt.
    pub(super) fn any_learning(&self) -> bool {
        self.connected.values().any(|peer| peer.learning)
    }

    /// The id of a request that is kept account of elsewhere.
    pub(super) fn next_request(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        request
    }

    /// Opens a question, unless the peer is not connected or has one of its kind open.
    pub(super) fn ask(&mut self, peer: NodeId, question: Question) -> Option<RequestId> {
        let state = self.connected.get_mut(&peer)?;
        let slot = match question {
            Question::Hello => &mut state.hello_open,
            Question::Inventory => &mut state.inventory_open,
            Question::Hashes(..) => &mut state.hashes_open,
        };
        if slot.is_some() {
            return None;
        }
        let request = RequestId(self.next_request);
        self.next_request += 1;
        *slot = Some(request);
        self.open.insert(request, (peer, question));
        Some(request)
    }

    /// Closes a question and says whose it was.
    pub(super) fn close(&mut self, request: RequestId) -> Option<(NodeId, Question)> {
        let (peer, question) = self.open.remove(&request)?;
        if let Some(state) = self.connected.get_mut(&peer) {
            match question {
                Question::Hello => state.hello_open = None,
                Question::Inventory => state.inventory_open = None,
                Question::Hashes(..) => state.hashes_open = None,
            }
        }
        Some((peer, question))
    }

    /// A peer answered well.
    pub(super) fn answered(&mut self, peer: &NodeId) {
        if let Some(state) = self.connected.get_mut(peer) {
            state.failures = 0;
        }
    }

    /// A peer did not answer, or badly. Returns when to ask again.
    pub(super) fn failed(&mut self, peer: &NodeId, first: Duration) -> Option<Duration> {
        let state = self.connected.get_mut(peer)?;
        let wait = first * (1 << state.failures.min(5));
        state.failures += 1;
        state.learning = false;
        state.restarts = 0;
        Some(wait)
    }

    /// A peer is not asked for bytes until then.
    pub(super) fn penalise(&mut self, peer: NodeId, now: Instant, until: Instant, penalties_max: usize) {
        self.penalties.retain(|_, until| *until > now);
        if self.penalties.len() >= penalties_max
            && let Some(first) = self.penalties.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer)
        {
            self.penalties.remove(&first);
        }
        self.penalties.insert(peer, until);
    }

    /// Whether a peer has no question about hashes to answer.
    pub(super) fn may_ask_hashes(&self, peer: &NodeId) -> bool {
        self.connected.get(peer).is_some_and(|state| state.hashes_open.is_none())
    }

    /// Whether somebody has yet to answer about hashes of a blob, or of another, after which it will be asked.
    pub(super) fn answers_hashes(&self, content: &ContentId) -> bool {
        self.open.values().any(|(_, question)| matches!(question, Question::Hashes(of, _) if of == content))
            || self.connected.values().any(|state| state.hashes_open.is_some())
    }

    /// A peer brought so many bytes a second.
    pub(super) fn measured(&mut self, peer: &NodeId, rate: u64) {
        if let Some(state) = self.connected.get_mut(peer) {
            state.rate = Some(mixed(state.rate, rate));
        }
    }

    /// Bytes a second that a peer brought, if it was measured.
    pub(super) fn rate(&self, peer: &NodeId) -> Option<u64> {
        self.connected.get(peer)?.rate
    }

    /// A peer was doubted without reason.
    pub(super) fn absolve(&mut self, peer: &NodeId) {
        self.penalties.remove(peer);
    }

    pub(super) fn is_penalised(&self, peer: &NodeId, now: Instant) -> bool {
        self.penalties.get(peer).is_some_and(|until| *until > now)
    }
}
