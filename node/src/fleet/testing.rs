//! Fleets for tests.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use layermesh_proto::{
    NodeId,
    wire::fleet::{Credential, Enrolment, Revocation},
};
use libp2p::identity::Keypair;

use super::{Fleet, FleetOptions, files, record, roster::Roster};
use crate::release::clock::BUILT_UNIX_S;

/// A wall clock that can be right.
pub(crate) const NOW: u64 = BUILT_UNIX_S + 1_000_000;

/// A clock that tests set.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn at(now: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now)))
    }

    pub(crate) fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }

    pub(super) fn wall(&self) -> super::WallClock {
        let now = self.0.clone();
        Arc::new(move || now.load(Ordering::Relaxed))
    }
}

/// A fleet's authority.
pub(crate) struct Authority(pub(crate) Keypair);

impl Authority {
    pub(crate) fn new() -> Self {
        Self(Keypair::generate_ed25519())
    }

    pub(crate) fn id(&self) -> NodeId {
        record::public(&self.0).unwrap()
    }

    pub(crate) fn admit(&self, peer: NodeId, expires: Option<u64>) -> Credential {
        record::admit(&self.0, peer, NOW - 1000, expires).unwrap()
    }

    pub(crate) fn enrolment(&self, key: NodeId, expires_unix_s: u64) -> Vec<u8> {
        let statement = Enrolment { authority: self.id(), key, issued_unix_s: NOW - 1000, expires_unix_s };
        record::sign(&self.0, &statement).unwrap()
    }

    pub(crate) fn revoke(&self, subject: NodeId) -> Vec<u8> {
        let statement = Revocation { authority: self.id(), subject, when_unix_s: NOW };
        record::sign(&self.0, &statement).unwrap()
    }
}

/// The fleet of a node that trusts these authorities and shows this.
pub(crate) fn member(
    keypair: &Keypair,
    authorities: &[&Authority],
    credential: Option<Credential>,
    clock: &TestClock,
) -> Fleet {
    let authorities: Vec<_> = authorities.iter().map(|authority| authority.id()).collect();
    let node = record::public(keypair).unwrap();
    let roster = Roster::new(&authorities, 0);
    let fleet = Fleet::new(node, FleetOptions { authorities, ..FleetOptions::default() }, roster, None, clock.wall());
    fleet.show(credential);
    fleet
}

impl Fleet {
    /// A fleet that lets everybody in and shows this all the same.
    pub(crate) fn showing(credential: Option<Credential>) -> Self {
        let fleet = Self::open();
        fleet.show(credential);
        fleet
    }

    fn show(&self, credential: Option<Credential>) {
        let Some(credential) = credential else { return };
        let bytes = record::to_bytes(&credential).unwrap();
        // Whatever it proves: tests show what is not theirs.
        let peer = self.0.node;
        let proved = record::Proved {
            authority: peer,
            peer,
            issued_unix_s: 0,
            expires_unix_s: None,
            enrolled_by: None,
            stamp_unix_s: 0,
        };
        self.state().own = Some((bytes, proved));
    }
}

/// The fleet of a node as it is loaded from a data directory.
pub(crate) fn loaded(keypair: &Keypair, options: FleetOptions, dir: &Path, clock: &TestClock) -> Fleet {
    Fleet::load_with_clock(keypair, options, dir, clock.wall()).unwrap()
}

/// Writes an enrolment key of this authority into a file.
pub(crate) fn enrolment_key(authority: &Authority, path: &Path, expires_unix_s: u64) -> NodeId {
    let key = files::FleetKey::generate().unwrap();
    files::write_enrolment_key(path, &key, &authority.enrolment(key.public(), expires_unix_s)).unwrap();
    key.public()
}
