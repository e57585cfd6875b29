//! Every encoder against the digests that the tool itself makes, and against an inflater.

pub(crate) mod inputs;

use std::io::Read as _;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{EncoderId, Family, Header, Level, encode};
use inputs::{KINDS, input};

/// Around the borders of what is handled apart, and of the first blocks.
const SHORT: [usize; 19] = [0, 1, 2, 3, 4, 5, 16, 17, 31, 32, 33, 127, 128, 129, 1024, 1025, 16_384, 65_535, 70_001];
/// Around the borders of windows and larger blocks; for some levels.
const LONG: [usize; 13] =
    [32_506, 32_507, 32_768, 32_769, 65_273, 65_274, 65_275, 65_536, 65_537, 131_071, 262_144, 1_048_577, 1_300_000];
/// One line a digest: encoder, kind of input, `short` or `long`, SHA-256 of the streams of all these lengths in a row.
const GOLDEN: &str = include_str!("tests/golden.txt");

/// The header that the tools write when they are told nothing.
fn header_of_tool(id: EncoderId) -> Header {
    let xfl = match id.level {
        Level::Number(1) => 4,
        Level::Number(9) => 2,
        Level::Number(_) | Level::Huffman => 0,
    };
    let (mtime, os) = match id.family {
        Family::Go1 | Family::Go2 => (0, 255),
        // pgzip writes the year 1, which no time is, as it comes.
        Family::Pgzip1 | Family::Pgzip2 | Family::Pgzip3 => (0x886e_0900, 255),
        Family::Zlib1 | Family::GnuGzip1 | Family::Pigz1 => (0, 3),
    };
    Header { xfl, mtime, os, ..Header::default() }
}

/// The stream of `data` in writes of so many bytes.
fn stream(id: EncoderId, data: &[u8], write: usize) -> Vec<u8> {
    let (mut encoder, mut out) = (super::Encoder::new(id, &header_of_tool(id)), Vec::new());
    for part in data.chunks(write) {
        encoder.write(part, &mut out);
    }
    encoder.finish(&mut out);
    out
}

fn inflated(stream: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(stream).read_to_end(&mut plain).unwrap();
    plain
}

/// Compares the lines of a family with what the encoders make.
fn is_golden(family: Family, which: &str) {
    let mut lines = 0;
    let prefix = format!("{}:", family.name());
    for line in GOLDEN.lines().filter(|line| line.starts_with(&prefix)) {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, kind, lengths, digest] = fields[..] else { panic!("not a line: {line}") };
        if lengths != which {
            continue;
        }
        let id: EncoderId = id.parse().unwrap();
        let mut hasher = Sha256::new();
        for len in if lengths == "short" { &SHORT[..] } else { &LONG[..] } {
            // Writes end at no border of the encoder's own.
            hasher.update(stream(id, &input(kind, *len), 50_021));
        }
        assert_eq!(hex::encode(hasher.finalize()), digest, "{id} {kind} {lengths}");
        lines += 1;
    }
    assert!(lines >= KINDS.len(), "golden digests of {family:?} {which}: {lines}");
}

#[test]
fn go_up_to_1_26_writes_the_same() {
    is_golden(Family::Go1, "short");
}

#[test]
fn go_up_to_1_26_writes_the_same_at_length() {
    is_golden(Family::Go1, "long");
}

#[test]
fn go_from_1_27_on_writes_the_same() {
    is_golden(Family::Go2, "short");
}

#[test]
fn go_from_1_27_on_writes_the_same_at_length() {
    is_golden(Family::Go2, "long");
}

#[test]
fn pgzip_writes_the_same() {
    is_golden(Family::Pgzip1, "short");
    is_golden(Family::Pgzip2, "short");
    is_golden(Family::Pgzip3, "short");
}

#[test]
fn pgzip_writes_the_same_at_length() {
    is_golden(Family::Pgzip1, "long");
    is_golden(Family::Pgzip2, "long");
    is_golden(Family::Pgzip3, "long");
}

#[test]
fn zlib_writes_the_same() {
    is_golden(Family::Zlib1, "short");
}

#[test]
fn zlib_writes_the_same_at_length() {
    is_golden(Family::Zlib1, "long");
}

#[test]
fn gnu_gzip_writes_the_same() {
    is_golden(Family::GnuGzip1, "short");
}

#[test]
fn gnu_gzip_writes_the_same_at_length() {
    is_golden(Family::GnuGzip1, "long");
}

#[test]
fn pigz_writes_the_same() {
    is_golden(Family::Pigz1, "short");
}

#[test]
fn pigz_writes_the_same_at_length() {
    is_golden(Family::Pigz1, "long");
}

#[test]
fn every_encoder_has_a_name_of_its_own() {
    let names: Vec<String> = EncoderId::all().map(|id| id.to_string()).collect();
    for (id, name) in EncoderId::all().zip(&names) {
        assert_eq!(name.parse(), Ok(id));
        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
        assert!(GOLDEN.contains(&format!("{name} ")), "{name} has no golden digests");
    }
    assert_eq!(names[0], "go-gzip/1:6");
    assert!(["zlib/1:0", "pigz/1:huffman"].iter().all(|name| name.parse::<EncoderId>().is_err()));
    let error = "go-gzip/9:6".parse::<EncoderId>().unwrap_err();
    assert_eq!(error.to_string(), "this version has no encoder \"go-gzip/9:6\"; a newer one may have it");
}

#[test]
fn how_input_is_cut_changes_nothing() {
    for id in EncoderId::all() {
        let data = input("tar", 70_000);
        let whole = encode(id, &header_of_tool(id), &data);
        assert_eq!(inflated(&whole), data, "{id}");
        for write in [1, 511, 65_535] {
            assert!(stream(id, &data, write) == whole, "{id} in writes of {write} bytes");
        }
    }
}

#[test]
fn the_header_is_what_it_was() {
    let header = Header { mtime: 7, os: 3, name: Some(b"layer.tar".to_vec()), ..Header::default() };
    for id in EncoderId::all() {
        let stream = encode(id, &header, b"");
        assert_eq!(Header::read(&stream), Ok(Some((header.clone(), 20))));
        assert_eq!(inflated(&stream), b"");
    }
}

/// Bytes as deflate likes them, or not.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let band = (0_u32..9, 0_usize..3000, any::<u64>());
    prop::collection::vec(band, 0..12).prop_map(|bands| {
        let mut out = Vec::new();
        for (bits, len, mut seed) in bands {
            for _ in 0..len {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                out.push((seed >> 33) as u8 & ((1_u32 << bits) - 1) as u8);
            }
            // And some of it again.
            let from = out.len().saturating_sub(seed as usize % 40_000);
            out.extend_from_within(from..);
        }
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_goes_in_inflates_back(data in bytes(), write in 1_usize..5000) {
        for id in EncoderId::all() {
            prop_assert!(inflated(&stream(id, &data, write)) == data, "{}", id);
        }
    }
}
