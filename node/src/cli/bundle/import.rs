//! `layermesh bundle import`.
//!
//! Invariant: what is damaged keeps nothing else away. The metadata of releases comes last, so that a device that hears of a
//! release finds its images.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    super::{
        Exit, Failure, Global,
        bring::{self, Brought},
        node, output, seed,
    },
    RELEASES_KEY,
};
use crate::{
    admin::{
        client::AdminClient,
        types::{HandedReleases, SeedSummary},
    },
    archive::{self, ArchiveError, SourceImage},
    config::units::show_bytes,
    release::{
        MetadataSet,
        set::{SET_TYPE, TARGETS_BYTES_MAX},
    },
};

/// An image that was brought, with `--json` a line for each.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(flatten)]
    summary: SeedSummary,
    bytes_held: u64,
    left_out: Vec<String>,
}

/// Metadata of releases that was brought, with `--json` a line for each.
#[derive(Debug, Serialize)]
struct ImportedReleases {
    /// The releases that the bundle was made for.
    bundled: Vec<String>,
    /// The repository.
    repository: String,
    /// Version of its metadata.
    version: u64,
    /// Releases in it.
    releases: usize,
}

pub(super) async fn run(file: &Path, global: &Global) -> Result<Exit, Failure> {
    let client = node::client(global)?;
    let path = file.to_owned();
    let images = tokio::task::spawn_blocking(move || archive::images_of_archive(&path)).await;
    let images = images.map_err(anyhow::Error::new)?.map_err(anyhow::Error::new)?;
    if images.is_empty() {
        return Err(anyhow::Error::new(ArchiveError::Empty(file.to_owned())).into());
    }
    let source = format!("oci-archive:{}", file.display());
    let (metadata, images): (Vec<_>, Vec<_>) =
        images.into_iter().partition(|image| image.artifact_type.as_deref() == Some(SET_TYPE));
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for image in images {
        let label = image.names.first().cloned().unwrap_or_else(|| image.root.to_string());
        if let Err(error) = bring_image(&client, &source, image, &mut seen, global.json).await {
            failures.push(format!("{label}: {error:#}"));
        }
    }
    for set in metadata {
        let label = format!("the metadata of releases, {}", set.root);
        if let Err(error) = bring_releases(&client, set, global.json).await {
            failures.push(format!("{label}: {error:#}"));
        }
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("{} was not brought whole, what is right stays:\n  {}", file.display(), failures.join("\n  ")).into())
}

async fn bring_image(
    client: &AdminClient,
    source: &str,
    image: SourceImage,
    seen: &mut BTreeSet<String>,
    json: bool,
) -> anyhow::Result<()> {
    let name = seed::name_of(source, &image)?;
    if !seen.insert(name.to_string()) {
        return Err(anyhow!("{name} is there twice, with different images"));
    }
    let bar = bring::progress(json);
    let brought = bring::bring(client, image, &name, None, &bar).await;
    bar.finish_and_clear();
    let Brought { summary, bytes_held, left_out, .. } = brought?;
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

async fn bring_releases(client: &AdminClient, artifact: SourceImage, json: bool) -> anyhow::Result<()> {
    let named = artifact.annotations.get(RELEASES_KEY).cloned().unwrap_or_default();
    let bundled: Vec<String> = named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let set = tokio::task::spawn_blocking(move || set_of(&artifact)).await??;
    let HandedReleases { repository, version, releases } = client.hand_releases(&set).await?;
    if json {
        return output::print_json(&ImportedReleases { bundled, repository, version, releases });
    }
    let counted = output::counted(releases as u64, "release", "releases");
    output::print(&format!(
        "imported the metadata of {counted}, version {version}; the bundle is for {}\n",
        bundled.join(", ")
    ))
}

/// The metadata of an artifact. Whether it may be believed is the node's business.
fn set_of(artifact: &SourceImage) -> anyhow::Result<MetadataSet> {
    let manifest = artifact.manifest(&artifact.root)?.ok_or_else(|| artifact.lacks(&artifact.root))?;
    let mut files = BTreeMap::new();
    for file in MetadataSet::list(&manifest)? {
        let bytes = artifact.document(&file.content, TARGETS_BYTES_MAX as u64)?;
        files.insert(file.name, bytes.ok_or_else(|| artifact.lacks(&file.content))?);
    }
    Ok(MetadataSet::new(files)?)
}
