//! The status page's files, in the binary: written by hand, without anything from outside.
//!
//! Invariant: the page runs its own script and style and nothing else, asks nobody but this node, and may stand in no frame.
//! What comes from the network reaches the document as text only; the policy below is what holds should that ever fail.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};

/// One file of the page.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) media_type: &'static str,
    pub(super) text: &'static str,
}

/// All of them; together at most [`BYTES_MAX`].
pub(super) const FILES: [File; 9] = [
    File { path: "/", media_type: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    File { path: "/theme.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/theme.js") },
    File { path: "/page.css", media_type: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    File { path: "/page.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/page.js") },
    File { path: "/dom.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/dom.js") },
    File { path: "/moving.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/moving.js") },
    File { path: "/holding.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/holding.js") },
    File { path: "/picture.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/picture.js") },
    File { path: "/words.js", media_type: "text/javascript; charset=utf-8", text: include_str!("page/words.js") },
];

/// What the page may weigh: it is asked for over links that are weak, too, from a phone on the site's edge.
#[cfg(test)]
pub(super) const BYTES_MAX: usize = 150 << 10;

/// Nothing but this node's own files, no frame around it, no form, no other base.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // A node that was updated has another page.
    (header::CACHE_CONTROL, "no-cache"),
];

impl IntoResponse for &'static File {
    fn into_response(self) -> Response {
        guarded(([(header::CONTENT_TYPE, self.media_type)], self.text).into_response())
    }
}

/// An answer that a browser uses for this page alone.
pub(super) fn guarded(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
