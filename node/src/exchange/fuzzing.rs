//! What must hold of a peer's request, whatever it is.

use hyper::Method;

use super::{
    range::{Requested, requested},
    route::route,
};

/// Any path is a route or none, and any range is inside of the blob.
///
/// # Panics
/// If that does not hold.
pub fn request(bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*size);
    if let Requested::Part(range) = requested(Some(bytes), size) {
        assert!(range.start < range.end && range.end <= size);
    }
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let _ = route(&method, path);
    }
}
