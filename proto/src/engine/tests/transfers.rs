//! Stories of wants and fetches.

use std::time::Duration;

use super::script::{run, run_with};
use crate::engine::{Config, Limits};

#[test]
fn from_the_origin_to_the_announcement() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory
        3ms want 1 A from app         -> fetch 0 A from app 0..
        4ms fetch 0 started 3
        5ms fetch 0 stored 0 1
        6ms fetch 0 stored 2
        7ms fetch 0 ended ok          -> complete A
        8ms A held 3                  -> want 1 ok
       30ms tick                      -> announce since 0: A:3
       31ms want 2 A                  -> want 2 ok
    ");
}

#[test]
fn peers_are_asked_in_the_order_in_which_they_were_heard_of() {
    run("
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        1ms Q hello                   -> ask Q inventory since 0
        2ms Q inventory A:2
        3ms P hello                   -> ask P inventory since 0
        4ms P inventory A:2
        5ms want 1 A from app         -> fetch 0 A from Q 0..2
        6ms fetch 0 ended failed      -> A of Q failed; fetch 1 A from P 0..2
        7ms fetch 1 ended failed      -> A of P failed; fetch 2 A from app 0..
    ");
}

#[test]
fn a_failed_fetch_goes_on_at_the_next_source_with_what_is_missing() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:5
        3ms want 1 A from app         -> fetch 0 A from P 0..5
        4ms fetch 0 started 5
        5ms fetch 0 stored 0 1 3
        6ms fetch 0 ended unreachable -> A of P failed; fetch 1 A from app 2..3
        7ms fetch 1 started 5
        8ms fetch 1 ended ok          -> fetch 2 A from app 4..5
        9ms fetch 0 stored 4                           # a late word of a fetch that is over
       10ms fetch 2 ended unreachable -> A of app failed; origin away
    ");
}

#[test]
fn the_reader_nearest_to_the_start_is_served_first() {
    run("
        0ms A partly 6: 2 3
        1ms want 1 A from app          -> recall A; fetch 0 A from app 0..2
        2ms reader 1 4
        3ms want 2 A from app
        4ms reader 2 5
        5ms fetch 0 ended failed      -> A of app failed
       10s unwant 1                   -> fetch 1 A from app 4..6
    ");
}

#[test]
fn wants_of_one_blob_share_its_transfer_and_the_last_one_to_go_stops_it() {
    run("
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms want 2 A from app
        2ms fetch 0 started 4
        3ms fetch 0 stored 0
        4ms unwant 1
        5ms unwant 2                  -> cancel 0
        6ms fetch 0 stored 1                           # too late: it is fetched again, the store knows better
        7ms want 3 A from app          -> recall A; fetch 1 A from app 1..4
        8ms fetch 1 ended ok          -> complete A
        9ms unwant 3                                   # the store is at it, so it is had all the same
       10ms A held 4
       11ms want 4 A                  -> want 4 ok
    ");
}

#[test]
fn what_nobody_can_have_is_refused_soon() {
    run("
        0ms want 1 A                  -> want 1 unavailable
        1ms want 2 A from app         -> fetch 0 A from app 0..
        2ms fetch 0 ended notfound    -> A of app failed; want 2 not found
        3ms want 3 A from app         -> fetch 1 A from app 0..
        4ms fetch 1 ended unauthorized -> A of app failed; want 3 unauthorized
        5ms want 4 A from app         -> fetch 2 A from app 0..
        6ms fetch 2 ended store       -> A of app failed; want 4 cannot be stored
        7ms want 5 A from app         -> fetch 3 A from app 0..
        8ms fetch 3 ended busy 30     -> A of app failed; want 5 unavailable
    ");
}

#[test]
fn sources_that_may_recover_are_tried_again_for_five_seconds_if_nothing_ever_came() {
    let config = Config { retry_first: Duration::from_secs(2), ..Config::default() };
    run_with(
        config,
        "
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms fetch 0 ended failed      -> A of app failed
     2600ms tick                      -> fetch 1 A from app 0..
     2601ms fetch 1 ended failed      -> A of app failed; want 1 unavailable
    ",
    );
}

#[test]
fn a_reader_that_has_got_a_part_is_not_let_down_for_a_minute() {
    let config =
        Config { retry_first: Duration::from_secs(20), retry_max: Duration::from_secs(20), ..Config::default() };
    run_with(
        config,
        "
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms fetch 0 started 2
        2ms fetch 0 stored 0
        3ms fetch 0 ended failed      -> A of app failed
       26s tick                       -> fetch 1 A from app 1..2
       26s fetch 1 ended failed       -> A of app failed
       52s tick                       -> fetch 2 A from app 1..2
       52s fetch 2 ended failed       -> A of app failed; want 1 unavailable
       53s want 2 A from app           -> recall A; fetch 3 A from app 1..2
    ",
    );
}

#[test]
fn a_new_holder_wakes_a_transfer_that_waits() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory
        3ms want 1 A from app         -> fetch 0 A from app 0..
        4ms fetch 0 ended unreachable -> A of app failed; origin away
        5ms P announces A:2           -> fetch 1 A from P 0..2
        6ms fetch 1 ended notfound    -> A of P failed
        7ms P announces -A
        8ms P announces A:2           -> fetch 2 A from P 0..2
    ");
}

#[test]
fn an_origin_that_hangs_is_not_given_all_its_time_for_each_blob() {
    run("
        0ms want 1 A from app          -> fetch 0 A from app 0..
       30s tick                        -> cancel 0; A of app stalled; origin away; want 1 unavailable
       31s want 2 B from app           -> fetch 1 B from app 0..
       34s tick                        -> cancel 1; B of app stalled
       38s tick                        -> fetch 2 B from app 0..; cancel 2; B of app stalled; want 2 unavailable
       39s want 3 C from app           -> fetch 3 C from app 0..
       40s fetch 3 started 2           -> origin back
       69s tick
       70s tick                        -> cancel 3; C of app stalled; origin away; want 3 unavailable
    ");
}

#[test]
fn a_stalled_fetch_is_cancelled_and_what_it_says_later_is_ignored() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:2
        3ms want 1 A from app         -> fetch 0 A from P 0..2
       9s fetch 0 started 2
       18s fetch 0 progress           -> announce summary
       27s fetch 0 progress
       38s tick                       -> cancel 0; A of P stalled; fetch 1 A from app 0..
       39s fetch 0 ended ok
       66s tick
       67s tick                       -> cancel 1; A of app stalled; origin away; want 1 unavailable
    ");
}

#[test]
fn a_peer_that_alone_supplied_wrong_bytes_is_penalised() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:2 B:2
        3ms want 1 A from app         -> fetch 0 A from P 0..2
        4ms fetch 0 started 2
        5ms fetch 0 stored 0 1 wrongly
        5ms fetch 0 ended ok          -> complete A
        6ms A wrong                    -> A of P failed; P penalised; drop A: 0 1; fetch 1 A from app 0..2
        7ms fetch 1 started 2
        8ms fetch 1 stored 0 1 wrongly
        8ms fetch 1 ended ok          -> complete A
        9ms A wrong                    -> A of app failed; drop A: 0 1; want 1 unavailable
       10ms want 2 B from app         -> fetch 2 B from app 0..   # P is not asked
       11s fetch 2 ended notfound     -> B of app failed; want 2 not found
      601s want 3 B                   -> announce summary; fetch 3 B from P 0..2
      601s fetch 3 ended wrong        -> B of P failed; P penalised; want 3 unavailable
    ");
}

#[test]
fn what_a_peer_supplied_is_compared_with_the_origin_before_the_origin_is_found_wrong() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:2
        3ms want 1 A from app         -> fetch 0 A from P 0..2
        4ms fetch 0 started 2
        5ms fetch 0 stored 0
        6ms fetch 0 ended failed      -> A of P failed; fetch 1 A from app 1..2
        7ms fetch 1 stored 1
        7ms fetch 1 ended ok          -> complete A
        8ms A wrong                    -> drop A: 0; fetch 2 A from app 0..1
        9ms fetch 2 stored 0
       10ms fetch 2 ended ok          -> A of app failed; drop A: 0 1   # all of it is the origin's
        1s tick                        -> fetch 3 A from P 0..2
    ");
}

#[test]
fn of_several_peers_that_supplied_wrong_bytes_one_is_asked_for_all_of_it() {
    run("
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        1ms Q hello                   -> ask Q inventory since 0
        2ms Q inventory A:2
        3ms P hello                   -> ask P inventory since 0
        4ms P inventory A:2
        5ms want 1 A                  -> fetch 0 A from Q 0..2
        6ms fetch 0 started 2
        7ms fetch 0 stored 0
        8ms fetch 0 ended unreachable -> A of Q failed; fetch 1 A from P 1..2
        9ms fetch 1 stored 1 wrongly
        9ms fetch 1 ended ok          -> complete A
       10ms A wrong                    -> A of P failed; drop A: 1   # and Q was away just now
        1s tick                        -> fetch 2 A from Q 1..2
    ");
}

#[test]
fn pieces_that_the_store_lost_are_fetched_again() {
    run("
        0ms A partly 4: 0 1
        1ms want 1 A from app          -> recall A; fetch 0 A from app 2..4
        2ms fetch 0 started 4
        3ms fetch 0 stored 2
        4ms A partly 4: 0                              # said before it had 2
        5ms fetch 0 ended ok          -> fetch 1 A from app 1..2
        6ms fetch 1 started 4
        7ms fetch 1 ended ok          -> complete A
        8ms A partly 4: 0 1 3
        9ms A unstorable              -> fetch 2 A from app 2..3
       10ms unwant 1                  -> cancel 2
       11ms A partly 4: 1 3                            # also when nobody wants it
       12ms want 2 A from app          -> recall A; fetch 3 A from app 0..1
    ");
}

#[test]
fn a_store_that_goes_on_losing_pieces_is_given_up() {
    run_with(
        Config { losses_max: 1, ..Config::default() },
        "
        0ms A partly 2: 0 1
        1ms want 1 A from app          -> recall A; complete A
        2ms A partly 2: 0
        3ms A unstorable              -> fetch 0 A from app 1..2
        4ms fetch 0 started 2
        5ms fetch 0 ended ok          -> complete A
        6ms A partly 2: 0
        7ms A unstorable              -> want 1 cannot be stored
    ",
    );
}

#[test]
fn wrong_pieces_from_before_the_start_are_nobodys_fault() {
    run("
        0ms A partly 2: 0
        1ms want 1 A from app          -> recall A; fetch 0 A from app 1..2
        2ms fetch 0 ended ok          -> complete A
        3ms A wrong                    -> drop A: 0 1; fetch 1 A from app 0..2
    ");
}

#[test]
fn a_blob_whose_pieces_are_all_there_is_completed_without_a_fetch() {
    run("
        0ms A partly 2: 0 1
        1ms want 1 A                   -> recall A; complete A
        2ms A unstorable              -> want 1 cannot be stored
        3ms want 2 A                   -> recall A; complete A
      904s tick                       -> want 2 cannot be stored
    ");
}

#[test]
fn a_peer_that_contradicts_the_size_is_passed_over() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:9 B:9
        3ms want 1 A from app         -> fetch 0 A from P 0..9
        4ms fetch 0 started 8         -> cancel 0; A of P failed; fetch 1 A from app 0..
        5ms fetch 1 started 2
        6ms fetch 1 stored 0
        7ms fetch 1 ended failed      -> A of app failed   # P is not asked: it means another blob
        8ms B partly 2: 0
        9ms want 2 B from app          -> recall B; fetch 2 B from app 1..2
       10ms fetch 2 started 5                              # the origin knows best
       11ms fetch 2 ended ok          -> fetch 3 B from app 0..1
    ");
}

#[test]
fn an_origin_that_is_away_is_asked_last_but_asked() {
    run("
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms fetch 0 ended unreachable -> A of app failed; origin away
        2ms unwant 1
        3ms promise 1 A B             -> promised 1 without A B
        4ms B held 1
        5ms promise 2 A B             -> promised 2 without A
        6ms want 2 A from app         -> fetch 1 A from app 0..
        7ms fetch 1 started 1         -> origin back
        8ms promise 3 A B             -> promised 3 without
    ");
}

#[test]
fn a_damaged_blob_is_withdrawn_and_only_the_bad_piece_is_fetched() {
    run("
        0ms A held 4
        0ms P connects                -> ask P hello
       25ms tick                      -> announce since 0: A:4
       30ms P hello                   -> ask P inventory since 0
       31ms P inventory A:4           
       32ms A lost
       33ms A partly 4: 0 1 3
       34ms want 1 A                   -> recall A; fetch 0 A from P 2..3
       60ms tick                      -> announce since 1: -A
    ");
}

#[test]
fn the_store_may_say_how_large_a_blob_is_before_its_source_does() {
    run("
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms A partly 4: 0 1
        2ms fetch 0 ended ok          -> complete A        # and no walk through all pieces there could be
    ");
}

#[test]
fn a_peer_that_lacks_what_it_announced_is_asked_once() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:2
        3ms want 1 A                  -> fetch 0 A from P 0..2
        4ms fetch 0 ended notfound    -> A of P failed; want 1 unavailable
        5ms want 2 A                  -> want 2 unavailable
        6ms P announces A:2
        7ms want 3 A                  -> fetch 1 A from P 0..2
    ");
}

#[test]
fn a_source_that_breaks_off_within_every_piece_is_given_up() {
    let retry = Duration::from_secs(2);
    let config = Config { rounds_max: 1, retry_first: retry, retry_max: retry, ..Config::default() };
    run_with(
        config,
        "
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms fetch 0 started 1
        2ms fetch 0 progress
        3ms fetch 0 ended failed      -> A of app failed
        3s tick                       -> fetch 1 A from app 0..
        3s fetch 1 progress
        3s fetch 1 ended failed       -> A of app failed; want 1 unavailable
    ",
    );
}

#[test]
fn over_the_limits_wants_are_refused() {
    let limits = Limits { transfers: 1, wants: 2, origins_per_transfer: 1, ..Limits::default() };
    run_with(
        Config { limits, ..Config::default() },
        "
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms want 2 B from app         -> want 2 busy
        2ms want 3 A from other       -> limit origins_per_transfer
        3ms want 4 A from app         -> want 4 busy
        4ms unwant 3
        5ms want 5 A from app
    ",
    );
}

#[test]
fn several_holders_share_a_large_blob_and_a_slow_one_is_relieved_in_the_end() {
    run("
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        1ms Q hello                   -> ask Q inventory since 0
        2ms Q inventory A:80
        3ms P hello                   -> ask P inventory since 0
        4ms P inventory A:80
        5ms want 1 A from app          -> fetch 0 A from Q 0..40; fetch 1 A from P 40..72
      100ms fetch 0 started 80
      100ms fetch 1 started 80
      600ms fetch 0 brought 4194304
      600ms fetch 0 ended ok           -> fetch 2 A from Q 72..80
      601ms fetch 1 brought 20000
     1200ms fetch 2 brought 1048576
     1201ms fetch 2 ended ok           -> cancel 1; A of P failed; fetch 3 A from Q 40..72
     2200ms fetch 1 brought 20000
     3300ms tick
    ");
}

#[test]
fn a_source_that_trickles_stalls_and_a_slow_disk_does_not() {
    run("
        0ms want 1 A from app         -> fetch 0 A from app 0..
        1ms fetch 0 started 2
       10s fetch 0 brought 5000
       20s fetch 0 busy
       40s fetch 0 brought 5000
       51s tick                        -> cancel 0; A of app stalled; origin away; want 1 unavailable
    ");
}

#[test]
fn a_peer_that_says_a_blob_is_empty_which_is_not_does_not_end_its_transfer() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory A:0
        3ms want 1 A from app         -> fetch 0 A from P 0..1
        4ms fetch 0 started 0         -> cancel 0; A of P failed; fetch 1 A from app 0..
        5ms fetch 1 started 3
        6ms fetch 1 ended ok          -> complete A
    ");
}
