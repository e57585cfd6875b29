//! Images made from nothing but a seed.
//!
//! The result is a real OCI image (image spec 1.1): an index over platforms, gzip'd tar layers with a plausible root
//! file system, a config whose `diff_ids` and history are right. Runtimes unpack it; it has no program to run.
//! The same [`ImageSpec`] gives the same digests on every device and in every run of one build. Layers are written to
//! files as they are made, so that an image of gigabytes needs no memory to speak of.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    str::FromStr as _,
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use layermesh_proto::{Algorithm, ContentId};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest as _, Sha256};

/// Media type of an index.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a layer.
pub const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Fewest layers of an image.
pub const LAYERS_MIN: usize = 4;
/// Most layers of an image: what overlayfs mounts take.
pub const LAYERS_MAX: usize = 127;
/// Fewest bytes of an image: below that the smallest layers would be all headers.
pub const SIZE_BYTES_MIN: u64 = 64 << 10;

/// Files in a layer at most, so that a large layer has large files rather than a million small ones.
const FILES_PER_LAYER: u64 = 48;
/// Files smaller than this are not worth another.
const FILE_BYTES_MIN: u64 = 4 << 10;
/// When everything was made: a fixed time, since the digests depend on it (2024-01-01T00:00:00Z).
const MADE_UNIX_S: u64 = 1_704_067_200;
const MADE_RFC3339: &str = "2024-01-01T00:00:00Z";

/// What image to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSpec {
    /// Bytes of one platform's compressed layers together, met within 2 %; at least [`SIZE_BYTES_MIN`].
    pub size_bytes: u64,
    /// Layers of each platform, [`LAYERS_MIN`] to [`LAYERS_MAX`].
    pub layers: usize,
    /// Decides all content.
    pub seed: u64,
    /// Whether there is also a linux/arm64, of the same size and with other layers.
    pub arm64: bool,
}

/// A layer, in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The compressed layer.
    pub content: ContentId,
    /// The uncompressed layer's digest.
    pub diff_id: ContentId,
    /// Size of the compressed layer in bytes.
    pub size: u64,
    /// Its file.
    pub path: PathBuf,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformImage {
    /// Its manifest.
    pub manifest: Bytes,
    /// Its config.
    pub config: Bytes,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The index over its platforms.
    pub index: Bytes,
    /// linux/amd64, then linux/arm64 if asked for.
    pub platforms: Vec<PlatformImage>,
}

impl Image {
    /// Bytes that a device of one platform pulls: index, its manifest, config and layers.
    pub fn pull_bytes(&self, platform: usize) -> u64 {
        let Some(platform) = self.platforms.get(platform) else { return 0 };
        let documents = self.index.len() + platform.manifest.len() + platform.config.len();
        documents as u64 + platform.layers.iter().map(|layer| layer.size).sum::<u64>()
    }
}

/// Makes an image; its layers become files in `directory`, named by their digests. Blocks, mostly on the processor.
///
/// # Errors
/// If the spec is out of bounds ([`io::ErrorKind::InvalidInput`]) or a file cannot be written.
pub fn make_image(spec: &ImageSpec, directory: &Path) -> io::Result<Image> {
    if !(LAYERS_MIN..=LAYERS_MAX).contains(&spec.layers) || spec.size_bytes < SIZE_BYTES_MIN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("an image has {LAYERS_MIN} to {LAYERS_MAX} layers and at least {SIZE_BYTES_MIN} bytes"),
        ));
    }
    let mut architectures = vec![Arch::Amd64];
    if spec.arm64 {
        architectures.push(Arch::ARM64);
    }
    let mut platforms = Vec::new();
    let mut descriptors = Vec::new();
    for architecture in architectures {
        let image = make_platform(spec, &architecture, directory)?;
        let platform = PlatformBuilder::default().os(Os::Linux).architecture(architecture).build().map_err(invalid)?;
        let (size, digest) = (image.manifest.len() as u64, digest_of(&image.manifest)?);
        let descriptor = DescriptorBuilder::default()
            .media_type(MediaType::ImageManifest)
            .size(size)
            .digest(digest)
            .platform(platform)
            .build();
        descriptors.push(descriptor.map_err(invalid)?);
        platforms.push(image);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageIndex)
        .manifests(descriptors)
        .build()
        .map_err(invalid)?;
    Ok(Image { index: document(&index)?, platforms })
}

fn make_platform(spec: &ImageSpec, architecture: &Arch, directory: &Path) -> io::Result<PlatformImage> {
    let mut layers = Vec::new();
    for (number, size_bytes) in layer_sizes(spec.size_bytes, spec.layers).into_iter().enumerate() {
        let mut random = blake3::Hasher::new();
        random.update(format!("layermesh image {} {architecture} layer {number}", spec.seed).as_bytes());
        layers.push(make_layer(number, size_bytes, &mut random.finalize_xof(), architecture, directory)?);
    }
    let config = document(&configuration(architecture, &layers)?)?;
    let layer_descriptors = layers
        .iter()
        .map(|layer| Ok(Descriptor::new(MediaType::ImageLayerGzip, layer.size, sha256(&layer.content)?)))
        .collect::<io::Result<Vec<_>>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, config.len() as u64, digest_of(&config)?))
        .layers(layer_descriptors)
        .build()
        .map_err(invalid)?;
    Ok(PlatformImage { manifest: document(&manifest)?, config, layers })
}

/// Sizes as images have them: a base of about half, then smaller and smaller layers, none empty.
fn layer_sizes(size_bytes: u64, layers: usize) -> Vec<u64> {
    let smallest = size_bytes / (4 * layers as u64);
    let mut left = size_bytes - smallest * layers as u64;
    let mut sizes: Vec<u64> = Vec::new();
    for number in 0..layers {
        let share = if number + 1 == layers { left } else { left / 2 };
        left -= share;
        sizes.push(smallest + share);
    }
    sizes
}

/// Hashes and counts what goes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    written: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), written: 0 }
    }

    fn finish(self) -> io::Result<(W, ContentId, u64)> {
        let content = ContentId::from_digest(Algorithm::Sha256, &self.hasher.finalize())
            .ok_or_else(|| invalid("SHA-256 of another length"))?;
        Ok((self.inner, content, self.written))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

type LayerWriter = tar::Builder<Hashing<GzEncoder<Hashing<BufWriter<File>>>>>;

fn make_layer(
    number: usize,
    size_bytes: u64,
    random: &mut blake3::OutputReader,
    architecture: &Arch,
    directory: &Path,
) -> io::Result<Layer> {
    let file = tempfile::Builder::new().prefix("layer-").tempfile_in(directory)?;
    // Random bytes do not compress; the fastest level finds that out soonest.
    let gzip = GzBuilder::new().write(Hashing::new(BufWriter::new(file.reopen()?)), Compression::fast());
    let mut tar = tar::Builder::new(Hashing::new(gzip));
    if number == 0 {
        base_tree(&mut tar, architecture)?;
    }
    data_tree(&mut tar, number, size_bytes, random)?;
    let (gzip, diff_id, _) = tar.into_inner()?.finish()?;
    let (mut output, content, size) = gzip.finish()?.finish()?;
    output.flush()?;
    let path = directory.join(content.hex());
    file.persist(&path)?;
    Ok(Layer { content, diff_id, size, path })
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MADE_UNIX_S);
    header
}

fn directories(tar: &mut LayerWriter, paths: &[&str]) -> io::Result<()> {
    for path in paths {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, io::empty())?;
    }
    Ok(())
}

fn text(tar: &mut LayerWriter, path: &str, text: &str) -> io::Result<()> {
    tar.append_data(&mut header(tar::EntryType::Regular, 0o644, text.len() as u64), path, text.as_bytes())
}

/// What every root file system has.
fn base_tree(tar: &mut LayerWriter, architecture: &Arch) -> io::Result<()> {
    directories(tar, &["dev/", "etc/", "home/", "proc/", "root/", "run/", "sys/", "tmp/", "usr/", "usr/bin/", "var/"])?;
    directories(tar, &["usr/lib/", "usr/share/", "usr/share/doc/", "var/lib/", "var/log/"])?;
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("sbin", "usr/bin")] {
        tar.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), link, target)?;
    }
    text(tar, "etc/os-release", "NAME=\"Layermesh Demo\"\nID=layermesh-demo\nVERSION_ID=\"1\"\n")?;
    text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    text(tar, "etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    text(tar, "etc/hostname", "layermesh-demo\n")?;
    text(tar, "etc/architecture", &format!("{architecture}\n"))
}

/// Files of random bytes, of sizes that differ as those of a package do.
fn data_tree(
    tar: &mut LayerWriter,
    number: usize,
    size_bytes: u64,
    random: &mut blake3::OutputReader,
) -> io::Result<()> {
    let root = if number == 0 { "usr/lib/base/".to_owned() } else { format!("usr/share/app-{number}/") };
    directories(tar, &[&root])?;
    text(tar, &format!("usr/share/doc/layer-{number}"), &"A layer of an image made for a demonstration.\n".repeat(20))?;
    let mut left = size_bytes;
    let mean = (size_bytes / FILES_PER_LAYER).max(FILE_BYTES_MIN);
    let mut file = 0;
    while left > 0 {
        let mut draw = [0; 8];
        random.fill(&mut draw);
        // Half to one and a half times the mean; the last takes what is left.
        let drawn = mean / 2 + u64::from_le_bytes(draw) % mean;
        let size = if drawn + FILE_BYTES_MIN > left { left } else { drawn };
        let mode = if file % 8 == 0 { 0o755 } else { 0o644 };
        let mut header = header(tar::EntryType::Regular, mode, size);
        tar.append_data(&mut header, format!("{root}{file:04}.bin"), Random(random).take(size))?;
        left -= size;
        file += 1;
    }
    Ok(())
}

/// An endless stream of bytes that depend on the seed alone.
struct Random<'a>(&'a mut blake3::OutputReader);

impl Read for Random<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fill(buffer);
        Ok(buffer.len())
    }
}

fn configuration(architecture: &Arch, layers: &[Layer]) -> io::Result<oci_spec::image::ImageConfiguration> {
    let history = (0..layers.len())
        .map(|number| {
            HistoryBuilder::default()
                .created(MADE_RFC3339)
                .created_by(format!("layermesh demo: layer {number}"))
                .build()
                .map_err(invalid)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let root_fs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>())
        .build()
        .map_err(invalid)?;
    let config = ConfigBuilder::default()
        .env(vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()])
        .cmd(vec!["/bin/sh".to_owned()])
        .working_dir("/")
        .build()
        .map_err(invalid)?;
    ImageConfigurationBuilder::default()
        .created(MADE_RFC3339)
        .architecture(architecture.clone())
        .os(Os::Linux)
        .config(config)
        .rootfs(root_fs)
        .history(history)
        .build()
        .map_err(invalid)
}

fn document(value: &impl serde::Serialize) -> io::Result<Bytes> {
    Ok(serde_json::to_vec(value)?.into())
}

fn digest_of(bytes: &[u8]) -> io::Result<Sha256Digest> {
    sha256(&ContentId::of(Algorithm::Sha256, bytes))
}

fn sha256(content: &ContentId) -> io::Result<Sha256Digest> {
    Sha256Digest::from_str(&content.hex()).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
