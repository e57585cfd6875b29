//! What a device's runtime does with a release: first the manifest, then the rest of it, a few blobs at once, and again
//! later what failed.
//!
//! Invariant: a blob of a pull is wanted at most once at a time; a pull is done when all its blobs were had.

use std::{collections::VecDeque, time::Duration};

use crate::world::Blob;

/// Blobs that a runtime asks for at once: containerd's and Docker's default.
const AT_ONCE: usize = 3;
/// Before what failed is asked for again: doubles each time, as the kubelet does it.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// Longest such wait, the kubelet's too.
const RETRY_LAST: Duration = Duration::from_secs(300);

/// One release on its way to one device.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    /// Index of the release in the scenario.
    pub(crate) release: usize,
    /// When the device was told.
    pub(crate) told: Duration,
    /// When it had all.
    pub(crate) done: Option<Duration>,
    /// Nobody waits for it.
    pub(crate) background: bool,
    /// The manifest first.
    blobs: Vec<Blob>,
    waiting: VecDeque<usize>,
    running: usize,
    missing: usize,
    failures: u32,
}

impl Pull {
    /// A pull of these blobs, of which the first is the manifest.
    pub(crate) fn new(release: usize, told: Duration, background: bool, blobs: Vec<Blob>) -> Self {
        let missing = blobs.len();
        let waiting = (0..missing).collect();
        let done = (missing == 0).then_some(told);
        Self { release, told, done, background, blobs, waiting, running: 0, missing, failures: 0 }
    }

    /// The next blob to want, if one is due. It counts as wanted from now on.
    pub(crate) fn next(&mut self) -> Option<(usize, Blob)> {
        let manifest_is_missing = self.missing == self.blobs.len();
        if self.running >= if manifest_is_missing { 1 } else { AT_ONCE } {
            return None;
        }
        let index = self.waiting.pop_front()?;
        self.running += 1;
        Some((index, self.blobs[index]))
    }

    /// A blob was had.
    pub(crate) fn had(&mut self, now: Duration) {
        self.running -= 1;
        self.missing -= 1;
        self.failures = 0;
        if self.missing == 0 {
            self.done = Some(now);
        }
    }

    /// A blob was not to be had. Returns after which time [`Pull::again`] is due.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(8)).min(RETRY_LAST);
        self.failures += 1;
        wait
    }

    /// A blob that failed is to be asked for again, before others.
    pub(crate) fn again(&mut self, index: usize) {
        self.running -= 1;
        self.waiting.push_front(index);
    }

    /// The device went down: what ran has to be asked for again, `had` says what is there.
    pub(crate) fn restart(&mut self, now: Duration, mut had: impl FnMut(Blob) -> bool) {
        if self.done.is_some() {
            return;
        }
        self.waiting = (0..self.blobs.len()).filter(|index| !had(self.blobs[*index])).collect();
        self.running = 0;
        self.failures = 0;
        self.missing = self.waiting.len();
        if self.missing == 0 {
            self.done = Some(now);
        }
    }

    /// Its blobs.
    pub(crate) fn blobs(&self) -> &[Blob] {
        &self.blobs
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::{Algorithm, ContentId, ObjectKind};

    use super::*;

    fn pull(blobs: u8) -> Pull {
        let blob =
            |number| Blob { content: ContentId::of(Algorithm::Sha256, &[number]), size: 10, kind: ObjectKind::Blob };
        Pull::new(0, Duration::ZERO, false, (0..blobs).map(blob).collect())
    }

    fn due(pull: &mut Pull) -> Vec<usize> {
        std::iter::from_fn(|| pull.next().map(|(index, _)| index)).collect()
    }

    #[test]
    fn the_manifest_comes_first_and_then_three_at_once() {
        let mut pull = pull(6);
        assert_eq!(due(&mut pull), [0]);
        pull.had(Duration::ZERO);
        assert_eq!(due(&mut pull), [1, 2, 3]);
        pull.had(Duration::ZERO);
        assert_eq!(due(&mut pull), [4]);
        for second in 1..=4 {
            pull.had(Duration::from_secs(second));
            due(&mut pull);
        }
        assert_eq!(pull.done, Some(Duration::from_secs(4)));
    }

    #[test]
    fn what_failed_comes_again_later_and_later() {
        let mut pull = pull(1);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(due(&mut pull), [0]);
            waits.push(pull.failed().as_secs());
            pull.again(0);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_device_that_was_down_asks_for_what_it_lacks() {
        let mut pull = pull(4);
        due(&mut pull);
        pull.had(Duration::ZERO);
        due(&mut pull);
        let first = pull.blobs()[0];
        let second = pull.blobs()[1];
        let now = Duration::from_secs(9);
        pull.restart(now, |blob| blob == first || blob == second);
        assert_eq!((due(&mut pull), pull.done), (vec![2, 3], None));
        pull.restart(now, |_| true);
        assert_eq!(pull.done, Some(now), "somebody brought the rest meanwhile");
    }
}
