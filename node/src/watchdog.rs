//! Tells the supervisor that the node is alive, where one wants to know: systemd's watchdog, sd_notify(3).
//!
//! Invariant: it is told only after the engine's own task has answered, so that a node whose engine hangs is restarted,
//! and not only one whose process is gone.

use std::{future::Future, time::Duration};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::mesh::Mesh;

/// How often the supervisor wants to hear of the node; `None` if none does.
fn interval() -> Option<Duration> {
    let mut usec = 0;
    // Not unset: that would change the environment while threads run, and no child of the node listens to it.
    let wanted = sd_notify::watchdog_enabled(false, &mut usec);
    (wanted && usec > 0).then(|| Duration::from_micros(usec))
}

/// Tells the supervisor, if it wants to know, until `shutdown`.
pub(crate) async fn run(mesh: Mesh, shutdown: CancellationToken) {
    let Some(patience) = interval() else { return };
    let tell = || {
        // A supervisor that cannot be told will do as if the node hung, and there is nobody else to tell.
        let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
    };
    tend(patience, || mesh.answers(), tell, shutdown).await;
}

/// Asks twice in each `patience`, as sd_watchdog_enabled(3) advises, and tells after each answer.
async fn tend<A: Future<Output = bool>>(
    patience: Duration,
    ask: impl Fn() -> A,
    mut tell: impl FnMut(),
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(patience / 2);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            true = ask() => tell(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_engine_hangs_says_nothing_more() {
        let (hangs, told, stop) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (asked, heard, patience) = (hangs.clone(), told.clone(), Duration::from_secs(10));
        let ask = move || {
            let hangs = asked.load(Relaxed);
            async move { if hangs { std::future::pending().await } else { true } }
        };
        let tell = move || {
            heard.fetch_add(1, Relaxed);
        };
        let tending = tokio::spawn(tend(patience, ask, tell, stop.clone()));
        tokio::time::sleep(patience + Duration::from_secs(1)).await;
        assert_eq!(told.load(Relaxed), 3, "at once, and twice in each interval");
        hangs.store(true, Relaxed);
        tokio::time::sleep(10 * patience).await;
        assert_eq!(told.load(Relaxed), 3);
        stop.cancel();
        tending.await.unwrap();
    }
}
