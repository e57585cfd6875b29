//! Made-up reports for tests, as real ones look.

use super::{Broken, FaultSpan, POINTS_MAX, ReleaseMark, Report, SLOWEST_MAX, SiteReport, SlowDevice, Totals};

/// One copy of what a site wants.
const COPY_BYTES: u64 = 300_000_000;

/// Numbers that look like chance and are the same each time.
struct Dice(u64);

impl Dice {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

/// Nothing was simulated.
pub(crate) fn empty() -> Report {
    Report {
        scenario: "nothing".to_owned(),
        about: String::new(),
        seed: 0,
        ended_s: 0.0,
        events: 0,
        broken: Vec::new(),
        fleet: Totals::default(),
        completion: Vec::new(),
        releases: Vec::new(),
        faults: Vec::new(),
        sites: Vec::new(),
        slowest: Vec::new(),
    }
}

/// A fleet that got its release, of so many sites.
pub(crate) fn fleet(sites: u32) -> Report {
    let mut dice = Dice(u64::from(sites) + 1);
    let sites: Vec<SiteReport> = (0..sites).map(|number| site(number, &mut dice)).collect();
    let mut report = Report {
        scenario: "shops-on-dsl".to_owned(),
        about: "Shops behind 2 Mbit/s lines, some depots, and a ship with an hour of satellite a day.".to_owned(),
        seed: 42,
        ended_s: 4_100.0,
        events: 81_234_567,
        releases: vec![ReleaseMark { what: "shop:2 to 400 sites".to_owned(), at_s: 60.0, spread_s: 90.0 }],
        faults: faults(),
        ..empty()
    };
    report.completion = completion(&sites);
    report.fleet = total(&sites);
    report.slowest = slowest(&sites, &mut dice);
    report.sites = sites;
    report
}

/// A fleet of which some devices never got it, and a rule was broken.
pub(crate) fn broken() -> Report {
    let mut report = fleet(30);
    report.sites[4].totals.done -= 3;
    report.fleet.done -= 3;
    report.slowest[0].took_s = None;
    report.broken = vec![
        Broken {
            rule: "liveness".to_owned(),
            site: report.sites[4].name.clone(),
            what: "not done after 4100 s: till-3, till-4, till-9".to_owned(),
            recent: vec![
                "1203.1 s till-3 asked till-4 for <piece 7> & waits".to_owned(),
                "1204.0 s it left".to_owned(),
            ],
        },
        Broken {
            rule: "copies".to_owned(),
            site: report.sites[5].name.clone(),
            what: "1.210 copies, at most 1.05 were expected".to_owned(),
            recent: Vec::new(),
        },
    ];
    report
}

/// Text that would break out of a page that forgot to escape it.
pub(crate) fn hostile() -> Report {
    let mut report = broken();
    let text = "<script>alert('x')</script>\"&</title></svg>\u{1b}[31m";
    report.scenario = text.to_owned();
    report.about = text.to_owned();
    report.releases[0].what = text.to_owned();
    report.faults[0].what = text.to_owned();
    report.slowest[0].name = text.to_owned();
    report.slowest[0].why = text.to_owned();
    report.broken[0].what = text.to_owned();
    report.broken[0].recent = vec![text.to_owned()];
    for site in &mut report.sites {
        site.kind = text.to_owned();
        site.name = format!("{text}{}", site.name);
    }
    report
}

fn faults() -> Vec<FaultSpan> {
    let fault = |what: &str, from_s: f64, to_s: Option<f64>| FaultSpan { what: what.to_owned(), from_s, to_s };
    vec![
        fault("reboot: 1000 devices", 300.0, Some(1_500.0)),
        fault("uplink-cut: 12 sites", 700.0, Some(1_000.0)),
        fault("slow-disk: 40 devices", 900.0, None),
        fault("partition: 2 sites", 2_100.0, Some(2_130.0)),
    ]
}

fn site(number: u32, dice: &mut Dice) -> SiteReport {
    let (kind, devices) = match number % 10 {
        7 | 8 => ("depot", 60),
        9 => ("ship", 8),
        _ => ("shop", 25),
    };
    let unlucky = dice.share() < 0.08;
    let copies = 1.0 + dice.share() * 0.02 + if unlucky { dice.share() * 0.8 } else { 0.0 };
    let factor = 1.02 + dice.share() * 0.06 + if unlucky { dice.share() * 1.2 } else { 0.0 };
    let uplink_only_s = 1_200.0 + if kind == "ship" { 500.0 } else { 0.0 };
    let last_s = uplink_only_s * factor;
    let origin_bytes = (COPY_BYTES as f64 * copies) as u64;
    let points = POINTS_MAX as u64 - 2;
    let at = |point: u64| 60.0 + last_s * point as f64 / points as f64;
    let uplink = (0..=points).map(|point| (at(point), origin_bytes * point / points));
    let first_s = last_s * 0.9;
    let finish = |device: u32| 60.0 + first_s + (last_s - first_s) * f64::from(device + 1) / f64::from(devices);
    SiteReport {
        name: format!("{kind}-{}", number + 1),
        kind: kind.to_owned(),
        totals: Totals {
            devices,
            wanting: devices,
            done: devices,
            one_copy_bytes: COPY_BYTES,
            origin_bytes,
            peer_bytes: COPY_BYTES * u64::from(devices - 1),
            wasted_bytes: if unlucky { 40_000_000 } else { 300_000 },
            control_sent_bytes: 400_000 * u64::from(devices),
            control_received_bytes: 390_000 * u64::from(devices),
            copies,
            first_s: Some(first_s),
            median_s: Some(last_s * 0.96),
            last_s: Some(last_s),
            uplink_only_s,
        },
        uplink: [(0.0, 0)].into_iter().chain(uplink).collect(),
        completion: [(0.0, 0)].into_iter().chain((0..devices).map(|device| (finish(device), device + 1))).collect(),
    }
}

fn total(sites: &[SiteReport]) -> Totals {
    let mut fleet = Totals::sum(sites.iter().map(|site| &site.totals));
    let mut lasts: Vec<f64> = sites.iter().filter_map(|site| site.totals.last_s).collect();
    lasts.sort_by(f64::total_cmp);
    fleet.copies = fleet.origin_bytes as f64 / fleet.one_copy_bytes.max(1) as f64;
    fleet.first_s = lasts.first().map(|last| last * 0.9);
    fleet.median_s = lasts.get(lasts.len() / 2).copied();
    fleet.last_s = lasts.last().copied();
    fleet
}

fn completion(sites: &[SiteReport]) -> Vec<(f64, u32)> {
    let mut finishes: Vec<f64> =
        sites.iter().flat_map(|site| site.completion.iter().skip(1).map(|(at, _)| *at)).collect();
    finishes.sort_by(f64::total_cmp);
    let counts = finishes.into_iter().zip(1..);
    [(0.0, 0)].into_iter().chain(counts).collect()
}

fn slowest(sites: &[SiteReport], dice: &mut Dice) -> Vec<SlowDevice> {
    let mut sites: Vec<&SiteReport> = sites.iter().collect();
    sites.sort_by(|one, other| other.totals.last_s.unwrap_or(0.0).total_cmp(&one.totals.last_s.unwrap_or(0.0)));
    let whys = [
        "away or down for 412 s, reboot befell it",
        "told 88 s after the release, slow-disk befell it, its disk takes 1.0 MB/s",
        "",
        "uplink-cut befell it",
    ];
    let device = |(index, site): (usize, &&SiteReport)| SlowDevice {
        name: format!("{}/till-{}", site.name, index % 7 + 1),
        took_s: site.totals.last_s,
        origin_bytes: (COPY_BYTES as f64 * dice.share() * 0.2) as u64,
        peer_bytes: COPY_BYTES * 9 / 10,
        why: whys[index % whys.len()].to_owned(),
    };
    sites.iter().take(SLOWEST_MAX).enumerate().map(device).collect()
}
