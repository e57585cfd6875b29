//! The engine holds its word whatever happens, as [`model`](super::super::model) has it.

use proptest::prelude::*;

use super::super::model::{drawn, run, said, stories};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_engine_keeps_its_word_and_ends_what_was_begun((uplink, story) in stories(120)) {
        run(uplink, story);
    }

    #[test]
    fn the_same_events_give_the_same_actions((_, story) in stories(60)) {
        prop_assert_eq!(said(&story), said(&story));
    }
}

#[test]
fn bytes_draw_one_story_and_a_change_of_few_changes_few_events() {
    let mut bytes: Vec<u8> = (0..256_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (uplink, story) = drawn(&bytes);
    assert_eq!(story.len(), 31);
    assert_eq!(drawn(&bytes), (uplink.clone(), story.clone()));
    bytes[100] ^= 1;
    let (_, changed) = drawn(&bytes);
    assert_eq!(story.iter().zip(&changed).filter(|(before, after)| before != after).count(), 1);
    run(uplink, story);
    let (uplink, nothing) = drawn(&[]);
    run(uplink, nothing);
}
