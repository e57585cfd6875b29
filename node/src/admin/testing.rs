//! Fakes for tests: a store in memory, and a driver that gives what a fake world has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use layermesh_proto::{
    Algorithm, ContentId, NodeId, TagRef,
    engine::{
        BindingView, Urgency,
        budget::{Reason, Wait},
        event::{Basis, Provenance, Resolution, WantError},
    },
};
use tokio::{sync::watch, time::Instant};

use super::{NodeFacts, NodeView, StoreBlob, StoreTotals, StoreView, types::ListenStatus};
use crate::{
    counters::Counters,
    mesh::{Command, Mesh, MeshStatus, PeerStatus, TransferStatus},
};

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeStore(Arc<Mutex<BTreeMap<ContentId, Bytes>>>);

impl FakeStore {
    pub(crate) fn put(&self, bytes: impl Into<Bytes>) -> ContentId {
        let bytes = bytes.into();
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        self.0.lock().unwrap().insert(content, bytes);
        content
    }

    pub(crate) fn remove(&self, content: &ContentId) {
        self.0.lock().unwrap().remove(content);
    }

    pub(crate) fn get(&self, content: &ContentId) -> Option<Bytes> {
        self.0.lock().unwrap().get(content).cloned()
    }
}

impl StoreView for FakeStore {
    fn totals(&self) -> StoreTotals {
        let blobs = self.0.lock().unwrap();
        let bytes = blobs.values().map(|bytes| bytes.len() as u64).sum();
        StoreTotals { blobs: blobs.len() as u64, bytes, partial_bytes: 0 }
    }

    fn list(&self) -> Vec<StoreBlob> {
        let blobs = self.0.lock().unwrap();
        let row = |(content, bytes): (&ContentId, &Bytes)| StoreBlob { content: *content, size: bytes.len() as u64 };
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
}

/// What the fake driver can get, and a node that knows nothing else.
pub(crate) struct World {
    pub(crate) elsewhere: FakeStore,
    pub(crate) tags: BTreeMap<String, ContentId>,
    /// Wants never end, as while a transfer is under way.
    pub(crate) stuck: bool,
    pub(crate) status: MeshStatus,
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
        };
        Self { elsewhere: FakeStore::default(), tags: BTreeMap::new(), stuck: false, status, bindings: Vec::new() }
    }

    /// A node in this world. Its driver lives as long as the view.
    pub(crate) fn node(self) -> NodeView<FakeStore> {
        let (mesh, mut commands) = Mesh::new();
        let store = FakeStore::default();
        let counters = Arc::new(Counters::default());
        let (held, counted, mut world) = (store.clone(), counters.clone(), self);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Want { content, urgency: Urgency::Background, ended, .. } => {
                        let minutes = Some(185);
                        let waits_for = Some(Wait { reason: Reason::Window, minutes });
                        let (size, durable_bytes, sources) = (None, 0, Vec::new());
                        let waits = TransferStatus { content, size, durable_bytes, sources, waits_for };
                        world.status.transfers.push(waits);
                        waiting.push(ended);
                    }
                    Command::Want { content, ended, .. } if world.stuck => {
                        world.status.transfers.push(TransferStatus {
                            content,
                            size: Some(100),
                            durable_bytes: 40,
                            sources: vec!["origin".to_owned()],
                            waits_for: None,
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
                    Command::Recall { reference, answer } => {
                        let _ = answer.send(world.resolve(&reference).ok());
                    }
                    Command::Holders { contents, answer } => {
                        let _ = answer.send(world.holders(&contents));
                    }
                    Command::KnownTags { .. }
                    | Command::SignedBindings(_)
                    | Command::TookIn { .. }
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

/// Digests of a fake image.
pub(crate) struct TestImage {
    pub(crate) index: ContentId,
    pub(crate) amd64: ContentId,
    pub(crate) arm64: ContentId,
}
