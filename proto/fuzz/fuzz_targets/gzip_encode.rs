//! Whatever an encoder is given inflates back, however it is cut.

#![no_main]

use std::io::Read as _;

use layermesh_proto::gzip::{Encoder, EncoderId, Header};
use libfuzzer_sys::fuzz_target;

/// Inputs are short, and windows are long: the input is repeated this often, each time without its first byte.
const REPEATED: u8 = 64;

fuzz_target!(|input: (u8, u8, u16, &[u8])| {
    let (which, repeat, write, bytes) = input;
    let ids: Vec<EncoderId> = EncoderId::all().collect();
    let id = ids[usize::from(which) % ids.len()];
    let mut data = Vec::new();
    for round in 0..usize::from(repeat % REPEATED) + 1 {
        data.extend_from_slice(&bytes[round.min(bytes.len())..]);
    }
    let (mut encoder, mut stream) = (Encoder::new(id, &Header::default()), Vec::new());
    for part in data.chunks(usize::from(write) + 1) {
        encoder.write(part, &mut stream);
    }
    encoder.finish(&mut stream);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&stream[..]).read_to_end(&mut plain).expect("an encoder's stream is a gzip stream");
    assert!(plain == data, "{id}");
});
