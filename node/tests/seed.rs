//! Sites without a registry: images come from files, and devices get them from each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use common::{
    Node, Site,
    client::{Naming, pull_image},
};
use futures::{StreamExt as _, stream};
use layermesh::{
    admin::{client::AdminClient, types::CheckRequest},
    embedded::image::{Image, ImageSpec, make_image},
};
use layermesh_proto::{Algorithm, ContentId};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

const REPOSITORY: &str = "library/app";
const IMAGE: &str = "reg.test/library/app:v1";

/// How a command ended.
struct Ended {
    status: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{}", self.err);
        serde_json::from_str(self.out.lines().last().unwrap()).unwrap()
    }
}

/// Runs a command of the program for a node.
async fn layermesh(node: &Node, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layermesh"));
    command.arg("--admin").arg(&node.run().admin).args(words).kill_on_drop(true);
    let output = node.patiently(&words.join(" "), command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { status: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Waits until a node has heard of so many blobs of another, and of what the image's tag stands for.
async fn has_heard(node: &Node, other: &Node, blobs: usize) {
    node.has_heard(&other.run().peer_id, blobs).await;
    let client = AdminClient::new(&node.run().admin);
    let request = CheckRequest { image: IMAGE.to_owned(), platform: None };
    node.wait_until("knows the tag", async || client.check(&request).await.unwrap().digest.is_some()).await;
}

fn id(bytes: &[u8]) -> ContentId {
    ContentId::of(Algorithm::Sha256, bytes)
}

/// An OCI image layout with this image, as any tool would write it.
fn layout(dir: &Path, image: &Image) -> PathBuf {
    let dir = dir.join("layout");
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": id(&image.index).to_string(), "size": image.index.len(),
        "annotations": {"org.opencontainers.image.ref.name": IMAGE}}]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let documents = image.platforms.iter().flat_map(|platform| [&platform.manifest, &platform.config]);
    for document in documents.chain([&image.index]) {
        std::fs::write(blobs.join(id(document).hex()), document).unwrap();
    }
    for layer in image.platforms.iter().flat_map(|platform| &platform.layers) {
        std::fs::copy(&layer.path, blobs.join(layer.content.hex())).unwrap();
    }
    dir
}

fn spec(seed: u64, size_bytes: u64) -> ImageSpec {
    ImageSpec { size_bytes, layers: 4, seed, arm64: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_a_directory_is_on_the_site_and_pulled_by_tag_without_a_registry() {
    let site = Site::new().await;
    let image = make_image(&spec(1, 4 << 20), site.dir()).unwrap();
    let source = format!("oci:{}", layout(site.dir(), &image).display());
    let first = site.node("first", &[]).await;
    let second = site.node("second", &[first.address()]).await;

    let unknown = layermesh(&second, &["check", IMAGE]).await;
    assert_eq!(unknown.status, 5, "{}", unknown.err);
    assert!(unknown.out.contains("no device of this site knows"), "{}", unknown.out);

    let seeded = layermesh(&first, &["--json", "seed", &source]).await.json();
    assert_eq!((&seeded["image"], &seeded["digest"]), (&json!(IMAGE), &json!(id(&image.index).to_string())));
    assert_eq!((&seeded["blobs"], &seeded["bytes_held"], &seeded["converted"]), (&json!(13), &json!(0), &json!(false)));
    let again = layermesh(&first, &["--json", "seed", &source]).await.json();
    assert_eq!(again["bytes_held"], again["bytes"], "nothing is sent twice");

    has_heard(&second, &first, 13).await;
    for (platform, here, there) in [("all", 0, 4), ("linux/amd64", 0, 4), ("linux/arm64", 0, 4)] {
        let check = ["check", IMAGE, "--platform", platform];
        let (on_first, on_second) = (layermesh(&first, &check).await, layermesh(&second, &check).await);
        assert_eq!((on_first.status, on_second.status), (here, there), "{platform}: {}{}", on_first.err, on_second.out);
        assert!(on_second.out.contains("complete on this site, not on this device"), "{}", on_second.out);
    }
    assert_eq!(site.registry.request_count(), 0, "nothing of this asks the registry");
    site.registry.set_online(false).await.unwrap();

    let (pulled, bytes) = pull_image(&second, Naming::Query, REPOSITORY, "v1").await;
    assert_eq!((pulled.len(), bytes), (7, image.pull_bytes(0)));
    let status = second.status().await;
    assert_eq!(status.bytes_from_origin, 0);
    let checked = layermesh(&second, &["--json", "check", IMAGE, "--platform", "linux/amd64"]).await.json();
    assert_eq!((&checked["complete"], &checked["device"]), (&json!("device"), &checked["total"]));
    assert_eq!(checked["peers"][0]["blobs"], 7);

    // With the only other device gone, the other platform's layers are on no device.
    first.stop().await;
    second.wait_until("is alone", async || second.peers().await.is_empty()).await;
    let alone = layermesh(&second, &["check", IMAGE, "--platform", "linux/arm64"]).await;
    assert_eq!(alone.status, 5, "{}", alone.out);
    assert!(alone.out.starts_with("incomplete") && alone.out.contains("missing"), "{}", alone.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_carries_images_to_a_site_that_never_had_them() {
    let home = Site::new().await;
    let image = make_image(&spec(2, 2 << 20), home.dir()).unwrap();
    let digest = home.registry.add_image(REPOSITORY, "v1", &image).unwrap().to_string();
    let node = home.node("node", &[]).await;
    let (file, again) = (home.dir().join("app.oci.tar"), home.dir().join("again.oci.tar"));
    let (file, again) = (file.to_str().unwrap(), again.to_str().unwrap());
    let exported = layermesh(&node, &["--json", "bundle", "export", IMAGE, file]).await.json();
    assert_eq!(exported["images"], json!([{"image": IMAGE, "digest": digest}]));
    layermesh(&node, &["--json", "bundle", "export", IMAGE, again]).await.json();
    assert_eq!(std::fs::read(file).unwrap(), std::fs::read(again).unwrap(), "the same images give the same bytes");
    let refused = layermesh(&node, &["bundle", "export", IMAGE, file]).await;
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    layermesh(&node, &["--json", "bundle", "export", "--force", IMAGE, file]).await.json();

    let away = Site::new().await;
    away.registry.set_online(false).await.unwrap();
    let first = away.node("first", &[]).await;
    let second = away.node("second", &[first.address()]).await;
    let imported = layermesh(&first, &["--json", "bundle", "import", file]).await.json();
    assert_eq!((&imported["image"], &imported["digest"]), (&json!(IMAGE), &json!(digest)));
    has_heard(&second, &first, 13).await;
    let (_, bytes) = pull_image(&second, Naming::Path, REPOSITORY, "v1").await;
    assert_eq!(bytes, image.pull_bytes(0));
    // It is pinned there, and a restart changes nothing.
    first.stop().await;
    let first = away.node("first", &[second.address()]).await;
    assert_eq!(layermesh(&first, &["check", IMAGE, "--platform", "all"]).await.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_interrupted_goes_on_where_it_was() {
    let site = Site::new().await;
    let image = make_image(&spec(3, 24 << 20), site.dir()).unwrap();
    let source = format!("oci:{}", layout(site.dir(), &image).display());
    site.registry.set_online(false).await.unwrap();
    let mut node = site.node("node", &[]).await;
    // Of the largest layer two thirds have come when the stick is pulled out and the power goes.
    let layer = image.platforms[0].layers.iter().max_by_key(|layer| layer.size).unwrap();
    let sent = layer.size * 2 / 3;
    let mut part = Vec::new();
    std::fs::File::open(&layer.path).unwrap().take(sent).read_to_end(&mut part).unwrap();
    let body = stream::iter([Ok(Bytes::from(part))]).chain(stream::iter([Err(std::io::Error::other("pulled out"))]));
    let client = AdminClient::new(&node.run().admin);
    node.patiently("is sent a part", client.send_blob(&layer.content, layer.size, 0, body)).await.unwrap_err();
    node.wait_until("keeps what came", async || node.status().await.partial_bytes > sent / 2).await;
    node.signal(Signal::KILL);
    node.kill().await;

    let node = site.node("node", &[]).await;
    let kept = node.status().await.partial_bytes;
    assert!(kept > sent / 2 && kept <= sent, "{kept} of {sent}");
    let seeded = layermesh(&node, &["--json", "seed", &source]).await.json();
    assert_eq!(seeded["bytes_held"], json!(kept), "only the rest is sent");
    assert_eq!(layermesh(&node, &["check", IMAGE, "--platform", "all"]).await.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tampered_with_is_named_and_what_is_right_stays() {
    let site = Site::new().await;
    let good = make_image(&spec(4, 1 << 20), site.dir()).unwrap();
    let bad = make_image(&spec(5, 1 << 20), site.dir()).unwrap();
    site.registry.add_image(REPOSITORY, "v1", &good).unwrap();
    site.registry.add_image("library/bad", "v1", &bad).unwrap();
    let node = site.node("node", &[]).await;
    let path = site.dir().join("two.oci.tar");
    let file = path.to_str().unwrap();
    layermesh(&node, &["--json", "bundle", "export", "reg.test/library/bad:v1", IMAGE, file]).await.json();

    // One bit of one layer.
    let layer = &bad.platforms[1].layers[2];
    let whole = std::fs::read(&path).unwrap();
    let bytes = std::fs::read(&layer.path).unwrap();
    let at = whole.windows(bytes.len()).position(|window| window == bytes).unwrap() + bytes.len() / 2;
    let mut tampered = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    tampered.seek(SeekFrom::Start(at as u64)).unwrap();
    tampered.write_all(&[whole[at] ^ 1]).unwrap();

    let away = Site::new().await;
    away.registry.set_online(false).await.unwrap();
    let node = away.node("node", &[]).await;
    let refused = layermesh(&node, &["bundle", "import", file]).await;
    assert_eq!(refused.status, 1, "{}", refused.out);
    assert!(refused.err.contains(&layer.content.to_string()), "{}", refused.err);
    assert!(refused.err.contains("reg.test/library/bad:v1"), "{}", refused.err);
    assert_eq!(layermesh(&node, &["check", IMAGE, "--platform", "all"]).await.status, 0, "the other one came whole");
    assert_eq!(layermesh(&node, &["check", "reg.test/library/bad:v1"]).await.status, 5);

    std::fs::write(&path, &whole).unwrap();
    layermesh(&node, &["--json", "bundle", "import", file]).await.json();
    assert_eq!(layermesh(&node, &["check", "reg.test/library/bad:v1", "--platform", "all"]).await.status, 0);

    // A copy that was cut off says so before anything is sent.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = layermesh(&node, &["bundle", "import", file]).await;
    assert!(cut.status == 1 && cut.err.contains("is cut off"), "{}", cut.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_a_release_has_its_images_and_its_metadata() {
    let home = Site::new().await;
    let image = make_image(&spec(6, 1 << 20), home.dir()).unwrap();
    let digest = home.registry.add_image(REPOSITORY, "v1", &image).unwrap().to_string();
    let node = home.node("node", &[]).await;
    let (releases, file) = (home.dir().join("releases"), home.dir().join("release.oci.tar"));
    let (releases, file) = (releases.to_str().unwrap(), file.to_str().unwrap());
    let done = async |words: &[&str]| {
        let ended = layermesh(&node, words).await;
        assert_eq!(ended.status, 0, "{words:?}: {}", ended.err);
        ended
    };
    done(&["release", "init", releases]).await;
    done(&["release", "publish", "--dir", releases, "--channel", "stable", "--version", "1.0.0", IMAGE]).await;
    let export = ["--json", "bundle", "export", "release:stable/1.0.0", file, "--releases", releases];
    let exported = done(&export).await.json();
    assert_eq!(exported["releases"], json!(["stable/1.0.0"]));
    assert_eq!(exported["images"], json!([{"image": IMAGE, "digest": digest}]));
    let unknown = ["bundle", "export", "release:stable/2.0.0", "x.tar", "--releases", releases];
    assert!(layermesh(&node, &unknown).await.err.contains("no release stable/2.0.0"));

    let away = Site::new().await;
    away.registry.set_online(false).await.unwrap();
    let root = format!("{releases}/root.json");
    let follows = ["--releases-root", &root, "--channel", "stable"];
    let first = away.node_with("first", &[], &follows).await;
    let second = away.node_with("second", &[first.address()], &follows).await;
    let imported = layermesh(&first, &["--json", "bundle", "import", file]).await;
    let metadata = imported.json();
    assert_eq!(
        (&metadata["bundled"], &metadata["releases"]),
        (&json!(["stable/1.0.0"]), &json!(1)),
        "{}",
        imported.out
    );
    assert_eq!(layermesh(&first, &["check", IMAGE, "--platform", "all"]).await.status, 0);
    // The other device hears of the release and fetches it ahead of time.
    let held = ["check", IMAGE, "--platform", "linux/amd64"];
    second.wait_until("has the release", async || layermesh(&second, &held).await.status == 0).await;

    // Somebody else's keys.
    let (others, forged) = (format!("{releases}-others"), format!("{file}.forged"));
    done(&["release", "init", &others]).await;
    done(&["release", "publish", "--dir", &others, "--channel", "stable", "--version", "9.0.0", IMAGE]).await;
    done(&["--json", "bundle", "export", "release:stable/9.0.0", &forged, "--releases", &others]).await;
    let refused = layermesh(&first, &["bundle", "import", &forged]).await;
    assert_eq!((refused.status, refused.out.as_str()), (1, ""), "nothing of it is brought");
    assert!(refused.err.contains("follows the releases of repository"), "{}", refused.err);
    // Who looks for an image in it is not confused by what else is there.
    let seeded = layermesh(&first, &["--json", "seed", &format!("oci-archive:{file}")]).await.json();
    assert_eq!(seeded["digest"], json!(digest));
}

/// Tags that releases name stand for what the newest release says, whatever bundle is imported last.
#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_an_older_release_brings_its_images_and_not_its_tags() {
    const OTHER: &str = "reg.test/library/other:v1";
    let home = Site::new().await;
    let make = |seed| make_image(&spec(seed, 1 << 18), home.dir()).unwrap();
    let (old, new) = (make(8), make(9));
    home.registry.add_image("library/other", "v1", &old).unwrap();
    let old_digest = home.registry.add_image(REPOSITORY, "v1", &old).unwrap().to_string();
    let node = home.node("node", &[]).await;
    let path = |name: &str| home.dir().join(name).to_str().unwrap().to_owned();
    let (releases, outdated, kept, file) = (path("releases"), path("outdated.tar"), path("kept.tar"), path("new.tar"));
    let done = async |words: &[&str]| {
        let ended = layermesh(&node, words).await;
        assert_eq!(ended.status, 0, "{words:?}: {}", ended.err);
    };
    let publish = async |version: &str| {
        let words =
            ["release", "publish", "--dir", &releases, "--channel", "stable", "--version", version, IMAGE, OTHER];
        done(&words).await;
    };
    let export = async |release: &str, file: &str| {
        done(&["--json", "bundle", "export", release, file, "--releases", &releases]).await;
    };
    done(&["release", "init", &releases]).await;
    publish("1").await;
    export("release:stable/1", &outdated).await;
    let new_digest = home.registry.add_image(REPOSITORY, "v1", &new).unwrap().to_string();
    home.registry.add_image("library/other", "v1", &new).unwrap();
    publish("2").await;
    export("release:stable/1", &kept).await;
    export("release:stable/2", &file).await;

    let away = Site::new().await;
    away.registry.set_online(false).await.unwrap();
    let root = format!("{releases}/root.json");
    let device = away.node_with("device", &[], &["--releases-root", &root, "--channel", "stable"]).await;
    let imported = layermesh(&device, &["--json", "bundle", "import", &file]).await;
    assert!(imported.out.contains(IMAGE) && imported.out.contains(OTHER), "{}", imported.out);
    let installs = async |tag: &str| {
        for repository in [REPOSITORY, "library/other"] {
            let (pulled, _) = pull_image(&device, Naming::Query, repository, "v1").await;
            assert!(pulled.iter().any(|content| content.to_string() == new_digest), "{tag}: {pulled:?}");
        }
    };
    device.wait_until("has the release", async || layermesh(&device, &["check", OTHER]).await.status == 0).await;
    installs("the newest").await;
    // Older metadata, and older images with the newest metadata.
    let refused = layermesh(&device, &["bundle", "import", &outdated]).await;
    assert!(refused.status == 1 && refused.err.contains("rollback: timestamp version 3"), "{}", refused.err);
    assert_eq!(layermesh(&device, &["check", &format!("reg.test/{REPOSITORY}@{old_digest}")]).await.status, 5);
    installs("after a rollback").await;
    let imported = layermesh(&device, &["--json", "bundle", "import", &kept]).await;
    assert_eq!(imported.status, 0, "{}", imported.err);
    assert_eq!(layermesh(&device, &["check", &format!("reg.test/{REPOSITORY}@{old_digest}")]).await.status, 0);
    installs("after older images").await;
}

/// What `docker save` wrote before it wrote image layouts, with layers as this image has them.
fn docker_archive(path: &Path, image: &Image) {
    let platform = &image.platforms[0];
    let names: Vec<String> = platform.layers.iter().map(|layer| format!("{}/layer.tar", layer.content.hex())).collect();
    let list = json!([{"Config": "config.json", "RepoTags": ["reg.test/library/app:saved"], "Layers": names}]);
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", &platform.config);
    for (name, layer) in names.iter().zip(&platform.layers) {
        add(name, &std::fs::read(&layer.path).unwrap());
    }
    add("manifest.json", list.to_string().as_bytes());
    tar.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saved_is_pulled_like_any_other_image() {
    let site = Site::new().await;
    site.registry.set_online(false).await.unwrap();
    let image = make_image(&spec(7, 1 << 20), site.dir()).unwrap();
    let path = site.dir().join("saved.tar");
    docker_archive(&path, &image);
    let node = site.node("node", &[]).await;
    let source = format!("docker-archive:{}", path.display());
    let seeded = layermesh(&node, &["seed", &source]).await;
    assert!(
        seeded.status == 0 && seeded.out.contains("another digest than at a registry"),
        "{}{}",
        seeded.out,
        seeded.err
    );
    let first = layermesh(&node, &["--json", "seed", &source]).await.json();
    let again = layermesh(&node, &["--json", "seed", &source, "--as", "reg.test/library/app:again"]).await.json();
    assert_eq!((&first["converted"], &first["digest"]), (&json!(true), &again["digest"]), "always the same");
    for tag in ["saved", "again"] {
        let (pulled, _) = pull_image(&node, Naming::Query, REPOSITORY, tag).await;
        assert_eq!(pulled.len(), 2 + image.platforms[0].layers.len(), "{tag}");
    }
}
