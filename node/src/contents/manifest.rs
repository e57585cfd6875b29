//! Manifests and indexes: what else belongs to the image.

use layermesh_proto::{ContentId, ContentIdError};
use oci_spec::image::Descriptor;
use serde::Deserialize;
use thiserror::Error;

use super::Platform;

/// Largest manifest or index read. Registries refuse larger ones, and so does containerd.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Manifests, each for a platform.
    Index(Vec<Entry>),
    /// The config, then the layers.
    Manifest(Vec<Entry>),
}

/// Something that a manifest or index names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The blob.
    pub content: ContentId,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// The platform it is for; entries of indexes only.
    pub platform: Option<Platform>,
}

/// Why bytes are neither a manifest nor an index.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Not JSON, or JSON of another shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It has parts of both kinds, or of none.
    #[error("it is neither a manifest nor an index")]
    Neither,
    /// Docker's first format, which runtimes no longer read.
    #[error("it is in docker's schema 1 format, which is not supported")]
    Schema1,
    /// It names something by a digest that nodes cannot compute.
    #[error(transparent)]
    Digest(#[from] ContentIdError),
}

/// Both kinds in one, since only their fields tell them apart where a media type is missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Parses a manifest or an index, of OCI or of docker.
    ///
    /// # Errors
    /// If the bytes are neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let shape: Shape = serde_json::from_slice(bytes)?;
        if shape.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        match (shape.manifests, shape.config, shape.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(entries(manifests)?)),
            (None, Some(config), Some(layers)) => {
                // Layers that registries do not carry (image spec, "Non-distributable layers").
                let carried = layers.into_iter().filter(|layer| layer.urls().as_ref().is_none_or(Vec::is_empty));
                Ok(Self::Manifest(entries(std::iter::once(config).chain(carried))?))
            }
            _ => Err(DocumentError::Neither),
        }
    }
}

fn entries(descriptors: impl IntoIterator<Item = Descriptor>) -> Result<Vec<Entry>, DocumentError> {
    let entry = |descriptor: Descriptor| {
        let platform = descriptor.platform().as_ref().map(|platform| Platform {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone().filter(|variant| !variant.is_empty()),
        });
        Ok(Entry {
            content: descriptor.digest().to_string().parse()?,
            size: descriptor.size(),
            media_type: descriptor.media_type().to_string(),
            platform,
        })
    };
    descriptors.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    #[test]
    fn manifests_and_indexes_are_told_apart_by_their_fields() {
        let (a, b, c) = (digest('a'), digest('b'), digest('c'));
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"{a}"}},
            "layers":[{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":2,"digest":"{b}"}},
            {{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","size":3,"digest":"{c}","urls":["https://x.test"]}}]}}"#
        );
        let Document::Manifest(blobs) = Document::parse(text.as_bytes()).unwrap() else { panic!("not a manifest") };
        let named: Vec<_> = blobs.iter().map(|blob| (blob.content.to_string(), blob.size)).collect();
        assert_eq!(named, [(a.clone(), 1), (b, 2)], "the foreign layer is left out");

        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":9,"digest":"{a}",
            "platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}"#
        );
        let Document::Index(entries) = Document::parse(text.as_bytes()).unwrap() else { panic!("not an index") };
        assert_eq!(entries[0].platform.as_ref().unwrap().to_string(), "linux/arm/v7");
    }

    #[test]
    fn anything_else_is_refused() {
        let a = digest('a');
        let descriptor = format!(r#"{{"mediaType":"x/y","size":1,"digest":"{a}"}}"#);
        for text in [
            "not json".to_owned(),
            "[]".to_owned(),
            r#"{"schemaVersion":2}"#.to_owned(),
            r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(),
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{descriptor},"layers":[]}}"#),
            r#"{"schemaVersion":2,"manifests":[{"mediaType":"x/y","size":1,"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}]}"#.to_owned(),
        ] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
