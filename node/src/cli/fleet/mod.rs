//! `layermesh fleet`: who belongs to it.
//!
//! `init`, `admit`, `enrolment-key` and `revoke` sign, where the authority's key is; `join`, `announce` and `show` talk
//! to a node. The key never leaves its file.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use layermesh_proto::NodeId;
use serde::Serialize;

use super::{Exit, Failure, Global, node, output};
use crate::{
    config::units::parse_duration,
    fleet::{
        clock,
        files::{self, FileError, FleetKey},
        record::{self, SignError},
        routes::RecordText,
    },
    release::verify::show_time,
};

mod show;
mod sign;

pub(super) use show::in_a_line;

/// Variable with the directory of the authority's key.
const DIR_VARIABLE: &str = "LAYERMESH_FLEET_DIR";
/// Largest file read that is to be handed to a node.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Subcommands of `layermesh fleet`.
#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Make a fleet's authority: a key that says which devices belong to it
    Init(sign::InitArgs),
    /// Sign a membership for a device
    Admit(sign::AdmitArgs),
    /// Make a key with which devices of a golden image admit themselves at their first boot
    EnrolmentKey(sign::EnrolmentKeyArgs),
    /// Turn a device, or an enrolment key with all its devices, out of the fleet, for good
    Revoke(sign::RevokeArgs),
    /// Give this node the membership that `fleet admit` signed for it
    Join(FileArgs),
    /// Give this node revocations that `fleet revoke --out` signed; it spreads them
    Announce(FileArgs),
    /// Show what this node shows of itself, whom it trusts, and who was revoked
    Show,
}

/// Where the authority's key is.
#[derive(Debug, Clone, Args)]
pub(super) struct Place {
    /// Directory of the authority's key, or the key's file
    #[arg(long, value_name = "DIR", env = DIR_VARIABLE, default_value = ".")]
    dir: PathBuf,
}

impl Place {
    fn authority(&self) -> Result<FleetKey, Failure> {
        files::read_authority(&self.dir).map_err(|error| match error {
            FileError::Io { ref path, .. } if error.is_missing() => {
                let path = path.display().to_string();
                Failure::usage(anyhow!(
                    "there is no authority's key at {path}: name its directory with --dir, or make one with `layermesh \
                     fleet init`"
                ))
            }
            other => anyhow::Error::new(other).into(),
        })
    }
}

/// A file for a node.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(command: FleetCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        FleetCommand::Init(args) => sign::init(&args, global),
        FleetCommand::Admit(args) => sign::admit(&args, global),
        FleetCommand::EnrolmentKey(args) => sign::enrolment_key(&args, global),
        FleetCommand::Revoke(args) => sign::revoke(&args, global).await,
        FleetCommand::Join(args) => join(&args, global).await,
        FleetCommand::Announce(args) => announce(&args, global).await,
        FleetCommand::Show => show::run(global).await,
    }
}

async fn join(args: &FileArgs, global: &Global) -> Result<Exit, Failure> {
    let status = node::client(global)?.join_fleet(&RecordText { pem: text_of(&args.file)? }).await?;
    if global.json {
        output::print_json(&status)?;
    } else {
        output::print("this device shows its membership from now on\n")?;
    }
    Ok(Exit::Done)
}

async fn announce(args: &FileArgs, global: &Global) -> Result<Exit, Failure> {
    hand_revocations(text_of(&args.file)?, global).await
}

/// Hands revocations to the node, which spreads them.
async fn hand_revocations(pem: String, global: &Global) -> Result<Exit, Failure> {
    let taken = node::client(global)?.revoke(&RecordText { pem }).await?;
    if global.json {
        output::print_json(&taken)?;
    } else {
        let new = output::counted(taken.new as u64, "revocation is", "revocations are");
        output::print(&format!("{new} new to this node, which tells the others; it knows {}\n", taken.known))?;
    }
    Ok(Exit::Done)
}

fn text_of(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {shown}")).map_err(Failure::usage)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Failure::usage(anyhow!("{shown} has {size} bytes; it is something else")));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"));
    text.map_err(Failure::usage)
}

/// This device's clock. What is signed has a time stamp that devices without a clock go by, so it has to be right.
fn now() -> Result<u64, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if clock::is_credible(now) {
        Ok(now)
    } else {
        Err(anyhow!("this device's clock shows {}, which cannot be: set it and try again", show_time(now)).into())
    }
}

/// When something ends: after a time, or on a day.
fn parse_expiry(text: &str, now_unix_s: u64) -> Result<u64, Failure> {
    let wrong = || {
        Failure::usage(anyhow!(
            "`{text}` is not an end: write a time from now such as `90d`, a date such as `2027-06-30`, or a moment such \
             as `2027-06-30T12:00:00Z`"
        ))
    };
    let end = if let Ok(duration) = parse_duration(text) {
        now_unix_s.saturating_add(duration.as_secs())
    } else if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        u64::try_from(moment.as_second()).map_err(|_| wrong())?
    } else {
        // All of that day, in UTC.
        let moment = format!("{text}T23:59:59Z").parse::<jiff::Timestamp>().map_err(|_| wrong())?;
        u64::try_from(moment.as_second()).map_err(|_| wrong())?
    };
    if end <= now_unix_s {
        return Err(Failure::usage(anyhow!("`{text}` is over already")));
    }
    Ok(end)
}

fn parse_subject(text: &str) -> Result<NodeId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(anyhow!(
            "`{text}` is not the peer id of a node: `layermesh status` shows it, such as 12D3KooW..."
        ))
    })
}

fn signed(error: SignError) -> Failure {
    anyhow::Error::new(error).into()
}

/// Writes what is public to a file, or says it.
fn give(text: &str, out: Option<&Path>) -> Result<(), Failure> {
    match out {
        Some(path) => Ok(files::write_new(path, text).map_err(anyhow::Error::new)?),
        None => Ok(output::print(text)?),
    }
}

/// A record that was signed, as `--json` prints it.
#[derive(Serialize)]
struct Signed {
    subject: String,
    authority: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    /// What is in the file, unless it is a private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::clock::BUILT_UNIX_S;

    #[test]
    fn ends_are_times_from_now_dates_or_moments() {
        let now = BUILT_UNIX_S;
        assert_eq!(parse_expiry("2d", now).unwrap(), now + 2 * 86_400);
        assert_eq!(show_time(parse_expiry("2027-06-30", now).unwrap()), "2027-06-30T23:59:59Z");
        assert_eq!(show_time(parse_expiry("2027-06-30T12:00:00Z", now).unwrap()), "2027-06-30T12:00:00Z");
        assert_eq!(show_time(parse_expiry("2027-06-30T12:00:00+02:00", now).unwrap()), "2027-06-30T10:00:00Z");
        for wrong in ["", "soon", "2027-13-01", "2020-01-01", "0s", "-1d", "2027-06"] {
            assert_eq!(parse_expiry(wrong, now).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
