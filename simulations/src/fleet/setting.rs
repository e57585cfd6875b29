//! A site of a scenario as the world and the engines know it.

use layermesh_proto::{
    Repository,
    engine::{Config, Uplink, budget::Window, config::WINDOW_OF_OWN_UPLINKS},
};

use super::plan::SitePlan;
use crate::{
    NodeOptions, Options,
    sabotage::Sabotage,
    scenario::{Daily, Scenario, Site},
};

/// All days of the week.
const EVERY_DAY: [bool; 7] = [true; 7];

/// Where the origin has everything.
///
/// # Panics
/// Never: the name is one.
#[allow(clippy::expect_used)]
pub(super) fn repository() -> Repository {
    Repository::new("registry.example", "fleet").expect("a constant that is a name")
}

/// The world of a site.
pub(super) fn options(scenario: &Scenario, site: &Site, sabotage: Option<Sabotage>, explain: bool) -> Options {
    let (uplink, lan) = (&site.uplink, &site.lan);
    Options {
        lan_bytes_per_s: lan.bytes_per_s,
        shared_radio: lan.shared_radio,
        uplink_bytes_per_s: uplink.bytes_per_s,
        uplink_of_its_own: uplink.per_device,
        origin_bytes_per_s_each: uplink.bytes_per_s_each.unwrap_or(u64::MAX),
        origin_requests_per_min: uplink.requests_per_min,
        lan_latency: lan.latency,
        lan_jitter: lan.jitter,
        uplink_latency: uplink.latency,
        gossip_loss_per_mille: (lan.loss * 1000.0).round() as u32,
        discovery: lan.discovery,
        start_minute: Some(scenario.start_minute),
        sabotage,
        explain: Some(explain),
        ..Options::default()
    }
}

/// What the nodes of a site were told of their uplink, as their operator would.
pub(super) fn config(site: &Site, config: &Config) -> Config {
    let mut config = config.clone();
    if site.uplink.per_device {
        config.window = WINDOW_OF_OWN_UPLINKS;
    }
    let windows = site.uplink.windows.iter().filter_map(|daily| window(*daily)).collect();
    let site_bytes_per_s = site.uplink.site_bytes_per_s.or(config.uplink.site_bytes_per_s);
    config.uplink = Uplink { metered: site.uplink.metered, windows, site_bytes_per_s };
    config
}

/// `None` if nothing is in it, which no valid scenario has.
fn window(daily: Daily) -> Option<Window> {
    Window::new(EVERY_DAY, daily.from, daily.to).ok()
}

/// A device of a site.
pub(super) fn node(site: &Site, plan: &SitePlan, device: usize) -> NodeOptions {
    let device = &plan.devices[device];
    let group = &site.devices[device.group];
    let number = |name: &String| site.devices.iter().position(|group| group.name == *name);
    NodeOptions {
        platform: Some(group.platform.clone()),
        group: u32::try_from(device.group).unwrap_or(u32::MAX),
        finds: group.finds.iter().filter_map(number).filter_map(|number| u32::try_from(number).ok()).collect(),
        disk_bytes_per_s: group.disk_bytes_per_s,
        skew_s: device.skew_s,
        ..NodeOptions::default()
    }
}
