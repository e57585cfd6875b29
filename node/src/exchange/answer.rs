//! Answers to a peer's requests.

use std::{convert::Infallible, io, ops::Range, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use layermesh_proto::{ContentId, NodeId};
use tokio::time::timeout;

use super::{
    BLOB_SIZE, BlobRead, BlobSource,
    body::{BlobBody, Sending},
    range::{Requested, requested},
    route::{Route, route},
    server::Deadlines,
    uploads::Uploads,
};
use crate::{counters::Counters, pace::Pace};

/// What a peer is asked to wait that is over its connections, or for whom no upload slot came free.
const BUSY_RETRY_AFTER_S: u64 = 1;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// What answers are made from.
pub(super) struct Answers<S> {
    pub(super) source: S,
    pub(super) counters: Arc<Counters>,
    pub(super) deadlines: Deadlines,
    pub(super) lan: Arc<Pace>,
    pub(super) uploads: Arc<Uploads>,
}

/// A blob that a request named, and that there is.
struct Opened<R> {
    reader: R,
    size: u64,
    growing: bool,
}

impl<S: BlobSource> Answers<S> {
    pub(super) async fn answer(&self, peer: NodeId, request: &Request<Incoming>) -> Response<AnswerBody> {
        let range = request.headers().get(header::RANGE);
        match route(request.method(), request.uri().path()) {
            Ok(Route::PieceMap(content)) => self.piece_map(&content).await,
            Ok(Route::Blob { content, head_only }) => {
                // The reader first: what is held once there is one is not removed for want of room.
                let reader = self.source.reader(content);
                match self.source.size_of(&content) {
                    Some(size) if head_only => head(range, size).0,
                    Some(size) => self.blob(peer, range, Opened { reader, size, growing: false }).await,
                    None => plain(StatusCode::NOT_FOUND),
                }
            }
            Ok(Route::Growing(content)) => self.growing(peer, range, content).await,
            Err(refusal) => plain(refusal),
        }
    }

    /// Takes no upload slot: of a common blob it has some kilobytes, and whoever asks for it waits for one next.
    async fn piece_map(&self, content: &ContentId) -> Response<AnswerBody> {
        let Some(map) = self.source.piece_map(content).await else { return plain(StatusCode::NOT_FOUND) };
        let body = Full::new(Bytes::from(map.to_bytes())).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        response.headers_mut().insert(BLOB_SIZE, HeaderValue::from(map.layout().blob_size()));
        response
    }

    /// A blob that may still be landing. Whoever asks has heard that it is about to, so it is given time to begin.
    async fn growing(&self, peer: NodeId, range: Option<&HeaderValue>, content: ContentId) -> Response<AnswerBody> {
        let mut reader = self.source.reader(content);
        match timeout(self.deadlines.source_stall, reader.size()).await {
            Ok(size) => self.blob(peer, range, Opened { reader, size, growing: true }).await,
            Err(_) => plain(StatusCode::NOT_FOUND),
        }
    }

    async fn blob(&self, peer: NodeId, range: Option<&HeaderValue>, opened: Opened<S::Reader>) -> Response<AnswerBody> {
        let (mut response, bytes) = head(range, opened.size);
        if bytes.is_empty() {
            return response;
        }
        // Before the head, so that a peer can be told to come again. A growing blob's slot goes back at once if there
        // is nothing to send.
        let Some(upload) = self.uploads.admit(peer, self.deadlines.upload_wait).await else { return busy() };
        let Opened { reader, growing, .. } = opened;
        let stall_max = if growing { self.deadlines.growing_stall } else { self.deadlines.source_stall };
        let sending = Sending { reader, growing, stall_max, upload, lan: Arc::clone(&self.lan) };
        let len = bytes.end - bytes.start;
        let counted = (peer, Arc::clone(&self.counters));
        *response.body_mut() = BlobBody::new(sending, bytes.start, len, counted).boxed_unsync();
        response
    }
}

/// An answer without its body, and the bytes that this has.
fn head(range: Option<&HeaderValue>, size: u64) -> (Response<AnswerBody>, Range<u64>) {
    let (status, bytes) = match requested(range.map(HeaderValue::as_bytes), size) {
        Requested::Whole => (StatusCode::OK, 0..size),
        Requested::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Requested::Unsatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
            insert(&mut response, header::CONTENT_RANGE, format!("bytes */{size}"));
            return (response, 0..0);
        }
    };
    let mut response = plain(status);
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        insert(&mut response, header::CONTENT_RANGE, range);
    }
    insert(&mut response, header::CONTENT_LENGTH, (bytes.end - bytes.start).to_string());
    (response, bytes)
}

fn plain(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Asks the peer to come again.
fn busy() -> Response<AnswerBody> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    insert(&mut response, header::RETRY_AFTER, BUSY_RETRY_AFTER_S.to_string());
    response
}

/// The same, on a connection that is one too many.
pub(super) fn busy_and_close() -> Response<AnswerBody> {
    let mut response = busy();
    insert(&mut response, header::CONNECTION, "close".to_owned());
    response
}

fn insert(response: &mut Response<AnswerBody>, name: header::HeaderName, value: String) {
    // Numbers and fixed words: always a valid header value.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
