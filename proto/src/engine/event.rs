//! What goes into the engine and what comes out.
//!
//! Every [`Action`] that asks for something carries an id; the [`Event`] that answers it echoes the id. An
//! answer to an id that the engine no longer knows is ignored, so drivers never need to cancel precisely.

use std::{
    fmt,
    ops::{Add, Range},
    time::Duration,
};

use thiserror::Error;

use super::{budget::Urgency, rebuilding::Rebuild, releases::Examined};

use crate::{
    ContentId, NodeId, ObjectKind, PieceHash, PieceIndex, PieceSet, Repository, TagRef,
    wire::{Announcement, Binding, ControlRequest, ControlResponse, Following, Rollout},
};

/// A moment on the driver's monotonic clock: nanoseconds since a start of its choosing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanos` nanoseconds after the clock's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this moment, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A want: somebody on this device needs a blob. Chosen by the driver.
    WantId
);
id!(
    /// A question what a tag stands for. Chosen by the driver.
    ResolveId
);
id!(
    /// A question whether blobs can be had. Chosen by the driver.
    PromiseId
);
id!(
    /// A control request that a peer sent. Chosen by the driver.
    CallId
);
id!(
    /// A fetch of pieces from one source. Chosen by the engine.
    FetchId
);
id!(
    /// A control request to a peer. Chosen by the engine.
    RequestId
);
id!(
    /// A question to an origin. Chosen by the engine.
    LookupId
);

/// Where pieces come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A node of this site that holds the blob.
    Peer(NodeId),
    /// The registry, asked for the object in this repository.
    Origin(Repository, ObjectKind),
}

/// Why a question to an origin, or a fetch from it or from a peer, failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No connection, no answer, or one that broke off. Another try may work.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// The source answered and does not have it. Final for this source.
    #[error("not found")]
    NotFound,
    /// The source wants credentials that this node lacks. Final until they change.
    #[error("not authorised: {0}")]
    Unauthorized(String),
    /// The source asks to slow down.
    #[error("rate limited")]
    RateLimited {
        /// How long it asked to wait, if it said.
        retry_after: Option<Duration>,
    },
    /// The source answers that it is ill (5xx). Another try may work.
    #[error("out of order: {0}")]
    Unavailable(String),
    /// The source's answer makes no sense.
    #[error("failed: {0}")]
    Failed(String),
    /// The source sent bytes that do not have the hash that was vouched for.
    #[error("sent wrong bytes")]
    WrongBytes,
    /// This device could not store what came (disk full, read-only, damaged). Not the source's fault.
    #[error("cannot store: {0}")]
    Store(String),
    /// The driver stopped it because the engine said so.
    #[error("cancelled")]
    Cancelled,
}

/// What an origin said of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginTag {
    /// The manifest or index that the tag stands for.
    pub content: ContentId,
    /// The wall clock when the answer came, in seconds since the Unix epoch; 0 if it is not set.
    pub now_unix_s: u64,
}

/// What a tag stands for in a signed release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBinding {
    /// The tag.
    pub reference: TagRef,
    /// The manifest or index.
    pub content: ContentId,
    /// The release, for people: its channel and version.
    pub release: String,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is connected (its first connection).
    PeerConnected {
        /// The peer.
        peer: NodeId,
    },
    /// A peer's last connection is gone.
    PeerDisconnected {
        /// The peer.
        peer: NodeId,
    },
    /// A gossip message arrived; its signature is the author's.
    Announced {
        /// The author.
        from: NodeId,
        /// The author's later messages have higher numbers. Messages may overtake each other on their way.
        sequence: u64,
        /// The message.
        announcement: Announcement,
    },
    /// A peer asks. Answered by [`Action::Respond`] with the same id.
    Requested {
        /// The driver's id of the question.
        call: CallId,
        /// Who asks.
        from: NodeId,
        /// The question.
        request: ControlRequest,
    },
    /// A peer answered [`Action::Request`].
    Responded {
        /// Id of the action.
        request: RequestId,
        /// The answer.
        response: ControlResponse,
    },
    /// [`Action::Request`] got no answer.
    RequestFailed {
        /// Id of the action.
        request: RequestId,
    },
    /// The store holds this blob: whole, verified and durable. Sent for everything it holds at start, and when
    /// [`Action::Complete`] succeeded.
    Held {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
    },
    /// The store no longer holds a blob whole: evicted, vanished, or found damaged.
    Lost {
        /// The blob.
        content: ContentId,
    },
    /// The store has some durable pieces of a blob. Sent at start, and after [`Event::Lost`] for the pieces of
    /// a damaged blob that are still good.
    PartlyHeld {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
        /// The pieces.
        pieces: PieceSet,
    },
    /// The store remembers a binding. Sent at start, without an age; and with one when somebody on this device says what a
    /// tag stands for, who brought an image along: then it counts like an origin's word.
    BindingKnown(Binding),
    /// The releases that this node follows and whose signatures it checked say what these tags stand for. Each such event
    /// replaces the one before; of two bindings of a tag in one event the first counts. Sent at start and whenever
    /// something of it changed.
    SignedBindings(Vec<SignedBinding>),
    /// Somebody on this device needs a blob. Answered by [`Action::WantEnded`].
    Want {
        /// The driver's id.
        want: WantId,
        /// The blob.
        content: ContentId,
        /// Its kind, which decides the origin's endpoint.
        kind: ObjectKind,
        /// Where an origin has it, if whoever wants it knows.
        repository: Option<Repository>,
        /// Whether somebody waits for it.
        urgency: Urgency,
        /// Most bytes that it may have; a larger one ends the want with [`WantError::TooLarge`].
        size_max: Option<u64>,
    },
    /// A want's reader stands at this byte; pieces from here on are needed first.
    ReaderAt {
        /// The want.
        want: WantId,
        /// Byte offset in the blob.
        offset: u64,
    },
    /// Nobody waits for this want any more. Its id is forgotten; no [`Action::WantEnded`] follows.
    Unwant {
        /// The want.
        want: WantId,
    },
    /// What does this tag stand for? Answered by [`Action::Resolved`].
    Resolve {
        /// The driver's id.
        resolve: ResolveId,
        /// The tag.
        reference: TagRef,
        /// The wall clock, in seconds since the Unix epoch; 0 if it is not set.
        now_unix_s: u64,
    },
    /// Could all of these be had now, from this device, its peers or the origin? Answered by [`Action::Promised`].
    Promise {
        /// The driver's id.
        promise: PromiseId,
        /// The blobs.
        contents: Vec<ContentId>,
        /// Where an origin has them.
        repository: Repository,
    },
    /// A fetch's source answered and said how large the blob is; its partial is open.
    FetchStarted {
        /// Id of the action.
        fetch: FetchId,
        /// Size of the blob in bytes.
        size: u64,
        /// Whether the source gives the part that was asked for. One that does not sends the blob from its start to
        /// its end.
        ranged: bool,
    },
    /// Bytes came in since the last such event; none says that this device is busy storing what came, so that the source is
    /// not to blame for the silence. Sent at most a few times a second per fetch.
    FetchProgress {
        /// Id of the action.
        fetch: FetchId,
        /// Bytes since then.
        bytes: u64,
    },
    /// Pieces of a fetch are verified and written; [`Action::Complete`] makes them durable.
    FetchStored {
        /// Id of the action.
        fetch: FetchId,
        /// The pieces, and the hashes of their bytes.
        pieces: Vec<(PieceIndex, PieceHash)>,
    },
    /// The hashes of the pieces that the store has of a blob, whole or not. Answers [`Action::Recall`].
    Recalled {
        /// The blob.
        content: ContentId,
        /// The pieces and their hashes.
        pieces: Vec<(PieceIndex, PieceHash)>,
    },
    /// A fetch is over: all its pieces are written, or it failed. Nothing follows with this id.
    FetchEnded {
        /// Id of the action.
        fetch: FetchId,
        /// How it ended.
        result: Result<(), SourceError>,
    },
    /// This device can make a blob of one that it holds, with a patch. The last word on a blob counts; sent before the blob is
    /// wanted, or soon after.
    Rebuildable {
        /// The blob.
        content: ContentId,
        /// How.
        rebuild: Rebuild,
    },
    /// [`Action::Rebuild`] gets on: with the patch, or with the work. Sent at most a few times a second.
    RebuildProgress {
        /// The blob.
        content: ContentId,
        /// Bytes of [`Rebuild::work`] that are done; 0 as long as the patch is on its way.
        done: u64,
    },
    /// [`Action::Rebuild`] came to nothing. What it wrote of the blob is gone.
    RebuildFailed {
        /// The blob.
        content: ContentId,
        /// Why: [`SourceError::WrongBytes`] if the patch does not make the blob.
        error: SourceError,
    },
    /// [`Action::Complete`] did not take a blob in. Its pieces are kept.
    CompleteFailed {
        /// The blob.
        content: ContentId,
        /// Why: [`SourceError::WrongBytes`] if all of it together does not have its digest, or [`SourceError::Store`].
        error: SourceError,
    },
    /// An origin answered [`Action::AskOrigin`], or did not.
    OriginAnswered {
        /// Id of the action.
        lookup: LookupId,
        /// The answer.
        result: Result<OriginTag, SourceError>,
    },
    /// This node follows signed releases, and has verified this metadata of theirs. Sent at start and whenever something of it
    /// changed.
    Following(Following),
    /// [`Action::Examine`] is done.
    Examined {
        /// The metadata.
        content: ContentId,
        /// What came of it.
        examined: Examined,
    },
    /// How far this node is with the releases that it follows.
    Rollout(Rollout),
    /// A minute of the local wall clock begins, or has begun when the driver starts. Sent each minute while the clock is
    /// known to be right, and only when [`super::Uplink::windows`] has any.
    Clock {
        /// Minutes since Monday 00:00, local time.
        minute_of_week: u16,
    },
    /// The time that [`super::Engine::next_deadline`] named has come.
    Tick,
}

/// How a want ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WantError {
    /// No peer has it and the origin says that it does not exist.
    #[error("no peer holds it and the origin does not have it")]
    NotFound,
    /// No peer has it and the origin refuses without (other) credentials.
    #[error("no peer holds it and the origin refused access: {0}")]
    Unauthorized(String),
    /// No peer has it and the origin cannot give it now.
    #[error("no peer holds it and the origin cannot give it: {0}")]
    Unavailable(String),
    /// It is larger than whoever wants it can use.
    #[error("it has {0} bytes, which is more than it may have")]
    TooLarge(u64),
    /// This device cannot store it.
    #[error("this device cannot store it: {0}")]
    Store(String),
    /// The registry's rule is to believe signed releases only, and none says anything.
    #[error(
        "no signed release that this node follows says what this tag stands for: publish one that does, or let the \
         registry's `policy` be another than `signed-only`"
    )]
    NotSigned,
    /// Too many wants are open.
    #[error("too many transfers are open on this node")]
    Busy,
}

/// Who said what a tag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// The origin, now.
    Origin,
    /// The origin, to this node, earlier.
    Remembered {
        /// When, in seconds since the Unix epoch by this node's clock; 0 if that was not set.
        observed_unix_s: u64,
    },
    /// The origin, to a peer.
    Peer {
        /// The peer.
        peer: NodeId,
        /// When, by the peer's clock; 0 if that was not set.
        observed_unix_s: u64,
    },
    /// A signed release.
    Signed,
}

/// Why an answer stands, although the origin may not have been asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The origin was asked.
    Asked,
    /// The origin told somebody on the site a moment ago ([`super::tags::TagRule::fresh_for`]).
    Fresh,
    /// The registry's rule lets the site or a release say it.
    Policy,
    /// The origin does not answer; this is the newest that is known.
    Away,
}

/// What a tag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// The manifest or index.
    pub content: ContentId,
    /// Who said so.
    pub provenance: Provenance,
    /// Why that is good enough.
    pub basis: Basis,
    /// How long ago the origin said so, if it did and that is known.
    pub age: Option<Duration>,
}

/// Something that people should know; the driver logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A source failed and another is tried.
    SourceFailed {
        /// The blob.
        content: ContentId,
        /// The source.
        source: Source,
        /// What happened.
        error: SourceError,
    },
    /// A fetch made no progress for too long and was cancelled.
    Stalled {
        /// The blob.
        content: ContentId,
        /// The source.
        source: Source,
    },
    /// A peer vouched for pieces that together are not the blob, or sent pieces that are not what was vouched
    /// for. It is not asked for a while.
    PeerPenalised {
        /// The peer.
        peer: NodeId,
        /// The blob.
        content: ContentId,
    },
    /// A blob could not be made of one that this device holds; it is fetched.
    RebuildFailed {
        /// The blob.
        content: ContentId,
        /// The patch.
        patch: ContentId,
        /// What happened.
        error: SourceError,
    },
    /// Making a blob got on no further and was given up; it is fetched.
    RebuildStalled {
        /// The blob.
        content: ContentId,
    },
    /// An origin that answered before does not, or does again.
    OriginReachability {
        /// The registry.
        registry: String,
        /// Whether it answers.
        reachable: bool,
    },
    /// A peer broke the protocol; what it sent was ignored.
    ProtocolViolation {
        /// The peer.
        peer: NodeId,
        /// What it did.
        what: &'static str,
    },
    /// A peer says that it has verified metadata of releases which this node does not believe. What it offers is not looked at
    /// for a while.
    ReleasesRefused {
        /// The peer.
        peer: NodeId,
    },
    /// Something was not taken up because a limit was reached.
    LimitReached {
        /// Name of the limit.
        limit: &'static str,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Gossip this.
    Announce(Announcement),
    /// Ask a peer. Answered by [`Event::Responded`] or [`Event::RequestFailed`].
    Request {
        /// The engine's id.
        request: RequestId,
        /// Whom to ask.
        peer: NodeId,
        /// The question.
        body: ControlRequest,
    },
    /// Answer [`Event::Requested`].
    Respond {
        /// Id of the event.
        call: CallId,
        /// The answer.
        response: ControlResponse,
    },
    /// Get metadata of releases that a peer says it has verified, and look whether it may be believed. Answered by
    /// [`Event::Examined`].
    Examine {
        /// The peer.
        from: NodeId,
        /// The metadata's version, as the peer says.
        version: u64,
        /// The manifest of its files.
        content: ContentId,
    },
    /// Connect to a node that is not a peer and has what is needed, beyond the number of peers that is usual. Answered by
    /// [`Event::PeerConnected`] if it works; nothing waits for it for long.
    Connect {
        /// The node.
        peer: NodeId,
    },
    /// Fetch pieces and store them. Answered by events that end with [`Event::FetchEnded`].
    Fetch {
        /// The engine's id.
        fetch: FetchId,
        /// The blob.
        content: ContentId,
        /// From where.
        source: Source,
        /// The blob's size in bytes; `None` if it is not known yet, and then `pieces` is `0..u32::MAX` and an origin
        /// is asked for the first [`crate::FIRST_BYTES`].
        size: Option<u64>,
        /// Which pieces, in order. The end may lie beyond the blob's last piece.
        pieces: Range<PieceIndex>,
        /// The source is a peer that has not the whole blob yet: its pieces come as they land there, and each must have
        /// the hash that `expected` or a later [`Action::Expect`] gives. A peer that has it all gives the hashes itself.
        growing: bool,
        /// Hashes of pieces of a growing blob, as far as they are known.
        expected: Vec<(PieceIndex, PieceHash)>,
    },
    /// Hashes of more pieces of a fetch of a growing blob; for a piece that has one already, this one counts.
    Expect {
        /// Id of the fetch.
        fetch: FetchId,
        /// The pieces and their hashes.
        pieces: Vec<(PieceIndex, PieceHash)>,
    },
    /// Some stored pieces of a blob that is not whole are not the blob's: they are to be removed.
    Drop {
        /// The blob.
        content: ContentId,
        /// The pieces.
        pieces: Vec<PieceIndex>,
    },
    /// Which hashes have the pieces that the store has of a blob? Answered by [`Event::Recalled`].
    Recall {
        /// The blob.
        content: ContentId,
    },
    /// Stop a fetch. What it stored stays.
    CancelFetch {
        /// Id of the fetch.
        fetch: FetchId,
    },
    /// Get a patch, make the blob with it of one that this device holds, check it, and take it into the store, durably.
    /// Answered by [`Event::Held`] or [`Event::RebuildFailed`], with [`Event::RebuildProgress`] on the way.
    Rebuild {
        /// The blob.
        content: ContentId,
        /// The patch, as [`Event::Rebuildable`] named it.
        patch: ContentId,
        /// Whether somebody waits for the blob.
        urgency: Urgency,
    },
    /// Stop making a blob. What was written of it goes.
    CancelRebuild {
        /// The blob.
        content: ContentId,
    },
    /// All pieces are written: check the whole blob and take it into the store, durably. Answered by [`Event::Held`] or
    /// [`Event::CompleteFailed`].
    Complete {
        /// The blob.
        content: ContentId,
    },
    /// Ask an origin what a tag stands for. Answered by [`Event::OriginAnswered`].
    AskOrigin {
        /// The engine's id.
        lookup: LookupId,
        /// The tag.
        reference: TagRef,
    },
    /// Keep a binding across restarts.
    Remember(Binding),
    /// Answers [`Event::Want`]: the blob is held, or cannot be had.
    WantEnded {
        /// The driver's id.
        want: WantId,
        /// How it ended.
        result: Result<(), WantError>,
    },
    /// Answers [`Event::Resolve`].
    Resolved {
        /// The driver's id.
        resolve: ResolveId,
        /// What the tag stands for.
        result: Result<Resolution, WantError>,
    },
    /// Answers [`Event::Promise`].
    Promised {
        /// The driver's id.
        promise: PromiseId,
        /// The blobs that neither this device nor a connected peer holds and no origin can give; empty is yes.
        missing: Vec<ContentId>,
    },
    /// From now on take no more than this from all origins together.
    PaceUplink {
        /// Bytes a second, this node's share of what the site may take.
        bytes_per_s: u64,
    },
    /// Tell people.
    Note(Note),
}
