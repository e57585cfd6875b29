//! Stories of blobs that are made of others. The common order for blob `A` is P, Q, this node.

use super::{
    super::{Config, Uplink},
    script::{run_site, run_site_with},
};

#[test]
fn what_can_be_rebuilt_is_claimed_whole_and_the_others_hear_that_while_it_goes_on() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
        3s A rebuilding 0
        4s tick                             -> claim told A 0.. turn 192
     4500ms A rebuilding 10
        6s tick                             -> *
     6500ms A held 8                        -> *
     6600ms tick                            -> announce since 0: A:8
    ",
    );
}

#[test]
fn whoever_hears_that_a_blob_is_rebuilt_waits_and_takes_it_from_there() {
    run_site(
        "
        0ms P connects                      -> ask P hello
     1ms P hello                            -> ask P inventory since 0
     2ms P inventory
        2s want 1 A from app                -> want told A
     2010ms P claims A 0.. turn 192
        4s P claims A 0.. turn 192          -> *
        6s P claims A 0.. turn 192          -> *
        8s P announces A:8                  -> *
     8100ms tick                            -> *
    ",
    );
}

#[test]
fn of_two_who_rebuild_the_first_in_order_goes_on() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
     2050ms P claims A 0.. turn 192          -> stop rebuild A; want told A
        3s tick
    ",
    );
}

#[test]
fn nearly_done_it_goes_on_whoever_else_does_or_holds_it() {
    run_site(
        "
        0ms P connects                      -> ask P hello
     1ms P hello                            -> ask P inventory since 0
     2ms P inventory
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
     2050ms A rebuilding 10
     2060ms P claims A 0.. turn 192
     2070ms P announces A:8
     2080ms A held 8                         -> want 1 ok
    ",
    );
}

#[test]
fn whoever_turns_out_to_hold_it_is_asked_instead() {
    run_site(
        "
        0ms P connects                      -> ask P hello
     1ms P hello                            -> ask P inventory since 0
     2ms P inventory
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
     2050ms A rebuilding 5
     2060ms P announces A:8                  -> stop rebuild A; want told A; fetch 0 A from P 0..8
    ",
    );
}

#[test]
fn a_patch_that_fails_costs_one_try_of_one_node() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
     2050ms A unrebuilt wrong                -> rebuild of A failed; want told A; claim told A 0..; fetch 0 A from app 0..
     2300ms fetch 0 started 8                -> *
     2400ms fetch 0 ended failed             -> *
    ",
    );
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2010ms P claims A 0.. turn 192
        3s P claims A 0..                    # it failed there
     3100ms P left A                         -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn a_rebuild_that_gets_no_further_is_given_up() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
       60s A rebuilding 0                      -> *
      119s tick                                -> *
      121s tick                                -> *
      122s fetch 0 started 8                   -> claim told A 0..; claim told A 0..8   # it is fetched
      123s fetch 0 stored 0                    -> *
      124s unwant 1                            -> *
    ",
    );
}

#[test]
fn with_the_last_want_it_ends() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 1 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0.. turn 192; rebuild A by B
        3s unwant 1                          -> stop rebuild A; left told A
    ",
    );
}

#[test]
fn a_patch_that_saves_nothing_is_left_alone() {
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A rebuildable 8 by 8 work 20
        2s want 1 A from app                -> want told A
     2040ms tick                             -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
    run_site(
        "
        0ms P connects                      -> ask P hello
        1s A partly 8: 0 1 2 3 4 5
        1s A rebuildable 8 by 2 work 20
        2s want 1 A from app                -> recall A; want told A 6/8
     2040ms tick                             -> claim told A 6..8; fetch 0 A from app 6..8
    ",
    );
}

#[test]
fn over_a_fast_uplink_a_patch_that_takes_far_longer_is_left_alone_unless_bytes_cost_money() {
    let story = |with: &str| {
        format!(
            "
        0ms P connects                      -> ask P hello
        1s C partly 200: 0
        1s want 7 C from app                -> *
     1500ms fetch 0 started 200              -> *
     1600ms fetch 0 brought 10000000          -> *
     1700ms fetch 0 ended ok                 -> *
     1800ms unwant 7                         -> *
        2s A rebuildable 8 by 1 work 4000
     2500ms tick                             -> *
        3s want 1 A from app                 -> want told A
     3040ms tick                             -> claim told A {with}
    "
        )
    };
    run_site(&story("0..; fetch 1 A from app 0.."));
    let metered = Config { uplink: Uplink { metered: true, ..Uplink::default() }, ..Config::default() };
    run_site_with(metered, &story("0.. turn 192; rebuild A by B"));
}
