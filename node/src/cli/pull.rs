//! `layermesh pull`: an image into the node's store.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use clap::Args;
use indicatif::ProgressBar;

use super::{
    Exit, Failure, Global, node, output,
    progress::{Progress, short_digest},
    words,
};
use crate::{
    admin::{
        client::PullEvents,
        types::{PullEvent, PullRequest, PullSummary},
    },
    config::units::{show_bytes, show_duration},
    pull::Pull,
};

/// Bars shown at once; a terminal has few rows.
const BARS_MAX: usize = 24;

/// Arguments of `layermesh pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image, such as debian:12 or ghcr.io/owner/name:tag
    image: String,
    /// os/arch[/variant], several with commas, or all [default: this device's]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Nobody waits for it: take it from peers, and from the registry only in a window of `[uplink] windows`, not over a
    /// metered uplink without one, and not while a container runtime pulls
    #[arg(long)]
    background: bool,
}

pub(super) async fn run(args: PullArgs, global: &Global) -> Result<Exit, Failure> {
    let image = args.image.strip_prefix("docker://").unwrap_or(&args.image).to_owned();
    let request = PullRequest { image, platform: args.platform, background: args.background };
    Pull::parse(&request).map_err(Failure::usage)?;
    let events = node::client(global)?.pull(&request).await?;
    if global.json {
        follow(events, Display::Json).await?;
    } else {
        let summary = follow(events, Display::for_people()).await?;
        output::print(&shown(&summary))?;
    }
    Ok(Exit::Done)
}

/// Follows a pull that is part of something else, shown to people who watch or not at all.
pub(super) async fn in_passing(events: PullEvents, people: bool) -> Result<PullSummary, Failure> {
    follow(events, Display::Bars(Bars::new(Progress::new(!people)))).await
}

async fn follow(mut events: PullEvents, mut display: Display) -> Result<PullSummary, Failure> {
    while let Some(event) = events.next().await? {
        if matches!(display, Display::Json) {
            output::print_json(&event)?;
        }
        match event {
            PullEvent::Done(summary) => return Ok(summary),
            PullEvent::Error { message } => return Err(anyhow::Error::msg(message).into()),
            event => display.show(event)?,
        }
    }
    Err(anyhow::anyhow!("the node ended the pull without a word").into())
}

fn shown(summary: &PullSummary) -> String {
    let elapsed = show_duration(Duration::try_from_secs_f64(summary.elapsed_s).unwrap_or_default());
    format!(
        "pulled {} in {elapsed}\n  {}\n  {} in {}: {} from the origin, {} from peers, {} were here\n",
        summary.image,
        summary.digest,
        show_bytes(summary.bytes),
        output::counted(summary.blobs as u64, "blob", "blobs"),
        show_bytes(summary.bytes_from_origin),
        show_bytes(summary.bytes_from_peers),
        show_bytes(summary.bytes_held),
    )
}

/// How a pull is shown while it runs.
enum Display {
    /// A bar a blob and one for all.
    Bars(Bars),
    /// A line a blob, for logs; `waits` once it was said that a blob waits.
    Lines { waits: bool },
    /// The events themselves.
    Json,
}

impl Display {
    fn for_people() -> Self {
        let progress = Progress::new(false);
        if progress.is_shown() { Self::Bars(Bars::new(progress)) } else { Self::Lines { waits: false } }
    }

    fn show(&mut self, event: PullEvent) -> anyhow::Result<()> {
        match (self, event) {
            (Self::Bars(bars), event) => bars.show(event)?,
            (Self::Lines { .. }, PullEvent::Resolved { image, digest, said_by }) => {
                output::print(&format!("{image} is {digest}, says {said_by}\n"))?;
            }
            (Self::Lines { .. }, PullEvent::Landed { digest }) => output::print(&format!("{digest} is here\n"))?,
            (Self::Lines { waits }, PullEvent::Progress { blobs }) => {
                let waiting = blobs.iter().find_map(|blob| Some((&blob.digest, blob.waits_for.as_ref()?)));
                let said = std::mem::replace(waits, waiting.is_some());
                if let Some((digest, what)) = waiting.filter(|_| !said) {
                    output::print(&format!("{digest} waits for {what}\n"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

struct Bars {
    progress: Progress,
    total: ProgressBar,
    blobs: BTreeMap<String, Row>,
}

struct Row {
    size: u64,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Bars {
    fn new(progress: Progress) -> Self {
        let total = progress.bytes("total", 0, "");
        Self { progress, total, blobs: BTreeMap::new() }
    }

    fn show(&mut self, event: PullEvent) -> anyhow::Result<()> {
        match event {
            PullEvent::Resolved { image, digest, said_by } if self.progress.is_shown() => {
                self.progress.aside(|| output::print(&format!("{image} is {digest}, says {said_by}\n")))?;
            }
            PullEvent::Resolved { .. } => {}
            PullEvent::Blob { digest, size, held } => self.add(digest, size, held),
            PullEvent::Progress { blobs } => {
                for blob in blobs {
                    let waits = blob.waits_for.map(|what| format!("waits for {}", words::plain(&what)));
                    self.advance(&blob.digest, blob.bytes, from(&blob.sources).or(waits));
                }
            }
            PullEvent::Landed { digest } => {
                if let Some(size) = self.blobs.get(&digest).map(|row| row.size) {
                    self.advance(&digest, size, None);
                }
            }
            PullEvent::Done(_) | PullEvent::Error { .. } => {}
        }
        Ok(())
    }

    fn add(&mut self, digest: String, size: u64, held: bool) {
        if held {
            return;
        }
        let shown = self.blobs.values().filter(|row| row.bar.is_some()).count();
        let row = || self.progress.bytes_above(&self.total, &short_digest(&digest), size);
        let bar = (shown < BARS_MAX).then(row);
        self.total.inc_length(size);
        self.blobs.insert(digest, Row { size, bytes: 0, bar });
    }

    fn advance(&mut self, digest: &str, bytes: u64, doing: Option<String>) {
        let Some(row) = self.blobs.get_mut(digest) else {
            // Manifests have no bar; that one waits is all there is to say of it.
            return self.total.set_message(doing.unwrap_or_default());
        };
        self.total.set_message("");
        row.bytes = bytes;
        if let Some(bar) = &row.bar {
            bar.set_position(bytes);
            bar.set_message(doing.unwrap_or_default());
            if bytes == row.size {
                bar.finish();
            }
        }
        self.total.set_position(self.blobs.values().map(|row| row.bytes).sum());
    }
}

/// Where bytes come from, for the end of a progress bar.
fn from(sources: &[String]) -> Option<String> {
    let (first, others) = sources.split_first()?;
    // Peers have no names here; what tells them from others is short.
    let named = words::sources(std::slice::from_ref(first), &HashMap::new());
    Some(match others.len() {
        0 => format!("from {named}"),
        more => format!("from {named} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_follow_the_events() {
        let mut bars = Bars::new(Progress::hidden());
        let blob = |digest: &str, size, held| PullEvent::Blob { digest: digest.to_owned(), size, held };
        bars.show(blob("sha256:aa", 100, false)).unwrap();
        bars.show(blob("sha256:bb", 50, false)).unwrap();
        bars.show(blob("sha256:cc", 7, true)).unwrap();
        assert_eq!(bars.total.length(), Some(150), "what is here is not waited for");
        let progress = crate::admin::types::TransferStatus {
            digest: "sha256:aa".to_owned(),
            size: Some(100),
            bytes: 40,
            sources: vec!["peer 12D3KooWabcdef".to_owned(), "origin ghcr.io".to_owned()],
            quiet_s: 0,
            waits_for: None,
        };
        bars.show(PullEvent::Progress { blobs: vec![progress] }).unwrap();
        assert_eq!(bars.total.position(), 40);
        let row = bars.blobs["sha256:aa"].bar.clone().unwrap();
        assert_eq!((row.prefix().as_str(), row.message().as_str()), ("aa", "from …abcdef and 1 more"));
        bars.show(PullEvent::Landed { digest: "sha256:aa".to_owned() }).unwrap();
        bars.show(PullEvent::Landed { digest: "sha256:unknown".to_owned() }).unwrap();
        assert_eq!(bars.total.position(), 100);
        for (index, digest) in
            ('d'..='z').map(|letter| format!("sha256:{letter}")).chain((0..9).map(|n| n.to_string())).enumerate()
        {
            bars.show(blob(&digest, index as u64, false)).unwrap();
        }
        assert_eq!(bars.blobs.values().filter(|row| row.bar.is_some()).count(), BARS_MAX);
    }
}
