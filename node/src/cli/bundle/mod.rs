//! `layermesh bundle`: images and releases in one file, for sites that have no uplink.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Exit, Failure, Global};

mod export;
mod import;

/// Annotation of a bundle's release metadata: the releases that it was made for, with commas.
const RELEASES_KEY: &str = "vnd.layermesh.releases";

/// Arguments of `layermesh bundle`.
#[derive(Debug, Args)]
pub(super) struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Write images and releases into one file, which other tools read as oci-archive:FILE
    Export(export::ExportArgs),
    /// Bring what is in a file to this node, and so to its site
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The file
    file: PathBuf,
}

pub(super) async fn run(args: BundleArgs, global: &Global) -> Result<Exit, Failure> {
    match args.command {
        BundleCommand::Export(args) => export::run(args, global).await,
        BundleCommand::Import(args) => import::run(&args.file, global).await,
    }
}
