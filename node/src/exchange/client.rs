//! The asking half: pieces of a blob from one peer.

use std::{
    error::Error as _,
    fmt,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderMap},
};
use hyper_util::rt::TokioIo;
use layermesh_proto::{ContentId, NodeId, PieceIndex, PieceLayout, PieceMap, engine::event::SourceError};
use libp2p::identity::Keypair;
use rustls::{AlertDescription, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{
    BLOB_SIZE, BLOBS_PATH, GROWING_PATH, GROWING_STALL_MAX, PIECES_PATH, TlsSetupError,
    maps::Maps,
    pool::{Key, Pool, Sender},
    tls::{self, ClientTls},
};

use crate::fleet::Fleet;

/// A peer on the LAN answers a SYN in milliseconds; this leaves room for two retransmissions.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// As the server's own limit.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Until an answer's head and between two reads of its body. The engine has a stall deadline of its own and a
/// shorter one; this is the transport's, so that nothing waits for ever should nobody cancel it.
const STALL_MAX: Duration = Duration::from_secs(30);
/// A connection that was idle says within this whether it can be used.
const READY_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest `Retry-After` that is passed on.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// Fetches pieces from peers. Cloning is cheap and shares the connections.
#[derive(Debug, Clone)]
pub struct BulkClient {
    tls: ClientTls,
    fleet: Fleet,
    pool: Arc<Pool>,
    maps: Arc<Mutex<Maps>>,
    stall_max: Duration,
}

/// Pieces on their way from a peer.
pub struct BulkBody {
    /// How the blob is cut, by the size that the peer says it has.
    pub layout: PieceLayout,
    /// The hashes that the peer vouches for; `None` of a blob that it has not whole yet.
    pub map: Option<Arc<PieceMap>>,
    /// The pieces that come: those asked for, as far as the blob has them.
    pub pieces: Range<PieceIndex>,
    /// Exactly the bytes of these pieces in chunks of any size, or an error at the point where they broke off.
    /// Not checked against the map.
    pub stream: BoxStream<'static, Result<Bytes, SourceError>>,
}

impl fmt::Debug for BulkBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkBody").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl BulkClient {
    /// A client that proves to be the node of `keypair`, and asks nobody whom the fleet does not let in.
    ///
    /// # Errors
    /// If no certificate can be made for the key.
    pub fn new(keypair: &Keypair, fleet: &Fleet) -> Result<Self, TlsSetupError> {
        let (tls, fleet) = (ClientTls::new(keypair)?, fleet.clone());
        Ok(Self { tls, fleet, pool: Arc::default(), maps: Arc::default(), stall_max: STALL_MAX })
    }

    /// Asks `peer` at `addr` for a run of a blob's pieces. `size` is what the blob's size is known to be.
    ///
    /// Dropping the body stops the transfer and closes its connection.
    ///
    /// # Errors
    /// - [`SourceError::Unreachable`]: no connection, or it broke or stalled before the answer.
    /// - [`SourceError::NotFound`]: the peer does not hold the blob whole.
    /// - [`SourceError::RateLimited`]: the peer is busy, or this client is at its own limits.
    /// - [`SourceError::Failed`]: another node is at that address, or the answer makes no sense, or the blob has
    ///   another size than `size`.
    pub async fn open(
        &self,
        peer: NodeId,
        addr: SocketAddr,
        content: ContentId,
        size: Option<u64>,
        pieces: Range<PieceIndex>,
    ) -> Result<BulkBody, SourceError> {
        let key = (peer, addr);
        let map = self.map(key, content).await?;
        let layout = map.layout();
        if let Some(size) = size.filter(|&size| size != layout.blob_size()) {
            self.maps().forget(peer, &content);
            return Err(failed(format!("says that a blob of {size} bytes has {}", layout.blob_size())));
        }
        let end = pieces.end.min(layout.count());
        let pieces = pieces.start.min(end)..end;
        let bytes = layout.bytes_of_run(&pieces);
        if bytes.is_empty() {
            return Ok(BulkBody { layout, map: Some(map), pieces, stream: futures::stream::empty().boxed() });
        }
        let range = format!("bytes={}-{}", bytes.start, bytes.end - 1);
        let (response, sender) = self.get(key, BLOBS_PATH, &content, Some(&range)).await?;
        if let Err(error) = check_range(&response, &bytes, layout.blob_size()) {
            self.maps().forget(peer, &content);
            return Err(error);
        }
        let transfer = self.transfer(response, sender, key, bytes.end - bytes.start, self.stall_max);
        let stream = futures::stream::try_unfold(transfer, Transfer::next).boxed();
        Ok(BulkBody { layout, map: Some(map), pieces, stream })
    }

    /// Asks `peer` for a run of pieces of a blob that it may not have whole yet: they come as they land there, and the
    /// peer answers for each by sending it. `size` is what the blob's size is known to be; if it is not known, `pieces`
    /// starts with the first.
    ///
    /// # Errors
    /// As [`BulkClient::open`]; [`SourceError::NotFound`] if the peer has not begun the blob in time.
    pub async fn open_growing(
        &self,
        peer: NodeId,
        addr: SocketAddr,
        content: ContentId,
        size: Option<u64>,
        pieces: Range<PieceIndex>,
    ) -> Result<BulkBody, SourceError> {
        let key = (peer, addr);
        let known = size.map(|size| PieceLayout::for_size(size).ok_or_else(|| failed("a blob over the size limit")));
        let known = known.transpose()?;
        let first = known.map_or(0, |layout| layout.bytes_of(pieces.start).start);
        let end = known.and_then(|layout| (pieces.end < layout.count()).then(|| layout.bytes_of(pieces.end).start));
        // Without a range, an empty blob is no error.
        let range = match end {
            Some(end) => Some(format!("bytes={first}-{}", end.saturating_sub(1))),
            None => (first > 0).then(|| format!("bytes={first}-")),
        };
        let (response, sender) = self.get(key, GROWING_PATH, &content, range.as_deref()).await?;
        let found = size_of(&response).ok_or_else(|| failed("does not say the blob's size"))?;
        if let Some(size) = size.filter(|&size| size != found) {
            return Err(failed(format!("says that a blob of {size} bytes has {found}")));
        }
        let layout = PieceLayout::for_size(found).ok_or_else(|| failed("says that the blob is over the size limit"))?;
        let last = pieces.end.min(layout.count());
        let pieces = pieces.start.min(last)..last;
        let bytes = layout.bytes_of_run(&pieces);
        check_range(&response, &bytes, found)?;
        let transfer =
            self.transfer(response, sender, key, bytes.end - bytes.start, self.stall_max.max(GROWING_STALL_MAX));
        let stream = futures::stream::try_unfold(transfer, Transfer::next).boxed();
        Ok(BulkBody { layout, map: None, pieces, stream })
    }

    #[cfg(test)]
    pub(super) fn with_stall_max(self, stall_max: Duration) -> Self {
        Self { stall_max, ..self }
    }

    #[cfg(test)]
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn maps(&self) -> std::sync::MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn map(&self, key: Key, content: ContentId) -> Result<Arc<PieceMap>, SourceError> {
        if let Some(map) = self.maps().get(key.0, &content) {
            return Ok(map);
        }
        let (response, sender) = self.get(key, PIECES_PATH, &content, None).await?;
        if response.status() != StatusCode::OK {
            return Err(failed(format!("answered {} to a question for a piece map", response.status())));
        }
        let size = number(response.headers(), BLOB_SIZE).ok_or_else(|| failed("does not say the blob's size"))?;
        let pieces =
            PieceLayout::for_size(size).ok_or_else(|| failed("says that the blob is over the size limit"))?.count();
        let expected = u64::from(pieces) * 32;
        if response.body().size_hint().exact() != Some(expected) {
            return Err(failed("sends a piece map that does not fit the blob's size"));
        }
        let mut transfer = self.transfer(response, sender, key, expected, self.stall_max);
        let mut bytes = BytesMut::new();
        while let Some((chunk, rest)) = transfer.next().await? {
            bytes.extend_from_slice(&chunk);
            transfer = rest;
        }
        let map = PieceMap::from_bytes(size, &bytes).map_err(|error| failed(error.to_string()))?;
        let map = Arc::new(map);
        self.maps().put(key.0, content, Arc::clone(&map));
        Ok(map)
    }

    /// The body of an answer, of `len` bytes; its connection is kept once it was read to the end.
    fn transfer(
        &self,
        response: Response<Incoming>,
        sender: Sender,
        key: Key,
        len: u64,
        stall_max: Duration,
    ) -> Transfer {
        let connection = Some((sender, key, Arc::clone(&self.pool)));
        Transfer { body: response.into_body(), remaining: len, connection, stall_max }
    }

    /// Sends a request, on an idle connection if there is one, and reads the answer's head. An answer other than
    /// success is an error.
    async fn get(
        &self,
        key: Key,
        path: &str,
        content: &ContentId,
        range: Option<&str>,
    ) -> Result<(Response<Incoming>, Sender), SourceError> {
        let request = || {
            let mut request =
                Request::get(format!("{path}{}", content.to_cid())).header(header::HOST, key.1.to_string());
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            request.body(Empty::new()).map_err(|error| failed(error.to_string()))
        };
        if let Some(mut sender) = self.pool.take(key) {
            // The peer may have closed it meanwhile. Asking again is safe, and on a new connection it is final.
            if matches!(timeout(READY_TIME_MAX, sender.ready()).await, Ok(Ok(()))) {
                match send(&mut sender, request()?).await {
                    Ok(response) => return self.accept(key, response, sender),
                    Err(error @ SourceError::Failed(_)) => return Err(error),
                    Err(_) => {}
                }
            }
            self.pool.forget(key);
        }
        let mut sender = self.connect(key).await?;
        let response = send(&mut sender, request()?).await?;
        self.accept(key, response, sender)
    }

    /// Passes on answers with a body worth reading. The connection of any other is kept if it can be.
    fn accept(
        &self,
        key: Key,
        response: Response<Incoming>,
        sender: Sender,
    ) -> Result<(Response<Incoming>, Sender), SourceError> {
        let Err(error) = check_status(&response) else { return Ok((response, sender)) };
        if response.body().is_end_stream() {
            self.pool.give_back(key, sender);
        }
        Err(error)
    }

    async fn connect(&self, (peer, addr): Key) -> Result<Sender, SourceError> {
        let admitted = self.fleet.admits(&peer);
        admitted.map_err(|refusal| unreachable(format!("it does not belong to the fleet: {refusal}")))?;
        let permit = self.pool.permit(peer).ok_or(SourceError::RateLimited { retry_after: None })?;
        let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(addr))
            .await
            .map_err(|_| unreachable("no answer to a connection attempt"))?
            .map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let connector = TlsConnector::from(self.tls.expecting(peer));
        let stream = timeout(HANDSHAKE_TIME_MAX, connector.connect(ServerName::from(addr.ip()), stream))
            .await
            .map_err(|_| unreachable("no answer to a handshake"))?
            .map_err(|error| tls_error(&error).unwrap_or_else(|| unreachable(error.to_string())))?;
        if stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) {
            return Err(failed("does not speak the bulk protocol"));
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| request_error(&error))?;
        // Ends when the sender is dropped and its last answer read or dropped. Counted by its permit.
        let fleet = self.fleet.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                // What went wrong is told to the request that it went wrong for.
                _ = connection => {}
                // Nothing more is read from it; a body that was on its way breaks off.
                _ = fleet.until_out(peer) => {}
            }
        });
        Ok(sender)
    }
}

/// A body that is being read, and the connection it comes on.
struct Transfer {
    body: Incoming,
    remaining: u64,
    connection: Option<(Sender, Key, Arc<Pool>)>,
    stall_max: Duration,
}

impl Transfer {
    /// The next bytes and the rest; `None` once exactly the announced number has come.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, SourceError> {
        loop {
            let frame = timeout(self.stall_max, self.body.frame()).await.map_err(|_| unreachable("stalled"))?;
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(request_error(&error)),
                None if self.remaining > 0 => return Err(unreachable("broke off")),
                None => {
                    if let Some((sender, key, pool)) = self.connection.take() {
                        pool.give_back(key, sender);
                    }
                    return Ok(None);
                }
            };
            // Frames without data are trailers, which nobody asked for.
            let Ok(chunk) = frame.into_data() else { continue };
            self.remaining = self
                .remaining
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| failed("sends more bytes than announced"))?;
            if !chunk.is_empty() {
                return Ok(Some((chunk, self)));
            }
        }
    }
}

async fn send(sender: &mut Sender, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, SourceError> {
    timeout(STALL_MAX, sender.send_request(request))
        .await
        .map_err(|_| unreachable("no answer to a request"))?
        .map_err(|error| request_error(&error))
}

/// Sorts answers into those with a body worth reading and the classes of error.
fn check_status(response: &Response<Incoming>) -> Result<(), SourceError> {
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(()),
        StatusCode::NOT_FOUND => Err(SourceError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(SourceError::Unauthorized("the peer refuses this node".to_owned()))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = number(response.headers(), header::RETRY_AFTER.as_str()).map(Duration::from_secs);
            Err(SourceError::RateLimited { retry_after: retry_after.map(|after| after.min(RETRY_AFTER_MAX)) })
        }
        status => Err(failed(format!("answered {status}"))),
    }
}

/// Whether the answer's head promises exactly `bytes` of a blob of `size`.
fn check_range(response: &Response<Incoming>, bytes: &Range<u64>, size: u64) -> Result<(), SourceError> {
    let range_fits = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let expected = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
            response.headers().get(header::CONTENT_RANGE).is_some_and(|range| range.as_bytes() == expected.as_bytes())
        }
        _ => *bytes == (0..size),
    };
    if !range_fits {
        return Err(failed("answers another range than asked for"));
    }
    if response.body().size_hint().exact() != Some(bytes.end - bytes.start) {
        return Err(failed("announces another length than asked for"));
    }
    Ok(())
}

/// The blob's size, by an answer's head.
fn size_of(response: &Response<Incoming>) -> Option<u64> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
            range.rsplit_once('/')?.1.parse().ok()
        }
        _ => response.body().size_hint().exact(),
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn failed(what: impl Into<String>) -> SourceError {
    SourceError::Failed(what.into())
}

fn unreachable(what: impl Into<String>) -> SourceError {
    SourceError::Unreachable(what.into())
}

/// A refusal in the TLS layer, by either end, is not for another try to mend; a broken connection is.
fn tls_error(error: &std::io::Error) -> Option<SourceError> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure) => {
            failed("another node is at the peer's address")
        }
        // It may have restarted, and not know this node yet; or it may have revoked it.
        rustls::Error::AlertReceived(AlertDescription::AccessDenied) => unreachable("the peer refuses this node"),
        other => failed(format!("TLS: {other}")),
    })
}

fn request_error(error: &hyper::Error) -> SourceError {
    let cause = error.source();
    if let Some(refused) = cause.and_then(|cause| cause.downcast_ref()).and_then(tls_error) {
        return refused;
    }
    // hyper's own text leaves the cause out.
    match cause {
        Some(cause) => unreachable(format!("{error}: {cause}")),
        None if error.is_parse() => failed(error.to_string()),
        None => unreachable(error.to_string()),
    }
}
