//! What can be wrong with the text of a scenario.
//!
//! Invariant: every message says where the mistake is, what it is and what to write instead; a [`ScenarioErrors`] has
//! at least one of them, in the order of the text.

use std::fmt;

use thiserror::Error;

use super::units::UnitError;

/// A mistake and its place.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{line}:{column}: {mistake}")]
pub struct ScenarioError {
    /// Line in the text, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub mistake: Mistake,
}

/// What is wrong with a place in a scenario. Its text ends with what to do next.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Mistake {
    /// The text is no TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// A key that its table does not have.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// With its table.
        key: String,
        /// What was probably meant, or what there is.
        hint: String,
    },
    /// A value of another type than the key's.
    #[error("`{key}` is {wants}; this is {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes, with an example.
        wants: String,
        /// What it was given.
        found: &'static str,
    },
    /// A value that is not written as its unit asks for.
    #[error("`{key}`: {error}")]
    WrongUnit {
        /// The key.
        key: String,
        /// Why.
        error: UnitError,
    },
    /// A number outside its range.
    #[error("`{key}` is {range}; {found} is not")]
    OutOfRange {
        /// The key.
        key: String,
        /// What is allowed.
        range: String,
        /// What was given.
        found: String,
    },
    /// A name that cannot be one.
    #[error("`{name}` cannot name this {of}: {rule}")]
    BadName {
        /// The name.
        name: String,
        /// Of what.
        of: &'static str,
        /// What such names look like.
        rule: String,
    },
    /// A name of nothing that there is.
    #[error("there is no {what} `{name}`; {hint}")]
    NoSuch {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
        /// The nearest, or all that there are.
        hint: String,
    },
    /// A key or table that has to be there.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// What.
        what: String,
        /// What to write.
        remedy: &'static str,
    },
    /// One name for two things.
    #[error("a second {what} `{name}`; the first is in line {first}: give one of them another name")]
    Twice {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
        /// Line of the first.
        first: usize,
    },
    /// Two things that exclude each other.
    #[error("`{one}` and `{other}` exclude each other: {remedy}")]
    Both {
        /// A key.
        one: &'static str,
        /// Another.
        other: &'static str,
        /// Which to leave out when.
        remedy: &'static str,
    },
    /// A layer's name stands for two sizes.
    #[error(
        "layer `{name}` has {size} here and {other} in line {line}: one name is one blob; give the changed one another \
         name, such as `{name}-2`"
    )]
    LayerSizes {
        /// Of the layer.
        name: String,
        /// Here.
        size: String,
        /// There.
        other: String,
        /// Where that is.
        line: usize,
    },
    /// More than the world carries.
    #[error("{found} {what}, and at most {max} are possible: {remedy}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many may be.
        max: u64,
        /// What to lower.
        remedy: &'static str,
    },
    /// Something that would happen after the end.
    #[error("{what} {time} after the start, and the scenario ends at its limit of {limit}: {remedy}")]
    AfterLimit {
        /// What, with its verb.
        what: &'static str,
        /// When.
        time: String,
        /// The scenario's.
        limit: String,
        /// What to change.
        remedy: &'static str,
    },
    /// An image that some device that gets it cannot run.
    #[error(
        "image `{image}` has nothing for `{platform}`, the platform of devices `{devices}` at `{site}`: add \
         `[image.platform.\"{platform}\"]`, or leave these devices out of the release with `devices` or `sites`"
    )]
    NoVariant {
        /// The image.
        image: String,
        /// The platform.
        platform: String,
        /// A group that has it.
        devices: String,
        /// At which kind of site.
        site: String,
    },
    /// A release or fault that can befall nobody, or changes nothing there.
    #[error("{what} changes nothing or makes no sense here: {why}")]
    Senseless {
        /// What, such as `a partition`.
        what: String,
        /// Why, and what to write.
        why: String,
    },
}

impl Mistake {
    /// Whether a text that could be read in part only may seem to have this mistake without having it.
    pub(super) fn may_be_of_unread(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::NoSuch { .. } | Self::NoVariant { .. } | Self::Senseless { .. })
    }
}

/// All mistakes of a scenario's text, never none.
#[derive(Debug, Clone, PartialEq)]
pub struct ScenarioErrors {
    /// Name of the scenario, as given to [`Scenario::parse`](super::Scenario::parse).
    pub name: String,
    /// The mistakes, in the order of the text.
    pub errors: Vec<ScenarioError>,
}

impl fmt::Display for ScenarioErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errors.as_slice() {
            [_] => write!(f, "the scenario has a mistake")?,
            many => write!(f, "the scenario has {} mistakes", many.len())?,
        }
        self.errors.iter().try_for_each(|error| write!(f, "\n  {}:{error}", self.name))
    }
}

impl std::error::Error for ScenarioErrors {}
