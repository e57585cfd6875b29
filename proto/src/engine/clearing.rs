//! Whoever is to claim a stripe asks first whether somebody else did.
//!
//! Words by gossip may be late: where many nodes share little processor, the next in order passes over the first although that
//! one claimed the stripe long ago. Of the nodes that a node is connected with, itself included, the first in the order that
//! rendezvous hashing over the blob gives is the blob's *keeper*. A node whose turn it is asks it, by the control stream, before it
//! claims. The keeper answers whether anybody has or fetches what the stripe begins with, and if nobody does, takes the claim as
//! said: so of two that ask one goes on.
//!
//! Invariants: whoever was told that nobody fetches it claims at once, since all others are told to wait for it. A keeper
//! that does not answer is passed over for a while, and one that names others who then show no claim is believed [`MISLED_MAX`]
//! times a transfer: it costs some seconds, never the blob.

use super::{
    Engine,
    event::{Action, CallId, Instant, RequestId},
    site::{Site, weight},
};
use crate::{
    ContentId, NodeId,
    wire::{ControlRequest, ControlResponse, Stripe},
};

/// How often a transfer believes a keeper that others fetch what nobody then claims. 2: once may be one that failed.
const MISLED_MAX: u32 = 2;

/// What a blob's keeper says to a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clearance {
    /// It was not asked.
    Unasked,
    /// It was asked and has until then to answer.
    Asked(RequestId, NodeId, Instant),
    /// Somebody has it or fetches it: that one's word is awaited until then.
    Taken(Instant),
    /// Nobody has it or fetches it.
    Free,
}

impl Engine {
    /// Until when a node waits before it claims a stripe; `None`: it may.
    pub(super) fn cleared_at(&mut self, content: ContentId, stripe: Stripe) -> Option<Instant> {
        match self.transfers.open.get(&content)?.election?.clearance {
            Clearance::Free => None,
            Clearance::Asked(.., until) | Clearance::Taken(until) if self.now < until => Some(until),
            Clearance::Asked(_, keeper, _) => {
                self.pass_over(keeper);
                None
            }
            Clearance::Taken(_) => {
                self.transfers.open.get_mut(&content)?.misled += 1;
                self.ask_before(content, stripe)
            }
            Clearance::Unasked => self.ask_before(content, stripe),
        }
    }

    /// Asks the blob's keeper, if there is one to be asked, and says until when to wait for what it says.
    fn ask_before(&mut self, content: ContentId, stripe: Stripe) -> Option<Instant> {
        let keeper = self.keeper_of(&content)?;
        let (request, until) = (self.peers.next_request(), self.now + self.config.clearance);
        self.set_clearance(content, Clearance::Asked(request, keeper, until));
        self.act(Action::Request { request, peer: keeper, body: ControlRequest::Claim { content, stripe } });
        Some(until)
    }

    /// Whom this node asks about a blob. `None`: nobody, or it is the keeper itself.
    fn keeper_of(&self, content: &ContentId) -> Option<NodeId> {
        if self.config.clearance.is_zero() || self.transfers.open.get(content)?.misled >= MISLED_MAX {
            return None;
        }
        self.first_keeper(|node| weight(content, 0, node), |_, _| true)
    }

    fn set_clearance(&mut self, content: ContentId, clearance: Clearance) {
        let transfer = self.transfers.open.get_mut(&content);
        if let Some(election) = transfer.and_then(|transfer| transfer.election.as_mut()) {
            election.clearance = clearance;
        }
    }

    /// A peer would claim a stripe.
    pub(super) fn on_claim_asked(&mut self, call: CallId, from: NodeId, content: ContentId, stripe: Stripe) {
        let free = !self.is_taken(&content, &from, stripe);
        self.act(Action::Respond { call, response: ControlResponse::Claim { free } });
        if free && self.trusts(&from) {
            let claim = (stripe, self.now + self.config.claim_lease);
            let patience = self.patience_with(&content, stripe);
            if self.site.claimed((content, from), claim, patience, self.now, self.room()).is_none() {
                self.limit_reached("parts");
            }
            self.look_again(content);
        }
    }

    /// Whether somebody but the one who asks has or fetches what a stripe begins with.
    fn is_taken(&self, content: &ContentId, from: &NodeId, stripe: Stripe) -> bool {
        let other = |node: &NodeId| node != from && self.trusts(node);
        let claims = self.site.claims(content, self.now, other);
        let durable = || self.transfers.open.get(content)?.pieces.as_ref().map(|pieces| &pieces.durable);
        self.inventory.held(content).is_some()
            || durable().is_some_and(|durable| durable.contains(stripe.first))
            || Site::owner_at(content, &claims, stripe.first).is_some_and(|(_, claim)| claim.stripe.turn >= stripe.turn)
            || self.site.havers(content, stripe.first).any(|node| other(&node))
    }

    /// An answer about a claim came, or will not. Returns whether it was one.
    pub(super) fn on_claim_answered(&mut self, request: RequestId, response: Option<&ControlResponse>) -> bool {
        let asked = self.transfers.open.iter().find_map(|(content, transfer)| match transfer.election?.clearance {
            Clearance::Asked(asked, keeper, _) if asked == request => Some((*content, keeper)),
            _ => None,
        });
        let Some((content, keeper)) = asked else { return false };
        let clearance = match response {
            Some(ControlResponse::Claim { free: true }) => Clearance::Free,
            Some(ControlResponse::Claim { free: false }) => Clearance::Taken(self.now + self.config.claim_lease),
            _ => Clearance::Asked(request, keeper, self.now),
        };
        self.set_clearance(content, clearance);
        self.advance(content, None);
        true
    }
}
