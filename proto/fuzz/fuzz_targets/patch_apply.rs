//! Whatever a patch says, following it ends, makes no more than its header says, and holds no more.

#![no_main]

use layermesh_proto::{
    Algorithm, ContentId,
    gzip::{self, Recipe},
    patch::{Decoder, Header, Need, Sizes},
};
use libfuzzer_sys::fuzz_target;

/// The old tar is this long; what the input does not give is a pattern.
const OLD_LEN: usize = 200_000;

fuzz_target!(|input: (u32, u16, &[u8], &[u8])| {
    let (tar_len, piece, begin, patch) = input;
    let mut old: Vec<u8> = (0..OLD_LEN).map(|at| (at * at >> 7) as u8).collect();
    let begin = &begin[..begin.len().min(OLD_LEN)];
    old[..begin.len()].copy_from_slice(begin);
    let id = ContentId::of(Algorithm::Sha256, b"");
    let header = Header {
        sizes: Sizes { window_log: 17, history_log: 16, model_log: 14 },
        base: id,
        base_len: OLD_LEN as u64,
        base_head: 0,
        tar: id,
        tar_len: u64::from(tar_len) % 300_000,
        blob: id,
        blob_len: 0,
        recipe: Recipe { encoder: "go-gzip/1:6".parse().expect("an encoder"), header: gzip::Header::default() },
    };
    let piece = usize::from(piece) + 1;
    let mut decoder = Decoder::new(&header);
    let (mut patch, mut old, mut out, mut made) = (patch, &old[..], Vec::new(), 0);
    loop {
        match decoder.step(&mut out, piece) {
            Ok(Need::Patch) if patch.is_empty() => decoder.end_patch(),
            Ok(Need::Patch) => {
                let taken = decoder.push_patch(&patch[..piece.min(patch.len())]);
                patch = &patch[taken..];
            }
            Ok(Need::Old) => {
                let taken = decoder.push_old(&old[..piece.min(old.len())]);
                assert!(taken > 0, "it asks for old bytes that there are");
                old = &old[taken..];
            }
            Ok(Need::Room) => {
                assert!(out.len() <= piece, "no more than there is room for");
                made += out.len() as u64;
                out.clear();
            }
            Ok(Need::Nothing) => {
                assert_eq!(made + out.len() as u64, header.tar_len);
                break;
            }
            Err(_) => break,
        }
        assert!(made + out.len() as u64 <= header.tar_len, "no more than the header says");
    }
});
