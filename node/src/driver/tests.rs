//! What the driver does of an action at once, and what it leaves to tasks.

use std::sync::Arc;

use bytes::Bytes;
use layermesh_proto::{Algorithm, ObjectKind, PieceHash, Repository, engine::config::Config, piece::PIECE_LEN_MIN};
use libp2p::identity::Keypair;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{
    counters::Counters,
    exchange::BulkClient,
    fleet::Fleet,
    mesh::Mesh,
    origin::Origins,
    pace::Pace,
    store::{Opened, Partial, Store, StoreOptions},
};

const PIECE: usize = PIECE_LEN_MIN as usize;
const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    driver: Driver,
    store: Store,
    dir: TempDir,
}

async fn open(dir: &TempDir) -> Opened {
    Store::open(StoreOptions { free_bytes_min: 0, ..StoreOptions::new(dir.path().to_owned()) }).await.unwrap()
}

impl Rig {
    /// A driver that nobody talks to.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let Opened { store, events: store_events, .. } = open(&dir).await;
        let node = NodeId::from_public_key([7; 32]);
        let counters = Arc::<Counters>::default();
        let (events, task_events) = mpsc::channel(TASK_EVENT_QUEUE_LEN);
        let fetches = FetchContext {
            store: store.clone(),
            origins: Origins::new(Vec::new(), None, node, Arc::clone(&counters)).unwrap(),
            bulk: BulkClient::new(&Keypair::generate_ed25519(), &Fleet::open()).unwrap(),
            uplink: Arc::new(Pace::new(None)),
            counters,
            events,
        };
        let driver = Driver::new(Parts {
            engine: Engine::new(Config::default(), node, 1),
            fetches,
            task_events,
            swarm: SwarmHandle::of_nothing(),
            swarm_events: mpsc::channel(1).1,
            store_events,
            commands: Mesh::new().1,
            listening: watch::Sender::new(Vec::new()),
            remembered: Remembered::load(dir.path().join("peers.json")).0,
            examines: mpsc::channel(1).0,
            deltas: mpsc::channel(1).0,
        });
        Self { driver, store, dir }
    }

    async fn told(&mut self) -> Event {
        timeout(PATIENCE, self.driver.parts.task_events.recv()).await.unwrap().unwrap()
    }

    /// Pieces 0 to 2 of a blob of four, durable.
    async fn begun(&self) -> (ContentId, Bytes, Partial) {
        let bytes: Bytes = (0..4 * PIECE as u32 / 4).flat_map(u32::to_le_bytes).collect();
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        let partial = self.store.begin(content, bytes.len() as u64).await.unwrap();
        for index in 0..3 {
            partial.write(index, piece(&bytes, index), None).await.unwrap();
        }
        partial.sync().await.unwrap();
        (content, bytes, partial)
    }
}

fn piece(bytes: &Bytes, index: PieceIndex) -> Bytes {
    bytes.slice(index as usize * PIECE..(index as usize + 1) * PIECE)
}

#[tokio::test]
async fn dropped_pieces_are_gone_before_the_next_action_and_stay_gone() {
    let mut rig = Rig::new().await;
    let (content, bytes, partial) = rig.begun().await;
    rig.driver.perform(Action::Drop { content, pieces: vec![0, 2, 3] });
    rig.driver.perform(Action::Recall { content });
    let kept = vec![(1, PieceHash::of(&piece(&bytes, 1)))];
    assert_eq!(rig.store.recall(&content), kept);
    assert_eq!(rig.told().await, Event::Recalled { content, pieces: kept });
    // A fetch that comes next finds it missing; here, one of a registry that does not exist.
    let repository = Repository::new("registry.invalid:1", "app").unwrap();
    let source = Source::Origin(repository, ObjectKind::Blob);
    let (fetch, size) = (FetchId(1), Some(bytes.len() as u64));
    rig.driver.perform(Action::Fetch { fetch, content, source, size, pieces: 0..2, growing: false, expected: vec![] });
    assert!(matches!(rig.told().await, Event::FetchEnded { result: Err(SourceError::Unreachable(_)), .. }));
    // Nothing was begun of this one.
    let other = ContentId::of(Algorithm::Sha256, b"other");
    rig.driver.perform(Action::Recall { content: other });
    assert_eq!(rig.told().await, Event::Recalled { content: other, pieces: vec![] });

    timeout(PATIENCE, rig.driver.stop()).await.unwrap();
    drop((partial, rig.store));
    let inventory = open(&rig.dir).await.inventory;
    assert_eq!(inventory.partial[0].2.iter().collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn expectations_live_as_long_as_their_fetch() {
    let mut rig = Rig::new().await;
    let (fetch, hash) = (FetchId(1), PieceHash([1; 32]));
    let vouched = Vouched::new(0..4);
    rig.driver
        .running
        .insert(fetch, Running { cancel: CancellationToken::new(), vouched: Some(vouched.clone()), from_origin: None });
    rig.driver
        .running
        .insert(FetchId(2), Running { cancel: CancellationToken::new(), vouched: None, from_origin: None });
    for fetch in [fetch, FetchId(2), FetchId(3)] {
        rig.driver.perform(Action::Expect { fetch, pieces: vec![(2, hash), (9, hash)] });
    }
    assert_eq!((vouched.get(2), vouched.get(9)), (Some(hash), None));
    rig.driver.handle(Event::FetchEnded { fetch, result: Ok(()) });
    rig.driver.perform(Action::CancelFetch { fetch: FetchId(2) });
    assert!(rig.driver.running.is_empty());
}
