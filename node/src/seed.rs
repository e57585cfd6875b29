//! Images that somebody brings to this node: what `layermesh seed` and `layermesh bundle import` send to it.
//!
//! The bytes come over the admin socket, so the node opens no path that somebody else names. A blob streams into the store's
//! partial piece by piece; [`routes`] is the part of the admin API for it. Invariants: a blob counts only when its digest
//! was right; whatever came of one that broke off is kept, and the next try goes on from there; at most one piece of
//! each blob under way is in memory. An image is pinned, and bound, only when every part of it is held.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use layermesh_proto::{ContentId, PieceHash, PieceIndex, PieceLayout, Verifier, wire::Binding};
use thiserror::Error;

use crate::{
    admin::types::{SeedRequest, SeedSummary},
    contents::{self, ContentsError, MANIFEST_BYTES_MAX, NotOffered, PlatformChoice, PlatformError},
    image::{ImageError, ImageReference, Version},
    mesh::Mesh,
    store::{
        BeginError, ChangeError, CompleteError, Partial, PinError, PinOwner, Store, UNDURABLE_BYTES_MAX, WriteError,
        pins::OwnerError,
    },
    wall_clock,
};

mod routes;
#[cfg(test)]
mod tests;

pub use routes::routes;

/// What becomes of the pieces of a blob that breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// They stay, and the next try goes on from there.
    WhatCame,
    /// They go: nobody says that they are right.
    OnlyIfWhole,
}

/// Why a blob was not taken in.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// It could not be begun.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be completed.
    #[error(transparent)]
    Complete(CompleteError),
    /// The change could not be recorded.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// It is held with another size.
    #[error("the blob is held and has {held} bytes, not {given}")]
    OtherSize {
        /// Size of the one that is held.
        held: u64,
        /// Size given.
        given: u64,
    },
    /// Its pieces do not begin there.
    #[error("no piece of a blob of {size} bytes begins at byte {from}")]
    NoPiece {
        /// The size.
        size: u64,
        /// The byte.
        from: u64,
    },
    /// The bytes broke off.
    #[error("the bytes broke off after {got} of {expected}: {what}")]
    BrokeOff {
        /// Bytes that came.
        got: u64,
        /// Bytes that were to come.
        expected: u64,
        /// What happened.
        what: String,
    },
    /// More bytes came than the blob has.
    #[error("more bytes came than the {0} that the blob has left")]
    TooLong(u64),
    /// The bytes are another blob's.
    #[error("the bytes are those of {found}")]
    WrongBytes {
        /// What they are.
        found: ContentId,
    },
    /// Together with pieces that were here before, the bytes are another blob's.
    #[error("with the pieces that were here, the bytes are not the blob")]
    Suspect,
    /// Pieces that were here have gone meanwhile.
    #[error("{0} pieces that were here are not any more")]
    Incomplete(u32),
}

/// The byte from which on a blob is needed; `None` if it is held.
pub fn needed_from(store: &Store, content: &ContentId) -> Option<u64> {
    if store.size_of(content).is_some() {
        return None;
    }
    let Some(partial) = store.begun(content) else { return Some(0) };
    let layout = partial.layout();
    let missing = partial.first_missing(0);
    // Of one whose pieces are all there, the last one is sent again, so that somebody completes it.
    Some(layout.bytes_of(missing.min(layout.count().saturating_sub(1))).start)
}

/// Takes in a blob of which the bytes from `from` on are given.
///
/// # Errors
/// If the bytes are not the blob's, break off, or cannot be stored. What was stored stays, but for bytes that are wrong.
pub async fn receive<E: std::fmt::Display>(
    store: &Store,
    content: ContentId,
    size: u64,
    from: u64,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    keep: Keep,
) -> Result<(), ReceiveError> {
    let partial = match store.begin(content, size).await {
        Ok(partial) => partial,
        Err(BeginError::Held { size: held }) if held == size => return Ok(()),
        Err(BeginError::Held { size: held }) => return Err(ReceiveError::OtherSize { held, given: size }),
        Err(error) => return Err(error.into()),
    };
    let layout = partial.layout();
    let first = first_piece(layout, from)?;
    let mut ours = Vec::new();
    let taken = take(&partial, layout, first, body, &mut ours).await;
    // Also what came before it broke off.
    partial.sync().await?;
    if let (Err(_), Keep::OnlyIfWhole) = (&taken, keep) {
        forget(store, &content, &ours).await?;
    }
    taken?;
    match store.complete(content).await {
        Ok(_) => Ok(()),
        Err(CompleteError::WrongDigest { found }) => {
            let all = ours.len() == layout.count() as usize;
            forget(store, &content, &ours).await?;
            Err(if all { ReceiveError::WrongBytes { found } } else { ReceiveError::Suspect })
        }
        Err(CompleteError::Incomplete { missing }) => Err(ReceiveError::Incomplete(missing)),
        Err(error) => Err(ReceiveError::Complete(error)),
    }
}

fn first_piece(layout: PieceLayout, from: u64) -> Result<PieceIndex, ReceiveError> {
    let first = if layout.count() == 0 { (from == 0).then_some(0) } else { layout.piece_at(from) };
    let begins = |first: &PieceIndex| layout.count() == 0 || layout.bytes_of(*first).start == from;
    first.filter(begins).ok_or(ReceiveError::NoPiece { size: layout.blob_size(), from })
}

/// Writes pieces from `first` on; `ours` are those that were not there.
async fn take<E: std::fmt::Display>(
    partial: &Partial,
    layout: PieceLayout,
    first: PieceIndex,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ours: &mut Vec<PieceIndex>,
) -> Result<(), ReceiveError> {
    let mut pieces = Pieces::new(layout, first, body);
    while let Some((index, piece)) = pieces.next().await? {
        let len = piece.len() as u64;
        if partial.write(index, piece, None).await?.new {
            ours.push(index);
            partial.sync_soon(len);
        }
        if partial.undurable_bytes() >= UNDURABLE_BYTES_MAX {
            partial.sync().await?;
        }
    }
    Ok(())
}

/// Drops pieces that are wrong, and the partial with them if nothing else is in it, for the room that it takes.
async fn forget(store: &Store, content: &ContentId, pieces: &[PieceIndex]) -> Result<(), ReceiveError> {
    let Some(partial) = store.drop_pieces(content, pieces) else { return Ok(()) };
    match partial.sync().await {
        Ok(_) | Err(WriteError::Discarded) => {}
        Err(error) => return Err(error.into()),
    }
    if store.begun(content).is_some_and(|partial| partial.pieces().is_empty()) {
        store.remove(content).await?;
    }
    Ok(())
}

/// Drops those pieces of a blob that is not whole which are not the blob's, going by all of its bytes. Returns how many.
///
/// # Errors
/// If the bytes are not the blob's, or break off. Nothing is dropped then.
pub async fn compare<E: std::fmt::Display>(
    store: &Store,
    content: ContentId,
    size: u64,
    body: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<usize, ReceiveError> {
    let layout = PieceLayout::for_size(size).ok_or(BeginError::TooLarge(size))?;
    let mut verifier = Verifier::new(content);
    let mut hashes = Vec::new();
    let mut pieces = Pieces::new(layout, 0, body);
    while let Some((_, piece)) = pieces.next().await? {
        verifier.update(&piece);
        hashes.push(PieceHash::of(&piece));
    }
    verifier.finish().map_err(|mismatch| ReceiveError::WrongBytes { found: mismatch.found })?;
    let Some(partial) = store.begun(&content).filter(|partial| partial.layout() == layout) else { return Ok(0) };
    let differs = |index: &PieceIndex| partial.hash_of(*index).is_some_and(|hash| hash != hashes[*index as usize]);
    let wrong: Vec<PieceIndex> = (0..layout.count()).filter(differs).collect();
    forget(store, &content, &wrong).await?;
    Ok(wrong.len())
}

/// A body, cut into pieces.
struct Pieces<S> {
    layout: PieceLayout,
    next: PieceIndex,
    body: S,
    buffer: BytesMut,
    chunk: Bytes,
    got: u64,
    expected: u64,
}

impl<E: std::fmt::Display, S: Stream<Item = Result<Bytes, E>> + Unpin> Pieces<S> {
    fn new(layout: PieceLayout, first: PieceIndex, body: S) -> Self {
        let expected = layout.blob_size() - layout.bytes_of(first).start.min(layout.blob_size());
        Self { layout, next: first, body, buffer: BytesMut::new(), chunk: Bytes::new(), got: 0, expected }
    }

    async fn next(&mut self) -> Result<Option<(PieceIndex, Bytes)>, ReceiveError> {
        loop {
            let done = self.next >= self.layout.count();
            if done && !self.chunk.is_empty() {
                return Err(ReceiveError::TooLong(self.expected));
            }
            let range = if done { 0..0 } else { self.layout.bytes_of(self.next) };
            let lacking = (range.end - range.start) as usize - self.buffer.len();
            let part = self.chunk.split_to(lacking.min(self.chunk.len()));
            if !done && part.len() == lacking {
                let piece = if self.buffer.is_empty() {
                    part
                } else {
                    self.buffer.extend_from_slice(&part);
                    self.buffer.split().freeze()
                };
                self.next += 1;
                return Ok(Some((self.next - 1, piece)));
            }
            self.buffer.reserve(lacking);
            self.buffer.extend_from_slice(&part);
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    self.got += chunk.len() as u64;
                    self.chunk = chunk;
                }
                None if done => return Ok(None),
                None => return Err(self.broke_off("the sender ended")),
                Some(Err(error)) => return Err(self.broke_off(&error.to_string())),
            }
        }
    }

    fn broke_off(&self, what: &str) -> ReceiveError {
        ReceiveError::BrokeOff { got: self.got, expected: self.expected, what: what.to_owned() }
    }
}

/// Why an image was not taken in.
#[derive(Debug, Error)]
pub enum SeedError {
    /// The image's name.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The platform's name.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The name has the digest of another image.
    #[error("`{name}` has another digest than the image, {root}: name it by a tag")]
    OtherDigest {
        /// The name.
        name: String,
        /// The image.
        root: ContentId,
    },
    /// The image makes no sense.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// It is not for a platform.
    #[error("the image has nothing for {}", .0.wanted)]
    NoPlatform(#[from] NotOffered),
    /// Not all of it is held.
    #[error("this node lacks {count} of the image's blobs, the first of them {first}: seed it again")]
    Incomplete {
        /// How many.
        count: usize,
        /// The first of them.
        first: ContentId,
    },
    /// Its name cannot own pins.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// It could not be pinned.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// What its tag stands for could not be recorded.
    #[error(transparent)]
    Bind(#[from] ChangeError),
}

/// Pins an image whose blobs are held, and says what its tag stands for if that is asked for.
///
/// # Errors
/// If the image is not held, or the change cannot be recorded.
pub async fn finish(store: &Store, mesh: &Mesh, request: &SeedRequest) -> Result<SeedSummary, SeedError> {
    let image: ImageReference = request.image.parse()?;
    let root: ContentId = request.digest.parse().map_err(ImageError::from)?;
    if matches!(image.version(), Version::Digest(content) if *content != root) {
        return Err(SeedError::OtherDigest { name: image.to_string(), root });
    }
    let choice = request.platform.as_deref().map_or(Ok(PlatformChoice::All), str::parse)?;
    let read = async |content| store.read_whole(&content, MANIFEST_BYTES_MAX).await.ok();
    let found = contents::read(root, choice, read).await?;
    found.matched()?;
    // An image may come without some platforms, if none was asked for by name.
    let left_out =
        |content: &ContentId| request.platform.is_none() && *content != root && found.unread.contains(content);
    let needed = || found.parts.iter().filter(|part| !left_out(&part.content));
    let missing: Vec<ContentId> =
        needed().map(|part| part.content).filter(|content| store.size_of(content).is_none()).collect();
    if let Some(&first) = missing.first() {
        return Err(SeedError::Incomplete { count: missing.len(), first });
    }
    let contents: Vec<ContentId> = needed().map(|part| part.content).collect();
    let bytes = needed().filter_map(|part| part.size).sum();
    let blobs = contents.len();
    // Seeded again under this name, another image takes its place.
    store.replace_pins(owner_of(&image)?, contents).await?;
    if let Version::Tag(reference) = image.version()
        && request.bind
    {
        let observed_unix_s = wall_clock::unix_s();
        let binding =
            Binding { reference: reference.clone(), content: root, observed_unix_s, age_ms: Some(0), by: None };
        store.remember(binding.clone()).await?;
        mesh.bind(binding).await;
    }
    Ok(SeedSummary { image: image.to_string(), digest: root.to_string(), blobs, bytes })
}

/// Keeps what has come and is to come of an image, besides what was seeded under its name before.
///
/// # Errors
/// If the name is none, or the change cannot be recorded.
pub async fn keep(store: &Store, name: &str, contents: Vec<ContentId>) -> Result<(), SeedError> {
    let owner = owner_of(&name.parse()?)?;
    Ok(store.pin(owner, contents).await?)
}

fn owner_of(image: &ImageReference) -> Result<PinOwner, OwnerError> {
    format!("seed/{image}").parse()
}
