//! Any bytes are one binary CID or none; any text is one digest or none; a text that is a CID names what its bytes name.

#![no_main]

use layermesh_proto::ContentId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(content) = ContentId::from_bytes(bytes) {
        assert_eq!(content.to_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(content) = text.parse::<ContentId>() {
        assert_eq!(content.to_string(), text);
    }
    if let Ok(content) = ContentId::from_cid_text(text) {
        assert_eq!(ContentId::from_cid_text(&content.to_cid().to_string()), Ok(content));
        assert_eq!(ContentId::from_bytes(&content.to_bytes()), Ok(content));
        assert_eq!(content.to_string().parse(), Ok(content));
    }
});
