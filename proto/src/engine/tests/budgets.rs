//! Stories of an uplink whose use is bounded: windows, meters, runtimes first, a rate for the site.

use super::{
    super::{
        Config, Uplink,
        budget::{MINUTES_PER_DAY, Window},
    },
    script::{run_site_with, run_with},
};

const METERED: Uplink = Uplink { metered: true, windows: Vec::new(), site_bytes_per_s: None };

/// Every night from ten to six.
fn nights() -> Config {
    let night = Window::new([true; 7], 22 * 60, 6 * 60).unwrap();
    Config { uplink: Uplink { windows: vec![night], ..Uplink::default() }, ..Config::default() }
}

fn with(uplink: Uplink) -> Config {
    Config { uplink, ..Config::default() }
}

#[test]
fn background_waits_for_its_window_and_then_goes() {
    run_with(
        nights(),
        "
        0s clock mon 20:00
        1s want 1 A from app in background
        2s show A                        -> A waits for Window in 120 min
     7199s show A                        -> A waits for Window in 1 min      # and has not been given up
     7200s tick                          -> fetch 0 A from app 0..
     7200s show A                        -> A waits for nothing
     7201s fetch 0 started 2
     7202s fetch 0 ended ok              -> complete A
     7203s A held 2                      -> want 1 ok
    ",
    );
}

#[test]
fn the_clock_is_believed_over_what_was_reckoned_and_without_it_no_window_is_open() {
    run_with(
        nights(),
        "
        0s want 1 A from app in background
        1s show A                        -> A waits for Clock
       60s clock mon 12:00
       61s show A                        -> A waits for Window in 600 min
       70s clock mon 22:00               -> fetch 0 A from app 0..           # somebody set the clock
       80s clock mon 12:01               -> cancel 0                         # and set it back
       81s show A                        -> A waits for Window in 599 min
    ",
    );
}

#[test]
fn what_a_window_did_not_suffice_for_waits_for_the_next_and_keeps_its_pieces() {
    run_with(
        nights(),
        "
        0s clock tue 05:58
       90s want 1 A from app in background -> fetch 0 A from app 0..
       91s fetch 0 started 4
      100s fetch 0 stored 0 1
      120s tick                          -> cancel 0
      121s show A                        -> A waits for Window in 960 min
    57719s tick
    57720s tick                          -> fetch 1 A from app 2..4
    57721s fetch 1 ended unreachable     -> A of app failed; origin away
    57723s tick                          -> fetch 2 A from app 2..4          # a night's wait uses up no patience
    ",
    );
}

#[test]
fn runtimes_go_first_and_background_goes_on_where_it_was() {
    run_with(
        Config::default(),
        "
        0ms want 1 A from app in background -> fetch 0 A from app 0..
       10ms fetch 0 started 4
       20ms fetch 0 stored 0 1
       30ms want 2 B from app            -> fetch 1 B from app 0..; cancel 0
       31ms show A                       -> A waits for Runtime
       40ms fetch 1 started 1
       50ms fetch 1 ended ok             -> complete B
       60ms B held 1                     -> want 2 ok
      500ms want 3 C from app            -> fetch 2 C from app 0..  # a runtime's next blob
      600ms fetch 2 started 1
      700ms fetch 2 ended ok             -> complete C
      800ms C held 1                     -> want 3 ok
     2690ms tick
     2700ms tick                         -> fetch 3 A from app 2..4
     2800ms fetch 3 ended ok             -> complete A
     2900ms A held 4                     -> want 1 ok
    ",
    );
}

#[test]
fn a_blob_that_a_runtime_comes_to_want_is_background_no_more_until_it_hangs_up() {
    run_with(
        nights(),
        "
        0s clock mon 12:00
        1s want 1 A from app in background
     4000s want 2 A from app             -> fetch 0 A from app 0..
     4001s fetch 0 started 4
     4002s fetch 0 stored 0
     4003s unwant 2                      -> cancel 0
     4004s show A                        -> A waits for Window in 534 min
     4005s unwant 1
     4006s show A                        -> A is no transfer
    ",
    );
}

#[test]
fn a_metered_uplink_without_windows_is_for_runtimes_only() {
    run_with(
        with(METERED),
        "
        0s want 1 A from app in background
        0s show A                        -> A waits for Metered
   100000s show A                        -> A waits for Metered
   100001s want 2 B from app             -> fetch 0 B from app 0..
    ",
    );
}

#[test]
fn peers_are_asked_meanwhile() {
    run_with(
        with(METERED),
        "
        0s P connects                    -> ask P hello
        0s P hello                       -> ask P inventory since 0
        0s P inventory
        1s want 1 A from app in background
        7s P announces A:2               -> fetch 0 A from P 0..2            # by now others would have been given up
        7s fetch 0 started 2
        7s fetch 0 stored 0
        8s fetch 0 ended unreachable     -> A of P failed
        8s show A                        -> A waits for Metered
        9s P announces A:2               -> fetch 1 A from P 1..2
        9s fetch 1 ended ok              -> complete A
        9s A held 2                      -> want 1 ok
    ",
    );
}

#[test]
fn a_blob_that_the_origin_does_not_have_is_not_waited_for() {
    run_with(
        nights(),
        "
        0s clock mon 23:00
        1s want 1 A from app in background -> fetch 0 A from app 0..
        2s fetch 0 ended notfound        -> A of app failed; want 1 not found
    ",
    );
}

#[test]
fn nobody_waits_for_a_node_that_is_held_back_and_it_takes_what_another_brings() {
    run_site_with(
        nights(),
        "
        0s P connects                    -> ask P hello
        0s clock mon 12:00
        2s want 1 A from app in background -> want told A offline
        3s P wants A
        4s P claims A 0..4/4           -> want told A offline; fetch 0 A from growing P 0..4
     4100ms fetch 0 started 4
     4200ms fetch 0 stored 0 1
     4300ms P leaves                   -> cancel 0
     4400ms fetch 0 ended unreachable
     4500ms show A                       -> A waits for Window in 600 min
    ",
    );
}

#[test]
fn an_owner_that_is_held_back_says_so_at_once() {
    run_site_with(
        Config::default(),
        "
        0s P connects                    -> ask P hello
        2s want 1 A from app in background -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..
     2041ms fetch 0 started 4          -> claim told A 0..4
     2042ms fetch 0 stored 0
     2043ms want 2 B from app            -> want told B
     2090ms tick                       -> claim told B 0..; fetch 1 B from app 0..; cancel 0; want told A 1/4 offline
     2100ms P claims A 0..4/4          -> vouch told A 0..1; want told A 1/4 offline; fetch 2 A from growing P 1..4
    ",
    );
}

#[test]
fn those_that_wait_for_the_same_window_agree_on_who_asks() {
    run_site_with(
        nights(),
        "
        0s P connects                    -> ask P hello
        1s clock mon 21:58
        2s want 1 A from app in background -> want told A offline
     2100ms P wants A offline
     2200ms clock mon 22:00              -> want told A
     2201ms P wants A
     2240ms tick                                                             # P comes first
     2241ms P claims A 0..4/4          -> fetch 0 A from growing P 0..4
    ",
    );
}

#[test]
fn the_sites_rate_is_shared_by_those_that_ask_an_origin() {
    let day = Window::new([true; 7], 0, MINUTES_PER_DAY).unwrap();
    run_site_with(
        with(Uplink { site_bytes_per_s: Some(900), metered: true, windows: vec![day] }),
        "
        0s P connects                    -> ask P hello; pace 900
        0s Q connects                    -> ask Q hello
        2s P claims B 0..4/4
        2s want 1 A from app             -> want told A
     2040ms tick                       -> claim told A 0..; fetch 0 A from app 0..; pace 450
     2050ms Q claims C 0..4/4                   -> pace 300
     2060ms Q claims D 0..4/4
     2070ms Q left C
     2080ms Q leaves                     -> pace 450
     2090ms P left B                     -> pace 900
    ",
    );
}
