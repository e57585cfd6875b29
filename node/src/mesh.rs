//! The mesh as the rest of the node sees it: ask for a blob, ask what a tag stands for.
//!
//! A [`Mesh`] is a handle on the driver's queue. It holds no state of its own, so a test can stand in for the
//! driver by answering [`Command`]s.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use layermesh_proto::{
    ContentId, NodeId, ObjectKind, Repository, TagRef,
    engine::{
        BindingView, Rebuild, Urgency,
        budget::Wait,
        event::{PromiseId, Resolution, ResolveId, SignedBinding, SourceError, WantError, WantId},
        overview::{Bounds, Overview},
        releases::Examined,
    },
    wire::{Binding, Following, Rollout},
};
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait for the driver. The driver never awaits, so the queue is empty but for bursts; a full
/// one makes the mirror's requests wait.
pub const COMMAND_QUEUE_LEN: usize = 256;

/// Something asked of the driver.
#[derive(Debug)]
pub enum Command {
    /// A blob is needed.
    Want {
        /// Id of the want.
        want: WantId,
        /// The blob.
        content: ContentId,
        /// Its kind.
        kind: ObjectKind,
        /// Where an origin has it, if known.
        repository: Option<Repository>,
        /// Whether somebody waits for it.
        urgency: Urgency,
        /// Most bytes that it may have.
        size_max: Option<u64>,
        /// Where to say how it ended.
        ended: oneshot::Sender<Result<(), WantError>>,
    },
    /// A want's reader stands here.
    ReaderAt {
        /// The want.
        want: WantId,
        /// Byte offset.
        offset: u64,
    },
    /// A want is no longer needed.
    Unwant {
        /// The want.
        want: WantId,
    },
    /// What does a tag stand for?
    Resolve {
        /// Id of the question.
        resolve: ResolveId,
        /// The tag.
        reference: TagRef,
        /// Where to answer.
        answer: oneshot::Sender<Result<Resolution, WantError>>,
    },
    /// Can all of these be had?
    Promise {
        /// Id of the question.
        promise: PromiseId,
        /// The blobs.
        contents: Vec<ContentId>,
        /// Where an origin has them.
        repository: Repository,
        /// Where to answer with those that cannot.
        answer: oneshot::Sender<Vec<ContentId>>,
    },
    /// Which tags of a repository are known on this site?
    KnownTags {
        /// The repository.
        repository: Repository,
        /// Where to answer.
        answer: oneshot::Sender<Vec<String>>,
    },
    /// What is known of every tag?
    Bindings {
        /// Where to answer.
        answer: oneshot::Sender<Vec<BindingView>>,
    },
    /// Signed releases say what these tags stand for, and no others.
    SignedBindings(Vec<SignedBinding>),
    /// What does the site know that a tag stands for, without asking its origin?
    Recall {
        /// The tag.
        reference: TagRef,
        /// Where to answer.
        answer: oneshot::Sender<Option<Resolution>>,
    },
    /// Who holds these blobs?
    Holders {
        /// The blobs.
        contents: Vec<ContentId>,
        /// Where to answer with the connected peers that hold each.
        answer: oneshot::Sender<Vec<Vec<NodeId>>>,
    },
    /// The store has taken a blob in that somebody brought: it is whole, verified and durable.
    TookIn {
        /// The blob.
        content: ContentId,
        /// Its size in bytes.
        size: u64,
    },
    /// An image is about to be pulled; it is looked whether its layers can be made of others.
    Prepare(Prepare),
    /// This device can make a blob of one that it holds.
    Rebuildable {
        /// The blob.
        content: ContentId,
        /// How.
        rebuild: Rebuild,
    },
    /// How far a blob is that is made.
    RebuildProgress {
        /// The blob.
        content: ContentId,
        /// Bytes of the work that are done.
        done: u64,
    },
    /// A blob could not be made.
    RebuildFailed {
        /// The blob.
        content: ContentId,
        /// Why.
        error: SourceError,
    },
    /// Somebody on this device says what a tag stands for; the store has recorded it.
    Bind(Binding),
    /// This node follows releases and has verified this metadata of theirs.
    Following(Following),
    /// Metadata that [`Examine`] names was looked at.
    Examined {
        /// The metadata.
        content: ContentId,
        /// What came of it.
        examined: Examined,
    },
    /// How far is this node with its releases?
    Rollout(Rollout),
    /// For which platforms do followers of a channel keep releases?
    FollowerPlatforms {
        /// The channel.
        channel: String,
        /// Where to answer.
        answer: oneshot::Sender<Vec<String>>,
    },
    /// Which of these blobs is this node to keep?
    Keeps {
        /// The channel.
        channel: String,
        /// The blobs, each with the platforms of followers that need it.
        blobs: Vec<(ContentId, Vec<String>)>,
        /// Where to answer, in their order.
        answer: oneshot::Sender<Vec<bool>>,
    },
    /// How far are the nodes of this site?
    Rollouts {
        /// Where to answer.
        answer: oneshot::Sender<Vec<(NodeId, Rollout)>>,
    },
    /// How is the mesh?
    Status {
        /// Where to answer.
        answer: oneshot::Sender<MeshStatus>,
    },
    /// How is the site?
    Overview {
        /// How long the lists may be.
        bounds: Bounds,
        /// Where to answer.
        answer: oneshot::Sender<(MeshStatus, Overview)>,
    },
}

/// An image that is about to be pulled.
#[derive(Debug)]
pub struct Prepare {
    /// Where its registry has it.
    pub repository: Repository,
    /// Its manifest.
    pub manifest: ContentId,
    /// The manifest's bytes.
    pub bytes: Bytes,
    /// Artifacts with patches to it that are known to be the right ones; if there are none, its registry's list of what
    /// refers to it is looked at.
    pub patches: Vec<ContentId>,
    /// Whether somebody waits for it.
    pub urgency: Urgency,
    /// Where to say that its layers may be wanted.
    pub done: oneshot::Sender<()>,
}

/// Metadata of releases that is to be looked at, for whoever has the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Examine {
    /// Who offers it.
    pub from: NodeId,
    /// The manifest of its files.
    pub content: ContentId,
}

/// The mesh as this node sees it now.
#[derive(Debug, Clone, Default)]
pub struct MeshStatus {
    /// Connected peers.
    pub peers: Vec<PeerStatus>,
    /// Transfers under way.
    pub transfers: Vec<TransferStatus>,
    /// Registries asked since the start, and whether they answered last time.
    pub origins: Vec<(String, bool)>,
    /// Connected peers that may have sent wrong bytes, and are not asked for any.
    pub penalised: usize,
    /// Bytes that crossed the site's uplink, as far as this node fetched them or heard of them.
    pub uplink_bytes: u64,
    /// Those of them that were more than one copy of a blob.
    pub uplink_surplus_bytes: u64,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The peer.
    pub peer: layermesh_proto::NodeId,
    /// Address it is connected from.
    pub address: std::net::IpAddr,
    /// Its bulk address, once it said hello.
    pub bulk: Option<std::net::SocketAddr>,
    /// Program version, once it said hello.
    pub version: Option<String>,
    /// Platform, once it said hello.
    pub platform: Option<String>,
    /// Blobs that it said it holds.
    pub blobs: usize,
}

/// A transfer under way.
#[derive(Debug, Clone)]
pub struct TransferStatus {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes, once known.
    pub size: Option<u64>,
    /// Bytes that are durable.
    pub durable_bytes: u64,
    /// Where the running fetches take their bytes from, for people.
    pub sources: Vec<String>,
    /// Since when nothing of it came.
    pub quiet: Duration,
    /// The repository that whoever wants it named.
    pub repository: Option<Repository>,
    /// What it waits for before it asks an origin, if it does.
    pub waits_for: Option<Wait>,
}

/// Handle on the driver.
#[derive(Debug, Clone)]
pub struct Mesh {
    commands: mpsc::Sender<Command>,
    next_id: Arc<AtomicU64>,
}

impl Mesh {
    /// A handle and the queue that the driver drains.
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE_LEN);
        (Self { commands, next_id: Arc::new(AtomicU64::new(1)) }, queue)
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks for a blob. It is fetched for as long as the [`Want`] lives.
    pub async fn want(
        &self,
        content: ContentId,
        kind: ObjectKind,
        repository: Option<Repository>,
        urgency: Urgency,
    ) -> Want {
        self.want_within(content, kind, repository, urgency, None).await
    }

    /// As [`Self::want`], for a blob of at most `size_max` bytes; a larger one cannot be had.
    pub async fn want_within(
        &self,
        content: ContentId,
        kind: ObjectKind,
        repository: Option<Repository>,
        urgency: Urgency,
        size_max: Option<u64>,
    ) -> Want {
        let want = WantId(self.id());
        let (ended, outcome) = oneshot::channel();
        // If the driver is gone, `ended` is dropped with the command and the want ends as unavailable.
        let _ = self.commands.send(Command::Want { want, content, kind, repository, urgency, size_max, ended }).await;
        Want { id: want, outcome: Outcome::Pending(outcome), commands: self.commands.clone() }
    }

    /// Asks what a tag stands for.
    ///
    /// # Errors
    /// If neither the origin nor anybody on the site can say.
    pub async fn resolve(&self, reference: TagRef) -> Result<Resolution, WantError> {
        let (answer, answered) = oneshot::channel();
        let resolve = ResolveId(self.id());
        let _ = self.commands.send(Command::Resolve { resolve, reference, answer }).await;
        answered.await.unwrap_or_else(|_| Err(shutting_down()))
    }

    /// Asks which of these blobs could not be had now; empty is a promise.
    pub async fn promise(&self, contents: Vec<ContentId>, repository: Repository) -> Vec<ContentId> {
        let (answer, answered) = oneshot::channel();
        let all = contents.clone();
        let promise = PromiseId(self.id());
        let _ = self.commands.send(Command::Promise { promise, contents, repository, answer }).await;
        answered.await.unwrap_or(all)
    }

    /// The tags of a repository that this node or its peers know bindings of.
    pub async fn known_tags(&self, repository: Repository) -> Vec<String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::KnownTags { repository, answer }).await;
        answered.await.unwrap_or_default()
    }

    /// What this node and its peers know of tags.
    pub async fn bindings(&self) -> Vec<BindingView> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Bindings { answer }).await;
        answered.await.unwrap_or_default()
    }

    /// Says what tags stand for in the releases that this node follows, once their signatures were checked. Replaces what
    /// was said before; nothing of it is kept across restarts.
    pub async fn signed_bindings(&self, signed: Vec<SignedBinding>) {
        let _ = self.commands.send(Command::SignedBindings(signed)).await;
    }

    /// What the site knows that a tag stands for, without asking its origin.
    pub async fn recall(&self, reference: TagRef) -> Option<Resolution> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Recall { reference, answer }).await;
        answered.await.ok().flatten()
    }

    /// The connected peers that hold each of these blobs.
    pub async fn holders(&self, contents: Vec<ContentId>) -> Vec<Vec<NodeId>> {
        let (answer, answered) = oneshot::channel();
        let nobody = vec![Vec::new(); contents.len()];
        let _ = self.commands.send(Command::Holders { contents, answer }).await;
        answered.await.unwrap_or(nobody)
    }

    /// Says that the store has taken a blob in that somebody brought: whole, verified and durable.
    pub async fn took_in(&self, content: ContentId, size: u64) {
        let _ = self.commands.send(Command::TookIn { content, size }).await;
    }

    /// An image of this manifest is about to be pulled: waits, for a few seconds at most, until it is known whether its layers
    /// can be made of others that are held. To be called before they are wanted.
    pub async fn prepare(
        &self,
        repository: Repository,
        (manifest, bytes): (ContentId, Bytes),
        patches: Vec<ContentId>,
        urgency: Urgency,
    ) {
        let (done, prepared) = oneshot::channel();
        let prepare = Prepare { repository, manifest, bytes, patches, urgency, done };
        let _ = self.commands.send(Command::Prepare(prepare)).await;
        // Nobody who would look is as good as nothing found.
        let _ = prepared.await;
    }

    /// Says that this device can make a blob of one that it holds.
    pub async fn rebuildable(&self, content: ContentId, rebuild: Rebuild) {
        let _ = self.commands.send(Command::Rebuildable { content, rebuild }).await;
    }

    /// Says how far a blob is that the engine wants to be made; once it is, [`Self::took_in`].
    pub async fn rebuild_progress(&self, content: ContentId, done: u64) {
        let _ = self.commands.send(Command::RebuildProgress { content, done }).await;
    }

    /// Says that a blob that the engine wants to be made could not be.
    pub async fn rebuild_failed(&self, content: ContentId, error: SourceError) {
        let _ = self.commands.send(Command::RebuildFailed { content, error }).await;
    }

    /// Says what a tag stands for, by the word of somebody on this device; the store has recorded it.
    pub async fn bind(&self, binding: Binding) {
        let _ = self.commands.send(Command::Bind(binding)).await;
    }

    /// Says which metadata of releases this node has verified.
    pub async fn following(&self, following: Following) {
        let _ = self.commands.send(Command::Following(following)).await;
    }

    /// Answers an [`Examine`].
    pub async fn examined(&self, content: ContentId, examined: Examined) {
        let _ = self.commands.send(Command::Examined { content, examined }).await;
    }

    /// Says how far this node is with its releases.
    pub async fn rollout(&self, rollout: Rollout) {
        let _ = self.commands.send(Command::Rollout(rollout)).await;
    }

    /// The platforms that followers of a channel keep releases for.
    pub async fn follower_platforms(&self, channel: String) -> Vec<String> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::FollowerPlatforms { channel, answer }).await;
        answered.await.unwrap_or_default()
    }

    /// Which of these blobs, each with the platforms of followers that need it, this node is to keep.
    pub async fn keeps(&self, channel: String, blobs: Vec<(ContentId, Vec<String>)>) -> Vec<bool> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Keeps { channel, blobs, answer }).await;
        answered.await.unwrap_or_default()
    }

    /// How far the nodes of this site are, this one first.
    pub async fn rollouts(&self) -> Vec<(NodeId, Rollout)> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Rollouts { answer }).await;
        answered.await.unwrap_or_default()
    }

    /// The mesh and the site as they are now, at the same moment; empty while the node shuts down.
    pub async fn overview(&self, bounds: Bounds) -> (MeshStatus, Overview) {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Overview { bounds, answer }).await;
        answered.await.unwrap_or_default()
    }

    /// The mesh as it is now; empty while the node shuts down.
    pub async fn status(&self) -> MeshStatus {
        self.ask_status().await.unwrap_or_default()
    }

    /// Whether the engine's task answers. Waits for as long as it does not.
    pub async fn answers(&self) -> bool {
        self.ask_status().await.is_some()
    }

    async fn ask_status(&self) -> Option<MeshStatus> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Status { answer }).await;
        answered.await.ok()
    }
}

fn shutting_down() -> WantError {
    WantError::Unavailable("the node is shutting down".to_owned())
}

#[derive(Debug)]
enum Outcome {
    Pending(oneshot::Receiver<Result<(), WantError>>),
    Known(Result<(), WantError>),
}

/// A blob that is being had. Dropping it says that nobody waits any more.
#[derive(Debug)]
pub struct Want {
    id: WantId,
    outcome: Outcome,
    commands: mpsc::Sender<Command>,
}

impl Want {
    /// Waits until the blob is held or cannot be had. Can be called again and says the same.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub async fn ended(&mut self) -> Result<(), WantError> {
        if let Outcome::Pending(outcome) = &mut self.outcome {
            let result = outcome.await.unwrap_or_else(|_| Err(shutting_down()));
            self.outcome = Outcome::Known(result);
        }
        match &self.outcome {
            Outcome::Known(result) => result.clone(),
            Outcome::Pending(_) => Err(shutting_down()),
        }
    }

    /// Says where the reader stands, so that pieces from there on come first. A hint: lost when the queue is full.
    pub fn reader_at(&self, offset: u64) {
        let _ = self.commands.try_send(Command::ReaderAt { want: self.id, offset });
    }
}

impl Drop for Want {
    fn drop(&mut self) {
        // Should the queue be full, the driver finds the closed outcome by itself.
        let _ = self.commands.try_send(Command::Unwant { want: self.id });
    }
}
