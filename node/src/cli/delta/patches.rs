//! `layermesh delta make`, `apply` and `show`.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use layermesh_proto::{
    ContentId, Verifier,
    patch::{Header, Sizes},
};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::{
    cli::{
        Exit, Failure, Global, output,
        progress::{Progress, WHOLE},
    },
    config::units::{parse_bytes, show_bytes},
    delta::{
        apply::{ApplyError, Limits, apply_chain, read_header},
        make::{Made, Options, Phase, make as make_patch},
    },
};

/// Arguments of `layermesh delta make`.
#[derive(Debug, Args)]
pub(in crate::cli) struct MakeArgs {
    /// The old layer: its blob (gzip) or its tar
    old: PathBuf,
    /// The new layer's blob, exactly as the registry has it
    new: PathBuf,
    /// Where the patch goes
    #[arg(short, long, value_name = "PATCH")]
    output: PathBuf,
    /// For which devices: what applying takes, and how far apart in the layers the same bytes may be
    #[arg(long = "for", value_name = "DEVICES", value_enum, default_value_t = Devices::Default)]
    devices: Devices,
}

/// Who a patch is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Devices {
    /// Those that have 32 MiB of memory for it
    Default,
    /// Those that have 12 MiB for it; patches are a little larger
    Tiny,
}

impl Devices {
    pub(super) const fn sizes(self) -> Sizes {
        match self {
            Self::Default => Sizes::DEFAULT,
            Self::Tiny => Sizes::TINY,
        }
    }
}

/// Arguments of `layermesh delta apply`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ApplyArgs {
    /// The old layer: its blob (gzip) or its tar
    old: PathBuf,
    /// The patch, or patches, each for what the one before makes
    #[arg(required = true, value_name = "PATCH")]
    patches: Vec<PathBuf>,
    /// Where the new layer's blob goes
    #[arg(short, long, value_name = "NEW")]
    output: PathBuf,
    /// How much memory the patches may take, all together
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    memory: u64,
}

/// Arguments of `layermesh delta show`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The patch
    patch: PathBuf,
}

/// What `--json` prints of a patch.
#[derive(Debug, Serialize)]
struct Shown {
    /// Bytes of the patch.
    patch_size: u64,
    base_diff_id: String,
    base_tar_size: u64,
    diff_id: String,
    tar_size: u64,
    digest: String,
    size: u64,
    encoder: String,
    /// Bytes of memory that applying takes.
    memory: u64,
    /// Bytes of the old tar that are held of these.
    window: u64,
    /// How many bytes of the new tar lie along old ones, are repeated, or are in the patch; only where it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts: Option<Parts>,
}

#[derive(Debug, Serialize)]
struct Parts {
    aligned: u64,
    matched: u64,
    literal: u64,
}

impl Shown {
    fn of(header: &Header, patch_size: u64) -> Self {
        Self {
            patch_size,
            base_diff_id: header.base.to_string(),
            base_tar_size: header.base_len,
            diff_id: header.tar.to_string(),
            tar_size: header.tar_len,
            digest: header.blob.to_string(),
            size: header.blob_len,
            encoder: header.recipe.encoder.to_string(),
            memory: Limits::needed([header]),
            window: 1 << header.sizes.window_log,
            parts: None,
        }
    }

    fn told(&self) -> String {
        let mut text = String::new();
        let part = self.patch_size as f64 * 100.0 / self.size.max(1) as f64;
        let _ = writeln!(text, "from     tar {} ({})", self.base_diff_id, show_bytes(self.base_tar_size));
        let _ = writeln!(text, "to       layer {} ({})", self.digest, show_bytes(self.size));
        let _ = writeln!(text, "         tar {} ({})", self.diff_id, show_bytes(self.tar_size));
        let _ = writeln!(text, "encoder  {}", self.encoder);
        let _ = writeln!(text, "patch    {}, {part:.2} % of the layer", show_bytes(self.patch_size));
        let _ = writeln!(text, "memory   {} to apply", show_bytes(self.memory));
        text
    }
}

pub(in crate::cli) async fn make(arguments: MakeArgs, global: &Global) -> Result<Exit, Failure> {
    let MakeArgs { old, new, output: to, devices } = arguments;
    let (old_file, new_file) = (open(&old)?, open(&new)?);
    let progress = Progress::new(global.json);
    let bar = progress.parts("patch", "");
    let options = Options { sizes: devices.sizes() };
    let made = blocking(move || {
        make_patch(old_file, new_file, &options, |phase, done| {
            bar.set_message(doing(phase));
            bar.set_position(over_all(phase, done));
        })
    })
    .await;
    drop(progress);
    let made = made?.with_context(|| format!("no patch from {} to {}", old.display(), new.display()))?;
    let Made { header, patch, aligned, matched, literal } = made;
    let mut file = beside(&to)?;
    file.write_all(&patch).with_context(|| format!("cannot write {}", to.display()))?;
    keep(file, &to)?;
    let shown = Shown { parts: Some(Parts { aligned, matched, literal }), ..Shown::of(&header, patch.len() as u64) };
    if global.json {
        output::print_json_document(&shown)?;
    } else {
        output::print(&shown.told())?;
        if shown.patch_size >= shown.size {
            output::note("the patch is no smaller than the layer: it is of no use");
        }
    }
    Ok(Exit::Done)
}

/// How much of all is done, of [`WHOLE`], by what the phases take, about.
pub(super) const fn over_all(phase: Phase, done: u64) -> u64 {
    let (begin, end) = match phase {
        Phase::Read => (0, 200),
        Phase::Compare => (200, 800),
        Phase::Write => (800, 900),
        Phase::Check => (900, WHOLE),
    };
    begin + (end - begin) * done / 1000
}

/// What is done in a phase, for people.
pub(super) const fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Read => "reading both layers",
        Phase::Compare => "comparing",
        Phase::Write => "writing",
        Phase::Check => "applying it once",
    }
}

pub(in crate::cli) async fn apply(arguments: ApplyArgs, global: &Global) -> Result<Exit, Failure> {
    let ApplyArgs { old, patches, output: to, memory } = arguments;
    let files = patches.iter().map(|patch| open(patch)).collect::<Result<Vec<_>, _>>()?;
    let sizes = files.iter().map(|file| file.metadata().map(|metadata| metadata.len())).sum::<io::Result<u64>>();
    let base = open(&old)?;
    let len = base.metadata().with_context(|| format!("cannot read {}", old.display()))?.len();
    let progress = Progress::new(global.json);
    let bar = progress.bytes("layer", len, &format!("from {} and a patch", old.display()));
    let limits = Limits { memory, ..Limits::DEFAULT };
    let last = patches.last().map(|patch| open(patch)).transpose()?;
    let mut file = beside(&to)?;
    let written = blocking(move || {
        let wanted = last.map(read_header).transpose()?.map(|header| header.blob);
        let written = write_new(bar.wrap_read(base), files, &mut file, &limits, wanted);
        written.map(|header| (header, file))
    })
    .await;
    drop(progress);
    let (header, file) = written?.map_err(with_advice)?;
    keep(file, &to)?;
    let shown = Shown::of(&header, sizes.context("cannot read the patches")?);
    if global.json {
        output::print_json_document(&shown)?;
    } else {
        output::print(&format!("{} {} ({})\n", to.display(), shown.digest, show_bytes(shown.size)))?;
    }
    Ok(Exit::Done)
}

/// Applies the patches and looks at the digest of what they make.
fn write_new(
    base: impl Read,
    patches: Vec<File>,
    out: impl Write,
    limits: &Limits,
    wanted: Option<ContentId>,
) -> anyhow::Result<Header> {
    let mut out = Checked { out: BufWriter::new(out), verifier: wanted.map(Verifier::new) };
    let header = apply_chain(base, patches, &mut out, limits)?;
    match out.verifier.map(Verifier::finish) {
        Some(Err(mismatch)) => Err(anyhow::anyhow!(
            "the patch makes the layer {} and not {}, which it names: it was not made as patches are; make it again",
            mismatch.found,
            header.blob
        )),
        _ => Ok(header),
    }
}

/// What goes out, with its digest.
struct Checked<W> {
    out: W,
    verifier: Option<Verifier>,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.verifier.iter_mut().for_each(|verifier| verifier.update(&bytes[..len]));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What to do about it, where the command line can do it.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(ApplyError::Memory { needed, .. }) => {
            let enough = needed.div_ceil(1 << 20);
            error.context(format!("try again with --memory {enough}MiB, or make the patch with --for tiny"))
        }
        Some(ApplyError::WrongBase { .. }) => {
            error.context("take the old layer that `layermesh delta show` names, or make the patch from this one")
        }
        _ => error,
    }
}

pub(in crate::cli) fn show(arguments: &ShowArgs, global: &Global) -> Result<Exit, Failure> {
    let file = open(&arguments.patch)?;
    let len = file.metadata().with_context(|| format!("cannot read {}", arguments.patch.display()))?.len();
    let header = read_header(file).with_context(|| arguments.patch.display().to_string())?;
    let shown = Shown::of(&header, len);
    if global.json {
        output::print_json_document(&shown)?;
    } else {
        output::print(&shown.told())?;
    }
    Ok(Exit::Done)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work broke off")
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// A file beside `to` that takes its place once it is whole, so that nothing half-made has the name.
fn beside(to: &Path) -> anyhow::Result<NamedTempFile> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    NamedTempFile::new_in(folder).with_context(|| format!("cannot write to {}", folder.display()))
}

fn keep(file: NamedTempFile, to: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let readable = std::fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(readable).with_context(|| format!("cannot write {}", to.display()))?;
    file.persist(to).map(drop).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use layermesh_proto::gzip;

    use super::*;

    fn global(json: bool) -> Global {
        Global { admin: None, data_dir: None, json }
    }

    #[tokio::test]
    async fn a_patch_is_made_shown_and_applied() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let content: Vec<u8> = (0..90_000_u32).flat_map(|n| n.wrapping_mul(77_777).to_le_bytes()).collect();
        let blob = |content: &[u8]| gzip::encode("go-gzip/1:6".parse().unwrap(), &gzip::Header::default(), content);
        std::fs::write(path("old"), &content).unwrap();
        let new = blob(&content[4000..]);
        std::fs::write(path("new"), &new).unwrap();
        for devices in [Devices::Default, Devices::Tiny] {
            let arguments = MakeArgs { old: path("old"), new: path("new"), output: path("patch"), devices };
            assert_eq!(make(arguments, &global(false)).await.unwrap(), Exit::Done);
            assert_eq!(show(&ShowArgs { patch: path("patch") }, &global(true)).unwrap(), Exit::Done);
            let again = ApplyArgs {
                old: path("old"),
                patches: vec![path("patch")],
                output: path("again"),
                memory: Limits::DEFAULT.memory,
            };
            assert_eq!(apply(again, &global(true)).await.unwrap(), Exit::Done);
            assert!(std::fs::read(path("again")).unwrap() == new);
        }
        let header = read_header(File::open(path("patch")).unwrap()).unwrap();
        let text = Shown::of(&header, 500).told();
        assert!(text.contains("patch    500 B, 0.") && text.contains("9.25 MiB to apply"), "{text}");
        let refused = |old: &str, memory| ApplyArgs {
            old: path(old),
            patches: vec![path("patch")],
            output: path("none"),
            memory,
        };
        let error = apply(refused("old", 1 << 20), &global(false)).await.unwrap_err().error;
        assert!(format!("{error:#}").contains("--memory 10MiB"), "{error:#}");
        let error = apply(refused("new", 32 << 20), &global(false)).await.unwrap_err().error;
        assert!(format!("{error:#}").contains("layermesh delta show"), "{error:#}");
        assert!(!path("none").exists(), "nothing half-made is left");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
    }
}
