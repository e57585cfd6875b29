//! Stories of a site whose nodes want the same blob at the same time. The common order for blob `A` is P, Q, this node,
//! as the first story shows; the others lean on it.

use super::{
    super::{event::Instant, site::Site},
    script::{blob, peer, run_site},
};

#[test]
fn the_order_for_blob_a() {
    let mut site = Site::default();
    let later = Instant::from_nanos(1);
    for name in ["me", "P", "Q"] {
        site.wanted(blob("A"), peer(name), (true, 0), later, 1);
    }
    let order = site.candidates(&blob("A"), Instant::default(), |_| true);
    assert_eq!(order, ["P", "Q", "me"].map(peer));
}

#[test]
fn a_node_alone_asks_the_origin_once_it_has_looked_for_peers_after_its_start() {
    run_site(
        "
        0ms want 1 A from app
      999ms tick
     1001ms tick                      -> fetch 0 A from app 0..
     1002ms fetch 0 ended notfound    -> A of app failed; want 1 not found
        5s want 2 A from app          -> fetch 1 A from app 0..
    ",
    );
}

#[test]
fn the_first_in_order_claims_before_it_asks_and_repeats_it_while_bytes_come() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                      -> claim told A; fetch 0 A from app 0..
     2100ms fetch 0 started 4
     2200ms fetch 0 stored 0
     3400ms tick                      -> claim told A
     4800ms tick                      -> want told A 1      # nothing came since: the claim is not repeated
    ",
    );
}

#[test]
fn those_after_the_first_take_what_lands_there() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2040ms tick
     2041ms P claims A                -> fetch 0 A from growing P 0..
     2100ms fetch 0 started 4
     2200ms fetch 0 stored 0 1 2 3
     2201ms fetch 0 ended ok          -> complete A
     2202ms A held 4                  -> want 1 ok
     2300ms tick                      -> announce since 0: A:4
    ",
    );
}

#[test]
fn an_owner_that_leaves_is_followed_by_whoever_has_most_and_nothing_comes_twice() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s Q wants A 1
        2s want 1 A from app          -> want told A
        2s P claims A                 -> fetch 0 A from growing P 0..
     2100ms fetch 0 started 4
     2200ms fetch 0 stored 0 1
     2300ms P leaves
     2301ms fetch 0 ended unreachable -> A of P failed; want told A 2
     2400ms tick                      -> claim told A; fetch 1 A from app 2..4
    ",
    );
}

#[test]
fn a_turn_that_is_not_taken_passes_to_the_next() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2900ms tick
     3100ms tick                      -> claim told A; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn of_two_that_claimed_the_later_in_order_stops_and_follows() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                      -> claim told A; fetch 0 A from app 0..
     2041ms fetch 0 started 4
     2042ms fetch 0 stored 0
     2050ms P wants A                 -> claim told A
     2051ms P claims A                -> cancel 0; fetch 1 A from growing P 1..4
    ",
    );
}

#[test]
fn an_owner_without_bytes_is_not_waited_for_for_long() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2010ms P claims A                -> fetch 0 A from growing P 0..
     2011ms P claims A
     2020ms fetch 0 ended unreachable -> A of P failed; want told A
     2100ms tick                      -> claim told A; fetch 1 A from app 0..
     2101ms P claims A                # it brought nothing: its word counts for nothing for a while
    ",
    );
}

#[test]
fn who_cannot_reach_the_origin_waits_for_those_who_can() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s want 1 A                   -> want told A offline
     2010ms P wants A
     2040ms tick
     2300ms P claims A                -> fetch 0 A from growing P 0..
     2400ms unwant 1                  -> cancel 0; left told A
    ",
    );
}

#[test]
fn what_another_could_ask_the_origin_for_is_promised() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s resolve 1 v1               -> ask origin 0 v1
     2100ms origin 0 fails unreachable -> origin away; resolved 1 unavailable
     2200ms promise 1 A               -> promised 1 without A
     2300ms P wants B
     2400ms promise 2 A               -> promised 2 without
     2500ms P wants B offline
     2600ms promise 3 A               -> promised 3 without A
    ",
    );
}
