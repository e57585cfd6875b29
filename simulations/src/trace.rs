//! A hash of everything that happened, in order, that costs next to nothing.
//!
//! Invariant: what tells two events or actions apart that can happen at the same node at the same time is hashed: their
//! kind and ids. What they carry follows from what was hashed before, since engines are deterministic.

use layermesh_proto::{
    ContentId, NodeId, PieceIndex,
    engine::event::{Action, Event, Instant, Source},
    wire::{Announcement, ControlRequest, ControlResponse, Part, TagWord},
};

/// The hash so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(u64);

/// An odd number without pattern: 2^64 by the golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

fn first_eight(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Trace {
    /// The hash of what was added so far.
    pub(crate) fn finish(&self) -> u64 {
        self.0
    }

    /// Takes in a number.
    pub(crate) fn add(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(MIX);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn all<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|number| self.add(number));
    }

    fn content(&mut self, kind: u64, content: &ContentId) {
        self.all([kind, first_eight(content.digest())]);
    }

    fn source(&mut self, source: &Source) {
        self.add(match source {
            Source::Peer(peer) => node(peer),
            Source::Origin(..) => 0,
        });
    }

    /// Something happened to a node.
    pub(crate) fn event(&mut self, at: Instant, of: usize, event: &Event) {
        self.all([at.as_nanos(), of as u64]);
        match event {
            Event::PeerConnected { peer } => self.all([1, node(peer)]),
            Event::PeerDisconnected { peer } => self.all([2, node(peer)]),
            Event::Announced { from, sequence, announcement } => {
                self.all([3, node(from), *sequence]);
                self.announcement(announcement);
            }
            Event::Requested { call, from, request } => {
                self.all([4, call.0, node(from)]);
                self.request(request);
            }
            Event::Responded { request, response } => {
                self.all([5, request.0]);
                self.response(response);
            }
            Event::RequestFailed { request } => self.all([6, request.0]),
            Event::Held { content, size } => {
                self.content(7, content);
                self.add(*size);
            }
            Event::Lost { content } => self.content(8, content),
            Event::PartlyHeld { content, pieces, .. } => {
                self.content(9, content);
                self.add(u64::from(pieces.count()));
            }
            Event::BindingKnown(binding) => self.content(10, &binding.content),
            Event::SignedBindings(signed) => {
                self.add(25);
                signed.iter().for_each(|binding| self.content(10, &binding.content));
            }
            Event::Want { want, content, .. } => {
                self.content(11, content);
                self.add(want.0);
            }
            Event::ReaderAt { want, offset } => self.all([12, want.0, *offset]),
            Event::Unwant { want } => self.all([13, want.0]),
            Event::Resolve { resolve, .. } => self.all([14, resolve.0]),
            Event::Promise { promise, .. } => self.all([15, promise.0]),
            Event::FetchStarted { fetch, size, ranged } => self.all([16, fetch.0, *size, u64::from(*ranged)]),
            Event::FetchProgress { fetch, bytes } => self.all([17, fetch.0, *bytes]),
            Event::FetchStored { fetch, pieces } => {
                self.all([18, fetch.0]);
                pieces.iter().for_each(|(piece, hash)| self.all([u64::from(*piece), first_eight(&hash.0)]));
            }
            Event::Recalled { content, pieces } => {
                self.content(19, content);
                self.add(pieces.len() as u64);
            }
            Event::FetchEnded { fetch, result } => self.all([20, fetch.0, u64::from(result.is_ok())]),
            Event::Rebuildable { content, .. } => self.content(29, content),
            Event::RebuildProgress { content, done } => {
                self.content(30, content);
                self.add(*done);
            }
            Event::RebuildFailed { content, .. } => self.content(31, content),
            Event::CompleteFailed { content, .. } => self.content(21, content),
            Event::OriginAnswered { lookup, result } => self.all([22, lookup.0, u64::from(result.is_ok())]),
            Event::Clock { minute_of_week } => self.all([23, u64::from(*minute_of_week)]),
            Event::Following(following) => self.all([26, following.version]),
            Event::Examined { content, .. } => self.content(27, content),
            Event::Rollout(rollout) => self.all([28, rollout.releases.len() as u64]),
            Event::Tick => self.add(24),
        }
    }

    fn announcement(&mut self, announcement: &Announcement) {
        match announcement {
            Announcement::Changed { since, changes } => self.all([1, since.seq, changes.len() as u64]),
            Announcement::Rollout(rollout) => self.all([6, rollout.releases.len() as u64]),
            Announcement::Summary(summary) => self.all([2, summary.position.seq]),
            Announcement::Taking(Part::Wanted { content, claim, having, .. }) => {
                self.content(3, content);
                self.add(having.as_ref().map_or(0, |having| u64::from(having.pieces.count()) + 1));
                let stripe = claim.map(|claim| claim.stripe);
                self.add(stripe.map_or(0, |stripe| u64::from(stripe.first) << 32 | u64::from(stripe.end)));
            }
            Announcement::Taking(Part::Vouched { content, first, hashes, .. }) => {
                self.content(4, content);
                self.all([u64::from(*first), hashes.0.len() as u64]);
            }
            Announcement::Taking(Part::Left { content }) => self.content(5, content),
        }
    }

    fn request(&mut self, request: &ControlRequest) {
        match request {
            ControlRequest::Hello(hello) => self.all([1, hello.summary.position.seq]),
            ControlRequest::Inventory { since } => self.all([2, since.epoch, since.seq]),
            ControlRequest::Vouches { content, first } => {
                self.content(3, content);
                self.add(u64::from(*first));
            }
            ControlRequest::Claim { content, stripe } => {
                self.content(6, content);
                self.add(u64::from(stripe.first) << 32 | u64::from(stripe.end));
            }
            ControlRequest::Tag { .. } => self.add(4),
            ControlRequest::TagSaid { word, .. } => {
                self.add(5);
                self.tag_word(word);
            }
        }
    }

    fn tag_word(&mut self, word: &TagWord) {
        match word {
            TagWord::Bound(binding) => self.content(1, &binding.content),
            TagWord::Ask => self.add(2),
            TagWord::Wait => self.add(3),
            TagWord::Away => self.add(4),
        }
    }

    fn response(&mut self, response: &ControlResponse) {
        match response {
            ControlResponse::Hello(hello) => self.all([1, hello.summary.position.seq]),
            ControlResponse::Inventory(page) => self.all([2, page.position.seq, page.changes.len() as u64]),
            ControlResponse::Vouches(vouches) => self.all([3, vouches.size, vouches.runs.len() as u64]),
            ControlResponse::Tag(word) => {
                self.add(4);
                self.tag_word(word);
            }
            ControlResponse::Noted => self.add(5),
            ControlResponse::Claim { free } => self.all([6, u64::from(*free)]),
        }
    }

    /// A node's engine said something.
    pub(crate) fn action(&mut self, action: &Action) {
        let run = |pieces: &[(PieceIndex, _)]| {
            let first = pieces.first().map_or(0, |(piece, _)| u64::from(*piece));
            first << 32 | pieces.len() as u64
        };
        match action {
            Action::Announce(announcement) => {
                self.add(101);
                self.announcement(announcement);
            }
            Action::Request { request, peer, body } => {
                self.all([102, request.0, node(peer)]);
                self.request(body);
            }
            Action::Respond { call, response } => {
                self.all([103, call.0]);
                self.response(response);
            }
            Action::Fetch { fetch, content, source, pieces, .. } => {
                self.content(104, content);
                self.source(source);
                self.all([fetch.0, u64::from(pieces.start), u64::from(pieces.end)]);
            }
            Action::Expect { fetch, pieces } => self.all([105, fetch.0, run(pieces)]),
            Action::Drop { content, pieces } => {
                self.content(106, content);
                self.add(pieces.len() as u64);
            }
            Action::Recall { content } => self.content(107, content),
            Action::CancelFetch { fetch } => self.all([108, fetch.0]),
            Action::Rebuild { content, .. } => self.content(119, content),
            Action::CancelRebuild { content } => self.content(120, content),
            Action::Complete { content } => self.content(109, content),
            Action::AskOrigin { lookup, .. } => self.all([110, lookup.0]),
            Action::Remember(binding) => self.content(111, &binding.content),
            Action::WantEnded { want, result } => self.all([112, want.0, u64::from(result.is_ok())]),
            Action::Resolved { resolve, result } => self.all([113, resolve.0, u64::from(result.is_ok())]),
            Action::Promised { promise, missing } => self.all([114, promise.0, missing.len() as u64]),
            Action::PaceUplink { bytes_per_s } => self.all([115, *bytes_per_s]),
            Action::Note(_) => self.add(116),
            Action::Connect { peer } => self.all([117, node(peer)]),
            Action::Examine { from, content, .. } => {
                self.content(118, content);
                self.add(node(from));
            }
        }
    }
}

fn node(id: &NodeId) -> u64 {
    first_eight(id.public_key())
}
