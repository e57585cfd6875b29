//! How a blob begins: with room for it on the disk.

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
                self.make_room(&growing.data, layout)?;
                return Ok(growing);
            }
            // Nothing that somebody wrote is thrown away for a word about the size.
            if !growing.readable().is_empty() {
                return Err(BeginError::OtherSize { known: growing.layout.blob_size() });
            }
            self.discard(&growing)?;
        }
        let count = lock(&self.partials).len();
        if count >= PARTIALS_MAX {
            return Err(BeginError::TooMany(count));
        }
        self.begin_anew(content, layout)
    }

    fn begin_anew(&self, content: ContentId, layout: PieceLayout) -> Result<Arc<Growing>, BeginError> {
        let dir = self.paths.partial(&content);
        self.ops.create_dir(&dir)?;
        let data = self.ops.open(&paths::data_of(&dir))?;
        let reserved = self.make_room(&data, layout);
        if let Err(error) = reserved {
            growing::remove_partial(&*self.ops, &dir)?;
            return Err(error);
        }
        let growing = Arc::new(Growing::empty(content, layout, dir, data));
        lock(&self.partials).insert(content, Arc::clone(&growing));
        self.changed.send_replace(());
        Ok(growing)
    }

    /// Bytes that blobs which are not begun yet may have: what is free beyond the reserve, less what was promised to those
    /// begun before.
    pub(super) fn room(&self) -> io::Result<u64> {
        let partials = lock(&self.partials);
        let promised: u64 = partials
            .values()
            .filter_map(|growing| Some(lacking(&growing.data.metadata().ok()?, growing.layout.blob_size())))
            .sum();
        drop(partials);
        let free = self.ops.free_bytes(&self.paths.root)?;
        Ok(free.saturating_sub(self.free_bytes_min).saturating_sub(promised))
    }

    /// Allocates what a blob still lacks, if that and what was promised to those begun before leaves the reserve free.
    fn make_room(&self, data: &File, layout: PieceLayout) -> Result<(), BeginError> {
        let size = layout.blob_size();
        let own = data.metadata()?;
        let needed = lacking(&own, size);
        if needed == 0 {
            return Ok(());
        }
        // Where the file system can reserve space, the others lack nothing.
        let promised: u64 = lock(&self.partials)
            .values()
            .filter_map(|other| Some((other.data.metadata().ok()?, other.layout.blob_size())))
            .filter(|(other, _)| other.ino() != own.ino())
            .map(|(other, size)| lacking(&other, size))
            .sum();
        let free = self.ops.free_bytes(&self.paths.root)?.saturating_sub(self.free_bytes_min).saturating_sub(promised);
        if needed > free {
            return Err(BeginError::NoSpace { needed, free });
        }
        self.ops.reserve(data, size, false).map_err(|error| self.no_room(error, needed))
    }

    fn no_room(&self, error: io::Error, needed: u64) -> BeginError {
        if !disk::is_full(&error) {
            return error.into();
        }
        let free = self.ops.free_bytes(&self.paths.root).unwrap_or(0).saturating_sub(self.free_bytes_min);
        BeginError::NoSpace { needed, free }
    }
}

/// Bytes of a file that the disk has no place for yet. `st_blocks` counts 512 bytes (stat(3type)).
fn lacking(file: &std::fs::Metadata, size: u64) -> u64 {
    size.saturating_sub(file.blocks() * 512)
}
