//! One blob on its way to being whole: its open file, its pieces, its journal. All of this blocks; it runs on
//! blocking threads.
//!
//! Invariants: a piece is *readable* once its bytes are written and its hash is known, and *durable* once its record
//! is; readable pieces include the durable ones. The digest of the blob runs along the pieces without a gap from the
//! start ([`Prefix`]), over exactly those bytes whose hashes are recorded. A piece that is dropped is neither readable nor
//! durable from that moment on; that the journal says so too may come later, and then it names the piece as bad only as
//! long as no record of a successor does. Readers learn of pieces that were dropped or replaced ([`Given`]), since what
//! they gave of them may not fit what comes.
//!
//! Lock order: [`Prefix`] (held by the one writer), then the journal, then the state (never held over IO).

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use layermesh_proto::{ContentId, DigestMismatch, PieceHash, PieceIndex, PieceLayout, PieceMap, PieceSet, Verifier};
use tokio::sync::watch;

use super::{
    disk::{FileOps, is_damage},
    error::WriteError,
    flush::Flush,
    journal::{self, HEADER_LEN, RECORD_LEN, Record},
    lock,
    paths::{data_of, state_of},
    state::{Given, NO_HASH, Phase, Standing, State},
};

/// Pieces that were written out of order and are read back to be hashed, in one go. Writing one piece lets the digest
/// catch up by this many, so it is never far behind at the end, and no write takes long.
pub(super) const CATCH_UP_PIECES: u32 = 4;

/// The digest so far.
pub(super) struct Prefix {
    verifier: Verifier,
    next: PieceIndex,
}

struct JournalFile {
    /// Opened when first needed: most partials found at start are not written on for a while.
    file: Option<File>,
    next_slot: u64,
    /// Whether the names of the partial's files are durable.
    linked: bool,
}

/// What became of a piece that is being read.
pub(super) enum PieceRead {
    Good(Bytes),
    /// Not the bytes that were written, or none.
    Bad,
    /// Not readable (any more).
    Absent,
}

/// What a write did.
pub(super) struct Wrote {
    /// The piece was not there before.
    pub(super) new: bool,
    /// The hash of the piece that is there now.
    pub(super) hash: PieceHash,
    /// Another piece was found bad on the way and has been dropped.
    pub(super) dropped: bool,
}

/// How far the digest got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CaughtUp {
    /// To the end.
    Whole,
    /// There is more to hash.
    More,
    /// To a piece that is missing.
    Missing,
    /// To a piece that was bad on disk and has been dropped.
    Dropped,
}

/// A blob that is not whole yet.
pub(super) struct Growing {
    pub(super) content: ContentId,
    pub(super) layout: PieceLayout,
    pub(super) dir: PathBuf,
    pub(super) data: File,
    header: [u8; HEADER_LEN],
    state: Mutex<State>,
    journal: Mutex<JournalFile>,
    /// Held by whoever writes: one at a time, since the digest is serial anyway.
    pub(super) writer: Arc<tokio::sync::Mutex<Prefix>>,
    /// Held by whoever syncs, so that the others wait without a thread.
    pub(super) syncer: Arc<tokio::sync::Mutex<()>>,
    /// When the next sync is due.
    pub(super) flush: Arc<Flush>,
    /// Says that a piece became readable or the phase changed.
    pub(super) changed: watch::Sender<()>,
}

impl Growing {
    /// A partial with an open data file and what its journal said; `next_slot` is `None` if it has no journal yet.
    pub(super) fn new(
        content: ContentId,
        layout: PieceLayout,
        dir: PathBuf,
        data: File,
        durable: PieceSet,
        hashes: Vec<PieceHash>,
        next_slot: Option<u64>,
    ) -> Self {
        Self {
            content,
            layout,
            dir,
            data,
            header: journal::header(&content, layout.blob_size()),
            state: Mutex::new(State::new(durable, hashes)),
            journal: Mutex::new(JournalFile {
                file: None,
                next_slot: next_slot.unwrap_or(0),
                linked: next_slot.is_some(),
            }),
            writer: Arc::new(tokio::sync::Mutex::new(Prefix { verifier: Verifier::new(content), next: 0 })),
            syncer: Arc::default(),
            flush: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// A new partial, without a piece.
    pub(super) fn empty(content: ContentId, layout: PieceLayout, dir: PathBuf, data: File) -> Self {
        let hashes = vec![NO_HASH; layout.count() as usize];
        Self::new(content, layout, dir, data, PieceSet::empty(layout.count()), hashes, None)
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.state).phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        {
            let mut state = lock(&self.state);
            state.phase = phase;
            if phase == Phase::Whole {
                // Also one that was dropped while the digest said that it was right; readers see for themselves.
                state.readable = PieceSet::full(self.layout.count());
            }
        }
        self.changed.send_replace(());
    }

    /// Notes that the digest is right, unless a piece was dropped since it ran; `false` then. Readers learn of it before
    /// the blob is durable.
    pub(super) fn set_verified(&self) -> bool {
        {
            let mut state = lock(&self.state);
            if !state.readable.is_full() {
                return false;
            }
            state.verified = true;
        }
        self.changed.send_replace(());
        true
    }

    /// Whether all of it together has been found to be the blob, durable or not.
    pub(super) fn is_verified(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Whole || (state.phase == Phase::Growing && state.verified)
    }

    pub(super) fn durable(&self) -> PieceSet {
        lock(&self.state).durable.clone()
    }

    pub(super) fn readable(&self) -> PieceSet {
        lock(&self.state).readable.clone()
    }

    pub(super) fn is_readable(&self, index: PieceIndex) -> bool {
        lock(&self.state).readable.contains(index)
    }

    /// The hash of a piece that is readable.
    pub(super) fn hash_of(&self, index: PieceIndex) -> Option<PieceHash> {
        let state = lock(&self.state);
        state.readable.contains(index).then(|| state.hashes[index as usize])
    }

    /// The readable pieces and their hashes.
    pub(super) fn recall(&self) -> Vec<(PieceIndex, PieceHash)> {
        let state = lock(&self.state);
        state.readable.iter().map(|index| (index, state.hashes[index as usize])).collect()
    }

    /// What a new reader gave: nothing.
    pub(super) fn nothing_given(&self) -> Given {
        lock(&self.state).nothing_given()
    }

    /// Whether what a reader gave is still what is there.
    pub(super) fn standing(&self, given: &mut Given) -> Standing {
        lock(&self.state).standing(given)
    }

    /// Notes that a reader gives bytes of a piece that it read after [`Standing::Same`]; not if a piece, which may be
    /// this one, was dropped or replaced since.
    pub(super) fn give(&self, given: &mut Given, index: PieceIndex) -> bool {
        lock(&self.state).give(given, index)
    }

    /// Whether all pieces that a reader gave bytes of are those of a whole blob. Not after [`Standing::Replaced`].
    pub(super) fn gave_of(&self, given: &Given, map: &PieceMap) -> bool {
        self.layout == map.layout() && lock(&self.state).gave_of(given, |index| map.hash(index))
    }

    /// Bytes of pieces that are readable and not durable, rounded up to whole pieces.
    pub(super) fn undurable_bytes(&self) -> u64 {
        let state = lock(&self.state);
        u64::from(state.readable.count() - state.durable.count()) * u64::from(self.layout.piece_len())
    }

    /// Number of pieces that are not readable.
    pub(super) fn missing(&self) -> u32 {
        self.layout.count() - lock(&self.state).readable.count()
    }

    /// Bytes of durable pieces.
    pub(super) fn durable_bytes(&self) -> u64 {
        let state = lock(&self.state);
        let bytes: u64 = u64::from(state.durable.count()) * u64::from(self.layout.piece_len());
        // The last piece is the only short one, so the sum is over by what it lacks.
        let last = self.layout.count().saturating_sub(1);
        let short = u64::from(self.layout.piece_len()) - self.len_of(last);
        if state.durable.contains(last) { bytes - short } else { bytes }
    }

    fn len_of(&self, index: PieceIndex) -> u64 {
        let range = self.layout.bytes_of(index);
        range.end - range.start
    }

    /// Checks a piece and writes it, then lets the digest run on.
    pub(super) fn write(
        &self,
        ops: &dyn FileOps,
        prefix: &mut Prefix,
        index: PieceIndex,
        bytes: &Bytes,
        expected: Option<PieceHash>,
    ) -> Result<Wrote, WriteError> {
        let range = self.layout.bytes_of(index);
        if bytes.is_empty() || bytes.len() as u64 != range.end - range.start {
            return Err(WriteError::WrongLength { index, expected: range.end - range.start, found: bytes.len() });
        }
        {
            let state = lock(&self.state);
            match state.phase {
                Phase::Discarded => return Err(WriteError::Discarded),
                Phase::Growing if !state.readable.contains(index) => {}
                Phase::Growing | Phase::Whole => {
                    return Ok(Wrote { new: false, hash: state.hashes[index as usize], dropped: false });
                }
            }
        }
        let hash = PieceHash::of(bytes);
        if expected.is_some_and(|expected| expected != hash) {
            return Err(WriteError::WrongHash { index, found: hash });
        }
        ops.write_at(&self.data, bytes, range.start)?;
        let before = lock(&self.state).admit(index, hash);
        self.changed.send_replace(());
        if index == prefix.next {
            prefix.verifier.update(bytes);
            prefix.next += 1;
        } else if index < prefix.next && before != hash {
            // The digest ran over other bytes than these, which have since been found bad: it starts again.
            *prefix = Prefix { verifier: Verifier::new(self.content), next: 0 };
        }
        // A piece that cannot be read back is no reason to refuse this one; it shows again at the end.
        let caught_up = self.catch_up(ops, prefix, CATCH_UP_PIECES);
        Ok(Wrote { new: true, hash, dropped: matches!(caught_up, Ok(CaughtUp::Dropped)) })
    }

    /// Runs the digest on over at most `pieces_max` pieces that are there, reading them back.
    pub(super) fn catch_up(&self, ops: &dyn FileOps, prefix: &mut Prefix, pieces_max: u32) -> io::Result<CaughtUp> {
        for _ in 0..pieces_max {
            if prefix.next == self.layout.count() {
                return Ok(CaughtUp::Whole);
            }
            match self.read_piece(ops, prefix.next)? {
                PieceRead::Good(bytes) => {
                    prefix.verifier.update(&bytes);
                    prefix.next += 1;
                }
                PieceRead::Bad => return Ok(CaughtUp::Dropped),
                PieceRead::Absent => return Ok(CaughtUp::Missing),
            }
        }
        Ok(if prefix.next == self.layout.count() { CaughtUp::Whole } else { CaughtUp::More })
    }

    /// Reads a piece and checks it. While the blob grows, one that is bad is dropped.
    pub(super) fn read_piece(&self, ops: &dyn FileOps, index: PieceIndex) -> io::Result<PieceRead> {
        let hash = {
            let state = lock(&self.state);
            if !state.readable.contains(index) {
                return Ok(PieceRead::Absent);
            }
            state.hashes[index as usize]
        };
        if let Some(bytes) = read_checked(&self.data, self.layout, index, hash)? {
            return Ok(PieceRead::Good(bytes));
        }
        if self.phase() == Phase::Growing {
            self.drop_piece(ops, index, hash);
        }
        Ok(PieceRead::Bad)
    }

    /// Drops a piece that is not what its hash says, unless it has been replaced since.
    fn drop_piece(&self, ops: &dyn FileOps, index: PieceIndex, hash: PieceHash) {
        let mut journal = lock(&self.journal);
        {
            let mut state = lock(&self.state);
            if state.hashes[index as usize] != hash || !state.forget(index) || !state.revoked.contains(&index) {
                return;
            }
        }
        let record = [Record { index, hash: None }];
        match self.append(ops, &mut journal, &record) {
            Ok(()) => drop(lock(&self.state).recorded(&record)),
            // The next sync tries again; after a restart the piece is found bad again.
            Err(error) => {
                tracing::warn!(content = %self.content, index, %error, "cannot record that a piece is bad");
            }
        }
    }

    /// Drops pieces, good as they may be: they are gone from memory on return, and from the journal with the next sync.
    /// Says whether there were any. Does not block.
    pub(super) fn forget(&self, pieces: &[PieceIndex]) -> bool {
        let mut state = lock(&self.state);
        state.phase == Phase::Growing && pieces.iter().filter(|&&index| state.forget(index)).count() > 0
    }

    /// Makes all readable pieces durable: their bytes first, then their records; and that dropped ones are gone. Returns
    /// those that became durable.
    pub(super) fn sync(&self, ops: &dyn FileOps) -> Result<Vec<PieceIndex>, WriteError> {
        let mut journal = lock(&self.journal);
        let (records, phase) = {
            let state = lock(&self.state);
            (state.unrecorded(), state.phase)
        };
        match phase {
            Phase::Discarded => return Err(WriteError::Discarded),
            Phase::Growing if !records.is_empty() => {
                if records.iter().any(|record| record.hash.is_some()) {
                    ops.sync(&self.data)?;
                }
                self.append(ops, &mut journal, &records)?;
            }
            // Of a blob that is whole by now, every piece is durable without a record.
            Phase::Growing | Phase::Whole => {}
        }
        Ok(lock(&self.state).recorded(&records))
    }

    /// Makes the bytes of all pieces durable, and the names of the files, without recording the pieces: what follows
    /// is the record that the blob is whole.
    pub(super) fn sync_bytes(&self, ops: &dyn FileOps) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        let synced = {
            let state = lock(&self.state);
            state.durable == state.readable
        };
        if !synced {
            ops.sync(&self.data)?;
        }
        self.link(ops, &mut journal)
    }

    fn append(&self, ops: &dyn FileOps, journal: &mut JournalFile, records: &[Record]) -> io::Result<()> {
        if journal.file.is_none() {
            let file = ops.open(&state_of(&self.dir))?;
            if !journal.linked {
                // Room for a record of each piece, so that a full disk cannot keep durable bytes from being counted.
                let len = journal::slot_offset(u64::from(self.layout.count()));
                ops.reserve(&file, len, true)?;
                ops.write_at(&file, &self.header, 0)?;
            }
            journal.file = Some(file);
        }
        let Some(file) = &journal.file else { return Ok(()) };
        let mut bytes = Vec::with_capacity(records.len() * RECORD_LEN);
        for (slot, &record) in (journal.next_slot..).zip(records) {
            bytes.extend(journal::record(&self.header, slot, record));
        }
        ops.write_at(file, &bytes, journal::slot_offset(journal.next_slot))?;
        ops.sync(file)?;
        self.link(ops, journal)?;
        journal.next_slot += records.len() as u64;
        Ok(())
    }

    fn link(&self, ops: &dyn FileOps, journal: &mut JournalFile) -> io::Result<()> {
        if journal.linked {
            return Ok(());
        }
        ops.sync_dir(&self.dir)?;
        if let Some(partials) = self.dir.parent() {
            ops.sync_dir(partials)?;
        }
        journal.linked = true;
        Ok(())
    }

    /// Says whether the bytes hashed are the blob; the digest starts anew. Only after [`CaughtUp::Whole`].
    pub(super) fn verdict(&self, prefix: &mut Prefix) -> Result<(), DigestMismatch> {
        let done = std::mem::replace(prefix, Prefix { verifier: Verifier::new(self.content), next: 0 });
        done.verifier.finish()
    }

    /// The piece map, if every piece is readable.
    pub(super) fn map(&self) -> Option<PieceMap> {
        let state = lock(&self.state);
        if !state.readable.is_full() {
            return None;
        }
        PieceMap::new(self.layout, state.hashes.clone())
    }

    /// Removes the files of the partial; its directory may be gone already.
    pub(super) fn remove_files(&self, ops: &dyn FileOps) -> io::Result<()> {
        remove_partial(ops, &self.dir)
    }
}

/// Removes the files of a partial. The state goes first: bytes without it are nothing, it without bytes is little.
pub(super) fn remove_partial(ops: &dyn FileOps, dir: &std::path::Path) -> io::Result<()> {
    ops.remove_file(&state_of(dir))?;
    ops.remove_file(&data_of(dir))?;
    ops.remove_dir(dir)
}

/// Reads a piece; `None` if it does not have its hash or cannot be read for what is on the disk.
pub(super) fn read_checked(
    file: &File,
    layout: PieceLayout,
    index: PieceIndex,
    hash: PieceHash,
) -> io::Result<Option<Bytes>> {
    let range = layout.bytes_of(index);
    let mut bytes = vec![0; (range.end - range.start) as usize];
    match file.read_exact_at(&mut bytes, range.start) {
        Ok(()) if PieceHash::of(&bytes) == hash => Ok(Some(bytes.into())),
        Ok(()) => Ok(None),
        Err(error) if is_damage(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
