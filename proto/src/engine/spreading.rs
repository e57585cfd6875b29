//! From few who hold a blob to many who want it.
//!
//! If everybody took it from the holders, their links would carry it as often as there are takers. So it is cut into
//! sections, and each spreads along a tree like a stripe that comes from the origin (`site.rs`), with a holder as its root:
//! every taker takes it from one before it and passes it on while it lands. The root says the hashes, by which each piece is
//! checked. Invariants: which section goes along which tree follows from the blob alone, and who passes it on from the same words; whoever waits in vain for somebody before it takes a section from a holder itself.

use super::{
    Engine,
    event::{Action, Instant, Source},
    planning::{Choice, Step},
    timers::Timer,
    transfer::Kind,
    trees::{Shape, heaviest},
};
use crate::{
    ContentId, NodeId, PieceHash, PieceHashes, PieceIndex, PieceLayout,
    wire::{HASHES_PER_ANNOUNCEMENT_MAX, Part, Stripe},
};

/// Those who have all of a blob, and what is to be known of it.
struct Roots {
    nodes: Vec<NodeId>,
    layout: PieceLayout,
}

/// What may be done about one section.
enum Section {
    Start(Step),
    /// Its hashes are not known yet.
    Unknown,
    /// Nobody before this node is connected.
    Apart,
}

impl Engine {
    /// A run of pieces from whoever is before this node on its way from a holder. `None` if there is no holder or no crowd.
    pub(super) fn ask_crowd(&mut self, content: ContentId) -> Option<Choice> {
        let roots = self.roots(&content)?;
        if roots.layout.blob_size() < self.config.spread_bytes_min || self.peers.len() < 2 {
            return None;
        }
        self.join(content);
        let (now, settle) = (self.now, self.config.settle);
        let transfer = self.transfers.open.get_mut(&content)?;
        let joined = *transfer.crowd_since.get_or_insert(now);
        if now < joined + settle {
            return Some(if transfer.fetches.is_empty() { Choice::Wait(joined + settle) } else { Choice::Enough });
        }
        if self.site.takers(&content, &self.node, now) < roots.nodes.len() {
            return None;
        }
        let transfer = self.transfers.open.get_mut(&content)?;
        if transfer.fixed_size().is_none() && !transfer.take_size(&content, roots.layout.blob_size()) {
            return None;
        }
        self.next_section(content, &roots, joined)
    }

    /// The nodes that have all of a blob, connected or not.
    fn roots(&self, content: &ContentId) -> Option<Roots> {
        let transfer = self.transfers.open.get(content)?;
        let fits = |size: u64| transfer.fixed_size().is_none_or(|known| known == size);
        let holders =
            self.directory.holders(content).filter(|(peer, size)| fits(*size) && self.is_good(transfer, peer));
        let full = self.site.full(content).filter(|(node, size)| fits(*size) && *node != self.node);
        let full = full.filter(|(node, _)| self.may_reach(transfer, node));
        let mut all: Vec<_> = holders.chain(full).collect();
        let size = all.first()?.1;
        all.retain(|(_, other)| *other == size);
        let mut nodes: Vec<_> = all.into_iter().map(|(node, _)| node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        Some(Roots { nodes, layout: PieceLayout::for_size(size)? })
    }

    /// The next section that nothing is asked for of, along a tree along which none is under way.
    fn next_section(&mut self, content: ContentId, roots: &Roots, joined: Instant) -> Option<Choice> {
        let transfer = self.transfers.open.get(&content)?;
        let taken = transfer.taken()?;
        let bytes = (roots.layout.blob_size() / self.config.sections.max(1)).min(self.config.section_bytes_max);
        let len = u32::try_from(bytes / u64::from(roots.layout.piece_len())).unwrap_or(1).max(1);
        let trees = u32::from(self.config.trees.max(1));
        let tree_at = |piece: PieceIndex| piece / len % trees;
        let busy: Vec<_> = transfer.fetches.values().map(|fetch| tree_at(fetch.run.start)).collect();
        // Blobs that come at the same time share the trees.
        let crowded = self.transfers.open.values().filter(|transfer| transfer.crowd_since.is_some()).count().max(1);
        if busy.len() >= (trees as usize).div_ceil(crowded) {
            return Some(Choice::Enough);
        }
        let (mut unknown, mut at) = (false, transfer.first_reader().and_then(|piece| taken.next_missing(piece)));
        at = at.or_else(|| taken.next_missing(0));
        for _ in 0..trees {
            let Some(piece) = at else { break };
            let (first, end) = (piece / len * len, (piece / len * len + len).min(taken.pieces()));
            at = taken.next_missing(end);
            if busy.contains(&tree_at(piece)) {
                continue;
            }
            let run = taken.missing_run(piece, end - piece)?;
            let tree = u8::try_from(tree_at(piece)).unwrap_or(0);
            match self.section(&content, roots, Stripe { first, end, turn: 0, tree }, run) {
                Some(Section::Start(step)) => return Some(Choice::Start(step)),
                Some(Section::Unknown) => unknown = true,
                Some(Section::Apart) | None => {}
            }
        }
        let until = joined + self.config.spread_patience;
        match self.transfers.is_fetching(&content) {
            true => Some(Choice::Enough),
            false if unknown && self.now < until => Some(Choice::Wait(until)),
            // Straight from a holder, then.
            false => None,
        }
    }

    fn section(
        &mut self,
        content: &ContentId,
        roots: &Roots,
        stripe: Stripe,
        run: std::ops::Range<PieceIndex>,
    ) -> Option<Section> {
        let transfer = self.transfers.open.get(content)?;
        let size = Some(roots.layout.blob_size());
        let step = |peer, kind, run| Section::Start(Step { source: Source::Peer(peer), kind, size, run });
        let root = heaviest(content, stripe.first, &roots.nodes)?;
        // A holder sends each section once: more would be more than its link carries.
        let shape = Shape { root: 1, fan_out: self.config.trees, trees: self.config.trees };
        // Who came later is not as far; this node would wait for it.
        let before = transfer.crowd_since.unwrap_or(self.now) + self.config.spread_slack;
        let trusted = |node: &NodeId| {
            self.trusts_for(transfer, node) && self.site.joined(content, node).is_some_and(|at| at <= before)
        };
        let line = self.site.upstream(content, (root, stripe, self.node), self.now, shape, trusted);
        let Some(peer) = line.iter().copied().find(|peer| self.can_ask(transfer, peer)) else {
            let nearest = line.into_iter().find(|node| self.may_reach(transfer, node))?;
            self.reach_for(nearest);
            return Some(Section::Apart);
        };
        if roots.nodes.contains(&peer) && self.directory.holders(content).any(|(holder, _)| holder == peer) {
            return Some(step(peer, Kind::Holder, run));
        }
        let told = run.clone().take_while(|piece| self.vouched(transfer, *piece).is_some()).last();
        let Some(last) = told else { return Some(Section::Unknown) };
        Some(step(peer, Kind::Section, run.start..last + 1))
    }

    /// Somebody wants what this node holds: if it is not the only one, all of them need the hashes soon; if it is not connected,
    /// they tell it whom to connect to.
    pub(super) fn offer_hashes(&mut self, content: ContentId, taker: &NodeId) {
        let Some(size) = self.inventory.held(&content).filter(|size| *size > 0) else { return };
        let crowd = self.site.takers(&content, &self.node, self.now) > 1 && size >= self.config.spread_bytes_min;
        let needed = crowd || !self.peers.is_connected(taker);
        // Over the limit nothing is offered: whoever is not told asks a holder itself.
        let full = self.offered.len() >= self.config.limits.offers && !self.offered.contains_key(&content);
        if !needed || full || self.timers.is_set(Timer::Offer(content)) {
            return;
        }
        let said = self.offered.get(&content).map_or(self.now, |said| *said + self.config.offer_interval);
        let holders = u32::try_from(self.directory.holders(&content).count()).unwrap_or(u32::MAX);
        let apart = self.random.below(self.config.reply_spacing.saturating_mul(holders));
        self.timers.set(Timer::Offer(content), self.now, said.since(self.now) + apart);
    }

    /// A blob is held all at once: those who have waited for it need its hashes, as if they came now.
    pub(super) fn offer_to_waiting(&mut self, content: ContentId) {
        let waiting = self.site.wanting(&content, self.now).find(|node| **node != self.node).copied();
        if let Some(taker) = waiting {
            self.offer_hashes(content, &taker);
        }
    }

    /// The time to say the hashes of a blob has come: the store is asked for them.
    pub(super) fn make_offer(&mut self, content: ContentId) {
        let room = self.asked_offers.len() < self.config.limits.offers;
        if room && self.inventory.held(&content).is_some() && self.asked_offers.insert(content) {
            self.act(Action::Recall { content });
        }
    }

    /// The hashes of a blob that this node holds were said, by it or by another holder.
    pub(super) fn note_offer(&mut self, content: ContentId) {
        let (now, interval) = (self.now, self.config.offer_interval);
        self.timers.stop(Timer::Offer(content));
        self.offered.retain(|_, said| now.since(*said) < interval);
        self.offered.insert(content, now);
    }

    /// The store says the hashes of a blob that this node holds.
    pub(super) fn say_offer(&mut self, content: ContentId, size: u64, hashes: &[(PieceIndex, PieceHash)]) {
        if !self.asked_offers.remove(&content) {
            return;
        }
        self.note_offer(content);
        for chunk in hashes.chunks(HASHES_PER_ANNOUNCEMENT_MAX) {
            let Some((first, _)) = chunk.first() else { continue };
            let hashes = PieceHashes(chunk.iter().map(|(_, hash)| *hash).collect());
            self.say(Part::Vouched { content, size, first: *first, hashes });
        }
    }
}
