use std::collections::BTreeSet;

use layermesh_proto::Algorithm;
use proptest::prelude::*;

use super::*;

/// Manifests by their digests.
#[derive(Default)]
struct Shelf(BTreeMap<ContentId, Bytes>);

impl Shelf {
    fn put(&mut self, text: String) -> ContentId {
        let content = ContentId::of(Algorithm::Sha256, text.as_bytes());
        self.0.insert(content, text.into());
        content
    }

    fn manifest(&mut self, config: &str, layers: &[&str]) -> ContentId {
        let blob = |word: &&str, kind: &str| descriptor(&blob(word), word.len(), kind, None);
        let layers: Vec<_> = layers.iter().map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar")).collect();
        let config = blob(&config, "application/vnd.oci.image.config.v1+json");
        self.put(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(",")))
    }

    fn index(&mut self, entries: &[(ContentId, &str, Option<&str>)]) -> ContentId {
        let entries = entries.iter().map(|(content, kind, platform)| {
            descriptor(content, self.0.get(content).map_or(7, Bytes::len), kind, *platform)
        });
        let entries = entries.collect::<Vec<_>>().join(",");
        self.put(format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#))
    }

    async fn walk(&self, root: ContentId, choice: &str) -> Result<Contents, ContentsError> {
        read(root, choice.parse().unwrap(), async |content| self.0.get(&content).cloned()).await
    }
}

fn blob(word: &str) -> ContentId {
    ContentId::of(Algorithm::Sha256, word.as_bytes())
}

fn descriptor(content: &ContentId, size: usize, kind: &str, platform: Option<&str>) -> String {
    let platform = platform.map_or_else(String::new, |platform| {
        let (os, architecture) = platform.split_once('/').unwrap();
        format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"}}"#)
    });
    format!(r#"{{"mediaType":"{kind}","digest":"{content}","size":{size}{platform}}}"#)
}

fn shown(contents: &Contents) -> Vec<(ContentId, Role, Vec<String>)> {
    let shown = |part: &Part| (part.content, part.role, part.platforms.iter().map(ToString::to_string).collect());
    contents.parts.iter().map(shown).collect()
}

/// Two platforms with a layer in common, and the attestation of one.
fn image(shelf: &mut Shelf) -> [ContentId; 4] {
    let amd64 = shelf.manifest("config a", &["common", "layer a", "common"]);
    let arm64 = shelf.manifest("config b", &["common", "layer b"]);
    let proof = shelf.manifest("config p", &["proof"]);
    let index = shelf.index(&[
        (amd64, OCI_MANIFEST, Some("linux/amd64")),
        (arm64, OCI_MANIFEST, Some("linux/arm64")),
        (proof, OCI_MANIFEST, Some("unknown/unknown")),
    ]);
    [index, amd64, arm64, proof]
}

#[tokio::test]
async fn a_platform_needs_its_own_parts_and_all_platforms_need_all() {
    let mut shelf = Shelf::default();
    let [index, amd64, arm64, proof] = image(&mut shelf);
    let both = || vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()];
    let (only_a, only_b) = (vec!["linux/amd64".to_owned()], vec!["linux/arm64".to_owned()]);
    let one = shelf.walk(index, "linux/amd64").await.unwrap();
    let expected = [
        (index, Role::Index, vec![]),
        (amd64, Role::Manifest, only_a.clone()),
        (blob("config a"), Role::Config, only_a.clone()),
        (blob("common"), Role::Layer, only_a.clone()),
        (blob("layer a"), Role::Layer, only_a.clone()),
    ];
    assert_eq!(shown(&one), expected);
    assert!(one.unread.is_empty() && one.unmatched.is_empty());
    assert_eq!(one.offered.len(), 3);
    let sizes = shelf.0[&index].len() + shelf.0[&amd64].len() + "config a".len() + "common".len() + "layer a".len();
    assert_eq!(one.bytes(), sizes as u64);
    assert_eq!(one.parts[3].media_type.as_deref(), Some("application/vnd.oci.image.layer.v1.tar"));
    assert_eq!(one.parts[0].media_type.as_deref(), Some(OCI_INDEX));

    let two = shelf.walk(index, "linux/arm64,linux/amd64").await.unwrap();
    let common = shown(&two).into_iter().find(|part| part.0 == blob("common")).unwrap();
    assert_eq!(common.2.iter().collect::<BTreeSet<_>>(), both().iter().collect(), "both need it");
    assert!(shown(&two).contains(&(blob("layer b"), Role::Layer, only_b)));
    assert!(!shown(&two).iter().any(|part| part.0 == proof));

    let all = shelf.walk(index, "all").await.unwrap();
    assert_eq!(all.parts.len(), 11);
    for part in [proof, blob("proof"), arm64] {
        assert!(shown(&all).iter().any(|found| found.0 == part));
    }
}

#[tokio::test]
async fn what_cannot_be_read_hides_only_what_it_names() {
    let mut shelf = Shelf::default();
    let [index, amd64, arm64, _] = image(&mut shelf);
    shelf.0.remove(&arm64);
    let found = shelf.walk(index, "linux/amd64,linux/arm64").await.unwrap();
    assert_eq!(found.unread, [arm64]);
    assert_eq!(found.parts.len(), 6);
    assert!(found.parts.iter().any(|part| part.content == amd64));
    let nothing = shelf.walk(arm64, "all").await.unwrap();
    assert_eq!((nothing.unread, nothing.parts.len()), (vec![arm64], 1));
    assert_eq!((nothing.parts[0].size, nothing.parts[0].role), (None, Role::Manifest));
}

#[tokio::test]
async fn platforms_without_an_image_are_named() {
    let mut shelf = Shelf::default();
    let [index, amd64, ..] = image(&mut shelf);
    let found = shelf.walk(index, "linux/s390x,linux/amd64").await.unwrap();
    assert_eq!(found.unmatched, ["linux/s390x".parse().unwrap()]);
    assert_eq!(found.parts.len(), 5, "the other one's parts");
    // A manifest alone says nothing of platforms.
    let found = shelf.walk(amd64, "linux/s390x").await.unwrap();
    assert!(found.unmatched.is_empty() && found.offered.is_empty());
    assert_eq!(found.parts.len(), 4);
}

#[tokio::test]
async fn indexes_of_indexes_and_other_things_are_followed_as_far_as_they_make_sense() {
    let mut shelf = Shelf::default();
    let [index, ..] = image(&mut shelf);
    let other = blob("an artefact");
    let outer = shelf.index(&[(index, OCI_INDEX, None), (other, "application/vnd.example", None)]);
    let found = shelf.walk(outer, "all").await.unwrap();
    assert_eq!(found.parts.len(), 13);
    let artefact = found.parts.iter().find(|part| part.content == other).unwrap();
    assert_eq!((artefact.role, artefact.role.kind()), (Role::Other, ObjectKind::Manifest));
    // Of an index without platforms the first is taken, and within it what was asked for.
    let found = shelf.walk(outer, "linux/arm64").await.unwrap();
    assert_eq!(found.parts.len(), 6);

    // A platform that is heard of late needs what its manifest names all the same.
    let manifest = shelf.manifest("config", &["layer"]);
    let inner = shelf.index(&[(manifest, OCI_MANIFEST, Some("linux/386"))]);
    let both = shelf.index(&[(manifest, OCI_MANIFEST, Some("linux/amd64")), (inner, OCI_INDEX, None)]);
    let found = shelf.walk(both, "all").await.unwrap();
    let layer = shown(&found).into_iter().find(|part| part.0 == blob("layer")).unwrap();
    assert_eq!(layer.2, ["linux/amd64", "linux/386"]);

    let mut deep = index;
    for _ in 0..DEPTH_MAX {
        deep = shelf.index(&[(deep, OCI_INDEX, None)]);
    }
    assert!(matches!(shelf.walk(deep, "all").await, Err(ContentsError::TooDeep)));
}

#[tokio::test]
async fn what_no_image_has_is_refused() {
    let mut shelf = Shelf::default();
    let words: Vec<String> = (0..PARTS_MAX).map(|n| format!("layer {n}")).collect();
    let layers: Vec<&str> = words.iter().map(String::as_str).collect();
    let fat = shelf.manifest("config", &layers);
    assert!(matches!(shelf.walk(fat, "all").await, Err(ContentsError::TooManyParts)));
    let many: Vec<_> = words.iter().take(MANIFESTS_MAX).map(|word| (blob(word), OCI_MANIFEST, None)).collect();
    let wide = shelf.index(&many);
    assert!(matches!(shelf.walk(wide, "all").await, Err(ContentsError::TooManyManifests)));
    let none = shelf.put("{}".to_owned());
    assert!(matches!(shelf.walk(none, "all").await, Err(ContentsError::Manifest { content, .. }) if content == none));
}

proptest! {
    /// Whatever indexes name, a walk ends, lists each part once, names before what is named, and loses nothing that it
    /// could read.
    #[test]
    fn walks_end_and_list_everything_once(
        edges in prop::collection::vec(prop::collection::vec((0_usize..12, prop::bool::ANY), 0..5), 12),
        absent in prop::collection::btree_set(0_usize..12, 0..4),
    ) {
        let mut shelf = Shelf::default();
        let mut made: Vec<ContentId> = Vec::new();
        for (n, named) in edges.iter().enumerate() {
            let inner: Vec<_> = named.iter().filter(|(to, _)| *to < n).map(|(to, amd64)| {
                (made[*to], OCI_INDEX, Some(if *amd64 { "linux/amd64" } else { "linux/arm64" }))
            }).collect();
            made.push(if inner.is_empty() { shelf.manifest(&format!("c{n}"), &["l"]) } else { shelf.index(&inner) });
        }
        let root = *made.last().unwrap();
        for n in absent {
            shelf.0.remove(&made[n]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match runtime.block_on(shelf.walk(root, "all")) {
            Ok(found) => {
                let all: BTreeSet<_> = found.parts.iter().map(|part| part.content).collect();
                prop_assert_eq!(all.len(), found.parts.len());
                for part in found.parts.iter().filter(|part| part.is_document()) {
                    prop_assert_eq!(found.unread.contains(&part.content), !shelf.0.contains_key(&part.content));
                }
            }
            Err(error) => prop_assert!(matches!(error, ContentsError::TooDeep), "{}", error),
        }
    }
}
