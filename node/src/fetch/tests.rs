//! Fetches against an embedded registry, a real bulk server, and streams at hand.

use std::{future::Future, time::Duration};

use futures::stream;
use layermesh_proto::{Algorithm, PieceHash, PieceMap, piece::PIECE_LEN_MIN};
use libp2p::identity::Keypair;
use tempfile::TempDir;

use super::*;
use crate::{
    embedded::{Fault, FaultRule, Registry},
    exchange::{BulkServer, ServerLimits},
    fleet::Fleet,
    origin::OriginConfig,
    store::{Opened, StoreOptions},
};

const PIECE: usize = PIECE_LEN_MIN as usize;
/// Pieces of the first question, at the piece length of all blobs here.
const FIRST_PIECES: u32 = (FIRST_BYTES / PIECE_LEN_MIN as u64) as u32;
/// Nothing here takes a tenth of it, unless it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("this took too long")
}

fn blob(seed: u8, len: usize) -> (ContentId, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    (ContentId::of(Algorithm::Sha256, &bytes), bytes.into())
}

fn piece(bytes: &Bytes, index: PieceIndex) -> Bytes {
    let range = layout(bytes.len() as u64).unwrap().bytes_of(index);
    bytes.slice(range.start as usize..range.end as usize)
}

fn hashed(bytes: &Bytes, run: Range<PieceIndex>) -> Vec<(PieceIndex, PieceHash)> {
    run.map(|index| (index, PieceHash::of(&piece(bytes, index)))).collect()
}

fn open(dir: &TempDir) -> impl Future<Output = Opened> {
    let options = StoreOptions { free_bytes_min: 0, ..StoreOptions::new(dir.path().to_owned()) };
    async { soon(Store::open(options)).await.unwrap() }
}

/// A store, and what it takes to fetch into it.
struct Rig {
    registry: Registry,
    context: FetchContext,
    events: mpsc::Receiver<Event>,
    _dir: TempDir,
}

/// What a fetch told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    started: Option<(u64, bool)>,
    stored: Vec<(PieceIndex, PieceHash)>,
    result: Result<(), SourceError>,
}

impl Rig {
    async fn new() -> Self {
        let registry = Registry::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let config = OriginConfig {
            registry: registry.local_addr().to_string(),
            endpoint: None,
            ca_file: None,
            plain_http: true,
            credentials: None,
        };
        let counters = Arc::<Counters>::default();
        let node = NodeId::from_public_key([7; 32]);
        let origins = Origins::new(vec![config], None, node, Arc::clone(&counters)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (sender, events) = mpsc::channel(1000);
        let context = FetchContext {
            store: open(&dir).await.store,
            origins,
            bulk: BulkClient::new(&Keypair::generate_ed25519(), &Fleet::open()).unwrap(),
            uplink: Arc::new(Pace::new(None)),
            counters,
            events: sender,
        };
        Self { registry, context, events, _dir: dir }
    }

    fn repository(&self) -> Repository {
        Repository::new(&self.registry.local_addr().to_string(), "library/app").unwrap()
    }

    fn fault(&self, fault: Fault) {
        self.registry.inject(FaultRule { path_prefix: "/v2/".to_owned(), fault, times: Some(1) });
    }

    fn job(&self, fetch: u64, content: ContentId, size: Option<u64>, pieces: Range<PieceIndex>) -> Job {
        let from = Reach::Origin(self.repository(), ObjectKind::Blob);
        Job { fetch: FetchId(fetch), content, from, size, pieces }
    }

    /// An unranged first question.
    fn first(&self, content: ContentId) -> Job {
        self.job(1, content, None, 0..u32::MAX)
    }

    async fn run(&mut self, job: Job) -> Told {
        let running = tokio::spawn(self.context.clone().run(job, CancellationToken::new()));
        let told = self.told().await;
        soon(running).await.unwrap();
        told
    }

    /// What is told until a fetch ends.
    async fn told(&mut self) -> Told {
        let (mut started, mut stored) = (None, Vec::new());
        loop {
            match soon(self.events.recv()).await.unwrap() {
                Event::FetchStarted { size, ranged, .. } => {
                    assert!(started.replace((size, ranged)).is_none() && stored.is_empty());
                }
                Event::FetchStored { pieces, .. } => stored.extend(pieces),
                Event::FetchProgress { bytes, .. } => assert!(bytes > 0),
                Event::FetchEnded { result, .. } => return Told { started, stored, result },
                other => panic!("{other:?}"),
            }
        }
    }

    fn ranges(&self) -> Vec<Option<String>> {
        self.registry.requests().into_iter().map(|request| request.range).collect()
    }

    async fn write(&self, content: ContentId, bytes: &Bytes, indices: impl IntoIterator<Item = PieceIndex>) {
        let partial = soon(self.context.store.begin(content, bytes.len() as u64)).await.unwrap();
        for index in indices {
            soon(partial.write(index, piece(bytes, index), None)).await.unwrap();
        }
    }

    /// An intake of the whole blob, without a source.
    async fn intake(&self, content: ContentId, bytes: &Bytes, vouch: Vouch, cancel: &CancellationToken) -> Intake {
        let size = bytes.len() as u64;
        let job = self.job(1, content, Some(size), 0..u32::MAX);
        let plan = self.context.plan(&job).unwrap();
        let answer = Answer { size, ranged: true, run: plan.run.clone(), vouch };
        self.context.begin(&job, &plan, answer, cancel).await.unwrap()
    }
}

fn whole(bytes: &Bytes, ranged: bool) -> Told {
    let count = layout(bytes.len() as u64).unwrap().count();
    Told { started: Some((bytes.len() as u64, ranged)), stored: hashed(bytes, 0..count), result: Ok(()) }
}

/// A stream of these bytes in chunks of an odd length.
fn chunks(bytes: &Bytes) -> BoxStream<'static, Result<Bytes, SourceError>> {
    let bytes = bytes.clone();
    let starts = (0..bytes.len()).step_by(50_000);
    stream::iter(starts.map(move |at| Ok(bytes.slice(at..(at + 50_000).min(bytes.len()))))).boxed()
}

#[tokio::test]
async fn the_first_question_is_for_the_first_bytes_and_tells_the_size() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 6 << 20);
    rig.registry.put_blob(bytes.clone());
    let told = rig.run(rig.first(content)).await;
    let stored = hashed(&bytes, 0..FIRST_PIECES);
    assert_eq!(told, Told { started: Some((6 << 20, true)), stored, result: Ok(()) });
    assert_eq!(rig.ranges(), [Some(format!("bytes=0-{}", FIRST_BYTES - 1))]);
    assert_eq!(rig.registry.bytes_sent(), FIRST_BYTES);
    // The rest, asked for as a run that reaches past the end.
    let told = rig.run(rig.job(2, content, Some(6 << 20), FIRST_PIECES..u32::MAX)).await;
    assert_eq!(told.stored, hashed(&bytes, FIRST_PIECES..48));
    assert_eq!((told.started, told.result), (Some((6 << 20, true)), Ok(())));
    assert_eq!(soon(rig.context.store.complete(content)).await.unwrap(), 6 << 20);
    assert_eq!(rig.registry.bytes_sent(), 6 << 20);
}

/// The bytes that the registry was asked for, question by question.
fn asked(ranges: &[Option<String>]) -> Vec<Range<u64>> {
    let range = |range: &Option<String>| {
        let (first, last) = range.as_ref()?.strip_prefix("bytes=")?.split_once('-')?;
        Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
    };
    ranges.iter().map(|asked| range(asked).unwrap_or_else(|| panic!("not a range: {asked:?}"))).collect()
}

#[tokio::test]
async fn while_the_uplink_has_a_rate_a_body_is_asked_for_in_parts() {
    let mut rig = Rig::new().await;
    // What passes in the shortest time that a part has; parts are larger where the registry takes long to answer.
    let part = 1_000_000;
    rig.context.uplink = Arc::new(Pace::new(Some(part * 10)));
    let (content, bytes) = blob(1, FIRST_BYTES as usize + 100_000);
    let size = bytes.len() as u64;
    rig.registry.put_blob(bytes.clone());
    let told = rig.run(rig.first(content)).await;
    assert_eq!((told.started, told.result), (Some((size, true)), Ok(())));
    assert_eq!(told.stored, hashed(&bytes, 0..FIRST_PIECES));
    let parts = asked(&rig.ranges());
    assert_eq!(parts[0], 0..part, "{parts:?}");
    assert!(parts.windows(2).all(|two| two[0].end == two[1].start), "{parts:?}");
    assert!(parts[..parts.len() - 1].iter().all(|range| range.end - range.start >= part), "{parts:?}");
    assert_eq!(parts.last().map(|range| range.end), Some(FIRST_BYTES), "{parts:?}");
    let told = rig.run(rig.job(2, content, Some(size), FIRST_PIECES..u32::MAX)).await;
    assert_eq!(told.result, Ok(()));
    assert_eq!(soon(rig.context.store.complete(content)).await.unwrap(), size);
    assert_eq!(rig.registry.bytes_sent(), size);
    // What a small blob has not takes no time: at this rate, the question alone would be for seven minutes.
    rig.context.uplink = Arc::new(Pace::new(Some(10)));
    let (content, bytes) = blob(2, 10);
    rig.registry.put_blob(bytes.clone());
    assert_eq!(rig.run(rig.first(content)).await, whole(&bytes, true));
    assert_eq!(rig.ranges().last(), Some(&Some("bytes=0-4095".to_owned())));
    assert!(rig.context.uplink.turn(0) <= Instant::now() + Duration::from_secs(1));
}

#[tokio::test]
async fn a_registry_that_stops_doing_ranges_ends_a_body_that_came_in_parts() {
    let mut rig = Rig::new().await;
    rig.context.uplink = Arc::new(Pace::new(Some(10_000_000)));
    let (content, bytes) = blob(1, 2_000_000);
    rig.registry.put_blob(bytes.clone());
    let job = rig.first(content);
    rig.registry.inject(FaultRule { path_prefix: "/v2/".to_owned(), fault: Fault::IgnoreRange, times: Some(1) });
    assert_eq!(rig.run(job).await, whole(&bytes, false), "from the first: all of it");
    let (content, bytes) = blob(2, 2_000_000);
    rig.registry.put_blob(bytes.clone());
    let cancel = CancellationToken::new();
    let running = tokio::spawn(rig.context.clone().run(rig.first(content), cancel));
    let event = soon(rig.events.recv()).await.unwrap();
    assert!(matches!(event, Event::FetchStarted { ranged: true, .. }), "{event:?}");
    rig.fault(Fault::IgnoreRange);
    let told = rig.told().await;
    assert!(matches!(told.result, Err(SourceError::Failed(_))), "{:?}", told.result);
    assert_eq!(told.stored, hashed(&bytes, 0..told.stored.len() as u32), "what came before stays");
    soon(running).await.unwrap();
}

#[tokio::test]
async fn small_and_empty_blobs_and_manifests_come_with_the_first_question() {
    let mut rig = Rig::new().await;
    for (seed, len) in [(1, 0), (2, 1), (3, PIECE), (4, FIRST_BYTES as usize)] {
        let (content, bytes) = blob(seed, len);
        rig.registry.put_blob(bytes.clone());
        assert_eq!(rig.run(rig.first(content)).await, whole(&bytes, true), "{len} bytes");
        assert_eq!(soon(rig.context.store.complete(content)).await.unwrap(), len as u64);
    }
    assert_eq!(rig.registry.request_count(), 4);
    let manifest = Bytes::from_static(b"{\"schemaVersion\":2}");
    let content = rig.registry.put_manifest("library/app", None, manifest.clone(), "application/json");
    let job = Job { from: Reach::Origin(rig.repository(), ObjectKind::Manifest), ..rig.first(content) };
    assert_eq!(rig.run(job).await, whole(&manifest, true));
}

#[tokio::test]
async fn origins_without_ranges_give_the_whole_and_are_known_by_it() {
    let unsaid = |name| Fault::Header { name, value: None };
    let star = Fault::Header { name: "content-range", value: Some("bytes 0-4194303/*".to_owned()) };
    for (seed, len) in [(1, 0), (2, 1000), (3, 3 << 20), (4, 6 << 20)] {
        let mut faults = vec![vec![Fault::IgnoreRange], vec![Fault::OddRangeNotSatisfiable]];
        if len < UNSIZED_BODY_MAX {
            // Without a length, it is buffered, so it must be small.
            faults.push(vec![Fault::IgnoreRange, unsaid("content-length")]);
        } else {
            // A part that does not say of how much is asked for again as a whole.
            faults.push(vec![star.clone()]);
        }
        for faults in faults.into_iter().filter(|faults| len > 0 || *faults == [Fault::IgnoreRange]) {
            let mut rig = Rig::new().await;
            let (content, bytes) = blob(seed, len);
            rig.registry.put_blob(bytes.clone());
            faults.iter().for_each(|fault| rig.fault(fault.clone()));
            assert_eq!(rig.run(rig.first(content)).await, whole(&bytes, false), "{len} bytes, {faults:?}");
            assert_eq!(soon(rig.context.store.complete(content)).await.unwrap(), len as u64);
        }
    }
}

#[tokio::test]
async fn a_run_from_an_origin_without_ranges_is_cut_out_of_the_whole() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 8 * PIECE);
    rig.registry.put_blob(bytes.clone());
    rig.fault(Fault::IgnoreRange);
    let told = rig.run(rig.job(1, content, Some(8 * PIECE as u64), 3..5)).await;
    let started = Some((8 * PIECE as u64, false));
    assert_eq!(told, Told { started, stored: hashed(&bytes, 3..5), result: Ok(()) });
    assert_eq!(rig.context.counters.discarded.get(), 3 * PIECE as u64);
    // One that stalls before the run has said by then what it is.
    rig.fault(Fault::IgnoreRange);
    rig.fault(Fault::Stall { after: PIECE as u64 });
    let cancel = CancellationToken::new();
    let job = rig.job(2, content, Some(8 * PIECE as u64), 6..8);
    let running = tokio::spawn(rig.context.clone().run(job, cancel.clone()));
    let event = soon(rig.events.recv()).await.unwrap();
    assert!(matches!(event, Event::FetchStarted { ranged: false, .. }), "{event:?}");
    cancel.cancel();
    assert_eq!(rig.told().await.result, Err(SourceError::Cancelled));
    soon(running).await.unwrap();
}

#[tokio::test]
async fn pieces_that_are_there_are_told_and_not_asked_for() {
    let mut rig = Rig::new().await;
    let size = 6 << 20;
    let (content, bytes) = blob(1, size);
    rig.registry.put_blob(bytes.clone());
    rig.write(content, &bytes, (0..3).chain([4])).await;
    // Also where nobody knows the size yet; one in the middle comes again.
    let told = rig.run(rig.first(content)).await;
    let stored = hashed(&bytes, 0..FIRST_PIECES);
    assert_eq!(told, Told { started: Some((size as u64, true)), stored, result: Ok(()) });
    assert_eq!(rig.ranges(), [Some(format!("bytes={}-{}", 3 * PIECE, FIRST_BYTES - 1))]);
    assert_eq!(rig.context.counters.discarded.get(), PIECE as u64);
    // Past what a first question is for, it is for as much again.
    let told = rig.run(rig.first(content)).await;
    assert_eq!((told.stored, told.result), (hashed(&bytes, 0..48), Ok(())));
    assert_eq!(rig.ranges()[1], Some(format!("bytes={}-{}", FIRST_BYTES, 2 * FIRST_BYTES - 1)));
    // All of it there: nobody is asked.
    for size in [None, Some(size as u64)] {
        assert_eq!(rig.run(rig.job(3, content, size, 0..u32::MAX)).await, whole(&bytes, true));
    }
    assert_eq!(rig.registry.request_count(), 2);
}

#[tokio::test]
async fn the_origin_says_how_large_a_blob_is() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 8 * PIECE);
    rig.registry.put_blob(bytes.clone());
    let (_, other) = blob(2, 5 * PIECE);
    let wrong = soon(rig.context.store.begin(content, other.len() as u64)).await.unwrap();
    // What was written under a wrong size goes, and whoever writes it on is told; not that the disk is at fault.
    soon(wrong.write(1, piece(&other, 1), None)).await.unwrap();
    assert_eq!(rig.run(rig.first(content)).await, whole(&bytes, true));
    let error = soon(wrong.write(2, piece(&other, 2), None)).await.unwrap_err();
    assert!(matches!(write_error(&error), SourceError::Failed(_)));

    // With pieces at the start that were built on, the first try finds out and the second starts from nothing.
    let (content, bytes) = blob(3, 8 * PIECE);
    rig.registry.put_blob(bytes.clone());
    rig.write(content, &other, [0]).await;
    assert!(matches!(rig.run(rig.first(content)).await.result, Err(SourceError::Failed(_))));
    assert_eq!(rig.run(rig.first(content)).await, whole(&bytes, true));
    // A size that the engine knows is not the origin's to change.
    let told = rig.run(rig.job(1, content, Some(PIECE as u64), 0..1)).await;
    assert!(matches!(told.result, Err(SourceError::Failed(_))), "{told:?}");
}

#[tokio::test]
async fn runs_of_one_blob_come_at_the_same_time() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 24 * PIECE + 5);
    rig.registry.put_blob(bytes.clone());
    let runs = [0..9, 6..14, 14..20, 18..25, 24..u32::MAX];
    let size = Some(bytes.len() as u64);
    for (fetch, run) in (0..).zip(runs.clone()) {
        tokio::spawn(rig.context.clone().run(rig.job(fetch, content, size, run), CancellationToken::new()));
    }
    let (mut stored, mut ended) = (std::collections::BTreeMap::<_, Vec<_>>::new(), 0);
    while ended < runs.len() {
        match soon(rig.events.recv()).await.unwrap() {
            Event::FetchStored { fetch, pieces } => stored.entry(fetch).or_default().extend(pieces),
            Event::FetchEnded { result, .. } => {
                assert_eq!(result, Ok(()));
                ended += 1;
            }
            _ => {}
        }
    }
    // Each tells of all its pieces, whoever wrote them.
    for (fetch, run) in (0..).zip(runs) {
        assert_eq!(stored[&FetchId(fetch)], hashed(&bytes, run.start..run.end.min(25)));
    }
    soon(rig.context.store.complete(content)).await.unwrap();
    assert_eq!(soon(rig.context.store.read_whole(&content, 1 << 30)).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_growing_blob_comes_from_a_peer_as_others_vouch_for_it() {
    let mut rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    let upstream = open(&dir).await.store;
    let (content, bytes) = blob(1, 4 * PIECE + 9);
    let partial = soon(upstream.begin(content, bytes.len() as u64)).await.unwrap();
    for index in 0..3 {
        soon(partial.write(index, piece(&bytes, index), None)).await.unwrap();
    }
    let keypair = Keypair::generate_ed25519();
    let server = BulkServer::bind(
        ([127, 0, 0, 1], 0).into(),
        (&keypair, &Fleet::open()),
        upstream.clone(),
        Arc::default(),
        ServerLimits::default(),
    )
    .await
    .unwrap();
    let bulk = server.local_addr();
    let shutdown = CancellationToken::new();
    tokio::spawn(server.run(shutdown.clone()));
    let peer = NodeId::from_peer_id_bytes(&keypair.public().to_peer_id().to_bytes()).unwrap();

    let vouched = Vouched::new(0..u32::MAX);
    vouched.add(hashed(&bytes, 0..1));
    let from = Reach::Peer { peer, bulk, growing: Some(vouched.clone()) };
    let job = Job { fetch: FetchId(1), content, from, size: None, pieces: 0..u32::MAX };
    let running = tokio::spawn(rig.context.clone().run(job, CancellationToken::new()));
    let mine = rig.context.store.reader(content);
    let mut mine = tokio::spawn(async move {
        let mut mine = mine;
        (mine.read(0, 1).await.unwrap(), mine)
    });
    // The first is there without a word more; the others once they are vouched for and have landed there.
    let (_, mut reader) = soon(&mut mine).await.unwrap();
    assert!(futures::poll!(std::pin::pin!(reader.read(PIECE as u64, 1))).is_pending());
    vouched.add(hashed(&bytes, 1..5));
    soon(reader.read(2 * PIECE as u64, 1)).await.unwrap();
    for index in 3..5 {
        soon(partial.write(index, piece(&bytes, index), None)).await.unwrap();
    }
    assert_eq!(rig.told().await, whole(&bytes, true));
    soon(running).await.unwrap();

    // Of a peer that has it all, its own map counts.
    soon(upstream.complete(content)).await.unwrap();
    assert!(soon(rig.context.store.remove(&content)).await.unwrap());
    let from = Reach::Peer { peer, bulk, growing: None };
    let job = Job { fetch: FetchId(2), content, from, size: None, pieces: 0..u32::MAX };
    assert_eq!(rig.run(job).await, whole(&bytes, true));
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_piece_that_nobody_vouches_for_is_not_stored() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 3 * PIECE);
    let vouched = Vouched::new(0..3);
    vouched.add(hashed(&bytes, 0..1));
    let intake = rig.intake(content, &bytes, Vouch::Others(vouched.clone()), &CancellationToken::new()).await;
    let start = Instant::now();
    let error = intake.drain(chunks(&bytes), 0).await.unwrap_err();
    assert_eq!(error, SourceError::Unreachable("nobody vouched for its piece 1 in time".to_owned()));
    assert!(start.elapsed() >= VOUCH_WAIT);
    assert_eq!(rig.context.store.recall(&content), hashed(&bytes, 0..1));
    assert_eq!(rig.context.counters.discarded.get(), PIECE as u64);
    // The engine has heard of the bytes that wait.
    let mut bytes_told = 0;
    while let Ok(event) = rig.events.try_recv() {
        if let Event::FetchProgress { bytes, .. } = event {
            bytes_told += bytes;
        }
    }
    assert_eq!(bytes_told, 300_000);
}

#[tokio::test]
async fn a_piece_must_be_the_one_that_was_vouched_for_last() {
    let rig = Rig::new().await;
    let (content, bytes) = blob(1, 3 * PIECE);
    let wrong = hashed(&blob(2, 3 * PIECE).1, 0..3);
    let vouched = Vouched::new(0..3);
    vouched.add(wrong.clone());
    vouched.add(hashed(&bytes, 0..1));
    let intake = rig.intake(content, &bytes, Vouch::Others(vouched.clone()), &CancellationToken::new()).await;
    assert_eq!(soon(intake.drain(chunks(&bytes), 0)).await, Err(SourceError::WrongBytes));
    assert_eq!(rig.context.store.recall(&content), hashed(&bytes, 0..1));
    // As with the map of a peer that has it all.
    let map = PieceMap::new(layout(3 * PIECE as u64).unwrap(), wrong.into_iter().map(|(_, hash)| hash).collect());
    let intake = rig.intake(content, &bytes, Vouch::Map(map.unwrap().into()), &CancellationToken::new()).await;
    let rest = bytes.slice(PIECE..);
    assert_eq!(soon(intake.drain(chunks(&rest), 0)).await, Err(SourceError::WrongBytes));
}

#[tokio::test]
async fn a_piece_that_somebody_else_brings_waits_for_nobody() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, 2 * PIECE);
    let vouched = Vouched::new(0..2);
    let cancel = CancellationToken::new();
    let intake = rig.intake(content, &bytes, Vouch::Others(vouched.clone()), &cancel).await;
    let running = tokio::spawn(intake.drain(chunks(&bytes), 0));
    rig.write(content, &bytes, [0]).await;
    let stored = async {
        loop {
            if let Event::FetchStored { pieces, .. } = rig.events.recv().await.unwrap() {
                break pieces;
            }
        }
    };
    assert_eq!(soon(stored).await, hashed(&bytes, 0..1));
    // The second one waits until it is told to stop.
    cancel.cancel();
    assert_eq!(soon(running).await.unwrap(), Err(SourceError::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_before_it_is_durable_and_becomes_so_by_itself() {
    let rig = Rig::new().await;
    let (content, bytes) = blob(1, 3 * PIECE);
    let intake = rig.intake(content, &bytes, Vouch::Nobody, &CancellationToken::new()).await;
    let partial = rig.context.store.begun(&content).unwrap();
    let mut flushed = partial.flushed();
    let start = Instant::now();
    assert_eq!(intake.drain(chunks(&bytes), 0).await, Ok(()));
    assert_eq!((start.elapsed(), partial.pieces().count()), (Duration::ZERO, 0));
    soon(flushed.changed()).await.unwrap();
    assert_eq!(partial.pieces().count(), 3);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_trickle_are_reported_in_time_as_many_as_they_are() {
    let mut rig = Rig::new().await;
    let (content, bytes) = blob(1, PIECE);
    let intake = rig.intake(content, &bytes, Vouch::Nobody, &CancellationToken::new()).await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, SourceError>>(10);
    let stream = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let running = tokio::spawn(intake.drain(stream.boxed(), 0));
    assert!(matches!(rig.events.recv().await, Some(Event::FetchStarted { .. })));
    for (at, len) in [(0, 10), (10, 7)] {
        sender.send(Ok(bytes.slice(at..at + len))).await.unwrap();
        let event = soon(rig.events.recv()).await.unwrap();
        assert_eq!(event, Event::FetchProgress { fetch: FetchId(1), bytes: len as u64 });
    }
    drop(sender);
    assert!(matches!(soon(running).await.unwrap(), Err(SourceError::Unreachable(_))));
}
