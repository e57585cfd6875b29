//! `layermesh release withdraw`, `renew` and `rotate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tough::schema::RoleType;

use super::{Exit, Failure, Global, Name, Place, Signing, failure, hand_if_there, now, output};
use crate::release::{
    publisher::{Publisher, ROLES, RotateOptions},
    verify::show_time,
};

/// Arguments of `layermesh release withdraw`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WithdrawArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    signing: Signing,
}

/// Arguments of `layermesh release renew`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RenewArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    signing: Signing,
}

/// Arguments of `layermesh release rotate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// Whose keys are replaced; may be given again. Without any the root is signed again with the keys that it has
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleArg>,
    /// How many keys each gets [default: as many as it had]
    #[arg(long, value_name = "N", requires = "roles")]
    count: Option<u32>,
    /// How many of them must sign [default: as many as before]
    #[arg(long, value_name = "N", requires = "roles")]
    threshold: Option<u32>,
    #[command(flatten)]
    signing: Signing,
}

/// A role on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Root,
    Targets,
    Snapshot,
    Timestamp,
    All,
}

impl RoleArg {
    fn roles(self) -> Vec<RoleType> {
        match self {
            Self::Root => vec![RoleType::Root],
            Self::Targets => vec![RoleType::Targets],
            Self::Snapshot => vec![RoleType::Snapshot],
            Self::Timestamp => vec![RoleType::Timestamp],
            Self::All => ROLES.to_vec(),
        }
    }
}

#[derive(Serialize)]
struct Signed {
    repository: String,
    root_version: u64,
    version: u64,
    expires: String,
    new_keys: Vec<PathBuf>,
}

pub(super) async fn withdraw(args: WithdrawArgs, global: &Global) -> Result<Exit, Failure> {
    let (channel, version) = args.name.parse()?;
    let publisher = args.place.open().await?;
    let keys = args.signing.ring(&args.place)?;
    let done = publisher.withdraw(&channel, &version, &keys, args.signing.days.into(), now()).await;
    let publisher = done.map_err(failure)?;
    say(&publisher, Vec::new(), &format!("withdrew {channel}/{version}"), global)?;
    hand_if_there(&publisher, global).await?;
    Ok(Exit::Done)
}

pub(super) async fn renew(args: RenewArgs, global: &Global) -> Result<Exit, Failure> {
    let publisher = args.place.open().await?;
    let keys = args.signing.ring(&args.place)?;
    let publisher = publisher.renew(&keys, args.signing.days.into(), now()).await.map_err(failure)?;
    say(&publisher, Vec::new(), "renewed", global)?;
    hand_if_there(&publisher, global).await?;
    Ok(Exit::Done)
}

pub(super) async fn rotate(args: RotateArgs, global: &Global) -> Result<Exit, Failure> {
    let publisher = args.place.open().await?;
    let keys = args.signing.ring(&args.place)?;
    // In one order and each once, whatever was asked for.
    let asked: Vec<RoleType> = args.roles.iter().flat_map(|role| role.roles()).collect();
    let roles = ROLES.into_iter().filter(|role| asked.contains(role)).collect();
    let options =
        RotateOptions { roles, keys: args.count, threshold: args.threshold, lifetimes: args.signing.days.into() };
    let rotated = publisher.rotate(options, keys, now()).await.map_err(failure)?;
    let version = rotated.publisher.verified().root_version;
    say(&rotated.publisher, rotated.made, &format!("signed root {version}"), global)?;
    hand_if_there(&rotated.publisher, global).await?;
    Ok(Exit::Done)
}

fn say(publisher: &Publisher, new_keys: Vec<PathBuf>, what: &str, global: &Global) -> Result<(), Failure> {
    let verified = publisher.verified();
    let signed = Signed {
        repository: verified.repository.to_string(),
        root_version: verified.root_version,
        version: verified.version,
        expires: show_time(verified.expires.1),
        new_keys,
    };
    if global.json {
        output::print_json(&signed)?;
        return Ok(());
    }
    let mut text = format!("{what}; {} expires first, {}\n", verified.expires.0, signed.expires);
    if !signed.new_keys.is_empty() {
        text.push_str("new keys, of which root keys belong offline and each on a medium of its own:\n");
        for key in &signed.new_keys {
            text.push_str(&format!("  {}\n", key.display()));
        }
        text.push_str("Destroy the old ones once the devices have the new root.\n");
    }
    output::print(&text)?;
    Ok(())
}
