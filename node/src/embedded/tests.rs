//! The registry as a client sees it, and images as a runtime unpacks them.

use std::{collections::BTreeSet, io::Read as _, path::Path, time::Duration};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::StreamExt as _;
use layermesh_proto::{Algorithm, ContentId};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use reqwest::{StatusCode, header};

use super::{
    Registry,
    image::{Image, ImageSpec, make_image},
};

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

async fn start() -> Registry {
    Registry::start("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

fn small(seed: u64) -> ImageSpec {
    ImageSpec { size_bytes: 2 << 20, layers: 5, seed, arm64: true }
}

fn make(spec: &ImageSpec) -> (tempfile::TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    let image = make_image(spec, dir.path()).unwrap();
    (dir, image)
}

fn of(bytes: &[u8]) -> String {
    ContentId::of(Algorithm::Sha256, bytes).to_string()
}

#[test]
fn an_image_is_what_its_documents_say() {
    let spec = small(1);
    let (_dir, image) = make(&spec);
    let index = ImageIndex::from_reader(image.index.as_ref()).unwrap();
    let platforms: Vec<_> =
        index.manifests().iter().map(|m| m.platform().as_ref().unwrap().architecture().to_string()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let mut seen = BTreeSet::new();
    for (descriptor, platform) in index.manifests().iter().zip(&image.platforms) {
        assert_eq!(descriptor.digest().to_string(), of(&platform.manifest));
        assert_eq!(descriptor.size(), platform.manifest.len() as u64);
        let manifest = ImageManifest::from_reader(platform.manifest.as_ref()).unwrap();
        assert_eq!(manifest.config().digest().to_string(), of(&platform.config));
        assert_eq!(manifest.config().size(), platform.config.len() as u64);
        let config = ImageConfiguration::from_reader(platform.config.as_ref()).unwrap();
        assert_eq!(config.history().as_ref().unwrap().len(), spec.layers);
        assert_eq!(manifest.layers().len(), spec.layers);
        for ((descriptor, diff_id), layer) in
            manifest.layers().iter().zip(config.rootfs().diff_ids()).zip(&platform.layers)
        {
            let bytes = std::fs::read(&layer.path).unwrap();
            assert_eq!(descriptor.digest().to_string(), of(&bytes));
            assert_eq!(descriptor.size(), bytes.len() as u64);
            let mut unpacked = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
            assert_eq!(*diff_id, of(&unpacked));
            assert!(seen.insert(descriptor.digest().to_string()), "a layer twice");
        }
        let layers: u64 = platform.layers.iter().map(|layer| layer.size).sum();
        assert!(layers.abs_diff(spec.size_bytes) < spec.size_bytes / 50, "{layers} bytes");
    }
    assert!(image.pull_bytes(0) > platform_bytes(&image));
    assert_eq!(image.pull_bytes(7), 0);
}

fn platform_bytes(image: &Image) -> u64 {
    image.platforms[0].layers.iter().map(|layer| layer.size).sum()
}

#[test]
fn a_layer_unpacks_into_a_root_file_system() {
    let (_dir, image) = make(&small(2));
    let root = tempfile::tempdir().unwrap();
    for layer in &image.platforms[0].layers {
        let file = std::fs::File::open(&layer.path).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        archive.unpack(root.path()).unwrap();
    }
    let release = std::fs::read_to_string(root.path().join("etc/os-release")).unwrap();
    assert!(release.contains("ID="), "{release}");
    assert_eq!(std::fs::read_link(root.path().join("bin")).unwrap(), Path::new("usr/bin"));
    assert!(std::fs::read_dir(root.path().join("usr/share/app-4")).unwrap().count() > 5);
}

#[test]
fn the_seed_decides_everything() {
    let (_a, one) = make(&small(3));
    let (_b, same) = make(&small(3));
    let (_c, other) = make(&small(4));
    assert_eq!(one.index, same.index);
    assert_ne!(one.index, other.index);
}

#[test]
fn images_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for spec in [
        ImageSpec { layers: 3, ..small(1) },
        ImageSpec { layers: 128, ..small(1) },
        ImageSpec { size_bytes: 1, ..small(1) },
    ] {
        assert_eq!(make_image(&spec, dir.path()).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_image_can_be_pulled() {
    let registry = start().await;
    let (_dir, image) = make(&small(5));
    let content = registry.add_image("library/demo", "latest", &image).unwrap();
    let client = client();
    let url = |rest: &str| format!("{}/v2/library/demo/{rest}", registry.base_url());

    let head = client.head(url("manifests/latest")).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers()["docker-content-digest"], content.to_string());
    assert_eq!(head.headers()[header::CONTENT_LENGTH], image.index.len().to_string());
    assert_eq!(head.headers()[header::CONTENT_TYPE], super::image::INDEX_MEDIA_TYPE);
    assert_eq!(registry.bytes_sent(), 0);

    let mut pulled = 0;
    let platform = &image.platforms[0];
    let manifest = format!("manifests/{}", of(&platform.manifest));
    let config = format!("blobs/{}", of(&platform.config));
    let layers = platform.layers.iter().map(|layer| format!("blobs/{}", layer.content));
    for path in ["manifests/latest".to_owned(), manifest, config].into_iter().chain(layers) {
        let response = client.get(url(&path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let digest = response.headers()["docker-content-digest"].to_str().unwrap().to_owned();
        let bytes = response.bytes().await.unwrap();
        assert_eq!(of(&bytes), digest, "{path}");
        pulled += bytes.len() as u64;
    }
    assert_eq!(pulled, image.pull_bytes(0));
    assert_eq!(registry.bytes_sent(), pulled);
    assert_eq!(
        registry.bytes_sent_under("/v2/library/demo/blobs/"),
        platform_bytes(&image) + platform.config.len() as u64
    );
    assert_eq!(registry.request_count(), 4 + 5);

    let layer = &platform.layers[0];
    let part = client
        .get(url(&format!("blobs/{}", layer.content)))
        .header(header::RANGE, "bytes=100-199")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()[header::CONTENT_RANGE], format!("bytes 100-199/{}", layer.size));
    assert_eq!(part.bytes().await.unwrap(), std::fs::read(&layer.path).unwrap()[100..200]);
}

#[tokio::test]
async fn what_is_not_there_is_refused_as_the_spec_says() {
    let registry = start().await;
    let client = client();
    let content = registry.put_blob(Bytes::from_static(b"bytes"));
    let beyond = client
        .get(format!("{}/v2/a/blobs/{content}", registry.base_url()))
        .header(header::RANGE, "bytes=5-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */5");
    for (path, code) in [
        ("/v2/a/manifests/v1", "MANIFEST_UNKNOWN"),
        ("/v2/a/blobs/sha256:00", "BLOB_UNKNOWN"),
        ("/v2/a/tags/list", "NAME_UNKNOWN"),
        ("/v2/a", "NOT_FOUND"),
        ("/", "NOT_FOUND"),
    ] {
        let response = client.get(format!("{}{path}", registry.base_url())).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        let body = response.text().await.unwrap();
        assert!(body.contains(code), "{path}: {body}");
    }
    let ping = client.get(format!("{}/v2/", registry.base_url())).send().await.unwrap();
    assert_eq!(ping.status(), StatusCode::OK);
    let push = client.post(format!("{}/v2/a/blobs/uploads/", registry.base_url())).send().await.unwrap();
    assert_eq!(push.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn switched_off_it_refuses_connections_and_closes_those_there_are() {
    let registry = start().await;
    let client = client();
    let content = registry.put_blob(Bytes::from(vec![1; 1 << 20]));
    let url = format!("{}/v2/a/blobs/{content}", registry.base_url());
    registry.set_rate(Some(100_000));
    let mut body = client.get(&url).send().await.unwrap().bytes_stream();
    assert!(body.next().await.unwrap().is_ok());
    registry.set_online(false).await.unwrap();
    registry.set_online(false).await.unwrap();
    while let Some(Ok(_)) = body.next().await {}
    assert!(registry.bytes_sent() < 1 << 20);
    assert!(client.get(&url).send().await.unwrap_err().is_connect());
    registry.set_online(true).await.unwrap();
    registry.set_rate(None);
    assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap().len(), 1 << 20);
    // Dropping the last handle is switching off for good.
    drop(registry);
    let gone = async {
        while client.get(&url).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}

#[tokio::test]
async fn a_file_that_vanished_is_an_error_not_a_short_body() {
    let registry = start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blob");
    std::fs::write(&path, b"bytes").unwrap();
    let content = ContentId::of(Algorithm::Sha256, b"bytes");
    registry.put_blob_file(content, path.clone()).unwrap();
    let url = format!("{}/v2/a/blobs/{content}", registry.base_url());
    assert_eq!(client().get(&url).send().await.unwrap().bytes().await.unwrap(), "bytes");
    std::fs::write(&path, b"by").unwrap();
    let short = client().get(&url).send().await.unwrap().bytes().await;
    assert!(short.is_err(), "{short:?}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(client().get(&url).send().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(registry.put_blob_file(content, path).is_err());
}
