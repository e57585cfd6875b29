//! What the world is like: links, disks, clocks, discovery, networks and partitions, and that it is the same each time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use layermesh_proto::{
    ObjectKind, Repository, TagRef,
    engine::{
        Config, Uplink,
        budget::Window,
        event::{Provenance, WantError},
    },
};
use layermesh_sim::{Blob, NodeIndex, NodeOptions, Options, OriginMode, World};

const MB: u64 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn repository() -> Repository {
    Repository::new("registry.example", "team/app").unwrap()
}

fn world(seed: u64, options: Options, size: u64) -> (World, Blob) {
    let mut world = World::new(seed, options, Config::default(), repository());
    let blob = world.publish("layer", size, ObjectKind::Blob);
    (world, blob)
}

fn add(world: &mut World, count: usize, options: &NodeOptions) {
    for _ in 0..count {
        world.add_node_with(options.clone()).unwrap();
    }
}

/// How long it takes until all nodes have a blob.
fn spread(world: &mut World, blob: Blob) -> Duration {
    let begun = world.now();
    (0..world.len()).for_each(|node| {
        world.want(node, blob).unwrap();
    });
    assert!(world.run_until_ended(MINUTE * 60).unwrap());
    world.check_all().unwrap();
    assert!((0..world.len()).all(|node| world.holds(node, blob)));
    world.now().since(begun)
}

#[test]
fn the_same_seed_gives_the_same_run_whether_it_is_explained_or_not_and_another_seed_another_run() {
    let run = |seed, explain| {
        let options = Options {
            gossip_loss_per_mille: 20,
            discovery: Duration::from_secs(1),
            explain: Some(explain),
            ..Options::default()
        };
        let (mut world, blob) = world(seed, options, 20 * MB);
        add(&mut world, 6, &NodeOptions { disk_bytes_per_s: Some(20 * MB), ..NodeOptions::default() });
        world.run_for(Duration::from_secs(2)).unwrap();
        spread(&mut world, blob);
        let traffic: Vec<_> = (0..6).map(|node| world.traffic(node)).collect();
        (world.trace(), world.events(), world.now(), traffic)
    };
    let first = run(1, false);
    assert_eq!(first, run(1, false));
    assert_eq!(first, run(1, true));
    assert_ne!(first.0, run(2, false).0);
}

#[test]
fn a_site_takes_as_long_as_its_uplink_and_never_less() {
    for nodes in [1, 8] {
        let (mut world, blob) = world(3, Options { uplink_bytes_per_s: MB, ..Options::default() }, 60 * MB);
        add(&mut world, nodes, &NodeOptions::default());
        world.run_for(Duration::from_secs(2)).unwrap();
        let took = spread(&mut world, blob).as_secs_f64();
        assert!((59.9..66.0).contains(&took), "{nodes} nodes took {took} s where the uplink needs 60");
    }
}

#[test]
fn a_slow_disk_takes_its_time_and_can_change_it() {
    let (mut world, blob) = world(4, Options::default(), 20 * MB);
    add(&mut world, 1, &NodeOptions { disk_bytes_per_s: Some(MB), ..NodeOptions::default() });
    world.run_for(Duration::from_secs(2)).unwrap();
    let took = spread(&mut world, blob).as_secs_f64();
    assert!((20.0..21.5).contains(&took), "{took} s at 1 MB/s");
    let other = world.publish("other", 20 * MB, ObjectKind::Blob);
    world.set_disk(0, None);
    let took = spread(&mut world, other).as_secs_f64();
    assert!((3.2..3.8).contains(&took), "{took} s at 6.25 MB/s");
}

#[test]
fn a_full_disk_ends_the_want_of_its_node_and_of_nobody_else() {
    let (mut world, blob) = world(5, Options::default(), 20 * MB);
    add(&mut world, 2, &NodeOptions::default());
    world.set_disk_free(1, Some(5 * MB));
    world.run_for(Duration::from_secs(2)).unwrap();
    let wants = [world.want(0, blob).unwrap(), world.want(1, blob).unwrap()];
    assert!(world.run_until_ended(MINUTE).unwrap());
    assert_eq!(world.ended(0, wants[0]), Some(&Ok(())));
    assert!(matches!(world.ended(1, wants[1]), Some(Err(WantError::Store(_)))));
    assert!(world.want_ended_at(1, wants[1]) < world.want_ended_at(0, wants[0]));
}

#[test]
fn on_a_shared_radio_what_goes_between_devices_takes_it_twice() {
    let run = |shared_radio| {
        let options =
            Options { shared_radio, lan_bytes_per_s: 5 * MB, uplink_bytes_per_s: 50 * MB, ..Options::default() };
        let (mut world, blob) = world(6, options, 20 * MB);
        add(&mut world, 1, &NodeOptions::default());
        world.run_for(Duration::from_secs(2)).unwrap();
        let alone = spread(&mut world, blob).as_secs_f64();
        add(&mut world, 1, &NodeOptions::default());
        world.run_for(Duration::from_secs(2)).unwrap();
        world.set_origin(OriginMode::Refusing);
        (alone, spread(&mut world, blob).as_secs_f64())
    };
    let ((alone, peer), (cable_alone, cable_peer)) = (run(true), run(false));
    // Connections to the origin begin slowly.
    assert!((4.0..4.9).contains(&alone) && (4.0..4.9).contains(&cable_alone), "{alone} {cable_alone}");
    assert!((4.0..4.5).contains(&cable_peer) && (8.0..8.7).contains(&peer), "{cable_peer} {peer}");
}

#[test]
fn nodes_find_each_other_after_a_while_and_only_in_networks_that_one_of_them_looks_at() {
    let (mut world, _) = world(7, Options { discovery: Duration::from_secs(4), ..Options::default() }, MB);
    let in_group = |group, finds: &[u32]| NodeOptions { group, finds: finds.to_vec(), ..NodeOptions::default() };
    add(&mut world, 3, &in_group(1, &[1]));
    add(&mut world, 3, &in_group(2, &[2]));
    let bridge = world.add_node_with(in_group(3, &[1, 2])).unwrap();
    world.run_for(Duration::from_millis(100)).unwrap();
    let connected: usize = (0..7).map(|node| world.peers(node).len()).sum();
    assert!(connected < 10, "{connected} at once");
    world.run_for(Duration::from_secs(5)).unwrap();
    assert!((0..6).all(|node| world.peers(node).len() == 3 && world.degree(node) == 3));
    assert_eq!(world.peers(bridge).len(), 6);
}

#[test]
fn a_large_site_keeps_to_its_number_of_connections() {
    let options = Options { discovery: Duration::from_secs(1), degree_aim: 8, degree_max: 12, ..Options::default() };
    let (mut world, _) = world(8, options, MB);
    add(&mut world, 60, &NodeOptions::default());
    world.run_for(Duration::from_secs(2)).unwrap();
    assert!((0..60).all(|node| (8..=12).contains(&world.degree(node))));
}

#[test]
fn a_partition_cuts_what_runs_and_heals() {
    let (mut world, blob) = world(9, Options { uplink_bytes_per_s: MB, ..Options::default() }, 30 * MB);
    add(&mut world, 6, &NodeOptions::default());
    world.run_for(Duration::from_secs(2)).unwrap();
    for node in 0..6 {
        world.want(node, blob).unwrap();
    }
    world.run_for(Duration::from_secs(8)).unwrap();
    let cut: [NodeIndex; 2] = [4, 5];
    world.partition(&cut, false, Duration::from_secs(3));
    world.run_for(Duration::from_secs(4)).unwrap();
    assert!(cut.iter().all(|node| world.peers(*node).len() == 1));
    let had = cut.map(|node| world.bytes_from(node));
    world.run_for(Duration::from_secs(5)).unwrap();
    assert!(world.pieces(4, blob) > 0 && !world.holds(4, blob));
    let has = cut.map(|node| world.bytes_from(node));
    let new: u64 = has.iter().zip(&had).map(|(has, had)| has.0 + has.1 - had.0 - had.1).sum();
    assert!(new < 8 * MB, "they only share what they had: {new} bytes");
    world.heal(&cut);
    assert!(world.run_until_ended(MINUTE).unwrap());
    assert!((0..6).all(|node| world.holds(node, blob) && world.peers(node).len() == 5));
    world.check_all().unwrap();
}

#[test]
fn connections_that_outlive_a_partition_go_on_when_it_is_over() {
    let (mut world, blob) = world(9, Options { uplink_bytes_per_s: MB, ..Options::default() }, 20 * MB);
    add(&mut world, 1, &NodeOptions::default());
    world.run_for(Duration::from_secs(2)).unwrap();
    world.want(0, blob).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    world.partition(&[0], false, Duration::from_secs(40));
    world.run_for(Duration::from_secs(10)).unwrap();
    world.heal(&[0]);
    let healed = world.now();
    assert!(world.run_until_ended(MINUTE).unwrap());
    let took = world.now().since(healed).as_secs_f64();
    // 15 MB are left, and TCP tries again 12.4 s after the loss; an engine gives a silent origin up after 30 s.
    assert!((17.0..18.5).contains(&took), "{took} s");
    assert!(world.origin_bytes() < 20 * MB + MB / 2, "{} bytes", world.origin_bytes());
}

#[test]
fn a_cut_uplink_has_passed_a_part_of_what_was_on_its_way() {
    // A piece of 256 KiB takes 2.6 s.
    let (mut world, blob) = world(9, Options { uplink_bytes_per_s: MB / 10, ..Options::default() }, 5 * MB);
    add(&mut world, 1, &NodeOptions::default());
    world.run_for(Duration::from_secs(1)).unwrap();
    world.want(0, blob).unwrap();
    world.run_for(Duration::from_secs(10)).unwrap();
    world.set_origin(OriginMode::Refusing);
    world.run_for(Duration::from_secs(5)).unwrap();
    let passed = world.origin_bytes() + world.origin_bytes_broken_off();
    assert!((920_000..=1_000_000).contains(&passed), "{passed} bytes in 10 s at 100 KB/s");
}

#[test]
fn a_disk_that_gets_full_keeps_the_room_of_what_was_begun() {
    let (mut world, blob) = world(5, Options { uplink_bytes_per_s: MB, ..Options::default() }, 20 * MB);
    let other = world.publish("other", MB, ObjectKind::Blob);
    add(&mut world, 1, &NodeOptions::default());
    world.run_for(Duration::from_secs(2)).unwrap();
    let begun = world.want(0, blob).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    world.set_disk_free(0, Some(0));
    let late = world.want(0, other).unwrap();
    assert!(world.run_until_ended(MINUTE).unwrap());
    assert_eq!(world.ended(0, begun), Some(&Ok(())));
    assert!(matches!(world.ended(0, late), Some(Err(WantError::Store(_)))));
}

#[test]
fn a_peer_that_restarts_before_its_loss_is_noticed_stays_connected() {
    let (mut world, blob) = world(10, Options::default(), MB);
    add(&mut world, 3, &NodeOptions::default());
    world.run_for(Duration::from_secs(1)).unwrap();
    world.crash(1);
    world.run_for(Duration::from_secs(5)).unwrap();
    world.start(1).unwrap();
    world.run_for(MINUTE).unwrap();
    assert!((0..3).all(|node| world.peers(node).len() == 2));
    spread(&mut world, blob);
}

#[test]
fn wall_clocks_are_as_far_off_as_they_are_said_to_be() {
    let options = Options { start_minute: Some(21 * 60), ..Options::default() };
    let windows = vec![Window::new([true; 7], 22 * 60, 6 * 60).unwrap()];
    let config = Config { uplink: Uplink { windows, ..Uplink::default() }, ..Config::default() };
    let mut world = World::new(11, options, config, repository());
    let blob = world.publish("layer", MB, ObjectKind::Blob);
    world.tag(TagRef::new(repository(), "v1").unwrap(), blob);
    add(&mut world, 1, &NodeOptions { skew_s: 3600, ..NodeOptions::default() });
    world.want_in_background(0, blob).unwrap();
    assert!(world.run_until_ended(MINUTE).unwrap(), "its window is open by its own clock");
    let resolve = world.resolve(0, TagRef::new(repository(), "v1").unwrap()).unwrap();
    // Until it is asked for again.
    world.run_for(MINUTE).unwrap();
    world.set_origin(OriginMode::Refusing);
    let again = world.resolve(0, TagRef::new(repository(), "v1").unwrap()).unwrap();
    world.run_for(Duration::from_secs(3)).unwrap();
    assert!(world.resolved(0, resolve).unwrap().is_ok());
    let Some(Ok(resolution)) = world.resolved(0, again) else { panic!("it remembers") };
    let Provenance::Remembered { observed_unix_s } = resolution.provenance else { panic!("{resolution:?}") };
    let right = Options::default().start_unix_s + world.now().as_nanos() / 1_000_000_000;
    assert!((3530..=3600).contains(&(observed_unix_s - right)), "{observed_unix_s} at {right}");
}

#[test]
fn control_bytes_are_counted_where_they_are_sent_and_where_they_arrive() {
    let (mut world, blob) = world(12, Options::default(), 5 * MB);
    add(&mut world, 4, &NodeOptions::default());
    world.run_for(Duration::from_secs(1)).unwrap();
    spread(&mut world, blob);
    world.run_for(Duration::from_secs(1)).unwrap();
    let (sent, received) = (0..4).fold((0, 0), |(sent, received), node| {
        let traffic = world.traffic(node);
        (sent + traffic.sent, received + traffic.received)
    });
    assert!(sent > 10_000, "{sent}");
    assert_eq!(sent, received, "nothing was lost, and all are connected with all");
}

#[test]
fn bytes_that_were_taken_for_nothing_are_counted() {
    let (mut world, blob) = world(13, Options { uplink_bytes_per_s: MB, ..Options::default() }, 20 * MB);
    add(&mut world, 2, &NodeOptions::default());
    world.set_origin(OriginMode::Unranged);
    world.run_for(Duration::from_secs(2)).unwrap();
    world.want(0, blob).unwrap();
    world.run_for(Duration::from_secs(5)).unwrap();
    world.crash(0);
    assert!(world.origin_bytes_broken_off() > 0, "a piece was on its way");
    world.start(0).unwrap();
    world.run_for(Duration::from_secs(2)).unwrap();
    world.want(0, blob).unwrap();
    assert!(world.run_until_ended(MINUTE).unwrap());
    assert!(world.wasted_bytes(0) > 3 * MB, "what was there came again");
}

#[test]
fn an_origin_that_is_asked_too_often_says_when_to_come_back_and_is_asked_then() {
    let fetched = |requests| {
        let options = Options { origin_requests_per_min: requests, ..Options::default() };
        let (mut world, blob) = world(3, options, 20 * MB);
        add(&mut world, 1, &NodeOptions::default());
        world.run_for(Duration::from_secs(30)).unwrap();
        let want = world.want(0, blob).unwrap();
        assert!(world.run_until_ended(MINUTE * 5).unwrap());
        assert_eq!(world.ended(0, want), Some(&Ok(())));
        (world.requests_refused(), world.now().as_nanos() / 1_000_000_000)
    };
    // The first answer says how large it is, the second brings the rest.
    assert_eq!(fetched(None), (0, 33));
    let (refused, ended_s) = fetched(Some(1));
    assert!((1..4).contains(&refused) && (60..70).contains(&ended_s), "{refused} refused, ended after {ended_s} s");
}
