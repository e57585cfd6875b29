//! `layermesh demo`: the mesh at work, on one machine, without root, network or registry.
//!
//! An embedded registry serves an image; nodes run as processes of their own, with their own identities, stores and
//! ports. The first pulls through its mirror as a container runtime would, the registry is switched off, the others
//! pull through theirs, and every digest is checked. Exit status 0 means that all of it is true: everything was
//! verified, and the image crossed the uplink once.
//!
//! [`source`] reads or makes the image, [`device`] runs a node, [`puller`] is the runtime, [`display`] shows it live
//! and [`report`] sums up. Invariant: no node outlives the demo, however the demo ends: nodes are told to stop, then
//! killed, and end by themselves when their standard input closes.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
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

use device::{Device, Site};
use display::Display;
use puller::{Progress, Puller};
use report::Report;
use source::Served;

/// Devices of a demo at most: each is a process with its ports and a copy of the image.
const DEVICES_MAX: usize = 64;
/// Largest image that is made: every device stores a copy in the temporary directory.
const SIZE_BYTES_MAX: u64 = 64 << 30;
/// Devices whose addresses all others are told; from these they learn the rest.
const SEEDS: usize = 3;
/// How long nodes may take to find each other.
const MEET_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the others may take to hear what the first device holds. Past it they are asked to pull all the same.
const HEAR_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a pull may take, besides a second for each [`PULL_BYTES_PER_S_MIN`].
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
    /// Let the devices pull one after the other; this is the default
    #[arg(long)]
    one_by_one: bool,
    /// Leave the devices' data and logs in place, and say where
    #[arg(long)]
    keep: bool,
}

/// What to show, validated.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    devices: usize,
    image: Image,
    keep: bool,
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
        Ok(Self { devices: args.devices, image, keep: args.keep })
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
    let mut report = Report::new(request.devices);
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

    let started = Instant::now();
    report.image.clone_from(&served.name);
    display.say("device 1 pulls through its mirror, from the registry");
    let first = pull(&devices[0], &served, display).await?;
    report.first(first, started.elapsed());

    let heard = async |device: &Device| device.peers_blobs().await.is_ok_and(|blobs| blobs >= first.objects);
    let _ = until(&devices[1..], HEAR_TIME_MAX, heard).await;
    registry.set_online(false).await.context("the embedded registry does not stop")?;
    display.say("the registry is switched off; the other devices pull");
    for device in &devices[1..] {
        report.another(pull(device, &served, display).await?, started.elapsed());
    }

    report.origin_bytes = registry.bytes_sent();
    for device in &*devices {
        report.count(&device.status().await?);
    }
    Ok(())
}

/// Starts the devices, the seeds first, so that the others can be told their addresses.
async fn start_devices(count: usize, dir: &Path, registry: &Registry, devices: &mut Vec<Device>) -> anyhow::Result<()> {
    let mut site = Site::new(dir, registry.base_url())?;
    for number in 1..=count.min(SEEDS) {
        let mut device = Device::spawn(&site, number)?;
        let ready = device.ready().await;
        let addresses = device.peer_addresses();
        devices.push(device);
        ready?;
        site.seeds.extend(addresses);
    }
    let rest = devices.len();
    for number in rest + 1..=count {
        devices.push(Device::spawn(&site, number)?);
    }
    for device in &mut devices[rest..] {
        device.ready().await?;
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

/// Pulls through a device's mirror, shown live.
async fn pull(device: &Device, served: &Served, display: &Display) -> anyhow::Result<puller::Pulled> {
    let progress = Arc::new(Progress::default());
    let finished = CancellationToken::new();
    let puller = Puller::new(device.mirror_url(), Some(source::REGISTRY), progress.clone())?;
    let time_max = PULL_TIME_MAX + Duration::from_secs(served.size_bytes / PULL_BYTES_PER_S_MIN);
    let work = async {
        let pulled = timeout(time_max, puller.pull(&served.repository, &served.tag, served.root)).await;
        finished.cancel();
        pulled
    };
    let (pulled, ()) = tokio::join!(work, display.follow(device, &progress, &finished));
    let what = || format!("device {} could not pull", device.number());
    let with_log = |error: anyhow::Error| anyhow!("{error:#}{}", device.last_words());
    match pulled {
        Ok(result) => result.with_context(what).map_err(with_log),
        Err(_) => Err(with_log(anyhow!("{} within {} s", what(), time_max.as_secs()))),
    }
}

#[cfg(test)]
mod tests;
