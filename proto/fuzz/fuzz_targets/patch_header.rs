//! A patch's header is refused, or written as it was read.

#![no_main]

use layermesh_proto::patch::Header;
use libfuzzer_sys::fuzz_target;

/// Bytes of the checksum that a header ends with.
const CHECKSUM_LEN: usize = 4;

fuzz_target!(|input: (bool, &[u8])| {
    let (corrected, bytes) = input;
    let mut bytes = bytes.to_vec();
    // A checksum is found by no fuzzer; what is behind it is to be reached all the same.
    if let (true, Some(end)) = (corrected, bytes.len().checked_sub(CHECKSUM_LEN)) {
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
    }
    if let Ok(Some((header, len))) = Header::read(&bytes) {
        let mut again = Vec::new();
        header.put(&mut again);
        assert_eq!(again, &bytes[..len]);
    }
});
