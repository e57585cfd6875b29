//! What bytes between two nodes cost: `cargo bench -p layermesh --bench bulk`.
//!
//! The real [`BulkServer`] and [`BulkClient`] over loopback against one substream of libp2p over TCP, Noise and Yamux,
//! in turn, with the same bytes from the same memory, both ends in this process. Neither end hashes anything. The
//! substream has no swarm and no protocol around it, which favours it. A second pair of bulk ends are members of a fleet,
//! enrolled by a key, which says what admission costs. `LAYERMESH_BENCH_MIB` is the size of a round.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::print_stdout, reason = "its result is the lines that it prints")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{future::poll_fn, io, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use layermesh::{
    counters::Counters,
    exchange::{BlobRead, BlobSource, BulkClient, BulkServer, ServerLimits},
    fleet::{
        Fleet, FleetOptions,
        files::{self, FleetKey},
        record,
    },
};
use layermesh_proto::{Algorithm, ContentId, NodeId, PieceMap, wire::fleet::Enrolment};
use libp2p::{
    PeerId, Transport as _,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox},
        transport::{Boxed, ListenerId, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use tokio_util::sync::CancellationToken;

/// Bytes of a round in MiB, unless the environment says otherwise: seconds of work, so that the clock's ticks and the
/// first round trips do not count.
const ROUND_MIB: usize = 1024;
/// Rounds of each kind that count, after one that does not.
const ROUNDS: usize = 5;
/// What the substream's ends write and read at once: as much as the bulk server's.
const CHUNK_BYTES: usize = 128 << 10;
/// The aim: processor time of bulk bytes to that of a substream's.
const RATIO_MAX: f64 = 0.60;
/// The aim: bytes a second between members to those of an open fleet.
const MEMBERS_MIN: f64 = 0.98;
/// Ticks in a second of /proc/self/stat, on every Linux that programs see (proc(5), `USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

#[tokio::main]
async fn main() {
    // Tests of all targets run this too, without the flag that `cargo bench` gives.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mib = std::env::var("LAYERMESH_BENCH_MIB").map_or(ROUND_MIB, |text| text.parse().unwrap());
    let mut bytes = vec![0; mib << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let blob = OneBlob::new(bytes.into());

    let mut bulk = Bulk::new(&blob, (Ends::open(), Ends::open())).await;
    let (_dirs, ends) = Ends::members();
    let (mut members, mut substream) = (Bulk::new(&blob, ends).await, Substream::new(&blob).await);
    let (mut of_bulk, mut of_members, mut of_substream) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // In turn, and the other way around each second time: whoever comes first finds a cooler machine.
        let measured = if round % 2 == 0 {
            let open = measure(&blob, bulk.fetch()).await;
            (open, measure(&blob, members.fetch()).await)
        } else {
            let members = measure(&blob, members.fetch()).await;
            (measure(&blob, bulk.fetch()).await, members)
        };
        let substream = measure(&blob, substream.fetch()).await;
        if round > 0 {
            of_bulk.push(measured.0);
            of_members.push(measured.1);
            of_substream.push(substream);
        }
    }
    println!("bulk | {mib} MiB, median of {ROUNDS} rounds | MB/s | CPU s/GB");
    let (bulk, members) = (Figures::median(&of_bulk), Figures::median(&of_members));
    let substream = Figures::median(&of_substream);
    let of_members = ("HTTP/1.1 over TLS 1.3, of members", &members);
    for (name, figures) in [("HTTP/1.1 over TLS 1.3", &bulk), of_members, ("TCP, Noise, Yamux", &substream)] {
        println!("bulk | {name} | {:.0} | {:.3}", figures.mb_per_s, figures.cpu_s_per_gb);
    }
    let (speed, cpu) = (bulk.mb_per_s / substream.mb_per_s, bulk.cpu_s_per_gb / substream.cpu_s_per_gb);
    let (of_speed, of_cpu) = (members.mb_per_s / bulk.mb_per_s, members.cpu_s_per_gb / bulk.cpu_s_per_gb);
    println!("bulk | ratio of members (aim of MB/s: at least {MEMBERS_MIN:.2}) | {of_speed:.3} | {of_cpu:.3}");
    println!("bulk | ratio (aim of CPU: at most {RATIO_MAX:.2}) | {speed:.2} | {cpu:.2}");
}

struct Figures {
    mb_per_s: f64,
    cpu_s_per_gb: f64,
}

impl Figures {
    fn median(rounds: &[Self]) -> Self {
        let middle = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Self {
            mb_per_s: middle(rounds.iter().map(|round| round.mb_per_s).collect()),
            cpu_s_per_gb: middle(rounds.iter().map(|round| round.cpu_s_per_gb).collect()),
        }
    }
}

/// Processor time of this process so far, in seconds.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the program's name, which alone may have blanks, utime and stime are fields 12 and 13.
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    fields.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_S
}

async fn measure(blob: &OneBlob, fetch: impl Future<Output = u64>) -> Figures {
    let (cpu, clock) = (cpu_s(), Instant::now());
    assert_eq!(fetch.await, blob.bytes.len() as u64);
    let (cpu, took) = (cpu_s() - cpu, clock.elapsed().as_secs_f64());
    let bytes = blob.bytes.len() as f64;
    Figures { mb_per_s: bytes / 1e6 / took, cpu_s_per_gb: cpu / (bytes / 1e9) }
}

/// The blob that both send.
#[derive(Clone)]
struct OneBlob {
    content: ContentId,
    bytes: Bytes,
    map: Arc<PieceMap>,
}

impl OneBlob {
    fn new(bytes: Bytes) -> Self {
        let (content, map) = (ContentId::of(Algorithm::Sha256, &bytes), PieceMap::of(&bytes).unwrap());
        Self { content, bytes, map: Arc::new(map) }
    }
}

impl BlobSource for OneBlob {
    type Reader = Reader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        (*content == self.content).then_some(self.bytes.len() as u64)
    }

    async fn piece_map(&self, content: &ContentId) -> Option<PieceMap> {
        (*content == self.content).then(|| PieceMap::clone(&self.map))
    }

    fn reader(&self, _: ContentId) -> Reader {
        Reader(self.bytes.clone())
    }
}

struct Reader(Bytes);

impl BlobRead for Reader {
    async fn size(&mut self) -> u64 {
        self.0.len() as u64
    }

    async fn read(&mut self, offset: u64, max: usize) -> io::Result<Bytes> {
        let start = usize::try_from(offset).unwrap();
        Ok(self.0.slice(start..start.saturating_add(max).min(self.0.len())))
    }
}

/// Two nodes' bulk exchange.
struct Bulk {
    client: BulkClient,
    node: NodeId,
    addr: std::net::SocketAddr,
    content: ContentId,
    _server: tokio_util::sync::DropGuard,
}

/// An end of a connection.
struct Ends {
    keypair: Keypair,
    fleet: Fleet,
}

impl Ends {
    fn open() -> Self {
        Self { keypair: Keypair::generate_ed25519(), fleet: Fleet::open() }
    }

    /// Two members that have shown each other their memberships.
    fn members() -> (tempfile::TempDir, (Self, Self)) {
        let dir = tempfile::tempdir().unwrap();
        let (authority, _) = files::create_authority(dir.path()).unwrap();
        let key = FleetKey::generate().unwrap();
        let enrolment =
            Enrolment { authority: authority.public(), key: key.public(), issued_unix_s: 0, expires_unix_s: u64::MAX };
        let path = dir.path().join("enrolment.pem");
        let enrolment = record::sign(&authority.keypair, &enrolment).unwrap();
        files::write_enrolment_key(&path, &key, &enrolment).unwrap();
        let end = |name: &str| {
            let keypair = Keypair::generate_ed25519();
            let authorities = vec![authority.public()];
            let options = FleetOptions { authorities, enrolment_key: Some(path.clone()), ..FleetOptions::default() };
            let fleet = Fleet::load(&keypair, options, &dir.path().join(name)).unwrap();
            Self { keypair, fleet }
        };
        let (server, client) = (end("server"), end("client"));
        let id = |end: &Self| record::public(&end.keypair).unwrap();
        server.fleet.admit(id(&client), &client.fleet.credential()).unwrap();
        client.fleet.admit(id(&server), &server.fleet.credential()).unwrap();
        (dir, (server, client))
    }
}

impl Bulk {
    async fn new(blob: &OneBlob, (of_server, of_client): (Ends, Ends)) -> Self {
        let keypair = of_server.keypair;
        let counters = Arc::<Counters>::default();
        let server = BulkServer::bind(
            ([127, 0, 0, 1], 0).into(),
            (&keypair, &of_server.fleet),
            blob.clone(),
            counters,
            ServerLimits::default(),
        )
        .await
        .unwrap();
        let (addr, stop) = (server.local_addr(), CancellationToken::new());
        tokio::spawn(server.run(stop.clone()));
        let node = layermesh::identity::node_id(&keypair).unwrap();
        let client = BulkClient::new(&of_client.keypair, &of_client.fleet).unwrap();
        Self { client, node, addr, content: blob.content, _server: stop.drop_guard() }
    }

    async fn fetch(&mut self) -> u64 {
        let mut body = self.client.open(self.node, self.addr, self.content, None, 0..u32::MAX).await.unwrap();
        let mut read = 0;
        while let Some(chunk) = body.stream.next().await {
            read += chunk.unwrap().len() as u64;
        }
        read
    }
}

/// One substream between two libp2p nodes. Its server answers every byte with the whole blob.
struct Substream {
    stream: SubstreamBox,
    buffer: Vec<u8>,
    len: usize,
}

fn transport() -> Boxed<(PeerId, StreamMuxerBox)> {
    let keypair = Keypair::generate_ed25519();
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&keypair).unwrap())
        .multiplex(yamux::Config::default())
        .boxed()
}

/// Does a connection's work for as long as it lasts.
async fn drive(mut connection: StreamMuxerBox) {
    while poll_fn(|cx| connection.poll_unpin(cx)).await.is_ok() {}
}

impl Substream {
    async fn new(blob: &OneBlob) -> Self {
        let (mut listening, mut dialling) = (transport(), transport());
        listening.listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = loop {
            if let TransportEvent::NewAddress { listen_addr, .. } = listening.select_next_some().await {
                break listen_addr;
            }
        };
        let bytes = blob.bytes.clone();
        tokio::spawn(async move {
            let upgrade = loop {
                if let TransportEvent::Incoming { upgrade, .. } = listening.select_next_some().await {
                    break upgrade;
                }
            };
            let (_, mut connection) = upgrade.await.unwrap();
            let stream = poll_fn(|cx| connection.poll_inbound_unpin(cx)).await.unwrap();
            tokio::spawn(drive(connection));
            serve(stream, bytes).await.unwrap();
        });
        let options = libp2p::core::transport::DialOpts {
            role: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::New,
        };
        let (_, mut connection) = dialling.dial(address, options).unwrap().await.unwrap();
        let stream = poll_fn(|cx| connection.poll_outbound_unpin(cx)).await.unwrap();
        // It ends with the connection; nothing is left to do with its answer.
        drop(tokio::spawn(drive(connection).map(drop)));
        Self { stream, buffer: vec![0; CHUNK_BYTES], len: blob.bytes.len() }
    }

    async fn fetch(&mut self) -> u64 {
        self.stream.write_all(&[1]).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut read = 0;
        while read < self.len {
            let more = self.stream.read(&mut self.buffer).await.unwrap();
            assert_ne!(more, 0, "the substream ended");
            read += more;
        }
        read as u64
    }
}

async fn serve(mut stream: SubstreamBox, bytes: Bytes) -> io::Result<()> {
    let mut request = [0];
    while stream.read(&mut request).await? == 1 {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            stream.write_all(chunk).await?;
        }
        stream.flush().await?;
    }
    Ok(())
}
