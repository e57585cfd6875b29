//! How tags are answered: a rule for each registry.

use std::{collections::BTreeMap, time::Duration};

/// Who says what a registry's tags stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TagPolicy {
    /// The origin; what the site knows while it does not answer.
    #[default]
    OriginFirst,
    /// What the site knows, if it is a signed release's word or not too old; else the origin.
    SiteFirst {
        /// Older than this is too old.
        age_max: Duration,
    },
    /// Signed releases and nobody else; no origin is asked.
    SignedOnly,
}

/// How a registry's tags are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagRule {
    /// Who says what they stand for.
    pub policy: TagPolicy,
    /// After an origin told anybody on the site what a tag stands for, during which nobody on the site asks it again; zero
    /// for always asking. 60 s: registries limit requests (Docker Hub by address, which a site shares), a runtime asks for a
    /// tag twice in each pull, and fleets poll each minute.
    pub fresh_for: Duration,
}

impl Default for TagRule {
    fn default() -> Self {
        Self { policy: TagPolicy::default(), fresh_for: Duration::from_secs(60) }
    }
}

/// The rules of all registries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagRules {
    /// Of registries that are not named.
    pub other: TagRule,
    /// By the registry's name.
    pub registries: BTreeMap<String, TagRule>,
}

impl TagRules {
    /// The rule of a registry.
    pub fn of(&self, registry: &str) -> TagRule {
        self.registries.get(registry).copied().unwrap_or(self.other)
    }
}

/// How long a tag's keeper and those who ask it wait for each other (`asking.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeping {
    /// For a tag's keeper to say anything. 500 ms: it holds nobody for longer than `hold`, and a busy node takes a tenth of a
    /// second.
    pub patience: Duration,
    /// After which a keeper tells those whom it holds that there is nothing yet. 300 ms: the more often, the sooner a keeper
    /// that is lost is noticed.
    pub hold: Duration,
    /// For whoever may ask the origin to say what it heard. 2 s: longer than a handshake, a token and an answer take over a
    /// distant uplink; after that another one asks, too.
    pub lease: Duration,
    /// During which a node that did not answer as a keeper is none. 30 s: half of what the transport takes to notice that it
    /// lost its power.
    pub mute: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(500),
            hold: Duration::from_millis(300),
            lease: Duration::from_secs(2),
            mute: Duration::from_secs(30),
        }
    }
}
