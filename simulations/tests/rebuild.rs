//! Sites that make a blob of one that they hold, with a patch.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use layermesh_proto::{ObjectKind, Repository, engine::Config};
use layermesh_sim::{Blob, NodeOptions, Options, OriginMode, World};

const MB: u64 = 1_000_000;

struct Site {
    world: World,
    layer: Blob,
    patch: Blob,
}

/// So many devices behind 2 Mbit/s, of which `holding` hold the layer before.
fn site(seed: u64, devices: usize, holding: usize) -> Site {
    let options = Options { uplink_bytes_per_s: 250_000, ..Options::default() };
    let mut world = World::new(seed, options, Config::default(), Repository::new("registry.example", "app").unwrap());
    let base = world.publish("layer 1", 20 * MB, ObjectKind::Blob);
    let layer = world.publish("layer 2", 20 * MB, ObjectKind::Blob);
    let patch = world.publish("patch", MB / 2, ObjectKind::Blob);
    for device in 0..devices {
        world.add_node_with(NodeOptions::default()).unwrap();
        if device < holding {
            world.hold(device, base).unwrap();
            world.patched(device, layer, base, patch).unwrap();
        }
    }
    world.run_for(Duration::from_secs(5)).unwrap();
    Site { world, layer, patch }
}

impl Site {
    /// All want the layer.
    fn want(&mut self) {
        for device in 0..self.world.len() {
            self.world.want(device, self.layer).unwrap();
        }
    }

    /// Lets time pass until all have it. Returns how long that took.
    fn until_all_have_it(&mut self) -> Duration {
        let began = self.world.now();
        assert!(self.world.run_until_ended(Duration::from_secs(3600)).unwrap());
        let layer = self.layer;
        assert!((0..self.world.len()).all(|device| !self.world.is_up(device) || self.world.holds(device, layer)));
        self.world.now().since(began)
    }

    fn maker(&self) -> Option<usize> {
        (0..self.world.len()).find(|device| self.world.is_making(*device))
    }
}

#[test]
fn one_device_takes_the_patch_and_all_have_the_layer() {
    for seed in 0..20 {
        let mut site = site(seed, 6, 6);
        site.want();
        site.world.run_for(Duration::from_secs(2)).unwrap();
        assert_eq!((0..6).filter(|device| site.world.is_making(*device)).count(), 1);
        let took = site.until_all_have_it();
        assert_eq!(site.world.origin_bytes(), site.patch.size, "seed {seed}");
        assert!(took < Duration::from_secs(15), "seed {seed}: {took:?}");
    }
}

#[test]
fn those_without_the_old_layer_wait_for_the_one_that_makes_it() {
    for seed in 0..20 {
        let mut site = site(seed, 6, 2);
        site.want();
        site.until_all_have_it();
        // What somebody asked for before it heard of the patch.
        assert!(site.world.origin_bytes() < 2 * MB, "seed {seed}: {}", site.world.origin_bytes());
    }
}

#[test]
fn a_device_that_loses_power_is_followed_by_another() {
    for seed in 0..20 {
        let mut site = site(seed, 6, 6);
        site.want();
        site.world.run_for(Duration::from_secs(4)).unwrap();
        let maker = site.maker().unwrap();
        site.world.crash(maker);
        site.until_all_have_it();
        assert!(site.world.origin_bytes() <= 2 * site.patch.size, "seed {seed}: {}", site.world.origin_bytes());
    }
}

#[test]
fn a_wrong_patch_costs_itself_and_a_layer_that_is_half_here_is_fetched_if_that_is_less() {
    for seed in 0..10 {
        let mut site = site(seed, 6, 6);
        let layer = site.layer;
        site.world.spoil_patch(layer);
        site.want();
        site.until_all_have_it();
        let copies = site.world.origin_bytes() as f64 / layer.size as f64;
        assert!((1.0..1.1).contains(&copies), "seed {seed}: {copies}");
    }
}

#[test]
fn without_an_uplink_nothing_is_made_and_nothing_hangs() {
    let mut site = site(1, 4, 4);
    site.world.set_origin(OriginMode::Refusing);
    site.want();
    assert!(site.world.run_until_ended(Duration::from_secs(600)).unwrap());
    site.world.set_origin(OriginMode::Up);
    site.want();
    site.until_all_have_it();
}
