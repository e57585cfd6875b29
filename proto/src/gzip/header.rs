//! The header of a gzip stream (RFC 1952, 2.3): read into its fields, and written again from them.
//!
//! Invariant: [`Header::read`] gives a header only if [`Header::put`] writes the same bytes.

use thiserror::Error;

/// What a gzip stream begins with, and the only method there is.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// Bytes of a header without optional fields.
const FIXED_LEN: usize = 10;
/// The most bytes of a name or a comment. File names have at most 255; nobody's comment is longer than that.
const TEXT_MAX: usize = 4096;
/// The most bytes of a header: its parts, and extra data of the most that the format has.
pub const HEADER_MAX: usize = FIXED_LEN + 2 + u16::MAX as usize + 2 * (TEXT_MAX + 1) + 2;

const TEXT: u8 = 1;
const CHECKED: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const KNOWN: u8 = TEXT | CHECKED | EXTRA | NAME | COMMENT;

/// The fields of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970, or zero.
    pub mtime: u32,
    /// What the compressor says of its effort: 2 the most, 4 the least, zero nothing.
    pub xfl: u8,
    /// Where it was compressed: 3 Unix, 255 not said.
    pub os: u8,
    /// Extra data.
    pub extra: Option<Vec<u8>>,
    /// The file's name.
    pub name: Option<Vec<u8>>,
    /// A comment.
    pub comment: Option<Vec<u8>>,
    /// Said to be text.
    pub text: bool,
    /// With a checksum of its own.
    pub checked: bool,
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Something else than gzip.
    #[error("it does not begin as gzip does")]
    NotGzip,
    /// Flags that RFC 1952 reserves.
    #[error("its gzip header has flags that are reserved")]
    Reserved,
    /// A name or a comment that does not end.
    #[error("its gzip header has a name or a comment of more than {TEXT_MAX} bytes")]
    Long,
    /// The header's own checksum is another.
    #[error("its gzip header is damaged: its checksum is another")]
    Checksum,
}

impl Header {
    /// The header that `bytes` begin with, and its length; `None` if more bytes are needed to tell.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeaderError> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(HeaderError::NotGzip);
        }
        let Some((fixed, mut rest)) = bytes.split_first_chunk::<FIXED_LEN>() else { return Ok(None) };
        let [_, _, _, flags, m0, m1, m2, m3, xfl, os] = *fixed;
        if flags & !KNOWN != 0 {
            return Err(HeaderError::Reserved);
        }
        let mut header = Self { mtime: u32::from_le_bytes([m0, m1, m2, m3]), xfl, os, ..Self::default() };
        header.text = flags & TEXT != 0;
        header.checked = flags & CHECKED != 0;
        if flags & EXTRA != 0 {
            let Some((len, after)) = rest.split_first_chunk() else { return Ok(None) };
            let Some((extra, after)) = after.split_at_checked(u16::from_le_bytes(*len).into()) else {
                return Ok(None);
            };
            (header.extra, rest) = (Some(extra.to_vec()), after);
        }
        for (flag, field) in [(NAME, &mut header.name), (COMMENT, &mut header.comment)] {
            if flags & flag != 0 {
                let Some(text) = text(rest)? else { return Ok(None) };
                (*field, rest) = (Some(text.to_vec()), &rest[text.len() + 1..]);
            }
        }
        if header.checked {
            let Some((said, after)) = rest.split_first_chunk() else { return Ok(None) };
            if u16::from_le_bytes(*said) != checksum(&bytes[..bytes.len() - rest.len()]) {
                return Err(HeaderError::Checksum);
            }
            rest = after;
        }
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// Writes the header to the end of `out`.
    pub fn put(&self, out: &mut Vec<u8>) {
        let begun = out.len();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.text, TEXT)
            | flag(self.checked, CHECKED)
            | flag(self.extra.is_some(), EXTRA)
            | flag(self.name.is_some(), NAME)
            | flag(self.comment.is_some(), COMMENT);
        out.extend_from_slice(&MAGIC);
        out.push(flags);
        out.extend_from_slice(&self.mtime.to_le_bytes());
        out.extend_from_slice(&[self.xfl, self.os]);
        if let Some(extra) = &self.extra {
            let len = extra.len().min(u16::MAX.into());
            out.extend_from_slice(&(len as u16).to_le_bytes());
            out.extend_from_slice(&extra[..len]);
        }
        for text in [&self.name, &self.comment].into_iter().flatten() {
            out.extend_from_slice(text);
            out.push(0);
        }
        if self.checked {
            let checksum = checksum(&out[begun..]);
            out.extend_from_slice(&checksum.to_le_bytes());
        }
    }
}

fn checksum(header: &[u8]) -> u16 {
    crc32fast::hash(header) as u16
}

/// The text that `bytes` begin with, without the zero that ends it; `None` if that is not there yet.
fn text(bytes: &[u8]) -> Result<Option<&[u8]>, HeaderError> {
    match bytes.iter().take(TEXT_MAX + 1).position(|byte| *byte == 0) {
        Some(end) => Ok(Some(&bytes[..end])),
        None if bytes.len() > TEXT_MAX => Err(HeaderError::Long),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Header {
        Header {
            mtime: 0x1234_5678,
            xfl: 2,
            os: 3,
            extra: Some(vec![1, 0, 3]),
            name: Some(b"layer.tar".to_vec()),
            comment: Some(Vec::new()),
            text: true,
            checked: true,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for header in [Header::default(), full()] {
            let mut bytes = Vec::new();
            header.put(&mut bytes);
            let len = bytes.len();
            bytes.extend_from_slice(b"and so on");
            assert_eq!(Header::read(&bytes), Ok(Some((header, len))));
            for cut in 0..len {
                assert_eq!(Header::read(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        assert_eq!(Header::read(b"BZh9"), Err(HeaderError::NotGzip));
        assert_eq!(Header::read(&[0x28, 0xb5, 0x2f, 0xfd]), Err(HeaderError::NotGzip));
        let mut bytes = Vec::new();
        full().put(&mut bytes);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Checksum));
        bytes[3] |= 0x80;
        assert_eq!(Header::read(&bytes), Err(HeaderError::Reserved));
        let mut long = vec![0x1f, 0x8b, 8, NAME, 0, 0, 0, 0, 0, 255];
        long.resize(FIXED_LEN + TEXT_MAX, b'a');
        assert_eq!(Header::read(&long), Ok(None));
        long.push(b'a');
        assert_eq!(Header::read(&long), Err(HeaderError::Long));
    }
}
