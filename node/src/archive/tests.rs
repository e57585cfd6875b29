//! Sources as other tools write them, and as nobody should.

use std::io::Write as _;

use layermesh_proto::Algorithm;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn id(bytes: &[u8]) -> ContentId {
    ContentId::of(Algorithm::Sha256, bytes)
}

/// A name and what is in it.
type Named<'a> = (&'a str, &'a [u8]);

/// A tar file of these files.
fn tar_of(dir: &Path, name: &str, files: &[Named<'_>]) -> PathBuf {
    let path = dir.join(name);
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap().flush().unwrap();
    path
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

fn index_of(entries: &[(&ContentId, &str)]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(root, name)| {
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": root.to_string(), "size": 2,
                "annotations": {"org.opencontainers.image.ref.name": name}})
        })
        .collect();
    json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
}

fn opened(source: &str) -> Result<SourceImage, ArchiveError> {
    open(&source.parse().unwrap()).unwrap()
}

#[test]
fn layouts_are_read_from_directories_and_archives_alike() {
    let dir = tempfile::tempdir().unwrap();
    let (root, blob) = (id(b"{}"), id(b"a layer"));
    let index = index_of(&[(&root, "registry.test/app:1")]);
    let names = [layout::blob_name(&root), layout::blob_name(&blob)];
    let files: [Named<'_>; 4] =
        [("oci-layout", LAYOUT), ("index.json", &index), (&names[0], b"{}"), (&names[1], b"a layer")];
    let tar = tar_of(dir.path(), "x.tar", &files);
    for (name, bytes) in files {
        let path = dir.path().join("x").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for source in [format!("oci:{}/x", dir.path().display()), format!("oci-archive:{}", tar.display())] {
        let image = opened(&source).unwrap();
        assert_eq!(image.root, root, "{source}");
        assert_eq!(image.reference().unwrap().to_string(), "registry.test/app:1");
        assert_eq!(image.manifest(&root).unwrap().unwrap(), &b"{}"[..]);
        let Some(Place::File { path, offset, size }) = image.locate(&blob).unwrap() else { panic!("no file") };
        assert_eq!(read_extent(&path, Extent { offset, size }).unwrap(), b"a layer");
        assert!(image.locate(&id(b"absent")).unwrap().is_none());
        assert!(opened(&format!("{source}:registry.test/app:1")).is_ok());
        let error = opened(&format!("{source}:other")).unwrap_err().to_string();
        assert!(error.contains("has no image `other`; it has registry.test/app:1"), "{error}");
    }
    // A name that is only a tag says no registry.
    let files: [Named<'_>; 2] = [("oci-layout", LAYOUT), ("index.json", &index_of(&[(&root, "latest")]))];
    let tag = tar_of(dir.path(), "tag.tar", &files);
    assert_eq!(opened(&format!("oci-archive:{}", tag.display())).unwrap().reference(), None);
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (id(b"{}"), id(b"other"));
    let index = index_of(&[(&root, "registry.test/app:1"), (&other, "registry.test/other:1")]);
    let damaged = layout::blob_name(&root);
    let cases: [(&[Named<'_>], &str); 6] = [
        (&[("a", b"b")], "no file `oci-layout`"),
        (&[("manifest.json", b"[]")], "docker-archive:"),
        (&[("oci-layout", br#"{"imageLayoutVersion":"9"}"#)], "version `9`"),
        (&[("oci-layout", LAYOUT)], "lacks index.json"),
        (&[("oci-layout", LAYOUT), ("index.json", b"[")], "index.json in"),
        (&[("oci-layout", LAYOUT), ("index.json", &index), (&damaged, b"[]")], "several images: name one"),
    ];
    for (files, message) in cases {
        let source = format!("oci-archive:{}", tar_of(dir.path(), "x.tar", files).display());
        let error = opened(&source).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let image = opened(&format!("oci-archive:{}/x.tar:registry.test/app:1", dir.path().display())).unwrap();
    let error = image.manifest(&root).unwrap_err().to_string();
    assert!(error.contains("is damaged") && error.contains(&root.to_string()), "{error}");

    let compressed = dir.path().join("x.tar.gz");
    std::fs::write(&compressed, b"\x1f\x8b\x08\0").unwrap();
    let error = opened(&format!("oci-archive:{}", compressed.display())).unwrap_err().to_string();
    assert!(error.contains("decompress it first, with `gunzip"), "{error}");
    let error = opened(&format!("oci:{}", compressed.display())).unwrap_err().to_string();
    assert!(error.contains("write oci-archive:"), "{error}");
    assert!(opened("docker-archive:/no/such/file").is_err());
}

/// What `docker save` wrote before version 25: uncompressed layers, one of them twice, by a link.
fn docker_archive(dir: &Path, layer: &[u8], diff_id: &str) -> PathBuf {
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]}}).to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["registry.test/app:1"],
        "Layers": ["a/layer.tar", "b/layer.tar"]}])
    .to_string();
    let path = dir.join("docker.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    let files: [Named<'_>; 3] =
        [("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes()), ("a/layer.tar", layer)];
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "b/layer.tar", "../a/layer.tar").unwrap();
    tar.into_inner().unwrap().flush().unwrap();
    path
}

#[test]
fn docker_archives_get_a_manifest_that_is_always_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let layer = vec![7; 3000];
    let source = format!("docker-archive:{}", docker_archive(dir.path(), &layer, &id(&layer).to_string()).display());
    let image = opened(&source).unwrap();
    assert!(image.converted);
    assert_eq!(image.reference().unwrap().to_string(), "registry.test/app:1");
    assert_eq!(opened(&format!("{source}:registry.test/app:1")).unwrap().root, image.root);
    let manifest = image.manifest(&image.root).unwrap().unwrap();
    let Ok(crate::contents::Document::Manifest(parts)) = crate::contents::Document::parse(&manifest) else {
        panic!("not a manifest")
    };
    assert_eq!(parts.len(), 3);
    assert_eq!((parts[1].content, parts[1].size, parts[2].content), (id(&layer), 3000, id(&layer)));
    assert!(matches!(image.locate(&parts[0].content).unwrap(), Some(Place::Bytes(_))));
    let place = image.locate(&id(&layer)).unwrap().unwrap();
    assert_eq!(place.size(), 3000);

    // Compressed layers have other digests than their contents, which the config names.
    let compressed = b"\x1f\x8b\x08 compressed";
    docker_archive(dir.path(), compressed, &id(&layer).to_string());
    let image = opened(&source).unwrap();
    assert!(image.locate(&id(compressed)).unwrap().is_some());
    let manifest = image.manifest(&image.root).unwrap().unwrap();
    assert!(String::from_utf8_lossy(&manifest).contains("tar+gzip"));

    docker_archive(dir.path(), &layer, "md5:0");
    assert!(matches!(opened(&source), Err(ArchiveError::Document { .. })));
}

#[test]
fn a_bundle_is_read_as_it_was_written_and_is_always_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (root, blob) = (id(b"{}"), id(b"a layer"));
    let entry = BundleEntry {
        root,
        size: 2,
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: None,
        name: Some("registry.test/app:1".to_owned()),
        annotations: BTreeMap::from([("x.test".to_owned(), "y".to_owned())]),
    };
    let write = |name: &str| {
        let path = dir.path().join(name);
        let mut writer = BundleWriter::begin(&path, false, bundle_bytes([2, 7].into_iter())).unwrap();
        writer.index(std::slice::from_ref(&entry)).unwrap();
        writer.blob(&root, 2, &b"{}"[..]).unwrap();
        writer.blob(&blob, 7, &b"a layer"[..]).unwrap();
        assert!(!path.exists(), "not before it is whole");
        writer.finish().unwrap();
        std::fs::read(path).unwrap()
    };
    assert_eq!(write("1"), write("2"));
    let images = images_of_archive(&dir.path().join("1")).unwrap();
    assert_eq!((images.len(), images[0].root), (1, root));
    assert_eq!(images[0].reference().unwrap().to_string(), "registry.test/app:1");
    assert_eq!(images[0].annotations["x.test"], "y");
    assert_eq!(images[0].locate(&blob).unwrap().unwrap().size(), 7);

    let path = dir.path().join("1");
    assert!(matches!(BundleWriter::begin(&path, false, 0), Err(WriteBundleError::Exists(_))));
    assert!(matches!(BundleWriter::begin(&path, true, u64::MAX), Err(WriteBundleError::NoSpace { .. })));
    let mut writer = BundleWriter::begin(&path, true, 0).unwrap();
    assert!(matches!(writer.blob(&blob, 8, &b"a layer"[..]), Err(WriteBundleError::Size { .. })));
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "what was not finished is gone");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the lists of a source say, reading it ends, and every blob that it gives is within a file.
    #[test]
    fn anything_can_be_opened(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        docker in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let layer = vec![7; 3000];
        let (kind, path) = if docker {
            ("docker-archive", docker_archive(dir.path(), &layer, &id(&layer).to_string()))
        } else {
            let name = layout::blob_name(&id(&layer));
            let index = index_of(&[(&id(&layer), "registry.test/app:1")]);
            let files: [Named<'_>; 3] = [("oci-layout", LAYOUT), ("index.json", &index), (&name, &layer)];
            ("oci-archive", tar_of(dir.path(), "x.tar", &files))
        };
        let mut bytes = std::fs::read(&path).unwrap();
        // Past the headers, so that it is the documents that change.
        let bodies: Vec<usize> = (0..bytes.len()).filter(|at| at / 512 % 2 == 1 && bytes[*at] != 0).collect();
        for (at, byte) in flips {
            bytes[bodies[at.index(bodies.len())]] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        let Ok(image) = opened(&format!("{kind}:{}", path.display())) else { return Ok(()) };
        let _ = image.reference();
        let _ = image.manifest(&image.root);
        for content in [image.root, id(&layer)] {
            if let Ok(Some(Place::File { offset, size, .. })) = image.locate(&content) {
                prop_assert!(offset + size <= bytes.len() as u64);
            }
        }
    }
}
