//! Any bytes are one piece set or none, and a set decoded from bytes counts its pieces right and can be changed.

#![no_main]

use layermesh_proto::wire::codec::{decode_piece_set, encode_piece_set};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut set) = decode_piece_set(bytes) else { return };
    assert_eq!(encode_piece_set(&set).as_deref(), Ok(bytes));
    assert_eq!(set.iter().count(), set.count() as usize);
    assert_eq!(set.is_full(), set.missing_run(0, 1).is_none());
    // The first gap is filled as far as it goes: then the prefix reaches its end at least.
    if let Some(run) = set.missing_run(0, u32::MAX) {
        assert_eq!(set.prefix(), run.start);
        for index in run.clone() {
            assert!(set.insert(index) && set.contains(index));
        }
        assert!(set.prefix() >= run.end);
    }
    assert!(!set.insert(set.pieces()));
});
