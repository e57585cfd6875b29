//! Every check can fail: worlds and engines that break one rule each, and are found out.
//!
//! A forged action is taken for one that the engine said ([`World::forged`]); a damaged store or a lost fetch is what a bug of
//! the driver would leave behind.

use std::time::Duration;

use layermesh_proto::{
    ObjectKind, Repository,
    engine::{
        Action, Config,
        event::{CallId, Event, FetchId, LookupId, RequestId, Source, WantId},
    },
    wire::{
        Announcement, Change, ControlResponse, Entry, InventoryPage, InventoryPosition, Summary,
        control::LABEL_BYTES_MAX,
    },
};

use crate::{
    Blob, Options, Violation, World,
    checks::{ACTIONS_PER_EVENT_MAX, CHECK_ALL_EVERY},
    store::hash_of,
};

const MIB: u64 = 1 << 20;
const POSITION: InventoryPosition = InventoryPosition { epoch: 1, seq: 1 };

/// A site of three nodes, of which the first has some pieces of a blob and fetches on.
fn site() -> (World, Blob) {
    site_with(Options { uplink_bytes_per_s: MIB, ..Options::default() })
}

fn site_with(options: Options) -> (World, Blob) {
    let repository = Repository::new("registry.example", "team/app").unwrap();
    let mut world = World::new(7, options, Config::default(), repository);
    let blob = world.publish("layer", 8 * MIB, ObjectKind::Blob);
    for _ in 0..3 {
        world.add_node().unwrap();
    }
    world.run_for(Duration::from_secs(1)).unwrap();
    world.want(0, blob).unwrap();
    assert!(world.run_until(Duration::from_secs(60), |world| world.pieces(0, blob) > 5).unwrap());
    (world, blob)
}

/// The first node's engine says this.
fn forge(world: &mut World, action: Action) -> Result<(), Violation> {
    world.forged.push(action);
    world.handle(0, Event::Tick)
}

fn found(result: Result<(), Violation>, what: &str) {
    let violation = result.unwrap_err();
    assert!(violation.what.contains(what), "{violation}");
    assert_eq!((violation.seed, violation.node), (7, 0));
    assert!(!violation.recent.is_empty(), "it is told what went before");
}

fn fetch(blob: Blob, pieces: std::ops::Range<u32>) -> Action {
    let source = Source::Origin(Repository::new("registry.example", "team/app").unwrap(), ObjectKind::Blob);
    let (content, size, expected) = (blob.content, Some(blob.size), Vec::new());
    Action::Fetch { fetch: FetchId(999), content, source, size, pieces, growing: false, expected }
}

fn held(blob: Blob) -> Vec<Change> {
    vec![Change { seq: 1, entry: Entry::Held { content: blob.content, size: blob.size } }]
}

#[test]
fn what_is_announced_and_not_held_is_found() {
    let (mut world, blob) = site();
    let since = InventoryPosition { seq: 0, ..POSITION };
    let announced = Action::Announce(Announcement::Changed { since, changes: held(blob) });
    found(forge(&mut world, announced), "announced and not held");
    let (mut world, blob) = site();
    let page = InventoryPage { from_start: true, changes: held(blob), position: POSITION, more: false };
    let told = Action::Respond { call: CallId(1), response: ControlResponse::Inventory(page) };
    found(forge(&mut world, told), "announced and not held");
}

#[test]
fn a_want_that_ends_without_the_blob_or_twice_or_that_nobody_has_is_found() {
    let (mut world, blob) = site();
    let want = world.want(0, blob).unwrap();
    found(forge(&mut world, Action::WantEnded { want, result: Ok(()) }), "ended well without");
    let (mut world, blob) = site();
    let want = world.want(0, blob).unwrap();
    assert!(world.run_until_ended(Duration::from_secs(60)).unwrap());
    found(forge(&mut world, Action::WantEnded { want, result: Ok(()) }), "ended twice");
    let nobodys = Action::WantEnded { want: WantId(12_345), result: Ok(()) };
    found(forge(&mut world, nobodys), "nobody has it");
}

#[test]
fn a_piece_that_is_asked_for_twice_or_though_it_is_durable_is_found() {
    let (mut world, blob) = site();
    let source = Source::Peer(world.id(1));
    let flow = world.nodes[0].flows.values_mut().next().unwrap();
    let next = flow.next;
    // What is asked of an origin may have been given up, what is asked of a peer may not.
    flow.source = source;
    found(forge(&mut world, fetch(blob, next..next + 1)), "runs");
    let (mut world, blob) = site();
    found(forge(&mut world, fetch(blob, 0..1)), "is durable");
}

#[test]
fn a_store_that_takes_a_part_for_the_whole_is_found() {
    let (mut world, blob) = site();
    world.nodes[0].store.careless = true;
    forge(&mut world, Action::Complete { content: blob.content }).unwrap();
    found(world.run_for(Duration::from_secs(1)), "taken for whole and is not");
}

#[test]
fn pieces_that_the_store_lost_are_found_at_once_if_an_action_did_it_and_else_soon() {
    let (mut world, blob) = site();
    found(forge(&mut world, Action::Drop { content: blob.content, pieces: vec![2] }), "piece 2 of");
    let (mut world, blob) = site();
    world.nodes[0].store.drop(&blob.content, &[2]);
    found(world.check_all(), "piece 2 of");
    let soon = (0..=CHECK_ALL_EVERY).try_for_each(|_| world.handle(0, Event::Tick));
    found(soon, "piece 2 of");
}

#[test]
fn pieces_that_the_engine_does_not_know_of_are_found() {
    let (mut world, blob) = site();
    let last = 60;
    world.nodes[0].store.write(blob.content, last, hash_of(&blob.content, last, true));
    found(world.check_all(), "piece 60 of");
}

#[test]
fn a_fetch_that_the_driver_lost_is_found() {
    let (mut world, _) = site();
    let fetch = *world.nodes[0].flows.keys().next().unwrap();
    world.remove_flow(0, fetch);
    found(world.handle(0, Event::Tick), "the engine says Some(InFlight)");
}

#[test]
fn an_engine_that_says_too_much_or_what_cannot_be_said_is_found() {
    let (mut world, _) = site();
    let failed = Event::RequestFailed { request: RequestId(u64::MAX) };
    world.forged = vec![Action::CancelFetch { fetch: FetchId(u64::MAX) }; ACTIONS_PER_EVENT_MAX];
    found(world.handle(0, failed), "too many actions");
    let (mut world, _) = site();
    let platform = "x".repeat(LABEL_BYTES_MAX + 1);
    let summary = Summary { position: POSITION, origin_reachable: None, platform };
    found(forge(&mut world, Action::Announce(Announcement::Summary(summary))), "cannot be said");
}

#[test]
fn a_run_without_an_end_is_found() {
    let (mut world, _) = site_with(Options { events_max: Some(5_000), ..Options::default() });
    let endless = (0..=5_000).try_for_each(|_| world.handle(0, Event::Tick));
    found(endless, "does not end");
}

#[test]
fn an_honest_world_breaks_no_rule() {
    let (mut world, blob) = site();
    for node in 0..3 {
        world.want(node, blob).unwrap();
    }
    assert!(world.run_until_ended(Duration::from_secs(60)).unwrap());
    world.check_all().unwrap();
}

#[test]
fn more_fetches_than_are_allowed_and_one_for_nobody_are_found() {
    let (mut world, blob) = site();
    let peer = Source::Peer(world.id(1));
    world.rules.fetches_per_transfer = 1;
    found(forge(&mut world, fetch(blob, 60..61)), "fetches of one blob at a time");
    let (mut world, blob) = site();
    let second = fetch(blob, 60..61);
    found(forge(&mut world, second), "of an origin twice at a time");
    let (mut world, blob) = site();
    world.nodes[0].wants.clear();
    let Action::Fetch { fetch, content, size, pieces, growing, expected, .. } = fetch(blob, 60..61) else { return };
    let of_peer = Action::Fetch { fetch, content, source: peer, size, pieces, growing, expected };
    found(forge(&mut world, of_peer), "nobody wants it");
}

#[test]
fn more_than_the_limits_are_found() {
    let (mut world, _) = site();
    world.rules.limits.wants = 0;
    let soon = (0..=CHECK_ALL_EVERY).try_for_each(|_| world.handle(0, Event::Tick));
    found(soon, "wants at a time, at most 0");
    let (mut world, _) = site();
    world.rules.limits.peers = 1;
    let soon = (0..=CHECK_ALL_EVERY).try_for_each(|_| world.handle(0, Event::Tick));
    found(soon, "peers at a time, at most 1");
    let (mut world, _) = site();
    world.rules.limits.transfers = 0;
    let soon = (0..=CHECK_ALL_EVERY).try_for_each(|_| world.handle(0, Event::Tick));
    found(soon, "transfers at a time, at most 0");
    let (mut world, _) = site();
    world.rules.limits.lookups = 0;
    let reference =
        layermesh_proto::TagRef::new(Repository::new("registry.example", "team/app").unwrap(), "1").unwrap();
    let asked = Action::AskOrigin { lookup: LookupId(0), reference };
    found(forge(&mut world, asked), "questions to origins at a time");
}

#[test]
fn a_rate_above_the_sites_is_found() {
    let (mut world, _) = site();
    world.rules.uplink.site_bytes_per_s = Some(1000);
    found(forge(&mut world, Action::PaceUplink { bytes_per_s: 1001 }), "more than the site's rate");
}
