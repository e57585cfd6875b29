//! What simulated sites cost and how they fare: `cargo bench -p layermesh-sim --bench sites`.
//!
//! All devices of a site are told at the same moment to get an image of five layers. Each case runs in a process of its own,
//! so that its peak of memory is its own. A line has: the case; events that engines handled; processor seconds;
//! peak memory; payload bytes over the uplink as copies of the image, without and with what was broken off; the last
//! finish by the time that the uplink alone needs; control bytes that a device sent in that time, on average; and the
//! trace, which stays the same as long as nothing but speed changes.
//!
//! Cases, all with a LAN of 1 Gbit/s: `dsl`, 25 devices behind 2 Mbit/s and 300 MB; then devices, uplink in Mbit/s and MB, such
//! as `200x200x1000`. With `full` behind, as in `1000x1000x1000full`, all devices are connected with all, whatever nodes do.
//! Without a case all of [`CASES`] are run. `LAYERMESH_SEED` sets the seed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "its result is the lines that it prints")]
#![allow(clippy::print_stderr, reason = "where a safety rule is broken it says so")]

use std::{process::Command, time::Duration};

use layermesh_proto::{ObjectKind, Repository, engine::Config};
use layermesh_sim::{Options, World};

const CASES: [&str; 13] = [
    "dsl",
    "10x50x1000",
    "10x200x1000",
    "10x1000x1000",
    "50x50x1000",
    "50x200x1000",
    "50x1000x1000",
    "200x50x1000",
    "200x200x1000",
    "200x1000x1000",
    "1000x200x1000",
    "1000x1000x1000",
    "1000x200x1000full",
];
/// Shares of an image's bytes that its layers have, in thousandths.
const LAYERS: [u64; 5] = [600, 220, 120, 50, 10];
const MB: u64 = 1_000_000;
/// Bytes a second of 1 Mbit/s.
const MBIT: u64 = 125_000;
/// Time that devices have to find each other before they are told.
const SETTLING: Duration = Duration::from_secs(20);
/// Virtual time after which a run is given up.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // Tests of all targets run this too, without the flag that `cargo bench` gives.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if let [case] = named.as_slice()
        && arguments.iter().any(|argument| argument == "--here")
    {
        return run(&Case::parse(case));
    }
    println!(
        "case | events | CPU s | peak MiB | copies | with broken off | last / uplink only | control kB sent | trace"
    );
    let cases = if named.is_empty() { CASES.to_vec() } else { named.into_iter().map(String::as_str).collect() };
    for case in cases {
        let program = std::env::current_exe().expect("this program has a path");
        let status = Command::new(program).args(["--bench", "--here", case]).status().expect("it starts");
        assert!(status.success(), "case {case} failed");
    }
}

struct Case {
    name: String,
    devices: usize,
    uplink: u64,
    bytes: u64,
    full: bool,
}

impl Case {
    fn parse(name: &str) -> Self {
        let owned = name.to_owned();
        if name == "dsl" {
            return Self { name: owned, devices: 25, uplink: 2 * MBIT, bytes: 300 * MB, full: false };
        }
        let numbers: Vec<u64> = name
            .trim_end_matches("full")
            .split('x')
            .map(|number| number.parse().expect("devices x Mbit/s x MB"))
            .collect();
        let [devices, uplink, bytes] = numbers[..] else { panic!("devices x Mbit/s x MB, such as 50x200x1000") };
        Self {
            name: owned,
            devices: usize::try_from(devices).expect("so many devices"),
            uplink: uplink * MBIT,
            bytes: bytes * MB,
            full: name.ends_with("full"),
        }
    }

    fn world(&self) -> World {
        let mut options = Options {
            uplink_bytes_per_s: self.uplink,
            discovery: Duration::from_secs(1),
            explain: Some(std::env::var_os("LAYERMESH_EXPLAIN").is_some()),
            events_max: Some(2_000_000_000),
            ..Options::default()
        };
        let mut config = Config::default();
        if self.full {
            options.degree_aim = usize::MAX;
            options.degree_max = usize::MAX;
            config.limits.peers = self.devices;
        }
        let seed = std::env::var("LAYERMESH_SEED").map_or(1, |seed| seed.parse().expect("a number"));
        World::new(seed, options, config, Repository::new("registry.example", "team/app").expect("a name"))
    }
}

fn run(case: &Case) {
    let mut world = case.world();
    let layers = LAYERS.map(|share| world.publish(&share.to_string(), case.bytes * share / 1000, ObjectKind::Blob));
    for _ in 0..case.devices {
        world.add_node().unwrap();
    }
    world.run_for(SETTLING).unwrap();
    let sent = |world: &World| (0..case.devices).map(|node| world.traffic(node).sent).sum::<u64>();
    let (begun, sent_before) = (world.now(), sent(&world));
    for node in 0..case.devices {
        for layer in layers {
            world.want(node, layer).unwrap();
        }
    }
    let ended = world.run_until_ended(LIMIT).unwrap();
    let lacking = (0..case.devices).filter(|node| !layers.iter().all(|layer| world.holds(*node, *layer))).count();
    if !ended || lacking > 0 {
        eprintln!("{}: {lacking} devices have not got it", case.name);
    }
    world.check_all().unwrap();
    let took = world.now().since(begun).as_secs_f64();
    let alone = case.bytes as f64 / case.uplink as f64;
    let copies = |bytes: u64| bytes as f64 / case.bytes as f64;
    let control = (sent(&world) - sent_before) as f64 / case.devices as f64 / 1000.0;
    println!(
        "{} | {} | {:.2} | {} | {:.4} | {:.4} | {:.3} | {control:.0} | {:016x}",
        case.name,
        world.events(),
        cpu_s(),
        peak_mib(),
        copies(world.origin_bytes()),
        copies(world.origin_bytes() + world.origin_bytes_broken_off()),
        took / alone,
        world.trace(),
    );
}

/// Processor time of this process in seconds, by `/proc/self/stat`.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may have spaces, the twelfth and thirteenth field are ticks of a hundredth of a second.
    let fields: Vec<u64> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    fields.iter().sum::<u64>() as f64 / 100.0
}

/// Most memory that this process had, in MiB, by `/proc/self/status`.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
