//! Admission: who belongs to this node's fleet, checked on every connection before anything else is said on it.
//!
//! A fleet is an Ed25519 *authority*, which signs a *membership* for each device, or an *enrolment key* that devices of a
//! golden image admit themselves with, and *revocations*. [`record`] is what they look like, [`roster`] what they mean
//! and [`clock`] by what time; all three are pure. [`files`] is how they lie on disk, [`Fleet`] what the node's
//! listeners ask, and [`routes`] what the admin asks.
//!
//! Invariant: [`Fleet::admit`] and [`Fleet::admits`] are the only answers to whether a peer is let in. Nothing of a
//! refused peer is kept but a count. Deliberately absent: how credentials travel (`swarm::admission`), and what the
//! admitted may do.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use layermesh_proto::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub mod clock;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lines;
pub mod own;
pub mod record;
pub mod roster;
pub mod routes;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use self::{
    lines::Lines,
    record::Proved,
    roster::{RevocationError, RevocationKey, Roster},
};
pub use status::{AdmissionMode, AdmissionStatus, MembershipStatus, RevocationStatus};

/// How often it is looked whether somebody has expired, and whether something is to be written down. With the time that
/// closing takes this keeps an expired peer's connections for less than 5 s.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Before the own membership expires, from when on the log says so: time for somebody to visit the device.
const EXPIRY_NOTICE_S: u64 = 30 * 86_400;

/// Why a peer is not let in. The numbers go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Refusal {
    /// It showed nothing, or nothing yet on a connection where it must.
    NoMembership = 1,
    /// What it showed is no credential.
    Malformed = 2,
    /// It showed another device's membership.
    AnotherPeer = 3,
    /// Its membership is of an authority that is not trusted here.
    AnotherFleet = 4,
    /// Somebody else signed its membership than it says.
    Forged = 5,
    /// Its membership has expired.
    Expired = 6,
    /// It, or the key that it was enrolled with, was revoked.
    Revoked = 7,
    /// It did not show a credential in time.
    Slow = 8,
    /// It broke off, or speaks another version of admission.
    Broken = 9,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoMembership,
        Self::Malformed,
        Self::AnotherPeer,
        Self::AnotherFleet,
        Self::Forged,
        Self::Expired,
        Self::Revoked,
        Self::Slow,
        Self::Broken,
    ];

    /// A word for it, as in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoMembership => "no-membership",
            Self::Malformed => "malformed",
            Self::AnotherPeer => "another-peer",
            Self::AnotherFleet => "another-fleet",
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Slow => "slow",
            Self::Broken => "broken",
        }
    }

    /// The refusal with this number.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == code)
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMembership => "no membership was shown",
            Self::Malformed => "what was shown is no membership",
            Self::AnotherPeer => "the membership is another device's",
            Self::AnotherFleet => "the membership is of another fleet",
            Self::Forged => "the membership is forged",
            Self::Expired => "the membership has expired",
            Self::Revoked => "the device was revoked",
            Self::Slow => "no membership was shown in time",
            Self::Broken => "the connection broke off, or speaks another version",
        })
    }
}

/// Where a refused peer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The control plane, or an address that this node dialled.
    Swarm,
    /// The bulk exchange.
    Bulk,
}

impl Door {
    const fn label(self) -> &'static str {
        match self {
            Self::Swarm => "peers",
            Self::Bulk => "bulk",
        }
    }
}

/// How a node's fleet is made up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetOptions {
    /// Whether everybody is let in.
    pub open: bool,
    /// The authorities whose word counts.
    pub authorities: Vec<NodeId>,
    /// File with the node's membership; `None` for the one in the data directory.
    pub membership: Option<PathBuf>,
    /// File with an enrolment key, with which the node admits itself once.
    pub enrolment_key: Option<PathBuf>,
}

impl FleetOptions {
    /// Lets everybody in.
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// Whether the node has no fleet: it then serves its own device only.
    pub fn is_alone(&self) -> bool {
        !self.open && self.authorities.is_empty()
    }
}

/// Seconds since the Unix epoch, by some clock.
type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

struct State {
    roster: Roster,
    /// What this node shows: the encoded credential, and what it proves.
    own: Option<(Vec<u8>, Proved)>,
    /// Why the node cannot show a membership, for people.
    problem: Option<String>,
    /// News in the order in which it came, and from whom. At most as many as there are revocations.
    news: Vec<(RevocationKey, Option<NodeId>)>,
    unsaved: bool,
    warned_of_expiry: bool,
}

struct Inner {
    node: NodeId,
    options: FleetOptions,
    clock: WallClock,
    /// Where what must outlive the node is kept.
    dir: Option<PathBuf>,
    state: Mutex<State>,
    /// Counts changes of who is admitted.
    changed: watch::Sender<u64>,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// How often peers refused this node.
    refused_by: [AtomicU64; Refusal::ALL.len()],
    lines: Lines,
}

/// The node's fleet, shared by everything that lets peers in. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fleet").field(&self.0.options).finish()
    }
}

/// The clock of this device.
fn wall_clock() -> WallClock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

impl Fleet {
    /// A fleet that lets everybody in, for parts of a node that are used by themselves.
    pub fn open() -> Self {
        Self::new(NodeId::from_public_key([0; 32]), FleetOptions::open(), Roster::default(), None, wall_clock())
    }

    fn new(node: NodeId, options: FleetOptions, roster: Roster, dir: Option<PathBuf>, clock: WallClock) -> Self {
        let news = Vec::new();
        let state = State { roster, own: None, problem: None, news, unsaved: false, warned_of_expiry: false };
        Self(Arc::new(Inner {
            node,
            options,
            clock,
            dir,
            state: Mutex::new(state),
            changed: watch::channel(0).0,
            refused: Default::default(),
            refused_by: Default::default(),
            lines: Lines::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wall(&self) -> u64 {
        (self.0.clock)()
    }

    /// Whether everybody is let in.
    pub fn is_open(&self) -> bool {
        self.0.options.open
    }

    /// Whether the node has no fleet and serves its own device only.
    pub fn is_alone(&self) -> bool {
        self.0.options.is_alone()
    }

    /// What this node shows of itself; empty if it has nothing to show.
    pub fn credential(&self) -> Vec<u8> {
        self.state().own.as_ref().map(|(bytes, _)| bytes.clone()).unwrap_or_default()
    }

    /// A peer that has proved its key shows its credential. From then on [`Fleet::admits`] knows it.
    ///
    /// # Errors
    /// With why it is not let in, which is counted and logged.
    pub fn admit(&self, peer: NodeId, credential: &[u8]) -> Result<(), Refusal> {
        if self.is_open() {
            return Ok(());
        }
        let wall = self.wall();
        let shown = {
            let mut state = self.state();
            let floor = state.roster.floor_unix_s();
            let shown = state.roster.show(peer, credential, wall);
            state.unsaved |= state.roster.floor_unix_s() != floor;
            shown
        };
        match shown {
            Ok(_) => Ok(()),
            Err(refusal) => {
                self.note_refused(Some(peer), refusal, Door::Swarm);
                Err(refusal)
            }
        }
    }

    /// Whether a peer is let in now.
    ///
    /// # Errors
    /// With why it is not. Not counted: to be followed by [`Fleet::note_refused`] if somebody was turned away.
    pub fn admits(&self, peer: &NodeId) -> Result<(), Refusal> {
        if self.is_open() { Ok(()) } else { self.state().roster.admits(peer, self.wall()) }
    }

    /// Whether a device was revoked: what it said is not passed on.
    pub fn is_revoked(&self, peer: &NodeId) -> bool {
        !self.is_open() && self.state().roster.is_revoked(peer)
    }

    /// Waits until a peer is not let in any more; in an open fleet for ever.
    pub async fn until_out(&self, peer: NodeId) -> Refusal {
        if self.is_open() {
            return std::future::pending().await;
        }
        let mut changed = self.0.changed.subscribe();
        loop {
            if let Err(refusal) = self.admits(&peer) {
                return refusal;
            }
            // This handle holds the sender.
            let _ = changed.changed().await;
        }
    }

    /// Tells when who is admitted may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn note_changed(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// Counts a refusal, and logs it unless much was logged already.
    pub fn note_refused(&self, peer: Option<NodeId>, refusal: Refusal, door: Door) {
        self.0.refused[refusal as usize - 1].fetch_add(1, Ordering::Relaxed);
        if self.0.lines.may_log(peer) {
            let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
            info!(peer, why = %refusal, door = door.label(), "a peer was refused");
        }
    }

    /// A peer refused this node.
    pub fn note_refused_by(&self, peer: NodeId, refusal: Refusal) {
        self.0.refused_by[refusal as usize - 1].fetch_add(1, Ordering::Relaxed);
        if self.0.lines.may_log(Some(peer)) {
            warn!(%peer, why = %refusal, "a peer refuses this node; `layermesh fleet show` says what it shows of itself");
        }
    }

    // ── Revocations ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Takes a record of a revocation, from a peer or from this device; says whether it is news.
    ///
    /// # Errors
    /// If it is no revocation of a trusted authority.
    pub fn revoke(&self, record: &[u8], from: Option<NodeId>) -> Result<bool, RevocationError> {
        let news = {
            let mut state = self.state();
            let news = state.roster.revoke(record)?;
            if let Some(key) = news {
                state.news.push((key, from));
                state.unsaved = true;
            }
            news
        };
        if let Some((subject, authority)) = news {
            info!(%subject, %authority, "a revocation takes effect");
            self.note_changed();
        }
        Ok(news.is_some())
    }

    /// What revocations came after the first `seen` ones, each with whom it came from.
    pub fn news(&self, seen: usize) -> Vec<(Vec<u8>, Option<NodeId>)> {
        let state = self.state();
        let new = state.news.iter().skip(seen);
        new.filter_map(|(key, from)| Some((state.roster.record_of(key)?.to_vec(), *from))).collect()
    }

    /// How many pieces of news there were.
    pub fn count_news(&self) -> usize {
        self.state().news.len()
    }

    /// A hash over the revocations that this node knows.
    pub fn digest(&self) -> [u8; 32] {
        self.state().roster.digest()
    }

    /// Some of the revocations that this node knows, and whether there are more.
    pub fn page(&self, after: Option<RevocationKey>) -> (Vec<Vec<u8>>, bool) {
        self.state().roster.page(after)
    }

    // ── Time ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Looks for what has expired, and keeps on disk what must be, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        if self.is_open() {
            return;
        }
        loop {
            let end = tokio::select! {
                () = shutdown.cancelled() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            self.look();
            self.save().await;
            if end {
                return;
            }
        }
    }

    /// Whoever has expired is out.
    fn look(&self) {
        let wall = self.wall();
        let out = {
            let mut state = self.state();
            let own = state.own.as_ref().map(|(_, proved)| *proved);
            if let Some(expires) = own.and_then(|own| own.expires_unix_s)
                && expires.saturating_sub(EXPIRY_NOTICE_S) <= state.roster.time(wall)
                && !std::mem::replace(&mut state.warned_of_expiry, true)
            {
                let expires = crate::release::verify::show_time(expires);
                warn!(
                    expires,
                    "this device's membership expires: renew it with `layermesh fleet admit` and `fleet join`"
                );
            }
            state.roster.sweep(wall)
        };
        for (peer, refusal) in &out {
            info!(%peer, why = %refusal, "a peer does not belong to the fleet any more");
        }
        if !out.is_empty() {
            self.note_changed();
        }
    }

    /// Writes down revocations and the newest known time, if they changed.
    async fn save(&self) {
        let Some(dir) = self.0.dir.clone() else { return };
        let (records, floor) = {
            let mut state = self.state();
            if !std::mem::take(&mut state.unsaved) {
                return;
            }
            let records: Vec<Vec<u8>> = state.roster.revocations().map(|(_, record)| record.to_vec()).collect();
            (records, state.roster.floor_unix_s())
        };
        let written = tokio::task::spawn_blocking(move || files::write_state(&dir, &records, floor)).await;
        if let Ok(Err(error)) = written {
            self.state().unsaved = true;
            if self.0.lines.may_log(None) {
                warn!(%error, "revocations cannot be kept on disk; they hold until the node ends");
            }
        }
    }
}
