//! Stories of nodes whose bytes are not the blob's, and how few pieces it takes to find out whose.

use super::script::run_site;

/// P and Q each bring half of a blob of four pieces, Q's wrongly.
const HALVES: &str = "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2001ms P claims A 0..2/4          -> fetch 0 A from growing P 0..2
     2002ms Q claims A 2..4/4          -> fetch 1 A from growing Q 2..4
     2003ms P vouches A 0..2/4         -> expect 0: 0 1
     2004ms Q vouches A 2..4/4 wrongly -> expect 1: 2 3
     2010ms fetch 0 started 4
     2011ms fetch 0 stored 0 1
     2012ms fetch 0 ended ok
     2013ms fetch 1 started 4
     2014ms fetch 1 stored 2 3 wrongly
";

#[test]
fn one_piece_of_each_supplier_in_turn_tells_who_lied_and_only_that_ones_are_had_again() {
    run_site(&format!(
        "{HALVES}
     2015ms fetch 1 ended ok           -> complete A
     2016ms A wrong                    # P and Q look first
     3010ms tick
     3020ms tick                       -> drop A: 1; claim told A 1..2; fetch 2 A from app 1..2
     3030ms fetch 2 started 4
     3040ms fetch 2 stored 1           -> vouch told A 1..2
     3041ms fetch 2 ended ok           -> drop A: 3; claim told A 3..4; fetch 3 A from app 3..4
     3050ms fetch 3 started 4
     3060ms fetch 3 stored 3           -> Q penalised; drop A: 2
     3061ms fetch 3 ended ok           -> *
    "
    ));
}

#[test]
fn of_a_piece_of_which_two_say_different_hashes_a_node_sees_the_origins_bytes() {
    run_site(&format!(
        "{HALVES}
     2015ms P vouches A 2..3/4         -> cancel 1; drop A: 2; claim told A 2..3; fetch 2 A from app 2..3
     2020ms fetch 2 started 4
     2030ms fetch 2 stored 2           -> Q penalised; drop A: 3; vouch told A 2..3
     2031ms fetch 2 ended ok           # P and Q are due before it
     4100ms tick                       -> claim told A 3..4; fetch 3 A from app 3..4; claim told A 3..4
    "
    ));
}

#[test]
fn who_says_another_hash_than_the_origins_bytes_have_is_named_and_costs_a_piece() {
    run_site(&format!(
        "{HALVES}
     2015ms Q vouches A 0..1/4 wrongly -> drop A: 0; claim told A 0..1; fetch 2 A from app 0..1
     2020ms fetch 2 started 4
     2030ms fetch 2 stored 0           -> Q penalised; cancel 1; drop A: 2 3; vouch told A 0..1
     2031ms fetch 2 ended ok           -> claim told A 2..4; fetch 3 A from app 2..4
    "
    ));
}

/// P and Q each bring a piece, and this node the other two.
const QUARTERS: &str = "
        0ms P connects                -> ask P hello
        0ms Q connects                -> ask Q hello
        2s P wants A
        2s Q wants A
        2s want 1 A from app          -> want told A
     2001ms P claims A 0..1/4          -> fetch 0 A from growing P 0..1
     2002ms Q claims A 1..2/4          -> fetch 1 A from growing Q 1..2
     2003ms P vouches A 0..1/4         -> expect 0: 0
     2004ms Q vouches A 1..2/4         -> expect 1: 1
     2010ms fetch 0 stored 0
     2011ms fetch 0 ended ok
     2012ms fetch 1 stored 1
     2013ms fetch 1 ended ok
     3100ms tick                       -> claim told A 2..4; fetch 2 A from app 2..4
     3110ms fetch 2 started 4
";

#[test]
fn a_node_whose_bytes_differ_from_two_others_takes_its_own_for_wrong() {
    run_site(&format!(
        "{QUARTERS}
     3120ms fetch 2 stored 2 3 wrongly -> vouch told A 2..4
     3121ms fetch 2 ended ok           -> complete A
     3130ms A wrong
     3140ms P vouches A 2..3/4         -> drop A: 1; claim told A 1..2; fetch 3 A from app 1..2
     3150ms fetch 3 started 4
     3160ms fetch 3 stored 1 wrongly   -> cancel 3; A of app failed; drop A: 1 2 3; want told A 1/4 offline
     3180ms Q vouches A 2..4/4         -> fetch 4 A from growing Q 1..4
    "
    ));
}

#[test]
fn a_node_that_doubted_itself_in_vain_names_those_who_said_otherwise() {
    run_site(&format!(
        "{QUARTERS}
     3120ms fetch 2 stored 2           -> vouch told A 2..3
     3130ms P vouches A 2..3/4 wrongly -> drop A: 1
     3140ms Q vouches A 2..4/4 wrongly -> *
     3160ms fetch 3 started 4
     3161ms fetch 3 stored 1
     3162ms fetch 3 stored 2 3 wrongly
     3163ms fetch 3 ended ok           -> complete A
     3200ms A wrong                    -> P penalised; drop A: 0 2; Q penalised; drop A: 1 3; claim told A 0..4; fetch 4 A from app 0..4
    "
    ));
}
