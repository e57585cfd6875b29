//! The inputs of the golden digests, as `scripts/golden-gzip/inputs.go` makes them: a change here is a change there.

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> usize {
        (self.next() % n) as usize
    }
}

pub(crate) const KINDS: [&str; 6] = ["zeros", "noise", "text", "again", "bands", "tar"];

pub(crate) fn input(kind: &str, len: usize) -> Vec<u8> {
    let (mut random, mut out) = (Random(len as u64), Vec::with_capacity(len + 2048));
    match kind {
        "zeros" => out.resize(len, 0),
        "noise" => noise(&mut out, &mut random, len, 256),
        "text" => text(&mut out, &mut random, len),
        "again" => {
            // The same kilobyte with a byte changed now and then.
            let mut block = Vec::new();
            noise(&mut block, &mut random, 1000, 256);
            while out.len() < len {
                let place = random.below(1000);
                block[place] = random.next() as u8;
                out.extend_from_slice(&block);
            }
        }
        "bands" => {
            // Runs of bytes of few values each, as many kinds of data in a row.
            while out.len() < len {
                let values = 1 << random.below(9);
                let until = out.len() + 1 + random.below(3000);
                noise(&mut out, &mut random, until, values);
            }
        }
        "tar" => {
            while out.len() < len {
                file(&mut out, &mut random);
            }
        }
        _ => panic!("no such kind: {kind}"),
    }
    out.truncate(len);
    out
}

/// Appends bytes of so many values until there are `until`.
fn noise(out: &mut Vec<u8>, random: &mut Random, until: usize, values: usize) {
    while out.len() < until {
        out.extend(random.next().to_le_bytes().map(|byte| (usize::from(byte) % values) as u8));
    }
    out.truncate(until);
}

/// Appends words, common ones more often, until there are `until` bytes.
fn text(out: &mut Vec<u8>, random: &mut Random, until: usize) {
    let words: Vec<Vec<u8>> = (0..400)
        .map(|_| {
            let len = 2 + random.below(9);
            (0..len).map(|_| b'a' + random.below(26).min(random.below(26)) as u8).collect()
        })
        .collect();
    while out.len() < until {
        let word = random.below(400).min(random.below(400)).min(random.below(400));
        out.extend_from_slice(&words[word]);
        out.push(if random.below(12) == 0 { b'\n' } else { b' ' });
    }
    out.truncate(until);
}

/// Appends a header, contents and padding to whole blocks of 512 bytes.
fn file(out: &mut Vec<u8>, random: &mut Random) {
    let begun = out.len();
    out.extend_from_slice(b"usr/share/doc/package/");
    let until = out.len() + 6;
    noise(out, random, until, 20);
    out.resize(begun + 124, 0);
    let size = random.below(9000);
    out.extend((0..=30).rev().step_by(3).map(|shift| b'0' + (size >> shift & 7) as u8));
    out.resize(begun + 257, 0);
    out.extend_from_slice(b"ustar\x0000root");
    out.resize(begun + 512, 0);
    let until = out.len() + size;
    match random.below(3) {
        0 => text(out, random, until),
        1 => noise(out, random, until, 256),
        _ => noise(out, random, until, 12),
    }
    out.resize(out.len().next_multiple_of(512), 0);
}
