//! Content discovery: lists that only an origin can give, passed on as they come.
//!
//! With the origin away, tags are answered from the bindings that the node knows, and say so. Referrers are not: an
//! empty list would mean "nothing refers to this", which a client that checks signatures would believe, and 404 would
//! mean "no such endpoint", after which it looks for a tag instead (distribution spec, "Unavailable Referrers API");
//! so the answer is 503. An origin's own 404 is passed on, and that fallback tag then resolves like any other.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use layermesh_proto::{Repository, engine::event::SourceError};
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded;

use super::{
    MirrorState,
    answer::{PROVENANCE, text_value},
    refusal::{Code, Refusal},
    route::{Page, Route},
    source::{Discovery, MirrorStore, Passed},
};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Most tags in a list of the node's own making; a longer one is given in pages.
const TAGS_MAX: usize = 1000;

/// How the client spelled its question, for links that lead back here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Path, percent-encoded.
    pub(super) path: &'a str,
    /// Query, percent-encoded.
    pub(super) query: &'a str,
}

/// Answers a question for a list.
pub(super) async fn answer<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    asked: Asked<'_>,
    route: Route,
) -> Result<Response, Refusal> {
    let limit = state.limits.stall;
    let late = || SourceError::Unreachable(format!("no answer within {limit:?}"));
    match route {
        Route::Tags { repository, page } => {
            match timeout(limit, state.discovery.tags(&repository, &page)).await.unwrap_or_else(|_| Err(late())) {
                Ok(passed) => pass(passed, asked),
                Err(error @ (SourceError::NotFound | SourceError::Unauthorized(_))) => Err(Refusal::of_source(&error)),
                Err(error) => known_tags(state, asked, &repository, &page, &error).await,
            }
        }
        Route::Referrers { repository, content, artifact_type } => {
            let referrers = state.discovery.referrers(&repository, &content, artifact_type.as_deref());
            let passed = timeout(limit, referrers).await.unwrap_or_else(|_| Err(late()));
            let passed = passed.map_err(|error| Refusal::of_source(&error))?;
            // The list is whole, so a link could only lead to what was given already.
            pass(Passed { link: None, ..passed }, asked)
        }
        Route::Version | Route::Manifest { .. } | Route::Blob { .. } => {
            Err(Refusal::unknown(Code::Unsupported, "not a list"))
        }
    }
}

fn pass(passed: Passed, asked: Asked<'_>) -> Result<Response, Refusal> {
    let mut response = json(passed.body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, text_value(&passed.content_type)?);
    if let Some(link) = passed.link.as_deref().and_then(|link| next_link(link, asked)) {
        headers.insert(header::LINK, text_value(&link)?);
    }
    if let Some(filters) = &passed.filters_applied {
        headers.insert(FILTERS_APPLIED, text_value(filters)?);
    }
    Ok(response)
}

async fn known_tags<S: MirrorStore, D: Discovery>(
    state: &MirrorState<S, D>,
    asked: Asked<'_>,
    repository: &Repository,
    page: &Page,
    error: &SourceError,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Document<'a> {
        name: &'a str,
        tags: &'a [String],
    }
    let mut tags = state.discovery.known_tags(repository).await;
    if tags.is_empty() {
        return Err(Refusal::of_source(error));
    }
    tracing::info!(%repository, %error, "the origin is away: listing the tags that this node knows");
    tags.sort_unstable();
    tags.dedup();
    tags.retain(|tag| page.last.as_ref().is_none_or(|last| tag > last));
    let count = page.n.and_then(|n| usize::try_from(n).ok()).unwrap_or(TAGS_MAX).min(TAGS_MAX);
    let more = tags.len() > count;
    tags.truncate(count);
    let document = serde_json::to_vec(&Document { name: repository.name(), tags: &tags });
    let mut response = json(document.map_err(|error| Refusal::unavailable(error.to_string()))?.into());
    response.headers_mut().insert(PROVENANCE, HeaderValue::from_static("remembered"));
    if let (true, Some(last)) = (more, tags.last()) {
        let link = link_here(asked, [("n", count.to_string().as_str()), ("last", last)].into_iter());
        response.headers_mut().insert(header::LINK, text_value(&link)?);
    }
    Ok(response)
}

fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The origin's link to the next page (RFC 8288), as one that leads to this mirror and means the same origin.
fn next_link(link: &str, asked: Asked<'_>) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|parameter| {
        let parameter = parameter.trim();
        parameter.eq_ignore_ascii_case("rel=\"next\"") || parameter.eq_ignore_ascii_case("rel=next")
    });
    let (_, query) = target.split_once('?')?;
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    next.then(|| link_here(asked, pairs.iter().map(|(key, value)| (&**key, &**value))))
}

fn link_here<'a>(asked: Asked<'_>, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.filter(|(key, _)| *key != "ns"));
    query.extend_pairs(form_urlencoded::parse(asked.query.as_bytes()).filter(|(key, _)| key == "ns"));
    format!("<{}?{}>; rel=\"next\"", asked.path, query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'_> = Asked { path: "/v2/a/tags/list", query: "n=2&ns=h%3A5000" };

    #[test]
    fn links_lead_back_here() {
        for (link, expected) in [
            ("</v2/a/tags/list?n=2&last=b>; rel=\"next\"", Some("n=2&last=b&ns=h%3A5000")),
            ("<https://h:5000/v2/a/tags/list?last=b&ns=evil>; rel=next", Some("last=b&ns=h%3A5000")),
            ("</v2/a/tags/list?last=b>; rel=\"prev\"", None),
            ("</v2/a/tags/list>; rel=\"next\"", None),
            ("nonsense", None),
        ] {
            let expected = expected.map(|query| format!("</v2/a/tags/list?{query}>; rel=\"next\""));
            assert_eq!(next_link(link, ASKED), expected, "{link}");
        }
    }
}
