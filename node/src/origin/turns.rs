//! A registry's endpoints, one after the other.
//!
//! Invariants: with one endpoint nothing is different from asking it; with several, one that does not begin to answer while
//! another is left is left for that one. Whether anything exists is for all of them to say: an endpoint that lacks it may be a
//! mirror that lags, so the others are asked too, and if one of those did not answer, it is not known.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use layermesh_proto::engine::event::SourceError;
use tokio::time::{Instant, timeout};

use super::{
    Origin,
    ranking::{Ranking, Use},
};

/// For an endpoint to begin its answer about a tag while another is left. 700 ms: the site waits 1.5 s for all of them before it
/// answers from memory.
const WORDS_PATIENCE: Duration = Duration::from_millis(700);
/// For an endpoint to begin with bytes while another is left. 3 s: as long as the engine gives an origin that was silent.
const BYTES_PATIENCE: Duration = Duration::from_secs(3);

/// A registry, ready to be asked.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) origins: Vec<Origin>,
    ranking: Mutex<Ranking>,
    started: Instant,
}

impl Registry {
    pub(super) fn new(origins: Vec<Origin>) -> Arc<Self> {
        let ranking = Mutex::new(Ranking::new(origins.len()));
        Arc::new(Self { origins, ranking, started: Instant::now() })
    }

    fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn failed(&self, index: usize) {
        self.ranking().failed(index, self.started.elapsed());
    }

    pub(super) fn brought(&self, index: usize, bytes: u64, time: Duration) {
        self.ranking().brought(index, bytes, time, self.started.elapsed());
    }

    /// Its endpoints, in the order in which to ask them now.
    pub(super) fn turns(self: &Arc<Self>, what: Use) -> Turns {
        let mut left = self.ranking().order(what, self.started.elapsed());
        left.reverse();
        let patience = if what == Use::Words { WORDS_PATIENCE } else { BYTES_PATIENCE };
        Turns { registry: Arc::clone(self), left, index: 0, patience, error: None }
    }
}

/// The endpoints that are left to be asked.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) registry: Arc<Registry>,
    /// The next one last.
    left: Vec<usize>,
    pub(super) index: usize,
    patience: Duration,
    error: Option<SourceError>,
}

impl Turns {
    /// The endpoint whose turn it is.
    pub(super) fn next(&mut self) -> Option<Origin> {
        self.index = self.left.pop()?;
        self.registry.origins.get(self.index).cloned()
    }

    /// Whether another one could be asked.
    pub(super) fn is_last(&self) -> bool {
        self.left.is_empty()
    }

    /// What the endpoint whose turn it is answers, if that is what was asked for.
    pub(super) async fn take<T>(&mut self, answer: impl Future<Output = Result<T, SourceError>>) -> Option<T> {
        let answer = match self.is_last() {
            true => answer.await,
            false => timeout(self.patience, answer)
                .await
                .unwrap_or_else(|_| Err(SourceError::Unreachable(format!("no answer within {:?}", self.patience)))),
        };
        match answer {
            Ok(answer) => {
                self.registry.ranking().answered(self.index);
                Some(answer)
            }
            Err(error) => {
                self.refuse(error);
                None
            }
        }
    }

    /// The endpoint whose turn it is cannot give what was asked for.
    pub(super) fn refuse(&mut self, error: SourceError) {
        match error {
            SourceError::NotFound | SourceError::Unauthorized(_) => self.registry.ranking().answered(self.index),
            _ => self.registry.failed(self.index),
        }
        if self.registry.origins.len() > 1
            && let Some(origin) = self.registry.origins.get(self.index)
        {
            tracing::debug!(endpoint = origin.endpoint.authority(), %error, "an endpoint failed");
        }
        if self.error.as_ref().is_none_or(|known| weight(&error) > weight(known)) {
            self.error = Some(error);
        }
    }

    /// Why none of them could.
    pub(super) fn error(self) -> SourceError {
        self.error.unwrap_or_else(|| SourceError::Failed("no endpoint is left".to_owned()))
    }
}

/// Of two endpoints' errors the heavier one counts.
fn weight(error: &SourceError) -> u8 {
    match error {
        SourceError::NotFound => 0,
        SourceError::Unauthorized(_) => 1,
        SourceError::Failed(_) | SourceError::WrongBytes | SourceError::Store(_) | SourceError::Cancelled => 2,
        SourceError::RateLimited { .. } => 3,
        SourceError::Unavailable(_) => 4,
        SourceError::Unreachable(_) => 5,
    }
}
