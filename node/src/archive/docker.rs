//! What `docker save` wrote before it wrote OCI image layouts, and what Podman and skopeo call `docker-archive`.
//!
//! Such an archive has no manifest that a registry would know: it has uncompressed layers, and a registry compressed ones.
//! The manifest is made here, of the config as it is and the layers as they are, so the image has another digest than at
//! a registry, and always the same one for the same archive.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ArchiveError, Extent, Files, IMAGES_MAX, LIST_BYTES_MAX, Place, SourceImage};
use crate::{contents::MANIFEST_BYTES_MAX, store::media_type::OCI_MANIFEST};

/// The file that lists the images.
const MANIFEST_FILE: &str = "manifest.json";
/// Layers of an image at most; file systems take 127.
const LAYERS_MAX: usize = 1024;
/// Bytes read at a time when a layer is hashed.
const READ_LEN: usize = 256 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// A manifest as it is written; the order of fields is the order of bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Named<'a>,
    layers: Vec<Named<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    media_type: &'a str,
    digest: String,
    size: u64,
}

/// The images of an archive.
pub(super) fn images(files: Arc<Files>) -> Result<Vec<SourceImage>, ArchiveError> {
    let list = files.read(MANIFEST_FILE, LIST_BYTES_MAX)?;
    let list = list.ok_or_else(|| ArchiveError::NotADockerArchive(files.path().to_owned()))?;
    let listed: Vec<Listed> = serde_json::from_slice(&list).map_err(|error| files.nonsense(MANIFEST_FILE, error))?;
    if listed.len() > IMAGES_MAX {
        return Err(files.nonsense(MANIFEST_FILE, format!("it lists more than {IMAGES_MAX} images")));
    }
    listed.into_iter().map(|image| convert(&files, image)).collect()
}

/// Names in it are looked up as they are written, which is how the archive's own program finds them.
fn convert(files: &Arc<Files>, listed: Listed) -> Result<SourceImage, ArchiveError> {
    let config = files.read(&listed.config, MANIFEST_BYTES_MAX)?.ok_or_else(|| files.missing(&listed.config))?;
    let parsed: Config = serde_json::from_slice(&config).map_err(|error| files.nonsense(&listed.config, error))?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != listed.layers.len() || diff_ids.len() > LAYERS_MAX {
        let what = format!("it names {} layers, and {MANIFEST_FILE} {}", diff_ids.len(), listed.layers.len());
        return Err(files.nonsense(&listed.config, what));
    }
    let config_id = ContentId::of(Algorithm::Sha256, &config);
    let mut places = BTreeMap::new();
    let mut layers = Vec::new();
    for (name, diff_id) in listed.layers.iter().zip(&diff_ids) {
        let (path, extent) = files.find(name)?.ok_or_else(|| files.missing(name))?;
        let diff_id = diff_id.parse().map_err(|error| files.nonsense(&listed.config, error))?;
        let (content, media_type) =
            layer(&path, extent, diff_id).map_err(|error| ArchiveError::Io { path: path.clone(), error })?;
        places.insert(content, Place::File { path, offset: extent.offset, size: extent.size });
        layers.push(Named { media_type, digest: content.to_string(), size: extent.size });
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: Named {
            media_type: "application/vnd.oci.image.config.v1+json",
            digest: config_id.to_string(),
            size: config.len() as u64,
        },
        layers,
    };
    let manifest: Bytes = serde_json::to_vec(&manifest).map_err(|error| files.nonsense(MANIFEST_FILE, error))?.into();
    let root = ContentId::of(Algorithm::Sha256, &manifest);
    places.insert(config_id, Place::Bytes(config));
    places.insert(root, Place::Bytes(manifest));
    Ok(SourceImage {
        root,
        names: listed.repo_tags.unwrap_or_default(),
        artifact_type: None,
        converted: true,
        annotations: BTreeMap::new(),
        files: Arc::clone(files),
        places,
    })
}

/// What a layer is: the diff id says it of one that is not compressed, others are hashed.
fn layer(path: &Path, extent: Extent, diff_id: ContentId) -> io::Result<(ContentId, &'static str)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut head = Vec::new();
    (&mut file).take(extent.size.min(4)).read_to_end(&mut head)?;
    let media_type = if head.starts_with(b"\x1f\x8b") {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
        "application/vnd.oci.image.layer.v1.tar+zstd"
    } else {
        return Ok((diff_id, "application/vnd.oci.image.layer.v1.tar"));
    };
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut rest = file.take(extent.size);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_LEN];
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let content = ContentId::from_digest(Algorithm::Sha256, &hasher.finalize());
    Ok((content.ok_or_else(|| io::Error::other("SHA-256 of another length"))?, media_type))
}
