//! The site as one document, for the status page and `layermesh top`.
//!
//! Invariant: however many ask, it is made at most once in [`FRESH`], one at a time, and each list in it is bounded.

use std::{sync::Arc, time::Duration};

use axum::body::Bytes;
use layermesh_proto::engine::overview::{Bounds, DeviceView, Overview};
use tokio::{sync::Mutex, time::Instant};

use super::{
    images::{Found, Images},
    problems::{Seen, problems},
};
use crate::{
    admin::{
        NodeView, StoreView,
        types::{SiteCrossed, SiteDevice, SiteLayer, SiteStatus, SiteTransfer, SiteUplink},
    },
    mesh::MeshStatus,
};

/// The page asks once a second; who asks sooner, or beside it, is told the same.
const FRESH: Duration = Duration::from_millis(500);
/// Images are looked at so often: it reads manifests.
const IMAGES_FRESH: Duration = Duration::from_secs(2);

/// Devices: as many as the picture of a site shows. Layers and transfers: what a person reads.
const BOUNDS: Bounds = Bounds { devices: 1000, under_way: 50, fetching: 8, held: 200, crossed: 64 };

/// Makes the document.
#[derive(Debug)]
pub struct Site<S> {
    view: NodeView<S>,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    document: Option<(Instant, Bytes)>,
    images: Images,
    found: Option<(Instant, Found)>,
}

impl<S: StoreView> Site<S> {
    /// Of this node. Nothing is made yet.
    pub fn new(view: NodeView<S>) -> Arc<Self> {
        Arc::new(Self { view, made: Mutex::new(Made::default()) })
    }

    /// The document as JSON.
    ///
    /// # Errors
    /// If it cannot be written as JSON, which would be a mistake here.
    pub(super) async fn json(&self) -> Result<Bytes, serde_json::Error> {
        let mut made = self.made.lock().await;
        if let Some((_, document)) = made.document.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(document.clone());
        }
        let found = match &made.found {
            Some((at, found)) if at.elapsed() < IMAGES_FRESH => found.clone(),
            _ => {
                let found = made.images.look(&self.view.mesh, &self.view.store).await;
                made.found = Some((Instant::now(), found.clone()));
                found
            }
        };
        let document = Bytes::from(serde_json::to_vec(&look(&self.view, found).await)?);
        made.document = Some((Instant::now(), document.clone()));
        Ok(document)
    }
}

/// The site now.
async fn look<S: StoreView>(view: &NodeView<S>, found: Found) -> SiteStatus {
    let (mesh, seen) = view.mesh.overview(BOUNDS).await;
    let devices = devices(view, &mesh, &seen.devices);
    let under_way = under_way(&mesh, &seen, &found);
    let layers = layers(&seen, &found);
    let uplink = uplink(&seen);
    let node = super::public(view.status_in(mesh));
    let attached_ill = view.store.attached().iter().filter(|store| store.problem.is_some()).count();
    let problems = problems(&Seen { node: &node, devices: &devices, uplink: &uplink, attached_ill });
    let rollouts = view.facts.releases.site(&view.mesh).await.devices;
    SiteStatus {
        node,
        problems,
        devices,
        devices_total: seen.devices_total,
        under_way,
        under_way_total: seen.under_way_total,
        images: found.images,
        tags_total: found.tags_total,
        layers,
        layers_total: seen.held_total,
        layers_held_once: seen.held_once,
        uplink,
        rollouts,
    }
}

fn devices<S>(view: &NodeView<S>, mesh: &MeshStatus, seen: &[DeviceView]) -> Vec<SiteDevice> {
    let exchanged = view.counters.by_peer.all();
    let device = |device: &DeviceView| {
        let peer = mesh.peers.iter().find(|peer| peer.peer == device.node);
        let bytes = exchanged.get(&device.node).copied().unwrap_or_default();
        SiteDevice {
            peer_id: device.node.to_string(),
            connected: device.connected,
            address: peer.map(|peer| peer.address.to_string()),
            version: peer.and_then(|peer| peer.version.clone()),
            platform: peer.and_then(|peer| peer.platform.clone()),
            blobs: device.blobs,
            bytes: device.bytes,
            wants: device.wants,
            wanted_bytes: device.wanted_bytes,
            had_bytes: device.had_bytes,
            fetches: device.fetches,
            penalised: device.penalised,
            received_bytes: bytes.received,
            sent_bytes: bytes.sent,
        }
    };
    seen.iter().map(device).collect()
}

fn under_way(mesh: &MeshStatus, seen: &Overview, found: &Found) -> Vec<SiteTransfer> {
    let repository = |blob: &layermesh_proto::ContentId| {
        let transfer = mesh.transfers.iter().find(|transfer| transfer.content == *blob)?;
        Some(transfer.repository.as_ref()?.to_string())
    };
    let shown = seen.under_way.iter().map(|blob| SiteTransfer {
        digest: blob.content.to_string(),
        size: blob.size,
        image: found.names.get(&blob.content).cloned().or_else(|| repository(&blob.content)),
        holders: blob.holders,
        wanting: blob.wanting,
        had_bytes: blob.had_bytes,
        fetching: blob.fetching.iter().map(ToString::to_string).collect(),
        uplink_bytes: blob.crossed,
    });
    shown.collect()
}

fn layers(seen: &Overview, found: &Found) -> Vec<SiteLayer> {
    let shown = seen.held.iter().map(|blob| SiteLayer {
        digest: blob.content.to_string(),
        size: blob.size,
        image: found.names.get(&blob.content).cloned(),
        holders: blob.holders,
        here: blob.here,
    });
    shown.collect()
}

fn uplink(seen: &Overview) -> SiteUplink {
    let lately = seen.uplink.lately.iter().map(|blob| SiteCrossed {
        digest: blob.content.to_string(),
        size: blob.size,
        bytes: blob.bytes,
        ago_s: blob.ago.as_secs(),
        holders: blob.holders,
    });
    SiteUplink { bytes: seen.uplink.bytes, surplus_bytes: seen.uplink.surplus, lately: lately.collect() }
}
