//! `layermesh release list`, `show` and `verify`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::{Exit, Failure, Global, ListArgs, Place, ReleaseArgs, failure, node, now, output};
use crate::{
    admin::types::InspectRequest,
    cli::progress::Progress,
    config::units::show_bytes,
    release::{
        Release, Trusted,
        publisher::Publisher,
        verify::{self, show_time},
    },
};

/// Arguments of `layermesh release verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The root.json that a device has [default: the repository's first]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Ask a node, too, whether the images of the releases still exist whole
    #[arg(long)]
    images: bool,
}

pub(super) async fn list(args: &ListArgs, global: &Global) -> Result<Exit, Failure> {
    let publisher = args.place.open().await?;
    let releases = &publisher.verified().releases;
    if global.json {
        output::print_json_document(releases)?;
    } else if releases.is_empty() {
        output::print("no releases\n")?;
    } else {
        let row = |release: &Release| {
            vec![
                release.channel.to_string(),
                release.version.to_string(),
                show_time(release.published_unix_s),
                release.images.len().to_string(),
                show_bytes(release.bytes()),
                release.platforms().join(", "),
            ]
        };
        let rows = releases.iter().rev().map(row).collect();
        let header = ["CHANNEL", "VERSION", "PUBLISHED", "IMAGES", "SIZE", "PLATFORMS"];
        output::print(&output::table(&header, &[3, 4], rows))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn show(args: &ReleaseArgs, global: &Global) -> Result<Exit, Failure> {
    let (channel, version) = args.name.parse()?;
    let publisher = args.place.open().await?;
    let release = publisher.release(&channel, &version).map_err(failure)?;
    if global.json {
        output::print_json_document(release)?;
        return Ok(Exit::Done);
    }
    let images = release.images.iter().flat_map(|image| {
        image.platforms.iter().enumerate().map(move |(at, platform)| {
            let name = if at == 0 { image.to_string() } else { String::new() };
            let of = platform.platform.clone().unwrap_or_else(|| "-".to_owned());
            let patches = match platform.patches.len() {
                0 => "-".to_owned(),
                count => format!("from {}", output::counted(count as u64, "version", "versions")),
            };
            vec![name, of, platform.digest.clone(), show_bytes(platform.bytes), patches]
        })
    });
    let table = output::table(&["IMAGE", "PLATFORM", "MANIFEST", "SIZE", "PATCHES"], &[3], images.collect());
    output::print(&format!("{}, published {}\n\n{table}", release.name(), show_time(release.published_unix_s)))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Checked {
    repository: String,
    root_version: u64,
    version: u64,
    releases: usize,
    roles: Vec<CheckedRole>,
    missing: Vec<String>,
}

#[derive(Serialize)]
struct CheckedRole {
    role: String,
    expires: String,
    keys: usize,
    threshold: u64,
}

pub(super) async fn verify(args: VerifyArgs, global: &Global) -> Result<Exit, Failure> {
    let publisher = args.place.open().await?;
    let root = match &args.root {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => publisher.set().roots().first().map(|root| root.to_vec()).unwrap_or_default(),
    };
    let outcome = verify::verify(publisher.set(), &Trusted::root(&root), now(), &std::env::temp_dir()).await;
    let verified = outcome.result.map_err(|refusal| anyhow!("devices would refuse this repository: {refusal}"))?;
    let missing = if args.images { missing(&publisher, global).await? } else { Vec::new() };
    let roles = publisher.roles().into_iter().map(|(role, expires, keys, threshold)| CheckedRole {
        role: role.to_string(),
        expires: show_time(expires),
        keys,
        threshold,
    });
    let checked = Checked {
        repository: verified.repository.to_string(),
        root_version: verified.root_version,
        version: verified.version,
        releases: verified.releases.len(),
        roles: roles.collect(),
        missing,
    };
    if global.json {
        output::print_json_document(&checked)?;
    } else {
        output::print(&shown(&checked))?;
    }
    Ok(if checked.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

/// What is missing of the images of all releases.
async fn missing(publisher: &Publisher, global: &Global) -> Result<Vec<String>, Failure> {
    let client = node::client(global)?;
    let mut missing = Vec::new();
    let progress = Progress::new(global.json);
    let row = progress.step("");
    for release in &publisher.verified().releases {
        for image in &release.images {
            row.set_message(format!("asking the site and the registry for {image} of {}", release.name()));
            // By digest: the tag may stand for something newer by now.
            let request = InspectRequest { image: format!("{}@{}", image.name, image.digest) };
            match client.inspect(&request).await {
                Ok(found) => {
                    missing.extend(found.missing.iter().map(|part| format!("{}: {image}: {part}", release.name())))
                }
                Err(crate::admin::client::ClientError::Refused(error)) => {
                    missing.push(format!("{}: {image}: {error}", release.name()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(missing)
}

fn shown(checked: &Checked) -> String {
    let row = |role: &CheckedRole| {
        vec![role.role.clone(), format!("{} of {}", role.threshold, role.keys), role.expires.clone()]
    };
    let table = output::table(&["ROLE", "SIGN", "UNTIL"], &[], checked.roles.iter().map(row).collect());
    let mut text = format!(
        "repository {}: {}, root {}, timestamp {}; devices accept it\n\n{table}",
        checked.repository,
        output::counted(checked.releases as u64, "release", "releases"),
        checked.root_version,
        checked.version,
    );
    if !checked.missing.is_empty() {
        text.push_str(&format!("\nmissing:\n  {}\n", checked.missing.join("\n  ")));
    }
    text
}
