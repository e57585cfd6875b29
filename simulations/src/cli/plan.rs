//! `plan`: an operator's question as flags.
//!
//! Invariant: the flags are written as a scenario and read as one, so that mistakes are named in the same way and what was
//! asked can be kept (`--print`) and refined.

use std::fmt::Write as _;

use clap::Args;

use super::{
    Output,
    image::{self, Image},
    perform, print,
};
use crate::scenario::Scenario;

/// The question.
#[derive(Debug, Clone, Args)]
pub(super) struct PlanArgs {
    /// Sites
    #[arg(long, value_name = "N", default_value_t = 1)]
    sites: u32,
    /// Devices of each site
    #[arg(long, value_name = "N", default_value_t = 25)]
    devices: u32,
    /// What is rolled out: a size, such as 300MB, sizes of layers, such as 180MB,60MB,3MB, an image of an OCI layout, oci:DIR or
    /// oci:DIR:NAME, or a file with an image's manifest
    #[arg(long, value_name = "SIZE|oci:DIR|FILE")]
    image: String,
    /// Platform of the devices: which of an image's it is
    #[arg(long, value_name = "OS/ARCH", default_value = "linux/amd64")]
    platform: String,
    /// Rate of each site's uplink, such as 2mbit
    #[arg(long, value_name = "RATE", default_value = "10mbit")]
    uplink: String,
    /// One way to the registry
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    latency: String,
    /// Each device has such an uplink of its own (a modem)
    #[arg(long)]
    uplink_per_device: bool,
    /// Rate of each device's link to the others
    #[arg(long, value_name = "RATE", default_value = "1gbit")]
    lan: String,
    /// The devices of a site share one radio of that rate
    #[arg(long)]
    wifi: bool,
    /// When the uplink may be used, every day; may be repeated. The release waits in the background
    #[arg(long, value_name = "HH:MM-HH:MM")]
    window: Vec<String>,
    /// Wall clock at the start
    #[arg(long, value_name = "DAY HH:MM", default_value = "Mon 00:00")]
    start: String,
    /// Within which time the devices are told, at random
    #[arg(long, value_name = "TIME", default_value = "0s")]
    spread: String,
    /// Share of the devices that restart while the release is under way, such as 10%
    #[arg(long, value_name = "SHARE")]
    reboots: Option<String>,
    /// How long the uplinks are cut, at random times in the first hours; may be repeated
    #[arg(long, value_name = "TIME")]
    cut: Vec<String>,
    /// By when all have to be done
    #[arg(long, value_name = "TIME", default_value = "7d")]
    limit: String,
    /// Print the scenario instead of running it
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &PlanArgs) -> anyhow::Result<bool> {
    let text = toml(args)?;
    let scenario = Scenario::parse("plan", &text)
        .map_err(|errors| anyhow::anyhow!("{errors}\nThis is what was asked for:\n{}", numbered(&text)))?;
    if args.print {
        print(&text);
        return Ok(true);
    }
    perform(&scenario, &args.output)
}

/// The scenario of the flags.
fn toml(args: &PlanArgs) -> anyhow::Result<String> {
    let quoted = |text: &str| format!("{text:?}");
    let list = |texts: &[String]| format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "));
    let mut text = String::new();
    writeln!(text, "about = {}", quoted(&about(args)))?;
    writeln!(text, "limit = {}\nstart = {}\n", quoted(&args.limit), quoted(&args.start))?;
    writeln!(text, "[[site]]\nname = \"site\"\ncount = {}", args.sites)?;
    let (uplink, latency) = (quoted(&args.uplink), quoted(&args.latency));
    writeln!(
        text,
        "uplink = {{ rate = {uplink}, latency = {latency}, per_device = {}{} }}",
        args.uplink_per_device,
        { if args.window.is_empty() { String::new() } else { format!(", windows = {}", list(&args.window)) } }
    )?;
    writeln!(text, "lan = {{ rate = {}, shared_radio = {} }}", quoted(&args.lan), args.wifi)?;
    writeln!(
        text,
        "[[site.devices]]\nname = \"device\"\ncount = {}\nplatform = {}\n",
        args.devices,
        quoted(&args.platform)
    )?;
    writeln!(text, "[[image]]\nname = \"release:1\"")?;
    match image::read(&args.image, &args.platform)? {
        Image::Size(size) => writeln!(text, "size = {}\n", quoted(&size))?,
        Image::Layers(layers) => {
            let layers = layers.iter().map(|(name, size)| format!("{} = {}", quoted(name), quoted(size)));
            writeln!(text, "layers = {{ {} }}\n", layers.collect::<Vec<_>>().join(", "))?;
        }
    }
    let background = !args.window.is_empty();
    writeln!(text, "[[release]]\nimage = \"release:1\"\nspread = {}\nbackground = {background}", quoted(&args.spread))?;
    if let Some(share) = &args.reboots {
        let share = quoted(share);
        writeln!(text, "\n[[fault]]\nkind = \"reboot\"\nspread = \"1h\"\nlasts = \"2m\"\nshare = {share}")?;
    }
    for time in &args.cut {
        writeln!(text, "\n[[fault]]\nkind = \"uplink-cut\"\nspread = \"3h\"\nlasts = {}", quoted(time))?;
    }
    Ok(text)
}

fn about(args: &PlanArgs) -> String {
    format!("{} to {} sites of {} devices behind {}", args.image, args.sites, args.devices, args.uplink)
}

fn numbered(text: &str) -> String {
    text.lines().enumerate().fold(String::new(), |mut numbered, (index, line)| {
        // Writing to a string cannot fail.
        let _ = writeln!(numbered, "{:3}  {line}", index + 1);
        numbered
    })
}
