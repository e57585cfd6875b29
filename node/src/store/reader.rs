//! Reading: many at once, of blobs that are whole, growing or not begun, each piece checked before it is returned.
//!
//! Invariant: a reader keeps at most one piece in memory, none at a piece's end, and all together a bounded amount.
//! Bytes of a growing blob are
//! checked against the hashes of its pieces, not against its digest, which is known only at the end: should that be
//! wrong, pieces are dropped and come again, or the partial is discarded. A reader that gave bytes of a piece that was
//! dropped gives no more until its successor is there: if that is the same piece, it goes on; if it is another, or the
//! partial is gone, the reader can go no further, unless the blob is whole elsewhere by then and has the pieces that were
//! given. The others wait for what they need. So the bytes that a reader gives are never those of two different blobs.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use layermesh_proto::{ContentId, PieceIndex, PieceLayout, PieceMap};

use super::{
    Inner, Place, Store,
    disk::is_damage,
    error::ReadError,
    growing::{Growing, PieceRead, read_checked},
    lock,
    room::Hold,
    scan::Identity,
    state::{Given, Phase, Standing},
};

/// Pieces up to this length are given out as parts that share their memory; parts of larger ones are copied.
const SHARED_PIECE_LEN_MAX: usize = 512 << 10;

/// An open whole blob, shared by its readers.
pub(super) struct Whole {
    file: File,
    map: PieceMap,
}

#[derive(Clone)]
enum Source {
    Whole(Arc<Whole>),
    Growing(Arc<Growing>),
}

impl Source {
    fn layout(&self) -> PieceLayout {
        match self {
            Self::Whole(whole) => whole.map.layout(),
            Self::Growing(growing) => growing.layout,
        }
    }
}

/// Reads one blob. Waits for what is not there yet; drop it to stop waiting.
pub struct BlobReader {
    store: Store,
    content: ContentId,
    source: Option<Source>,
    /// Whose piece, the one that the last read ended in, is kept in the store's common memory.
    id: u64,
    /// What was given of the partial that is the source now.
    given: Option<Given>,
    /// A partial that was discarded after bytes of it were given, until it is known what comes instead.
    former: Option<(Arc<Growing>, Given)>,
    /// Whether bytes were given of a piece that was replaced, or of a partial that was discarded for nothing better.
    misled: bool,
    /// Whether the blob was held when somebody was last told so, and nothing has been said of its being gone.
    held: bool,
    /// What is read is not removed for want of room.
    _hold: Hold,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("content", &self.content).finish_non_exhaustive()
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.store.0.kept.release(self.id);
    }
}

impl BlobReader {
    pub(super) fn new(store: Store, content: ContentId) -> Self {
        let id = store.0.kept.reader();
        // First the hold: what is held after it stays.
        let hold = store.hold(content);
        let held = store.size_of(&content).is_some();
        Self { store, content, source: None, id, given: None, former: None, misled: false, held, _hold: hold }
    }

    /// The blob's size in bytes. Waits until the blob is held or begun.
    pub async fn size(&mut self) -> u64 {
        self.size_once(|_| true).await
    }

    /// The blob's size in bytes, once all of it together has been found to be the blob. That may be before it is
    /// durable, and before [`Store::size_of`] knows it. Waits for ever if it never is.
    pub async fn verified(&mut self) -> u64 {
        self.size_once(Growing::is_verified).await
    }

    /// The blob's size in bytes, once it is held or growing so.
    async fn size_once(&mut self, so: impl Fn(&Growing) -> bool) -> u64 {
        loop {
            let mut changed = self.store.0.changed.subscribe();
            self.let_go_of_discarded();
            let growing = match &self.source {
                Some(Source::Whole(whole)) => return whole.map.layout().blob_size(),
                Some(Source::Growing(growing)) => Some(Arc::clone(growing)),
                None => match self.store.size_of(&self.content) {
                    Some(size) => return size,
                    None => self.store.0.growing(&self.content),
                },
            };
            let Some(growing) = growing else {
                wait(&mut changed).await;
                continue;
            };
            let mut grown = growing.changed.subscribe();
            if so(&growing) {
                return growing.layout.blob_size();
            }
            // That one was given up is told by the store, which then no longer has it.
            wait(if growing.phase() == Phase::Discarded { &mut changed } else { &mut grown }).await;
        }
    }

    /// Between 1 and `max` bytes from `offset` on, checked; empty only at or past the blob's end, or if `max` is 0.
    /// Waits until the piece there is readable. Reading in order checks each piece once.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] once, when a whole blob turns out to be damaged, or [`ReadError::Gone`] if it is no longer
    /// there. The blob has then been withdrawn; the next call waits until the piece has been fetched again, so open a
    /// want for it first.
    /// [`ReadError::Discarded`] from then on, when what was given turns out not to be of the blob.
    pub async fn read(&mut self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        loop {
            let source = self.source().await?;
            let layout = source.layout();
            let Some(index) = layout.piece_at(offset).filter(|_| max > 0) else { return Ok(Bytes::new()) };
            let within = (offset - layout.bytes_of(index).start) as usize;
            if let Some(piece) = self.store.0.kept.get(self.id, index) {
                return Ok(self.give(index, piece, within, max));
            }
            let growing = match &source {
                Source::Growing(growing) => Some(Arc::clone(growing)),
                Source::Whole(_) => None,
            };
            let read = match source {
                Source::Whole(whole) => match self.store.job(move |_| whole.read_piece(index)).await?? {
                    Some(piece) => Some(piece),
                    None => return Err(self.withdraw().await?),
                },
                Source::Growing(growing) => self.read_growing(growing, index).await?,
            };
            let Some(piece) = read else { continue };
            // What was dropped while this was read may be this, or something that was given before.
            if growing.zip(self.given.as_mut()).is_none_or(|(growing, given)| growing.give(given, index)) {
                return Ok(self.give(index, piece, within, max));
            }
        }
    }

    /// At most `max` bytes of a piece from byte `within` on; what is left of it is kept for the next read.
    fn give(&mut self, index: PieceIndex, piece: Bytes, within: usize, max: usize) -> Bytes {
        let end = within.saturating_add(max).min(piece.len());
        let part = piece.slice(within..end);
        // A part that waits for a slow client must not hold the memory of a large piece.
        let part = if piece.len() > SHARED_PIECE_LEN_MAX { Bytes::copy_from_slice(&part) } else { part };
        if end == piece.len() {
            self.store.0.kept.release(self.id);
        } else {
            self.store.0.kept.keep(self.id, index, piece);
        }
        part
    }

    /// A piece of a growing blob; `None` after a wait for it, or if it is gone.
    async fn read_growing(&mut self, growing: Arc<Growing>, index: PieceIndex) -> Result<Option<Bytes>, ReadError> {
        let mut changed = growing.changed.subscribe();
        if growing.phase() == Phase::Discarded {
            return Ok(None);
        }
        if !growing.is_readable(index) {
            wait(&mut changed).await;
            return Ok(None);
        }
        let job = {
            let growing = Arc::clone(&growing);
            self.store.job(move |inner| inner.read_piece(&growing, index))
        };
        match job.await?? {
            PieceRead::Good(bytes) if growing.phase() != Phase::Discarded => Ok(Some(bytes)),
            PieceRead::Bad if growing.phase() == Phase::Whole => Err(self.withdraw().await?),
            // Dropped, and waited for by the next round.
            PieceRead::Good(_) | PieceRead::Bad | PieceRead::Absent => Ok(None),
        }
    }

    /// Forgets a partial whose bytes turned out not to be the blob, and what was read of it.
    fn let_go_of_discarded(&mut self) {
        let discarded = match &self.source {
            Some(Source::Growing(growing)) if growing.phase() == Phase::Discarded => Arc::clone(growing),
            _ => return,
        };
        self.misled |= self.standing() == Standing::Replaced;
        self.source = None;
        self.store.0.kept.release(self.id);
        self.former = self.given.take().filter(|given| !given.is_empty()).map(|given| (discarded, given));
    }

    /// What became of what was given of the partial that is the source.
    fn standing(&mut self) -> Standing {
        match (&self.source, &mut self.given) {
            (Some(Source::Growing(growing)), Some(given)) => growing.standing(given),
            _ => Standing::Same,
        }
    }

    async fn withdraw(&mut self) -> Result<ReadError, ReadError> {
        // It was whole, so what is still in it was right.
        self.misled |= self.standing() != Standing::Same;
        self.source = None;
        self.given = None;
        self.store.0.kept.release(self.id);
        self.held = false;
        self.store.withdraw(self.content).await?;
        Ok(ReadError::Damaged)
    }

    /// Where to read from; waits until there is something.
    async fn source(&mut self) -> Result<Source, ReadError> {
        loop {
            self.let_go_of_discarded();
            if self.misled {
                return Err(ReadError::Discarded);
            }
            if let Some(source) = self.source.clone() {
                let changed = match &source {
                    Source::Growing(growing) => Some(growing.changed.subscribe()),
                    Source::Whole(_) => None,
                };
                match (self.standing(), changed) {
                    (Standing::Dropped, Some(mut changed)) => wait(&mut changed).await,
                    (Standing::Replaced, _) => {
                        self.misled = true;
                        self.store.0.kept.release(self.id);
                    }
                    _ => return Ok(source),
                }
                continue;
            }
            let mut changed = self.store.0.changed.subscribe();
            if self.store.size_of(&self.content).is_some() {
                let content = self.content;
                match self.store.job(move |inner| inner.open_whole(&content)).await?? {
                    Some(whole) => {
                        let former = self.former.take();
                        self.misled |= former.is_some_and(|(growing, given)| !growing.gave_of(&given, &whole.map));
                        self.source = Some(Source::Whole(whole));
                    }
                    None if self.store.size_of(&self.content).is_some() => return Err(self.withdraw().await?),
                    // Withdrawn or removed meanwhile.
                    None => {}
                }
            } else if self.former.take().is_some() {
                self.misled = true;
            } else if std::mem::take(&mut self.held) {
                return Err(ReadError::Gone);
            } else if let Some(growing) = self.store.0.growing(&self.content) {
                self.given = Some(growing.nothing_given());
                self.source = Some(Source::Growing(growing));
            } else {
                wait(&mut changed).await;
            }
        }
    }
}

/// Waits for the next change. The sender outlives its readers, who own the store; an error would mean that it is gone.
async fn wait(changed: &mut tokio::sync::watch::Receiver<()>) {
    if changed.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Whole {
    fn read_piece(&self, index: PieceIndex) -> io::Result<Option<Bytes>> {
        match self.map.hash(index) {
            Some(hash) => read_checked(&self.file, self.map.layout(), index, hash),
            None => Ok(None),
        }
    }
}

impl Inner {
    pub(super) fn growing(&self, content: &ContentId) -> Option<Arc<Growing>> {
        lock(&self.partials).get(content).cloned()
    }

    /// Opens a whole blob, or joins those who have it open; `None` if its file or its row is gone.
    fn open_whole(&self, content: &ContentId) -> Result<Option<Arc<Whole>>, ReadError> {
        let open = lock(&self.held).get(content).and_then(|entry| entry.open.upgrade());
        if open.is_some() {
            return Ok(open);
        }
        let Some(place) = lock(&self.held).get(content).map(|entry| entry.place.clone()) else { return Ok(None) };
        let file = match File::open(self.path_of(content, &place)) {
            Ok(file) => file,
            // A stick that was pulled out gives others than this.
            Err(error) if error.kind() == io::ErrorKind::NotFound || place != Place::Own => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Place::Attached(_, identity) = &place
            && Identity::of(&file.metadata()?) != *identity
        {
            return Ok(None);
        }
        let Some(map) = self.map_of(content)? else { return Ok(None) };
        let whole = Arc::new(Whole { file, map });
        if let Some(entry) = lock(&self.held).get_mut(content) {
            entry.open = Arc::downgrade(&whole);
        }
        Ok(Some(whole))
    }

    /// A small whole blob, checked against its digest; `None` if what is there is not the blob.
    pub(super) fn read_all(&self, content: &ContentId, size: u64) -> Result<Option<Bytes>, ReadError> {
        let Some(place) = lock(&self.held).get(content).map(|entry| entry.place.clone()) else {
            return Err(ReadError::NotHeld);
        };
        match (read_file(&self.path_of(content, &place), content, size), place) {
            (Err(ReadError::Io(_)), Place::Attached(..)) => Ok(None),
            (read, _) => read,
        }
    }
}

/// Reads a small file whole and checks its digest; `None` if it is not the blob.
fn read_file(path: &Path, content: &ContentId, size: u64) -> Result<Option<Bytes>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::with_capacity(size as usize);
    match file.take(size + 1).read_to_end(&mut bytes) {
        Ok(_) => Ok((ContentId::of(content.algorithm(), &bytes) == *content).then(|| bytes.into())),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
