//! What followers of signed releases say: which metadata they have verified, and how far they are.

use serde::{Deserialize, Serialize};

use super::limits::{LimitError, check_label};
use crate::ContentId;

/// Most channels that a node follows: a device is of one kind, or two while it changes.
pub const FOLLOWED_CHANNELS_MAX: usize = 4;
/// Most platforms that a node keeps releases for.
pub const FOLLOWED_PLATFORMS_MAX: usize = 4;
/// Most releases of which a node says how far it is: the current and the next of each channel.
pub const PROGRESS_MAX: usize = 2 * FOLLOWED_CHANNELS_MAX;

/// A node follows a repository of releases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    /// The repository's id, as its root says it.
    #[serde(rename = "r")]
    pub repository: String,
    /// Version of the metadata that it has verified; 0 if none.
    #[serde(rename = "v")]
    pub version: u64,
    /// That metadata: the manifest of its files.
    #[serde(rename = "c")]
    pub content: Option<ContentId>,
    /// Channels that it follows, at most [`FOLLOWED_CHANNELS_MAX`].
    #[serde(rename = "n")]
    pub channels: Vec<String>,
    /// Platforms that it keeps releases for, at most [`FOLLOWED_PLATFORMS_MAX`].
    #[serde(rename = "p")]
    pub platforms: Vec<String>,
}

/// How far a node is with the releases that it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its platform.
    #[serde(rename = "p")]
    pub platform: String,
    /// Why it refused the newest metadata that it was offered, in a word; empty if it did not.
    #[serde(rename = "r")]
    pub refused: String,
    /// The releases, at most [`PROGRESS_MAX`].
    #[serde(rename = "s")]
    pub releases: Vec<Progress>,
}

/// How far a node is with a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The channel.
    #[serde(rename = "n")]
    pub channel: String,
    /// The version.
    #[serde(rename = "v")]
    pub version: String,
    /// Bytes that the node is to hold of it.
    #[serde(rename = "t")]
    pub total: u64,
    /// Bytes of these that it holds.
    #[serde(rename = "h")]
    pub held: u64,
    /// Bytes a second that it gains.
    #[serde(rename = "s")]
    pub bytes_per_s: u64,
    /// Bytes of it that the node took from origins.
    #[serde(rename = "o")]
    pub from_origin: u64,
    /// What it waits for; empty if for nothing.
    #[serde(rename = "w")]
    pub waits_for: String,
}

impl Following {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        check_label("repository", &self.repository)?;
        check_count("channels", self.channels.len(), FOLLOWED_CHANNELS_MAX)?;
        check_count("platforms", self.platforms.len(), FOLLOWED_PLATFORMS_MAX)?;
        self.channels.iter().try_for_each(|channel| check_label("channel", channel))?;
        self.platforms.iter().try_for_each(|platform| check_label("platform", platform))
    }
}

impl Rollout {
    pub(super) fn check(&self) -> Result<(), LimitError> {
        check_label("platform", &self.platform)?;
        check_label("refusal", &self.refused)?;
        check_count("releases", self.releases.len(), PROGRESS_MAX)?;
        self.releases.iter().try_for_each(|release| {
            check_label("channel", &release.channel)?;
            check_label("version", &release.version)?;
            check_label("wait", &release.waits_for)
        })
    }
}

fn check_count(field: &'static str, found: usize, max: usize) -> Result<(), LimitError> {
    if found > max { Err(LimitError::TooMany { field, found, max }) } else { Ok(()) }
}
