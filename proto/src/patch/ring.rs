//! The last bytes of a stream.

/// Holds the last 2^n bytes of what was pushed; older ones are gone.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    end: u64,
}

impl Ring {
    pub(super) fn new(log: u8) -> Self {
        Self { bytes: vec![0; 1 << log], end: 0 }
    }

    /// Bytes that were pushed.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    pub(super) const fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    const fn index(&self, at: u64) -> usize {
        at as usize & (self.bytes.len() - 1)
    }

    /// The byte at this place of the stream, which is still held.
    #[inline]
    pub(super) fn at(&self, at: u64) -> u8 {
        debug_assert!(at < self.end && self.end - at <= self.capacity());
        self.bytes[self.index(at)]
    }

    /// Appends bytes of the stream that are still held to `out`.
    pub(super) fn copy(&self, from: u64, len: usize, out: &mut Vec<u8>) {
        debug_assert!(from + len as u64 <= self.end && self.end - from <= self.capacity());
        let begin = self.index(from);
        let first = len.min(self.bytes.len() - begin);
        out.extend_from_slice(&self.bytes[begin..begin + first]);
        out.extend_from_slice(&self.bytes[..len - first]);
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let begin = self.index(self.end);
            let len = bytes.len().min(self.bytes.len() - begin);
            let (part, rest) = bytes.split_at(len);
            self.bytes[begin..begin + len].copy_from_slice(part);
            (self.end, bytes) = (self.end + len as u64, rest);
        }
    }
}
