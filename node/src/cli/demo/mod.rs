//! `layermesh demo`: the mesh at work, on one machine, without root, network or registry.
//!
//! An embedded registry serves an image over an uplink of a given rate; nodes run as processes of their own, with their
//! own identities, stores and ports. All pull through their mirrors at the same moment, as the container runtimes of a
//! site do when a new version is rolled out. Or, one by one, the first pulls, the registry is switched off, and the
//! others pull one after the other. Every digest is checked. Exit status 0 means that every device has the image, all
//! of it verified, and, one by one, that it crossed the uplink once.
//!
//! [`source`] reads or makes the image, [`uplink`] says what the uplink alone needs, [`device`] runs a node, [`puller`]
//! is the runtime, [`display`] shows it live and [`report`] sums up. Invariant: no node outlives the demo, however the
//! demo ends: nodes are told to stop, then killed, and end by themselves when their standard input closes.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde::Serialize;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, Global, output, signals};
use crate::{
    config::units::{parse_bytes, show_bytes},
    embedded::Registry,
    image::ImageSource,
};

mod archive;
mod device;
mod display;
mod fetch;
mod puller;
mod report;
mod source;
mod uplink;

use device::{Device, Site};
use display::Display;
use puller::{Progress, Pulled, Puller};
use report::Report;
use source::Served;
use uplink::Uplink;

/// Devices of a demo at most: each is a process with its ports and a copy of the image.
const DEVICES_MAX: usize = 64;
/// Largest image that is made: every device stores a copy in the temporary directory.
const SIZE_BYTES_MAX: u64 = 64 << 30;
/// How long nodes may take to find each other.
const MEET_TIME_MAX: Duration = Duration::from_secs(30);
/// How long nodes that have a peer may take to know all others. Past it they are asked to pull all the same.
const KNOW_ALL_TIME_MAX: Duration = Duration::from_secs(5);
/// How long the others may take to hear what the first device holds. Past it they are asked to pull all the same.
const HEAR_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a pull may take, besides a second for each [`PULL_BYTES_PER_S_MIN`] and what the uplink needs if every
/// device pulls over it.
const PULL_TIME_MAX: Duration = Duration::from_secs(120);
/// Slowest pull that is waited for, in bytes a second.
const PULL_BYTES_PER_S_MIN: u64 = 1 << 20;
/// How often conditions are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Arguments of `layermesh demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Number of devices
    #[arg(long, value_name = "N", default_value_t = 5)]
    devices: usize,
    /// Size of the image that is made [default: 64MiB]
    #[arg(long, value_name = "SIZE", conflicts_with = "image")]
    size: Option<String>,
    /// Share this image instead: oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] or docker://IMAGE
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Let all devices pull at the same moment; this is the default
    #[arg(long, conflicts_with = "one_by_one")]
    together: bool,
    /// Let the first device pull, switch the registry off, and let the others pull one after the other
    #[arg(long)]
    one_by_one: bool,
    /// Rate of the uplink that the devices share: a number with kbit, mbit or gbit, or `unlimited`
    #[arg(long, value_name = "RATE", default_value = "80mbit")]
    uplink: String,
    /// Leave the devices' data and logs in place, and say where
    #[arg(long)]
    keep: bool,
}

/// What to show, validated.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    devices: usize,
    image: Image,
    order: Order,
    uplink: Uplink,
    keep: bool,
}

/// Who pulls when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// All at the same moment.
    Together,
    /// The first, then the others one after the other with the registry switched off.
    OneByOne,
}

#[derive(Debug, PartialEq, Eq)]
enum Image {
    Made { size_bytes: u64 },
    Given(ImageSource),
}

impl Request {
    fn parse(args: &DemoArgs) -> anyhow::Result<Self> {
        if !(2..=DEVICES_MAX).contains(&args.devices) {
            bail!("--devices: a mesh has 2 to {DEVICES_MAX} devices here, not {}", args.devices);
        }
        let image = match &args.image {
            Some(image) => Image::Given(image.parse().context("--image")?),
            None => {
                let size_bytes =
                    parse_bytes(args.size.as_deref().unwrap_or("64MiB")).map_err(|error| anyhow!("--size: {error}"))?;
                if !(1 << 20..=SIZE_BYTES_MAX).contains(&size_bytes) {
                    bail!("--size: from 1MiB to {}, not {}", show_bytes(SIZE_BYTES_MAX), show_bytes(size_bytes));
                }
                Image::Made { size_bytes }
            }
        };
        let uplink = Uplink::parse(&args.uplink).map_err(|error| anyhow!("--uplink: {error}"))?;
        // `--together` says what is so anyway; scripts may want to say it.
        let order = if args.one_by_one && !args.together { Order::OneByOne } else { Order::Together };
        Ok(Self { devices: args.devices, image, order, uplink, keep: args.keep })
    }
}

pub(super) async fn run(args: DemoArgs, global: &Global) -> Result<Exit, Failure> {
    let request = Request::parse(&args).map_err(Failure::usage)?;
    let shutdown = signals::shutdown_on_signals()?;
    let mut dir = tempfile::Builder::new().prefix("layermesh-demo-").tempdir().context("no temporary directory")?;
    if request.keep {
        dir.disable_cleanup(true);
    }
    let mut devices = Vec::new();
    let display = Display::new(request.devices, global.json);
    let mut report = Report::new(request.devices, request.order, request.uplink);
    let result = tokio::select! {
        result = Box::pin(show(&request, dir.path(), &mut devices, &display, &mut report)) => result,
        () = shutdown.cancelled() => Err(anyhow!("interrupted")),
    };
    display.end();
    device::stop_all(devices).await;
    if request.keep {
        output::note(&format!("the devices' data and logs are in {}", dir.path().display()));
    }
    if global.json {
        // Also after a failure: scripts read the last line, which then says `"verified":false`.
        output::print_json(&report.json())?;
    } else if result.is_ok() {
        output::print(&report.shown())?;
    }
    result?;
    Ok(if report.holds() { Exit::Done } else { Exit::Failed })
}

async fn show(
    request: &Request,
    dir: &Path,
    devices: &mut Vec<Device>,
    display: &Display,
    report: &mut Report,
) -> anyhow::Result<()> {
    let registry = Registry::start(SocketAddr::from(([127, 0, 0, 1], 0))).await.context("no embedded registry")?;
    display.say("preparing the image");
    let served = source::prepare(&request.image, &registry, dir).await?;
    display.say(&format!("starting {} devices", request.devices));
    start_devices(request.devices, dir, &registry, devices).await?;
    let everyone = async |device: &Device| device.status().await.is_ok_and(|status| status.peers > 0);
    if !until(devices, MEET_TIME_MAX, everyone).await {
        bail!("the devices did not find each other within {} s{}", MEET_TIME_MAX.as_secs(), devices[0].last_words());
    }
    report.image.clone_from(&served.name);
    // The image was prepared at once; what the devices pull comes over the uplink.
    registry.set_rate(request.uplink.bytes_per_s);
    match request.order {
        Order::Together => together(devices, &served, request.uplink, display, report).await?,
        Order::OneByOne => one_by_one(devices, &registry, &served, request.uplink, display, report).await?,
    }
    report.origin_bytes = registry.bytes_sent();
    for device in &*devices {
        report.count(&device.status().await?);
    }
    Ok(())
}

/// All devices pull at the same moment.
async fn together(
    devices: &[Device],
    served: &Served,
    uplink: Uplink,
    display: &Display,
    report: &mut Report,
) -> anyhow::Result<()> {
    let others = devices.len() - 1;
    let all = async |device: &Device| device.status().await.is_ok_and(|status| status.peers >= others);
    let _ = until(devices, KNOW_ALL_TIME_MAX, all).await;
    let over_uplink = slowest(served, uplink, devices.len());
    // Everything that takes time is done before any of them begins.
    let pulls =
        devices.iter().map(|device| Pull::new(device, served, over_uplink)).collect::<anyhow::Result<Vec<_>>>()?;
    display.say(&format!("all {} devices pull at the same moment; uplink: {}", devices.len(), uplink.shown()));
    let started = Instant::now();
    let mut running: FuturesUnordered<_> = pulls.iter().map(|pull| pull.run(display)).collect();
    while let Some(pulled) = running.next().await {
        let (pulled, at) = pulled?;
        report.finished(pulled, at - started);
    }
    Ok(())
}

/// The first device pulls; then, with the registry switched off, the others do, one after the other.
async fn one_by_one(
    devices: &[Device],
    registry: &Registry,
    served: &Served,
    uplink: Uplink,
    display: &Display,
    report: &mut Report,
) -> anyhow::Result<()> {
    let over_uplink = slowest(served, uplink, devices.len());
    let started = Instant::now();
    display.say(&format!("device 1 pulls through its mirror, from the registry; uplink: {}", uplink.shown()));
    let (first, at) = Pull::new(&devices[0], served, over_uplink)?.run(display).await?;
    report.finished(first, at - started);

    let heard = async |device: &Device| device.peers_blobs().await.is_ok_and(|blobs| blobs >= first.objects);
    let _ = until(&devices[1..], HEAR_TIME_MAX, heard).await;
    registry.set_online(false).await.context("the embedded registry does not stop")?;
    display.say("the registry is switched off; the other devices pull");
    for device in &devices[1..] {
        let (pulled, at) = Pull::new(device, served, over_uplink)?.run(display).await?;
        report.finished(pulled, at - started);
    }
    Ok(())
}

/// Starts the devices one after the other. Each is told the addresses of those before it, so that all know each other
/// as on a LAN, where they find each other by mDNS: that is off here, since a demo must not reach beyond its machine.
async fn start_devices(count: usize, dir: &Path, registry: &Registry, devices: &mut Vec<Device>) -> anyhow::Result<()> {
    let mut site = Site::new(dir, registry.base_url())?;
    for number in 1..=count {
        let mut device = Device::spawn(&site, number)?;
        let ready = device.ready().await;
        site.peers.extend(device.peer_addresses());
        // Also one that failed is there to be stopped.
        devices.push(device);
        ready?;
    }
    Ok(())
}

/// Whether a condition holds for all devices before the time is over.
async fn until(devices: &[Device], time_max: Duration, holds: impl AsyncFn(&Device) -> bool) -> bool {
    let wait = async {
        for device in devices {
            while !holds(device).await {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    };
    timeout(time_max, wait).await.is_ok()
}

/// How long the uplink needs if nothing is shared and all devices pull over it.
fn slowest(served: &Served, uplink: Uplink, devices: usize) -> Duration {
    uplink.time_for(served.size_bytes.saturating_mul(devices as u64)).unwrap_or_default()
}

/// A pull through a device's mirror, ready to begin.
#[derive(Debug)]
struct Pull<'a> {
    device: &'a Device,
    served: &'a Served,
    patience: Duration,
    progress: Arc<Progress>,
    puller: Puller,
}

impl<'a> Pull<'a> {
    /// Makes a pull that may take so much longer as the uplink needs.
    fn new(device: &'a Device, served: &'a Served, over_uplink: Duration) -> anyhow::Result<Self> {
        let progress = Arc::new(Progress::default());
        let puller = Puller::new(device.mirror_url(), Some(source::REGISTRY), progress.clone(), over_uplink)?;
        let besides = Duration::from_secs(served.size_bytes / PULL_BYTES_PER_S_MIN);
        let patience = PULL_TIME_MAX.saturating_add(besides).saturating_add(over_uplink);
        Ok(Self { device, served, patience, progress, puller })
    }

    /// Pulls, shown live. Returns what was pulled, and when it was there.
    async fn run(&self, display: &Display) -> anyhow::Result<(Pulled, Instant)> {
        let (device, served) = (self.device, self.served);
        let finished = CancellationToken::new();
        let work = async {
            let pulled = timeout(self.patience, self.puller.pull(&served.repository, &served.tag, served.root)).await;
            finished.cancel();
            (pulled, Instant::now())
        };
        let ((pulled, at), ()) = tokio::join!(work, display.follow(device, &self.progress, &finished));
        let what = || format!("device {} could not pull", device.number());
        let with_log = |error: anyhow::Error| anyhow!("{error:#}{}", device.last_words());
        match pulled {
            Ok(result) => Ok((result.with_context(what).map_err(with_log)?, at)),
            Err(_) => Err(with_log(anyhow!("{} within {} s", what(), self.patience.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests;
