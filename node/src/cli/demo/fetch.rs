//! An image from a real registry (`docker://`), as an OCI image layout.

use std::{io::Write as _, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use layermesh_proto::{ContentId, NodeId, ObjectKind, Verifier};

use super::source::{self, Layout};
use crate::{
    contents::{Document, MANIFEST_BYTES_MAX},
    counters::Counters,
    image::{ImageReference, Version},
    origin::{OriginBody, Origins, docker_config_path},
};

/// Indexes within indexes at most.
const DEPTH_MAX: usize = 4;
/// Largest layer: a registry that never ends its answer must not fill the disk.
const BLOB_BYTES_MAX: u64 = 64 << 30;

/// All registries, with the credentials of this user.
pub(super) fn origins() -> anyhow::Result<Origins> {
    let nobody = NodeId::from_public_key(rand::random());
    Ok(Origins::anywhere(docker_config_path(), nobody, Arc::new(Counters::default()))?)
}

/// Fetches an image, for this device's platform if it has several.
pub(super) async fn fetch(origins: &Origins, image: &ImageReference, scratch: &Path) -> anyhow::Result<Layout> {
    let root = match image.version() {
        Version::Digest(content) => *content,
        Version::Tag(tag) => origins.resolve(tag).await.with_context(|| image.to_string())?.content,
    };
    let mut content = root;
    for _ in 0..DEPTH_MAX {
        let part = async |kind, content: &ContentId, bytes_max| {
            let body = origins.open(image.repository(), kind, content, 0).await;
            save(body.with_context(|| format!("{image}: {kind} {content}"))?, content, bytes_max, scratch).await
        };
        part(ObjectKind::Manifest, &content, MANIFEST_BYTES_MAX).await?;
        let bytes = source::read(&Layout::blob_path(scratch, &content))?;
        match Document::parse(&bytes).with_context(|| format!("manifest {content}"))? {
            Document::Index(entries) => content = super::puller::choose(&entries)?,
            Document::Manifest(blobs) => {
                for blob in blobs {
                    part(ObjectKind::Blob, &blob.content, BLOB_BYTES_MAX).await?;
                }
                return Ok(Layout { dir: scratch.to_owned(), root });
            }
        }
    }
    bail!("{image} has more than {DEPTH_MAX} indexes within each other")
}

/// Saves a body under its content id, if it has it.
async fn save(mut body: OriginBody, content: &ContentId, bytes_max: u64, dir: &Path) -> anyhow::Result<()> {
    let path = Layout::blob_path(dir, content);
    std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
    let (mut file, mut verifier, mut size) = (std::fs::File::create(&path)?, Verifier::new(*content), 0);
    while let Some(bytes) = body.stream.next().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        if size > bytes_max {
            bail!("{content} has more than {bytes_max} bytes");
        }
        verifier.update(&bytes);
        file.write_all(&bytes)?;
    }
    verifier.finish().with_context(|| format!("the registry sent other bytes than {content}"))
}
