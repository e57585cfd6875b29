//! `layermesh release`: making releases, on the admin's machine.
//!
//! The repository is a directory; see [`crate::release::publisher`]. Invariant: what is signed is shown first by what it
//! is made of, and nothing is signed of which a part is missing.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};

use super::{Exit, Failure, Global, node, output};
use crate::release::{
    Channel, ReleaseVersion,
    keys::KeyRing,
    publisher::{Lifetimes, Publisher, PublisherError},
};

mod change;
mod init;
mod publish;
mod show;
mod status;

/// Where a repository is looked for if nothing is said: its variable, then the current directory.
pub(super) const DIR_VARIABLE: &str = "LAYERMESH_RELEASES";

/// Subcommands of `layermesh release`.
#[derive(Debug, Subcommand)]
pub(super) enum ReleaseCommand {
    /// Make a repository of releases and its keys
    Init(init::InitArgs),
    /// Sign a release
    Publish(publish::PublishArgs),
    /// List the releases
    List(ListArgs),
    /// Show a release
    Show(ReleaseArgs),
    /// Check the repository as devices check it, and that its images exist
    Verify(show::VerifyArgs),
    /// Sign that a release is none any more
    Withdraw(change::WithdrawArgs),
    /// Sign the same once more, to be used for longer
    Renew(change::RenewArgs),
    /// Give roles new keys
    Rotate(change::RotateArgs),
    /// Hand what is signed to a node, which spreads it
    Announce(ListArgs),
    /// Show how far the devices of this site are
    Status(status::StatusArgs),
}

/// Which repository.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// The repository's directory
    #[arg(long, value_name = "DIR", env = DIR_VARIABLE, default_value = ".")]
    dir: PathBuf,
}

impl Place {
    async fn open(&self) -> Result<Publisher, Failure> {
        Publisher::open(&self.dir).await.map_err(failure)
    }
}

/// Which keys, and how long what they sign may be used.
#[derive(Debug, Clone, Args)]
pub(super) struct Signing {
    /// A private key, or a directory of them; may be given again [default: DIR/keys]
    #[arg(long = "keys", value_name = "PATH")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    days: Days,
}

/// How long what is signed may be used.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Days {
    /// Days for which a root may be used
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().root)]
    root_days: u32,
    /// Days for which the list of releases may be used
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().targets)]
    targets_days: u32,
    /// Days for which devices may take what they have for new
    #[arg(long, value_name = "DAYS", default_value_t = Lifetimes::default().timestamp)]
    timestamp_days: u32,
}

impl From<Days> for Lifetimes {
    fn from(days: Days) -> Self {
        Self { root: days.root_days, targets: days.targets_days, timestamp: days.timestamp_days }
    }
}

impl Signing {
    fn ring(&self, place: &Place) -> Result<KeyRing, Failure> {
        let places = if self.keys.is_empty() { vec![place.dir.join("keys")] } else { self.keys.clone() };
        Ok(KeyRing::read(&places).context("the keys cannot be read; name their directory with --keys")?)
    }
}

/// Arguments of `layermesh release list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: Place,
}

/// Arguments of `layermesh release show`.
#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    name: Name,
}

/// Which release.
#[derive(Debug, Clone, Args)]
pub(super) struct Name {
    /// The release, such as stable/1.4.0
    #[arg(value_name = "CHANNEL/VERSION")]
    release: String,
}

impl Name {
    fn parse(&self) -> Result<(Channel, ReleaseVersion), Failure> {
        let (channel, version) = self.release.split_once('/').ok_or_else(|| {
            Failure::usage(anyhow!("`{}` is not a release: write one such as stable/1.4.0", self.release))
        })?;
        Ok((channel.parse().map_err(Failure::usage)?, version.parse().map_err(Failure::usage)?))
    }
}

pub(super) async fn run(command: ReleaseCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        ReleaseCommand::Init(args) => init::run(args, global).await,
        ReleaseCommand::Publish(args) => publish::run(args, global).await,
        ReleaseCommand::List(args) => show::list(&args, global).await,
        ReleaseCommand::Show(args) => show::show(&args, global).await,
        ReleaseCommand::Verify(args) => show::verify(args, global).await,
        ReleaseCommand::Withdraw(args) => change::withdraw(args, global).await,
        ReleaseCommand::Renew(args) => change::renew(args, global).await,
        ReleaseCommand::Rotate(args) => change::rotate(args, global).await,
        ReleaseCommand::Announce(args) => announce(&args, global).await,
        ReleaseCommand::Status(args) => status::run(args, global).await,
    }
}

/// Hands what is signed to the node, which stores and spreads it.
async fn hand(publisher: &Publisher, global: &Global) -> Result<(), Failure> {
    let handed = node::client(global)?.hand_releases(publisher.set()).await?;
    if !global.json {
        output::print(&format!("the node has it (version {}) and tells its site\n", handed.version))?;
    }
    Ok(())
}

/// As [`hand`], where no node is needed for the rest: what is signed is signed.
async fn hand_if_there(publisher: &Publisher, global: &Global) -> Result<(), Failure> {
    match hand(publisher, global).await {
        Err(failure) if failure.exit == Exit::Unreachable => {
            output::note(
                "no node answers, so no device hears of it yet: run `layermesh release announce` where one does",
            );
            Ok(())
        }
        other => other,
    }
}

async fn announce(args: &ListArgs, global: &Global) -> Result<Exit, Failure> {
    hand(&args.place.open().await?, global).await?;
    Ok(Exit::Done)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What is wrong with what was asked for is a mistake in the command.
fn failure(error: PublisherError) -> Failure {
    match error {
        PublisherError::NotARepository(_)
        | PublisherError::Exists(_)
        | PublisherError::Threshold { .. }
        | PublisherError::Lifetime(_)
        | PublisherError::NoRelease(_)
        | PublisherError::Released(_) => Failure::usage(error),
        other => anyhow::Error::new(other).into(),
    }
}
