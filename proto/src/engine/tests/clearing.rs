//! Stories of nodes that ask a blob's keeper before they claim what others may fetch. The common order for blob `A` is P, Q, this
//! node (`sites.rs`).

use super::script::run_kept;

#[test]
fn whoever_hears_of_nobody_asks_the_keeper_first_and_goes_on_if_it_says_so() {
    run_kept(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> ask P claim A 0..
     2041ms P says A free              -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn what_is_taken_is_waited_for_and_then_fetched_whatever_the_keeper_says() {
    run_kept(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> ask P claim A 0..
     2041ms P says A taken
     2500ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
     2600ms fetch 0 started 4
     2700ms P leaves                   -> cancel 0; fetch 1 A from app 0..4
    ",
    );
    run_kept(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> ask P claim A 0..
     2041ms P says A taken
     6040ms tick
     6042ms tick                       -> ask P claim A 0..
     6050ms P says A taken
    10040ms tick                       -> *
    10051ms tick                       -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn a_keeper_that_does_not_answer_or_fails_is_not_waited_for() {
    run_kept(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> ask P claim A 0..
     2050ms P ignores A                -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
    run_kept(
        "
        0ms P connects                -> ask P hello
        2s want 1 A from app          -> want told A
     2040ms tick                       -> ask P claim A 0..
     6030ms tick
     6041ms tick                       -> claim told A 0..; fetch 0 A from app 0..
    ",
    );
}

#[test]
fn the_keeper_itself_asks_nobody_and_lets_one_of_two_go_on() {
    run_kept(
        "
        0ms R connects                -> ask R hello
        0ms Q connects                -> ask Q hello
        2s R asks claim A 0..         -> answer R free
     2010ms Q asks claim A 0..         -> answer Q taken
     2020ms R asks claim A 0..         -> answer R free
        7s Q asks claim A 0..         -> answer Q free     # nothing was heard of R's claim for a lease
    ",
    );
}

#[test]
fn the_next_in_order_asks_before_it_passes_over_the_first() {
    run_kept(
        "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q claims A 0..4/8
        2s want 1 A from app          -> want told A; fetch 0 A from growing Q 0..4
     2010ms fetch 0 started 8
     2600ms tick
     2700ms tick                       -> ask P claim A 4..8
     3300ms P says A taken
     3400ms P claims A 4..8/8          -> fetch 1 A from growing P 4..8
    ",
    );
}
