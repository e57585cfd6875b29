//! Patches from making to applying, and what is refused.

use std::io::{self, Read};

use layermesh_proto::{
    Algorithm, ContentId, gzip,
    patch::{DecodeError, Header, HeaderError, Sizes},
};

use super::{
    apply::{ApplyError, Difference, Limits, apply, apply_chain, read_header},
    make::{MakeError, Options, make},
};

/// A tar of these files, by their names and contents.
fn tar(files: &[(&str, Vec<u8>)], mtime: u64) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(mtime);
        header.set_cksum();
        builder.append_data(&mut header, name, &content[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn layer(tar: &[u8]) -> Vec<u8> {
    gzip::encode("go-gzip/1:6".parse().unwrap(), &gzip::Header { os: 255, ..gzip::Header::default() }, tar)
}

/// Something like a program: words of four bytes, some of which lead elsewhere and move with `moved`.
fn program(len: u32, seed: u32, moved: u32) -> Vec<u8> {
    let word = |n: u32| {
        let word = n.wrapping_mul(2_654_435_761).wrapping_add(seed);
        if n.is_multiple_of(9) { (word >> 12) + moved } else { word ^ word >> 7 }
    };
    (0..len).flat_map(|n| word(n).to_le_bytes()).collect()
}

/// Three versions of a layer, as tars.
fn versions() -> [Vec<u8>; 3] {
    let text = |n: u32| (0..4000 + n).map(|line| format!("line {line} of {n}\n")).collect::<String>().into_bytes();
    let fixed = program(100_000, 7, 0);
    [
        tar(&[("bin/a", program(60_000, 1, 0)), ("etc/text", text(1)), ("lib/fixed", fixed.clone())], 1000),
        tar(&[("bin/a", program(60_100, 1, 64)), ("etc/text", text(2)), ("lib/fixed", fixed.clone())], 2000),
        tar(&[("bin/a", program(60_100, 1, 80)), ("lib/fixed-2", fixed), ("lib/new", text(3))], 2000),
    ]
}

fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    make(old, new, &Options::default(), |_, _| ()).unwrap().patch
}

fn applied(old: &[u8], patch: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let mut out = Vec::new();
    apply(old, patch, &mut out, &Limits::DEFAULT).map(|_| out)
}

/// The patch with another header, whose checksum is right.
fn with_header(patch: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let (mut header, used) = Header::read(patch).unwrap().unwrap();
    change(&mut header);
    let mut out = Vec::new();
    header.put(&mut out);
    out.extend_from_slice(&patch[used..]);
    out
}

#[test]
fn a_layer_is_made_again_from_an_older_one() {
    let [old, new, _] = versions();
    let (old_blob, new_blob) = (layer(&old), layer(&new));
    let made = make(&old_blob[..], &new_blob[..], &Options { sizes: Sizes::TINY }, |_, _| ()).unwrap();
    assert_eq!(made.header.blob, ContentId::of(Algorithm::Sha256, &new_blob));
    assert_eq!(made.header.base, ContentId::of(Algorithm::Sha256, &old));
    assert_eq!(made.aligned + made.matched + made.literal, new.len() as u64);
    assert!(made.patch.len() * 10 < new_blob.len(), "{} of {}", made.patch.len(), new_blob.len());
    assert_eq!(read_header(&made.patch[..]).unwrap(), made.header);
    // The old layer may be compressed in any way, or not at all.
    assert!(applied(&old_blob, &made.patch).unwrap() == new_blob);
    assert!(applied(&old, &made.patch).unwrap() == new_blob);
    let mut out = Vec::new();
    assert_eq!(apply(&old[..], &made.patch[..], &mut out, &Limits::TINY).unwrap(), made.header);
    assert!(out == new_blob);
}

#[test]
fn patches_follow_one_another() {
    let [first, second, third] = versions();
    let blobs = [&first, &second, &third].map(|tar| layer(tar));
    let (to_second, to_third) = (patch(&blobs[0], &blobs[1]), patch(&blobs[1], &blobs[2]));
    let both = Limits { memory: 64 << 20, ..Limits::DEFAULT };
    let mut out = Vec::new();
    let header = apply_chain(&blobs[0][..], [&to_second[..], &to_third[..]], &mut out, &both).unwrap();
    assert_eq!(header.blob, ContentId::of(Algorithm::Sha256, &blobs[2]));
    assert!(out == blobs[2]);
    let wrong = apply_chain(&blobs[0][..], [&to_third[..], &to_second[..]], io::sink(), &both);
    assert!(matches!(wrong, Err(ApplyError::Chain { .. })), "{wrong:?}");
    let wrong = apply_chain(&blobs[0][..], [&to_second[..], &to_third[..]], io::sink(), &Limits::DEFAULT);
    assert!(matches!(wrong, Err(ApplyError::Memory { .. })), "two windows are more than one: {wrong:?}");
    // What goes wrong in the first one is said as if it were alone.
    let wrong = apply_chain(&blobs[2][..], [&to_second[..], &to_third[..]], io::sink(), &both);
    assert!(matches!(wrong, Err(ApplyError::WrongBase { difference: Difference::Head, .. })), "{wrong:?}");
}

#[test]
fn another_old_layer_is_refused() {
    let [old, new, other] = versions();
    let patch = patch(&old, &layer(&new));
    let wrong = applied(&other, &patch);
    assert!(matches!(wrong, Err(ApplyError::WrongBase { difference: Difference::Head, .. })), "{wrong:?}");
    let wrong = applied(&old[..old.len() / 2], &patch);
    let Err(ApplyError::WrongBase { difference: Difference::Short(len), .. }) = wrong else { panic!("{wrong:?}") };
    assert_eq!(len, old.len() as u64 / 2);
    // Different only where the patch has gone on for a while.
    let mut late = old.clone();
    late[300_000] ^= 1;
    let wrong = applied(&late, &patch);
    let Err(ApplyError::WrongBase { difference: Difference::Digest(found), .. }) = wrong else { panic!("{wrong:?}") };
    assert_eq!(found, ContentId::of(Algorithm::Sha256, &late));
    let wrong = applied(b"\x28\xb5\x2f\xfd and so on", &patch);
    assert!(matches!(wrong, Err(ApplyError::Zstd)), "{wrong:?}");
    let blob = layer(&old);
    let wrong = applied(&blob[..blob.len() / 2], &patch);
    assert!(matches!(wrong, Err(ApplyError::Base(_))), "{wrong:?}");
}

#[test]
fn a_damaged_patch_is_refused_wherever_the_damage_is() {
    let [old, new, _] = versions();
    let patch = patch(&old, &layer(&new));
    for cut in [0, 7, 100, patch.len() / 2, patch.len() - 1] {
        let wrong = applied(&old, &patch[..cut]);
        assert!(matches!(wrong, Err(ApplyError::Damaged(DecodeError::Short))), "cut at {cut}: {wrong:?}");
    }
    let begin = Header::read(&patch).unwrap().unwrap().1;
    for at in (begin..patch.len()).step_by(97) {
        let mut damaged = patch.clone();
        damaged[at] ^= 0x10;
        let wrong = applied(&old, &damaged);
        assert!(matches!(wrong, Err(ApplyError::Damaged(_) | ApplyError::WrongTar { .. })), "at {at}: {wrong:?}");
    }
    let mut damaged = patch.clone();
    damaged[40] ^= 1;
    assert!(matches!(applied(&old, &damaged), Err(ApplyError::Header(HeaderError::Damaged))));
    let longer = [&patch[..], b"."].concat();
    assert!(matches!(applied(&old, &longer), Err(ApplyError::Damaged(DecodeError::Trailing))));
}

#[test]
fn a_hostile_header_gets_no_memory_and_no_work() {
    let [old, new, _] = versions();
    let patch = patch(&old, &layer(&new));
    let huge = with_header(&patch, |header| header.sizes.window_log = 30);
    let wrong = applied(&old, &huge);
    assert!(matches!(wrong, Err(ApplyError::Memory { needed, .. }) if needed > 1 << 30), "{wrong:?}");
    let endless = with_header(&patch, |header| header.tar_len = 1 << 40);
    assert!(matches!(applied(&old, &endless), Err(ApplyError::TarLen { .. })));
    // A tar of another length than what the segments make: one byte more is not there, one byte less is too early.
    for len in [new.len() as u64 + 1, new.len() as u64 - 1] {
        let wrong = applied(&old, &with_header(&patch, |header| header.tar_len = len));
        assert!(matches!(wrong, Err(ApplyError::Damaged(_))), "{wrong:?}");
    }
    let other = ContentId::of(Algorithm::Sha512, b"another");
    let wrong = applied(&old, &with_header(&patch, |header| header.tar = other));
    assert!(matches!(wrong, Err(ApplyError::WrongTar { .. })), "{wrong:?}");
    for len in [0, layer(&new).len() as u64 - 1, layer(&new).len() as u64 + 1] {
        let wrong = applied(&old, &with_header(&patch, |header| header.blob_len = len));
        assert!(matches!(wrong, Err(ApplyError::WrongBlob { .. })), "{wrong:?}");
    }
    // Zeros for as long as the tar may be, of a few bytes: a bomb makes no more than was allowed.
    let mut counted = Counted(0);
    let bomb = with_header(&patch, |header| (header.tar_len, header.blob_len) = (64 << 20, 1 << 30));
    // A layer of 16 KiB cannot have so long a tar.
    let layers = [Limits { tar_len: 16 << 20, ..Limits::DEFAULT }, Limits::DEFAULT.for_layer(16 << 10)];
    for limits in layers {
        assert!(matches!(apply(&old[..], &bomb[..], &mut counted, &limits), Err(ApplyError::TarLen { .. })));
        assert_eq!(counted.0, 0);
    }
    assert_eq!(Limits::DEFAULT.for_layer(u64::MAX), Limits::DEFAULT);
}

struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_read_or_written_is_said_as_such() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let [old, new, _] = versions();
    let patch = patch(&old, &layer(&new));
    let limits = Limits::DEFAULT;
    assert!(matches!(apply(Broken, &patch[..], io::sink(), &limits), Err(ApplyError::Base(_))));
    assert!(matches!(apply(&old[..], (&patch[..300]).chain(Broken), io::sink(), &limits), Err(ApplyError::Patch(_))));
    assert!(matches!(apply(&old[..], &patch[..], Broken, &limits), Err(ApplyError::Out(_))));
}

#[test]
fn layers_without_a_recipe_get_no_patch() {
    let [old, new, _] = versions();
    let made = make(&old[..], &new[..], &Options::default(), |_, _| ());
    assert!(matches!(made, Err(MakeError::NoRecipe(_))));
    let sizes = Sizes { window_log: 5, ..Sizes::DEFAULT };
    let made = make(&old[..], &layer(&new)[..], &Options { sizes }, |_, _| ());
    assert!(matches!(made, Err(MakeError::Sizes(_))));
}

#[test]
fn any_bytes_make_a_patch() {
    let layers: Vec<Vec<u8>> = vec![vec![], b"x".to_vec(), vec![0; 3000], program(9000, 3, 0), program(9001, 4, 5)];
    for old in &layers {
        for new in &layers {
            let blob = layer(new);
            assert!(applied(old, &patch(old, &blob)).unwrap() == blob, "{} to {}", old.len(), new.len());
        }
    }
}

#[test]
fn old_files_are_found_by_content_and_within_the_window_alone() {
    // Far more than the window of the smallest patches, and the last file comes first in the new layer.
    let files: Vec<(String, Vec<u8>)> = (0..8).map(|n| (format!("f{n}"), program(20_000, n * 99, 0))).collect();
    let named = |order: &[usize], prefix: &str| -> Vec<u8> {
        let names: Vec<String> = order.iter().map(|at| format!("{prefix}{}", files[*at].0)).collect();
        let files: Vec<_> = order.iter().zip(&names).map(|(at, name)| (&name[..], files[*at].1.clone())).collect();
        tar(&files, 5)
    };
    let old = named(&[0, 1, 2, 3, 4, 5, 6, 7], "");
    let small = Options { sizes: Sizes { window_log: 18, history_log: 16, model_log: 14 } };
    for order in [[7, 0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7, 0], [3, 2, 1, 0, 7, 6, 5, 4]] {
        let blob = layer(&named(&order, "moved/x-"));
        let made = make(&old[..], &blob[..], &small, |_, _| ()).unwrap();
        assert!(applied(&old, &made.patch).unwrap() == blob);
        let wide = make(&old[..], &blob[..], &Options::default(), |_, _| ()).unwrap();
        assert!(wide.patch.len() < 4000, "{order:?}: {}", wide.patch.len());
        assert!(applied(&old, &wide.patch).unwrap() == blob);
    }
}
