//! What a device is like: one switch for all limits that its memory sets.
//!
//! A profile is a source of settings below all others: what is written anywhere wins over it, and who asks where a value
//! comes from is told of it. Limits that have no setting of their own are [`Means`].

use super::layer::{Given, Layer, Place, Setting};
use crate::{exchange, mirror, store};

/// What a device is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Has 256 MiB of memory or more.
    #[default]
    Normal,
    /// Has 64 MiB of memory, of which the node is to leave half to others.
    Tiny,
}

/// Limits that a profile sets and that have no setting.
#[derive(Debug, Clone)]
pub struct Means {
    /// Bytes of pieces that all readers of the store keep together.
    pub kept_bytes_max: usize,
    /// Of the mirror.
    pub mirror: mirror::Limits,
    /// Of the bulk exchange.
    pub bulk: exchange::ServerLimits,
    /// Fetches of one blob at the same time, each with a piece in memory.
    pub fetches_per_transfer: usize,
}

impl Profile {
    /// The profile with this name.
    ///
    /// # Errors
    /// With what could be written instead.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "normal" => Ok(Self::Normal),
            "tiny" => Ok(Self::Tiny),
            _ => Err(format!("`{text}` is not what a device is like: write `normal` or `tiny`")),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Tiny => "tiny",
        }
    }

    /// Settings that have another default.
    const fn settings(self) -> &'static [(Setting, &'static str)] {
        match self {
            Self::Normal => &[],
            Self::Tiny => &[(Setting::Deltas, "tiny")],
        }
    }

    /// The limits.
    pub fn means(self) -> Means {
        let mirror = mirror::Limits::default();
        match self {
            Self::Normal => Means {
                kept_bytes_max: store::KEPT_BYTES_MAX,
                mirror,
                bulk: exchange::ServerLimits::default(),
                fetches_per_transfer: layermesh_proto::engine::config::Config::default().fetches_per_transfer,
            },
            Self::Tiny => Means {
                // Four of the largest pieces: as many as there are bodies that send at once.
                kept_bytes_max: 4 << 20,
                // A runtime pulls three to six layers at a time, and Docker asks each with a connection of its own.
                mirror: mirror::Limits { connections: 16, connections_per_address: 8, ..mirror },
                // Half a MiB each, and 4 that send: a core that encrypts 10 MB/s is busy with one.
                bulk: exchange::ServerLimits { connections: 24, uploads: 4 },
                // One stripe of its own and one that others have.
                fetches_per_transfer: 2,
            },
        }
    }
}

impl Layer {
    /// This layer over the settings of the profile that it names. A name that is none is left for validation to report.
    pub(super) fn over_profile(mut self) -> Self {
        let named = self.values.get(&Setting::Profile).and_then(|given| Profile::parse(&given.text).ok());
        let profile = named.unwrap_or_default();
        for (setting, text) in profile.settings() {
            let place = Place::Profile(profile.name());
            self.values.entry(*setting).or_insert(Given { text: (*text).to_owned(), place });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what is written there, only what a default has to win over.
    fn layer(values: &[(Setting, &str)]) -> Layer {
        let mut layer = Layer::default();
        for (setting, text) in values {
            layer.flag(*setting, *text);
        }
        layer.over_profile()
    }

    #[test]
    fn what_is_written_wins_over_the_profile_and_that_over_defaults() {
        let deltas = |layer: &Layer| {
            layer.values.get(&Setting::Deltas).map(|given| (given.text.clone(), given.place.to_string()))
        };
        let said = |text: &str, place: &str| Some((text.to_owned(), place.to_owned()));
        assert_eq!(deltas(&layer(&[])), None);
        assert_eq!(deltas(&layer(&[(Setting::Profile, "normal")])), None);
        assert_eq!(deltas(&layer(&[(Setting::Profile, "tiny")])), said("tiny", "profile tiny"));
        assert_eq!(
            deltas(&layer(&[(Setting::Profile, "tiny"), (Setting::Deltas, "off")])),
            said("off", "--deltas"),
            "explicit"
        );
        assert_eq!(deltas(&layer(&[(Setting::Profile, "small")])), None, "validation says so");
    }

    #[test]
    fn a_tiny_device_may_do_less_of_everything() {
        let (normal, tiny) = (Profile::Normal.means(), Profile::Tiny.means());
        assert!(tiny.kept_bytes_max < normal.kept_bytes_max);
        assert!(tiny.mirror.connections < normal.mirror.connections);
        assert!(tiny.mirror.connections_per_address < normal.mirror.connections_per_address);
        assert!(tiny.bulk.connections < normal.bulk.connections && tiny.bulk.uploads < normal.bulk.uploads);
        assert!(tiny.fetches_per_transfer < normal.fetches_per_transfer);
    }
}
