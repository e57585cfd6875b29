//! When each whole blob was last used: what the choice of what goes, when there is no room, goes by.
//!
//! It lives in memory, with the blob, and is written down rarely, since flash wears and the choice is coarse: a use within
//! [`SAVE_GRAIN_MS`] of the one on disk is not written, and all that are go into one commit, at most one each
//! [`super::room::TEND_INTERVAL`], and one when the store is closed. A crash costs that much of it. Of a blob that has no
//! row, its file's time stands for it: when it landed.
//!
//! Invariant: the clock is never set back, whatever the device's does. A device without a clock of its own goes on from
//! the latest use that it knows.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use layermesh_proto::ContentId;
use redb::{ReadableTable as _, TableDefinition};
use tokio::time::Instant;

use super::{HeldEntry, Inner, Place, error::MetaError, lock, meta::Meta};

/// Milliseconds that a use must be later than the one on disk to be written while the store is open.
pub(super) const SAVE_GRAIN_MS: u64 = 3600 * 1000;

/// Binary CID → milliseconds on the [`UseClock`].
pub(super) const USES: TableDefinition<'_, &[u8], u64> = TableDefinition::new("uses");

/// Milliseconds since the Unix epoch, as far as the device knows; never set back.
#[derive(Debug)]
pub(super) struct UseClock {
    start: Instant,
    start_ms: u64,
    latest_ms: AtomicU64,
}

impl UseClock {
    /// A clock that goes on from `known_ms` if the device's is behind that.
    pub(super) fn new(known_ms: u64) -> Self {
        Self { start: Instant::now(), start_ms: known_ms, latest_ms: AtomicU64::new(known_ms) }
    }

    pub(super) fn now_ms(&self) -> u64 {
        let counted = self.start_ms.saturating_add(millis(self.start.elapsed()));
        let now = wall_ms(SystemTime::now()).max(counted);
        self.latest_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// A moment of the device's clock; one before 1970 is 1970.
pub(super) fn wall_ms(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When a file was written last.
pub(super) fn file_ms(metadata: &fs::Metadata) -> u64 {
    metadata.modified().map_or(0, wall_ms)
}

impl HeldEntry {
    /// A blob found at start: last used when its row says, or its file.
    pub(super) fn found(size: u64, row_ms: Option<u64>, path: &Path) -> Self {
        let used_ms = row_ms.or_else(|| fs::metadata(path).ok().map(|metadata| file_ms(&metadata))).unwrap_or(0);
        Self { size, place: Place::Own, open: std::sync::Weak::new(), used_ms, saved_ms: row_ms.unwrap_or(used_ms) }
    }
}

impl Inner {
    /// A blob that has become whole now. Its file's time says so, too, and is as good as a row.
    pub(super) fn fresh(&self, size: u64) -> HeldEntry {
        let used_ms = self.clock.now_ms();
        HeldEntry { size, place: Place::Own, open: std::sync::Weak::new(), used_ms, saved_ms: used_ms }
    }

    /// Notes that a blob is used now.
    pub(super) fn touch(&self, content: &ContentId) {
        let now = self.clock.now_ms();
        if let Some(entry) = lock(&self.held).get_mut(content) {
            entry.used_ms = now;
        }
    }

    /// Writes down the uses that are more than `grain_ms` later than what is on disk.
    pub(super) fn save_uses(&self, grain_ms: u64) -> Result<(), MetaError> {
        let due: Vec<_> = lock(&self.held)
            .iter()
            // What may go is the store's own.
            .filter(|(_, entry)| entry.place == Place::Own)
            .filter(|(_, entry)| entry.used_ms.saturating_sub(entry.saved_ms) > grain_ms)
            .map(|(&content, entry)| (content, entry.used_ms))
            .collect();
        // What cannot be written now is written another time.
        if due.is_empty() || self.can_record().is_err() {
            return Ok(());
        }
        self.meta.save_uses(&due)?;
        let mut held = lock(&self.held);
        for (content, used_ms) in due {
            if let Some(entry) = held.get_mut(&content) {
                entry.saved_ms = used_ms;
            }
        }
        Ok(())
    }
}

impl Meta {
    /// All uses that were written down.
    pub(super) fn uses(&self) -> Result<HashMap<ContentId, u64>, MetaError> {
        self.db.read(|read| {
            let table = read.open_table(USES)?;
            let mut uses = HashMap::new();
            for row in table.iter()? {
                let (key, value) = row?;
                if let Ok(content) = ContentId::from_bytes(key.value()) {
                    uses.insert(content, value.value());
                }
            }
            Ok(uses)
        })
    }

    fn save_uses(&self, uses: &[(ContentId, u64)]) -> Result<(), MetaError> {
        self.db.write(|write| {
            let mut table = write.open_table(USES)?;
            for (content, used_ms) in uses {
                table.insert(content.to_bytes().as_slice(), used_ms)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_from_what_is_known_and_never_back() {
        let ahead = wall_ms(SystemTime::now()) + 1_000_000_000;
        let clock = UseClock::new(ahead);
        assert!(clock.now_ms() >= ahead);
        clock.latest_ms.store(ahead * 2, Ordering::Relaxed);
        assert_eq!(clock.now_ms(), ahead * 2);
        assert!(UseClock::new(0).now_ms() > 1_000_000_000_000, "the device's clock where it is right");
    }
}
