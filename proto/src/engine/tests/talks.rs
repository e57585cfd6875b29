//! Stories of hellos, inventories and announcements.

use super::script::{blob, peer, repository, run, run_with};
use crate::{
    TagRef,
    engine::{
        Config, Engine, Limits,
        event::{Action, Event, Instant, RequestId},
    },
    wire::{Announcement, Binding, Change, ControlResponse, Entry, Hello, InventoryPage, InventoryPosition, Summary},
};

#[test]
fn a_missed_change_leads_to_one_question() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:1
        3ms P announces B:1
        4ms P missed
        5ms P announces C:1           -> ask P inventory since 2
        6ms P announces D:1
        7ms P diff                    
        8ms promise 1 A B C D         -> promised 1 without
    ");
}

#[test]
fn what_is_announced_while_a_question_is_open_is_asked_for_after_it() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:1
        3ms P missed
        4ms P announces summary       -> ask P inventory since 1
        5ms P diff
        6ms P announces summary                       # nothing new
    ");
}

#[test]
fn a_peer_that_left_holds_nothing_until_it_is_back_and_then_only_the_difference_is_asked_for() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:1
        3ms P leaves
        4ms want 1 A                  -> want 1 unavailable
        5ms P announces B:1                           # not connected: of no use
        6ms P connects                -> ask P hello
        7ms P hello                   -> ask P inventory since 1
        8ms want 2 A                  -> fetch 0 A from P 0..1
        9ms P diff B:1
       10ms want 3 B                  -> fetch 1 B from P 0..1
    ");
}

#[test]
fn a_want_waits_for_what_a_new_peer_holds() {
    run("
        0ms P connects                -> ask P hello
        1ms want 1 A
        2ms P hello                   -> ask P inventory since 0
        3ms P inventory A:1           -> fetch 0 A from P 0..1
    ");
}

#[test]
fn a_peer_that_does_not_answer_is_asked_again_ever_more_rarely() {
    run("
        0ms P connects                -> ask P hello
        1ms P fails
      6300ms tick                     -> ask P hello
       15s tick                       -> announce summary
       16s tick
       30s tick                       -> ask P hello
       31s P hello                    -> ask P inventory since 0
    ");
}

#[test]
fn a_burst_is_announced_at_once_and_questions_are_answered() {
    run("
        0ms P connects                -> ask P hello
        1ms A held 1
        2ms B held 1
        3ms A lost
       21ms tick                      -> announce since 0: B:1 -A
       22ms P asks inventory anew     -> answer inventory from start B:1 -A until 3
       23ms P asks inventory since 2  -> answer inventory -A until 3
       24ms P asks inventory since 3  -> answer inventory until 3
       25ms P asks inventory since 9  -> answer inventory from start B:1 -A until 3
       26ms P asks hello              -> answer hello at 3; ask P inventory since 0
    ");
}

#[test]
fn nothing_is_announced_when_nobody_listens() {
    run("
        0ms A held 1
        1s P connects                 -> ask P hello
        2s B held 1
        3s tick                       -> announce since 1: B:1
    ");
}

#[test]
fn whoever_missed_a_forgotten_removal_starts_anew() {
    let limits = Limits { tombstones: 1, ..Limits::default() };
    run_with(
        Config { limits, ..Config::default() },
        "
        0ms A held 1
        1ms B held 1
        2ms C held 1
        3ms A lost
        4ms B lost
        5ms P asks inventory since 3  -> answer inventory from start C:1 -B until 5
        6ms P asks inventory since 4  -> answer inventory -B until 5
    ",
    );
}

#[test]
fn limits_on_what_peers_say() {
    let limits = Limits { peers: 1, blobs_per_peer: 1, bindings_of_peers: 1, inventory: 1, ..Limits::default() };
    run_with(
        Config { limits, ..Config::default() },
        "
        0ms P connects                -> ask P hello
        1ms Q connects                -> limit peers
        2ms P hello                   -> ask P inventory since 0
        3ms P inventory A:1 B:1 v1=A@1 v2=A@1 -> limit blobs_of_peers; limit bindings_of_peers
        4ms P announces -A B:1
        5ms want 1 B                  -> fetch 0 B from P 0..1
        6ms C held 1
        7ms D held 1                  -> limit inventory
    ",
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_noted_and_the_peer_is_asked_later() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P diff A:1                -> P broke the protocol
        9s tick                       -> ask P inventory since 0
    ");
}

/// Gossip overtakes the answer to a question: what both bring is no contradiction.
#[test]
fn an_answer_that_repeats_what_was_announced_meanwhile_is_taken() {
    let position = |seq| InventoryPosition { epoch: 7, seq };
    let change = |seq, name: &str| Change { seq, entry: Entry::Held { content: blob(name), size: 1 } };
    let page = |changes: &[(u64, &str)], seq, from_start| InventoryPage {
        from_start,
        changes: changes.iter().map(|(seq, name)| change(*seq, name)).collect(),
        position: position(seq),
        more: false,
    };
    let summary = |seq| Summary { position: position(seq), origin_reachable: None, platform: String::new() };
    let mut engine = Engine::new(Config::default(), peer("me"), 1);
    let mut said = Vec::new();
    let mut tell = |event| {
        engine.handle(Instant::default(), event);
        said.extend(std::iter::from_fn(|| engine.poll_action()));
        let open = said.iter().rev().find_map(|action| match action {
            Action::Request { request, .. } => Some(*request),
            _ => None,
        });
        (open.unwrap(), said.iter().any(|action| matches!(action, Action::Note(_))))
    };
    let announced = |announcement| Event::Announced { from: peer("P"), sequence: 0, announcement };
    let (hello, _) = tell(Event::PeerConnected { peer: peer("P") });
    let answer = ControlResponse::Hello(Hello { bulk_port: 1, version: String::new(), summary: summary(1) });
    let (first, _) = tell(Event::Responded { request: hello, response: answer });
    tell(Event::Responded { request: first, response: ControlResponse::Inventory(page(&[(1, "A")], 1, true)) });
    let (second, _) = tell(announced(Announcement::Summary(summary(3))));
    assert_ne!(second, first);
    tell(announced(Announcement::Changed { since: position(1), changes: vec![change(2, "B"), change(3, "C")] }));
    let page = ControlResponse::Inventory(page(&[(2, "B"), (3, "C")], 3, false));
    let (_, noted) = tell(Event::Responded { request: second, response: page });
    assert!(!noted, "it was refused");
    assert_eq!(engine.peers().next().unwrap().blobs, 3);
}

/// Who can be asked for a blob, and what a tag stands for, is told without asking anybody.
#[test]
fn holders_and_bindings_are_told_without_asking() {
    let mut engine = Engine::new(Config::default(), peer("me"), 1);
    let mut tell = |event| {
        engine.handle(Instant::default(), event);
        std::iter::from_fn(|| engine.poll_action()).collect::<Vec<_>>()
    };
    let position = InventoryPosition { epoch: 7, seq: 1 };
    let change = |name: &str| Change { seq: 1, entry: Entry::Held { content: blob(name), size: 1 } };
    for name in ["Q", "P"] {
        tell(Event::PeerConnected { peer: peer(name) });
        let since = InventoryPosition { epoch: 7, seq: 0 };
        let announcement = Announcement::Changed { since, changes: vec![change("A")] };
        tell(Event::Announced { from: peer(name), sequence: 0, announcement });
        let (request, inventory) = (RequestId(if name == "Q" { 1 } else { 3 }), vec![change("A")]);
        let page = InventoryPage { from_start: true, changes: inventory, position, more: false };
        tell(Event::Responded { request, response: ControlResponse::Inventory(page) });
    }
    let reference = TagRef::new(repository("r"), "v1").unwrap();
    let binding =
        Binding { reference: reference.clone(), content: blob("A"), observed_unix_s: 1000, age_ms: None, by: None };
    tell(Event::BindingKnown(binding));
    let mut both = vec![peer("P"), peer("Q")];
    both.sort();
    assert_eq!(engine.holders(&blob("A")), both);
    assert!(engine.holders(&blob("B")).is_empty());
    engine.handle(Instant::default(), Event::PeerDisconnected { peer: peer("P") });
    assert_eq!(engine.holders(&blob("A")), [peer("Q")]);
    assert_eq!(engine.known_binding(&reference).map(|found| found.content), Some(blob("A")));
    assert_eq!(engine.known_binding(&TagRef::new(repository("r"), "v2").unwrap()), None);
    assert!(std::iter::from_fn(|| engine.poll_action()).all(|action| !matches!(action, Action::AskOrigin { .. })));
}
