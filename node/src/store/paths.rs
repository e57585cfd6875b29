//! Where things are in the store's directory.
//!
//! ```text
//! oci-layout  index.json  blobs/<algorithm>/<hex>     the OCI image layout
//! partial/<algorithm>-<hex>/{data,state}              blobs that are not whole
//! damaged/<algorithm>-<hex>                           files found in blobs/ that are not what their name says
//! meta.redb  version  lock                            for this program alone
//! ```

use std::path::{Path, PathBuf};

use layermesh_proto::{Algorithm, ContentId};

/// The store's directory.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) root: PathBuf,
}

impl Paths {
    pub(super) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    pub(super) fn blob(&self, content: &ContentId) -> PathBuf {
        self.blobs(content.algorithm()).join(content.hex())
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, content: &ContentId) -> PathBuf {
        self.partials().join(flat_name(content))
    }

    pub(super) fn all_damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    pub(super) fn damaged(&self, content: &ContentId) -> PathBuf {
        self.all_damaged().join(flat_name(content))
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Bytes of a partial.
pub(super) fn data_of(partial: &Path) -> PathBuf {
    partial.join("data")
}

/// State of a partial.
pub(super) fn state_of(partial: &Path) -> PathBuf {
    partial.join("state")
}

fn flat_name(content: &ContentId) -> String {
    format!("{}-{}", content.algorithm().name(), content.hex())
}

/// The content id in a name that [`flat_name`] made.
pub(super) fn content_of_flat_name(name: &str) -> Option<ContentId> {
    let (algorithm, hex) = name.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}
