//! Who belongs to the fleet: the authorities that are trusted, what they revoked, and who has shown a membership.
//!
//! Pure: no IO, and the time comes in. Invariant: a peer is admitted only while the membership that it showed is signed by
//! a trusted authority, has not expired and is not revoked; all three are judged anew at each question, so nothing has
//! to be told to the roster for somebody to be out.

use std::collections::BTreeMap;

use layermesh_proto::{
    NodeId,
    wire::fleet::{REVOCATIONS_PER_MESSAGE_MAX, Revocation},
};
use thiserror::Error;

use super::{
    Refusal, clock,
    record::{self, OpenError, Proved},
};

/// Authorities that are trusted side by side: the old and the new one while keys are changed, and as many spare.
pub const AUTHORITIES_MAX: usize = 4;
/// Revocations that are kept, at some 350 bytes each, in memory and on disk. They are kept for ever: forgetting one would
/// let its subject in again. A fleet that comes near changes its authority, which makes all of them needless.
pub const REVOCATIONS_MAX: usize = 4096;
/// Members whose membership is remembered: a site of a thousand. Who showed it longest ago is forgotten, and shows it
/// again with its next connection.
pub const MEMBERS_MAX: usize = 1024;

/// Why a revocation is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// Not a revocation.
    #[error("not a revocation: {0}")]
    Open(#[from] OpenError),
    /// Not signed by the authority that it names.
    #[error("the revocation is not signed by the authority that it names")]
    Forged,
    /// Of an authority that is not trusted here.
    #[error(
        "authority {0} is not one of this node's fleet: name it in `[fleet] authorities`, or hand this to a node that does"
    )]
    UnknownAuthority(NodeId),
    /// Too many.
    #[error("{REVOCATIONS_MAX} revocations are kept already; change the fleet's authority to begin anew")]
    Full,
}

#[derive(Debug, Clone)]
struct Member {
    proved: Proved,
    /// Grows with each showing.
    shown: u64,
    /// Whether it was told that the member is out.
    told: bool,
}

/// Whom a revocation is about, and whose word it is.
pub type RevocationKey = (NodeId, NodeId);

#[derive(Debug, Clone)]
struct Revoked {
    statement: Revocation,
    record: Vec<u8>,
}

/// Who belongs to the fleet, as far as this node knows.
#[derive(Debug, Default)]
pub struct Roster {
    authorities: Vec<NodeId>,
    revoked: BTreeMap<RevocationKey, Revoked>,
    members: BTreeMap<NodeId, Member>,
    shown: u64,
    floor_unix_s: u64,
}

impl Roster {
    /// A roster that trusts these authorities, the first [`AUTHORITIES_MAX`] of them. `floor_unix_s` is the newest time
    /// that one of them is known to have signed.
    pub fn new(authorities: &[NodeId], floor_unix_s: u64) -> Self {
        let authorities = authorities.iter().copied().take(AUTHORITIES_MAX).collect();
        Self { authorities, floor_unix_s, ..Self::default() }
    }

    /// The trusted authorities.
    pub fn authorities(&self) -> &[NodeId] {
        &self.authorities
    }

    /// The newest time that a trusted authority is known to have signed, in seconds since the Unix epoch.
    pub fn floor_unix_s(&self) -> u64 {
        self.floor_unix_s
    }

    /// The time by which expiry is judged.
    pub fn time(&self, wall_unix_s: u64) -> u64 {
        clock::judged(wall_unix_s, self.floor_unix_s)
    }

    /// A peer shows its credential. If it is admitted, it is so from now on, until it expires or is revoked.
    ///
    /// # Errors
    /// With why it is not admitted.
    pub fn show(&mut self, peer: NodeId, credential: &[u8], wall_unix_s: u64) -> Result<Proved, Refusal> {
        let proved = self.examine(peer, credential, wall_unix_s)?;
        self.shown += 1;
        if self.members.len() >= MEMBERS_MAX
            && !self.members.contains_key(&peer)
            && let Some(oldest) = self.members.iter().min_by_key(|(_, member)| member.shown).map(|(&peer, _)| peer)
        {
            self.members.remove(&oldest);
        }
        self.members.insert(peer, Member { proved, shown: self.shown, told: false });
        Ok(proved)
    }

    /// As [`Roster::show`], but the peer is not admitted by it. What a trusted authority signed counts as known time.
    ///
    /// # Errors
    /// With why it would not be admitted.
    pub fn examine(&mut self, peer: NodeId, credential: &[u8], wall_unix_s: u64) -> Result<Proved, Refusal> {
        if credential.is_empty() {
            return Err(Refusal::NoMembership);
        }
        let proved = record::prove(credential, peer)?;
        if self.authorities.contains(&proved.authority) {
            self.floor_unix_s = self.floor_unix_s.max(proved.stamp_unix_s);
        }
        self.judge(&proved, wall_unix_s)?;
        Ok(proved)
    }

    /// Whether a peer that has shown its credential is admitted now.
    pub fn admits(&self, peer: &NodeId, wall_unix_s: u64) -> Result<(), Refusal> {
        let member = self.members.get(peer).ok_or(Refusal::NoMembership)?;
        self.judge(&member.proved, wall_unix_s)
    }

    /// Whether what was proved counts now.
    pub fn judge(&self, proved: &Proved, wall_unix_s: u64) -> Result<(), Refusal> {
        if !self.authorities.contains(&proved.authority) {
            return Err(Refusal::AnotherFleet);
        }
        if self.is_revoked(&proved.peer) || proved.enrolled_by.is_some_and(|key| self.is_revoked(&key)) {
            return Err(Refusal::Revoked);
        }
        match proved.expires_unix_s {
            Some(expires) if expires <= self.time(wall_unix_s) => Err(Refusal::Expired),
            _ => Ok(()),
        }
    }

    /// Whether a trusted authority has revoked a device or a key.
    pub fn is_revoked(&self, subject: &NodeId) -> bool {
        self.authorities.iter().any(|&authority| self.revoked.contains_key(&(*subject, authority)))
    }

    /// Takes a record of a revocation; says whom it is about if that is news.
    ///
    /// # Errors
    /// If it is none, or none of a trusted authority.
    pub fn revoke(&mut self, bytes: &[u8]) -> Result<Option<RevocationKey>, RevocationError> {
        let (statement, signer) = record::open::<Revocation>(bytes)?;
        if signer != statement.authority {
            return Err(RevocationError::Forged);
        }
        if !self.authorities.contains(&signer) {
            return Err(RevocationError::UnknownAuthority(signer));
        }
        self.floor_unix_s = self.floor_unix_s.max(statement.when_unix_s);
        let key = (statement.subject, signer);
        if self.revoked.contains_key(&key) {
            return Ok(None);
        }
        if self.revoked.len() >= REVOCATIONS_MAX {
            return Err(RevocationError::Full);
        }
        self.revoked.insert(key, Revoked { statement, record: bytes.to_vec() });
        Ok(Some(key))
    }

    /// All revocations.
    pub fn revocations(&self) -> impl Iterator<Item = (&Revocation, &[u8])> {
        self.revoked.values().map(|revoked| (&revoked.statement, revoked.record.as_slice()))
    }

    /// A revocation's record.
    pub fn record_of(&self, key: &RevocationKey) -> Option<&[u8]> {
        self.revoked.get(key).map(|revoked| revoked.record.as_slice())
    }

    /// One hash over whom all revocations are about and whose word they are: two nodes with the same know the same.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for (subject, authority) in self.revoked.keys() {
            hasher.update(subject.public_key());
            hasher.update(authority.public_key());
        }
        *hasher.finalize().as_bytes()
    }

    /// The revocations after one, as many as one message carries, and whether there are more.
    pub fn page(&self, after: Option<RevocationKey>) -> (Vec<Vec<u8>>, bool) {
        use std::ops::Bound;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.revoked.range((from, Bound::Unbounded)).map(|(_, revoked)| revoked.record.clone());
        let page = rest.by_ref().take(REVOCATIONS_PER_MESSAGE_MAX).collect();
        (page, rest.next().is_some())
    }

    /// Members that have shown their membership and would be admitted now.
    pub fn count_members(&self, wall_unix_s: u64) -> usize {
        self.members.values().filter(|member| self.judge(&member.proved, wall_unix_s).is_ok()).count()
    }

    /// Members that are not admitted any more, each told once.
    pub fn sweep(&mut self, wall_unix_s: u64) -> Vec<(NodeId, Refusal)> {
        let known = self.members.iter().filter(|(_, member)| !member.told);
        let judged = known.map(|(&peer, member)| (peer, self.judge(&member.proved, wall_unix_s)));
        let out: Vec<_> = judged.filter_map(|(peer, judged)| Some((peer, judged.err()?))).collect();
        for (peer, _) in &out {
            if let Some(member) = self.members.get_mut(peer) {
                member.told = true;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use layermesh_proto::wire::fleet::Enrolment;
    use libp2p::identity::Keypair;

    use super::*;
    use crate::release::clock::BUILT_UNIX_S;

    /// A wall clock that can be right.
    const NOW: u64 = BUILT_UNIX_S + 1_000_000;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).unwrap()
    }

    fn id(seed: u8) -> NodeId {
        record::public(&key(seed)).unwrap()
    }

    fn admitted(authority: u8, peer: u8, issued: u64, expires: Option<u64>) -> Vec<u8> {
        record::to_bytes(&record::admit(&key(authority), id(peer), issued, expires).unwrap()).unwrap()
    }

    fn revocation(by: u8, authority: u8, subject: NodeId, when_unix_s: u64) -> Vec<u8> {
        record::sign(&key(by), &Revocation { authority: id(authority), subject, when_unix_s }).unwrap()
    }

    #[test]
    fn members_are_admitted_until_they_expire() {
        let mut roster = Roster::new(&[id(1)], 0);
        assert_eq!(roster.admits(&id(9), NOW), Err(Refusal::NoMembership));
        assert_eq!(roster.show(id(9), &[], NOW), Err(Refusal::NoMembership));
        assert_eq!(roster.show(id(9), b"junk", NOW), Err(Refusal::Malformed));
        assert_eq!(roster.show(id(9), &admitted(2, 9, NOW, None), NOW), Err(Refusal::AnotherFleet));
        assert_eq!(roster.show(id(9), &admitted(1, 9, 0, Some(NOW)), NOW), Err(Refusal::Expired));
        assert_eq!(roster.admits(&id(9), NOW), Err(Refusal::NoMembership), "refused is not admitted");

        roster.show(id(9), &admitted(1, 9, 0, Some(NOW + 10)), NOW).unwrap();
        assert_eq!(roster.admits(&id(9), NOW + 9), Ok(()));
        assert_eq!(roster.admits(&id(9), NOW + 10), Err(Refusal::Expired));
        assert_eq!((roster.count_members(NOW), roster.count_members(NOW + 10)), (1, 0));
        assert_eq!(roster.sweep(NOW + 10), [(id(9), Refusal::Expired)]);
        assert!(roster.sweep(NOW + 10).is_empty());
    }

    #[test]
    fn a_device_without_a_clock_lets_the_expired_in_until_the_authority_signs_something_later() {
        let mut roster = Roster::new(&[id(1)], 0);
        let expired = admitted(1, 9, NOW - 1000, Some(NOW - 10));
        roster.show(id(9), &expired, 0).unwrap();
        assert_eq!(roster.admits(&id(9), 0), Ok(()), "1970");
        // Another member's newer membership shows that it is later; so would any revocation.
        roster.show(id(8), &admitted(1, 8, NOW, None), 0).unwrap();
        assert_eq!(roster.admits(&id(9), 0), Err(Refusal::Expired));
        assert_eq!((roster.floor_unix_s(), roster.admits(&id(8), 0)), (NOW, Ok(())));
        // A stranger's stamp does not, and neither does an enrolment key's.
        assert!(roster.show(id(7), &admitted(2, 7, NOW + 500_000, None), 0).is_err());
        let statement = Enrolment { authority: id(1), key: id(3), issued_unix_s: NOW, expires_unix_s: NOW + 900_000 };
        let enrolment = record::sign(&key(1), &statement).unwrap();
        let enrolled = record::enrol(&key(3), &enrolment, id(6), NOW + 800_000).unwrap();
        roster.show(id(6), &record::to_bytes(&enrolled).unwrap(), 0).unwrap();
        assert_eq!(roster.floor_unix_s(), NOW);
    }

    #[test]
    fn revocations_count_at_once_for_the_device_or_all_of_a_key() {
        let mut roster = Roster::new(&[id(1)], 0);
        roster.show(id(9), &admitted(1, 9, 0, None), NOW).unwrap();
        assert!(matches!(roster.revoke(&revocation(2, 2, id(9), NOW)), Err(RevocationError::UnknownAuthority(_))));
        assert_eq!(roster.revoke(&revocation(2, 1, id(9), NOW)), Err(RevocationError::Forged));
        assert_eq!(roster.admits(&id(9), NOW), Ok(()));
        let good = revocation(1, 1, id(9), NOW);
        assert_eq!(roster.revoke(&good), Ok(Some((id(9), id(1)))));
        assert_eq!(roster.revoke(&good), Ok(None), "told once");
        assert_eq!(roster.admits(&id(9), NOW), Err(Refusal::Revoked));
        // A newer membership does not help: who stole the device may have an enrolment key.
        assert_eq!(roster.show(id(9), &admitted(1, 9, NOW + 5, None), NOW), Err(Refusal::Revoked));

        let statement = Enrolment { authority: id(1), key: id(3), issued_unix_s: 0, expires_unix_s: NOW + 9 };
        let enrolment = record::sign(&key(1), &statement).unwrap();
        let enrolled = record::to_bytes(&record::enrol(&key(3), &enrolment, id(6), 0).unwrap()).unwrap();
        roster.show(id(6), &enrolled, NOW).unwrap();
        roster.revoke(&revocation(1, 1, id(3), NOW)).unwrap();
        assert_eq!(roster.admits(&id(6), NOW), Err(Refusal::Revoked));
        assert_eq!(roster.show(id(6), &enrolled, NOW), Err(Refusal::Revoked));
    }

    #[test]
    fn two_authorities_stand_side_by_side() {
        let mut both = Roster::new(&[id(1), id(2)], 0);
        both.show(id(8), &admitted(1, 8, 0, None), NOW).unwrap();
        both.show(id(9), &admitted(2, 9, 0, None), NOW).unwrap();
        both.revoke(&revocation(1, 1, id(9), NOW)).unwrap();
        assert_eq!(both.admits(&id(9), NOW), Err(Refusal::Revoked), "either may revoke");
        let mut new = Roster::new(&[id(2)], 0);
        assert_eq!(new.show(id(8), &admitted(1, 8, 0, None), NOW), Err(Refusal::AnotherFleet));
    }

    #[test]
    fn pages_give_all_revocations_and_the_digest_tells_whether_they_differ() {
        let (mut from, mut to) = (Roster::new(&[id(1)], 0), Roster::new(&[id(1)], 0));
        let count = u8::try_from(REVOCATIONS_PER_MESSAGE_MAX + 20).unwrap();
        for subject in 0..count {
            from.revoke(&revocation(1, 1, NodeId::from_public_key([subject; 32]), NOW)).unwrap();
        }
        assert_ne!(from.digest(), to.digest());
        let (first, more) = from.page(None);
        assert!(more && first.len() == REVOCATIONS_PER_MESSAGE_MAX);
        let keys: Vec<_> = first.iter().filter_map(|record| to.revoke(record).unwrap()).collect();
        let (rest, more) = from.page(keys.last().copied());
        assert!(!more && rest.len() == 20);
        rest.iter().for_each(|record| assert!(to.revoke(record).unwrap().is_some()));
        assert_eq!(from.digest(), to.digest());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut roster = Roster::new(&[id(1), id(2), id(3), id(4), id(5)], 0);
        assert_eq!(roster.authorities().len(), AUTHORITIES_MAX);
        let proved = record::prove(&admitted(1, 9, 0, None), id(9)).unwrap();
        for number in 0..u32::try_from(MEMBERS_MAX).unwrap() {
            let mut bytes = [0xaa; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            roster.shown += 1;
            roster.members.insert(NodeId::from_public_key(bytes), Member { proved, shown: roster.shown, told: false });
        }
        roster.show(id(9), &admitted(1, 9, 0, None), NOW).unwrap();
        assert_eq!(roster.members.len(), MEMBERS_MAX);
        assert_eq!(roster.admits(&id(9), NOW), Ok(()));

        let revoked =
            Revoked { statement: Revocation { authority: id(1), subject: id(9), when_unix_s: 0 }, record: Vec::new() };
        for number in 0..u32::try_from(REVOCATIONS_MAX).unwrap() {
            let mut bytes = [0xbb; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            roster.revoked.insert((NodeId::from_public_key(bytes), id(1)), revoked.clone());
        }
        assert_eq!(roster.revoke(&revocation(1, 1, id(9), NOW)), Err(RevocationError::Full));
    }
}
