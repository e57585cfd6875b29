//! Whether this device, and whether this site, holds everything that an image needs: what `layermesh check` asks.
//!
//! The name is looked up among the bindings that the site knows and the contents are read from manifests that this device
//! or a peer holds. Invariant: no origin is asked for anything, so a check costs no uplink and says the same with the
//! uplink cut. A manifest that only peers hold is fetched from them and kept, since nothing else tells what it names.
//!
//! A site is what this node is connected with: on sites of more devices than one connects to, others may hold more.

use std::collections::BTreeMap;

use bytes::Bytes;
use layermesh_proto::{
    ContentId, NodeId, ObjectKind,
    engine::{Urgency, event::Resolution},
};
use thiserror::Error;
use tokio::time::{Duration, Instant, timeout_at};

use crate::{
    admin::{
        StoreView,
        types::{CheckReport, CheckRequest, CheckedPart, Completeness, DeviceShare, Share},
    },
    contents::{self, Contents, ContentsError, MANIFEST_BYTES_MAX, NotOffered, PlatformChoice},
    image::{ImageReference, Version},
    mesh::Mesh,
    pull::{RequestError, known_by, named},
};

/// How long manifests are fetched from peers, all together. What did not come until then counts as not to be had.
const FETCH_TIME_MAX: Duration = Duration::from_secs(20);

/// What to look for, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    image: ImageReference,
    platform: PlatformChoice,
}

impl Check {
    /// Validates a request.
    ///
    /// # Errors
    /// If the image or the platform is not a name of one.
    pub fn parse(request: &CheckRequest) -> Result<Self, RequestError> {
        let (image, platform) = named(&request.image, request.platform.as_deref())?;
        Ok(Self { image, platform })
    }
}

/// Why nothing can be said of an image.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The image makes no sense.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The image is not for a platform.
    #[error("the image {0}")]
    NoPlatform(#[from] NotOffered),
}

/// Looks for an image.
///
/// # Errors
/// If the image makes no sense, or has nothing for the platform.
pub async fn run<S: StoreView>(mesh: &Mesh, store: &S, check: Check) -> Result<CheckReport, CheckError> {
    let Some((root, said_by)) = resolve(mesh, &check.image).await else {
        return Ok(unknown(&check));
    };
    let deadline = Instant::now() + FETCH_TIME_MAX;
    let read = |content| manifest(mesh, store, content, deadline);
    let found = contents::read(root, check.platform.clone(), read).await?;
    found.matched()?;
    let holders = mesh.holders(found.parts.iter().map(|part| part.content).collect()).await;
    Ok(report(&check, &found, said_by, holders, |content| store.size_of(content)))
}

/// What the image's name stands for, as far as the site knows without asking an origin.
async fn resolve(mesh: &Mesh, image: &ImageReference) -> Option<(ContentId, String)> {
    match image.version() {
        Version::Digest(content) => Some((*content, "you".to_owned())),
        Version::Tag(reference) => {
            let Resolution { content, provenance, .. } = mesh.recall(reference.clone()).await?;
            Some((content, known_by(provenance)))
        }
    }
}

/// Reads a manifest, from peers if only they have it.
async fn manifest<S: StoreView>(mesh: &Mesh, store: &S, content: ContentId, deadline: Instant) -> Option<Bytes> {
    if store.size_of(&content).is_none() {
        if mesh.holders(vec![content]).await.iter().all(Vec::is_empty) {
            return None;
        }
        // Without a repository no origin is asked.
        let mut want = mesh.want(content, ObjectKind::Manifest, None, Urgency::Runtime).await;
        timeout_at(deadline, want.ended()).await.ok()?.ok()?;
    }
    store.read_whole(&content, MANIFEST_BYTES_MAX).await.ok()
}

/// A report on an image of which nobody knows what it is.
fn unknown(check: &Check) -> CheckReport {
    CheckReport {
        image: check.image.to_string(),
        platform: check.platform.to_string(),
        digest: None,
        said_by: None,
        complete: Completeness::No,
        total: Share::default(),
        device: Share::default(),
        site: Share::default(),
        peers: Vec::new(),
        parts: Vec::new(),
        unread: Vec::new(),
    }
}

fn report(
    check: &Check,
    found: &Contents,
    said_by: String,
    holders: Vec<Vec<NodeId>>,
    here: impl Fn(&ContentId) -> Option<u64>,
) -> CheckReport {
    let (mut total, mut device, mut site) = (Share::default(), Share::default(), Share::default());
    let mut peers: BTreeMap<NodeId, Share> = BTreeMap::new();
    let mut parts = Vec::new();
    for (part, holders) in found.parts.iter().zip(holders) {
        let held = here(&part.content);
        let size = part.size.or(held).unwrap_or_default();
        total.add(size);
        if held.is_some() {
            device.add(size);
        }
        if held.is_some() || !holders.is_empty() {
            site.add(size);
        }
        for holder in &holders {
            peers.entry(*holder).or_default().add(size);
        }
        parts.push(CheckedPart {
            digest: part.content.to_string(),
            role: part.role.to_string(),
            size: part.size.or(held),
            media_type: part.media_type.clone(),
            platforms: part.platforms.iter().map(ToString::to_string).collect(),
            here: held.is_some(),
            peers: holders.iter().map(ToString::to_string).collect(),
        });
    }
    // What a manifest names that nobody gave is not known, so nothing is known to be complete.
    let complete = match found.unread.is_empty() {
        true if device == total => Completeness::Device,
        true if site == total => Completeness::Site,
        _ => Completeness::No,
    };
    CheckReport {
        image: check.image.to_string(),
        platform: check.platform.to_string(),
        digest: Some(found.root.to_string()),
        said_by: Some(said_by),
        complete,
        total,
        device,
        site,
        peers: peers.into_iter().map(|(peer, held)| DeviceShare { peer_id: peer.to_string(), held }).collect(),
        parts,
        unread: found.unread.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::World;

    const IMAGE: &str = "docker.io/library/app:1";

    fn check(image: &str, platform: &str) -> Check {
        Check::parse(&CheckRequest { image: image.to_owned(), platform: Some(platform.to_owned()) }).unwrap()
    }

    #[tokio::test]
    async fn what_peers_hold_is_complete_on_the_site_and_manifests_are_had_from_them() {
        let mut world = World::new();
        let image = world.image(IMAGE);
        let node = world.node();
        let report = run(&node.mesh, &node.store, check(IMAGE, "linux/arm64")).await.unwrap();
        assert_eq!((report.complete, report.digest), (Completeness::Site, Some(image.index.to_string())));
        assert_eq!((report.total.blobs, report.site), (5, report.total));
        assert_eq!(report.device.blobs, 2, "the two manifests");
        assert_eq!(report.peers.len(), 1);
        assert_eq!(report.peers[0].held, report.total);
        assert!(report.parts[0].here && !report.parts[2].here && report.parts[2].peers.len() == 1);
        assert!(report.unread.is_empty());

        let all = run(&node.mesh, &node.store, check(IMAGE, "all")).await.unwrap();
        assert_eq!((all.complete, all.total.blobs), (Completeness::Site, 8));
    }

    #[tokio::test]
    async fn what_is_here_is_complete_here_and_what_nobody_has_is_named() {
        let mut world = World::new();
        let image = world.image(IMAGE);
        let elsewhere = world.elsewhere.clone();
        let lost = elsewhere.put("shared layer");
        for blob in elsewhere.list() {
            elsewhere.remove(&blob.content);
        }
        let mut other = World::new();
        other.image(IMAGE);
        let node = world.node();
        for blob in other.elsewhere.list() {
            node.store.put(other.elsewhere.get(&blob.content).unwrap());
        }
        let report = run(&node.mesh, &node.store, check(IMAGE, "all")).await.unwrap();
        assert_eq!((report.complete, report.device), (Completeness::Device, report.total));

        node.store.remove(&lost);
        let report = run(&node.mesh, &node.store, check(IMAGE, "linux/amd64")).await.unwrap();
        assert_eq!(report.complete, Completeness::No);
        let missing: Vec<_> = report.parts.iter().filter(|part| !part.here && part.peers.is_empty()).collect();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].digest, lost.to_string());

        // Without its manifest, nobody knows what else the image needs.
        node.store.remove(&image.amd64);
        let report = run(&node.mesh, &node.store, check(IMAGE, "linux/amd64")).await.unwrap();
        assert_eq!((report.complete, report.unread), (Completeness::No, vec![image.amd64.to_string()]));
    }

    #[tokio::test]
    async fn what_is_unknown_or_for_others_is_said() {
        let mut world = World::new();
        world.image(IMAGE);
        let node = world.node();
        let report = run(&node.mesh, &node.store, check("app:2", "all")).await.unwrap();
        assert_eq!((report.complete, report.digest), (Completeness::No, None));
        let error = run(&node.mesh, &node.store, check(IMAGE, "linux/s390x")).await.unwrap_err().to_string();
        assert_eq!(error, "the image has nothing for linux/s390x; it has linux/amd64, linux/arm64");
    }
}
