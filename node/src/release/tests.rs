use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tough::schema::RoleType;

use super::{
    clock::Clock,
    keys::{KeyError, KeyRing},
    publisher::{InitOptions, Lifetimes, Publisher, PublisherError, RoleOptions, RotateOptions},
    refusal::RefusalKind as Kind,
    set::{ROOTS_MAX, TARGETS_BYTES_MAX},
    verify::Outcome,
    *,
};

/// 2027-01-15, some months after the program was made.
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

struct Admin {
    dir: TempDir,
}

impl Admin {
    async fn new() -> Self {
        let admin = Self { dir: tempfile::tempdir().unwrap() };
        Publisher::init(admin.path(), InitOptions::default(), NOW).await.unwrap();
        admin
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn open(&self) -> Publisher {
        Publisher::open(self.path()).await.unwrap()
    }

    fn keys(&self) -> KeyRing {
        KeyRing::read(&[self.path().join("keys")]).unwrap()
    }

    async fn publish(&self, version: &str) -> MetadataSet {
        let publisher = self.open().await;
        let release = release(version, publisher.next_number());
        publisher.publish(release, &self.keys(), Lifetimes::default(), NOW).await.unwrap().set().clone()
    }

    async fn rotate(&self, roles: &[RoleType]) -> MetadataSet {
        let options =
            RotateOptions { roles: roles.to_vec(), keys: None, threshold: None, lifetimes: Lifetimes::default() };
        self.open().await.rotate(options, self.keys(), NOW).await.unwrap().publisher.set().clone()
    }

    fn root(&self) -> Trusted {
        Trusted::root(&std::fs::read(self.path().join("metadata/1.root.json")).unwrap())
    }
}

fn release(version: &str, number: u64) -> Release {
    let digest = |of: &str| {
        layermesh_proto::ContentId::of(layermesh_proto::Algorithm::Sha256, format!("{version} {of}").as_bytes())
            .to_string()
    };
    let platform = |name: &str| ReleasedPlatform {
        platform: Some(name.to_owned()),
        digest: digest(name),
        bytes: 1000,
        patches: Vec::new(),
    };
    Release {
        channel: "stable".parse().unwrap(),
        version: version.parse().unwrap(),
        number,
        published_unix_s: NOW,
        images: vec![ReleasedImage {
            name: "reg.test/library/app".to_owned(),
            tag: Some("v1".to_owned()),
            digest: digest("index"),
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            size: 500,
            platforms: vec![platform("linux/amd64"), platform("linux/arm64")],
        }],
    }
}

async fn look(set: &MetadataSet, before: &Trusted, now: u64) -> Outcome {
    verify(set, before, now, &std::env::temp_dir()).await
}

async fn accepted(set: &MetadataSet, before: &Trusted) -> Verified {
    look(set, before, NOW).await.result.unwrap()
}

async fn refused(set: &MetadataSet, before: &Trusted) -> Refusal {
    look(set, before, NOW).await.result.unwrap_err()
}

/// A set with one file changed.
fn changed(set: &MetadataSet, suffix: &str, change: impl Fn(&str) -> String) -> MetadataSet {
    let mut files = BTreeMap::from(set.clone());
    for (name, text) in &mut files {
        if name.ends_with(suffix) {
            *text = change(text);
        }
    }
    files.try_into().unwrap()
}

fn versions(verified: &Verified) -> Vec<&str> {
    verified.releases.iter().map(|release| release.version.as_str()).collect()
}

#[tokio::test]
async fn what_is_published_is_believed_and_what_is_withdrawn_is_not() {
    let admin = Admin::new().await;
    let trusted = accepted(&admin.publish("1.0").await, &admin.root()).await.trusted;
    let verified = accepted(&admin.publish("1.1").await, &trusted).await;
    assert_eq!(versions(&verified), ["1.0", "1.1"]);
    assert_eq!(verified.clock, Clock::Known(NOW));
    assert_eq!(verified.releases[1], release("1.1", verified.releases[1].number));
    let publisher = admin.open().await;
    let (channel, version) = ("stable".parse().unwrap(), "1.0".parse().unwrap());
    let again = publisher.next_number();
    let publisher = publisher.withdraw(&channel, &version, &admin.keys(), Lifetimes::default(), NOW).await.unwrap();
    assert!(publisher.next_number() > again, "numbers are not given twice");
    assert_eq!(versions(&accepted(publisher.set(), &verified.trusted).await), ["1.1"]);
    assert!(matches!(publisher.release(&channel, &version), Err(PublisherError::NoRelease(_))));
}

#[tokio::test]
async fn an_older_set_is_a_rollback() {
    let admin = Admin::new().await;
    let old = admin.publish("1.0").await;
    let new = admin.publish("1.1").await;
    let trusted = accepted(&new, &admin.root()).await.trusted;
    let refusal = refused(&old, &trusted).await;
    assert_eq!(refusal.kind, Kind::Rollback, "{refusal}");
    assert!(refusal.message.contains("rollback: timestamp version 3 is older than 4"), "{refusal}");
    accepted(&new, &trusted).await;
}

#[tokio::test]
async fn a_changed_file_is_refused_and_says_which() {
    let admin = Admin::new().await;
    let set = admin.publish("1.0").await;
    let other = |text: &str| text.replace("library/app", "library/bad");
    let refusal = refused(&changed(&set, ".targets.json", other), &admin.root()).await;
    assert_eq!(refusal.kind, Kind::Tampered);
    assert!(refusal.message.contains("targets.json is not the file that was signed"), "{refusal}");
    let longer = |text: &str| format!("{text} ");
    assert_eq!(refused(&changed(&set, ".snapshot.json", longer), &admin.root()).await.kind, Kind::Tampered);
    let later = |text: &str| text.replace("2027", "2099");
    assert_eq!(refused(&changed(&set, "timestamp.json", later), &admin.root()).await.kind, Kind::Signatures);
    assert_eq!(
        refused(&changed(&set, "timestamp.json", |_| "{}".to_owned()), &admin.root()).await.kind,
        Kind::Malformed
    );
}

#[tokio::test]
async fn another_repositorys_keys_are_wrong_keys() {
    let (admin, other) = (Admin::new().await, Admin::new().await);
    let set = other.publish("1.0").await;
    let refusal = refused(&set, &admin.root()).await;
    assert_eq!(refusal.kind, Kind::Signatures);
    assert!(refusal.message.contains("wrong keys: timestamp is signed by 0 of the 1 keys"), "{refusal}");
}

/// What a set has under the name of a root that is trusted already is not looked at, so it must not be believed.
#[tokio::test]
async fn a_forged_root_of_a_trusted_version_is_not_taken_over() {
    let (admin, evil) = (Admin::new().await, Admin::new().await);
    let root = std::fs::read_to_string(evil.path().join("metadata/1.root.json")).unwrap();
    let set = changed(&admin.publish("1.0").await, "1.root.json", |_| root.clone());
    let trusted = look(&set, &admin.root(), NOW).await.trusted.unwrap();
    accepted(&admin.publish("1.1").await, &trusted).await;
    assert_eq!(refused(&evil.publish("6.6").await, &trusted).await.kind, Kind::Signatures);
}

#[tokio::test]
async fn expiry_counts_where_there_is_a_clock() {
    let admin = Admin::new().await;
    let set = admin.publish("1.0").await;
    let late = NOW + 181 * DAY;
    let refusal = look(&set, &admin.root(), late).await.result.unwrap_err();
    assert_eq!(refusal.kind, Kind::Expired);
    assert!(refusal.message.starts_with("expired: timestamp was to be used until 2027-07-14"), "{refusal}");
    for now in [0, NOW - DAY] {
        let verified = look(&set, &admin.root(), now).await.result.unwrap();
        assert_eq!((verified.clock, verified.expires), (Clock::None, (RoleType::Timestamp, NOW + 180 * DAY)));
    }
    let renewed = admin.open().await.renew(&admin.keys(), Lifetimes::default(), late).await.unwrap();
    look(renewed.set(), &admin.root(), late).await.result.unwrap();
}

#[tokio::test]
async fn old_keys_sign_nothing_more_after_a_rotation() {
    let admin = Admin::new().await;
    let (first, stolen) = (admin.root(), admin.keys());
    let trusted = accepted(&admin.publish("1.0").await, &first).await.trusted;
    let before = copy(admin.path());
    admin.rotate(&super::publisher::ROLES).await;
    let verified = accepted(&admin.publish("1.1").await, &trusted).await;
    assert_eq!((verified.root_version, versions(&verified)), (2, vec!["1.0", "1.1"]));
    accepted(&admin.publish("1.2").await, &first).await;
    // The thief goes on from the repository as it was, with higher versions than the admin's.
    let mut thief = Publisher::open(before.path()).await.unwrap();
    for _ in 0..5 {
        thief = thief.renew(&stolen, Lifetimes::default(), NOW).await.unwrap();
    }
    assert_eq!(refused(thief.set(), &verified.trusted).await.kind, Kind::Signatures);
    accepted(thief.set(), &trusted).await;
    let error = admin.open().await.renew(&stolen, Lifetimes::default(), NOW).await.unwrap_err();
    assert!(matches!(error, PublisherError::KeysMissing { found: 0, needed: 1, .. }), "{error}");
}

/// A withdrawn key is withdrawn at once, even if what comes with the new root cannot be used.
#[tokio::test]
async fn a_new_root_counts_even_if_the_rest_does_not() {
    let admin = Admin::new().await;
    let old = admin.publish("1.0").await;
    let trusted = accepted(&old, &admin.root()).await.trusted;
    let broken = changed(&admin.rotate(&[RoleType::Timestamp]).await, ".targets.json", |_| "{}".to_owned());
    let outcome = look(&broken, &trusted, NOW).await;
    assert_eq!(outcome.result.unwrap_err().kind, Kind::Tampered);
    let after = outcome.trusted.unwrap();
    assert_eq!((after.repository().unwrap().1, &after.timestamp), (2, &trusted.timestamp));
    assert_eq!(refused(&old, &after).await.kind, Kind::Signatures);
}

#[tokio::test]
async fn a_root_needs_its_threshold_of_old_and_of_new_keys() {
    let admin = Admin::new().await;
    let set = admin.publish("1.0").await;
    let one = KeyRing::read(&[first_file(&admin.path().join("keys/root"))]).unwrap();
    let options =
        RotateOptions { roles: vec![RoleType::Root], keys: None, threshold: None, lifetimes: Lifetimes::default() };
    let error = admin.open().await.rotate(options, one, NOW).await.unwrap_err();
    assert!(matches!(error, PublisherError::KeysMissing { role: RoleType::Root, needed: 2, found: 1, .. }), "{error}");
    let rotated = admin.rotate(&[RoleType::Root]).await;
    let mut unsigned: serde_json::Value = serde_json::from_slice(rotated.get("2.root.json").unwrap()).unwrap();
    // Three of the new keys and three of the old ones signed: two of each, or of one kind only, are needed.
    unsigned["signatures"].as_array_mut().unwrap().truncate(4);
    let four = changed(&rotated, "2.root.json", |_| unsigned.to_string());
    let trusted = accepted(&set, &admin.root()).await.trusted;
    assert_eq!(refused(&four, &trusted).await.kind, Kind::Signatures, "three new and one old");
    accepted(&rotated, &trusted).await;
}

#[tokio::test]
async fn a_rotation_that_broke_off_never_was() {
    let admin = Admin::new().await;
    admin.publish("1.0").await;
    let before = copy(admin.path());
    admin.rotate(&[RoleType::Timestamp]).await;
    std::fs::copy(admin.path().join("metadata/2.root.json"), before.path().join("metadata/2.root.json")).unwrap();
    let publisher = Publisher::open(before.path()).await.unwrap();
    assert_eq!(publisher.verified().root_version, 1);
    assert!(before.path().join("metadata/2.root.json.interrupted").exists());
}

#[tokio::test]
async fn mistakes_are_said_before_anything_is_written() {
    let admin = Admin::new().await;
    let open = Publisher::open(admin.path()).await.unwrap();
    assert!(matches!(Publisher::open(admin.path()).await, Err(PublisherError::Busy(_))));
    drop(open);
    let again = Publisher::init(admin.path(), InitOptions::default(), NOW).await;
    assert!(matches!(again, Err(PublisherError::Exists(_))));
    let nowhere = tempfile::tempdir().unwrap();
    assert!(matches!(Publisher::open(nowhere.path()).await, Err(PublisherError::NotARepository(_))));
    let options = InitOptions { root: RoleOptions { keys: 1, threshold: 2 }, ..InitOptions::default() };
    let failed = Publisher::init(&nowhere.path().join("r"), options, NOW).await;
    assert!(matches!(failed, Err(PublisherError::Threshold { .. })));
    let failed = Publisher::init(&nowhere.path().join("r"), InitOptions::default(), 1000).await;
    assert!(matches!(failed, Err(PublisherError::NoClock(_))));
    assert!(!nowhere.path().join("r").exists());
    admin.publish("1.0").await;
    let twice = admin.open().await.publish(release("1.0", 9), &admin.keys(), Lifetimes::default(), NOW).await;
    assert!(matches!(twice, Err(PublisherError::Released(_))));
    std::fs::write(nowhere.path().join("x.pem"), "no key").unwrap();
    assert!(matches!(KeyRing::read(&[nowhere.path().to_owned()]), Err(KeyError::NotAKey(_))));
}

#[tokio::test]
async fn keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let admin = Admin::new().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&admin.path().join("keys/root")), 0o700);
    assert_eq!(mode(&first_file(&admin.path().join("keys/root"))), 0o600);
    assert_eq!(std::fs::read_dir(admin.path().join("keys/root")).unwrap().count(), 3);
}

#[tokio::test]
async fn a_set_travels_as_blobs() {
    let admin = Admin::new().await;
    let set = admin.rotate(&[RoleType::Targets]).await;
    let artifact = set.to_artifact();
    let listed = MetadataSet::list(&artifact.blobs[&artifact.content]).unwrap();
    assert_eq!(listed.len(), 5);
    let files = listed.into_iter().map(|file| {
        let bytes = artifact.blobs[&file.content].clone();
        assert_eq!(bytes.len() as u64, file.size);
        (file.name, bytes)
    });
    assert_eq!(MetadataSet::new(files.collect()).unwrap(), set);
}

#[test]
fn what_is_no_set_is_refused() {
    let file = |name: &str, size: usize| (name.to_owned(), Bytes::from(vec![b' '; size]));
    let whole =
        [file("1.root.json", 1), file("timestamp.json", 1), file("7.snapshot.json", 1), file("9.targets.json", 1)];
    let set =
        |files: Vec<(String, Bytes)>| MetadataSet::new(files.into_iter().collect()).map_err(|refusal| refusal.kind);
    assert!(set(whole.to_vec()).is_ok());
    let with = |more: (String, Bytes)| set(whole.iter().cloned().chain([more]).collect());
    for name in ["3.root.json", "8.snapshot.json", "02.root.json", "../x", "", "x.json", "0.root.json"] {
        assert_eq!(with(file(name, 1)).unwrap_err(), Kind::Malformed, "{name}");
    }
    assert!(with(file("2.root.json", 1)).is_ok());
    assert_eq!(with(file("9.targets.json", TARGETS_BYTES_MAX + 1)).unwrap_err(), Kind::TooLarge);
    assert_eq!(set(whole[1..].to_vec()).unwrap_err(), Kind::Malformed);
    let roots = (2..=ROOTS_MAX + 1).map(|n| file(&format!("{n}.root.json"), 1));
    assert_eq!(set(whole.iter().cloned().chain(roots).collect()).unwrap_err(), Kind::TooLarge);
}

#[test]
fn names_are_words() {
    for text in ["stable", "1.4.0", "2026-11-01+build_7", "a"] {
        assert_eq!(text.parse::<ReleaseVersion>().unwrap().as_str(), text);
    }
    for text in ["", ".", "..", "-a", "a/b", "a b", "ä", &"a".repeat(NAME_LEN_MAX + 1)] {
        assert!(text.parse::<Channel>().is_err(), "{text}");
    }
}

fn first_file(dir: &Path) -> std::path::PathBuf {
    std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}

/// A copy of the repository, without its keys.
fn copy(dir: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("metadata")).unwrap();
    for entry in std::fs::read_dir(dir.join("metadata")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join("metadata").join(entry.file_name())).unwrap();
    }
    to
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever is done to a byte of a set, it is refused or says the same.
    #[test]
    fn a_flipped_bit_changes_nothing_unseen(file in 0usize..4, at in any::<prop::sample::Index>(), bit in 0u8..7) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            static SET: std::sync::OnceLock<(Trusted, MetadataSet)> = std::sync::OnceLock::new();
            let (root, set) = match SET.get() {
                Some(known) => known.clone(),
                None => {
                    let admin = Admin::new().await;
                    let made = (admin.root(), admin.publish("1.0").await);
                    SET.get_or_init(|| made).clone()
                }
            };
            let mut files = BTreeMap::from(set.clone());
            let name = files.keys().nth(file).unwrap().clone();
            let mut bytes = files[&name].clone().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else { return };
            files.insert(name, text);
            let right = accepted(&set, &root).await;
            if let Ok(verified) = look(&MetadataSet::try_from(files).unwrap(), &root, NOW).await.result {
                assert_eq!(verified.releases, right.releases);
                assert_eq!((verified.version, verified.expires), (right.version, right.expires));
            }
        });
    }

    /// Strangers' manifests are parsed or refused, nothing else.
    #[test]
    fn any_manifest_is_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256), name in "[0-9a-z./]{0,20}", size in any::<u64>()) {
        let _ = MetadataSet::list(&bytes);
        let digest = format!("sha256:{}", "0".repeat(64));
        let layer = format!(r#"{{"mediaType":"x","digest":"{digest}","size":{size},"annotations":{{"tuf.io/filename":"{name}"}}}}"#);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"x","artifactType":"{}","config":{layer},"layers":[{layer}]}}"#,
            super::set::SET_TYPE
        );
        prop_assert!(MetadataSet::list(manifest.as_bytes()).is_err());
    }
}

/// Makes `fuzz/set` anew, where the form of metadata has changed.
#[tokio::test]
#[ignore = "it writes into the source tree"]
async fn write_the_set_of_the_fuzzer() {
    let set = Admin::new().await.publish("1.0").await;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/set");
    for (name, text) in BTreeMap::from(set) {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn patches_are_signed_with_the_platform_that_they_are_for() {
    let id = |text: &str| layermesh_proto::ContentId::of(layermesh_proto::Algorithm::Sha256, text.as_bytes());
    let mut release = release("1.0", 1);
    let [amd64, arm64] = [0, 1].map(|at| release.images[0].platforms[at].digest.parse().unwrap());
    release.add_patches(&[(id("from 0.9"), amd64), (id("from 0.8"), amd64), (id("of another"), id("another"))]);
    release.add_patches(&[(id("from 0.9"), amd64)]);
    assert_eq!(release.patches_to(&amd64), [id("from 0.9"), id("from 0.8")]);
    assert_eq!(release.patches_to(&arm64), []);
    let (name, target) = release.to_target().unwrap();
    assert_eq!(Release::of_target(&name, &target).unwrap(), release);

    let platform = &mut release.images[0].platforms[1];
    platform.patches = vec!["sha256:1".to_owned()];
    assert!(release.check().is_err());
    let many = (0..=super::content::PATCHES_MAX).map(|n| id(&n.to_string()).to_string());
    release.images[0].platforms[1].patches = many.collect();
    assert!(release.check().unwrap_err().contains("more than"));
}

#[test]
fn an_image_takes_the_place_of_the_one_with_its_name() {
    let image = |name: &str, tag: &str, digest: &str| ReleasedImage {
        name: name.to_owned(),
        tag: Some(tag.to_owned()),
        digest: digest.to_owned(),
        ..release("1.0", 1).images.remove(0)
    };
    let old = Release {
        images: vec![image("r.test/app", "1", "a"), image("r.test/db", "15", "b"), image("r.test/db", "16", "c")],
        ..release("0.9", 1)
    };
    let before = |image: ReleasedImage| old.predecessor(&image).map(|old| old.digest.clone());
    assert_eq!(before(image("r.test/app", "2", "d")).as_deref(), Some("a"));
    assert_eq!(before(image("r.test/db", "16", "d")).as_deref(), Some("c"), "the same tag counts first");
    assert_eq!(before(image("r.test/db", "17", "d")), None, "it could be either");
    assert_eq!(before(image("r.test/app", "2", "a")), None, "nothing has changed");
    assert_eq!(before(image("r.test/web", "1", "d")), None);
}
