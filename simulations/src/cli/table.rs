//! `table`: what sites of many sizes take, as tables in Markdown.
//!
//! Invariant: a cell is what a run to its end showed; what takes longer than the patience allows, or lacks the blob at the end, is
//! said in its place. Only whether a cell is there depends on this machine, never what is in it.

use std::{
    cell::Cell,
    fmt::Write as _,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use layermesh_proto::{ObjectKind, Repository, engine::Config};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::{print, say};
use crate::{Blob, Options, Violation, World, scenario::units};

/// Shares of an image's bytes that its layers have, in thousandths.
const LAYERS: [u64; 5] = [600, 220, 120, 50, 10];
/// Uplinks, as thousandths of a device's link.
const UPLINKS: [u64; 3] = [50, 200, 1000];
/// Of 1000 devices, those that die in a minute, where some do.
const DEATHS_PER_MILLE: u64 = 50;
/// Time that devices have to find each other before they are told.
const SETTLING: Duration = Duration::from_secs(20);
/// How long a site is watched at rest: several summaries of each device fall into it.
const REST: Duration = Duration::from_secs(3600);
/// Virtual time after which a run is given up.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Events between two looks at the clock.
const LOOK_EVERY: u64 = 1024;

/// Which table.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    /// Copies and last finish of sites whose devices start together
    Sites,
    /// Gossip and control bytes of a device, at rest and during a transfer
    Control,
}

#[derive(Debug, Clone, Args)]
pub(super) struct TableArgs {
    /// Which
    table: Table,
    /// Sizes of sites
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [10, 50, 200, 1000])]
    devices: Vec<usize>,
    /// Size of the image, which has five layers
    #[arg(long, value_name = "SIZE", default_value = "1GB")]
    image: String,
    /// Rate of each device's link
    #[arg(long, value_name = "RATE", default_value = "1gbit")]
    nic: String,
    /// Seconds of this machine's time for each cell
    #[arg(long, value_name = "S", default_value_t = 60)]
    patience: u64,
    /// Of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// This machine's time, which only decides whether a cell is waited for.
#[allow(clippy::disallowed_methods)]
fn clock() -> Instant {
    Instant::now()
}

/// A site of a table.
struct Site {
    world: World,
    layers: Vec<Blob>,
    bytes: u64,
    uplink: u64,
    patience: Duration,
}

/// Why there is no number.
enum Gap {
    Long,
    Lacking,
    Broken(Violation),
}

impl From<Violation> for Gap {
    fn from(violation: Violation) -> Self {
        Self::Broken(violation)
    }
}

/// What a run showed.
struct Shown {
    copies: f64,
    last: f64,
    sent: u64,
    received: u64,
}

pub(super) fn run(args: &TableArgs) -> anyhow::Result<bool> {
    let bytes = units::parse_size(&args.image, u64::MAX).map_err(|error| anyhow::anyhow!("--image: {error}"))?;
    let nic = units::parse_rate(&args.nic).map_err(|error| anyhow::anyhow!("--nic: {error}"))?;
    let site = |devices: usize, mille: u64| Site::new(devices, (nic, nic * mille / 1000), bytes, args);
    let mut held = true;
    let mut note = |cell: Result<String, Gap>, broken: &mut String| match cell {
        Ok(cell) => cell,
        Err(Gap::Long) => format!("over {} s", args.patience),
        Err(Gap::Lacking) => "not done".to_owned(),
        Err(Gap::Broken(violation)) => {
            held = false;
            let _ = writeln!(broken, "{violation}");
            "rule broken".to_owned()
        }
    };
    let mut broken = String::new();
    match args.table {
        Table::Sites => {
            print(
                "| devices | uplink / link | copies | last / uplink only | copies, 5 % die a minute | last, 5 % die a minute |\n",
            );
            print("|---|---|---|---|---|---|\n");
            for devices in &args.devices {
                for mille in UPLINKS {
                    say(&format!("{devices} devices, uplink of {}", mille as f64 / 1000.0));
                    let mut cells = |deaths| {
                        let shown = site(*devices, mille).and_then(|mut site| site.transfer(deaths, args.seed));
                        note(shown.map(|shown| format!("{:.3} | {:.3}", shown.copies, shown.last)), &mut broken)
                    };
                    let row = [cells(0), cells(DEATHS_PER_MILLE)]
                        .map(|cell| if cell.contains('|') { cell } else { format!("{cell} |") });
                    print(&format!("| {devices} | {} | {} | {} |\n", mille as f64 / 1000.0, row[0], row[1]));
                }
            }
        }
        Table::Control => {
            print("| devices | at rest: sent a minute | received | a transfer: sent | received | of the payload |\n");
            print("|---|---|---|---|---|---|\n");
            for devices in &args.devices {
                say(&format!("{devices} devices"));
                let row = site(*devices, UPLINKS[0]).and_then(|mut site| site.control(args.seed));
                print(&format!("| {devices} | {} |\n", note(row, &mut broken)));
            }
        }
    }
    say(&broken);
    Ok(held)
}

impl Site {
    fn new(devices: usize, (nic, uplink): (u64, u64), bytes: u64, args: &TableArgs) -> Result<Self, Gap> {
        let options = Options {
            lan_bytes_per_s: nic,
            uplink_bytes_per_s: uplink,
            discovery: Duration::from_secs(1),
            explain: Some(false),
            events_max: Some(u64::MAX),
            ..Options::default()
        };
        let repository = Repository::new("registry.example", "fleet").map_err(|_| Gap::Lacking)?;
        let mut world = World::new(args.seed, options, Config::default(), repository);
        let size = |share: &u64| bytes * share / 1000;
        let layers =
            LAYERS.iter().map(|share| world.publish(&share.to_string(), size(share), ObjectKind::Blob)).collect();
        for _ in 0..devices {
            world.add_node()?;
        }
        let mut site = Self { world, layers, bytes, uplink, patience: Duration::from_secs(args.patience) };
        let begun = clock();
        site.wait(SETTLING, begun, |_| false)?;
        Ok(site)
    }

    /// Lets time pass until it is so, and says whether it is; a gap if that takes too long here.
    fn wait(&mut self, time: Duration, begun: Instant, done: impl Fn(&World) -> bool) -> Result<bool, Gap> {
        let (events, late) = (Cell::new(0_u64), Cell::new(false));
        let patience = self.patience;
        let found = self.world.run_until(time, |world| {
            events.set(events.get() + 1);
            late.set(late.get() || (events.get() % LOOK_EVERY == 0 && begun.elapsed() > patience));
            late.get() || done(world)
        })?;
        if late.get() { Err(Gap::Long) } else { Ok(found) }
    }

    fn traffic(&self) -> (u64, u64) {
        let all = (0..self.world.len()).map(|node| self.world.traffic(node));
        let (sent, received) = all.fold((0, 0), |sum, one| (sum.0 + one.sent, sum.1 + one.received));
        let devices = self.world.len().max(1) as u64;
        (sent / devices, received / devices)
    }

    /// All want the image at the same moment; so many of 1000 die each minute.
    fn transfer(&mut self, deaths_per_mille: u64, seed: u64) -> Result<Shown, Gap> {
        let (begun, started, before) = (clock(), self.world.now(), self.traffic());
        for node in 0..self.world.len() {
            for layer in self.layers.clone() {
                self.world.want(node, layer)?;
            }
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let devices = self.world.len() as u64;
        let between = (devices * deaths_per_mille > 0)
            .then(|| Duration::from_secs_f64(60_000.0 / (devices * deaths_per_mille) as f64));
        let mut passed = Duration::ZERO;
        while !self.wait(between.unwrap_or(LIMIT), begun, World::all_ended)? {
            passed += between.unwrap_or(LIMIT);
            if passed >= LIMIT {
                return Err(Gap::Lacking);
            }
            let up: Vec<_> = (0..self.world.len()).filter(|node| self.world.is_up(*node)).collect();
            if up.len() > 1 {
                self.world.crash(up[(random.next_u64() % up.len() as u64) as usize]);
            }
        }
        let lacks =
            |node: usize| self.world.is_up(node) && !self.layers.iter().all(|layer| self.world.holds(node, *layer));
        if (0..self.world.len()).any(lacks) {
            return Err(Gap::Lacking);
        }
        let crossed = self.world.origin_bytes() + self.world.origin_bytes_broken_off();
        let took = self.world.now().since(started).as_secs_f64();
        let after = self.traffic();
        Ok(Shown {
            copies: crossed as f64 / self.bytes as f64,
            last: took * self.uplink as f64 / self.bytes as f64,
            sent: after.0 - before.0,
            received: after.1 - before.1,
        })
    }

    fn control(&mut self, seed: u64) -> Result<String, Gap> {
        let before = self.traffic();
        self.wait(REST, clock(), |_| false)?;
        let after = self.traffic();
        let minutes = REST.as_secs() / 60;
        let (sent, received) = ((after.0 - before.0) / minutes, (after.1 - before.1) / minutes);
        let shown = match self.transfer(0, seed) {
            Err(Gap::Long) => return Ok(format!("{sent} B | {received} B | over {} s | | ", self.patience.as_secs())),
            shown => shown?,
        };
        let share = (shown.sent + shown.received) as f64 * 50.0 / self.bytes as f64;
        let kb = |bytes: u64| format!("{:.0} kB", bytes as f64 / 1000.0);
        Ok(format!("{sent} B | {received} B | {} | {} | {share:.2} %", kb(shown.sent), kb(shown.received)))
    }
}
