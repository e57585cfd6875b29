//! What the admin and status servers see of the node, and nothing more.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use layermesh_proto::{
    ContentId,
    engine::{BindingView, budget::Wait, event::Provenance},
};
use tokio::{sync::watch, time::Instant};

use super::types::{Blob, ListenStatus, NodeStatus, OriginStatus, Peer, Tag, TransferStatus};
use crate::{
    config::units::show_duration,
    contents::Platform,
    counters::Counters,
    mesh::{self, Mesh},
};

/// What is needed of the store. Cheap to clone.
pub trait StoreView: Clone + Send + Sync + 'static {
    /// Sums over the store.
    fn totals(&self) -> StoreTotals;
    /// All blobs held whole.
    fn list(&self) -> Vec<StoreBlob>;
    /// Size of a blob in bytes if it is held whole.
    fn size_of(&self, content: &ContentId) -> Option<u64>;
    /// A whole blob of at most `bytes_max`, verified; the error is for people.
    fn read_whole(&self, content: &ContentId, bytes_max: u64) -> impl Future<Output = Result<Bytes, String>> + Send;
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
}

/// A blob held whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreBlob {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
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
        let mesh = self.mesh.status().await;
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
            bytes_from_origin: counters.from_origin.get(),
            bytes_from_peers: counters.from_peers.get(),
            bytes_to_peers: counters.to_peers.get(),
            bytes_to_runtimes: counters.to_runtimes.get(),
            bytes_discarded: counters.discarded.get(),
            origins: mesh
                .origins
                .into_iter()
                .map(|(registry, reachable)| OriginStatus { registry, reachable })
                .collect(),
            transfers: mesh.transfers.into_iter().map(TransferStatus::from).collect(),
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
        let shown = |blob: StoreBlob| Blob { digest: blob.content.to_string(), size: blob.size };
        blobs.into_iter().map(shown).collect()
    }
}

impl From<mesh::TransferStatus> for TransferStatus {
    fn from(transfer: mesh::TransferStatus) -> Self {
        Self {
            digest: transfer.content.to_string(),
            size: transfer.size,
            bytes: transfer.durable_bytes,
            sources: transfer.sources,
            waits_for: transfer.waits_for.map(waits_for),
        }
    }
}

/// What a transfer waits for, and how long if that is known.
fn waits_for(wait: Wait) -> String {
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
