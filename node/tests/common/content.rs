//! Bytes that a seed decides, and images made of them.

use bytes::Bytes;
use layermesh::embedded::{Registry, image::MANIFEST_MEDIA_TYPE};
use layermesh_proto::{Algorithm, ContentId};
use serde_json::json;

/// Bytes that no one has seen before, the same for the same seed.
pub fn bytes(seed: &str, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Numbers that a seed decides.
pub struct Dice(blake3::OutputReader);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }
}

/// An image whose layers are bytes that no runtime could unpack.
pub struct RawImage {
    pub manifest: ContentId,
    /// Config and layers, with their sizes.
    pub blobs: Vec<(ContentId, u64)>,
    /// Bytes of all, the manifest's included.
    pub size: u64,
}

impl RawImage {
    /// Puts an image with layers of these lengths into a registry.
    pub fn put(registry: &Registry, repository: &str, tag: &str, seed: &str, layers: &[usize]) -> Self {
        let mut blobs = Vec::new();
        let mut put = |media_type: &str, bytes: Bytes| {
            let size = bytes.len() as u64;
            let content = registry.put_blob(bytes);
            blobs.push((content, size));
            json!({"mediaType": media_type, "digest": content.to_string(), "size": size})
        };
        let config =
            put("application/vnd.oci.image.config.v1+json", Bytes::from(json!({"architecture": seed}).to_string()));
        let layers: Vec<_> = (0..)
            .zip(layers)
            .map(|(n, &len)| put("application/vnd.oci.image.layer.v1.tar", bytes(&format!("{seed}/{n}"), len)))
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "config": config, "layers": layers,
        });
        let manifest = Bytes::from(manifest.to_string());
        let size = manifest.len() as u64 + blobs.iter().map(|(_, size)| size).sum::<u64>();
        let content = ContentId::of(Algorithm::Sha256, &manifest);
        registry.put_manifest(repository, Some(tag), manifest, MANIFEST_MEDIA_TYPE);
        Self { manifest: content, blobs, size }
    }
}
