//! The demo's own parts, without nodes: the puller asks the embedded registry directly.

use std::{fs::File, path::PathBuf};

use bytes::Bytes;
use clap::Parser as _;
use layermesh_proto::{Algorithm, ContentId, NodeId};
use url::Url;

use super::*;
use crate::{
    cli::{Cli, Command},
    counters::Counters,
    embedded::image::{ImageSpec, make_image},
    image::ImageReference,
    origin::{OriginConfig, Origins},
};

const SIZE_BYTES: u64 = 1 << 20;

fn parse(arguments: &[&str]) -> anyhow::Result<Request> {
    let cli = Cli::try_parse_from(["layermesh", "demo"].iter().chain(arguments))?;
    let Command::Demo(args) = cli.command else { panic!("{:?}", cli.command) };
    Request::parse(&args)
}

async fn registry() -> Registry {
    Registry::start(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

async fn pull_directly(registry: &Registry, served: &Served) -> anyhow::Result<puller::Pulled> {
    let puller = Puller::new(registry.base_url(), None, Arc::new(Progress::default()), Duration::ZERO).unwrap();
    puller.pull(&served.repository, &served.tag, served.root).await
}

/// Prepares an image, serves it and pulls it.
async fn round_trip(image: &str) -> anyhow::Result<(Served, puller::Pulled)> {
    let (registry, dir) = (registry().await, tempfile::tempdir().unwrap());
    let served = source::prepare(&parse(&["--image", image])?.image, &registry, dir.path()).await?;
    let pulled = pull_directly(&registry, &served).await?;
    assert_eq!(registry.bytes_sent(), pulled.bytes);
    Ok((served, pulled))
}

/// An OCI image layout with one image of two platforms.
fn layout(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let spec = ImageSpec { size_bytes: SIZE_BYTES, layers: 4, seed: 7, arm64: true };
    let image = make_image(&spec, &blobs).unwrap();
    let put = |bytes: &Bytes| {
        let content = ContentId::of(Algorithm::Sha256, bytes);
        std::fs::write(blobs.join(content.hex()), bytes).unwrap();
        content
    };
    for platform in &image.platforms {
        put(&platform.config);
        put(&platform.manifest);
    }
    let root = put(&image.index);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{root}",
        "size":{},"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#,
        image.index.len()
    );
    std::fs::write(layout.join("index.json"), index).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

#[test]
fn arguments_are_checked() {
    let uplink = Uplink { bytes_per_s: Some(10_000_000) };
    let image = Image::Made { size_bytes: 64 << 20 };
    let default = Request { devices: 5, image, order: Order::Together, uplink, keep: false };
    assert_eq!(parse(&[]).unwrap(), default);
    assert_eq!(parse(&["--together", "--uplink=80mbit"]).unwrap(), default);
    assert_eq!(parse(&["--one-by-one"]).unwrap().order, Order::OneByOne);
    assert_eq!(parse(&["--uplink=unlimited"]).unwrap().uplink.bytes_per_s, None);
    assert_eq!(parse(&["--one-by-one", "--size=2MiB"]).unwrap().image, Image::Made { size_bytes: 2 << 20 });
    for arguments in [
        &["--devices=1"][..],
        &["--devices=65"],
        &["--size=1KiB"],
        &["--size=lots"],
        &["--image=oci:"],
        &["--image=oci:x", "--size=1MiB"],
        &["--together", "--one-by-one"],
        &["--uplink=fast"],
        &["--uplink=0mbit"],
    ] {
        assert!(parse(arguments).is_err(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_made_image_is_pulled_and_every_byte_checked() {
    let (registry, dir) = (registry().await, tempfile::tempdir().unwrap());
    let served = source::prepare(&Image::Made { size_bytes: SIZE_BYTES }, &registry, dir.path()).await.unwrap();
    let pulled = pull_directly(&registry, &served).await.unwrap();
    assert_eq!((pulled.bytes, pulled.layers, pulled.objects), (served.size_bytes, 4, 7));
    assert!(pulled.bytes.abs_diff(SIZE_BYTES) < SIZE_BYTES / 20, "{}", pulled.bytes);
}

#[tokio::test]
async fn wrong_bytes_a_cut_and_a_dead_mirror_end_a_pull() {
    let (registry, dir) = (registry().await, tempfile::tempdir().unwrap());
    let served = source::prepare(&Image::Made { size_bytes: SIZE_BYTES }, &registry, dir.path()).await.unwrap();
    let other = Served { root: ContentId::of(Algorithm::Sha256, b"another"), ..served };
    assert!(pull_directly(&registry, &other).await.is_err(), "the tag stands for something else");

    let layer = std::fs::read_dir(dir.path().join("image")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&layer).unwrap();
    let served = source::prepare(&Image::Made { size_bytes: SIZE_BYTES }, &registry, dir.path()).await.unwrap();
    bytes[100] ^= 1;
    std::fs::write(&layer, &bytes).unwrap();
    let error = pull_directly(&registry, &served).await.unwrap_err();
    assert!(format!("{error:#}").contains("wrong bytes"), "{error:#}");
    std::fs::write(&layer, &bytes[..bytes.len() / 2]).unwrap();
    assert!(pull_directly(&registry, &served).await.is_err(), "half a layer");
    registry.set_online(false).await.unwrap();
    assert!(pull_directly(&registry, &served).await.is_err(), "switched off");
}

#[tokio::test]
async fn a_layout_and_its_archive_are_the_same_image() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(dir.path());
    let archive = dir.path().join("image.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    tar.append_dir_all(".", &layout).unwrap();
    tar.finish().unwrap();
    let (from_dir, pulled) = round_trip(&format!("oci:{}", layout.display())).await.unwrap();
    let (from_archive, again) = round_trip(&format!("oci-archive:{}:v1", archive.display())).await.unwrap();
    assert_eq!((from_dir.root, pulled), (from_archive.root, again));
    assert_eq!(pulled.layers, 4);
    let error = round_trip(&format!("oci:{}:v2", layout.display())).await.unwrap_err().to_string();
    assert!(error.contains("it has: v1"), "{error}");
    assert!(round_trip(&format!("oci:{}", dir.path().display())).await.is_err(), "not a layout");
}

#[tokio::test]
async fn a_layout_with_one_platform_missing_is_served_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let layout_dir = layout(dir.path());
    let index = source::open(&layout_dir, None).unwrap();
    let bytes = std::fs::read(source::Layout::blob_path(&layout_dir, &index.root)).unwrap();
    let crate::contents::Document::Index(entries) = crate::contents::Document::parse(&bytes).unwrap() else { panic!() };
    let kept = puller::choose(&entries).unwrap();
    for entry in entries.iter().filter(|entry| entry.content != kept) {
        std::fs::remove_file(source::Layout::blob_path(&layout_dir, &entry.content)).unwrap();
    }
    assert_eq!(round_trip(&format!("oci:{}", layout_dir.display())).await.unwrap().1.layers, 4);
}

#[tokio::test]
async fn what_docker_saves_is_served_with_a_manifest_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("saved.tar");
    let mut tar = tar::Builder::new(File::create(&archive).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("config.json", b"{\"os\":\"linux\"}");
    add("a/layer.tar", b"an uncompressed layer");
    add("b/layer.tar", &[0x1f, 0x8b, 1, 2, 3]);
    let manifest =
        br#"[{"Config":"config.json","RepoTags":["app:1"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]},
        {"Config":"config.json","RepoTags":null,"Layers":[]}]"#;
    add("manifest.json", manifest);
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "c/layer.tar", "../a/layer.tar").unwrap();
    tar.into_inner().unwrap();

    let (_, pulled) =
        round_trip(&format!("docker-archive:{}:docker.io/library/app:1", archive.display())).await.unwrap();
    assert_eq!((pulled.layers, pulled.objects), (3, 4), "a layer that is there twice is fetched once");
    let error = round_trip(&format!("docker-archive:{}", archive.display())).await.unwrap_err().to_string();
    assert!(error.contains("2 images") && error.contains("app:1"), "{error}");
}

#[tokio::test]
async fn an_image_of_a_real_registry_becomes_a_layout() {
    let (from, dir) = (registry().await, tempfile::tempdir().unwrap());
    let spec = ImageSpec { size_bytes: SIZE_BYTES, layers: 4, seed: 7, arm64: true };
    let blobs = dir.path().join("made");
    std::fs::create_dir(&blobs).unwrap();
    let root = from.add_image("a/b", "1", &make_image(&spec, &blobs).unwrap()).unwrap();
    let origin = OriginConfig {
        registry: "from.test".to_owned(),
        endpoint: Some(Url::parse(&from.base_url()).unwrap()),
        ca_file: None,
        plain_http: true,
        credentials: None,
    };
    let node = NodeId::from_public_key([1; 32]);
    let origins = Origins::new(vec![origin], None, node, Arc::new(Counters::default())).unwrap();
    let image: ImageReference = "from.test/a/b:1".parse().unwrap();
    let layout = fetch::fetch(&origins, &image, &dir.path().join("layout")).await.unwrap();
    assert_eq!(layout.root, root);
    let missing: ImageReference = "from.test/a/b:2".parse().unwrap();
    assert!(fetch::fetch(&origins, &missing, dir.path()).await.is_err());
}
