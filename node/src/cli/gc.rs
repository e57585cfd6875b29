//! `layermesh gc`: removes what nobody needs.

use std::fmt::Write as _;

use clap::Args;

use super::{Exit, Failure, Global, node, output};
use crate::{
    admin::types::{GcReport, GcRequest},
    config::units::{parse_bytes, show_bytes},
};

/// Arguments of `layermesh gc`.
#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove what is used least until blobs take no more than this, such as 5GiB; 0 removes all that is neither pinned
    /// nor in use [default: the quota]
    #[arg(long, value_name = "SIZE")]
    to: Option<String>,
}

pub(super) async fn run(args: GcArgs, global: &Global) -> Result<Exit, Failure> {
    let to = args.to.as_deref().map(parse_bytes).transpose();
    let to = to.map_err(|error| Failure::usage(anyhow::anyhow!("--to: {error}")))?;
    let report = node::client(global)?.gc(&GcRequest { to, dry_run: args.dry_run }).await?;
    if global.json {
        output::print_json_document(&report)?;
    } else {
        output::print(&shown(&report))?;
    }
    Ok(Exit::Done)
}

fn shown(report: &GcReport) -> String {
    let mut text = String::new();
    if !report.removed.is_empty() {
        let row =
            |item: &crate::admin::types::GcItem| vec![item.digest.clone(), show_bytes(item.bytes), item.kind.clone()];
        text += &output::table(&["DIGEST", "SIZE", "KIND"], &[1], report.removed.iter().map(row).collect());
    }
    let bytes = report.removed.iter().map(|item| item.bytes).sum();
    let verb = if report.dry_run { "would be removed" } else { "removed" };
    let count = output::counted(report.removed.len() as u64, "item", "items");
    let _ = writeln!(text, "{count} {verb} ({})", show_bytes(bytes));
    let _ = writeln!(
        text,
        "{} held of a quota of {}, {} of it pinned",
        show_bytes(report.store_bytes),
        show_bytes(report.quota),
        show_bytes(report.pinned_bytes)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::testing::World;

    #[tokio::test]
    async fn what_went_and_what_is_left() {
        let view = World::new().node();
        view.store.put(vec![0; 2048]);
        let dry = view.collect(GcRequest { to: Some(0), dry_run: true }).await.unwrap();
        let text = shown(&dry);
        assert!(text.contains("1 item would be removed (2.00 KiB)\n2.00 KiB held of a quota of 1.00 GiB"), "{text}");
        let done = view.collect(GcRequest { to: Some(0), dry_run: false }).await.unwrap();
        let text = shown(&done);
        assert!(text.contains("1 item removed (2.00 KiB)\n0 B held"), "{text}");
        assert!(text.starts_with("DIGEST"), "{text}");
    }
}
