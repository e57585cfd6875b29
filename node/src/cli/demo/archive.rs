//! Images in tar files, unpacked into an OCI image layout.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use layermesh_proto::{Algorithm, ContentId};
use oci_spec::image::{Descriptor, Digest, ImageManifestBuilder, MediaType};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::source::{self, Layout};
use crate::image::{ImageReference, LocalImage};

/// First bytes of a gzip file (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Read at once while hashing.
const HASH_BUFFER_BYTES: usize = 256 << 10;
/// Entries of an archive at most; an image has a few hundred.
const ENTRIES_MAX: usize = 10_000;

/// Unpacks an `oci-archive:`.
pub(super) fn oci(local: &LocalImage, scratch: &Path) -> anyhow::Result<Layout> {
    unpack(&local.path, scratch)?;
    source::open(scratch, local.name.as_deref())
}

/// What `docker save` puts into `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// Unpacks a `docker-archive:`, and makes a manifest of its config and of its layers as they are.
pub(super) fn docker(local: &LocalImage, scratch: &Path) -> anyhow::Result<Layout> {
    let links = unpack(&local.path, scratch)?;
    let text = source::read(&scratch.join("manifest.json"))
        .with_context(|| format!("{} is not an archive of `docker save`", local.path.display()))?;
    let images: Vec<Saved> = serde_json::from_slice(&text).context("manifest.json")?;
    let image = chosen(&images, local)?;
    let dir = scratch.join("layout");
    std::fs::create_dir_all(dir.join("blobs/sha256"))?;
    let mut taken = BTreeMap::new();
    let mut take = |path: &PathBuf| -> anyhow::Result<(ContentId, u64, bool)> {
        // Older archives link a layer that they have already to its first place.
        let path = links.get(path).unwrap_or(path);
        if let Some(known) = taken.get(path) {
            return Ok(*known);
        }
        let file = inside(scratch, path)?;
        let found = identify(&file).with_context(|| format!("{} in the archive", path.display()))?;
        std::fs::rename(&file, Layout::blob_path(&dir, &found.0))?;
        taken.insert(path.clone(), found);
        Ok(found)
    };
    let (config, config_size, _) = take(&image.config)?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        let (content, size, gzip) = take(layer)?;
        let media_type = if gzip { MediaType::ImageLayerGzip } else { MediaType::ImageLayer };
        layers.push(Descriptor::new(media_type, size, content.to_string().parse::<Digest>()?));
    }
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, config_size, config.to_string().parse::<Digest>()?))
        .layers(layers)
        .build()?;
    let manifest = serde_json::to_vec(&manifest)?;
    let root = ContentId::of(Algorithm::Sha256, &manifest);
    std::fs::write(Layout::blob_path(&dir, &root), manifest)?;
    Ok(Layout { dir, root })
}

fn chosen<'a>(images: &'a [Saved], local: &LocalImage) -> anyhow::Result<&'a Saved> {
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let wanted = local.name.as_deref().map(str::parse::<ImageReference>).transpose()?;
    let fits = |image: &&Saved| {
        let same = |tag: &String| tag.parse::<ImageReference>().ok() == wanted;
        wanted.is_none() || tags(image).iter().any(same)
    };
    let found: Vec<_> = images.iter().filter(fits).collect();
    match found.as_slice() {
        [image] => Ok(image),
        found => {
            let all: Vec<_> = images.iter().flat_map(tags).collect();
            let wanted = local.name.as_deref().unwrap_or("one image");
            bail!(
                "{} has {} images where {wanted} was expected; it has: {}",
                local.path.display(),
                found.len(),
                all.join(", ")
            )
        }
    }
}

/// Unpacks regular files into `scratch`, and returns the links between them. Nothing is written outside of it.
fn unpack(path: &Path, scratch: &Path) -> anyhow::Result<BTreeMap<PathBuf, PathBuf>> {
    let reader = open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut archive, mut links) = (tar::Archive::new(reader), BTreeMap::new());
    for (number, entry) in archive.entries()?.enumerate() {
        if number >= ENTRIES_MAX {
            bail!("{} has more than {ENTRIES_MAX} entries", path.display());
        }
        let mut entry = entry.with_context(|| format!("{} is not a tar archive", path.display()))?;
        let name = cleaned(&entry.path()?)?;
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let target = inside(scratch, &name)?;
                std::fs::create_dir_all(target.parent().unwrap_or(scratch))?;
                io::copy(&mut entry, &mut File::create(target)?)?;
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let Some(target) = entry.link_name()? else { continue };
                // Symbolic links are relative to their directory, hard links to the archive's root.
                let base = match entry.header().entry_type() {
                    tar::EntryType::Symlink => name.parent().unwrap_or(Path::new("")),
                    _ => Path::new(""),
                };
                links.insert(name.clone(), cleaned(&base.join(target))?);
            }
            _ => {}
        }
    }
    Ok(links)
}

fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = File::open(path)?;
    let gzip = is_gzip(&mut file)?;
    let reader = BufReader::new(file);
    Ok(if gzip { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) })
}

fn is_gzip(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(magic == GZIP_MAGIC)
}

/// A relative path without `.` and `..`.
fn cleaned(path: &Path) -> anyhow::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => bail!("the archive has a path that leads out of it: {}", path.display()),
        }
    }
    Ok(clean)
}

/// A path of the archive, where it was unpacked.
fn inside(scratch: &Path, path: &Path) -> anyhow::Result<PathBuf> {
    Ok(scratch.join(cleaned(path)?))
}

/// Content id and size of a file, and whether it is gzip.
fn identify(path: &Path) -> anyhow::Result<(ContentId, u64, bool)> {
    let mut file = File::open(path)?;
    let gzip = is_gzip(&mut file)?;
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; HASH_BUFFER_BYTES]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    let content =
        ContentId::from_digest(Algorithm::Sha256, &hasher.finalize()).context("a digest of another length")?;
    Ok((content, size, gzip))
}
