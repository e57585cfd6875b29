//! Any bytes have a header that is written as it was read, or none; and an encoder is named for a stream only if it
//! makes that very stream.

#![no_main]

use flate2::{Decompress, FlushDecompress, Status};
use layermesh_proto::gzip::{Deflater, EncoderId, Header, Identifier};
use libfuzzer_sys::fuzz_target;

/// Bytes inflated at a time.
const OUT_LEN: usize = 4096;
/// Bytes inflated in all: a few bytes can be megabytes.
const PLAIN_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((header, len))) = Header::read(bytes) else { return };
    let mut again = Vec::new();
    header.put(&mut again);
    assert_eq!(again, bytes[..len]);
    let stream = &bytes[len..];
    let (mut inflater, mut identifier) = (Decompress::new(false), Identifier::new(EncoderId::all()));
    let (mut plain, mut out, mut taken) = (Vec::new(), vec![0; OUT_LEN], 0);
    loop {
        let before = inflater.total_out();
        let Ok(status) = inflater.decompress(&stream[taken..], &mut out, FlushDecompress::None) else { return };
        let made = &out[..(inflater.total_out() - before) as usize];
        identifier.push(&stream[taken..inflater.total_in() as usize], made);
        plain.extend_from_slice(made);
        if plain.len() > PLAIN_MAX || made.is_empty() && taken == inflater.total_in() as usize {
            return;
        }
        taken = inflater.total_in() as usize;
        if status == Status::StreamEnd {
            break;
        }
    }
    match identifier.finish() {
        Ok(id) => {
            let (mut deflater, mut again) = (Deflater::new(id), Vec::new());
            deflater.write(&plain, &mut again);
            deflater.finish(&mut again);
            assert!(again == stream[..taken], "{id}");
        }
        Err(error) => assert!(error.same <= taken as u64),
    }
});
