//! What the authority signs: `layermesh fleet init`, `admit`, `enrolment-key` and `revoke`.

use std::path::PathBuf;

use clap::Args;
use layermesh_proto::wire::fleet::{Enrolment, Revocation};
use serde::Serialize;

use super::{
    Exit, Failure, FileError, FleetKey, Global, Place, Signed, files, give, hand_revocations, now, output,
    parse_expiry, parse_subject, record, show_time, signed,
};

/// Arguments of `layermesh fleet init`.
#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    #[command(flatten)]
    place: Place,
}

/// Arguments of `layermesh fleet admit`.
#[derive(Debug, Args)]
pub(in crate::cli) struct AdmitArgs {
    /// The device's peer id, as its `layermesh status` shows it
    #[arg(value_name = "PEER_ID")]
    peer: String,
    /// When the membership ends: a time such as 365d, a date, or a moment [default: when it is revoked]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Write the membership into this new file [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `layermesh fleet enrolment-key`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EnrolmentKeyArgs {
    /// When the key ends, and with it the memberships of all devices that it admitted: a time such as 90d, a date, or a
    /// moment
    #[arg(long, value_name = "WHEN")]
    expires: String,
    /// Write the key into this new file [default: enrolment-XXXXXX.pem beside the authority's key]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Arguments of `layermesh fleet revoke`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RevokeArgs {
    /// The device's peer id, or an enrolment key's id
    #[arg(value_name = "PEER_ID")]
    subject: String,
    /// Write the revocation into this new file, for `fleet announce`, rather than hand it to a node here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn init(args: &InitArgs, global: &Global) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Made {
        authority: String,
        key: PathBuf,
    }
    let (key, path) = files::create_authority(&args.place.dir).map_err(|error| match error {
        FileError::Exists(_) => Failure::usage(error),
        other => anyhow::Error::new(other).into(),
    })?;
    let made = Made { authority: key.public().to_string(), key: path };
    if global.json {
        output::print_json(&made)?;
        return Ok(Exit::Done);
    }
    output::print(&format!(
        "{}\n\nis the fleet's id: `[fleet] authorities = [\"...\"]` in each device's layermesh.toml.\nThe key in {} says \
         who belongs to the fleet. Keep it, and a copy of it, where no device is.\n",
        made.authority,
        made.key.display()
    ))?;
    Ok(Exit::Done)
}

pub(super) fn admit(args: &AdmitArgs, global: &Global) -> Result<Exit, Failure> {
    let (peer, now) = (parse_subject(&args.peer)?, now()?);
    let expires = args.expires.as_deref().map(|text| parse_expiry(text, now)).transpose()?;
    let authority = args.place.authority()?;
    let credential = record::admit(&authority.keypair, peer, now, expires).map_err(signed)?;
    let pem = files::show_credential(&credential);
    if !global.json || args.out.is_some() {
        give(&pem, args.out.as_deref())?;
    }
    if global.json {
        output::print_json(&Signed {
            subject: peer.to_string(),
            authority: authority.public().to_string(),
            expires: expires.map(show_time),
            file: args.out.clone(),
            pem: Some(pem),
        })?;
    } else if let Some(path) = &args.out {
        let until = expires.map_or_else(|| "until it is revoked".to_owned(), |at| format!("until {}", show_time(at)));
        let path = path.display();
        output::print(&format!("{peer} belongs to the fleet {until}: on it, run `layermesh fleet join {path}`\n"))?;
    }
    Ok(Exit::Done)
}

pub(super) fn enrolment_key(args: &EnrolmentKeyArgs, global: &Global) -> Result<Exit, Failure> {
    let now = now()?;
    let expires = parse_expiry(&args.expires, now)?;
    let authority = args.place.authority()?;
    let key = FleetKey::generate().map_err(anyhow::Error::new)?;
    let statement =
        Enrolment { authority: authority.public(), key: key.public(), issued_unix_s: now, expires_unix_s: expires };
    let enrolment = record::sign(&authority.keypair, &statement).map_err(signed)?;
    let usual = || {
        let dir = if args.place.dir.is_dir() { Some(args.place.dir.as_path()) } else { args.place.dir.parent() };
        dir.unwrap_or(std::path::Path::new(".")).join(format!("enrolment-{}.pem", key.public().short()))
    };
    let path = args.out.clone().unwrap_or_else(usual);
    files::write_enrolment_key(&path, &key, &enrolment).map_err(anyhow::Error::new)?;
    let made = Signed {
        subject: key.public().to_string(),
        authority: authority.public().to_string(),
        expires: Some(show_time(expires)),
        file: Some(path.clone()),
        pem: None,
    };
    if global.json {
        output::print_json(&made)?;
    } else {
        output::print(&format!(
            "{}\n\nis the key's id; `layermesh fleet revoke` with it turns out all devices that it admitted.\nThe key is \
             in {}: `[fleet] enrolment_key = \"...\"` on the golden image. Whoever has it can join until {}.\n",
            made.subject,
            path.display(),
            show_time(expires)
        ))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn revoke(args: &RevokeArgs, global: &Global) -> Result<Exit, Failure> {
    let (subject, when_unix_s) = (parse_subject(&args.subject)?, now()?);
    let authority = args.place.authority()?;
    let statement = Revocation { authority: authority.public(), subject, when_unix_s };
    let record = record::sign(&authority.keypair, &statement).map_err(signed)?;
    let pem = files::show_revocations([record.as_slice()]);
    let Some(path) = &args.out else {
        return hand_revocations(pem, global).await.map_err(|mut failure| {
            if failure.exit == Exit::Unreachable {
                failure.error = failure.error.context(
                    "nothing was revoked; where no node runs, sign with --out FILE and run `layermesh fleet announce \
                     FILE` where one does",
                );
            }
            failure
        });
    };
    give(&pem, Some(path))?;
    if global.json {
        output::print_json(&Signed {
            subject: subject.to_string(),
            authority: authority.public().to_string(),
            expires: None,
            file: Some(path.clone()),
            pem: Some(pem),
        })?;
    } else {
        let path = path.display();
        output::print(&format!(
            "signed, and not told to anybody yet: run `layermesh fleet announce {path}` at a node\n"
        ))?;
    }
    Ok(Exit::Done)
}
