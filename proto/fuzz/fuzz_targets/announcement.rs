//! Any bytes are one announcement or none.

#![no_main]

use layermesh_proto::wire::codec::{decode_announcement, encode_announcement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(announcement) = decode_announcement(bytes) {
        assert_eq!(encode_announcement(&announcement).as_deref(), Ok(bytes));
    }
});
