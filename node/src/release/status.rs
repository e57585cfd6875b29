//! How releases stand, for people.

use std::{collections::BTreeMap, sync::Arc};

use layermesh_proto::engine::budget::Wait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{clock::Clock, follow::Known, verify::show_time};
use crate::{config::ReleasesConfig, mesh::Mesh};

/// How far this device is with a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseProgress {
    /// The channel.
    pub channel: String,
    /// The version.
    pub version: String,
    /// Whether all that this device is to hold of it is here.
    pub complete: bool,
    /// Bytes that this device is to hold, as far as is known.
    pub total: u64,
    /// Bytes of these that are here.
    pub held: u64,
    /// Bytes a second that come.
    pub bytes_per_s: u64,
    /// Bytes of it that this device took from registries since its start.
    pub from_origin: u64,
    /// What it waits for, for people; empty if for nothing.
    pub waits_for: String,
}

/// How the releases that a node follows stand: part of the answer to `GET /v1/releases`, and of the node's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasesStatus {
    /// Channels that are followed.
    pub channels: Vec<String>,
    /// The repository, once any metadata was accepted.
    pub repository: Option<String>,
    /// Version of the root.
    pub root_version: u64,
    /// Version of the metadata.
    pub version: u64,
    /// When it was signed.
    pub signed: Option<String>,
    /// When it expires.
    pub expires: Option<String>,
    /// Whether it has expired. It stays in force until something newer comes.
    pub expired: bool,
    /// Whether the device has a clock by which expiry can be told.
    pub clock: bool,
    /// Why the newest metadata that was offered was refused, since any was accepted.
    pub refused: Option<RefusedStatus>,
    /// Refusals since the start, by kind.
    pub refusals: BTreeMap<String, u64>,
    /// How far this device is, newest release first.
    pub releases: Vec<ReleaseProgress>,
}

/// Metadata that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// Who offered it.
    pub from: String,
    /// The kind of reason: `rollback`, `signatures`, `tampered`, `expired`, `too_large`, `malformed` or `other_repository`.
    pub kind: String,
    /// The reason, for people.
    pub reason: String,
}

/// How far a device of the site is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRollout {
    /// Its libp2p peer id.
    pub peer_id: String,
    /// Its platform.
    pub platform: String,
    /// Kind of reason for which it refused the newest metadata that it was offered; empty if it did not.
    pub refused: String,
    /// How far it is.
    pub releases: Vec<ReleaseProgress>,
}

/// How releases stand on a site: the answer to `GET /v1/releases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteReleases {
    /// This node.
    pub node: ReleasesStatus,
    /// The devices of the site that said how far they are, this one first.
    pub devices: Vec<DeviceRollout>,
}

/// What is looked at to tell. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReleasesView {
    /// What is believed.
    pub known: watch::Receiver<Known>,
    /// How far this device is.
    pub progress: watch::Receiver<Vec<ReleaseProgress>>,
    /// What is followed.
    pub config: Option<Arc<ReleasesConfig>>,
}

impl ReleasesView {
    /// A view of a node that follows nothing.
    pub fn none() -> Self {
        Self { known: watch::channel(Known::default()).1, progress: watch::channel(Vec::new()).1, config: None }
    }

    /// How releases stand; `None` if nothing is followed or carried.
    pub fn status(&self) -> Option<ReleasesStatus> {
        let known = self.known.borrow().clone();
        if self.config.is_none() && known.verified.is_none() {
            return None;
        }
        let (expired, clock) = known.expired();
        let verified = known.verified.as_deref();
        let channels = self.config.as_deref().map(|it| it.channels.iter().map(ToString::to_string).collect());
        let refused = known.refused.map(|(from, refusal)| RefusedStatus {
            from,
            kind: refusal.kind.label().to_owned(),
            reason: refusal.message,
        });
        let refusals = known.refusals.into_iter().map(|(kind, count)| (kind.label().to_owned(), count));
        Some(ReleasesStatus {
            channels: channels.unwrap_or_default(),
            repository: verified.map(|verified| verified.repository.to_string()),
            root_version: verified.map_or(0, |verified| verified.root_version),
            version: verified.map_or(0, |verified| verified.version),
            signed: verified.map(|verified| show_time(verified.signed_unix_s)),
            expires: verified.map(|verified| show_time(verified.expires.1)),
            expired,
            clock: clock != Clock::None,
            refused,
            refusals: refusals.collect(),
            releases: self.progress.borrow().clone(),
        })
    }

    /// How releases stand on the site.
    pub async fn site(&self, mesh: &Mesh) -> SiteReleases {
        let device = |(peer, rollout): (layermesh_proto::NodeId, layermesh_proto::wire::Rollout)| DeviceRollout {
            peer_id: peer.to_string(),
            platform: rollout.platform,
            refused: rollout.refused,
            releases: rollout.releases.into_iter().map(of_wire).collect(),
        };
        let devices = mesh.rollouts().await.into_iter().map(device).collect();
        SiteReleases { node: self.status().unwrap_or_default(), devices }
    }
}

fn of_wire(progress: layermesh_proto::wire::Progress) -> ReleaseProgress {
    ReleaseProgress {
        complete: progress.total > 0 && progress.held >= progress.total,
        channel: progress.channel,
        version: progress.version,
        total: progress.total,
        held: progress.held,
        bytes_per_s: progress.bytes_per_s,
        from_origin: progress.from_origin,
        waits_for: progress.waits_for,
    }
}

/// What a transfer waits for, in words that fit a label.
pub(super) fn shown_wait(wait: Wait) -> String {
    crate::admin::view::waits_for(wait)
}
