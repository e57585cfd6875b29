//! What a manifest's bytes say: its media type and the content that whoever serves it owes.
//!
//! Only as much as serving needs is read; a manifest is passed on byte for byte, never written again. Deliberately
//! absent: Docker's schema 1, whose digest is not the digest of its bytes, so that no node could verify it.

use std::collections::BTreeMap;

use layermesh_proto::ContentId;
use serde::Deserialize;
use thiserror::Error;

/// Largest manifest in bytes. The distribution spec asks registries to take 4 MiB; containerd refuses more.
pub const MANIFEST_LEN_MAX: u64 = 4 << 20;
/// Most descriptors in a manifest. Images have up to 127 layers; indexes and other artifacts go into the hundreds.
/// It bounds what one request asks of the mesh.
pub const DESCRIPTORS_MAX: usize = 4096;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Layers that registries may not have: clients take them from the URLs in their descriptors.
const ELSEWHERE: [&str; 2] =
    ["application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign."];

/// A manifest, as far as serving it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// What comes with it.
    pub owes: Owes,
    /// The sizes in bytes that it gives for all that it owes; empty for an index, of which a part is enough.
    pub sizes: Vec<(ContentId, u64)>,
}

/// The content that a client asks for after a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owes {
    /// All of these blobs, each once.
    All(Vec<ContentId>),
    /// One or more of these manifests, each once: which, the client's platform decides.
    Some(Vec<ContentId>),
}

/// Why bytes are not a manifest that this node can serve.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// Larger than [`MANIFEST_LEN_MAX`].
    #[error("{0} bytes are more than a manifest has")]
    TooLarge(u64),
    /// Not JSON of a manifest's shape.
    #[error("not a manifest: {0}")]
    Shape(String),
    /// It names content by an algorithm that this node cannot compute.
    #[error("it names content that this node cannot verify: {0}")]
    Digest(#[from] layermesh_proto::ContentIdError),
    /// More than [`DESCRIPTORS_MAX`].
    #[error("more than {DESCRIPTORS_MAX} descriptors")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Of the artifact manifest of image-spec 1.1's release candidates, which registries still hold.
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

/// Reads a manifest or an index.
///
/// # Errors
/// If the bytes are neither, or say both, or name content that no node can verify.
pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    if bytes.len() as u64 > MANIFEST_LEN_MAX {
        return Err(ManifestError::TooLarge(bytes.len() as u64));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|error| ManifestError::Shape(error.to_string()))?;
    if document.schema_version != 2 {
        return Err(ManifestError::Shape(format!("schema version {}", document.schema_version)));
    }
    let blobs: Vec<_> = document.config.into_iter().chain(document.layers.into_iter().flatten()).collect();
    let artifact = document.blobs.is_some();
    let blobs: Vec<_> = blobs.into_iter().chain(document.blobs.into_iter().flatten()).collect();
    match document.manifests {
        // Bytes that are an index to one reader and an image to another have been an attack (image-spec 1.0.2).
        Some(_) if artifact || !blobs.is_empty() => Err(ManifestError::Shape("both an index and an image".to_owned())),
        Some(manifests) => {
            let media_type = checked(document.media_type, OCI_INDEX, &[OCI_MANIFEST, DOCKER_MANIFEST])?;
            Ok(Manifest {
                media_type,
                owes: Owes::Some(contents(&manifests)?.into_keys().collect()),
                sizes: Vec::new(),
            })
        }
        None if blobs.is_empty() && !artifact => {
            Err(ManifestError::Shape("neither config, layers nor manifests".to_owned()))
        }
        None => {
            let media_type = checked(document.media_type, OCI_MANIFEST, &[OCI_INDEX, DOCKER_LIST])?;
            let owed = contents(&blobs)?;
            let sizes = owed.iter().map(|(&content, &size)| (content, size)).collect();
            Ok(Manifest { media_type, owes: Owes::All(owed.into_keys().collect()), sizes })
        }
    }
}

/// The media type that the bytes claim, or the one that their shape implies.
fn checked(claimed: Option<String>, implied: &str, contradict: &[&str]) -> Result<String, ManifestError> {
    let Some(claimed) = claimed else { return Ok(implied.to_owned()) };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    // RFC 6838, 4.2: restricted names on both sides of one slash. Whatever passes can go into a header.
    let well_formed = claimed.split_once('/').is_some_and(|(kind, subtype)| {
        [kind, subtype].iter().all(|name| (1..=127).contains(&name.len()) && name.bytes().all(token))
    });
    if !well_formed || contradict.contains(&claimed.as_str()) {
        let shown: String = claimed.chars().take(80).collect();
        return Err(ManifestError::Shape(format!("media type `{shown}` does not fit its content")));
    }
    Ok(claimed)
}

/// What descriptors name, and how large they say it is.
fn contents(descriptors: &[Descriptor]) -> Result<BTreeMap<ContentId, u64>, ManifestError> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(ManifestError::TooMany);
    }
    let owed = descriptors
        .iter()
        .filter(|descriptor| !ELSEWHERE.iter().any(|prefix| descriptor.media_type.starts_with(prefix)));
    owed.map(|descriptor| Ok((descriptor.digest.parse()?, descriptor.size))).collect()
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;
    use serde_json::{Value, json};

    use super::*;

    fn id(text: &str) -> ContentId {
        ContentId::of(Algorithm::Sha256, text.as_bytes())
    }

    fn descriptor(text: &str) -> Value {
        json!({"mediaType": "application/octet-stream", "digest": id(text).to_string(), "size": 1})
    }

    fn read(value: &Value) -> Result<Manifest, ManifestError> {
        parse(value.to_string().as_bytes())
    }

    fn sorted(texts: &[&str]) -> Vec<ContentId> {
        let mut ids: Vec<_> = texts.iter().map(|text| id(text)).collect();
        ids.sort();
        ids
    }

    #[test]
    fn each_kind_with_its_type_and_what_it_owes() {
        let all = Owes::All(sorted(&["c", "a", "b"]));
        let (layers, config) = ([descriptor("a"), descriptor("b"), descriptor("a")], descriptor("c"));
        let mut image = json!({"schemaVersion": 2, "config": config, "layers": layers, "subject": descriptor("s")});
        let parsed = |media_type: &str, owes: &Owes, sizes: &[ContentId]| {
            let sizes = sizes.iter().map(|&content| (content, 1)).collect();
            Ok(Manifest { media_type: media_type.to_owned(), owes: owes.clone(), sizes })
        };
        let sized = sorted(&["c", "a", "b"]);
        assert_eq!(read(&image), parsed(OCI_MANIFEST, &all, &sized));
        image["mediaType"] = json!(DOCKER_MANIFEST);
        assert_eq!(read(&image), parsed(DOCKER_MANIFEST, &all, &sized));
        let mut index = json!({"schemaVersion": 2, "manifests": [descriptor("a"), descriptor("b")]});
        let some = Owes::Some(sorted(&["a", "b"]));
        assert_eq!(read(&index), parsed(OCI_INDEX, &some, &[]));
        index["mediaType"] = json!(DOCKER_LIST);
        assert_eq!(read(&index), parsed(DOCKER_LIST, &some, &[]));
        let artifact = "application/vnd.oci.artifact.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": artifact, "blobs": [descriptor("a")]});
        assert_eq!(read(&manifest), parsed(artifact, &Owes::All(vec![id("a")]), &[id("a")]));
        let empty = json!({"schemaVersion": 2, "manifests": []});
        assert_eq!(read(&empty).map(|manifest| manifest.owes), Ok(Owes::Some(vec![])));
    }

    #[test]
    fn layers_that_live_elsewhere_are_not_owed() {
        let mut foreign = descriptor("f");
        for media_type in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        ] {
            foreign["mediaType"] = json!(media_type);
            let image = json!({"schemaVersion": 2, "config": descriptor("c"), "layers": [foreign]});
            assert_eq!(read(&image).map(|manifest| manifest.owes), Ok(Owes::All(vec![id("c")])));
        }
    }

    #[test]
    fn what_is_no_manifest() {
        for value in [
            json!(1),
            json!({}),
            json!({"schemaVersion": 2}),
            json!({"schemaVersion": 1, "config": descriptor("c")}),
            json!({"schemaVersion": 2, "config": descriptor("c"), "manifests": []}),
            json!({"schemaVersion": 2, "blobs": [], "manifests": []}),
            json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "config": descriptor("c"), "layers": []}),
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}),
            json!({"schemaVersion": 2, "mediaType": "a/b\r\nx: y", "config": descriptor("c")}),
            json!({"schemaVersion": 2, "mediaType": "nothing", "config": descriptor("c")}),
            json!({"architecture": "amd64", "os": "linux", "rootfs": {}}),
        ] {
            assert!(matches!(read(&value), Err(ManifestError::Shape(_))), "{value}");
        }
        assert!(matches!(parse(&[0x1f, 0x8b, 8, 0]), Err(ManifestError::Shape(_))));
        assert!(matches!(parse("[".repeat(100_000).as_bytes()), Err(ManifestError::Shape(_))));
        let unknown = json!({"schemaVersion": 2, "config": {"digest": "blake3:00"}, "layers": []});
        assert!(matches!(read(&unknown), Err(ManifestError::Digest(_))));
        let many = json!({"schemaVersion": 2, "manifests": vec![descriptor("a"); DESCRIPTORS_MAX + 1]});
        assert_eq!(read(&many), Err(ManifestError::TooMany));
        let large = vec![b' '; usize::try_from(MANIFEST_LEN_MAX).unwrap() + 1];
        assert_eq!(parse(&large), Err(ManifestError::TooLarge(MANIFEST_LEN_MAX + 1)));
    }
}
