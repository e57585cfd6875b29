//! `layermesh bundle export`.
//!
//! Invariant: the same images and the same metadata give the same bytes, in whatever order they were named.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use layermesh_proto::ContentId;
use serde::Serialize;
use tokio::runtime::Handle;

use super::{
    super::{Exit, Failure, Global, node, output, progress::Progress, pull, release::DIR_VARIABLE},
    RELEASES_KEY,
};
use crate::{
    admin::{
        client::{AdminClient, BlobBody},
        types::{CheckRequest, CheckedPart, PullRequest},
    },
    archive::{BundleEntry, BundleWriter, WriteBundleError, bundle_bytes},
    config::units::show_bytes,
    contents::PlatformChoice,
    image::{ImageReference, Version},
    release::{Channel, ReleaseVersion, publisher::Publisher, set::SET_TYPE},
    store::media_type::OCI_MANIFEST,
};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Images, such as ghcr.io/owner/name:tag, and releases, such as release:stable/1.4.0; what this node lacks of them is
    /// pulled first
    #[arg(required = true, value_name = "IMAGE|release:CHANNEL/VERSION")]
    what: Vec<String>,
    /// The file to write
    #[arg(required = true)]
    file: PathBuf,
    /// os/arch[/variant], several with commas, or all
    #[arg(long, value_name = "PLATFORM", default_value = "all")]
    platform: String,
    /// Directory of the repository that has the releases
    #[arg(long, value_name = "DIR", env = DIR_VARIABLE, default_value = ".")]
    releases: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Something to export.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Image(ImageReference),
    Release(Channel, ReleaseVersion),
}

impl FromStr for What {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some(name) = text.strip_prefix("release:") else {
            return Ok(Self::Image(ImageReference::named(text)?));
        };
        let (channel, version) = name
            .split_once('/')
            .ok_or_else(|| anyhow!("`{text}` is not a release: write one such as release:stable/1.4.0"))?;
        Ok(Self::Release(channel.parse()?, version.parse()?))
    }
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    bytes: u64,
    blobs: usize,
    images: Vec<ExportedImage>,
    releases: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ExportedImage {
    image: String,
    digest: String,
}

pub(super) async fn run(args: ExportArgs, global: &Global) -> Result<Exit, Failure> {
    args.platform.parse::<PlatformChoice>().map_err(Failure::usage)?;
    let what = args.what.iter().map(|text| text.parse());
    let what: Vec<What> = what.collect::<anyhow::Result<_>>().map_err(Failure::usage)?;
    // Before anything is pulled for it.
    if !args.force && args.file.exists() {
        return Err(anyhow::Error::new(WriteBundleError::Exists(args.file)).into());
    }
    let client = node::client(global)?;
    let mut gather = Gather { client: &client, platform: &args.platform, json: global.json, bundle: Bundle::default() };
    for what in &what {
        match what {
            What::Image(image) => gather.image(image).await?,
            What::Release(channel, version) => gather.release(&args.releases, channel, version).await?,
        }
    }
    let bundle = gather.bundle;
    let images = bundle.images.iter().map(|(image, entry)| {
        let (image, digest) = (image.clone(), entry.root.to_string());
        ExportedImage { image, digest }
    });
    let (images, blobs, releases) = (images.collect(), bundle.blobs.len(), bundle.releases.iter().cloned().collect());
    let progress = Progress::new(global.json);
    let all = bundle.blobs.values().map(|blob| blob.size).sum();
    let bar = progress.bytes("bundle", all, "from this device's node");
    let (file, shown, runtime) = (args.file.clone(), bar.clone(), Handle::current());
    let write = move || bundle.write(&client, &file, args.force, &runtime, &shown);
    let written = tokio::task::spawn_blocking(write).await.map_err(anyhow::Error::new)?;
    drop(progress);
    written?;
    let bytes = std::fs::metadata(&args.file).map_err(anyhow::Error::new)?.len();
    let exported = Exported { file: args.file, bytes, blobs, images, releases };
    if global.json {
        output::print_json(&exported)?;
    } else {
        output::print(&shown_to_people(&exported))?;
    }
    Ok(Exit::Done)
}

fn shown_to_people(exported: &Exported) -> String {
    let Exported { file, bytes, images, releases, .. } = exported;
    let mut text = format!("wrote {}: {}\n", file.display(), show_bytes(*bytes));
    for release in releases {
        text.push_str(&format!("  release {release}\n"));
    }
    for ExportedImage { image, digest } in images {
        text.push_str(&format!("  {image}\n    {digest}\n"));
    }
    text
}

/// What goes into a bundle.
#[derive(Debug, Default)]
struct Bundle {
    /// By name.
    images: BTreeMap<String, BundleEntry>,
    /// Metadata of releases, by digest.
    metadata: BTreeMap<ContentId, BundleEntry>,
    releases: BTreeSet<String>,
    blobs: BTreeMap<ContentId, Blob>,
}

#[derive(Debug)]
struct Blob {
    size: u64,
    document: bool,
    /// If it is at hand; else the node has it.
    bytes: Option<Bytes>,
}

/// Finds out what goes into a bundle, and has the node hold it.
struct Gather<'a> {
    client: &'a AdminClient,
    platform: &'a str,
    json: bool,
    bundle: Bundle,
}

impl Gather<'_> {
    async fn image(&mut self, image: &ImageReference) -> Result<(), Failure> {
        let name = match image.version() {
            Version::Tag(reference) => reference.to_string(),
            Version::Digest(_) => image.to_string(),
        };
        self.image_as(image, name).await
    }

    async fn image_as(&mut self, image: &ImageReference, name: String) -> Result<(), Failure> {
        let platform = Some(self.platform.to_owned());
        let request = PullRequest { image: image.to_string(), platform: platform.clone(), background: false };
        let pulled = pull::in_passing(self.client.pull(&request).await?, !self.json).await?;
        // By its digest, so that a tag that moves does not come between.
        let request = CheckRequest { image: format!("{}@{}", image.repository(), pulled.digest), platform };
        let report = self.client.check(&request).await?;
        let mut root = None;
        for part in report.parts {
            let (content, size) = parsed(&part)?;
            let document = matches!(part.role.as_str(), "index" | "manifest");
            self.bundle.blobs.insert(content, Blob { size, document, bytes: None });
            root.get_or_insert((content, size, part.media_type.unwrap_or_default()));
        }
        let (root, size, media_type) = root.ok_or_else(|| anyhow!("the node does not say what {image} consists of"))?;
        let entry = BundleEntry {
            root,
            size,
            media_type,
            artifact_type: None,
            name: Some(name.clone()),
            annotations: BTreeMap::new(),
        };
        match self.bundle.images.insert(name.clone(), entry) {
            Some(other) if other.root != root => {
                Err(anyhow!("{name} would be there twice, with different images: make a bundle for each").into())
            }
            _ => Ok(()),
        }
    }

    async fn release(&mut self, dir: &Path, channel: &Channel, version: &ReleaseVersion) -> Result<(), Failure> {
        let publisher = Publisher::open(dir)
            .await
            .map_err(anyhow::Error::new)
            .context("the release cannot be read; name the directory of its repository with --releases")?;
        let release = publisher.release(channel, version).map_err(anyhow::Error::new)?;
        for image in &release.images {
            let (repository, _) = image.reference().map_err(anyhow::Error::msg)?;
            let by_digest: ImageReference =
                format!("{repository}@{}", image.digest).parse().map_err(anyhow::Error::new)?;
            self.image_as(&by_digest, image.to_string()).await?;
        }
        self.bundle.releases.insert(release.name());
        let artifact = publisher.set().to_artifact();
        let manifest = artifact.content;
        for (content, bytes) in artifact.blobs {
            let (size, document) = (bytes.len() as u64, content == manifest);
            self.bundle.blobs.insert(content, Blob { size, document, bytes: Some(bytes) });
        }
        let entry = BundleEntry {
            root: manifest,
            size: self.bundle.blobs.get(&manifest).map_or(0, |blob| blob.size),
            media_type: OCI_MANIFEST.to_owned(),
            artifact_type: Some(SET_TYPE.to_owned()),
            name: None,
            annotations: BTreeMap::new(),
        };
        self.bundle.metadata.insert(manifest, entry);
        Ok(())
    }
}

impl Bundle {
    /// Writes all of it: documents first, so that a reader knows early what the rest is; all in the order of digests.
    fn write(
        mut self,
        client: &AdminClient,
        file: &Path,
        force: bool,
        runtime: &Handle,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let needed = bundle_bytes(self.blobs.values().map(|blob| blob.size));
        let mut writer = BundleWriter::begin(file, force, needed)?;
        let releases = self.releases.iter().cloned().collect::<Vec<_>>().join(",");
        for entry in self.metadata.values_mut() {
            entry.annotations.insert(RELEASES_KEY.to_owned(), releases.clone());
        }
        let entries: Vec<BundleEntry> = self.images.into_values().chain(self.metadata.into_values()).collect();
        writer.index(&entries)?;
        let (documents, others): (Vec<_>, Vec<_>) = self.blobs.iter().partition(|(_, blob)| blob.document);
        for (content, blob) in documents.into_iter().chain(others) {
            let written = match &blob.bytes {
                Some(bytes) => writer.blob(content, blob.size, bytes.as_ref()),
                None => {
                    let body = runtime.block_on(client.read_blob(content))?;
                    writer.blob(content, blob.size, Incoming { runtime, body, chunk: Bytes::new(), bar })
                }
            };
            written.with_context(|| format!("cannot write {content}"))?;
        }
        Ok(writer.finish()?)
    }
}

fn parsed(part: &CheckedPart) -> anyhow::Result<(ContentId, u64)> {
    let size = part.size.ok_or_else(|| anyhow!("the node does not say how large {} is", part.digest))?;
    Ok((part.digest.parse()?, size))
}

/// A blob as it comes from the node, for a thread that may wait.
struct Incoming<'a> {
    runtime: &'a Handle,
    body: BlobBody,
    chunk: Bytes,
    bar: &'a ProgressBar,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.runtime.block_on(self.body.next()).map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let part = self.chunk.split_to(self.chunk.len().min(buffer.len()));
        buffer[..part.len()].copy_from_slice(&part);
        self.bar.inc(part.len() as u64);
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_releases_are_told_apart() {
        let image: What = "stable/1.4.0".parse().unwrap();
        assert_eq!(image, What::Image("docker.io/stable/1.4.0:latest".parse().unwrap()));
        assert_eq!("docker://a.test/b:1".parse::<What>().unwrap(), "a.test/b:1".parse().unwrap());
        let release: What = "release:stable/1.4.0".parse().unwrap();
        assert_eq!(release, What::Release("stable".parse().unwrap(), "1.4.0".parse().unwrap()));
        for wrong in ["release:stable", "release:/1", "release:a/b/c", "A"] {
            assert!(wrong.parse::<What>().is_err(), "{wrong}");
        }
    }
}
