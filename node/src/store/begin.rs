//! How a blob begins: with room for it in the quota and on the disk.

use std::{fs::File, io, os::unix::fs::MetadataExt, sync::Arc};

use layermesh_proto::{ContentId, PieceLayout};

use super::{
    Inner, PARTIALS_MAX, disk,
    error::BeginError,
    growing::{self, Growing},
    lock, paths,
};

impl Inner {
    pub(super) fn begin(&self, content: ContentId, layout: PieceLayout) -> Result<Arc<Growing>, BeginError> {
        if let Some(entry) = lock(&self.held).get(&content) {
            return Err(BeginError::Held { size: entry.size });
        }
        let known = lock(&self.partials).get(&content).cloned();
        if let Some(growing) = known {
            if growing.layout == layout {
                self.allocate(&growing.data, layout)?;
                return Ok(growing);
            }
            // Nothing that somebody wrote is thrown away for a word about the size.
            if !growing.readable().is_empty() {
                return Err(BeginError::OtherSize { known: growing.layout.blob_size() });
            }
            self.discard(&growing)?;
        }
        let count = lock(&self.partials).len();
        if count >= PARTIALS_MAX && !self.evict_oldest_partial()? {
            return Err(BeginError::TooMany(count));
        }
        self.fit(&content, layout.blob_size())?;
        self.begin_anew(content, layout)
    }

    fn begin_anew(&self, content: ContentId, layout: PieceLayout) -> Result<Arc<Growing>, BeginError> {
        let dir = self.paths.partial(&content);
        self.ops.create_dir(&dir)?;
        let data = self.ops.open(&paths::data_of(&dir))?;
        let allocated = self.allocate(&data, layout);
        if let Err(error) = allocated {
            growing::remove_partial(&*self.ops, &dir)?;
            return Err(error);
        }
        let growing = Arc::new(Growing::empty(content, layout, dir, data));
        lock(&self.partials).insert(content, Arc::clone(&growing));
        self.changed.send_replace(());
        Ok(growing)
    }

    /// Allocates what a blob still lacks, if that and what was promised to those begun before leaves the reserve free.
    fn allocate(&self, data: &File, layout: PieceLayout) -> Result<(), BeginError> {
        let size = layout.blob_size();
        let needed = lacking(&data.metadata()?, size);
        if needed == 0 {
            return Ok(());
        }
        self.fit_disk(data, needed)?;
        match self.ops.reserve(data, size, false) {
            // The disk has less than it said, or not for this user.
            Err(error) if disk::is_full(&error) => Err(io::Error::new(
                error.kind(),
                format!("{error}: free disk space, or unpin images (`layermesh unpin`) and try again"),
            )
            .into()),
            other => Ok(other?),
        }
    }
}

/// Bytes that blobs which were begun, but for that in `own`, were promised and the disk has no place for yet. Where the
/// file system can reserve space there are none.
pub(super) fn unwritten<'a>(partials: impl Iterator<Item = &'a Arc<Growing>>, own: Option<&File>) -> u64 {
    let own = own.and_then(|own| own.metadata().ok()).map(|own| own.ino());
    partials
        .filter_map(|other| Some((other.data.metadata().ok()?, other.layout.blob_size())))
        .filter(|(other, _)| own != Some(other.ino()))
        .map(|(other, size)| lacking(&other, size))
        .sum()
}

/// Bytes of a file that the disk has no place for yet. `st_blocks` counts 512 bytes (stat(3type)).
fn lacking(file: &std::fs::Metadata, size: u64) -> u64 {
    size.saturating_sub(file.blocks() * 512)
}
