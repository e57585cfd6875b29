use proptest::{collection::vec, prelude::*};

use super::{cursor::CHECK_EVERY, *};
use crate::{Algorithm, ContentId, gzip::Recipe};

const SMALL: Sizes = Sizes { window_log: 17, history_log: 16, model_log: 14 };

fn header(sizes: Sizes, old: &[u8], new: &[u8]) -> Header {
    let id = |bytes: &[u8]| ContentId::of(Algorithm::Sha256, bytes);
    Header {
        sizes,
        base: id(old),
        base_len: old.len() as u64,
        base_head: crc32fast::hash(&old[..old.len().min(HEAD_LEN as usize)]),
        tar: id(new),
        tar_len: new.len() as u64,
        blob: ContentId::of(Algorithm::Sha512, new),
        blob_len: 99,
        recipe: Recipe {
            encoder: "pgzip/2:5".parse().unwrap(),
            header: crate::gzip::Header { name: Some(b"layer".to_vec()), ..crate::gzip::Header::default() },
        },
    }
}

/// Applies a patch in pieces of `piece` bytes; what was made until an error comes with it.
fn decode(old: &[u8], patch: &[u8], piece: usize) -> Result<Vec<u8>, (DecodeError, Vec<u8>)> {
    let (header, used) = Header::read(patch).unwrap().unwrap();
    let mut decoder = Decoder::new(&header);
    let (mut patch, mut old, mut out, mut part) = (&patch[used..], old, Vec::new(), Vec::new());
    loop {
        let need = decoder.step(&mut part, piece);
        out.append(&mut part);
        match need {
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
            Ok(Need::Room) => {}
            Ok(Need::Nothing) => return Ok(out),
            Err(error) => return Err((error, out)),
        }
        assert!(out.len() as u64 <= header.tar_len, "no more than the header says");
    }
}

/// Bytes without an order that are the same each time.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A part of a new tar, before it is known what can be.
#[derive(Debug, Clone)]
enum Part {
    Aligned { at: usize, len: usize, changes: Vec<(usize, u8)> },
    Match { back: usize, len: usize },
    Literal(Vec<u8>),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        3 => (any::<usize>(), 1..3000_usize, vec((any::<usize>(), 1..=255_u8), 0..9))
            .prop_map(|(at, len, changes)| Part::Aligned { at, len, changes }),
        1 => (any::<usize>(), 2..900_usize).prop_map(|(back, len)| Part::Match { back, len }),
        1 => vec(any::<u8>(), 1..50).prop_map(Part::Literal),
    ];
    vec(part, 0..40)
}

/// The new tar of these parts, and the ops that make it.
fn built(old: &[u8], parts: &[Part]) -> (Vec<u8>, Vec<Op>) {
    let (mut new, mut ops): (Vec<u8>, _) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Aligned { at, len, changes } => {
                let at = at % (old.len() + 1);
                let mut bytes: Vec<u8> = (at..at + len).map(|at| old.get(at).copied().unwrap_or(0)).collect();
                for (at, change) in changes {
                    bytes[at % len] ^= change;
                }
                new.append(&mut bytes);
                ops.push(Op::Aligned { old_at: at as u64, len: *len as u64 });
            }
            Part::Match { back, len } if !new.is_empty() => {
                let back = back % new.len().min(1 << SMALL.history_log) + 1;
                (0..*len).for_each(|_| new.push(new[new.len() - back]));
                ops.push(Op::Match { distance: back as u64, len: *len as u64 });
            }
            Part::Match { .. } => {}
            Part::Literal(bytes) => {
                new.extend_from_slice(bytes);
                ops.push(Op::Literal { len: bytes.len() as u64 });
            }
        }
    }
    (new, ops)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(len in 0..60_000_usize, parts in parts(), piece in 1..5000_usize) {
        let old = noise(len, 7);
        let (new, ops) = built(&old, &parts);
        let header = header(SMALL, &old, &new);
        let patch = encode(&header, &old, &new, &ops).unwrap();
        prop_assert_eq!(&Header::read(&patch).unwrap().unwrap().0, &header);
        prop_assert!(decode(&old, &patch, piece) == Ok(new));
    }

    #[test]
    fn a_patch_that_is_cut_or_changed_is_refused_or_makes_something_else(
        parts in parts(), cut in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let old = noise(20_000, 3);
        let (new, ops) = built(&old, &parts);
        let patch = encode(&header(SMALL, &old, &new), &old, &new, &ops).unwrap();
        let begin = Header::read(&patch).unwrap().unwrap().1;
        let at = begin + cut.index(patch.len() - begin);
        prop_assert_eq!(decode(&old, &patch[..at], 700).unwrap_err().0, DecodeError::Short);
        let mut longer = patch.clone();
        longer.push(flip);
        prop_assert_eq!(decode(&old, &longer, 700).unwrap_err().0, DecodeError::Trailing);
        let mut other = patch;
        other[at] ^= flip;
        // The checksum of the tar is the caller's; here it is enough that it ends and is not taken for the same.
        prop_assert!(decode(&old, &other, 700) != Ok(new));
    }

    #[test]
    fn any_bytes_are_followed_to_an_end(bytes in vec(any::<u8>(), 0..2000), tar_len in 0..200_000_u64) {
        let old = noise(30_000, 1);
        let mut header = header(SMALL, &old, b"");
        header.tar_len = tar_len;
        let mut patch = Vec::new();
        header.put(&mut patch);
        patch.extend_from_slice(&bytes);
        let _ = decode(&old, &patch, 4096);
    }

    #[test]
    fn any_header_is_refused_or_written_as_it_was_read(at in 0..180_usize, flip in 1..=255_u8, fixed in any::<bool>()) {
        let old = noise(1000, 5);
        let mut bytes = Vec::new();
        header(SMALL, &old, b"new").put(&mut bytes);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if fixed {
            let end = bytes.len() - 4;
            let checksum = crc32fast::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        }
        if let Ok(Some((header, len))) = Header::read(&bytes) {
            let mut again = Vec::new();
            header.put(&mut again);
            prop_assert_eq!(&again[..], &bytes[..len]);
        }
    }
}

#[test]
fn a_header_is_read_once_all_of_it_is_there() {
    let old = noise(100_000, 5);
    let header = header(Sizes::DEFAULT, &old, b"new");
    let mut bytes = Vec::new();
    header.put(&mut bytes);
    for cut in 0..bytes.len() {
        assert_eq!(Header::read(&bytes[..cut]), Ok(None), "cut at {cut}");
    }
    let len = bytes.len();
    bytes.push(1);
    assert_eq!(Header::read(&bytes), Ok(Some((header, len))));
    assert_eq!(Header::read(b"PK"), Err(HeaderError::NotAPatch));
    bytes[8] = 2;
    assert_eq!(Header::read(&bytes), Err(HeaderError::Version(2)));
    bytes[8] = 1;
    for (at, value) in [(9, 16), (9, 31), (10, 15), (10, 28), (11, 13), (11, 25)] {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Beyond("memory")), "{value} at {at}");
    }
    let mut long = bytes.clone();
    long[12..20].copy_from_slice(&(LEN_MAX + 1).to_le_bytes());
    assert_eq!(Header::read(&long), Err(HeaderError::Beyond("a length")));
    let last = len - 1;
    bytes[last] ^= 1;
    assert_eq!(Header::read(&bytes), Err(HeaderError::Damaged));
}

#[test]
fn what_has_left_the_window_is_not_used() {
    let old = noise(400_000, 9);
    let far = 300_000_u64;
    let window = 1 << SMALL.window_log;
    let nearest = far + 1000 + 8 - (window - (64 << 10));
    for (back, allowed) in [(nearest, true), (nearest - 1, false)] {
        let ops = [Op::Aligned { old_at: far, len: 1000 }, Op::Aligned { old_at: back, len: 500 }];
        let new = [&old[far as usize..][..1000], &old[back as usize..][..500]].concat();
        let patch = encode(&header(SMALL, &old, &new), &old, &new, &ops);
        match patch {
            Ok(patch) => assert!(allowed && decode(&old, &patch, 1 << 16) == Ok(new)),
            Err(error) => assert!(!allowed && error.what == "it leads out of the window", "{error}"),
        }
    }
    // A patch for a larger window, in a header that says less.
    let ops = [Op::Aligned { old_at: far, len: 1000 }, Op::Aligned { old_at: 0, len: 500 }];
    let new = [&old[far as usize..][..1000], &old[..500]].concat();
    let large = Sizes { window_log: 20, ..SMALL };
    let mut patch = encode(&header(large, &old, &new), &old, &new, &ops).unwrap();
    let body = patch.split_off(Header::read(&patch).unwrap().unwrap().1);
    let mut hostile = Vec::new();
    header(SMALL, &old, &new).put(&mut hostile);
    hostile.extend_from_slice(&body);
    let (error, made) = decode(&old, &hostile, 1 << 16).unwrap_err();
    assert_eq!(error, DecodeError::Impossible { new_at: 1000, what: "old bytes that left the window" });
    assert!(made == new[..1000]);
}

#[test]
fn jumps_that_make_nothing_are_refused() {
    let old = noise(1000, 6);
    let header = header(SMALL, &old, b"something");
    let (mut coder, mut model) = (range::Encoder::new(), model::Model::new(SMALL.model_log.into()));
    let mut cursor = cursor::Cursor::default();
    for _ in 0..2 {
        cursor.go(0);
        cursor.look(|at| old[at as usize]);
        model.flag(&mut coder, &cursor.place, true);
        model.breaks(&mut coder, &cursor.place, true);
        model.remember_aligned();
        cursor.leave();
        model.op(&mut coder, model::Op::JumpAgain);
        model.recent(&mut coder, true, 0);
    }
    let mut patch = Vec::new();
    header.put(&mut patch);
    patch.append(&mut coder.finish());
    let what = "a jump to where it does not stay";
    assert_eq!(decode(&old, &patch, 99), Err((DecodeError::Impossible { new_at: 0, what }, Vec::new())));
}

#[test]
fn old_bytes_are_zeros_behind_the_end() {
    let old = noise(5000, 2);
    let mut new = old.clone();
    new.resize(90_000, 0);
    let ops = [Op::Aligned { old_at: 0, len: new.len() as u64 }];
    let patch = encode(&header(SMALL, &old, &new), &old, &new, &ops).unwrap();
    assert!(patch.len() < 300, "{}", patch.len());
    assert!(decode(&old, &patch, 333) == Ok(new));
}

#[test]
fn a_wrong_base_is_noticed_at_the_next_check() {
    let old = noise(2 * CHECK_EVERY as usize, 4);
    let ops = [Op::Aligned { old_at: 0, len: old.len() as u64 }];
    let patch = encode(&header(SMALL, &old, &old), &old, &old, &ops).unwrap();
    let mut other = old.clone();
    other[70_000] ^= 1;
    let (error, made) = decode(&other, &patch, 1 << 16).unwrap_err();
    assert_eq!(error, DecodeError::Check { new_at: CHECK_EVERY });
    assert_eq!(made.len() as u64, CHECK_EVERY);
    assert!(decode(&old, &patch, 1 << 16) == Ok(old));
}

#[test]
fn a_patch_of_format_1_stays_what_it_is() {
    // Whatever changes here: patches that were published have to lead to the same bytes.
    let old = noise(40_000, 11);
    let parts = [
        Part::Aligned { at: 100, len: 9000, changes: (0..40).map(|n| (n * 211, 4)).collect() },
        Part::Literal(b"a few words that were not there before, and were not there before".to_vec()),
        Part::Match { back: 30, len: 44 },
        Part::Aligned { at: 20_000, len: 15_000, changes: vec![(77, 1), (78, 2)] },
    ];
    let (new, ops) = built(&old, &parts);
    let patch = encode(&header(SMALL, &old, &new), &old, &new, &ops).unwrap();
    let id = ContentId::of(Algorithm::Sha256, &patch).hex();
    assert_eq!((patch.len(), &id[..16]), (326, "af27feca0535fcaa"));
}
