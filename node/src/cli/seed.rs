//! `layermesh seed`: an image from a registry, a file or a directory into the mesh.

use std::str::FromStr as _;

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure, Global,
    bring::{self, Brought},
    node, output,
    progress::Progress,
    pull,
};
use crate::{
    admin::{
        client::AdminClient,
        types::{PullRequest, SeedRequest, SeedSummary},
    },
    archive::{self, SourceImage},
    config::units::show_bytes,
    contents::PlatformChoice,
    image::{ImageReference, ImageSource},
};

/// Arguments of `layermesh seed`.
#[derive(Debug, Args)]
pub(super) struct SeedArgs {
    /// Images: docker://IMAGE, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Name under which devices pull it, such as ghcr.io/owner/name:tag [default: what the file or directory says]
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// os/arch[/variant], several with commas, or all [default: all that are there]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

/// What was seeded, with `--json` a line for each image.
#[derive(Debug, Serialize)]
struct Seeded {
    /// Where it came from, as it was given.
    source: String,
    #[serde(flatten)]
    summary: SeedSummary,
    /// Bytes that the node had before, of an image from a file or directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_held: Option<u64>,
    /// Whether the image has another digest than at a registry.
    converted: bool,
    /// Manifests that the source lacks.
    left_out: Vec<String>,
}

pub(super) async fn run(args: SeedArgs, global: &Global) -> Result<Exit, Failure> {
    if args.name.is_some() && args.images.len() > 1 {
        return Err(Failure::usage(anyhow!("--as names one image: seed the others by themselves")));
    }
    let name = args.name.as_deref().map(ImageReference::from_str).transpose().map_err(Failure::usage)?;
    if let Some(platform) = &args.platform {
        platform.parse::<PlatformChoice>().map_err(Failure::usage)?;
    }
    let sources = args.images.iter().map(|text| Ok((text.clone(), text.parse::<ImageSource>()?)));
    let sources: Vec<_> = sources.collect::<anyhow::Result<_>>().map_err(Failure::usage)?;
    let client = node::client(global)?;
    for (text, source) in sources {
        let seeded = match &source {
            ImageSource::Registry(image) => {
                from_registry(&client, text, image, name.as_ref(), args.platform.as_deref(), global.json).await?
            }
            _ => from_files(&client, text, source, name.as_ref(), args.platform.as_deref(), global.json).await?,
        };
        if global.json {
            output::print_json(&seeded)?;
        } else {
            output::print(&shown(&seeded))?;
        }
    }
    Ok(Exit::Done)
}

async fn from_registry(
    client: &AdminClient,
    source: String,
    image: &ImageReference,
    name: Option<&ImageReference>,
    platform: Option<&str>,
    json: bool,
) -> Result<Seeded, Failure> {
    let platform = platform.unwrap_or("all");
    let request = PullRequest { image: image.to_string(), platform: Some(platform.to_owned()), background: false };
    let pulled = pull::in_passing(client.pull(&request).await?, !json).await?;
    let request = SeedRequest {
        image: name.unwrap_or(image).to_string(),
        digest: pulled.digest,
        platform: Some(platform.to_owned()),
        bind: true,
    };
    let summary = client.seed_image(&request).await?;
    Ok(Seeded { source, summary, bytes_held: None, converted: false, left_out: Vec::new() })
}

async fn from_files(
    client: &AdminClient,
    text: String,
    source: ImageSource,
    name: Option<&ImageReference>,
    platform: Option<&str>,
    json: bool,
) -> Result<Seeded, Failure> {
    let opened = tokio::task::spawn_blocking(move || archive::open(&source)).await.map_err(anyhow::Error::new)?;
    let image = opened.ok_or_else(|| anyhow!("{text} is not a file or directory"))?.map_err(anyhow::Error::new)?;
    let name = match name {
        Some(name) => name.clone(),
        None => name_of(&text, &image)?,
    };
    let converted = image.converted;
    let progress = Progress::new(json);
    let bar = progress.bytes("", 0, &format!("from {text}"));
    let brought = bring::bring(client, image, &name, platform, true, &bar).await;
    drop(progress);
    let Brought { summary, bytes_held, left_out, .. } = brought.map_err(|error| error.context(text.clone()))?;
    Ok(Seeded { source: text, summary, bytes_held: Some(bytes_held), converted, left_out })
}

/// The name that a source gives to its image.
pub(super) fn name_of(source: &str, image: &SourceImage) -> anyhow::Result<ImageReference> {
    image.reference().ok_or_else(|| {
        let says = match image.names.first() {
            Some(name) => format!("calls its image only `{name}`"),
            None => "does not name its image".to_owned(),
        };
        anyhow!("{source} {says}: say under which name devices pull it, with --as NAME")
    })
}

fn shown(seeded: &Seeded) -> String {
    let SeedSummary { image, digest, blobs, bytes } = &seeded.summary;
    let counted = output::counted(*blobs as u64, "blob", "blobs");
    let mut text = format!("seeded {image}\n  {digest}\n  {} in {counted}", show_bytes(*bytes));
    match seeded.bytes_held {
        Some(held) => text.push_str(&format!(", {} were here\n", show_bytes(held))),
        None => text.push('\n'),
    }
    if seeded.converted {
        text.push_str("  the archive has no registry's manifest: the image has another digest than at a registry\n");
    }
    for left_out in &seeded.left_out {
        text.push_str(&format!("  without {left_out}, which {} lacks\n", seeded.source));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seeded_is_shown() {
        let summary =
            SeedSummary { image: "a.test/b:1".to_owned(), digest: "sha256:00".to_owned(), blobs: 5, bytes: 2048 };
        let seeded = Seeded {
            source: "oci:x".to_owned(),
            summary,
            bytes_held: Some(0),
            converted: true,
            left_out: vec!["manifest sha256:11 for linux/arm64".to_owned()],
        };
        let text = shown(&seeded);
        assert!(text.contains("5 blobs") && text.contains("another digest") && text.contains("oci:x lacks"), "{text}");
    }
}
