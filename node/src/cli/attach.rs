//! `layermesh attach` and `layermesh detach`: blobs that are held where others have them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Exit, Failure, Global, node, output};
use crate::{
    admin::types::{AttachRequest, Attached, DetachRequest},
    config::units::show_bytes,
};

/// Arguments of `layermesh attach`.
#[derive(Debug, Args)]
pub(super) struct AttachArgs {
    /// A directory with blobs/sha256: an OCI image layout, or containerd's content store,
    /// /var/lib/containerd/io.containerd.content.v1.content [default: show what is attached]
    dir: Option<PathBuf>,
    /// Let the node's own copies go that are there, too, but for pinned ones: it saves their place, and when the
    /// directory's owner removes a blob, this node has it no longer
    #[arg(long, requires = "dir")]
    reuse: bool,
}

/// Arguments of `layermesh detach`.
#[derive(Debug, Args)]
pub(super) struct DetachArgs {
    /// The directory
    dir: PathBuf,
}

pub(super) async fn attach(args: AttachArgs, global: &Global) -> Result<Exit, Failure> {
    let client = node::client(global)?;
    let attached = match args.dir {
        Some(dir) => client.attach(&AttachRequest { path: absolute(dir)?, reuse: args.reuse }).await?,
        None => client.attached().await?,
    };
    print(&attached, global)
}

pub(super) async fn detach(args: DetachArgs, global: &Global) -> Result<Exit, Failure> {
    let attached = node::client(global)?.detach(&DetachRequest { path: absolute(args.dir)? }).await?;
    print(&attached, global)
}

/// As this command's directory means it, not the node's.
fn absolute(dir: PathBuf) -> Result<String, Failure> {
    let path = std::path::absolute(dir).context("cannot find out where this is").map_err(Failure::usage)?;
    let path = path.into_os_string().into_string();
    path.map_err(|path| Failure::usage(anyhow::anyhow!("{} is not a UTF-8 path", path.to_string_lossy())))
}

fn print(attached: &[Attached], global: &Global) -> Result<Exit, Failure> {
    if global.json {
        output::print_json_document(&attached)?;
    } else if attached.is_empty() {
        output::print("nothing is attached\n")?;
    } else {
        output::print(&shown(attached))?;
    }
    Ok(Exit::Done)
}

fn shown(attached: &[Attached]) -> String {
    let row = |one: &Attached| {
        let state = match (&one.problem, one.pending) {
            (Some(problem), _) => problem.clone(),
            (None, 0) => "up to date".to_owned(),
            (None, pending) => format!("{pending} to be hashed"),
        };
        let reuse = if one.reuse { "yes" } else { "no" };
        vec![one.path.clone(), one.blobs.to_string(), show_bytes(one.bytes), reuse.to_owned(), state]
    };
    let header = ["DIRECTORY", "BLOBS", "SIZE", "REUSE", "STATE"];
    output::table(&header, &[1, 2], attached.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_directory() {
        let mut one = Attached {
            path: "/stick".to_owned(),
            reuse: true,
            lasting: true,
            blobs: 2,
            bytes: 2048,
            pending: 3,
            problem: None,
        };
        let row = |one: &Attached| shown(std::slice::from_ref(one)).lines().nth(1).unwrap().to_owned();
        assert_eq!(row(&one), "/stick         2  2.00 KiB  yes    3 to be hashed");
        one.problem = Some("not there".to_owned());
        assert!(row(&one).ends_with("not there"));
    }
}
