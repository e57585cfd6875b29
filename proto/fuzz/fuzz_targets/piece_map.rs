//! Any size and bytes are one piece map or none, and a map knows the hash of each piece.

#![no_main]

use layermesh_proto::PieceMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (size, bytes) = input;
    let Ok(map) = PieceMap::from_bytes(size, bytes) else { return };
    assert_eq!(map.to_bytes(), bytes);
    assert_eq!(map.layout().blob_size(), size);
    assert_eq!(map.layout().count() as usize * 32, bytes.len());
});
