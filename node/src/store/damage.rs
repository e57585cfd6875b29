//! What happens to a whole blob that is found damaged: it becomes a partial of the pieces that are still good.

use std::{fs::File, io, sync::Arc};

use layermesh_proto::{ContentId, PieceHash, PieceLayout, PieceMap, PieceSet};

use super::{
    Inner, Place, Store, StoreEvent,
    disk::FileOps,
    error::ReadError,
    growing::{Growing, read_checked, remove_partial},
    journal::{self, Record},
    lock,
    paths::{Paths, data_of, state_of},
    state::Phase,
};

/// What is left of a damaged blob.
pub(super) struct Remains {
    map: PieceMap,
    good: PieceSet,
}

impl Store {
    /// Checks every piece of a whole blob; if one is bad, the blob becomes a partial of the good ones, and the driver
    /// is told. Nothing happens to a blob that is fine, or no longer held.
    pub(super) async fn withdraw(&self, content: ContentId) -> Result<(), ReadError> {
        let place = lock(&self.0.held).get(&content).map(|entry| entry.place.clone());
        if let Some(Place::Attached(..)) = place {
            let turn = Arc::clone(&self.0.structure).lock_owned().await;
            let job = self.job(move |inner| {
                let _turn = turn;
                inner.distrust(&content)
            });
            return Ok(job.await??);
        }
        let remains = self.scan(move |inner| inner.examine(&content)).await??;
        let Some(remains) = remains else { return Ok(()) };
        let turn = Arc::clone(&self.0.structure).lock_owned().await;
        self.job(move |inner| {
            let events = inner.withdraw(content, &remains);
            drop(turn);
            events.into_iter().for_each(|event| inner.tell(event));
        })
        .await?;
        Ok(())
    }
}

impl Inner {
    fn examine(&self, content: &ContentId) -> Result<Option<Remains>, ReadError> {
        // Readers that come from now on look for themselves.
        match lock(&self.held).get_mut(content) {
            Some(entry) => entry.open = std::sync::Weak::new(),
            None => return Ok(None),
        }
        let Some(map) = self.meta.map(content)? else {
            // A row that makes no sense vouches for nothing.
            let map = PieceLayout::for_size(0).and_then(|layout| PieceMap::new(layout, Vec::new()));
            return Ok(map.map(|map| Remains { map, good: PieceSet::empty(0) }));
        };
        let good = good_pieces(&self.paths, content, &map)?;
        let right_length = std::fs::metadata(self.paths.blob(content))
            .is_ok_and(|metadata| metadata.len() == map.layout().blob_size());
        Ok((!good.is_full() || !right_length).then_some(Remains { map, good }))
    }

    /// Returns what there is to tell; that the blob is lost even if not all of the rest can be done.
    fn withdraw(&self, content: ContentId, remains: &Remains) -> Vec<StoreEvent> {
        {
            let mut held = lock(&self.held);
            if held.get(&content).is_none_or(|entry| entry.place != Place::Own) {
                return Vec::new();
            }
            held.remove(&content);
        }
        tracing::warn!(%content, good = ?remains.good, "a stored blob was damaged and has been withdrawn");
        let mut events = vec![StoreEvent::Lost { content }];
        let forget = || self.meta.remove(&content).map_err(io::Error::other);
        match demote(&*self.ops, &self.paths, &content, remains, forget) {
            Ok(Some(growing)) => {
                let (size, pieces) = (growing.layout.blob_size(), growing.durable());
                lock(&self.partials).insert(content, Arc::new(growing));
                events.push(StoreEvent::PartlyHeld { content, size, pieces });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%content, %error, "cannot keep its good pieces");
                // The row must go, or the next start lists the blob again; its file then is one that nobody vouches for.
                if let Err(error) = forget() {
                    tracing::warn!(%content, %error, "cannot forget it; it will be found damaged again");
                }
            }
        }
        self.changed.send_replace(());
        if let Err(error) = self.index_if_bound(&content, remains.map.layout().blob_size()) {
            tracing::warn!(%content, %error, "cannot take it out of index.json");
        }
        events
    }

    /// Discards a growing blob whose content has been found whole elsewhere.
    pub(super) fn supersede(&self, content: &ContentId) -> io::Result<()> {
        match self.growing(content) {
            Some(growing) if growing.phase() == Phase::Growing => self.discard(&growing),
            _ => Ok(()),
        }
    }
}

/// The pieces of a blob's file that have their hashes. A file that is gone has none.
fn good_pieces(paths: &Paths, content: &ContentId, map: &PieceMap) -> io::Result<PieceSet> {
    let layout = map.layout();
    let mut good = PieceSet::empty(layout.count());
    let file = match File::open(paths.blob(content)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(good),
        Err(error) => return Err(error),
    };
    for index in 0..layout.count() {
        if let Some(hash) = map.hash(index)
            && read_checked(&file, layout, index, hash)?.is_some()
        {
            good.insert(index);
        }
    }
    Ok(good)
}

/// Examines a blob at start whose file has the wrong length.
pub(super) fn remains_of(paths: &Paths, content: &ContentId, map: PieceMap) -> io::Result<Remains> {
    let good = good_pieces(paths, content, &map)?;
    Ok(Remains { map, good })
}

/// Turns a blob's file into a partial: state first, then `forget` (the row in the metadata), then the rename. `None`
/// if no piece is good: then the file is removed.
pub(super) fn demote(
    ops: &dyn FileOps,
    paths: &Paths,
    content: &ContentId,
    remains: &Remains,
    forget: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<Growing>> {
    let blob = paths.blob(content);
    let dir = paths.partial(content);
    if remains.good.is_empty() {
        forget()?;
        ops.remove_file(&blob)?;
        ops.sync_dir(&paths.blobs(content.algorithm()))?;
        return Ok(None);
    }
    remove_partial(ops, &dir)?;
    ops.create_dir(&dir)?;
    let layout = remains.map.layout();
    let (bytes, next_slot) = state_file(content, remains);
    let state = ops.open(&state_of(&dir))?;
    ops.write_at(&state, &bytes, 0)?;
    ops.sync(&state)?;
    ops.sync_dir(&dir)?;
    ops.sync_dir(&paths.partials())?;
    forget()?;
    ops.rename(&blob, &data_of(&dir))?;
    ops.sync_dir(&dir)?;
    ops.sync_dir(&paths.blobs(content.algorithm()))?;
    let data = ops.open(&data_of(&dir))?;
    ops.set_len(&data, layout.blob_size())?;
    let hashes: Vec<PieceHash> =
        (0..layout.count()).map(|index| remains.map.hash(index).unwrap_or(PieceHash([0; 32]))).collect();
    Ok(Some(Growing::new(*content, layout, dir, data, remains.good.clone(), hashes, Some(next_slot))))
}

fn state_file(content: &ContentId, remains: &Remains) -> (Vec<u8>, u64) {
    let header = journal::header(content, remains.map.layout().blob_size());
    let mut bytes = header.to_vec();
    let mut next_slot = 0;
    for index in remains.good.iter() {
        let record = Record { index, hash: remains.map.hash(index) };
        bytes.extend(journal::record(&header, next_slot, record));
        next_slot += 1;
    }
    (bytes, next_slot)
}
