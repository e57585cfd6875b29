//! What the admin and status servers see of the node, and nothing more.

use std::{collections::BTreeMap, future::Future, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use layermesh_proto::{
    ContentId,
    engine::{BindingView, budget::Wait, event::Provenance},
    wire::Binding,
};
use tokio::{sync::watch, time::Instant};

use super::types::{
    Attached, Blob, GcItem, GcReport, GcRequest, ListenStatus, NodeStatus, OriginStatus, Peer, Tag, TransferStatus,
};
use crate::{
    config::units::show_duration,
    contents::Platform,
    counters::Counters,
    fleet::Fleet,
    mesh::{self, Mesh, MeshStatus},
    release::status::ReleasesView,
    store::{AttachedStore, Collected, CollectedKind, PinOwner},
};

/// What is needed of the store. Cheap to clone.
pub trait StoreView: Clone + Send + Sync + 'static {
    /// Keeps blobs while it lives.
    type Hold: Send + Sync + 'static;

    /// Sums over the store.
    fn totals(&self) -> StoreTotals;
    /// All blobs held whole.
    fn list(&self) -> Vec<StoreBlob>;
    /// Size of a blob in bytes if it is held whole.
    fn size_of(&self, content: &ContentId) -> Option<u64>;
    /// A whole blob of at most `bytes_max`, verified; the error is for people.
    fn read_whole(&self, content: &ContentId, bytes_max: u64) -> impl Future<Output = Result<Bytes, String>> + Send;
    /// Keeps a blob, held or to come, from being removed for want of room while the answer lives.
    fn hold(&self, content: ContentId) -> Self::Hold;
    /// The same for blobs of these sizes in bytes, and sees to it that there is room for all of them; the error is for
    /// people.
    fn reserve(&self, parts: Vec<(ContentId, u64)>) -> impl Future<Output = Result<Self::Hold, String>> + Send;
    /// All owners of pins, and what each has pinned.
    fn pins(&self) -> Vec<(PinOwner, Vec<ContentId>)>;
    /// Pins exactly these for an owner; the error is for people.
    fn replace_pins(
        &self,
        owner: PinOwner,
        contents: Vec<ContentId>,
    ) -> impl Future<Output = Result<(), String>> + Send;
    /// Takes away an owner's pins, and says how many there were; the error is for people.
    fn unpin(&self, owner: PinOwner) -> impl Future<Output = Result<usize, String>> + Send;
    /// Reads a whole blob at most this many bytes a second, and says whether it is as it was; if not, it has been
    /// withdrawn. The error is for people.
    fn verify(&self, content: ContentId, bytes_per_s: u64) -> impl Future<Output = Result<bool, String>> + Send;
    /// What tags are known to stand for.
    fn bindings(&self) -> impl Future<Output = Vec<Binding>> + Send;
    /// Attaches a directory of blobs for good; the error is for people.
    fn attach(&self, dir: PathBuf, reuse: bool) -> impl Future<Output = Result<(), String>> + Send;
    /// Lets go of one, and says whether it was attached; the error is for people.
    fn detach(&self, dir: PathBuf) -> impl Future<Output = Result<bool, String>> + Send;
    /// Those that are attached.
    fn attached(&self) -> Vec<AttachedStore>;
    /// Removes what was abandoned, and what is used least beyond `target` bytes, or says what would go; the error is for
    /// people.
    fn collect(
        &self,
        target: Option<u64>,
        dry_run: bool,
    ) -> impl Future<Output = Result<Vec<Collected>, String>> + Send;
}

/// Sums over the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreTotals {
    /// Blobs held whole.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Durable bytes of blobs held in part.
    pub partial_bytes: u64,
    /// Blobs that only attached stores have.
    pub attached_blobs: u64,
    /// Their bytes.
    pub attached_bytes: u64,
    /// Bytes of blobs held whole that are pinned.
    pub pinned_bytes: u64,
    /// Bytes that blobs may take together.
    pub quota: u64,
    /// Bytes that are free on the disk; 0 if it does not say.
    pub disk_free: u64,
    /// Bytes of it that blobs leave free.
    pub disk_free_min: u64,
    /// Size of the disk; 0 if it does not say.
    pub disk_size: u64,
}

/// A blob held whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreBlob {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is in the store itself, not in an attached one.
    pub own: bool,
}

/// What does not change while the node runs, but for its addresses.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node's libp2p peer id.
    pub peer_id: String,
    /// The fleet.
    pub fleet: String,
    /// When the node started.
    pub started: Instant,
    /// What was bound.
    pub listen: ListenStatus,
    /// Multiaddresses at which peers reach the node; they follow the network interfaces.
    pub addresses: watch::Receiver<Vec<String>>,
    /// How signed releases stand.
    pub releases: ReleasesView,
    /// Who is let in.
    pub fleet_of_node: Fleet,
}

/// The node as its admin and status servers see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeView<S> {
    /// The mesh.
    pub mesh: Mesh,
    /// The store.
    pub store: S,
    /// Byte counts.
    pub counters: Arc<Counters>,
    /// Who and where the node is.
    pub facts: Arc<NodeFacts>,
}

impl<S: StoreView> NodeView<S> {
    /// The node and its mesh now.
    pub async fn status(&self) -> NodeStatus {
        self.status_in(self.mesh.status().await)
    }

    /// The node in a mesh that was looked at before.
    pub(crate) fn status_in(&self, mesh: MeshStatus) -> NodeStatus {
        let totals = self.store.totals();
        let (facts, counters) = (&self.facts, &self.counters);
        NodeStatus {
            peer_id: facts.peer_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: facts.started.elapsed().as_secs_f64(),
            fleet: facts.fleet.clone(),
            platform: Platform::of_this_device().to_string(),
            addresses: facts.addresses.borrow().clone(),
            listen: facts.listen.clone(),
            peers: mesh.peers.len(),
            blobs: totals.blobs,
            store_bytes: totals.bytes,
            partial_bytes: totals.partial_bytes,
            attached_blobs: totals.attached_blobs,
            attached_bytes: totals.attached_bytes,
            pinned_bytes: totals.pinned_bytes,
            quota: totals.quota,
            disk_free: totals.disk_free,
            disk_free_min: totals.disk_free_min,
            disk_size: totals.disk_size,
            bytes_from_origin: counters.from_origin.get(),
            bytes_from_peers: counters.from_peers.get(),
            bytes_to_peers: counters.to_peers.get(),
            bytes_to_runtimes: counters.to_runtimes.get(),
            bytes_discarded: counters.discarded.get(),
            uplink_bytes: mesh.uplink_bytes,
            uplink_surplus_bytes: mesh.uplink_surplus_bytes,
            penalised: mesh.penalised,
            origins: mesh
                .origins
                .into_iter()
                .map(|(registry, reachable)| OriginStatus { registry, reachable })
                .collect(),
            transfers: mesh.transfers.into_iter().map(TransferStatus::from).collect(),
            releases: facts.releases.status(),
            admission: Some(facts.fleet_of_node.status()),
        }
    }

    /// The connected peers.
    pub async fn peers(&self) -> Vec<Peer> {
        self.mesh.status().await.peers.into_iter().map(Peer::from).collect()
    }

    /// What is known of tags, in order.
    pub async fn tags(&self) -> Vec<Tag> {
        self.mesh.bindings().await.into_iter().map(Tag::from).collect()
    }

    /// The blobs held whole, largest first.
    pub fn blobs(&self) -> Vec<Blob> {
        let mut blobs = self.store.list();
        blobs.sort_by(|a, b| b.size.cmp(&a.size).then(a.content.cmp(&b.content)));
        let mut owners: BTreeMap<ContentId, Vec<String>> = BTreeMap::new();
        for (owner, contents) in self.store.pins() {
            for content in contents {
                owners.entry(content).or_default().push(owner.to_string());
            }
        }
        let mut shown = |blob: StoreBlob| Blob {
            digest: blob.content.to_string(),
            size: blob.size,
            pinned_by: owners.remove(&blob.content).unwrap_or_default(),
            attached: !blob.own,
        };
        blobs.into_iter().map(&mut shown).collect()
    }

    /// The attached stores.
    pub fn attached(&self) -> Vec<Attached> {
        let shown = |one: AttachedStore| Attached {
            path: one.dir.to_string_lossy().into_owned(),
            reuse: one.reuse,
            lasting: one.lasting,
            blobs: one.blobs,
            bytes: one.bytes,
            pending: one.pending,
            problem: one.problem,
        };
        self.store.attached().into_iter().map(shown).collect()
    }

    /// Removes what is not needed, or says what would go; the error is for people.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn collect(&self, request: GcRequest) -> Result<GcReport, String> {
        let removed = self.store.collect(request.to, request.dry_run).await?;
        let totals = self.store.totals();
        let item = |gone: Collected| GcItem {
            digest: gone.content.to_string(),
            bytes: gone.bytes,
            kind: match gone.kind {
                CollectedKind::Whole => "blob",
                CollectedKind::Begun => "begun",
                CollectedKind::Damaged => "damaged",
            }
            .to_owned(),
        };
        Ok(GcReport {
            dry_run: request.dry_run,
            removed: removed.into_iter().map(item).collect(),
            store_bytes: totals.bytes,
            pinned_bytes: totals.pinned_bytes,
            quota: totals.quota,
        })
    }
}

impl From<mesh::TransferStatus> for TransferStatus {
    fn from(transfer: mesh::TransferStatus) -> Self {
        Self {
            digest: transfer.content.to_string(),
            size: transfer.size,
            bytes: transfer.durable_bytes,
            sources: transfer.sources,
            quiet_s: transfer.quiet.as_secs(),
            waits_for: transfer.waits_for.map(waits_for),
        }
    }
}

/// What a transfer waits for, and how long if that is known.
pub(crate) fn waits_for(wait: Wait) -> String {
    match wait.minutes {
        None => wait.reason.to_string(),
        // Of the current minute some is over, but who waits for hours does not mind.
        Some(minutes) => {
            format!("{}, in {}", wait.reason, show_duration(Duration::from_secs(60) * u32::from(minutes)))
        }
    }
}

impl From<BindingView> for Tag {
    fn from(view: BindingView) -> Self {
        let BindingView { reference, resolution, release, fresh } = view;
        let (said_by, peer, observed) = match resolution.provenance {
            Provenance::Origin => ("origin", None, 0),
            Provenance::Remembered { observed_unix_s } => ("origin", None, observed_unix_s),
            Provenance::Peer { peer, observed_unix_s } => ("peer", Some(peer), observed_unix_s),
            Provenance::Signed => ("release", None, 0),
        };
        Self {
            tag: reference.to_string(),
            digest: resolution.content.to_string(),
            said_by: said_by.to_owned(),
            peer: peer.map(|peer| peer.to_string()),
            release: release.filter(|_| resolution.provenance == Provenance::Signed),
            observed_unix_s: Some(observed).filter(|observed| *observed > 0),
            age_s: resolution.age.map(|age| age.as_secs()),
            fresh,
        }
    }
}

impl From<mesh::PeerStatus> for Peer {
    fn from(peer: mesh::PeerStatus) -> Self {
        Self {
            peer_id: peer.peer.to_string(),
            address: peer.address.to_string(),
            bulk: peer.bulk.map(|address| address.to_string()),
            version: peer.version,
            platform: peer.platform,
            blobs: peer.blobs,
        }
    }
}
