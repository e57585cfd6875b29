//! Signing targets, snapshot and timestamp, each naming the one before it.

use std::{collections::HashMap, num::NonZeroU64};

use aws_lc_rs::rand::SystemRandom;
use serde::Serialize;
use serde_json::Value;
use tough::{
    editor::signed::SignedRole,
    key_source::KeySource,
    schema::{
        Hashes, KeyHolder, Metafile, Role, RoleId, RoleType, Root, Signed, Snapshot, Targets, Timestamp, key::Key,
    },
};

use super::{Lifetimes, PublisherError};
use crate::release::{
    Release,
    clock::Clock,
    keys::KeyRing,
    set::TARGETS_BYTES_MAX,
    verify::{SIGNED_FIELD, next_version, show_time},
};

/// Version of the specification that `tough` reads and writes.
pub(super) const SPEC_VERSION: &str = "1.0.0";
/// Longest lifetime in days.
const LIFETIME_MAX: u32 = 36_500;

/// What comes before.
#[derive(Clone, Copy)]
pub(super) struct After<'a> {
    /// The root that says which keys sign.
    pub(super) root: &'a Signed<Root>,
    pub(super) targets: NonZeroU64,
    pub(super) snapshot: NonZeroU64,
    pub(super) timestamp: NonZeroU64,
}

/// Files as they are written: name and bytes.
pub(super) struct SignedFiles {
    pub(super) targets: (String, Vec<u8>),
    pub(super) snapshot: (String, Vec<u8>),
    pub(super) timestamp: Vec<u8>,
}

/// Signs the next versions of all but the root.
pub(super) async fn sign(
    after: After<'_>,
    releases: &[Release],
    keys: &KeyRing,
    lifetimes: Lifetimes,
    now_unix_s: u64,
) -> Result<SignedFiles, PublisherError> {
    let root = &after.root.signed;
    let expires = |role| expiry(role, lifetimes, now_unix_s);
    let targets = releases.iter().map(Release::to_target).collect::<Result<HashMap<_, _>, _>>()?;
    let targets = Targets {
        spec_version: SPEC_VERSION.to_owned(),
        version: next_version(after.targets),
        expires: expires(RoleType::Targets)?,
        targets,
        delegations: None,
        _extra: HashMap::new(),
    };
    let targets = sign_role(root, targets, keys).await?;
    if targets.buffer().len() > TARGETS_BYTES_MAX {
        return Err(PublisherError::Full(format!("{} bytes of targets", targets.buffer().len())));
    }
    let mut snapshot =
        Snapshot::new(SPEC_VERSION.to_owned(), next_version(after.snapshot), expires(RoleType::Snapshot)?);
    snapshot.meta.insert("targets.json".to_owned(), metafile(&targets));
    let snapshot = sign_role(root, snapshot, keys).await?;
    let mut timestamp =
        Timestamp::new(SPEC_VERSION.to_owned(), next_version(after.timestamp), expires(RoleType::Timestamp)?);
    timestamp.meta.insert("snapshot.json".to_owned(), metafile(&snapshot));
    timestamp._extra.insert(SIGNED_FIELD.to_owned(), Value::from(now_unix_s));
    let timestamp = sign_role(root, timestamp, keys).await?;
    let file = |name: String, bytes: &Vec<u8>| (name, bytes.clone());
    Ok(SignedFiles {
        targets: file(targets.signed().signed.filename(true), targets.buffer()),
        snapshot: file(snapshot.signed().signed.filename(true), snapshot.buffer()),
        timestamp: timestamp.buffer().clone(),
    })
}

/// Signs a root with its own keys, and with those of the root before it.
pub(super) async fn sign_root(
    root: &Root,
    before: Option<&Root>,
    keys: &KeyRing,
) -> Result<SignedRole<Root>, PublisherError> {
    let own = sign_role(root, root.clone(), keys).await?;
    let Some(before) = before else { return Ok(own) };
    let old = sign_role(before, root.clone(), keys).await?;
    Ok(own.add_old_signatures(old.signed().signatures.clone())?)
}

async fn sign_role<T: Role + Serialize>(root: &Root, role: T, keys: &KeyRing) -> Result<SignedRole<T>, PublisherError> {
    let role_keys = match role.role_id() {
        RoleId::StandardRole(role) => root.roles.get(&role),
        RoleId::DelegatedRole(_) => None,
    };
    let found: Vec<Box<dyn KeySource>> = role_keys.map_or_else(Vec::new, |role| keys.of_role(root, role));
    let needed = role_keys.map_or(1, |role| role.threshold.get());
    if (found.len() as u64) < needed {
        let looked_in = keys.looked_in().to_vec();
        return Err(PublisherError::KeysMissing { role: T::TYPE, needed, found: found.len(), looked_in });
    }
    Ok(SignedRole::new(role, &KeyHolder::Root(root.clone()), &found, &SystemRandom::new()).await?)
}

fn metafile<T: Role + Serialize>(signed: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*signed.length()),
        hashes: Some(Hashes { sha256: signed.sha256().to_vec().into(), _extra: HashMap::new() }),
        version: signed.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

/// Until when something that is signed now may be used.
pub(super) fn expiry(role: RoleType, lifetimes: Lifetimes, now_unix_s: u64) -> Result<jiff::Timestamp, PublisherError> {
    if Clock::credible(now_unix_s, 0) == Clock::None {
        return Err(PublisherError::NoClock(show_time(now_unix_s)));
    }
    let days = lifetimes.of(role);
    if days == 0 || days > LIFETIME_MAX {
        return Err(PublisherError::Lifetime(days));
    }
    let second = now_unix_s.saturating_add(u64::from(days) * 86_400);
    jiff::Timestamp::from_second(i64::try_from(second).unwrap_or(i64::MAX))
        .map_err(|_| PublisherError::NoClock(show_time(now_unix_s)))
}

/// What a key is called in metadata.
pub(super) fn key_id(
    key: &Key,
) -> Result<tough::schema::decoded::Decoded<tough::schema::decoded::Hex>, PublisherError> {
    key.key_id().map_err(|error| PublisherError::Release(error.to_string()))
}
