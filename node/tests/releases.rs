//! Releases, from the admin's command to the devices, with real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{path::PathBuf, process::Output};

use common::{Node, REGISTRY, Site, content};
use layermesh::embedded::image::{ImageSpec, MANIFEST_MEDIA_TYPE, make_image};
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
