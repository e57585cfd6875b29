//! What a site does with blobs that nobody waits for, in virtual time, with several seeds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use layermesh_proto::{
    ObjectKind, Repository,
    engine::{Config, Uplink, budget::Window},
};
use layermesh_sim::{Blob, Options, OriginMode, World};

/// Fewer than in the other scenarios: these last for hours of virtual time.
const SEEDS: u64 = 10;
const NODES: usize = 6;
const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const NIGHT: u16 = 22 * 60;

/// A site with windows from ten at night, whose origin has two blobs. All clocks say that it is ten minutes before.
fn site(seed: u64, uplink: Uplink) -> (World, [Blob; 2]) {
    let config = Config { uplink, ..Config::default() };
    let repository = Repository::new("registry.example", "team/app").unwrap();
    let mut world = World::new(seed, Options::default(), config, repository);
    let blobs = ["large", "other"].map(|name| world.publish(name, 20 * MIB, ObjectKind::Blob));
    for _ in 0..NODES {
        let node = world.add_node().unwrap();
        world.set_wall_clock(node, NIGHT - 10).unwrap();
    }
    world.run_for(Duration::from_secs(2)).unwrap();
    (world, blobs)
}

fn nights() -> Uplink {
    Uplink { windows: vec![Window::new([true; 7], NIGHT, 6 * 60).unwrap()], ..Uplink::default() }
}

fn all_have(world: &World, blob: Blob) -> bool {
    (0..NODES).all(|node| world.holds(node, blob))
}

#[test]
fn a_site_waits_for_its_window_and_takes_one_copy() {
    for seed in 0..SEEDS {
        let (mut world, [blob, _]) = site(seed, nights());
        for node in 0..NODES {
            world.want_in_background(node, blob).unwrap();
        }
        world.run_for(MINUTE).unwrap();
        let before = world.messages();
        world.run_for(8 * MINUTE).unwrap();
        assert_eq!(world.origin_bytes(), 0, "seed {seed}");
        // Each says once a minute that it waits, and the others hear it.
        let said = world.messages() - before;
        assert!(said < 600, "seed {seed}: {said} messages while all wait");
        assert!(world.run_until(2 * MINUTE, |world| all_have(world, blob)).unwrap(), "seed {seed}");
        assert_eq!(world.origin_bytes(), blob.size, "seed {seed}");
    }
}

#[test]
fn windows_that_open_at_different_times_cost_no_second_copy() {
    for seed in 0..SEEDS {
        let (mut world, [blob, _]) = site(seed, nights());
        for node in 0..NODES {
            world.want_in_background(node, blob).unwrap();
            // Clocks are set by hand.
            world.set_wall_clock(node, NIGHT - 10 + u16::try_from(node).unwrap()).unwrap();
        }
        assert!(world.run_until(12 * MINUTE, |world| all_have(world, blob)).unwrap(), "seed {seed}");
        assert_eq!(world.origin_bytes(), blob.size, "seed {seed}");
    }
}

#[test]
fn what_one_device_pulls_for_its_runtime_the_others_get_in_the_background_at_once() {
    for seed in 0..SEEDS {
        let metered = Uplink { metered: true, ..Uplink::default() };
        let (mut world, [blob, other]) = site(seed, metered);
        for node in 0..NODES {
            world.want_in_background(node, blob).unwrap();
            world.want_in_background(node, other).unwrap();
        }
        world.run_for(30 * MINUTE).unwrap();
        assert_eq!(world.origin_bytes(), 0, "seed {seed}");
        world.want(0, blob).unwrap();
        assert!(world.run_until(MINUTE, |world| all_have(world, blob)).unwrap(), "seed {seed}");
        world.run_for(30 * MINUTE).unwrap();
        assert_eq!(world.origin_bytes(), blob.size, "seed {seed}");
        assert!(!all_have(&world, other));
    }
}

#[test]
fn a_runtime_in_the_middle_costs_no_more_than_what_was_on_its_way() {
    for seed in 0..SEEDS {
        let (mut world, [blob, other]) = site(seed, Uplink::default());
        for node in 0..NODES {
            world.want_in_background(node, blob).unwrap();
        }
        world.run_for(Duration::from_millis(1500)).unwrap();
        let owner = (0..NODES).find(|node| world.bytes_from(*node).0 > 0).unwrap();
        world.want(owner, other).unwrap();
        let done = |world: &World| all_have(world, blob) && world.holds(owner, other);
        assert!(world.run_until(2 * MINUTE, done).unwrap(), "seed {seed}");
        let wasted = world.origin_bytes() - blob.size - other.size;
        assert!(wasted <= MIB, "seed {seed}: {wasted} bytes came twice");
    }
}

#[test]
fn an_origin_that_is_away_when_the_window_opens_is_asked_again_in_the_next_one() {
    for seed in 0..SEEDS {
        let (mut world, [blob, _]) = site(seed, nights());
        let want = world.want_in_background(0, blob).unwrap();
        world.run_for(MINUTE).unwrap();
        world.set_origin(OriginMode::Refusing);
        world.set_wall_clock(0, NIGHT).unwrap();
        world.run_for(Duration::from_secs(2)).unwrap();
        world.set_wall_clock(0, 6 * 60).unwrap();
        world.run_for(600 * MINUTE).unwrap();
        assert_eq!(world.ended(0, want), None, "seed {seed}: a night that was too short is no failure");
        world.set_origin(OriginMode::Up);
        assert!(world.run_until(361 * MINUTE, |world| world.holds(0, blob)).unwrap(), "seed {seed}");
    }
}
