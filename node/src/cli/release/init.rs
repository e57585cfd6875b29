//! `layermesh release init`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Days, Exit, Failure, Global, failure, now, output};
use crate::release::publisher::{InitOptions, Publisher, RoleOptions};

/// Arguments of `layermesh release init`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// Directory of the repository; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Root keys
    #[arg(long, value_name = "N", default_value_t = InitOptions::default().root.keys)]
    root_keys: u32,
    /// How many root keys must sign to change keys
    #[arg(long, value_name = "N", default_value_t = InitOptions::default().root.threshold)]
    root_threshold: u32,
    /// Keys that sign releases
    #[arg(long, value_name = "N", default_value_t = InitOptions::default().targets.keys)]
    targets_keys: u32,
    /// How many of them must sign a release
    #[arg(long, value_name = "N", default_value_t = InitOptions::default().targets.threshold)]
    targets_threshold: u32,
    #[command(flatten)]
    days: Days,
}

#[derive(Serialize)]
struct Made {
    repository: String,
    root: PathBuf,
    keys: PathBuf,
}

pub(super) async fn run(args: InitArgs, global: &Global) -> Result<Exit, Failure> {
    let options = InitOptions {
        root: RoleOptions { keys: args.root_keys, threshold: args.root_threshold },
        targets: RoleOptions { keys: args.targets_keys, threshold: args.targets_threshold },
        lifetimes: args.days.into(),
    };
    let publisher = Publisher::init(&args.dir, options, now()).await.map_err(failure)?;
    let made = Made {
        repository: publisher.repository().to_string(),
        root: args.dir.join("root.json"),
        keys: args.dir.join("keys"),
    };
    if global.json {
        output::print_json(&made)?;
        return Ok(Exit::Done);
    }
    let (dir, keys) = (args.dir.display(), made.keys.display());
    output::print(&format!(
        "made the repository {} in {dir}\n\n\
         {}\n  \
           give it to each device: `[releases] root = \"...\"` in its layermesh.toml\n\
         {keys}/root\n  \
           {} of these {} keys change keys. Move each to a medium of its own and keep it offline and locked away:\n  \
           whoever has {} of them can take over all devices, and without them lost keys cannot be replaced.\n\
         {keys}/targets\n  \
           {} of these {} keys sign a release. Keep them where releases are made, and nowhere else.\n\
         {keys}/snapshot, {keys}/timestamp\n  \
           say which list of releases is the newest; these may lie on the machine that publishes.\n\n\
         Back up the keys now; then sign a release with `layermesh release publish --dir {dir} ...`.\n",
        made.repository,
        made.root.display(),
        args.root_threshold,
        args.root_keys,
        args.root_threshold,
        args.targets_threshold,
        args.targets_keys,
    ))?;
    Ok(Exit::Done)
}
