//! `layermesh delta publish`, and the same as a part of `layermesh release publish`.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use clap::Args;
use indicatif::ProgressBar;
use oci_client::Reference;
use serde::Serialize;

use super::{
    super::{
        Exit, Failure, Global, output,
        progress::{Progress, short_digest},
    },
    patches::{Devices, doing, over_all},
};
use crate::{
    config::units::show_bytes,
    delta::publish::{Outcome, Published, Publishing, Step, publish, short},
    image::{ImageReference, Version},
    origin,
};

/// Arguments of `layermesh delta publish`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// The image that devices hold, such as ghcr.io/owner/name:1.4
    old: String,
    /// The image that they are to get, such as ghcr.io/owner/name:1.5; the patches go into its repository
    new: String,
    /// Make the patches and say how large they are, and push nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    making: Making,
}

/// How patches are made and pushed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Making {
    /// For which devices: what applying takes, and how far apart in the layers the same bytes may be
    #[arg(long = "for", value_name = "DEVICES", value_enum, default_value_t = Devices::Default)]
    devices: Devices,
    /// Speak to the registries without TLS
    #[arg(long)]
    plain_http: bool,
    /// Where layers and patches lie meanwhile: as large as the layers that differ [default: the system's directory for
    /// temporary files]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

impl Making {
    /// Makes the patches from one image to another and pushes them, unless it is a `dry_run`.
    pub(in crate::cli) async fn publish(
        &self,
        (old, new): (&ImageReference, &ImageReference),
        dry_run: bool,
        global: &Global,
    ) -> Result<Published, Failure> {
        let (old, new) = (reference(old), reference(new));
        let credentials = (credentials(&new).await?, credentials(&old).await?);
        let work = match &self.work_dir {
            Some(dir) => tempfile::tempdir_in(dir).with_context(|| format!("cannot work in {}", dir.display())),
            None => tempfile::tempdir().context("cannot make a directory to work in; give one with --work-dir"),
        }?;
        let publishing = Publishing {
            old,
            new,
            credentials,
            plain_http: self.plain_http,
            work_dir: work.path().to_owned(),
            sizes: self.devices.sizes(),
            dry_run,
        };
        let rows = Rows { progress: Progress::new(global.json), row: Mutex::default() };
        let published = publish(publishing, move |step| rows.show(&step)).await;
        Ok(published.map_err(anyhow::Error::from)?)
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown {
    layers: Vec<ShownLayer>,
    artifacts: Vec<ShownArtifact>,
}

#[derive(Debug, Serialize)]
struct ShownLayer {
    platform: Option<String>,
    digest: String,
    size: u64,
    /// The patch, if there is one.
    patch: Option<String>,
    patch_size: Option<u64>,
    /// What the old layer's tar has to be.
    base: Option<String>,
    /// Why there is none.
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownArtifact {
    digest: String,
    subject: String,
}

pub(super) async fn run(args: PublishArgs, global: &Global) -> Result<Exit, Failure> {
    let (old, new) = (image(&args.old)?, image(&args.new)?);
    let published = args.making.publish((&old, &new), args.dry_run, global).await?;
    if global.json {
        output::print_json_document(&Shown::of(&published))?;
    } else {
        output::print(&told(&published, args.dry_run))?;
    }
    // Nothing to make is no failure; layers that differ and of which none has a patch are what somebody wants to know of.
    let without = !published.layers.is_empty() && published.layers.iter().all(|layer| layer.patch.is_err());
    Ok(if without { Exit::Failed } else { Exit::Done })
}

/// A row for what is done now.
struct Rows {
    progress: Progress,
    row: Mutex<Option<ProgressBar>>,
}

impl Rows {
    fn show(&self, step: &Step) {
        let row = match step {
            Step::Fetching { layer, size, from } => {
                self.progress.bytes(&short_digest(&layer.to_string()), *size, &format!("from registry {from}"))
            }
            Step::Making { layer, .. } => self.progress.parts(&short_digest(&layer.to_string()), "making its patch"),
            Step::Pushing { size, to } => self.progress.bytes("patches", *size, &format!("to registry {to}")),
            Step::Passed(_) | Step::Made(..) => return self.advance(step),
        };
        let before = self.row.lock().unwrap_or_else(PoisonError::into_inner).replace(row);
        before.iter().for_each(ProgressBar::finish_and_clear);
    }

    fn advance(&self, step: &Step) {
        let row = self.row.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = row.as_ref() else { return };
        match step {
            Step::Passed(bytes) => row.inc(*bytes),
            Step::Made(phase, done) => {
                row.set_message(doing(*phase));
                row.set_position(over_all(*phase, *done));
            }
            Step::Fetching { .. } | Step::Making { .. } | Step::Pushing { .. } => {}
        }
    }
}

fn image(image: &str) -> Result<ImageReference, Failure> {
    ImageReference::named(image).map_err(Failure::usage)
}

fn reference(image: &ImageReference) -> Reference {
    let (registry, name) = (image.repository().registry().to_owned(), image.repository().name().to_owned());
    match image.version() {
        Version::Tag(tag) => Reference::with_tag(registry, name, tag.tag().to_owned()),
        Version::Digest(content) => Reference::with_digest(registry, name, content.to_string()),
    }
}

async fn credentials(image: &Reference) -> Result<Option<origin::Credentials>, Failure> {
    let found = origin::stored_credentials(image.registry()).await;
    Ok(found.with_context(|| format!("credentials for {}", image.registry()))?)
}

/// What was made, for people.
pub(in crate::cli) fn told(published: &Published, dry_run: bool) -> String {
    if published.layers.is_empty() {
        return "no layer differs that is worth a patch\n".to_owned();
    }
    let row = |layer: &Outcome| {
        let (patch, why) = match &layer.patch {
            Ok(entry) => (show_bytes(entry.patch_size), String::new()),
            Err(reason) => ("none".to_owned(), reason.clone()),
        };
        vec![short(&layer.layer), layer.platform.clone().unwrap_or_default(), show_bytes(layer.size), patch, why]
    };
    let rows = published.layers.iter().map(row).collect();
    let mut text = output::table(&["LAYER", "PLATFORM", "SIZE", "PATCH", ""], &[2, 3], rows);
    let made = published.layers.iter().filter_map(|layer| Some((layer.size, layer.patch.as_ref().ok()?.patch_size)));
    let (full, patched) = made.fold((0, 0), |(full, patched), (size, patch)| (full + size, patched + patch));
    if full > 0 {
        text.push_str(&format!("a site takes {} in place of {}\n", show_bytes(patched), show_bytes(full)));
    }
    if dry_run {
        text.push_str("nothing was pushed (--dry-run)\n");
    }
    text
}

impl Shown {
    fn of(published: &Published) -> Self {
        let layer = |outcome: &Outcome| {
            let entry = outcome.patch.as_ref().ok();
            ShownLayer {
                platform: outcome.platform.clone(),
                digest: outcome.layer.to_string(),
                size: outcome.size,
                patch: entry.map(|entry| entry.patch.to_string()),
                patch_size: entry.map(|entry| entry.patch_size),
                base: entry.map(|entry| entry.base.to_string()),
                reason: outcome.patch.as_ref().err().cloned(),
            }
        };
        let artifact = |(digest, subject): &(layermesh_proto::ContentId, layermesh_proto::ContentId)| ShownArtifact {
            digest: digest.to_string(),
            subject: subject.to_string(),
        };
        Self {
            layers: published.layers.iter().map(layer).collect(),
            artifacts: published.artifacts.iter().map(artifact).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::Algorithm;

    use super::*;
    use crate::delta::make::Phase;

    #[test]
    fn each_step_has_a_row_of_its_own_that_follows_it() {
        let rows = Rows { progress: Progress::hidden(), row: Mutex::default() };
        let now = || {
            let row = rows.row.lock().unwrap().clone().unwrap();
            (row.position(), row.length().unwrap(), row.message())
        };
        let layer = layermesh_proto::ContentId::of(Algorithm::Sha256, b"a layer");
        rows.show(&Step::Passed(7));
        rows.show(&Step::Fetching { layer, size: 100, from: "ghcr.io".to_owned() });
        rows.show(&Step::Passed(30));
        rows.show(&Step::Passed(10));
        assert_eq!(now(), (40, 100, "from registry ghcr.io".to_owned()));
        rows.show(&Step::Making { layer, size: 100 });
        rows.show(&Step::Made(Phase::Compare, 500));
        assert_eq!(now(), (500, 1000, "comparing".to_owned()));
        rows.show(&Step::Pushing { size: 5, to: "ghcr.io".to_owned() });
        rows.show(&Step::Passed(5));
        assert_eq!(now(), (5, 5, "to registry ghcr.io".to_owned()));
    }
}
