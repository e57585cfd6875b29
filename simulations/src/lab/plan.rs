//! The plan of a lab: what `scripts/lab-run` has to build and to do, as JSON.
//!
//! Invariant: pure. A plan that exists can be carried out by the lab on a machine that has the means; a scenario that
//! asks for more is refused with all that the lab lacks ([`Unfit`]).

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{
    fleet::plan::{SitePlan, Step as SiteStep},
    scenario::{Devices, FaultKind, Scenario, Site},
};

/// Most devices of a lab. 40: beyond that the processors of one machine decide, not the network.
pub const DEVICES_MAX: u32 = 40;
/// Most bytes that all devices together get. 8 GB: devices keep their data in memory.
const BYTES_MAX: u64 = 8_000_000_000;
/// Latency, and jitter, of LAN links up to which the host's own are taken for it. 1 ms: what scheduling adds anyway on a
/// busy machine.
const HOST_LATENCY: Duration = Duration::from_millis(1);

/// What the lab lacks for a scenario, one reason a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub Vec<String>);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lab cannot do this scenario:\n  {}", self.0.join("\n  "))
    }
}

impl std::error::Error for Unfit {}

/// What to build and what to do. Times are seconds from the moment at which all nodes have met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// Names of the devices; steps refer to them by number.
    pub devices: Vec<String>,
    /// From the registry to the site.
    pub uplink: Link,
    /// Each device's link to the others.
    pub lan: Link,
    /// What the registry has.
    pub images: Vec<Image>,
    /// In order of time.
    pub steps: Vec<Step>,
    /// By when the scenario has to have ended.
    pub limit_s: f64,
    /// Seed of what links draw.
    pub seed: u64,
}

/// A link of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Bits a second.
    pub rate: u64,
    /// One way.
    pub latency_us: u64,
    /// Up to so much more, at random.
    pub jitter_us: u64,
    /// Of 1000 frames, those that are lost.
    pub loss_per_mille: u32,
    /// Whether a process with the simulator's model passes its frames; else it is the kernel's alone.
    pub modelled: bool,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its reference in the scenario.
    pub name: String,
    /// OCI platform; empty for any.
    pub platform: String,
    /// Names and sizes; the same name is the same blob.
    pub layers: Vec<(String, u64)>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// When.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub act: Act,
}

/// What to do, and to which devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub enum Act {
    /// A device is told to pull an image.
    Tell {
        /// Its number.
        device: usize,
        /// Of the scenario's releases.
        release: usize,
        /// Of the plan's images.
        image: usize,
    },
    /// The uplink's link goes down.
    Cut,
    /// It is up again.
    Mend,
    /// The registry stops where it is: connections are accepted and nothing comes.
    Silence,
    /// It goes on.
    Speak,
    /// Devices lose power.
    Crash {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// Devices stop in good order.
    Stop {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// Devices start, with their disks.
    Start {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// Devices move to a switch of their own, without an uplink.
    Part {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// They are back.
    Heal {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// The devices' disks have no room left.
    Fill {
        /// Their numbers.
        devices: Vec<usize>,
    },
    /// They have room again.
    Empty {
        /// Their numbers.
        devices: Vec<usize>,
    },
}

impl Plan {
    /// The plan of a scenario, which draws what is left to chance from `seed`.
    ///
    /// # Errors
    /// With all that the lab lacks.
    pub fn new(scenario: &Scenario, seed: u64) -> Result<Self, Unfit> {
        let wrong = unfit(scenario);
        let planned = SitePlan::new(scenario, seed, 0).filter(|_| wrong.is_empty());
        let (Some(planned), Some(site)) = (planned, scenario.sites.first()) else { return Err(Unfit(wrong)) };
        let images = images(scenario);
        let steps = planned
            .steps
            .iter()
            .map(|(at, step)| Ok(Step { at_s: at.as_secs_f64(), act: act(scenario, site, &planned, &images, step)? }));
        let (steps, wrong): (Vec<_>, Vec<_>) = steps.partition(Result::is_ok);
        let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
        if !wrong.is_empty() {
            return Err(Unfit(wrong));
        }
        Ok(Self {
            scenario: scenario.name.clone(),
            devices: planned.devices.iter().map(|device| device.name.clone()).collect(),
            uplink: uplink(site),
            lan: lan(site),
            images,
            steps: steps.into_iter().filter_map(Result::ok).collect(),
            limit_s: scenario.limit.as_secs_f64(),
            seed,
        })
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn uplink(site: &Site) -> Link {
    let latency = site.uplink.latency;
    Link {
        rate: site.uplink.bytes_per_s * 8,
        latency_us: micros(latency),
        jitter_us: 0,
        loss_per_mille: 0,
        modelled: latency > HOST_LATENCY,
    }
}

fn lan(site: &Site) -> Link {
    let lan = &site.lan;
    Link {
        rate: lan.bytes_per_s * 8,
        latency_us: micros(lan.latency),
        jitter_us: micros(lan.jitter),
        loss_per_mille: (lan.loss * 1000.0).round() as u32,
        modelled: lan.latency > HOST_LATENCY || lan.jitter > HOST_LATENCY || lan.loss > 0.0,
    }
}

fn images(scenario: &Scenario) -> Vec<Image> {
    let of = scenario.images.iter().flat_map(|image| image.variants.iter().map(move |variant| (image, variant)));
    of.map(|(image, variant)| Image {
        name: image.name.clone(),
        platform: variant.platform.clone(),
        layers: variant.layers.iter().map(|layer| (layer.name.clone(), layer.size)).collect(),
    })
    .collect()
}

fn act(scenario: &Scenario, site: &Site, planned: &SitePlan, images: &[Image], step: &SiteStep) -> Result<Act, String> {
    match step {
        SiteStep::Tell { device, release } => {
            let platform = &site.devices[planned.devices[*device].group].platform;
            let name = &scenario.releases[*release].image;
            let of = |platform: &str| images.iter().position(|image| image.name == *name && image.platform == platform);
            let image = of(platform).or_else(|| of("")).ok_or(format!("{name} has nothing for {platform}"))?;
            Ok(Act::Tell { device: *device, release: *release, image })
        }
        SiteStep::Begin { fault, devices } => begin(scenario.faults[*fault].kind, devices.clone()),
        SiteStep::End { fault, devices } => end(scenario.faults[*fault].kind, devices.clone()),
        SiteStep::Uplink { .. } | SiteStep::Home { .. } => Err("things that come and go every day".to_owned()),
    }
}

fn begin(kind: FaultKind, devices: Vec<usize>) -> Result<Act, String> {
    match kind {
        FaultKind::UplinkCut => Ok(Act::Cut),
        FaultKind::UplinkSilent => Ok(Act::Silence),
        FaultKind::Crash => Ok(Act::Crash { devices }),
        FaultKind::Reboot => Ok(Act::Stop { devices }),
        FaultKind::Partition => Ok(Act::Part { devices }),
        FaultKind::DiskFull => Ok(Act::Fill { devices }),
        other => Err(no_fault(other)),
    }
}

fn end(kind: FaultKind, devices: Vec<usize>) -> Result<Act, String> {
    match kind {
        FaultKind::UplinkCut => Ok(Act::Mend),
        FaultKind::UplinkSilent => Ok(Act::Speak),
        FaultKind::Crash | FaultKind::Reboot => Ok(Act::Start { devices }),
        FaultKind::Partition => Ok(Act::Heal { devices }),
        FaultKind::DiskFull => Ok(Act::Empty { devices }),
        other => Err(no_fault(other)),
    }
}

fn no_fault(kind: FaultKind) -> String {
    format!("the fault `{}`: real nodes and links do not do that on demand", kind.name())
}

/// All that the lab lacks for a scenario.
fn unfit(scenario: &Scenario) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lacks = |is: bool, what: &str| {
        if is {
            wrong.push(what.to_owned());
        }
    };
    let sites: u32 = scenario.sites.iter().map(|site| site.count).sum();
    lacks(sites != 1, "more than one site: leave one `[[site]]` with `count = 1`");
    for site in &scenario.sites {
        let (uplink, lan) = (&site.uplink, &site.lan);
        lacks(site.size() > DEVICES_MAX, &format!("more than {DEVICES_MAX} devices: lower their `count`"));
        lacks(uplink.per_device, "`per_device` uplinks: its devices share one");
        lacks(uplink.bytes_per_s_each.is_some(), "`connection_rate`: leave it out");
        lacks(!uplink.ranged, "`ranges = false`: its registry answers ranges");
        lacks(!uplink.up.is_empty() || !uplink.windows.is_empty(), "daily times: `up` and `windows` take a day");
        lacks(uplink.metered, "`metered`: leave it out");
        lacks(lan.shared_radio, "`shared_radio`: its devices are at a switch");
        site.devices.iter().for_each(|group| unfit_devices(group, &mut lacks));
        let bytes = scenario.images.iter().flat_map(|image| &image.variants).flat_map(|variant| &variant.layers);
        let bytes: u64 = bytes.map(|layer| layer.size).sum();
        let all = bytes.saturating_mul(u64::from(site.size()));
        lacks(all > BYTES_MAX, "that many bytes: fewer devices or smaller images, at most 8 GB together");
    }
    for release in &scenario.releases {
        lacks(release.prior.is_some(), "`from`: devices begin with empty disks here");
        lacks(release.background, "`background` releases: somebody waits for what is pulled here");
    }
    for fault in &scenario.faults {
        if let Err(why) = begin(fault.kind, Vec::new()) {
            lacks(true, &why);
        }
    }
    wrong.dedup();
    wrong
}

fn unfit_devices(group: &Devices, lacks: &mut impl FnMut(bool, &str)) {
    lacks(group.disk_bytes_per_s.is_some(), "`disk` rates: its devices write to memory");
    lacks(!group.clock_skew.is_zero(), "`clock_skew`: its devices share a clock");
    lacks(!group.finds.is_empty(), "`finds`: all its devices are in one network");
    lacks(!group.home.is_empty(), "`home`: its devices do not travel");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SIMPLE: &str = "
[[site]]
uplink = { rate = \"20mbit\", latency = \"20ms\" }
devices = 4
[[image]]
name = \"shop:2\"
layers = { base = \"6MB\", app = \"2MB\" }
[[release]]
image = \"shop:2\"
at = \"2s\"
";

    fn planned(more: &str) -> Result<Plan, Unfit> {
        Plan::new(&Scenario::parse("test", &format!("{SIMPLE}{more}")).unwrap(), 1)
    }

    #[test]
    fn devices_are_told_and_links_are_as_the_scenario_says() {
        let plan = planned("").unwrap();
        assert_eq!(plan.devices, ["device-1", "device-2", "device-3", "device-4"]);
        assert_eq!((plan.uplink.rate, plan.uplink.latency_us, plan.uplink.modelled), (20_000_000, 20_000, true));
        assert!(!plan.lan.modelled, "the host's own latency is near that of a switch");
        assert_eq!(plan.images[0].layers, [("base".to_owned(), 6_000_000), ("app".to_owned(), 2_000_000)]);
        let told = |device| Step { at_s: 2.0, act: Act::Tell { device, release: 0, image: 0 } };
        assert_eq!(plan.steps, [told(0), told(1), told(2), told(3)]);
    }

    #[test]
    fn faults_begin_and_end_in_order_of_time() {
        let plan = planned(
            "[[fault]]\nkind = \"uplink-cut\"\nat = \"5s\"\nlasts = \"4s\"\n\
             [[fault]]\nkind = \"crash\"\nat = \"6s\"\nlasts = \"1s\"\nshare = 0.25\n",
        )
        .unwrap();
        let acts: Vec<_> = plan.steps[4..].iter().map(|step| (step.at_s, step.act.clone())).collect();
        let Act::Crash { devices } = acts[1].1.clone() else { panic!("{acts:?}") };
        assert_eq!(devices.len(), 1);
        let expected = [
            (5.0, Act::Cut),
            (6.0, Act::Crash { devices: devices.clone() }),
            (7.0, Act::Start { devices }),
            (9.0, Act::Mend),
        ];
        assert_eq!(acts, expected);
    }

    #[test]
    fn all_that_the_lab_lacks_is_said_at_once() {
        let Err(Unfit(wrong)) = planned("background = true\n[[fault]]\nkind = \"lies\"\n") else { panic!("it fits") };
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].contains("background") && wrong[1].contains("`lies`"), "{wrong:?}");
    }

    #[test]
    fn the_scenarios_of_the_lab_are_fit_for_it() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/lab");
        let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 10, "{files:?}");
        for file in files {
            let scenario = Scenario::parse("lab", &std::fs::read_to_string(&file).unwrap()).unwrap();
            let plan =
                Plan::new(&scenario, scenario.seed).unwrap_or_else(|unfit| panic!("{}: {unfit}", file.display()));
            assert!((5..=20).contains(&plan.devices.len()) && !scenario.about.is_empty(), "{}", file.display());
        }
    }

    #[test]
    fn steps_read_as_flat_json() {
        let json = serde_json::to_value(&planned("").unwrap().steps[0]).unwrap();
        assert_eq!(json, serde_json::json!({"at_s": 2.0, "act": "tell", "device": 0, "release": 0, "image": 0}));
    }
}
