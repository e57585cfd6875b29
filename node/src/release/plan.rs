//! What a device is to hold of a release: the parts of its images, and for whom each is.
//!
//! Invariant: a plan is made of manifests that were verified by their digests from the signed release down, and of
//! nothing else.

use std::collections::BTreeMap;

use layermesh_proto::{ContentId, ObjectKind, Repository};

use super::Release;
use crate::{
    contents::{self, MANIFEST_BYTES_MAX, Part, Platform, PlatformChoice},
    store::Store,
};

/// A blob of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) content: ContentId,
    pub(super) size: u64,
    pub(super) kind: ObjectKind,
    /// Where an origin has it.
    pub(super) repository: Repository,
    /// Platforms of followers that need it.
    pub(super) platforms: Vec<String>,
}

/// The parts of a release, as far as its manifests are held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) parts: Vec<Planned>,
    /// Manifests that are not held and without which the plan is not whole.
    pub(super) unread: Vec<Planned>,
}

/// Makes the plan of a release, for the platforms of followers and all others.
pub(super) async fn plan(store: &Store, release: &Release, platforms: &[String]) -> Result<Plan, String> {
    let mut parts: BTreeMap<ContentId, Planned> = BTreeMap::new();
    let mut unread = BTreeMap::new();
    for image in &release.images {
        let (root, (repository, _)) = (image.content()?, image.reference()?);
        let all = walk(store, root, PlatformChoice::All).await?;
        let planned = |part: &Part| Planned {
            content: part.content,
            size: part.size.unwrap_or(image.size),
            kind: part.role.kind(),
            repository: repository.clone(),
            platforms: Vec::new(),
        };
        for part in &all.parts {
            parts.entry(part.content).or_insert_with(|| planned(part));
            if all.unread.contains(&part.content) {
                unread.entry(part.content).or_insert_with(|| planned(part));
            }
        }
        for name in platforms {
            let Ok(platform) = name.parse::<Platform>() else { continue };
            let needed = walk(store, root, PlatformChoice::These(vec![platform])).await?;
            for part in needed.parts {
                let of = parts.get_mut(&part.content).map(|planned| &mut planned.platforms);
                if let Some(of) = of.filter(|of| !of.contains(name)) {
                    of.push(name.clone());
                }
            }
        }
    }
    Ok(Plan { parts: parts.into_values().collect(), unread: unread.into_values().collect() })
}

async fn walk(store: &Store, root: ContentId, choice: PlatformChoice) -> Result<contents::Contents, String> {
    let mut walk = contents::Walk::new(root, choice);
    while let Some(next) = walk.next() {
        match store.read_whole(&next, MANIFEST_BYTES_MAX).await {
            Ok(bytes) => walk.read(&bytes).map_err(|error| error.to_string())?,
            Err(_) => walk.missing(),
        }
    }
    Ok(walk.finish())
}
