//! Any bytes are one statement, credential or message of a fleet, or none.

#![no_main]

use layermesh_proto::wire::codec::{
    decode_credential, decode_enrolment, decode_fleet_request, decode_fleet_response, decode_membership,
    decode_revocation, encode_credential, encode_enrolment, encode_fleet_request, encode_fleet_response,
    encode_membership, encode_revocation,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(membership) = decode_membership(bytes) {
        assert_eq!(encode_membership(&membership).as_deref(), Ok(bytes));
    }
    if let Ok(enrolment) = decode_enrolment(bytes) {
        assert_eq!(encode_enrolment(&enrolment).as_deref(), Ok(bytes));
    }
    if let Ok(revocation) = decode_revocation(bytes) {
        assert_eq!(encode_revocation(&revocation).as_deref(), Ok(bytes));
    }
    if let Ok(credential) = decode_credential(bytes) {
        assert_eq!(encode_credential(&credential).as_deref(), Ok(bytes));
    }
    if let Ok(request) = decode_fleet_request(bytes) {
        assert_eq!(encode_fleet_request(&request).as_deref(), Ok(bytes));
    }
    if let Ok(response) = decode_fleet_response(bytes) {
        assert_eq!(encode_fleet_response(&response).as_deref(), Ok(bytes));
    }
});
