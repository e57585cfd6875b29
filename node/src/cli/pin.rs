//! `layermesh pin` and `layermesh unpin`: what is kept however little it is used.

use std::fmt::Write as _;

use clap::Args;

use super::{Exit, Failure, Global, node, output};
use crate::{
    admin::types::{PinRequest, PinnedImage, PinsOfOwner, UnpinRequest},
    config::units::show_bytes,
};

/// Arguments of `layermesh pin`.
#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// Images, such as debian:12, or digests, such as sha256:…
    #[arg(required = true, value_name = "IMAGE|DIGEST")]
    images: Vec<String>,
    /// os/arch[/variant], or all [default: this device's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

/// Arguments of `layermesh unpin`.
#[derive(Debug, Args)]
pub(super) struct UnpinArgs {
    /// Images or digests, as they were pinned or seeded
    #[arg(required_unless_present = "owners", value_name = "IMAGE|DIGEST")]
    images: Vec<String>,
    /// All pins of an owner that `layermesh blobs` shows; may be given several times
    #[arg(long = "owner", value_name = "OWNER")]
    owners: Vec<String>,
}

pub(super) async fn pin(args: PinArgs, global: &Global) -> Result<Exit, Failure> {
    let request = PinRequest { images: args.images, platform: args.platform };
    let pinned = node::client(global)?.pin(&request).await?;
    if global.json {
        output::print_json_document(&pinned)?;
    } else {
        output::print(&pinned.iter().map(shown_pinned).collect::<String>())?;
    }
    Ok(Exit::Done)
}

pub(super) async fn unpin(args: UnpinArgs, global: &Global) -> Result<Exit, Failure> {
    let request = UnpinRequest { images: args.images, owners: args.owners };
    let unpinned = node::client(global)?.unpin(&request).await?;
    if global.json {
        output::print_json_document(&unpinned)?;
    } else {
        output::print(&unpinned.iter().map(shown_unpinned).collect::<String>())?;
    }
    Ok(Exit::Done)
}

fn shown_pinned(image: &PinnedImage) -> String {
    let PinnedImage { image: name, digest, blobs, bytes, missing, unread, .. } = image;
    let mut text = format!("pinned {name}\n  {digest}\n  ");
    let _ = writeln!(text, "{} ({})", output::counted(*blobs as u64, "blob", "blobs"), show_bytes(*bytes));
    if !unread.is_empty() {
        let _ = writeln!(
            text,
            "  {} not held, so what it names is not pinned: run `layermesh pull {name}`, then pin it again",
            if unread.len() == 1 { "a manifest is" } else { "manifests are" },
        );
    } else if !missing.is_empty() {
        let _ = writeln!(text, "  {} of them are not held: they are pinned when they come", missing.len());
    }
    text
}

fn shown_unpinned(pins: &PinsOfOwner) -> String {
    format!("unpinned {} ({})\n", pins.owner, output::counted(pins.digests.len() as u64, "blob", "blobs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_pinned_is_said() {
        let mut image = PinnedImage {
            image: "docker.io/library/a:1".to_owned(),
            digest: "sha256:aa".to_owned(),
            owner: "user/docker.io/library/a:1".to_owned(),
            blobs: 3,
            bytes: 2048,
            missing: Vec::new(),
            unread: Vec::new(),
        };
        assert_eq!(shown_pinned(&image), "pinned docker.io/library/a:1\n  sha256:aa\n  3 blobs (2.00 KiB)\n");
        image.missing = vec!["sha256:bb".to_owned()];
        assert!(shown_pinned(&image).contains("1 of them are not held"));
        image.unread = vec!["sha256:bb".to_owned()];
        assert!(shown_pinned(&image).contains("run `layermesh pull docker.io/library/a:1`"));
    }
}
