//! Files in `blobs/` that nothing vouches for: hashed one by one in the background, then taken in or moved aside.
//!
//! They come from other tools that wrote into the layout, or are all of the blobs if the metadata were lost.
//! Invariant: such a file is neither listed nor read from before its digest was right and its bytes are durable.

use std::sync::{Arc, Weak, atomic::Ordering};

use layermesh_proto::ContentId;
use tracing::{info, warn};

use super::{HeldEntry, Inner, Place, Store, StoreEvent, error::ChangeError, lock, scan::Found};

/// Looks into each of the files. Ends early when the store is closed.
pub(super) async fn adopt_all(store: Weak<Inner>, unknown: Vec<ContentId>) {
    for content in unknown {
        let Some(inner) = store.upgrade() else { return };
        if inner.closing.load(Ordering::Relaxed) {
            return;
        }
        let store = Store(inner);
        if let Err(error) = store.adopt(content).await {
            warn!(%content, %error, "cannot take in a blob that was found");
        }
    }
}

impl Store {
    async fn adopt(&self, content: ContentId) -> Result<(), ChangeError> {
        let found = self.hash_file(self.0.paths.blob(&content), content, None).await?;
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let _turn = turn;
            inner.adopt(content, found)
        })
        .await?
    }
}

impl Inner {
    fn adopt(&self, content: ContentId, found: Found) -> Result<(), ChangeError> {
        if lock(&self.held).get(&content).is_some_and(|entry| entry.place == Place::Own) {
            return Ok(());
        }
        match found {
            Found::LeaveAlone => Ok(()),
            Found::SomethingElse(_) => {
                let aside = self.paths.damaged(&content);
                warn!(%content, ?aside, "a file is not the blob that its name says: moved aside");
                if let Some(parent) = aside.parent() {
                    self.ops.create_dir(parent)?;
                }
                self.ops.rename(&self.paths.blob(&content), &aside)?;
                Ok(())
            }
            Found::Blob { map, file, .. } => {
                // Whoever copied it may not have made it durable.
                self.ops.sync(&file)?;
                let size = map.layout().blob_size();
                info!(%content, size, "took in a blob that was found");
                self.ops.sync_dir(&self.paths.blobs(content.algorithm()))?;
                self.meta.insert(&content, &map)?;
                let found = HeldEntry::found(size, None, &self.paths.blob(&content));
                lock(&self.held).insert(content, found);
                self.changed.send_replace(());
                // Now that it is held: whoever reads the partial goes on there. Held it is, whatever fails now.
                let superseded = self.supersede(&content);
                let indexed = self.index_if_bound(&content, size);
                self.tell(StoreEvent::Held { content, size });
                superseded?;
                Ok(indexed?)
            }
        }
    }
}
