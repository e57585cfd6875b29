//! `layermesh verify`: is what is held still what it was?

use std::{fmt::Write as _, time::Duration};

use clap::Args;
use indicatif::ProgressBar;

use super::{Exit, Failure, Global, node, output, progress::Progress};
use crate::{
    admin::types::{VerifyEvent, VerifyRequest, VerifySummary},
    config::units::{parse_bytes, show_bytes, show_duration},
};

/// Arguments of `layermesh verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Read no more than this a second, such as 8MiB [default: 32MiB]
    #[arg(long, value_name = "SIZE")]
    rate: Option<String>,
}

pub(super) async fn run(args: VerifyArgs, global: &Global) -> Result<Exit, Failure> {
    let rate = args.rate.as_deref().map(|text| match parse_bytes(text) {
        Ok(0) => Err("no byte a second takes for ever".to_owned()),
        other => other,
    });
    let bytes_per_s = rate.transpose().map_err(|error| Failure::usage(anyhow::anyhow!("--rate: {error}")))?;
    let mut events = node::client(global)?.verify(&VerifyRequest { bytes_per_s }).await?;
    let progress = Progress::new(global.json);
    let bar = progress.bytes("verified", 0, "from this device's store");
    while let Some(event) = events.next().await? {
        if global.json {
            output::print_json(&event)?;
        } else if let Some(line) = told(&event, &bar) {
            progress.aside(|| output::print(&line))?;
        }
        if let VerifyEvent::Done(summary) = event {
            drop(progress);
            if !global.json {
                output::print(&shown(&summary))?;
            }
            let sound = summary.damaged == summary.repaired && summary.unread == 0;
            return Ok(if sound { Exit::Done } else { Exit::Failed });
        }
    }
    Err(anyhow::anyhow!("the node ended the verification without a word").into())
}

/// A line about an event, for those that have one.
fn told(event: &VerifyEvent, bar: &ProgressBar) -> Option<String> {
    match event {
        VerifyEvent::Started { bytes, .. } => {
            bar.set_length(*bytes);
            None
        }
        VerifyEvent::Progress { bytes, .. } => {
            bar.set_position(*bytes);
            None
        }
        VerifyEvent::Damaged { digest } => Some(format!("{digest} is damaged and has been withdrawn\n")),
        VerifyEvent::Repaired { digest } => Some(format!("{digest} is whole again\n")),
        VerifyEvent::Failed { digest, message } => Some(format!("{digest}: {message}\n")),
        VerifyEvent::Done(_) => None,
    }
}

fn shown(summary: &VerifySummary) -> String {
    let elapsed = show_duration(Duration::try_from_secs_f64(summary.elapsed_s).unwrap_or_default());
    let blobs = output::counted(summary.verified as u64, "blob", "blobs");
    let mut text = format!("verified {blobs} ({}) in {elapsed}: ", show_bytes(summary.bytes));
    let _ = match (summary.damaged, summary.unread) {
        (0, 0) => writeln!(text, "all are as they were"),
        (damaged, 0) => writeln!(text, "{damaged} damaged, {} of them repaired", summary.repaired),
        (damaged, unread) => {
            writeln!(text, "{damaged} damaged, {} of them repaired, {unread} could not be read", summary.repaired)
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_says_what_is_left() {
        let mut summary = VerifySummary { verified: 2, bytes: 2048, elapsed_s: 1.5, ..VerifySummary::default() };
        assert_eq!(shown(&summary), "verified 2 blobs (2.00 KiB) in 1.50 s: all are as they were\n");
        summary.damaged = 2;
        summary.repaired = 1;
        assert!(shown(&summary).ends_with("2 damaged, 1 of them repaired\n"));
        summary.unread = 1;
        assert!(shown(&summary).ends_with("1 could not be read\n"));
    }
}
