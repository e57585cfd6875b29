//! Releases, from the admin's command to the devices, with real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

use common::{
    Node, REGISTRY, Site,
    client::{Naming, http, pull_image},
    content::{self, RawImage},
};
use layermesh::{
    admin::{client::AdminClient, types::GcRequest},
    embedded::image::{ImageSpec, MANIFEST_MEDIA_TYPE, make_image},
    release::{
        MetadataSet,
        publisher::{InitOptions, Lifetimes, Publisher},
        status::SiteReleases,
    },
};
use layermesh_proto::{Algorithm, ContentId};
use serde_json::json;
use tokio::process::Command;

const APP: &str = "library/app";

/// The admin's repository, and the node that the admin's commands talk to.
struct Admin<'a> {
    dir: PathBuf,
    node: &'a Node,
}

impl<'a> Admin<'a> {
    async fn new(site: &Site, node: &'a Node) -> Self {
        let admin = Self { dir: site.dir().join("releases"), node };
        admin.done(&["init", &admin.dir.to_string_lossy()]).await;
        admin
    }

    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
        command.arg("release").args(words).env("LAYERMESH_RELEASES", &self.dir);
        command.arg("--admin").arg(&self.node.run().admin);
        self.node.patiently("answers the admin", command.output()).await.unwrap()
    }

    /// Runs a command that succeeds, and gives what it prints.
    async fn done(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}{}", self.node.last_words());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that fails, and gives what it complains of.
    async fn failed(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert!(!output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    async fn publish(&self, version: &str, images: &[&str]) -> String {
        self.done(&[&["publish", "--channel", "stable", "--version", version], images].concat()).await
    }
}

fn image(name: &str, tag: &str) -> String {
    format!("{REGISTRY}/{name}:{tag}")
}

/// An image of which the registry has lost a layer.
fn put_broken_image(site: &Site) -> ContentId {
    let layer = |content: ContentId| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": content.to_string(), "size": 9});
    let lost = ContentId::of(Algorithm::Sha256, b"lost");
    let config = site.registry.put_blob(content::bytes("config", 9));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "config": layer(config), "layers": [layer(lost)],
    });
    site.registry.put_manifest("library/broken", Some("v1"), manifest.to_string().into(), MANIFEST_MEDIA_TYPE);
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_signs_releases_of_images_that_are_whole() {
    let site = Site::new().await;
    let spec = ImageSpec { size_bytes: 1 << 20, layers: 4, seed: 1, arm64: true };
    let digest = site.registry.add_image(APP, "v1", &make_image(&spec, site.dir()).unwrap()).unwrap();
    let lost = put_broken_image(&site);
    let node = site.node("admin", &[]).await;
    let admin = Admin::new(&site, &node).await;

    let app = image(APP, "v1");
    let said = admin.publish("1.0", &[&app]).await;
    assert!(said.contains(&format!("{app} is {digest}, says the origin")), "{said}");
    assert!(said.contains("linux/amd64, linux/arm64") && said.contains("signed stable/1.0: 1 image"), "{said}");
    let list = admin.done(&["list"]).await;
    assert!(list.contains("stable") && list.contains("1.0") && list.contains("linux/arm64"), "{list}");
    let shown = admin.done(&["show", "stable/1.0"]).await;
    assert!(shown.contains(&app), "{shown}");
    admin.done(&["verify", "--images"]).await;

    let error =
        admin.failed(&["publish", "--channel", "stable", "--version", "1.1", &image("library/broken", "v1")]).await;
    assert!(error.contains("is not whole") && error.contains(&format!("layer {lost}: not found")), "{error}");
    let error = admin.failed(&["publish", "--channel", "stable", "--version", "1.0", &app]).await;
    assert!(error.contains("released already"), "{error}");
    let error = admin.failed(&["show", "stable/9"]).await;
    assert!(error.contains("there is no release stable/9"), "{error}");

    admin.done(&["rotate", "--role", "all"]).await;
    admin.done(&["verify"]).await;
    let old = site.dir().join("old");
    std::fs::rename(admin.dir.join("keys"), &old).unwrap();
    let error = admin.failed(&["renew", "--keys", &old.join("root").to_string_lossy()]).await;
    assert!(error.contains("takes 1 of its keys, and 0 are in") && error.contains("--keys"), "{error}");
    admin.done(&["withdraw", "stable/1.0", "--keys", &old.to_string_lossy()]).await;
    assert_eq!(admin.done(&["list"]).await, "no releases\n");
}

/// A node that follows the admin's releases.
async fn follower(site: &Site, admin: &Admin<'_>, name: &str, peers: &[&str], flags: &[&str]) -> Node {
    let root = admin.dir.join("root.json");
    let root = root.to_string_lossy();
    let flags = [&["--releases-root", &root, "--channel", "stable"], flags].concat();
    site.node_with(name, peers, &flags).await
}

async fn releases(node: &Node) -> SiteReleases {
    AdminClient::new(&node.run().admin).releases().await.unwrap_or_else(|error| panic!("{error}{}", node.last_words()))
}

/// Waits until a node holds all that it is to hold of a release.
async fn has_release(node: &Node, version: &str) {
    node.wait_until(&format!("holds stable/{version}"), async || {
        releases(node).await.node.releases.iter().any(|release| release.version == version && release.complete)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_fetches_a_release_ahead_of_time_and_installs_it_with_the_uplink_cut() {
    let site = Site::new().await;
    let spec = |seed| ImageSpec { size_bytes: 2 << 20, layers: 4, seed, arm64: true };
    let made = make_image(&spec(1), site.dir()).unwrap();
    site.registry.add_image(APP, "v1", &made).unwrap();
    let db = RawImage::put(&site.registry, "library/db", "16", "db", &[300_000, 0]);
    let publisher = site.node("publisher", &[]).await;
    let admin = Admin::new(&site, &publisher).await;

    let mut devices: Vec<Node> = Vec::new();
    for n in 0..4 {
        let mut peers = vec![publisher.address()];
        peers.extend(devices.iter().map(Node::address));
        devices.push(follower(&site, &admin, &format!("device-{n}"), &peers, &[]).await);
    }
    RawImage::put(&site.registry, "library/old", "1", "old", &[50_000]);
    admin.publish("0.9", &[&image("library/old", "1")]).await;
    let said = admin.publish("1.0", &[&image(APP, "v1"), &image("library/db", "16")]).await;
    assert!(said.contains("the node has it (version 4)"), "{said}");
    for device in &devices {
        has_release(device, "1.0").await;
    }
    // Nobody runs arm64, but copies are kept of that, too.
    let (sent, copy) = (site.registry.bytes_sent(), made.pull_bytes(0) + made.pull_bytes(1) + db.size);
    assert!(sent < copy * 3 / 2, "{sent} bytes for four devices, a copy has {copy}");
    // One device says how far all are.
    devices[0]
        .wait_until("hears that all are done", async || {
            let said = releases(&devices[0]).await.devices;
            said.len() == 4 && said.iter().all(|device| device.releases.iter().all(|release| release.complete))
        })
        .await;
    let shown = status_of(&devices[0]).await;
    assert!(shown.contains("stable/1.0: 4 of 4 complete") && shown.contains("100 %"), "{shown}");

    // The tag moves on at the registry, which then goes away, and the publisher with it.
    site.registry.add_image(APP, "v1", &make_image(&spec(2), site.dir()).unwrap()).unwrap();
    site.registry.set_online(false).await.unwrap();
    publisher.stop().await;
    for device in &devices {
        let app = pull_image(device, Naming::Query, APP, "v1").await;
        assert_eq!(app.1, made.pull_bytes(0));
        assert_eq!(pull_image(device, Naming::Path, "library/db", "16").await.1, db.size);
    }
    // Whoever comes now gets it from the others, though the publisher is gone.
    let peers: Vec<&str> = devices.iter().map(Node::address).collect();
    let late = follower_of(&site, "late", &peers, &[]).await;
    has_release(&late, "1.0").await;
    // What came before is of no use to it, and is neither fetched nor shown.
    assert_eq!(releases(&late).await.node.releases.len(), 1);
    assert_eq!(pull_image(&late, Naming::Query, APP, "v1").await.1, made.pull_bytes(0));
}

/// As [`follower`], once the admin is gone.
async fn follower_of(site: &Site, name: &str, peers: &[&str], flags: &[&str]) -> Node {
    let root = site.dir().join("releases/root.json");
    let root = root.to_string_lossy();
    site.node_with(name, peers, &[&["--releases-root", &root, "--channel", "stable"], flags].concat()).await
}

async fn status_of(node: &Node) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
    command.args(["release", "status", "--admin"]).arg(&node.run().admin);
    let output = node.patiently("says how releases stand", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_restarts_believes_what_it_believed_and_nothing_older() {
    let site = Site::new().await;
    RawImage::put(&site.registry, APP, "v1", "one", &[100_000]);
    let publisher = site.node("publisher", &[]).await;
    let admin = Admin::new(&site, &publisher).await;
    admin.publish("1.0", &[&image(APP, "v1")]).await;
    let old = Old::copy(&admin.dir, &site.dir().join("old"));
    let device = follower(&site, &admin, "device", &[publisher.address()], &[]).await;
    has_release(&device, "1.0").await;
    let two = RawImage::put(&site.registry, APP, "v2", "two", &[100_000]);
    admin.publish("1.1", &[&image(APP, "v2")]).await;
    has_release(&device, "1.1").await;
    device.stop().await;
    site.registry.set_online(false).await.unwrap();

    let device = follower(&site, &admin, "device", &[], &[]).await;
    has_release(&device, "1.1").await;
    assert_eq!(pull_image(&device, Naming::Query, APP, "v2").await.1, two.size);
    // The admin's commands talk to the device now, with the repository as it was.
    let thief = Admin { dir: old.0, node: &device };
    let error = thief.failed(&["announce"]).await;
    assert!(error.contains("rollback: timestamp version 3 is older than 4"), "{error}");
    let known = releases(&device).await.node;
    assert_eq!((known.version, known.refused.unwrap().kind.as_str()), (4, "rollback"));
    assert!(metrics(&device).await.contains("layermesh_release_metadata_refused_total{reason=\"rollback\"} 1"));
    assert!(status_of(&device).await.contains("refused what the admin offered: rollback"));
}

/// A tag never names what is not here yet if something that is here will do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_current_stays_until_the_next_release_is_whole() {
    let site = Site::new().await;
    let one = RawImage::put(&site.registry, APP, "v1", "one", &[200_000]);
    let publisher = site.node("publisher", &[]).await;
    pull_image(&publisher, Naming::Query, APP, "v1").await;
    let admin = Admin::new(&site, &publisher).await;
    admin.publish("1.0", &[&image(APP, "v1")]).await;
    // Over its metered uplink nothing is fetched ahead of time, only from the publisher.
    let flags = ["--uplink-metered", "--tag-fresh", "0s"];
    let device = follower(&site, &admin, "device", &[publisher.address()], &flags).await;
    has_release(&device, "1.0").await;
    assert_eq!(device.status().await.bytes_from_origin, 0);

    let two = RawImage::put(&site.registry, APP, "v1", "two", &[200_000]);
    admin.publish("1.1", &[&image(APP, "v1")]).await;
    device
        .wait_until("waits for the meter", async || {
            let known = releases(&device).await.node.releases;
            known.iter().any(|next| next.version == "1.1" && !next.complete && next.waits_for.contains("meter"))
        })
        .await;
    assert!(status_of(&device).await.contains("meter"));
    site.registry.set_online(false).await.unwrap();
    assert_eq!(pull_image(&device, Naming::Query, APP, "v1").await.1, one.size);
    // Once somebody brings it, it is current.
    site.registry.set_online(true).await.unwrap();
    pull_image(&publisher, Naming::Query, APP, &two.manifest.to_string()).await;
    has_release(&device, "1.1").await;
    site.registry.set_online(false).await.unwrap();
    assert!(pull_image(&device, Naming::Query, APP, "v1").await.0.contains(&two.manifest));
}

/// What is current is not given up for two others that are not here, and of one that has no room nothing is fetched.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_current_stays_while_newer_ones_do_not_come_or_have_no_room() {
    const QUOTA: usize = 1 << 20;
    let site = Site::new().await;
    let one = RawImage::put(&site.registry, APP, "v1", "one", &[QUOTA / 2]);
    let publisher = site.node("publisher", &[]).await;
    pull_image(&publisher, Naming::Query, APP, "v1").await;
    let admin = Admin::new(&site, &publisher).await;
    admin.publish("1.0", &[&image(APP, "v1")]).await;
    let quota = QUOTA.to_string();
    let flags = ["--uplink-metered", "--tag-fresh", "0s", "--quota", &quota];
    let device = follower(&site, &admin, "device", &[publisher.address()], &flags).await;
    has_release(&device, "1.0").await;
    let waits_for = async |version: &str, what: &str| {
        device
            .wait_until(&format!("{version} waits for {what}"), async || {
                let known = releases(&device).await.node.releases;
                known.iter().any(|next| next.version == version && next.waits_for.contains(what))
            })
            .await;
    };
    for version in ["1.1", "1.2"] {
        RawImage::put(&site.registry, APP, "v1", version, &[QUOTA / 4]);
        admin.publish(version, &[&image(APP, "v1")]).await;
        waits_for(version, "meter").await;
    }
    // Two layers, of which one has room, and which the publisher has.
    let huge = RawImage::put(&site.registry, APP, "v1", "huge", &[QUOTA / 3, QUOTA / 2]);
    pull_image(&publisher, Naming::Query, APP, &huge.manifest.to_string()).await;
    admin.publish("1.3", &[&image(APP, "v1")]).await;
    waits_for("1.3", "no room for").await;
    assert!(status_of(&device).await.contains("no room for"));
    let blobs = device.blobs().await;
    let held = |content: &ContentId| blobs.iter().find(|blob| blob.digest == content.to_string());
    assert!(huge.blobs.iter().all(|(layer, _)| held(layer).is_none()), "{blobs:?}");
    // What is current stays where all goes that may.
    let request = GcRequest { to: Some(0), dry_run: false };
    AdminClient::new(&device.run().admin).gc(&request).await.unwrap();
    site.registry.set_online(false).await.unwrap();
    assert_eq!(pull_image(&device, Naming::Query, APP, "v1").await.1, one.size);
    // Once something has room again, it is next and then current.
    site.registry.set_online(true).await.unwrap();
    let small = RawImage::put(&site.registry, APP, "v1", "small", &[QUOTA / 4]);
    pull_image(&publisher, Naming::Query, APP, &small.manifest.to_string()).await;
    admin.publish("1.4", &[&image(APP, "v1")]).await;
    has_release(&device, "1.4").await;
    assert!(device.blobs().await.iter().all(|blob| !blob.pinned_by.contains(&"release/stable/1.0".to_owned())));
}

/// A copy of a repository.
struct Old(PathBuf);

impl Old {
    fn copy(from: &Path, to: &Path) -> Self {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                Self::copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
        Self(to.to_owned())
    }
}

async fn metrics(node: &Node) -> String {
    let url = format!("http://{}/metrics", node.run().status);
    http().get(url).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_as_it_must_be_is_refused_with_the_reason() {
    let site = Site::new().await;
    RawImage::put(&site.registry, APP, "v1", "one", &[100_000]);
    let publisher = site.node("publisher", &[]).await;
    let admin = Admin::new(&site, &publisher).await;
    let device = follower(&site, &admin, "device", &[publisher.address()], &[]).await;
    admin.publish("1.0", &[&image(APP, "v1")]).await;
    has_release(&device, "1.0").await;

    // Somebody else's repository, handed to the device itself.
    let evil = Admin { dir: site.dir().join("evil"), node: &device };
    evil.done(&["init", &evil.dir.to_string_lossy()]).await;
    let error = evil.failed(&["publish", "--channel", "stable", "--version", "6.6", &image(APP, "v1")]).await;
    assert!(error.contains("this node follows the releases of repository"), "{error}");
    // The same, pretending to be the repository that is followed.
    let stolen = Old::copy(&admin.dir, &site.dir().join("stolen"));
    let client = AdminClient::new(&device.run().admin);
    let set = |dir: &Path, change: &dyn Fn(&str, String) -> String| -> MetadataSet {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(dir.join("metadata")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("2.") {
                let text = std::fs::read_to_string(dir.join("metadata").join(&name)).unwrap();
                let text = change(&name, text);
                files.insert(name, text);
            }
        }
        files.try_into().unwrap()
    };
    let tampered = set(&stolen.0, &|name, text| {
        if name.ends_with("targets.json") { text.replace("library/app", "library/bad") } else { text }
    });
    let error = client.hand_releases(&tampered).await.unwrap_err().to_string();
    assert!(error.contains("tampered: 3.targets.json is not the file that was signed"), "{error}");
    let unsigned = set(&stolen.0, &|name, text| {
        if name == "timestamp.json" { text.replace("\"version\": 3", "\"version\": 9") } else { text }
    });
    let error = client.hand_releases(&unsigned).await.unwrap_err().to_string();
    assert!(error.contains("wrong keys: timestamp is signed by 0 of the 1 keys"), "{error}");
    let known = releases(&device).await.node;
    assert_eq!((known.version, known.refused.unwrap().kind.as_str()), (3, "signatures"));
    // What comes next from the admin is believed as ever.
    admin.done(&["rotate", "--role", "all"]).await;
    device.wait_until("believes the new keys", async || releases(&device).await.node.root_version == 2).await;
    assert!(releases(&device).await.node.refused.is_none());

    // The thief goes on with the old keys, and a node that knows no better spreads that.
    let carrier = site.node("carrier", &[device.address()]).await;
    let thief = Admin { dir: stolen.0, node: &carrier };
    for _ in 0..3 {
        thief.done(&["renew"]).await;
    }
    device
        .wait_until("refuses what the old keys signed", async || {
            releases(&device).await.node.refused.is_some_and(|refused| refused.kind == "signatures")
        })
        .await;
    let known = releases(&device).await.node;
    assert_eq!((known.version, known.root_version), (4, 2));
    assert!(known.refused.unwrap().from.starts_with("peer "));
    assert!(status_of(&device).await.contains("stable/1.0: 1 of 1 complete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_metadata_is_refused_by_a_device_that_has_a_clock() {
    // The day after the first of November 2026, before which no clock counts; signed for a day.
    const THEN: u64 = 1_793_491_200 + 86_400;
    let site = Site::new().await;
    let node = site.node("node", &[]).await;
    let dir = site.dir().join("releases");
    let lifetimes = Lifetimes { root: 3650, targets: 3650, timestamp: 1 };
    let publisher = Publisher::init(&dir, InitOptions { lifetimes, ..InitOptions::default() }, THEN).await.unwrap();
    let admin = Admin { dir, node: &node };
    let device = follower(&site, &admin, "device", &[], &[]).await;
    let error = AdminClient::new(&device.run().admin).hand_releases(publisher.set()).await.unwrap_err().to_string();
    assert!(error.contains("expired: timestamp was to be used until 2026-11-03"), "{error}");
    drop(publisher);
    let device = Admin { node: &device, ..admin };
    device.done(&["renew"]).await;
    assert!(status_of(device.node).await.contains("good until"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_keeps_copies_for_devices_that_are_away() {
    let site = Site::new().await;
    let spec = ImageSpec { size_bytes: 2 << 20, layers: 4, seed: 3, arm64: true };
    let made = make_image(&spec, site.dir()).unwrap();
    site.registry.add_image(APP, "v1", &made).unwrap();
    let publisher = site.node("publisher", &[]).await;
    let admin = Admin::new(&site, &publisher).await;
    let mut devices: Vec<Node> = Vec::new();
    for n in 0..3 {
        let mut peers = vec![publisher.address()];
        peers.extend(devices.iter().map(Node::address));
        let flags = ["--releases-platform", "linux/amd64"];
        devices.push(follower(&site, &admin, &format!("device-{n}"), &peers, &flags).await);
    }
    admin.publish("1.0", &[&image(APP, "v1")]).await;
    // Nobody here runs arm64, and still two hold each of its blobs.
    let all: Vec<ContentId> = made.platforms[1].layers.iter().map(|layer| layer.content).collect();
    for content in &all {
        let digest = content.to_string();
        devices[0]
            .wait_until("has a site with two copies of all", async || {
                let mut copies = 0;
                for device in &devices {
                    copies += usize::from(device.blobs().await.iter().any(|blob| blob.digest == digest));
                }
                copies >= 2
            })
            .await;
    }
    let mut sums = Vec::new();
    for device in &devices {
        sums.push(device.status().await.store_bytes);
    }
    let both = made.pull_bytes(0) + made.pull_bytes(1);
    assert!(sums.iter().sum::<u64>() < 3 * both, "not everybody keeps everything: {sums:?}");
    publisher.stop().await;
    site.registry.set_online(false).await.unwrap();
    let peers: Vec<&str> = devices.iter().map(Node::address).collect();
    let home = follower_of(&site, "home", &peers, &["--releases-platform", "linux/arm64"]).await;
    has_release(&home, "1.0").await;
}
