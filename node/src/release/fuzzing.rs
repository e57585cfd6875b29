//! What must hold of a release's metadata, whatever they are.

use std::{cell::RefCell, collections::BTreeMap, path::Path};

use bytes::Bytes;
use tokio::runtime::Runtime;

use super::{
    MetadataSet, Trusted, follow,
    verify::{Outcome, claimed, verify},
};

/// When the set was signed, and by which clock it is looked at.
const NOW: u64 = 1_800_000_000;
/// A set that an admin signed, of one release; `release::tests::write_the_set_of_the_fuzzer` makes it.
const FILES: [(&str, &[u8]); 4] = [
    ("1.root.json", include_bytes!("../../fuzz/set/1.root.json")),
    ("timestamp.json", include_bytes!("../../fuzz/set/timestamp.json")),
    ("3.snapshot.json", include_bytes!("../../fuzz/set/3.snapshot.json")),
    ("3.targets.json", include_bytes!("../../fuzz/set/3.targets.json")),
];

/// A set of which one file is any bytes is refused, or says what the admin signed.
///
/// # Panics
/// If that does not hold.
pub fn set(bytes: &[u8]) {
    let _ = MetadataSet::list(bytes);
    follow::fuzz_kept(bytes);
    let Some((which, bytes)) = bytes.split_first() else { return };
    let mut files: BTreeMap<String, Bytes> =
        FILES.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::from_static(bytes))).collect();
    let signed = MetadataSet::new(files.clone()).expect("the set is whole");
    let name = match usize::from(*which) % (FILES.len() + 1) {
        4 => "2.root.json",
        which => FILES[which].0,
    };
    files.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
    let Ok(set) = MetadataSet::new(files) else { return };
    assert_eq!(
        MetadataSet::list(&set.to_artifact().blobs[&set.to_artifact().content]).map(|files| files.len()),
        Ok(4 + usize::from(name == "2.root.json"))
    );
    let trusted = Trusted::root(FILES[0].1);
    let _ = claimed(&set);
    let outcome = looked_at(&set, &trusted);
    match outcome.result {
        Ok(verified) => {
            assert_eq!(Ok(verified.releases), claimed(&signed), "something else than the signed is believed")
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    assert!(
        outcome
            .trusted
            .is_none_or(|after| after.root == trusted.root || after.timestamp.is_some() || after.repository().is_ok())
    );
}

fn looked_at(set: &MetadataSet, trusted: &Trusted) -> Outcome {
    thread_local! {
        static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    // In memory: each look makes a directory of four files.
    let scratch =
        [Path::new("/dev/shm"), Path::new("/tmp")].into_iter().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    RUNTIME.with_borrow_mut(|runtime| {
        let new = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.get_or_insert_with(new).block_on(verify(set, trusted, NOW, scratch))
    })
}
