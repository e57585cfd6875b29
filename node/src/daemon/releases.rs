//! What follows signed releases, fetches them ahead of time and answers the admin about them.

use std::sync::Arc;

use axum::Router;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    counters::Counters,
    mesh::{Examine, Mesh},
    origin::Origins,
    release::{follow::Follower, prefetch::Prefetcher, routes::routes, status::ReleasesView},
    store::Store,
};

/// What it takes.
pub(super) struct Releasing<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) store: &'a Store,
    pub(super) origins: &'a Origins,
    pub(super) counters: &'a Arc<Counters>,
}

impl Releasing<'_> {
    /// Starts the tasks. Returns how releases can be seen, and the admin's routes.
    pub(super) fn start(
        self,
        config: &Config,
        examining: mpsc::Receiver<Examine>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> (ReleasesView, Router) {
        let (mesh, store, counters) = (self.mesh.clone(), self.store.clone(), Arc::clone(self.counters));
        let (follower, releases) =
            Follower::new(mesh.clone(), store.clone(), config.releases.clone(), &config.data_dir, examining);
        tasks.spawn(follower.run(stop.clone()));
        let (progress, progressing) = watch::channel(Vec::new());
        if let Some(config) = releases.config.clone() {
            let (mesh, store, known) = (mesh.clone(), store.clone(), releases.known());
            let prefetcher = Prefetcher { mesh, store, counters, config, known, progress };
            tasks.spawn(prefetcher.run(stop.clone()));
        }
        let view = ReleasesView { known: releases.known(), progress: progressing, config: releases.config.clone() };
        (view.clone(), routes(releases, view, mesh, store, self.origins.clone()))
    }
}
