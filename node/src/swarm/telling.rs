//! How revocations get around: what a node does not know of a peer's it is told when they connect, and what has just come
//! up goes to all connected peers at once, each of which passes on what is news to it.
//!
//! Every revocation is signed, so it does not matter who passes it on. Invariant: a node sends each piece of news once to
//! each peer, and asks a peer for a bounded number of pages.

use std::{collections::BTreeMap, future::Future, io, time::Duration};

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use layermesh_proto::{
    NodeId,
    wire::{
        codec::{decode_fleet_request, decode_fleet_response, encode_fleet_request, encode_fleet_response},
        fleet::{FLEET_MESSAGE_BYTES_MAX, FleetRequest, FleetResponse, REVOCATIONS_PER_MESSAGE_MAX, Revocation},
    },
};
use libp2p::{PeerId, StreamProtocol, request_response};
use serde_bytes::ByteBuf;
use tokio::time::Instant;
use tracing::debug;

use super::control::{invalid, read_message};
use crate::fleet::{Fleet, record, roster::REVOCATIONS_MAX};

/// Pages that a peer is asked for on a connection: all revocations that it can have.
const PAGES_MAX: usize = REVOCATIONS_MAX / REVOCATIONS_PER_MESSAGE_MAX + 1;
/// After a request failed while the peer stays connected, until it is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often that is done on a connection.
const RETRIES_MAX: usize = 3;

/// What is under way with a connected peer.
#[derive(Debug, Default)]
struct Peer {
    pages: usize,
    retries: usize,
    retry_at: Option<Instant>,
}

/// Who is to be told, and asked.
#[derive(Debug)]
pub(super) struct Telling {
    fleet: Fleet,
    /// Pieces of news that were passed on.
    told: usize,
    peers: BTreeMap<PeerId, Peer>,
}

impl Telling {
    pub(super) fn new(fleet: Fleet) -> Self {
        let told = fleet.count_news();
        Self { fleet, told, peers: BTreeMap::new() }
    }

    /// A peer is connected: what to ask it.
    pub(super) fn connected(&mut self, peer: PeerId) -> Option<FleetRequest> {
        if self.fleet.is_open() {
            return None;
        }
        self.peers.insert(peer, Peer { pages: 1, ..Peer::default() });
        Some(self.sync(None))
    }

    pub(super) fn disconnected(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    fn sync(&self, after: Option<(NodeId, NodeId)>) -> FleetRequest {
        FleetRequest::Sync { known: self.fleet.digest(), after }
    }

    /// What has come up since, each with who told it and need not hear it.
    pub(super) fn news(&mut self) -> Vec<(FleetRequest, Option<NodeId>)> {
        let news = self.fleet.news(self.told);
        self.told += news.len();
        let mut requests: Vec<(Vec<ByteBuf>, Option<NodeId>)> = Vec::new();
        for (record, from) in news {
            match requests.last_mut() {
                Some((records, of)) if *of == from && records.len() < REVOCATIONS_PER_MESSAGE_MAX => {
                    records.push(record.into());
                }
                _ => requests.push((vec![record.into()], from)),
            }
        }
        requests.into_iter().map(|(records, from)| (FleetRequest::News { records }, from)).collect()
    }

    /// Answers a peer.
    pub(super) fn answer(&self, from: NodeId, request: FleetRequest) -> FleetResponse {
        let none = FleetResponse { records: Vec::new(), more: false };
        match request {
            FleetRequest::Sync { .. } if self.fleet.is_open() => none,
            FleetRequest::Sync { known, .. } if known == self.fleet.digest() => none,
            FleetRequest::Sync { after, .. } => {
                let (records, more) = self.fleet.page(after);
                FleetResponse { records: records.into_iter().map(ByteBuf::from).collect(), more }
            }
            FleetRequest::News { records } => {
                self.take(from, &records);
                none
            }
        }
    }

    /// A peer has answered; returns what to ask next.
    pub(super) fn answered(&mut self, peer: PeerId, from: NodeId, response: &FleetResponse) -> Option<FleetRequest> {
        self.take(from, &response.records);
        let last = response.records.last().filter(|_| response.more)?;
        let (last, authority) = record::open::<Revocation>(last).ok()?;
        let known = self.peers.get_mut(&peer).filter(|known| known.pages < PAGES_MAX)?;
        known.pages += 1;
        Some(self.sync(Some((last.subject, authority))))
    }

    fn take(&self, from: NodeId, records: &[ByteBuf]) {
        if self.fleet.is_open() {
            return;
        }
        for record in records {
            if let Err(error) = self.fleet.revoke(record, Some(from)) {
                debug!(%from, %error, "a revocation does not count");
            }
        }
    }

    /// A request to a peer failed.
    pub(super) fn failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(peer).filter(|known| known.retries < RETRIES_MAX) {
            known.retries += 1;
            known.retry_at = Some(now + RETRY);
        }
    }

    /// Whom to ask once more, and what.
    pub(super) fn retry(&mut self, now: Instant) -> Option<(PeerId, FleetRequest)> {
        let mut due = self.peers.iter_mut().filter(|(_, known)| known.retry_at.is_some_and(|at| at <= now));
        let (&peer, known) = due.next()?;
        known.retry_at = None;
        Some((peer, self.sync(None)))
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.peers.values().filter_map(|known| known.retry_at).min()
    }
}

/// Reads and writes these messages, one a direction, ended by the end of the stream.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TellingCodec;

impl request_response::Codec for TellingCodec {
    type Protocol = StreamProtocol;
    type Request = FleetRequest;
    type Response = FleetResponse;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<FleetRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        decode_fleet_request(&read_message(io, FLEET_MESSAGE_BYTES_MAX).await?).map_err(invalid)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<FleetResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        decode_fleet_response(&read_message(io, FLEET_MESSAGE_BYTES_MAX).await?).map_err(invalid)
    }

    fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: FleetRequest,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = encode_fleet_request(&request).map_err(invalid);
        async move { io.write_all(&bytes?).await }
    }

    fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: FleetResponse,
    ) -> impl Future<Output = io::Result<()>> + Send
    where
        T: AsyncWrite + Unpin + Send,
    {
        let bytes = encode_fleet_response(&response).map_err(invalid);
        async move { io.write_all(&bytes?).await }
    }
}
