//! Stories of a site whose nodes want the same blob at the same time. The common order for blob `A` is P, Q, this node,
//! as the first story shows; the others lean on it.

use std::time::Duration;

use super::{
    super::{
        Config, Limits,
        event::Instant,
        site::{Room, Site, Word},
    },
    script::{blob, peer, run_site, run_site_with},
};

#[test]
fn the_order_for_blob_a() {
    let mut site = Site::default();
    let (now, room) = (Instant::default(), Room { parts: 1, parties: usize::MAX, having_bytes: 0 });
    for name in ["me", "P", "Q"] {
        let until = Instant::from_nanos(1);
        let word = Word {
            sequence: 0,
            overtaken_within: Duration::ZERO,
            origin: true,
            size: None,
            having: None,
            claim: None,
            patience: Duration::ZERO,
            until,
        };
        site.wanted(blob("A"), peer(name), word, now, room);
    }
    let order = |first| site.sorted(&blob("A"), first, |_, _| true);
    assert_eq!(order(0), ["P", "Q", "me"].map(peer));
    let first_for = |first| order(first)[0];
    assert_eq!([1, 2, 34, 64].map(first_for), ["P", "me", "Q", "me"].map(peer));
}

#[test]
fn a_node_alone_asks_the_origin_once_it_has_looked_for_peers_after_its_start() {
    run_site(
        "
        0ms want 1 A from app
      499ms tick
      501ms tick                      -> fetch 0 A from app 0..
      502ms fetch 0 ended notfound    -> A of app failed; want 1 not found
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
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2100ms fetch 0 started 4          -> claim told A 0..4
     2150ms fetch 0 progress
     2200ms fetch 0 stored 0
     3400ms tick
     4800ms tick                       -> claim told A 0..4; want told A 1/4   # nothing came since: the claim is not repeated
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
     2041ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
     2100ms fetch 0 started 4
     2200ms fetch 0 stored 0 1 2 3
     2201ms fetch 0 ended ok           -> complete A
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
        2s Q wants A 0..1/4
        2s want 1 A from app           -> want told A; ask Q hashes A 0..
        2s P claims A 0..4/4              -> fetch 0 A from growing P 0..4
     2100ms fetch 0 started 4
     2200ms fetch 0 stored 0 1
     2300ms P leaves                   -> cancel 0; want told A 2/4
     2301ms fetch 0 ended unreachable
     2400ms tick                       -> claim told A 2..4; fetch 1 A from app 2..4
    ",
    );
}

#[test]
fn words_of_nodes_that_are_not_connected_count_and_a_connection_is_asked_for_where_only_they_have_something() {
    run_site(
        "
        0ms Q connects                -> ask Q hello
        2s P claims A 0..4/4
        2s want 1 A from app          -> want told A; connect P
     2500ms P vouches A 0..4/4
     2501ms tick
        5s tick                       -> *
    ",
    );
}

#[test]
fn a_claim_of_a_node_that_cannot_be_reached_delays_a_want_and_does_not_end_it() {
    run_site(
        "
        0ms Q connects                -> ask Q hello
        2s P claims A 0..4/4
        2s want 1 A from app          -> want told A; connect P
        6s P claims B 0..4/4          -> want told A
        6s want 2 B from app          -> want told B
       10s tick                       -> *
       12s tick                       -> claim told A 0..4; claim told B 0..4; fetch 1 B from app 0..4; claim told A 0..4; announce summary; claim told B 0..4
    ",
    );
}

#[test]
fn what_connected_nodes_have_does_not_wait_for_a_connection_with_others() {
    run_site(
        "
        0ms Q connects                -> ask Q hello
        2s Q wants A 1..2/4 offline
        2s Q vouches A 1..2/4
        2s P wants A 0..1/4 offline
        2s want 1 A from app          -> want told A; ask Q hashes A 1..
    ",
    );
}

#[test]
fn hashes_of_what_is_held_are_offered_also_if_somebody_else_says_some() {
    run_site(
        "
        0ms Q connects                -> ask Q hello
        1s A held 32                  -> *
     1999ms R vouches A 0..1/32 wrongly -> *
        2s P wants A
        2s Q wants A                  -> recall A
        3s A recalled 0 1             -> vouch told A 0..2
        4s A recalled 0 1             # nobody asked for it
      400s P wants A                  -> *
      401s tick                       -> recall A
    ",
    );
}

#[test]
fn a_size_that_somebody_says_does_not_hide_who_holds_the_blob() {
    run_site(
        "
        0ms Q connects                -> ask Q hello
        1s R wants A 0..9/9
        2s want 1 A                   -> want told A offline; connect R
     2100ms Q announces A:8            -> ask Q inventory since 0
     2101ms Q inventory A:8            -> fetch 0 A from Q 0..8
    ",
    );
}

#[test]
fn a_newcomer_does_not_make_an_owner_let_go_whose_pieces_came_without_a_report_of_bytes() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..32/64        -> fetch 0 A from growing P 0..32; claim told A 32..64; fetch 1 A from app 32..64
     2060ms fetch 1 started 64
     2100ms fetch 1 stored 32 33       -> vouch told A 32..34
     2110ms Q wants A
     2130ms tick                       -> claim told A 32..64
    ",
    );
}

#[test]
fn the_last_hashes_are_said_before_the_blob_is_done_also_where_another_took_the_rest_of_the_stripe() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..1/4          -> fetch 0 A from growing P 0..1; claim told A 1..4; fetch 1 A from app 1..4
     2060ms fetch 0 started 4
     2060ms fetch 1 started 4
     2070ms P vouches A 0..1/4         -> expect 0: 0
     2080ms fetch 0 stored 0
     2081ms fetch 0 ended ok
     2090ms P claims A 3..4/4          -> fetch 2 A from growing P 3..4
     2100ms fetch 1 stored 1           -> vouch told A 1..2
     2110ms P vouches A 3..4/4         -> expect 2: 3
     2115ms fetch 2 stored 3
     2116ms fetch 2 ended ok
     2120ms fetch 1 stored 2           -> vouch told A 2..3; cancel 1; complete A
    ",
    );
}

#[test]
fn a_stream_ends_where_its_owners_stripe_does_also_if_that_is_heard_later() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P claims A 0..
        2s want 1 A from app          -> want told A
     2041ms Q wants A 0..0/64 offline  -> fetch 0 A from growing P 0..64
     2042ms P claims A 0..32/64        -> cancel 0; fetch 1 A from growing P 0..32
     2200ms tick                       -> claim told A 32..64; fetch 2 A from app 32..64
    ",
    );
}

#[test]
fn a_stream_whose_owner_has_it_all_does_not_wait_for_hashes() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
     2060ms fetch 0 started 4
     2070ms P vouches A 0..2/4         -> expect 0: 0 1
     2080ms fetch 0 stored 0 1
     2090ms P announces A:4            -> ask P inventory since 0
     2091ms P inventory A:4            -> cancel 0; fetch 1 A from P 2..4
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
     3100ms tick                       -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn of_two_that_claimed_the_later_in_order_stops_and_follows() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2041ms fetch 0 started 4          -> claim told A 0..4
     2042ms fetch 0 stored 0
     2050ms P wants A                  -> vouch told A 0..1
     2051ms P claims A 0..4/4                -> cancel 0; fetch 1 A from growing P 1..4
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
     2010ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
     2011ms P claims A 0..4/4
     2020ms fetch 0 ended unreachable  -> A of P failed
     2100ms tick                       -> claim told A 0.. turn 1; fetch 1 A from app 0..
     2101ms P claims A 0..4/4                # it brought nothing: its word counts for nothing for a while
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
     2300ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
     2400ms unwant 1                   -> cancel 0; left told A
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

#[test]
fn a_blob_comes_in_stripes_each_from_whose_turn_it_is_and_those_of_others_from_upstream() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..34/128       -> fetch 0 A from growing P 0..34
     2042ms P vouches A 0..1/128       -> expect 0: 0
     2043ms Q claims A 34..64/128      -> fetch 1 A from growing Q 34..64; claim told A 64..96; fetch 2 A from app 64..96
     2050ms tick
     2100ms fetch 0 started 128
     2101ms fetch 1 started 128
     2102ms fetch 2 started 128
     2103ms fetch 0 stored 0
     2104ms fetch 2 stored 64          -> vouch told A 64..65
     2200ms P vouches A 1..34/128      -> expect 0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33
     2201ms P claims A 96..128/128     -> fetch 3 A from growing P 96..128
    ",
    );
}

#[test]
fn a_relay_that_sends_what_nobody_vouched_for_is_left_and_named_once_it_is_certain() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2041ms Q claims A 0..4/4          -> fetch 0 A from growing Q 0..4
     2042ms Q vouches A 0..2/4         -> expect 0: 0 1
     2100ms fetch 0 started 4
     2101ms fetch 0 stored 0
     2102ms fetch 0 ended wrong        -> A of Q failed
     2103ms P claims A 1..4/4          -> fetch 1 A from growing P 1..4
     2104ms P vouches A 1..4/4         -> expect 1: 1 2 3
     2105ms fetch 1 stored 1 2 3
     2106ms fetch 1 ended ok           -> complete A
     2107ms A held 4                   -> Q penalised; want 1 ok
    ",
    );
}

#[test]
fn who_says_two_hashes_of_a_piece_or_another_than_the_origin_is_named() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2041ms Q claims A 0..4/4          -> fetch 0 A from growing Q 0..4
     2042ms Q vouches A 0..1/4         -> expect 0: 0
     2043ms Q vouches A 0..1/4 wrongly -> Q penalised; cancel 0
     2100ms tick
     3100ms tick                       -> claim told A 0..4 turn 1; fetch 1 A from app 0..4
     3200ms P vouches A 0..1/4 wrongly
     3201ms fetch 1 started 4
     3300ms fetch 1 stored 0 1         -> P penalised; vouch told A 0..2
    ",
    );
}

#[test]
fn of_two_who_say_different_hashes_neither_is_believed_before_the_origin_told() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A 0..1/1
        2s Q wants A 0..1/1
        2s want 1 A from app           -> want told A; ask P hashes A 0..
     2001ms P hashes A 0..1/1 hearsay  -> fetch 0 A from growing Q 0..1
     2002ms Q vouches A 0..1/1 wrongly
     2003ms fetch 0 started 1
     2004ms fetch 0 ended failed       -> A of Q failed; want told A
     3100ms tick                       -> claim told A 0..1; fetch 1 A from app 0..1
     3101ms fetch 1 started 1
     3102ms fetch 1 stored 0           -> Q penalised; vouch told A 0..1
    ",
    );
}

#[test]
fn a_newcomer_asks_for_the_hashes_of_what_somebody_has() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A 0..3/4
        2s want 1 A from app           -> want told A; ask P hashes A 0..
     2010ms P hashes A 0..1/4          -> fetch 0 A from growing P 0..1; ask P hashes A 1..
     2020ms fetch 0 started 4
     2030ms fetch 0 stored 0
     2031ms fetch 0 ended ok
     2040ms P hashes A nothing
     2100ms tick
    ",
    );
}

#[test]
fn hashes_are_told_to_those_who_ask_and_to_those_who_join() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms A partly 4: 3
        2s want 1 A from app           -> recall A; want told A 1/4
     2001ms A recalled 3
     2040ms tick                       -> claim told A 0..3; fetch 0 A from app 0..3
     2050ms fetch 0 started 4
     2060ms fetch 0 stored 0 1
     2070ms P wants A                  -> vouch told A 0..2
     2080ms P asks hashes A            -> answer hashes 0..2 3..4 hearsay
     2090ms tick                       -> claim told A 0..3
    ",
    );
}

#[test]
fn an_origin_without_ranges_is_asked_by_one_node_for_all_of_it() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..32/128       -> fetch 0 A from growing P 0..32; claim told A 32..64; fetch 1 A from app 32..64
     2100ms tick
     2200ms fetch 1 started 128 whole  -> cancel 1
     3000ms tick
     3010ms P claims A 0..128/128 turn 128 -> fetch 2 A from growing P 32..128
    ",
    );
}

#[test]
fn a_slow_owner_is_relieved_once_nothing_else_is_left() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..32/64        -> fetch 0 A from growing P 0..32; claim told A 32..64; fetch 1 A from app 32..64
     2042ms P vouches A 0..1/64        -> expect 0: 0
     2100ms tick
     2200ms fetch 1 started 64
     2300ms fetch 1 brought 4000000
     2301ms fetch 1 stored 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 -> vouch told A 32..64
     2302ms fetch 1 ended ok
     5000ms P claims A 0..32/64        -> want told A 32/64
     6100ms tick                       -> cancel 0; claim told A 1..32 turn 1; fetch 2 A from app 1..32; fetch 3 A from growing P 0..1
     6200ms P vouches A 1..2/64
     7200ms P claims A 0..32/64
    ",
    );
}

#[test]
fn an_owner_whose_next_piece_is_on_its_way_over_a_slow_uplink_is_not_relieved() {
    run_site(
        "
        0ms P connects                     -> ask P hello
         2s P wants A
         2s want 1 A from app              -> want told A
     2041ms P claims A 0..1/34             -> fetch 0 A from growing P 0..1; claim told A 1..33; fetch 1 A from app 1..33
     2200ms fetch 1 started 34
     2300ms P vouches A 0..1/34            -> expect 0: 0
     2301ms fetch 0 stored 0
     2302ms fetch 0 ended ok
        15s P claims A 33..34/34           -> claim told A 1..33; claim told A 1..33; claim told A 1..33; claim told A 1..33; claim told A 1..33; claim told A 1..33; claim told A 1..33; announce summary; claim told A 1..33; claim told A 1..33; ask P hello; fetch 2 A from growing P 33..34
        18s P claims A 33..34/34           -> claim told A 1..33; claim told A 1..33
    20300ms fetch 1 brought 4000000        -> want told A 1/34
    20301ms fetch 1 stored 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 -> vouch told A 1..33
    20302ms fetch 1 ended ok
        21s P claims A 33..34/34
    ",
    );
}

#[test]
fn who_claims_and_brings_nothing_is_not_waited_for_for_ever() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
        5s P claims A 0..4/4
        8s P claims A 0..4/4           -> *
       11s P claims A 0..4/4           -> *
       14s P claims A 0..4/4           -> *
       17s P claims A 0..4/4           -> *
       20s P claims A 0..4/4           -> *
       23s P claims A 0..4/4           -> *
       26s P claims A 0..4/4           -> cancel 0; claim told A 0..4; fetch 1 A from app 0..4
       29s P claims A 0..4/4           -> claim told A 0..4; claim told A 0..4
       32s P claims A 0..4/4           -> claim told A 0..4; claim told A 0..4; claim told A 0..4
    ",
    );
}

#[test]
fn what_others_want_leaves_room_for_what_this_node_wants() {
    let config = Config { limits: Limits { parts: 1, ..Limits::default() }, ..Config::default() };
    run_site_with(
        config,
        "
        0ms P connects                -> ask P hello
        1s P wants B
        2s want 1 A from app          -> want told A
     2040ms tick                      -> claim told A 0..; fetch 0 A from app 0..
     2100ms fetch 0 started 64        -> claim told A 0..32
     2200ms fetch 0 ended ok          -> claim told A 32..64; fetch 1 A from app 32..64
    ",
    );
}

#[test]
fn an_owner_keeps_its_claim_when_newcomers_make_it_repeat_it_early() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s want 1 A from app          -> want told A
     2040ms tick                      -> claim told A 0..; fetch 0 A from app 0..
     2100ms fetch 0 started 32        -> claim told A 0..32
     2101ms fetch 0 progress
     2110ms P wants A
     2130ms Q wants A                 -> claim told A 0..32
     2150ms tick                      -> claim told A 0..32
    ",
    );
}

#[test]
fn an_owner_keeps_its_claim_as_long_as_pieces_come() {
    let mut story = String::from(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     3100ms tick                      -> claim told A 0..; fetch 0 A from app 0..
     3200ms fetch 0 started 128 whole -> claim told A 0..128 turn 128
    ",
    );
    // For longer than a claim is believed without a piece.
    for piece in 0..40 {
        let at = 4 + piece;
        story.push_str(&format!("{at}s fetch 0 progress -> *\n{at}s fetch 0 stored {piece} -> *\n"));
    }
    story.push_str("44400ms tick -> claim told A 0..128 turn 128\n");
    run_site(&story);
}

#[test]
fn a_newcomer_asks_for_the_hashes_of_what_landed_upstream_before_it_came() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2001ms P claims A 0..32/32 has 0..8 -> fetch 0 A from growing P 8..32; ask P hashes A 0..
     2002ms P hashes A 0..8/32        -> fetch 1 A from growing P 0..8
    ",
    );
}

#[test]
fn who_answers_with_hashes_of_another_blob_is_not_waited_for() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A 0..1/4
        2s want 1 A from app          -> want told A; ask P hashes A 0..
     2010ms P hashes A 0..1/5
     2700ms tick                      -> claim told A 0..4; fetch 0 A from app 0..4
    ",
    );
}

#[test]
fn a_hash_that_was_not_heard_is_asked_for() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2001ms P claims A 0..32/32       -> fetch 0 A from growing P 0..32
     2100ms P vouches A 0..8/32       -> expect 0: 0 1 2 3 4 5 6 7
     2101ms fetch 0 stored 0 1 2 3 4 5 6 7
     2300ms P claims A 0..32/32 has 0..16 -> cancel 0; fetch 1 A from growing P 16..32; ask P hashes A 8..
     2301ms P hashes A 8..16/32       -> fetch 2 A from growing P 8..16
    ",
    );
}

#[test]
fn an_origin_without_ranges_may_send_again_what_is_there() {
    run_site(
        "
        0ms P connects                -> ask P hello
        1s A partly 8: 0 1
        2s want 1 A from app          -> recall A; want told A 2/8
     2040ms tick                      -> claim told A 2..8; fetch 0 A from app 2..8
     2050ms fetch 0 started 8 whole   -> cancel 0; claim told A 0..8 turn 128; fetch 1 A from app 2..8
     2060ms fetch 1 started 8 whole
     2070ms fetch 1 stored 2 3 4 5 6 7
     2071ms fetch 1 ended ok          -> complete A
    ",
    );
}

#[test]
fn a_question_about_hashes_that_waits_for_another_is_asked_after_it() {
    run_site(
        "
        0ms P connects                -> ask P hello
        1s P wants A 0..1/4
        1s P wants B 0..1/4
        2s want 1 A from app          -> want told A; ask P hashes A 0..
        2s want 2 B from app          -> want told B
     2001ms P hashes A 0..1/4          -> fetch 0 A from growing P 0..1; ask P hashes B 0..
    ",
    );
}

#[test]
fn a_slow_owner_that_another_relieved_is_not_relieved_again() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s want 1 A from app          -> want told A
     2041ms P claims A 0..32/64        -> fetch 0 A from growing P 0..32; claim told A 32..64; fetch 1 A from app 32..64
     2042ms P vouches A 0..1/64        -> expect 0: 0
     2100ms tick
     2200ms fetch 1 started 64
     2300ms fetch 1 brought 4000000
     2301ms fetch 1 stored 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 -> vouch told A 32..64
     2302ms fetch 1 ended ok
     2303ms fetch 0 started 64
     2304ms fetch 0 stored 0
     5000ms P claims A 0..32/64        -> *
     5900ms Q claims A 1..32/64 turn 1 -> cancel 0; fetch 2 A from growing Q 1..32
     6200ms tick                      -> *
     7100ms tick
     7101ms Q vouches A 1..2/64 -> expect 2: 1
     7102ms Q vouches A 2..3/64 -> expect 2: 2
    ",
    );
}

#[test]
fn who_waited_in_vain_itself_is_asked_again_once_it_has_what_it_waited_for() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A
        2s R claims A 0..4/8
        2s want 1 A from app          -> want told A; fetch 0 A from growing P 0..4
     2001ms R vouches A 0..4/8        -> expect 0: 0 1 2 3
     2002ms fetch 0 started 8
    11900ms tick                      -> *
    12500ms tick                      -> cancel 0; A of P stalled; connect R; claim told A 4..8
    12600ms P wants A 1..4/8
    12700ms P wants A 0..4/8          -> fetch 2 A from growing P 0..4
    ",
    );
}

#[test]
fn who_does_not_send_what_it_has_is_not_asked_again_for_having_more() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A 0..4/8
        2s want 1 A from app          -> want told A; ask P hashes A 0..
     2001ms P hashes A 0..4/8         -> fetch 0 A from growing P 0..4
     2002ms fetch 0 started 8
    11900ms tick                      -> *
    12500ms tick                      -> cancel 0; A of P stalled
    12600ms P wants A 0..5/8
    ",
    );
}

#[test]
fn who_does_not_have_what_it_says_that_it_has_is_not_believed_for_a_while() {
    run_site(
        "
        0ms P connects                -> ask P hello
        2s P wants A 0..4/8
        2s want 1 A from app          -> want told A; ask P hashes A 0..
     2001ms P hashes A 0..4/8         -> fetch 0 A from growing P 0..4
     2002ms fetch 0 ended notfound    -> A of P failed
     2003ms P claims A 4..8/8 has 0..4
     3100ms tick                      -> claim told A 0.. turn 1; fetch 1 A from app 0..
    ",
    );
}

#[test]
fn a_stream_that_brings_nothing_is_left_once_more_hold_the_blob_than_want_it() {
    run_site(
        "
        0ms P connects                  -> ask P hello
        0ms Q connects                  -> ask Q hello
        0ms R connects                  -> ask R hello
        2s want 1 A from app            -> want told A
     2010ms P claims A 0..4/4           -> fetch 0 A from growing P 0..4
     2100ms Q announces A:4             -> ask Q inventory since 0
     2101ms Q inventory A:4
     3200ms tick                                             # one holds it, and P wants it: they may all come
     3201ms R announces A:4             -> ask R inventory since 0
     3202ms R inventory A:4             -> cancel 0; fetch 1 A from Q 0..4
    ",
    );
}

#[test]
fn where_all_fetches_are_taken_the_last_that_waits_makes_way_for_what_comes_earlier() {
    let config = Config { fetches_per_transfer: 1, ..Config::default() };
    run_site_with(
        config,
        "
        0ms P connects                  -> ask P hello
        0ms Q connects                  -> ask Q hello
        2s want 1 A from app            -> want told A
     2010ms Q claims A 32..64/64        -> fetch 0 A from growing Q 32..64
     2011ms P claims A 0..32/64
     3100ms tick                        -> cancel 0; fetch 1 A from growing P 0..32
     4200ms tick                                             # nothing comes before it
    ",
    );
}

#[test]
fn who_waits_for_what_others_have_is_left_for_them_and_not_asked_again_before_it_has_it() {
    run_site(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s R claims A 0..4/8
        2s want 1 A from app          -> want told A; fetch 0 A from growing P 0..4
     2001ms R vouches A 0..4/8        -> expect 0: 0 1 2 3
     2002ms fetch 0 started 8
     2003ms R claims A 4..8/8         -> fetch 1 A from growing P 4..8
     3000ms Q wants A 0..4/8
     6500ms tick                      -> cancel 0; cancel 1; fetch 2 A from growing Q 0..4; claim told A 4..8; fetch 3 A from app 4..8
    ",
    );
}
