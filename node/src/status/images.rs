//! Which images the site knows by name, what they consist of, and who holds all of one.
//!
//! Names come from what tags stand for, contents from manifests that this device holds; nothing is fetched for it. Invariant:
//! at most [`IMAGES_MAX`] images are remembered, and a look reads the manifests of at most [`READ_MAX`] of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use layermesh_proto::{ContentId, NodeId, engine::BindingView};
use tokio::time::Instant;

use crate::{
    admin::{StoreView, types::SiteImage},
    contents::{self, Contents, MANIFEST_BYTES_MAX, Part, Platform, PlatformChoice, Role, Walk},
    mesh::Mesh,
};

/// Images that are shown. 100: what a page can show; further tags are counted.
pub(super) const IMAGES_MAX: usize = 100;
/// Images whose manifests one look reads. 16: each is some small files, and looks are seconds apart.
const READ_MAX: usize = 16;
/// An image of which manifests were missing is read again after so long: they may have come.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Blobs of all images whose holders are asked for at once. 4096: forty of each.
const PARTS_MAX: usize = 4096;

/// An image that was read.
#[derive(Debug, Clone)]
struct Read {
    contents: Arc<Contents>,
    at: Instant,
}

/// What is known of images between looks.
#[derive(Debug, Default)]
pub(super) struct Images {
    read: HashMap<ContentId, Read>,
}

/// What one look found.
#[derive(Debug, Default, Clone)]
pub(super) struct Found {
    pub(super) images: Vec<SiteImage>,
    pub(super) tags_total: usize,
    /// An image that each blob belongs to.
    pub(super) names: HashMap<ContentId, String>,
}

impl Images {
    /// Looks at what tags stand for now.
    pub(super) async fn look<S: StoreView>(&mut self, mesh: &Mesh, store: &S) -> Found {
        let bindings = mesh.bindings().await;
        let tags_total = bindings.len();
        let named = known_here(bindings, store);
        let wanted: BTreeSet<_> = named.iter().map(|(_, root)| *root).collect();
        self.read.retain(|root, _| wanted.contains(root));
        let due = |root: &&ContentId| {
            let read = self.read.get(root);
            read.is_none_or(|read| !read.contents.unread.is_empty() && read.at.elapsed() >= READ_AGAIN)
        };
        for root in wanted.iter().filter(due).take(READ_MAX).copied().collect::<Vec<_>>() {
            let read = async |content: ContentId| match store.size_of(&content) {
                Some(_) => store.read_whole(&content, MANIFEST_BYTES_MAX).await.ok(),
                None => None,
            };
            // What makes no sense is not an image, whatever its tag says, and never will be: it has no parts.
            let contents = contents::read(root, PlatformChoice::All, read).await;
            let contents = contents.unwrap_or_else(|_| Walk::new(root, PlatformChoice::All).finish());
            self.read.insert(root, Read { contents: Arc::new(contents), at: Instant::now() });
        }
        let shown: Vec<_> =
            named.into_iter().filter_map(|(name, root)| Some((name, self.read.get(&root)?.contents.clone()))).collect();
        let holders = holders(mesh, store, &shown).await;
        let mut names = HashMap::new();
        for (name, contents) in &shown {
            for part in &contents.parts {
                names.entry(part.content).or_insert_with(|| name.clone());
            }
        }
        let images = shown.iter().filter_map(|(name, contents)| image(name, contents, &holders, store)).collect();
        Found { images, tags_total, names }
    }
}

/// The tags whose manifests are on this device, by name.
fn known_here<S: StoreView>(bindings: Vec<BindingView>, store: &S) -> Vec<(String, ContentId)> {
    let named = bindings.into_iter().map(|view| (view.reference.to_string(), view.resolution.content));
    named.filter(|(_, root)| store.size_of(root).is_some()).take(IMAGES_MAX).collect()
}

/// The peers that hold each part of these images.
async fn holders<S: StoreView>(
    mesh: &Mesh,
    store: &S,
    images: &[(String, Arc<Contents>)],
) -> HashMap<ContentId, (BTreeSet<NodeId>, bool)> {
    let parts = images.iter().flat_map(|(_, contents)| &contents.parts).map(|part| part.content);
    let mut parts: Vec<_> = parts.collect::<BTreeSet<_>>().into_iter().collect();
    parts.truncate(PARTS_MAX);
    let holders = mesh.holders(parts.clone()).await;
    let of = |(content, peers): (ContentId, Vec<NodeId>)| {
        (content, (peers.into_iter().collect(), store.size_of(&content).is_some()))
    };
    parts.into_iter().zip(holders).map(of).collect()
}

/// What each platform needs of an image: config and layers, of platforms whose manifests could be read. An image that is for
/// no platform in particular has one.
fn by_platform(contents: &Contents) -> BTreeMap<Option<String>, Vec<&Part>> {
    let mut needed: BTreeMap<Option<String>, Vec<&Part>> = BTreeMap::new();
    for part in contents.parts.iter().filter(|part| matches!(part.role, Role::Config | Role::Layer)) {
        let platforms: Vec<_> = match part.platforms.as_slice() {
            [] => vec![None],
            platforms => platforms.iter().map(|platform| Some(platform.to_string())).collect(),
        };
        for platform in platforms {
            needed.entry(platform).or_default().push(part);
        }
    }
    needed
}

/// How an image stands; `None` if no manifest of it was read.
fn image<S: StoreView>(
    name: &str,
    contents: &Contents,
    holders: &HashMap<ContentId, (BTreeSet<NodeId>, bool)>,
    store: &S,
) -> Option<SiteImage> {
    let needed = by_platform(contents);
    let mut complete = BTreeSet::new();
    let mut here = false;
    for parts in needed.values() {
        let mut of_parts = parts.iter().map(|part| holders.get(&part.content));
        let Some(Some((first, first_here))) = of_parts.next() else { continue };
        let (mut all, mut all_here) = (first.clone(), *first_here);
        for held in of_parts {
            let Some((peers, here)) = held else { continue };
            all.retain(|peer| peers.contains(peer));
            all_here &= here;
        }
        complete.extend(all);
        here |= all_here;
    }
    let own = Some(Platform::of_this_device().to_string());
    let parts = needed.get(&own).or_else(|| needed.values().next())?;
    Some(SiteImage {
        image: name.to_owned(),
        digest: contents.root.to_string(),
        bytes: parts.iter().map(|part| part.size.or_else(|| store.size_of(&part.content)).unwrap_or(0)).sum(),
        layers: parts.iter().filter(|part| part.role == Role::Layer).count(),
        holders: complete.len() + usize::from(here),
        here,
    })
}

#[cfg(test)]
mod tests {
    use layermesh_proto::{
        Repository, TagRef,
        engine::event::{Basis, Provenance, Resolution},
    };

    use super::*;
    use crate::admin::testing::World;

    #[tokio::test]
    async fn images_are_known_by_their_manifests_here_and_by_who_holds_all_of_one_platform() {
        let mut world = World::new();
        let image = world.image("docker.io/library/app:v1");
        let reference = TagRef::new(Repository::new("docker.io", "library/app").unwrap(), "v1").unwrap();
        let resolution =
            Resolution { content: image.index, provenance: Provenance::Origin, basis: Basis::Asked, age: None };
        world.bindings = vec![BindingView { reference, resolution, release: None, fresh: true }];
        let elsewhere = world.elsewhere.clone();
        let node = world.node();
        let mut images = Images::default();
        assert!(images.look(&node.mesh, &node.store).await.images.is_empty(), "its manifest is not here");
        for document in [image.index, image.amd64] {
            node.store.put(elsewhere.get(&document).unwrap());
        }
        let found = images.look(&node.mesh, &node.store).await;
        assert_eq!(found.tags_total, 1);
        let [one] = found.images.as_slice() else { panic!("{:?}", found.images) };
        assert_eq!((one.image.as_str(), one.layers, one.holders, one.here), ("docker.io/library/app:v1", 2, 1, false));
        assert!(found.names.values().all(|name| name == "docker.io/library/app:v1"));
        // Now this device has the layers as well.
        for word in ["{\"config\":\"amd64\"}", "amd64 layer", "shared layer"] {
            node.store.put(word);
        }
        let found = images.look(&node.mesh, &node.store).await;
        assert_eq!((found.images[0].holders, found.images[0].here), (2, true));
    }

    #[tokio::test]
    async fn what_is_no_manifest_is_no_image() {
        let mut world = World::new();
        let store = world.elsewhere.clone();
        let reference = TagRef::new(Repository::new("docker.io", "library/app").unwrap(), "v1").unwrap();
        let content = store.put("not a manifest");
        let resolution = Resolution { content, provenance: Provenance::Origin, basis: Basis::Asked, age: None };
        world.bindings = vec![BindingView { reference, resolution, release: None, fresh: true }];
        let node = world.node();
        node.store.put("not a manifest");
        let found = Images::default().look(&node.mesh, &node.store).await;
        assert_eq!((found.images.len(), found.tags_total), (0, 1));
    }
}
