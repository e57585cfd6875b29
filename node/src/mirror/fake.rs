//! In-memory stand-ins for what the mirror works with: a store whose blobs a test grows, damages and loses, a driver
//! that answers as a test says, and an origin's lists.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use layermesh_proto::{
    Algorithm, ContentId, ObjectKind, Repository, TagRef,
    engine::event::{Resolution, SourceError, WantError, WantId},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    route::Page,
    source::{BlobRead, Discovery, MirrorStore, Passed, ReadError},
};
use crate::mesh::{Command, Mesh};

/// Longest that a test waits for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that a [`FakeStore`] has room for, by what manifests say.
pub(super) const ROOM: u64 = 1 << 40;

/// State that can be waited on.
#[derive(Debug)]
struct Watched<T> {
    state: Mutex<T>,
    changed: watch::Sender<()>,
}

impl<T> Watched<T> {
    fn new(state: T) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), changed: watch::Sender::new(()) })
    }

    fn look(&self) -> MutexGuard<'_, T> {
        self.state.lock().unwrap()
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.look());
        self.changed.send_replace(());
        result
    }

    /// Waits for ever until `pick` finds something.
    async fn wait<R>(&self, mut pick: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut changes = self.changed.subscribe();
        loop {
            let picked = pick(&mut self.look());
            if let Some(picked) = picked {
                return picked;
            }
            changes.changed().await.unwrap();
        }
    }
}

#[derive(Debug, Default)]
struct Stored {
    bytes: Bytes,
    size: Option<u64>,
    /// Whether it is known to be right; held implies it.
    verified: bool,
    held: bool,
    readable: Vec<Range<u64>>,
    /// Where reads find damage, and how often.
    damaged: Option<(u64, u32)>,
    /// How often it turned out wrong and began again.
    attempt: u32,
    read: u64,
}

impl Stored {
    fn withdraw(&mut self) {
        let Some((offset, times)) = self.damaged else { return };
        self.damaged = (times > 1).then_some((offset, times - 1));
        self.held = false;
        self.verified = false;
        self.readable.clear();
        self.readable.push(0..offset);
    }
}

/// A store in memory.
#[derive(Debug, Clone)]
pub(super) struct FakeStore(Arc<Watched<HashMap<ContentId, Stored>>>);

impl FakeStore {
    pub(super) fn new() -> Self {
        Self(Watched::new(HashMap::new()))
    }

    /// Holds these bytes.
    pub(super) fn hold(&self, bytes: impl Into<Bytes>) -> ContentId {
        let bytes = bytes.into();
        let content = ContentId::of(Algorithm::Sha256, &bytes);
        self.begin(content, bytes);
        self.complete(content);
        content
    }

    /// Begins a blob: its size is known, none of its bytes can be read.
    pub(super) fn begin(&self, content: ContentId, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let size = Some(bytes.len() as u64);
        self.0.change(|blobs| blobs.insert(content, Stored { bytes, size, ..Stored::default() }));
    }

    /// These bytes of a blob can be read from now on.
    pub(super) fn grow(&self, content: ContentId, readable: Range<u64>) {
        self.0.change(|blobs| blobs.get_mut(&content).unwrap().readable.push(readable));
    }

    /// All pieces of a blob turned out not to be it, and it begins again with these bytes.
    pub(super) fn begin_again(&self, content: ContentId, bytes: impl Into<Bytes>) {
        let attempt = self.0.look()[&content].attempt + 1;
        let bytes = bytes.into();
        let size = Some(bytes.len() as u64);
        self.0.change(|blobs| blobs.insert(content, Stored { bytes, size, attempt, ..Stored::default() }));
    }

    /// The blob is whole.
    pub(super) fn complete(&self, content: ContentId) {
        self.verify(content);
        self.0.change(|blobs| blobs.get_mut(&content).unwrap().held = true);
    }

    /// All of the blob is there and right, and not durable yet.
    pub(super) fn verify(&self, content: ContentId) {
        self.0.change(|blobs| {
            let stored = blobs.get_mut(&content).unwrap();
            stored.verified = true;
            stored.readable.push(0..stored.bytes.len() as u64);
        });
    }

    /// Reads that come to `offset` find damage this often: bytes from there on are withdrawn.
    pub(super) fn damage(&self, content: ContentId, offset: u64, times: u32) {
        self.0.change(|blobs| blobs.get_mut(&content).unwrap().damaged = Some((offset, times)));
    }

    /// Bytes of a blob that were read so far.
    pub(super) fn read_of(&self, content: ContentId) -> u64 {
        self.0.look()[&content].read
    }
}

impl MirrorStore for FakeStore {
    type Reader = FakeReader;

    fn size_of(&self, content: &ContentId) -> Option<u64> {
        self.0.look().get(content).filter(|stored| stored.held).and_then(|stored| stored.size)
    }

    fn reader(&self, content: ContentId) -> FakeReader {
        FakeReader { store: self.clone(), content, given: None }
    }

    async fn read_whole(&self, content: &ContentId, max: u64) -> Result<Bytes, ReadError> {
        self.0.change(|blobs| match blobs.get_mut(content) {
            Some(stored) if stored.held && stored.damaged.is_some() => {
                stored.withdraw();
                Err(ReadError::Damaged)
            }
            Some(stored) if stored.held && stored.size > Some(max) => Err(ReadError::TooLarge),
            Some(stored) if stored.held => Ok(stored.bytes.clone()),
            _ => Err(ReadError::NotHeld),
        })
    }

    async fn fits(&self, parts: Vec<(ContentId, u64)>) -> Result<(), String> {
        let needed: u64 = parts.iter().map(|(_, size)| size).sum();
        if needed > ROOM { Err(format!("no room for {needed}")) } else { Ok(()) }
    }
}

/// Reads a blob of a [`FakeStore`].
#[derive(Debug)]
pub(super) struct FakeReader {
    store: FakeStore,
    content: ContentId,
    /// Of which attempt at the blob bytes were given.
    given: Option<u32>,
}

impl BlobRead for FakeReader {
    async fn size(&mut self) -> u64 {
        self.store.0.wait(|blobs| blobs.get(&self.content)?.size).await
    }

    async fn verified(&mut self) -> u64 {
        self.store.0.wait(|blobs| blobs.get(&self.content).filter(|stored| stored.verified)?.size).await
    }

    async fn read(&mut self, offset: u64, max: usize) -> Result<Bytes, ReadError> {
        assert!(max > 0, "a read of nothing");
        let read = |blobs: &mut HashMap<ContentId, Stored>| {
            let stored = blobs.get_mut(&self.content)?;
            if self.given.is_some_and(|attempt| attempt != stored.attempt) {
                return Some(Err(ReadError::Discarded));
            }
            let damaged = stored.damaged.map_or(u64::MAX, |(damaged, _)| damaged);
            if offset >= damaged {
                stored.withdraw();
                return Some(Err(ReadError::Damaged));
            }
            let run = stored.readable.iter().find(|run| run.contains(&offset))?;
            let end = run.end.min(offset + max as u64).min(damaged);
            stored.read += end - offset;
            self.given = Some(stored.attempt);
            Some(Ok(stored.bytes.slice(offset as usize..end as usize)))
        };
        self.store.0.wait(read).await
    }
}

/// A want that has not ended.
#[derive(Debug)]
struct OpenWant {
    id: WantId,
    content: ContentId,
    ended: oneshot::Sender<Result<(), WantError>>,
}

/// What the mirror asked of the driver, and what it is told.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// What tags stand for; others are not found.
    pub(super) tags: HashMap<TagRef, Result<Resolution, WantError>>,
    /// Blobs that cannot be promised.
    pub(super) missing: HashSet<ContentId>,
    /// How wants end at once; others stay open.
    pub(super) outcomes: HashMap<ContentId, Result<(), WantError>>,
    /// Tags asked for.
    pub(super) resolved: Vec<TagRef>,
    /// Promises asked for.
    pub(super) promised: Vec<(Vec<ContentId>, Repository)>,
    /// Wants, in order.
    pub(super) wanted: Vec<(ContentId, ObjectKind, Option<Repository>)>,
    /// Where readers said they stand.
    pub(super) positions: Vec<u64>,
    /// Wants that were dropped.
    pub(super) dropped: usize,
    open: Vec<OpenWant>,
}

/// A driver that does as its [`Script`] says.
#[derive(Debug, Clone)]
pub(super) struct FakeDriver(Arc<Watched<Script>>);

impl FakeDriver {
    /// A driver and the mesh that leads to it.
    pub(super) fn spawn() -> (Self, Mesh) {
        let (mesh, queue) = Mesh::new();
        let driver = Self(Watched::new(Script::default()));
        tokio::spawn(driver.clone().run(queue));
        (driver, mesh)
    }

    async fn run(self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            self.0.change(|script| script.perform(command));
        }
    }

    /// Changes the script.
    pub(super) fn script<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        self.0.change(change)
    }

    /// Waits until something was asked.
    pub(super) async fn until(&self, mut asked: impl FnMut(&Script) -> bool) {
        let waited = timeout(PATIENCE, self.0.wait(|script| asked(script).then_some(()))).await;
        assert!(waited.is_ok(), "never happened: {:?}", self.0.look());
    }

    /// Ends all open wants of a blob, once there is one.
    pub(super) async fn end(&self, content: ContentId, result: Result<(), WantError>) {
        let open = self.0.wait(|script| {
            let (open, others): (Vec<_>, _) = script.open.drain(..).partition(|want| want.content == content);
            script.open = others;
            (!open.is_empty()).then_some(open)
        });
        for want in timeout(PATIENCE, open).await.expect("nobody wants it") {
            let _ = want.ended.send(result.clone());
        }
    }
}

impl Script {
    fn perform(&mut self, command: Command) {
        match command {
            Command::Want { want, content, kind, repository, ended, .. } => {
                self.wanted.push((content, kind, repository));
                match self.outcomes.get(&content) {
                    Some(outcome) => drop(ended.send(outcome.clone())),
                    None => self.open.push(OpenWant { id: want, content, ended }),
                }
            }
            Command::ReaderAt { offset, .. } => self.positions.push(offset),
            Command::Unwant { want } => {
                self.dropped += 1;
                self.open.retain(|open| open.id != want);
            }
            Command::Resolve { reference, answer, .. } => {
                let resolution = self.tags.get(&reference).cloned().unwrap_or(Err(WantError::NotFound));
                self.resolved.push(reference);
                drop(answer.send(resolution));
            }
            Command::Promise { contents, repository, answer, .. } => {
                let missing = contents.iter().filter(|content| self.missing.contains(content)).copied().collect();
                self.promised.push((contents, repository));
                drop(answer.send(missing));
            }
            Command::SignedBindings(_) => {}
            Command::Bindings { answer } => drop(answer.send(Vec::new())),
            Command::KnownTags { answer, .. } => drop(answer.send(Vec::new())),
            Command::Recall { .. } | Command::Holders { .. } | Command::TookIn { .. } | Command::Bind(_) => {}
            // Nobody has patches here.
            Command::Prepare(_) | Command::Rebuildable { .. } => {}
            Command::RebuildProgress { .. } | Command::RebuildFailed { .. } => {}
            Command::Following(_) | Command::Examined { .. } | Command::Rollout(_) => {}
            Command::FollowerPlatforms { .. } | Command::Keeps { .. } | Command::Rollouts { .. } => {}
            Command::Status { answer } => drop(answer.send(crate::mesh::MeshStatus::default())),
            Command::Overview { answer, .. } => drop(answer.send(Default::default())),
        }
    }
}

/// An origin's lists.
#[derive(Debug, Clone)]
pub(super) struct FakeLists {
    pub(super) answer: Result<Passed, SourceError>,
    pub(super) known: Vec<String>,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl FakeLists {
    pub(super) fn new(answer: Result<Passed, SourceError>, known: &[&str]) -> Self {
        let known = known.iter().map(|&tag| tag.to_owned()).collect();
        Self { answer, known, asked: Arc::default() }
    }

    fn note(&self, what: String) -> Result<Passed, SourceError> {
        self.asked.lock().unwrap().push(what);
        self.answer.clone()
    }
}

impl Discovery for FakeLists {
    async fn tags(&self, repository: &Repository, page: &Page) -> Result<Passed, SourceError> {
        self.note(format!("tags {repository} {:?} {:?}", page.n, page.last.as_deref()))
    }

    async fn known_tags(&self, _: &Repository) -> Vec<String> {
        self.known.clone()
    }

    async fn referrers(
        &self,
        repository: &Repository,
        content: &ContentId,
        artifact_type: Option<&str>,
    ) -> Result<Passed, SourceError> {
        self.note(format!("referrers {repository} {content} {artifact_type:?}"))
    }
}
