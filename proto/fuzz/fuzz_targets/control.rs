//! Any bytes are one control request or none, and one control response or none.

#![no_main]

use layermesh_proto::wire::codec::{
    decode_control_request, decode_control_response, encode_control_request, encode_control_response,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = decode_control_request(bytes) {
        assert_eq!(encode_control_request(&request).as_deref(), Ok(bytes));
    }
    if let Ok(response) = decode_control_response(bytes) {
        assert_eq!(encode_control_response(&response).as_deref(), Ok(bytes));
    }
});
