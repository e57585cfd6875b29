//! Files in `blobs/` that nothing vouches for: hashed one by one in the background, then taken in or moved aside.
//!
//! They come from other tools that wrote into the layout, or are all of the blobs if the metadata were lost.
//! Invariant: such a file is neither listed nor read from before its digest was right and its bytes are durable.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    sync::{Arc, Weak},
};

use layermesh_proto::{ContentId, PieceHash, PieceLayout, PieceMap, Verifier};
use tracing::{info, warn};

use super::{HeldEntry, Inner, Store, StoreEvent, error::ChangeError, lock};

/// Looks into each of the files. Ends early when the store is closed.
pub(super) async fn adopt_all(store: Weak<Inner>, unknown: Vec<ContentId>) {
    for content in unknown {
        let Some(inner) = store.upgrade() else { return };
        let store = Store(inner);
        if let Err(error) = store.adopt(content).await {
            warn!(%content, %error, "cannot take in a blob that was found");
        }
    }
}

/// What a file turned out to be.
enum Found {
    Blob(PieceMap),
    SomethingElse,
    /// Gone, too large, or written to while it was read.
    LeaveAlone,
}

impl Store {
    async fn adopt(&self, content: ContentId) -> Result<(), ChangeError> {
        let found = self.scan(move |inner| inner.hash_file(&content)).await??;
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let adopted = inner.adopt(content, found);
            drop(turn);
            if let Some(event) = adopted? {
                inner.tell(event);
            }
            Ok(())
        })
        .await?
    }
}

impl Inner {
    fn hash_file(&self, content: &ContentId) -> io::Result<Found> {
        let path = self.paths.blob(content);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::LeaveAlone),
            Err(error) => return Err(error),
        };
        let before = file.metadata()?;
        let Some(layout) = PieceLayout::for_size(before.len()) else { return Ok(Found::LeaveAlone) };
        let mut verifier = Verifier::new(*content);
        let mut hashes = Vec::with_capacity(layout.count() as usize);
        let mut piece = Vec::new();
        for index in 0..layout.count() {
            let range = layout.bytes_of(index);
            piece.resize((range.end - range.start) as usize, 0);
            match file.read_exact(&mut piece) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Found::LeaveAlone),
                Err(error) => return Err(error),
            }
            verifier.update(&piece);
            hashes.push(PieceHash::of(&piece));
        }
        let after = fs::metadata(&path)?;
        let same = |a: &fs::Metadata, b: &fs::Metadata| {
            (a.len(), a.ino(), a.mtime(), a.mtime_nsec()) == (b.len(), b.ino(), b.mtime(), b.mtime_nsec())
        };
        if !same(&before, &after) {
            return Ok(Found::LeaveAlone);
        }
        match (verifier.finish(), PieceMap::new(layout, hashes)) {
            (Ok(()), Some(map)) => {
                // Whoever copied it may not have made it durable.
                self.ops.sync(&file)?;
                Ok(Found::Blob(map))
            }
            _ => Ok(Found::SomethingElse),
        }
    }

    fn adopt(&self, content: ContentId, found: Found) -> Result<Option<StoreEvent>, ChangeError> {
        if lock(&self.held).contains_key(&content) {
            return Ok(None);
        }
        match found {
            Found::LeaveAlone => Ok(None),
            Found::SomethingElse => {
                let aside = self.paths.damaged(&content);
                warn!(%content, ?aside, "a file is not the blob that its name says: moved aside");
                if let Some(parent) = aside.parent() {
                    self.ops.create_dir(parent)?;
                }
                self.ops.rename(&self.paths.blob(&content), &aside)?;
                Ok(None)
            }
            Found::Blob(map) => {
                let size = map.layout().blob_size();
                info!(%content, size, "took in a blob that was found");
                self.supersede(&content)?;
                self.ops.sync_dir(&self.paths.blobs(content.algorithm()))?;
                self.meta.insert(&content, &map)?;
                lock(&self.held).insert(content, HeldEntry { size, open: Weak::new() });
                self.changed.send_replace(());
                self.index_if_bound(&content, size)?;
                Ok(Some(StoreEvent::Held { content, size }))
            }
        }
    }
}
