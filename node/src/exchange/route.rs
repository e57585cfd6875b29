//! What a request's method and path ask for.

use hyper::{Method, StatusCode};
use layermesh_proto::ContentId;

use super::{BLOBS_PATH, GROWING_PATH, PIECES_PATH};

/// What the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// The piece map of a blob that is held whole.
    PieceMap(ContentId),
    /// A blob that is held whole, or only the head of that answer.
    Blob { content: ContentId, head_only: bool },
    /// A blob that may still be landing.
    Growing(ContentId),
}

/// Reads a request's method and path; the status that refuses it if they make no sense.
pub(super) fn route(method: &Method, path: &str) -> Result<Route, StatusCode> {
    let found = [PIECES_PATH, BLOBS_PATH, GROWING_PATH]
        .into_iter()
        .find_map(|prefix| Some((prefix, path.strip_prefix(prefix)?)));
    let (prefix, cid) = found.ok_or(StatusCode::NOT_FOUND)?;
    let content = ContentId::from_cid_text(cid).map_err(|_| StatusCode::BAD_REQUEST)?;
    match (prefix, method) {
        (PIECES_PATH, &Method::GET) => Ok(Route::PieceMap(content)),
        (BLOBS_PATH, &Method::GET) => Ok(Route::Blob { content, head_only: false }),
        (BLOBS_PATH, &Method::HEAD) => Ok(Route::Blob { content, head_only: true }),
        (GROWING_PATH, &Method::GET) => Ok(Route::Growing(content)),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered() {
        let content = ContentId::of(layermesh_proto::Algorithm::Sha256, b"x");
        let cid = content.to_cid();
        let of = |method: &Method, prefix: &str| route(method, &format!("{prefix}{cid}"));
        let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
        assert_eq!(of(&get, "/pieces/"), Ok(Route::PieceMap(content)));
        assert_eq!(of(&get, "/blobs/"), Ok(Route::Blob { content, head_only: false }));
        assert_eq!(of(&head, "/blobs/"), Ok(Route::Blob { content, head_only: true }));
        assert_eq!(of(&get, "/growing/"), Ok(Route::Growing(content)));
        for (method, prefix) in [(&head, "/pieces/"), (&head, "/growing/"), (&post, "/blobs/"), (&post, "/growing/")] {
            assert_eq!(of(method, prefix), Err(StatusCode::METHOD_NOT_ALLOWED), "{method} {prefix}");
        }
        for prefix in ["/", "", "/blob/", "/Blobs/", "//blobs/", "/x/blobs/"] {
            assert_eq!(of(&get, prefix), Err(StatusCode::NOT_FOUND), "{prefix}");
        }
        for path in ["/blobs/", "/blobs/junk", "/blobs/../secret", "/pieces/junk", "/growing/junk"] {
            assert_eq!(route(&get, path), Err(StatusCode::BAD_REQUEST), "{path}");
            assert_eq!(route(&post, path), Err(StatusCode::BAD_REQUEST), "{path}");
        }
        assert_eq!(of(&get, "/blobs/blobs/"), Err(StatusCode::BAD_REQUEST));
    }
}
