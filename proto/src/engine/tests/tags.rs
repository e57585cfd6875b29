//! Stories of tags. The order of keepers of `v1` is `R`, `P`, `me`, `Q`.

use std::time::Duration;

use super::script::{run, run_with};
use crate::engine::{
    Config, Limits,
    tags::{TagPolicy, TagRule, TagRules},
};

#[test]
fn the_origin_is_asked_once_in_a_while() {
    run("
        0ms resolve 1 v1              -> ask origin 0 v1
        1ms resolve 2 v1
        2ms origin 0 says A@1000      -> remember v1=A; resolved 1 A by origin; resolved 2 A by origin
    60001ms resolve 3 v1              -> resolved 3 A by me, fresh
    60002ms resolve 4 v1              -> ask origin 1 v1
    60003ms origin 1 says B@1060      -> remember v1=B; resolved 4 B by origin
    ");
}

#[test]
fn peers_are_told_what_the_origin_said() {
    run("
        0ms P connects                -> ask P hello
        1ms resolve 1 v1              -> ask origin 0 v1   # nobody is known well enough to be asked
        3ms origin 0 says A@1000      -> remember v1=A; resolved 1 A by origin
       50ms tick                      -> announce since 0: v1=A
       51ms P asks inventory anew     -> answer inventory from start v1=A until 1
    ");
}

#[test]
fn a_keeper_that_heard_it_is_asked_instead_of_the_origin() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory
        3ms resolve 1 v1              -> ask P tag v1
        4ms P says tag v1=A@1000~5    -> remember v1=A; resolved 1 A by P, fresh
       24ms tick                      -> announce since 0: v1=A   # P may be gone tomorrow
       25ms resolve 2 v1              -> resolved 2 A by P, fresh
    ");
}

#[test]
fn whoever_the_keeper_lets_ask_tells_it_what_it_heard() {
    run("
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms resolve 1 v1              -> ask R tag v1
        4ms resolve 2 v1
        5ms R says tag ask            -> ask origin 0 v1
        6ms origin 0 says A@1000      -> remember v1=A; tell R v1 v1=A~0; resolved 1 A by origin; resolved 2 A by origin
       26ms tick                      -> announce since 0: v1=A
    ");
}

#[test]
fn a_keeper_holds_all_but_one() {
    run("
        0ms P connects                -> ask P hello
        1ms Q connects                -> ask Q hello
        2ms P asks tag v1             -> answer P tag ask
        3ms Q asks tag v1
        4ms resolve 1 v1
      303ms tick                      -> answer Q tag wait
      304ms Q asks tag v1
      305ms P heard v1 v1=A@1000~1    -> noted; answer Q tag v1=A~1 of P; remember v1=A; resolved 1 A by P, fresh
      325ms tick                      -> announce since 0: v1=A
      400ms Q asks tag v1             -> answer Q tag v1=A~1 of P
    ");
}

#[test]
fn whoever_may_ask_and_says_nothing_or_leaves_is_passed_over() {
    run("
        0ms P connects                -> ask P hello
        1ms Q connects                -> ask Q hello
        2ms P asks tag v1             -> answer P tag ask
     1900ms Q asks tag v1
     2002ms tick                      -> answer Q tag ask
     2003ms Q heard v1 ask            -> noted             # the origin refuses it
     2004ms P asks tag v1             -> answer P tag ask
     2005ms P leaves
     2006ms Q asks tag v1             -> answer Q tag ask
     2007ms resolve 1 v1
     2008ms Q leaves                  -> ask origin 2 v1
    ");
}

#[test]
fn questions_run_together_along_a_chain_of_keepers() {
    run("
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms Q connects                -> ask Q hello
        4ms Q asks tag v1             -> ask R tag v1
        5ms R says tag ask            -> answer Q tag ask
        6ms Q heard v1 v1=A@1000~0    -> noted; tell R v1 v1=A~0 of Q
    ");
}

#[test]
fn a_keeper_that_does_not_answer_is_passed_over() {
    run("
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms P connects                -> ask P hello
        4ms P hello                   -> ask P inventory since 0
        5ms P inventory
        6ms resolve 1 v1              -> ask R tag v1
      506ms tick                      -> ask P tag v1
      507ms P ignores tag             -> ask origin 0 v1
      508ms origin 0 fails unreachable -> origin away; resolved 1 unavailable
     1508ms tick                      -> ask origin 1 v1   # whether it is back
     1509ms origin 1 says A@1000      -> origin back; remember v1=A
     1529ms tick                      -> announce since 0: v1=A
    ");
}

#[test]
fn an_origin_that_is_away_is_stood_in_for_at_once_until_it_is_back() {
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
        2ms origin 0 fails unreachable -> origin away; resolved 1 A by me
        3ms resolve 2 v1              -> resolved 2 A by me
     1002ms tick                      -> ask origin 1 v1
     1003ms resolve 3 v1              -> resolved 3 A by me
     1004ms origin 1 fails ill
     3004ms tick                      -> ask origin 2 v1
     3005ms origin 2 says B@1010      -> origin back; remember v1=B
     3006ms resolve 4 v1              -> resolved 4 B by me, fresh
    ");
}

#[test]
fn what_a_peer_knows_stands_in_for_an_ill_origin_and_is_kept() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory v1=A@1000
        3ms resolve 1 v1              -> ask P tag v1
        4ms P says tag ask            -> ask origin 0 v1
        5ms origin 0 fails ill        -> origin away; tell P v1 away; remember v1=A; resolved 1 A by P
        6ms P leaves
        7ms resolve 2 v1              -> resolved 2 A by P
    ");
}

#[test]
fn a_slow_origin_is_waited_for_no_longer_than_is_needed() {
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
     1400ms tick
     1401ms tick                      -> origin away; resolved 1 A by me
     1502ms resolve 2 v1              -> resolved 2 A by me
     9000ms origin 0 says B@2000      -> origin back; remember v1=B   # late, but kept
    ");
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
     1401ms tick                      -> origin away; resolved 1 A by me
    10001ms tick
    11000ms resolve 2 v1              -> resolved 2 A by me
    12001ms tick                      -> ask origin 1 v1
    12002ms origin 1 says B@2000      -> origin back; remember v1=B
    ");
}

#[test]
fn a_slow_origin_is_waited_for_as_long_by_whoever_is_held() {
    run("
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms known v1=A@1000
        4ms resolve 1 v1              -> ask R tag v1
       23ms tick                      -> announce since 0: v1=A
      300ms R says tag wait           -> ask R tag v1
      700ms R says tag wait           -> ask R tag v1
     1100ms R says tag wait           -> ask R tag v1
     1404ms tick                      -> origin away; resolved 1 A by me
     1505ms resolve 2 v1              -> resolved 2 A by me
    ");
}

#[test]
fn the_keeper_may_say_that_the_origin_is_away() {
    run("
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms known v1=A@1000
        4ms resolve 1 v1              -> ask R tag v1
        5ms R says tag away           -> origin away; resolved 1 A by me
        6ms resolve 2 v1              -> resolved 2 A by me
       23ms tick                      -> announce since 0: v1=A
     1005ms tick                      -> ask origin 1 v1   # it believes its own eyes
     1006ms origin 1 says A@1001      -> origin back; remember v1=A
    ");
}

#[test]
fn nobody_waits_for_long_for_an_origin_that_is_known_to_be_away() {
    run("
        0ms resolve 1 v2              -> ask origin 0 v2
       10s  tick                      -> origin away; resolved 1 unavailable
    10001ms resolve 2 v2              -> ask origin 1 v2
    13001ms tick                      -> resolved 2 unavailable
    ");
}

#[test]
fn what_the_origin_says_of_one_tag_is_not_papered_over_and_does_not_make_it_away() {
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
        2ms origin 0 fails notfound   -> resolved 1 not found
        3ms resolve 2 v1              -> ask origin 1 v1
        4ms origin 1 fails unauthorized -> resolved 2 unauthorized
        5ms resolve 3 v1              -> ask origin 2 v1
        6ms origin 2 fails failed     -> resolved 3 A by me
        7ms resolve 4 v1              -> ask origin 3 v1
        8ms origin 3 fails busy 3     -> resolved 4 A by me
        9ms resolve 5 v1              -> resolved 5 A by me   # it asked for it
     3008ms resolve 6 v1              -> ask origin 4 v1
    ");
}

#[test]
fn a_signed_release_says_what_a_tag_stands_for_while_the_origin_is_away() {
    run("
        0ms known v1=A@1000
        1ms signed v1=B
        2ms resolve 1 v1              -> ask origin 0 v1   # which is asked first
        3ms origin 0 fails unreachable -> origin away; resolved 1 B by a release
        4ms signed v2=C
        5ms resolve 2 v1              -> resolved 2 A by me
        6ms resolve 3 v2              -> resolved 3 C by a release
    ");
}

fn with_rule(policy: TagPolicy, fresh_for_s: u64, story: &str) {
    let rule = TagRule { policy, fresh_for: Duration::from_secs(fresh_for_s) };
    let registries = [("registry.example".to_owned(), rule)].into();
    run_with(Config { tags: TagRules { registries, ..TagRules::default() }, ..Config::default() }, story);
}

#[test]
fn site_first_asks_the_origin_for_what_is_too_old_only() {
    with_rule(
        TagPolicy::SiteFirst { age_max: Duration::from_secs(1000) },
        60,
        "
        0ms known v1=A@1000
        1ms resolve 1 v1 at 1500      -> resolved 1 A by me, by rule
        2ms resolve 2 v1 at 2000      -> ask origin 0 v1
        3ms origin 0 says B@2001      -> remember v1=B; resolved 2 B by origin
       61s  resolve 3 v1 at 2061      -> resolved 3 B by me, by rule
       62s  signed v1=C
       63s  resolve 4 v1              -> resolved 4 C by a release, by rule
    ",
    );
}

#[test]
fn signed_only_believes_nobody_else() {
    with_rule(
        TagPolicy::SignedOnly,
        60,
        "
        0ms known v1=A@1000
        1ms resolve 1 v1              -> resolved 1 not signed
        2ms signed v1=B
        3ms resolve 2 v1              -> resolved 2 B by a release, by rule
    ",
    );
}

#[test]
fn without_a_time_in_which_they_are_fresh_tags_are_always_asked_for() {
    with_rule(
        TagPolicy::OriginFirst,
        0,
        "
        0ms R connects                -> ask R hello
        1ms R hello                   -> ask R inventory since 0
        2ms R inventory
        3ms resolve 1 v1              -> ask origin 0 v1
        4ms origin 0 says A@1         -> remember v1=A; resolved 1 A by origin
        5ms resolve 2 v1              -> ask origin 1 v1
        6ms R asks tag v1             -> answer R tag ask
    ",
    );
}

#[test]
fn limits_on_tags() {
    let limits = Limits { resolves: 1, lookups: 1, bindings: 1, tag_calls: 1, ..Limits::default() };
    run_with(
        Config { limits, ..Config::default() },
        "
        0ms resolve 1 v1              -> ask origin 0 v1
        1ms resolve 2 v1              -> resolved 2 busy
        2ms P connects                -> ask P hello
        3ms Q connects                -> ask Q hello
        4ms P asks tag v1
        5ms Q asks tag v1             -> answer Q tag ask
        6ms Q asks tag v2             -> answer Q tag ask
        7ms origin 0 says A@1         -> remember v1=A; answer P tag v1=A~0; resolved 1 A by origin
        8ms known v2=A@1              -> limit bindings
    ",
    );
}
