//! Platforms, and which of an index's manifests are for one.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::Entry;

/// An operating system and processor, in the words of the OCI image spec (those of Go).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Processor, such as `amd64`.
    pub architecture: String,
    /// Variant of the processor, such as `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// That of the device that this program runs on.
    pub fn of_this_device() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let os = match std::env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// The variant, with those that architectures have by default filled in (image spec, "Platform variants").
    fn variant_or_default(&self) -> &str {
        match (self.variant.as_deref(), self.architecture.as_str()) {
            (Some(variant), _) => variant,
            (None, "arm64") => "v8",
            (None, "arm") => "v7",
            (None, "amd64") => "v1",
            (None, _) => "",
        }
    }

    /// How well an image for `offered` runs here; larger is better, `None` is not at all. A processor runs what was
    /// built for its own variant or an earlier one.
    fn suits(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let (ours, theirs) = (self.variant_or_default(), offered.variant_or_default());
        let number = |variant: &str| variant.strip_prefix('v')?.parse::<u32>().ok();
        match (number(ours), number(theirs)) {
            (Some(ours), Some(theirs)) => (theirs <= ours).then_some(theirs),
            _ => (ours == theirs).then_some(0),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// Why text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a platform: write one such as `linux/arm64` or `linux/arm/v7`, several with commas, or `all`")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word =
            |part: &&str| !part.is_empty() && part.len() <= 32 && part.bytes().all(|b| b.is_ascii_alphanumeric());
        if !parts.iter().all(word) {
            return Err(PlatformError(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(PlatformError(text.to_owned())),
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

/// Platforms that can be chosen at once; no fleet has as many kinds of devices.
const CHOSEN_PLATFORMS_MAX: usize = 16;

/// For which platforms an image is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformChoice {
    /// For these.
    These(Vec<Platform>),
    /// For all that the image has, attestations included.
    All,
}

impl Default for PlatformChoice {
    fn default() -> Self {
        Self::These(vec![Platform::of_this_device()])
    }
}

impl PlatformChoice {
    /// The entries of an index that are needed, and the chosen platforms that none is for. An index that names no platforms
    /// at all is not about platforms; its first entry is taken then, as runtimes do.
    pub fn choose<'a>(&self, entries: &'a [Entry]) -> (Vec<&'a Entry>, Vec<Platform>) {
        let platforms = match self {
            Self::All => return (entries.iter().collect(), Vec::new()),
            Self::These(platforms) => platforms,
        };
        if !entries.is_empty() && entries.iter().all(|entry| entry.platform.is_none()) {
            return (entries.first().into_iter().collect(), Vec::new());
        }
        let (mut chosen, mut unmatched) = (Vec::new(), Vec::new());
        for platform in platforms {
            match best(platform, entries) {
                Some(entry) if chosen.contains(&entry) => {}
                Some(entry) => chosen.push(entry),
                None => unmatched.push(platform.clone()),
            }
        }
        (chosen, unmatched)
    }
}

/// The first of the best, as runtimes do.
fn best<'a>(platform: &Platform, entries: &'a [Entry]) -> Option<&'a Entry> {
    let suited = entries.iter().filter_map(|entry| Some((platform.suits(entry.platform.as_ref()?)?, entry)));
    // max_by_key takes the last.
    suited.rev().max_by_key(|&(suits, _)| suits).map(|(_, entry)| entry)
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::These(platforms) => {
                f.write_str(&platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(","))
            }
            Self::All => f.write_str("all"),
        }
    }
}

impl FromStr for PlatformChoice {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let platforms: Vec<Platform> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if platforms.len() > CHOSEN_PLATFORMS_MAX {
            return Err(PlatformError(text.to_owned()));
        }
        Ok(Self::These(platforms))
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::{Algorithm, ContentId};

    use super::*;

    fn entry(platform: Option<&str>) -> Entry {
        let content = ContentId::of(Algorithm::Sha256, platform.unwrap_or("").as_bytes());
        Entry { content, size: 1, media_type: String::new(), platform: platform.map(|text| text.parse().unwrap()) }
    }

    #[test]
    fn the_nearest_variant_that_runs_is_chosen() {
        let index =
            ["unknown/unknown", "linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        let entries: Vec<Entry> = index.iter().map(|text| entry(Some(text))).collect();
        for (wanted, chosen) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/arm64/v9", Some("linux/arm64/v8")),
            ("linux/arm/v4", None),
            ("windows/amd64", None),
        ] {
            let choice: PlatformChoice = wanted.parse().unwrap();
            let found = choice.choose(&entries).0.first().map(|entry| entry.platform.as_ref().unwrap().to_string());
            assert_eq!(found.as_deref(), chosen, "{wanted}");
        }
        assert_eq!(PlatformChoice::All.choose(&entries).0.len(), entries.len());
        let several: PlatformChoice = "linux/amd64,linux/s390x,linux/amd64/v2,linux/arm64".parse().unwrap();
        let (chosen, unmatched) = several.choose(&entries);
        assert_eq!(chosen, [&entries[1], &entries[5]], "each once");
        assert_eq!(unmatched, ["linux/s390x".parse().unwrap()]);
    }

    #[test]
    fn an_index_without_platforms_gives_its_first_entry() {
        let entries = [entry(None), entry(None)];
        assert_eq!(PlatformChoice::default().choose(&entries).0.len(), 1);
        assert_eq!(PlatformChoice::default().choose(&[]), (Vec::new(), vec![Platform::of_this_device()]));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "linux", "linux/", "a/b/c/d", "linux/arm 64", "All", "linux/arm,", "all,linux/arm"] {
            assert!(text.parse::<PlatformChoice>().is_err(), "{text}");
        }
    }
}
