//! Making sure of what is held: what `layermesh verify` asks for.
//!
//! Every blob is read from end to end, one after the other, at a bounded rate. One that is damaged has been withdrawn from
//! the mesh by the time that it is reported; its good pieces are kept, and a want brings the others back: from peers, or
//! from the origin where a known tag's image tells in which repository it is. Invariant: nothing is fetched for a blob
//! that is as it was.

use std::collections::BTreeMap;

use layermesh_proto::{
    ContentId, ObjectKind, Repository,
    engine::{Urgency, event::WantError},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    admin::{
        StoreView,
        types::{VerifyEvent, VerifyRequest, VerifySummary},
    },
    contents::{self, MANIFEST_BYTES_MAX, PlatformChoice},
    mesh::Mesh,
};

/// Bytes read a second unless told otherwise: a fifth of what a cheap eMMC gives, so that pulls are not held up.
pub const RATE_DEFAULT: u64 = 32 << 20;

/// Reads everything that is held, or what was named, and repairs it, reporting to `events` as it goes.
pub async fn run<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    request: &VerifyRequest,
    events: &mpsc::Sender<VerifyEvent>,
) -> VerifySummary {
    let started = Instant::now();
    let mut blobs = store.list();
    // In one order, so that who breaks it off and comes back sees where it was.
    blobs.sort_unstable_by_key(|blob| blob.content);
    let total_bytes = blobs.iter().map(|blob| blob.size).sum();
    let mut summary = VerifySummary { total: blobs.len(), total_bytes, ..VerifySummary::default() };
    // Reports are dropped once nobody reads them.
    let _ = events.send(VerifyEvent::Started { blobs: blobs.len(), bytes: total_bytes }).await;
    let mut repositories = None;
    for blob in blobs {
        let digest = blob.content.to_string();
        match store.verify(blob.content, request.bytes_per_s.unwrap_or(RATE_DEFAULT)).await {
            Ok(true) => {}
            Ok(false) => {
                summary.damaged += 1;
                let _ = events.send(VerifyEvent::Damaged { digest: digest.clone() }).await;
                if repositories.is_none() {
                    repositories = Some(origins_of(store).await);
                }
                let origin = repositories.as_ref().and_then(|known| known.get(&blob.content).cloned());
                match repair(mesh, blob.content, origin).await {
                    Ok(()) => {
                        summary.repaired += 1;
                        let _ = events.send(VerifyEvent::Repaired { digest }).await;
                    }
                    Err(error) => {
                        let message = format!("it cannot be repaired: {error}");
                        let _ = events.send(VerifyEvent::Failed { digest, message }).await;
                    }
                }
            }
            Err(message) => {
                summary.unread += 1;
                let _ = events.send(VerifyEvent::Failed { digest, message }).await;
            }
        }
        summary.verified += 1;
        summary.bytes += blob.size;
        let _ = events.send(VerifyEvent::Progress { blobs: summary.verified, bytes: summary.bytes }).await;
    }
    summary.elapsed_s = started.elapsed().as_secs_f64();
    summary
}

async fn repair(mesh: &Mesh, content: ContentId, origin: Option<(Repository, ObjectKind)>) -> Result<(), WantError> {
    let (repository, kind) = match origin {
        Some((repository, kind)) => (Some(repository), kind),
        None => (None, ObjectKind::Blob),
    };
    mesh.want(content, kind, repository, Urgency::Runtime).await.ended().await
}

/// Where an origin has the parts of the images that known tags stand for, as far as their manifests are held.
async fn origins_of<S: StoreView>(store: &S) -> BTreeMap<ContentId, (Repository, ObjectKind)> {
    let mut origins = BTreeMap::new();
    for binding in store.bindings().await {
        let repository = binding.reference.repository();
        let read = contents::read(binding.content, PlatformChoice::All, async |content| {
            store.read_whole(&content, MANIFEST_BYTES_MAX).await.ok()
        });
        origins.insert(binding.content, (repository.clone(), ObjectKind::Manifest));
        let Ok(contents) = read.await else { continue };
        for part in contents.parts {
            origins.entry(part.content).or_insert_with(|| (repository.clone(), part.role.kind()));
        }
    }
    origins
}
