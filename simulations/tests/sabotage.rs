//! Every check can fail: the sweep finds each sabotage within 200 seeds.

#![allow(clippy::unwrap_used)]

use layermesh_sim::{
    fleet::Settings,
    sabotage::Sabotage,
    sweep::{find, generate},
};

const SEEDS: u64 = 200;

#[test]
fn each_sabotage_is_found_within_200_seeds() {
    let settings = Settings::of(&generate::scenario(0));
    let unfound = |(_, sabotage): &(&str, Sabotage)| find(*sabotage, 0, SEEDS, &settings).is_none();
    let unfound: Vec<_> = Sabotage::ALL.into_iter().filter(unfound).map(|(name, _)| name).collect();
    assert!(unfound.is_empty(), "{unfound:?} are not found within {SEEDS} seeds");
}
