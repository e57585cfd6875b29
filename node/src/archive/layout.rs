//! OCI image layouts (image-spec 1.1, image-layout.md): what is in one.
//!
//! Invariant: a blob's file is named by its digest alone, so nothing that an index says leads elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use layermesh_proto::ContentId;
use oci_spec::image::Descriptor;
use serde::Deserialize;

use super::{ArchiveError, Files, IMAGES_MAX, LIST_BYTES_MAX, SourceImage};

/// The file that says what it is.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// The file that lists the images.
pub(super) const INDEX_FILE: &str = "index.json";
/// Version of layouts that are read and written.
pub(super) const LAYOUT_VERSION: &str = "1.0.0";
/// Largest layout file, in bytes: it says one word.
const LAYOUT_BYTES_MAX: u64 = 4096;

/// The name of an image: any text, commonly a tag or a whole reference.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole reference, as containerd and docker write it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// The file of a blob.
pub(super) fn blob_name(content: &ContentId) -> String {
    format!("blobs/{}/{}", content.algorithm().name(), content.hex())
}

/// Whether these files are a layout.
pub(super) fn is_layout(files: &Files) -> Result<bool, ArchiveError> {
    Ok(files.find(LAYOUT_FILE)?.is_some() && files.find(INDEX_FILE)?.is_some())
}

/// The images of a layout. Names of the same image are gathered.
pub(super) fn images(files: Arc<Files>) -> Result<Vec<SourceImage>, ArchiveError> {
    let Some(layout) = files.read(LAYOUT_FILE, LAYOUT_BYTES_MAX)? else {
        let docker = files.find("manifest.json")?.is_some();
        let hint = if docker { "; it looks like a docker archive: write docker-archive:" } else { "" };
        return Err(ArchiveError::NotALayout(files.path().to_owned(), hint));
    };
    let layout: Layout = serde_json::from_slice(&layout).map_err(|error| files.nonsense(LAYOUT_FILE, error))?;
    if layout.image_layout_version != LAYOUT_VERSION {
        let version = layout.image_layout_version.chars().take(20).flat_map(char::escape_debug).collect();
        return Err(ArchiveError::OtherLayout { path: files.path().to_owned(), version });
    }
    let index = files.read(INDEX_FILE, LIST_BYTES_MAX)?.ok_or_else(|| files.missing(INDEX_FILE))?;
    let index: Index = serde_json::from_slice(&index).map_err(|error| files.nonsense(INDEX_FILE, error))?;
    if index.manifests.len() > IMAGES_MAX {
        return Err(files.nonsense(INDEX_FILE, format!("it lists more than {IMAGES_MAX} images")));
    }
    let mut images: Vec<SourceImage> = Vec::new();
    for descriptor in index.manifests {
        let root: ContentId =
            descriptor.digest().to_string().parse().map_err(|error| files.nonsense(INDEX_FILE, error))?;
        let annotations: BTreeMap<String, String> =
            descriptor.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        // The whole reference first: the other may be a tag alone.
        let names = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| annotations.get(key).cloned());
        match images.iter_mut().find(|image| image.root == root) {
            Some(image) => {
                image.names.extend(names);
                image.annotations.extend(annotations);
            }
            None => images.push(SourceImage {
                root,
                names: names.collect(),
                artifact_type: descriptor.artifact_type().as_ref().map(ToString::to_string),
                converted: false,
                annotations,
                files: Arc::clone(&files),
                places: BTreeMap::new(),
            }),
        }
    }
    Ok(images)
}
