//! The image that the demo shares: made, or read from one of the transports.
//!
//! Whatever it comes from, it becomes an OCI image layout on disk, whose blobs the embedded registry serves from
//! their files. An image for several platforms is served as far as its parts are there.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use layermesh_proto::ContentId;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{Image, archive, fetch};
use crate::{
    contents::{Document, MANIFEST_BYTES_MAX},
    embedded::{
        Registry,
        image::{INDEX_MEDIA_TYPE, ImageSpec, LAYERS_MIN, MANIFEST_MEDIA_TYPE, make_image},
    },
    image::{ImageSource, LocalImage},
};

/// The registry's name to the nodes. Reserved for tests (RFC 6761), so that it can never be a real one.
pub(super) const REGISTRY: &str = "demo.layermesh.test";
const REPOSITORY: &str = "demo/image";
const TAG: &str = "latest";
/// Annotation with a name of an image in a layout (image spec, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Manifests of one image at most.
const MANIFESTS_MAX: usize = 256;

/// The image as the embedded registry serves it.
#[derive(Debug)]
pub(super) struct Served {
    /// What it is, for people.
    pub(super) name: String,
    pub(super) repository: String,
    pub(super) tag: String,
    /// What the tag stands for.
    pub(super) root: ContentId,
    /// Bytes of all that is served: an upper bound of what a device pulls.
    pub(super) size_bytes: u64,
}

/// An image in an OCI image layout.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) root: ContentId,
}

impl Layout {
    /// Where a blob's bytes are.
    pub(super) fn blob_path(dir: &Path, content: &ContentId) -> PathBuf {
        dir.join("blobs").join(content.algorithm().name()).join(content.hex())
    }
}

/// Makes or reads the image, and lets the registry serve it. `dir` is for what needs space on disk.
pub(super) async fn prepare(image: &Image, registry: &Registry, dir: &Path) -> anyhow::Result<Served> {
    let scratch = dir.join("image");
    std::fs::create_dir_all(&scratch)?;
    match image {
        Image::Made { size_bytes } => made(*size_bytes, registry, scratch).await,
        Image::Given(source) => {
            let (name, layout) = match source.clone() {
                ImageSource::Registry(reference) => {
                    (reference.to_string(), fetch::fetch(&fetch::origins()?, &reference, &scratch).await?)
                }
                ImageSource::Oci(local) => {
                    (shown(&local), blocking(move || open(&local.path, local.name.as_deref())).await?)
                }
                ImageSource::OciArchive(local) => {
                    (shown(&local), blocking(move || archive::oci(&local, &scratch)).await?)
                }
                ImageSource::DockerArchive(local) => {
                    (shown(&local), blocking(move || archive::docker(&local, &scratch)).await?)
                }
            };
            let registry = registry.clone();
            blocking(move || publish(name, &layout, &registry)).await
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    spawn_blocking(work).await?
}

fn shown(local: &LocalImage) -> String {
    let path = local.path.display();
    local.name.as_ref().map_or_else(|| path.to_string(), |name| format!("{path}:{name}"))
}

async fn made(size_bytes: u64, registry: &Registry, scratch: PathBuf) -> anyhow::Result<Served> {
    let spec = ImageSpec { size_bytes, layers: LAYERS_MIN, seed: 1, arm64: false };
    let image = blocking(move || make_image(&spec, &scratch).context("cannot make the image")).await?;
    let root = registry.add_image(REPOSITORY, TAG, &image)?;
    let name = "made for the demo".to_owned();
    Ok(Served { name, repository: REPOSITORY.into(), tag: TAG.into(), root, size_bytes: image.pull_bytes(0) })
}

/// Opens an OCI image layout; `name` is not needed if there is one image only.
pub(super) fn open(dir: &Path, name: Option<&str>) -> anyhow::Result<Layout> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<oci_spec::image::Descriptor>,
    }
    let path = dir.join("index.json");
    let text = read(&path).with_context(|| format!("{} is not an OCI image layout", dir.display()))?;
    let index: Index = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let names = |descriptor: &oci_spec::image::Descriptor| {
        descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME)).cloned()
    };
    let fits = |descriptor: &&oci_spec::image::Descriptor| name.is_none() || names(descriptor).as_deref() == name;
    let found: Vec<_> = index.manifests.iter().filter(fits).collect();
    let [descriptor] = found.as_slice() else {
        let all: Vec<_> = index.manifests.iter().filter_map(names).collect();
        let wanted = name.map_or_else(|| "one image".to_owned(), |name| format!("`{name}`"));
        bail!("{} has {} images where {wanted} was expected; it has: {}", dir.display(), found.len(), all.join(", "));
    };
    Ok(Layout { dir: dir.to_owned(), root: descriptor.digest().to_string().parse()? })
}

/// Reads a manifest or another small document.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = std::fs::metadata(path)?.len();
    if size > MANIFEST_BYTES_MAX {
        return Err(io::Error::other(format!("{} has {size} bytes, too many for a manifest", path.display())));
    }
    std::fs::read(path)
}

/// Lets the registry serve a layout's image.
fn publish(name: String, layout: &Layout, registry: &Registry) -> anyhow::Result<Served> {
    let (mut queue, mut seen) = (vec![layout.root], BTreeSet::new());
    let mut size_bytes = 0;
    while let Some(content) = queue.pop() {
        if !seen.insert(content) {
            continue;
        }
        if seen.len() > MANIFESTS_MAX {
            bail!("the image has more than {MANIFESTS_MAX} manifests");
        }
        let bytes = match read(&Layout::blob_path(&layout.dir, &content)) {
            Ok(bytes) => bytes,
            // A layout need not have all platforms of an index.
            Err(error) if error.kind() == io::ErrorKind::NotFound && content != layout.root => continue,
            Err(error) => return Err(anyhow!(error).context(format!("manifest {content}"))),
        };
        size_bytes += bytes.len() as u64;
        let document = Document::parse(&bytes).with_context(|| format!("manifest {content}"))?;
        let media_type = media_type(&bytes, &document);
        let tag = (content == layout.root).then_some(TAG);
        if registry.put_manifest(REPOSITORY, tag, bytes.into(), &media_type) != content {
            bail!("manifest {content} is damaged, or named by another digest than sha256");
        }
        match document {
            Document::Index(entries) => queue.extend(entries.iter().map(|entry| entry.content)),
            Document::Manifest(blobs) => {
                for blob in blobs {
                    let path = Layout::blob_path(&layout.dir, &blob.content);
                    if path.exists() {
                        registry.put_blob_file(blob.content, path)?;
                        size_bytes += blob.size;
                    }
                }
            }
        }
    }
    Ok(Served { name, repository: REPOSITORY.into(), tag: TAG.into(), root: layout.root, size_bytes })
}

/// The media type that a document says it has, or that OCI gives its kind.
fn media_type(bytes: &[u8], document: &Document) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let said = serde_json::from_slice::<Typed>(bytes).ok().and_then(|typed| typed.media_type);
    said.unwrap_or_else(|| match document {
        Document::Index(_) => INDEX_MEDIA_TYPE.to_owned(),
        Document::Manifest(_) => MANIFEST_MEDIA_TYPE.to_owned(),
    })
}
