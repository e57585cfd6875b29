//! Scenarios out of seeds.
//!
//! Invariant: pure, and valid: its text reads as the same scenario, every fault ends and leaves time after it, so that
//! what is still not done at the limit is a fault of ours.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use crate::scenario::{
    Bounds, Daily, Devices, Fault, FaultKind, Image, Lan, Layer, Prior, Release, Scenario, Scope, Site, Uplink,
    Variant, sense,
};

/// Most of what a generated scenario has. Small, so that a thousand run in minutes; a bug that takes more than a dozen
/// devices to show is for the library's larger scenarios.
const SITE_KINDS_MAX: u64 = 2;
const SITES_MAX: u64 = 2;
const DEVICES_MAX: u64 = 12;
const LAYERS_MAX: u64 = 4;
const LAYER_BYTES_MAX: u64 = 24_000_000;
const RELEASES_MAX: u64 = 3;
const FAULTS_MAX: u64 = 4;
/// After the last fault has ended, how many times the time of a copy for each device there is, and how much more: what
/// failed is asked for again after five minutes at the latest.
const PATIENCE: (u32, Duration) = (4, Duration::from_secs(3600));

/// Of what is drawn of limits. Any number.
const POLICIES_SEED: u64 = 0x429;
/// Of what is drawn of images that devices hold before. Any number.
const PRIORS_SEED: u64 = 0xde17a;
/// The rate that a site is told is that part of its uplink's.
const SITE_RATE_OF: u32 = 10;
/// Slowest uplink, in bytes a second, from which nodes are held back: a dozen nodes that share its part still bring a piece
/// before they count as silent.
const HELD_BACK_RATE_MIN: u64 = 5_000_000;

/// Draws.
struct Draw(ChaCha8Rng);

impl Draw {
    /// From 1 to `max`.
    fn some(&mut self, max: u64) -> u64 {
        1 + self.0.next_u64() % max.max(1)
    }

    /// From 0 to `max`, 0 as likely as any.
    fn up_to(&mut self, max: u64) -> u64 {
        self.0.next_u64() % (max + 1)
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.0.next_u64().is_multiple_of(number)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.0.next_u64() % choices.len() as u64) as usize]
    }
}

/// The scenario of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
    let mut sites: Vec<Site> = (0..draw.some(SITE_KINDS_MAX)).map(|number| site(&mut draw, number)).collect();
    let releases = draw.some(RELEASES_MAX);
    let images: Vec<Image> = (0..releases).map(|number| image(&mut draw, number)).collect();
    let bytes: u64 = images.iter().flat_map(|image| &image.variants[0].layers).map(|layer| layer.size).sum();
    let slowest = sites.iter().map(|site| site.uplink.bytes_per_s).min().unwrap_or(1);
    let copy = Duration::from_secs_f64(bytes as f64 / slowest.max(1) as f64).max(Duration::from_secs(1));
    let devices = sites.iter().map(Site::size).max().unwrap_or(1);
    let mut releases: Vec<Release> = images.iter().map(|image| release(&mut draw, image, copy)).collect();
    priors(seed, &images, &mut releases);
    let mut faults: Vec<Fault> = (0..draw.up_to(FAULTS_MAX)).map(|_| fault(&mut draw, copy)).collect();
    // A file with one that changes nothing could not be read.
    faults.retain(|fault| sense::against(fault, &sites).is_none());
    policies(seed, &mut sites);
    let healed = faults.iter().map(|fault| fault.at + fault.spread + fault.lasts.unwrap_or_default()).max();
    let limit = healed.unwrap_or_default() + copy * devices * PATIENCE.0 + PATIENCE.1;
    // Half of the time is in no window, and what comes at the rate of the site takes longer.
    let limit = if sites.iter().any(is_held_back) { limit * (2 + SITE_RATE_OF) } else { limit };
    let copies_max = Some(copies_max(devices, &faults));
    Scenario {
        name: format!("seed-{seed}"),
        about: "Generated.".to_owned(),
        seed,
        limit: Duration::from_secs(limit.as_secs() + 1),
        start_minute: 0,
        bounds: Bounds { copies_max, last_max: None },
        sites,
        images,
        releases,
        faults,
    }
}

/// What devices hold before a release, and the patches from it to that. For every fourth seed: the others go on standing for what
/// they stood for before, and so do those that show sabotages.
fn priors(seed: u64, images: &[Image], releases: &mut [Release]) {
    if seed % 4 != 3 {
        return;
    }
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed ^ PRIORS_SEED));
    for (release, image) in releases.iter_mut().skip(1).zip(images) {
        if draw.one_in(3) {
            let bytes: u64 = image.variants.iter().flat_map(|variant| &variant.layers).map(|layer| layer.size).sum();
            // Mostly few bytes, and now and then as many as the layers have.
            let patch = bytes / draw.of(&[100, 20, 20, 4, 1]);
            let share = draw.of(&[1.0, 1.0, 0.5, 0.1]);
            release.prior = Some(Prior { image: image.name.clone(), share, patch: Some(patch.max(1)) });
        }
    }
}

/// What registries and operators limit. Drawn apart from all else, so that seeds go on standing for what they stood for before
/// there was this.
fn policies(seed: u64, sites: &mut [Site]) {
    let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed ^ POLICIES_SEED));
    for site in sites {
        let uplink = &mut site.uplink;
        uplink.requests_per_min = draw.one_in(8).then(|| draw.of(&[20, 60, 300]));
        let held_back = draw.of(&[HeldBack::ByWindows, HeldBack::ByRate, HeldBack::Not, HeldBack::Not, HeldBack::Not]);
        // Over a slow uplink it would take days.
        match held_back {
            _ if uplink.bytes_per_s < HELD_BACK_RATE_MIN => {}
            HeldBack::ByWindows => {
                let minute = |hour: u16, minute: u16| hour * 60 + minute;
                uplink.windows = (0..24).map(|hour| Daily { from: minute(hour, 15), to: minute(hour, 45) }).collect();
                // Without windows what nobody waits for would never come over a meter.
                uplink.metered = draw.one_in(2);
            }
            HeldBack::ByRate => uplink.site_bytes_per_s = Some(uplink.bytes_per_s / u64::from(SITE_RATE_OF)),
            HeldBack::Not => {}
        }
    }
}

/// What holds the nodes of a site back from their uplink.
#[derive(Clone, Copy)]
enum HeldBack {
    ByWindows,
    ByRate,
    Not,
}

fn is_held_back(site: &Site) -> bool {
    site.uplink.site_bytes_per_s.is_some() || !site.uplink.windows.is_empty()
}

/// Never worse than if each device fetched its own, whatever happens, and once more. Where devices send wrong bytes, each of
/// the others may have to compare all that it has with the registry's, which is as much again for each such fault.
fn copies_max(devices: u32, faults: &[Fault]) -> f64 {
    let wrong = |fault: &&Fault| fault.kind.lies() || fault.kind == FaultKind::Corrupts;
    let lying = faults.iter().filter(wrong).count();
    (f64::from(devices) + 1.0) * (1.0 + lying as f64)
}

fn site(draw: &mut Draw, number: u64) -> Site {
    let groups = if draw.one_in(3) { 2 } else { 1 };
    let devices = (0..groups).map(|group| Devices {
        name: format!("group{number}{group}"),
        count: u32::try_from(draw.some(DEVICES_MAX / groups)).unwrap_or(1),
        platform: "linux/arm64".to_owned(),
        disk_bytes_per_s: draw.one_in(3).then(|| draw.of(&[1_000_000, 4_000_000, 20_000_000])),
        clock_skew: Duration::from_secs(if draw.one_in(4) { draw.up_to(100_000_000) } else { 0 }),
        finds: Vec::new(),
        home: Vec::new(),
    });
    let devices = devices.collect();
    Site {
        name: format!("site{number}"),
        count: u32::try_from(draw.some(SITES_MAX)).unwrap_or(1),
        uplink: Uplink {
            bytes_per_s: draw.of(&[60_000, 250_000, 1_000_000, 6_250_000, 40_000_000]),
            latency: Duration::from_millis(draw.of(&[5, 20, 80, 300])),
            per_device: draw.one_in(6),
            bytes_per_s_each: draw.one_in(6).then(|| draw.of(&[50_000, 500_000])),
            // Drawn apart, as is what the nodes are told of the uplink.
            requests_per_min: None,
            ranged: !draw.one_in(8),
            up: Vec::new(),
            metered: false,
            site_bytes_per_s: None,
            windows: Vec::new(),
        },
        lan: Lan {
            bytes_per_s: draw.of(&[2_500_000, 12_500_000, 125_000_000]),
            latency: Duration::from_micros(draw.of(&[200, 500, 3000, 20_000])),
            jitter: Duration::from_micros(draw.of(&[0, 500, 10_000])),
            loss: draw.of(&[0.0, 0.0, 0.01, 0.1]),
            shared_radio: draw.one_in(4),
            discovery: Duration::from_millis(draw.of(&[0, 500, 5000])),
        },
        devices,
    }
}

fn image(draw: &mut Draw, number: u64) -> Image {
    let mut layers: Vec<Layer> = (0..draw.some(LAYERS_MAX))
        .map(|layer| {
            // The first is what releases have in common, now and then.
            let name = if layer == 0 && draw.one_in(2) { "base".to_owned() } else { format!("layer{number}{layer}") };
            Layer { size: draw.some(LAYER_BYTES_MAX), name }
        })
        .collect();
    // A name has one size.
    for layer in layers.iter_mut().filter(|layer| layer.name == "base") {
        layer.size = LAYER_BYTES_MAX / 2;
    }
    Image { name: format!("app:{number}"), variants: vec![Variant { platform: String::new(), layers }] }
}

fn release(draw: &mut Draw, image: &Image, copy: Duration) -> Release {
    let share = draw.of(&[1.0, 1.0, 0.5, 0.1]);
    Release {
        image: image.name.clone(),
        at: copy * u32::try_from(draw.up_to(2)).unwrap_or(0) / 2,
        spread: copy * u32::try_from(draw.of(&[0, 0, 1, 3])).unwrap_or(0) / 2,
        scope: Scope { share, ..Scope::default() },
        background: draw.one_in(5),
        prior: None,
    }
}

fn fault(draw: &mut Draw, copy: Duration) -> Fault {
    let (_, kind) = draw.of(&FaultKind::ALL);
    let eighths = |draw: &mut Draw, max: u64| copy * u32::try_from(draw.up_to(max)).unwrap_or(0) / 8;
    Fault {
        kind,
        at: eighths(draw, 16),
        spread: eighths(draw, 4),
        lasts: Some(eighths(draw, 16) + Duration::from_secs(draw.some(60))),
        scope: Scope { share: if kind.of_site() { 1.0 } else { draw.of(&[0.1, 0.3, 0.6, 1.0]) }, ..Scope::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_one_scenario() {
        for seed in 0..200 {
            let generated = scenario(seed);
            assert_eq!(generated, scenario(seed));
            assert_eq!(Scenario::parse(&generated.name, &generated.to_toml()), Ok(generated.clone()));
            assert!(
                generated.faults.iter().all(|fault| fault.at + fault.spread + fault.lasts.unwrap() < generated.limit)
            );
        }
        assert_ne!(scenario(1).sites, scenario(2).sites);
    }
}
