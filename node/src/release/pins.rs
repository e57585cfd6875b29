//! Who pins releases.
//!
//! Invariant: only owners that are named here are unpinned here, so nobody else's pins are touched.

use super::Release;
use crate::store::{PinOwner, Store};

/// Begins the owners of pins of releases.
const RELEASE_PINS: &str = "release/";

/// Who pins a release's blobs.
pub(super) fn owner_of(release: &Release) -> Option<PinOwner> {
    format!("{RELEASE_PINS}{}", release.name()).parse().ok()
}

/// The releases that are pinned, by their owners.
pub(super) fn pinned(store: &Store) -> Vec<PinOwner> {
    let owners = store.pins().into_iter().map(|(owner, _)| owner);
    owners.filter(|owner| owner.as_str().starts_with(RELEASE_PINS)).collect()
}

/// Unpins all releases but these.
pub(super) async fn unpin_all_but(store: &Store, kept: &[PinOwner]) {
    for owner in pinned(store) {
        if !kept.contains(&owner)
            && let Err(error) = store.unpin(owner.clone()).await
        {
            tracing::warn!(owner = owner.as_str(), %error, "cannot unpin a release");
        }
    }
}
