//! One site, run to its end: a world that does what the plan says, and what is seen of it.
//!
//! Invariant: nothing here decides anything that an engine would; it tells devices what to get, breaks things when the plan
//! says so, and writes down what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use layermesh_proto::{ObjectKind, engine::event::WantId};

use super::{
    Settings,
    curve::Curve,
    plan::{SitePlan, Step, uplink_only},
    pulls::Pull,
    setting,
};
use crate::{
    Blob, Fault, OriginMode, Violation, World,
    scenario::{Devices, FaultKind, Prior, Scenario, Site},
};

/// Size of an image's manifest, in bytes. 1 KiB: that of an image of five layers.
const MANIFEST_BYTES: u64 = 1 << 10;
/// Size of its configuration, which runtimes get beside the layers. 2 KiB: with a history of ten steps.
const CONFIG_BYTES: u64 = 2 << 10;
/// What a slow disk does, in bytes a second, if it had no rate of its own; else a tenth of that.
const SLOW_DISK_BYTES_PER_S: u64 = 1_000_000;
/// Between two points of the uplink's curve, at first.
const POINT_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a node lost power or its network its peers notice: two pings that are not answered.
const LOSS_NOTICED: Duration = Duration::from_secs(40);

/// What one site showed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) plan: SitePlan,
    pub(crate) pulls: Vec<Vec<Pull>>,
    /// By device: from the registry, from peers, thrown away.
    pub(crate) bytes: Vec<[u64; 3]>,
    /// By device: control traffic sent and received.
    pub(crate) control: Vec<[u64; 2]>,
    /// By device: how long it was down or away while it had something to get.
    pub(crate) away: Vec<Duration>,
    pub(crate) uplink: Curve,
    pub(crate) one_copy_bytes: u64,
    /// Over the uplink too, of pieces whose fetch was broken off while they came.
    pub(crate) broken_off_bytes: u64,
    pub(crate) uplink_only: Duration,
    pub(crate) ended: Duration,
    pub(crate) events: u64,
    pub(crate) violation: Option<Violation>,
    /// Devices that could have had all and had not.
    pub(crate) unfinished: Vec<usize>,
}

/// A site on its way.
struct Run<'a> {
    scenario: &'a Scenario,
    site: &'a Site,
    plan: SitePlan,
    world: World,
    pulls: Vec<Vec<Pull>>,
    wants: BTreeMap<(usize, WantId), (usize, usize)>,
    /// Blobs to be asked for again: when, device, pull, blob.
    retries: BTreeSet<(Duration, usize, usize, usize)>,
    /// Why a device is not there: faults by their index, and not being at home.
    away: Vec<BTreeSet<usize>>,
    away_since: Vec<Option<Duration>>,
    away_for: Vec<Duration>,
    /// What holds the uplink: faults by their index, and its own times of the day.
    cuts: BTreeMap<usize, OriginMode>,
    uplink: Curve,
}

/// Blobs of an image before its layers: the manifest and the configuration.
const FIRST_LAYER: usize = 2;
/// In place of a fault's index: what goes and comes every day.
const DAILY: usize = usize::MAX;

/// Runs one site of a scenario. Should a rule be broken, it runs once more with its history kept, for the report.
pub(crate) fn run(scenario: &Scenario, plan: &SitePlan, settings: &Settings) -> Outcome {
    let attempt = |explain| {
        let mut run = Run::new(scenario, plan.clone(), settings, explain);
        let violation = run.play().err();
        run.outcome(violation)
    };
    let outcome = attempt(false);
    if outcome.violation.is_some() { attempt(true) } else { outcome }
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, plan: SitePlan, settings: &Settings, explain: bool) -> Self {
        let site = &scenario.sites[plan.kind];
        let options = setting::options(scenario, site, settings.sabotage, explain);
        let config = setting::config(site, &settings.config);
        let world = World::new(plan.seed, options, config, setting::repository());
        let devices = plan.devices.len();
        Self {
            scenario,
            site,
            plan,
            world,
            pulls: vec![Vec::new(); devices],
            wants: BTreeMap::new(),
            retries: BTreeSet::new(),
            away: vec![BTreeSet::new(); devices],
            away_since: vec![None; devices],
            away_for: vec![Duration::ZERO; devices],
            cuts: BTreeMap::new(),
            uplink: Curve::new(POINT_INTERVAL),
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.world.now().as_nanos())
    }

    fn play(&mut self) -> Result<(), Violation> {
        for device in 0..self.plan.devices.len() {
            self.world.add_node_with(setting::node(self.site, &self.plan, device))?;
        }
        self.set_origin();
        let steps = std::mem::take(&mut self.plan.steps);
        let mut next = 0;
        loop {
            while let Some((_, step)) = steps.get(next).filter(|(at, _)| *at <= self.now()) {
                self.step(step)?;
                next += 1;
            }
            self.retry()?;
            self.hear()?;
            let told = steps[next..].iter().any(|(_, step)| matches!(step, Step::Tell { .. }));
            if self.now() >= self.scenario.limit || (!told && self.is_done()) {
                self.plan.steps = steps;
                return self.world.check_all();
            }
            let planned = steps.get(next).map(|(at, _)| *at).into_iter();
            let retry = self.retries.first().map(|(at, ..)| *at).into_iter();
            let until = planned.chain(retry).chain([self.scenario.limit, self.uplink.next()]);
            let until = until.min().unwrap_or(self.scenario.limit);
            let limit = until.saturating_sub(self.now());
            self.world.run_until(limit, World::has_news)?;
            self.uplink.note(self.now(), self.world.origin_bytes());
        }
    }

    /// Whether everybody who can has all that was asked for.
    fn is_done(&self) -> bool {
        self.pulls.iter().flatten().all(|pull| pull.done.is_some())
    }

    fn step(&mut self, step: &Step) -> Result<(), Violation> {
        match step {
            Step::Tell { device, release } => self.tell(*device, *release),
            Step::Uplink { up } => {
                self.cut(DAILY, (!up).then_some(OriginMode::Refusing));
                Ok(())
            }
            Step::Home { device, home } => self.set_away(*device, DAILY, !home, false),
            Step::Begin { fault, devices } => self.fault(*fault, devices, true),
            Step::End { fault, devices } => self.fault(*fault, devices, false),
        }
    }

    fn tell(&mut self, device: usize, release: usize) -> Result<(), Violation> {
        let told = &self.scenario.releases[release];
        let mut blobs = self.blobs_for(device, &told.image);
        if let Some(prior) = &told.prior {
            self.give(device, &blobs, prior)?;
            // What it holds it need not get.
            blobs.retain(|blob| !self.world.holds(device, *blob));
        }
        let pull = Pull::new(release, self.now(), told.background, blobs);
        self.pulls[device].push(pull);
        self.want(device)
    }

    /// A device holds an image before it is told of another, and knows the patches from that to this.
    fn give(&mut self, device: usize, new: &[Blob], prior: &Prior) -> Result<(), Violation> {
        let sharing = (self.plan.devices.len() as f64 * prior.share).ceil();
        if device as f64 >= sharing {
            return Ok(());
        }
        let old = self.blobs_for(device, &prior.image);
        for blob in &old {
            self.world.hold(device, *blob)?;
        }
        let Some(bytes) = prior.patch else { return Ok(()) };
        let differ = |one: &[Blob], other: &[Blob]| -> Vec<Blob> {
            let layers = one.iter().skip(FIRST_LAYER).filter(|blob| !other.contains(blob));
            layers.copied().collect()
        };
        let (from, to) = (differ(&old, new), differ(new, &old));
        let all: u64 = to.iter().map(|layer| layer.size).sum();
        for (base, layer) in from.into_iter().zip(to) {
            let share = u128::from(bytes) * u128::from(layer.size) / u128::from(all.max(1));
            let size = u64::try_from(share).unwrap_or(bytes).max(1);
            let patch =
                self.world.publish(&format!("patch {} {}", base.content, layer.content), size, ObjectKind::Blob);
            self.world.patched(device, layer, base, patch)?;
        }
        Ok(())
    }

    /// What a device is like.
    fn group(&self, device: usize) -> &'a Devices {
        &self.site.devices[self.plan.devices[device].group]
    }

    /// What a device has to get of an image: manifest, configuration and layers of its platform.
    fn blobs_for(&mut self, device: usize, image: &str) -> Vec<Blob> {
        let platform = &self.group(device).platform;
        let Some(image) = self.scenario.images.iter().find(|known| known.name == image) else { return Vec::new() };
        let Some(variant) = image.variant_for(platform) else { return Vec::new() };
        let name = format!("{} {}", image.name, variant.platform);
        let mut blobs = vec![
            self.world.publish(&format!("manifest {name}"), MANIFEST_BYTES, ObjectKind::Manifest),
            self.world.publish(&format!("config {name}"), CONFIG_BYTES, ObjectKind::Blob),
        ];
        for layer in &variant.layers {
            let name = format!("layer {} {}", layer.name, layer.size);
            blobs.push(self.world.publish(&name, layer.size, ObjectKind::Blob));
        }
        blobs
    }

    /// Wants what is due at a device, if it is there.
    fn want(&mut self, device: usize) -> Result<(), Violation> {
        if !self.away[device].is_empty() {
            return Ok(());
        }
        for pull in 0..self.pulls[device].len() {
            let background = self.pulls[device][pull].background;
            while let Some((index, blob)) = self.pulls[device][pull].next() {
                if self.world.holds(device, blob) {
                    let now = self.now();
                    self.pulls[device][pull].had(now);
                    continue;
                }
                let want = if background {
                    self.world.want_in_background(device, blob)?
                } else {
                    self.world.want(device, blob)?
                };
                self.wants.insert((device, want), (pull, index));
            }
        }
        Ok(())
    }

    /// Hears which wants ended.
    fn hear(&mut self) -> Result<(), Violation> {
        while let Some((device, want)) = self.world.take_ended() {
            let well = matches!(self.world.ended(device, want), Some(Ok(())));
            let Some((pull, index)) = self.wants.remove(&(device, want)) else { continue };
            let now = self.now();
            if well {
                self.pulls[device][pull].had(now);
            } else {
                let wait = self.pulls[device][pull].failed();
                self.retries.insert((now + wait, device, pull, index));
            }
            self.want(device)?;
        }
        Ok(())
    }

    fn retry(&mut self) -> Result<(), Violation> {
        while let Some((at, device, pull, index)) = self.retries.first().copied().filter(|(at, ..)| *at <= self.now()) {
            self.retries.remove(&(at, device, pull, index));
            self.pulls[device][pull].again(index);
            self.want(device)?;
        }
        Ok(())
    }

    fn fault(&mut self, index: usize, devices: &[usize], begins: bool) -> Result<(), Violation> {
        let kind = self.scenario.faults[index].kind;
        match kind {
            FaultKind::UplinkCut => self.cut(index, begins.then_some(OriginMode::Refusing)),
            FaultKind::UplinkSilent => self.cut(index, begins.then_some(OriginMode::Silent)),
            FaultKind::Unranged => self.cut(index, begins.then_some(OriginMode::Unranged)),
            FaultKind::Crash | FaultKind::Reboot => {
                for device in devices {
                    self.set_away(*device, index, begins, kind == FaultKind::Crash)?;
                }
            }
            FaultKind::Partition if begins => self.world.partition(devices, false, LOSS_NOTICED),
            FaultKind::Partition => self.world.heal(devices),
            FaultKind::SlowDisk => {
                for device in devices {
                    let own = self.group(*device).disk_bytes_per_s;
                    let slow = own.map_or(SLOW_DISK_BYTES_PER_S, |rate| rate / 10);
                    self.world.set_disk(*device, if begins { Some(slow) } else { own });
                }
            }
            FaultKind::DiskFull => {
                for device in devices {
                    self.world.set_disk_free(*device, begins.then_some(0));
                }
            }
            FaultKind::Corrupts => self.misbehave(devices, begins.then_some(Fault::WrongPieces)),
            FaultKind::Lies => self.misbehave(devices, begins.then_some(Fault::WrongMap)),
            FaultKind::HasNothing => self.misbehave(devices, begins.then_some(Fault::HasNothing)),
            FaultKind::Stalls => self.misbehave(devices, begins.then_some(Fault::StallsAfter(1))),
            FaultKind::Forges => self.misbehave(devices, begins.then_some(Fault::Forges)),
        }
        Ok(())
    }

    fn misbehave(&mut self, devices: &[usize], fault: Option<Fault>) {
        for device in devices {
            match fault {
                Some(fault) => self.world.set_fault(*device, fault),
                None => self.world.clear_fault(*device),
            }
        }
    }

    fn cut(&mut self, index: usize, mode: Option<OriginMode>) {
        match mode {
            Some(mode) => self.cuts.insert(index, mode),
            None => self.cuts.remove(&index),
        };
        self.set_origin();
    }

    fn set_origin(&mut self) {
        let ranged = if self.site.uplink.ranged { OriginMode::Up } else { OriginMode::Unranged };
        // What lets least through counts.
        let rank = |mode: &OriginMode| match mode {
            OriginMode::Silent => 3,
            OriginMode::Refusing => 2,
            OriginMode::Unranged => 1,
            OriginMode::Up | OriginMode::Corrupt => 0,
        };
        let mode = self.cuts.values().copied().chain([ranged]).max_by_key(rank);
        self.world.set_origin(mode.unwrap_or(ranged));
    }

    /// A device goes or comes back for one of its reasons to be away.
    fn set_away(&mut self, device: usize, reason: usize, away: bool, abruptly: bool) -> Result<(), Violation> {
        let was_there = self.away[device].is_empty();
        if away {
            self.away[device].insert(reason);
        } else {
            self.away[device].remove(&reason);
        }
        let is_there = self.away[device].is_empty();
        let now = self.now();
        match (was_there, is_there) {
            (true, false) => {
                self.away_since[device] = Some(now);
                self.wants.retain(|(node, _), _| *node != device);
                self.retries.retain(|(_, node, ..)| *node != device);
                if abruptly {
                    self.world.crash(device)
                } else {
                    self.world.leave(device)
                }
                Ok(())
            }
            (false, true) => {
                let since = self.away_since[device].take().unwrap_or(now);
                self.away_for[device] += now - since;
                self.world.start(device)?;
                let world = &self.world;
                for pull in &mut self.pulls[device] {
                    pull.restart(now, |blob| world.holds(device, blob));
                }
                self.want(device)
            }
            _ => Ok(()),
        }
    }

    fn outcome(self, violation: Option<Violation>) -> Outcome {
        let devices = 0..self.plan.devices.len();
        let wanted: BTreeMap<_, u64> = self
            .pulls
            .iter()
            .flatten()
            .flat_map(|pull| pull.blobs().iter().map(|blob| (blob.content, blob.size)))
            .collect();
        let one_copy_bytes = wanted.values().sum();
        let uplink = &self.site.uplink;
        let first = self.pulls.iter().flatten().map(|pull| self.scenario.releases[pull.release].at).min();
        let sharing = if uplink.per_device { devices.len() as u64 } else { 1 };
        let rate = uplink.bytes_per_s.saturating_mul(sharing.max(1));
        let (start, limit) = (self.scenario.start_minute, self.scenario.limit);
        let first = first.unwrap_or_default();
        let uplink_only = uplink_only(one_copy_bytes, rate, &uplink.up, start, first, limit);
        let unfinished = devices.clone().filter(|device| {
            self.away[*device].is_empty() && self.pulls[*device].iter().any(|pull| pull.done.is_none())
        });
        let unfinished = unfinished.collect();
        let bytes = devices.clone().map(|device| {
            let (origin, peers) = self.world.bytes_from(device);
            [origin, peers, self.world.wasted_bytes(device)]
        });
        let control = devices.map(|device| {
            let traffic = self.world.traffic(device);
            [traffic.sent, traffic.received]
        });
        Outcome {
            bytes: bytes.collect(),
            control: control.collect(),
            one_copy_bytes,
            broken_off_bytes: self.world.origin_bytes_broken_off(),
            uplink_only,
            unfinished,
            ended: self.now(),
            events: self.world.events(),
            violation,
            pulls: self.pulls,
            away: self.away_for,
            uplink: self.uplink,
            plan: self.plan,
        }
    }
}
