//! Any bytes are one gossip message or none.

#![no_main]

use layermesh_proto::wire::neighbourhood;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((author, announcement)) = neighbourhood::decode(bytes) {
        assert_eq!(neighbourhood::encode(author, &announcement).as_deref(), Ok(bytes));
    }
});
