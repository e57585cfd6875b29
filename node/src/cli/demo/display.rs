//! The demo as it goes: a row a device.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{device::Device, puller::Progress};
use crate::{
    admin::types::NodeStatus,
    cli::{output, progress, words},
    config::units::show_bytes,
};

/// How often a row is drawn, and a node asked where its bytes came from.
const INTERVAL: Duration = Duration::from_millis(200);

/// Rows on a terminal; lines elsewhere; nothing beside JSON.
#[derive(Debug)]
pub(super) enum Display {
    Rows { headline: ProgressBar, devices: Vec<ProgressBar> },
    Lines,
    Nothing,
}

impl Display {
    pub(super) fn new(devices: usize, json: bool) -> Self {
        if json {
            return Self::Nothing;
        }
        if !progress::Progress::new(json).is_shown() {
            return Self::Lines;
        }
        let all = MultiProgress::new();
        let headline = all.add(ProgressBar::new_spinner());
        headline.set_style(style("{spinner} {msg}"));
        headline.enable_steady_tick(INTERVAL);
        let row = |number: usize| {
            let bar = all.add(ProgressBar::new(1));
            bar.set_style(style("{prefix:>10} [{bar:28}] {percent:>3}%  {msg}"));
            bar.set_prefix(format!("device {number}"));
            bar.set_message("waits");
            bar
        };
        let devices = (1..=devices).map(row).collect();
        Self::Rows { headline, devices }
    }

    /// Says what happens now.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Rows { headline, .. } => headline.set_message(text.to_owned()),
            Self::Lines => output::note(text),
            Self::Nothing => {}
        }
    }

    /// Follows a device's pull until it is over.
    pub(super) async fn follow(&self, device: &Device, progress: &Progress, finished: &CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bar = match self {
            Self::Rows { devices, .. } => devices.get(device.number() - 1),
            Self::Lines | Self::Nothing => None,
        };
        if let Some(bar) = bar {
            bar.reset_elapsed();
        }
        loop {
            let over = tokio::select! {
                () = finished.cancelled() => true,
                _ = ticks.tick() => false,
            };
            if let Some(bar) = bar {
                bar.set_length(progress.total().max(1));
                bar.set_position(progress.bytes());
                let counts = (progress.bytes(), progress.total());
                bar.set_message(row(&device.status().await.ok(), counts, bar.elapsed()));
            }
            if over {
                break;
            }
        }
        match bar {
            Some(bar) => bar.abandon(),
            None if matches!(self, Self::Lines) => {
                let text = sources(&device.status().await.ok());
                output::note(&format!("device {}: {}, {text}", device.number(), show_bytes(progress.bytes())));
            }
            None => {}
        }
    }

    /// Leaves the rows as they are, and the lines below free.
    pub(super) fn end(&self) {
        if let Self::Rows { headline, .. } = self {
            headline.finish_and_clear();
        }
    }
}

fn row(status: &Option<NodeStatus>, (bytes, total): (u64, u64), elapsed: Duration) -> String {
    let rate = (bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let left = match words::left(total.saturating_sub(bytes), rate) {
        Some(left) if bytes < total => format!("  {} left", words::show_left(Some(left))),
        _ => String::new(),
    };
    format!("{:>12}{left}  {}", words::rate(rate), sources(status))
}

fn sources(status: &Option<NodeStatus>) -> String {
    match status {
        Some(status) => {
            format!(
                "{} from the registry, {} from peers",
                show_bytes(status.bytes_from_origin),
                show_bytes(status.bytes_from_peers)
            )
        }
        None => "its node does not answer".to_owned(),
    }
}

/// The templates are constants, so the fallback is never seen.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
