//! Where the files in a tar file are, without unpacking it (POSIX.1-2017 pax "ustar" and "pax", and GNU's long names).
//!
//! Invariants: names are relative and stay inside; memory is bounded by the limits below, not by what headers say; a file
//! is listed only if all of its bytes are there.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tar::{EntryType, Header, PaxExtensions};
use thiserror::Error;

use super::ArchiveError;

const BLOCK_LEN: u64 = 512;
/// Files and links in one archive: a thousand images of sixty blobs each.
const MEMBERS_MAX: usize = 65_536;
/// Longest name, and longest header of a name, in bytes.
const NAME_LEN_MAX: u64 = 4096;
/// Largest extended header, in bytes.
const EXTENDED_LEN_MAX: u64 = 64 << 10;
/// Links that lead to links; writers make one.
const LINKS_MAX: usize = 8;

/// Why a file is not an archive that can be read.
#[derive(Debug, Error)]
pub enum TarError {
    /// It is compressed.
    #[error("is compressed: decompress it first, with `{0}`")]
    Compressed(&'static str),
    /// It is no tar file at all.
    #[error("is not a tar file")]
    NotTar,
    /// A header makes no sense.
    #[error("is damaged: at byte {0} there is no header; copy or save it again")]
    Damaged(u64),
    /// It ends too early.
    #[error("is cut off: `{name}` ends {lacking} bytes after the file does; copy or save it again")]
    Truncated {
        /// The file in it.
        name: String,
        /// Bytes that are not there.
        lacking: u64,
    },
    /// A name leads out of the archive.
    #[error("is not to be trusted: the name `{0}` in it leads out of it")]
    Escapes(String),
    /// A sparse file.
    #[error("has the sparse file `{0}` in it, which is not supported: write it with another program")]
    Sparse(String),
    /// More members than any archive of images.
    #[error("has more than {MEMBERS_MAX} files in it")]
    TooMany,
    /// A longer name than any file has.
    #[error("has a header of {0} bytes for a name, more than any file system allows")]
    LongName(u64),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Where a file's bytes are in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File(Extent),
    /// The name of another member.
    Link(String),
}

/// A tar file.
#[derive(Debug)]
pub(super) struct Tarball {
    path: PathBuf,
    members: Members,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Members(BTreeMap<String, Member>);

impl Tarball {
    /// Looks through a tar file's headers. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let failed = |error: TarError| ArchiveError::Tar { path: path.to_owned(), error };
        let io_failed = |error| ArchiveError::Io { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(io_failed)?;
        let found = file.metadata().map_err(io_failed)?;
        if !found.is_file() {
            let error = io::Error::other("it is not a file: write oci: for a directory, or save it to a file first");
            return Err(io_failed(error));
        }
        let members = scan(&mut file, found.len()).map_err(failed)?;
        Ok(Self { path: path.to_owned(), members })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file is; links are followed.
    pub(super) fn find(&self, name: &str) -> Option<Extent> {
        self.members.find(name)
    }
}

impl Members {
    fn find(&self, name: &str) -> Option<Extent> {
        let mut name = name;
        for _ in 0..=LINKS_MAX {
            match self.0.get(name)? {
                Member::File(extent) => return Some(*extent),
                Member::Link(to) => name = to,
            }
        }
        None
    }
}

/// What extended headers say of the member that follows.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

fn scan<R: Read + Seek>(file: &mut R, len: u64) -> Result<Members, TarError> {
    let mut members = BTreeMap::new();
    let mut extended = Extended::default();
    let mut at = 0;
    while at < len {
        let mut block = [0; BLOCK_LEN as usize];
        file.seek(SeekFrom::Start(at))?;
        let wrong = |at: u64, block: &[u8]| if at == 0 { not_tar(block) } else { TarError::Damaged(at) };
        if len - at < BLOCK_LEN {
            let mut rest = Vec::new();
            file.take(BLOCK_LEN).read_to_end(&mut rest)?;
            return Err(wrong(at, &rest));
        }
        file.read_exact(&mut block)?;
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        let header = Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(wrong(at, &block));
        }
        let size = header.entry_size().map_err(|_| TarError::Damaged(at))?;
        let size = extended.size.unwrap_or(size);
        let name = extended.name.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let body = at + BLOCK_LEN;
        let end = body.checked_add(size).and_then(|end| Some((end, end.checked_next_multiple_of(BLOCK_LEN)?)));
        let Some((end, next)) = end else { return Err(TarError::Damaged(at)) };
        if end > len {
            return Err(TarError::Truncated { name: shown(&name), lacking: end - len });
        }
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName => extended.name = Some(long(file, size)?),
            EntryType::GNULongLink => extended.link = Some(long(file, size)?),
            EntryType::XHeader => extend(&mut extended, &body_of(file, size, EXTENDED_LEN_MAX)?, at)?,
            EntryType::XGlobalHeader => {}
            EntryType::GNUSparse => return Err(TarError::Sparse(shown(&name))),
            _ => {
                let link = extended.link.take().or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
                let extent = Extent { offset: body, size };
                if let Some((name, member)) = member(kind, &name, link.as_deref(), extent)? {
                    members.insert(name, member);
                }
                if members.len() > MEMBERS_MAX {
                    return Err(TarError::TooMany);
                }
                extended = Extended::default();
            }
        }
        at = next;
    }
    if len == 0 {
        return Err(TarError::NotTar);
    }
    Ok(Members(members))
}

/// The sum of a header's bytes, with its own field as spaces.
fn checksum(block: &[u8]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// Says what a file is that begins with these bytes and is not a tar file.
fn not_tar(block: &[u8]) -> TarError {
    let magics: [(&[u8], &'static str); 4] = [
        (b"\x1f\x8b", "gunzip FILE.gz"),
        (b"\x28\xb5\x2f\xfd", "unzstd FILE.zst"),
        (b"\xfd7zXZ\x00", "unxz FILE.xz"),
        (b"BZh", "bunzip2 FILE.bz2"),
    ];
    let found = magics.iter().find(|(magic, _)| block.starts_with(magic));
    found.map_or(TarError::NotTar, |(_, how)| TarError::Compressed(how))
}

fn body_of<R: Read>(file: &mut R, size: u64, max: u64) -> Result<Vec<u8>, TarError> {
    if size > max {
        return Err(TarError::LongName(size));
    }
    let mut body = vec![0; size as usize];
    file.read_exact(&mut body)?;
    Ok(body)
}

/// A name that has a member of its own, which ends with a NUL.
fn long<R: Read>(file: &mut R, size: u64) -> Result<Vec<u8>, TarError> {
    let mut name = body_of(file, size, NAME_LEN_MAX)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn extend(extended: &mut Extended, body: &[u8], at: u64) -> Result<(), TarError> {
    for record in PaxExtensions::new(body) {
        let record = record.map_err(|_| TarError::Damaged(at))?;
        let value = record.value_bytes();
        match record.key_bytes() {
            b"path" => extended.name = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => {
                let size = record.value().ok().and_then(|value| value.parse().ok());
                extended.size = Some(size.ok_or(TarError::Damaged(at))?);
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::Sparse(extended.name.as_deref().map_or_else(String::new, shown)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A file or link by its name; `None` for what is neither, or could not be asked for.
fn member(
    kind: EntryType,
    name: &[u8],
    link: Option<&[u8]>,
    extent: Extent,
) -> Result<Option<(String, Member)>, TarError> {
    let Ok(text) = std::str::from_utf8(name) else { return Ok(None) };
    if text.len() as u64 > NAME_LEN_MAX {
        return Err(TarError::LongName(text.len() as u64));
    }
    let name = within("", text)?;
    if name.is_empty() {
        return Ok(None);
    }
    let link = link.and_then(|link| std::str::from_utf8(link).ok());
    let member = match (kind, link) {
        (EntryType::Regular | EntryType::Continuous, _) => Member::File(extent),
        (EntryType::Symlink, Some(link)) => {
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            Member::Link(within(parent, link)?)
        }
        (EntryType::Link, Some(link)) => Member::Link(within("", link)?),
        _ => return Ok(None),
    };
    Ok(Some((name, member)))
}

/// A path below a directory of the archive, without its detours.
fn within(parent: &str, path: &str) -> Result<String, TarError> {
    let escapes = || TarError::Escapes(shown(path.as_bytes()));
    if path.starts_with('/') {
        return Err(escapes());
    }
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop().ok_or_else(escapes)?),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// A name as errors quote it: short, and with nothing in it that could steer a terminal.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn add(tar: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, link: Option<&str>, body: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        // Not by set_path, which refuses what is tested here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }

    fn scanned(bytes: &[u8]) -> Result<Members, TarError> {
        scan(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn files_are_found_also_by_links_and_long_names() {
        let long_name = format!("blobs/{}", "n".repeat(200));
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, EntryType::Directory, "./", None, b"");
        add(&mut tar, EntryType::Regular, "./a/layer.tar", None, &[1; 700]);
        add(&mut tar, EntryType::Symlink, "b/layer.tar", Some("../a/layer.tar"), b"");
        add(&mut tar, EntryType::Link, "c", Some("b/layer.tar"), b"");
        add(&mut tar, EntryType::Symlink, "round", Some("round"), b"");
        let mut header = Header::new_gnu();
        header.set_size(4);
        tar.append_data(&mut header, &long_name, &b"long"[..]).unwrap();
        tar.append_pax_extensions([("path", &b"by pax"[..]), ("size", b"3")]).unwrap();
        add(&mut tar, EntryType::Regular, "other", None, b"pax");
        let bytes = tar.into_inner().unwrap();
        let members = scanned(&bytes).unwrap();
        let read = |name: &str| {
            let extent = members.find(name)?;
            Some(bytes[extent.offset as usize..(extent.offset + extent.size) as usize].to_vec())
        };
        for name in ["a/layer.tar", "b/layer.tar", "c"] {
            assert_eq!(read(name), Some(vec![1; 700]), "{name}");
        }
        assert_eq!(read(&long_name).as_deref(), Some(&b"long"[..]));
        assert_eq!(read("by pax").as_deref(), Some(&b"pax"[..]));
        assert_eq!((read("round"), read("absent"), read("other")), (None, None, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let with = |kind, name, link| {
            let mut tar = tar::Builder::new(Vec::new());
            add(&mut tar, kind, name, link, b"");
            scanned(&tar.into_inner().unwrap())
        };
        for (name, link) in [("../x", None), ("/etc/passwd", None), ("a/../../x", None), ("a", Some("../x"))] {
            let kind = if link.is_some() { EntryType::Symlink } else { EntryType::Regular };
            assert!(matches!(with(kind, name, link), Err(TarError::Escapes(_))), "{name}");
        }
        assert!(matches!(with(EntryType::GNUSparse, "a", None), Err(TarError::Sparse(_))));
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, EntryType::Regular, "first", None, b"1");
        add(&mut tar, EntryType::Regular, "second", None, &[2; 3000]);
        let mut bytes = tar.into_inner().unwrap();
        let cut = scanned(&bytes[..3000]).unwrap_err();
        assert!(matches!(&cut, TarError::Truncated { name, lacking: 1536 } if name == "second"), "{cut}");
        bytes[1024 + 5] ^= 1;
        assert!(matches!(scanned(&bytes), Err(TarError::Damaged(1024))));
        assert!(matches!(scanned(b"\x1f\x8b\x08"), Err(TarError::Compressed("gunzip FILE.gz"))));
        assert!(matches!(scanned(&[b'x'; 2000]), Err(TarError::NotTar)));
        assert!(matches!(scanned(b""), Err(TarError::NotTar)));
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, EntryType::GNULongName, "././@LongLink", None, &[b'n'; 5000]);
        assert!(matches!(scanned(&tar.into_inner().unwrap()), Err(TarError::LongName(5000))));
    }

    proptest! {
        /// Whatever the bytes are, scanning ends, and what is listed is inside the file and has a tame name.
        #[test]
        fn anything_can_be_scanned(
            names in prop::collection::vec("[a./]{1,8}", 0..6),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut tar = tar::Builder::new(Vec::new());
            for (n, name) in names.iter().enumerate() {
                let kind = [EntryType::Regular, EntryType::Symlink, EntryType::XHeader, EntryType::GNULongName][n % 4];
                add(&mut tar, kind, name, Some("a"), format!("13 path=../a{n}\n").as_bytes());
            }
            let mut bytes = tar.into_inner().unwrap();
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(members) = scanned(&bytes) {
                for (name, member) in &members.0 {
                    prop_assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{}", name);
                    if let Member::File(extent) = member {
                        prop_assert!(extent.offset + extent.size <= bytes.len() as u64);
                    }
                }
            }
        }
    }
}
