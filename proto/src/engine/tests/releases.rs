//! Stories of releases: whose metadata is looked at.

use std::time::Duration;

use super::script::run_with;
use crate::engine::Config;

/// Nodes say nothing but what the story is about.
fn run(story: &str) {
    let (day, once) = (Duration::from_secs(86_400), Duration::from_secs(80_000));
    run_with(Config { summary_interval: day, summary_after_connect: once, ..Config::default() }, story);
}

#[test]
fn the_newest_metadata_is_looked_at_and_passed_on_once_it_is_believed() {
    run("
        0ms follow 1 A
        1ms P connects                -> ask P hello
        2ms P hello                   -> ask P inventory since 0
        3ms P inventory follows:3:C   -> examine 3 C of P
        4ms Q connects                -> ask Q hello
        5ms Q hello                   -> ask Q inventory since 0
        6ms Q inventory follows:2:B                              # one at a time
        7ms follow 3 C
        8ms examined C accepted
       60ms tick                      -> announce since 0: follows:3:C
       70ms Q announces follows:3:C
       71ms P announces follows:2:B                              # older than what is believed
    ");
}

#[test]
fn who_offered_what_was_refused_is_not_listened_to_for_a_while() {
    run("
        0ms follow 1 A
        1ms P connects                -> ask P hello
        2ms P hello                   -> ask P inventory since 0
        3ms P inventory follows:9:B   -> examine 9 B of P
        4ms Q connects                -> ask Q hello
        5ms Q hello                   -> ask Q inventory since 0
        6ms Q inventory follows:2:C
        7ms examined B refused        -> refused P; examine 2 C of Q
       60ms tick                      -> announce since 0: follows:1:A
      100ms examined C unavailable
      101ms P announces follows:10:A                              # another lie
    30050ms tick
    30101ms tick                      -> examine 2 C of Q
       31s follow 2 C
       32s examined C accepted        -> announce since 1: follows:2:C
      599s tick
      601s tick                       -> examine 10 A of P
    ");
}

#[test]
fn whoever_does_not_follow_looks_at_nothing() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory follows:3:C
        3ms follow 0 -                -> examine 3 C of P
        4ms examined A refused                                    # nobody asked
        5ms examined C refused        -> refused P
    ");
}

/// What a peer said before it left counts when it is back, though it does not say it again.
#[test]
fn an_offer_is_remembered_while_its_peer_is_away() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory follows:3:C
        3ms P leaves
        4ms follow 0 -
        5ms P connects                -> ask P hello
        6ms P hello                   -> examine 3 C of P
    ");
}

#[test]
fn what_is_larger_than_can_be_used_is_not_fetched() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:5
        3ms want 1 A within 5         -> fetch 0 A from P 0..5
        4ms want 2 A within 4         -> want 2 too large         # as its holder says
        5ms unwant 1                  -> cancel 0
    ");
}
