//! What must hold of archives, whatever is in them.

use std::{cell::RefCell, io::Write as _};

use tempfile::NamedTempFile;

use super::{images_of_archive, images_of_docker};

/// Any bytes are an archive of images or none; what is listed can be asked for.
///
/// # Panics
/// If that does not hold.
pub fn images(bytes: &[u8]) {
    thread_local! {
        static FILE: RefCell<Option<NamedTempFile>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| NamedTempFile::new().expect("a temporary file"));
        file.as_file_mut().set_len(0).expect("a temporary file");
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), bytes, 0).expect("a temporary file");
        file.flush().expect("a temporary file");
        for images in [images_of_archive(file.path()), images_of_docker(file.path())] {
            for image in images.into_iter().flatten() {
                assert!(image.references().len() <= image.names.len());
                if let Ok(Some(manifest)) = image.manifest(&image.root) {
                    assert!(manifest.len() as u64 <= crate::contents::MANIFEST_BYTES_MAX);
                }
            }
        }
    });
}
