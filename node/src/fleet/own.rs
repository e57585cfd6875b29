//! What this node shows of itself: where it comes from at the start, and how it is replaced.

use std::path::Path;

use layermesh_proto::wire::fleet::Credential;
use libp2p::identity::Keypair;
use thiserror::Error;
use tracing::{error, info, warn};

use super::{
    Fleet, FleetOptions, Refusal, WallClock,
    files::{self, FLEET_DIR, FileError, MEMBERSHIP_FILE},
    record::{self, Proved, SignError},
    roster::Roster,
    wall_clock,
};

/// Why a membership is not taken.
#[derive(Debug, Error)]
pub enum JoinError {
    /// No PEM of one.
    #[error("no membership in it: it must have a block `LAYERMESH MEMBERSHIP`, as `layermesh fleet admit` writes it")]
    NotOne,
    /// Not one that others would let in.
    #[error("{refusal}; {how}")]
    Refused {
        /// Why not.
        refusal: Refusal,
        /// What to do.
        how: String,
    },
    /// The configuration says where it comes from.
    #[error(
        "this node reads its membership from {0}, as its configuration says: replace that file and restart the node"
    )]
    Configured(String),
    /// The node has no fleet.
    #[error("this node has no fleet: name the authority in `[fleet] authorities` and restart it")]
    NoFleet,
    /// It cannot be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Fleet {
    /// The fleet of the node with this identity, as it is configured and as the data directory has it. What is wrong with
    /// the node's own membership is no error: it serves its own device all the same.
    ///
    /// # Errors
    /// If revocations are kept that cannot be read: going on without them would let the revoked in.
    pub fn load(keypair: &Keypair, options: FleetOptions, data_dir: &Path) -> Result<Self, FileError> {
        Self::load_with_clock(keypair, options, data_dir, wall_clock())
    }

    pub(super) fn load_with_clock(
        keypair: &Keypair,
        options: FleetOptions,
        data_dir: &Path,
        clock: WallClock,
    ) -> Result<Self, FileError> {
        let node = record::public(keypair).map_err(|_| FileError::Random)?;
        if options.open || options.is_alone() {
            return Ok(Self::new(node, options, Roster::default(), None, clock));
        }
        let dir = data_dir.join(FLEET_DIR);
        let (records, stamp) = files::read_state(&dir)?;
        let mut roster = Roster::new(&options.authorities, stamp);
        for record in records {
            // Of an authority that is not trusted any more.
            if let Err(error) = roster.revoke(&record) {
                warn!(%error, "a revocation that was kept does not count");
            }
        }
        let fleet = Self::new(node, options, roster, Some(dir), clock);
        fleet.find_own();
        Ok(fleet)
    }

    /// Finds what this node shows: its membership, or one that it makes with an enrolment key.
    fn find_own(&self) {
        let options = &self.0.options;
        let kept = self.0.dir.as_ref().map(|dir| dir.join(MEMBERSHIP_FILE));
        let Some(path) = options.membership.clone().or(kept) else { return };
        let found = match files::read_credential(&path) {
            Ok(credential) => self
                .usable(&credential)
                .map(Some)
                .map_err(|refusal| format!("{}: {refusal}; {}", path.display(), self.how_to_admit())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        let still_good =
            matches!(&found, Ok(Some((_, proved))) if self.state().roster.judge(proved, self.wall()).is_ok());
        let found = match &options.enrolment_key {
            Some(key) if !still_good => match self.enrol(key) {
                Ok(enrolled) => Ok(Some(enrolled)),
                // What there was is as good, or as bad.
                Err(error) if matches!(found, Ok(Some(_))) => {
                    warn!(error, "this device cannot admit itself");
                    found
                }
                Err(error) => Err(error),
            },
            _ => found,
        };
        let mut state = self.state();
        match found {
            Ok(own) => state.own = own,
            Err(problem) => {
                error!(problem, "this device has no membership to show");
                state.problem = Some(problem);
            }
        }
    }

    /// A credential's bytes, and what it proves, if this node can show it at all. One that has expired can be shown:
    /// others go by their clocks.
    fn usable(&self, credential: &Credential) -> Result<(Vec<u8>, Proved), Refusal> {
        let bytes = record::to_bytes(credential).map_err(|_| Refusal::Malformed)?;
        let proved = record::prove(&bytes, self.0.node)?;
        if !self.0.options.authorities.contains(&proved.authority) {
            return Err(Refusal::AnotherFleet);
        }
        // For what it says of the time.
        let _ = self.state().roster.examine(self.0.node, &bytes, self.wall());
        Ok((bytes, proved))
    }

    /// Admits this device with an enrolment key, and keeps the membership.
    fn enrol(&self, key_file: &Path) -> Result<(Vec<u8>, Proved), String> {
        let (key, enrolment) = files::read_enrolment_key(key_file).map_err(|error| error.to_string())?;
        let of = |error: SignError| format!("{}: {error}", key_file.display());
        let credential = record::enrol(&key.keypair, &enrolment, self.0.node, self.wall()).map_err(of)?;
        let refused = |refusal: Refusal| match refusal {
            Refusal::Expired => format!("{}: the enrolment key has expired", key_file.display()),
            Refusal::Revoked => format!("{}: the enrolment key, or this device, was revoked", key_file.display()),
            other => format!("{}: {other}", key_file.display()),
        };
        let (bytes, proved) = self.usable(&credential).map_err(refused)?;
        self.state().roster.judge(&proved, self.wall()).map_err(refused)?;
        if let Some(dir) = &self.0.dir
            && let Err(error) = files::replace(&dir.join(MEMBERSHIP_FILE), &files::show_credential(&credential))
        {
            warn!(%error, "the membership cannot be kept; this device admits itself again at its next start");
        }
        info!(authority = %proved.authority, key = %key.public(), "this device admitted itself with an enrolment key");
        Ok((bytes, proved))
    }

    /// Takes a membership for this node, keeps it and shows it from now on.
    ///
    /// # Errors
    /// If it is none that others would let in, or it cannot be kept.
    pub fn join(&self, text: &str) -> Result<(), JoinError> {
        let (Some(dir), false) = (&self.0.dir, self.is_alone()) else { return Err(JoinError::NoFleet) };
        if let Some(path) = &self.0.options.membership {
            return Err(JoinError::Configured(path.display().to_string()));
        }
        let credential = files::parse_credential(text.as_bytes()).ok_or(JoinError::NotOne)?;
        let refused = |refusal| JoinError::Refused { refusal, how: self.how_to_admit() };
        let (bytes, proved) = self.usable(&credential).map_err(refused)?;
        self.state().roster.judge(&proved, self.wall()).map_err(refused)?;
        files::replace(&dir.join(MEMBERSHIP_FILE), &files::show_credential(&credential))?;
        {
            let mut state = self.state();
            state.own = Some((bytes, proved));
            state.problem = None;
            state.warned_of_expiry = false;
        }
        info!(authority = %proved.authority, "this device has a membership");
        self.note_changed();
        Ok(())
    }
}
