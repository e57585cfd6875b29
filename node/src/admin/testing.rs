//! Fakes for tests: a store in memory, and a driver that gives what a fake world has.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use layermesh_proto::{
    Algorithm, ContentId, NodeId, TagRef,
    engine::{
        BindingView, Urgency,
        budget::{Reason, Wait},
        event::{Basis, Provenance, Resolution, WantError},
        overview::Overview,
    },
    wire::Binding,
};
use tokio::{sync::watch, time::Instant};

use super::{NodeFacts, NodeView, StoreBlob, StoreTotals, StoreView, types::ListenStatus};
use crate::{
    counters::Counters,
    mesh::{Command, Mesh, MeshStatus, PeerStatus, TransferStatus},
    store::{AttachedStore, Collected, CollectedKind, PinOwner},
};

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeStore {
    blobs: Arc<Mutex<BTreeMap<ContentId, Bytes>>>,
    pins: Arc<Mutex<BTreeMap<PinOwner, Vec<ContentId>>>>,
    /// Most bytes that an image may have.
    pub(crate) room: Option<u64>,
    /// Blobs that are found damaged when they are read.
    pub(crate) damaged: Arc<Mutex<Vec<ContentId>>>,
}

impl FakeStore {
    pub(crate) fn put(&self, bytes: impl Into<Bytes>) -> ContentId {
        let bytes = bytes.into();
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        self.blobs.lock().unwrap().insert(content, bytes);
        content
    }

    pub(crate) fn remove(&self, content: &ContentId) {
        self.blobs.lock().unwrap().remove(content);
    }

    pub(crate) fn get(&self, content: &ContentId) -> Option<Bytes> {
        self.blobs.lock().unwrap().get(content).cloned()
    }
}

impl StoreView for FakeStore {
    type Hold = ();

    fn totals(&self) -> StoreTotals {
        let blobs = self.blobs.lock().unwrap();
        let bytes = blobs.values().map(|bytes| bytes.len() as u64).sum();
        StoreTotals { blobs: blobs.len() as u64, bytes, quota: 1 << 30, ..StoreTotals::default() }
    }

    fn list(&self) -> Vec<StoreBlob> {
        let blobs = self.blobs.lock().unwrap();
        let row = |(content, bytes): (&ContentId, &Bytes)| StoreBlob {
            content: *content,
            size: bytes.len() as u64,
            own: true,
        };
        blobs.iter().map(row).collect()
    }

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        self.get(content).map(|bytes| bytes.len() as u64)
    }

    async fn read_whole(&self, content: &ContentId, bytes_max: u64) -> Result<Bytes, String> {
        match self.get(content) {
            Some(bytes) if bytes.len() as u64 <= bytes_max => Ok(bytes),
            Some(_) => Err("too large".to_owned()),
            None => Err("not held".to_owned()),
        }
    }

    fn hold(&self, _content: ContentId) {}

    async fn reserve(&self, parts: Vec<(ContentId, u64)>) -> Result<(), String> {
        let needed: u64 = parts.iter().map(|(_, size)| size).sum();
        match self.room {
            Some(room) if needed > room => Err(format!("no room for {needed}")),
            _ => Ok(()),
        }
    }

    fn pins(&self) -> Vec<(PinOwner, Vec<ContentId>)> {
        self.pins.lock().unwrap().clone().into_iter().collect()
    }

    async fn replace_pins(&self, owner: PinOwner, contents: Vec<ContentId>) -> Result<(), String> {
        self.pins.lock().unwrap().insert(owner, contents);
        Ok(())
    }

    async fn unpin(&self, owner: PinOwner) -> Result<usize, String> {
        Ok(self.pins.lock().unwrap().remove(&owner).map_or(0, |contents| contents.len()))
    }

    async fn verify(&self, content: ContentId, _bytes_per_s: u64) -> Result<bool, String> {
        let mut damaged = self.damaged.lock().unwrap();
        let Some(at) = damaged.iter().position(|one| *one == content) else { return Ok(true) };
        damaged.remove(at);
        self.blobs.lock().unwrap().remove(&content);
        Ok(false)
    }

    async fn bindings(&self) -> Vec<Binding> {
        Vec::new()
    }

    async fn attach(&self, dir: PathBuf, _reuse: bool) -> Result<(), String> {
        Err(format!("{} is not there", dir.display()))
    }

    async fn detach(&self, _dir: PathBuf) -> Result<bool, String> {
        Ok(false)
    }

    fn attached(&self) -> Vec<AttachedStore> {
        Vec::new()
    }

    async fn collect(&self, _target: Option<u64>, dry_run: bool) -> Result<Vec<Collected>, String> {
        let mut blobs = self.blobs.lock().unwrap();
        let pins = self.pins();
        let loose: Vec<_> =
            blobs.keys().copied().filter(|content| !pins.iter().any(|(_, pinned)| pinned.contains(content))).collect();
        let gone = loose.into_iter().map(|content| {
            let bytes = if dry_run { blobs.get(&content).cloned() } else { blobs.remove(&content) };
            Collected { content, bytes: bytes.map_or(0, |bytes| bytes.len() as u64), kind: CollectedKind::Whole }
        });
        Ok(gone.collect())
    }
}

/// What the fake driver can get, and a node that knows nothing else.
pub(crate) struct World {
    pub(crate) elsewhere: FakeStore,
    pub(crate) tags: BTreeMap<String, ContentId>,
    /// Wants never end, as while a transfer is under way.
    pub(crate) stuck: bool,
    pub(crate) status: MeshStatus,
    pub(crate) overview: Overview,
    pub(crate) bindings: Vec<BindingView>,
}

impl World {
    pub(crate) fn new() -> Self {
        let peer = NodeId::from_public_key([7; 32]);
        let status = MeshStatus {
            peers: vec![PeerStatus {
                peer,
                address: [10, 0, 0, 2].into(),
                bulk: Some(([10, 0, 0, 2], 7119).into()),
                version: Some("0.1.0".to_owned()),
                platform: Some("linux/arm64".to_owned()),
                blobs: 3,
            }],
            transfers: Vec::new(),
            origins: vec![("docker.io".to_owned(), true), ("gone.test".to_owned(), false)],
            ..MeshStatus::default()
        };
        Self {
            elsewhere: FakeStore::default(),
            tags: BTreeMap::new(),
            stuck: false,
            status,
            overview: Overview::default(),
            bindings: Vec::new(),
        }
    }

    /// A node in this world. Its driver lives as long as the view.
    pub(crate) fn node(self) -> NodeView<FakeStore> {
        let ((mesh, mut commands), store) = (Mesh::new(), FakeStore::default());
        let (counters, mut world) = (Arc::new(Counters::default()), self);
        let (held, counted) = (store.clone(), counters.clone());
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Want { content, urgency: Urgency::Background, ended, .. } => {
                        let minutes = Some(185);
                        let waits_for = Some(Wait { reason: Reason::Window, minutes });
                        let waits = TransferStatus { waits_for, ..transfer(content) };
                        world.status.transfers.push(waits);
                        waiting.push(ended);
                    }
                    Command::Want { content, ended, .. } if world.stuck => {
                        world.status.transfers.push(TransferStatus {
                            content,
                            size: Some(100),
                            durable_bytes: 40,
                            sources: vec!["origin".to_owned()],
                            ..transfer(content)
                        });
                        waiting.push(ended);
                    }
                    Command::Want { content, ended, .. } => {
                        let found = world.elsewhere.get(&content).ok_or(WantError::NotFound);
                        let _ = ended.send(found.map(|bytes| {
                            counted.from_peers.add(bytes.len() as u64);
                            held.put(bytes);
                        }));
                    }
                    Command::Resolve { reference, answer, .. } => {
                        let _ = answer.send(world.resolve(&reference));
                    }
                    Command::Bindings { answer } => {
                        let _ = answer.send(world.bindings.clone());
                    }
                    Command::Status { answer } => {
                        let _ = answer.send(world.status.clone());
                    }
                    Command::Overview { answer, .. } => {
                        let _ = answer.send((world.status.clone(), world.overview.clone()));
                    }
                    Command::Recall { reference, answer } => {
                        let _ = answer.send(world.resolve(&reference).ok());
                    }
                    Command::Holders { contents, answer } => {
                        let _ = answer.send(world.holders(&contents));
                    }
                    Command::Following(_) | Command::Examined { .. } | Command::Rollout(_) => {}
                    Command::FollowerPlatforms { answer, .. } => drop(answer.send(Vec::new())),
                    Command::Keeps { blobs, answer, .. } => drop(answer.send(vec![true; blobs.len()])),
                    Command::Rollouts { answer } => drop(answer.send(Vec::new())),
                    Command::KnownTags { .. }
                    | Command::SignedBindings(_)
                    | Command::TookIn { .. }
                    | Command::Prepare(_)
                    | Command::Rebuildable { .. }
                    | Command::RebuildProgress { .. }
                    | Command::RebuildFailed { .. }
                    | Command::Bind(_)
                    | Command::Promise { .. }
                    | Command::ReaderAt { .. }
                    | Command::Unwant { .. } => {}
                }
            }
        });
        let listen = ListenStatus {
            mirror: "127.0.0.1:1".to_owned(),
            peers: "0.0.0.0:2".to_owned(),
            bulk: "0.0.0.0:3".to_owned(),
            status: "127.0.0.1:4".to_owned(),
        };
        let facts = NodeFacts {
            peer_id: NodeId::from_public_key([9; 32]).to_string(),
            fleet: "default".to_owned(),
            started: Instant::now(),
            listen,
            addresses: watch::channel(vec!["/ip4/10.0.0.1/tcp/2".to_owned()]).1,
            releases: crate::release::status::ReleasesView::none(),
            fleet_of_node: crate::fleet::Fleet::open(),
        };
        NodeView { mesh, store, counters, facts: Arc::new(facts) }
    }

    /// The only peer holds what is elsewhere.
    fn holders(&self, contents: &[ContentId]) -> Vec<Vec<NodeId>> {
        let peer = |content| self.elsewhere.get(content).map(|_| self.status.peers[0].peer);
        contents.iter().map(|content| peer(content).into_iter().collect()).collect()
    }

    fn resolve(&self, reference: &TagRef) -> Result<Resolution, WantError> {
        let content = *self.tags.get(&reference.to_string()).ok_or(WantError::NotFound)?;
        Ok(Resolution { content, provenance: Provenance::Origin, basis: Basis::Asked, age: None })
    }

    /// Puts an image with two platforms, tagged `name`, elsewhere.
    pub(crate) fn image(&mut self, name: &str) -> TestImage {
        let manifest = |world: &Self, word: &str| {
            let config = world.elsewhere.put(format!("{{\"config\":\"{word}\"}}"));
            let layers = [world.elsewhere.put(format!("{word} layer")), world.elsewhere.put("shared layer")];
            let descriptor = |content: &ContentId, kind: &str| {
                let size = world.elsewhere.size_of(content).unwrap();
                format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{content}","size":{size}}}"#)
            };
            let text = format!(
                r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
                descriptor(&config, "config.v1+json"),
                descriptor(&layers[0], "layer.v1.tar"),
                descriptor(&layers[1], "layer.v1.tar"),
            );
            world.elsewhere.put(text)
        };
        let (amd64, arm64) = (manifest(self, "amd64"), manifest(self, "arm64"));
        let entry = |content: &ContentId, architecture: &str| {
            let size = self.elsewhere.size_of(content).unwrap();
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{content}","size":{size},
                "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
            )
        };
        let text =
            format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry(&amd64, "amd64"), entry(&arm64, "arm64"));
        let index = self.elsewhere.put(text);
        self.tags.insert(name.to_owned(), index);
        TestImage { index, amd64, arm64 }
    }
}

/// A transfer that has just begun.
pub(crate) fn transfer(content: ContentId) -> TransferStatus {
    TransferStatus {
        content,
        size: None,
        durable_bytes: 0,
        sources: Vec::new(),
        quiet: Duration::ZERO,
        repository: None,
        waits_for: None,
    }
}

/// Digests of a fake image.
pub(crate) struct TestImage {
    pub(crate) index: ContentId,
    pub(crate) amd64: ContentId,
    pub(crate) arm64: ContentId,
}
