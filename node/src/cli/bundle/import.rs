//! `layermesh bundle import`.
//!
//! Invariant: an image that is damaged keeps no other away, and metadata of releases that the node does not believe keeps
//! everything away: before anything is brought it is looked at, since a bundle's tags would count like a registry's word. It
//! is handed over last, so that a device that hears of a release finds its images. What a release names a tag for is bound by
//! this bundle only if the newest release says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::anyhow;
use serde::Serialize;

use super::{
    super::{
        Exit, Failure, Global,
        bring::{self, Brought},
        node, output,
        progress::Progress,
        seed,
    },
    RELEASES_KEY,
};
use crate::{
    admin::{
        client::AdminClient,
        types::{HandedReleases, SeedSummary},
    },
    archive::{self, ArchiveError, SourceImage},
    config::units::show_bytes,
    release::{
        MetadataSet, Release,
        set::{SET_TYPE, TARGETS_BYTES_MAX},
        verify,
    },
};

/// An image that was brought, with `--json` a line for each.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(flatten)]
    summary: SeedSummary,
    bytes_held: u64,
    left_out: Vec<String>,
}

/// Metadata of releases that was brought, with `--json` a line for each.
#[derive(Debug, Serialize)]
struct ImportedReleases {
    /// The releases that the bundle was made for.
    bundled: Vec<String>,
    /// The repository.
    repository: String,
    /// Version of its metadata.
    version: u64,
    /// Releases in it.
    releases: usize,
}

pub(super) async fn run(file: &Path, global: &Global) -> Result<Exit, Failure> {
    let client = node::client(global)?;
    let path = file.to_owned();
    let images = tokio::task::spawn_blocking(move || archive::images_of_archive(&path)).await;
    let images = images.map_err(anyhow::Error::new)?.map_err(anyhow::Error::new)?;
    if images.is_empty() {
        return Err(anyhow::Error::new(ArchiveError::Empty(file.to_owned())).into());
    }
    let source = format!("oci-archive:{}", file.display());
    let (metadata, images): (Vec<_>, Vec<_>) =
        images.into_iter().partition(|image| image.artifact_type.as_deref() == Some(SET_TYPE));
    let mut sets = Vec::new();
    let mut said = Said::default();
    for artifact in metadata {
        let label = format!("{}: nothing was brought, for the metadata of releases in it", file.display());
        let set = Offered::look_at(&client, artifact, &mut said).await;
        sets.push(set.map_err(|error| anyhow!("{label}: {error:#}"))?);
    }
    let mut failures = Vec::new();
    let mut seen = BTreeSet::new();
    for image in images {
        let label = image.names.first().cloned().unwrap_or_else(|| image.root.to_string());
        if let Err(error) = bring_image(&client, &source, image, &mut seen, &said, global.json).await {
            failures.push(format!("{label}: {error:#}"));
        }
    }
    for set in sets {
        if let Err(error) = set.bring(&client, global.json).await {
            failures.push(format!("the metadata of releases: {error:#}"));
        }
    }
    if failures.is_empty() {
        return Ok(Exit::Done);
    }
    Err(anyhow!("{} was not brought whole, what is right stays:\n  {}", file.display(), failures.join("\n  ")).into())
}

/// Brings an image under all its names.
async fn bring_image(
    client: &AdminClient,
    source: &str,
    image: SourceImage,
    seen: &mut BTreeSet<String>,
    said: &Said,
    json: bool,
) -> anyhow::Result<()> {
    // Without a name it can only be brought by hand.
    seed::name_of(source, &image)?;
    for name in image.references() {
        if !seen.insert(name.to_string()) {
            return Err(anyhow!("{name} is there twice, with different images"));
        }
        let bind = said.binds(&name.to_string(), &image.root.to_string())?;
        let progress = Progress::new(json);
        let bar = progress.bytes("", 0, &format!("from {source}"));
        let brought = bring::bring(client, image.clone(), &name, None, bind, &bar).await;
        drop(progress);
        print(brought?, json)?;
    }
    Ok(())
}

fn print(brought: Brought, json: bool) -> anyhow::Result<()> {
    let Brought { summary, bytes_held, left_out, .. } = brought;
    if json {
        return output::print_json(&Imported { summary, bytes_held, left_out });
    }
    let SeedSummary { image, digest, blobs, bytes } = &summary;
    let counted = output::counted(*blobs as u64, "blob", "blobs");
    let mut text = format!(
        "imported {image}\n  {digest}\n  {} in {counted}, {} were here\n",
        show_bytes(*bytes),
        show_bytes(bytes_held)
    );
    for left_out in left_out {
        text.push_str(&format!("  without {left_out}, which the bundle lacks\n"));
    }
    output::print(&text)
}

/// What the releases of a bundle say of tags.
#[derive(Debug, Default)]
struct Said {
    /// In the order in which they were published.
    releases: Vec<Release>,
    /// Channels that the node follows.
    followed: Vec<String>,
}

impl Said {
    /// Whether an image's name stands for it from now on. A channel that is followed goes before others, and of each its
    /// newest release counts: an older one is brought, and its tags are not.
    ///
    /// # Errors
    /// If releases name the image, and none of them this one.
    fn binds(&self, name: &str, digest: &str) -> anyhow::Result<bool> {
        let digests = |release: &Release| -> Vec<String> {
            let named = release.images.iter().filter(|image| image.to_string() == name);
            named.map(|image| image.digest.clone()).collect()
        };
        let mut newest: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut any = false;
        for release in &self.releases {
            let digests = digests(release);
            any |= digests.iter().any(|known| known == digest);
            if !digests.is_empty() {
                newest.insert(release.channel.to_string(), digests);
            }
        }
        if newest.is_empty() {
            return Ok(true);
        }
        if !any {
            return Err(anyhow!("no release in the bundle says that it is {digest}"));
        }
        let followed = newest.keys().any(|channel| self.followed.contains(channel));
        let mut count = newest.iter().filter(|(channel, _)| !followed || self.followed.contains(channel));
        Ok(count.any(|(_, digests)| digests.iter().any(|known| known == digest)))
    }
}

/// Metadata of releases that the node would believe.
#[derive(Debug)]
struct Offered {
    set: MetadataSet,
    /// The releases that the bundle was made for.
    bundled: Vec<String>,
}

impl Offered {
    /// Reads it, has the node look at it, and notes what it says.
    async fn look_at(client: &AdminClient, artifact: SourceImage, said: &mut Said) -> anyhow::Result<Self> {
        let named = artifact.annotations.get(RELEASES_KEY).cloned().unwrap_or_default();
        let bundled = named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let set = tokio::task::spawn_blocking(move || set_of(&artifact)).await??;
        client.check_releases(&set).await?;
        said.releases.extend(verify::claimed(&set)?);
        said.followed = client.releases().await?.node.channels;
        Ok(Self { set, bundled })
    }

    async fn bring(self, client: &AdminClient, json: bool) -> anyhow::Result<()> {
        let HandedReleases { repository, version, releases } = client.hand_releases(&self.set).await?;
        let bundled = self.bundled;
        if json {
            return output::print_json(&ImportedReleases { bundled, repository, version, releases });
        }
        let counted = output::counted(releases as u64, "release", "releases");
        output::print(&format!(
            "imported the metadata of {counted}, version {version}; the bundle is for {}\n",
            bundled.join(", ")
        ))
    }
}

/// The metadata of an artifact. Whether it may be believed is the node's business.
fn set_of(artifact: &SourceImage) -> anyhow::Result<MetadataSet> {
    let manifest = artifact.manifest(&artifact.root)?.ok_or_else(|| artifact.lacks(&artifact.root))?;
    let mut files = BTreeMap::new();
    for file in MetadataSet::list(&manifest)? {
        let bytes = artifact.document(&file.content, TARGETS_BYTES_MAX as u64)?;
        files.insert(file.name, bytes.ok_or_else(|| artifact.lacks(&file.content))?);
    }
    Ok(MetadataSet::new(files)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{ReleasedImage, ReleasedPlatform};

    const NAME: &str = "registry.test/app:stable";

    fn release(number: u64, channel: &str, digest: &str) -> Release {
        let platform = ReleasedPlatform { platform: None, digest: digest.to_owned(), bytes: 1, patches: Vec::new() };
        let image = ReleasedImage {
            name: "registry.test/app".to_owned(),
            tag: Some("stable".to_owned()),
            digest: digest.to_owned(),
            media_type: String::new(),
            size: 1,
            platforms: vec![platform],
        };
        Release {
            channel: channel.parse().unwrap(),
            version: number.to_string().parse().unwrap(),
            number,
            published_unix_s: 0,
            images: vec![image],
        }
    }

    #[test]
    fn tags_that_releases_name_are_bound_to_what_the_newest_release_says() {
        let mut said = Said::default();
        assert!(said.binds(NAME, "a").unwrap(), "no release has a say");
        said.releases = vec![release(1, "stable", "a"), release(2, "stable", "b"), release(3, "beta", "c")];
        assert!(said.binds("registry.test/other:1", "x").unwrap(), "no release names it");
        assert!(said.binds(NAME, "x").unwrap_err().to_string().contains("no release in the bundle says"));
        assert!(!said.binds(NAME, "a").unwrap(), "an older release's");
        assert!(said.binds(NAME, "b").unwrap() && said.binds(NAME, "c").unwrap());
        said.followed = vec!["stable".to_owned()];
        assert!(said.binds(NAME, "b").unwrap());
        assert!(!said.binds(NAME, "c").unwrap(), "a channel that this device does not follow");
        said.followed = vec!["nightly".to_owned()];
        assert!(said.binds(NAME, "c").unwrap(), "none that is followed names it");
    }
}
