//! Whatever ops make a patch, the patch makes what they made.

#![no_main]

use layermesh_proto::{
    Algorithm, ContentId,
    gzip::{self, Recipe},
    patch::{Decoder, Header, Need, Op, Sizes, encode},
};
use libfuzzer_sys::fuzz_target;

/// The old tar is this long.
const OLD_LEN: usize = 300_000;

fuzz_target!(|parts: Vec<(u8, u32, u16, &[u8])>| {
    let old: Vec<u8> = (0..OLD_LEN).map(|at| (at * at >> 9) as u8 ^ (at >> 12) as u8).collect();
    let (mut new, mut ops): (Vec<u8>, _) = (Vec::new(), Vec::new());
    for (kind, at, len, bytes) in parts.into_iter().take(40) {
        let (at, len) = (at as usize, usize::from(len) % 5000 + 2);
        match kind % 3 {
            0 => {
                let at = at % (OLD_LEN + 1);
                let begin = new.len();
                new.extend((at..at + len).map(|at| old.get(at).copied().unwrap_or(0)));
                for (at, byte) in bytes.iter().enumerate() {
                    let place = begin + at * (usize::from(kind) / 3 + 1) % len;
                    new[place] = new[place].wrapping_add(*byte);
                }
                ops.push(Op::Aligned { old_at: at as u64, len: len as u64 });
            }
            1 if !new.is_empty() => {
                let back = at % new.len().min(1 << 16) + 1;
                (0..len).for_each(|_| new.push(new[new.len() - back]));
                ops.push(Op::Match { distance: back as u64, len: len as u64 });
            }
            _ => {
                new.extend_from_slice(bytes);
                ops.push(Op::Literal { len: bytes.len() as u64 });
            }
        }
    }
    let id = ContentId::of(Algorithm::Sha256, b"");
    let header = Header {
        sizes: Sizes { window_log: 17, history_log: 16, model_log: 14 },
        base: id,
        base_len: OLD_LEN as u64,
        base_head: 0,
        tar: id,
        tar_len: new.len() as u64,
        blob: id,
        blob_len: 0,
        recipe: Recipe { encoder: "go-gzip/1:6".parse().expect("an encoder"), header: gzip::Header::default() },
    };
    // What would leave the window is refused.
    let Ok(patch) = encode(&header, &old, &new, &ops) else { return };
    let (_, used) = Header::read(&patch).expect("a header").expect("all of it");
    let mut decoder = Decoder::new(&header);
    let (mut patch, mut old, mut out) = (&patch[used..], &old[..], Vec::new());
    loop {
        match decoder.step(&mut out, usize::MAX).expect("a patch that was just made") {
            Need::Patch if patch.is_empty() => decoder.end_patch(),
            Need::Patch => patch = &patch[decoder.push_patch(patch)..],
            Need::Old => old = &old[decoder.push_old(old)..],
            Need::Room => unreachable!("there is room for all"),
            Need::Nothing => break,
        }
    }
    assert!(out == new);
});
