//! `layermesh demo`.

use clap::Args;

use super::{Exit, Failure, Global};

/// Arguments of `layermesh demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {}

pub(super) async fn run(_args: DemoArgs, _global: &Global) -> Result<Exit, Failure> {
    Ok(Exit::Failed)
}
