//! When to stop: signals, and a parent that went away.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Exit;

/// A token that SIGTERM or SIGINT cancels. A second signal ends the process at once.
pub(super) fn shutdown_on_signals() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for last in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if last {
                warn!(signal = name, "second signal, ending at once");
                std::process::exit(Exit::Failed as i32);
            }
            info!(signal = name, "shutting down");
            token.cancel();
        }
    });
    Ok(shutdown)
}

/// Cancels `shutdown` when standard input closes, which the kernel does when the process at its other end dies,
/// however it dies. A thread of its own, because a blocked read must not hold up the runtime's end.
pub(super) fn shutdown_when_stdin_closes(shutdown: CancellationToken) -> anyhow::Result<()> {
    let watch = move || {
        let mut buffer = [0; 64];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut buffer).is_ok_and(|read| read > 0) {}
        info!("standard input closed, shutting down");
        shutdown.cancel();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).context("cannot watch standard input")?;
    Ok(())
}
