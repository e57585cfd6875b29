//! Which encoder made a stream, found by trying.
//!
//! The one who reads the stream inflates it and hands on both: what was read and what came out. Each encoder compresses
//! that again, and is dropped at the first byte that differs; most are gone after the first block.
//!
//! Invariant: an encoder is named only if all of its bytes were compared and are the same. At most the encoders that
//! are still in agreement, [`PROBE_LEN`] of input and [`BEHIND_MAX`] of the stream are held.

use thiserror::Error;

use super::{Deflater, EncoderId};

/// So much input is gathered before the encoders begin, so that those that differ early are never there all at once,
/// in bytes. A few blocks.
const PROBE_LEN: usize = 256 << 10;
/// How far an encoder's stream may be ahead of what was read, in bytes. The right one has at most the end of a block
/// and a flush more than what was needed to inflate its input.
const AHEAD_MAX: usize = 4 << 10;
/// How far an encoder's stream may be behind what was read, in bytes. The right one is behind by its block (32767
/// matches of at most 48 bits, or 64 KiB) and by what it looks ahead.
const BEHIND_MAX: usize = 1 << 20;

/// No encoder makes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no encoder known here makes it: the nearest, {nearest}, differs after {same} bytes of the compressed data")]
pub struct NoEncoder {
    /// The one that agreed for the longest.
    pub nearest: EncoderId,
    /// How long, in bytes of the deflate stream.
    pub same: u64,
}

/// Compares a deflate stream with what the encoders make of its content.
#[derive(Debug)]
pub struct Identifier {
    /// Encoders that were not tried yet, with the input so far.
    untried: Option<(Vec<EncoderId>, Vec<u8>)>,
    candidates: Vec<Candidate>,
    /// What was read, from `read_from` on.
    read: Vec<u8>,
    read_from: u64,
    nearest: NoEncoder,
}

/// An encoder that agreed so far.
#[derive(Debug)]
struct Candidate {
    id: EncoderId,
    deflater: Deflater,
    /// Bytes of the stream that were compared.
    same: u64,
    /// What it made beyond them.
    ahead: Vec<u8>,
}

impl Identifier {
    /// Tries these encoders. If several make the stream, the one that comes first is named.
    pub fn new(ids: impl IntoIterator<Item = EncoderId>) -> Self {
        let ids: Vec<_> = ids.into_iter().collect();
        let nearest = NoEncoder { nearest: ids.first().copied().unwrap_or(EncoderId::FIRST), same: 0 };
        Self { untried: Some((ids, Vec::new())), candidates: Vec::new(), read: Vec::new(), read_from: 0, nearest }
    }

    /// Takes bytes of the stream, and what inflating them gave. In pieces of moderate size: both are copied.
    pub fn push(&mut self, read: &[u8], inflated: &[u8]) {
        if self.is_hopeless() {
            return;
        }
        self.read.extend_from_slice(read);
        match &mut self.untried {
            Some((_, input)) => {
                input.extend_from_slice(inflated);
                // What goes on without giving any input is not what an encoder makes, and is found so.
                if input.len() >= PROBE_LEN || self.read.len() > BEHIND_MAX {
                    self.begin();
                }
            }
            None => self.compare(|candidate| candidate.deflater.write(inflated, &mut candidate.ahead)),
        }
    }

    /// Whether no encoder is left.
    pub fn is_hopeless(&self) -> bool {
        self.untried.is_none() && self.candidates.is_empty()
    }

    /// Ends the stream and names its encoder.
    pub fn finish(mut self) -> Result<EncoderId, NoEncoder> {
        self.begin();
        let end = self.read_from + self.read.len() as u64;
        for candidate in std::mem::take(&mut self.candidates) {
            let Candidate { id, deflater, same, mut ahead } = candidate;
            deflater.finish(&mut ahead);
            let rest = &self.read[(same - self.read_from) as usize..];
            if ahead == rest {
                return Ok(id);
            }
            self.nearest.improve(id, same + super::symbols::common_prefix(&ahead, rest) as u64);
        }
        debug_assert!(self.nearest.same <= end, "no more can agree than there is");
        Err(self.nearest)
    }

    /// Begins with all encoders: each reads the input so far, and goes if it differs.
    fn begin(&mut self) {
        let Some((ids, input)) = self.untried.take() else { return };
        for id in ids {
            let mut candidate = Candidate { id, deflater: Deflater::new(id), same: 0, ahead: Vec::new() };
            // In parts, so that one that differs early makes no more than it must.
            let agrees = input.chunks(PROBE_LEN / 4).all(|part| {
                candidate.deflater.write(part, &mut candidate.ahead);
                candidate.agrees(&self.read, self.read_from, &mut self.nearest)
            });
            if agrees {
                self.candidates.push(candidate);
            }
        }
        self.forget();
    }

    fn compare(&mut self, mut step: impl FnMut(&mut Candidate)) {
        let Self { candidates, read, read_from, nearest, .. } = self;
        candidates.retain_mut(|candidate| {
            step(candidate);
            candidate.agrees(read, *read_from, nearest)
        });
        self.forget();
    }

    /// Forgets what all encoders have passed.
    fn forget(&mut self) {
        let end = self.read_from + self.read.len() as u64;
        let passed = self.candidates.iter().map(|candidate| candidate.same).min().unwrap_or(end);
        self.read.drain(..(passed - self.read_from) as usize);
        self.read_from = passed;
    }
}

impl Candidate {
    /// Compares what it has made with what was read.
    fn agrees(&mut self, read: &[u8], read_from: u64, nearest: &mut NoEncoder) -> bool {
        let rest = &read[(self.same - read_from) as usize..];
        let same = super::symbols::common_prefix(&self.ahead, rest);
        let (differs, ahead, behind) =
            (same < self.ahead.len().min(rest.len()), self.ahead.len() - same, rest.len() - same);
        self.same += same as u64;
        self.ahead.drain(..same);
        nearest.improve(self.id, self.same);
        !differs && ahead <= AHEAD_MAX && behind <= BEHIND_MAX
    }
}

impl NoEncoder {
    fn improve(&mut self, id: EncoderId, same: u64) {
        if same > self.same {
            *self = Self { nearest: id, same };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Header, TRAILER_LEN, encode, tests::inputs::input},
        *,
    };

    /// Length of a header without optional fields.
    const HEADER_LEN: usize = 10;

    /// What the encoder makes, without header and trailer.
    fn deflated(id: EncoderId, data: &[u8]) -> Vec<u8> {
        let stream = encode(id, &Header::default(), data);
        stream[HEADER_LEN..stream.len() - TRAILER_LEN].to_vec()
    }

    /// Reads `stream` in pieces of `step` bytes and inflates it on the way.
    fn identified(stream: &[u8], step: usize) -> Result<EncoderId, NoEncoder> {
        let (mut identifier, mut inflater) = (Identifier::new(EncoderId::all()), flate2::Decompress::new(false));
        let mut out = vec![0; 1 << 15];
        for mut part in stream.chunks(step) {
            loop {
                let before = (inflater.total_in(), inflater.total_out());
                inflater.decompress(part, &mut out, flate2::FlushDecompress::None).unwrap();
                let taken = (inflater.total_in() - before.0) as usize;
                let made = (inflater.total_out() - before.1) as usize;
                identifier.push(&part[..taken], &out[..made]);
                part = &part[taken..];
                if (taken, made) == (0, 0) {
                    break;
                }
            }
        }
        identifier.finish()
    }

    /// Each stream of `data` is known by its encoder, or by the first that makes the very same.
    fn all_are_found(data: &[u8]) {
        let streams: Vec<_> = EncoderId::all().map(|id| (id, deflated(id, data))).collect();
        for (index, (id, stream)) in streams.iter().enumerate() {
            let first = streams.iter().find(|(_, other)| other == stream).map(|(first, _)| *first);
            if index % 9 == 0 || first != Some(*id) {
                assert_eq!(identified(stream, 10_007).ok(), first, "{id} {}", data.len());
            }
        }
    }

    #[test]
    fn each_encoder_is_found_by_what_it_makes() {
        for data in [input("tar", 150_000), input("text", 3000), Vec::new()] {
            all_are_found(&data);
        }
    }

    #[test]
    fn among_many_that_agree_for_long_the_right_one_is_found() {
        // Zeros look the same to most encoders, and then comes something else.
        all_are_found(&[input("zeros", 300_000), input("tar", 60_000)].concat());
    }

    #[test]
    fn what_nobody_makes_has_no_encoder() {
        let (data, id) = (input("tar", 700_000), EncoderId::all().next().unwrap());
        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut writer, &data).unwrap();
        let foreign = writer.finish().unwrap();
        let error = identified(&foreign, 10_007).unwrap_err();
        assert!(error.same < 200, "{error}");
        // All is the same up to the end.
        let mut stream = deflated(id, &data);
        stream.pop();
        assert_eq!(identified(&stream, 10_007), Err(NoEncoder { nearest: id, same: stream.len() as u64 }));
    }

    #[test]
    fn little_is_held_of_a_long_stream() {
        let data = input("tar", 3 << 20);
        let id = EncoderId::all().next().unwrap();
        let mut deflater = Deflater::new(id);
        let (mut identifier, mut made) = (Identifier::new([id]), Vec::new());
        for part in data.chunks(10_000) {
            deflater.write(part, &mut made);
            identifier.push(&made, part);
            made.clear();
            assert!(identifier.read.len() <= BEHIND_MAX && !identifier.is_hopeless());
        }
        deflater.finish(&mut made);
        identifier.push(&made, b"");
        assert_eq!(identifier.finish(), Ok(id));
    }

    #[test]
    fn bytes_that_nobody_inflated_are_held_up_to_a_limit() {
        for inflated in [0, PROBE_LEN] {
            let mut identifier = Identifier::new(EncoderId::all());
            identifier.push(b"", &input("zeros", inflated));
            for _ in 0..BEHIND_MAX / 1000 + 2 {
                identifier.push(&[0; 1000], b"");
            }
            assert!(identifier.is_hopeless() && identifier.read.is_empty());
        }
    }
}
