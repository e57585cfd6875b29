//! What must hold of the store's files, whatever is in them.

use layermesh_proto::PieceLayout;
use redb::{Database, backends::InMemoryBackend};

use super::{
    attached::{ATTACHMENTS, FILES},
    database::Reopening,
    journal::{self, HEADER_LEN, RECORD_LEN, Record},
    media_type::media_type_of,
    meta::{BLOBS, Meta, TAGS},
    pins::PINS,
    uses::USES,
};

/// Any bytes are a state file of a partial or none; also where all checksums are right. What it says is of pieces that
/// the blob has, and is read back as it is written.
///
/// # Panics
/// If that does not hold.
pub fn partial_state(bytes: &[u8]) {
    check_state(bytes);
    check_state(&journal::sealed(bytes));
}

fn check_state(bytes: &[u8]) {
    let Ok(journal) = journal::parse(bytes) else { return };
    let (set, hashes) = journal.pieces();
    assert_eq!(hashes.len(), journal.layout.count() as usize);
    assert!(set.iter().all(|piece| piece < journal.layout.count()));
    assert_eq!(PieceLayout::for_size(journal.layout.blob_size()), Some(journal.layout));
    assert_eq!(journal.next_slot, ((bytes.len() - HEADER_LEN) / RECORD_LEN) as u64);
    let header = journal::header(&journal.content, journal.layout.blob_size());
    let written = (0..)
        .zip(&journal.records)
        .map(|(slot, &Record { index, hash })| journal::record(&header, slot, Record { index, hash }));
    let again: Vec<u8> = header.into_iter().chain(written.flatten()).collect();
    assert_eq!(journal::parse(&again).map(|again| again.pieces()), Ok((set, hashes)));
}

/// Any bytes in any column of the metadata are a row that makes sense or none.
///
/// # Panics
/// If that does not hold.
pub fn rows(bytes: &[u8]) {
    let Some((&[key_len, number], rest)) = bytes.split_first_chunk::<2>() else { return };
    let (key, value) = rest.split_at(usize::from(key_len).min(rest.len()));
    let (text, other) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
    let number = if number < 128 { u64::from(number) << 17 } else { u64::MAX >> (number - 128).min(63) };
    let opener = || Database::builder().create_with_backend(InMemoryBackend::new());
    let meta = Meta { db: Reopening::open(Box::new(opener)).expect("a new database") };
    meta.prepare().expect("a new database");
    let written = meta.db.write(|write| {
        write.open_table(BLOBS)?.insert(key, (number, value))?;
        write.open_table(TAGS)?.insert((&*text, &*other, "v1"), (value, number, key))?;
        write.open_table(TAGS)?.insert(("registry.example", "app", &*text), (value, number, key))?;
        write.open_table(PINS)?.insert((&*text, value), ())?;
        write.open_table(USES)?.insert(key, number)?;
        write.open_table(ATTACHMENTS)?.insert(&*text, true)?;
        write.open_table(FILES)?.insert((&*text, key), (number, 1, -1, 1, value))?;
        Ok(())
    });
    written.expect("a new database");
    for (content, size) in meta.blobs().unwrap() {
        assert!(meta.map(&content).unwrap().is_none_or(|map| map.layout().blob_size() == size));
    }
    for binding in meta.bindings().unwrap() {
        assert!(meta.bind(&binding).is_ok());
    }
    assert!(meta.pins().is_ok() && meta.uses().is_ok());
    assert!(meta.files(std::path::Path::new(&*text)).is_ok());
}

/// Any bytes have one media type of a manifest or none.
///
/// # Panics
/// If an index and a manifest are taken for each other.
pub fn media_type(bytes: &[u8]) {
    use crate::contents::Document;
    match (media_type_of(bytes), Document::parse(bytes)) {
        (Some(super::media_type::OCI_INDEX), Ok(Document::Manifest(_)))
        | (Some(super::media_type::OCI_MANIFEST), Ok(Document::Index(_))) => panic!("both an index and a manifest"),
        _ => {}
    }
}
