//! The node's side: which metadata is believed, and what follows from it.
//!
//! One task takes sets of metadata, from peers by way of the engine and from the admin's own hand, and looks at each with
//! [`verify`](super::verify()). What it accepts is kept in one file and as pinned blobs, and said to the mesh, so that it
//! spreads from every node that believes it. Invariants: nothing is said before it is verified and durable; after a
//! restart no older set is believed than before; of a set that is refused nothing is kept.
//!
//! A node that is told no root follows nothing. If its admin hands it a set, it *carries* that repository: it keeps and
//! says the newest of it, so that it reaches those that follow.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use layermesh_proto::{Algorithm, ContentId, ObjectKind, engine::Urgency, engine::releases::Examined, wire::Following};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    MetadataSet, Refusal, RefusalKind, RepositoryId, Trusted, Verified,
    clock::Clock,
    pins,
    set::{ListedFile, MANIFEST_BYTES_MAX},
    verify::verify,
};
use crate::{
    config::ReleasesConfig,
    mesh::{Examine, Mesh},
    store::{PinOwner, Store},
};

/// Looks that may wait; the engine asks for one at a time.
pub const EXAMINE_QUEUE_LEN: usize = 4;
/// Sets from the admin that may wait.
const HANDED_QUEUE_LEN: usize = 4;
/// How long one file of a set is waited for. Less than the engine waits for all: a set has few new ones.
const FILE_TIME_MAX: Duration = Duration::from_secs(60);
/// Owner of the pins of metadata.
const PIN_OWNER: &str = "release-metadata";
/// In the data directory.
const DIR: &str = "releases";
const KEPT_FILE: &str = "trusted.json";

/// Why a set from the admin was not taken.
#[derive(Debug, Clone, Error)]
pub enum HandError {
    /// It is not believed.
    #[error("the node refuses these releases: {0}")]
    Refused(#[from] Refusal),
    /// It is of another repository than the node follows.
    #[error("this node follows the releases of repository {followed}, not of {given}; hand them to a node that does")]
    Another {
        /// What it follows.
        followed: RepositoryId,
        /// What was given.
        given: RepositoryId,
    },
    /// It cannot be kept.
    #[error("the node cannot keep these releases: {0}")]
    Store(String),
    /// The node goes.
    #[error("the node is shutting down")]
    Stopping,
}

/// What is known of the releases that a node follows or carries. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The metadata that is believed.
    pub verified: Option<Arc<Verified>>,
    /// The newest refusal since the last acceptance: from whom, and why.
    pub refused: Option<(String, Refusal)>,
    /// Refusals since the start, by kind.
    pub refusals: BTreeMap<RefusalKind, u64>,
}

/// What is kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Digest of the root that trust began with: another one in the configuration begins anew.
    anchor: String,
    trusted: Trusted,
    set: Option<MetadataSet>,
}

/// A set from the admin.
#[derive(Debug)]
struct Handed {
    set: MetadataSet,
    /// Whether it is taken up, or only looked at.
    take: bool,
    answer: oneshot::Sender<Result<Arc<Verified>, HandError>>,
}

/// Handle on the task.
#[derive(Debug, Clone)]
pub struct Releases {
    handed: mpsc::Sender<Handed>,
    known: watch::Receiver<Known>,
    /// What is followed, if anything is.
    pub config: Option<Arc<ReleasesConfig>>,
}

impl Releases {
    /// What is believed now, and its changes.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }

    /// Gives the node a set, from its admin.
    ///
    /// # Errors
    /// If it is not believed or cannot be kept.
    pub async fn hand(&self, set: MetadataSet) -> Result<Arc<Verified>, HandError> {
        self.ask(set, true).await
    }

    /// What a set says, if the node would take it from its admin. A refusal is noted as one of [`Self::hand`] is.
    ///
    /// # Errors
    /// If it would not.
    pub async fn check(&self, set: MetadataSet) -> Result<Arc<Verified>, HandError> {
        self.ask(set, false).await
    }

    async fn ask(&self, set: MetadataSet, take: bool) -> Result<Arc<Verified>, HandError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.handed.send(Handed { set, take, answer }).await;
        answered.await.unwrap_or(Err(HandError::Stopping))
    }
}

/// The task.
pub struct Follower {
    mesh: Mesh,
    store: Store,
    config: Option<Arc<ReleasesConfig>>,
    dir: PathBuf,
    kept: Option<Kept>,
    handed: mpsc::Receiver<Handed>,
    examines: mpsc::Receiver<Examine>,
    known: watch::Sender<Known>,
}

impl Follower {
    /// The task and a handle on it. Files are kept in `data_dir`.
    pub fn new(
        mesh: Mesh,
        store: Store,
        config: Option<ReleasesConfig>,
        data_dir: &Path,
        examines: mpsc::Receiver<Examine>,
    ) -> (Self, Releases) {
        let config = config.map(Arc::new);
        let (handing, handed) = mpsc::channel(HANDED_QUEUE_LEN);
        let (known, knowing) = watch::channel(Known::default());
        let releases = Releases { handed: handing, known: knowing, config: config.clone() };
        (Self { mesh, store, config, dir: data_dir.join(DIR), kept: None, handed, examines, known }, releases)
    }

    /// Follows until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if let Err(error) = std::fs::create_dir_all(&self.dir) {
            tracing::error!(dir = %self.dir.display(), %error, "cannot keep what is trusted of releases");
        }
        self.begin().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(examine) = self.examines.recv() => {
                    let looked = async { self.examine(examine).await };
                    tokio::select! {
                        () = looked => {}
                        () = shutdown.cancelled() => return,
                    }
                }
                Some(Handed { set, take, answer }) = self.handed.recv() => {
                    let taken = self.take_handed(set, take).await;
                    let _ = answer.send(taken);
                }
            }
        }
    }

    /// Takes up what was trusted before the restart.
    async fn begin(&mut self) {
        let kept = read_kept(&self.dir.join(KEPT_FILE));
        self.kept = match &self.config {
            Some(config) => Some(anchored(kept, &config.root)),
            None => kept,
        };
        if self.config.is_none() {
            // Of a channel that was followed and is not any more.
            pins::unpin_all_but(&self.store, &[]).await;
        }
        let Some(kept) = self.kept.clone() else { return };
        if let Some(set) = &kept.set {
            // It was accepted before; what expired since stays in force until something newer comes.
            let outcome = verify(set, &kept.trusted, 0, &self.dir).await;
            match outcome.result {
                Ok(verified) => match self.put(set).await {
                    Ok(content) => return self.tell(verified, content).await,
                    Err(error) => tracing::error!(error, "cannot store the metadata of releases"),
                },
                Err(refusal) => {
                    tracing::warn!(%refusal, "the metadata of releases that was kept is not believed any more");
                    if let Some(kept) = &mut self.kept {
                        kept.set = None;
                    }
                }
            }
        }
        match kept.trusted.repository() {
            Ok((repository, _)) => self.mesh.following(self.following(&repository, 0, None)).await,
            Err(refusal) => tracing::error!(%refusal, "the trusted root of releases cannot be used"),
        }
    }

    fn following(&self, repository: &RepositoryId, version: u64, content: Option<ContentId>) -> Following {
        let config = self.config.as_deref();
        Following {
            repository: repository.to_string(),
            version,
            content,
            channels: config.map_or_else(Vec::new, |it| it.channels.iter().map(ToString::to_string).collect()),
            platforms: config.map_or_else(Vec::new, |it| it.platforms.iter().map(ToString::to_string).collect()),
        }
    }

    /// Looks at what a peer offers.
    async fn examine(&mut self, Examine { from, content }: Examine) {
        let mut fetched = Vec::new();
        let examined = match self.fetch(content, &mut fetched).await {
            Ok(Some(set)) => match self.judge(set, &format!("peer …{}", from.short()), true).await {
                Ok(_) => Examined::Accepted,
                Err(HandError::Refused(_) | HandError::Another { .. }) => Examined::Refused,
                Err(_) => Examined::Unavailable,
            },
            Ok(None) => Examined::Unavailable,
            Err(refusal) => {
                self.refused(&format!("peer …{}", from.short()), &refusal);
                Examined::Refused
            }
        };
        if examined == Examined::Refused {
            for content in fetched.into_iter().filter(|content| !self.store.is_pinned(content)) {
                if let Err(error) = self.store.remove(&content).await {
                    tracing::warn!(%content, %error, "cannot remove metadata that was refused");
                }
            }
        }
        self.mesh.examined(content, examined).await;
    }

    /// Fetches a set, and notes what was not here before; `None` if not all of it can be had.
    async fn fetch(&self, content: ContentId, fetched: &mut Vec<ContentId>) -> Result<Option<MetadataSet>, Refusal> {
        let manifest = self.fetch_file(content, MANIFEST_BYTES_MAX as u64, fetched).await;
        let Some(manifest) = manifest? else { return Ok(None) };
        let mut files = BTreeMap::new();
        for ListedFile { name, content, size } in MetadataSet::list(&manifest)? {
            match self.fetch_file(content, size, fetched).await? {
                Some(bytes) => drop(files.insert(name, bytes)),
                None => return Ok(None),
            }
        }
        MetadataSet::new(files).map(Some)
    }

    async fn fetch_file(
        &self,
        content: ContentId,
        size_max: u64,
        fetched: &mut Vec<ContentId>,
    ) -> Result<Option<Bytes>, Refusal> {
        use layermesh_proto::engine::event::WantError;
        if self.store.size_of(&content).is_none() {
            let urgency = Urgency::Runtime;
            let mut want = self.mesh.want_within(content, ObjectKind::Blob, None, urgency, Some(size_max)).await;
            match timeout(FILE_TIME_MAX, want.ended()).await {
                Ok(Ok(())) => fetched.push(content),
                Ok(Err(error @ WantError::TooLarge(_))) => {
                    return Err(Refusal::new(RefusalKind::TooLarge, format!("too large: {content}: {error}")));
                }
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
        match self.store.read_whole(&content, size_max).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(Refusal::new(RefusalKind::TooLarge, format!("cannot be read: {content}: {error}"))),
        }
    }

    async fn take_handed(&mut self, set: MetadataSet, take: bool) -> Result<Arc<Verified>, HandError> {
        let first = set.roots().first().map(|root| root.to_vec()).unwrap_or_default();
        let given = Trusted::root(&first);
        let (repository, _) = given.repository()?;
        let before = self.kept.clone();
        match self.kept.as_ref().map(|kept| kept.trusted.repository()) {
            Some(Ok((followed, _))) if followed != repository && self.config.is_some() => {
                return Err(HandError::Another { followed, given: repository });
            }
            // What the admin hands to a node that follows nothing is carried, instead of what it carried before.
            Some(Ok((followed, _))) if followed == repository => {}
            _ => self.kept = Some(Kept { anchor: String::new(), trusted: given, set: None }),
        }
        let taken = self.judge(set, "the admin", take).await;
        if (taken.is_err() || !take) && self.config.is_none() {
            self.kept = before;
        }
        taken
    }

    /// Looks at a set, and if it is believed and that is wanted takes it up.
    async fn judge(&mut self, set: MetadataSet, from: &str, take: bool) -> Result<Arc<Verified>, HandError> {
        let Some(kept) = self.kept.clone() else { return Err(HandError::Stopping) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let outcome = verify(&set, &kept.trusted, now, &self.dir).await;
        let result = match (outcome.result, &self.config) {
            // Whoever has only the configured root must be able to believe it, too, or it would not spread.
            (Ok(verified), Some(config)) => verify(&set, &config.root, now, &self.dir).await.result.map(|_| verified),
            (result, _) => result,
        };
        match result {
            Ok(verified) if !take => Ok(Arc::new(verified)),
            Ok(verified) => {
                let content = self.put(&set).await.map_err(HandError::Store)?;
                self.keep(Kept { trusted: verified.trusted.clone(), set: Some(set), ..kept })?;
                tracing::info!(
                    repository = %verified.repository, version = verified.version, releases = verified.releases.len(),
                    from, clock = ?verified.clock, "took up the metadata of releases"
                );
                self.tell(verified, content).await;
                self.known.borrow().verified.clone().ok_or(HandError::Stopping)
            }
            Err(refusal) => {
                if let Some(trusted) = outcome.trusted {
                    self.keep(Kept { trusted, ..kept })?;
                }
                self.refused(from, &refusal);
                Err(refusal.into())
            }
        }
    }

    fn refused(&self, from: &str, refusal: &Refusal) {
        tracing::warn!(from, kind = refusal.kind.label(), reason = %refusal, "refused the metadata of releases");
        self.known.send_modify(|known| {
            known.refused = Some((from.to_owned(), refusal.clone()));
            *known.refusals.entry(refusal.kind).or_default() += 1;
        });
    }

    fn keep(&mut self, kept: Kept) -> Result<(), HandError> {
        if self.kept.as_ref() != Some(&kept) {
            write_kept(&self.dir.join(KEPT_FILE), &kept).map_err(|error| HandError::Store(error.to_string()))?;
            self.kept = Some(kept);
        }
        Ok(())
    }

    /// Stores a set as blobs, pinned instead of those of the set before. Returns its manifest.
    async fn put(&self, set: &MetadataSet) -> Result<ContentId, String> {
        let artifact = set.to_artifact();
        let owner: PinOwner = PIN_OWNER.parse().map_err(|error| format!("{error}"))?;
        let contents = artifact.blobs.keys().copied().collect();
        self.store.replace_pins(owner, contents).await.map_err(|error| error.to_string())?;
        for (content, bytes) in artifact.blobs {
            let size = bytes.len() as u64;
            self.store.insert(content, bytes).await.map_err(|error| error.to_string())?;
            self.mesh.took_in(content, size).await;
        }
        Ok(artifact.content)
    }

    async fn tell(&self, verified: Verified, content: ContentId) {
        self.mesh.following(self.following(&verified.repository, verified.version, Some(content))).await;
        self.known.send_modify(|known| {
            known.verified = Some(Arc::new(verified));
            known.refused = None;
        });
    }
}

impl Known {
    /// Whether what is believed has expired by now, and by which clock that is known.
    pub fn expired(&self) -> (bool, Clock) {
        let Some(verified) = &self.verified else { return (false, Clock::None) };
        let clock = Clock::of_this_device(verified.signed_unix_s);
        (clock.is_past(verified.expires.1), clock)
    }
}

/// What to trust, given what was kept and the configured root.
fn anchored(kept: Option<Kept>, root: &Trusted) -> Kept {
    let anchor = ContentId::of(Algorithm::Sha256, root.root.as_bytes()).to_string();
    let fresh = Kept { anchor: anchor.clone(), trusted: root.clone(), set: None };
    let Some(kept) = kept else { return fresh };
    if kept.anchor == anchor {
        return kept;
    }
    match (kept.trusted.repository(), root.repository()) {
        // Another root of the same repository: trust begins with it, and what was seen is not forgotten.
        (Ok((before, _)), Ok((now, _))) if before == now => {
            Kept { trusted: Trusted { root: root.root.clone(), ..kept.trusted }, anchor, set: kept.set }
        }
        _ => fresh,
    }
}

fn read_kept(path: &Path) -> Option<Kept> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read what was trusted of releases; trust begins anew");
            return None;
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Some(kept),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "what was trusted of releases is damaged; trust begins anew");
            None
        }
    }
}

/// Whatever is in the file, it is read as it was written or begun anew.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz_kept(bytes: &[u8]) {
    let Ok(kept) = serde_json::from_slice::<Kept>(bytes) else { return };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Kept>(&text).ok(), Some(kept.clone()));
    let root = kept.trusted.clone();
    let _ = anchored(Some(kept), &root);
}

fn write_kept(path: &Path, kept: &Kept) -> std::io::Result<()> {
    use std::io::Write as _;
    let dir = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tough::schema::RoleType;

    use super::*;
    use crate::release::publisher::{InitOptions, Lifetimes, Publisher, RotateOptions};

    const NOW: u64 = 1_800_000_000;

    async fn roots() -> (Trusted, Trusted) {
        let dir = tempfile::tempdir().unwrap();
        Publisher::init(dir.path(), InitOptions::default(), NOW).await.unwrap();
        let first = Trusted::root(&std::fs::read(dir.path().join("root.json")).unwrap());
        let keys = crate::release::keys::KeyRing::read(&[dir.path().join("keys")]).unwrap();
        let (roles, lifetimes) = (vec![RoleType::Root], Lifetimes::default());
        let options = RotateOptions { roles, keys: None, threshold: None, lifetimes };
        Publisher::open(dir.path()).await.unwrap().rotate(options, keys, NOW).await.unwrap();
        (first, Trusted::root(&std::fs::read(dir.path().join("root.json")).unwrap()))
    }

    #[tokio::test]
    async fn trust_begins_with_the_configured_root_and_forgets_only_with_the_repository() {
        let (first, second) = roots().await;
        let (other, _) = roots().await;
        let fresh = anchored(None, &first);
        assert_eq!((&fresh.trusted, &fresh.set), (&first, &None));
        let seen =
            Trusted { root: second.root.clone(), timestamp: Some("t".to_owned()), snapshot: Some("s".to_owned()) };
        let kept = Kept { trusted: seen.clone(), ..fresh };
        assert_eq!(anchored(Some(kept.clone()), &first), kept, "a newer root than the configured one stays");
        let moved = anchored(Some(kept.clone()), &second);
        assert_eq!(moved.trusted, seen, "with another root of the same repository, what was seen counts");
        assert_ne!(moved.anchor, kept.anchor);
        assert_eq!(anchored(Some(kept), &other).trusted, other, "another repository begins anew");
    }

    #[test]
    fn what_is_kept_is_read_back_or_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEPT_FILE);
        assert_eq!(read_kept(&path), None);
        let kept = Kept { anchor: "a".to_owned(), trusted: Trusted::root(b"r"), set: None };
        write_kept(&path, &kept).unwrap();
        assert_eq!(read_kept(&path), Some(kept));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read_kept(&path), None);
    }
}
