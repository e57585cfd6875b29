//! From a scenario that fails to a smaller one that fails too.
//!
//! Invariant: each step is valid and has less in it than the one before, so it ends; at most [`RUNS_MAX`] scenarios are
//! tried.

use std::time::Duration;

use crate::scenario::Scenario;

/// Scenarios that are tried. 300: a generated one takes a fraction of a second.
const RUNS_MAX: usize = 300;
/// Smaller layers than this are all one piece, in bytes.
const LAYER_BYTES_MIN: u64 = 1_000_000;

/// The smallest scenario found that `fails`, starting from one that does.
pub fn shrink(failing: Scenario, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut smallest = failing;
    let mut runs = 0;
    loop {
        let next = smaller(&smallest).into_iter().filter(is_valid).find(|candidate| {
            runs += 1;
            runs <= RUNS_MAX && fails(candidate)
        });
        match next {
            Some(found) => smallest = found,
            None => return smallest,
        }
    }
}

/// Whether its text can be read: with less in it, a fault may change nothing any more.
fn is_valid(scenario: &Scenario) -> bool {
    Scenario::parse(&scenario.name, &scenario.to_toml()).is_ok()
}

/// Scenarios with a little less in them, those first that lack most.
fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut changed = scenario.clone();
        change(&mut changed);
        if changed != *scenario {
            found.push(changed);
        }
    };
    if scenario.sites.len() > 1 {
        (0..scenario.sites.len()).for_each(|index| with(&|less| drop(less.sites.remove(index))));
    }
    if scenario.releases.len() > 1 {
        (0..scenario.releases.len()).for_each(|index| with(&|less| drop(less.releases.remove(index))));
    }
    (0..scenario.faults.len()).for_each(|index| with(&|less| drop(less.faults.remove(index))));
    with(&|less| less.sites.iter_mut().for_each(|site| site.count = 1));
    for site in 0..scenario.sites.len() {
        let groups = scenario.sites[site].devices.len();
        if groups > 1 {
            (0..groups).for_each(|group| with(&|less| drop(less.sites[site].devices.remove(group))));
        }
        for group in 0..groups {
            with(&|less| {
                let count = &mut less.sites[site].devices[group].count;
                *count = count.div_ceil(2);
            });
            with(&|less| {
                let count = &mut less.sites[site].devices[group].count;
                *count = count.saturating_sub(1).max(1);
            });
            with(&|less| {
                less.sites[site].devices[group].disk_bytes_per_s = None;
                less.sites[site].devices[group].clock_skew = Duration::ZERO;
            });
        }
        with(&|less| {
            let lan = &mut less.sites[site].lan;
            (lan.loss, lan.jitter, lan.discovery, lan.shared_radio) = (0.0, Duration::ZERO, Duration::ZERO, false);
        });
    }
    for image in 0..scenario.images.len() {
        for variant in 0..scenario.images[image].variants.len() {
            for layer in 0..scenario.images[image].variants[variant].layers.len() {
                with(&|less| {
                    let layers = &mut less.images[image].variants[variant].layers;
                    if layers.len() > 1 {
                        layers.remove(layer);
                    }
                });
                with(&|less| halve(less, image, variant, layer));
            }
        }
    }
    for release in 0..scenario.releases.len() {
        with(&|less| (less.releases[release].spread, less.releases[release].at) = (Duration::ZERO, Duration::ZERO));
        with(&|less| less.releases[release].background = false);
        with(&|less| less.releases[release].prior = None);
    }
    found
}

/// Halves a layer wherever it appears: a name has one size.
fn halve(scenario: &mut Scenario, image: usize, variant: usize, layer: usize) {
    let one = scenario.images[image].variants[variant].layers[layer].clone();
    let halved = (one.size / 2).max(LAYER_BYTES_MIN).min(one.size);
    let all = scenario.images.iter_mut().flat_map(|image| &mut image.variants).flat_map(|variant| &mut variant.layers);
    all.filter(|other| **other == one).for_each(|other| other.size = halved);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario::FaultKind, sweep::generate};

    #[test]
    fn only_what_matters_is_left() {
        let crashes = |scenario: &Scenario| scenario.faults.iter().any(|fault| fault.kind == FaultKind::Crash);
        let failing =
            (0..).map(generate::scenario).find(|scenario| crashes(scenario) && scenario.faults.len() > 2).unwrap();
        let small = shrink(failing, crashes);
        assert_eq!((small.faults.len(), small.sites.len(), small.sites[0].size(), small.releases.len()), (1, 1, 1, 1));
    }
}
