//! What `plan --image` means: sizes, or an image on this machine whose layers have sizes.
//!
//! Invariant: nothing here asks a registry. A simulation says the same wherever it runs, so an image of a registry has to be
//! copied to an OCI image layout first.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use crate::scenario::units;

/// Bytes of an index or a manifest that are read at most. 4 MiB: what registries take.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Indexes in indexes that are followed.
const DEPTH_MAX: usize = 3;
/// Names of images in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The layers of an image, by name, with their sizes as a scenario writes them.
pub(super) enum Image {
    /// One size for all, to be divided.
    Size(String),
    /// Each layer.
    Layers(Vec<(String, String)>),
}

/// Reads what `--image` says; of an image for several platforms that of `platform`.
pub(super) fn read(image: &str, platform: &str) -> anyhow::Result<Image> {
    if let Some(layout) = image.strip_prefix("oci:") {
        return layers(&Layout::open(layout)?.manifest(platform)?);
    }
    if Path::new(image).is_file() {
        let manifest = ImageManifest::from_reader(document(Path::new(image))?.as_slice());
        return layers(&manifest.with_context(|| format!("{image} is no image manifest"))?);
    }
    let sizes: Vec<&str> = image.split(',').map(str::trim).collect();
    anyhow::ensure!(
        sizes.iter().all(|size| units::parse_size(size, u64::MAX).is_ok()) || !image.contains(['/', ':']),
        "{image} is an image of a registry, and a simulation never goes to the network. Copy it to a directory first, such as \
         with `skopeo copy --all docker://{image} oci:image`, and write `--image oci:image`; or write sizes, such as \
         `--image 300MB`, or `--image 180MB,60MB,3MB` for its layers"
    );
    Ok(match sizes.as_slice() {
        [size] => Image::Size((*size).to_owned()),
        several => Image::Layers(
            several.iter().enumerate().map(|(at, size)| (format!("layer{}", at + 1), (*size).to_owned())).collect(),
        ),
    })
}

fn layers(manifest: &ImageManifest) -> anyhow::Result<Image> {
    // A blob that stands there twice is had once, and an empty one not at all.
    let mut known = BTreeSet::new();
    let new = |layer: &&Descriptor| layer.size() > 0 && known.insert(layer.digest().to_string());
    let of = |layer: &Descriptor| {
        let name = layer.digest().digest().chars().take(12).collect();
        (name, format!("{}B", layer.size()))
    };
    let layers: Vec<_> = manifest.layers().iter().filter(new).map(of).collect();
    anyhow::ensure!(!layers.is_empty(), "the image has no layers");
    Ok(Image::Layers(layers))
}

fn document(path: &Path) -> anyhow::Result<Vec<u8>> {
    let size = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(size <= DOCUMENT_BYTES_MAX, "{} has {size} bytes, which no manifest has", path.display());
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A directory with an image of a name, or its only one.
struct Layout {
    directory: PathBuf,
    name: Option<String>,
}

impl Layout {
    /// `DIR` or `DIR:NAME`.
    fn open(text: &str) -> anyhow::Result<Self> {
        let (directory, name) = match text.rsplit_once(':') {
            Some((directory, name)) if !Path::new(text).exists() => (directory, Some(name.to_owned())),
            _ => (text, None),
        };
        let directory = PathBuf::from(directory);
        let is_layout = directory.join("index.json").is_file();
        anyhow::ensure!(is_layout, "{} is no OCI image layout: it has no index.json", directory.display());
        Ok(Self { directory, name })
    }

    fn manifest(&self, platform: &str) -> anyhow::Result<ImageManifest> {
        let path = self.directory.join("index.json");
        let index = ImageIndex::from_reader(document(&path)?.as_slice());
        let index = index.with_context(|| format!("{} is no image index", path.display()))?;
        let name_of = |entry: &Descriptor| entry.annotations().as_ref().and_then(|all| all.get(REF_NAME)).cloned();
        let named = |entry: &&Descriptor| self.name.is_none() || name_of(entry) == self.name;
        let found: Vec<&Descriptor> = index.manifests().iter().filter(named).collect();
        let names = || index.manifests().iter().filter_map(name_of).collect::<Vec<_>>().join(", ");
        let directory = self.directory.display();
        match found.as_slice() {
            [entry] => self.resolve(entry, platform, 0),
            [] => anyhow::bail!("{directory} has no such image; it has {}", names()),
            _ if self.name.is_some() => anyhow::bail!("{directory} has several images of that name"),
            _ => anyhow::bail!("{directory} has several images, so write one, `oci:{directory}:NAME`, of {}", names()),
        }
    }

    fn resolve(&self, entry: &Descriptor, platform: &str, depth: usize) -> anyhow::Result<ImageManifest> {
        let digest = entry.digest();
        let path = self.directory.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest());
        let bytes = document(&path)?;
        if *entry.media_type() != MediaType::ImageIndex {
            let manifest = ImageManifest::from_reader(bytes.as_slice());
            return manifest.with_context(|| format!("{} is no image manifest", path.display()));
        }
        anyhow::ensure!(depth < DEPTH_MAX, "more than {DEPTH_MAX} indexes stand in each other");
        let index = ImageIndex::from_reader(bytes.as_slice());
        let index = index.with_context(|| format!("{} is no image index", path.display()))?;
        let platform_of = |entry: &Descriptor| {
            let platform = entry.platform().as_ref()?;
            let variant = platform.variant().as_ref().map_or_else(String::new, |variant| format!("/{variant}"));
            Some(format!("{}/{}{variant}", platform.os(), platform.architecture()))
        };
        let fits = |entry: &&Descriptor| platform_of(entry).is_some_and(|found| found == platform);
        let Some(entry) = index.manifests().iter().find(fits) else {
            let there: Vec<_> = index.manifests().iter().filter_map(platform_of).collect();
            anyhow::bail!("the image has nothing for {platform}; write `--platform` with one of {}", there.join(", "))
        };
        self.resolve(entry, platform, depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const OTHER: &str = "a3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str, digest: &str, size: u64, more: &str) -> String {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{media_type}","digest":"sha256:{digest}","size":{size}{more}}}"#
        )
    }

    fn manifest() -> String {
        let config = descriptor("config.v1+json", LAYER, 12, "");
        let layer = |digest, size| descriptor("layer.v1.tar+gzip", digest, size, "");
        let layers = [layer(LAYER, 30_000_000), layer(OTHER, 5), layer(LAYER, 30_000_000)].join(",");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    }

    fn sizes(image: Image) -> Vec<String> {
        match image {
            Image::Size(size) => vec![size],
            Image::Layers(layers) => layers.into_iter().map(|(name, size)| format!("{name} {size}")).collect(),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("layermesh-sim-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        path
    }

    #[test]
    fn sizes_are_taken_as_they_are() {
        assert_eq!(sizes(read("300MB", "linux/amd64").unwrap()), ["300MB"]);
        assert_eq!(sizes(read("180MB, 3MB", "linux/amd64").unwrap()), ["layer1 180MB", "layer2 3MB"]);
        // The scenario's reader says what is wrong with it.
        assert_eq!(sizes(read("300XB", "linux/amd64").unwrap()), ["300XB"]);
    }

    #[test]
    fn an_image_of_a_registry_is_refused_with_what_to_do() {
        let error = read("registry.example/team/app:1", "linux/amd64").err().unwrap().to_string();
        assert!(error.contains("skopeo copy --all docker://registry.example/team/app:1 oci:image"), "{error}");
        assert!(read("nginx:1.27", "linux/amd64").is_err());
    }

    #[test]
    fn a_layout_or_a_manifest_says_how_large_the_layers_are() {
        let layout = scratch("layout");
        let blob = |digest: &str, text: &str| std::fs::write(layout.join("blobs/sha256").join(digest), text).unwrap();
        let arm = r#","platform":{"os":"linux","architecture":"arm64"}"#;
        let entry = descriptor("manifest.v1+json", LAYER, 1, arm);
        blob(LAYER, &manifest());
        blob(OTHER, &format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#));
        let named = format!(r#","annotations":{{"{REF_NAME}":"app:2"}}"#);
        let entry = descriptor("index.v1+json", OTHER, 1, &named);
        let index = |entries: &str| {
            std::fs::write(layout.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#))
                .unwrap();
        };
        index(&entry);
        let expected = ["e3b0c44298fc 30000000B", "a3b0c44298fc 5B"];
        let oci = format!("oci:{}", layout.display());
        assert_eq!(sizes(read(&oci, "linux/arm64").unwrap()), expected);
        let error = |image: &str, platform| read(image, platform).err().unwrap().to_string();
        assert!(error(&oci, "linux/amd64").contains("--platform` with one of linux/arm64"));
        assert!(error(&format!("{oci}:app:3"), "linux/arm64").contains("no OCI image layout"));
        assert!(error(&format!("{oci}:3"), "linux/arm64").contains("it has app:2"));
        index(&format!("{entry},{entry}"));
        assert!(error(&oci, "linux/arm64").contains("several images"));
        let path = layout.join("manifest.json");
        std::fs::write(&path, manifest()).unwrap();
        assert_eq!(sizes(read(&path.display().to_string(), "linux/amd64").unwrap()), expected);
        assert!(error("oci:/nowhere", "linux/amd64").contains("no OCI image layout"));
        std::fs::remove_dir_all(&layout).unwrap();
    }
}
