//! Worlds and engines that break one rule each, so that it is seen that every check can fail.
//!
//! A [`Sabotage`] is what a bug of an engine or a driver would do. `layermesh-sim sweep --sabotage` runs generated scenarios
//! with one until its check finds it; the tests here break a rule by hand, and those in `tests/sabotage.rs` say that the sweep
//! finds each within 200 seeds. Invariant: without a sabotage nothing here changes what happens.

#[cfg(test)]
mod tests;

use layermesh_proto::engine::{
    Config, Uplink,
    event::{Action, FetchId, Source},
};

use crate::{NodeIndex, Violation, World, limits::FRUITLESS_MAX, report::Report, store::Store};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// A store says that it has a blob whole when it has half of it.
    HoldsEarly,
    /// A store loses a part of a blob and serves it as whole.
    ServesParts,
    /// A store takes for whole what is not the blob.
    CarelessStore,
    /// A store forgets a piece now and then that it said was durable.
    LosesPieces,
    /// A driver forgets a fetch now and then that the engine asked for.
    LosesFetches,
    /// An engine asks peers for everything twice.
    AsksTwice,
    /// An engine says of every want twice that it ended.
    EndsTwice,
    /// An engine asks more of one blob at a time than it may.
    Greedy,
    /// An engine begins each fetch anew without end.
    Repeats,
    /// An engine knows of no window and no meter.
    NoWindows,
    /// A driver does not keep to its share of the site's rate.
    NoRate,
    /// A store never says that a blob is whole.
    DeafStore,
    /// An origin sends other bytes than the blob's.
    CorruptOrigin,
}

/// One of so many is forgotten.
const LOST_OF: u64 = 20;
/// Fetches of one blob at a time of an engine that is greedy.
const GREEDY_FETCHES: usize = 64;
/// Ids of what an engine did not say begin there.
const FORGED_IDS: u64 = 1 << 60;

impl Sabotage {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 13] = [
        ("holds-early", Self::HoldsEarly),
        ("serves-parts", Self::ServesParts),
        ("careless-store", Self::CarelessStore),
        ("loses-pieces", Self::LosesPieces),
        ("loses-fetches", Self::LosesFetches),
        ("asks-twice", Self::AsksTwice),
        ("ends-twice", Self::EndsTwice),
        ("greedy", Self::Greedy),
        ("repeats", Self::Repeats),
        ("no-windows", Self::NoWindows),
        ("no-rate", Self::NoRate),
        ("deaf-store", Self::DeafStore),
        ("corrupt-origin", Self::CorruptOrigin),
    ];

    /// The sabotage of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, sabotage)| *sabotage)
    }

    /// The rule that finds it, and what that says.
    fn finding(self) -> (&'static str, &'static str) {
        match self {
            Self::HoldsEarly => ("safety", "ended well without"),
            Self::ServesParts => ("safety", "served as whole"),
            Self::CarelessStore => ("safety", "taken for whole and is not"),
            Self::LosesPieces | Self::LosesFetches => ("safety", "the engine says"),
            Self::AsksTwice => ("safety", " runs"),
            Self::EndsTwice => ("safety", "ended twice"),
            Self::Greedy => ("safety", "fetches of one blob"),
            Self::Repeats => ("safety", "brought nothing"),
            Self::NoWindows => ("safety", "outside its budget"),
            Self::NoRate => ("safety", "the site's rate"),
            Self::DeafStore => ("liveness", ""),
            Self::CorruptOrigin => ("copies", ""),
        }
    }

    /// Whether a run's checks found it.
    pub fn is_found(self, report: &Report) -> bool {
        let (rule, what) = self.finding();
        report.broken.iter().any(|broken| broken.rule == rule && broken.what.contains(what))
    }

    /// What an engine is told in place of the rules.
    pub(crate) fn config(self, rules: &Config) -> Config {
        let mut config = rules.clone();
        match self {
            Self::Greedy => {
                config.fetches_per_transfer = GREEDY_FETCHES;
                config.window = GREEDY_FETCHES;
            }
            Self::NoWindows => config.uplink = Uplink { metered: false, windows: Vec::new(), ..config.uplink },
            _ => {}
        }
        config
    }

    /// What becomes of a store that has a node for the first time.
    pub(crate) fn store(self, store: &mut Store) {
        store.careless = self == Self::CarelessStore;
    }

    /// Whether this one is forgotten: of fetches and pieces by their number.
    pub(crate) fn loses(self, number: u64) -> bool {
        matches!(self, Self::LosesPieces | Self::LosesFetches) && number % LOST_OF == LOST_OF - 1
    }
}

impl World {
    pub(crate) fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.options.sabotage == Some(by)
    }

    /// Says what the engine did not, after what it did.
    pub(crate) fn forge(&mut self, node: NodeIndex, said: &Action) -> Result<(), Violation> {
        let again = |number: u64| {
            let mut again = said.clone();
            if let Action::Fetch { fetch, .. } = &mut again {
                *fetch = FetchId(FORGED_IDS + fetch.0 * u64::from(FRUITLESS_MAX) * 2 + number);
            }
            again
        };
        match (self.options.sabotage, said) {
            (Some(Sabotage::AsksTwice), Action::Fetch { source: Source::Peer(_), .. })
            | (Some(Sabotage::EndsTwice), Action::WantEnded { .. }) => self.obey(node, again(0)),
            (Some(Sabotage::Repeats), Action::Fetch { fetch, .. }) => {
                let mut running = *fetch;
                for number in 0..=u64::from(FRUITLESS_MAX) {
                    self.obey(node, Action::CancelFetch { fetch: running })?;
                    let next = again(number);
                    if let Action::Fetch { fetch, .. } = &next {
                        running = *fetch;
                    }
                    self.obey(node, next)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
