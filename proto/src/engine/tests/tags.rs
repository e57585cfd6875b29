//! Stories of tags.

use super::script::{run, run_with};
use crate::engine::{Config, Limits};

#[test]
fn the_origin_says_what_a_tag_stands_for_and_peers_are_told() {
    run("
        0ms P connects                -> ask P hello
        1ms resolve 1 v1              -> ask origin 0 v1
        2ms resolve 2 v1
        3ms origin 0 says A@1000      -> remember v1=A; resolved 1 A by origin; resolved 2 A by origin
       50ms tick                      -> announce since 0: v1=A
       51ms resolve 3 v1              -> ask origin 1 v1
       52ms origin 1 says A@1060      -> remember v1=A; resolved 3 A by origin   # no news
       53ms resolve 4 v1              -> ask origin 2 v1
       54ms origin 2 says B@1061      -> remember v1=B; resolved 4 B by origin
       80ms tick                      -> announce since 1: v1=B
    ");
}

#[test]
fn an_origin_that_is_away_is_stood_in_for_by_what_the_site_knows() {
    run("
        0ms P connects                -> ask P hello
        1ms P hello                   -> ask P inventory since 0
        2ms P inventory v1=A@1000
        3ms resolve 1 v1              -> ask origin 0 v1
        4ms origin 0 fails unreachable -> origin away; resolved 1 A by P
        5ms resolve 2 v1              -> resolved 2 A by P; ask origin 1 v1   # one probe
        6ms resolve 3 v1              -> resolved 3 A by P
        7ms origin 1 says B@1010      -> origin back; remember v1=B
       30ms resolve 4 v1              -> announce since 0: v1=B; ask origin 2 v1
       31ms origin 2 fails failed     -> resolved 4 B by me
       32ms P leaves
       33ms resolve 5 v1              -> ask origin 3 v1
       34ms origin 3 fails busy 3     -> resolved 5 B by me
    ");
}

#[test]
fn a_slow_origin_is_waited_for_no_longer_than_is_needed() {
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
     1500ms tick
     1501ms tick                      -> origin away; resolved 1 A by me
     2000ms origin 0 says B@2000      -> origin back; remember v1=B   # late, but kept
     2001ms resolve 2 v2              -> ask origin 1 v2
       12s tick
       13s tick                       -> origin away; resolved 2 unavailable
    "
    .replace("       12s tick\n", "")
    .as_str());
}

#[test]
fn what_the_origin_refuses_is_not_papered_over() {
    run("
        0ms known v1=A@1000
        1ms resolve 1 v1              -> ask origin 0 v1
        2ms origin 0 fails notfound   -> resolved 1 not found
        3ms resolve 2 v1              -> ask origin 1 v1
        4ms origin 1 fails unauthorized -> resolved 2 unauthorized
    ");
}

#[test]
fn a_signed_release_says_what_a_tag_stands_for_while_the_origin_is_away() {
    run("
        0ms known v1=A@1000
        1ms signed v1=B v2=C
        2ms resolve 1 v1              -> ask origin 0 v1
        3ms origin 0 says A@2000      -> remember v1=A; resolved 1 A by origin   # which is asked first
        4ms resolve 2 v2              -> ask origin 1 v2
        5ms origin 1 fails unreachable -> origin away; resolved 2 C by a release
        6ms resolve 3 v1              -> resolved 3 B by a release; ask origin 2 v1
        7ms signed v2=C
        8ms resolve 4 v1              -> resolved 4 A by me
    ");
}

#[test]
fn limits_on_tags() {
    let limits = Limits { resolves: 1, lookups: 1, bindings: 1, ..Limits::default() };
    run_with(
        Config { limits, ..Config::default() },
        "
        0ms resolve 1 v1              -> ask origin 0 v1
        1ms resolve 2 v1              -> resolved 2 busy
        2ms origin 0 says A@1         -> remember v1=A; resolved 1 A by origin
        3ms known v2=A@1              -> limit bindings
    ",
    );
}
