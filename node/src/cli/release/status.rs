//! `layermesh release status`: how far are the devices of this site?

use std::{collections::BTreeMap, time::Duration};

use clap::Args;

use super::{Exit, Failure, Global, node, output};
use crate::{
    config::units::{show_bytes, show_duration, show_rate},
    release::status::{DeviceRollout, ReleaseProgress, ReleasesStatus, SiteReleases},
};

/// Between two looks of `--watch`: as often as devices say how far they are.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// Characters of a peer id that tell it from others.
const SHORT_LEN: usize = 12;

/// Arguments of `layermesh release status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Show it again and again, until interrupted
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(args: StatusArgs, global: &Global) -> Result<Exit, Failure> {
    let client = node::client(global)?;
    loop {
        let site = client.releases().await?;
        if global.json {
            if args.watch { output::print_json(&site)? } else { output::print_json_document(&site)? }
        } else {
            let text = shown(&site);
            // From the top of the screen, cleared.
            let clear = if args.watch && output::is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            output::print(&format!("{clear}{text}"))?;
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}

fn shown(site: &SiteReleases) -> String {
    let mut text = metadata(&site.node);
    let mut releases: BTreeMap<(&str, &str), Vec<(&DeviceRollout, &ReleaseProgress)>> = BTreeMap::new();
    for device in &site.devices {
        for release in &device.releases {
            releases.entry((&release.channel, &release.version)).or_default().push((device, release));
        }
    }
    for ((channel, version), devices) in &releases {
        text.push_str(&format!("\n{channel}/{version}: {}\n", sums(devices)));
        let rows = devices.iter().map(|(device, release)| row(device, release)).collect();
        let header = ["DEVICE", "PLATFORM", "HELD", "OF", "RATE", "LEFT", "WAITS FOR"];
        text.push_str(&output::table(&header, &[2, 3, 4, 5], rows));
    }
    let idle: Vec<&DeviceRollout> = site.devices.iter().filter(|device| device.releases.is_empty()).collect();
    if !idle.is_empty() {
        let names: Vec<String> = idle.iter().map(|device| format!("{}{}", short(device), refusal(device))).collect();
        text.push_str(&format!("\nno release yet: {}\n", names.join(", ")));
    }
    text
}

/// What this node believes.
fn metadata(node: &ReleasesStatus) -> String {
    let mut text = match (&node.repository, &node.expires) {
        (Some(repository), Some(expires)) => {
            let state = if node.expired { "EXPIRED" } else { "good until" };
            format!("repository {repository}, version {}, {state} {expires}\n", node.version)
        }
        _ if node.channels.is_empty() => {
            "this node follows no releases: set `root` and `channels` under `[releases]`\n".to_owned()
        }
        _ => "no releases yet: none were offered by a peer, or handed over by `layermesh release`\n".to_owned(),
    };
    if !node.channels.is_empty() {
        text.push_str(&format!("channels followed here: {}\n", node.channels.join(", ")));
    }
    if node.repository.is_some() && !node.clock {
        text.push_str("this device has no clock that can be right, so expiry is not checked\n");
    }
    if let Some(refused) = &node.refused {
        text.push_str(&format!("refused what {} offered: {}\n", refused.from, refused.reason));
    }
    text
}

/// How many devices have all of it, and what the uplink carried.
fn sums(devices: &[(&DeviceRollout, &ReleaseProgress)]) -> String {
    let complete = devices.iter().filter(|(_, release)| release.complete).count();
    let over: u64 = devices.iter().map(|(_, release)| release.from_origin).sum();
    // What the device with the most is to hold: at least that crosses the uplink once.
    let copy = devices.iter().map(|(_, release)| release.total).max().unwrap_or_default();
    let share =
        if copy > 0 { format!(", {:.2} of the largest copy", over as f64 / copy as f64) } else { String::new() };
    format!("{complete} of {} complete; {} over the uplink{share}", devices.len(), show_bytes(over))
}

fn row(device: &DeviceRollout, release: &ReleaseProgress) -> Vec<String> {
    let percent = match release.held.saturating_mul(100).checked_div(release.total) {
        _ if release.complete => "100 %".to_owned(),
        Some(percent) => format!("{} %", percent.min(99)),
        None => "-".to_owned(),
    };
    let left = release.total.saturating_sub(release.held);
    let left = match (release.complete, left.checked_div(release.bytes_per_s)) {
        (false, Some(seconds)) => show_duration(Duration::from_secs(seconds)),
        _ => "-".to_owned(),
    };
    let rate = if release.bytes_per_s == 0 { "-".to_owned() } else { show_rate(release.bytes_per_s) };
    let waits = if release.waits_for.is_empty() { "-" } else { &release.waits_for };
    let waits = format!("{waits}{}", refusal(device));
    vec![short(device), device.platform.clone(), percent, show_bytes(release.total), rate, left, waits]
}

fn refusal(device: &DeviceRollout) -> String {
    if device.refused.is_empty() { String::new() } else { format!(" (refused newer metadata: {})", device.refused) }
}

/// The end of a peer id, which tells it from others.
fn short(device: &DeviceRollout) -> String {
    let from = device.peer_id.len().saturating_sub(SHORT_LEN);
    format!("…{}", &device.peer_id[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(held: u64, complete: bool) -> ReleaseProgress {
        ReleaseProgress {
            channel: "stable".to_owned(),
            version: "1.0".to_owned(),
            complete,
            total: 1000,
            held,
            bytes_per_s: if complete { 0 } else { 100 },
            from_origin: 600,
            waits_for: if complete { String::new() } else { "a window, in 3 h".to_owned() },
        }
    }

    #[test]
    fn a_row_a_device_and_a_sum_a_release() {
        let device = |id: &str, releases| DeviceRollout {
            peer_id: format!("12D3KooW{id}"),
            platform: "linux/arm64".to_owned(),
            refused: String::new(),
            releases,
        };
        let devices = vec![
            device("aaaaaaaaaaaa", vec![progress(1000, true)]),
            device("bbbbbbbbbbbb", vec![progress(400, false)]),
            DeviceRollout { refused: "rollback".to_owned(), ..device("cccccccccccc", Vec::new()) },
        ];
        let text = shown(&SiteReleases { node: ReleasesStatus::default(), devices });
        assert!(
            text.contains("stable/1.0: 1 of 2 complete; 1.17 KiB over the uplink, 1.20 of the largest copy"),
            "{text}"
        );
        assert!(text.contains("100 %") && text.contains("40 %") && text.contains("a window, in 3 h"), "{text}");
        assert!(text.contains("no release yet: …cccccccccccc (refused newer metadata: rollback)"), "{text}");
    }
}
