//! `layermesh delta`: layers from older ones, on files. None of it needs a node.

mod patches;
pub(super) mod publish;

use std::{fmt::Write as _, fs::File, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Exit, Failure, Global, output, progress::Progress};
use crate::{
    config::units::show_bytes,
    delta::recipe::{Identified, NoRecipe, identify},
};

/// Subcommands of `layermesh delta`.
#[derive(Debug, Subcommand)]
pub(super) enum DeltaCommand {
    /// Tell which compressor made a layer, if its very bytes can be made again from its tar
    Recipe(RecipeArgs),
    /// Make a patch that leads from an old layer to a new one
    Make(patches::MakeArgs),
    /// Make the new layer from the old one and a patch, or several that follow one another
    Apply(patches::ApplyArgs),
    /// Tell between which layers a patch leads, and what it takes to apply
    Show(patches::ShowArgs),
    /// Make the patches from one image to another, and put them beside it in its registry
    Publish(publish::PublishArgs),
}

/// Arguments of `layermesh delta recipe`.
#[derive(Debug, Args)]
pub(super) struct RecipeArgs {
    /// The layer's blob, as a registry or an OCI layout has it
    file: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Shown {
    /// The encoder's id, if there is a recipe.
    encoder: Option<String>,
    /// The gzip header, in hexadecimal digits.
    header: Option<String>,
    digest: Option<String>,
    size: Option<u64>,
    diff_id: Option<String>,
    tar_size: Option<u64>,
    /// Why there is no recipe.
    reason: Option<String>,
}

pub(super) async fn run(command: DeltaCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        DeltaCommand::Recipe(arguments) => recipe(arguments, global).await,
        DeltaCommand::Make(arguments) => patches::make(arguments, global).await,
        DeltaCommand::Apply(arguments) => patches::apply(arguments, global).await,
        DeltaCommand::Show(arguments) => patches::show(&arguments, global),
        DeltaCommand::Publish(arguments) => publish::run(arguments, global).await,
    }
}

async fn recipe(RecipeArgs { file }: RecipeArgs, global: &Global) -> Result<Exit, Failure> {
    let source = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
    let len = source.metadata().with_context(|| format!("cannot read {}", file.display()))?.len();
    let progress = Progress::new(global.json);
    let bar = progress.bytes("recipe", len, &format!("from {}", file.display()));
    let found = tokio::task::spawn_blocking(move || identify(source, |passed| bar.set_position(passed)))
        .await
        .context("the search for the recipe broke off")?;
    drop(progress);
    if global.json {
        output::print_json_document(&Shown::of(&found))?;
    }
    match found {
        Ok(found) => {
            if !global.json {
                output::print(&told(&found))?;
            }
            Ok(Exit::Done)
        }
        Err(_) if global.json => Ok(Exit::Failed),
        Err(error) => Err(anyhow::anyhow!("{} has no recipe: {error}", file.display()).into()),
    }
}

fn told(found: &Identified) -> String {
    let Identified { recipe, blob, tar } = found;
    let mut text = format!("encoder  {} ({})\n", recipe.encoder, recipe.encoder.description());
    let _ = writeln!(text, "layer    {} ({})", blob.id, show_bytes(blob.len));
    let _ = writeln!(text, "tar      {} ({})", tar.id, show_bytes(tar.len));
    text
}

impl Shown {
    fn of(found: &Result<Identified, NoRecipe>) -> Self {
        match found {
            Ok(Identified { recipe, blob, tar }) => {
                let mut header = Vec::new();
                recipe.header.put(&mut header);
                Self {
                    encoder: Some(recipe.encoder.to_string()),
                    header: Some(hex::encode(header)),
                    digest: Some(blob.id.to_string()),
                    size: Some(blob.len),
                    diff_id: Some(tar.id.to_string()),
                    tar_size: Some(tar.len),
                    reason: None,
                }
            }
            Err(error) => Self {
                encoder: None,
                header: None,
                digest: None,
                size: None,
                diff_id: None,
                tar_size: None,
                reason: Some(error.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::gzip::{Header, encode};

    use super::*;

    #[test]
    fn a_recipe_is_shown_for_people_and_for_programs() {
        let id = "go-gzip/1:9".parse().unwrap();
        let layer = encode(id, &Header { xfl: 2, os: 255, ..Header::default() }, b"a tar, or so");
        let found = identify(&layer[..], |_| ());
        let text = told(found.as_ref().unwrap());
        assert!(text.starts_with("encoder  go-gzip/1:"), "{text}");
        assert!(text.ends_with(" (12 B)\n"), "{text}");
        let json = serde_json::to_value(Shown::of(&found)).unwrap();
        assert_eq!(json["header"], "1f8b08000000000002ff");
        assert_eq!((&json["tar_size"], &json["reason"]), (&12.into(), &serde_json::Value::Null));
        let json = serde_json::to_value(Shown::of(&identify(&b"plain"[..], |_| ()))).unwrap();
        assert_eq!(json["reason"], "it does not begin as gzip does");
        assert_eq!(json["encoder"], serde_json::Value::Null);
    }
}
