//! `layermesh bundle`: images in one file, for sites that have no uplink.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use layermesh_proto::ContentId;
use serde::Serialize;
use tokio::runtime::Handle;

use super::{Exit, Failure, Global, bring, node, output, pull, seed};
use crate::{
    admin::{
        client::{AdminClient, BlobBody},
        types::{CheckRequest, CheckedPart, PullRequest, SeedSummary},
    },
    archive::{self, BundleEntry, BundleWriter, bundle_bytes},
    config::units::show_bytes,
    contents::PlatformChoice,
    image::{ImageReference, Version},
};

/// Arguments of `layermesh bundle`.
#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Write images into one file, which other tools read as oci-archive:FILE
    Export(ExportArgs),
    /// Bring the images of a file to this node, and so to its site
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// Images, such as ghcr.io/owner/name:tag; what this node lacks is pulled first
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The file to write
    #[arg(required = true)]
    file: PathBuf,
    /// os/arch[/variant], several with commas, or all
    #[arg(long, value_name = "PLATFORM", default_value = "all")]
    platform: String,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The file
    file: PathBuf,
}

pub(super) async fn run(args: BundleArgs, global: &Global) -> Result<Exit, Failure> {
    match args.command {
        BundleCommand::Export(args) => export(args, global).await,
        BundleCommand::Import(args) => import(&args.file, global).await,
    }
}

/// What was written.
#[derive(Debug, Serialize)]
struct Exported {
    file: PathBuf,
    bytes: u64,
    blobs: usize,
    images: Vec<ExportedImage>,
}

#[derive(Debug, Serialize)]
struct ExportedImage {
    image: String,
    digest: String,
}

async fn export(args: ExportArgs, global: &Global) -> Result<Exit, Failure> {
    args.platform.parse::<PlatformChoice>().map_err(Failure::usage)?;
    let images = args.images.iter().map(|image| image.strip_prefix("docker://").unwrap_or(image).parse());
    let images: BTreeMap<String, ImageReference> = images
        .map(|image: Result<ImageReference, _>| image.map(|image| (image.to_string(), image)))
        .collect::<Result<_, _>>()
        .map_err(Failure::usage)?;
    // Before anything is pulled for it.
    if !args.force && args.file.exists() {
        return Err(anyhow::Error::new(archive::WriteBundleError::Exists(args.file)).into());
    }
    let client = node::client(global)?;
    let mut bundle = Bundle::default();
    for image in images.values() {
        bundle.add(&client, image, &args.platform, global.json).await?;
    }
    let images = bundle
        .entries
        .iter()
        .map(|entry| ExportedImage { image: entry.name.clone().unwrap_or_default(), digest: entry.root.to_string() });
    let (images, blobs) = (images.collect(), bundle.blobs.len());
    let bar = bring::progress(global.json);
    bar.set_length(bundle.blobs.values().map(|blob| blob.size).sum());
    let (file, shown, runtime) = (args.file.clone(), bar.clone(), Handle::current());
    let write = move || bundle.write(&client, &file, args.force, &runtime, &shown);
    let written = tokio::task::spawn_blocking(write).await.map_err(anyhow::Error::new)?;
    bar.finish_and_clear();
    written?;
    let bytes = std::fs::metadata(&args.file).map_err(anyhow::Error::new)?.len();
    let exported = Exported { file: args.file, bytes, blobs, images };
    if global.json {
        output::print_json(&exported)?;
    } else {
        let Exported { file, images, .. } = &exported;
        let mut text = format!("wrote {}: {}\n", file.display(), show_bytes(bytes));
        for ExportedImage { image, digest } in images {
            text.push_str(&format!("  {image}\n    {digest}\n"));
        }
        output::print(&text)?;
    }
    Ok(Exit::Done)
}

/// What goes into a bundle.
#[derive(Debug, Default)]
struct Bundle {
    entries: Vec<BundleEntry>,
    blobs: BTreeMap<ContentId, Blob>,
}

#[derive(Debug)]
struct Blob {
    size: u64,
    document: bool,
}

impl Bundle {
    /// Pulls an image and notes what it consists of.
    async fn add(
        &mut self,
        client: &AdminClient,
        image: &ImageReference,
        platform: &str,
        json: bool,
    ) -> Result<(), Failure> {
        let request = PullRequest { image: image.to_string(), platform: Some(platform.to_owned()), background: false };
        let pulled = pull::in_passing(client.pull(&request).await?, !json).await?;
        // By its digest, so that a tag that moves does not come between.
        let image_by_digest = format!("{}@{}", image.repository(), pulled.digest);
        let request = CheckRequest { image: image_by_digest, platform: Some(platform.to_owned()) };
        let report = client.check(&request).await?;
        let mut root = None;
        for part in report.parts {
            let (content, size) = parsed(&part)?;
            let document = matches!(part.role.as_str(), "index" | "manifest");
            self.blobs.insert(content, Blob { size, document });
            root.get_or_insert((content, size, part.media_type.unwrap_or_default()));
        }
        let (root, size, media_type) = root.ok_or_else(|| anyhow!("the node does not say what {image} consists of"))?;
        let name = match image.version() {
            Version::Tag(reference) => reference.to_string(),
            Version::Digest(_) => image.to_string(),
        };
        self.entries.push(BundleEntry { root, size, media_type, name: Some(name), annotations: BTreeMap::new() });
        Ok(())
    }

    /// Writes all of it: documents first, so that a reader knows early what the rest is; all in the order of digests.
    fn write(
        self,
        client: &AdminClient,
        file: &Path,
        force: bool,
        runtime: &Handle,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let needed = bundle_bytes(self.blobs.values().map(|blob| blob.size));
        let mut writer = BundleWriter::begin(file, force, needed)?;
        writer.index(&self.entries, BTreeMap::new())?;
        let (documents, others): (Vec<_>, Vec<_>) = self.blobs.iter().partition(|(_, blob)| blob.document);
        for (content, blob) in documents.into_iter().chain(others) {
            let body = runtime.block_on(client.read_blob(content))?;
            let bytes = Incoming { runtime, body, chunk: Bytes::new(), bar };
            writer.blob(content, blob.size, bytes).with_context(|| format!("cannot write {content}"))?;
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

/// What was brought, with `--json` a line for each image.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(flatten)]
    summary: SeedSummary,
    bytes_held: u64,
    left_out: Vec<String>,
}

async fn import(file: &Path, global: &Global) -> Result<Exit, Failure> {
    let client = node::client(global)?;
    let path = file.to_owned();
    let images = tokio::task::spawn_blocking(move || archive::images_of_archive(&path)).await;
    let images = images.map_err(anyhow::Error::new)?.map_err(anyhow::Error::new)?;
    if images.is_empty() {
        return Err(anyhow::Error::new(archive::ArchiveError::Empty(file.to_owned())).into());
    }
    let source = format!("oci-archive:{}", file.display());
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for image in images {
        let named = seed::name_of(&source, &image);
        let label = image.names.first().cloned().unwrap_or_else(|| image.root.to_string());
        let bar = bring::progress(global.json);
        let brought = match named {
            Ok(name) if seen.insert(name.to_string()) => bring::bring(&client, image, &name, None, &bar).await,
            Ok(name) => Err(anyhow!("{name} is there twice, with different images")),
            Err(error) => Err(error),
        };
        bar.finish_and_clear();
        match brought {
            Ok(brought) => told(brought, global.json)?,
            // One that is damaged is no reason to keep the others away.
            Err(error) => failures.push(format!("{label}: {error:#}")),
        }
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("{} was not brought whole, what is right stays:\n  {}", file.display(), failures.join("\n  ")).into())
}

fn told(brought: bring::Brought, json: bool) -> anyhow::Result<()> {
    let bring::Brought { summary, bytes_held, left_out, .. } = brought;
    if json {
        return output::print_json(&Imported { summary, bytes_held, left_out });
    }
    let SeedSummary { image, digest, blobs, bytes } = &summary;
    let counted = output::counted(*blobs as u64, "blob", "blobs");
    let mut text = format!(
        "imported {image}\n  {digest}\n  {} in {counted}, {} were here\n",
        show_bytes(*bytes),
        show_bytes(bytes_held)
    );
    for left_out in left_out {
        text.push_str(&format!("  without {left_out}, which the bundle lacks\n"));
    }
    output::print(&text)
}
