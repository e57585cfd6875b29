//! Placeholder for the composition root, so that this branch compiles on its own.

use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Runs the node until `shutdown`.
///
/// # Errors
/// Always: the composition root comes with the integration.
pub async fn run(_config: Config, _shutdown: CancellationToken) -> anyhow::Result<()> {
    anyhow::bail!("this build has no composition root")
}
