//! `compare`: two reports beside each other.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{print, width};
use crate::report::{Comparison, Report};

/// Which reports.
#[derive(Debug, Clone, Args)]
pub(super) struct CompareArgs {
    /// The earlier one, as JSON
    old: PathBuf,
    /// The later one, as JSON
    new: PathBuf,
    /// Write the comparison as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<bool> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let comparison = Comparison::new(&old, &new);
    print(&comparison.to_text(width()));
    if let Some(path) = &args.html {
        std::fs::write(path, comparison.to_html()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(!comparison.is_worse())
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Report::from_json(&text).with_context(|| format!("{} is no report of this version", path.display()))
}
