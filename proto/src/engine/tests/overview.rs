//! What people see of a site.

use super::script::{run_site, run_with};
use crate::engine::Config;

#[test]
fn devices_and_what_they_have_fetch_and_hold_are_seen() {
    run_site(
        "
        0ms P connects                  -> *
        0ms Q connects                  -> *
       10ms P announces B:2             -> *
       11ms P inventory B:2             -> *
       20ms B held 2                    -> *
       30ms overview                    -> P holds 1, has 0/0; Q holds 0, has 0/0; B:2 at 2 and here
        2s want 1 A from app            -> *
        2s P claims A 0..4/8            -> *
        2s Q wants A 0..2/8             -> *
     2005ms P vouches A 0..3/8          -> *
     2010ms overview                    -> P holds 1, has 3/8 and fetches; Q holds 0, has 2/8; \
                                           A:8 by [P], 0 hold, 2 want and have 5, 3 crossed; \
                                           B:2 at 2 and here; uplink 3, 0 too many
     2020ms P announces A:8             -> *
     2030ms overview                    -> P holds 2, has 0/0; Q holds 0, has 2/8; \
                                           A:8 by [], 1 hold, 1 want and have 2, 4 crossed; \
                                           A:8 at 1; B:2 at 2 and here; uplink 4, 0 too many
    ",
    );
}

#[test]
fn what_comes_twice_over_the_uplink_is_too_many() {
    run_with(
        Config::default(),
        "
        0ms want 1 A from app           -> fetch 0 A from app 0..
       10ms fetch 0 started 2           -> *
       20ms fetch 0 progress            -> *
       20ms fetch 0 progress            -> *
       20ms fetch 0 progress            -> *
       20ms fetch 0 progress            -> *
       30ms overview                    -> A:2 by [me], 0 hold, 0 want and have 0, 3 crossed; uplink 3, 1 too many
    ",
    );
}
