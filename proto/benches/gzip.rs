//! How fast each gzip encoder is: `cargo bench -p layermesh-proto --bench gzip [-- FILE]`.
//!
//! Compressed is [`INPUT_LEN`] of text, noise and zeros as a tar has them, or FILE. In the same rounds `flate2` (miniz) does the
//! same at its default level, to compare with. A round gives all encoders the same data, one after the other.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "its result is the line that it prints")]
#![allow(clippy::disallowed_types, reason = "the clock is for the one who measures; the encoders do not see it")]

use std::{
    io::Write as _,
    time::{Duration, Instant as Clock},
};

use layermesh_proto::gzip::{Encoder, EncoderId, Header};

/// Bytes of input, unless a file is named.
const INPUT_LEN: usize = 16 << 20;
/// The default level of each encoder, and the fastest and slowest of those that have other algorithms for them.
const MEASURED: [&str; 14] = [
    "go-gzip/1:6",
    "go-gzip/1:1",
    "go-gzip/1:9",
    "go-gzip/2:6",
    "go-gzip/2:1",
    "go-gzip/2:9",
    "pgzip/1:5",
    "pgzip/2:5",
    "pgzip/3:5",
    "zlib/1:6",
    "zlib/1:9",
    "zlib/1:1",
    "gnu-gzip/1:6",
    "pigz/1:6",
];
/// Bytes of a write, as a tar is read.
const WRITE_LEN: usize = 64 << 10;
/// Rounds go on for so long, so that one preempted round does not decide the figure.
const MEASURED_FOR: Duration = Duration::from_secs(20);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    // Tests of all targets run this too, without the flag that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let input = arguments.next().map_or_else(tar_like, |path| std::fs::read(path).unwrap());
    let ids: Vec<EncoderId> = MEASURED.iter().map(|id| id.parse().unwrap()).collect();
    let (mut rates, mut lens) = (vec![Vec::new(); ids.len() + 1], vec![0; ids.len() + 1]);
    let begun = Clock::now();
    while begun.elapsed() < MEASURED_FOR {
        for (index, (rates, len)) in rates.iter_mut().zip(&mut lens).enumerate() {
            let start = Clock::now();
            *len = ids.get(index).map_or_else(|| with_flate2(&input), |id| with(*id, &input));
            rates.push(input.len() as f64 / 1e6 / start.elapsed().as_secs_f64());
        }
    }
    println!(
        "gzip | {:.1} MB of tar | MB/s, median of {} | beside flate2 | size",
        input.len() as f64 / 1e6,
        rates[0].len()
    );
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    for (index, (rate, len)) in medians.iter().zip(&lens).enumerate() {
        let name = ids.get(index).map_or_else(|| "flate2:6".to_owned(), ToString::to_string);
        let ratio = rate / medians[ids.len()];
        println!("gzip | {name} | {rate:.1} | {ratio:.2} | {:.1} %", *len as f64 * 100.0 / input.len() as f64);
    }
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn with(id: EncoderId, input: &[u8]) -> usize {
    let (mut encoder, mut out, mut len) = (Encoder::new(id, &Header::default()), Vec::new(), 0);
    for part in input.chunks(WRITE_LEN) {
        encoder.write(part, &mut out);
        len += out.len();
        out.clear();
    }
    encoder.finish(&mut out);
    len + out.len()
}

fn with_flate2(input: &[u8]) -> usize {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut len = 0;
    for part in input.chunks(WRITE_LEN) {
        encoder.write_all(part).unwrap();
        len += encoder.get_ref().len();
        encoder.get_mut().clear();
    }
    len + encoder.finish().unwrap().len()
}

/// Words, bytes without any order, and zeros, in turn: about what programs and their documentation are.
fn tar_like() -> Vec<u8> {
    let (mut out, mut seed) = (Vec::with_capacity(INPUT_LEN + (1 << 17)), 1_u64);
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    while out.len() < INPUT_LEN {
        let until = out.len() + 1000 + (next() % 60_000) as usize;
        let kind = next() % 8;
        while out.len() < until {
            match kind {
                0 => out.extend_from_slice(&(next() as u32).to_le_bytes()),
                1 => out.push(0),
                // A word of a few hundred, common ones more often.
                _ => out.extend_from_slice(format!("{:x} ", (next() % 900).min(next() % 900) * 7919).as_bytes()),
            }
        }
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}
