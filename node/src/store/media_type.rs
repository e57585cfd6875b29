//! What a manifest says it is.
//!
//! Image-spec 1.1 (manifest.md, image-index.md, "mediaType") asks for a `mediaType` field that matches how the
//! manifest was served; older OCI manifests lack it and are told apart by shape. Anything else is `None`: this
//! module never guesses `application/json`.

use serde::{Deserialize, de::IgnoredAny};

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI artifact manifest: a draft of image-spec 1.1, withdrawn, but out there.
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, version 2 schema 1, signed.
pub const DOCKER_V1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Docker image manifest, version 2 schema 1, unsigned.
pub const DOCKER_V1: &str = "application/vnd.docker.distribution.manifest.v1+json";

const KNOWN: [&str; 7] =
    [OCI_MANIFEST, OCI_INDEX, OCI_ARTIFACT, DOCKER_MANIFEST, DOCKER_LIST, DOCKER_V1_SIGNED, DOCKER_V1];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<Vec<IgnoredAny>>,
    manifests: Option<Vec<IgnoredAny>>,
    fs_layers: Option<Vec<IgnoredAny>>,
    signatures: Option<Vec<IgnoredAny>>,
}

/// The media type of a manifest or an index; `None` if the bytes are neither.
pub fn media_type_of(manifest: &[u8]) -> Option<&'static str> {
    let shape: Shape = serde_json::from_slice(manifest).ok()?;
    if let Some(named) = &shape.media_type {
        return KNOWN.into_iter().find(|known| known == named);
    }
    match shape.schema_version {
        Some(1) if shape.fs_layers.is_some() => {
            Some(if shape.signatures.is_some() { DOCKER_V1_SIGNED } else { DOCKER_V1 })
        }
        Some(2) => match (shape.manifests, shape.config, shape.layers) {
            (Some(_), None, None) => Some(OCI_INDEX),
            (None, Some(_), Some(_)) => Some(OCI_MANIFEST),
            // Both at once could be read as either (CVE-2021-41190): refused, as the image spec demands.
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_decides_if_it_is_there() {
        for known in KNOWN {
            let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{known}"}}"#);
            assert_eq!(media_type_of(manifest.as_bytes()), Some(known));
        }
        assert_eq!(media_type_of(br#"{"schemaVersion":2,"mediaType":"text/plain","config":{},"layers":[]}"#), None);
    }

    #[test]
    fn shape_decides_if_it_is_not() {
        let of = |text: &str| media_type_of(text.as_bytes());
        assert_eq!(of(r#"{"schemaVersion":2,"config":{},"layers":[]}"#), Some(OCI_MANIFEST));
        assert_eq!(of(r#"{"schemaVersion":2,"manifests":[{}]}"#), Some(OCI_INDEX));
        assert_eq!(of(r#"{"schemaVersion":1,"fsLayers":[],"signatures":[{}]}"#), Some(DOCKER_V1_SIGNED));
        assert_eq!(of(r#"{"schemaVersion":1,"fsLayers":[]}"#), Some(DOCKER_V1));
    }

    #[test]
    fn what_is_no_manifest_is_none() {
        let of = |text: &str| media_type_of(text.as_bytes());
        assert_eq!(of(r#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#), None);
        assert_eq!(of(r#"{"architecture":"amd64","rootfs":{}}"#), None);
        assert_eq!(of("[]"), None);
        assert_eq!(of("\u{1f}\u{8b}"), None);
        assert_eq!(of(""), None);
    }
}
