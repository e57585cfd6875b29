//! Looks over CBOR (RFC 8949) before anything is built from it.
//!
//! Invariant: bytes that pass are exactly one well-formed data item, no longer, deeper or wider than allowed, made
//! of the few kinds of item that messages use. The scanner allocates nothing and does not recurse, so that the
//! decoder behind it meets neither a length that is larger than what is there nor nesting that could use up a
//! stack. What the items mean, and whether text is UTF-8, is the decoder's business.

use thiserror::Error;

/// Deepest nesting of maps and arrays. The deepest message is a binding in a page: response, page, changes,
/// change, entry, binding, tag reference, repository.
pub(super) const DEPTH_MAX: usize = 8;

/// Why bytes are not looked at further. `at` is the offset of the item's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanError {
    /// More bytes than any message of the kind has.
    #[error("{found} bytes, the limit is {max}")]
    TooLong {
        /// Bytes given.
        found: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// The input ends within an item, or an item claims more than is left.
    #[error("the item at byte {at} needs more bytes than there are")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// A kind of item that no message uses.
    #[error("the item at byte {at} is of a kind that messages do not use: {kind}")]
    Unused {
        /// Where.
        at: usize,
        /// What it is.
        kind: &'static str,
    },
    /// Maps and arrays nested deeper than any message nests them.
    #[error("the item at byte {at} is nested deeper than {DEPTH_MAX} levels")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// A map or an array with more entries than any message of the kind has.
    #[error("the item at byte {at} claims {found} entries, the limit is {max}")]
    TooWide {
        /// Where.
        at: usize,
        /// Entries claimed.
        found: u64,
        /// Most entries allowed.
        max: usize,
    },
    /// Bytes after the end of the item.
    #[error("bytes follow after the end of the message at byte {at}")]
    Trailing {
        /// Offset of the first byte too many.
        at: usize,
    },
}

/// What one kind of message may take up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most bytes in all.
    pub(super) bytes_max: usize,
    /// Most entries of one array or map.
    pub(super) entries_max: usize,
}

/// Checks that `bytes` are one item within `bounds`.
pub(super) fn scan(bytes: &[u8], bounds: Bounds) -> Result<(), ScanError> {
    if bytes.len() > bounds.bytes_max {
        return Err(ScanError::TooLong { found: bytes.len(), max: bounds.bytes_max });
    }
    let mut cursor = Cursor { bytes, at: 0 };
    let mut open = Open::default();
    loop {
        let at = cursor.at;
        let items = cursor.item(bounds.entries_max)?;
        if let Some(items) = items {
            open.push(items).ok_or(ScanError::TooDeep { at })?;
        }
        if !open.item_done(items.is_some()) {
            break;
        }
    }
    if cursor.at == bytes.len() { Ok(()) } else { Err(ScanError::Trailing { at: cursor.at }) }
}

/// Items still to come in each of the maps and arrays that are open, outermost first.
#[derive(Default)]
struct Open {
    left: [usize; DEPTH_MAX],
    depth: usize,
}

impl Open {
    fn push(&mut self, items: usize) -> Option<()> {
        *self.left.get_mut(self.depth)? = items;
        self.depth += 1;
        Some(())
    }

    /// Closes what is complete after an item's head was read; false once nothing is open any more.
    fn item_done(&mut self, opened: bool) -> bool {
        // The item just opened is counted in its parent only when it closes.
        let mut closed = !opened;
        while let Some(left) = self.depth.checked_sub(1).and_then(|top| self.left.get_mut(top)) {
            *left -= usize::from(closed);
            if *left > 0 {
                return true;
            }
            self.depth -= 1;
            closed = true;
        }
        false
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads an item's head and skips a string's body. Returns the number of items in a map or an array.
    fn item(&mut self, entries_max: usize) -> Result<Option<usize>, ScanError> {
        let at = self.at;
        let head = self.bytes.get(at).copied().ok_or(ScanError::Truncated { at })?;
        self.at += 1;
        let unused = |kind| ScanError::Unused { at, kind };
        let argument = match head & 0x1f {
            0x1c..=0x1e => return Err(unused("reserved")),
            0x1f => return Err(unused("indefinite length")),
            short => self.argument(at, short)?,
        };
        match head >> 5 {
            0 => Ok(None),
            1 => Err(unused("negative integer")),
            2 | 3 => {
                let len = usize::try_from(argument).ok().filter(|&len| len <= self.left());
                self.at += len.ok_or(ScanError::Truncated { at })?;
                Ok(None)
            }
            major @ (4 | 5) => {
                let per_entry = if major == 5 { 2 } else { 1 };
                let entries = usize::try_from(argument).ok().filter(|&entries| entries <= entries_max);
                let entries = entries.ok_or(ScanError::TooWide { at, found: argument, max: entries_max })?;
                // Every item takes a byte at least.
                let items = entries.checked_mul(per_entry).filter(|&items| items <= self.left());
                items.map(Some).ok_or(ScanError::Truncated { at })
            }
            6 => Err(unused("tag")),
            // False, true and null.
            _ if matches!(head, 0xf4..=0xf6) => Ok(None),
            _ => Err(unused("float or simple value")),
        }
    }

    /// The number that a head carries: in the head itself or in the 1, 2, 4 or 8 bytes that follow it.
    fn argument(&mut self, at: usize, short: u8) -> Result<u64, ScanError> {
        let Some(power) = short.checked_sub(24) else { return Ok(u64::from(short)) };
        let len = 1_usize << power;
        let following = self.bytes.get(self.at..self.at + len).ok_or(ScanError::Truncated { at })?;
        self.at += len;
        Ok(following.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { bytes_max: 64, entries_max: 16 };

    #[test]
    fn one_item_of_each_kind_in_use_passes() {
        for item in [
            &[0x00][..],                                             // 0
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // u64::MAX
            &[0x40],                                                 // empty bytes
            &[0x58, 2, 0, 0],                                        // bytes with a length of its own
            &[0x62, b'a', b'b'],                                     // text
            &[0x80],                                                 // []
            &[0xa0],                                                 // {}
            &[0x83, 0x80, 0xa1, 0, 0x81, 1, 0xf4],                   // [[], {0: [1]}, false]
            &[0xf5],                                                 // true
            &[0xf6],                                                 // null
            &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x80],       // as deep as allowed
        ] {
            assert_eq!(scan(item, BOUNDS), Ok(()), "{item:02x?}");
        }
    }

    #[test]
    fn kinds_that_no_message_uses_are_refused() {
        for (head, name) in [
            (0x1c, "reserved"),
            (0x1f, "indefinite length"),
            (0x20, "negative integer"),
            (0x5f, "indefinite length"),
            (0x7f, "indefinite length"),
            (0x9f, "indefinite length"),
            (0xbf, "indefinite length"),
            (0xc0, "tag"),
            (0xe0, "float or simple value"),
            (0xf7, "float or simple value"),
            (0xf8, "float or simple value"),
            (0xf9, "float or simple value"),
            (0xfb, "float or simple value"),
            (0xff, "indefinite length"),
        ] {
            let bytes = [head, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(scan(&bytes, BOUNDS), Err(ScanError::Unused { at: 0, kind: name }), "{head:#x}");
        }
    }

    #[test]
    fn lengths_beyond_what_is_left_are_refused() {
        for bomb in [
            &[][..],
            &[0x18],
            &[0x1b, 0, 0, 0],
            &[0x41],
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x82, 0],
            &[0xa1, 0],
        ] {
            assert_eq!(scan(bomb, BOUNDS), Err(ScanError::Truncated { at: 0 }), "{bomb:02x?}");
        }
        let wide = |found| Err(ScanError::TooWide { at: 0, found, max: 16 });
        assert_eq!(scan(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], BOUNDS), wide(u64::MAX));
        assert_eq!(scan(&[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0], BOUNDS), wide(1 << 63));
        assert_eq!(scan(&[&[0x91][..], &[0; 17]].concat(), BOUNDS), wide(17));
        assert_eq!(scan(&[&[0x90][..], &[0; 16]].concat(), BOUNDS), Ok(()));
    }

    #[test]
    fn nesting_is_refused_at_the_first_level_too_many() {
        for opener in [&[0x81][..], &[0xa1, 0]] {
            let bomb = opener.repeat(30);
            let at = DEPTH_MAX * opener.len();
            assert_eq!(scan(&bomb, BOUNDS), Err(ScanError::TooDeep { at }), "{opener:02x?}");
        }
        assert_eq!(
            scan(&[&[0x81; DEPTH_MAX][..], &[0x80]].concat(), BOUNDS),
            Err(ScanError::TooDeep { at: DEPTH_MAX })
        );
    }

    #[test]
    fn only_one_item_and_no_more_bytes_than_allowed() {
        assert_eq!(scan(&[0, 0], BOUNDS), Err(ScanError::Trailing { at: 1 }));
        assert_eq!(scan(&[0x81, 0, 0], BOUNDS), Err(ScanError::Trailing { at: 2 }));
        let mut bytes = [0; 65];
        bytes[..2].copy_from_slice(&[0x58, 62]);
        assert_eq!(scan(&bytes[..64], BOUNDS), Ok(()));
        bytes[1] = 63;
        assert_eq!(scan(&bytes, BOUNDS), Err(ScanError::TooLong { found: 65, max: 64 }));
    }

    /// What the scanner lets through of the kinds in use, written the other way round: by a generator.
    fn item() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            (0_u8..24).prop_map(|number| vec![number]),
            any::<u16>().prop_map(|number| [&[0x19][..], &number.to_be_bytes()].concat()),
            prop::collection::vec(any::<u8>(), 0..24).prop_map(|body| [&[0x40 | body.len() as u8][..], &body].concat()),
            (0xf4_u8..=0xf6).prop_map(|simple| vec![simple]),
        ];
        leaf.prop_recursive(DEPTH_MAX as u32 - 1, 64, 8, |inner| {
            let entries = prop::collection::vec(inner, 0..8);
            (any::<bool>(), entries).prop_map(|(map, mut entries)| {
                let (major, width) = if map { (0xa0, 2) } else { (0x80, 1) };
                entries.truncate(entries.len() / width * width);
                [vec![major | (entries.len() / width) as u8], entries.concat()].concat()
            })
        })
    }

    proptest! {
        #[test]
        fn well_formed_items_pass_and_none_of_their_prefixes_does(item in item()) {
            let bounds = Bounds { bytes_max: item.len(), entries_max: 16 };
            prop_assert_eq!(scan(&item, bounds), Ok(()));
            for len in 0..item.len() {
                prop_assert!(matches!(scan(&item[..len], bounds), Err(ScanError::Truncated { .. })), "{}", len);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = scan(&bytes, BOUNDS);
        }
    }
}
