//! `layermesh check`: is everything that an image needs here?

use clap::Args;

use super::{Exit, Failure, Global, node, output, progress::Progress};
use crate::{
    admin::types::{CheckReport, CheckRequest, CheckedPart, Completeness, Share},
    check::Check,
    config::units::show_bytes,
};

/// Peers of a part that are named in its row.
const NAMED_PEERS_MAX: usize = 2;
/// Characters of a digest and of a peer id that tell it from others.
const SHORT_LEN: usize = 12;

/// Arguments of `layermesh check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The image, such as debian:12 or ghcr.io/owner/name:tag
    image: String,
    /// os/arch[/variant], several with commas, or all [default: this device's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

pub(super) async fn run(args: CheckArgs, global: &Global) -> Result<Exit, Failure> {
    let image = args.image.strip_prefix("docker://").unwrap_or(&args.image).to_owned();
    let request = CheckRequest { image, platform: args.platform };
    Check::parse(&request).map_err(Failure::usage)?;
    let client = node::client(global)?;
    let progress = Progress::new(global.json);
    let row = progress.step(&format!("asking the site for {}", request.image));
    let report = client.check(&request).await;
    drop((row, progress));
    let report = report?;
    if global.json {
        output::print_json_document(&report)?;
    } else {
        output::print(&shown(&report))?;
    }
    Ok(match report.complete {
        Completeness::Device => Exit::Done,
        Completeness::Site => Exit::OnSite,
        Completeness::No => Exit::Incomplete,
    })
}

fn shown(report: &CheckReport) -> String {
    let CheckReport { image, platform, .. } = report;
    let (Some(digest), Some(said_by)) = (&report.digest, &report.said_by) else {
        return format!(
            "unknown: no device of this site knows what {image} stands for\n\
             Name it by its digest, or bring it here with `layermesh pull` or `layermesh seed`.\n"
        );
    };
    let verdict = match report.complete {
        Completeness::Device => "complete on this device",
        Completeness::Site => "complete on this site, not on this device",
        Completeness::No => "incomplete",
    };
    let rows = report.parts.iter().map(row).collect();
    let table = output::table(&["PART", "DIGEST", "SIZE", "PLATFORM", "HERE", "PEERS"], &[2], rows);
    let mut text = format!("{verdict}: {image} for {platform}\n  {digest}, says {said_by}\n\n{table}\n");
    text.push_str(&share("this device", report.device, report.total));
    text.push_str(&share("this site", report.site, report.total));
    for peer in &report.peers {
        text.push_str(&share(&format!("peer …{}", tail(&peer.peer_id)), peer.held, report.total));
    }
    for unread in &report.unread {
        text.push_str(&format!("what {unread} names is unknown: no device of this site holds it\n"));
    }
    text
}

fn row(part: &CheckedPart) -> Vec<String> {
    let hex = part.digest.split_once(':').map_or(part.digest.as_str(), |(_, hex)| hex);
    let named = part.peers.iter().take(NAMED_PEERS_MAX).map(|peer| format!("…{}", tail(peer)));
    let mut peers = named.collect::<Vec<_>>().join(", ");
    match part.peers.len() {
        0 if part.here => peers.push('-'),
        0 => peers.push_str("none: missing"),
        count if count > NAMED_PEERS_MAX => peers.push_str(&format!(" and {} more", count - NAMED_PEERS_MAX)),
        _ => {}
    }
    let platforms = if part.platforms.is_empty() { "-".to_owned() } else { part.platforms.join(", ") };
    let size = part.size.map_or_else(|| "-".to_owned(), show_bytes);
    let here = if part.here { "yes" } else { "no" };
    vec![part.role.clone(), hex.chars().take(SHORT_LEN).collect(), size, platforms, here.to_owned(), peers]
}

fn share(who: &str, held: Share, total: Share) -> String {
    let missing = total.blobs.saturating_sub(held.blobs);
    let of = format!("{who} holds {} of {}", held.blobs, output::counted(total.blobs as u64, "blob", "blobs"));
    match missing {
        0 => format!("{of}, {}\n", show_bytes(held.bytes)),
        _ => format!("{of}, {} of {}\n", show_bytes(held.bytes), show_bytes(total.bytes)),
    }
}

/// The end of a peer id: all begin alike.
fn tail(peer: &str) -> &str {
    let at = peer.char_indices().rev().nth(SHORT_LEN - 1).map_or(0, |(at, _)| at);
    &peer[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::testing::World, check};

    #[tokio::test]
    async fn what_is_missing_and_who_holds_what_is_shown() {
        let mut world = World::new();
        world.image("docker.io/library/app:1");
        let node = world.node();
        let request = CheckRequest { image: "app:1".to_owned(), platform: Some("linux/arm64".to_owned()) };
        let mut report = check::run(&node.mesh, &node.store, Check::parse(&request).unwrap()).await.unwrap();
        let text = shown(&report);
        assert!(text.starts_with("complete on this site, not on this device: docker.io/library/app:1"), "{text}");
        assert!(text.contains("this device holds 2 of 5 blobs") && text.contains("this site holds 5 of 5"), "{text}");
        assert!(text.contains("peer …") && !text.contains("missing"), "{text}");
        report.parts[3].peers.clear();
        assert!(shown(&report).contains("none: missing"));
        report.digest = None;
        assert!(shown(&report).contains("no device of this site knows"));
    }
}
